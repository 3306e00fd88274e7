package quorum

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// place is one ring as the slow model sees it.
type place struct {
	need   int
	owners []ring.NodeID
	walk   []ring.Stand
	spares []ring.NodeID
}

// newPlace draws owners among the nodes, finds some dead and has others of the
// nodes stand in for them.
func newPlace(rng *rand.Rand, nodes []ring.NodeID, dead map[ring.NodeID]bool) place {
	order := slices.Clone(nodes)
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	n := 1 + rng.IntN(4)
	p := place{need: 1 + rng.IntN(n), owners: order[:n]}
	for _, s := range order[n:] {
		if !dead[s] {
			p.spares = append(p.spares, s)
		}
	}
	next := 0
	for _, o := range p.owners {
		switch {
		case !dead[o]:
			p.walk = append(p.walk, ring.Stand{Node: o})
		case next < len(p.spares):
			p.walk = append(p.walk, ring.Stand{Node: p.spares[next], For: o})
			next++
		}
	}
	return p
}

// counts is the most copies that may be counted in a place, by brute force:
// distinct nodes among those that hold the record for an owner of it, less hints
// of the coordinator beside its own copy.
func (p place) counts(self ring.Stand, acked []Send) int {
	seen := map[ring.NodeID]bool{}
	for _, s := range acked {
		if slices.Contains(p.owners, ownerOf(s.Stand)) && (s.Stand.Node != self.Node || s.Stand == self || slices.Contains(p.walk, s.Stand)) {
			seen[s.Stand.Node] = true
		}
	}
	return len(seen)
}

// served reports whether an owner has the record, refused it, or has a hint
// somewhere.
func served(o ring.NodeID, acked, busy []Send) bool {
	return slices.ContainsFunc(acked, func(s Send) bool { return ownerOf(s.Stand) == o }) ||
		slices.ContainsFunc(busy, func(s Send) bool { return s.Stand == ring.Stand{Node: o} })
}

func TestWritesMeetEveryRingAndSayNothingTwice(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	met := 0
	for seed := base; seed < base+20000; seed++ {
		rng := rand.New(rand.NewPCG(seed, 3))
		nodes := []ring.NodeID{1, 2, 3, 4, 5, 6, 7}[:3+rng.IntN(5)]
		nodes = append(nodes, 10, 11, 12, 13)
		dead := map[ring.NodeID]bool{}
		for _, n := range nodes {
			dead[n] = rng.IntN(4) == 0
		}
		var places []place
		for range 1 + rng.IntN(3) {
			places = append(places, newPlace(rng, nodes, dead))
		}
		if len(places[0].walk) == 0 {
			continue
		}
		self := places[0].walk[rng.IntN(len(places[0].walk))]
		var w Writes
		w.Reset(places[0].need, self, places[0].walk, places[0].owners)
		for _, p := range places[1:] {
			w.Beside(p.need, p.walk, p.owners)
		}
		out, acked, busy := []Send{{Index: Local, Stand: self}}, []Send(nil), []Send(nil)
		said := map[Send]bool{}
		pull := func() {
			for {
				if s, ok := w.Next(); ok {
					out = append(out, s)
					s.Index = 0
					if said[s] {
						t.Fatalf("seed %d: %+v was sent twice", seed, s)
					}
					said[s] = true
					continue
				}
				in, needs := w.NeedsSpares()
				if !needs {
					return
				}
				w.Spares(in, places[in].spares)
			}
		}
		pull()
		deadRate, busyRate := rng.IntN(60), rng.IntN(30)
		verdict := w.Verdict()
		for len(out) > 0 {
			if !w.Open() {
				t.Fatalf("seed %d: closed with messages out", seed)
			}
			i := rng.IntN(len(out))
			s := out[i]
			out = slices.Delete(out, i, i+1)
			switch die := rng.IntN(100); {
			case die < deadRate:
				w.Fail(s.Index, Dead)
			case die < deadRate+busyRate && s.Stand.For == 0 && s.Index != Local:
				w.Fail(s.Index, Refused)
				busy = append(busy, s)
			default:
				w.Ack(s.Index)
				acked = append(acked, s)
			}
			pull()
			if verdict != Pending && w.Verdict() != verdict {
				t.Fatalf("seed %d: the verdict went from %v to %v", seed, verdict, w.Verdict())
			}
			verdict = w.Verdict()
			for r, p := range places {
				if verdict == Met && p.counts(self, acked) < p.need {
					t.Fatalf("seed %d: met, but ring %d has %d copies of %d", seed, r, p.counts(self, acked), p.need)
				}
			}
		}
		if w.Open() || verdict == Pending {
			t.Fatalf("seed %d: all has ended; open %v, verdict %v", seed, w.Open(), verdict)
		}
		if verdict == Met {
			met++
		}
		for r, p := range places {
			if short := p.counts(self, acked) < p.need; verdict == Met && short {
				t.Fatalf("seed %d: met without ring %d", seed, r)
			}
			for _, o := range p.owners {
				if deadRate == 0 && !served(o, acked, busy) && len(p.spares) > 0 {
					t.Fatalf("seed %d: owner %d of ring %d has neither copy nor hint", seed, o, r)
				}
			}
		}
	}
	if met < 1000 {
		t.Errorf("only %d writes were met", met)
	}
}

func TestACopyOfACoordinatorOutsideARingDoesNotCountThere(t *testing.T) {
	// Node 1 leaves, 4 comes: the copies of 1 and 2 are W in the old ring alone.
	old := []ring.Stand{{Node: 1}, {Node: 2}, {Node: 3}}
	coming := []ring.Stand{{Node: 4}, {Node: 2}, {Node: 3}}
	var w Writes
	w.Reset(2, old[0], old, []ring.NodeID{1, 2, 3})
	w.Beside(2, coming, []ring.NodeID{4, 2, 3})
	sent := map[ring.NodeID]int{}
	for s, ok := w.Next(); ok; s, ok = w.Next() {
		sent[s.Stand.Node] = s.Index
	}
	if len(sent) != 3 {
		t.Fatalf("sent to %v, want 2, 3 and 4 once each", sent)
	}
	w.Ack(Local)
	w.Ack(sent[2])
	if w.Verdict() != Pending || w.Acked() != 1 {
		t.Fatalf("verdict %v with %d copies in the ring that comes", w.Verdict(), w.Acked())
	}
	w.Ack(sent[4])
	if w.Verdict() != Met {
		t.Fatalf("verdict %v", w.Verdict())
	}
}

func TestAHintThatIsNeededDoesNotWaitForAnOptionalOne(t *testing.T) {
	// Owner 3 is dead and 9 stands in. The old ring can do without its hint, the
	// coming one, of which owner 5 fails, cannot.
	old := []ring.Stand{{Node: 1}, {Node: 2}, {Node: 9, For: 3}}
	coming := []ring.Stand{{Node: 5}, {Node: 9, For: 3}}
	var w Writes
	w.Reset(2, old[0], old, []ring.NodeID{1, 2, 3})
	w.Beside(2, coming, []ring.NodeID{5, 3})
	var hints, other []Send
	for s, ok := w.Next(); ok; s, ok = w.Next() {
		if s.Stand.For == 3 {
			hints = append(hints, s)
		} else {
			other = append(other, s)
		}
	}
	if len(hints) != 2 || !hints[0].Optional || hints[1].Optional {
		t.Fatalf("hints %+v, want an optional one and one that is needed", hints)
	}
	w.Fail(hints[0].Index, OverBudget)
	w.Ack(Local)
	for _, s := range other {
		w.Ack(s.Index)
	}
	if w.Verdict() != Pending {
		t.Fatalf("verdict %v before the hint", w.Verdict())
	}
	w.Ack(hints[1].Index)
	if w.Verdict() != Met {
		t.Fatalf("verdict %v", w.Verdict())
	}
}

func TestOneRingCostsNothing(t *testing.T) {
	walk := []ring.Stand{{Node: 1}, {Node: 2}, {Node: 3}}
	owners := []ring.NodeID{1, 2, 3}
	var w Writes
	write := func() {
		w.Reset(2, walk[0], walk, owners)
		w.Ack(Local)
		for s, ok := w.Next(); ok; s, ok = w.Next() {
			w.Ack(s.Index)
		}
	}
	write()
	if n := testing.AllocsPerRun(100, write); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
