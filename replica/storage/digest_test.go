package storage

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestDigestRowIsGolden(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "digests.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var c cells
	c[0], c[63] = 0x1122334455667788, 1
	squeeze := strings.NewReplacer(" ", "", "\n", "")
	got := fmt.Sprintf("cell 0 = 0x1122334455667788, cell 63 = 1\n%x\nno cells\n%x\n", appendCells(nil, &c), appendCells(nil, &cells{}))
	if squeeze.Replace(got) != squeeze.Replace(string(want)) {
		t.Errorf("digest row changed:\n%s\nwant\n%s", got, want)
	}
}

func FuzzDecodeCells(f *testing.F) {
	f.Add(appendCells(nil, &cells{1, 0, 2}))
	f.Add([]byte{digestVersion, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCells(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again := appendCells(nil, &c); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes to %x", b, again)
		}
	})
}

// entryOf is what a row adds to the digest of its cell in these tests.
func entryOf(key, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(key)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(value) // a hash takes everything
	return h.Sum64()
}

func verifyEntry(_ uint32, key, value []byte) (uint64, bool) { return entryOf(key, value), true }

// digestHistory writes random data rows with right changes.
type digestHistory struct {
	rng  *rand.Rand
	rows map[string][]byte
}

// sampleSlots are the slots that the rows of a digestHistory are in.
var sampleSlots = []uint16{0, 1, 700, 16383}

func (h *digestHistory) next() RowOp {
	key := fmt.Append(nil, "k", h.rng.IntN(40))
	hash := uint32(entryOf(key, nil))
	op := RowOp{Key: AppendDataKey(nil, sampleSlots[h.rng.IntN(len(sampleSlots))], hash, key)}
	if old, held := h.rows[string(op.Key)]; held {
		op.Change ^= entryOf(key, old)
	}
	if op.Delete = h.rng.IntN(4) == 0; op.Delete {
		delete(h.rows, string(op.Key))
		return op
	}
	op.Value = fmt.Append(nil, h.rng.Uint64())
	op.Change ^= entryOf(key, op.Value)
	h.rows[string(op.Key)] = op.Value
	return op
}

// checkDigests compares the digests with the rows.
func checkDigests(t *testing.T, s *Store, when string) {
	t.Helper()
	for _, slot := range sampleSlots {
		if wrong, err := s.VerifySlot(slot, verifyEntry); err != nil || wrong != 0 {
			t.Errorf("%s: slot %d has %d wrong digests, %v", when, slot, wrong, err)
		}
	}
}

func TestDigestsFollowTheRowsThroughCrashes(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 9))
		h := &digestHistory{rng: rng, rows: map[string][]byte{}}
		fs := vfs.NewCrashableMem()
		cfg := smallConfig(fs)
		cfg.PendingBytes = 4 << 10
		s := mustOpen(t, cfg)
		for round := range 6 {
			for range rng.IntN(300) {
				op := h.next()
				if err := writeOps(s, []RowOp{op}, rng.IntN(8) == 0); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			checkDigests(t, s, fmt.Sprintf("seed %d round %d", seed, round))
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			crashed, err := Open(smallConfig(clone))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			checkDigests(t, crashed, fmt.Sprintf("seed %d after crash %d", seed, round))
			if err := crashed.Close(); err != nil {
				t.Fatal(err)
			}
		}
		digests, version := s.Digests(sampleSlots[1])
		if version == 0 || digests == [CellsPerSlot]uint64{} {
			t.Fatalf("seed %d: no digests: the test shows nothing", seed)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, smallConfig(fs))
		if again, _ := s.Digests(sampleSlots[1]); again != digests {
			t.Errorf("seed %d: digests changed over a clean close", seed)
		}
		checkDigests(t, s, fmt.Sprintf("seed %d after a clean close", seed))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeOps writes and waits.
func writeOps(s *Store, ops []RowOp, durable bool) error {
	done := make(chan error, 1)
	if _, err := s.Enqueue(ops, durable, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func TestWrongDigestsAreFoundAndCorrectedForGood(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, smallConfig(fs))
	key := AppendDataKey(nil, 700, 0xffffffff, []byte("k"))
	if err := writeOps(s, []RowOp{{Key: key, Value: []byte("v"), Change: 12345}}, true); err != nil {
		t.Fatal(err)
	}
	_, before := s.Digests(700)
	if wrong, err := s.VerifySlot(700, func(uint32, []byte, []byte) (uint64, bool) { return 0, false }); wrong != 0 || err != nil {
		t.Errorf("an unreadable row changed %d digests, %v", wrong, err)
	}
	if wrong, err := s.VerifySlot(700, verifyEntry); wrong != 1 || err != nil {
		t.Errorf("%d wrong digests found, %v", wrong, err)
	}
	if err := writeOps(s, nil, true); err != nil { // behind the correction
		t.Fatal(err)
	}
	want := entryOf([]byte("k"), []byte("v"))
	if d, after := s.Digests(700); d[63] != want || after <= before {
		t.Errorf("digest %x at version %d, want %x above version %d", d[63], after, want, before)
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for what, disk := range map[string]vfs.FS{"from the log": crashed, "from the rows in place": fs} {
		again := mustOpen(t, smallConfig(disk))
		if d, _ := again.Digests(700); d[63] != want {
			t.Errorf("%s: digest %x, want %x", what, d[63], want)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedDigestRowsAreInDoubt(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, smallConfig(fs))
	key := AppendDataKey(nil, 700, 1, []byte("k"))
	if err := writeOps(s, []RowOp{{Key: key, Value: []byte("v"), Change: entryOf([]byte("k"), []byte("v"))}}, true); err != nil {
		t.Fatal(err)
	}
	if s.DigestsDoubtful() {
		t.Error("a new store is in doubt")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: engineFormat, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set(appendDigestKey(nil, 700), []byte("nonsense"), pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, smallConfig(fs))
	defer s.Close()
	if !s.DigestsDoubtful() {
		t.Error("damage was not noticed")
	}
	if wrong, err := s.VerifySlot(700, verifyEntry); wrong != 1 || err != nil {
		t.Errorf("%d wrong digests found, %v", wrong, err)
	}
	if s.TrustDigests(); s.DigestsDoubtful() {
		t.Error("still in doubt")
	}
}

func TestVersionsOfDigestsGrowWithTheirChanges(t *testing.T) {
	s := mustOpen(t, smallConfig(vfs.NewMem()))
	defer s.Close()
	var done atomic.Int64
	for i := range 10 {
		key := AppendDataKey(nil, uint16(i), 1, []byte("k"))
		if _, err := s.Enqueue([]RowOp{{Key: key, Change: uint64(i)}}, false, func(error) { done.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeOps(s, nil, false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		first, last uint16
		want        uint64
	}{{0, 0, 0}, {1, 1, 1}, {0, 9, 9}, {5, 16383, 5}, {10, 16383, 0}} {
		if got := s.DigestVersions(c.first, c.last); got != c.want {
			t.Errorf("slots %d to %d: %d changes, want %d", c.first, c.last, got, c.want)
		}
	}
	if bits.OnesCount(CellsPerSlot) != 1 {
		t.Error("cells are no power of two")
	}
}
