package ring

import (
	"fmt"
	"slices"
	"testing"
)

func TestJoinAndLeaveMoveAboutTheMinimum(t *testing.T) {
	p := Params{Units: 4096}
	for _, zones := range []int{1, 3} {
		for _, size := range []int{4, 8, 16, 30} {
			t.Run(fmt.Sprintf("%d nodes in %d zones", size, zones), func(t *testing.T) {
				before := mustRing(t, p, cluster(0, size, zones))
				joined := mustRing(t, p, cluster(0, size+1, zones))
				for name, c := range map[string]Change{"join": Diff(before, joined), "leave": Diff(joined, before)} {
					if limit := float64(c.MinReplicas)*1.25 + 0.002*float64(3*p.Units); float64(c.Replicas) > limit {
						t.Errorf("%s moves %d replicas, at least %d must", name, c.Replicas, c.MinReplicas)
					}
				}
			})
		}
	}
}

func TestJoinLeavesOtherZonesAloneWhenEachHoldsACopy(t *testing.T) {
	for _, size := range []int{5, 9, 30} {
		before := mustRing(t, Params{}, cluster(0, size, 3))
		after := mustRing(t, Params{}, cluster(0, size+1, 3))
		zones, joined := zoneOf(after), someID(size)
		for _, m := range Diff(before, after).Moves {
			for _, id := range slices.Concat(m.Gained, m.Lost) {
				if zones[id] != zones[joined] {
					t.Fatalf("%d nodes: join in %s moves partition %d in %s", size, zones[joined], m.Partition, zones[id])
				}
			}
		}
	}
}

func TestReplacementTakesOverExactly(t *testing.T) {
	rnd := seedFor(t, 7)
	for range 15 {
		ms := randomCluster(rnd, 20)
		before := mustRing(t, Params{}, ms)
		i := rnd.IntN(len(ms))
		dead := ms[i].ID
		ms[i].PlaceID, ms[i].ID = dead, NodeID(rnd.Uint64()|1)
		after := mustRing(t, Params{}, ms)
		for k, id := range before.owners {
			if id == dead {
				id = ms[i].ID
			}
			if after.owners[k] != id {
				t.Fatalf("replacing %v by %v changes more than that", dead, ms[i].ID)
			}
		}
		if before.Epoch() == after.Epoch() {
			t.Fatal("the epoch does not tell the replacement from the replaced")
		}
	}
}

func TestTwoClaimsOfOnePlaceAreSettledAlike(t *testing.T) {
	for _, c := range []struct {
		name         string
		claims, want []Member // ID and PlaceID
	}{
		{"none", []Member{{ID: 1}, {ID: 2, PlaceID: 9}}, []Member{{ID: 1, PlaceID: 1}, {ID: 2, PlaceID: 9}}},
		{"the lower id keeps it", []Member{{ID: 7, PlaceID: 3}, {ID: 5, PlaceID: 3}},
			[]Member{{ID: 5, PlaceID: 3}, {ID: 7, PlaceID: 7}}},
		{"even against its namesake", []Member{{ID: 2, PlaceID: 5}, {ID: 5, PlaceID: 5}},
			[]Member{{ID: 2, PlaceID: 5}, {ID: 5, PlaceID: NodeID(mix64(5 + 0x9E3779B97F4A7C15))}}},
		{"the loser's own id is taken", []Member{{ID: 1, PlaceID: 6}, {ID: 2, PlaceID: 3}, {ID: 3, PlaceID: 6}},
			[]Member{{ID: 1, PlaceID: 6}, {ID: 2, PlaceID: 3}, {ID: 3, PlaceID: NodeID(mix64(3 + 0x9E3779B97F4A7C15))}}},
	} {
		for i := range c.claims {
			c.claims[i].Weight = 1
			c.want[i].Weight = 1
		}
		if r := mustRing(t, Params{}, c.claims); !slices.Equal(r.Members(), c.want) {
			t.Errorf("%s: %v, want %v", c.name, r.Members(), c.want)
		}
	}
	routers := []Member{{ID: 1, PlaceID: 2}, {ID: 2, Weight: 1}}
	if r := mustRing(t, Params{}, routers); r.Members()[1].PlaceID != 2 {
		t.Error("a router takes the place of a storage member")
	}
}

func TestDiffListsExactlyTheOwnersThatChange(t *testing.T) {
	rnd := seedFor(t, 8)
	for range 10 {
		ms := randomCluster(rnd, 12)
		old, new := mustRing(t, Params{}, ms), mustRing(t, Params{}, ms[:1+rnd.IntN(len(ms))])
		c := Diff(old, new)
		replicas, heads, k := 0, 0, 0
		for u := range new.Units() {
			var m Move
			if k < len(c.Moves) && c.Moves[k].Partition == u {
				m = c.Moves[k]
				k++
			}
			for _, member := range ms {
				had, has := old.Owns(member.ID, u), new.Owns(member.ID, u)
				if slices.Contains(m.Gained, member.ID) != (has && !had) || slices.Contains(m.Lost, member.ID) != (had && !has) {
					t.Fatalf("partition %d: %v -> %v reported as %+v", u, old.Owners(u), new.Owners(u), m)
				}
			}
			replicas += len(m.Gained)
			if old.Owners(u)[0] != new.Owners(u)[0] {
				heads++
			}
		}
		if k != len(c.Moves) || c.Replicas != replicas || c.Heads != heads {
			t.Fatalf("%d moves, %d replicas, %d heads reported; counted %d, %d, %d",
				len(c.Moves), c.Replicas, c.Heads, k, replicas, heads)
		}
	}
}

func TestDiffFromAnEmptyRingIsEverything(t *testing.T) {
	c := Diff(mustRing(t, Params{}, nil), mustRing(t, Params{}, cluster(0, 3, 1)))
	if c.Replicas != 3*1024 || c.MinReplicas != 3*1024 || c.Heads != 1024 || len(c.Moves) != 1024 {
		t.Errorf("%d replicas, at least %d, %d heads, %d moves", c.Replicas, c.MinReplicas, c.Heads, len(c.Moves))
	}
}

func randomHistory(rnd interface {
	IntN(int) int
	Uint64() uint64
}) []Record {
	rs := make([]Record, rnd.IntN(8))
	for i := range rs {
		// Few values of everything, so that every tie is met.
		rs[i] = Record{
			Member:  Member{ID: NodeID(1 + rnd.IntN(4)), PlaceID: NodeID(rnd.IntN(3)), Zone: fmt.Sprint(rnd.IntN(2)), Weight: rnd.IntN(3)},
			Counter: uint64(rnd.IntN(3)), TimeMS: int64(rnd.IntN(2)), Admin: NodeID(rnd.IntN(2)), Removed: rnd.IntN(2) == 0,
		}
	}
	return rs
}

func TestReconcileIsALattice(t *testing.T) {
	rnd := seedFor(t, 9)
	for range 5000 {
		a, b, c := randomHistory(rnd), randomHistory(rnd), randomHistory(rnd)
		ab := Reconcile(a, b)
		if !slices.Equal(ab, Reconcile(b, a)) {
			t.Fatalf("not commutative: %v, %v", a, b)
		}
		if !slices.Equal(Reconcile(ab, c), Reconcile(a, Reconcile(b, c))) {
			t.Fatalf("not associative: %v, %v, %v", a, b, c)
		}
		if !slices.Equal(Reconcile(ab, a), ab) || !slices.Equal(Reconcile(ab, nil), ab) {
			t.Fatalf("not idempotent: %v, %v", a, b)
		}
		for _, r := range slices.Concat(a, b) {
			i, ok := slices.BinarySearchFunc(ab, r, func(s, r Record) int { return int(s.ID) - int(r.ID) })
			if !ok || ab[i].Counter < r.Counter {
				t.Fatalf("%v is lost or beaten by an older one: %v", r, ab)
			}
		}
	}
}

func TestLaterRecordWins(t *testing.T) {
	low := Record{Member: Member{ID: 1, Weight: 1}, Counter: 5, TimeMS: 50, Admin: 5}
	for name, change := range map[string]func(*Record){
		"counter":   func(r *Record) { r.Counter, r.TimeMS, r.Admin = 6, 1, 1 },
		"time":      func(r *Record) { r.TimeMS, r.Admin = 51, 1 },
		"admin":     func(r *Record) { r.Admin = 6 },
		"a removal": func(r *Record) { r.Removed = true },
	} {
		high := low
		change(&high)
		high.Weight = 0
		if got := Reconcile([]Record{high}, []Record{low}); len(got) != 1 || got[0] != high {
			t.Errorf("by %s: %v wins over %v", name, got, high)
		}
	}
}

func TestMembersLeaveOutTheRemoved(t *testing.T) {
	history := []Record{{Member: Member{ID: 1, Weight: 1}}, {Member: Member{ID: 2}, Removed: true}, {Member: Member{ID: 3}}}
	if got := Members(history); len(got) != 2 || got[0].ID != 1 || got[1].ID != 3 {
		t.Errorf("members %v", got)
	}
}

func TestRingDependsOnRecordsAloneNotOnTheirHistory(t *testing.T) {
	rnd := seedFor(t, 10)
	for range 10 {
		var log []Record // ten joins, leaves and changes, as the admins made them
		counters := make(map[NodeID]uint64)
		for range 15 {
			id := NodeID(1 + rnd.IntN(8))
			counters[id]++
			log = append(log, Record{
				Member:  Member{ID: id, Zone: fmt.Sprint(rnd.IntN(3)), Weight: 1 + rnd.IntN(3)},
				Counter: counters[id], Removed: rnd.IntN(3) == 0,
			})
		}
		want := mustRing(t, Params{}, Members(Reconcile(log, nil)))
		for range 3 {
			var history []Record
			for _, k := range rnd.Perm(len(log)) {
				history = Reconcile(history, log[k:min(k+1+rnd.IntN(3), len(log))])
			}
			if got := mustRing(t, Params{}, Members(history)); got.Epoch() != want.Epoch() {
				t.Fatalf("gossip order changes the ring: %v", log)
			}
		}
	}
}
