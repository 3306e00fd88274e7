package rpc

import (
	"sync"
	"time"
)

// prover finds out whether a peer is alive now, for any number of callers with
// one ping at a time. A caller that comes when a ping has been sent waits for
// the next one: the answer to a ping says nothing about the time after it was
// sent, and the peer may have died since. One that is still held back in this
// process will do.
type prover struct {
	mu struct {
		sync.Mutex
		asked  []func(error) // wait for the ping under way
		next   []func(error) // came after it was sent
		before uint64        // the newest call of the lane when it was made
	}
}

// Prove asks for a proof of life. done(nil) means that the process of the peer
// was alive at some time after the call: it answered a ping sent since. Any
// error means that there is no proof, within SuspectTimeout of the ping. done is
// called exactly once, from any goroutine, perhaps before Prove returns.
func (p *Peer) Prove(done func(error)) {
	v := &p.prover
	v.mu.Lock()
	switch {
	case len(v.mu.asked) == 0:
		v.mu.asked = append(v.mu.asked, done)
		v.mu.before, _ = p.small.progress()
		v.mu.Unlock()
		p.pingForProof()
	case len(v.mu.asked)+len(v.mu.next) >= p.pool.cfg.MaxCalls:
		v.mu.Unlock()
		done(ErrOverloaded)
	case p.unsent(v.mu.before):
		v.mu.asked = append(v.mu.asked, done)
		v.mu.Unlock()
	default:
		v.mu.next = append(v.mu.next, done)
		v.mu.Unlock()
	}
}

// unsent reports that nothing that came after a call has left this process.
func (p *Peer) unsent(call uint64) bool {
	_, handed := p.small.progress()
	return handed <= call
}

func (p *Peer) pingForProof() {
	p.Ping(Options{Deadline: time.Now().Add(p.pool.cfg.SuspectTimeout)}, p.proved)
}

// proved ends a ping. One that failed fails those who wait for the next one too:
// what they would learn, they know.
func (p *Peer) proved(err error) {
	v := &p.prover
	v.mu.Lock()
	asked, next := v.mu.asked, v.mu.next
	if err == nil {
		v.mu.asked, v.mu.next = next, nil
		v.mu.before, _ = p.small.progress()
	} else {
		v.mu.asked, v.mu.next = nil, nil
	}
	v.mu.Unlock()
	if err == nil && len(next) > 0 {
		p.pingForProof()
	}
	for _, done := range asked {
		done(err)
	}
	if err == nil {
		return
	}
	for _, done := range next {
		done(err)
	}
}
