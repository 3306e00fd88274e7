package node

import (
	"slices"
	"testing"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/ring"
)

func TestASettledViewCountsFromItsFirstSight(t *testing.T) {
	var s settling
	v := newViews(t)
	look := func() (uint64, bool) {
		number, _, ok := s.since(&membership.View{Epoch: v.now})
		return number, ok
	}
	if _, _, ok := s.since(&membership.View{}); !ok {
		t.Error("a cluster without epochs is not settled")
	}
	first, ok := look()
	_, at, _ := s.since(&membership.View{Epoch: v.now})
	if _, again, _ := s.since(&membership.View{Epoch: v.now}); !ok || !again.Equal(at) {
		t.Errorf("settled %v, at %v and at %v", ok, at, again)
	}
	v.target(4, false)
	if number, ok := look(); ok {
		t.Errorf("view %d after %d is settled in a change", number, first)
	}
}

// Whoever was given up as dead will never be back, and is not waited for.
func TestLossIsNotMadeGoodByThoseWhoWereGivenUp(t *testing.T) {
	before, err := ring.New(ring.Params{Units: shelves, N: 3}, ring.Members([]ring.Record{v1(1, 1), v1(2, 1), v1(3, 1)}))
	if err != nil {
		t.Fatal(err)
	}
	after, err := ring.New(ring.Params{Units: shelves, N: 3}, ring.Members([]ring.Record{v1(1, 1), v1(2, 1), v1(4, 1)}))
	if err != nil {
		t.Fatal(err)
	}
	dead := v1(3, 2)
	dead.Removed, dead.Forgotten = true, true
	v := &membership.View{Live: ring.NewLive(before, after), Records: []ring.Record{v1(1, 1), v1(2, 1), dead, v1(4, 1)}}
	got := awaited(v, 0)
	slices.Sort(got)
	if !slices.Equal(got, []nodeID{1, 2, 4}) {
		t.Errorf("awaited are %v", got)
	}
}
