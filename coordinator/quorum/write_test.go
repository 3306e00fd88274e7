package quorum

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// ledger is the slow model of a write: every message with its outcome.
type ledger struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	m      Write
	need   int
	self   ring.Stand
	owners []ring.NodeID
	live   []ring.NodeID // fallbacks
	out    []Send
	acked  []Send
	dead   []Send
	busy   []Send
}

func newLedger(t *testing.T, seed uint64) *ledger {
	rng := rand.New(rand.NewPCG(seed, 2))
	n := 1 + rng.IntN(5)
	l := &ledger{t: t, seed: seed, rng: rng}
	for i := range rng.IntN(5) {
		l.live = append(l.live, ring.NodeID(100+i))
	}
	var walk []ring.Stand
	next := 0
	for i := range n {
		o := ring.NodeID(i + 1)
		l.owners = append(l.owners, o)
		switch {
		case rng.IntN(4) > 0:
			walk = append(walk, ring.Stand{Node: o})
		case next < len(l.live):
			walk = append(walk, ring.Stand{Node: l.live[next], For: o})
			next++
		}
	}
	if len(walk) == 0 || rng.IntN(10) == 0 {
		l.self = ring.Stand{Node: 999, For: l.owners[0]} // a coordinator that is in no walk
	} else {
		l.self = walk[rng.IntN(len(walk))]
	}
	l.need = 1 + rng.IntN(n)
	l.m.Reset(l.need, l.self, walk, l.owners)
	l.out = []Send{{Index: Local, Stand: l.self}}
	return l
}

func (l *ledger) pull() {
	for {
		if s, ok := l.m.Next(); ok {
			l.out = append(l.out, s)
			continue
		}
		if !l.m.NeedsSpares() {
			return
		}
		l.m.Spares(l.live)
	}
}

// kept reports whether a message is a hint on the coordinator itself.
func (l *ledger) kept(s Send) bool { return s.Index != Local && s.Stand.Node == l.self.Node }

// nodes counts the distinct nodes that stored the record for W.
func (l *ledger) nodes() int {
	seen := map[ring.NodeID]bool{}
	for _, s := range l.acked {
		if !l.kept(s) {
			seen[s.Stand.Node] = true
		}
	}
	return len(seen)
}

// best is the most nodes that could store it if all went well from now on,
// found by trying that on a copy.
func (l *ledger) best() int {
	c := *l
	c.m.targets, c.m.spares, c.m.orphans = slices.Clone(l.m.targets), slices.Clone(l.m.spares), slices.Clone(l.m.orphans)
	c.out, c.acked = slices.Clone(l.out), slices.Clone(l.acked)
	for c.pull(); len(c.out) > 0; c.pull() {
		s := c.out[0]
		c.out = c.out[1:]
		c.m.Ack(s.Index)
		c.acked = append(c.acked, s)
	}
	return c.nodes()
}

func (l *ledger) settle(deadRate, busyRate int) {
	i := l.rng.IntN(len(l.out))
	s := l.out[i]
	l.out = slices.Delete(l.out, i, i+1)
	switch die := l.rng.IntN(100); {
	case die < deadRate:
		l.m.Fail(s.Index, Dead)
		l.dead = append(l.dead, s)
	case die < deadRate+busyRate && s.Index != Local:
		l.m.Fail(s.Index, Refused)
		l.busy = append(l.busy, s)
	default:
		l.m.Ack(s.Index)
		l.acked = append(l.acked, s)
	}
}

func (l *ledger) checkVerdict() {
	want := Pending
	switch {
	case l.nodes() >= l.need:
		want = Met
	case l.best() < l.need:
		want = Impossible
	}
	if got := l.m.Verdict(); got != want {
		l.t.Fatalf("seed %d: verdict %v, want %v: acked %d best %d need %d", l.seed, got, want, l.nodes(), l.best(), l.need)
	}
	if l.m.Acked() != l.nodes() {
		l.t.Fatalf("seed %d: acked %d, distinct nodes are %d", l.seed, l.m.Acked(), l.nodes())
	}
}

// checkOwner looks at one owner after everything has ended: it has the record,
// or refused it, or exactly one other holds a hint, unless all who could failed.
func (l *ledger) checkOwner(o ring.NodeID) {
	has := func(sends []Send, match func(Send) bool) int {
		n := 0
		for _, s := range sends {
			if match(s) {
				n++
			}
		}
		return n
	}
	own := func(s Send) bool { return s.Stand.Node == o && s.Stand.For == 0 }
	hint := func(s Send) bool { return s.Stand.For == o }
	hints := has(l.acked, hint)
	stranger := l.self.Node == 999 && l.self.For == o // its own copy is a hint, besides
	if hints > 1 && !stranger {
		l.t.Fatalf("seed %d: owner %d has %d hints", l.seed, o, hints)
	}
	all := slices.Concat(l.acked, l.dead, l.busy)
	if (has(l.acked, own) > 0 || has(l.busy, own) > 0) && has(all, hint) > 0 && l.self.For != o {
		l.t.Fatalf("seed %d: owner %d is alive, yet a hint was sent for it", l.seed, o)
	}
	if hints > 0 || has(l.acked, own) > 0 || has(l.busy, own) > 0 {
		return
	}
	// Nothing holds it: then every fallback was used, and the coordinator could
	// not keep it either.
	used := map[ring.NodeID]bool{}
	for _, s := range all {
		used[s.Stand.Node] = true
	}
	for _, n := range l.live {
		if !used[n] {
			l.t.Fatalf("seed %d: owner %d is without hint although %d is free", l.seed, o, n)
		}
	}
	localLost := slices.ContainsFunc(l.dead, func(s Send) bool { return s.Index == Local })
	triedSelf := slices.ContainsFunc(all, func(s Send) bool { return l.kept(s) && s.Stand.For == o })
	if !localLost && !triedSelf {
		l.t.Fatalf("seed %d: the coordinator did not keep the hint for owner %d", l.seed, o)
	}
}

func TestWriteCountsDistinctNodesAndHintsEachDeadOwnerOnce(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	for seed := base; seed < base+20000; seed++ {
		l := newLedger(t, seed)
		deadRate, busyRate := l.rng.IntN(70), l.rng.IntN(30)
		l.pull()
		l.checkVerdict()
		for len(l.out) > 0 {
			if !l.m.Open() {
				t.Fatalf("seed %d: closed with messages out", seed)
			}
			l.settle(deadRate, busyRate)
			l.pull()
			l.checkVerdict()
		}
		if l.m.Open() {
			t.Fatalf("seed %d: open with nothing out", seed)
		}
		for _, o := range l.owners {
			l.checkOwner(o)
		}
	}
}

func TestKeptHintDoesNotCountTowardsW(t *testing.T) {
	var m Write
	m.Reset(2, ring.Stand{Node: 1}, []ring.Stand{{Node: 1}, {Node: 2}}, []ring.NodeID{1, 2, 3})
	peer, _ := m.Next()
	m.Spares(nil)
	kept, ok := m.Next()
	if !ok || kept.Stand != (ring.Stand{Node: 1, For: 3}) {
		t.Fatalf("hint for the dead owner went to %+v", kept)
	}
	m.Ack(Local)
	m.Ack(kept.Index)
	if m.Verdict() != Pending {
		t.Fatal("two rows on one node were counted as two nodes")
	}
	m.Fail(peer.Index, Refused)
	if m.Verdict() != Impossible || m.Acked() != 1 {
		t.Fatalf("verdict %v acked %d", m.Verdict(), m.Acked())
	}
}
