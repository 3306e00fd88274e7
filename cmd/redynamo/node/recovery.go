package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
)

// errRecovering answers what a node that has lost writes cannot answer: a page
// of keys or their number would look complete.
var errRecovering = errors.New("the node is recovering: it may lack what it had acknowledged")

// recovery is whether this node has all that it ever acknowledged.
//
// It has not if its data directory was replaced by an empty one, was put back to
// an older state, or opened without what had been durable in it. Then the node
// is recovering, durably, until an exchange with every other owner has brought
// back what they have. Meanwhile it takes writes and merges as ever; it answers
// reads with what it has, which others join without counting the answer; it
// refuses to list or count keys; and a write that it coordinates begins with a
// read of R others. So nothing that was acknowledged is reported absent because
// of it, and nothing is covered that nobody has seen.
//
// An operator may give up what is lost, with Config.AcceptLoss: after a whole
// cluster was put back from copies of different moments, for instance, nobody has
// more, and everybody would wait for everybody.
//
// A stop that lost nothing, such as a kill, is no reason: storage knows how far
// its log was durable.
type recovery struct {
	store  *storage.Store
	saving chan struct{} // held while the identity is changed
	opened uint64        // how far the log had come when the directory was opened
	accept bool          // what is lost is given up
	now    atomic.Pointer[identity]
}

func (r *recovery) init(store *storage.Store, opened uint64, id identity) {
	r.store, r.opened, r.saving = store, opened+id.ahead, make(chan struct{}, 1)
	r.now.Store(&id)
}

// on reports whether the node is recovering.
func (r *recovery) on() bool { return r.now.Load().recovering }

// reached is how far the node's log has come, over everything that happened to
// its directory.
func (r *recovery) reached() uint64 { return r.store.Reached() + r.now.Load().ahead }

// change saves a changed identity, and then makes it the present one. An answer
// of false changes nothing.
func (r *recovery) change(to func(id *identity) bool) error {
	r.saving <- struct{}{}
	defer func() { <-r.saving }()
	next := *r.now.Load()
	if !to(&next) {
		return nil
	}
	if err := r.store.SetMeta(identityRow, next.encode()); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	r.now.Store(&next)
	return nil
}

// restored is membership's: the cluster has seen more of this node than its
// directory holds.
func (r *recovery) restored(boots, reached uint64) error {
	return r.change(func(id *identity) bool {
		id.boots, id.recovering = max(id.boots, boots), !r.accept
		id.ahead += max(reached, r.reached()) - r.reached()
		return true
	})
}

// doubted reports whether this node's copies may lack what it had acknowledged:
// while it is recovering, and from its start until it has heard what others know
// of it, since its directory may be an old one.
func (n *Node) doubted() bool { return n.recovery.on() || !n.members.View().Met }

// restored is what membership is given: see recovery.restored.
func (n *Node) restored(boots, reached uint64) error {
	err := n.recovery.restored(boots, reached)
	if err == nil && n.recovery.accept {
		n.cfg.Logger.Error("what this data directory has lost is given up, as accept-loss says")
		n.members.Recovered()
	}
	return err
}

// Recovering reports whether this node lacks what it had acknowledged, and since
// which of its boots. An exchange that begins after it was asked, and ends
// without a difference to any other owner, calls Recovered with the same boot.
func (n *Node) Recovering() (boot uint64, ok bool) {
	id := n.recovery.now.Load()
	return id.boots, id.recovering
}

// Recovered notes durably that what was lost up to a boot is here again. It
// does nothing if the node has lost more since.
func (n *Node) Recovered(boot uint64) error {
	err := n.recovery.change(func(id *identity) bool {
		done := id.recovering && id.boots == boot
		id.recovering = id.recovering && !done
		return done
	})
	if err == nil && !n.recovery.on() {
		n.members.Recovered()
		n.cfg.Logger.Info("this node is not recovering any more", "boot", boot)
	}
	return err
}

// recoverAlone ends the recovery of a cluster's only member: nobody has what it
// lost. One that had company and lost even the word of it is none: see View.Met.
func (n *Node) recoverAlone(v *membership.View) error {
	boot, recovering := n.Recovering()
	if !recovering || !v.Ready || !v.Met || len(v.Ring.Members()) > 1 {
		return nil
	}
	n.cfg.Logger.Error("writes that were acknowledged are lost: this node's data directory was damaged or restored, and no other member has them")
	return n.Recovered(boot)
}

// ParseNodeID reads a node id as it is shown everywhere: 16 hexadecimal digits.
func ParseNodeID(text string) (ring.NodeID, error) { return ring.ParseNodeID(text) }

// twinTimeout bounds the question whether another process runs as this node.
const twinTimeout = time.Second

// twin reports whether another process answers as this node there.
func (n *Node) twin(ctx context.Context, there membership.Endpoints) bool {
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	pool, err := rpc.NewPool(rpc.PoolConfig{
		Node: n.id.node, ClusterID: func() [16]byte { return n.members.View().ClusterID },
		Dial: n.peerNet.Dial, Rand: n.cfg.Rand,
	})
	if err != nil {
		return false
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = pool.Run(ctx) // it lives for one question
	}()
	defer func() { cancel(); <-ended }()
	st, err := ask(ctx, pool.Peer(n.id.node, there.PeerAddr()), twinTimeout)
	return err == nil && st.Boot != uint64(n.actor)
}
