package epoch

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// The model runs the kernels of a whole cluster under one seeded loop. Messages
// are lost, repeated and reordered; nodes crash, join, leave, are replaced and
// forgotten, and come back; administrators act on both sides of a split. Beside
// the kernels runs a data plane of one key per partition, whose versions are
// bits: writes to all sets with hints for owners that are down, reads from R
// owners of the base, delivery of hints, transfers in offers, sends and confirms.

const (
	modelUnits = 8
	modelN     = 3
	modelW     = 2
	modelR     = 2
	modelNodes = 24 // founders are the first five
)

// breach says what a schedule broke.
type breach string

// set is a set of versions.
type set []uint64

func (b set) has(v int) bool { return v/64 < len(b) && b[v/64]>>(v%64)&1 == 1 }

func (b *set) add(c set) {
	for len(*b) < len(c) {
		*b = append(*b, 0)
	}
	for i, w := range c {
		(*b)[i] |= w
	}
}

func bit(v int) set {
	b := make(set, v/64+1)
	b[v/64] = 1 << (v % 64)
	return b
}

// less is b without c.
func (b set) less(c set) set {
	out := slices.Clone(b)
	for i := range min(len(b), len(c)) {
		out[i] &^= c[i]
	}
	return out
}

func (b set) empty() bool { return !slices.ContainsFunc(b, func(w uint64) bool { return w != 0 }) }

func (b set) each(f func(v int)) {
	for i, w := range b {
		for k := range 64 {
			if w>>k&1 == 1 {
				f(i*64 + k)
			}
		}
	}
}

type hintKey struct {
	partition int
	owner     ring.NodeID
}

// node is one node: its kernel, its disk, and the requests it runs.
type node struct {
	id    ring.NodeID
	up    bool
	born  bool
	lazy  bool // hands over slowly
	out   bool // left, and stopped for good
	state State
	view  *View
	disk  State // what a crash leaves of state
	data  [modelUnits]set
	hints map[hintKey]set
	ops   []*op // running requests
	sent  map[offer]bool
	goal  ID // of the transfer that sent belongs to
	done  ID // transfer that is complete
}

type offer struct {
	partition int
	holder    ring.NodeID
	to        ring.NodeID
}

// op is a read or a write under way.
type op struct {
	node      *node
	view      *View
	read      bool
	partition int
	version   int
	sets      []*ring.Ring
	acks      []ring.Stand
	want      set // read: what must be seen
	seen      set
	replies   []ring.NodeID
	slow      bool // its messages take as long as whole transitions
	over      bool
}

// message is one on its way; run delivers it.
type message struct {
	from, to *node
	due      int // not before this step
	run      func()
}

type world struct {
	rnd   *rand.Rand
	m     *mutant
	nodes []*node
	mail  []message
	rings map[string]*ring.Ring
	split []bool        // side of each node; nil: no split
	shy   *node         // its gossip is late
	dead  []ring.NodeID // that an administrator wanted forgotten

	acked, given [modelUnits]set
	next         [modelUnits]int
	bases        map[ID]*Epoch
	digests      map[ID]uint64
	counts       counts
	gentle       bool // little is lost and nearly nothing fails, so that transitions are quick
	calm         bool // no more trouble: the cluster must come to rest
	broken       breach
	void         bool // administrators left nobody who stores anything
}

type counts struct{ steps, reads, writes, flips, admin, forgets, given, stale, crashes, relayed, left int }

func nodeID(i int) ring.NodeID { return ring.NodeID(1 + i) }

func newWorld(seed uint64, m *mutant) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 7)), m: m, rings: map[string]*ring.Ring{}, bases: map[ID]*Epoch{}, digests: map[ID]uint64{}}
	w.gentle = seed%4 != 0
	var founders []ring.Record
	for i := range 5 {
		founders = append(founders, w.record(i, 1))
	}
	for i := range modelNodes {
		n := &node{id: nodeID(i), hints: map[hintKey]set{}}
		w.nodes = append(w.nodes, n)
		if i < 5 {
			n.born, n.up = true, true
			n.lazy = w.rnd.IntN(3) == 0
			n.state = New(n.id, founders)
			w.show(n, n.state)
		} else {
			n.state = New(n.id, nil)
		}
	}
	return w
}

func (w *world) record(i int, counter uint64) ring.Record {
	return ring.Record{
		Member:  ring.Member{ID: nodeID(i), Zone: fmt.Sprint(i % 2), Weight: 1 + w.rnd.IntN(2)},
		Counter: counter, TimeMS: int64(w.rnd.IntN(3)), Admin: nodeID(i),
	}
}

func (w *world) build(ms []ring.Member) (*ring.Ring, error) {
	key := fmt.Sprint(ms)
	if r := w.rings[key]; r != nil {
		return r, nil
	}
	r, err := ring.New(ring.Params{Units: modelUnits, N: modelN}, ms)
	w.rings[key] = r
	return r, err
}

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = breach(fmt.Sprintf(format, args...))
	}
}

// show saves a state and then lets everybody see it.
func (w *world) show(n *node, next State) {
	if n.view != nil && next.Equal(n.state) && next.number == n.state.number && next.granted == n.state.granted {
		n.state = next
		return
	}
	if !w.m.saveLate || n.view == nil || w.rnd.IntN(3) == 0 {
		n.disk = next
	}
	old := n.view
	n.state = next
	v, err := next.View(w.build)
	if err != nil {
		panic(err)
	}
	n.view = v
	w.void = w.void || v.Target().N() == 0
	w.checkBase(n)
	if old != nil && old.Stamp.Base != v.Stamp.Base {
		w.counts.flips++
	}
}

// checkBase: bases are a chain, equal records make equal rings.
func (w *world) checkBase(n *node) {
	b := n.state.Base()
	if _, known := w.bases[b.id]; !known {
		for _, c := range w.bases {
			if !c.beneath(b) && !b.beneath(c) {
				w.fail("bases are no chain: node %v reads from %v beside %v", n.id, b.id, c.id)
			}
		}
		w.bases[b.id] = b
	}
	for _, e := range n.state.live {
		if d, known := w.digests[e.id]; known && d != e.ring.Epoch() {
			w.fail("equal records, different rings")
		}
		w.digests[e.id] = e.ring.Epoch()
	}
	if len(n.state.live) > MaxLive {
		w.fail("node %v has %d live epochs", n.id, len(n.state.live))
	}
}

// drained is the first view that a running request of the node uses.
func (n *node) drained() uint64 {
	at := n.view.Number
	for _, o := range n.ops {
		at = min(at, o.view.Number)
	}
	return at
}

func (w *world) advance(n *node) {
	l := Local{Drained: n.drained(), Sent: n.done}
	w.show(n, w.m.advance(w, n, n.state.Advance(l)))
	if n.view.Settled && n.state.Tracker(n.id).Read == n.state.Target().id {
		for p := range n.data {
			if !n.view.Holds(p) {
				n.data[p] = nil
			}
		}
	}
}

func (w *world) apart(a, b *node) bool {
	return w.split != nil && w.split[a.id-1] != w.split[b.id-1]
}

// send posts a message; it may be lost, come twice, and come late.
func (w *world) send(from, to *node, run func()) {
	for range 1 + w.rnd.IntN(10)/9 {
		if w.calm || w.gentle || w.rnd.IntN(12) > 0 {
			w.post(from, to, 0, run)
		}
	}
}

func (w *world) post(from, to *node, delay int, run func()) {
	w.mail = append(w.mail, message{from, to, w.counts.steps + delay, run})
}

// sendFor posts a message of a request.
func (w *world) sendFor(o *op, from, to *node, run func()) {
	if o.slow && !w.calm {
		w.post(from, to, w.rnd.IntN(1200), run)
		return
	}
	w.send(from, to, run)
}

func (w *world) deliver() {
	if len(w.mail) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.mail))
	m := w.mail[i]
	if m.due > w.counts.steps {
		return
	}
	last := len(w.mail) - 1
	w.mail[i], w.mail[last] = w.mail[last], message{}
	w.mail = w.mail[:last]
	if m.to.up && !w.apart(m.from, m.to) {
		m.run()
	}
}

func (w *world) gossip(from, to *node) {
	in := from.state
	if !w.calm && (from == w.shy || to == w.shy) {
		w.post(from, to, w.rnd.IntN(2000), func() { w.merge(to, in) })
		return
	}
	w.send(from, to, func() { w.merge(to, in) })
}

func (w *world) merge(n *node, in State) {
	w.show(n, n.state.Merge(in))
	w.advance(n)
}

// stale: the receiver refuses, and answers with its state.
func (w *world) stale(to *node, o *op) bool {
	v := to.view
	if w.m.trustLeavers {
		known := *v
		known.below, v = nil, &known
	}
	if w.m.noStale || !v.Stale(o.node.id, o.view.Stamp, o.read) {
		return false
	}
	w.counts.stale++
	w.gossip(to, o.node)
	return true
}

func (w *world) startWrite(n *node, p int) {
	v := n.view
	if !(v.Coordinate || w.m.eager && n.state.Target().member(n.id) && v.Read().N() > 0) {
		return
	}
	o := &op{node: n, view: v, partition: p, version: w.next[p], sets: w.m.sets(v, p), slow: w.rnd.IntN(2) == 0}
	w.next[p]++
	n.ops = append(n.ops, o)
	var told []ring.Stand
	for _, r := range o.sets {
		for _, st := range r.Walk(nil, p, func(id ring.NodeID) bool { return w.at(id).up && w.rnd.IntN(15) > 0 }) {
			if slices.Contains(told, st) {
				continue
			}
			told = append(told, st)
			to := w.at(st.Node)
			w.sendFor(o, n, to, func() { w.store(to, o, st) })
		}
	}
}

func (w *world) at(id ring.NodeID) *node { return w.nodes[id-1] }

func (w *world) store(to *node, o *op, st ring.Stand) {
	if w.stale(to, o) {
		return
	}
	b := bit(o.version)
	if st.For == 0 {
		to.data[o.partition].add(b)
	} else {
		to.hint(hintKey{o.partition, st.For}, b)
	}
	w.sendFor(o, to, o.node, func() { w.stored(o, st) })
}

func (n *node) hint(k hintKey, b set) {
	h := n.hints[k]
	h.add(b)
	n.hints[k] = h
}

func (w *world) stored(o *op, st ring.Stand) {
	if o.over || slices.Contains(o.acks, st) {
		return
	}
	o.acks = append(o.acks, st)
	for _, r := range o.sets {
		if tally(r.Owners(o.partition), o.acks) < min(modelW, r.N()) {
			return
		}
	}
	if len(o.sets) == 0 {
		return
	}
	w.acked[o.partition].add(bit(o.version))
	if w.restsOnTheDead(o.acks) {
		w.giveUp(o.partition, bit(o.version))
	}
	w.counts.writes++
	w.end(o)
}

// tally counts the distinct nodes that stored for distinct owners of a set.
func tally(owners []ring.NodeID, acks []ring.Stand) int {
	var nodes []ring.NodeID
	for _, owner := range owners {
		for _, st := range acks {
			if (st.For == owner || st.For == 0 && st.Node == owner) && !slices.Contains(nodes, st.Node) {
				nodes = append(nodes, st.Node)
				break
			}
		}
	}
	return len(nodes)
}

func (w *world) end(o *op) {
	o.over = true
	o.node.ops = slices.DeleteFunc(o.node.ops, func(x *op) bool { return x == o })
	w.advance(o.node)
}

func (w *world) startRead(n *node, p int) {
	v := n.view
	if !(v.Coordinate || v.Relay || w.m.eager && n.state.Target().member(n.id) && v.Read().N() > 0) {
		return
	}
	o := &op{node: n, view: v, read: true, partition: p, want: slices.Clone(w.acked[p]), slow: w.rnd.IntN(2) == 0}
	n.ops = append(n.ops, o)
	for _, owner := range v.Read().Owners(p) {
		to := w.at(owner)
		w.sendFor(o, n, to, func() { w.answer(to, o) })
	}
}

// answer is what a node has, with the hints that others keep for it: a sloppy
// quorum promises that they get there, not when.
func (w *world) answer(to *node, o *op) {
	if w.stale(to, o) {
		return
	}
	got := w.copyOf(to.id, o.partition)
	w.sendFor(o, to, o.node, func() { w.answered(o, to.id, got) })
}

func (w *world) copyOf(owner ring.NodeID, p int) set {
	got := slices.Clone(w.at(owner).data[p])
	for _, n := range w.nodes {
		got.add(n.hints[hintKey{p, owner}])
	}
	return got
}

func (w *world) answered(o *op, from ring.NodeID, got set) {
	if o.over || slices.Contains(o.replies, from) {
		return
	}
	o.replies = append(o.replies, from)
	o.seen.add(got)
	if len(o.replies) < min(modelR, o.view.Read().N()) {
		return
	}
	w.counts.reads++
	if !o.view.Coordinate {
		w.counts.relayed++
	}
	if lost := o.want.less(o.seen).less(w.given[o.partition]); !lost.empty() {
		w.fail("node %v read partition %d at %v and missed versions %v", o.node.id, o.partition, o.view.Stamp.Base, lost)
	}
	w.end(o)
}

// transfer makes some offers of the transfer that the node owes.
func (w *world) transfer(n *node) {
	goal := w.m.transfer(n)
	if goal == (ID{}) {
		return
	}
	if n.goal != goal {
		n.goal, n.sent = goal, map[offer]bool{}
	}
	var open []offer
	want := func(p int, holder ring.NodeID) {
		for _, to := range w.m.recipients(n.view, p, holder) {
			if o := (offer{p, holder, to}); !n.sent[o] {
				open = append(open, o)
			}
		}
	}
	for p := range modelUnits {
		if !n.data[p].empty() {
			want(p, n.id)
		}
	}
	for k := range n.hints {
		want(k.partition, k.owner)
	}
	if len(open) == 0 {
		n.done = goal
		w.advance(n)
		return
	}
	slices.SortFunc(open, func(a, b offer) int {
		return cmpAll(int(a.partition), b.partition, int(a.holder), int(b.holder), int(a.to), int(b.to))
	})
	for _, k := range w.rnd.Perm(len(open))[:min(len(open), 12)] {
		w.offer(n, open[k], goal)
	}
}

func cmpAll(pairs ...int) int {
	for i := 0; i < len(pairs); i += 2 {
		if d := pairs[i] - pairs[i+1]; d != 0 {
			return d
		}
	}
	return 0
}

// offer runs the round of Dynamo §4.9: the digest, SKIP or SEND, the rows,
// CONFIRM. Each message may be lost; the next call begins anew.
func (w *world) offer(n *node, o offer, goal ID) {
	rows := func() set {
		if o.holder == n.id {
			return slices.Clone(n.data[o.partition])
		}
		return slices.Clone(n.hints[hintKey{o.partition, o.holder}])
	}
	confirmed := func() {
		if n.goal == goal {
			n.sent[o] = true
		}
	}
	to := w.at(o.to)
	root := rows()
	w.send(n, to, func() {
		if root.less(to.data[o.partition]).empty() {
			w.send(to, n, confirmed) // SKIP: it has all of this
			return
		}
		w.send(to, n, func() { // SEND
			body := rows()
			w.send(n, to, func() {
				to.data[o.partition].add(body)
				w.send(to, n, confirmed)
			})
		})
	})
}

// handoff delivers one hint, or moves one whose owner is none.
func (w *world) handoff(n *node) {
	for _, k := range n.hintKeys() {
		row := slices.Clone(n.hints[k])
		if !n.view.Target().Owns(k.owner, k.partition) && n.view.Settled {
			for _, owner := range n.view.Target().Owners(k.partition) {
				if owner == n.id {
					n.data[k.partition].add(row)
				} else {
					n.hint(hintKey{k.partition, owner}, row)
				}
			}
			delete(n.hints, k)
			if !w.calm {
				return
			}
			continue
		}
		to := w.at(k.owner)
		if !to.up || w.rnd.IntN(2) == 0 {
			continue
		}
		w.sendFor(&op{slow: w.rnd.IntN(2) == 0}, n, to, func() {
			to.data[k.partition].add(row)
			w.send(to, n, func() {
				if !w.m.dropHints && !n.view.MayDropHint(k.partition, k.owner) {
					return
				}
				if left := n.hints[k].less(row); left.empty() {
					delete(n.hints, k)
				} else {
					n.hints[k] = left
				}
			})
		})
		if !w.calm {
			return
		}
	}
}

func (n *node) hintKeys() []hintKey {
	var keys []hintKey
	for k := range n.hints {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b hintKey) int {
		return cmpAll(a.partition, b.partition, int(a.owner), int(b.owner))
	})
	return keys
}

func (w *world) crash(n *node) {
	w.counts.crashes++
	n.up = false
	for _, o := range n.ops {
		o.over = true
	}
	n.ops = nil
	n.sent, n.goal, n.done = nil, ID{}, ID{}
}

// restart reads the state back from its bytes, as the disk has them.
func (w *world) restart(n *node) {
	s, err := Decode(n.disk.Append(nil))
	if err != nil || !s.Equal(n.disk) {
		w.fail("node %v: the state does not survive its encoding: %v", n.id, err)
		return
	}
	n.up, n.view = true, nil
	for i := range s.live {
		s.live[i].ring = n.disk.live[i].ring
	}
	w.show(n, s)
	w.advance(n)
}
