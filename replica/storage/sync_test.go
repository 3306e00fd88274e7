package storage

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestSyncSyncsInEveryMode(t *testing.T) {
	for _, mode := range []Fsync{FsyncAlways, FsyncInterval, FsyncOne} {
		fs := vfs.NewCrashableMem()
		cfg := smallConfig(fs)
		cfg.Fsync, cfg.FsyncInterval = mode, time.Hour
		s := mustOpen(t, cfg)
		if err := put(s, "dk", "v", false); err != nil {
			t.Fatal(err)
		}
		if s.synced.Load() >= s.Committed() {
			t.Errorf("mode %v: synced without being asked", mode)
		}
		for range 2 { // the second has nothing to do
			done := make(chan error, 1)
			s.Sync(func(err error) { done <- err })
			if err := <-done; err != nil || s.synced.Load() < s.Committed() {
				t.Errorf("mode %v: %v, %d of %d synced", mode, err, s.synced.Load(), s.Committed())
			}
		}
		left := fs.CrashClone(vfs.CrashCloneCfg{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.FS = left
		after := mustOpen(t, cfg)
		if got, err := after.Get([]byte("dk")); err != nil || string(got) != "v" {
			t.Errorf("mode %v: after a loss of power %q, %v", mode, got, err)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
