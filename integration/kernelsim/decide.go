package main

import (
	"math/bits"
	"slices"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// decide carries out a decision.
func (w *world) decide(d *Decision) {
	if w.calm {
		return
	}
	n := w.nodes[max(d.Node, 1)-1]
	if d.isOp() {
		w.operate(n, d)
		return
	}
	switch d.Do {
	case doKill, doWipe, doRestore:
		w.stop(n, d)
	case doPower:
		for i, m := range w.nodes {
			if d.Part>>i&1 == 1 {
				w.stop(m, &Decision{Do: doKill, For: d.For + int64(i)*10*ms})
			}
		}
	case doPause:
		if n.up {
			w.say("node %d stands still for %s", n.id, clock(d.For))
			n.pausedUntil = w.now + d.For
			if d.For >= messageAge/4 {
				n.touch()
				w.push(event{at: w.now + d.For, run: n.touch})
			}
		}
	case doCut:
		w.cut(d.Node, d.To, d.For)
	case doSplit:
		w.split(d)
	case doSuspect:
		w.say("node %d suspects node %d", d.Node, d.To)
		n.down[d.To] = d.To != d.Node
	case doDoubt:
		w.doubt(n, d)
	case doSlowDisk:
		n.slowUntil = w.now + d.For
	case doFull:
		n.fullUntil = w.now + d.For
	case doSkew:
		n.skew = d.Age
	default:
		w.change(n, d)
	}
}

// doubt lets a node be wrong about owners of a key.
func (w *world) doubt(n *node, d *Decision) {
	if !n.up || n.current.live.Base.N() == 0 {
		return
	}
	base, p := n.current.live.Base, w.keys[d.Key].partition
	for i, id := range slices.Concat(base.Owners(p), base.Fallbacks(p)) {
		if d.Part>>i&1 == 1 && id != n.id {
			n.down[id] = true
			w.say("node %d takes node %d for dead", n.id, id)
		}
	}
}

// operate lets a client ask node n.
func (w *world) operate(n *node, d *Decision) {
	if !n.born || !n.up || n.pausedUntil > w.now || len(w.ops) == 64 {
		return
	}
	o := &op{id: d.ID, index: len(w.ops), key: d.Key, do: d.Do, began: w.now}
	w.ops = append(w.ops, o)
	tok := &w.client[d.Client].tokens[d.Key]
	a := w.cause(d.ID)
	deadline := w.now + requestTime
	value := []byte{byte(o.index)}
	w.say("op %d: client %d asks node %d: %s %s, has seen %s", d.ID, d.Client, n.id, d.Do, w.keys[d.Key].name, w.bitsText(tok.bits))
	vop := version.Op{Kind: version.OpSet, Value: value, Explicit: true}
	switch d.Do {
	case doGet:
		n.clientRead(a, o, tok, deadline, func() {})
		return
	case doCart:
		n.clientRead(a, o, tok, deadline, func() { n.clientWrite(a, o, vop, tok, deadline) })
		return
	case doAdd:
		n.clientWrite(a, o, vop, &token{}, deadline)
		return
	case doSet:
		vop.Explicit = false
	case doRemove:
		vop = version.Op{Kind: version.OpDelete, Explicit: true}
	case doDelete:
		vop = version.Op{Kind: version.OpDelete}
	}
	n.clientWrite(a, o, vop, tok, deadline)
}

// clientRead reads, and lets the client remember what it saw.
func (n *node) clientRead(a *activity, o *op, tok *token, deadline int64, then func()) {
	if n.current.live.Base.N() == 0 || !n.view.Coordinate {
		return
	}
	must := n.w.promised(o.key)
	n.read(a, o.key, n.enter(), deadline, func(h held, fallback, ok bool) {
		if !ok {
			n.w.say("op %d: the read fails", o.id)
			return
		}
		n.w.say("op %d: the read finds %s", o.id, n.w.bitsText(h.live))
		if missed, stale := n.w.brokenBy(must, h); !fallback && missed|stale != 0 {
			n.w.fail("read", "op %d at node %d: %d owners acknowledged what it does not know (%s), or what replaces what it shows (%s)",
				o.id, n.id, quorumW, n.w.bitsText(missed), n.w.bitsText(stale))
		}
		*tok = token{h.rec.ReadToken(), h.past}
		then()
	})
}

// clientWrite writes with a token.
func (n *node) clientWrite(a *activity, o *op, vop version.Op, tok *token, deadline int64) {
	vop.Context, vop.MinHLC = tok.Context, tok.HLC
	if n.w.bugs.contextDropped {
		vop.Context = nil
	}
	n.write(a, o, vop, tok.bits, deadline, false, func(r result) {
		n.w.say("op %d: %s", o.id, [...]string{"acknowledged", "uncertain", "refused", "refused"}[r.verdict])
		if r.verdict == acked {
			o.acked = true
			*tok = r.tok
		}
	})
}

// stop ends the process of a node for a while.
func (w *world) stop(n *node, d *Decision) {
	if !n.up {
		return
	}
	w.say("node %d is killed, %d%% of %d unsynced changes are on its disk", n.id, d.Part, len(n.pending))
	n.kill(d.Part)
	kept := len(n.log)
	switch d.Do {
	case doWipe:
		kept = 0
	case doRestore:
		for kept > 0 && n.log[kept-1].at > w.now-d.Age {
			kept--
		}
	}
	if d.Do != doKill && w.member(n) && w.remembered(n) && w.mayLose(n, kept, false) {
		w.lose(n, d, kept)
	}
	w.push(event{at: w.now + d.For, run: n.restart})
}

// member reports whether a node is in the ring that its disk knows.
func (w *world) member(n *node) bool { return w.memberBy(n, n) }

// memberBy reports whether a node is in the ring that another's disk knows.
func (w *world) memberBy(by, n *node) bool {
	r, found := by.saved().Target().Record(n.id)
	return found && !r.Removed
}

// remembered reports whether two others have on their disks what the cluster is: all
// members that this node knows, and who is dead. An operator or a node that joins says so
// again until it has gone round.
func (w *world) remembered(n *node) bool {
	others := 0
	for _, m := range w.nodes {
		if m == n || !m.born || m.dead || !m.saved().Admitted() {
			continue
		}
		lacks := slices.ContainsFunc(w.nodes, func(o *node) bool {
			_, known := m.saved().Target().Record(o.id)
			return o.dead && w.memberBy(m, o) || !known && w.memberBy(n, o)
		})
		if !lacks {
			others++
		}
	}
	return others >= 2
}

// lose takes from a node's disk what came after some place. The product finds out that
// something is missing, by what the others know of it: see membership.meet. It is known
// here, and the node is recovering.
func (w *world) lose(n *node, d *Decision, kept int) {
	lost := len(n.log) - kept
	n.log = n.log[:kept:kept]
	states := len(n.saves)
	if d.Do == doWipe {
		states = 0
	}
	for d.Do == doRestore && states > 1 && n.saves[states-1].at > w.now-d.Age {
		states--
	}
	if lost > 0 || states < len(n.saves) {
		n.recovering = !w.bugs.noRecovering
	}
	n.saves = n.saves[:states:states]
	w.say("node %d loses the last %d changes of its disk (%s)", n.id, lost, d.Do)
}

// cut stops what one node sends to another.
func (w *world) cut(from, to int, d int64) {
	if from == to {
		return
	}
	w.say("nothing gets from node %d to node %d for %s", from, to, clock(d))
	w.cuts[from][to] = max(w.cuts[from][to], w.now+d)
	if d >= messageAge/4 {
		w.apart(from, to)
		w.push(event{at: w.now + d, run: func() { w.apart(from, to) }})
	}
}

// apart notes that two nodes are out of touch now (rpc.Peer.Unbroken).
func (w *world) apart(a, b int) { w.broken[a][b], w.broken[b][a] = w.now, w.now }

func (w *world) split(d *Decision) {
	w.say("split for %s: nodes %09b and the others", clock(d.For), d.Part)
	for a := range maxNodes {
		for b := range maxNodes {
			if (d.Part>>a)&1 != (d.Part>>b)&1 {
				w.cut(a+1, b+1, d.For)
			}
		}
	}
}

// change changes the ring at node n.
func (w *world) change(n *node, d *Decision) {
	to := w.nodes[d.To-1]
	switch d.Do {
	case doJoin:
		w.come(to)
		n.amend(ring.Edit{Kind: ring.Add, Node: to.id, Weight: 1})
	case doLeave:
		edits := []ring.Edit{{Kind: ring.Remove, Node: to.id}}
		if d.Part > 0 && d.Part != d.To {
			edits = append(edits, ring.Edit{Kind: ring.Remove, Node: ring.NodeID(d.Part)})
		}
		n.amend(edits...)
	case doReplace:
		by := w.nodes[d.Part-1]
		w.come(by)
		n.amend(ring.Edit{Kind: ring.Replace, Node: to.id, By: by.id})
	case doForget:
		w.forget(n, to)
	}
}

// come starts a new node.
func (w *world) come(n *node) {
	if n.born {
		return
	}
	n.born = true
	s := epoch.New(n.id, nil)
	n.saves = append(n.saves, savedState{w.now, s})
	n.start(s)
}

// forget gives a node up for dead: it will never be back.
func (w *world) forget(at, n *node) {
	if n == at || !n.born || !at.up || !at.state.Serves() {
		return
	}
	records, err := ring.Amend(at.state.Target().Records(), []ring.Edit{{Kind: ring.Forget, Node: n.id}}, copies, ring.Stamp{}, false)
	if err != nil || len(records) == 0 || !w.remembered(n) || !w.mayLose(n, 0, true) {
		return
	}
	if n.up {
		n.kill(0)
	}
	n.dead = true
	w.say("node %d is dead for good", n.id)
	at.amend(ring.Edit{Kind: ring.Forget, Node: n.id})
}

// heal ends all trouble.
func (w *world) heal() {
	w.say("everything heals")
	w.calm = true
	w.cuts = [maxNodes + 1][maxNodes + 1]int64{}
	for _, n := range w.nodes {
		if !n.born || n.dead {
			continue
		}
		n.pausedUntil, n.slowUntil, n.fullUntil = 0, 0, 0
		n.restart()
	}
	// Not before the last request has ended, for it may still write.
	w.push(event{at: w.now + requestTime + tickTime, run: w.look})
}

// look ends the history when the cluster is at rest, or it is too late for that.
func (w *world) look() {
	w.forgetAgain()
	why := w.unrest()
	switch {
	case why == "":
		w.judge()
	case w.now > w.s.End+healTime:
		w.fail("rest", "the cluster is healed and does not come to rest: %s", why)
	default:
		w.push(event{at: w.now + 2*tickTime, run: w.look})
	}
}

// forgetAgain: whoever was told that a node is dead may have died before it told others.
func (w *world) forgetAgain() {
	at := w.reader()
	if at == nil {
		return
	}
	for _, n := range w.nodes {
		if r, found := at.state.Target().Record(n.id); found && n.dead && !r.Forgotten {
			at.amend(ring.Edit{Kind: ring.Forget, Node: n.id})
		}
	}
}

// reader is a node that serves.
func (w *world) reader() *node {
	for _, n := range w.nodes {
		if n.up && n.state.Serves() {
			return n
		}
	}
	return nil
}

// unrest says what keeps the cluster from being at rest.
func (w *world) unrest() string {
	at := w.reader()
	if at == nil {
		return "nobody serves"
	}
	for _, n := range w.nodes {
		if !n.up || !at.state.Serves() {
			continue
		}
		switch {
		case n.recovering && n.current.live.Member(n.id):
			return "a node is recovering"
		case !n.state.Settled() || n.state.Target().ID() != at.state.Target().ID():
			return "the ring is changing: " + n.state.String()
		case n.dropping.on:
			return "a partition is being dropped"
		}
		for target := 1; target <= maxNodes; target++ {
			if n.down[target] && w.nodes[target-1].up {
				return "a node is taken for dead"
			}
			if n.hintsFor(ring.NodeID(target)) {
				return "hints are kept"
			}
		}
	}
	for k := range w.keys {
		p := w.keys[k].partition
		owners := at.current.live.Base.Owners(p)
		first := w.node(owners[0]).rows[k][0].held
		for _, id := range owners {
			m := w.node(id)
			if m.fenced[p] || len(m.pending) > 0 {
				return "an owner is not open"
			}
			// A live record's context is not compared by anybody, a tombstone may be
			// gone from some already.
			h := m.rows[k][0].held
			if h.live != first.live || h.rec.HasLive() && h.rec.StateHash() != first.rec.StateHash() {
				return "owners differ"
			}
		}
	}
	return ""
}

// judge looks at what is left when all is at rest.
func (w *world) judge() {
	at := w.reader()
	for k := range w.keys {
		final := w.node(at.current.live.Base.Owners(w.keys[k].partition)[0]).rows[k][0].live
		covered := final
		for rest := final; rest != 0; rest &= rest - 1 {
			covered |= w.ops[bits.TrailingZeros64(rest)].past
		}
		gone := uint64(0)
		for _, o := range w.ops {
			if o.key != k || !o.minted {
				continue
			}
			if !o.write {
				covered |= o.past
			}
			if o.acked {
				gone |= o.past
			}
		}
		// What is covered covers in turn.
		for range w.ops {
			was := covered
			for rest := covered; rest != 0; rest &= rest - 1 {
				covered |= w.ops[bits.TrailingZeros64(rest)].past
			}
			if was == covered {
				break
			}
		}
		for _, o := range w.ops {
			if o.key == k && o.acked && o.write && covered&o.bit() == 0 {
				w.fail("lost", "op %d was acknowledged; in the end there is %s", o.id, w.bitsText(final))
			}
		}
		if back := final & gone; back != 0 {
			w.fail("resurrected", "in the end there is %s, which something acknowledged had seen", w.bitsText(back))
		}
	}
	w.lastReads(at)
}

// lastReads asks a healed cluster once more.
func (w *world) lastReads(at *node) {
	left := len(w.keys)
	for k := range w.keys {
		a := w.activity(ofEnd<<56 | uint64(k))
		want := w.node(at.current.live.Base.Owners(w.keys[k].partition)[0]).rows[k][0].live
		at.read(a, k, at.enter(), w.now+requestTime, func(h held, _, ok bool) {
			switch {
			case !ok:
				w.fail("refused", "a healed cluster cannot read %s", w.keys[k].name)
			case h.live != want:
				w.fail("read", "a healed cluster has %s and shows %s", w.bitsText(want), w.bitsText(h.live))
			}
			if left--; left == 0 {
				w.over = true
			}
		})
	}
}
