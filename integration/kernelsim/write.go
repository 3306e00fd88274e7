package main

import (
	"slices"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// verdict is what a client is told of a write.
type verdict uint8

const (
	acked     verdict = iota
	uncertain         // the outcome is not known
	refused           // certainly nothing was done
	misplaced         // of a forward: try another node (coordinator.ErrNotOwner)
)

// result is what a coordinator answers.
type result struct {
	verdict verdict
	tok     token
}

// write is one write under way (coordinator.write). Each callback feeds the kernel and
// then lets run do what it wants.
type write struct {
	n         *node
	a         *activity
	o         *op
	vop       version.Op
	bits      uint64 // what vop.Context is, exactly
	forwarded bool
	answer    func(result)
	rings     *rings
	base      *ring.Ring
	owed      []*ring.Ring
	stands    []ring.Stand
	dead      []ring.NodeID
	busy      []ring.NodeID
	start     int64
	deadline  int64
	partition int

	quorum.Writes
	self     ring.Stand
	copy     held
	result   result
	homes    int // owners in the base that have it
	refs     int
	running  bool
	answered bool
	noop     bool
	expired  bool
}

// write begins a write at this node.
func (n *node) write(a *activity, o *op, vop version.Op, bits uint64, deadline int64, forwarded bool, answer func(result)) {
	if n.current.live.Base.N() == 0 || !n.view.Coordinate {
		v := refused
		if forwarded {
			v = misplaced
		}
		answer(result{verdict: v})
		return
	}
	w := &write{
		n: n, a: a, o: o, vop: vop, bits: bits, forwarded: forwarded, answer: answer, rings: n.enter(),
		start: n.w.now, deadline: deadline, partition: n.w.keys[o.key].partition,
	}
	w.base = w.rings.live.Base
	w.route()
}

func (w *write) up(id ring.NodeID) bool { return !slices.Contains(w.dead, id) && w.n.isUp(id) }

func (w *write) need(r *ring.Ring) int { return min(quorumW, r.N()) }

// route finds the coordinator and hands the write to it (coordinator.route).
func (w *write) route() {
	w.stands = w.base.Walk(w.stands[:0], w.partition, w.up)
	few := func(r *ring.Ring) bool { return len(r.Walk(nil, w.partition, w.up)) < w.need(r) }
	if len(w.stands) < w.need(w.base) || slices.ContainsFunc(w.rings.live.Beside, few) {
		w.finish(result{verdict: refused})
		return
	}
	if stand, ok := w.ownStand(); ok {
		w.coordinate(stand)
		return
	}
	others := w.others()
	if len(others) == 0 {
		w.finish(result{verdict: refused})
		return
	}
	w.forward(others[0])
}

func (w *write) liveOwners() (n int) {
	for _, s := range w.stands {
		if s.For == 0 {
			n++
		}
	}
	return n
}

// ownStand is as what this node coordinates the write, if it does
// (coordinator.ownStand).
func (w *write) ownStand() (ring.Stand, bool) {
	at := slices.IndexFunc(w.stands, func(s ring.Stand) bool { return s.Node == w.n.id })
	switch {
	case at >= 0 && w.stands[at].For == 0:
		return w.stands[at], true
	case w.vop.Strict():
		return ring.Stand{}, false
	case w.forwarded && at < 0:
		return ring.Stand{Node: w.n.id, For: w.base.Owners(w.partition)[0]}, true
	case at >= 0 && (w.forwarded || w.liveOwners() == 0):
		return w.stands[at], true
	}
	return ring.Stand{}, false
}

// others may coordinate the write in this node's place (coordinator.others).
func (w *write) others() (nodes []ring.NodeID) {
	owners := w.liveOwners() > 0
	if w.forwarded || !owners && w.vop.Strict() {
		return nil
	}
	for _, s := range w.stands {
		if owners == (s.For == 0) && !slices.Contains(w.busy, s.Node) {
			nodes = append(nodes, s.Node)
		}
	}
	return nodes
}

// forward hands the write to another node, once: what may have reached a coordinator
// goes to no other (package coordinator).
func (w *write) forward(id ring.NodeID) {
	n, to := w.n, w.n.w.node(id)
	if !to.up { // a dial fails
		n.down[id] = true
		w.dead = append(w.dead, id)
		w.route()
		return
	}
	n.w.say("node %d hands op %d to node %d", n.id, w.o.id, id)
	n.w.ask(w.a, n, to, w.deadline, true, func(back func(func())) {
		to.write(w.a, w.o, w.vop, w.bits, w.deadline-(w.deadline-n.w.now)/10, true, func(r result) {
			back(func() { w.forwarded1(id, r) })
		})
	}, func() { w.finish(result{verdict: uncertain}) })
}

// forwarded1 takes the answer of a forward (coordinator.forwardDone).
func (w *write) forwarded1(id ring.NodeID, r result) {
	if r.verdict == misplaced || r.verdict == refused {
		w.busy = append(w.busy, id)
		w.route()
		return
	}
	w.finish(r)
}

// coordinate makes this node the coordinator (coordinator.coordinate).
func (w *write) coordinate(self ring.Stand) {
	w.self = self
	patience := w.deadline - w.n.w.now
	switch {
	case patience <= 0:
		w.finish(result{verdict: refused})
		return
	case w.vop.NeedsRead():
	case w.n.recovering:
		patience /= 2
	default:
		w.mint(held{})
		return
	}
	w.rings.users++
	w.n.read(w.a, w.o.key, w.rings, w.n.w.now+patience, func(h held, fallback, ok bool) {
		w.start = w.n.w.now
		switch {
		case !ok && !w.vop.NeedsRead():
			w.mint(held{})
		case !ok, w.start >= w.deadline:
			w.finish(result{verdict: refused})
		default:
			w.mint(h)
		}
	})
}

// mint applies the operation to the own copy and begins replication
// (coordinator.mint and oweLocked, replica.mutate).
func (w *write) mint(base held) {
	w.Reset(w.need(w.base), w.self, w.stands, w.base.Owners(w.partition))
	w.owed = append(w.owed[:0], w.base)
	for _, r := range w.rings.live.Beside {
		same := func(o *ring.Ring) bool { return sameOwners(o.Owners(w.partition), r.Owners(w.partition)) }
		if r.N() == 0 || slices.ContainsFunc(w.owed, same) || w.n.w.bugs.baseOnly {
			continue
		}
		w.owed = append(w.owed, r)
		w.Beside(w.need(r), r.Walk(nil, w.partition, w.up), r.Owners(w.partition))
	}
	w.refs, w.running = 1, true
	if !w.mutate(base) {
		return
	}
	w.arm()
	w.n.w.say("node %d mints op %d on %s for %d, covers %s", w.n.id, w.o.id, w.n.w.keys[w.o.key].name, w.self.For, w.n.w.bitsText(w.o.past))
	w.run()
}

func sameOwners(a, b []ring.NodeID) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(id ring.NodeID) bool { return !slices.Contains(b, id) })
}

// mutate is replica.mutate, and notes what really happens.
func (w *write) mutate(base held) bool {
	n, o, target := w.n, w.o, int(w.self.For)
	if target == 0 && n.fenced[w.partition] {
		w.finish(result{verdict: misplaced})
		return false
	}
	n.checkOwnDots(o.key, target, base.rec.Context)
	r := &n.rows[o.key][target]
	before := merge(r.held, base)
	if n.w.bugs.noAmnesia {
		before.rec.Amnesia = false
	}
	rec, out, err := version.Apply(before.rec, w.vop, n.mint(o.key, target))
	if err != nil {
		n.w.fail("dot", "op %d at node %d: %v", o.id, n.id, err)
		return false
	}
	n.observe(out.HLC)
	cover := w.bits
	if !w.vop.Explicit {
		cover |= before.past
	}
	next := held{rec: rec, live: before.live &^ cover, past: before.past | cover}
	n.w.minted(o, n, out, cover, before.live&cover)
	if out.Dot != (version.Dot{}) && out.Applied {
		next.live |= o.bit()
		next.past |= o.bit()
	}
	if !out.Applied {
		next.live, next.past = before.live, before.past
	}
	w.result = result{tok: n.w.tokenOf(o, out, next, cover)}
	w.noop = !out.Applied && (w.vop.Kind != version.OpDelete || len(out.Token.Context) == 0)
	w.copy = next.wire()
	done := func() { w.outcome(quorum.Local, w.self, stored) }
	if !out.Applied && before.rec.Equal(r.rec) {
		n.wait(done)
		return true
	}
	n.put(o.key, target, next, done)
	return true
}

// run does what the kernel wants until it wants nothing (coordinator.write.run).
func (w *write) run() {
	for {
		if !w.noop {
			if s, ok := w.Next(); ok {
				w.refs++
				w.send(s)
				continue
			}
		}
		if !w.answered && (w.noop || w.expired || w.Verdict() != quorum.Pending) {
			w.answered = true
			w.reply()
			continue
		}
		if in, needs := w.NeedsSpares(); needs && !w.noop {
			w.Spares(in, w.n.fallbacks(w.owed[in], w.partition))
			continue
		}
		w.running = false
		if w.answered && w.refs == 0 {
			w.refs = -1
			w.n.leave(w.rings)
		}
		return
	}
}

// fallbacks are the live ones of a partition (coordinator.liveFallbacks).
func (n *node) fallbacks(r *ring.Ring, partition int) []ring.NodeID {
	return slices.DeleteFunc(r.Fallbacks(partition), func(id ring.NodeID) bool { return !n.isUp(id) })
}

// reply answers (coordinator.resultLocked).
func (w *write) reply() {
	r := w.result
	if r.verdict = uncertain; w.noop || w.Verdict() == quorum.Met {
		r.verdict = acked
		w.o.homes = !w.noop && w.homes >= w.need(w.base)
	}
	w.answer(r)
}

// send brings the copy to one stand (coordinator.write.send, sendDeadlineLocked).
func (w *write) send(s quorum.Send) {
	n, now := w.n, w.n.w.now
	if s.Stand.Node == n.id {
		n.mergeRow(w.o.key, int(s.Stand.For), w.copy, func(out outcome) { w.outcome(s.Index, s.Stand, out) })
		return
	}
	deadline := w.deadline
	switch {
	case w.answered:
		deadline = now + callTime
	case s.Stand.For == 0:
		deadline = w.start + (w.deadline-w.start)/2
	}
	n.sendCopy(w.a, w.rings, s.Stand, s.Optional, w.o.key, w.copy, deadline, func(out outcome) { w.outcome(s.Index, s.Stand, out) })
}

// arm ends the client's patience.
func (w *write) arm() {
	w.n.w.after(w.n, w.deadline-w.n.w.now, func() {
		if !w.answered {
			w.expired = true
			w.resume()
		}
	})
}

// sendCopy brings a copy to another node, as its own row or as a hint.
func (n *node) sendCopy(a *activity, by *rings, s ring.Stand, optional bool, k int, h held, deadline int64, done func(outcome)) {
	to := n.w.node(s.Node)
	if deadline <= n.w.now {
		n.w.after(n, 1, func() { done(unreachable) })
		return
	}
	if !to.up {
		n.down[s.Node] = true
		n.w.after(n, ms, func() { done(unreachable) })
		return
	}
	stamp := by.view.Stamp
	n.w.ask(a, n, to, deadline, false, func(back func(func())) {
		to.serveMerge(n, stamp, k, int(s.For), optional, h, func(out outcome, st *epoch.State) {
			back(func() {
				if st != nil {
					n.hear(*st)
				}
				done(out)
			})
		})
	}, func() {
		by.lostBy(n.w.now)
		done(lostCall)
	})
}

// serveMerge takes a copy in for another node (node.ServeMerge, localPeer.merge).
func (n *node) serveMerge(from *node, stamp epoch.Stamp, k, target int, optional bool, h held, reply func(outcome, *epoch.State)) {
	if n.refuses(from, stamp, false) {
		st := n.state
		reply(staleEpoch, &st)
		return
	}
	if target != 0 && optional && n.fullUntil > n.w.now {
		reply(overBudget, nil)
		return
	}
	if n.w.bugs.sloppyForgotten {
		target = 0
	}
	if n.w.bugs.confirmEarly {
		n.mergeRow(k, target, h, func(outcome) {})
		reply(stored, nil)
		return
	}
	n.mergeRow(k, target, h, func(out outcome) { reply(out, nil) })
}

// outcome takes what came of one message (coordinator.write.outcome).
func (w *write) outcome(index int, s ring.Stand, out outcome) {
	w.refs--
	switch out {
	case stored:
		if s.For == 0 && w.base.Owns(s.Node, w.partition) {
			w.homes++
		}
		w.Ack(index)
		if w.n.w.bugs.ackTwice && index == quorum.Local {
			w.Ack(index)
		}
	case staleEpoch:
		w.Fail(index, quorum.Refused)
	case overBudget:
		w.Fail(index, quorum.OverBudget)
	default:
		w.Fail(index, quorum.Dead)
	}
	w.resume()
}

func (w *write) resume() {
	if w.running {
		return
	}
	w.running = true
	w.run()
}

// finish ends a write of which nothing is under way.
func (w *write) finish(r result) {
	if r.verdict == refused && w.forwarded && !w.base.Owns(w.n.id, w.partition) {
		r.verdict = misplaced
	}
	w.n.leave(w.rings)
	w.answer(r)
}
