package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Peer is another node, as one to call. Its methods may be used from any
// goroutine.
type Peer struct {
	pool   *Pool
	id     ring.NodeID
	addr   atomic.Pointer[string]
	health health
	prover prover
	errand errand
	small  *lane // requests below BulkBytes that are not background
	bulk   *lane // the others and what is published, so that they do not stand in the way

	kick    chan struct{} // the keeper has something to look at
	doubted atomic.Bool   // Check was called
	gone    chan struct{} // closed when the pool drops the peer

	reason  atomic.Pointer[string] // of the last suspicion, for the log
	brokeAt atomic.Int64           // instant at which a connection last ended
}

func newPeer(pool *Pool, id ring.NodeID, addr string) *Peer {
	p := &Peer{
		pool: pool,
		id:   id,
		kick: make(chan struct{}, 1),
		gone: make(chan struct{}),
	}
	p.small = newLane(p, false)
	p.bulk = newLane(p, true)
	p.addr.Store(&addr)
	p.health.up.Store(true)
	return p
}

// ID returns the node the peer is.
func (p *Peer) ID() ring.NodeID { return p.id }

// Addr returns where it is dialed.
func (p *Peer) Addr() string { return *p.addr.Load() }

// SetAddr changes where the peer is dialed next, and dials at once if it is not
// connected. A connection that works is kept: the handshake said whose it is.
func (p *Peer) SetAddr(addr string) {
	if p.Addr() == addr {
		return
	}
	p.addr.Store(&addr)
	nudge(p.kick)
}

// Up reports whether the peer is not suspected. A peer never tried is up.
func (p *Peer) Up() bool { return p.health.up.Load() }

// Unbroken is for how long there has been a connection to the peer and none has
// ended, which a connection does that is silent for a quarter of MessageAge; 0 if
// there is none.
func (p *Peer) Unbroken() time.Duration {
	s, _ := p.small.state()
	if s == nil {
		return 0
	}
	return p.pool.since(time.Now()) - max(s.opened, time.Duration(p.brokeAt.Load()))
}

// Check makes the peer be probed at once, because somebody else (gossip) thinks
// other than this node of whether it is alive. What counts is the answer: a peer
// that answers stays up, and one that does not stays suspected.
func (p *Peer) Check() {
	p.doubted.Store(true)
	nudge(p.kick)
}

// P95 is about how long one in twenty batches of replies to foreground reads takes or
// longer, from when the first of the reads was asked to when the last was dealt with;
// of pings before there are any reads; 0 when nothing is known.
func (p *Peer) P95() time.Duration { return time.Duration(p.health.p95.Load()) }

// call sends a request over the lane it belongs to.
func (p *Peer) call(kind Kind, o Options, payload int, enc func([]byte) []byte, done completion) {
	l := p.small
	if o.Class == Background || payload >= p.pool.cfg.BulkBytes {
		l = p.bulk
	}
	p.callOver(l, kind, o, payload, enc, done)
}

func (p *Peer) callOver(l *lane, kind Kind, o Options, payload int, enc func([]byte) []byte, done completion) {
	p.pool.count.calls[kind].Inc()
	if err := l.send(kind, o, payload, enc, done); err != nil {
		p.pool.count.failed(err)
		_ = done.complete(nil, err) // with an error there is nothing to decode
	}
}

// fail completes calls that got no reply.
func (p *Peer) fail(calls []ended) {
	for i := range calls {
		p.pool.count.failed(calls[i].err)
		_ = calls[i].done.complete(nil, calls[i].err) // as above
	}
}

// suspect marks the peer down. Calls that wait for a connection end here, and
// none will wait until it is back.
func (p *Peer) suspect(reason string) {
	if p.Up() {
		p.reason.Store(&reason) // before the change that makes the keeper read it
	}
	if p.health.up.CompareAndSwap(true, false) {
		p.pool.count.suspicions.Inc()
	}
	for _, l := range []*lane{p.small, p.bulk} {
		if calls, ok := l.detach(nil); ok {
			p.fail(calls)
		}
	}
	nudge(p.kick)
}

// broke is told that a connection ended, with the calls that were using it.
func (p *Peer) broke(s *session, calls []ended, err error) {
	if errors.Is(err, ErrMalformed) {
		p.pool.count.badFrames.Inc()
		p.pool.cfg.Logger.Warn("peer sent a bad frame", "peer", p.id, "err", err)
	}
	if len(calls) > 0 || errors.Is(err, ErrMalformed) {
		p.suspect("connection broke: " + err.Error())
	}
	p.fail(calls)
	nudge(p.kick)
}

// shut ends every call and connection for good.
func (p *Peer) shut() {
	p.health.up.Store(false)
	for _, l := range []*lane{p.small, p.bulk} {
		s := l.shut()
		if s != nil {
			s.end(ErrClosed)
		}
		if calls, ok := l.detach(nil); ok {
			p.fail(calls)
		}
	}
}

// run looks after the peer until ctx ends or the pool drops it.
func (p *Peer) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := newKeeper(p)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for live := true; live; {
		timer.Reset(k.step(ctx))
		select {
		case <-ctx.Done():
			live = false
		case <-p.gone:
			live = false
		case <-p.kick:
		case <-timer.C:
		case d := <-k.dialed:
			k.onDial(d)
		case err := <-k.probed:
			k.onProbe(err)
		}
	}
	cancel()
	p.shut()
	k.wait()
}
