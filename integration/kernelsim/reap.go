package main

import (
	"github.com/redynamo/redynamo/replica/version"
)

// grave is a tombstone that may be dropped (replica.Reaper, whose head says why each of
// these times is waited for).
type grave struct {
	state  uint64
	since  int64 // the row is as it is; 0: it is none
	seen   int64
	proven int64
	free   int64
	rings  uint64
	asking bool
}

// reapedRow is what replica.reaped remembers.
type reapedRow struct {
	key   int
	state uint64
}

// settling is node.settling: since when the view is settled.
type settling struct {
	known  bool
	number uint64
	at     int64
}

func (n *node) settledSince() (number uint64, at int64, ok bool) {
	if !n.view.Settled {
		return 0, 0, false
	}
	s := &n.life.settled
	if !s.known || s.number != n.view.Number {
		*s = settling{true, n.view.Number, n.w.now}
	}
	return s.number, s.at, true
}

// bare reports whether a record holds no payload.
func bare(r version.Record) bool { return !r.Absent() && !r.HasLive() }

func (n *node) wasReaped(k int, in version.Record) bool {
	if !bare(in) {
		return false
	}
	state := in.WholeHash()
	for _, r := range n.reaped {
		if r.key == k && r.state == state {
			return true
		}
	}
	return false
}

// reap takes each tombstone one step further.
func (n *node) reap() {
	for k := range n.w.keys {
		g, r := &n.graves[k], &n.rows[k][0]
		if !bare(r.rec) {
			*g = grave{}
			continue
		}
		if state := r.rec.WholeHash(); g.since == 0 || state != g.state {
			*g = grave{state: state, since: n.w.now, asking: g.asking}
		}
		n.prove(k, g, r)
	}
}

// prove is replica.Reaper's look, prove, askHints and drop for one tombstone.
func (n *node) prove(k int, g *grave, r *row) {
	p, now := n.w.keys[k].partition, n.w.now
	if n.w.bugs.reapByAge && now-g.since > 2*messageAge {
		n.reapRow(k, g)
		return
	}
	number, at, ok := n.settledSince()
	switch {
	case n.w.s.Restores && now-g.since < restoreWindow:
	case g.seen == 0:
		if r.seq <= n.synced {
			g.seen = now
		}
	case g.proven == 0:
		if ok && n.current.live.Base.Owns(n.id, p) && n.metOwners(p, max(g.seen, at)) {
			g.proven, g.rings = now, number
		}
	case now-g.proven < messageAge || g.asking:
	case g.free == 0:
		n.askHints(k, g, p)
	case now-g.free < messageAge:
	case !ok || number != g.rings:
		g.proven, g.free = 0, 0
	default:
		n.reapRow(k, g)
	}
}

// metOwners is node.metOwners.
func (n *node) metOwners(partition int, since int64) bool {
	for _, owner := range n.current.live.Base.Owners(partition) {
		if owner != n.id && n.sessions[owner][partition] <= since {
			return false
		}
	}
	return true
}

// quiet is node.quiet.
const quiet = messageAge * 5 / 4

// askHints asks all members whether they keep hints for a partition (node.HintFree).
func (n *node) askHints(k int, g *grave, p int) {
	g.asking = true
	state := g.state
	all := newGather(func(ok bool) {
		g.asking = false
		if ok && g.state == state {
			g.free = n.w.now
		}
	})
	if n.w.bugs.reapHints {
		all.settle(stored)
		return
	}
	a := n.w.ticked(n, ofReap, uint64(k))
	n.hintFree(p, all.one())
	for _, m := range n.current.live.Base.Members() {
		if m.ID == n.id {
			continue
		}
		peer, one := n.w.node(m.ID), all.one()
		if !peer.up || !n.isUp(m.ID) {
			one(unreachable)
			continue
		}
		n.w.ask(a, n, peer, n.w.now+messageAge/8, false, func(back func(func())) {
			peer.hintFree(p, func(out outcome) {
				back(func() {
					if n.w.now-n.w.broken[n.id][peer.id] < quiet {
						out = unreachable // it was away, and may act on what it held
					}
					one(out)
				})
			})
		}, func() { one(lostCall) })
	}
	all.settle(stored)
}

// hintFree tells whether this node keeps no hint of a partition and has kept none of
// late (node.hintFree).
func (n *node) hintFree(p int, reply func(outcome)) {
	if n.recovering || !n.view.Settled {
		reply(unreachable)
		return
	}
	n.wait(func() {
		held := n.hintedAt[p] != 0 && n.hintedAt[p] > n.w.now-quiet
		for k := range n.w.keys {
			if n.w.keys[k].partition != p {
				continue
			}
			for target := 1; target <= maxNodes; target++ {
				held = held || !n.rows[k][target].rec.Absent()
			}
			held = held || !n.current.live.Base.Owns(n.id, p) && !n.rows[k][0].rec.Absent()
		}
		if held {
			reply(unreachable)
			return
		}
		reply(stored)
	})
}

// reapRow drops a tombstone that is still as it was proven (replica.reap).
func (n *node) reapRow(k int, g *grave) {
	r := &n.rows[k][0]
	n.reaped = append(n.reaped, reapedRow{k, r.rec.WholeHash()})
	*g = grave{}
	n.w.say("node %d drops the tombstone of %s", n.id, n.w.keys[k].name)
	n.put(k, 0, held{}, func() {})
}

// dropping is how far a node is with partitions that moved away (node.dropper).
type dropping struct {
	on    bool
	busy  bool
	empty [units]bool // fenced, and empty
	rest  uint64      // the settled view seen last, and since when
	since int64
	done  bool
	seen  uint64
}

// dropMoved fences and empties what is not held any more, and opens what is again
// (node.dropper.step).
func (n *node) dropMoved() {
	d := &n.life.dropping
	if !n.w.s.Moves || d.busy {
		return
	}
	v := n.view
	switch {
	case d.on:
		n.dropClosed(0)
		return
	case d.done && v.Number == d.seen:
		return
	case v.Settled:
		if d.rest != v.Number || d.since == 0 {
			d.rest, d.since = v.Number, n.w.now
		}
		if n.w.now-d.since < dropGrace {
			n.reopen(v.Holds)
			return
		}
		d.on = true
		for p := range units {
			n.fenced[p] = n.fenced[p] || !v.Holds(p)
		}
		n.dropClosed(v.Number)
		return
	}
	n.reopen(v.Holds)
	n.dropEnded(v.Number)
}

// reopen opens what is held, and is empty.
func (n *node) reopen(holds func(int) bool) {
	for p := range units {
		if n.life.dropping.empty[p] && holds(p) {
			n.life.dropping.empty[p] = false
			n.fenced[p] = n.w.bugs.dropUnfenced && n.fenced[p]
		}
	}
}

// dropClosed empties the closed partitions when what was let in before is durable; those
// that it has not touched stay as they are if the view with that number is over.
func (n *node) dropClosed(number uint64) {
	d := &n.life.dropping
	d.busy = true
	n.wait(func() {
		for p := range units {
			if !n.fenced[p] || d.empty[p] {
				continue
			}
			if n.partitionEmpty(p) {
				d.empty[p] = true
				continue
			}
			if number != 0 && n.view.Number != number {
				n.fenced[p] = false
				continue
			}
			for k := range n.w.keys {
				if n.w.keys[k].partition == p && !n.rows[k][0].rec.Absent() {
					n.w.say("node %d drops %s, which moved away", n.id, n.w.keys[k].name)
					n.put(k, 0, held{}, func() {})
				}
			}
		}
		n.wait(func() {
			d.busy = false
			for p := range units {
				d.empty[p] = d.empty[p] || n.fenced[p] && n.partitionEmpty(p)
			}
			n.reopen(n.view.Holds)
			n.dropEnded(n.view.Number)
		})
	})
}

// dropEnded clears dropping if nothing is left to be emptied.
func (n *node) dropEnded(number uint64) {
	d := &n.life.dropping
	for p := range units {
		if n.fenced[p] && !d.empty[p] {
			return
		}
	}
	d.done, d.seen = true, number
	if d.on {
		d.on = false
		n.advance()
	}
}

func (n *node) partitionEmpty(p int) bool {
	for k := range n.w.keys {
		if n.w.keys[k].partition == p && !n.rows[k][0].rec.Absent() {
			return false
		}
	}
	return true
}
