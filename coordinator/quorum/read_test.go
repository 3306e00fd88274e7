package quorum

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// history draws what n replicas hold of one key after some writes, deletes and
// partial replication.
func history(rng *rand.Rand, n int) []version.Record {
	held := make([]version.Record, n)
	counters := make([]uint64, n)
	for range rng.IntN(8) {
		i := rng.IntN(n)
		switch rng.IntN(5) {
		case 0:
			held[i] = held[i].Delete(held[i].Context)
		case 1, 2:
			counters[i]++
			held[i] = held[i].Put(version.Write{
				Dot: version.Dot{Actor: version.Actor(i + 1), Counter: counters[i]}, HLC: held[i].MaxHLC().Next(),
				Value: fmt.Appendf(nil, "%d.%d", i, counters[i]), Cover: held[i].Context,
			})
		default:
			j := rng.IntN(n)
			held[j] = version.Merge(held[j], held[i])
		}
	}
	return held
}

// bench is a read with the nodes it asks. Node k+1 holds held[k].
type bench struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	m      Read
	need   int
	held   []version.Record
	spares []ring.NodeID
	out    []Ask
	whole  map[ring.NodeID]bool
	hashes map[ring.NodeID]uint64
	failed map[ring.NodeID]bool
	asked  map[ring.NodeID]bool
	hedged int

	recovering map[ring.NodeID]bool // nodes that answer without counting
	doubted    map[ring.NodeID]bool // of those, the ones that did
}

func (b *bench) record(n ring.NodeID) version.Record { return b.held[n-1] }

// deliver gives the machine the true answer of the node asked.
func (b *bench) deliver(a Ask) {
	rec := b.record(a.Stand.Node)
	hash := rec.StateHash()
	switch {
	case b.recovering[a.Stand.Node]:
		b.m.Reply(a.Index, Reply{Recovering: true, Hash: hash, Record: rec})
		b.doubted[a.Stand.Node] = true
	case a.Mode == Digest:
		b.m.Reply(a.Index, Reply{Hash: hash})
		b.hashes[a.Stand.Node] = hash
	case a.Mode == IfDiffer && hash == a.Have:
		b.m.Reply(a.Index, Reply{Same: true, Hash: hash})
		b.hashes[a.Stand.Node] = hash
	default:
		b.m.Reply(a.Index, Reply{Hash: hash, Record: rec})
		b.whole[a.Stand.Node] = true
	}
}

func (b *bench) pull() {
	for {
		if a, ok := b.m.Next(); ok {
			if slices.ContainsFunc(b.out, func(o Ask) bool { return o.Stand.Node == a.Stand.Node }) {
				b.t.Fatalf("seed %d: node %d has two questions at once", b.seed, a.Stand.Node)
			}
			b.out = append(b.out, a)
			b.asked[a.Stand.Node] = true
			continue
		}
		if !b.m.NeedsSpares() {
			return
		}
		b.m.Spares(b.spares)
	}
}

// reachable says whether the read could still be met if every node answered
// from now on, by trying it on a copy.
func (b *bench) reachable() bool {
	c := *b
	c.m.cands, c.m.spares, c.m.orphans = slices.Clone(b.m.cands), slices.Clone(b.m.spares), slices.Clone(b.m.orphans)
	c.out = slices.Clone(b.out)
	c.whole, c.hashes, c.asked = map[ring.NodeID]bool{}, map[ring.NodeID]uint64{}, map[ring.NodeID]bool{}
	c.doubted = map[ring.NodeID]bool{}
	c.m.verdict = Pending
	c.pull()
	for len(c.out) > 0 {
		a := c.out[0]
		c.out = c.out[1:]
		c.deliver(a)
		c.pull()
	}
	return c.m.Verdict() == Met || c.m.Verdict() == Stale
}

func newBench(t *testing.T, seed uint64) *bench {
	rng := rand.New(rand.NewPCG(seed, 1))
	n := 1 + rng.IntN(5)
	extra := rng.IntN(3)
	b := &bench{
		t: t, seed: seed, rng: rng, need: 1 + rng.IntN(n), held: history(rng, n+2+extra),
		whole: map[ring.NodeID]bool{}, hashes: map[ring.NodeID]uint64{},
		failed: map[ring.NodeID]bool{}, asked: map[ring.NodeID]bool{},
		recovering: map[ring.NodeID]bool{}, doubted: map[ring.NodeID]bool{},
	}
	for i := range b.held {
		b.recovering[ring.NodeID(i+1)] = rng.IntN(8) == 0
	}
	var stands []ring.Stand
	fallback := ring.NodeID(n + 1)
	var late []ring.Stand
	for i := range n {
		switch owner := ring.NodeID(i + 1); {
		case rng.IntN(5) > 0:
			stands = append(stands, ring.Stand{Node: owner})
		case int(fallback) <= len(b.held):
			late = append(late, ring.Stand{Node: fallback, For: owner})
			fallback++
		}
	}
	for i := n + 1; i <= len(b.held); i++ {
		b.spares = append(b.spares, ring.NodeID(i))
	}
	var min version.Context
	if rng.IntN(4) == 0 {
		min = b.held[rng.IntN(n)].Context
	}
	b.m.Reset(b.need, min, append(stands, late...))
	return b
}

// check compares a decided read with the definition of its verdict.
func (b *bench) check() {
	switch b.m.Verdict() {
	case Pending:
		b.t.Fatalf("seed %d: undecided with nothing left to happen", b.seed)
	case Impossible:
		if b.reachable() {
			b.t.Fatalf("seed %d: given up although the quorum could still be met", b.seed)
		}
		return
	case Stale:
		if b.m.Record().Context.Covers(b.m.min) {
			b.t.Fatalf("seed %d: stale although the minimum is covered", b.seed)
		}
		return
	}
	got := b.m.Record()
	var want version.Record
	answers, mute, vouched := 0, 0, !got.Absent()
	for i := range b.held {
		n := ring.NodeID(i + 1)
		hash, hashed := b.hashes[n]
		if b.whole[n] || hashed && (hash == 0 || hash == got.StateHash()) {
			answers++
			owner := i < len(b.held)-len(b.spares)
			vouched = vouched || owner
			if !owner && b.record(n).Absent() {
				mute++
			}
			want = version.Merge(want, b.record(n))
		}
		if b.doubted[n] {
			want = version.Merge(want, b.record(n))
		}
	}
	if !vouched {
		answers -= mute
	}
	if answers < b.need {
		b.t.Fatalf("seed %d: answered with %d of %d nodes", b.seed, answers, b.need)
	}
	if got.StateHash() != want.StateHash() {
		b.t.Fatalf("seed %d: got %v, the join of the answers is %v", b.seed, got, want)
	}
	if !got.Context.Covers(b.m.min) {
		b.t.Fatalf("seed %d: answer does not cover the minimum", b.seed)
	}
	for _, s := range b.m.Repairs(nil) {
		n := s.Node
		if since := b.lacks(n, got); s.Since != since {
			b.t.Fatalf("seed %d: node %d is behind since %d, want %d", b.seed, n, s.Since, since)
		}
		if int(n) > len(b.held)-len(b.spares) {
			b.t.Fatalf("seed %d: repair of fallback %d", b.seed, n)
		}
		if b.record(n).StateHash() == got.StateHash() {
			b.t.Fatalf("seed %d: repair of node %d, which is not stale", b.seed, n)
		}
	}
}

// lacks is the clock of the oldest version of got that node n has never known,
// as far as n has told.
func (b *bench) lacks(n ring.NodeID, got version.Record) version.HLC {
	if b.hashes[n] != 0 && !b.whole[n] {
		return 0
	}
	var clocks []version.HLC
	for _, v := range got.Versions {
		if !b.record(n).Context.Contains(v.Dot) {
			clocks = append(clocks, v.HLC)
		}
	}
	if len(clocks) == 0 {
		return 0 // it has missed a delete
	}
	return slices.Min(clocks)
}

func TestReadAnswersWithTheJoinOfNeedDistinctNodes(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	verdicts := map[Verdict]int{}
	for seed := base; seed < base+20000; seed++ {
		b := newBench(t, seed)
		failRate := b.rng.IntN(60)
		b.pull()
		for len(b.out) > 0 && b.m.Verdict() == Pending {
			if b.rng.IntN(8) == 0 && b.m.Hedgeable() {
				b.m.Hedge()
				b.hedged++
				b.pull()
			}
			i := b.rng.IntN(len(b.out))
			a := b.out[i]
			b.out = slices.Delete(b.out, i, i+1)
			if b.rng.IntN(100) < failRate {
				b.m.Fail(a.Index)
				b.failed[a.Stand.Node] = true
			} else {
				b.deliver(a)
			}
			b.pull()
		}
		b.check()
		owned := len(b.m.cands) > 0 && b.m.cands[0].stand.For == 0
		if owned && len(b.failed) == 0 && len(b.doubted) == 0 && b.hedged == 0 && len(b.m.min) == 0 && len(b.asked) > b.need {
			t.Fatalf("seed %d: asked %d nodes where %d suffice", seed, len(b.asked), b.need)
		}
		verdicts[b.m.Verdict()]++
	}
	for _, v := range []Verdict{Met, Impossible, Stale} {
		if verdicts[v] < 100 {
			t.Errorf("seed %d: verdict %d only %d times: the histories are too tame", base, v, verdicts[v])
		}
	}
}

func owners(n int) []ring.Stand {
	var s []ring.Stand
	for i := range n {
		s = append(s, ring.Stand{Node: ring.NodeID(i + 1)})
	}
	return s
}

func put(actor int, counter uint64) version.Record {
	return version.Record{}.Put(version.Write{Dot: version.Dot{Actor: version.Actor(actor), Counter: counter}, HLC: 9, Value: []byte("v")})
}

func TestReadPayloadTravelsOnceWhenCopiesAgree(t *testing.T) {
	var m Read
	rec := put(1, 1)
	m.Reset(3, nil, owners(3))
	var modes []Mode
	var asks []Ask
	for a, ok := m.Next(); ok; a, ok = m.Next() {
		modes, asks = append(modes, a.Mode), append(asks, a)
	}
	if want := []Mode{Whole, Digest, Digest}; !slices.Equal(modes, want) {
		t.Fatalf("modes %v, want %v", modes, want)
	}
	m.Reply(asks[2].Index, Reply{Hash: rec.StateHash()})
	m.Reply(asks[0].Index, Reply{Hash: rec.StateHash(), Record: rec})
	m.Reply(asks[1].Index, Reply{Hash: rec.StateHash()})
	if _, more := m.Next(); more || m.Verdict() != Met {
		t.Fatalf("verdict %v, asks more: %v", m.Verdict(), more)
	}
}

func TestReadOffersTheHashItHas(t *testing.T) {
	var m Read
	rec := put(1, 1)
	m.Reset(2, nil, owners(2))
	first, _ := m.Next()
	m.Reply(first.Index, Reply{Hash: rec.StateHash(), Record: rec})
	second, ok := m.Next()
	if !ok || second.Mode != IfDiffer || second.Have != rec.StateHash() {
		t.Fatalf("second ask %+v, want IfDiffer with the hash of the first copy", second)
	}
	m.Reply(second.Index, Reply{Same: true})
	if m.Verdict() != Met {
		t.Fatalf("verdict %v", m.Verdict())
	}
}

// Node 2 has the same value as node 1 but also knows that it replaced what node
// 3 still holds; it said only "same".
func TestReadFetchesContextsOnceCopiesDiffer(t *testing.T) {
	old, now := put(3, 1), put(1, 1)
	informed := now.Delete(old.Context)
	var m Read
	m.Reset(3, nil, owners(3))
	held := []version.Record{now, informed, old}
	for a, ok := m.Next(); ok; a, ok = m.Next() {
		rec := held[a.Stand.Node-1]
		if a.Mode == IfDiffer && a.Have == rec.StateHash() {
			m.Reply(a.Index, Reply{Same: true})
			continue
		}
		m.Reply(a.Index, Reply{Hash: rec.StateHash(), Record: rec})
	}
	if m.Verdict() != Met || len(m.Record().Versions) != 1 {
		t.Fatalf("verdict %v record %v: a replaced version came back", m.Verdict(), m.Record())
	}
	if got := m.Repairs(nil); !slices.Equal(got, []Repair{{Node: 3, Since: 9}}) {
		t.Fatalf("repairs %v, want node 3", got)
	}
}

func TestReadNotFoundNeedsAllAnswers(t *testing.T) {
	var m Read
	m.Reset(2, nil, owners(2))
	a, _ := m.Next()
	m.Reply(a.Index, Reply{})
	if m.Verdict() != Pending {
		t.Fatal("one absent copy is not an answer of two")
	}
	b, _ := m.Next()
	m.Fail(b.Index)
	m.Spares(nil)
	if m.Verdict() != Impossible {
		t.Fatalf("verdict %v: a failed read was taken for not-found", m.Verdict())
	}
}

func TestHedgeAsksTheNextOwnerForItsWholeCopy(t *testing.T) {
	var m Read
	rec := put(1, 1)
	m.Reset(2, nil, owners(3))
	slow, _ := m.Next()
	quick, _ := m.Next()
	m.Reply(quick.Index, Reply{Hash: rec.StateHash()})
	if _, ok := m.Next(); ok {
		t.Fatal("asked a third node before it was time")
	}
	m.Hedge()
	third, ok := m.Next()
	if !ok || third.Mode != Whole || third.Stand.Node != 3 {
		t.Fatalf("hedge %+v %v, want node 3 whole", third, ok)
	}
	if m.Hedgeable() {
		t.Fatal("no owner is left to hedge with")
	}
	m.Reply(third.Index, Reply{Hash: rec.StateHash(), Record: rec})
	if m.Verdict() != Met {
		t.Fatalf("verdict %v", m.Verdict())
	}
	m.Reply(slow.Index, Reply{Hash: 0})
	if got := m.Repairs(nil); !slices.Equal(got, []Repair{{Node: 1, Since: 9}}) {
		t.Fatalf("repairs %v: the late empty copy is stale", got)
	}
}

func TestAHedgeReplacesTheNodeThatThenFails(t *testing.T) {
	var m Read
	m.Reset(2, nil, owners(4))
	slow, _ := m.Next()
	m.Next()
	m.Hedge()
	if third, ok := m.Next(); !ok || third.Stand.Node != 3 {
		t.Fatalf("hedge %+v %v", third, ok)
	}
	m.Fail(slow.Index)
	if more, ok := m.Next(); ok {
		t.Errorf("asked %+v although two nodes still may answer", more)
	}
}

// TestStandInsAloneCannotSayThatAKeyIsAbsent asks nodes 11, 12... in place of
// owners 1, 2...; spares are 21, 22...
func TestStandInsAloneCannotSayThatAKeyIsAbsent(t *testing.T) {
	deleted := put(1, 1)
	deleted = deleted.Delete(deleted.Context)
	stand := func(nodes ...int) (stands []ring.Stand) {
		for i, n := range nodes {
			s := ring.Stand{Node: ring.NodeID(n)}
			if n > 10 {
				s.For = ring.NodeID(i + 1)
			}
			stands = append(stands, s)
		}
		return stands
	}
	for _, c := range []struct {
		name    string
		need    int
		stands  []ring.Stand
		spares  []ring.NodeID
		held    map[ring.NodeID]version.Record
		fails   []ring.NodeID
		doubts  []ring.NodeID
		asked   []ring.NodeID
		verdict Verdict
		noOwner bool
	}{
		{name: "nobody knows", need: 2, stands: stand(11, 12, 13), asked: []ring.NodeID{11, 12, 13}, verdict: Impossible, noOwner: true},
		{name: "one is enough, and knows nothing", need: 1, stands: stand(11), asked: []ring.NodeID{11}, verdict: Impossible, noOwner: true},
		{name: "each of the walk is followed by one spare", need: 2, stands: stand(11, 12), spares: []ring.NodeID{21, 22, 23, 24},
			asked: []ring.NodeID{11, 12, 21, 22}, verdict: Impossible, noOwner: true},
		{name: "an owner says so too", need: 2, stands: stand(1, 12, 13), asked: []ring.NodeID{1, 12}, verdict: Met},
		{name: "an owner that fails says nothing", need: 2, stands: stand(1, 12, 13), fails: []ring.NodeID{1},
			asked: []ring.NodeID{1, 12, 13}, verdict: Impossible, noOwner: true},
		{name: "nor does one that is recovering", need: 2, stands: stand(1, 12, 13), doubts: []ring.NodeID{1},
			asked: []ring.NodeID{1, 12, 13}, verdict: Impossible, noOwner: true},
		{name: "one that is recovering has a record", need: 2, stands: stand(1, 12, 13), doubts: []ring.NodeID{1},
			held: map[ring.NodeID]version.Record{1: put(1, 1)}, asked: []ring.NodeID{1, 12, 13}, verdict: Met},
		{name: "one has the trace of a delete", need: 2, stands: stand(11, 12, 13), held: map[ring.NodeID]version.Record{12: deleted},
			asked: []ring.NodeID{11, 12, 12, 13}, verdict: Met},
		{name: "a spare has a value", need: 2, stands: stand(11, 12), spares: []ring.NodeID{21, 22}, held: map[ring.NodeID]version.Record{21: put(1, 1)},
			asked: []ring.NodeID{11, 12, 21, 22}, verdict: Met},
		{name: "two have values", need: 2, stands: stand(11, 12), held: map[ring.NodeID]version.Record{11: put(1, 1), 12: put(1, 1)},
			asked: []ring.NodeID{11, 12}, verdict: Met},
		{name: "nobody can be asked", need: 2, stands: stand(11, 12), fails: []ring.NodeID{11, 12}, asked: []ring.NodeID{11, 12}, verdict: Impossible},
	} {
		var m Read
		m.Reset(c.need, nil, c.stands)
		var asked []ring.NodeID
		for {
			var out []Ask
			for a, ok := m.Next(); ok; a, ok = m.Next() {
				out, asked = append(out, a), append(asked, a.Stand.Node)
			}
			if len(out) == 0 && m.NeedsSpares() {
				m.Spares(c.spares)
				continue
			}
			if len(out) == 0 {
				break
			}
			slices.Reverse(out) // the stand-ins answer before the owners
			for _, a := range out {
				rec := c.held[a.Stand.Node]
				switch {
				case slices.Contains(c.fails, a.Stand.Node):
					m.Fail(a.Index)
				case slices.Contains(c.doubts, a.Stand.Node):
					m.Reply(a.Index, Reply{Recovering: true, Hash: rec.StateHash(), Record: rec})
				case a.Mode == Digest:
					m.Reply(a.Index, Reply{Hash: rec.StateHash()})
				case a.Mode == IfDiffer && a.Have == rec.StateHash():
					m.Reply(a.Index, Reply{Same: true})
				default:
					m.Reply(a.Index, Reply{Hash: rec.StateHash(), Record: rec})
				}
			}
		}
		if m.Verdict() != c.verdict || m.NoOwner() != c.noOwner || !slices.Equal(asked, c.asked) {
			t.Errorf("%s: verdict %v (no owner: %v), asked %v; want %v (%v), asked %v", c.name, m.Verdict(), m.NoOwner(), asked, c.verdict, c.noOwner, c.asked)
		}
	}
}

// stub is a version without its payload, which is to live until 100.
func stub(rec version.Record) version.Record {
	rec = rec.SetExpiry(rec.Versions[0].Dot, version.Cell{HLC: 20, AtMS: 100})
	return rec.DropPayload(rec.Versions[0].Dot)
}

func TestReadLooksElsewhereForAPayloadThatAClockDropped(t *testing.T) {
	full := put(1, 1)
	full = full.SetExpiry(full.Versions[0].Dot, version.Cell{HLC: 20, AtMS: 100})
	hollow := stub(put(1, 1))
	for _, c := range []struct {
		name   string
		nowMS  int64
		copies []version.Record // of nodes 1, 2, 3
		asked  []ring.NodeID
		shown  bool
		repair []ring.NodeID
	}{
		{"the second has it and says only its hash", 50, []version.Record{hollow, full, full}, []ring.NodeID{1, 2, 2}, true, []ring.NodeID{1}},
		{"only the third has it", 50, []version.Record{hollow, hollow, full}, []ring.NodeID{1, 2, 2, 3}, true, []ring.NodeID{1, 2}},
		{"nobody has it", 50, []version.Record{hollow, hollow, hollow}, []ring.NodeID{1, 2, 2, 3}, false, nil},
		{"its time is over", 100, []version.Record{hollow, full, full}, []ring.NodeID{1, 2}, false, nil},
		{"the first has it", 50, []version.Record{full, hollow, hollow}, []ring.NodeID{1, 2}, true, nil},
	} {
		var m Read
		m.Reset(2, nil, owners(3))
		m.Clock(c.nowMS)
		var asked []ring.NodeID
		var out []Ask // questions without an answer yet
		for {
			for a, ok := m.Next(); ok; a, ok = m.Next() {
				out, asked = append(out, a), append(asked, a.Stand.Node)
			}
			if len(out) == 0 {
				break
			}
			a := out[0]
			out = out[1:]
			rec := c.copies[a.Stand.Node-1]
			switch {
			case a.Mode == Digest:
				m.Reply(a.Index, Reply{Hash: rec.StateHash()})
			case a.Mode == IfDiffer && a.Have == rec.StateHash():
				m.Reply(a.Index, Reply{Same: true})
			default:
				m.Reply(a.Index, Reply{Hash: rec.StateHash(), Record: rec})
			}
		}
		if m.Verdict() != Met || !slices.Equal(asked, c.asked) {
			t.Errorf("%s: verdict %v, asked %v, want %v", c.name, m.Verdict(), asked, c.asked)
		}
		if _, shown := m.Record().Winner(c.nowMS); shown != c.shown {
			t.Errorf("%s: shown %v", c.name, shown)
		}
		var repaired []ring.NodeID
		for _, r := range m.Repairs(nil) {
			repaired = append(repaired, r.Node)
		}
		if !slices.Equal(repaired, c.repair) {
			t.Errorf("%s: repairs %v, want %v", c.name, repaired, c.repair)
		}
	}
}
