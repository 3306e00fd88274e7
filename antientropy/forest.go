package antientropy

import (
	"slices"
	"sync"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// forest folds the digests of partitions. It remembers all roots and the last
// tree, and folds anew only what has changed.
type forest struct {
	src   Source
	units int
	mu    struct {
		sync.Mutex
		roots []root
		cells []uint64 // memory for the digests of one partition
		last  folded
	}
}

// folded is a remembered tree: whoever descends asks for one partition several
// times.
type folded struct {
	tree      *merkle.Tree // nil: none yet
	partition int
	version   uint64
}

// root is a remembered root: of the digests at a version.
type root struct {
	folded  bool
	version uint64
	hash    uint64
}

func newForest(src Source, units int) *forest {
	f := &forest{src: src, units: units}
	f.mu.roots = make([]root, units)
	return f
}

// filled appends the leaves of a partition that are not empty, ascending. It folds
// nothing: a whole session asks this of every partition, most of which are equal.
func (f *forest) filled(leaves []int, partition int) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.cells = f.appendCells(f.mu.cells[:0], partition)
	return merkle.Filled(leaves, f.mu.cells)
}

// slots are the first and the last slot of a partition.
func (f *forest) slots(partition int) (first, last ring.Slot) {
	n := ring.Slots / f.units
	return ring.Slot(partition * n), ring.Slot(partition*n + n - 1)
}

// tree folds a partition. A change while it is folded is seen the next time: the
// version is read first.
func (f *forest) tree(partition int) *merkle.Tree {
	version := f.version(partition)
	f.mu.Lock()
	last := f.mu.last
	f.mu.Unlock()
	if last.tree != nil && last.partition == partition && last.version == version {
		return last.tree
	}
	tree := merkle.Fold(f.appendCells(nil, partition))
	f.mu.Lock()
	f.mu.last = folded{tree, partition, version}
	f.mu.Unlock()
	return tree
}

// root is the root of a partition, as current as tree.
func (f *forest) root(partition int) uint64 {
	version := f.version(partition)
	f.mu.Lock()
	defer f.mu.Unlock()
	known := &f.mu.roots[partition]
	if !known.folded || known.version != version {
		f.mu.cells = f.appendCells(f.mu.cells[:0], partition)
		*known = root{true, version, merkle.Root(f.mu.cells)}
	}
	return known.hash
}

// version grows with every change of a partition's digests.
func (f *forest) version(partition int) uint64 {
	return f.src.DigestVersions(f.slots(partition))
}

// appendCells appends the digests of a partition's cells.
func (f *forest) appendCells(cells []uint64, partition int) []uint64 {
	first, last := f.slots(partition)
	cells = slices.Grow(cells, (int(last)-int(first)+1)*merkle.CellsPerSlot)
	for slot := int(first); slot <= int(last); slot++ {
		d := f.src.Digests(ring.Slot(slot))
		cells = append(cells, d[:]...)
	}
	return cells
}

// cellOf is the cell that a leaf of a partition's tree stands for.
func (f *forest) cellOf(partition, leaf int) merkle.Cell {
	first, _ := f.slots(partition)
	return merkle.CellOf(first, 0) + merkle.Cell(leaf)
}
