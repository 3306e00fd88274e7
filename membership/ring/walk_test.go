package ring

import (
	"slices"
	"testing"
)

func TestFallbacksAreTheOthersOnceEach(t *testing.T) {
	rnd := seedFor(t, 11)
	for range 20 {
		r := mustRing(t, Params{}, append(randomCluster(rnd, 20), Member{ID: 2})) // and a router
		for u := 0; u < r.Units(); u += 37 {
			list := slices.Concat(r.Owners(u), r.Fallbacks(u))
			slices.Sort(list)
			var want []NodeID
			for _, m := range r.Members() {
				if m.Weight > 0 {
					want = append(want, m.ID)
				}
			}
			if !slices.Equal(list, want) {
				t.Fatalf("partition %d: owners and fallbacks %v, want %v", u, list, want)
			}
		}
	}
}

func TestWalkGivesTheDthDeadOwnerTheDthLiveFallback(t *testing.T) {
	rnd := seedFor(t, 12)
	var dst []Stand
	for range 30 {
		r := mustRing(t, Params{Units: 64, N: 1 + rnd.IntN(4)}, randomCluster(rnd, 12))
		for range 40 {
			u, dead, chance := rnd.IntN(64), make(map[NodeID]bool), rnd.Float64()
			for _, m := range r.Members() {
				dead[m.ID] = rnd.Float64() < chance
			}
			live := slices.DeleteFunc(r.Fallbacks(u), func(id NodeID) bool { return dead[id] })
			var want []Stand
			for _, owner := range r.Owners(u) {
				switch {
				case !dead[owner]:
					want = append(want, Stand{Node: owner})
				case len(live) > 0:
					want = append(want, Stand{Node: live[0], For: owner})
					live = live[1:]
				}
			}
			dst = r.Walk(dst[:0], u, func(id NodeID) bool { return !dead[id] })
			if !slices.Equal(dst, want) {
				t.Fatalf("partition %d: %v, want %v", u, dst, want)
			}
		}
	}
}

func TestWalkWithAllOwnersUpAsksOfNobodyElse(t *testing.T) {
	r := mustRing(t, Params{}, cluster(0, 9, 3))
	asked := 0
	got := r.Walk(nil, 5, func(NodeID) bool { asked++; return true })
	if asked != 3 || len(got) != 3 {
		t.Errorf("asked of %d nodes for %v", asked, got)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	r := mustRing(t, Params{}, cluster(0, 9, 3))
	dead := r.Owners(7)[1]
	up := func(id NodeID) bool { return id != dead }
	key, dst := []byte("{user1000}.following"), make([]Stand, 0, 8)
	allocs := testing.AllocsPerRun(100, func() {
		u := r.Partition(SlotOf(key))
		_ = r.Owns(dead, u)
		_ = KeyHash(key)
		dst = r.Walk(dst[:0], u, up)
		dst = r.Walk(dst[:0], 7, up)
	})
	if allocs != 0 || len(dst) != 3 {
		t.Errorf("%v allocations, walk %v", allocs, dst)
	}
}

func TestOneFailureIsSpreadOverTheSurvivors(t *testing.T) {
	p := Params{Units: 4096}
	for _, zones := range []int{1, 3} {
		for _, size := range []int{9, 30} {
			r := mustRing(t, p, cluster(0, size, zones))
			dead, extra, total := someID(4), make(map[NodeID]int), 0
			var dst []Stand
			for u := range p.Units {
				dst = r.Walk(dst[:0], u, func(id NodeID) bool { return id != dead })
				for _, s := range dst {
					if s.For != 0 {
						extra[s.Node]++
						total++
					}
				}
			}
			worst := 0
			for _, n := range extra {
				worst = max(worst, n)
			}
			mean := float64(total) / float64(size-1)
			if len(extra) != size-1 || float64(worst) > 2.3*mean {
				t.Errorf("%d nodes in %d zones: %d survivors stand in, the worst for %d, mean %.1f",
					size, zones, len(extra), worst, mean)
			}
		}
	}
}
