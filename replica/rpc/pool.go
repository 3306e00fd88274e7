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
	count clientCounters
	epoch time.Time // instants inside the pool are durations since it
	fresh chan struct{}

	peers atomic.Pointer[map[ring.NodeID]*Peer] // immutable map, replaced under mu

	mu struct {
		sync.Mutex
		running bool
		ended   bool
		started []*Peer // created, and not yet looked after by Run
	}
}

// NewPool returns a pool without peers. It starts nothing: until Run, calls
// end with ErrUnreachable.
func NewPool(cfg PoolConfig) (*Pool, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Pool{
		cfg:   cfg,
		count: newClientCounters(cfg.Metrics),
		epoch: time.Now(),
		fresh: make(chan struct{}, 1),
	}
	p.peers.Store(&map[ring.NodeID]*Peer{})
	return p, nil
}

// Run keeps the peers connected until ctx ends, ends every call, waits for all
// goroutines of the pool and returns nil. It is called once.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	p.mu.Lock()
	p.mu.running = true
	for _, peer := range p.mu.started {
		peer.open()
	}
	p.mu.Unlock()
	for ctx.Err() == nil {
		for _, peer := range p.takeStarted(false) {
			wg.Go(func() { peer.run(ctx) })
		}
		select {
		case <-ctx.Done():
		case <-p.fresh:
		}
	}
	for _, peer := range p.takeStarted(true) {
		peer.shut()
	}
	wg.Wait()
	return nil
}

func (p *Pool) takeStarted(last bool) []*Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	peers := p.mu.started
	p.mu.started = nil
	if last {
		p.mu.running, p.mu.ended = false, true
	}
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
	next := maps.Clone(*p.peers.Load())
	next[id] = peer
	p.peers.Store(&next)
	if p.mu.ended {
		peer.shut()
		return peer
	}
	if p.mu.running {
		peer.open()
	}
	p.mu.started = append(p.mu.started, peer)
	nudge(p.fresh)
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
