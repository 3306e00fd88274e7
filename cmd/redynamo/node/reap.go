package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/coordinator/admission"
	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
)

// reapProof is what the cluster can prove to the reaper.
type reapProof struct{ n *Node }

// Settled is replica.Proof. While the rings change nothing is settled: the owners to
// come may have an older state from whoever hands it over. The sessions must have begun
// since the change ended. A row that this node does not own is settled with nobody: it
// is not this node's to drop.
func (p reapProof) Settled(partition int, since time.Time) (missing ring.NodeID, ok bool) {
	v := p.n.members.View()
	_, at, is := p.n.settling.since(v)
	if r := v.Ring; r == nil || !is || partition >= r.Units() || !r.Owns(p.n.id.node, partition) {
		return p.n.id.node, false
	}
	if since.Before(at) {
		since = at
	}
	return metOwners(p.n.exchange.Session, p.n.id.node, v.Ring.Owners(partition), partition, since)
}

// Rings is replica.Proof.
func (p reapProof) Rings() (name uint64, ok bool) {
	name, _, ok = p.n.settling.since(p.n.members.View())
	return name, ok
}

// metOwners reports whether some owners of a partition, but for self, have had a session
// with it that began after since. If not, missing is one that has not.
func metOwners(session func(partition int, node ring.NodeID) (time.Time, bool), self ring.NodeID, owners []ring.NodeID, partition int, since time.Time) (missing ring.NodeID, ok bool) {
	for _, owner := range owners {
		if owner == self {
			continue
		}
		if began, met := session(partition, owner); !met || !began.After(since) {
			return owner, false
		}
	}
	return 0, true
}

// settling knows since when this node's view is settled.
type settling struct {
	mu struct {
		sync.Mutex
		known  bool
		number uint64 // of the view
		at     time.Time
	}
}

// since answers the number of a settled view, and since when it has been the present
// one, at the latest.
func (s *settling) since(v *membership.View) (number uint64, at time.Time, ok bool) {
	if !settled(v) {
		return 0, time.Time{}, false
	}
	if v.Epoch != nil {
		number = v.Epoch.Number
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.known || s.mu.number != number {
		s.mu.known, s.mu.number, s.mu.at = true, number, time.Now()
	}
	return number, s.mu.at, true
}

// hintedTimeout bounds the question for which partitions hints are kept. It is less
// than the difference of quiet and the age of messages.
func (n *Node) hintedTimeout() time.Duration { return min(5*time.Second, n.cfg.MessageAge/8) }

// quiet is for how long there must have been no hint, and no break in the
// connection to a member. The members are asked one after another; because each of
// them looks back so far, there is a moment at which none of them had a hint, and
// before which none had had one for as long as a message, or a request of a
// coordinator that had read one, may live.
func (n *Node) quiet() time.Duration { return n.cfg.MessageAge * 5 / 4 }

// HintFree is replica.Proof. A member that was paused meanwhile may act on what it
// held, and it may not know: but its connection was silent for so long, and it is
// not believed before it has been quiet since.
func (p reapProof) HintFree(ctx context.Context, partitions []int) ([]int, error) {
	v := p.n.members.View()
	r := v.Ring
	if r == nil {
		return nil, errors.New("there is no ring")
	}
	ctx, cancel := context.WithTimeout(ctx, p.n.hintedTimeout())
	defer cancel()
	free, err := p.n.hintFree(ctx, r, partitions)
	m := rpc.HintedRequest{Units: uint16(r.Units() - 1)}
	for _, part := range partitions {
		m.Partitions = append(m.Partitions, uint16(part))
	}
	for _, member := range r.Members() {
		if member.ID == p.n.id.node || err != nil || len(free) == 0 {
			continue
		}
		peer := p.n.pool.Get(member.ID)
		if peer == nil || !p.n.pool.Up(member.ID) {
			return nil, fmt.Errorf("member %v is away and may keep hints", member.ID)
		}
		var held rpc.HintedReply
		held, err = await(ctx, func(o rpc.Options, done func(rpc.HintedReply, error)) { peer.Hinted(m, o, done) })
		if err != nil {
			return nil, fmt.Errorf("member %v does not say whether it keeps hints: %w", member.ID, err)
		}
		// After its answer: that came over a connection which both sides found fresh.
		if is := peer.Unbroken(); is < p.n.quiet() {
			return nil, fmt.Errorf("member %v was away until %v ago and may still act on what it held", member.ID, is.Round(time.Second))
		}
		free = slices.DeleteFunc(free, func(part int) bool { return slices.Contains(held.Partitions, uint16(part)) })
	}
	return free, err
}

// errChanging: in a change of rings nobody can say who may have what.
var errChanging = errors.New("the ring is changing")

// hintFree returns those of the partitions for which this node keeps no hint, has
// kept none for some time, and has taken none that is not yet committed. What is left
// of a partition that has moved away counts as a hint: a later change of the ring could
// hand it over, and it knows of no deletes since. A node
// that may have lost what it had answers an error: it is the proof of others that
// it holds a tombstone, and it fetches from whoever it meets first, which may be
// one that missed the delete. When it has recovered it has met all owners, and so
// whoever asks.
func (n *Node) hintFree(ctx context.Context, r *ring.Ring, partitions []int) (free []int, err error) {
	if n.doubted() {
		return nil, errRecovering
	}
	if !settled(n.members.View()) {
		return nil, errChanging
	}
	done := make(chan error, 1)
	n.replica.Barrier(func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for _, part := range partitions {
		if part >= r.Units() {
			return nil, fmt.Errorf("partition %d of %d", part, r.Units())
		}
		first, last := r.SlotsOf(part)
		held, err := n.replica.Hinted(first, last, n.quiet())
		if err == nil && !held && !r.Owns(n.id.node, part) {
			var empty bool
			empty, err = n.replica.Empty(part)
			held = !empty
		}
		if err != nil {
			return nil, err
		}
		if !held {
			free = append(free, part)
		}
	}
	return free, nil
}

// ServeHinted tells for which partitions hints are kept here.
func (h handler) ServeHinted(m rpc.HintedRequest, meta rpc.Meta, reply func(rpc.HintedReply, error)) {
	r := h.n.members.View().Ring
	if r == nil || r.Units() != int(m.Units)+1 {
		reply(rpc.HintedReply{}, rpc.ErrLoading)
		return
	}
	later(h, meta, reply, func() (out rpc.HintedReply, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), h.n.hintedTimeout())
		defer cancel()
		var asked []int
		for _, part := range m.Partitions {
			asked = append(asked, int(part))
		}
		free, err := h.n.hintFree(ctx, r, asked)
		for _, part := range asked {
			if !slices.Contains(free, part) {
				out.Partitions = append(out.Partitions, uint16(part))
			}
		}
		return out, err
	})
}

// refill reads a key from all its owners, which repairs this one.
func (n *Node) refill(key []byte) {
	v := n.members.View()
	if v.Ring == nil || !v.Ready {
		return
	}
	n.coord.Read(key, coordinator.ReadOptions{R: v.Ring.N()}, func(coordinator.ReadResult, error) {}) // it comes again
}

func (n *Node) buildReaper(context.Context) (err error) {
	cfg := replica.ReapConfig{RestoreWindow: n.cfg.RestoreWindow, MessageAge: n.cfg.MessageAge, Refill: n.refill, Pace: n.pace(admission.Reap)}
	n.reaper, err = replica.NewReaper(n.replica, cfg, reapProof{n})
	return err
}

// recoverEvery is how often a recovering node looks whether it has met everybody.
const recoverEvery = time.Second

// recoverTask brings back what this node has lost: it asks for a repair with every
// other owner, and ends the recovery when each of its partitions has had a session
// with each of them that began since.
func (n *Node) recoverTask(ctx context.Context) error {
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	var of uint64 // the boot that is being recovered
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		boot, recovering := n.Recovering()
		if !recovering {
			of = 0
			continue
		}
		if boot != of {
			of, since = boot, time.Now()
		}
		if n.metAll(since) {
			if err := n.Recovered(boot); err != nil {
				return err
			}
			continue
		}
		// Not only once it serves: a node that is to leave is not admitted any more, and
		// the change waits until it has handed over what it has.
		if s := n.exchange.RepairStatus(); n.owns(n.members.View()) && (s.Began.IsZero() || !s.Ended.IsZero()) {
			// Refused only while one is under way.
			_ = n.exchange.Repair(0, ring.Slots-1, true)
		}
	}
}

// metAll reports whether every partition that this node holds in some ring has had a
// session with every other owner that began since.
func (n *Node) metAll(since time.Time) bool {
	v := n.members.View()
	if !n.owns(v) {
		return false
	}
	for part := range v.Live.Units() {
		if !v.Live.Owns(n.id.node, part) {
			continue
		}
		if _, ok := metOwners(n.exchange.WholeSession, n.id.node, awaited(v, part), part, since); !ok {
			return false
		}
	}
	return true
}

// owns reports whether this node has heard where it is an owner, beside others.
func (n *Node) owns(v *membership.View) bool {
	return v.Live != nil && len(v.Live.Members()) > 1 && v.Live.Member(n.id.node)
}

// awaited are the owners of a partition in any ring that may have what this node has
// lost. Those that were given up as dead are not waited for: they will not be back.
func awaited(v *membership.View, partition int) []nodeID {
	return slices.DeleteFunc(v.Live.Owners(nil, partition), func(id nodeID) bool {
		i := slices.IndexFunc(v.Records, func(r ring.Record) bool { return r.ID == id })
		return i >= 0 && v.Records[i].Forgotten
	})
}
