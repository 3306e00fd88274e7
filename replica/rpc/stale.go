package rpc

import (
	"bytes"
	"time"
)

// This file refuses requests that go by epochs which are over, and brings their
// sender up to date.

// tellAgainAfter is how long a connection does not carry a state that it has carried.
// A caller that does not heed it asks for thousands of rows a second.
const tellAgainAfter = time.Second

// staleError is ErrStaleEpoch as it crosses the wire.
type staleError struct{ state []byte }

// Error implements error.
func (e *staleError) Error() string { return ErrStaleEpoch.Error() }

// Is makes errors.Is(e, ErrStaleEpoch) hold.
func (e *staleError) Is(target error) bool { return target == ErrStaleEpoch }

// sendStale gathers the refusal of a request that goes by epochs which are over.
func (c *serverConn) sendStale(h header) {
	c.s.count.stale.Inc()
	state := c.s.cfg.EpochState()
	if headerBytes+1+len(state) > c.terms.maxFrame || !c.tells(state) {
		state = nil
	}
	c.sendError(h, &staleError{state})
}

// tells reports whether this state is to go out on the connection now.
func (c *serverConn) tells(state []byte) bool {
	if len(state) == 0 {
		return false
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.told == &state[0] && now.Sub(c.mu.toldAt) < tellAgainAfter {
		return false
	}
	c.mu.told, c.mu.toldAt = &state[0], now
	return true
}

// tellStale hands on the state that an error reply has brought, if it has.
func (p *Peer) tellStale(payload []byte) {
	if len(payload) > 1 && code(payload[0]) == codeStaleEpoch {
		p.pool.cfg.OnStale(p.id, bytes.Clone(payload[1:]))
	}
}
