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
	shed   []Send
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
			l.checkOptional(s)
			l.out = append(l.out, s)
			continue
		}
		if !l.m.NeedsSpares() {
			return
		}
		l.m.Spares(l.live)
	}
}

// owners counts the owners that have the record, or may still get it.
func (l *ledger) liveOwners() int {
	n := 0
	for _, s := range slices.Concat(l.acked, l.out) {
		if s.Stand.For == 0 {
			n++
		}
	}
	return n
}

// checkOptional looks at a message that is sent now: a hint is optional when the
// owners can do without it. The walk is sent as a whole, so an owner whose
// message comes later counts too.
func (l *ledger) checkOptional(s Send) {
	if s.Stand.For == 0 && s.Optional {
		l.t.Fatalf("seed %d: a copy for the owner %d itself is optional", l.seed, s.Stand.Node)
	}
	if s.Stand.For == 0 || l.kept(s) {
		return
	}
	owners := l.liveOwners()
	for i := s.Index; i < len(l.m.targets); i++ {
		if l.m.targets[i].stand.For == 0 {
			owners++
		}
	}
	if s.Optional != (owners >= l.need) {
		l.t.Fatalf("seed %d: optional %v with %d owners for W=%d", l.seed, s.Optional, owners, l.need)
	}
}

// checkShed looks at a write of which hints were refused, when all has ended:
// the owners must have been enough, or each refused hint was asked for again.
func (l *ledger) checkShed() {
	again := 0
	for _, s := range slices.Concat(l.acked, l.dead, l.busy) {
		if slices.ContainsFunc(l.shed, func(o Send) bool { return o.Stand == s.Stand && o.Index < s.Index && !l.kept(o) }) {
			again++
		}
	}
	asked := 0
	for _, s := range l.shed {
		if !l.kept(s) {
			asked++
		}
	}
	if l.nodes() < l.need && again < asked {
		l.t.Fatalf("seed %d: W=%d is not met, and of %d refused hints only %d were asked for again", l.seed, l.need, asked, again)
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
	c.m.shed = slices.Clone(l.m.shed)
	c.out, c.acked = slices.Clone(l.out), slices.Clone(l.acked)
	for c.pull(); len(c.out) > 0; c.pull() {
		s := c.out[0]
		c.out = c.out[1:]
		c.m.Ack(s.Index)
		c.acked = append(c.acked, s)
	}
	return c.nodes()
}

func (l *ledger) settle(deadRate, busyRate, shedRate int) {
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
	case s.Optional && die < deadRate+busyRate+shedRate:
		l.m.Fail(s.Index, OverBudget)
		l.shed = append(l.shed, s)
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
	if has(l.shed, hint) > 0 {
		l.checkShed()
		return
	}
	hints := has(l.acked, hint)
	stranger := l.self.Node == 999 && l.self.For == o // its own copy is a hint, besides
	if hints > 1 && !stranger {
		l.t.Fatalf("seed %d: owner %d has %d hints", l.seed, o, hints)
	}
	all := slices.Concat(l.acked, l.dead, l.busy, l.shed)
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
		deadRate, busyRate, shedRate := l.rng.IntN(70), l.rng.IntN(30), l.rng.IntN(2)*l.rng.IntN(100)
		l.pull()
		l.checkVerdict()
		for len(l.out) > 0 {
			if !l.m.Open() {
				t.Fatalf("seed %d: closed with messages out", seed)
			}
			l.settle(deadRate, busyRate, shedRate)
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

func TestARefusedHintIsAskedForAgainOnceItIsNeeded(t *testing.T) {
	// Owner 3 is dead and 9 stands in; W=2 can be met by the owners 1 and 2.
	walk := []ring.Stand{{Node: 1}, {Node: 2}, {Node: 9, For: 3}}
	var m Write
	m.Reset(2, walk[0], walk, []ring.NodeID{1, 2, 3})
	owner, _ := m.Next()
	hint, _ := m.Next()
	if owner.Optional || !hint.Optional || hint.Stand != walk[2] {
		t.Fatalf("sent %+v and %+v: want the hint alone to be optional", owner, hint)
	}
	m.Fail(hint.Index, OverBudget)
	m.Spares([]ring.NodeID{8, 9})
	if s, ok := m.Next(); ok {
		t.Fatalf("%+v was sent for a hint that is not needed", s)
	}
	m.Ack(Local)
	m.Fail(owner.Index, Dead)
	stand, _ := m.Next() // for owner 2
	again, ok := m.Next()
	if !ok || again.Optional || again.Stand != walk[2] || stand.Optional || stand.Stand != (ring.Stand{Node: 8, For: 2}) {
		t.Fatalf("with owner 2 dead %+v and %+v are sent", stand, again)
	}
	m.Fail(stand.Index, Dead)
	if m.Verdict() != Pending {
		t.Fatalf("verdict %v while the hint is on its way", m.Verdict())
	}
	m.Ack(again.Index)
	if m.Verdict() != Met || m.Acked() != 2 {
		t.Fatalf("verdict %v acked %d", m.Verdict(), m.Acked())
	}
}

func TestARefusedHintCountsForNothing(t *testing.T) {
	walk := []ring.Stand{{Node: 1}, {Node: 2}, {Node: 9, For: 3}}
	var m Write
	m.Reset(2, walk[0], walk, []ring.NodeID{1, 2, 3})
	m.Next()
	hint, _ := m.Next()
	m.Ack(Local)
	m.Fail(hint.Index, OverBudget)
	if m.Verdict() != Pending || m.Acked() != 1 {
		t.Fatalf("verdict %v acked %d: a refusal was counted", m.Verdict(), m.Acked())
	}
}
