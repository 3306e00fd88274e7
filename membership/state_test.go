package membership

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Forming nodes, as arithmetic: messages are states taken at some earlier
// time, delivered late, twice, out of order or never, and nodes restart.
type formation struct {
	rnd    *rand.Rand
	expect []int
	nodes  []state
	heard  []map[int][16]byte // what each last heard of the others' clusters
	posted []state            // any of them may be delivered at any time
	far    float64            // share of what crosses between the two sides of the nodes
}

func newFormation(seed uint64, expect []int) *formation {
	f := &formation{rnd: rand.New(rand.NewPCG(seed, 3)), expect: expect}
	f.far = []float64{1, 0.1, 0.01}[f.rnd.IntN(3)]
	for i := range expect {
		s := state{From: ring.NodeID(i + 1), Constants: Constants{Units: 64, N: 3}}
		s.ClusterID[0], s.ClusterID[1] = byte(f.rnd.Uint32()), byte(i)
		f.nodes = append(f.nodes, s)
		f.heard = append(f.heard, map[int][16]byte{})
	}
	return f
}

func (f *formation) step() {
	i := f.rnd.IntN(len(f.nodes))
	switch roll := f.rnd.IntN(10); {
	case roll < 5 && len(f.posted) > 0:
		if in := f.posted[f.rnd.IntN(len(f.posted))]; f.near(i, int(in.From)-1) {
			f.deliver(i, in)
		}
	case roll < 7:
		f.posted = append(f.posted, f.nodes[i])
	case roll < 9:
		f.vote(i)
	default: // a restart: the state is on disk, the rest is gone
		clear(f.heard[i])
	}
}

// near reports whether a message between two nodes comes through: the first
// and the last nodes are two sides that hear little of each other, and one in
// the middle hears both.
func (f *formation) near(i, j int) bool {
	middle := len(f.nodes) / 2
	apart := (i < middle && j > middle) || (j < middle && i > middle)
	return !apart || f.rnd.Float64() < f.far
}

func (f *formation) deliver(i int, in state) {
	if in.From == f.nodes[i].From {
		return
	}
	f.heard[i][int(in.From)-1] = in.ClusterID
	next, _ := f.nodes[i].join(in)
	f.nodes[i] = next.settle(f.expect[i], atFirst)
}

func (f *formation) vote(i int) {
	s := f.nodes[i]
	agreeing := 1
	for _, id := range f.heard[i] {
		if id == s.ClusterID {
			agreeing++
		}
	}
	if !s.Established && agreeing >= f.expect[i] {
		f.nodes[i] = s.with(ring.Record{Member: ring.Member{ID: s.From, Weight: 100}, Counter: 1}).settle(f.expect[i], atFirst)
	}
}

func (f *formation) established() map[[16]byte]int {
	found := map[[16]byte]int{}
	for _, s := range f.nodes {
		if s.Established {
			found[s.ClusterID]++
		}
	}
	return found
}

func TestMajoritiesNeverEstablishTwoClusters(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	formed := 0
	for run := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(base+run, 4))
		expect := make([]int, 2+rnd.IntN(5))
		for i := range expect {
			expect[i] = len(expect)/2 + 1
			if rnd.IntN(4) == 0 {
				expect[i] += rnd.IntN(len(expect) - len(expect)/2)
			}
		}
		f := newFormation(base+run, expect)
		for range 400 {
			f.step()
			if found := f.established(); len(found) > 1 {
				t.Fatalf("seed %d: expecting %v, %d clusters: %v", base+run, expect, len(found), found)
			}
		}
		formed += len(f.established())
	}
	if formed < 300 {
		t.Errorf("seed %d: only %d of 3000 runs formed a cluster: the test shows little", base, formed)
	}
}

func TestNodesThatAllExpectAllFormOneClusterWithTheSmallestID(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	for run := range uint64(200) {
		expect := slices.Repeat([]int{2 + int(run%5)}, 2+int(run%5))
		f := newFormation(base+run, expect)
		smallest := f.nodes[0].ClusterID
		for _, s := range f.nodes {
			if slices.Compare(s.ClusterID[:], smallest[:]) < 0 {
				smallest = s.ClusterID
			}
		}
		for range 100 { // in disorder
			f.step()
		}
		for range 6 { // and then everybody hears everybody, and votes
			for i := range f.nodes {
				for _, s := range f.nodes {
					f.deliver(i, s)
				}
				f.vote(i)
			}
		}
		if found := f.established(); found[smallest] != len(expect) {
			t.Fatalf("seed %d: %d nodes ended as %v", base+run, len(expect), found)
		}
		for _, s := range f.nodes {
			if s.members() != len(expect) {
				t.Fatalf("seed %d: %d records of %d", base+run, s.members(), len(expect))
			}
		}
	}
}

func TestJoinVerdicts(t *testing.T) {
	low, high := [16]byte{1}, [16]byte{2}
	make := func(id [16]byte, established bool, members ...ring.NodeID) state {
		s := state{From: 1, Constants: Constants{ClusterID: id, Units: 64, N: 3}}
		for _, m := range members {
			s = s.with(ring.Record{Member: ring.Member{ID: m, Weight: 1}, Counter: 1})
		}
		if established {
			s = s.establish(firstLevel)
		}
		return s
	}
	for _, c := range []struct {
		name     string
		mine, in state
		want     verdict
		id       [16]byte
	}{
		{"a forming node goes to the smaller id", make(high, false), make(low, false), adopted, low},
		{"and not to the greater", make(low, false), make(high, false), ignored, low},
		{"a pledge is not taken back", make(high, false, 1), make(low, false), ignored, high},
		{"another's pledge does not bind", make(high, false, 2), make(low, false), adopted, low},
		{"established beats forming, even a pledge", make(low, false, 1), make(high, true, 2), adopted, high},
		{"and does not go to forming", make(high, true, 1), make(low, false, 2), ignored, high},
		{"established ones never merge", make(high, true, 1), make(low, true, 2), foreign, high},
		{"the same cluster joins", make(low, false, 1), make(low, false, 2), joined, low},
		{"and learns that it is established", make(low, false, 1), make(low, true, 1), joined, low},
		{"nothing new is nothing new", make(low, true, 1, 2), make(low, false, 2), same, low},
	} {
		c.in.From = 2
		if c.in.Established {
			c.in = c.in.establish(firstLevel)
		}
		got, v := c.mine.join(c.in)
		if v != c.want || got.ClusterID != c.id {
			t.Errorf("%s: verdict %d, cluster %d", c.name, v, got.ClusterID[0])
		}
	}
}

func TestJoinOfOneClusterIsALattice(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 5))
	random := func(self ring.NodeID) state {
		s := state{From: self, Constants: Constants{Units: 64, N: 3}}
		for range rnd.IntN(4) {
			id := ring.NodeID(1 + rnd.IntN(4))
			s = s.with(ring.Record{
				Member:  ring.Member{ID: id, Weight: 1 + rnd.IntN(2), Zone: fmt.Sprint(rnd.IntN(2))},
				Counter: 1 + rnd.Uint64N(3), Removed: rnd.IntN(3) == 0,
			})
			s = s.learn([]announcement{{ID: id, Stamp: rnd.Uint64N(3)}})
		}
		if rnd.IntN(2) == 0 {
			s = s.establish(firstLevel)
		}
		return s
	}
	// What each says of itself is its own business.
	alike := func(a, b state) bool {
		return a.Established == b.Established && slices.Equal(a.Records, b.Records) && slices.Equal(a.Known, b.Known)
	}
	join := func(a, b state) state { s, _ := a.join(b); return s }
	for range 2000 {
		a, b, c := random(1), random(2), random(3)
		if x, y := join(a, b), join(b, a); !alike(x, y) {
			t.Fatalf("seed %d: not commutative:\n%v %+v\n%+v\n%v %+v\n%+v", seed, x.Established, x.Records, x.Known, y.Established, y.Records, y.Known)
		}
		if x, y := join(join(a, b), c), join(a, join(b, c)); !alike(x, y) {
			t.Fatalf("seed %d: not associative:\n%v %+v\n%+v\n%v %+v\n%+v", seed, x.Established, x.Records, x.Known, y.Established, y.Records, y.Known)
		}
		if x, v := join(a, b).join(b); v != same || !alike(x, join(a, b)) {
			t.Fatalf("seed %d: not idempotent", seed)
		}
	}
}

func TestOnlyMembersAndThisNodeAreRemembered(t *testing.T) {
	s := state{From: 1, Constants: Constants{Units: 64, N: 3}}.establish(firstLevel)
	s = s.with(ring.Record{Member: ring.Member{ID: 2, Weight: 1}, Counter: 1})
	s = s.learn([]announcement{{ID: 1, Stamp: 1}, {ID: 2, Stamp: 5, Zone: "new"}, {ID: 3, Stamp: 1}})
	s = s.learn([]announcement{{ID: 2, Stamp: 4, Zone: "old"}})
	if a, _ := s.announced(2); a.Zone != "new" {
		t.Errorf("an older announcement won: %+v", a)
	}
	if _, found := s.announced(3); found || len(s.Known) != 2 {
		t.Errorf("remembered: %+v", s.Known)
	}
}

// atFirst has every cluster begin at the first level.
func atFirst(state) uint16 { return firstLevel }
