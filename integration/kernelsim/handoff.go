package main

import (
	"slices"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// sending is how far a node is with the hints for another (handoff.Sender).
type sending struct {
	busy bool
	due  int64 // not before
}

// sendHints lets every target that something is kept for have its turn.
func (n *node) sendHints() {
	for i := range maxNodes {
		target := ring.NodeID(i + 1)
		s := &n.sends[target]
		if s.busy || s.due > n.w.now || !n.hintsFor(target) {
			continue
		}
		n.sendStep(target)
	}
}

// gather counts callbacks, and runs then when all have come well, failed if one has not.
type gather struct {
	left   int
	failed bool
	then   func(ok bool)
}

func newGather(then func(ok bool)) *gather { return &gather{left: 1, then: then} }

func (g *gather) one() func(outcome) {
	g.left++
	return g.settle
}

func (g *gather) settle(out outcome) {
	g.failed = g.failed || out != stored
	if g.left--; g.left == 0 {
		g.then(!g.failed)
	}
}

// sendStep works on all rows kept for a target, by the rings of now (handoff.step).
func (n *node) sendStep(target ring.NodeID) {
	s := &n.sends[target]
	by := n.enter()
	s.busy = true
	all := newGather(func(ok bool) {
		s.busy = false
		if !ok {
			s.due = n.w.now + 2*tickTime
		}
		n.leave(by)
	})
	a := n.w.ticked(n, ofHints, uint64(target))
	for k := range n.w.keys {
		h := n.rows[k][target].held
		if h.rec.Absent() {
			continue
		}
		p := n.w.keys[k].partition
		owners := by.live.Owners(nil, p)
		switch owned := by.live.Owns(target, p); {
		case owned && target == n.id:
			n.moveHint(k, target, h, []ring.NodeID{n.id}, all.one())
		case !owned && len(owners) > 0:
			n.moveHint(k, target, h, owners, all.one())
		case target != n.id && by.live.Member(target) && n.isUp(target):
			n.bringHint(a, by, k, target, h, all.one())
		}
	}
	all.settle(stored)
}

// moveHint merges a hint of a target that is no owner any more into the own row and the
// hints for its owners, and drops it when that is durable (handoff.move).
func (n *node) moveHint(k int, target ring.NodeID, h held, owners []ring.NodeID, done func(outcome)) {
	g := newGather(func(ok bool) {
		if !ok {
			done(unreachable)
			return
		}
		n.dropHint(k, int(target), h)
		done(stored)
	})
	for _, owner := range owners {
		into := int(owner)
		if owner == n.id {
			into = 0
		}
		n.mergeRow(k, into, h.wire(), g.one())
	}
	g.settle(stored)
}

// bringHint delivers a hint, having noted it for those who are to have it too
// (handoff.keepFor, send and deliver).
func (n *node) bringHint(a *activity, by *rings, k int, target ring.NodeID, h held, done func(outcome)) {
	to, wait := n.hintCopies(by, n.w.keys[k].partition, target)
	if wait && !n.handedHints(by.view.Number) {
		done(unreachable)
		return
	}
	if wait {
		to = nil
	}
	deliver := func() {
		if n.w.bugs.hintDropEarly {
			n.dropHint(k, int(target), h)
		}
		n.deliver(a, target, []carried{{k, h.wire()}}, func(out outcome) {
			if out == stored && !n.w.bugs.hintDropEarly {
				n.dropHint(k, int(target), h)
			}
			done(out)
		})
	}
	g := newGather(func(ok bool) {
		if !ok {
			done(unreachable)
			return
		}
		deliver()
	})
	for _, owner := range to {
		into := int(owner)
		if owner == n.id {
			into = 0
		}
		n.mergeRow(k, into, h.wire(), g.one())
	}
	g.settle(stored)
}

// hintCopies is handoff.Rings.copies.
func (n *node) hintCopies(by *rings, partition int, holder ring.NodeID) (to []ring.NodeID, wait bool) {
	if by.view.Settled || !by.live.Base.Owns(holder, partition) {
		return nil, false
	}
	to = by.view.Recipients(nil, partition, holder)
	if !by.view.MayDropHint(partition, holder) {
		return to, len(to) == 0
	}
	return to, slices.ContainsFunc(to, func(id ring.NodeID) bool { return by.live.Base.Owns(id, partition) })
}

// carried is a row on its way.
type carried struct {
	key int
	held
}

// deliver brings rows to their owner, in one durable message, by the epochs of now
// (node.deliverer, handoff.Receiver).
func (n *node) deliver(a *activity, target ring.NodeID, rows []carried, done func(outcome)) {
	to, stamp := n.w.node(target), n.view.Stamp
	if !to.up {
		n.down[target] = true
		n.w.after(n, ms, func() { done(unreachable) })
		return
	}
	n.w.say("node %d delivers %s to node %d", n.id, n.w.keys[rows[0].key].name, target)
	n.w.ask(a, n, to, n.w.now+callTime, false, func(back func(func())) {
		to.serveDeliver(n, stamp, rows, func(out outcome, st *epoch.State) {
			back(func() {
				if st != nil {
					n.hear(*st)
				}
				done(out)
			})
		})
	}, func() { done(lostCall) })
}

// serveDeliver takes rows in (handoff.Receiver.check and take).
func (n *node) serveDeliver(from *node, stamp epoch.Stamp, rows []carried, reply func(outcome, *epoch.State)) {
	n.heard(from.id)
	if n.refuses(from, stamp, false) {
		st := n.state
		reply(staleEpoch, &st)
		return
	}
	for _, r := range rows {
		if !n.current.live.Owns(n.id, n.w.keys[r.key].partition) {
			reply(notOwner, nil)
			return
		}
	}
	early := n.w.bugs.confirmEarly
	g := newGather(func(ok bool) {
		switch {
		case early:
		case ok:
			reply(stored, nil)
		default:
			reply(unreachable, nil)
		}
	})
	for _, r := range rows {
		n.mergeRow(r.key, 0, r.held, g.one())
	}
	g.settle(stored)
	if early {
		reply(stored, nil)
	}
}

// job is what a change of the ring asks a node to hand over (handoff.Mover).
type job struct {
	number uint64
	grant  epoch.ID
	plan   *epoch.View
	live   *ring.Live
	since  int64 // only what began after it counts
	lanes  []lane
	hinted bool
	rowed  bool
	asking bool // hints are on their way
	due    int64
}

// lane is a partition that a node is to have from here.
type lane struct {
	partition int
	to        ring.NodeID
}

// sent is the target for which everything was handed over (node.sent).
func (n *node) sent() epoch.ID {
	if n.recovering && !n.w.bugs.noRecovering {
		return epoch.ID{}
	}
	if n.w.bugs.moveNothing {
		return n.view.Transfer.Target
	}
	if j := n.job; j != nil && j.rowed && j.hinted {
		return j.grant
	}
	return epoch.ID{}
}

// handedHints is handoff.Mover.Handed.
func (n *node) handedHints(number uint64) bool {
	return n.job != nil && n.job.hinted && n.job.number == number
}

// handOver brings the job up to the rings and does some of it (handoff.Mover.look,
// moveRows and moveHints).
func (n *node) handOver() {
	v := n.view
	if v.Settled || v.Transfer.Target == (epoch.ID{}) || n.recovering {
		n.job = nil
		return
	}
	if j := n.job; j == nil || j.grant != v.Transfer.Target || j.number != v.Number {
		n.job = n.newJob(v)
	}
	j := n.job
	if !j.hinted && !j.asking && j.due <= n.w.now {
		n.passHints(j)
	}
	n.moveRows(j)
	if j.rowed && j.hinted {
		n.advance()
	}
}

func (n *node) newJob(v *epoch.View) *job {
	j := &job{number: v.Number, grant: v.Transfer.Target, plan: v, live: n.current.live, since: n.w.now}
	if n.job != nil && n.job.grant == j.grant {
		j.since = n.job.since
	}
	for p := range units {
		if !v.Holds(p) {
			continue
		}
		for _, to := range v.Recipients(nil, p, n.id) {
			j.lanes = append(j.lanes, lane{p, to})
		}
	}
	n.w.say("node %d hands over %d partitions", n.id, len(j.lanes))
	return j
}

// moveRows takes what is proven off the list, and asks for the exchange that is next.
func (n *node) moveRows(j *job) {
	j.lanes = slices.DeleteFunc(j.lanes, func(l lane) bool { return n.wholes[l.to][l.partition] > j.since })
	if len(j.lanes) == 0 {
		j.rowed = true
		return
	}
	start := int(n.w.now/tickTime) % len(j.lanes)
	for i := range j.lanes {
		l := j.lanes[(start+i)%len(j.lanes)]
		if n.isUp(l.to) {
			n.exchange(l.to, true, n.w.ticked(n, ofMove, uint64(l.to)), nil)
			return
		}
	}
}

// passHints brings the hints of this moment to those who are to have them
// (handoff.passPage).
func (n *node) passHints(j *job) {
	j.asking = true
	g := newGather(func(ok bool) {
		j.asking, j.hinted = false, ok
		j.due = n.w.now + 2*tickTime
	})
	if n.w.bugs.moveNoHints {
		g.settle(stored)
		return
	}
	a := n.w.ticked(n, ofMove, 0)
	out := [maxNodes + 1][]carried{}
	for k := range n.w.keys {
		p := n.w.keys[k].partition
		for i := range maxNodes {
			holder, h := ring.NodeID(i+1), n.rows[k][i+1].held
			if h.rec.Absent() {
				continue
			}
			to := j.plan.Recipients(nil, p, holder)
			if j.plan.MayDropHint(p, holder) && !j.live.Base.Owns(holder, p) {
				to = append(to, holder)
			}
			for _, id := range to {
				if id == n.id {
					n.mergeRow(k, 0, h.wire(), g.one())
					continue
				}
				out[id] = append(out[id], carried{k, h.wire()})
			}
		}
	}
	for id, rows := range out {
		if len(rows) > 0 {
			n.deliver(a, ring.NodeID(id), rows, g.one())
		}
	}
	g.settle(stored)
}
