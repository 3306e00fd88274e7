package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/replica/rpc"
)

// ringBook keeps the rings that requests go by, those of each view apart, until no
// request goes by them any more.
type ringBook struct {
	newest atomic.Pointer[numbered]
	opens  func() // opens what the present view holds, before anything goes by it
	mu     struct {
		sync.Mutex
		earlier replaced
	}
}

// numbered are the rings of a view.
type numbered struct {
	view  *epoch.View
	rings *coordinator.Rings
}

// open are the rings, unless this node may not even pass requests on by them.
func (n *numbered) open() *coordinator.Rings {
	if n == nil || !n.view.Coordinate && !n.view.Relay {
		return nil
	}
	return n.rings
}

// of returns the rings of the view of members, nil while there are none that this node
// may pass requests on by.
func (b *ringBook) of(members *membership.Membership) *coordinator.Rings {
	v := members.View()
	if n := b.newest.Load(); n != nil && n.view == v.Epoch {
		return n.open()
	}
	return b.turn(members).open()
}

// turn makes the rings that requests go by from now on: the newest, however long the
// caller has slept since it looked. Nil while there is no view.
func (b *ringBook) turn(members *membership.Membership) *numbered {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, old := members.View(), b.newest.Load()
	switch {
	case v.Epoch == nil:
		return nil
	case old == nil:
	case old.view == v.Epoch:
		return old
	case old.view.Number == v.Epoch.Number: // the same to requests
		n := &numbered{v.Epoch, old.rings}
		b.newest.Store(n)
		return n
	default:
		b.mu.earlier = append(b.mu.earlier, earlier{old.view.Number, old.rings.Idle})
	}
	n := &numbered{v.Epoch, coordinator.NewRings(v.Live, coordinator.Stamp(v.Epoch.Stamp.Bytes()), v.Epoch.Number)}
	n.rings.Relay = v.Epoch.Relay
	b.opens()
	b.newest.Store(n)
	return n
}

// drained is the number of the oldest view by which a request may go, or by which a
// message went that may still be carried out.
func (b *ringBook) drained(members *membership.Membership) uint64 {
	n := b.turn(members)
	if n == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.earlier.drained(n.view.Number)
}

// replaced are rings that others have replaced, the oldest first.
type replaced []earlier

// earlier are the rings of an earlier view. Once they are idle they stay so.
type earlier struct {
	number uint64
	idle   func() bool
}

// drained forgets the oldest ones as far as they are idle, and returns the number of the
// first that is left, newest if none is.
func (r *replaced) drained(newest uint64) uint64 {
	done := 0
	for done < len(*r) && (*r)[done].idle() {
		done++
	}
	*r = slices.Delete(*r, 0, done)
	if len(*r) > 0 {
		return min((*r)[0].number, newest)
	}
	return newest
}

// drained is epoch.Local's: the newest view such that nothing goes by an earlier one,
// neither a request nor a hint on its way home.
func (n *Node) drained() uint64 { return min(n.rings.drained(n.members), n.hints.sender.Oldest()) }

// stale reports whether a request of another node must be refused, since it goes by
// epochs that are over or its sender was given up. A node without a view knows nothing
// that is newer.
func (n *Node) stale(from nodeID, e rpc.Epochs, read bool) bool {
	v := n.members.View().Epoch
	return v != nil && v.Stale(from, epoch.StampOf(e), read)
}

// behind reports whether a request goes by epochs that this node has not heard of.
func (n *Node) behind(e rpc.Epochs) bool {
	v := n.members.View().Epoch
	return v != nil && v.Behind(epoch.StampOf(e))
}

// refusal is what a request for rows is refused with: what this node knows of the ring is
// no reason for good if the request goes by rings that it has not heard of.
func (n *Node) refusal(meta rpc.Meta, err error) error {
	if (errors.Is(err, rpc.ErrNotOwner) || errors.Is(err, rpc.ErrLoading)) && n.behind(meta.Epochs) {
		return rpc.Behind(err)
	}
	return err
}

// epochs are what this node's background work goes by.
func (n *Node) epochs() rpc.Epochs {
	if v := n.members.View().Epoch; v != nil {
		return v.Stamp.Bytes()
	}
	return rpc.Epochs{}
}

// hearing takes in what other nodes answer to stale requests, and what they bring because
// this node is behind, away from the goroutines that read connections: it goes to the disk.
type hearing struct {
	states  chan []byte // room for one: whoever is refused again is told again
	brought *workers    // merge what is brought, one after the other
}

// hearQueue bounds the states that wait. After a change of the ring everybody may bring
// the same one; what finds no room is brought again.
const hearQueue = 64

func newHearing() hearing { return hearing{make(chan []byte, 1), newWorkers(1, hearQueue)} }

// take is told of a state; it does not wait.
func (h hearing) take(_ nodeID, state []byte) {
	select {
	case h.states <- state:
	default:
	}
}

// hearTask merges what others say of the epochs, until ctx ends.
func (n *Node) hearTask(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case state := <-n.hearing.states:
			if err := n.members.HearEpoch(ctx, state); err != nil && ctx.Err() == nil {
				n.cfg.Logger.Warn("another node's view of the ring is not taken in", "err", err)
			}
		}
	}
}

// ServeState merges what another node holds of the cluster, and answers when requests are
// judged by it.
func (h handler) ServeState(m rpc.StateRequest, meta rpc.Meta, reply func(error)) {
	n := h.n
	n.hearing.brought.later(meta.Deadline, func(err error) {
		if err != nil {
			reply(toWire(err))
			return
		}
		ctx, cancel := context.WithDeadline(n.tasks.ctx, meta.Deadline)
		defer cancel()
		if err := n.members.Hear(ctx, m.State); err != nil {
			if ctx.Err() != nil {
				err = rpc.ErrLoading // it stops, or cannot say in time
			}
			reply(toWire(err))
			return
		}
		n.rings.turn(n.members)
		reply(nil)
	})
}

// inTransition is what membership asks: how far this node is in a change of the ring.
// What is drained is looked at first: a drop that then does not run will not begin
// before it has seen the new target.
func (n *Node) inTransition() epoch.Local {
	drained := n.drained()
	return epoch.Local{Drained: drained, Dropping: n.dropping(), Sent: n.sent()}
}
