package node

import (
	"context"
	"errors"
	"time"

	"github.com/redynamo/redynamo/antientropy"
	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/handoff"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/resp"
)

// Rings is handoff.Cluster: what the view says of a change of rings.
func (c handoffCluster) Rings() handoff.Rings { return ringsOf(c.n.members.View(), c.n.doubted()) }

// ringsOf is what a view says. A node that may lack what it had acknowledged hands
// nothing over until it has it back: it counts among those that do.
func ringsOf(v *membership.View, doubted bool) handoff.Rings {
	r := handoff.Rings{Live: v.Live}
	if v.Epoch == nil {
		return r
	}
	r.Number = v.Epoch.Number
	if v.Epoch.Settled {
		return r
	}
	r.Plan = v.Epoch
	if !doubted {
		r.Grant = handoff.Target(v.Epoch.Transfer.Target)
	}
	return r
}

// settled reports whether one epoch is live, which is so too while none is known.
func settled(v *membership.View) bool { return v.Epoch == nil || v.Epoch.Settled }

// sent is the target for which this node has handed everything over; zero if it has
// not. It is epoch.Local's.
func (n *Node) sent() epoch.ID {
	if n.doubted() {
		return epoch.ID{}
	}
	return epoch.ID(n.hints.mover.Sent())
}

// dropping reports whether partitions that this node gave up are being deleted. It is
// epoch.Local's.
func (n *Node) dropping() bool { return n.drops.dropping.Load() }

// exchanges is handoff.Exchanges by anti-entropy.
type exchanges struct{ n *Node }

func (e exchanges) Exchange(ctx context.Context, node nodeID, first, last ring.Slot) (handoff.Moved, error) {
	t, err := e.n.exchange.Exchange(ctx, node, first, last)
	if errors.Is(err, antientropy.ErrBusy) {
		err = handoff.ErrBusy
	}
	return handoff.Moved{Rows: t.Pulled + t.Pushed, Bytes: t.PulledSize + t.PushedSize}, err
}

func (e exchanges) Session(partition int, node nodeID) (began time.Time, ok bool) {
	return e.n.exchange.WholeSession(partition, node)
}

// hintMoment is handoff.Moment.
type hintMoment struct{ *replica.HintMoment }

func (m hintMoment) Page(target nodeID, slot ring.Slot, hash uint32, maxBytes int) (handoff.Page, error) {
	p, err := m.HintMoment.Page(target, slot, hash, maxBytes)
	return pageOf(p), err
}

// errMending: what the cache has of lost hints is not on the disk yet.
var errMending = errors.New("hints were lost to damage and are being looked for")

// hintMoment takes hold of the hints.
func (n *Node) hintMoment() (handoff.Moment, error) {
	for _, h := range n.store.Holes() {
		if h.Kind() == storage.HintRows {
			return nil, errMending
		}
	}
	m, err := n.replica.HintMoment()
	if err != nil {
		return nil, err
	}
	return hintMoment{m}, nil
}

// handover is what the administration of the ring is told of this node's hand-over.
type handover struct{ n *Node }

// Transfers is mover. The bytes in all are what has moved and about what is left to: the
// nearer the end, the truer, and at the end what has moved.
func (h handover) Transfers() (all []resp.RingTransfer) {
	for _, l := range h.n.hints.mover.Progress().Lanes {
		all = append(all, resp.RingTransfer{
			From: h.n.id.node, To: l.Node, Partitions: l.Partitions, Done: l.Done, Bytes: l.Bytes, BytesTotal: l.Bytes + l.BytesLeft, State: l.State,
		})
	}
	return all
}

// assumedPace is how many bytes a node without clients takes in each second of a
// hand-over, as long as this node has not seen one.
const assumedPace = 16 << 20

// Pace is mover: that of the fastest lane of the last hand-over, or what background
// work may have of the assumed one.
func (h handover) Pace() float64 {
	fastest := 0.0
	for _, l := range h.n.hints.mover.Progress().Lanes {
		fastest = max(fastest, l.Rate)
	}
	if fastest > 0 {
		return fastest
	}
	return assumedPace * h.n.admission.Status().Share
}
