package ring

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// The strategies of Dynamo §6.2 next to placement as it is here. All of a
// strategy's load is counted in keys that are spread evenly over the hash space.
// Load efficiency is the mean load over the greatest, as in Fig. 8.

// tokenRing gives each node count random tokens, and the space before a token to
// the node of it and the next n-1 distinct ones.
type tokenRing struct {
	tokens []token
	n      int
}

type token struct {
	at   uint64
	node int
}

func newTokenRing(seed uint64, nodes, count, n int) *tokenRing {
	r := &tokenRing{n: min(n, nodes)}
	for i := range nodes {
		for k := range count {
			r.tokens = append(r.tokens, token{mix64(seed<<40 + uint64(i)<<20 + uint64(k) + 1), i})
		}
	}
	slices.SortFunc(r.tokens, func(a, b token) int { return cmp.Compare(a.at, b.at) })
	return r
}

// owners are those of the space before the k-th token.
func (r *tokenRing) owners(k int) []int {
	var list []int
	for ; len(list) < r.n; k++ {
		if node := r.tokens[k%len(r.tokens)].node; !slices.Contains(list, node) {
			list = append(list, node)
		}
	}
	return list
}

func loadEfficiency(load []float64) float64 {
	total, most := 0.0, 0.0
	for _, l := range load {
		total, most = total+l, max(most, l)
	}
	return total / float64(len(load)) / most
}

// strategy1 partitions by the tokens themselves.
func strategy1(seed uint64, nodes, count int) float64 {
	r, load := newTokenRing(seed, nodes, count, 3), make([]float64, nodes)
	for k, t := range r.tokens {
		before := r.tokens[(k+len(r.tokens)-1)%len(r.tokens)].at
		for _, node := range r.owners(k) {
			load[node] += float64(t.at - before) // wraps as the space does
		}
	}
	return loadEfficiency(load)
}

// strategy2 has equal partitions, owned by the tokens that follow their ends.
func strategy2(seed uint64, nodes, count, units int) float64 {
	r, load := newTokenRing(seed, nodes, count, 3), make([]float64, nodes)
	for u := range units {
		end := uint64(u+1) * (^uint64(0)/uint64(units) + 1)
		k, _ := slices.BinarySearchFunc(r.tokens, end, func(t token, end uint64) int { return cmp.Compare(t.at, end) })
		for _, node := range r.owners(k) {
			load[node]++
		}
	}
	return loadEfficiency(load)
}

// strategy3 is this package.
func strategy3(t testing.TB, from, nodes, units int) float64 {
	r, load := mustRing(t, Params{Units: units}, cluster(from, nodes, 1)), []float64{}
	for _, n := range r.Balance().Nodes {
		load = append(load, float64(n.Owned))
	}
	return loadEfficiency(load)
}

func mean(count int, of func(k int) float64) (total float64) {
	for k := range count {
		total += of(k) / float64(count)
	}
	return total
}

// TestEqualPartitionsEquallyGivenBalanceBest is Fig. 8 of the paper at 30 nodes
// and 32 tokens each, as far as it is seen here: strategy 3 is far ahead. That 2
// is behind 1, as there, is not seen; they agree, being the same tokens.
func TestEqualPartitionsEquallyGivenBalanceBest(t *testing.T) {
	const seeds = 12
	one := mean(seeds, func(k int) float64 { return strategy1(uint64(k), 30, 32) })
	two := mean(seeds, func(k int) float64 { return strategy2(uint64(k), 30, 32, 1024) })
	three := mean(2, func(k int) float64 { return strategy3(t, k*100, 30, 1024) })
	if three < 0.95 || three-max(one, two) < 0.1 || max(one-two, two-one) > 0.02 {
		t.Errorf("efficiency of strategies 1, 2, 3: %.3f, %.3f, %.3f", one, two, three)
	}
}

// TestStrategyTable prints, when RING_TABLE is set, efficiency against the number
// of nodes, and what a join costs from 3 to 300 nodes:
//
//	RING_TABLE=1 go test ./membership/ring -run TestStrategyTable -v
func TestStrategyTable(t *testing.T) {
	if os.Getenv("RING_TABLE") == "" {
		t.Skip("RING_TABLE is not set")
	}
	fmt.Println("nodes  1: T=32  2: T=32, Q=1024  3: Q=1024  1: T=256  2: T=256, Q=4096  3: Q=4096")
	for _, size := range []int{5, 10, 15, 20, 25, 30} {
		const seeds = 12
		fmt.Printf("%5d", size)
		for _, c := range []struct{ tokens, units int }{{32, 1024}, {256, 4096}} {
			fmt.Printf("   %.3f   %.3f            %.3f  ",
				mean(seeds, func(k int) float64 { return strategy1(uint64(k), size, c.tokens) }),
				mean(seeds, func(k int) float64 { return strategy2(uint64(k), size, c.tokens, c.units) }),
				mean(2, func(k int) float64 { return strategy3(t, k*100, size, c.units) }))
		}
		fmt.Println()
	}
	fmt.Println("units  nodes  replicas  heads  join/min  leave/min  computing")
	for _, units := range []int{1024, 4096, 16384} {
		for _, size := range []int{3, 5, 8, 30, 100, 300} {
			p := Params{Units: units}
			began := time.Now()
			r := mustRing(t, p, cluster(0, size, 1))
			took, joined := time.Since(began), mustRing(t, p, cluster(0, size+1, 1))
			b, join, leave := r.Balance(), Diff(r, joined), Diff(joined, r)
			fmt.Printf("%5d  %5d  %.3f     %.3f  %.2f      %.2f       %v\n", units, size, b.Replicas, b.Heads,
				float64(join.Replicas)/float64(max(join.MinReplicas, 1)),
				float64(leave.Replicas)/float64(max(leave.MinReplicas, 1)), took.Round(time.Millisecond))
		}
	}
}

func TestLeavingUndoesJoining(t *testing.T) {
	rnd := seedFor(t, 21)
	for range 10 {
		ms := randomCluster(rnd, 20)
		before := mustRing(t, Params{}, ms)
		x := Member{ID: NodeID(rnd.Uint64() | 1), Zone: "zone0", Weight: 1 + rnd.IntN(5)}
		history := []Record{{Member: x, Counter: 1}}
		for _, m := range ms {
			history = append(history, Record{Member: m, Counter: 1})
		}
		if mustRing(t, Params{}, Members(history)).Epoch() == before.Epoch() {
			t.Fatalf("joining %v changes nothing", x)
		}
		history = Reconcile(history, []Record{{Member: x, Counter: 2, Removed: true}})
		if after := mustRing(t, Params{}, Members(history)); after.Epoch() != before.Epoch() {
			t.Fatalf("joining and leaving of %v is not as if it had not been", x)
		}
	}
}

func TestForgottenRecordWinsOverLaterOnes(t *testing.T) {
	gone := Record{Member: Member{ID: 1}, Counter: 2, Removed: true, Forgotten: true}
	later := Record{Member: Member{ID: 1, Weight: 5}, Counter: 9, TimeMS: 9}
	for _, got := range [][]Record{Reconcile([]Record{gone}, []Record{later}), Reconcile([]Record{later}, []Record{gone})} {
		if len(got) != 1 || got[0] != gone {
			t.Errorf("%v wins", got)
		}
	}
}
