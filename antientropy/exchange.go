package antientropy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// exchange is one comparison with one peer.
type exchange struct {
	x      *Exchanger
	node   ring.NodeID
	peer   Peer
	forest *forest
	parts  []int // the partitions to compare, ascending
	whole  bool  // contexts are compared too
	waits  bool  // for writes under way, before cells are compared
	cells  int   // of the next question for states
	tally  Tally
}

// Tally is what an exchange, or several, came to.
type Tally struct {
	Partitions int   // compared
	Differing  int   // of those, with another root
	Listed     int   // states of keys that were compared, on both sides
	Pulled     int64 // rows that were fetched
	PulledSize int64 // bytes of those
	Pushed     int64 // rows that were delivered
	PushedSize int64 // bytes of those
}

// add adds t2 to t.
func (t *Tally) add(t2 Tally) {
	t.Partitions += t2.Partitions
	t.Differing += t2.Differing
	t.Listed += t2.Listed
	t.Pulled += t2.Pulled
	t.PulledSize += t2.PulledSize
	t.Pushed += t2.Pushed
	t.PushedSize += t2.PushedSize
}

// rootsAtOnce is how many roots one question asks for.
const rootsAtOnce = 4096

// run compares the partitions and makes equal what differs.
func (e *exchange) run(ctx context.Context) error {
	var cells []merkle.Cell
	for parts := range slices.Chunk(e.parts, rootsAtOnce) {
		differing, err := e.roots(ctx, parts)
		if err != nil {
			return fmt.Errorf("roots: %w", err)
		}
		e.waits = e.waits || len(differing) > 0
		for _, p := range parts {
			_, differs := slices.BinarySearch(differing, p)
			if differs {
				cells, err = e.descend(ctx, cells, p)
			} else if e.whole {
				cells = e.filled(cells, p, nil)
			}
			if err != nil {
				return fmt.Errorf("partition %d: %w", p, err)
			}
			if len(cells) >= e.x.cfg.CellBatch {
				if err := e.settle(ctx, cells); err != nil {
					return err
				}
				cells = cells[:0]
			}
		}
	}
	if len(cells) == 0 {
		return nil
	}
	return e.settle(ctx, cells)
}

// roots returns the partitions whose roots differ.
func (e *exchange) roots(ctx context.Context, parts []int) (differing []int, err error) {
	q := NodesQuery{Units: e.forest.units}
	for _, p := range parts {
		q.Nodes = append(q.Nodes, Node{Partition: p})
	}
	theirs, err := e.nodes(ctx, q)
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		if e.forest.root(p) != theirs[i] {
			differing = append(differing, p)
		}
	}
	e.tally.Partitions += len(parts)
	e.tally.Differing += len(differing)
	return differing, nil
}

// filled appends the cells of a partition that have rows here, and some leaves.
func (e *exchange) filled(cells []merkle.Cell, partition int, leaves []int) []merkle.Cell {
	leaves = e.forest.filled(leaves, partition)
	slices.Sort(leaves)
	for _, leaf := range slices.Compact(leaves) {
		cells = append(cells, e.forest.cellOf(partition, leaf))
	}
	return cells
}

// descend appends the cells of a partition that differ, or that may in a whole session:
// where there is nothing on this side, the tree tells whether there is on the other.
func (e *exchange) descend(ctx context.Context, cells []merkle.Cell, partition int) ([]merkle.Cell, error) {
	work, err := e.begin(ctx)
	if err != nil {
		return cells, err
	}
	defer work.end()
	tree := e.forest.tree(partition)
	level, differing := 0, []int{0}
	for level < tree.Depth() && len(differing) > 0 { // none: it has changed meanwhile
		next, below := tree.Descend(nil, level, differing)
		q := NodesQuery{Units: e.forest.units, Level: next, Step: next - level}
		for _, i := range differing {
			q.Nodes = append(q.Nodes, Node{Partition: partition, Index: i})
		}
		over := work.waiting()
		theirs, err := e.nodes(ctx, q)
		over()
		if err != nil {
			return cells, err
		}
		if differing, err = tree.Differing(nil, next, below, theirs); err != nil {
			return cells, err
		}
		level = next
	}
	if e.whole {
		return e.filled(cells, partition, differing), nil
	}
	for _, leaf := range differing {
		cells = append(cells, e.forest.cellOf(partition, leaf))
	}
	return cells, nil
}

// nodes asks for hashes and checks their number.
func (e *exchange) nodes(ctx context.Context, q NodesQuery) ([]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, e.x.cfg.Timeout)
	defer cancel()
	hashes, err := e.peer.Nodes(ctx, q)
	if want := len(q.Nodes) << q.Step; err == nil && len(hashes) != want {
		err = fmt.Errorf("%w: %d hashes, want %d", ErrShape, len(hashes), want)
	}
	return hashes, err
}

// settle waits for writes under way and then makes the cells equal. A whole session
// waits once, and only if a root differs: it comes to all cells there are, and few of
// them differ.
func (e *exchange) settle(ctx context.Context, cells []merkle.Cell) error {
	if e.waits {
		if err := sleep(ctx, e.x.cfg.Settle); err != nil {
			return err
		}
	}
	e.waits = !e.whole
	for from := uint32(0); len(cells) > 0; {
		q := ListQuery{Cells: cells[:min(len(cells), e.cells)], From: from, Limit: e.x.cfg.ListKeys, Whole: e.whole}
		theirs, diffs, err := e.differing(ctx, q)
		if err != nil {
			return err
		}
		if err := e.reconcile(ctx, diffs); err != nil {
			return err
		}
		cells, from = cells[theirs.Cells:], theirs.Next
	}
	return nil
}

// piece is a piece of work that Pace let begin. What it waits for the peer is no work
// of this node: the peer counts what it does for it as its own.
type piece struct {
	done   func(waited time.Duration)
	waited time.Duration
}

// begin waits until a piece of work may begin.
func (e *exchange) begin(ctx context.Context) (*piece, error) {
	done, err := e.x.cfg.Pace(ctx)
	return &piece{done: done}, err
}

// waiting is called before a question to the peer, and what it returns after it.
func (w *piece) waiting() (over func()) {
	from := time.Now()
	return func() { w.waited += time.Since(from) }
}

// end is called when the piece is done.
func (w *piece) end() { w.done(w.waited) }

// differing lists some cells on both sides, and answers how far that went and where
// the two do not hold the same.
func (e *exchange) differing(ctx context.Context, q ListQuery) (covered ListAnswer, diffs []difference, err error) {
	work, err := e.begin(ctx)
	if err != nil {
		return covered, nil, err
	}
	defer work.end()
	over := work.waiting()
	theirs, err := e.list(ctx, q)
	over()
	if err != nil {
		return covered, nil, fmt.Errorf("list: %w", err)
	}
	ours, err := e.ownList(q, theirs)
	if err != nil {
		return covered, nil, fmt.Errorf("list own rows: %w", err)
	}
	e.tally.Listed += len(ours) + len(theirs.States)
	e.fitCells(max(len(ours), len(theirs.States)))
	return theirs, differences(ours, theirs.States), nil
}

// firstCells is how many cells the first question is about: there may be many keys in
// them.
const firstCells = 16

// fitCells makes the next question one about more cells, or fewer, after one that came
// to so many states on the side that has more. The peer's own bound does not keep this
// side from reading all that the peer lacks.
func (e *exchange) fitCells(states int) {
	switch {
	case states > e.x.cfg.ListKeys:
		e.cells = max(e.cells/2, 1)
	case states < e.x.cfg.ListKeys/2:
		e.cells = min(2*e.cells, e.x.cfg.CellBatch)
	}
}

// list asks for states and checks that the answer leads on.
func (e *exchange) list(ctx context.Context, q ListQuery) (ListAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, e.x.cfg.Timeout)
	defer cancel()
	a, err := e.peer.List(ctx, q)
	if err != nil {
		return a, err
	}
	if a.Cells > len(q.Cells) || a.Cells == 0 && a.Next <= q.From || a.Cells == len(q.Cells) && a.Next != 0 {
		return a, fmt.Errorf("%w: %d of %d cells, then hash %#x after %#x", ErrShape, a.Cells, len(q.Cells), a.Next, q.From)
	}
	return a, nil
}

// ownList lists the own rows of what the peer's answer covers.
func (e *exchange) ownList(q ListQuery, covered ListAnswer) (states []KeyState, err error) {
	reader, err := e.x.src.Reader(slotsOfCells(q.Cells))
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := reader.Close(); err == nil {
			err = cerr
		}
	}()
	split := covered.Next != 0 // the cell after those that are covered is, in part
	if split {
		q.Cells = q.Cells[:covered.Cells+1]
	} else {
		q.Cells = q.Cells[:covered.Cells]
	}
	q.Limit = math.MaxInt
	a, err := reader.List(q)
	if err != nil || !split {
		return a.States, err
	}
	// Only as far as the peer has gone.
	end := Position{q.Cells[covered.Cells].Slot(), covered.Next}
	n := len(a.States)
	for n > 0 && positionOf(a.States[n-1]).compare(end) >= 0 {
		n--
	}
	return a.States[:n], nil
}

// difference is a position where the two sides do not hold the same.
type difference struct {
	Position
	theirs bool // the peer has something there
}

// differences compares two lists in order of position.
func differences(ours, theirs []KeyState) (out []difference) {
	for len(ours) > 0 || len(theirs) > 0 {
		var at Position
		switch {
		case len(theirs) == 0:
			at = positionOf(ours[0])
		case len(ours) == 0:
			at = positionOf(theirs[0])
		default:
			at = positionOf(ours[0])
			if p := positionOf(theirs[0]); p.compare(at) < 0 {
				at = p
			}
		}
		var a, b []KeyState
		a, ours = splitAt(ours, at)
		b, theirs = splitAt(theirs, at)
		if !slices.Equal(a, b) {
			out = append(out, difference{at, len(b) > 0})
		}
	}
	return out
}

func positionOf(s KeyState) Position { return Position{s.Slot, s.KeyHash} }

// splitAt takes the states at a position off the front. Those of one position
// stand in order of their keys on both sides.
func splitAt(states []KeyState, at Position) (head, rest []KeyState) {
	n := 0
	for n < len(states) && positionOf(states[n]) == at {
		n++
	}
	return states[:n], states[n:]
}

// keyOf names a row among those of one exchange.
type keyOf string

// reconcile makes the rows at the positions equal on both sides: what the peer has
// is merged here, then what it lacks is delivered there.
func (e *exchange) reconcile(ctx context.Context, diffs []difference) error {
	theirs := map[keyOf]uint64{} // the states of the rows that were fetched
	var ask []Position
	for _, d := range diffs {
		if d.theirs {
			ask = append(ask, d.Position)
		}
	}
	for len(ask) > 0 {
		n, err := e.pull(ctx, ask, theirs)
		if err != nil {
			return err
		}
		ask = ask[n:]
	}
	return e.push(ctx, diffs, theirs)
}

// pull takes in the rows at the first positions, notes what the peer holds, and
// returns how many positions that were.
func (e *exchange) pull(ctx context.Context, at []Position, theirs map[keyOf]uint64) (int, error) {
	work, err := e.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer work.end()
	deadline := time.Now().Add(2 * e.x.cfg.Timeout) // before the peer reads them
	over := work.waiting()
	rows, n, err := e.fetch(ctx, at)
	over()
	if err != nil {
		return 0, fmt.Errorf("fetch: %w", err)
	}
	for i := range rows {
		theirs[keyOf(rows[i].Key)] = rows[i].State
	}
	if err := e.merge(ctx, rows, deadline); err != nil {
		return 0, fmt.Errorf("merge: %w", err)
	}
	return n, nil
}

// fetch asks for rows and checks that the answer leads on.
func (e *exchange) fetch(ctx context.Context, at []Position) ([]Row, int, error) {
	ctx, cancel := context.WithTimeout(ctx, e.x.cfg.Timeout)
	defer cancel()
	rows, n, err := e.peer.Fetch(ctx, at[:min(len(at), maxPositions)], e.x.cfg.RowBytes)
	if err == nil && (n < 1 || n > len(at)) {
		err = fmt.Errorf("%w: %d positions answered of %d", ErrShape, n, len(at))
	}
	e.tally.Pulled += int64(len(rows))
	for i := range rows {
		e.tally.PulledSize += int64(rows[i].size())
	}
	return rows, n, err
}

// maxPositions bounds the positions of one question.
const maxPositions = 4096

// errLate: what was fetched is too old to be merged.
var errLate = errors.New("antientropy: past the deadline")

// merge joins fetched rows into our own, before the deadline, and waits until they
// are durable.
func (e *exchange) merge(ctx context.Context, rows []Row, deadline time.Time) error {
	if !time.Now().Before(deadline) {
		return errLate
	}
	done := make(chan error, len(rows))
	for i := range rows {
		e.x.src.Merge(rows[i].Key, rows[i].Record, deadline, func(err error) { done <- err })
	}
	var first error
	for range rows {
		select {
		case err := <-done:
			if first == nil {
				first = err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return first
}

// push delivers the rows at the positions that the peer does not hold as they are
// here.
func (e *exchange) push(ctx context.Context, diffs []difference, theirs map[keyOf]uint64) error {
	at := make([]Position, len(diffs))
	for i, d := range diffs {
		at[i] = d.Position
	}
	room := e.x.cfg.RowBytes
	for len(at) > 0 {
		credit, n, err := e.pushOnce(ctx, at, room, theirs)
		if err != nil {
			return err
		}
		at = at[n:]
		if room, err = e.credit(ctx, credit); err != nil {
			return fmt.Errorf("deliver: %w", err)
		}
	}
	return nil
}

// pushOnce delivers what is to be delivered of the first positions, and returns
// the credit for more.
//
// Invariant: nothing is on its way later than Timeout after it was read. All
// waiting is done before the rows are read, and one deadline is over reading and
// delivering them. Whoever drops tombstones rests on it (package replica).
func (e *exchange) pushOnce(ctx context.Context, at []Position, room int, theirs map[keyOf]uint64) (credit, n int, err error) {
	work, err := e.begin(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer work.end()
	ctx, cancel := context.WithTimeout(ctx, e.x.cfg.Timeout)
	defer cancel()
	rows, n, err := readRows(e.x.src, at, room)
	if err != nil {
		return 0, 0, fmt.Errorf("read own rows: %w", err)
	}
	rows = slices.DeleteFunc(rows, func(r Row) bool {
		state, has := theirs[keyOf(r.Key)]
		return has && state == r.State
	})
	if len(rows) == 0 {
		return room, n, nil
	}
	over := work.waiting()
	credit, err = e.peer.Deliver(ctx, rows)
	over()
	if err != nil {
		return 0, 0, fmt.Errorf("deliver: %w", err)
	}
	e.tally.Pushed += int64(len(rows))
	for i := range rows {
		e.tally.PushedSize += int64(rows[i].size())
	}
	return credit, n, nil
}

// credit returns how many bytes the next delivery may have. It waits while the
// peer takes none.
func (e *exchange) credit(ctx context.Context, credit int) (room int, err error) {
	for pause := creditPause; credit == 0; pause = min(2*pause, creditPauseMax) {
		if err := sleep(ctx, pause); err != nil {
			return 0, err
		}
		if credit, err = e.askCredit(ctx); err != nil {
			return 0, err
		}
	}
	return min(credit, e.x.cfg.RowBytes), nil
}

// A peer without credit is asked again after these pauses.
const (
	creditPause    = 10 * time.Millisecond
	creditPauseMax = 100 * time.Millisecond
)

// askCredit delivers nothing, which is answered with a credit.
func (e *exchange) askCredit(ctx context.Context) (credit int, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.x.cfg.Timeout)
	defer cancel()
	return e.peer.Deliver(ctx, nil)
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// shared returns the partitions that both nodes own, in whatever rings, ascending,
// within some slots.
func shared(r *ring.Live, a, b ring.NodeID, first, last ring.Slot) (parts []int) {
	for p := range r.Units() {
		lo, hi := r.SlotsOf(p)
		if hi >= first && lo <= last && r.Owns(a, p) && r.Owns(b, p) {
			parts = append(parts, p)
		}
	}
	return parts
}
