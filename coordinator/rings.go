package coordinator

import (
	"sync/atomic"

	"github.com/redynamo/redynamo/membership/ring"
)

// Rings are the live rings, and a count of the requests that go by them. Whoever
// publishes rings that follow waits until the ones before are idle: no request
// then acts on what they say, or will.
type Rings struct {
	*ring.Live
	users atomic.Int64
}

// NewRings makes rings that no request goes by yet.
func NewRings(live *ring.Live) *Rings { return &Rings{Live: live} }

// Idle reports whether no request goes by these rings. Once others have replaced
// them that stays so.
func (r *Rings) Idle() bool { return r.users.Load() == 0 }

// join counts one more request that is part of one that is counted.
func (r *Rings) join() { r.users.Add(1) }

// leave undoes join, or enter.
func (r *Rings) leave() { r.users.Add(-1) }

// enter returns the present rings and counts the caller's request among theirs;
// nil if there is none that owns anything.
func (c *Coordinator) enter() *Rings {
	for {
		r := c.cluster.Rings()
		if r == nil || r.Base.N() == 0 {
			return nil
		}
		r.join()
		if c.cluster.Rings() == r {
			return r
		}
		r.leave() // they have been replaced, and were perhaps found idle
	}
}
