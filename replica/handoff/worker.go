package handoff

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// worker is what one delivery remembers from turn to turn.
type worker struct {
	slot ring.Slot // the next page begins here
	hash uint32

	ends   time.Time // of the present turn
	credit int       // bytes that the target takes in the next message; 0: ask
	fails  int       // turns in a row that failed
	looked uint64    // epoch of the ring with which the last whole pass was made
	passed walk
	told   bool // the log was told that rows cannot be delivered
}

// walk is one pass over the rows of a target.
type walk struct {
	epoch uint64 // of the ring all along; 0 if it changed
	done  int    // rows delivered or moved
	stuck int    // rows that cannot be delivered
}

// outcome is how a turn ended.
type outcome struct {
	target *target
	state  State
	pause  time.Duration
}

var (
	errNoCredit = errors.New("handoff: target grants nothing")
	errTurnOver = errors.New("handoff: others come first now")
	errRejected = errors.New("handoff: target rejects row after row")
)

// turn works for t until its rows are done, something fails, or its time is up.
func (s *Sender) turn(ctx context.Context, t *target) outcome {
	t.work.ends = time.Now().Add(s.cfg.Turn)
	for {
		done, err := s.step(ctx, t)
		switch {
		case ctx.Err() != nil:
			return outcome{t, Waiting, 0}
		case errors.Is(err, errNoCredit):
			return outcome{t, Waiting, s.spread(s.cfg.CreditPause)}
		case errors.Is(err, errTurnOver):
			return outcome{t, Waiting, 0}
		case err != nil:
			return s.failed(t, err)
		case done:
			return s.passEnded(t)
		case time.Now().After(t.work.ends):
			return outcome{t, Waiting, 0}
		}
	}
}

// failed ends a turn in which something did not go as it should.
func (s *Sender) failed(t *target, err error) outcome {
	s.progress(t, tally{failed: 1})
	if t.work.fails++; t.work.fails == 1 {
		s.cfg.Logger.Info("handoff: delivery backs off", "target", t.id, "err", err)
	}
	t.work.credit = 0
	return outcome{t, BackingOff, s.spread(backoff(t.work.fails, s.cfg.MinBackoff, s.cfg.MaxBackoff))}
}

// backoff is how long to wait after so many failures in a row.
func backoff(fails int, least, most time.Duration) time.Duration {
	d := least
	for range fails - 1 {
		if d >= most/2 {
			return most
		}
		d *= 2
	}
	return min(d, most)
}

// passEnded ends a turn that came to the last row.
func (s *Sender) passEnded(t *target) outcome {
	w := &t.work
	ended := w.passed
	w.slot, w.hash, w.passed, w.looked = 0, 0, walk{}, ended.epoch
	if stuck := ended.stuck > 0; stuck != w.told {
		w.told = stuck
		s.cfg.Logger.Warn("handoff: rows that cannot be delivered changed state", "target", t.id, "stuck", stuck, "rows", ended.stuck)
	}
	switch {
	case ended.stuck > 0 && ended.done == 0:
		w.fails++
		return outcome{t, BackingOff, s.spread(backoff(w.fails, s.cfg.Interval, s.cfg.MaxBackoff))}
	case ended.done == 0: // what was there is not committed yet, or not counted
		return outcome{t, Waiting, s.spread(s.cfg.Interval)}
	default:
		w.fails = 0
		return outcome{t, Waiting, s.spread(s.cfg.Linger)}
	}
}

// step works on one page of rows and reports whether it was the last.
func (s *Sender) step(ctx context.Context, t *target) (done bool, err error) {
	rings := s.enter(t)
	defer s.leave(t)
	current := rings.Live
	if current == nil {
		return false, ErrNotReady
	}
	w := &t.work
	if w.slot == 0 && w.hash == 0 {
		w.passed = walk{epoch: current.Epoch()}
	} else if w.passed.epoch != current.Epoch() {
		w.passed.epoch = 0
	}
	page, err := s.page(t)
	if err != nil {
		return false, err
	}
	stay, moving := sortRows(current, t.id, s.cfg.Self, page.Rows)
	if err := s.move(ctx, t, moving); err != nil {
		return false, err
	}
	if s.reachable(current, t.id) {
		if stay, err = s.keepFor(ctx, rings, t, stay); err != nil {
			return false, err
		}
		if sent, err := s.send(ctx, t, stay); err != nil {
			if w.slot, w.hash = page.NextSlot, page.NextHash; sent < len(stay) {
				w.slot, w.hash = stay[sent].Slot, stay[sent].KeyHash
			}
			return false, err
		}
	}
	w.slot, w.hash = page.NextSlot, page.NextHash
	return page.Done, nil
}

// page reads the next rows. A part of the store that is damaged is passed over:
// what lies behind it can be delivered.
func (s *Sender) page(t *target) (Page, error) {
	page, err := s.book.Page(t.id, t.work.slot, t.work.hash, s.cfg.MessageBytes)
	damaged := errors.Is(err, version.ErrCorrupt)
	if err != nil && !damaged {
		return Page{}, fmt.Errorf("handoff: read hints: %w", err)
	}
	if damaged {
		page.Unreadable++
	}
	if n := page.Unreadable; n > 0 {
		s.count.unreadable.Add(n)
		t.work.passed.stuck += n
		s.progress(t, tally{failed: int64(n)})
	}
	return page, nil
}

// move is a row and those who own its key now.
type move struct {
	row    Row
	owners []ring.NodeID
}

// sortRows tells the rows that target is to get from those that go elsewhere:
// to this node itself if it is the target, else to the owners, if the target is
// none any more. In a ring without owners everything stays.
func sortRows(current *ring.Live, target, self ring.NodeID, rows []Row) (stay []Row, moving []move) {
	for _, row := range rows {
		partition := current.Partition(row.Slot)
		owners := current.Owners(nil, partition)
		switch owned := current.Owns(target, partition); {
		case owned && target == self:
			moving = append(moving, move{row, []ring.NodeID{self}})
		case owned || len(owners) == 0:
			stay = append(stay, row)
		default:
			moving = append(moving, move{row, owners})
		}
	}
	return stay, moving
}

// keepFor notes rows for the nodes that are to have them, too, before their target
// gets them, and answers those that it may get now.
func (s *Sender) keepFor(ctx context.Context, rings Rings, t *target, rows []Row) (ready []Row, err error) {
	if rings.Plan == nil {
		return rows, nil
	}
	all, handed := newGather(), s.cfg.Handed(rings.Number)
	var copies []ring.NodeID
	for _, row := range rows {
		var wait bool
		copies, wait = rings.copies(copies[:0], rings.Live.Partition(row.Slot), t.id)
		if wait && !handed {
			continue
		}
		ready = append(ready, row)
		if wait {
			continue // those who are to have it have it
		}
		for _, owner := range copies {
			if owner == s.cfg.Self {
				owner = 0
			}
			s.rows.Merge(row.Key, owner, row.Record, true, all.one())
		}
	}
	if err := all.wait(ctx); err != nil {
		return nil, fmt.Errorf("handoff: keep hints for coming owners: %w", err)
	}
	return ready, nil
}

// move merges rows into the own ones and into the hints for their owners, and
// drops those that are durable in all of these places.
func (s *Sender) move(ctx context.Context, t *target, moving []move) error {
	if len(moving) == 0 {
		return nil
	}
	all := newGather()
	safe := make([]*gather, len(moving))
	for i, m := range moving {
		safe[i] = newGather()
		for _, owner := range m.owners {
			into := owner
			if owner == s.cfg.Self {
				into = 0
			}
			one, both := safe[i].one(), all.one()
			s.rows.Merge(m.row.Key, into, m.row.Record, true, func(err error) {
				one(err)
				both(err)
			})
		}
	}
	err := all.wait(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var moved []Row
	for i, g := range safe {
		if g.wait(ctx) == nil {
			moved = append(moved, moving[i].row)
		}
	}
	t.work.passed.done += len(moved)
	s.count.moved.Add(len(moved))
	s.count.requeued.Add(len(moving) - len(moved))
	if err = errors.Join(err, s.drop(ctx, t, moved)); err != nil {
		return fmt.Errorf("handoff: move hints to their owners: %w", err)
	}
	return nil
}

// send delivers rows, as many in a message as the target takes. It returns how
// many are dealt with, delivered or found undeliverable.
func (s *Sender) send(ctx context.Context, t *target, rows []Row) (sent int, err error) {
	for sent < len(rows) {
		if t.work.credit == 0 {
			if t.work.credit, err = s.call(ctx, t, nil); err != nil {
				return sent, err
			}
			if t.work.credit == 0 {
				return sent, errNoCredit
			}
		}
		n := fit(rows[sent:], min(t.work.credit, s.cfg.MessageBytes))
		n, err = s.paced(ctx, t, rows[sent:sent+n])
		if sent += n; err != nil {
			return sent, err
		}
		if sent < len(rows) && time.Now().After(t.work.ends) {
			return sent, errTurnOver
		}
	}
	return sent, nil
}

// paced delivers rows when the time for it has come.
func (s *Sender) paced(ctx context.Context, t *target, rows []Row) (int, error) {
	end, err := s.cfg.Pace(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	return s.deliver(ctx, t, rows)
}

// fit is how many of the rows go into a message of so many bytes; at least one,
// or a row above the credit would never go.
func fit(rows []Row, bytes int) int {
	n := 0
	for ; n < len(rows); n++ {
		if bytes -= rows[n].size(); bytes < 0 {
			break
		}
	}
	return max(n, 1)
}

// deliver sends rows as one message, or as halves of it for as long as the
// target rejects them. It returns how many are dealt with.
func (s *Sender) deliver(ctx context.Context, t *target, rows []Row) (int, error) {
	credit, err := s.call(ctx, t, rows)
	switch {
	case err == nil:
		t.work.credit, t.work.fails = credit, 0
		t.work.passed.done += len(rows)
		s.progress(t, tally{rows: int64(len(rows)), bytes: int64(sizeOf(rows))})
		return len(rows), s.drop(ctx, t, rows)
	case !errors.Is(err, ErrRejected):
		s.count.requeued.Add(len(rows))
		return 0, err
	case len(rows) == 1:
		return 1, s.reject(t, &rows[0], err)
	}
	half := len(rows) / 2
	n, err := s.deliver(ctx, t, rows[:half])
	if err != nil {
		return n, err
	}
	m, err := s.deliver(ctx, t, rows[half:])
	return n + m, err
}

func sizeOf(rows []Row) int {
	size := 0
	for i := range rows {
		size += rows[i].size()
	}
	return size
}

// reject notes a row that the target does not take. It stays, and the next pass
// tries it again.
func (s *Sender) reject(t *target, row *Row, err error) error {
	s.count.rejected.Inc()
	s.progress(t, tally{failed: 1})
	if t.work.passed.stuck++; !t.work.told {
		t.work.told = true
		s.cfg.Logger.Warn("handoff: target rejects a row", "target", t.id, "slot", row.Slot, "hash", fmt.Sprintf("%08x", row.KeyHash), "err", err)
	}
	if t.work.passed.stuck%s.cfg.MaxRejected == 0 {
		return errRejected
	}
	return nil
}

// call sends one message and waits for its reply.
func (s *Sender) call(ctx context.Context, t *target, rows []Row) (credit int, err error) {
	peer := s.cluster.Peer(t.id)
	if peer == nil {
		return 0, fmt.Errorf("handoff: target %v is unknown", t.id)
	}
	return bring(ctx, peer, rows, s.cfg.Timeout)
}

// bring sends rows in one durable message and waits for the reply.
func bring(ctx context.Context, peer Peer, rows []Row, timeout time.Duration) (credit int, err error) {
	type reply struct {
		credit int
		err    error
	}
	replies := make(chan reply, 1)
	peer.Deliver(Message{Durable: true, Rows: rows}, time.Now().Add(timeout), func(credit int, err error) {
		replies <- reply{credit, err}
	})
	select {
	case r := <-replies:
		return r.credit, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// drop deletes rows that are safe elsewhere. A row that has changed meanwhile
// stays, and so does one that cannot be deleted: it is delivered again.
func (s *Sender) drop(ctx context.Context, t *target, rows []Row) error {
	g := newGather()
	for i := range rows {
		one := g.one()
		s.book.Drop(rows[i].Key, t.id, rows[i].Record, func(dropped bool, err error) {
			if !dropped {
				s.count.requeued.Inc()
			}
			one(err)
		})
	}
	if err := g.wait(ctx); err != nil {
		return fmt.Errorf("handoff: drop delivered hints: %w", err)
	}
	return nil
}

// gather waits for a number of callbacks and keeps their first error.
type gather struct {
	left  atomic.Int64
	fault atomic.Pointer[error]
	ended chan struct{}
}

// newGather begins with the one that wait takes away.
func newGather() *gather {
	g := &gather{ended: make(chan struct{})}
	g.left.Store(1)
	return g
}

// one adds a callback to wait for.
func (g *gather) one() func(error) {
	g.left.Add(1)
	return g.settle
}

func (g *gather) settle(err error) {
	if err != nil {
		g.fault.CompareAndSwap(nil, &err)
	}
	if g.left.Add(-1) == 0 {
		close(g.ended)
	}
}

// wait ends when all callbacks have come, or with ctx. It is called once.
func (g *gather) wait(ctx context.Context) error {
	g.settle(nil)
	select {
	case <-g.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if fault := g.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}
