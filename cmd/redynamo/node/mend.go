package node

import (
	"context"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
)

// mendOwners is what the mender is told of the other owners.
type mendOwners struct{ n *Node }

// Exchange is replica.Owners, by a repair.
func (o mendOwners) Exchange(first, last ring.Slot) bool {
	return o.n.exchange.Repair(first, last, true) == nil
}

// lacksTimeout bounds the question what another owner lacks.
const lacksTimeout = 2 * time.Second

// Whole is replica.Owners. Every other owner must have had its session, also one that
// is away: it may be the only one with a write that this node acknowledged. An operator
// who gives up what is lost, with Config.AcceptLoss, gives that up too.
func (o mendOwners) Whole(ctx context.Context, h storage.Hole, since time.Time) bool {
	v := o.n.members.View()
	r := v.Live
	if r == nil || !v.Ready || !v.Met { // it may have lost even the word of the others
		return false
	}
	if len(r.Members()) < 2 || o.n.recovery.accept {
		o.n.cfg.Logger.Error("rows that damage to the disk took are given up: there is no other member, or accept-loss says so")
		return true
	}
	slot, hash, lastSlot, lastHash := h.Positions()
	asked := map[ring.NodeID]bool{}
	for part := range r.Units() {
		first, last := r.SlotsOf(part)
		if last < ring.Slot(slot) || ring.Slot(lastSlot) < first || !r.Owns(o.n.id.node, part) {
			continue // the rows of a partition that is another's are not this node's to keep
		}
		owners := awaited(v, part)
		if _, ok := metOwners(o.n.exchange.WholeSession, o.n.id.node, owners, part, since); !ok {
			return false
		}
		for _, owner := range owners {
			asked[owner] = owner != o.n.id.node
		}
	}
	m := rpc.LacksRequest{First: rpc.Position{Slot: slot, KeyHash: hash}, Last: rpc.Position{Slot: lastSlot, KeyHash: lastHash}}
	for owner, other := range asked {
		if other && !o.has(ctx, owner, m) {
			return false
		}
	}
	return true
}

// has reports whether another owner lacks none of some rows. Else both would take the
// other's word for it that there are none.
func (o mendOwners) has(ctx context.Context, owner ring.NodeID, m rpc.LacksRequest) bool {
	peer := o.n.pool.Get(owner)
	if peer == nil || !o.n.pool.Up(owner) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lacksTimeout)
	defer cancel()
	a, err := await(ctx, func(opts rpc.Options, done func(rpc.LacksReply, error)) { peer.Lacks(m, opts, done) })
	return err == nil && !a.Lost
}

// ServeLacks tells whether own rows are lost here. A node that is recovering cannot
// say what it lacks.
func (h handler) ServeLacks(m rpc.LacksRequest, _ rpc.Meta, reply func(rpc.LacksReply, error)) {
	lost := h.n.recovery.on() || h.n.replica.Lacks(ring.Slot(m.First.Slot), m.First.KeyHash, ring.Slot(m.Last.Slot), m.Last.KeyHash)
	reply(rpc.LacksReply{Lost: lost}, nil)
}

func (n *Node) mendTask(ctx context.Context) error {
	return replica.NewMender(n.replica, mendOwners{n}).Run(ctx)
}
