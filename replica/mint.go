package replica

import (
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// mints is where this incarnation's dots of one partition come from.
//
// Invariant: a counter is given out once. It lives in memory only, since the
// actor ends with the process; one whose record could not be stored is burned.
type mints struct {
	counter atomic.Uint64
	hinted  atomic.Uint64 // highest counter given out for a hint row

	mu struct {
		sync.Mutex
		last map[ring.NodeID]uint64 // highest counter by the row's For, once hints were minted
	}
	own atomic.Uint64 // highest counter given out for an own row
}

// next gives out a dot for a row, and the floor below which the row's own
// lineage must not be extended: what went to the other rows of the partition
// (version.Mint.Floor). Requires: the stripe of the key is locked, so that the
// rows of one key mint one after the other.
func (m *mints) next(actor version.Actor, owner ring.NodeID) (dot version.Dot, floor uint64) {
	dot = version.Dot{Actor: actor, Counter: m.counter.Add(1)}
	if owner == 0 {
		raise(&m.own, dot.Counter)
		return dot, m.hinted.Load()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.last == nil {
		m.mu.last = map[ring.NodeID]uint64{}
	}
	floor = m.own.Load()
	for id, n := range m.mu.last {
		if id != owner {
			floor = max(floor, n)
		}
	}
	m.mu.last[owner] = max(m.mu.last[owner], dot.Counter)
	raise(&m.hinted, dot.Counter)
	return dot, floor
}

func raise(v *atomic.Uint64, to uint64) {
	for {
		old := v.Load()
		if to <= old || v.CompareAndSwap(old, to) {
			return
		}
	}
}
