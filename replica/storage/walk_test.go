package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

// TestAWalkFindsWhatScansFind goes through random stretches of a store whose rows are
// pending, in place, overwritten and removed, and compares each with a scan of its own.
func TestAWalkFindsWhatScansFind(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 9))
	for range 6 {
		s := mustOpen(t, busyConfig(vfs.NewMem(), rng))
		h := &history{rng: rng, rows: map[string]string{}}
		for range 30 {
			for range 1 + rng.IntN(40) {
				done := make(chan error, 1)
				if _, err := s.Enqueue(h.next(), false, func(err error) { done <- err }); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			snap, err := s.Snapshot([]byte("d"), []byte("e"))
			if err != nil {
				t.Fatal(err)
			}
			var bounds []string // of the stretches: pairs, ascending, with gaps of any width
			for range 2 * (1 + rng.IntN(20)) {
				bounds = append(bounds, fmt.Sprintf("drow%03d", rng.IntN(160)))
			}
			slices.Sort(bounds)
			hi := []string{"drow100", "e"}[rng.IntN(2)]
			compareStretches(t, seed, snap, bounds, hi, rng)
			if err := snap.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// compareStretches checks one walk that ends at hi, and gives up some of the stretches
// before their end.
func compareStretches(t *testing.T, seed uint64, snap *Snapshot, bounds []string, hi string, rng *rand.Rand) {
	t.Helper()
	w, err := snap.Walk([]byte("d"), []byte(hi))
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(bounds, 2) {
		from, to := pair[0], min(pair[1], hi)
		var got, want []string
		most := rng.IntN(30)
		for ok := w.Seek([]byte(from)); ok && string(w.Row()) < to && len(got) < most; ok = w.Next() {
			v, err := w.Value()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(w.Row())+" "+string(v))
		}
		err := snap.Scan([]byte(min(from, to)), []byte(to), func(row, value []byte) bool {
			if string(row) >= from && len(want) < most {
				want = append(want, string(row)+" "+string(value))
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: from %s to %s of %v: %d rows, want %d", seed, from, to, bounds, len(got), len(want))
		}
	}
	if w.Seek([]byte(hi)) {
		t.Errorf("seed %d: a row past the end", seed)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestASnapshotWithoutAnEndShowsWhatIsPending scans to the end of the store.
func TestASnapshotWithoutAnEndShowsWhatIsPending(t *testing.T) {
	s := parked(t, vfs.NewMem())
	defer s.Close()
	if err := put(s, "da", "1", false); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	var got []string
	if err := snap.Scan([]byte("d"), nil, func(row, _ []byte) bool {
		if row[0] == 'd' { // behind it are the rows of the log
			got = append(got, string(row))
		}
		return true
	}); err != nil || !slices.Equal(got, []string{"da"}) {
		t.Errorf("rows %q, %v", got, err)
	}
}

// TestAWalkIntoDamageDoesNotEnd reads up to a damaged block: what stands behind it is
// unknown, and not absent.
func TestAWalkIntoDamageDoesNotEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, _, rows := damaged(t)
		snap, err := s.Snapshot([]byte("d"), []byte("e"))
		if err != nil {
			t.Fatal(err)
		}
		w, err := snap.Walk([]byte("d"), []byte("e"))
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for ok := w.Seek([]byte("d")); ok; ok = w.Next() {
			if v, err := w.Value(); err != nil || string(v) != rows[string(w.Row())] {
				t.Fatalf("row %q: %d bytes, %v", w.Row(), len(v), err)
			}
			read++
		}
		if read == 0 || read == len(rows) || !errors.Is(w.Err(), ErrCorrupt) {
			t.Errorf("ends after %d rows of %d: %v", read, len(rows), w.Err())
		}
		if w.Seek([]byte("dzzz")) || !errors.Is(w.Err(), ErrCorrupt) {
			t.Errorf("goes on behind damage: %v", w.Err())
		}
		if err := w.Close(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("close: %v", err)
		}
		if err := errors.Join(snap.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
}
