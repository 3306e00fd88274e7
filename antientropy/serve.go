package antientropy

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// ErrShape says that a question is about trees of another ring, or about nodes
// that its trees do not have.
var ErrShape = errors.New("antientropy: trees of another shape")

// Bounds of one answer, whatever is asked for.
const (
	maxNodes      = 1 << 16
	maxStep       = 10
	maxListKeys   = 1 << 16
	maxFetchBytes = 1 << 20
)

// Responder answers what Exchangers of other nodes ask.
type Responder struct {
	src    Source
	forest atomic.Pointer[forest]
}

// NewResponder answers from src.
func NewResponder(src Source) *Responder { return &Responder{src: src} }

// trees returns the forest over so many partitions. Their number never changes in
// a cluster; it is not known before one is joined.
func (r *Responder) trees(units int) *forest {
	if f := r.forest.Load(); f != nil && f.units == units {
		return f
	}
	f := newForest(r.src, units)
	r.forest.Store(f)
	return f
}

// Nodes answers a NodesQuery of a ring with so many partitions.
func (r *Responder) Nodes(q NodesQuery, units int) ([]uint64, error) {
	if q.Units != units || q.Step < 0 || q.Step > maxStep || q.Step > q.Level || len(q.Nodes)<<q.Step > maxNodes {
		return nil, fmt.Errorf("%w: %d nodes of %d partitions, %d above level %d; here are %d", ErrShape, len(q.Nodes), q.Units, q.Step, q.Level, units)
	}
	f := r.trees(units)
	hashes := make([]uint64, 0, len(q.Nodes)<<q.Step)
	var at []int
	var tree *merkle.Tree
	folded := -1 // the partition of tree
	for _, n := range q.Nodes {
		if n.Partition < 0 || n.Partition >= units {
			return nil, fmt.Errorf("%w: partition %d of %d", ErrShape, n.Partition, units)
		}
		if q.Level == 0 && n.Index == 0 {
			hashes = append(hashes, f.root(n.Partition))
			continue
		}
		if n.Partition != folded {
			tree, folded = f.tree(n.Partition), n.Partition
		}
		if n.Index < 0 || n.Index >= 1<<(q.Level-q.Step) {
			return nil, fmt.Errorf("%w: node %d, %d above level %d", ErrShape, n.Index, q.Step, q.Level)
		}
		at = at[:0]
		for i := n.Index << q.Step; i < (n.Index+1)<<q.Step; i++ {
			at = append(at, i)
		}
		var err error
		if hashes, err = tree.Hashes(hashes, q.Level, at); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrShape, err)
		}
	}
	return hashes, nil
}

// List answers a ListQuery.
func (r *Responder) List(q ListQuery) (ListAnswer, error) {
	if len(q.Cells) == 0 {
		return ListAnswer{}, nil
	}
	if last := slices.Max(q.Cells); last >= merkle.Cells || !slices.IsSorted(q.Cells) {
		return ListAnswer{}, fmt.Errorf("%w: cells up to %d, or out of order", ErrShape, last)
	}
	reader, err := r.src.Reader(slotsOfCells(q.Cells))
	if err != nil {
		return ListAnswer{}, err
	}
	q.Limit = min(max(q.Limit, 1), maxListKeys)
	a, err := reader.List(q)
	return a, errors.Join(err, reader.Close())
}

// slotsOfCells returns the slots of the first and the last of some cells. Requires: there
// is one.
func slotsOfCells(cells []merkle.Cell) (first, last ring.Slot) {
	return cells[0].Slot(), cells[len(cells)-1].Slot()
}

// Fetch answers with the rows at the first positions, at least of one, until they
// are about maxBytes.
func (r *Responder) Fetch(at []Position, maxBytes int) (rows []Row, n int, err error) {
	if len(at) == 0 {
		return nil, 0, nil
	}
	if !slices.IsSortedFunc(at, Position.compare) {
		return nil, 0, fmt.Errorf("%w: positions out of order", ErrShape)
	}
	return readRows(r.src, at, min(maxBytes, maxFetchBytes))
}

// readRows reads the rows at the first positions, ascending, at least of one, until they
// are about maxBytes. Requires: there is a position.
func readRows(src Source, at []Position, maxBytes int) (rows []Row, n int, err error) {
	reader, err := src.Reader(at[0].Slot, at[len(at)-1].Slot)
	if err != nil {
		return nil, 0, err
	}
	rows, n, err = reader.Rows(at, maxBytes)
	return rows, n, errors.Join(err, reader.Close())
}
