package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// fakeProof says what a test wants to be proven.
type fakeProof struct {
	mu      sync.Mutex
	session time.Time // of every partition with every other owner; zero: none
	hinted  []int
	away    error
	asked   int
	rings   uint64
	moving  bool
}

func (f *fakeProof) Rings() (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rings, !f.moving
}

func (f *fakeProof) set(change func(f *fakeProof)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeProof) Settled(_ int, since time.Time) (ring.NodeID, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return 7, f.session.After(since)
}

func (f *fakeProof) HintFree(_ context.Context, parts []int) ([]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return slices.DeleteFunc(slices.Clone(parts), func(p int) bool { return slices.Contains(f.hinted, p) }), f.away
}

// reapRig is a host with a Reaper at work.
type reapRig struct {
	*host
	proof  *fakeProof
	reaper *Reaper
	stop   func()
}

func newReapRig(t *testing.T, cfg ReapConfig) *reapRig {
	t.Helper()
	if cfg.RestoreWindow == 0 {
		cfg.RestoreWindow = -1
	}
	h := newHost(t, vfs.NewCrashableMem(), 5, nil)
	x := &reapRig{host: h, proof: &fakeProof{}}
	var err error
	if x.reaper, err = NewReaper(h.Replica, cfg, x.proof); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.reaper.Run(ctx) }()
	x.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.close(t)
	}
	return x
}

// del deletes what the row has.
func (h *host) del(t testing.TB, key string) {
	t.Helper()
	h.do(t, key, 0, version.Op{Kind: version.OpDelete})
}

// held reports whether there is a record of the key.
func (h *host) held(t testing.TB, key string) bool {
	t.Helper()
	rec, _, _, err := h.Read([]byte(key), 0)
	if err != nil {
		t.Fatal(err)
	}
	return !rec.Absent()
}

func TestTombstoneIsDroppedOnProofAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		part := x.partition(ring.SlotOf([]byte("k")))
		x.set(t, "k", "v")
		x.del(t, "k")
		step := func(d time.Duration, want bool, why string) {
			t.Helper()
			time.Sleep(d)
			if got := x.held(t, "k"); got != want {
				t.Fatalf("tombstone held: %v, want %v", got, want)
			}
			if got := x.reaper.Why([]byte("k")); !strings.Contains(got, why) || why == "" && got != "" {
				t.Errorf("why: %q, want %q", got, why)
			}
		}
		began := time.Now()
		step(0, true, "waits to be looked at")
		step(5*time.Hour, true, "exchange with owner 0000000000000007")
		x.proof.set(func(f *fakeProof) { f.session = began })
		step(time.Hour, true, "exchange with owner") // it began before the tombstone was seen
		x.proof.set(func(f *fakeProof) { f.session = time.Now() })
		step(50*time.Second, true, "age of messages")
		x.proof.set(func(f *fakeProof) { f.away = errors.New("node 9 is away") })
		step(time.Hour, true, "node 9 is away")
		x.proof.set(func(f *fakeProof) { f.away, f.hinted = nil, []int{part} })
		step(time.Hour, true, "hints are kept")
		if x.proof.asked < 2 {
			t.Error("nobody was asked for hints")
		}
		x.proof.set(func(f *fakeProof) { f.hinted = nil })
		step(20*time.Second, true, "no hint is kept; waits for the age")
		step(time.Minute, false, "")
		if n := x.reaper.Waiting(); n != 0 {
			t.Errorf("%d graves are kept", n)
		}
		x.stop()
	})
}

// A hint that is gone was delivered, and perhaps more than once: the message that
// nobody answered may come after the one that was acknowledged.
func TestTombstoneOutlivesTheMessagesOfTheLastHint(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		part := x.partition(ring.SlotOf([]byte("k")))
		x.set(t, "k", "v")
		old, _, _, _ := x.Read([]byte("k"), 0)
		x.del(t, "k")
		x.proof.set(func(f *fakeProof) { f.session, f.hinted = time.Now().Add(time.Hour), []int{part} })
		time.Sleep(10 * time.Minute)
		x.proof.set(func(f *fakeProof) { f.hinted = nil })
		time.Sleep(59 * time.Second)
		x.merge(t, "k", old) // sent just before the hint went, and as late as can be
		if rec, _, _, _ := x.Read([]byte("k"), 0); rec.HasLive() {
			t.Error("a message that a hint had left behind brought the key back")
		}
		x.stop()
	})
}

// Two records with one version and different pasts have one state in the trees.
func TestStubThatLearnsMoreIsProvenAnew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		swept := make(chan error, 1)
		go func() { swept <- x.Replica.Run(ctx) }()
		at := time.Now().Add(time.Second).UnixMilli()
		x.do(t, "k", 0, version.Op{Kind: version.OpSet, Value: []byte("v"), Expiry: version.ExpiryAt, ExpireAtMS: at})
		time.Sleep(30 * time.Second)
		x.proof.set(func(f *fakeProof) { f.session = time.Now() })
		time.Sleep(20 * time.Second) // the stub is proven
		sibling := version.Dot{Actor: 900, Counter: 1}
		x.merge(t, "k", version.Record{
			Context:  version.Context{{Actor: 900, Lo: 1, Hi: 1}},
			Versions: []version.Version{{Dot: sibling, HLC: 1, Value: []byte("sibling")}},
		})
		x.do(t, "k", 0, version.Op{Kind: version.OpDelete, Explicit: true, Context: version.Context{{Actor: 900, Lo: 1, Hi: 1}}})
		time.Sleep(time.Hour)
		if !x.held(t, "k") {
			t.Error("what is known of a deleted sibling was dropped by the proof of the time before")
		}
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(time.Hour) })
		time.Sleep(10 * time.Minute)
		if x.held(t, "k") {
			t.Error("a stub is kept for ever")
		}
		cancel()
		if err := <-swept; err != nil {
			t.Error(err)
		}
		x.stop()
	})
}

func TestTombstoneThatChangesIsProvenAnew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		x.set(t, "k", "v")
		x.del(t, "k")
		time.Sleep(30 * time.Second)
		x.proof.set(func(f *fakeProof) { f.session = time.Now() })
		time.Sleep(40 * time.Second)
		x.set(t, "k", "again")
		time.Sleep(10 * time.Second)
		x.del(t, "k") // another tombstone, which no session has seen
		time.Sleep(time.Hour)
		if !x.held(t, "k") {
			t.Error("a tombstone was dropped by the proof of an older one")
		}
		x.set(t, "k", "live")
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(time.Hour) })
		time.Sleep(2 * time.Hour)
		if !x.held(t, "k") || x.reaper.Why([]byte("k")) != "" {
			t.Error("a live key was dropped")
		}
		x.stop()
	})
}

func TestDroppedTombstoneDoesNotComeBackAndHidesNothingNew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		x.set(t, "k", "v")
		x.del(t, "k")
		tomb, _, _, _ := x.Read([]byte("k"), 0)
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(time.Hour) })
		time.Sleep(3 * time.Minute)
		if x.held(t, "k") {
			t.Fatal("not dropped")
		}
		x.merge(t, "k", tomb)
		if x.held(t, "k") {
			t.Error("another owner's copy of the tombstone came back")
		}
		other := tomb
		other.Context = append(slices.Clone(tomb.Context), version.Span{Actor: 900, Lo: 1, Hi: 3})
		x.merge(t, "k", other)
		if !x.held(t, "k") {
			t.Error("a tombstone that knows more was ignored")
		}
		x.set(t, "k", "new")
		x.merge(t, "k", tomb)
		if rec, _, _, _ := x.Read([]byte("k"), 0); len(rec.Versions) != 1 {
			t.Errorf("the dropped tombstone changed a later record: %+v", rec)
		}
		x.stop()
	})
}

// merge joins a record into the own row.
func (x *reapRig) merge(t *testing.T, key string, rec version.Record) {
	t.Helper()
	done := make(chan error, 1)
	x.Merge([]byte(key), 0, version.EncodeWire(nil, rec), true, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestExpiredRecordIsDroppedAndAnExtendedOneStays(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		swept := make(chan error, 1)
		go func() { swept <- x.Replica.Run(ctx) }()
		at := time.Now().Add(10 * time.Second).UnixMilli()
		for _, key := range []string{"gone", "extended"} {
			x.do(t, key, 0, version.Op{Kind: version.OpSet, Value: []byte("v"), Expiry: version.ExpiryAt, ExpireAtMS: at})
		}
		time.Sleep(20 * time.Second)
		rec, _, _, _ := x.Read([]byte("extended"), 0)
		if len(rec.Versions) != 1 || !rec.Versions[0].Stub {
			t.Fatalf("no stub: %+v", rec)
		}
		late := rec.SetExpiry(rec.Versions[0].Dot, version.Cell{HLC: rec.Versions[0].Expiry.HLC + 1, AtMS: time.Now().Add(time.Hour).UnixMilli()})
		x.merge(t, "extended", late)
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(time.Minute) })
		time.Sleep(5 * time.Minute)
		if x.held(t, "gone") || !x.held(t, "extended") {
			t.Errorf("held: gone %v, extended %v", x.held(t, "gone"), x.held(t, "extended"))
		}
		if why := x.reaper.Why([]byte("extended")); !strings.Contains(why, "expiry") {
			t.Errorf("why: %q", why)
		}
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(3 * time.Hour) })
		time.Sleep(2 * time.Hour)
		if x.held(t, "extended") {
			t.Error("the extended one is still there after its time")
		}
		cancel()
		if err := <-swept; err != nil {
			t.Error(err)
		}
		x.stop()
	})
}

func TestPayloadThatIsGoneBeforeItsTimeIsAskedFor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var asked []string
		told := func() []string {
			mu.Lock()
			defer mu.Unlock()
			all := asked
			asked = nil
			return all
		}
		x := newReapRig(t, ReapConfig{RestoreWindow: time.Hour, Refill: func(key []byte) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, string(key))
		}})
		at := time.Now().Add(time.Minute).UnixMilli()
		x.do(t, "early", 0, version.Op{Kind: version.OpSet, Value: []byte("v"), Expiry: version.ExpiryAt, ExpireAtMS: at})
		rec, _, _, _ := x.Read([]byte("early"), 0)
		stub := rec.DropPayload(rec.Versions[0].Dot) // as a clock that is ahead does
		st := x.stripeOf(ring.KeyHash([]byte("early")))
		st.mu.Lock()
		if err := x.storeLocked(st, st.findLocked([]byte("early"), 0), stub, version.EncodeRecord(nil, stub), true, nil); err != nil {
			t.Error(err)
		}
		st.mu.Unlock()
		time.Sleep(15 * time.Second)
		if keys := told(); len(keys) == 0 || keys[0] != "early" {
			t.Errorf("asked for %q", keys)
		}
		time.Sleep(2 * time.Minute)
		told()
		time.Sleep(time.Minute)
		if keys := told(); len(keys) != 0 {
			t.Errorf("asked after its time for %q", keys)
		}
		x.stop()
	})
}

func TestGravesAreExactlyTheRowsWithoutAPayload(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 4))
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 5, nil)
	for range 500 {
		key := fmt.Sprint("k", rng.IntN(40))
		switch rng.IntN(3) {
		case 0:
			h.del(t, key)
		default:
			h.set(t, key, "v")
		}
	}
	want := map[string]bool{}
	err := h.store.Scan([]byte("d"), []byte("e"), func(row, value []byte) bool {
		_, _, key, _ := storage.ParseDataKey(row)
		if rec := record(t, value); bare(rec) {
			want[string(key)] = true
		}
		return true
	})
	lo, hi := storage.AllGraves()
	err = errors.Join(err, h.store.Scan(lo, hi, func(row, _ []byte) bool {
		slot, hash, key, ok := storage.ParseGraveKey(row)
		if !ok || !want[string(key)] || slot != ring.SlotOf(key) || hash != ring.KeyHash(key) {
			t.Errorf("seed %d: grave %x without a bare row", seed, row)
		}
		delete(want, string(key))
		return true
	}))
	if err != nil || len(want) > 0 {
		t.Errorf("seed %d: %d rows without a grave, %v", seed, len(want), err)
	}
	h.close(t)
}

func TestYoungTombstoneIsKeptForCopiesThatArePutBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{RestoreWindow: time.Hour})
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(1000 * time.Hour) })
		x.set(t, "k", "v")
		x.del(t, "k")
		time.Sleep(50 * time.Minute)
		if why := x.reaper.Why([]byte("k")); !x.held(t, "k") || !strings.Contains(why, "kept for 10m0s more") {
			t.Errorf("held %v, why: %q", x.held(t, "k"), why)
		}
		x.merge(t, "k", version.Record{Context: version.Context{{Actor: 900, Lo: 1, Hi: 1}}}) // it is young again
		time.Sleep(50 * time.Minute)
		if !x.held(t, "k") {
			t.Error("a tombstone that changed was dropped by its first age")
		}
		time.Sleep(13 * time.Minute)
		if x.held(t, "k") {
			t.Error("an old tombstone is kept")
		}
		x.stop()
	})
}

func TestReaperKeepsItsBounds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{Batch: 10, Candidates: 50, Interval: time.Second})
		for i := range 120 {
			key := fmt.Sprint("k", i)
			x.set(t, key, "v")
			x.del(t, key)
		}
		time.Sleep(3500 * time.Millisecond)
		if n := x.reaper.Waiting(); n != 30 {
			t.Errorf("%d graves after three looks at ten", n)
		}
		time.Sleep(time.Minute)
		if n := x.reaper.Waiting(); n != 50 {
			t.Errorf("%d graves are waited for, want the bound", n)
		}
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(time.Hour) })
		time.Sleep(20 * time.Minute)
		for i := range 120 {
			if x.held(t, fmt.Sprint("k", i)) {
				t.Errorf("tombstone %d is never reached", i)
			}
		}
		x.stop()
	})
}

// What a hint said may be on its way to another node when it goes.
func TestAHintCountsForAWhileAfterItHasGone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newHost(t, vfs.NewCrashableMem(), 5, nil)
		slot := ring.SlotOf([]byte("k"))
		hinted := func(want bool, when string) {
			t.Helper()
			is, err := h.Hinted(slot, slot, time.Minute)
			if err != nil || is != want {
				t.Errorf("%s: hinted %v, %v", when, is, err)
			}
		}
		hinted(true, "in the first minute of a run")
		time.Sleep(61 * time.Second)
		hinted(false, "after it")
		enc := version.EncodeWire(nil, version.Record{Context: version.Context{{Actor: 900, Lo: 1, Hi: 1}}})
		if err := h.take("k", 7, enc); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		hinted(true, "with an old hint")
		page, err := h.HintPage(7, 0, 0, 1)
		if err != nil || len(page.Hints) != 1 {
			t.Fatal(page, err)
		}
		if dropped, err := h.drop(page.Hints[0], 7); !dropped || err != nil {
			t.Fatal(dropped, err)
		}
		time.Sleep(59 * time.Second)
		hinted(true, "59 s after it has gone")
		time.Sleep(2 * time.Second)
		hinted(false, "a minute after it has gone")
		if is, err := h.Hinted(slot+1000, slot+1000, time.Minute); is || err != nil {
			t.Errorf("another partition: %v, %v", is, err)
		}
		h.close(t)
	})
}

// stuckLog is a disk whose log takes so long to sync.
type stuckLog struct {
	*vfs.MemFS
	wait *atomic.Int64
}

func (d stuckLog) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.MemFS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return stuckFile{f, d.wait}, nil
}

type stuckFile struct {
	vfs.File
	wait *atomic.Int64
}

func (f stuckFile) SyncData() error {
	time.Sleep(time.Duration(f.wait.Load()))
	return f.File.SyncData()
}

func TestTombstoneCountsAsSeenOnlyOnceItIsCommitted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var wait atomic.Int64
		disk := vfs.NewCrashableMem()
		s := openStore(t, disk, func(c *storage.Config) { c.FS = stuckLog{disk, &wait} })
		s.Start()
		h := hostOn(t, s, disk, 5, nil)
		proof := &fakeProof{}
		p, err := NewReaper(h.Replica, ReapConfig{RestoreWindow: -1}, proof)
		if err != nil {
			t.Fatal(err)
		}
		h.set(t, "k", "v")
		h.del(t, "k")
		wait.Store(int64(5 * time.Second))
		busy := make(chan error, 2)
		h.Merge([]byte("other"), 0, version.EncodeWire(nil, version.Record{Context: version.Context{{Actor: 900, Lo: 1, Hi: 1}}}), true, func(err error) { busy <- err })
		time.Sleep(time.Second) // the log is being synced, and what comes now is queued
		more := version.Record{Context: version.Context{{Actor: 901, Lo: 1, Hi: 1}}}
		h.Merge([]byte("k"), 0, version.EncodeWire(nil, more), true, func(err error) { busy <- err })
		if reached := s.Committed(); h.seqOf("k") <= reached {
			t.Fatalf("the tombstone is committed already (%d): this tests nothing", reached)
		}
		queued := time.Now()
		if err := p.collect(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		g := p.mu.graves["k"]
		p.mu.Unlock()
		if g == nil || !g.seen.After(queued.Add(time.Second)) {
			t.Errorf("seen %v after it was queued behind a sync of 5 s: %+v", g.seen.Sub(queued), g)
		}
		wait.Store(0)
		for range 2 {
			if err := <-busy; err != nil {
				t.Error(err)
			}
		}
		h.close(t)
	})
}

// seqOf is the place in the commit order of the last change of an own row.
func (h *host) seqOf(key string) uint64 {
	k := []byte(key)
	st := h.stripeOf(ring.KeyHash(k))
	st.mu.Lock()
	defer st.mu.Unlock()
	e, err := h.lookupLocked(st, k, 0, ring.KeyHash(k))
	if err != nil {
		return 0
	}
	return e.seq
}

// What the owners before agreed on says nothing of those after.
func TestAProofEndsWithTheRingsThatItWasMadeUnder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		defer x.stop()
		x.set(t, "k", "v")
		x.del(t, "k")
		want := func(after time.Duration, held bool) {
			t.Helper()
			time.Sleep(after)
			if x.held(t, "k") != held {
				t.Fatalf("tombstone held: %v, want %v", !held, held)
			}
		}
		x.proof.set(func(f *fakeProof) { f.session, f.moving = time.Now().Add(time.Hour), true })
		want(time.Hour, true) // the rings change
		x.proof.set(func(f *fakeProof) { f.moving = false })
		want(110*time.Second, true) // nearly at the end of the proof
		x.proof.set(func(f *fakeProof) { f.moving = true })
		want(time.Minute, true)
		x.proof.set(func(f *fakeProof) { f.moving, f.rings = false, 2 })
		want(110*time.Second, true)
		want(time.Minute, false)
	})
}

// What is left in a partition that is another's now stands in nobody's way: a grave
// whose record damage took, and one that was as good as dropped when the fence closed.
func TestGravesOfAFencedPartitionHoldUpNoOthers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := newReapRig(t, ReapConfig{})
		graves := func() (n int) {
			lo, hi := storage.AllGraves()
			if err := x.store.Scan(lo, hi, func(_, _ []byte) bool { n++; return true }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		stray := func(key string) {
			op := storage.RowOp{Key: storage.AppendGraveKey(nil, ring.SlotOf([]byte(key)), ring.KeyHash([]byte(key)), []byte(key)), Value: make([]byte, 8)}
			done := make(chan error, 1)
			if _, err := x.store.Enqueue([]storage.RowOp{op}, true, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		partition := func(key string) int { return x.partition(ring.SlotOf([]byte(key))) }
		x.set(t, "moved", "v")
		x.del(t, "moved")
		stray("stray-here")
		stray("stray-there")
		if partition("moved") == partition("k") || partition("stray-there") == partition("k") || partition("stray-here") == partition("moved") {
			t.Fatal("the keys are of one partition")
		}
		x.Fence(partition("stray-there"), true)
		x.proof.set(func(f *fakeProof) { f.session = time.Now().Add(24 * time.Hour) })
		time.Sleep(30 * time.Second) // seen, and not yet ripe
		if x.reaper.Waiting() != 1 {
			t.Fatalf("%d graves are waited for", x.reaper.Waiting())
		}
		x.Fence(partition("moved"), true)
		x.set(t, "k", "v")
		x.del(t, "k")
		time.Sleep(time.Hour)
		if x.held(t, "k") {
			t.Error("a tombstone beside those graves is kept")
		}
		if n := graves(); n != 0 {
			t.Errorf("%d graves are left", n)
		}
		x.stop()
	})
}
