package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// event is something that happens at a moment, mostly at a node.
type event struct {
	at   int64
	seq  uint64
	node *node // nil: of the world
	boot int   // of the node; another one of it knows nothing of this
	run  func()
}

// world is a history under way.
type world struct {
	s      *Schedule
	bugs   bugs
	shared *shared
	now    int64
	seq    uint64
	heap   []event
	nodes  []*node // by id - 1
	keys   []key
	ops    []*op
	client []client

	cuts    [maxNodes + 1][maxNodes + 1]int64 // by from and to: cut until then
	broken  [maxNodes + 1][maxNodes + 1]int64 // when two nodes last were out of touch
	calm    bool                              // everything is healed
	over    bool
	failure *failure
	hash    uint64 // of all that happened
	events  int

	exact  map[fateKey]Fate
	record bool // take the fates down
	fates  []Fate
	lines  *[]string // the transcript, if wanted
}

// failure is a broken promise.
type failure struct {
	Kind, Text string
	At         int64
}

func (f *failure) String() string { return fmt.Sprintf("%s: %s (at %s)", f.Kind, f.Text, clock(f.At)) }

// shared is what the histories of one goroutine have in common: rings are computed
// once.
type shared struct {
	rings    map[string]*ring.Ring
	lives    map[*ring.Ring]*ring.Live // of settled rings
	founders [maxNodes + 1][]epoch.State
	buf      []byte
}

func newShared() *shared {
	return &shared{rings: map[string]*ring.Ring{}, lives: map[*ring.Ring]*ring.Live{}}
}

// key is one key of a history.
type key struct {
	name      string
	slot      ring.Slot
	hash      uint32
	partition int
	cell      int
}

func newKey(name string) key {
	slot, hash := ring.SlotOf([]byte(name)), ring.KeyHash([]byte(name))
	return key{name: name, slot: slot, hash: hash, partition: int(slot) * units / ring.Slots, cell: int(hash>>8) % leaves}
}

// play runs a schedule to its end.
func play(s *Schedule, b bugs, sh *shared) *world {
	w := newWorld(s, b, sh)
	w.run()
	return w
}

func newWorld(s *Schedule, b bugs, sh *shared) *world {
	w := &world{s: s, bugs: b, shared: sh, hash: s.Seed}
	w.heap = make([]event, 0, 256)
	w.client = make([]client, s.Clients)
	for k := range s.Keys {
		w.keys = append(w.keys, newKey(fmt.Sprintf("k%d", (s.Base+k*7)%(1<<16))))
	}
	if s.Exact {
		w.exact = make(map[fateKey]Fate, len(s.Fates))
		for _, f := range s.Fates {
			w.exact[fateKey{f.Cause, f.N}] = f
		}
	}
	for i := range maxNodes {
		w.nodes = append(w.nodes, &node{w: w, id: ring.NodeID(i + 1)})
	}
	for i, st := range sh.founding(s.Nodes) {
		w.nodes[i].found(st)
	}
	for i := range s.Decisions {
		d := &s.Decisions[i]
		w.push(event{at: d.At, run: func() { w.decide(d) }})
	}
	w.push(event{at: s.End, run: w.heal})
	return w
}

// founding are the states of a cluster's first nodes.
func (sh *shared) founding(n int) []epoch.State {
	if sh.founders[n] == nil {
		var records []ring.Record
		for i := range n {
			id := ring.NodeID(i + 1)
			records = append(records, ring.Record{Member: ring.Member{ID: id, Weight: 1}, Counter: 1, Admin: id})
		}
		for i := range n {
			sh.founders[n] = append(sh.founders[n], epoch.Settled(ring.NodeID(i+1), records))
		}
	}
	return sh.founders[n]
}

// build is epoch.Builder.
func (sh *shared) build(members []ring.Member) (*ring.Ring, error) {
	sh.buf = sh.buf[:0]
	for _, m := range members {
		sh.buf = append(sh.buf, byte(m.ID), byte(m.PlaceID), byte(m.Weight))
	}
	if r := sh.rings[string(sh.buf)]; r != nil {
		return r, nil
	}
	r, err := ring.New(ring.Params{Units: units, N: copies}, members)
	sh.rings[string(sh.buf)] = r
	return r, err
}

// live puts rings together as membership does for its View.
func (sh *shared) live(rings []*ring.Ring) *ring.Live {
	if len(rings) > 1 {
		return ring.NewLive(rings[0], rings[1:]...)
	}
	l := sh.lives[rings[0]]
	if l == nil {
		l = ring.NewLive(rings[0])
		sh.lives[rings[0]] = l
	}
	return l
}

func (w *world) run() {
	for len(w.heap) > 0 && w.failure == nil && !w.over {
		e := w.pop()
		w.now = e.at
		if n := e.node; n != nil {
			if n.boot != e.boot {
				continue
			}
			if n.pausedUntil > w.now {
				e.at = n.pausedUntil
				w.push(e)
				continue
			}
			w.note(uint64(n.id))
		}
		w.events++
		w.note(uint64(e.at) ^ e.seq<<40)
		e.run()
	}
}

// note makes something a part of the trace.
func (w *world) note(x uint64) {
	w.hash = (w.hash ^ x) * 0x9E3779B97F4A7C15
	w.hash ^= w.hash >> 29
}

// fail notes the first broken promise, which ends the history.
func (w *world) fail(kind, format string, args ...any) {
	if w.failure == nil {
		w.failure = &failure{kind, fmt.Sprintf(format, args...), w.now}
		w.say("BROKEN %s: %s", kind, w.failure.Text)
	}
}

// say adds a line to the transcript.
func (w *world) say(format string, args ...any) {
	if w.lines != nil {
		*w.lines = append(*w.lines, clock(w.now)+"  "+fmt.Sprintf(format, args...))
	}
}

// clock writes a time for people.
func clock(at int64) string { return fmt.Sprintf("%9.3f ms", float64(at)/float64(ms)) }

// after runs something at a node in a while, if it lives that long.
func (w *world) after(n *node, d int64, run func()) {
	w.push(event{at: w.now + d, node: n, boot: n.boot, run: run})
}

func (w *world) push(e event) {
	if e.seq == 0 {
		w.seq++
		e.seq = w.seq
	}
	h := append(w.heap, e)
	i := len(h) - 1
	for i > 0 {
		p := (i - 1) / 4
		if !before(&e, &h[p]) {
			break
		}
		h[i] = h[p]
		i = p
	}
	h[i] = e
	w.heap = h
}

func before(a, b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

func (w *world) pop() event {
	h := w.heap
	top, last := h[0], h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	i := 0
	for {
		least := -1
		for c := 4*i + 1; c <= 4*i+4 && c < len(h); c++ {
			if least < 0 || before(&h[c], &h[least]) {
				least = c
			}
		}
		if least < 0 || !before(&h[least], &last) {
			break
		}
		h[i] = h[least]
		i = least
	}
	if len(h) > 0 {
		h[i] = last
	}
	w.heap = h
	return top
}

// node returns the node with an id.
func (w *world) node(id ring.NodeID) *node { return w.nodes[id-1] }

// activity is what messages are caused by: a decision, or a node at some tick. It
// draws their fates.
type activity struct {
	cause uint64
	n     int
	rng   rand.PCG
}

// Causes that are no decision.
const (
	ofGossip uint64 = iota + 1
	ofProbe
	ofHints
	ofMove
	ofExchange
	ofReap
	ofEnd
)

// cause begins an activity of a decision.
func (w *world) cause(id int) *activity { return w.activity(uint64(id)) }

// ticked begins an activity of a node's tick.
func (w *world) ticked(n *node, of, part uint64) *activity {
	return w.activity(of<<56 | uint64(n.id)<<48 | part<<40 | uint64(w.now/tickTime))
}

func (w *world) activity(cause uint64) *activity {
	a := &activity{cause: cause}
	a.rng.Seed(w.s.Seed, cause)
	return a
}

type fateKey struct {
	cause uint64
	n     int
}

// fate draws what becomes of the next message of an activity.
func (w *world) fate(a *activity) Fate {
	a.n++
	if w.exact != nil {
		f, ok := w.exact[fateKey{a.cause, a.n}]
		if !ok {
			f.Delay = plainDelay
		}
		return f
	}
	r := a.rng.Uint64()
	take := func(n uint64) int64 {
		v := r % n
		r /= n
		return int64(v)
	}
	f := Fate{Cause: a.cause, N: a.n, Delay: ms/2 + take(uint64(3*ms))}
	if net := &w.s.Net; !w.calm {
		f.Lost = take(1000) < int64(net.Loss)
		late := take(1000) < int64(net.Late)
		if take(1000) < int64(net.Twice) {
			f.Twice = ms + take(30)*ms
		}
		if late {
			f.Delay += take(128) * ms
		}
	}
	if w.record {
		w.fates = append(w.fates, f)
	}
	return f
}

// send carries something from one node to another. A connection does not outlive the
// processes at its ends, so what it carried does not either.
func (w *world) send(a *activity, from, to *node, once bool, deliver func()) {
	f := w.fate(a)
	if f.Lost || !to.up {
		return
	}
	arrive := func() {
		if w.cuts[from.id][to.id] <= w.now {
			deliver()
		}
	}
	w.after(to, f.Delay, arrive)
	if f.Twice > 0 && !once {
		w.after(to, f.Delay+f.Twice, arrive)
	}
}

// call is a question under way.
type call struct{ ended bool }

// ask puts a question. serve runs at the other node, before the deadline or never
// (see package rpc, "The age of messages"); what it gives to back runs here. lost runs
// instead if nothing has come by the deadline: then the other may have done it. A
// question asked once is never repeated by the network, as rpc never repeats any.
func (w *world) ask(a *activity, from, to *node, deadline int64, once bool, serve func(back func(func())), lost func()) {
	c := &call{}
	back := func(then func()) {
		w.send(a, to, from, true, func() {
			if !c.ended && w.now <= deadline {
				c.ended = true
				then()
			}
		})
	}
	w.send(a, from, to, once, func() {
		if w.now < deadline {
			serve(back)
		}
	})
	w.after(from, deadline-w.now, func() {
		if !c.ended {
			c.ended = true
			from.down[to.id] = true
			lost()
		}
	})
}
