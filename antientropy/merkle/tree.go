package merkle

import (
	"fmt"
	"math/bits"
)

// Tree is the digest of one partition.
type Tree struct {
	depth int
	// nodes is the tree level by level: nodes[1] is the root, those below
	// nodes[i] are nodes[2i] and nodes[2i+1], and the leaves are the last half.
	nodes []uint64
}

// Filled appends to dst the leaves of the tree over cells that are not empty, ascending.
// It needs no tree.
func Filled(dst []int, cells []uint64) []int {
	for i, digest := range cells {
		if digest != 0 {
			dst = append(dst, i)
		}
	}
	return dst
}

// Fold makes the tree over the digests of the cells of a partition, in order.
// Requires: their number is a power of two.
func Fold(cells []uint64) *Tree {
	if n := len(cells); n == 0 || n&(n-1) != 0 {
		panic(fmt.Sprintf("merkle: %d leaves", n))
	}
	t := &Tree{depth: bits.TrailingZeros(uint(len(cells))), nodes: make([]uint64, 2*len(cells))}
	copy(t.nodes[len(cells):], cells)
	for i := len(cells) - 1; i >= 1; i-- {
		t.nodes[i] = fold(t.nodes[2*i], t.nodes[2*i+1])
	}
	return t
}

// Root is the root of the tree over cells. It folds in place, so cells are
// spoilt. Requires: their number is a power of two.
func Root(cells []uint64) uint64 {
	if n := len(cells); n == 0 || n&(n-1) != 0 {
		panic(fmt.Sprintf("merkle: %d leaves", n))
	}
	for n := len(cells) / 2; n >= 1; n /= 2 {
		for i := range n {
			cells[i] = fold(cells[2*i], cells[2*i+1])
		}
	}
	return cells[0]
}

// Leaves is the number of leaves.
func (t *Tree) Leaves() int { return 1 << t.depth }

// Depth is the level of the leaves; the root's is 0.
func (t *Tree) Depth() int { return t.depth }

// Root is equal for two trees of one shape when they agree on every key.
func (t *Tree) Root() uint64 { return t.nodes[1] }

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
