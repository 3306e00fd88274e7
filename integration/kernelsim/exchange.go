package main

import (
	"slices"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// exchanging is what a node knows of its sessions (antientropy.Exchanger and ledger).
type exchanging struct {
	own      *session
	served   [maxNodes + 1]served
	sessions [maxNodes + 1][units]int64 // when the last of each began that ended well; 0: none
	wholes   [maxNodes + 1][units]int64 // of those, begun here, that compared contexts too
	waits    int64                      // until then it begins one before it serves any
	next     int64                      // turn
	turns    int
}

// served is a session that a peer began with this node.
type served struct {
	open  bool
	epoch uint64
	began int64
	heard int64
}

// lease is how long a session without a question counts as going on.
const lease = 100 * ms

// session is one exchange with one peer (antientropy.exchange).
type session struct {
	n, peer *node
	a       *activity
	live    *ring.Live // the rings that it compares the owners of
	parts   []int
	whole   bool // contexts are compared too
	began   int64
	cells   []cellRef
	differ  []int // keys
	theirs  [maxKeys]uint64
	done    func(ok bool)
}

type cellRef struct{ partition, cell int }

// exchangeTurn begins an exchange when it is time for one.
func (n *node) exchangeTurn() {
	if n.next > n.w.now || n.own != nil {
		return
	}
	if n.next == 0 { // not all at once
		n.next = n.w.now + exchangeTime*int64(n.id)/maxNodes
		return
	}
	members := n.current.live.Base.Members()
	if len(members) < 2 {
		return
	}
	n.next = n.w.now + exchangeTime
	if n.w.calm {
		n.next = n.w.now + 3*tickTime
	}
	n.turns++
	for i := range members {
		if m := members[(n.turns+i)%len(members)]; m.ID != n.id && n.isUp(m.ID) {
			n.exchange(m.ID, false, n.w.ticked(n, ofExchange, 0), nil)
			return
		}
	}
}

// serves reports whether the session of some peer but one goes on here.
func (n *node) serves(but ring.NodeID) bool {
	for i := range n.served {
		if o := &n.served[i]; o.open && ring.NodeID(i) != but && n.w.now-o.heard < lease && n.isUp(ring.NodeID(i)) {
			return true
		}
	}
	return false
}

// exchange compares with a peer what both own in the base, or, with contexts, in any
// live ring.
func (n *node) exchange(id ring.NodeID, all bool, a *activity, done func(ok bool)) {
	if n.own != nil || n.serves(0) {
		if all { // antientropy.awaitOwn
			n.waits = n.w.now + 2*tickTime
		}
		return
	}
	live := n.current.live
	if !all && len(live.Beside) > 0 {
		live = n.w.shared.live([]*ring.Ring{live.Base})
	}
	s := &session{n: n, peer: n.w.node(id), a: a, live: live, parts: sharedBy(live, n.id, id), whole: all, began: n.w.now, done: done}
	if len(s.parts) == 0 || !s.peer.up {
		return
	}
	n.own = s
	from, e := n.id, live.Epoch()
	s.ask(func(p *node, back func(func())) {
		busy := p.own != nil && !(p.own.peer == n && begins(n.id, p.id)) || p.waits > n.w.now || p.serves(from)
		if !busy {
			began := n.w.now
			if o := &p.served[from]; o.open {
				began = o.began // its end may be on the way (antientropy.ServeBegin)
			}
			p.served[from] = served{true, e, began, n.w.now}
		}
		back(func() {
			if busy {
				s.end(false)
				return
			}
			s.roots()
		})
	})
}

// begins is the rule of which of two nodes gives way (antientropy.begins).
func begins(a, b ring.NodeID) bool {
	h := uint64(a^b) * 0x9E3779B97F4A7C15
	return (a < b) == (h>>63 == 0)
}

func sharedBy(live *ring.Live, a, b ring.NodeID) (parts []int) {
	for p := range units {
		if live.Owns(a, p) && live.Owns(b, p) {
			parts = append(parts, p)
		}
	}
	return parts
}

// ask puts a question of the session; without an answer it has failed.
func (s *session) ask(serve func(p *node, back func(func()))) {
	n := s.n
	n.w.ask(s.a, n, s.peer, n.w.now+callTime, false, func(back func(func())) { serve(s.peer, back) }, func() { s.end(false) })
}

// heard notes a question about rows (antientropy.Exchanger.Heard).
func (n *node) heard(from ring.NodeID) {
	if o := &n.served[from]; o.open {
		o.heard = n.w.now
	}
}

// end is the end of the session on this side.
func (s *session) end(ok bool) {
	if s.n.own != s {
		return
	}
	s.n.own = nil
	if s.n.w.lines != nil {
		s.n.w.say("session of node %d with node %d: %v", s.n.id, s.peer.id, ok)
	}
	if ok {
		for _, p := range s.parts {
			s.n.sessions[s.peer.id][p] = s.began
			if s.whole {
				s.n.wholes[s.peer.id][p] = s.began
			}
		}
	}
	if s.done != nil {
		s.done(ok)
	}
}

// roots asks for the roots, and then descends where they differ.
func (s *session) roots() {
	s.ask(func(p *node, back func(func())) {
		var theirs [units]uint64
		for _, part := range s.parts {
			theirs[part] = p.root(part)
		}
		back(func() {
			var differing []int
			for _, part := range s.parts {
				if s.lists() || s.n.root(part) != theirs[part] {
					differing = append(differing, part)
				}
			}
			s.descend(differing)
		})
	})
}

// descend finds the cells of the partitions that differ, one partition after another.
func (s *session) descend(parts []int) {
	if len(parts) == 0 {
		if len(s.cells) == 0 {
			s.finish()
			return
		}
		s.n.w.after(s.n, settleTime, s.list)
		return
	}
	s.level(s.n.tree(parts[0]), 0, []int{0}, parts)
}

// level asks for the next hashes of a tree.
func (s *session) level(t *merkle.Tree, level int, differing, parts []int) {
	if level == t.Depth() || len(differing) == 0 {
		if s.lists() {
			differing = merkle.Filled(differing, s.n.cells[parts[0]][:])
			slices.Sort(differing)
			differing = slices.Compact(differing)
		}
		for _, leaf := range differing {
			s.cells = append(s.cells, cellRef{parts[0], leaf})
		}
		s.descend(parts[1:])
		return
	}
	next, at := t.Descend(nil, level, differing)
	s.ask(func(p *node, back func(func())) {
		hashes, err := p.tree(parts[0]).Hashes(nil, next, at)
		back(func() {
			if err == nil {
				differing, err = t.Differing(nil, next, at, hashes)
			}
			if err != nil {
				s.n.w.fail("tree", "%v", err)
				return
			}
			s.level(t, next, differing, parts)
		})
	})
}

// lists reports whether contexts are compared too.
func (s *session) lists() bool { return s.whole && !s.n.w.bugs.leavesProve }

// states lists the states of a node's own rows in some cells; it has none to tell of a
// partition that is fenced (replica.Reader).
func (n *node) states(cells []cellRef, whole bool) (states [maxKeys]uint64, ok bool) {
	for k := range n.w.keys {
		key := &n.w.keys[k]
		if !slices.Contains(cells, cellRef{key.partition, key.cell}) {
			continue
		}
		if n.fenced[key.partition] {
			return states, false
		}
		states[k] = n.rows[k][0].rec.StateHash()
		if whole && states[k] != 0 {
			states[k] = n.rows[k][0].rec.WholeHash()
		}
	}
	return states, true
}

// list compares the states of the keys in the cells that differ.
func (s *session) list() {
	s.ask(func(p *node, back func(func())) {
		p.heard(s.n.id)
		theirs, ok := p.states(s.cells, s.lists())
		back(func() {
			ours, mine := s.n.states(s.cells, s.lists())
			if !ok || !mine {
				s.end(false)
				return
			}
			for k := range s.n.w.keys {
				if ours[k] != theirs[k] {
					s.differ = append(s.differ, k)
				}
			}
			s.theirs = theirs
			s.fetch()
		})
	})
}

// fetch brings here what the peer has and merges it, before a deadline that counts from
// before the peer read it (antientropy.pull).
func (s *session) fetch() {
	ask := slices.DeleteFunc(slices.Clone(s.differ), func(k int) bool { return s.theirs[k] == 0 })
	if len(ask) == 0 {
		s.push()
		return
	}
	deadline := s.n.w.now + 2*callTime
	s.ask(func(p *node, back func(func())) {
		p.heard(s.n.id)
		var rows []carried
		for _, k := range ask {
			if p.fenced[p.w.keys[k].partition] {
				return
			}
			rows = append(rows, carried{k, p.rows[k][0].wire()})
		}
		back(func() {
			if s.n.w.now >= deadline {
				s.end(false)
				return
			}
			g := newGather(func(ok bool) {
				if !ok {
					s.end(false)
					return
				}
				s.push()
			})
			for _, r := range rows {
				s.theirs[r.key] = r.rec.WholeHash()
				s.n.mergeRow(r.key, 0, r.held, g.one())
			}
			g.settle(stored)
		})
	})
}

// push delivers what the peer does not hold as it is here (antientropy.pushOnce).
func (s *session) push() {
	var rows []carried
	for _, k := range s.differ {
		r := &s.n.rows[k][0]
		if s.n.fenced[s.n.w.keys[k].partition] {
			s.end(false)
			return
		}
		if !r.rec.Absent() && r.rec.WholeHash() != s.theirs[k] {
			rows = append(rows, carried{k, r.wire()})
		}
	}
	if len(rows) == 0 {
		s.finish()
		return
	}
	s.n.deliver(s.a, s.peer.id, rows, func(out outcome) {
		if out != stored {
			s.end(false)
			return
		}
		s.finish()
	})
}

// finish ends a session well when both sides have it on their disks
// (antientropy.session.end and ServeEnd).
func (s *session) finish() {
	g := newGather(func(ok bool) { s.end(ok) })
	own := g.one()
	if s.n.w.bugs.barrierSkipped {
		own(stored)
	} else {
		s.n.wait(func() { own(stored) })
	}
	e, n, peers := s.live.Epoch(), s.n, g.one()
	s.ask(func(p *node, back func(func())) {
		o := p.served[n.id]
		p.served[n.id].open = false
		enter := func() {
			if live := p.compared(e); o.open && o.epoch == e && live != nil {
				for _, part := range sharedBy(live, p.id, n.id) {
					p.sessions[n.id][part] = o.began
				}
			}
			back(func() { peers(stored) })
		}
		if p.w.bugs.barrierSkipped {
			enter()
			return
		}
		p.wait(enter)
	})
	g.settle(stored)
}

// compared is antientropy.compared.
func (n *node) compared(epoch uint64) *ring.Live {
	live := n.current.live
	switch epoch {
	case live.Epoch():
		return live
	case live.Base.Epoch():
		return n.w.shared.live([]*ring.Ring{live.Base})
	}
	return nil
}
