package replica

import (
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// Clock is the hybrid logical clock of a node (Kulkarni et al. 2014): it runs
// with the wall clock, never backwards, and never behind what it has seen.
type Clock struct {
	now  func() time.Time
	last atomic.Uint64
}

// Now returns an instant above all that were returned or observed before.
func (c *Clock) Now() version.HLC {
	wall := version.HLCFromMS(c.now().UnixMilli())
	for {
		last := version.HLC(c.last.Load())
		next := max(wall, last.Next())
		if c.last.CompareAndSwap(uint64(last), uint64(next)) {
			return next
		}
	}
}

// Observe notes an instant of another node.
func (c *Clock) Observe(h version.HLC) {
	for {
		last := c.last.Load()
		if uint64(h) <= last || c.last.CompareAndSwap(last, uint64(h)) {
			return
		}
	}
}
