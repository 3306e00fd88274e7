package rpc

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Pool is the calling side of a node: its peers, and what it knows about them.
type Pool struct {
	cfg   PoolConfig
	ages  ages
	count clientCounters
	epoch time.Time     // instants inside the pool are durations since it
	kick  chan struct{} // there are fresh peers

	peers atomic.Pointer[map[ring.NodeID]*Peer] // immutable map, replaced under mu

	mu struct {
		sync.Mutex
		ended bool    // Run has returned or is about to
		fresh []*Peer // created, and not yet looked after by Run
	}
}

// NewPool returns a pool without peers. It starts nothing: calls wait for Run.
func NewPool(cfg PoolConfig) (*Pool, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Pool{
		cfg:   cfg,
		ages:  agesOf(cfg.MessageAge),
		count: newClientCounters(cfg.Metrics),
		epoch: time.Now(),
		kick:  make(chan struct{}, 1),
	}
	p.peers.Store(&map[ring.NodeID]*Peer{})
	return p, nil
}

// Run keeps the peers connected until ctx ends, ends every call, waits for all
// goroutines of the pool and returns nil. It is called once; calls made after it
// end with ErrUnreachable.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for ctx.Err() == nil {
		for _, peer := range p.takeFresh(false) {
			wg.Go(func() { peer.run(ctx) })
		}
		select {
		case <-ctx.Done():
		case <-p.kick:
		}
	}
	for _, peer := range p.takeFresh(true) {
		peer.shut()
	}
	wg.Wait()
	return nil
}

func (p *Pool) takeFresh(last bool) []*Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	peers := p.mu.fresh
	p.mu.fresh = nil
	p.mu.ended = last
	return peers
}

// Peer returns the peer with that id, creating it when it is new and giving it
// the address. The pool keeps a connection to every peer it has.
func (p *Pool) Peer(id ring.NodeID, addr string) *Peer {
	if peer := p.Get(id); peer != nil {
		peer.SetAddr(addr)
		return peer
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if peer := p.Get(id); peer != nil {
		peer.SetAddr(addr)
		return peer
	}
	peer := newPeer(p, id, addr)
	if p.mu.ended {
		peer.shut() // nobody else knows it yet, so it has no calls to end
		return peer
	}
	next := maps.Clone(*p.peers.Load())
	next[id] = peer
	p.peers.Store(&next)
	p.mu.fresh = append(p.mu.fresh, peer)
	nudge(p.kick)
	return peer
}

// Get returns the peer with that id, or nil.
func (p *Pool) Get(id ring.NodeID) *Peer {
	return (*p.peers.Load())[id]
}

// Drop forgets a peer: its calls end and its connections close.
func (p *Pool) Drop(id ring.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer := p.Get(id)
	if peer == nil {
		return
	}
	next := maps.Clone(*p.peers.Load())
	delete(next, id)
	p.peers.Store(&next)
	close(peer.gone)
}

// Up reports whether the peer is known and not suspected.
func (p *Pool) Up(id ring.NodeID) bool {
	peer := p.Get(id)
	return peer != nil && peer.Up()
}

// since is the present as the pool's instants count it.
func (p *Pool) since(t time.Time) time.Duration { return t.Sub(p.epoch) }

// nudge makes the reader of c run once more; c has room for one.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
