package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

// busyConfig applies every few batches, with pieces and whole generations
// mixed, and flushes often.
func busyConfig(fs vfs.FS, rng *rand.Rand) Config {
	cfg := smallConfig(fs)
	cfg.MemTableBytes = 64 << 10
	cfg.PendingBytes = []int{1, 2 << 10, 16 << 10, 64 << 10, 256 << 10}[rng.IntN(5)]
	return cfg
}

// parked opens a store that commits and applies nothing until it is asked.
func parked(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	cfg := smallConfig(fs)
	cfg.PendingBytes, cfg.PendingAge = 1<<30, time.Hour
	return mustOpen(t, cfg)
}

// rowsOf returns every data row of the store.
func rowsOf(t *testing.T, scan func(lo, hi []byte, fn func(row, value []byte) bool) error) map[string]string {
	t.Helper()
	rows, last := map[string]string{}, ""
	err := scan([]byte("d"), []byte("e"), func(row, value []byte) bool {
		if string(row) <= last {
			t.Errorf("row %q comes after %q", row, last)
		}
		last = string(row)
		rows[last] = string(value)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// logRecords counts the log records that the engine holds.
func logRecords(t *testing.T, s *Store) int {
	t.Helper()
	it, err := newIter(s.db, []byte{kindLog}, []byte{kindLog + 1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := merge(it, nil, func(_, _ []byte) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

// history is a sequence of writes and the rows after each of them. Every write
// sets the row "dn" to its number, so that rows tell which write came last.
type history struct {
	rng  *rand.Rand
	rows map[string]string
	past []map[string]string // rows after the first i writes, if kept
	n    uint64
	keep bool
}

// next returns one more write.
func (h *history) next() []RowOp {
	h.n++
	ops := []RowOp{{Key: []byte("dn"), Value: binary.BigEndian.AppendUint64(nil, h.n)}}
	for range 1 + h.rng.IntN(4) {
		op := RowOp{Key: fmt.Appendf(nil, "drow%03d", h.rng.IntN(150))}
		if op.Delete = h.rng.IntN(3) == 0; !op.Delete {
			op.Value = fmt.Appendf(make([]byte, h.rng.IntN(900)), "%d", h.n)
		}
		ops = append(ops, op)
	}
	for _, op := range ops {
		if h.rows[string(op.Key)] = string(op.Value); op.Delete {
			delete(h.rows, string(op.Key))
		}
	}
	if h.keep {
		h.past = append(h.past, maps.Clone(h.rows))
	}
	return ops
}

func TestReadsSeeTheSameRowsBeforeAndAfterTheyAreApplied(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 4))
	for range 6 {
		s := mustOpen(t, busyConfig(vfs.NewMem(), rng))
		h := &history{rng: rng, rows: map[string]string{}}
		var snap *Snapshot
		var then map[string]string
		for i := range 1500 {
			done := make(chan error, 1)
			if _, err := s.Enqueue(h.next(), false, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			row := fmt.Sprintf("drow%03d", rng.IntN(150))
			want, held := h.rows[row]
			if v, err := s.Get([]byte(row)); (err == nil) != held || string(v) != want || err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatalf("seed %d write %d: %s has %d bytes, %v; want %d, %v", seed, i, row, len(v), err, len(want), held)
			}
			switch i % 50 {
			case 0:
				if got := rowsOf(t, s.Scan); !maps.Equal(got, h.rows) {
					t.Fatalf("seed %d write %d: scan of %d rows differs from the %d that were written", seed, i, len(got), len(h.rows))
				}
				var err error
				if snap, err = s.Snapshot(nil, nil); err != nil {
					t.Fatal(err)
				}
				then = maps.Clone(h.rows)
			case 49:
				if got := rowsOf(t, snap.Scan); !maps.Equal(got, then) {
					t.Fatalf("seed %d write %d: snapshot changed", seed, i)
				}
				if err := snap.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestScanEndsWhereItIsTold(t *testing.T) {
	s := parked(t, vfs.NewMem())
	defer s.Close()
	for i := range 10 {
		if err := put(s, fmt.Sprintf("d%d", i), "v", false); err != nil {
			t.Fatal(err)
		}
		if i == 4 {
			applyNow(t, s)
		}
	}
	for stop := range 10 {
		var got []string
		err := s.Scan([]byte("d0"), []byte("d9"), func(row, _ []byte) bool {
			got = append(got, string(row))
			return len(got) <= stop
		})
		if want := min(stop+1, 9); err != nil || len(got) != want || got[want-1] != fmt.Sprintf("d%d", want-1) {
			t.Errorf("stop after %d: %v, %v", stop, got, err)
		}
	}
	if err := s.Scan([]byte("d5"), []byte("d2"), func(_, _ []byte) bool { t.Error("a row in an empty range"); return true }); err != nil {
		t.Error(err)
	}
}

// applyNow has everything pending applied.
func applyNow(t testing.TB, s *Store) {
	t.Helper()
	signal(s.overlay.ask)
	for deadline := time.Now().Add(10 * time.Second); s.overlay.bytes() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("pending rows were not applied")
		}
	}
}

func TestRowsAreAppliedAndTheirRecordsRemoved(t *testing.T) {
	s := parked(t, vfs.NewMem())
	defer s.Close()
	if err := errors.Join(put(s, "da", "1", true), put(s, "da", "2", true), s.SetMeta("name", []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.db.Get([]byte("da")); !errors.Is(err, pebble.ErrNotFound) || logRecords(t, s) != 3 {
		t.Errorf("before: row %v, %d records; want none and 3", err, logRecords(t, s))
	}
	applyNow(t, s)
	v, closer, err := s.db.Get([]byte("da"))
	if err != nil || string(v) != "2" || logRecords(t, s) != 0 {
		t.Fatalf("after: row %q %v, %d records; want 2 and none", v, err, logRecords(t, s))
	}
	_ = closer.Close() // a read buffer
	if a, r := s.meters.applies.Get(), s.meters.appliedRows.Get(); a != 1 || r != 2 {
		t.Errorf("counted %d applies of %d rows, want 1 of 2", a, r)
	}
	if v, err := s.Meta("name"); string(v) != "x" {
		t.Errorf("meta row %q, %v", v, err)
	}
}

func TestFewRowsAreAppliedWhenTheyAreOld(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		cfg := smallConfig(vfs.NewMem())
		cfg.PendingAge = 3 * time.Second
		s := mustOpen(t, cfg)
		defer s.Close()
		if err := put(s, "da", "1", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // virtual time
		if logRecords(t, s) != 1 || s.meters.pendingBytes.Get() == 0 {
			t.Errorf("after 2 s: %d records, %v bytes", logRecords(t, s), s.meters.pendingBytes.Get())
		}
		time.Sleep(6 * time.Second) // virtual time
		if logRecords(t, s) != 0 || s.meters.pendingBytes.Get() != 0 {
			t.Errorf("after 8 s: %d records, %v bytes", logRecords(t, s), s.meters.pendingBytes.Get())
		}
	})
}

func TestLargeScanAsksForItsRowsToBeApplied(t *testing.T) {
	s := parked(t, vfs.NewMem())
	defer s.Close()
	scan := func(kind byte) {
		if err := s.Scan([]byte{kind}, []byte{kind + 1}, func(_, _ []byte) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	for i := range scanPatience {
		if err := put(s, fmt.Sprintf("d%06d", i), "v", false); err != nil {
			t.Fatal(err)
		}
	}
	scan(kindExpiry)
	scan(kindHint)
	if len(s.overlay.ask) != 0 || s.meters.applies.Get() != 0 {
		t.Error("a scan of other rows asked")
	}
	scan(kindData)
	for deadline := time.Now().Add(10 * time.Second); s.overlay.bytes() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was applied")
		}
	}
}

func TestPendingRowsHaveABound(t *testing.T) {
	cfg := smallConfig(vfs.NewMem())
	cfg.PendingBytes, cfg.QueueBytes = 16<<10, 8<<10
	cfg.StallGrace = time.Millisecond
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.queue.started.Store(true)
	s.wg.Go(s.commitLoop) // and nobody who applies
	var accepted, finished atomic.Int64
	for deadline := time.Now().Add(10 * time.Second); ; {
		ops := []RowOp{{Key: fmt.Appendf(nil, "d%d", accepted.Load()), Value: make([]byte, 100)}}
		_, err := s.Enqueue(ops, true, func(err error) {
			if err == nil {
				finished.Add(1)
			}
		})
		if errors.Is(err, ErrBusy) && s.Stalled() {
			break
		}
		if err == nil {
			accepted.Add(1)
		} else if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			t.Fatalf("%v after %d writes with %d bytes pending", err, accepted.Load(), s.overlay.bytes())
		}
	}
	if n := s.overlay.bytes(); n < 2*cfg.PendingBytes || n > 2*cfg.PendingBytes+cfg.QueueBytes+recordOverhead {
		t.Errorf("%d bytes pending, limit %d", n, cfg.PendingBytes)
	}
	if _, err := s.Get([]byte("d0")); err != nil {
		t.Errorf("read while commits wait: %v", err)
	}
	if got := len(rowsOf(t, s.Scan)); int64(got) != finished.Load() {
		t.Errorf("scan shows %d rows while commits wait, %d are committed", got, finished.Load())
	}
	s.wg.Go(s.applyLoop)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if finished.Load() != accepted.Load() {
		t.Errorf("%d of %d accepted writes finished", finished.Load(), accepted.Load())
	}
}

func TestFailingApplyFailsTheStore(t *testing.T) {
	disk := newFaultyDisk(kinds(".log", errorfs.OpFileWrite))
	fatal := make(chan error, 10)
	cfg := smallConfig(disk.fs)
	cfg.PendingBytes, cfg.PendingAge = 1<<30, time.Hour
	cfg.Fatal = func(err error) { fatal <- err }
	s := mustOpen(t, cfg)
	for i := range 5000 {
		if err := put(s, fmt.Sprintf("d%d", i), "some value", i%100 == 0); err != nil {
			t.Fatal(err)
		}
	}
	disk.on.Store(true)
	signal(s.overlay.ask)
	select {
	case err := <-fatal:
		if !errors.Is(err, ErrFailed) {
			t.Errorf("Fatal heard of %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Fatal was not called")
	}
	if err := put(s, "dx", "v", true); !errors.Is(err, ErrFailed) {
		t.Errorf("write after the failure: %v", err)
	}
	if v, err := s.Get([]byte("d4999")); string(v) != "some value" {
		t.Errorf("committed row after the failure: %q, %v", v, err)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
	after := mustOpen(t, smallConfig(disk.mem.CrashClone(vfs.CrashCloneCfg{})))
	defer after.Close()
	if _, err := after.Get([]byte("d4900")); err != nil {
		t.Errorf("acknowledged row is gone: %v", err)
	}
}

func TestOpenReplaysTheLogAndCountsOn(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := parked(t, fs)
	defer s.Close()
	if err := errors.Join(put(s, "da", "1", true), put(s, "db", "1", true), put(s, "da", "2", true)); err != nil {
		t.Fatal(err)
	}
	last := s.Committed()
	fs = fs.CrashClone(vfs.CrashCloneCfg{})
	for i := range 3 { // the second and third time there is nothing to replay
		again := parked(t, fs)
		if got := rowsOf(t, again.Scan); !maps.Equal(got, map[string]string{"da": "2", "db": "1"}) || logRecords(t, again) != 0 {
			t.Errorf("reopened store has %v and %d records", got, logRecords(t, again))
		}
		if n := again.meters.replayed.Get(); (n == 3) != (i == 0) {
			t.Errorf("open %d replayed %d records", i, n)
		}
		if again.Committed() != last || again.Synced() != last {
			t.Errorf("reopened at %d, %d; want %d", again.Committed(), again.Synced(), last)
		}
		seq, err := again.Enqueue(nil, false, nil)
		if err != nil || seq <= last {
			t.Errorf("next batch is %d after %d, %v", seq, last, err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedLogIsNotOpened(t *testing.T) {
	for name, damage := range map[string]func(key, value []byte) ([]byte, []byte){
		"flipped":   func(k, v []byte) ([]byte, []byte) { v[len(v)/2] ^= 4; return k, v },
		"truncated": func(k, v []byte) ([]byte, []byte) { return k, v[:len(v)-1] },
		"empty":     func(k, v []byte) ([]byte, []byte) { return k, nil },
		"long key":  func(k, v []byte) ([]byte, []byte) { return append(k, 0), v },
	} {
		fs := vfs.NewCrashableMem()
		s := parked(t, fs)
		if err := errors.Join(put(s, "da", "1", true), put(s, "db", "1", true), put(s, "da", "2", true)); err != nil {
			t.Fatal(err)
		}
		fs = fs.CrashClone(vfs.CrashCloneCfg{})
		s.Close()
		db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: engineFormat, Logger: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		key := appendLogKey(nil, 2)
		v, closer, err := db.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		k, v := damage(bytes.Clone(key), bytes.Clone(v))
		if err := errors.Join(closer.Close(), db.Set(k, v, pebble.Sync), db.Close()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // and nothing is thrown away by trying
			if _, err := Open(smallConfig(fs)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: open: %v, want ErrCorrupt", name, err)
			}
		}
	}
}

// quiet is an engine's logger.
type quiet struct{}

func (quiet) Infof(string, ...any)       {}
func (quiet) Errorf(string, ...any)      {}
func (quiet) Fatalf(f string, as ...any) { panic(fmt.Sprintf(f, as...)) }

func TestOlderLayoutIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: engineFormat, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set(metaKey("format"), []byte{oldestFormat - 1}, pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(smallConfig(fs)); !errors.Is(err, ErrFormatTooOld) {
		t.Errorf("open: %v, want ErrFormatTooOld", err)
	}
}

func TestLayoutBeforeHolesIsTakenOver(t *testing.T) {
	fs := vfs.NewMem()
	db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: engineFormat, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set(metaKey("format"), []byte{oldestFormat}, pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, smallConfig(fs))
	if v, err := s.Meta("format"); err != nil || !bytes.Equal(v, []byte{formatVersion}) {
		t.Errorf("format row %x, %v; want %d", v, err, formatVersion)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestCrashLeavesAPrefixWithEveryDurableWrite crashes at random points, also
// while the log of an earlier crash is replayed, and compares what is left with
// the rows after each write: they must be exactly those after some number of
// writes, not below the last one that was acknowledged as durable.
func TestCrashLeavesAPrefixWithEveryDurableWrite(t *testing.T) {
	applies, replays := 0, 0
	for range 12 {
		seed := rand.Uint64()
		a, r := crashRun(t, seed)
		applies, replays = applies+a, replays+r
		if t.Failed() {
			return
		}
	}
	if applies < 50 || replays < 25 {
		t.Errorf("%d applies and %d replays prove little", applies, replays)
	}
}

// crashRun is one history with several crashes in it.
func crashRun(t *testing.T, seed uint64) (applies, replays int) {
	rng := rand.New(rand.NewPCG(seed, 5))
	h := &history{rng: rng, rows: map[string]string{}, keep: true}
	fs := vfs.NewCrashableMem()
	cfg := busyConfig(fs, rng)
	cfg.Metrics = nil
	s := mustOpen(t, cfg)
	var durable atomic.Uint64
	for range 8 {
		for range rng.IntN(400) {
			mustSync := rng.IntN(5) == 0
			ops, n := h.next(), h.n
			for {
				_, err := s.Enqueue(ops, mustSync, func(err error) {
					if err == nil && mustSync {
						durable.Store(n)
					}
				})
				if err == nil {
					break
				}
				if !errors.Is(err, ErrBusy) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				time.Sleep(time.Millisecond)
			}
			if rng.IntN(100) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if rng.IntN(4) == 0 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		acked := durable.Load()
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
		replays += checkCrash(t, seed, rng, h, clone, acked)
	}
	applies = int(s.meters.applies.Get())
	if err := s.Close(); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	again := mustOpen(t, smallConfig(fs))
	defer again.Close()
	if got := rowsOf(t, again.Scan); !maps.Equal(got, h.rows) {
		t.Errorf("seed %d: after a clean close %d rows, want %d", seed, len(got), len(h.rows))
	}
	return applies, replays
}

// checkCrash opens what a crash left, writes a little, crashes that as well, and
// compares both with the history.
func checkCrash(t *testing.T, seed uint64, rng *rand.Rand, h *history, fs *vfs.MemFS, acked uint64) (replays int) {
	t.Helper()
	s, err := Open(busyConfig(fs, rng))
	if err != nil {
		t.Fatalf("seed %d: open after %d durable writes: %v", seed, acked, err)
	}
	if s.meters.replayed.Get() > 0 {
		replays++
	}
	// Only the replay lies between the two crashes, half done for the engine.
	twice := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	first := lastOf(t, seed, h, s, acked)
	s.Start()
	extra := fmt.Sprintf("zextra%d", h.n)
	if err := put(s, extra, "v", true); err != nil {
		t.Fatal(err)
	}
	thrice := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, clone := range []*vfs.MemFS{twice, thrice} {
		s := mustOpen(t, busyConfig(clone, rng))
		if n := lastOf(t, seed, h, s, acked); n != first {
			t.Errorf("seed %d: rows of write %d became those of write %d at crash %d", seed, first, n, i)
		}
		if _, err := s.Get([]byte(extra)); i == 1 && err != nil {
			t.Errorf("seed %d: write after the first crash is gone: %v", seed, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return replays
}

// lastOf returns the number of the write after which the rows of s are those of
// the history. It must not be below acked.
func lastOf(t *testing.T, seed uint64, h *history, s *Store, acked uint64) uint64 {
	t.Helper()
	rows := rowsOf(t, s.Scan)
	var n uint64
	if v := rows["dn"]; v != "" {
		n = binary.BigEndian.Uint64([]byte(v))
	}
	want := map[string]string{}
	if n > 0 {
		want = h.past[n-1]
	}
	if n < acked || !maps.Equal(rows, want) {
		keys := slices.Sorted(maps.Keys(rows))
		t.Errorf("seed %d: rows of write %d, %d was durable; %d rows %v, want %d", seed, n, acked, len(rows), keys, len(want))
	}
	for row, v := range rows {
		if got, err := s.Get([]byte(row)); err != nil || string(got) != v {
			t.Errorf("seed %d: get and scan disagree on %s: %v", seed, row, err)
		}
	}
	return n
}
