package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Read reads key from R replicas and calls done exactly once with the join of
// their copies. key must not be modified afterwards, not even after done.
func (c *Coordinator) Read(key []byte, o ReadOptions, done func(ReadResult, error)) {
	if !c.admit() {
		done(ReadResult{}, ErrOverloaded)
		return
	}
	c.count.reads.Inc()
	q := readQuery{key: key, r: o.R, timeout: o.Timeout, rings: c.enter(), client: true}
	if o.Min != nil {
		q.min = o.Min.Context
	}
	c.read(q, done)
}

// readQuery is a read as the coordinator's own parts ask for it.
type readQuery struct {
	key     []byte
	r       int
	min     version.Context
	wrote   *version.Wrote // what the answer must have in it; may be nil
	timeout time.Duration
	rings   *Rings // entered; left when the read has ended
	homes   bool   // only owners count
	client  bool   // a client asks, and not the coordinator for a write
	since   time.Time
}

// read is one read under way.
type read struct {
	c        *Coordinator
	q        readQuery
	done     func(ReadResult, error)
	deadline time.Time
	hedge    time.Duration // how long to wait for slow nodes before one more is asked
	timer    *time.Timer
	stands   []ring.Stand // scratch
	slots    []*readSlot

	mu struct {
		sync.Mutex
		quorum.Read
		refs     int  // callbacks outstanding, the timer's included
		running  bool // some goroutine is in run
		answered bool
		expired  bool // the deadline has passed
		armed    bool // the timer is set
		outdated bool // somebody goes by later rings
		lastErr  error
	}
}

// readSlot is the callback of one question. It outlives the request.
type readSlot struct {
	r     *read
	index int
	fn    func(ReadReply, error)
}

// read starts a read. Requires: the caller took a place with inFlight and entered
// the rings, which the read gives back.
func (c *Coordinator) read(q readQuery, done func(ReadResult, error)) {
	if q.since.IsZero() {
		q.since = time.Now()
	}
	if q.rings == nil {
		c.count.readFailures.Inc()
		done(ReadResult{}, ErrNoReadQuorum)
		c.release()
		return
	}
	r, ok := c.reads.Get().(*read)
	if !ok {
		r = &read{c: c}
	}
	if q.timeout <= 0 {
		q.timeout = c.cfg.ReadTimeout
	}
	q.timeout = min(q.timeout, c.cfg.MaxAge)
	r.q, r.done, r.deadline = q, done, time.Now().Add(q.timeout)
	r.stands = q.rings.Base.Walk(r.stands[:0], r.partition(), c.up)
	if q.homes {
		r.stands = slices.DeleteFunc(r.stands, func(s ring.Stand) bool { return s.For != 0 })
	}
	need := capped(q.r, c.cfg.R, q.rings.Base)
	slowest := c.prefer(r.stands, need)
	r.hedge = min(max(slowest, c.cfg.MinHedge), q.timeout/2)

	r.mu.Lock()
	r.mu.Reset(need, q.min, r.stands)
	if q.wrote != nil {
		r.mu.Expect(q.wrote)
	}
	r.mu.Clock(c.cfg.Now().UnixMilli())
	r.run()
}

// capped is R or W of a request: what it says or else the default, no more
// than there are owners.
func capped(asked, byDefault int, r *ring.Ring) int {
	if asked <= 0 {
		asked = byDefault
	}
	return min(asked, r.N())
}

func (r *read) partition() int { return r.q.rings.Partition(ring.SlotOf(r.q.key)) }

// prefer puts the local copy first, then the other owners by latency, then the
// fallbacks, and returns the highest latency among the owners in the first need
// places.
func (c *Coordinator) prefer(stands []ring.Stand, need int) time.Duration {
	var few [8]time.Duration
	ranks := few[:0]
	for at, s := range stands { // an insertion sort: stable, and there are few
		rank := c.rank(s)
		ranks = append(ranks, rank)
		for ; at > 0 && ranks[at-1] > rank; at-- {
			ranks[at], stands[at] = ranks[at-1], stands[at-1]
		}
		ranks[at], stands[at] = rank, s
	}
	slowest := time.Duration(0)
	for _, rank := range ranks[:min(need, len(ranks))] {
		if rank < fallbackRank-1 {
			slowest = max(slowest, rank)
		}
	}
	return slowest
}

// fallbackRank is above every latency.
const fallbackRank = time.Hour

// rank is what prefer sorts by.
func (c *Coordinator) rank(s ring.Stand) time.Duration {
	if s.For != 0 {
		return fallbackRank
	}
	if s.Node == c.cluster.Self() {
		return -1
	}
	p := c.cluster.Peer(s.Node)
	if p == nil {
		return fallbackRank - 1
	}
	if l := p.Latency(); l > 0 {
		return l
	}
	return 10 * c.cfg.MinHedge // unknown: tried after those known to be fast
}

type readAction uint8

const (
	readWait readAction = iota
	readAsk
	readSpares
	readAnswer
	readEnd
)

// run does what the kernel wants until it wants nothing. Requires: mu is held;
// run releases it. A second goroutine leaves the work to the first.
func (r *read) run() {
	if r.mu.running {
		r.mu.Unlock()
		return
	}
	r.mu.running = true
	for {
		action, ask := r.nextLocked()
		switch action {
		case readWait:
			r.mu.running = false
			r.mu.Unlock()
			return
		case readAsk:
			slot := r.slotLocked(ask.Index)
			r.mu.Unlock()
			r.send(ask, slot)
		case readSpares:
			r.mu.Unlock()
			spares := r.spares()
			r.mu.Lock()
			r.mu.Spares(spares)
			continue
		case readAnswer:
			res, err := r.resultLocked()
			again := r.q.client && r.mu.outdated && errors.Is(err, ErrNoReadQuorum)
			r.mu.Unlock()
			r.answer(res, err, again)
		case readEnd:
			r.mu.Unlock()
			r.end()
			return
		}
		r.mu.Lock()
	}
}

// answer tells the outcome, unless the read is to be put again: as one of its own, for
// this one may have callbacks outstanding.
func (r *read) answer(res ReadResult, err error, again bool) {
	done := r.done
	r.done = nil
	if again {
		r.c.inFlight.Add(1) // its own place
		r.c.readAnew(r.q, r.deadline, err, done)
		return
	}
	r.c.readEnded(r.q, err)
	done(res, err)
}

// readEnded notes what came of a read.
func (c *Coordinator) readEnded(q readQuery, err error) {
	if err != nil && !errors.Is(err, ErrStale) {
		c.count.readFailures.Inc()
	}
	if q.client {
		c.cfg.Ended(time.Since(q.since))
	}
}

// readAnew puts a read again that failed since others go by later rings than q's, as
// soon as this node has heard of later ones. Requires: as read, less the rings.
func (c *Coordinator) readAnew(q readQuery, deadline time.Time, failed error, done func(ReadResult, error)) {
	left := time.Until(deadline)
	if left <= 0 {
		c.readEnded(q, failed)
		done(ReadResult{}, failed)
		c.release()
		return
	}
	rings := c.enter()
	if rings == nil || rings == q.rings {
		if rings != nil {
			rings.leave()
		}
		time.AfterFunc(min(turnPause, left), func() { c.readAnew(q, deadline, failed, done) })
		return
	}
	q.rings, q.timeout = rings, left
	c.read(q, done)
}

// nextLocked picks what to do next.
func (r *read) nextLocked() (readAction, quorum.Ask) {
	if !r.mu.answered && !r.mu.expired {
		if ask, ok := r.mu.Next(); ok {
			r.mu.refs++
			return readAsk, ask
		}
		if r.mu.NeedsSpares() {
			return readSpares, quorum.Ask{}
		}
	}
	switch {
	case r.mu.answered && r.mu.refs == 0:
		return readEnd, quorum.Ask{}
	case !r.mu.answered && (r.mu.expired || r.mu.Verdict() != quorum.Pending):
		r.mu.answered = true
		if r.mu.armed && r.timer.Stop() {
			r.mu.armed = false
			r.mu.refs--
		}
		return readAnswer, quorum.Ask{}
	case !r.mu.answered && !r.mu.armed:
		r.armLocked()
	}
	return readWait, quorum.Ask{}
}

// armLocked sets the timer for the next hedge, or for the deadline.
func (r *read) armLocked() {
	wait := time.Until(r.deadline)
	if r.mu.Hedgeable() {
		wait = min(wait, r.hedge)
	}
	r.mu.armed = true
	r.mu.refs++
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, r.fire)
		return
	}
	r.timer.Reset(wait)
}

// send puts one question. Requires: mu is not held.
func (r *read) send(ask quorum.Ask, slot *readSlot) {
	peer := r.c.cluster.Peer(ask.Stand.Node)
	if peer == nil {
		slot.reply(ReadReply{}, ErrUnreachable)
		return
	}
	peer.Read(ReadRequest{
		Key: r.q.key, For: ask.Stand.For,
		Have: ask.Have, HaveAny: ask.Mode == quorum.IfDiffer, DigestOnly: ask.Mode == quorum.Digest,
		Stamp: r.q.rings.Stamp, Deadline: r.deadline,
	}, slot.fn)
}

// slotLocked is the callback for a question; a node has one question out at
// most.
func (r *read) slotLocked(index int) *readSlot {
	for len(r.slots) <= index {
		s := &readSlot{r: r, index: len(r.slots)}
		s.fn = s.reply
		r.slots = append(r.slots, s)
	}
	return r.slots[index]
}

// reply takes the outcome of one question.
func (s *readSlot) reply(a ReadReply, err error) {
	r := s.r
	r.mu.Lock()
	r.mu.refs--
	if err != nil {
		r.mu.lastErr = err
		r.mu.outdated = r.mu.outdated || errors.Is(err, ErrStaleEpoch)
		r.mu.Fail(s.index)
	} else {
		r.mu.Reply(s.index, quorum.Reply(a))
	}
	r.run()
}

// fire is the timer: the deadline, or else the moment to hedge.
func (r *read) fire() {
	late := !time.Now().Before(r.deadline)
	r.mu.Lock()
	r.mu.refs--
	r.mu.armed = false
	switch {
	case r.mu.answered:
	case late:
		r.mu.expired = true
	case r.mu.Hedgeable():
		r.mu.Hedge()
		r.c.count.hedges.Inc()
	}
	r.run()
}

// spares are the live fallbacks of the key.
func (r *read) spares() []ring.NodeID {
	if r.q.homes {
		return nil
	}
	return r.c.liveFallbacks(r.q.rings.Base, r.partition())
}

func (c *Coordinator) liveFallbacks(rg *ring.Ring, partition int) []ring.NodeID {
	return slices.DeleteFunc(rg.Fallbacks(partition), func(n ring.NodeID) bool { return !c.up(n) })
}

// resultLocked is the answer of a read that is decided or late.
func (r *read) resultLocked() (ReadResult, error) {
	switch v := r.mu.Verdict(); {
	case v == quorum.Met:
		if r.q.client {
			r.c.count.divergence.showed(r.mu.Record(), r.c.cfg.Now())
		}
		return ReadResult{Record: r.mu.Record(), Fallback: r.mu.Fallback()}, nil
	case v == quorum.Stale:
		return ReadResult{}, ErrStale
	case v == quorum.Pending || !time.Now().Before(r.deadline):
		return ReadResult{}, ErrTimeout
	}
	err := ErrNoReadQuorum
	if r.mu.NoOwner() {
		err = ErrNoOwner
	}
	if r.mu.lastErr != nil {
		err = fmt.Errorf("%w: %w", err, r.mu.lastErr)
	}
	return ReadResult{}, err
}

func (r *read) began() time.Time { return r.deadline.Add(-r.q.timeout) }

// end repairs what the read found stale and returns the object to its pool.
// Requires: answered, and no callback is outstanding.
func (r *read) end() {
	c := r.c
	if stale := r.mu.Repairs(nil); len(stale) > 0 {
		c.repairOwners(r.q.rings, r.q.key, r.mu.Record(), r.began(), stale)
	}
	r.q.rings.leave()
	r.q = readQuery{}
	r.mu.Reset(0, nil, nil)
	r.mu.running, r.mu.answered, r.mu.expired, r.mu.outdated, r.mu.lastErr = false, false, false, false, nil
	c.reads.Put(r)
	c.release()
}
