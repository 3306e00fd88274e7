package main

import (
	"slices"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// rings are the live rings of one view, and who goes by them (coordinator.Rings and
// node.ringBook).
type rings struct {
	view  *epoch.View
	live  *ring.Live
	users int
	until int64 // so long a message that had no answer may be carried out
}

func (r *rings) idle(now int64) bool { return r.users == 0 && now >= r.until }

// enter counts one more that goes by the present rings.
func (n *node) enter() *rings {
	n.current.users++
	return n.current
}

// leave undoes it.
func (n *node) leave(r *rings) {
	r.users--
	if !n.state.Settled() {
		n.advance()
	}
}

// lostBy notes that a message which went by these rings had no answer.
func (r *rings) lostBy(now int64) { r.until = max(r.until, now+messageAge) }

// drained is the newest view such that nothing goes by an earlier one.
func (n *node) drained() uint64 {
	done := 0
	for done < len(n.earlier) && n.earlier[done].idle(n.w.now) {
		done++
	}
	n.earlier = slices.Delete(n.earlier, 0, done)
	if len(n.earlier) > 0 {
		return n.earlier[0].view.Number
	}
	return n.current.view.Number
}

// show saves a state and then lets everybody see it (membership.advance and publish).
func (n *node) show(next epoch.State) {
	if n.view != nil && next.SameView(n.state) {
		n.state = next
		return
	}
	if n.view != nil && !next.Equal(n.state) {
		n.saves = append(n.saves, savedState{n.w.now, next})
	}
	v, err := next.View(n.w.shared.build)
	if err != nil {
		n.w.fail("ring", "node %d: %v", n.id, err)
		return
	}
	if n.view == nil || v.Stamp != n.view.Stamp || v.Settled != n.view.Settled {
		n.w.say("node %d: target %v base %v live %d coordinates %v", n.id, v.Stamp.Target, v.Stamp.Base, len(next.Live()), v.Coordinate)
	}
	n.state, n.view = next, v
	switch {
	case n.current == nil:
	case n.current.view.Number == v.Number:
		n.current.view = v
		return
	default:
		n.earlier = append(n.earlier, n.current)
	}
	n.current = &rings{view: v, live: n.w.shared.live(v.Rings())}
}

// advance takes the steps of a change of the ring that may be taken.
func (n *node) advance() {
	for range 8 { // a new view may be drained at once
		was := n.state
		n.show(n.state.Advance(epoch.Local{Drained: n.drained(), Dropping: n.dropping.on, Sent: n.sent()}))
		if n.w.failure != nil || n.state.SameView(was) {
			return
		}
	}
}

// hear merges what another node says of the epochs.
func (n *node) hear(in epoch.State) {
	n.show(n.state.Merge(in))
	n.advance()
}

// gossip tells somebody the state, unless both know the same: memberlist exchanges
// digests first.
func (n *node) gossip() {
	a := n.w.ticked(n, ofGossip, 0)
	at := int(a.rng.Uint64() % uint64(maxNodes))
	for i := range maxNodes {
		m := n.w.nodes[(at+i)%maxNodes]
		if m == n || !m.up {
			continue
		}
		if alike(n.state, m.state) {
			return
		}
		in := n.state
		n.w.send(a, n, m, false, func() { m.hear(in) })
		return
	}
}

// alike reports whether neither of two nodes can tell the other something.
func alike(a, b epoch.State) bool {
	if a.Target().ID() != b.Target().ID() || a.Base().ID() != b.Base().ID() || len(a.Live()) != len(b.Live()) {
		return false
	}
	if a.Settled() && b.Settled() && a.Admitted() && b.Admitted() {
		return true
	}
	return slices.Equal(a.Trackers(), b.Trackers())
}

// refuses reports whether a request must be refused, and tells the sender why if so
// (rpc.ServerConfig.Stale). read: it asks for rows.
func (n *node) refuses(from *node, st epoch.Stamp, read bool) bool {
	return !n.w.bugs.noStale && n.view.Stale(from.id, st, read)
}

// amend carries out what an administrator asks for at this node (node.ringadmin).
func (n *node) amend(edits ...ring.Edit) {
	if !n.up || !n.state.Serves() {
		return
	}
	by := ring.Stamp{TimeMS: n.wallMS(), Admin: n.id}
	records, err := ring.Amend(n.state.Target().Records(), edits, copies, by, false)
	if err != nil {
		n.w.say("node %d refuses the change: %v", n.id, err)
		return
	}
	n.w.say("node %d changes the ring: %v", n.id, edits)
	n.show(n.state.Amend(records))
	n.advance()
}
