package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A peer that was up this long is probed quickly again when next suspected. One
// that comes and goes faster, because it answers probes and nothing else, is
// left alone for longer and longer.
const steadyAfter = 10 * time.Second

// keeper looks after one peer: it expires calls, dials, probes a suspect and
// tells of changes. All of it happens on the goroutine of Peer.run, which alone
// uses its fields.
type keeper struct {
	p  *Peer
	wg sync.WaitGroup // dialers, readers and writers

	told     bool          // the state OnChange was last told
	upSince  time.Duration // when it was last told up
	level    int           // how many waits between probes have doubled
	probeAt  time.Duration // a suspect is not tried before this
	hurry    bool          // a peer that is up is to be pinged now
	probing  bool
	probedAt time.Duration // when the probe was sent
	probed   chan error
	due      time.Duration    // when the next step was to be taken at the latest
	wokeAt   time.Duration    // when a step last came far too late
	pulseAt  [2]time.Duration // when the connection of a lane was last pinged
	dialing  [2]bool
	dialAt   [2]time.Duration // a lane is not dialed before this
	dialAddr [2]string        // where it was dialed last
	dialed   chan dialResult
}

// dialResult is a connection with its handshake done, or why there is none.
type dialResult struct {
	lane  *lane
	conn  net.Conn
	terms terms
	err   error
}

func newKeeper(p *Peer) *keeper {
	return &keeper{
		p:      p,
		told:   true,
		due:    never,
		probed: make(chan error, 1),      // one probe at a time
		dialed: make(chan dialResult, 2), // one dial per lane at a time
	}
}

func (k *keeper) now() time.Duration { return k.p.pool.since(time.Now()) }

// step does what is due and returns how long there is nothing to do, should
// nothing happen.
func (k *keeper) step(ctx context.Context) time.Duration {
	at := k.now()
	if at-k.due > k.p.pool.cfg.SuspectTimeout/2 {
		k.wokeAt = at
	}
	if k.p.doubted.Swap(false) {
		k.check(at)
	}
	next := k.expire(at)
	k.tell(at)
	for i, l := range []*lane{k.p.small, k.p.bulk} {
		next = min(next, k.pulse(at, i, l))
		next = min(next, k.connect(ctx, at, i, l))
	}
	next = min(next, k.probe(at))
	k.due = next
	return max(next-at, 0)
}

// asleep reports whether this very node was stopped until a moment ago. Then
// replies that came in time lie unread in its sockets, and what has expired
// says nothing about the peers.
func (k *keeper) asleep(at time.Duration) bool {
	return k.wokeAt > 0 && at-k.wokeAt < k.p.pool.cfg.SuspectTimeout
}

// check lets the next probe be made now, and a dial if it takes one.
func (k *keeper) check(at time.Duration) {
	if k.p.Up() {
		k.hurry = true
		return
	}
	k.probeAt, k.dialAt = at, [2]time.Duration{at, at}
}

// expire ends the calls whose time is over and draws the conclusion.
func (k *keeper) expire(at time.Duration) time.Duration {
	p := k.p
	var calls []ended
	calls, small := p.small.expire(calls, at)
	calls, bulk := p.bulk.expire(calls, at)
	if len(calls) > 0 {
		if p.health.missed(at, calls, &p.pool.cfg) && !k.asleep(at) {
			p.suspect("calls timed out")
		}
		p.fail(calls)
	}
	return min(small, bulk)
}

// tell reports a change of state and sets when a new suspect is first probed.
func (k *keeper) tell(at time.Duration) {
	p := k.p
	up := p.Up()
	if up == k.told {
		return
	}
	k.told = up
	if up {
		k.upSince = at
		p.pool.cfg.Logger.Info("peer is back", "peer", p.id, "addr", p.Addr())
	} else {
		if at-k.upSince >= steadyAfter {
			k.level = 0
		}
		k.probeAt = at + k.backoff()
		p.pool.cfg.Logger.Warn("peer is suspected", "peer", p.id, "addr", p.Addr(), "reason", *p.reason.Load())
	}
	p.pool.cfg.OnChange(p.id, up)
}

// backoff returns the wait before the next attempt and doubles the one after
// it. The wait is spread over its upper half, so that a node that comes back is
// not greeted by everyone at once.
func (k *keeper) backoff() time.Duration {
	cfg := &k.p.pool.cfg
	wait := cfg.ProbeMin
	for i := 0; i < k.level && wait < cfg.ProbeMax; i++ {
		wait *= 2
	}
	if wait < cfg.ProbeMax {
		k.level++
	}
	wait = min(wait, cfg.ProbeMax)
	return wait/2 + time.Duration(cfg.Rand()%uint64(wait/2+1))
}

// pulse pings a connection, which keeps it fresh in the eyes of the server (see
// stamp), and gives it up when it has been silent for too long: what was written
// to it must not arrive later.
func (k *keeper) pulse(at time.Duration, i int, l *lane) time.Duration {
	s, _ := l.state()
	if s == nil {
		return never
	}
	if oldest, _ := k.p.pool.cfg.Levels().versions(); s.terms.version < oldest {
		s.end(errOutgrown)
		return at
	}
	ages := &k.p.pool.ages
	gone := s.lastSign() + ages.silence
	if at >= gone {
		k.p.pool.count.silent.Inc()
		s.end(errSilent)
		return at
	}
	due := max(k.pulseAt[i], s.opened) + ages.pulse
	if at < due {
		return min(due, gone)
	}
	k.pulseAt[i] = at
	// Refused only when the lane is shut or has just lost the connection.
	_ = l.send(KindPing, Options{Deadline: time.Now().Add(ages.silence), Class: Background}, 0, appendNothing, pingDone(func(error) {}))
	return min(at+ages.pulse, gone)
}

// errOutgrown is a connection of a version that the cluster's level has left behind.
var errOutgrown = errors.New("rpc: the level of the cluster has risen above what the other side speaks")

// errSilent is a connection on which nothing has been heard for long.
var errSilent = errors.New("rpc: connection is silent")

// connect dials a lane that needs it. The small lane always does, because its
// connection is how a dead peer is noticed; the bulk lane when a call waits.
func (k *keeper) connect(ctx context.Context, at time.Duration, i int, l *lane) time.Duration {
	s, wanted := l.state()
	if s != nil || k.dialing[i] || l.bulk && !wanted {
		return never
	}
	due := k.dialAt[i]
	if !k.p.Up() {
		due = max(due, k.probeAt)
	}
	addr := k.p.Addr()
	if at < due && addr == k.dialAddr[i] {
		return due
	}
	k.dialing[i] = true
	k.dialAddr[i] = addr
	k.dialAt[i] = at + k.p.pool.cfg.ProbeMin
	k.p.pool.count.dials.Inc()
	k.wg.Go(func() {
		k.dialed <- k.p.dial(ctx, l, addr)
	})
	return never
}

// dial opens a connection and greets the peer on it.
func (p *Peer) dial(ctx context.Context, l *lane, addr string) dialResult {
	cfg := &p.pool.cfg
	until := time.Now().Add(cfg.DialTimeout)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := cfg.Dial(ctx, addr)
	if err != nil {
		return dialResult{lane: l, err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // only to end the greeting
	h := hello{
		mark:    laneSmall,
		cluster: cfg.ClusterID(), from: cfg.Node, to: p.id, maxFrame: uint32(cfg.MaxFrameBytes),
	}
	h.min, h.max = cfg.Levels().versions()
	if l.bulk {
		h.mark = laneBulk
	}
	settled, err := greet(conn, h, until)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the greeting's error is the one to report
		return dialResult{lane: l, err: fmt.Errorf("handshake: %w", err)}
	}
	return dialResult{lane: l, conn: conn, terms: settled}
}

// onDial starts the two goroutines of a new connection, or suspects the peer.
func (k *keeper) onDial(d dialResult) {
	p := k.p
	i := 0
	if d.lane.bulk {
		i = 1
	}
	k.dialing[i] = false
	if d.err != nil {
		k.dialFailed(d)
		return
	}
	s := newSession(d.lane, d.conn, d.terms)
	tooLarge, ok := d.lane.attach(s)
	if !ok {
		_ = d.conn.Close() // the lane is shut
		return
	}
	p.fail(tooLarge)
	k.wg.Go(s.read)
	k.wg.Go(s.write)
	if !d.lane.bulk && !p.Up() {
		k.probeAt = k.now() // connected: ask at once whether it answers
	}
}

// dialFailed suspects the peer. When it is only the bulk lane that cannot have
// a connection, the peer lives and has no room: only the calls that wait end.
func (k *keeper) dialFailed(d dialResult) {
	p := k.p
	p.pool.count.dialErrors.Inc()
	if s, _ := p.small.state(); d.lane.bulk && s != nil {
		if calls, ok := d.lane.detach(nil); ok {
			p.fail(calls)
		}
		return
	}
	if !p.Up() {
		k.probeAt = k.now() + k.backoff()
	}
	p.suspect("dial: " + d.err.Error())
}

// probe pings a peer that is up and has been silent for long, or is doubted. A
// suspect that is due is asked for more: see Sync.
func (k *keeper) probe(at time.Duration) time.Duration {
	p, cfg := k.p, &k.p.pool.cfg
	s, _ := p.small.state()
	if s == nil || k.probing {
		return never
	}
	up, due, patience := p.Up(), k.probeAt, cfg.DialTimeout
	switch {
	case up && k.hurry:
		patience = cfg.SuspectTimeout
	case up:
		due = max(due, max(time.Duration(p.health.lastSeen.Load()), s.opened)+cfg.KeepAlive)
	}
	if at < due {
		return due
	}
	k.probing, k.hurry, k.probedAt = true, false, at
	o := Options{Deadline: time.Now().Add(patience)}
	answered := func(err error) { k.probed <- err }
	if up {
		p.Ping(o, answered)
	} else {
		p.Sync(SyncRequest{}, o, answered)
	}
	return never
}

// onProbe takes a suspect back, or closes the connections that do not answer, so
// that the next attempt is made on a new one and nothing that lies in these still
// arrives. A connection that answers other things is kept: the fault is behind it.
func (k *keeper) onProbe(err error) {
	k.probing = false
	p, at := k.p, k.now()
	switch {
	case err == nil:
		if !p.Up() {
			p.health.recovered()
			p.health.up.Store(true)
		}
		return
	case errors.Is(err, ErrOverloaded), p.Up() && k.asleep(at): // it says nothing
		k.probeAt = at + p.pool.cfg.ProbeMin
		return
	}
	for _, l := range []*lane{p.small, p.bulk} {
		if s, _ := l.state(); s != nil && s.lastSign() < k.probedAt {
			s.end(fmt.Errorf("probe: %w", err))
		}
	}
	if !p.Up() {
		k.probeAt = at + k.backoff()
	}
	p.suspect("probe: " + err.Error())
}

// wait waits for the goroutines of the peer, whose connections are closed, and
// closes what they dialed last.
func (k *keeper) wait() {
	k.wg.Wait()
	for range len(k.dialed) {
		if d := <-k.dialed; d.conn != nil {
			_ = d.conn.Close() // never used
		}
	}
}
