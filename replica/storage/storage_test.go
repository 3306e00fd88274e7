package storage

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/integration/simdisk"
)

// smallConfig is a store that fits a simulated disk.
func smallConfig(fs vfs.FS) Config {
	return Config{FS: simdisk.Of(fs), Dir: "db", MemTableBytes: 256 << 10, BlockCacheBytes: 1 << 20, MinFreeBytes: -1}
}

// mustOpen opens and starts a store.
func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// put writes one row and waits for the outcome.
func put(s *Store, row, value string, durable bool) error {
	done := make(chan error, 1)
	ops := []RowOp{{Key: []byte(row), Value: []byte(value)}}
	if _, err := s.Enqueue(ops, durable, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func TestRowKeysAreGolden(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "keys.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, row := range []struct {
		name string
		key  []byte
	}{
		{"data slot=258 hash=0x03040506 key=ab", AppendDataKey(nil, 258, 0x03040506, []byte("ab"))},
		{"hint target=0x1122334455667788 slot=258 hash=0x03040506 key=ab", AppendHintKey(nil, 0x1122334455667788, 258, 0x03040506, []byte("ab"))},
		{"expiry ms=1700000000000 slot=258 hash=0x03040506 key=ab", AppendExpiryKey(nil, 1700000000000, 258, 0x03040506, []byte("ab"))},
		{"meta format", metaKey("format")},
		{"grave slot=258 hash=0x03040506 key=ab", AppendGraveKey(nil, 258, 0x03040506, []byte("ab"))},
		{"digests slot=258", appendDigestKey(nil, 258)},
		{"hole lo=data slot=258 hash=0x03040506 key=ab", appendHoleKey(nil, AppendDataKey(nil, 258, 0x03040506, []byte("ab")))},
	} {
		fmt.Fprintf(&got, "%s\n  %s\n", row.name, hex.EncodeToString(row.key))
	}
	if got.String() != string(want) {
		t.Errorf("row keys changed:\n%s\nwant\n%s", got.String(), want)
	}
}

func TestRowKeysParseBack(t *testing.T) {
	key := []byte("some key")
	slot, hash, k, ok := ParseDataKey(AppendDataKey(nil, 16383, 0xffffffff, key))
	if !ok || slot != 16383 || hash != 0xffffffff || !bytes.Equal(k, key) {
		t.Errorf("data key: %d %x %q %v", slot, hash, k, ok)
	}
	target, slot, hash, k, ok := ParseHintKey(AppendHintKey(nil, 7, 1, 2, key))
	if !ok || target != 7 || slot != 1 || hash != 2 || !bytes.Equal(k, key) {
		t.Errorf("hint key: %d %d %x %q %v", target, slot, hash, k, ok)
	}
	atMS, slot, hash, k, ok := ParseExpiryKey(AppendExpiryKey(nil, 99, 1, 2, nil))
	if !ok || atMS != 99 || slot != 1 || hash != 2 || len(k) != 0 {
		t.Errorf("expiry key: %d %d %x %q %v", atMS, slot, hash, k, ok)
	}
	if _, _, _, ok := ParseDataKey([]byte("d12345")); ok {
		t.Error("a short data key was accepted")
	}
	if _, _, _, ok := ParseDataKey(AppendHintKey(nil, 7, 1, 2, key)); ok {
		t.Error("a hint key was taken for a data key")
	}
}

func TestRangesHoldExactlyTheirRows(t *testing.T) {
	in := func(row, lo, hi []byte) bool {
		return bytes.Compare(row, lo) >= 0 && bytes.Compare(row, hi) < 0
	}
	lo, hi := DataRange(5, 100, 255)
	for _, c := range []struct {
		slot uint16
		hash uint32
		want bool
	}{{5, 99, false}, {5, 100, true}, {4, 1 << 31, false}, {255, 0xffffffff, true}, {256, 0, false}} {
		if got := in(AppendDataKey(nil, c.slot, c.hash, []byte{0xff, 0xff}), lo, hi); got != c.want {
			t.Errorf("slot %d hash %d in range: %v, want %v", c.slot, c.hash, got, c.want)
		}
	}
	lo, hi = DataRange(0, 0, 0xffff)
	if !in(AppendDataKey(nil, 0xffff, 0xffffffff, []byte{0xff}), lo, hi) {
		t.Error("the last slot is outside of the whole range")
	}
	lo, hi = HintRange(0xffffffffffffffff, 0, 0)
	if !in(AppendHintKey(nil, 0xffffffffffffffff, 3, 3, nil), lo, hi) || in(AppendHintKey(nil, 1, 3, 3, nil), lo, hi) {
		t.Error("hint range of the last target is wrong")
	}
	lo, hi = ExpiryRange(1000)
	if !in(AppendExpiryKey(nil, 1000, 9, 9, []byte("k")), lo, hi) || in(AppendExpiryKey(nil, 1001, 0, 0, nil), lo, hi) {
		t.Error("expiry range does not end at its time")
	}
}

func TestEngineFormatIsTheNewestKnown(t *testing.T) {
	if engineFormat != pebble.FormatNewest {
		t.Errorf("engine writes format %d, the library knows %d: decide on an upgrade", engineFormat, pebble.FormatNewest)
	}
}

func TestWritesOfOneGroupKeepTheirOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, err := Open(smallConfig(vfs.NewMem()))
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range 100 { // before Start: all of them in one group
			ops := []RowOp{{Key: []byte("dk"), Value: fmt.Append(nil, i)}}
			seq, err := s.Enqueue(ops, false, func(error) { order = append(order, i) })
			if err != nil || seq != 1 {
				t.Fatalf("write %d is in batch %d, want all in batch 1 (%v)", i, seq, err)
			}
		}
		s.Start()
		synctest.Wait()
		if !slices.IsSorted(order) || len(order) != 100 {
			t.Errorf("callbacks ran as %v", order)
		}
		if v, err := s.Get([]byte("dk")); string(v) != "99" {
			t.Errorf("last write lost: %q %v", v, err)
		}
		if got := s.meters.commits.Get(); got != 1 {
			t.Errorf("%d commits for one group", got)
		}
		if got := s.meters.syncs.Get(); got != 0 {
			t.Errorf("%d syncs though nothing asked for one", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRowsOfAWriteMayBeReusedAfterEnqueue(t *testing.T) {
	s := mustOpen(t, smallConfig(vfs.NewMem()))
	defer s.Close()
	value := []byte("before")
	done := make(chan error, 1)
	if _, err := s.Enqueue([]RowOp{{Key: []byte("dx"), Value: value}}, false, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	copy(value, "after!")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if v, _ := s.Get([]byte("dx")); string(v) != "before" {
		t.Errorf("row holds %q", v)
	}
}

func TestFullQueueRefusesAndRecovers(t *testing.T) {
	cfg := smallConfig(vfs.NewMem())
	cfg.QueueBytes = 4096
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var accepted, finished int
	for {
		_, err := s.Enqueue([]RowOp{{Key: []byte("dq"), Value: make([]byte, 500)}}, false, func(error) { finished++ })
		if errors.Is(err, ErrBusy) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if accepted++; accepted > 100 {
			t.Fatal("the queue has no bound")
		}
	}
	s.Start()
	if err := put(s, "dr", "v", false); err != nil && !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if finished != accepted {
		t.Errorf("%d of %d accepted writes finished", finished, accepted)
	}
}

func TestCloseCommitsWhatIsQueuedAndRefusesTheRest(t *testing.T) {
	for _, started := range []bool{true, false} {
		fs := vfs.NewMem()
		s, err := Open(smallConfig(fs))
		if err != nil {
			t.Fatal(err)
		}
		if started {
			s.Start()
		}
		var mu sync.Mutex
		acked := 0
		for i := range 1000 {
			ops := []RowOp{{Key: fmt.Appendf(nil, "d%04d", i), Value: []byte("v")}}
			_, err := s.Enqueue(ops, false, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					acked++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if acked != 1000 {
			t.Errorf("started=%v: %d of 1000 writes acknowledged by the end of Close", started, acked)
		}
		if _, err := s.Enqueue([]RowOp{{Key: []byte("d")}}, false, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("enqueue after close: %v", err)
		}
		if _, err := s.Get([]byte("d0001")); !errors.Is(err, ErrClosed) {
			t.Errorf("get after close: %v", err)
		}
		if err := s.Scan([]byte("d"), []byte("e"), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("scan after close: %v", err)
		}
		if _, err := s.Snapshot(nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("snapshot after close: %v", err)
		}
		if err := s.Close(); !errors.Is(err, ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		s = mustOpen(t, smallConfig(fs))
		n := 0
		if err := s.Scan([]byte("d"), []byte("e"), func(_, _ []byte) bool { n++; return true }); err != nil || n != 1000 {
			t.Errorf("reopened store has %d rows, %v", n, err)
		}
		s.Close()
	}
}

func TestSnapshotSeesOneMoment(t *testing.T) {
	s := mustOpen(t, smallConfig(vfs.NewMem()))
	defer s.Close()
	if err := put(s, "da", "1", false); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(s, "da", "2", false); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := snap.Scan([]byte("d"), []byte("e"), func(_, v []byte) bool { got = string(v); return true }); err != nil || got != "1" {
		t.Errorf("snapshot shows %q, %v", got, err)
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
}

// TestASnapshotOfARangeTakesNoOtherRows has many rows pending: none but those of the
// range are taken hold of, and nobody can ask for others.
func TestASnapshotOfARangeTakesNoOtherRows(t *testing.T) {
	s := mustOpen(t, smallConfig(vfs.NewMem()))
	defer s.Close()
	for _, row := range []string{"da", "db", "dc", "dd"} {
		if err := put(s, row, row, false); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := s.Snapshot([]byte("db"), []byte("dd"))
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if len(snap.rows) != 2 {
		t.Errorf("%d pending rows are held, of a range with 2", len(snap.rows))
	}
	var got []string
	collect := func(_, v []byte) bool { got = append(got, string(v)); return true }
	if err := snap.Scan([]byte("db"), []byte("dd"), collect); err != nil || !slices.Equal(got, []string{"db", "dc"}) {
		t.Errorf("snapshot shows %q, %v", got, err)
	}
	for _, outside := range [][2][]byte{{[]byte("da"), []byte("dc")}, {[]byte("dc"), []byte("de")}, {[]byte("dc"), nil}, {nil, []byte("dc")}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a scan from %q to %q is answered", outside[0], outside[1])
				}
			}()
			_ = snap.Scan(outside[0], outside[1], collect)
		}()
	}
}

func TestNewerLayoutIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, smallConfig(fs))
	if v, err := s.Meta("format"); err != nil || !bytes.Equal(v, []byte{formatVersion}) {
		t.Fatalf("format row %x, %v", v, err)
	}
	if err := s.SetMeta("format", []byte{formatVersion + 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(smallConfig(fs)); !errors.Is(err, ErrFormatTooNew) {
		t.Errorf("open: %v, want ErrFormatTooNew", err)
	}
}

func TestMetaRowsAreSetAndRemoved(t *testing.T) {
	fs := vfs.NewCrashableMem()
	cfg := smallConfig(fs)
	cfg.Fsync = FsyncInterval // meta rows are synced all the same
	s := mustOpen(t, cfg)
	defer s.Close()
	if err := s.SetMeta("boot", []byte("x")); err != nil {
		t.Fatal(err)
	}
	clone := mustOpen(t, smallConfig(fs.CrashClone(vfs.CrashCloneCfg{})))
	defer clone.Close()
	if v, err := clone.Meta("boot"); string(v) != "x" {
		t.Errorf("meta row after a crash: %q, %v", v, err)
	}
	if err := s.SetMeta("boot", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Meta("boot"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed meta row: %v", err)
	}
}

func TestIntervalModeSyncsWithinTheInterval(t *testing.T) {
	for _, mode := range []Fsync{FsyncInterval, FsyncOne} {
		bubble.Test(t, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			cfg := smallConfig(fs)
			cfg.Fsync = mode
			s := mustOpen(t, cfg)
			defer s.Close()
			if err := put(s, "dk", "v", mode == FsyncInterval); err != nil {
				t.Fatal(err)
			}
			after := func() error {
				c := mustOpen(t, smallConfig(fs.CrashClone(vfs.CrashCloneCfg{})))
				defer c.Close()
				_, err := c.Get([]byte("dk"))
				return err
			}
			if err := after(); !errors.Is(err, ErrNotFound) {
				t.Errorf("%v: a write was synced before the interval: %v", mode, err)
			}
			time.Sleep(1100 * time.Millisecond) // virtual time
			if err := after(); err != nil {
				t.Errorf("%v: not durable after the interval: %v", mode, err)
			}
		})
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := Open(Config{Fsync: 9, MemTableBytes: 1})
	for _, want := range []string{"dir", "fsync (9)", "memtable bytes (1)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %q", err, want)
		}
	}
}

// crashHistory writes random rows from several goroutines, takes the disk as a
// crash would leave it at some moment, and reports which writes acknowledged
// before that moment are missing from it.
func crashHistory(t *testing.T, seed uint64, durable bool) (acked, missing int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, smallConfig(fs))
	crashAfter := 50 + rng.IntN(400)
	unsynced := []int{0, 50, 100}[rng.IntN(3)]
	if !durable {
		unsynced = 0
	}
	var mu sync.Mutex
	last := map[string]int{} // row -> highest acknowledged version
	total := 0
	crash := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-crash:
					return
				default:
				}
				row, filler := fmt.Sprintf("d%d-%d", g, i%20), strings.Repeat("x", (g*i)%900)
				if err := put(s, row, fmt.Sprintf("%08d%s", i, filler), durable); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				mu.Lock()
				last[row] = i
				if total++; total == crashAfter {
					close(crash)
				}
				mu.Unlock()
			}
		})
	}
	<-crash
	mu.Lock()
	want := make(map[string]int, len(last))
	for k, v := range last {
		want[k] = v
	}
	mu.Unlock()
	clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	s2 := mustOpen(t, smallConfig(clone))
	defer s2.Close()
	for row, i := range want {
		v, err := s2.Get([]byte(row))
		if err != nil || len(v) < 8 || string(v[:8]) < fmt.Sprintf("%08d", i) {
			missing++
		}
	}
	return len(want), missing
}

func TestDurableWritesSurviveACrash(t *testing.T) {
	for range 8 {
		seed := rand.Uint64()
		acked, missing := crashHistory(t, seed, true)
		if missing != 0 {
			t.Errorf("seed %d: %d of %d acknowledged rows missing after the crash", seed, missing, acked)
		}
	}
}

func TestCrashHistoryCatchesUnsyncedWrites(t *testing.T) {
	for range 3 {
		seed := rand.Uint64()
		if acked, missing := crashHistory(t, seed, false); missing == 0 {
			t.Errorf("seed %d: none of %d unsynced rows was lost: the crash test proves nothing", seed, acked)
		}
	}
}

// A caller that finds nothing to change answers by what Synced says: what is visible
// and would not survive a crash must not be among it.
func TestWhatIsCommittedIsSyncedOnlyOnceItSurvivesACrash(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := vfs.NewCrashableMem()
		s := mustOpen(t, smallConfig(fs))
		for i := range 20 {
			if err := put(s, fmt.Sprintf("row%d", i), "v", i%7 == 3); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			committed, synced := s.Committed(), s.Synced()
			crashed := mustOpen(t, smallConfig(fs.CrashClone(vfs.CrashCloneCfg{})))
			if survived := crashed.Committed(); synced > survived || synced > committed || i == 0 && synced == committed {
				t.Errorf("after %d writes %d are committed, %d synced, and %d survive", i+1, committed, synced, survived)
			}
			if err := crashed.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
