package merkle

import (
	"errors"
	"fmt"
)

// ErrShape says that a question or an answer does not suit the tree: the other
// side's has another number of leaves, or the message is wrong.
var ErrShape = errors.New("merkle: shapes differ")

// stride is the number of levels a comparison goes down at a time.
const stride = 2

// Hashes appends to dst the hashes of the nodes at the given positions of a
// level, which is how a replica answers another.
func (t *Tree) Hashes(dst []uint64, level int, at []int) ([]uint64, error) {
	if err := t.check(level, at); err != nil {
		return dst, err
	}
	for _, i := range at {
		dst = append(dst, t.nodes[1<<level+i])
	}
	return dst, nil
}

// Differing appends to dst those positions of a level at which the other tree's
// hash, given in the same order, is not this one's.
func (t *Tree) Differing(dst []int, level int, at []int, hashes []uint64) ([]int, error) {
	if len(hashes) != len(at) {
		return dst, fmt.Errorf("%w: %d hashes for %d nodes", ErrShape, len(hashes), len(at))
	}
	if err := t.check(level, at); err != nil {
		return dst, err
	}
	for k, i := range at {
		if t.nodes[1<<level+i] != hashes[k] {
			dst = append(dst, i)
		}
	}
	return dst, nil
}

// check guards against positions that came over the network.
func (t *Tree) check(level int, at []int) error {
	if level < 0 || level > t.depth {
		return fmt.Errorf("%w: level %d of %d", ErrShape, level, t.depth)
	}
	for _, i := range at {
		if i < 0 || i >= 1<<level {
			return fmt.Errorf("%w: node %d of %d", ErrShape, i, 1<<level)
		}
	}
	return nil
}

// Descend appends to dst the positions to compare after those of a level were
// found to differ, and gives their level. Requires: level < Depth.
func (t *Tree) Descend(dst []int, level int, at []int) (next int, below []int) {
	next = min(level+stride, t.depth)
	for _, i := range at {
		for j := i << (next - level); j < (i+1)<<(next-level); j++ {
			dst = append(dst, j)
		}
	}
	return next, dst
}

// Diff gives the leaves in which two trees differ, ascending. It makes the same
// steps as an exchange between nodes.
func Diff(a, b *Tree) ([]int, error) {
	if a.depth != b.depth {
		return nil, fmt.Errorf("%w: %d and %d leaves", ErrShape, a.Leaves(), b.Leaves())
	}
	level, at := 0, []int{0}
	for {
		hashes, err := b.Hashes(nil, level, at)
		if err != nil {
			return nil, err
		}
		differ, err := a.Differing(nil, level, at, hashes)
		if err != nil || level == a.depth {
			return differ, err
		}
		level, at = a.Descend(nil, level, differ)
	}
}
