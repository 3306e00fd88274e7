package ring

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// historyOf is the history of a cluster of members of weight 100.
func historyOf(ids ...NodeID) (h []Record) {
	for _, id := range ids {
		h = append(h, Record{Member: Member{ID: id, Zone: fmt.Sprintf("z%d", id%3), Weight: 100}, Counter: 1})
	}
	return h
}

func TestAmendChangesWhatIsAskedForAndNothingElse(t *testing.T) {
	gone := Record{Member: Member{ID: 9, Weight: 100}, Counter: 4, Removed: true}
	router := Record{Member: Member{ID: 8}, Counter: 1}
	history := append(historyOf(1, 2, 3, 4), router, gone)
	for _, c := range []struct {
		name  string
		edits []Edit
		force bool
		want  string // changed records: id/place weight zone counter, - if removed
		err   error
	}{
		{"add", []Edit{{Kind: Add, Node: 5, Weight: 50, Zone: "z9"}}, false, "5/0 50 z9 1", nil},
		{"add again", []Edit{{Kind: Add, Node: 1, Weight: 50}}, false, "", nil},
		{"add a removed one", []Edit{{Kind: Add, Node: 9, Weight: 50}}, false, "", ErrMember},
		{"add with a bad weight", []Edit{{Kind: Add, Node: 5, Weight: 5000}}, false, "", errAny},
		{"remove", []Edit{{Kind: Remove, Node: 4}}, false, "-4/0 100 z1 2", nil},
		{"remove again", []Edit{{Kind: Remove, Node: 9}}, false, "", nil},
		{"remove a stranger", []Edit{{Kind: Remove, Node: 77}}, false, "", ErrUnknownNode},
		{"remove too many", []Edit{{Kind: Remove, Node: 3}, {Kind: Remove, Node: 4}}, false, "", ErrUnsafe},
		{"remove too many by force", []Edit{{Kind: Remove, Node: 3}, {Kind: Remove, Node: 4}}, true, "-3/0 100 z0 2, -4/0 100 z1 2", nil},
		{"swap one for another", []Edit{{Kind: Remove, Node: 3}, {Kind: Add, Node: 5, Weight: 1}}, false, "-3/0 100 z0 2, 5/0 1  1", nil},
		{"replace", []Edit{{Kind: Replace, Node: 2, By: 6}}, false, "-2/0 100 z2 2, 6/2 100 z2 1", nil},
		{"replace by a router", []Edit{{Kind: Replace, Node: 2, By: 8}}, false, "-2/0 100 z2 2, 8/2 100 z2 2", nil},
		{"replace by a member", []Edit{{Kind: Replace, Node: 2, By: 3}}, false, "", ErrMember},
		{"replace by itself", []Edit{{Kind: Replace, Node: 2, By: 2}}, false, "", ErrMember},
		{"replace a removed one", []Edit{{Kind: Replace, Node: 9, By: 6}}, false, "", ErrUnknownNode},
		{"weight and zone at once", []Edit{{Kind: Reweigh, Node: 1, Weight: 7}, {Kind: Rezone, Node: 1, Zone: "x"}}, false, "1/0 7 x 2", nil},
		{"weight as it is", []Edit{{Kind: Reweigh, Node: 1, Weight: 100}}, false, "", nil},
		{"weight nought is a removal", []Edit{{Kind: Reweigh, Node: 1}, {Kind: Reweigh, Node: 2}}, false, "", ErrUnsafe},
		{"zone of a removed one", []Edit{{Kind: Rezone, Node: 9, Zone: "x"}}, false, "", ErrUnknownNode},
		{"forget", []Edit{{Kind: Forget, Node: 4}}, false, "-4/0 100 z1 2 forgotten", nil},
		{"forget one that was to leave", []Edit{{Kind: Forget, Node: 9}}, false, "-9/0 100  5 forgotten", nil},
		{"forget twice", []Edit{{Kind: Forget, Node: 4}, {Kind: Forget, Node: 4}, {Kind: Remove, Node: 4}}, false, "-4/0 100 z1 2 forgotten", nil},
		{"forget a stranger", []Edit{{Kind: Forget, Node: 77}}, false, "", ErrUnknownNode},
		{"forget too many", []Edit{{Kind: Forget, Node: 3}, {Kind: Forget, Node: 4}}, false, "", ErrUnsafe},
		{"all or none", []Edit{{Kind: Reweigh, Node: 1, Weight: 7}, {Kind: Remove, Node: 77}}, false, "", ErrUnknownNode},
		{"no edit", []Edit{{Node: 1}}, false, "", errAny},
	} {
		before := slices.Clone(history)
		got, err := Amend(history, c.edits, 3, Stamp{TimeMS: 55, Admin: 1}, c.force)
		text := ""
		for i, r := range got {
			if i > 0 {
				text += ", "
			}
			if r.Removed {
				text += "-"
			}
			text += fmt.Sprintf("%d/%d %d %s %d", uint64(r.ID), uint64(r.PlaceID), r.Weight, r.Zone, r.Counter)
			if r.Forgotten {
				text += " forgotten"
			}
			if r.TimeMS != 55 || r.Admin != 1 {
				t.Errorf("%s: stamp of %+v", c.name, r)
			}
		}
		if text != c.want || c.err == nil != (err == nil) || c.err != nil && c.err != errAny && !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, text, err, c.want, c.err)
		}
		if !slices.Equal(history, before) {
			t.Errorf("%s: the history was changed", c.name)
		}
	}
}

// Whoever is told that a removed node cannot come back may go and empty its directory,
// so the text says when that may be done.
func TestARefusalOfAGoneNodeSaysWhatItsDirectoryIsStillGoodFor(t *testing.T) {
	leaves := Record{Member: Member{ID: 9, Weight: 100}, Counter: 4, Removed: true}
	dead := Record{Member: Member{ID: 10, Weight: 100}, Counter: 4, Removed: true, Forgotten: true}
	history := append(historyOf(1, 2, 3, 4), leaves, dead)
	for _, c := range []struct {
		edit Edit
		want string
	}{
		{Edit{Kind: Add, Node: 9, Weight: 50}, "once its INFO shows warning_left empty its data directory"},
		{Edit{Kind: Replace, Node: 2, By: 9}, "once its INFO shows warning_left empty its data directory"},
		{Edit{Kind: Add, Node: 10, Weight: 50}, "is of no more use"},
		{Edit{Kind: Replace, Node: 2, By: 10}, "is of no more use"},
	} {
		_, err := Amend(history, []Edit{c.edit}, 3, Stamp{}, true)
		if !errors.Is(err, ErrMember) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %v, %v: %v, want %q", c.edit.Kind, c.edit.Node, c.edit.By, err, c.want)
		}
	}
}

// errAny stands for an error that has no name.
var errAny = errors.New("any")

func TestReplacementRepeatedChangesNothing(t *testing.T) {
	history := historyOf(1, 2, 3)
	edits := []Edit{{Kind: Replace, Node: 2, By: 6}}
	changed, err := Amend(history, edits, 3, Stamp{}, false)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Amend(Reconcile(history, changed), edits, 3, Stamp{}, false)
	if err != nil || len(again) != 0 {
		t.Errorf("again: %v, %v", again, err)
	}
	// And the newcomer of a newcomer inherits the same place.
	third, err := Amend(Reconcile(history, changed), []Edit{{Kind: Replace, Node: 6, By: 7}}, 3, Stamp{}, false)
	if err != nil || len(third) != 2 || third[1].PlaceID != 2 {
		t.Errorf("%+v, %v", third, err)
	}
}

func TestConcurrentAmendmentsMeetInOneRing(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		history := historyOf(1, 2, 3, 4, 5)
		var sides [][]Record
		for admin := NodeID(1); admin <= 3; admin++ {
			side := history
			for range rng.IntN(4) {
				edit := Edit{Kind: EditKind(1 + rng.IntN(5)), Node: NodeID(1 + rng.IntN(8)), By: NodeID(6 + rng.IntN(3)), Weight: 1 + rng.IntN(5), Zone: "x"}
				changed, err := Amend(side, []Edit{edit}, 2, Stamp{TimeMS: rng.Int64N(3), Admin: admin}, false)
				if err == nil {
					side = Reconcile(side, changed)
				}
			}
			sides = append(sides, side)
		}
		one := mustRing(t, Params{Units: 64, N: 2}, Members(Reconcile(Reconcile(sides[0], sides[1]), sides[2])))
		two := mustRing(t, Params{Units: 64, N: 2}, Members(Reconcile(sides[2], Reconcile(sides[1], sides[0]))))
		if one.Epoch() != two.Epoch() {
			t.Fatalf("seed %d: two rings", seed)
		}
	}
}

func TestPlanAddsUpToTheDifference(t *testing.T) {
	from := mustRing(t, Params{Units: 256}, cluster(0, 5, 3))
	to := mustRing(t, Params{Units: 256}, cluster(0, 7, 3))
	size := func(p int) int64 { return int64(1000 + p) }
	plan := NewPlan(from, to, size)
	owned := func(r *Ring, id NodeID) (n int) {
		for u := range r.Units() {
			if r.Owns(id, u) {
				n++
			}
		}
		return n
	}
	var gained, lost int
	var bytes int64
	for _, s := range plan.Nodes {
		if s.Before != owned(from, s.ID) || s.After != owned(to, s.ID) || s.After-s.Before != s.Gained-s.Lost {
			t.Errorf("%+v: owned %d and then %d", s, owned(from, s.ID), owned(to, s.ID))
		}
		gained, lost, bytes = gained+s.Gained, lost+s.Lost, bytes+s.BytesIn
	}
	if len(plan.Nodes) != 7 || gained != plan.Replicas || gained != lost || bytes != plan.Bytes || bytes < int64(gained)*1000 {
		t.Errorf("%d nodes gain %d and lose %d of %d, %d of %d bytes", len(plan.Nodes), gained, lost, plan.Replicas, bytes, plan.Bytes)
	}
	if plan.ZonesBefore != 3 || plan.ZonesAfter != 3 || plan.BalanceAfter < 0.9 {
		t.Errorf("zones %d and %d, balance %.2f", plan.ZonesBefore, plan.ZonesAfter, plan.BalanceAfter)
	}
	if same := NewPlan(from, from, size); same.Bytes != 0 || len(same.Moves) != 0 {
		t.Errorf("nothing changes, yet %d bytes move", same.Bytes)
	}
}

func TestPlanTellsOfANodeAloneInItsZone(t *testing.T) {
	ms := cluster(0, 8, 2)
	from := mustRing(t, Params{Units: 256}, ms)
	to := mustRing(t, Params{Units: 256}, append(ms, Member{ID: 999, Zone: "alone", Weight: ms[0].Weight}))
	plan := NewPlan(from, to, func(int) int64 { return 0 })
	for _, s := range plan.Nodes {
		if s.Crowded != (s.ID == 999) {
			t.Errorf("%+v", s)
		}
	}
}
