package main

import (
	"slices"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// read is one read under way (coordinator.read).
type read struct {
	n     *node
	a     *activity
	key   int
	rings *rings // entered; left when the read has ended
	done  func(h held, fallback, ok bool)

	quorum.Read
	bits     held // the exact side of the kernel's join; its record is not used
	deadline int64
	refs     int
	running  bool
	answered bool
	expired  bool
}

// read asks R nodes for a key and calls done once.
func (n *node) read(a *activity, k int, by *rings, deadline int64, done func(h held, fallback, ok bool)) {
	r := &read{n: n, a: a, key: k, rings: by, done: done, deadline: deadline}
	base := by.live.Base
	p := n.w.keys[k].partition
	stands := base.Walk(nil, p, n.isUp)
	// The own copy first, then owners, then fallbacks (coordinator.prefer).
	slices.SortStableFunc(stands, func(x, y ring.Stand) int { return n.rank(x) - n.rank(y) })
	r.Reset(min(quorumR, base.N()), nil, stands)
	r.Clock(n.wallMS())
	n.w.after(n, hedgeTime, r.hedge)
	n.w.after(n, deadline-n.w.now, func() {
		r.expired = true
		r.resume()
	})
	r.resume()
}

func (n *node) rank(s ring.Stand) int {
	switch {
	case s.For != 0:
		return 2
	case s.Node == n.id:
		return 0
	}
	return 1
}

func (r *read) hedge() {
	if r.answered {
		return
	}
	r.Hedge()
	if r.Hedgeable() {
		r.n.w.after(r.n, hedgeTime, r.hedge)
	}
	r.resume()
}

func (r *read) resume() {
	if r.running || r.refs < 0 {
		return
	}
	r.running = true
	for {
		if !r.answered && !r.expired {
			if ask, ok := r.Next(); ok {
				r.refs++
				r.put(ask)
				continue
			}
			if r.NeedsSpares() {
				r.Spares(r.n.fallbacks(r.rings.live.Base, r.n.w.keys[r.key].partition))
				continue
			}
		}
		if !r.answered && (r.expired || r.Verdict() != quorum.Pending) {
			r.answered = true
			h := held{rec: r.Record(), live: r.bits.live, past: r.bits.past}
			met := r.Verdict() == quorum.Met
			if met {
				r.n.w.verify(r.n, r.key, -1, h)
			}
			r.done(h, r.Fallback(), met)
			continue
		}
		r.running = false
		if r.answered && r.refs == 0 {
			r.refs = -1
			r.end()
		}
		return
	}
}

// put puts one question.
func (r *read) put(ask quorum.Ask) {
	n := r.n
	if ask.Stand.Node == n.id {
		reply, h, ok := n.answer(r.key, ask)
		r.take(ask, reply, h, ok)
		return
	}
	to := n.w.node(ask.Stand.Node)
	failed := func() { r.take(ask, quorum.Reply{}, held{}, n.w.bugs.errorIsAbsent) }
	if !to.up {
		n.down[to.id] = true
		n.w.after(n, ms, failed)
		return
	}
	stamp := r.rings.view.Stamp
	n.w.ask(r.a, n, to, r.deadline, false, func(back func(func())) {
		if to.refuses(n, stamp, true) {
			st := to.state
			back(func() { r.refused(ask, st) })
			return
		}
		reply, h, ok := to.answer(r.key, ask)
		back(func() { r.take(ask, reply, h, ok) })
	}, failed)
}

// refused: the question went by rings that are over.
func (r *read) refused(ask quorum.Ask, st epoch.State) {
	r.n.hear(st)
	r.take(ask, quorum.Reply{}, held{}, false)
}

// answer is what a node says of a key (localPeer.read and reply).
func (n *node) answer(k int, ask quorum.Ask) (reply quorum.Reply, h held, ok bool) {
	if ask.Stand.For != 0 {
		h = n.joined(k).wire()
	} else {
		if n.fenced[n.w.keys[k].partition] {
			return reply, h, false
		}
		h = n.rows[k][0].wire()
	}
	hash := h.rec.StateHash()
	if n.w.bugs.absentIsError && hash == 0 {
		return reply, h, false
	}
	switch {
	case n.recovering:
		reply = quorum.Reply{Recovering: true, Hash: hash, Record: h.rec}
	case ask.Mode == quorum.IfDiffer && ask.Have == hash:
		reply = quorum.Reply{Same: true, Hash: hash}
	case ask.Mode == quorum.Digest:
		reply = quorum.Reply{Hash: hash}
	default:
		reply = quorum.Reply{Hash: hash, Record: h.rec}
	}
	return reply, h, true
}

// take takes the outcome of one question. Copies that came whole are joined, by the
// kernel and here.
func (r *read) take(ask quorum.Ask, reply quorum.Reply, h held, ok bool) {
	r.refs--
	switch {
	case !ok:
		r.Fail(ask.Index)
	default:
		if reply.Recovering || !reply.Same && ask.Mode != quorum.Digest {
			r.bits = held{live: r.bits.live&h.live | r.bits.live&^h.past | h.live&^r.bits.past, past: r.bits.past | h.past}
		}
		r.Reply(ask.Index, reply)
	}
	r.resume()
}

// end repairs the owners that were found stale (coordinator.repairOwners).
func (r *read) end() {
	n := r.n
	copy := held{rec: r.Record(), live: r.bits.live, past: r.bits.past}.wire()
	for _, stale := range r.Repairs(nil) {
		r.rings.users++
		done := func(outcome) { n.leave(r.rings) }
		if stale.Node == n.id {
			n.mergeRow(r.key, 0, copy, done)
			continue
		}
		n.w.say("node %d repairs node %d after a read of %s", n.id, stale.Node, n.w.keys[r.key].name)
		n.sendCopy(r.a, r.rings, ring.Stand{Node: stale.Node}, false, r.key, copy, n.w.now+callTime, done)
	}
	n.leave(r.rings)
}
