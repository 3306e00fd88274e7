package merkle

import (
	"errors"
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

// model is a partition's keys and the state hashes they have.
type model map[key]uint64

// tree builds the tree of the model from scratch, in map order.
func (m model) tree(leaves int) *Tree {
	t := New(leaves)
	for k, state := range m {
		t.Update(k.slot, k.hash, 0, state)
	}
	return t
}

func randomModel(rnd *rand.Rand, keys int) model {
	m := make(model)
	for range keys {
		m[key{uint16(rnd.IntN(16)), rnd.Uint32()}] = rnd.Uint64() | 1
	}
	return m
}

func randomLeaves(rnd *rand.Rand) int { return MinLeaves << rnd.IntN(7) }

func TestUpdatesGiveTheTreeOfTheFinalKeys(t *testing.T) {
	rnd := seedFor(t, 1)
	for range 30 {
		m := randomModel(rnd, rnd.IntN(300))
		leaves := randomLeaves(rnd)
		got := m.tree(leaves)
		keys := make([]key, 0, len(m))
		for k := range m {
			keys = append(keys, k)
		}
		for range 300 {
			k := key{uint16(rnd.IntN(16)), rnd.Uint32()}
			if len(keys) > 0 && rnd.IntN(3) > 0 {
				k = keys[rnd.IntN(len(keys))]
			}
			keys = append(keys, k)
			old, next := m[k], uint64(0)
			if rnd.IntN(3) > 0 {
				next = rnd.Uint64() | 1
			}
			got.Update(k.slot, k.hash, old, next)
			if m[k] = next; next == 0 {
				delete(m, k)
			}
		}
		if want := m.tree(leaves); !slices.Equal(got.nodes, want.nodes) {
			t.Fatalf("%d keys, %d leaves: updates and rebuilding differ", len(m), leaves)
		}
		for k, state := range m {
			got.Update(k.slot, k.hash, state, 0)
		}
		if got.Root() != 0 || slices.ContainsFunc(got.nodes, func(h uint64) bool { return h != 0 }) {
			t.Fatal("a tree without keys is not zero")
		}
	}
}

func TestDiffFindsExactlyTheLeavesOfDifferingKeys(t *testing.T) {
	rnd := seedFor(t, 2)
	for range 200 {
		leaves, a := randomLeaves(rnd), randomModel(rnd, rnd.IntN(500))
		b := make(model)
		for k, state := range a {
			b[k] = state
		}
		want := make(map[int]bool)
		change := func(k key, state uint64) {
			if b[k] != state {
				want[New(leaves).LeafOf(k.hash)] = true
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
			change(key{3, rnd.Uint32()}, rnd.Uint64()|1)
		}
		got, err := Diff(a.tree(leaves), b.tree(leaves))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || !slices.IsSorted(got) {
			t.Fatalf("%d leaves: %v differ, want %v", leaves, got, want)
		}
		for _, leaf := range got {
			if !want[leaf] {
				t.Fatalf("%d leaves: %v differ, want %v", leaves, got, want)
			}
		}
		if (len(got) == 0) != (a.tree(leaves).Root() == b.tree(leaves).Root()) {
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
		root := model{e.key: e.state}.tree(MinLeaves).Root()
		if root == 0 || seen[root] {
			t.Errorf("the root does not tell %v apart", e)
		}
		seen[root] = true
	}
}

func TestSwappedLeavesChangeTheRoot(t *testing.T) {
	a, b := New(MinLeaves), New(MinLeaves)
	a.nodes[16], a.nodes[17] = 7, 8
	b.nodes[16], b.nodes[17] = 8, 7
	a.foldAll()
	b.foldAll()
	if a.Root() == b.Root() {
		t.Error("children in another order fold to the same node")
	}
}

func TestShrunkIsTheTreeOfTheSameKeysWithFewerLeaves(t *testing.T) {
	rnd := seedFor(t, 3)
	for range 50 {
		m := randomModel(rnd, rnd.IntN(2000))
		large, small := randomLeaves(rnd), randomLeaves(rnd)
		if large < small {
			large, small = small, large
		}
		if got := m.tree(large).Shrunk(small); !slices.Equal(got.nodes, m.tree(small).nodes) {
			t.Fatalf("%d leaves shrunk to %d are not those of the keys", large, small)
		}
	}
}

func TestCloneKeepsWhatItWas(t *testing.T) {
	a := model{{1, 2}: 3}.tree(MinLeaves)
	b := a.Clone()
	root := a.Root()
	a.Update(1, 2, 3, 4)
	if b.Root() != root || a.Root() == root {
		t.Error("a clone shares nodes with its original")
	}
}

func TestLeavesPartitionTheKeyHashes(t *testing.T) {
	for leaves := MinLeaves; leaves <= MaxLeaves; leaves *= 2 {
		tree, next := New(leaves), uint64(0)
		for leaf := range leaves {
			lo, hi := tree.RangeOf(leaf)
			if uint64(lo) != next || tree.LeafOf(lo) != leaf || tree.LeafOf(hi) != leaf {
				t.Fatalf("%d leaves: leaf %d has %#x..%#x", leaves, leaf, lo, hi)
			}
			next = uint64(hi) + 1
		}
		if next != 1<<32 {
			t.Fatalf("%d leaves end at %#x", leaves, next)
		}
	}
}

func TestSizeFollowsTheKeysPatiently(t *testing.T) {
	for _, c := range []struct {
		keys   int64
		leaves int
	}{{0, 16}, {2048, 16}, {2049, 32}, {4096, 32}, {60_000, 512}, {100_000, 1024}, {1 << 40, 1024}} {
		if got := LeavesFor(c.keys); got != c.leaves {
			t.Errorf("%d keys: %d leaves, want %d", c.keys, got, c.leaves)
		}
		if !New(c.leaves).Fits(c.keys) {
			t.Errorf("%d leaves do not fit the %d keys they were made for", c.leaves, c.keys)
		}
	}
	tree := New(64) // for 4097..8192 keys
	for keys, fits := range map[int64]bool{2048: false, 2049: true, 16_384: true, 16_385: false} {
		if tree.Fits(keys) != fits {
			t.Errorf("64 leaves for %d keys: fits is %v", keys, !fits)
		}
	}
}

func TestMismatchedShapesAreRefused(t *testing.T) {
	a := New(64)
	if _, err := Diff(a, New(32)); !errors.Is(err, ErrShape) {
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
	for name, f := range map[string]func(){
		"too few":      func() { New(8) },
		"too many":     func() { New(2048) },
		"no power":     func() { New(48) },
		"shrunk to up": func() { New(16).Shrunk(32) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestOneDifferingKeyCostsFewHashes(t *testing.T) {
	rnd := seedFor(t, 4)
	m := randomModel(rnd, 5000)
	a, b := m.tree(MaxLeaves), m.tree(MaxLeaves)
	b.Update(0, rnd.Uint32(), 0, 1)
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
	if asked != 1+32+32 {
		t.Errorf("%d hashes asked for", asked)
	}
}

func TestUpdateDoesNotAllocate(t *testing.T) {
	tree := New(MaxLeaves)
	if n := testing.AllocsPerRun(100, func() { tree.Update(1, 2, 3, 4) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkUpdate(b *testing.B) {
	tree := New(MaxLeaves)
	for b.Loop() {
		tree.Update(1, 2, 3, 4)
	}
}

func BenchmarkDiffOfOneKey(b *testing.B) {
	x := model{{1, 2}: 3}.tree(MaxLeaves)
	y := New(MaxLeaves)
	for b.Loop() {
		if d, _ := Diff(x, y); len(d) != 1 {
			b.Fatal(d)
		}
	}
}
