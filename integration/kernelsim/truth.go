package main

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/replica/version"
)

// op is what a client asked for, and what really came of it.
type op struct {
	id     int // of the decision
	index  int // its bit
	key    int
	do     string
	began  int64
	minted bool
	write  bool // it minted a dot
	dot    version.Dot
	hlc    version.HLC
	past   uint64 // the writes that it had seen, exactly
	acked  bool
	homes  bool // acknowledged by W owners
	hurt   bool // a copy was lost since all owners had it
	gone   bool // of those, one that no recovery brings back: a hint, or by a node that is dead
}

func (o *op) bit() uint64 { return 1 << o.index }

// knows is what a node that has this op knows.
func (o *op) knows() uint64 {
	if o.write {
		return o.past | o.bit()
	}
	return o.past
}

// token is what a client holds of a key, and exactly what it has seen by it.
type token struct {
	version.Token
	bits uint64
}

// client is one client: a session that remembers what it saw last of each key.
type client struct {
	tokens [maxKeys]token
}

// minted notes what an op did at its coordinator: what it covers, and which versions it
// replaces there.
func (w *world) minted(o *op, n *node, out version.Outcome, cover, replaced uint64) {
	if o.minted {
		w.fail("dot", "op %d is coordinated twice, the second time at node %d", o.id, n.id)
		return
	}
	o.minted, o.past = true, cover
	if !out.Applied || out.Dot == (version.Dot{}) {
		return
	}
	for _, p := range w.ops {
		if p.write && p.dot == out.Dot && w.keys[p.key].partition == w.keys[o.key].partition {
			w.fail("dot", "ops %d and %d have one dot", p.id, o.id)
		}
	}
	o.write, o.dot, o.hlc = true, out.Dot, out.HLC
	for rest := replaced; rest != 0; rest &= rest - 1 {
		if p := w.ops[bits.TrailingZeros64(rest)]; p.hlc >= o.hlc {
			w.fail("clock", "op %d replaces op %d and is not above it", o.id, p.id)
		}
	}
}

// tokenOf is what a client has seen by the token of its write, exactly: what it had
// seen, and of what it is told besides only what was replaced. A version beside its
// own, which it has not looked at, it has not seen, whatever the token says.
func (w *world) tokenOf(o *op, out version.Outcome, next held, cover uint64) token {
	t := token{Token: out.Token}
	if w.bugs.tokenWhole {
		t.Context = next.rec.Context
	}
	unseen := next.live &^ cover
	if o.write {
		unseen &^= o.bit()
	}
	for rest := next.past; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		if t.Context.Contains(w.ops[i].dot) {
			t.bits |= 1 << i
		}
	}
	t.bits &^= unseen
	return t
}

// verify compares a copy with what it should be.
func (w *world) verify(n *node, k, target int, h held) {
	live := uint64(0)
	for i := range h.rec.Versions {
		v := &h.rec.Versions[i]
		if len(v.Value) != 1 || int(v.Value[0]) >= len(w.ops) || w.ops[v.Value[0]].dot != v.Dot || w.ops[v.Value[0]].key != k {
			w.fail("phantom", "node %d holds a version that nobody wrote", n.id)
			return
		}
		live |= 1 << v.Value[0]
	}
	where := func() string { return fmt.Sprintf("node %d, row of %s for %d", n.id, w.keys[k].name, target) }
	if gone := h.live &^ live; gone != 0 {
		w.fail("lost", "%s has dropped %s without having seen what replaces it", where(), w.bitsText(gone))
	}
	if more := live &^ h.live; more != 0 {
		w.fail("resurrected", "%s has %s, which was replaced", where(), w.bitsText(more))
	}
	for rest := live; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		if seen := live & w.ops[i].past; seen != 0 {
			w.fail("sibling", "%s has op %d beside %s, which that had seen", where(), w.ops[i].id, w.bitsText(seen))
		}
	}
	for i, o := range w.ops {
		if o.write && o.key == k && h.past&(1<<i) == 0 && h.rec.Context.Contains(o.dot) {
			w.fail("claim", "%s claims op %d, which never came there", where(), o.id)
		}
	}
}

// bitsText lists ops by the ids of their decisions.
func (w *world) bitsText(b uint64) string {
	if b == 0 {
		return "nothing"
	}
	var ids []string
	for rest := b; rest != 0; rest &= rest - 1 {
		ids = append(ids, fmt.Sprint("op ", w.ops[bits.TrailingZeros64(rest)].id))
	}
	return strings.Join(ids, ", ")
}

// mayLose reports whether a node may lose all of its log from some place on: what was
// acknowledged stands on W disks, and only one of them may fail before the node of that
// disk has it back, or all owners have it. If so, what is lost is noted.
func (w *world) mayLose(n *node, kept int, forGood bool) bool {
	type loss struct {
		op   *op
		gone bool
	}
	var loses []loss
	for k := range w.keys {
		before, after, own := n.durable(k, n.log), n.durable(k, n.log[:kept]), n.durableOwn(k)
		for _, o := range w.ops {
			if o.key != k || !o.minted || o.knows()&^before != 0 || o.knows()&^after == 0 {
				continue
			}
			if o.hurt && (o.gone || !w.recovered()) && !w.everywhere(o) {
				return false
			}
			loses = append(loses, loss{o, forGood || o.knows()&^own != 0})
		}
	}
	for _, l := range loses {
		l.op.hurt, l.op.gone = true, l.gone || l.op.gone
	}
	return true
}

// recovered reports whether no node says of itself that it lacks something.
func (w *world) recovered() bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.recovering })
}

// everywhere reports whether an op is on the disks of all owners.
func (w *world) everywhere(o *op) bool {
	for _, n := range w.nodes {
		if !n.up || !n.state.Serves() {
			continue
		}
		if !n.state.Settled() {
			return false
		}
		for _, owner := range n.current.live.Base.Owners(w.keys[o.key].partition) {
			m := w.node(owner)
			if m.recovering || o.knows()&^m.durableOwn(o.key) != 0 {
				return false
			}
		}
		o.hurt, o.gone = false, false
		return true
	}
	return false
}

// promise is what a read that begins now keeps, if only owners answer it.
type promise struct {
	shows uint64 // it knows these writes
	hides uint64 // and does not show those
}

// promised is what W owners have acknowledged of a key. A write that something covered
// may be forgotten, with its tombstone. In a change of the ring hints may stand for owners.
func (w *world) promised(k int) (p promise) {
	if w.s.Moves {
		return promise{}
	}
	for _, o := range w.ops {
		if o.key != k || !o.acked || !o.homes {
			continue
		}
		p.hides |= o.past
		if o.write {
			p.shows |= o.bit()
		}
	}
	return p
}

// broken says what is wrong with what a read found.
func (w *world) brokenBy(p promise, h held) (missed, stale uint64) {
	missed = p.shows &^ h.past
	for _, o := range w.ops {
		missed &^= o.past
	}
	return missed, p.hides & h.live
}
