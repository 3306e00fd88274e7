package coordinator

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Rings are the live rings of one view of the cluster, and a count of what goes by
// them. Whoever publishes rings that follow waits until the ones before are idle: no
// request then acts on what they say, or will, and nothing that one sent can still be
// stored.
type Rings struct {
	*ring.Live
	Stamp  Stamp  // of the view; every message for rows carries it
	Number uint64 // of the view
	// Relay: this node has left these rings. It reads from the owners and hands writes
	// to them, and sends nothing that is to be stored: nobody waits for it any more.
	Relay bool

	users atomic.Int64 // requests, their tails and the repairs after them
	made  time.Time
	open  atomic.Int64 // until so long after made a peer may carry out what it never answered
}

// NewRings makes rings of a view that no request goes by yet.
func NewRings(live *ring.Live, stamp Stamp, number uint64) *Rings {
	return &Rings{Live: live, Stamp: stamp, Number: number, made: time.Now()}
}

// Idle reports whether nothing goes by these rings. Once others have replaced them
// that stays so. A message that was answered is over, and so is one that was never
// sent; of the others only their age tells.
func (r *Rings) Idle() bool {
	return r.users.Load() == 0 && time.Since(r.made) >= time.Duration(r.open.Load())
}

// join counts one more request that is part of one that is counted.
func (r *Rings) join() { r.users.Add(1) }

// leave undoes join, or enter. Requires: what was merged by the user is settled.
func (r *Rings) leave() { r.users.Add(-1) }

// settle takes the outcome of a merge that went by these rings to another node.
// A message without an answer keeps them from being idle until it is too old to be
// carried out. It counts from now, as if it had been sent only when it was given up.
func (r *Rings) settle(err error, age time.Duration) {
	if err == nil || !errors.Is(err, ErrLost) {
		return
	}
	until := int64(time.Since(r.made) + age)
	for was := r.open.Load(); was < until && !r.open.CompareAndSwap(was, until); was = r.open.Load() {
	}
}

// renewed waits until the rings are others than those that nodes have refused, and
// reports whether they are; until says for how long.
func (c *Coordinator) renewed(ctx context.Context, refused *Rings, until time.Time) bool {
	for c.cluster.Rings() == refused {
		if time.Until(until) <= turnPause {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(turnPause):
		}
	}
	return true
}

// byRings does something by the present rings, and again by those that follow as long as
// nodes refuse it since they go by later ones.
func (c *Coordinator) byRings(ctx context.Context, do func(*Rings) error) error {
	until := c.deadlineOf(ctx)
	for {
		rings := c.enter()
		if rings == nil {
			return ErrNoReadQuorum
		}
		err := do(rings)
		rings.leave()
		if !errors.Is(err, ErrStaleEpoch) || !c.renewed(ctx, rings, until) {
			return err
		}
	}
}

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
