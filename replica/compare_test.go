package replica

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// ownRow is a row as the slow model knows it.
type ownRow struct {
	at   Position
	cell merkle.Cell
	key  []byte
	rec  version.Record
}

// ownRows reads every own row of a host, in order.
func ownRows(t testing.TB, h *host) (rows []ownRow) {
	t.Helper()
	err := h.store.Scan([]byte("d"), []byte("e"), func(row, value []byte) bool {
		slot, hash, key, _ := storage.ParseDataKey(row)
		rows = append(rows, ownRow{Position{slot, hash}, merkle.CellOf(slot, hash), bytes.Clone(key), record(t, bytes.Clone(value))})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// crowded makes a host of random rows in a few neighbouring slots and a far one, some of
// them removed again, some in place and some pending. Several keys share a position.
func crowded(t *testing.T, rng *rand.Rand) (h *host, slots []ring.Slot) {
	t.Helper()
	h = newHost(t, vfs.NewMem(), 1, nil)
	slots = []ring.Slot{7, 8, 9, 4000}
	density := []int{20, 400}[rng.IntN(2)]
	write := func(op storage.RowOp) {
		done := make(chan error, 1)
		if _, err := h.store.Enqueue([]storage.RowOp{op}, false, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for _, slot := range slots {
		if rng.IntN(5) == 0 {
			continue // nothing there
		}
		for range rng.IntN(density) {
			hash := rng.Uint32()
			if rng.IntN(3) == 0 {
				hash = uint32(rng.IntN(40)) << 26 // the first of a cell, and shared
			}
			row := storage.AppendDataKey(nil, slot, hash, fmt.Appendf(nil, "key:%d", rng.IntN(1e6)))
			write(storage.RowOp{Key: row, Value: mustEncode(9, 1+rng.Uint64N(1e6), string(make([]byte, rng.IntN(200))))})
			if rng.IntN(6) == 0 {
				write(storage.RowOp{Key: row, Delete: true})
			}
		}
	}
	return h, slots
}

// choose returns some cells of the slots, ascending: runs, holes, single ones.
func choose(rng *rand.Rand, slots []ring.Slot) (cells []merkle.Cell) {
	some, skips := 1+rng.IntN(12), false
	for _, slot := range slots {
		for i := range merkle.CellsPerSlot {
			if i%16 == 0 {
				skips = rng.IntN(3) == 0
			}
			if !skips && rng.IntN(some) < 3 {
				cells = append(cells, merkle.CellOf(slot, 0)+merkle.Cell(i))
			}
		}
	}
	if len(cells) == 0 {
		cells = []merkle.Cell{merkle.CellOf(slots[0], 0)}
	}
	return cells
}

// listCell lists one cell the obvious way: from a hash on, until there are limit states
// with the had of cells before it.
func listCell(rows []ownRow, cell merkle.Cell, from uint32, had, limit int, whole bool) (states []KeyState, next uint32, done bool) {
	for _, r := range rows {
		if r.cell != cell || r.at.KeyHash < from {
			continue
		}
		if n := len(states); had+n >= limit && n > 0 && states[n-1].KeyHash != r.at.KeyHash {
			return states, r.at.KeyHash, false
		}
		state := r.rec.StateHash()
		if whole {
			state = r.rec.WholeHash()
		}
		states = append(states, KeyState{r.at.Slot, r.at.KeyHash, state})
	}
	return states, 0, true
}

// listCells lists cell by cell.
func listCells(rows []ownRow, cells []merkle.Cell, from uint32, limit int, whole bool) (list []KeyState, covered int, next uint32) {
	for _, cell := range cells {
		if len(list) >= limit {
			break
		}
		states, next, done := listCell(rows, cell, from, len(list), limit, whole)
		list = append(list, states...)
		if !done {
			return list, covered, next
		}
		covered, from = covered+1, 0
	}
	return list, covered, 0
}

func TestTheListOfARunIsTheListsOfItsCells(t *testing.T) {
	for range 4 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 3))
		h, slots := crowded(t, rng)
		rows := ownRows(t, h)
		for range 20 {
			cells, whole := choose(rng, slots), rng.IntN(2) == 0
			lo, hi := cells[0].Hashes()
			from := []uint32{0, lo, lo + rng.Uint32N(1<<26), hi, ^uint32(0)}[rng.IntN(5)]
			limit := []int{1, 2, 7, 50, 1 << 20}[rng.IntN(5)]
			rd, err := h.Reader(cells[0].Slot(), cells[len(cells)-1].Slot())
			if err != nil {
				t.Fatal(err)
			}
			for len(cells) > 0 { // goes on where it is told
				want, wantCovered, wantNext := listCells(rows, cells, from, limit, whole)
				got, covered, next, err := rd.List(cells, from, limit, whole)
				if err != nil || !slices.Equal(got, want) || covered != wantCovered || next != wantNext {
					t.Fatalf("seed %d: limit %d from %#x of %v: %d states, %d cells, next %#x, %v; want %d, %d, %#x",
						seed, limit, from, cells, len(got), covered, next, err, len(want), wantCovered, wantNext)
				}
				cells, from = cells[covered:], next
			}
			if err := rd.Close(); err != nil {
				t.Fatal(err)
			}
		}
		h.close(t)
	}
}

// rowsAt reads position by position.
func rowsAt(rows []ownRow, at []Position, maxBytes int) (out []KeyRow, n int) {
	for size := 0; n < len(at) && (n == 0 || size < maxBytes); n++ {
		for _, r := range rows {
			if r.at == at[n] {
				row := KeyRow{Key: r.key, State: r.rec.WholeHash(), Record: version.EncodeWire(nil, r.rec)}
				out, size = append(out, row), size+len(row.Key)+len(row.Record)
			}
		}
	}
	return out, n
}

func TestTheRowsAtSeveralPositionsAreThoseAtEach(t *testing.T) {
	for range 4 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 4))
		h, slots := crowded(t, rng)
		rows := ownRows(t, h)
		for range 20 {
			at := []Position{{slots[0], 0}}
			sparse := 1 + rng.IntN(60)
			for _, r := range rows {
				if rng.IntN(sparse) == 0 {
					at = append(at, r.at)
				}
				if rng.IntN(sparse) == 0 {
					at = append(at, Position{r.at.Slot, rng.Uint32()}) // mostly nothing there
				}
			}
			slices.SortFunc(at, func(a, b Position) int { return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.KeyHash, b.KeyHash)) })
			at = slices.Compact(at)
			maxBytes := []int{0, 300, 4000, 1 << 30}[rng.IntN(4)]
			rd, err := h.Reader(at[0].Slot, at[len(at)-1].Slot)
			if err != nil {
				t.Fatal(err)
			}
			want, wantN := rowsAt(rows, at, maxBytes)
			got, n, err := rd.Rows(at, maxBytes)
			if err != nil || n != wantN || !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: %d bytes of %d positions: %d rows at %d, %v; want %d at %d", seed, maxBytes, len(at), len(got), n, err, len(want), wantN)
			}
			if err := rd.Close(); err != nil {
				t.Fatal(err)
			}
		}
		h.close(t)
	}
}
