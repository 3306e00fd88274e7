package coordinator

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Write applies op to key, here if this node is an owner, else at the first
// live owner, and calls done exactly once: when W nodes have stored it, or when
// that cannot be or the time is over. key and what op points to must not be
// modified afterwards, not even after done.
func (c *Coordinator) Write(key []byte, op version.Op, o WriteOptions, done func(WriteResult, error)) {
	if !c.admit() {
		done(WriteResult{}, ErrOverloaded)
		return
	}
	c.count.writes.Inc()
	c.write(key, op, o, false, done)
}

// ServeForwarded coordinates a write that another node handed over; it is
// never handed on. A timeout should be what is left of the client's: a tenth is
// kept for the way back.
func (c *Coordinator) ServeForwarded(key []byte, op version.Op, o WriteOptions, done func(WriteResult, error)) {
	if !c.admit() {
		if c.draining.Load() {
			done(WriteResult{}, ErrNotOwner)
			return
		}
		done(WriteResult{}, ErrOverloaded)
		return
	}
	c.count.forwardsServed.Inc()
	o.Timeout -= o.Timeout / 10
	c.write(key, op, o, true, done)
}

// write is one write under way: first looking for its coordinator, then, if
// that is this node, reading (for some operations), minting and replicating.
// Only replication has concurrent callbacks, so only it needs mu.
type write struct {
	c         *Coordinator
	key       []byte
	op        version.Op
	done      func(WriteResult, error)
	r, w      int
	forwarded bool         // came from another node: must not leave this one
	rings     *Rings       // entered; left when the write has ended
	ring      *ring.Ring   // the base of rings
	owed      []*ring.Ring // those whose owners must get it: the base first
	partition int
	began     time.Time
	start     time.Time // of the present attempt
	deadline  time.Time
	timer     *time.Timer

	routing

	self   ring.Stand
	enc    []byte
	result WriteResult
	slots  []*mergeSlot
	hooks

	mu struct {
		sync.Mutex
		quorum.Writes
		refs     int  // callbacks outstanding, the timer's included
		running  bool // some goroutine is in run
		noop     bool // the operation changed nothing, and nothing is to be sent
		answered bool
		expired  bool // the deadline has passed
		armed    bool // the timer is set
	}
}

// routing is what the search for a coordinator has found out.
type routing struct {
	stands []ring.Stand
	dead   []ring.NodeID // found unreachable by this request
	busy   []ring.NodeID // alive, but refused to coordinate it
	asked  ring.NodeID   // the coordinator being asked
	denied error         // the last refusal
}

// hooks are the callbacks of a write, bound once, so that handing them out
// allocates nothing.
type hooks struct {
	alive     func(ring.NodeID) bool
	onFound   func(found)
	onForward func(WriteResult, error)
	onRead    func(ReadResult, error)
	onLocal   func(error)
	onTimer   func()
}

// mergeSlot is the callback of one message. It outlives the request.
type mergeSlot struct {
	w     *write
	index int
	stand ring.Stand // whom the message went to
	fn    func(error)
}

func (c *Coordinator) newWrite() *write {
	if w, ok := c.writes.Get().(*write); ok {
		return w
	}
	w := &write{c: c}
	w.hooks = hooks{alive: w.up, onFound: w.foundDone, onForward: w.forwardDone, onRead: w.readDone, onLocal: w.localDone, onTimer: w.fire}
	return w
}

// write starts a write. Requires: the caller took a place with inFlight, which
// the write gives back.
func (c *Coordinator) write(key []byte, op version.Op, o WriteOptions, forwarded bool, done func(WriteResult, error)) {
	w := c.newWrite()
	w.key, w.op, w.done, w.forwarded = key, op, done, forwarded
	w.began = time.Now()
	if w.rings = c.enter(); w.rings == nil {
		w.finish(WriteResult{}, ErrNoReplicas)
		return
	}
	if forwarded && w.rings.Relay {
		w.finish(WriteResult{}, ErrNotOwner)
		return
	}
	if o.Timeout <= 0 {
		o.Timeout = c.cfg.WriteTimeout
	}
	w.ring, w.start = w.rings.Base, w.began
	w.deadline = w.start.Add(min(o.Timeout, c.cfg.MaxAge))
	w.partition = w.ring.Partition(ring.SlotOf(key))
	w.r, w.w = capped(o.R, c.cfg.R, w.ring), capped(o.W, c.cfg.W, w.ring)
	w.route()
}

// up is the cluster's view, less what this request found out.
func (w *write) up(node ring.NodeID) bool {
	return !slices.Contains(w.dead, node) && w.c.up(node)
}

// route finds the coordinator and hands the write to it.
func (w *write) route() {
	w.stands = w.ring.Walk(w.stands[:0], w.partition, w.alive)
	if len(w.stands) < w.w || w.exclusive() && w.liveOwners() < max(w.r, w.w) || w.tooFewBeside() {
		w.refuse()
		return
	}
	if stand, ok := w.ownStand(w.c.cluster.Self()); ok {
		w.coordinate(stand)
		return
	}
	others := w.others()
	if len(others) == 0 {
		w.refuse()
		return
	}
	w.c.scout(others, w.start.Add(w.deadline.Sub(w.start)/2), w.onFound)
}

// tooFewBeside reports whether a ring beside the base has not the live nodes that
// the write needs there.
func (w *write) tooFewBeside() bool {
	return slices.ContainsFunc(w.rings.Beside, func(r *ring.Ring) bool {
		return len(r.Walk(nil, w.partition, w.alive)) < min(w.w, r.N())
	})
}

// exclusive reports whether the operation wants a home quorum: a SET that
// depends on the old value must not be decided among fallbacks. A DEL only
// needs an owner to coordinate it.
func (w *write) exclusive() bool { return w.op.Strict() && w.op.Kind != version.OpDelete }

func (w *write) liveOwners() int {
	n := 0
	for _, s := range w.stands {
		if s.For == 0 {
			n++
		}
	}
	return n
}

// ownStand is as what this node coordinates the write, if it does: as an owner,
// or with no owner left as a fallback. A write that was handed over stays here,
// whatever this node thinks of who owns the key.
func (w *write) ownStand(self ring.NodeID) (ring.Stand, bool) {
	at := slices.IndexFunc(w.stands, func(s ring.Stand) bool { return s.Node == self })
	switch {
	case at >= 0 && w.stands[at].For == 0:
		return w.stands[at], true
	case w.op.Strict():
		return ring.Stand{}, false
	case w.forwarded && at < 0:
		return ring.Stand{Node: self, For: w.ring.Owners(w.partition)[0]}, true
	case at >= 0 && (w.forwarded || w.liveOwners() == 0):
		return w.stands[at], true
	}
	return ring.Stand{}, false
}

// others are the nodes that may coordinate the write in this one's place, the
// preferred first: owners, and only with no owner left fallbacks. Owners that
// refuse are not stood in for.
func (w *write) others() []ring.NodeID {
	owners := w.liveOwners() > 0
	if w.forwarded || !owners && w.op.Strict() {
		return nil
	}
	nodes := make([]ring.NodeID, 0, len(w.stands)) // a scout may keep it longer than w lives
	for _, s := range w.stands {
		if owners == (s.For == 0) && !slices.Contains(w.busy, s.Node) {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

// turnPause is the time after which a write that found no coordinator in a change of
// the ring looks again: nodes hear within moments of each other who is read now.
const turnPause = 20 * time.Millisecond

// refuse ends a write of which nothing was stored anywhere, or puts it off.
func (w *write) refuse() {
	switch {
	case !w.forwarded && errors.Is(w.denied, ErrNotOwner) && (len(w.rings.Beside) > 0 || w.rings.Relay) && time.Until(w.deadline) > turnPause:
		time.AfterFunc(turnPause, w.again)
	case errors.Is(w.denied, ErrOverloaded):
		w.finish(WriteResult{}, ErrOverloaded)
	case errors.Is(w.denied, ErrDiskFull):
		w.finish(WriteResult{}, ErrDiskFull)
	case w.forwarded:
		w.finish(WriteResult{}, w.refusal())
	default:
		w.finish(WriteResult{}, ErrNoReplicas)
	}
}

// again begins anew by the rings of now. Those that were asked have gone out of the one
// ring, or are not yet in the other.
func (w *write) again() {
	rings := w.c.enter()
	if rings == nil {
		w.finish(WriteResult{}, ErrNoReplicas)
		return
	}
	w.rings.leave()
	if w.rings = rings; w.forwarded && rings.Relay {
		w.finish(WriteResult{}, ErrNotOwner)
		return
	}
	w.ring, w.start = rings.Base, time.Now()
	w.r, w.w = min(w.r, w.ring.N()), min(w.w, w.ring.N())
	w.dead, w.busy, w.denied = w.dead[:0], w.busy[:0], nil
	w.route()
}

// anew begins again, once this node has heard of later rings than those by which the
// write was to read.
func (w *write) anew() {
	switch {
	case time.Until(w.deadline) <= turnPause:
		w.finish(WriteResult{}, ErrNoReplicas)
	case w.c.cluster.Rings() == w.rings:
		time.AfterFunc(turnPause, w.anew)
	default:
		w.again()
	}
}

// refusal is what the node that handed the write over is told: to try another
// owner if this one is none, or cannot read its copy.
func (w *write) refusal() error {
	if w.denied != nil || !w.ring.Owns(w.c.cluster.Self(), w.partition) {
		return ErrNotOwner
	}
	return ErrNoReplicas
}

// foundDone hands the write to the node that showed life.
func (w *write) foundDone(f found) {
	if f.node == 0 {
		err := ErrUnreachable
		if len(f.silent) == 0 {
			err = ErrOverloaded
		}
		w.dead, w.busy = append(w.dead, f.silent...), append(w.busy, f.busy...)
		w.retry(err)
		return
	}
	w.forward(f.node)
}

// forward hands the write to another node, which the package comment says more
// about.
func (w *write) forward(node ring.NodeID) {
	w.asked = node
	peer := w.c.cluster.Peer(node)
	if peer == nil {
		w.forwardDone(WriteResult{}, ErrUnreachable)
		return
	}
	w.c.count.forwards.Inc()
	peer.Write(ForwardRequest{Key: w.key, Op: w.op, R: w.r, W: w.w, Deadline: w.deadline}, w.onForward)
}

// forwardDone takes the outcome of a forward. Only one that certainly did
// nothing may be tried elsewhere: two coordinators of one write make siblings.
func (w *write) forwardDone(res WriteResult, err error) {
	switch {
	case err == nil, isAnswer(err):
		w.finish(res, err)
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrDiskFull):
		w.dead = append(w.dead, w.asked)
		w.retry(err)
	case errors.Is(err, ErrNotOwner), errors.Is(err, ErrOverloaded), errors.Is(err, ErrNoReplicas):
		// The last of them may be the view of a node that is just coming back
		// and still suspects everybody.
		w.busy = append(w.busy, w.asked)
		w.retry(err)
	default:
		w.finish(WriteResult{}, &UncertainError{Want: w.w})
	}
}

// isAnswer reports whether an error is what another coordinator made of the
// write, and not a refusal or a failure to hear of it.
func isAnswer(err error) bool {
	var uncertain *UncertainError
	return errors.As(err, &uncertain) || version.Refused(err)
}

// retry looks for another coordinator; every round rules out one node.
func (w *write) retry(err error) {
	w.denied = err
	w.c.count.forwardsRetried.Inc()
	w.start = time.Now()
	if !w.start.Before(w.deadline) {
		w.refuse()
		return
	}
	w.route()
}

// coordinate makes this node the coordinator, as the stand given.
func (w *write) coordinate(self ring.Stand) {
	w.self = self
	w.result = WriteResult{Fallback: self.For != 0}
	if self.For != 0 {
		w.c.count.fallbackMints.Inc()
	}
	patience := time.Until(w.deadline)
	switch {
	case patience <= 0:
		w.refuse()
		return
	case w.op.NeedsRead():
	case w.c.cfg.Recovering():
		patience /= 2 // it can be done without
	default:
		w.mint(version.Record{})
		return
	}
	w.c.inFlight.Add(1) // the read's own place: its tail may outlast the write
	w.rings.join()
	w.c.read(readQuery{
		key: w.key, r: w.r, rings: w.rings, homes: w.exclusive(), timeout: patience,
	}, w.onRead)
}

// readDone goes on with the join of R copies. Nothing is written yet, so a
// failed read is a refusal that may be repeated; unless the operation needs none,
// and the read was to make up for what this node has lost. Then the write covers
// less than it might, and what it has not seen stays beside it.
func (w *write) readDone(res ReadResult, err error) {
	w.start = time.Now()
	switch {
	case err != nil && !w.op.NeedsRead():
		w.mint(version.Record{})
	case errors.Is(err, ErrStaleEpoch):
		w.anew()
	case errors.Is(err, ErrOverloaded):
		w.finish(WriteResult{}, ErrOverloaded)
	case err != nil, !w.start.Before(w.deadline): // what was read is old by now
		w.finish(WriteResult{}, ErrNoReplicas)
	default:
		w.mint(res.Record)
	}
}

// mint applies the operation to the local copy and begins replication.
func (w *write) mint(base version.Record) {
	w.mu.Lock()
	w.mu.Reset(w.w, w.self, w.stands, w.ring.Owners(w.partition))
	w.oweLocked()
	w.mu.refs, w.mu.running = 1, true // callbacks only feed until enc is there
	w.mu.Unlock()

	enc, out, err := w.c.local.Mutate(w.key, w.self.For, base, w.op, w.deadline, true, w.onLocal)
	if err != nil {
		w.mu.refs, w.mu.running = 0, false
		w.mintFailed(err)
		return
	}
	w.enc, w.result.Outcome = enc, out
	w.mu.Lock()
	w.mu.noop = w.promisesNothing(out)
	w.run()
}

// oweLocked adds the owners in the rings beside the base. Each of those rings is to
// have as many copies as the base: when one of them becomes the base, reads rely on
// that.
func (w *write) oweLocked() {
	w.owed = append(w.owed[:0], w.ring)
	for _, r := range w.rings.Beside {
		same := func(o *ring.Ring) bool { return sameOwners(o.Owners(w.partition), r.Owners(w.partition)) }
		if r.N() == 0 || slices.ContainsFunc(w.owed, same) {
			continue
		}
		w.owed = append(w.owed, r)
		w.mu.Beside(min(w.w, r.N()), r.Walk(nil, w.partition, w.alive), r.Owners(w.partition))
	}
}

// sameOwners reports whether two lists name the same nodes.
func sameOwners(a, b []ring.NodeID) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(id ring.NodeID) bool { return !slices.Contains(b, id) })
}

// promisesNothing reports whether the operation changed nothing and its answer
// claims nothing that would have to last. A delete with nothing left to do does
// claim it: it may be the repetition of one that got no further than this node,
// and the token in its answer covers what is deleted here. So the record goes to
// W nodes as if it were new, unless nobody ever wrote the key.
func (w *write) promisesNothing(out version.Outcome) bool {
	return !out.Applied && (w.op.Kind != version.OpDelete || len(out.Token.Context) == 0)
}

// mintFailed deals with a local copy that could not be written. Nothing was
// stored, so another owner may try unless the operation itself is refused.
func (w *write) mintFailed(err error) {
	switch {
	case version.Refused(err), errors.Is(err, ErrOverloaded):
		w.finish(WriteResult{}, err)
		return
	case errors.Is(err, version.ErrDotReused):
		w.c.cfg.Logger.Error("coordinator: a dot was used before: does another process run with this node's incarnation?", "err", err)
	}
	w.c.count.mintsFailed.Inc()
	switch {
	case !w.forwarded:
	case errors.Is(err, ErrDiskFull):
		w.finish(WriteResult{}, ErrDiskFull)
		return
	default:
		w.finish(WriteResult{}, ErrNotOwner)
		return
	}
	w.dead = append(w.dead, w.self.Node)
	w.retry(err)
}

// finish ends a write that has no callback outstanding.
func (w *write) finish(res WriteResult, err error) {
	w.ended(err)
	w.done(res, err)
	w.recycle()
}

// ended notes what came of a write and how long that took.
func (w *write) ended(err error) {
	w.c.countOutcome(err)
	w.c.cfg.Ended(time.Since(w.began))
}

func (c *Coordinator) countOutcome(err error) {
	if err == nil {
		return
	}
	var uncertain *UncertainError
	switch {
	case errors.As(err, &uncertain):
		c.count.uncertain.Inc()
	case errors.Is(err, ErrNoReplicas):
		c.count.noReplicas.Inc()
	}
}

// recycle returns the object to its pool. Requires: no callback is outstanding.
func (w *write) recycle() {
	c := w.c
	if w.rings != nil {
		w.rings.leave()
	}
	clear(w.owed)
	w.rings, w.owed = nil, w.owed[:0]
	w.key, w.op, w.done, w.ring, w.enc, w.denied = nil, version.Op{}, nil, nil, nil, nil
	w.result = WriteResult{}
	w.dead, w.busy = w.dead[:0], w.busy[:0]
	w.mu.running, w.mu.noop, w.mu.answered, w.mu.expired = false, false, false, false
	c.writes.Put(w)
	c.release()
}
