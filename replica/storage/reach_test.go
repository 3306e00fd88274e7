package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

// onDisk is a store in a directory of the machine's own disk.
func onDisk(dir string) Config {
	return Config{Dir: dir, MemTableBytes: 256 << 10, BlockCacheBytes: 1 << 20, MinFreeBytes: -1}
}

// killed returns a copy of the directory of a store that was killed after it
// had acknowledged n durable writes: all that a dead process leaves behind.
func killed(t *testing.T, n int) string {
	t.Helper()
	dir, rest := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "db")
	s := mustOpen(t, onDisk(dir))
	for i := range n {
		if err := put(s, fmt.Sprintf("d%06d", i), strings.Repeat("v", 100), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(rest, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return rest
}

// damage changes the newest log file in a directory.
func damage(t *testing.T, dir string, change func(b []byte) []byte) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	name := slices.Max(logs)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// end is the length of a log without the zeroes that were allocated ahead.
func end(b []byte) int {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return len(b)
}

func TestNoDamageOfTheLogPassesInSilence(t *testing.T) {
	const writes = 300
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		lost   bool
	}{
		"nothing":           {func(b []byte) []byte { return b }, false},
		"cut by one byte":   {func(b []byte) []byte { return b[:end(b)-1] }, true},
		"cut in the middle": {func(b []byte) []byte { return b[:end(b)/2] }, true},
		"cut to nothing":    {func([]byte) []byte { return nil }, true},
		"a bit flipped in the last record": {func(b []byte) []byte {
			b[end(b)-20] ^= 1
			return b
		}, true},
		"a bit flipped in the middle": {func(b []byte) []byte {
			b[end(b)/2] ^= 1
			return b
		}, true},
		"a page of zeroes in the middle": {func(b []byte) []byte {
			clear(b[8192:12288])
			return b
		}, true},
		"the last page of zeroes": {func(b []byte) []byte {
			clear(b[end(b)-4096:])
			return b
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := killed(t, writes)
			damage(t, dir, c.change)
			s, err := Open(onDisk(dir))
			if err != nil {
				if !c.lost {
					t.Errorf("a killed store does not open: %v", err)
				}
				return // refused, loudly
			}
			s.Start()
			defer s.Close()
			missing := 0
			for i := range writes {
				if _, err := s.Get([]byte(fmt.Sprintf("d%06d", i))); errors.Is(err, ErrNotFound) {
					missing++
				}
			}
			if c.lost && missing == 0 {
				t.Fatal("nothing is missing: the damage was none")
			}
			if got := s.Lost() != nil; got != c.lost {
				t.Errorf("%d of %d writes are missing, Lost is %v", missing, writes, s.Lost())
			}
		})
	}
}

func TestAStoreThatLostWritesNumbersOnAndSaysSoOnce(t *testing.T) {
	dir := killed(t, 100)
	damage(t, dir, func(b []byte) []byte { return b[:end(b)/2] })
	for _, lost := range []bool{true, false} {
		s := mustOpen(t, onDisk(dir))
		if (s.Lost() != nil) != lost {
			t.Errorf("Lost is %v, want a loss: %v", s.Lost(), lost)
		}
		if err := s.SetMeta("noticed", []byte("yes")); err != nil {
			t.Fatal(err)
		}
		if s.Reached() <= 100 {
			t.Errorf("reached %d: numbers are used again", s.Reached())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANoteThatIsGoneCountsAsALoss(t *testing.T) {
	for name, c := range map[string]struct {
		change func(name string) error
		lost   bool
	}{
		"removed": {os.Remove, true},
		"emptied": {func(name string) error { return os.Truncate(name, 0) }, true},
		"one place damaged": {func(name string) error {
			return flip(name, 3)
		}, false},
		"both places damaged": {func(name string) error {
			return errors.Join(flip(name, 3), flip(name, reachPage+3))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := killed(t, 10)
			if err := c.change(filepath.Join(dir, reachName)); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, onDisk(dir))
			defer s.Close()
			if (s.Lost() != nil) != c.lost {
				t.Errorf("Lost is %v, want a loss: %v", s.Lost(), c.lost)
			}
		})
	}
}

// flip inverts one byte of a file.
func flip(name string, at int) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[at] ^= 0xff
	return os.WriteFile(name, b, 0o600)
}

func TestAStoreOfTheReleaseBeforeHasNoNoteAndLostNothing(t *testing.T) {
	dir := killed(t, 10)
	s := mustOpen(t, onDisk(dir))
	if err := s.SetMeta(reachRow, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, reachName)); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, onDisk(dir))
	defer s.Close()
	if s.Lost() != nil {
		t.Errorf("Lost is %v", s.Lost())
	}
}

// Whatever a crash of the machine takes from an honest disk, it is no loss: a
// node must not be doubted for it.
func TestPowerCutsOfAnHonestDiskAreNoLoss(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, mode := range []Fsync{FsyncAlways, FsyncInterval, FsyncOne} {
		disk := vfs.NewCrashableMem()
		for cut := range 12 {
			cfg := smallConfig(disk)
			cfg.Fsync, cfg.FsyncInterval = mode, 5*time.Millisecond
			s := mustOpen(t, cfg)
			if s.Lost() != nil {
				t.Fatalf("seed %d, %v, cut %d: %v", seed, mode, cut, s.Lost())
			}
			for i := range 50 + rng.IntN(400) {
				row := fmt.Sprintf("d%d", rng.IntN(500))
				if _, err := s.Enqueue([]RowOp{{Key: []byte(row), Value: make([]byte, rng.IntN(2000))}}, i%3 > 0, nil); err != nil {
					t.Fatal(err)
				}
				if i%40 == 0 {
					if err := put(s, row, "v", i%80 == 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReachHasTheBytesDrawn(t *testing.T) {
	const want = "010102030405060708"
	got := fmt.Sprintf("%x", appendReach(nil, 0x0102030405060708))
	if len(got) != 2*reachBytes || got[:len(want)] != want {
		t.Errorf("note is %s, want %s and a checksum", got, want)
	}
	if seq, ok := decodeReach(appendReach(nil, 7)); !ok || seq != 7 {
		t.Errorf("read back %d, %v", seq, ok)
	}
	for at := range reachBytes {
		b := appendReach(nil, 7)
		b[at] ^= 4
		if seq, ok := decodeReach(b); ok {
			t.Errorf("byte %d damaged: read %d", at, seq)
		}
	}
}

func TestCompanyOutlivesTheLog(t *testing.T) {
	noted := func(company bool) func(s *Store) error {
		return func(s *Store) error { return s.NoteCompany(company) }
	}
	nothing := func(*Store) error { return nil }
	for name, c := range map[string]struct {
		note   func(s *Store) error
		change func(name string) error // of the note, once the store was killed
		want   bool
	}{
		"never noted":         {nothing, nil, false},
		"noted":               {noted(true), nil, true},
		"ended":               {func(s *Store) error { return errors.Join(s.NoteCompany(true), s.NoteCompany(false)) }, nil, false},
		"page damaged":        {noted(false), func(name string) error { return flip(name, companyPlace*reachPage+1) }, true},
		"places damaged":      {noted(true), func(name string) error { return errors.Join(flip(name, 3), flip(name, reachPage+3)) }, true},
		"of a release before": {noted(false), func(name string) error { return os.Truncate(name, reachPage+reachBytes) }, true},
		"removed":             {noted(false), os.Remove, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, rest := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "db")
			s := mustOpen(t, onDisk(dir))
			if s.Company() {
				t.Error("a new directory has company")
			}
			for i := range 50 { // the first half of the log says that there is a note
				if err := put(s, fmt.Sprintf("d%d", i), "v", true); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(c.note(s), os.CopyFS(rest, os.DirFS(dir)), s.Close()); err != nil {
				t.Fatal(err)
			}
			damage(t, rest, func(b []byte) []byte { return b[:end(b)/2] })
			if c.change != nil {
				if err := c.change(filepath.Join(rest, reachName)); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				s = mustOpen(t, onDisk(rest))
				if s.Company() != c.want {
					t.Errorf("company is %v, want %v (lost: %v)", s.Company(), c.want, s.Lost())
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestCompanyHasTheBytesDrawn(t *testing.T) {
	for _, company := range []bool{false, true} {
		b := appendCompany(nil, company)
		if got, ok := decodeCompany(b); got != company || !ok || b[0] != reachVersion || len(b) != companyBytes {
			t.Errorf("%x reads as %v %v", b, got, ok)
		}
		for at := range b {
			b[at] ^= 1
			if _, ok := decodeCompany(b); ok {
				t.Errorf("byte %d damaged: %x is read", at, b)
			}
			b[at] ^= 1
		}
	}
}

func TestADamagedLogTakesBackNoMoreThanItsAge(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		disk := vfs.NewCrashableMem()
		cfg := smallConfig(disk)
		cfg.LogAge = time.Hour
		s := mustOpen(t, cfg)
		for i, pause := range []time.Duration{30 * time.Minute, 61 * time.Minute, 20 * time.Minute} {
			if err := put(s, fmt.Sprintf("d%d", i), "v", true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(pause)
		}
		turned := s.db.Metrics().Flush.Count
		time.Sleep(24 * time.Hour)
		if n := s.db.Metrics().Flush.Count - turned; n != 1 {
			t.Errorf("%d flushes in a day in which nothing was written, want the one that was due", n)
		}
		if err := put(s, "d3", "v", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * reachInterval)
		rest := disk.CrashClone(vfs.CrashCloneCfg{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for name := range filesOf(t, rest, "db", walSuffix) {
			f, err := rest.Create(name, vfs.WriteCategoryUnspecified) // empty
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		s = mustOpen(t, smallConfig(rest))
		defer s.Close()
		for i := range 3 {
			if _, err := s.Get(fmt.Appendf(nil, "d%d", i)); err != nil {
				t.Errorf("row %d was older than the log may be: %v", i, err)
			}
		}
		if _, err := s.Get([]byte("d3")); !errors.Is(err, ErrNotFound) || s.Lost() == nil {
			t.Errorf("the last row: %v, lost: %v: the damage was none", err, s.Lost())
		}
	})
}
