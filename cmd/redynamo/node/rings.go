package node

import (
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/epoch"
)

// ringBook keeps the rings that requests go by, those of each view apart, until no
// request goes by them any more.
type ringBook struct {
	newest atomic.Pointer[numbered]
	mu     struct {
		sync.Mutex
		earlier []*numbered // replaced, the oldest first; some may be idle
	}
}

// numbered are the rings of a view.
type numbered struct {
	view  *epoch.View
	rings *coordinator.Rings
}

// of returns the rings of the view of members, nil while there are none.
func (b *ringBook) of(members *membership.Membership) *coordinator.Rings {
	v := members.View()
	if n := b.newest.Load(); n != nil && n.view == v.Epoch {
		return n.rings
	}
	return b.turn(members)
}

// turn makes the rings that requests go by from now on: the newest, however long the
// caller has slept since it looked.
func (b *ringBook) turn(members *membership.Membership) *coordinator.Rings {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, old := members.View(), b.newest.Load()
	switch {
	case v.Epoch == nil:
		return nil
	case old == nil:
	case old.view == v.Epoch:
		return old.rings
	case old.view.Number == v.Epoch.Number:
		b.newest.Store(&numbered{v.Epoch, old.rings})
		return old.rings
	default:
		b.mu.earlier = append(b.mu.earlier, old)
	}
	n := &numbered{v.Epoch, coordinator.NewRings(v.Live)}
	b.newest.Store(n)
	return n.rings
}

// drained is the number of the oldest view by which a request may go.
func (b *ringBook) drained(members *membership.Membership) uint64 {
	if b.turn(members) == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.mu.earlier) > 0 && b.mu.earlier[0].rings.Idle() {
		b.mu.earlier = b.mu.earlier[1:]
	}
	if len(b.mu.earlier) > 0 {
		return b.mu.earlier[0].view.Number
	}
	return b.newest.Load().view.Number
}

// inTransition is what membership asks: how far this node is in a change of the ring.
// What is drained is looked at first: a drop that then does not run will not begin
// before it has seen the new target.
func (n *Node) inTransition() epoch.Local {
	drained := n.rings.drained(n.members)
	return epoch.Local{Drained: drained, Dropping: n.dropping(), Sent: n.sent()}
}
