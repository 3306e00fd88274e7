package merkle

import (
	"fmt"
	"math/bits"
)

// The limits of a tree's size, and the keys a leaf should hold.
const (
	MinLeaves = 16
	MaxLeaves = 1024

	keysPerLeaf = 128
)

// LeavesFor gives the size of tree for a number of keys: 64 to 128 keys a leaf
// within the limits.
func LeavesFor(keys int64) int {
	leaves := MinLeaves
	for leaves < MaxLeaves && keys > int64(leaves)*keysPerLeaf {
		leaves *= 2
	}
	return leaves
}

// Tree is the digest of one partition.
type Tree struct {
	depth int
	// nodes is the tree level by level: nodes[1] is the root, those below
	// nodes[i] are nodes[2i] and nodes[2i+1], and the leaves are the last half.
	nodes []uint64
}

// New makes the tree of a partition without keys.
// Requires: leaves is a power of two from MinLeaves to MaxLeaves.
func New(leaves int) *Tree {
	if leaves < MinLeaves || leaves > MaxLeaves || leaves&(leaves-1) != 0 {
		panic(fmt.Sprintf("merkle: %d leaves", leaves))
	}
	return &Tree{depth: bits.TrailingZeros(uint(leaves)), nodes: make([]uint64, 2*leaves)}
}

// Leaves is the number of leaves.
func (t *Tree) Leaves() int { return 1 << t.depth }

// Depth is the level of the leaves; the root's is 0.
func (t *Tree) Depth() int { return t.depth }

// Root is equal for two trees of one shape when they agree on every key.
func (t *Tree) Root() uint64 { return t.nodes[1] }

// Fits reports whether the tree's size will do for a number of keys. It is
// patient, so that a count that wavers does not cause one rebuild after another.
func (t *Tree) Fits(keys int64) bool {
	want := LeavesFor(keys)
	return t.Leaves() <= 2*want && want <= 2*t.Leaves()
}

// LeafOf is the leaf a key belongs to.
func (t *Tree) LeafOf(keyHash uint32) int { return int(keyHash >> (32 - t.depth)) }

// RangeOf gives the least and the greatest key hash of a leaf.
func (t *Tree) RangeOf(leaf int) (lo, hi uint32) {
	lo = uint32(leaf) << (32 - t.depth)
	return lo, lo | (1<<(32-t.depth) - 1)
}

// Update takes a key from one state to another. The states are state hashes;
// zero is no record, so a new key comes from zero and a purged one goes to zero.
func (t *Tree) Update(slot uint16, keyHash uint32, old, new uint64) {
	i := t.Leaves() + t.LeafOf(keyHash)
	t.nodes[i] ^= entry(slot, keyHash, old) ^ entry(slot, keyHash, new)
	for i /= 2; i >= 1; i /= 2 {
		t.nodes[i] = fold(t.nodes[2*i], t.nodes[2*i+1])
	}
}

// entry is what one key adds to its leaf.
func entry(slot uint16, keyHash uint32, state uint64) uint64 {
	if state == 0 {
		return 0
	}
	key := uint64(slot)<<32 | uint64(keyHash)
	return mix64(state ^ mix64(key+0x9E3779B97F4A7C15))
}

// fold is the hash of a node with the given children.
func fold(left, right uint64) uint64 {
	return mix64(left + bits.RotateLeft64(right, 32)*0x9E3779B97F4A7C15)
}

// mix64 is murmur3's 64-bit finaliser, which the library does not export.
func mix64(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}

// foldAll computes every node above the leaves.
func (t *Tree) foldAll() {
	for i := t.Leaves() - 1; i >= 1; i-- {
		t.nodes[i] = fold(t.nodes[2*i], t.nodes[2*i+1])
	}
}

// Clone gives a copy, for an exchange that must not see later updates.
func (t *Tree) Clone() *Tree {
	return &Tree{depth: t.depth, nodes: append([]uint64(nil), t.nodes...)}
}

// Shrunk gives the tree that the same keys make with fewer leaves.
// Requires: leaves is a size New accepts, at most t's own.
func (t *Tree) Shrunk(leaves int) *Tree {
	s := New(leaves)
	if s.depth > t.depth {
		panic(fmt.Sprintf("merkle: %d leaves shrunk to %d", t.Leaves(), leaves))
	}
	for leaf, h := range t.nodes[t.Leaves():] {
		s.nodes[leaves+leaf>>(t.depth-s.depth)] ^= h
	}
	s.foldAll()
	return s
}
