package antientropy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Exchanger compares this node's partitions with their other owners, one peer
// after another. New makes one, Run sets it going.
type Exchanger struct {
	cfg     Config
	cluster Cluster
	src     Source
	meters  meters
	ledger  ledger
	jobs    jobs
	forest  atomic.Pointer[forest]

	kick chan struct{} // holds a token when a peer or a job is to be looked at
	mu   struct {
		sync.Mutex
		back map[ring.NodeID]bool // came up since Run last looked
	}
}

// New makes an Exchanger of the rows in src.
func New(cfg Config, cluster Cluster, src Source) (*Exchanger, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	x := &Exchanger{cfg: cfg, cluster: cluster, src: src, kick: make(chan struct{}, 1)}
	x.meters = newMeters(cfg.Metrics)
	x.mu.back = map[ring.NodeID]bool{}
	return x, nil
}

// PeerUp is told that a peer is back. It does not block.
func (x *Exchanger) PeerUp(node ring.NodeID) {
	x.mu.Lock()
	x.mu.back[node] = true
	x.mu.Unlock()
	x.nudge()
}

func (x *Exchanger) nudge() {
	select {
	case x.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// turn is when a peer is due.
type turn struct {
	node   ring.NodeID
	due    time.Time
	failed int  // exchanges in a row
	told   bool // of the failures
}

// Run exchanges with one peer after another until ctx ends, and returns nil then.
func (x *Exchanger) Run(ctx context.Context) error {
	turns := map[ring.NodeID]*turn{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-x.kick:
		case <-timer.C:
		}
		for x.work(ctx) && ctx.Err() == nil { // jobs first: somebody waits for them
		}
		next := x.schedule(turns)
		if next != nil && !time.Now().Before(next.due) {
			x.takeTurn(ctx, next)
			next = x.schedule(turns)
		}
		wait := x.cfg.Interval
		if next != nil {
			wait = max(time.Until(next.due), 0)
		}
		timer.Reset(wait)
	}
}

// schedule brings the turns up to the ring and the liveness of its members, and
// returns the next one, nil if there is nobody to exchange with.
func (x *Exchanger) schedule(turns map[ring.NodeID]*turn) (next *turn) {
	x.mu.Lock()
	back := x.mu.back
	x.mu.back = map[ring.NodeID]bool{}
	x.mu.Unlock()
	peers := slices.DeleteFunc(x.peers(), func(n ring.NodeID) bool { return !x.begins(n) })
	for node := range turns {
		if !slices.Contains(peers, node) {
			delete(turns, node)
		}
	}
	now := time.Now()
	for _, node := range peers {
		t := turns[node]
		if t == nil {
			// This node has just started, and it is the one that lacks something.
			t = &turn{node: node, due: now.Add(x.spread(x.cfg.Return))}
			turns[node] = t
		}
		if back[node] {
			t.failed = 0
			// Should it have restarted, it begins by itself, and fetches what it lacks:
			// the other way round both sides' rows would travel.
			t.due = now.Add(2 * x.cfg.Return)
		}
		if x.cluster.Up(node) && (next == nil || t.due.Before(next.due)) {
			next = t
		}
	}
	return next
}

// peers are the other members of the rings.
func (x *Exchanger) peers() (nodes []ring.NodeID) {
	r := x.cluster.Rings()
	if r.Live == nil {
		return nil
	}
	for _, m := range r.Members() {
		if m.ID != x.cluster.Self() {
			nodes = append(nodes, m.ID)
		}
	}
	return nodes
}

// begins reports whether this node begins the exchanges with a peer. It does so
// once with each after its start, whatever the rule says.
func (x *Exchanger) begins(node ring.NodeID) bool {
	return begins(x.cluster.Self(), node) || !x.ledger.met(node)
}

// begins reports whether, of two nodes, a is the one that begins their exchanges.
// One pass serves both sides; two at a time would move every row twice.
func begins(a, b ring.NodeID) bool {
	h := uint64(a^b) * 0x9E3779B97F4A7C15
	return (a < b) == (h>>63 == 0)
}

// spread is a time around d, so that the nodes do not march in step.
func (x *Exchanger) spread(d time.Duration) time.Duration {
	return d/2 + time.Duration(x.cfg.Rand()%uint64(d))
}

// maxBackoff bounds the pause after failed exchanges, in Intervals.
const maxBackoff = 8

// takeTurn exchanges all shared partitions with one peer.
func (x *Exchanger) takeTurn(ctx context.Context, t *turn) {
	_, err := x.turnOf(ctx, t.node)
	switch {
	case errors.Is(err, ErrBusy):
		t.due = time.Now().Add(x.spread(x.cfg.Settle))
		return
	case err == nil || ctx.Err() != nil:
		if t.told {
			x.cfg.Logger.Info("antientropy: exchanges succeed again", "peer", t.node)
		}
		t.failed, t.told = 0, false
	default:
		t.failed++
		if !t.told && x.cluster.Up(t.node) {
			t.told = true
			x.cfg.Logger.Warn("antientropy: an exchange failed, trying again", "peer", t.node, "err", err)
		}
	}
	pause := x.cfg.Interval << min(t.failed, 3)
	t.due = time.Now().Add(x.spread(min(pause, maxBackoff*x.cfg.Interval)))
}

// errNoPeer says that there is nobody to exchange with.
var errNoPeer = errors.New("antientropy: the peer is unknown or away")

// turnOf compares all partitions that a peer and this node own in the base. What is to
// move to a peer in a change of rings is brought by whoever sees to the change.
func (x *Exchanger) turnOf(ctx context.Context, node ring.NodeID) (Tally, error) {
	r := x.cluster.Rings()
	if r.Live == nil {
		return Tally{}, errNoPeer
	}
	if !x.enterOwn(node) {
		return Tally{}, ErrBusy
	}
	defer x.leaveOwn()
	return x.compare(ctx, node, Rings{ring.NewLive(r.Base), r.Stamp}, 0, ring.Slots-1, false)
}

// Exchange compares the partitions that the slots are in with another owner in any
// live ring, now, contexts included, and answers what it came to. It waits while this
// node is in another session; ErrBusy means that the peer is.
func (x *Exchanger) Exchange(ctx context.Context, node ring.NodeID, first, last ring.Slot) (Tally, error) {
	return x.exchange(ctx, node, first, last, true)
}

// exchange is Exchange, with contexts or without.
func (x *Exchanger) exchange(ctx context.Context, node ring.NodeID, first, last ring.Slot, whole bool) (Tally, error) {
	if err := x.awaitOwn(ctx, node); err != nil {
		return Tally{}, err
	}
	defer x.leaveOwn()
	r := x.cluster.Rings()
	if r.Live == nil {
		return Tally{}, errNoPeer
	}
	return x.compare(ctx, node, r, first, last, whole)
}

// compare runs one exchange with a peer over some slots of the partitions that both
// own in some of the rings, and enters it in the ledger.
//
// Invariant: all of it goes by the epochs of its beginning. A peer for which these are
// over may have dropped what it held by them, so it refuses the questions that are left;
// and if they are over here by the end, nothing is entered.
func (x *Exchanger) compare(ctx context.Context, node ring.NodeID, r Rings, first, last ring.Slot, whole bool) (Tally, error) {
	peer := x.cluster.Peer(node, r.Stamp)
	if peer == nil || !x.cluster.Up(node) {
		return Tally{}, errNoPeer
	}
	parts := shared(r.Live, x.cluster.Self(), node, first, last)
	if len(parts) == 0 {
		return Tally{}, nil
	}
	began := time.Now()
	e := &exchange{x: x, node: node, peer: peer, forest: x.trees(r.Units()), parts: parts, whole: whole, cells: firstCells}
	s := Session{Epoch: r.Epoch(), First: first, Last: last}
	err := x.session(ctx, e, s)
	if !errors.Is(err, ErrBusy) {
		x.meters.book(e.tally, err, time.Since(began))
	}
	if err != nil {
		return e.tally, fmt.Errorf("antientropy: exchange with %v: %w", node, err)
	}
	if compared(x.cluster.Rings().Live, s.Epoch) != nil { // else it may have dropped rows meanwhile
		x.ledger.enter(node, r.Units(), parts, began, whole)
	}
	if e.tally.Pulled+e.tally.Pushed > 0 {
		x.cfg.Logger.Info("antientropy: differences removed", "peer", node, "partitions", e.tally.Differing,
			"pulled", e.tally.Pulled, "pushed", e.tally.Pushed, "took", time.Since(began).Round(time.Millisecond))
	}
	return e.tally, nil
}

// trees returns the forest over so many partitions.
func (x *Exchanger) trees(units int) *forest {
	if f := x.forest.Load(); f != nil && f.units == units {
		return f
	}
	f := newForest(x.src, units)
	x.forest.Store(f)
	return f
}

// session runs an exchange between the frames that make it a proof.
func (x *Exchanger) session(ctx context.Context, e *exchange, s Session) error {
	begin, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
	err := e.peer.Begin(begin, s)
	cancel()
	switch {
	case err == nil:
		err = e.run(ctx)
	case errors.Is(err, ErrBusy):
		return fmt.Errorf("begin: %w", err)
	default:
		err = fmt.Errorf("begin: %w", err)
	}
	if err != nil {
		x.giveUp(ctx, e, s)
		return err
	}
	err = x.end(ctx, e.peer, s)
	x.ledger.mayEnd(e.node, err != nil)
	return err
}

// giveUpWithin bounds how long a peer is told that a session is given up.
const giveUpWithin = time.Second

// giveUp tells a peer that a session will not come to its end, whatever became of ctx:
// until it knows, it is in no session with anybody else, for a lease.
//
// Invariant: no end of a session that was not answered may be on its way to the peer,
// because the peer forgets that the session began, and would take such an end for that
// of the next. So nothing is given up until a later session has ended well.
func (x *Exchanger) giveUp(ctx context.Context, e *exchange, s Session) {
	if x.ledger.ending(e.node) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(giveUpWithin, x.cfg.Timeout))
	defer cancel()
	_ = e.peer.End(ctx, s.givenUp()) // else the lease does it
}

// end returns when all that both sides took is durable.
func (x *Exchanger) end(ctx context.Context, peer Peer, s Session) error {
	ctx, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
	defer cancel()
	done := make(chan error, 1)
	x.src.Barrier(func(err error) { done <- err })
	if err := peer.End(ctx, s); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Session returns when the last session of a partition with another owner began, whole
// or not; false if there was none in this run.
func (x *Exchanger) Session(partition int, node ring.NodeID) (began time.Time, ok bool) {
	began = x.ledger.last(partition, node).any
	return began, !began.IsZero()
}

// WholeSession is Session for those by Exchange and whole repairs of this node. Only they
// prove that it has all that the other owner had.
func (x *Exchanger) WholeSession(partition int, node ring.NodeID) (began time.Time, ok bool) {
	began = x.ledger.last(partition, node).whole
	return began, !began.IsZero()
}
