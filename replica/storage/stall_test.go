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

// lameDisk is a disk whose log syncs take as long as it is told.
type lameDisk struct {
	vfs.FS
	pause *atomic.Int64
}

func (d lameDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, walSuffix) {
		return f, err
	}
	return lameFile{f, d.pause}, nil
}

type lameFile struct {
	vfs.File
	pause *atomic.Int64
}

func (f lameFile) Sync() error {
	time.Sleep(time.Duration(f.pause.Load()))
	return f.File.Sync()
}

func (f lameFile) SyncData() error {
	time.Sleep(time.Duration(f.pause.Load()))
	return f.File.SyncData()
}

func (f lameFile) SyncTo(n int64) (bool, error) {
	time.Sleep(time.Duration(f.pause.Load()))
	return f.File.SyncTo(n)
}

func TestADiskThatStandsStillEndsTheStoreAndAShortPauseDoesNot(t *testing.T) {
	for _, c := range []struct {
		pause time.Duration
		idle  bool // nobody writes
		fails bool
	}{
		{pause: 2 * time.Second},
		{pause: 15 * time.Second},
		{pause: 15 * time.Second, idle: true},
		{pause: time.Minute, fails: true},
		{pause: time.Minute, idle: true, fails: true},
	} {
		bubble.Test(t, func(t *testing.T) {
			var pause atomic.Int64
			var failed atomic.Pointer[time.Time]
			cfg := smallConfig(lameDisk{vfs.NewMem(), &pause})
			cfg.Fatal = func(error) {
				now := time.Now()
				failed.Store(&now)
			}
			s := mustOpen(t, cfg)
			begin := time.Now()
			pause.Store(int64(c.pause))
			acked := make(chan error, 1)
			if !c.idle {
				go func() { acked <- put(s, "dk", "v", true) }()
			}
			time.Sleep(50 * time.Second)
			pause.Store(0)
			at := failed.Load()
			if (at != nil) != c.fails {
				t.Fatalf("%+v: failed at %v: %v", c, at, s.failureOrNil())
			}
			if c.fails {
				if took := at.Sub(begin); took > 30*time.Second+idleSync+2*time.Second {
					t.Errorf("%+v: noticed after %v", c, took)
				}
				if err := put(s, "dl", "v", true); !errors.Is(err, ErrStalled) {
					t.Errorf("%+v: a later write: %v", c, err)
				}
				if err := s.SetMeta("x", nil); !errors.Is(err, ErrStalled) {
					t.Errorf("%+v: a later meta row: %v", c, err)
				}
			}
			closing := time.Now()
			if err := s.Close(); errors.Is(err, ErrFailed) != c.fails {
				t.Errorf("%+v: close: %v", c, err)
			}
			if took := time.Since(closing); took > 3*failedWait {
				t.Errorf("%+v: close took %v", c, took)
			}
			if !c.idle {
				if err := <-acked; (err != nil) != c.fails {
					t.Errorf("%+v: the write: %v", c, err)
				}
			}
			time.Sleep(time.Minute) // what hung in the disk comes back
		})
	}
}
