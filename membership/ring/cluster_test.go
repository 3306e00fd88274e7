package ring

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// seedFor gives a test its random source and prints the seed if it fails.
func seedFor(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// someID is the i-th of a fixed list of random-looking ids.
func someID(i int) NodeID { return NodeID(mix64(uint64(i) + 1)) }

// cluster makes nodes someID(from..from+count-1) spread evenly over zones.
func cluster(from, count, zones int) []Member {
	ms := make([]Member, count)
	for k := range ms {
		i := from + k
		ms[k] = Member{ID: someID(i), Zone: fmt.Sprint("zone", i%zones), Weight: 1}
	}
	return ms
}

// weighted sets the weights to those given, in turn.
func weighted(ms []Member, weights ...int) []Member {
	for k := range ms {
		ms[k].Weight = weights[k/len(weights)%len(weights)]
	}
	return ms
}

// unevenZones puts the nodes into zones in proportion to shares.
func unevenZones(ms []Member, shares ...int) []Member {
	total := 0
	for _, s := range shares {
		total += s
	}
	for k := range ms {
		at, z := k*total/len(ms), 0
		for at >= shares[z] {
			at -= shares[z]
			z++
		}
		ms[k].Zone = fmt.Sprint("zone", z)
	}
	return ms
}

// randomCluster makes 1..most members in 1..6 zones with weights equal, 1:2:4
// or anything up to 1000.
func randomCluster(rnd *rand.Rand, most int) []Member {
	ms := make([]Member, 1+rnd.IntN(most))
	zones, kind := 1+rnd.IntN(6), rnd.IntN(3)
	for i := range ms {
		weight := 1
		switch kind {
		case 1:
			weight = 1 << rnd.IntN(3)
		case 2:
			weight = 1 + rnd.IntN(1000)
		}
		ms[i] = Member{ID: NodeID(rnd.Uint64() | 1), Zone: fmt.Sprint("zone", rnd.IntN(zones)), Weight: weight}
	}
	return ms
}

func mustRing(t testing.TB, p Params, ms []Member) *Ring {
	t.Helper()
	r, err := New(p, ms)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func zoneOf(r *Ring) map[NodeID]string {
	zones := make(map[NodeID]string)
	for _, m := range r.Members() {
		zones[m.ID] = m.Zone
	}
	return zones
}
