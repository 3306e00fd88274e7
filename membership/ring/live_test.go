package ring

import (
	"slices"
	"testing"
)

func TestLiveRingsJoinTheirOwners(t *testing.T) {
	p := Params{Units: 64}
	five, seven := cluster(0, 5, 1), cluster(0, 7, 1)
	base, next, last := mustRing(t, p, five), mustRing(t, p, seven), mustRing(t, p, seven[2:])
	l := NewLive(base, next, last)
	changed := 0
	for u := range l.Units() {
		var want []NodeID
		for _, r := range []*Ring{base, next, last} {
			for _, id := range r.Owners(u) {
				if !slices.Contains(want, id) {
					want = append(want, id)
				}
			}
		}
		got := l.Owners(nil, u)
		if !slices.Equal(got, want) || !slices.Equal(l.Gained(nil, u), got[base.N():]) {
			t.Fatalf("partition %d: owners %v, gained %v, want %v", u, got, l.Gained(nil, u), want)
		}
		for _, m := range seven {
			if l.Owns(m.ID, u) != slices.Contains(want, m.ID) {
				t.Errorf("partition %d: owned by %v: %v", u, m.ID, l.Owns(m.ID, u))
			}
		}
		changed += len(got) - base.N()
	}
	if changed == 0 {
		t.Error("nothing moves")
	}
	if got := l.Members(); len(got) != 7 || !slices.IsSortedFunc(got, func(a, b Member) int { return int(min(1, max(-1, int64(a.ID>>1)-int64(b.ID>>1)))) }) {
		t.Errorf("members %v", got)
	}
	if !l.Member(five[0].ID) || !l.Member(seven[6].ID) || l.Member(1) {
		t.Error("wrong members")
	}
}

func TestLiveRingsAreToldApartByTheirEpoch(t *testing.T) {
	p := Params{Units: 64}
	a, b := mustRing(t, p, cluster(0, 5, 1)), mustRing(t, p, cluster(0, 6, 1))
	if NewLive(a).Epoch() != a.Epoch() {
		t.Error("a ring alone has another epoch")
	}
	seen := map[uint64]bool{}
	for _, l := range []*Live{NewLive(a), NewLive(b), NewLive(a, b), NewLive(b, a), NewLive(a, a)} {
		if seen[l.Epoch()] {
			t.Error("two have one epoch")
		}
		seen[l.Epoch()] = true
	}
}
