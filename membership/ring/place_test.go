package ring

import (
	"bufio"
	"flag"
	"fmt"
	"math"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew")

func TestPlacementAgreesWithTheModel(t *testing.T) {
	rnd := seedFor(t, 1)
	for k := range 120 {
		p := Params{Units: 1 << rnd.IntN(9), N: 1 + rnd.IntN(5)}
		r := mustRing(t, p, randomCluster(rnd, 12))
		var storage []Member
		for _, n := range r.nodes {
			storage = append(storage, n.Member)
		}
		want, m := modelPlace(p, storage)
		for i, n := range r.nodes {
			if int64(n.quota) != m.quota[i] || m.price[i].Cmp(big.NewInt(int64(n.price))) != 0 {
				t.Fatalf("case %d, %+v, %v: quota %d price %d, model %d %v",
					k, p, n.Member, n.quota, n.price, m.quota[i], m.price[i])
			}
		}
		for u := range p.Units {
			if !slices.Equal(r.Owners(u), want[u]) {
				t.Fatalf("case %d, %+v, partition %d: %v, model %v", k, p, u, r.Owners(u), want[u])
			}
		}
	}
}

func TestLogTableIsExactToItsLastBit(t *testing.T) {
	// The same by repeated squaring of numbers of 256 bits.
	const width = 256
	two := new(big.Int).Lsh(big.NewInt(1), width+1)
	for i := range logSteps {
		x := new(big.Int).Lsh(big.NewInt(int64(logSteps+i)), width-logStepBits)
		var log uint32
		for range fractionBits {
			x.Rsh(x.Mul(x, x), width)
			log <<= 1
			if x.Cmp(two) >= 0 {
				log++
				x.Rsh(x, 1)
			}
		}
		if logTable[i] != log {
			t.Fatalf("log2(1+%d/%d): %d, want %d", i, logSteps, logTable[i], log)
		}
	}
}

func TestDrawIsMinusLogOfTheHash(t *testing.T) {
	rnd := seedFor(t, 2)
	var total float64
	const count = 20000
	for range count {
		u, seed := rnd.IntN(Slots), rnd.Uint64()
		h := mix64(seed^(uint64(u)+1)*0x9E3779B97F4A7C15) | 1
		got, want := float64(draw(u, seed))/(1<<fractionBits), 64-math.Log2(float64(h))
		if math.Abs(got-want) > 1e-6 {
			t.Fatalf("draw(%d, %#x) = %v, want %v", u, seed, got, want)
		}
		total += got
	}
	if mean := total / count * math.Ln2; mean < 0.97 || mean > 1.03 {
		t.Errorf("mean draw %v, want that of an exponential distribution, 1", mean)
	}
}

// goldenClusters are pinned: their rings may never change.
func goldenClusters() (names []string, rings map[string]func() (*Ring, error)) {
	rings = make(map[string]func() (*Ring, error))
	add := func(name string, p Params, ms []Member) {
		names = append(names, name)
		rings[name] = func() (*Ring, error) { return New(p, ms) }
	}
	add("empty", Params{}, nil)
	add("one", Params{}, cluster(0, 1, 1))
	add("three-default", Params{}, cluster(0, 3, 1))
	add("five-one-zone", Params{Units: 4096}, cluster(0, 5, 1))
	add("nine-three-zones", Params{}, cluster(0, 9, 3))
	add("thirty-three-zones", Params{Units: 4096}, cluster(0, 30, 3))
	add("hundred-16384", Params{Units: 16384}, cluster(0, 100, 3))
	add("weights-1-2-4", Params{}, weighted(cluster(0, 12, 3), 1, 2, 4))
	add("zones-50-30-20", Params{}, unevenZones(cluster(0, 20, 1), 5, 3, 2))
	add("n5-two-zones", Params{N: 5}, cluster(0, 7, 2))
	add("skewed-four", Params{Units: 256}, weighted(cluster(0, 4, 1), 1, 1000))
	replaced := append(cluster(0, 8, 2), Member{ID: someID(50), PlaceID: someID(60), Zone: "zone0", Weight: 3}, Member{ID: someID(51)})
	add("replaced-and-router", Params{}, replaced)
	return names, rings
}

func TestRingsArePinned(t *testing.T) {
	names, rings := goldenClusters()
	var out strings.Builder
	out.WriteString("# cluster, epoch, owners of partition 0 and of the last\n")
	for _, name := range names {
		r, err := rings[name]()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %016x %v %v\n", name, r.Epoch(), r.Owners(0), r.Owners(r.Units()-1))
	}
	const path = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(want)))
	for got := range strings.Lines(out.String()) {
		if lines.Scan(); lines.Text() != strings.TrimSuffix(got, "\n") {
			t.Errorf("got  %s\nwant %s\nA running cluster would move its data.", got, lines.Text())
		}
	}
}

func TestRingDoesNotDependOnMemberOrder(t *testing.T) {
	rnd := seedFor(t, 3)
	for range 10 {
		ms := randomCluster(rnd, 30)
		want := mustRing(t, Params{}, ms)
		for range 3 {
			rnd.Shuffle(len(ms), func(a, b int) { ms[a], ms[b] = ms[b], ms[a] })
			got := mustRing(t, Params{}, ms)
			if got.Epoch() != want.Epoch() || !slices.Equal(got.owners, want.owners) {
				t.Fatalf("order changes the ring of %v", ms)
			}
		}
	}
}

func TestScalingAllWeightsKeepsThePlacement(t *testing.T) {
	rnd := seedFor(t, 4)
	for range 20 {
		ms := randomCluster(rnd, 20)
		for i := range ms {
			ms[i].Weight = 1 + ms[i].Weight%50
		}
		before := mustRing(t, Params{}, ms)
		factor := 2 + rnd.IntN(19)
		for i := range ms {
			ms[i].Weight *= factor
		}
		if after := mustRing(t, Params{}, ms); !slices.Equal(before.owners, after.owners) {
			t.Fatalf("weights times %d place differently: %v", factor, ms)
		}
	}
}

func TestOwnersAreDistinctAndSpreadOverZones(t *testing.T) {
	rnd := seedFor(t, 5)
	for range 60 {
		p := Params{Units: 512, N: 1 + rnd.IntN(5)}
		r := mustRing(t, p, randomCluster(rnd, 40))
		zones, size := zoneOf(r), make(map[string]int)
		for _, z := range zones {
			size[z]++
		}
		n, zcap := min(p.N, len(r.Members())), 1
		room := func() (total int) {
			for _, s := range size {
				total += min(s, zcap)
			}
			return total
		}
		for room() < n {
			zcap++
		}
		for u := range p.Units {
			seen, used := make(map[NodeID]bool), make(map[string]int)
			for _, id := range r.Owners(u) {
				seen[id] = true
				used[zones[id]]++
				if used[zones[id]] > zcap {
					t.Fatalf("partition %d: more than %d owners in %s", u, zcap, zones[id])
				}
			}
			if len(seen) != n || len(r.Owners(u)) != n {
				t.Fatalf("partition %d: owners %v, want %d distinct", u, r.Owners(u), n)
			}
			if len(size) >= n && len(used) != n {
				t.Fatalf("partition %d: %d zones of %d, want %d", u, len(used), len(size), n)
			}
		}
	}
}

func TestLoadsStayWithinQuotaAndSlack(t *testing.T) {
	rnd := seedFor(t, 6)
	for k := range 80 {
		p := Params{Units: 1024, N: 3}
		ms, even := randomCluster(rnd, 40), k%4 == 0
		if even {
			zones := 1 + rnd.IntN(4)
			ms = cluster(rnd.IntN(1000), zones*(1+rnd.IntN(10)), zones)
		}
		r := mustRing(t, p, ms)
		total := uint64(0)
		for i, load := range r.Balance().Nodes {
			n := r.nodes[i]
			total += n.quota
			limit := float64(min(p.Units, withSlack(n.quota)))
			if !even {
				limit = math.Ceil(limit * 1.06) // few nodes, skewed weights: the soft limit
			}
			if float64(load.Owned) > limit {
				t.Errorf("case %d, %v of %d: owns %d, quota %.1f", k, n.Member, len(ms), load.Owned, load.Quota)
			}
			if load.Headed > withSlack(n.headQuota) {
				t.Errorf("case %d, %v: heads %d, quota %.1f", k, n.Member, load.Headed, load.HeadQuota)
			}
		}
		whole := uint64(r.N()*p.Units) * quotaOne
		if total > whole || whole-total >= uint64(len(ms)) {
			t.Errorf("case %d: quotas sum to %d of %d", k, total, whole)
		}
	}
}

func TestBalanceIsWithinFivePercent(t *testing.T) {
	for _, c := range []struct {
		name string
		ms   []Member
	}{
		{"3, one zone", cluster(0, 3, 1)},
		{"8, one zone", cluster(0, 8, 1)},
		{"30, three zones", cluster(0, 30, 3)},
		{"30, weights 1:2:4", weighted(cluster(0, 30, 3), 1, 2, 4)},
		{"30, zones 50/30/20", unevenZones(cluster(0, 30, 1), 5, 3, 2)},
	} {
		b := mustRing(t, Params{Units: 4096}, c.ms).Balance()
		if b.Replicas < 0.95 || b.Heads < 0.95 {
			t.Errorf("%s: efficiency of replicas %.3f, of heads %.3f", c.name, b.Replicas, b.Heads)
		}
	}
}

func TestHeadOfLastResortIsTheLeastLoadedForItsShare(t *testing.T) {
	h := heads{
		placement: &placement{headQuota: []uint64{4, 6, 9}},
		given:     [][]int{{1, 2}, {3, 4}, {5, 6, 7, 8}}, // 2/4, 2/6, 4/9
	}
	if got := h.leastLoaded([]int{0, 1, 2}); got != 1 {
		t.Errorf("node %d, want 1", got)
	}
	if got := h.leastLoaded([]int{2, 0}); got != 2 {
		t.Errorf("node %d, want 2", got)
	}
}
