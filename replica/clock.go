package replica

import (
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// Clock is the node's hybrid logical clock: it follows the wall clock, never
// goes back, and is above every reading it was shown (Kulkarni et al. 2014).
type Clock struct {
	now  func() time.Time
	last atomic.Uint64
}

// Now returns a reading above every one given or observed before.
func (c *Clock) Now() version.HLC { return c.at(c.now().UnixMilli()) }

// at is Now at wall clock time ms.
func (c *Clock) at(ms int64) version.HLC {
	wall := version.HLCFromMS(ms)
	for {
		last := c.last.Load()
		next := max(wall, version.HLC(last).Next())
		if c.last.CompareAndSwap(last, uint64(next)) {
			return next
		}
	}
}

// Observe makes later readings exceed h.
func (c *Clock) Observe(h version.HLC) {
	for {
		last := c.last.Load()
		if uint64(h) <= last || c.last.CompareAndSwap(last, uint64(h)) {
			return
		}
	}
}
