package antientropy

import (
	"sync"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// forest folds the digests of partitions. It remembers roots, and folds anew only
// what has changed.
type forest struct {
	src   Source
	units int
	mu    struct {
		sync.Mutex
		roots []root
	}
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

// slots are the first and the last slot of a partition.
func (f *forest) slots(partition int) (first, last ring.Slot) {
	n := ring.Slots / f.units
	return ring.Slot(partition * n), ring.Slot(partition*n + n - 1)
}

// tree folds a partition.
func (f *forest) tree(partition int) *merkle.Tree {
	first, last := f.slots(partition)
	cells := make([]uint64, 0, (int(last)-int(first)+1)*merkle.CellsPerSlot)
	for slot := int(first); slot <= int(last); slot++ {
		d := f.src.Digests(ring.Slot(slot))
		cells = append(cells, d[:]...)
	}
	return merkle.Fold(cells)
}

// root is the root of a partition. A change while it is folded is seen the next
// time: the version is read first.
func (f *forest) root(partition int) uint64 {
	first, last := f.slots(partition)
	version := f.src.DigestVersions(first, last)
	f.mu.Lock()
	known := f.mu.roots[partition]
	f.mu.Unlock()
	if known.folded && known.version == version {
		return known.hash
	}
	hash := f.tree(partition).Root()
	f.mu.Lock()
	f.mu.roots[partition] = root{true, version, hash}
	f.mu.Unlock()
	return hash
}

// cellOf is the cell that a leaf of a partition's tree stands for.
func (f *forest) cellOf(partition, leaf int) merkle.Cell {
	first, _ := f.slots(partition)
	return merkle.CellOf(first, 0) + merkle.Cell(leaf)
}
