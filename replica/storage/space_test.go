package storage

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

// fullDisk says of itself how much is free.
type fullDisk struct {
	vfs.FS
	free  *atomic.Uint64
	total uint64
}

func (d fullDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free.Load(), TotalBytes: d.total}, nil
}

func TestABurstIsRefusedBeforeTheDiskIsLookedAtAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(10 << 20)
		cfg := smallConfig(fullDisk{vfs.NewMem(), &free, 64 << 20})
		cfg.MinFreeBytes = 2 << 20
		s := mustOpen(t, cfg)
		defer s.Close()
		written := 0
		row := strings.Repeat("v", 10_000)
		for {
			_, err := s.Enqueue([]RowOp{{Key: []byte("dk"), Value: []byte(row)}}, false, nil)
			if errors.Is(err, ErrDiskFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if written += len(row); written > 8<<20 {
				t.Fatal("more was taken than the disk has room for")
			}
		}
		if written < 1<<20 {
			t.Errorf("refused after %d bytes", written)
		}
		if !s.DiskFull() {
			t.Error("a store that refuses writes does not say so")
		}
		time.Sleep(15 * time.Second) // it looks, and applies what it has
		if err := put(s, "dk", row, true); err != nil {
			t.Errorf("there is still room: %v", err)
		}
	})
}

// On a full disk what was delivered elsewhere can still be dropped, for as long as
// there is room for the log of it.
func TestAFullDiskStillTakesRemovals(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(100 << 20)
		cfg := smallConfig(fullDisk{vfs.NewMem(), &free, 1 << 30})
		cfg.MinFreeBytes = 8 << 20
		s := mustOpen(t, cfg)
		defer s.Close()
		remove := func(rows ...string) error {
			var ops []RowOp
			for _, r := range rows {
				ops = append(ops, RowOp{Key: []byte(r), Delete: true})
			}
			done := make(chan error, 1)
			if _, err := s.Enqueue(ops, true, func(err error) { done <- err }); err != nil {
				return err
			}
			return <-done
		}
		for _, row := range []string{"da", "db", "dc"} {
			if err := put(s, row, "v", true); err != nil {
				t.Fatal(err)
			}
		}
		limit := s.keepFree(vfs.DiskUsage{TotalBytes: 1 << 30})
		free.Store(uint64(limit - 1<<20)) // 3 MiB above where removals end
		time.Sleep(1100 * time.Millisecond)
		if err := put(s, "dd", "v", true); !errors.Is(err, ErrDiskFull) {
			t.Fatalf("a write on a full disk: %v", err)
		}
		if err := remove("da", "db"); err != nil {
			t.Errorf("a removal on a full disk: %v", err)
		}
		if _, err := s.Get([]byte("da")); !errors.Is(err, ErrNotFound) {
			t.Errorf("after it: %v", err)
		}
		_, err := s.Enqueue([]RowOp{{Key: []byte("dc"), Delete: true}, {Key: []byte("dd"), Value: []byte("v")}}, true, nil)
		if !errors.Is(err, ErrDiskFull) {
			t.Errorf("a write that removes and sets: %v", err)
		}
		long, taken := strings.Repeat("x", 10_000), 0
		for remove("d"+long) == nil {
			if taken += len(long); taken > 3<<20 {
				t.Fatal("removals have no bound before the disk is looked at again")
			}
		}
		free.Store(uint64(limit - 5<<20))
		time.Sleep(1100 * time.Millisecond)
		if err := remove("dc"); !errors.Is(err, ErrDiskFull) {
			t.Errorf("a removal without a reserve: %v", err)
		}
	})
}

func TestTheLimitCanBeAShareOfTheDisk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		cfg := smallConfig(fullDisk{vfs.NewMem(), &free, 1000 << 20})
		cfg.MinFreePercent = 10
		free.Store(90 << 20)
		s := mustOpen(t, cfg)
		defer s.Close()
		for _, c := range []struct {
			free    uint64
			refused bool
		}{{90, true}, {105, true}, {130, false}, {105, false}, {90, true}} {
			free.Store(c.free << 20)
			time.Sleep(1100 * time.Millisecond)
			if err := put(s, "dk", "v", true); errors.Is(err, ErrDiskFull) != c.refused {
				t.Errorf("%d MiB free of 1000: %v, want refused: %v", c.free, err, c.refused)
			}
			if _, err := s.Get([]byte("dk")); err != nil && !errors.Is(err, ErrNotFound) {
				t.Errorf("read: %v", err)
			}
		}
	})
}

func TestASmallDiskGetsSmallMemtables(t *testing.T) {
	for total, want := range map[uint64]int64{8 << 20: 1 << 20, 64 << 20: 4 << 20, 512 << 20: 32 << 20, 1 << 40: 32 << 20, 0: 32 << 20} {
		cfg := Config{Dir: "db", FS: fullDisk{vfs.NewMem(), new(atomic.Uint64), total}}
		if got := cfg.withDefaults().MemTableBytes; got != want {
			t.Errorf("disk of %d bytes: memtables of %d, want %d", total, got, want)
		}
	}
}
