package merkle

import (
	"errors"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// seedFor gives a test its random source and prints the seed if it fails.
func seedFor(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

type key struct {
	slot uint16
	hash uint32
}

// model is the keys of a partition that begins at slot 0, and their state hashes.
type model map[key]uint64

// cells digests the model from scratch, in map order.
func (m model) cells(slots int) []uint64 {
	d := make([]uint64, slots*CellsPerSlot)
	for k, state := range m {
		d[CellOf(k.slot, k.hash)] ^= Entry(k.slot, k.hash, state)
	}
	return d
}

func randomModel(rnd *rand.Rand, slots, keys int) model {
	m := make(model)
	for range keys {
		m[key{uint16(rnd.IntN(slots)), rnd.Uint32()}] = rnd.Uint64() | 1
	}
	return m
}

// randomSlots is a number of slots that a partition may have.
func randomSlots(rnd *rand.Rand) int { return 1 << rnd.IntN(5) }

func TestChangesGiveTheDigestsOfTheFinalKeys(t *testing.T) {
	rnd := seedFor(t, 1)
	for range 30 {
		slots := randomSlots(rnd)
		m := randomModel(rnd, slots, rnd.IntN(300))
		got := m.cells(slots)
		keys := make([]key, 0, len(m))
		for k := range m {
			keys = append(keys, k)
		}
		for range 300 {
			k := key{uint16(rnd.IntN(slots)), rnd.Uint32()}
			if len(keys) > 0 && rnd.IntN(3) > 0 {
				k = keys[rnd.IntN(len(keys))]
			}
			keys = append(keys, k)
			old, next := m[k], uint64(0)
			if rnd.IntN(3) > 0 {
				next = rnd.Uint64() | 1
			}
			got[CellOf(k.slot, k.hash)] ^= Change(k.slot, k.hash, old, next)
			if m[k] = next; next == 0 {
				delete(m, k)
			}
		}
		if !slices.Equal(got, m.cells(slots)) {
			t.Fatalf("%d keys in %d slots: changes and a new digest differ", len(m), slots)
		}
		for k, state := range m {
			got[CellOf(k.slot, k.hash)] ^= Change(k.slot, k.hash, state, 0)
		}
		if Fold(got).Root() != 0 || slices.ContainsFunc(Fold(got).nodes, func(h uint64) bool { return h != 0 }) {
			t.Fatal("a tree without keys is not zero")
		}
	}
}

func TestDiffFindsExactlyTheCellsOfDifferingKeys(t *testing.T) {
	rnd := seedFor(t, 2)
	for range 200 {
		slots := randomSlots(rnd)
		a := randomModel(rnd, slots, rnd.IntN(500))
		b := make(model)
		for k, state := range a {
			b[k] = state
		}
		want := make(map[int]bool)
		change := func(k key, state uint64) {
			if b[k] != state {
				want[int(CellOf(k.slot, k.hash))] = true
			}
			if b[k] = state; state == 0 {
				delete(b, k)
			}
		}
		changes := rnd.IntN(6)
		for k := range a { // states changed and keys missing
			if changes--; changes < 0 {
				break
			}
			change(k, rnd.Uint64()*uint64(rnd.IntN(2)))
		}
		for range rnd.IntN(3) { // keys only b has
			change(key{uint16(rnd.IntN(slots)), rnd.Uint32()}, rnd.Uint64()|1)
		}
		x, y := Fold(a.cells(slots)), Fold(b.cells(slots))
		got, err := Diff(x, y)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || !slices.IsSorted(got) {
			t.Fatalf("%d slots: %v differ, want %v", slots, got, want)
		}
		for _, leaf := range got {
			if !want[leaf] {
				t.Fatalf("%d slots: %v differ, want %v", slots, got, want)
			}
		}
		if (len(got) == 0) != (x.Root() == y.Root()) {
			t.Fatalf("roots do not say whether %v differ", got)
		}
	}
}

func TestEachPartOfAnEntryChangesTheRoot(t *testing.T) {
	seen := make(map[uint64]bool)
	for _, e := range []struct {
		key
		state uint64
	}{{key{1, 5}, 9}, {key{2, 5}, 9}, {key{1, 6}, 9}, {key{1, 5}, 8}, {key{1, 9}, 5}, {key{0, 0}, 1}, {key{0, 1}, 1}} {
		root := Fold(model{e.key: e.state}.cells(4)).Root()
		if root == 0 || seen[root] {
			t.Errorf("the root does not tell %v apart", e)
		}
		seen[root] = true
	}
}

func TestSwappedLeavesChangeTheRoot(t *testing.T) {
	if Fold([]uint64{7, 8}).Root() == Fold([]uint64{8, 7}).Root() {
		t.Error("children in another order fold to the same node")
	}
}

func TestTreeKeepsTheMomentItWasMadeOf(t *testing.T) {
	cells := model{{1, 2}: 3}.cells(2)
	a := Fold(cells)
	root := a.Root()
	clear(cells)
	if a.Root() != root || a.nodes[a.Leaves()+int(CellOf(1, 2))] == 0 {
		t.Error("a tree changes with the digests it was made of")
	}
}

func TestCellsPartitionTheKeySpaceInRowOrder(t *testing.T) {
	next := uint64(0) // slot and hash as one number
	for c := range Cell(Cells) {
		lo, hi := c.Hashes()
		if at := uint64(c.Slot())<<32 | uint64(lo); at != next || CellOf(c.Slot(), lo) != c || CellOf(c.Slot(), hi) != c {
			t.Fatalf("cell %d has slot %d, hashes %#x..%#x", c, c.Slot(), lo, hi)
		}
		if c.Index() != int(c)%CellsPerSlot {
			t.Fatalf("cell %d is number %d of its slot", c, c.Index())
		}
		next = uint64(c.Slot())<<32 | uint64(hi) + 1
	}
	if next != Slots<<32 {
		t.Fatalf("the cells end at %#x", next)
	}
}

func TestMismatchedShapesAreRefused(t *testing.T) {
	a := Fold(make([]uint64, 64))
	if _, err := Diff(a, Fold(make([]uint64, 32))); !errors.Is(err, ErrShape) {
		t.Errorf("diff of unlike trees: %v", err)
	}
	for _, c := range []struct {
		level int
		at    []int
	}{{-1, []int{0}}, {7, []int{0}}, {0, []int{1}}, {6, []int{64}}, {6, []int{3, -1}}} {
		if _, err := a.Hashes(nil, c.level, c.at); !errors.Is(err, ErrShape) {
			t.Errorf("hashes of level %d at %v: %v", c.level, c.at, err)
		}
		if _, err := a.Differing(nil, c.level, c.at, make([]uint64, len(c.at))); !errors.Is(err, ErrShape) {
			t.Errorf("differing at level %d at %v: %v", c.level, c.at, err)
		}
	}
	if _, err := a.Differing(nil, 6, []int{1, 2}, []uint64{0}); !errors.Is(err, ErrShape) {
		t.Errorf("an answer too short: %v", err)
	}
}

func TestInvalidSizesPanic(t *testing.T) {
	for _, n := range []int{0, 3, 48} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d leaves: no panic", n)
				}
			}()
			Fold(make([]uint64, n))
		}()
	}
}

func TestOneDifferingKeyCostsFourHashesForTwoLevels(t *testing.T) {
	rnd := seedFor(t, 4)
	for slots := 1; slots <= 16; slots *= 2 {
		m := randomModel(rnd, slots, 5000)
		a := Fold(m.cells(slots))
		m[key{0, rnd.Uint32()}] = 1
		b := Fold(m.cells(slots))
		asked, level, at := 0, 0, []int{0}
		for {
			asked += len(at)
			hashes, err := b.Hashes(nil, level, at)
			if err != nil {
				t.Fatal(err)
			}
			if at, err = a.Differing(nil, level, at, hashes); err != nil || len(at) != 1 {
				t.Fatalf("level %d: %v differ, %v", level, at, err)
			}
			if level == a.Depth() {
				break
			}
			level, at = a.Descend(nil, level, at)
		}
		levels := bits.TrailingZeros(uint(slots * CellsPerSlot))
		if want := 1 + levels/2*4 + levels%2*2; asked != want {
			t.Errorf("%d slots: %d hashes asked for, want %d", slots, asked, want)
		}
	}
}

func TestFilledAreTheLeavesThatAreNotEmpty(t *testing.T) {
	cells := make([]uint64, 64)
	if got := Filled(nil, cells); len(got) != 0 {
		t.Errorf("of empty cells: %v", got)
	}
	cells[0], cells[17], cells[63] = 1, 2, 3
	if got := Filled([]int{9}, cells); !slices.Equal(got, []int{9, 0, 17, 63}) {
		t.Errorf("filled leaves %v", got)
	}
}

func TestRootIsThatOfTheTree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for depth := range 11 {
		cells := make([]uint64, 1<<depth)
		for i := range cells {
			cells[i] = rng.Uint64()
		}
		want := Fold(cells).Root()
		if got := Root(slices.Clone(cells)); got != want {
			t.Errorf("%d cells: root %#x, that of the tree is %#x", len(cells), got, want)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	cells := randomModel(rand.New(rand.NewPCG(1, 2)), 16, 5000).cells(16)
	for b.Loop() {
		Fold(cells)
	}
}
