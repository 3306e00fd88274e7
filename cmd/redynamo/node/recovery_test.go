package node

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// truncated returns a copy of a disk whose log is cut to nothing.
func truncated(t *testing.T, disk *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	out := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	names, err := out.List("d/store")
	if err != nil {
		t.Fatal(err)
	}
	cut := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			f, err := out.Create("d/store/"+name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
			cut++
		}
	}
	if cut == 0 {
		t.Fatal("no log to cut")
	}
	return out
}

func TestADirectoryThatLostWritesIsRecoveringUntilSomebodySaysOtherwise(t *testing.T) {
	disk := vfs.NewCrashableMem()
	never := func() uint64 { t.Error("a new node is drawn for a directory that has one"); return 1 }
	opened(t, disk, func(s *storage.Store) {
		if _, err := boot(s, 0, false, func() uint64 { return 42 }); err != nil {
			t.Fatal(err)
		}
	})
	// The identity is in a table by now; what follows is only in the log.
	var rest *vfs.MemFS
	opened(t, disk, func(s *storage.Store) {
		if err := s.SetMeta("x", []byte("acknowledged")); err != nil {
			t.Fatal(err)
		}
		rest = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	})
	names, err := rest.List("d")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			f, err := rest.Create("d/"+name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 { // the second open is whole, and the loss is still one
		opened(t, rest, func(s *storage.Store) {
			id, err := boot(s, 0, false, never)
			if err != nil || id.node != 42 || !id.recovering {
				t.Fatalf("boot: %+v, %v; want node 42, recovering", id, err)
			}
			var r recovery
			r.init(s, s.Reached(), id)
			if !r.on() {
				t.Error("the node does not know that it is recovering")
			}
		})
	}
	opened(t, rest, func(s *storage.Store) {
		id, err := boot(s, 0, false, never)
		if err != nil {
			t.Fatal(err)
		}
		var r recovery
		r.init(s, s.Reached(), id)
		if err := r.restored(id.boots+7, r.reached()+1000); err != nil {
			t.Fatal(err)
		}
		if got := r.now.Load(); got.boots != id.boots+7 || r.reached() < 1000 || !got.recovering {
			t.Errorf("restored: %+v, reached %d", got, r.reached())
		}
	})
	opened(t, rest, func(s *storage.Store) {
		before := s.Reached()
		id, err := boot(s, 0, false, never)
		if err != nil || id.boots < 10 || !id.recovering || id.ahead == 0 || before+id.ahead < 1000 {
			t.Errorf("the boot after a restore: %+v, %v", id, err)
		}
	})
	opened(t, rest, func(s *storage.Store) {
		id, err := boot(s, 0, true, never)
		if err != nil || id.recovering {
			t.Errorf("a boot that accepts the loss: %+v, %v", id, err)
		}
		r := recovery{accept: true}
		r.init(s, s.Reached(), id)
		if err := r.restored(id.boots+7, r.reached()+1000); err != nil || r.on() || r.now.Load().boots != id.boots+7 {
			t.Errorf("restored, and accepted: %+v, %v", r.now.Load(), err)
		}
	})
}

func TestAWholeDirectoryThatTheClusterHasSeenMoreOfIsRecovering(t *testing.T) {
	disk := vfs.NewCrashableMem()
	for _, want := range []bool{false, true} {
		opened(t, disk, func(s *storage.Store) {
			id, err := boot(s, 0, false, func() uint64 { return 42 })
			if err != nil || id.recovering != want {
				t.Fatalf("boot: %+v, %v; want it recovering: %v", id, err, want)
			}
			var r recovery
			r.init(s, s.Reached(), id)
			if err := r.restored(id.boots+1, r.reached()+1); err != nil || !r.on() {
				t.Errorf("restored: %+v, %v", r.now.Load(), err)
			}
		})
	}
}

func TestADirectoryThatLostItsIdentityDrawsNoNewOne(t *testing.T) {
	disk := vfs.NewCrashableMem()
	n := start(t, lone(disk))
	id := n.id.node
	rest := truncated(t, disk)
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), lone(rest)); err == nil || !strings.Contains(err.Error(), "--replace-lost") {
		t.Errorf("start: %v, want it refused with a way out", err)
	}
	if other, err := Start(t.Context(), lone(disk)); err != nil || other.id.node != id {
		t.Errorf("the whole disk: %v", err)
	} else if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTakingOverALostNodeNeedsAnEmptyDirectory(t *testing.T) {
	opened(t, vfs.NewMem(), func(s *storage.Store) {
		id, err := boot(s, 42, false, nil)
		if err != nil || id != (identity{node: 42, boots: 1, recovering: true}) {
			t.Errorf("on an empty directory: %+v, %v", id, err)
		}
		if id, err = boot(s, 42, false, nil); err != nil || id.boots != 2 || !id.recovering {
			t.Errorf("again with the same flag: %+v, %v", id, err)
		}
		if _, err := boot(s, 43, false, nil); err == nil || !strings.Contains(err.Error(), "needs an empty data directory") {
			t.Errorf("with another node's id: %v", err)
		}
	})
}

func TestALoneMemberDoesNotWaitForWhatNobodyHas(t *testing.T) {
	disk := vfs.NewMem()
	s, err := storage.Open(storage.Config{FS: disk, Dir: "d/store"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if err := errors.Join(s.SetMeta(identityRow, identity{node: 42, recovering: true}.encode()), s.Close()); err != nil {
		t.Fatal(err)
	}
	log := new(logged)
	cfg := lone(disk)
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	n := start(t, cfg)
	deadline := time.Now().Add(patience)
	for n.recovery.on() && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	if n.recovery.on() || !strings.Contains(log.String(), "writes that were acknowledged are lost") {
		t.Errorf("recovering: %v; log:\n%s", n.recovery.on(), log)
	}
}

func TestARecoveringNodeShowsWhatItHasAndCountsNothing(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	if got := say(t, n, "SET k v"); got != "+OK" {
		t.Fatal(got)
	}
	local := &localPeer{replica: n.replica, disk: n.disk, recovering: func() bool { return true }}
	reads := make(chan coordinator.ReadReply, 1)
	local.Read(coordinator.ReadRequest{Key: []byte("k"), DigestOnly: true, Deadline: time.Now().Add(patience)},
		func(r coordinator.ReadReply, err error) {
			if err != nil {
				t.Error(err)
			}
			reads <- r
		})
	if r := <-reads; !r.Recovering || r.Record.Absent() {
		t.Errorf("read: %+v, want the whole copy and a doubt", r)
	}
	counted := make(chan error, 2)
	local.Count(coordinator.CountRequest{Deadline: time.Now().Add(patience)}, func(_ int64, err error) { counted <- err })
	local.Scan(coordinator.ScanRange{ToSlot: 9, Limit: 9, Deadline: time.Now().Add(patience)}, func(_ coordinator.ScanReply, err error) { counted <- err })
	for range 2 {
		if err := <-counted; !errors.Is(err, errRecovering) {
			t.Errorf("count or scan: %v", err)
		}
	}
}

func TestRecoveredOfAnEarlierLossChangesNothing(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	ids := &recovery{}
	ids.init(n.store, 0, identity{node: n.id.node, boots: 5, recovering: true})
	other := &Node{recovery: recovery{store: n.store, saving: ids.saving}, members: n.members, cfg: n.cfg}
	other.recovery.now.Store(ids.now.Load())
	for _, c := range []struct {
		boot uint64
		over bool
	}{{4, false}, {6, false}, {5, true}} {
		if err := other.Recovered(c.boot); err != nil || other.recovery.on() == c.over {
			t.Errorf("recovered as of boot %d: %v, recovering %v", c.boot, err, other.recovery.on())
		}
	}
}

func TestADotMintedInOurNameEndsTheNode(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	foreign := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: n.actor, Counter: 1000}, HLC: 9, Value: []byte("v")})
	merged := make(chan error, 1)
	n.local.Merge(coordinator.MergeRequest{Key: []byte("k"), Record: version.EncodeRecord(nil, foreign), Deadline: time.Now().Add(patience)},
		func(err error) { merged <- err })
	if err := <-merged; !errors.Is(err, version.ErrDotReused) {
		t.Errorf("merge: %v", err)
	}
	select {
	case <-n.Done():
	case <-time.After(patience):
		t.Fatal("the node goes on")
	}
	if err := n.Err(); !errors.Is(err, version.ErrDotReused) || !strings.Contains(err.Error(), "clone") {
		t.Errorf("it ended with: %v", err)
	}
	if err := n.Close(context.Background()); !errors.Is(err, version.ErrDotReused) {
		t.Errorf("close: %v", err)
	}
}

func TestReplacingALostNodeNeedsSeeds(t *testing.T) {
	cfg := lone(vfs.NewMem())
	cfg.ReplaceLost = ring.NodeID(7)
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "replace-lost needs join") {
		t.Errorf("start: %v", err)
	}
}
