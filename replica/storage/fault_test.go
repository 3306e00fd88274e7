package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/integration/simdisk"
)

// errDisk is what the failing disk answers.
var errDisk = errors.New("injected disk error")

// faultyDisk is a disk on which the operations that match picks fail once the
// toggle is on.
type faultyDisk struct {
	mem  *vfs.MemFS
	fs   vfs.FS
	on   atomic.Bool
	hits atomic.Int64
}

// newFaultyDisk wraps a crashable file system.
func newFaultyDisk(match func(op errorfs.Op) bool) *faultyDisk {
	d := &faultyDisk{mem: vfs.NewCrashableMem()}
	d.fs = errorfs.Wrap(simdisk.Disk{MemFS: d.mem}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if d.on.Load() && match(op) {
			d.hits.Add(1)
			return errDisk
		}
		return nil
	}))
	return d
}

// kinds matches operations of the given kinds on files with the suffix.
func kinds(suffix string, ks ...errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool {
		for _, k := range ks {
			if op.Kind == k && strings.HasSuffix(op.Path, suffix) {
				return true
			}
		}
		return false
	}
}

func TestFailingLogIsFatalAndNeverAcknowledged(t *testing.T) {
	syncs := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}
	for _, c := range []struct {
		name    string
		durable bool
		match   func(errorfs.Op) bool
	}{
		{"sync of the log", true, kinds(".log", syncs...)},
		{"write to the log", true, kinds(".log", errorfs.OpFileWrite)},
		{"write to the log, no sync asked", false, kinds(".log", errorfs.OpFileWrite)},
		{"creating a new log", true, kinds(".log", errorfs.OpCreate, errorfs.OpReuseForWrite)},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := newFaultyDisk(c.match)
			var fatal atomic.Int64
			cfg := smallConfig(disk.fs)
			cfg.Fatal = func(error) { fatal.Add(1) }
			s := mustOpen(t, cfg)
			acked := map[string]bool{}
			for i := range 50 {
				row := fmt.Sprintf("dbefore%d", i)
				if err := put(s, row, "v", c.durable); err != nil {
					t.Fatal(err)
				}
				acked[row] = c.durable
			}
			disk.on.Store(true)
			failed := false
			for i := range 5000 {
				row := fmt.Sprintf("dafter%d", i)
				err := put(s, row, strings.Repeat("v", 300), c.durable)
				if err == nil {
					acked[row] = c.durable
					continue
				}
				if !errors.Is(err, ErrFailed) {
					t.Fatalf("write %d: %v, want ErrFailed", i, err)
				}
				failed = true
				if i > 4000 {
					break
				}
			}
			if !failed || disk.hits.Load() == 0 {
				t.Fatalf("no write failed (%d injected errors)", disk.hits.Load())
			}
			if n := fatal.Load(); n != 1 {
				t.Errorf("Fatal was called %d times", n)
			}
			after := mustOpen(t, smallConfig(disk.mem.CrashClone(vfs.CrashCloneCfg{})))
			defer after.Close()
			for row, durable := range acked {
				if _, err := after.Get([]byte(row)); durable && err != nil {
					t.Errorf("%s was acknowledged and is gone: %v", row, err)
				}
			}
			if err := s.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("close of a failed store: %v", err)
			}
		})
	}
}

func TestQueuedWritesAllFailWhenTheEngineDoes(t *testing.T) {
	disk := newFaultyDisk(kinds(".log", errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo))
	s, err := Open(smallConfig(disk.fs))
	if err != nil {
		t.Fatal(err)
	}
	disk.on.Store(true)
	var calls, failures atomic.Int64
	write := func() error {
		_, err := s.Enqueue([]RowOp{{Key: []byte("dk"), Value: []byte("v")}}, true, func(err error) {
			calls.Add(1)
			if errors.Is(err, ErrFailed) {
				failures.Add(1)
			}
		})
		return err
	}
	s.Start()
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for write() == nil {
				accepted.Add(1)
			}
		})
	}
	wg.Wait()
	_ = s.Close() // fails with the cause, which another test looks at
	if a, n, f := accepted.Load(), calls.Load(), failures.Load(); n != a || f != a || a == 0 {
		t.Errorf("%d writes accepted, %d callbacks, %d of them with ErrFailed", a, n, f)
	}
}

func TestFullDiskUnderTablesTurnsIntoBusyAndHeals(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		disk := newFaultyDisk(kinds(".sst", errorfs.OpCreate, errorfs.OpFileWrite))
		cfg := smallConfig(disk.fs)
		s := mustOpen(t, cfg)
		disk.on.Store(true)
		accepted, finished := 0, 0
		var busy error
		for i := 0; busy == nil && i < 20000; i++ {
			ops := []RowOp{{Key: fmt.Appendf(nil, "d%06d", i), Value: make([]byte, 400)}}
			_, busy = s.Enqueue(ops, i%16 == 0, func(err error) {
				if err != nil {
					t.Errorf("queued write: %v", err)
				}
				finished++
			})
			if busy == nil {
				accepted++
			}
			if i%64 == 0 {
				time.Sleep(10 * time.Millisecond) // virtual time
			}
		}
		if !errors.Is(busy, ErrBusy) {
			t.Fatalf("after %d writes: %v, want ErrBusy", accepted, busy)
		}
		if !s.Stalled() {
			t.Error("refused, but not stalled")
		}
		if _, err := s.Get([]byte("d000000")); err != nil {
			t.Errorf("read during the stall: %v", err)
		}
		if got := len(rowsOf(t, s.Scan)); got < 64 {
			t.Errorf("scan during the stall shows %d rows", got)
		}
		disk.on.Store(false)
		time.Sleep(10 * time.Second) // virtual time
		if err := put(s, "dz", "v", true); err != nil {
			t.Errorf("write after space came back: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if finished != accepted {
			t.Errorf("%d of %d accepted writes finished", finished, accepted)
		}
	})
}

func TestAlmostFullDiskRefusesWritesAndServesReads(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 2 << 20, TotalBytes: 4 << 20, UsedBytes: 2 << 20})
		cfg := smallConfig(fs)
		cfg.MinFreeBytes = 1 << 20
		s := mustOpen(t, cfg)
		defer s.Close()
		if err := put(s, "dk", "v", true); err != nil {
			t.Fatal(err)
		}
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 19, TotalBytes: 4 << 20, UsedBytes: 3 << 20})
		time.Sleep(2 * time.Second) // virtual time
		err := put(s, "dk", "w", true)
		if !errors.Is(err, ErrDiskFull) || !errors.Is(err, ErrBusy) {
			t.Errorf("write on an almost full disk: %v", err)
		}
		if v, err := s.Get([]byte("dk")); string(v) != "v" || err != nil {
			t.Errorf("read on an almost full disk: %q %v", v, err)
		}
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 2 << 20, TotalBytes: 4 << 20, UsedBytes: 2 << 20})
		time.Sleep(2 * time.Second) // virtual time
		if err := put(s, "dk", "w", true); err != nil {
			t.Errorf("write after space came back: %v", err)
		}
	})
}

func TestFlippedBitsAreCorruptAndNeverAbsent(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	fs := vfs.NewMem()
	s := mustOpen(t, smallConfig(fs))
	for i := range 3000 {
		ops := []RowOp{{Key: fmt.Appendf(nil, "d%05d", i), Value: fmt.Append(nil, rng.Uint64(), rng.Uint64())}}
		if _, err := s.Enqueue(ops, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(s, "dend", "v", true); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// One table, which begins with data rows: a store whose meta rows cannot be
	// read does not open.
	s = mustOpen(t, smallConfig(fs))
	if err := s.db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	flipTables(t, fs, rng)

	var fatal atomic.Int64
	cfg := smallConfig(fs)
	cfg.Fatal = func(error) { fatal.Add(1) }
	s = mustOpen(t, cfg)
	corrupt := 0
	for i := range 3000 {
		_, err := s.Get(fmt.Appendf(nil, "d%05d", i))
		switch {
		case errors.Is(err, ErrCorrupt):
			corrupt++
		case err != nil:
			t.Errorf("seed %d: row %d: %v", seed, i, err)
		}
	}
	if corrupt == 0 || corrupt == 3000 || s.meters.corruptions.Get() == 0 {
		t.Errorf("seed %d: %d rows corrupt, %d reports", seed, corrupt, s.meters.corruptions.Get())
	}
	err := s.Scan([]byte("d"), []byte("e"), func(_, _ []byte) bool { return true })
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("seed %d: scan over corrupt rows: %v", seed, err)
	}
	if n := fatal.Load(); n != 0 {
		t.Errorf("seed %d: a corrupt block was fatal (%d)", seed, n)
	}
	s.Close()
}

// flipTables flips a bit in the first data block of each table.
func flipTables(t *testing.T, fs *vfs.MemFS, rng *rand.Rand) {
	t.Helper()
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		b, err := fs.UnsafeGetFileDataBuffer("db/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b[200+rng.IntN(500)] ^= 1 << rng.IntN(8)
		flipped++
	}
	if flipped == 0 {
		t.Fatal("no table on the disk")
	}
}
