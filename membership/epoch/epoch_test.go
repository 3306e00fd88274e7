package epoch

import (
	"slices"
	"testing"

	"github.com/redynamo/redynamo/membership/ring"
)

func build(ms []ring.Member) (*ring.Ring, error) { return ring.New(ring.Params{Units: 64, N: 3}, ms) }

func member(id ring.NodeID, counter uint64) ring.Record {
	return ring.Record{Member: ring.Member{ID: id, Weight: 1}, Counter: counter, Admin: id}
}

// cluster makes settled members 1..n that know each other's trackers.
func cluster(n int) []State {
	var records []ring.Record
	for i := range n {
		records = append(records, member(ring.NodeID(i+1), 1))
	}
	var states []State
	for i := range n {
		states = append(states, Settled(ring.NodeID(i+1), records))
	}
	return talk(states)
}

// talk lets all tell all twice.
func talk(states []State) []State {
	for range 2 {
		for i := range states {
			for k := range states {
				states[i] = states[i].Merge(states[k])
			}
		}
	}
	return states
}

func mustView(t *testing.T, s State) *View {
	t.Helper()
	v, err := s.View(build)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOneTransitionTakesItsStepsInOrder(t *testing.T) {
	states := cluster(4)
	old := states[0].Target().ID()
	joiner := New(5, nil).Merge(states[0])
	states = talk(append(states, joiner))
	states[0] = states[0].Amend([]ring.Record{member(5, 1)})
	states = talk(states)
	target := states[0].Target().ID()
	number := states[0].number

	advance := func(l Local) {
		for i := range states {
			states[i] = states[i].Advance(l)
		}
		states = talk(states)
	}
	advance(Local{Drained: number - 1})
	if states[0].Tracker(1).Ack == target {
		t.Fatal("acked while a write that does not know the target runs")
	}
	advance(Local{Drained: 1 << 30, Dropping: true})
	if states[0].Tracker(1).Ack == target {
		t.Fatal("acked while rows are dropped")
	}
	if mustView(t, states[4]).Coordinate {
		t.Fatal("the joiner coordinates before anybody waits for it")
	}
	advance(Local{Drained: 1 << 30})
	advance(Local{Drained: 1 << 30})
	v := mustView(t, states[0])
	if v.Transfer.Target != target || v.Stamp.Base != old || !mustView(t, states[4]).Coordinate {
		t.Fatalf("after all acks: %+v", v)
	}
	advance(Local{Drained: 1 << 30, Sent: old})
	if states[0].Tracker(1).Sync == target {
		t.Fatal("synced by what was sent for another target")
	}
	states[1] = states[1].Advance(Local{Sent: target})
	states = talk(states)
	if states[0] = states[0].Advance(Local{}); states[0].Base().ID() != old {
		t.Fatal("reads from the target before all synced")
	}
	for range 4 {
		advance(Local{Drained: 1 << 30, Sent: target})
	}
	for _, s := range states {
		if v := mustView(t, s); !v.Settled || v.Stamp.Base != target || !v.Coordinate {
			t.Errorf("at the end: %v", s)
		}
	}
}

// Who lost a record that was its own, and makes it anew, gives it the counter of the
// one that it replaces: the epochs of before and after have one sum.
func TestAReadByALiveEpochIsTakenThoughItsSumIsThatOfTheOneBefore(t *testing.T) {
	states := cluster(4)
	old := states[0].Target().ID()
	again := member(4, 1)
	again.TimeMS = 1
	states[3] = states[3].Amend([]ring.Record{again})
	states = talk(states)
	target := states[0].Target().ID()
	if target == old || target.Sum != old.Sum {
		t.Fatalf("a record made anew leads from %v to %v", old, target)
	}
	turned := map[ID]int{}
	for range 20 {
		for i := range states {
			if i == 3 && len(turned) > 1 {
				continue // it is away once some of the others read by the target
			}
			states[i] = states[i].Advance(Local{Drained: 1 << 30, Sent: states[i].granted})
			states = talk(states)
			for _, s := range states {
				for _, by := range states {
					stamp := mustView(t, by).Stamp
					turned[stamp.Base]++
					if mustView(t, s).Stale(by.self, stamp, true) {
						t.Fatalf("%v refuses a read by %v, of %v", s, stamp, by)
					}
				}
			}
		}
	}
	if len(turned) != 2 {
		t.Errorf("reads went by %d epochs, want 2", len(turned))
	}
}

func TestOvertakenTargetIsLetGoUnlessItWasSynced(t *testing.T) {
	s := cluster(3)[0]
	for i := range 20 {
		s = s.Amend([]ring.Record{member(ring.NodeID(10+i), 1)}).Advance(Local{Drained: 1 << 30})
	}
	if len(s.live) != 2 {
		t.Errorf("%d live epochs after 20 joins that nobody acked", len(s.live))
	}
	s = s.sync().Amend([]ring.Record{member(50, 1)})
	if len(s.live) != 3 {
		t.Errorf("%d live epochs after a synced target was overtaken, want 3", len(s.live))
	}
}

func TestForgottenNodeIsNeitherWaitedForNorHeard(t *testing.T) {
	states := cluster(5)
	dead := states[4]
	v := mustView(t, states[0])
	if v.Stale(5, mustView(t, dead).Stamp, false) {
		t.Fatal("a member is refused")
	}
	gone := member(5, 2)
	gone.Removed, gone.Forgotten = true, true
	s := states[0].Amend([]ring.Record{gone})
	if slices.Contains(s.Required(), 5) {
		t.Error("the dead is waited for")
	}
	if v := mustView(t, s); !v.Stale(5, mustView(t, dead).Stamp, false) || v.Stale(2, mustView(t, states[1]).Stamp, true) {
		t.Error("the forgotten node is heard, or another is not")
	}
	// A later change of somebody who does not know does not bring it back.
	if s = s.Amend([]ring.Record{member(5, 9)}); !s.Target().forgot(5) {
		t.Error("a greater counter takes the forgetting back")
	}
	if v := mustView(t, dead.Merge(s)); !v.Forgotten || v.Coordinate {
		t.Error("the returned node does not know that it is forgotten")
	}
}

func TestRemovedJoinerIsWaitedForThoughTheBaseNeverKnewIt(t *testing.T) {
	s := cluster(3)[0].Amend([]ring.Record{member(9, 1)})
	gone := member(9, 2)
	gone.Removed = true
	if s = s.Amend([]ring.Record{gone}); !slices.Contains(s.Required(), 9) {
		t.Error("it may coordinate, and nobody waits for it")
	}
}

// TestWhoHasLeftReadsByABaseThatNobodyHasLeft has node 5 leave, and then the others begin
// to read elsewhere without waiting for it.
func TestWhoHasLeftReadsByABaseThatNobodyHasLeft(t *testing.T) {
	advance := func(states []State) {
		for i, s := range states {
			states[i] = s.Advance(Local{Drained: 1 << 30, Sent: s.Target().ID()})
		}
	}
	states := cluster(5)
	gone := member(5, 2)
	gone.Removed = true
	states[0] = states[0].Amend([]ring.Record{gone})
	relayed := false
	for range 10 {
		states = talk(states)
		advance(states)
		v := mustView(t, states[4])
		if v.Relay == v.Coordinate {
			t.Errorf("a node that leaves relays: %v, and coordinates: %v", v.Relay, v.Coordinate)
		}
		relayed = relayed || v.Relay
		for i, s := range states {
			if stamp := v.Stamp; v.Relay && stamp.Base == s.Base().ID() && mustView(t, s).Stale(5, stamp, true) {
				t.Errorf("node %d refuses to be read by the base that it reads by", i+1)
			}
		}
	}
	if !relayed || !states[4].Out() {
		t.Fatalf("it has not left: %v", states[4])
	}
	base := states[4].Base().ID()
	changed := member(2, 2)
	changed.Weight = 2
	states[0] = states[0].Amend([]ring.Record{changed})
	states[4] = states[4].Merge(states[0])
	left := mustView(t, states[4]).Stamp
	seen := false
	for range 10 { // node 5 hears no more than that
		states = append(talk(states[:4]), states[4])
		for i := range 4 {
			v := mustView(t, states[i])
			begun := v.Stamp.Base != base
			if got := v.Stale(5, left, true); got != begun {
				t.Errorf("node %d refuses it: %v, and reads elsewhere: %v", i+1, got, begun)
			}
			if begun && v.floor == base {
				seen = true
				if v.Stale(2, left, true) {
					t.Errorf("node %d refuses a member that is waited for", i+1)
				}
			}
			states[i] = states[i].Advance(Local{Drained: 1 << 30, Sent: states[i].Target().ID()})
		}
	}
	if !seen || !states[0].Settled() || states[0].Base().ID() == base {
		t.Errorf("the second change: seen on its way %v, in the end %v", seen, states[0])
	}
	if behind := states[4].Merge(states[0]); mustView(t, behind).Stamp.Base != states[0].Base().ID() || !mustView(t, behind).Relay {
		t.Errorf("what it hears does not bring it back: %v", behind)
	}
}

func TestRestoredDirectoryCoordinatesNothingUntilAdmitted(t *testing.T) {
	states := cluster(3)
	backup := states[0]
	states[0] = states[0].Amend([]ring.Record{member(9, 1)}).Advance(Local{Drained: 1 << 30})
	states = talk(states)
	back := backup.Merge(states[1])
	if back.admitted || back.Tracker(1).Version <= states[0].Tracker(1).Version {
		t.Errorf("restored: %v", back)
	}
}

func TestHintStaysWhileItsOwnerMayHaveHandedOver(t *testing.T) {
	states := cluster(5)
	gone := member(5, 2)
	gone.Removed = true
	s := states[0].Amend([]ring.Record{gone})
	v := mustView(t, s)
	for p := range 64 {
		for _, owner := range v.Read().Owners(p) {
			if v.MayDropHint(p, owner) != v.Target().Owns(owner, p) {
				t.Errorf("partition %d, hint for %v: may drop %v", p, owner, v.MayDropHint(p, owner))
			}
		}
		if v.Read().Owns(5, p) && len(v.Recipients(nil, p, 5)) != 3 {
			t.Errorf("what counts as the copy of the leaving node is offered to %v", v.Recipients(nil, p, 5))
		}
	}
}

// Of targets that a node does not know, one that is over makes the sender stale, and any
// other shows that the node is behind, if nothing else does.
func TestWhoKnowsOfATargetIsAheadOfWhoDoesNot(t *testing.T) {
	states := cluster(5)
	old, before := mustView(t, states[0]), Settled(2, states[1].Base().Records()[1:])
	newer := states[0].Amend([]ring.Record{member(6, 1)})
	aside := states[1].Amend([]ring.Record{member(5, 2)})
	v := mustView(t, newer)
	for name, c := range map[string]struct {
		by     *View
		stamp  Stamp
		behind bool
	}{
		"the same":                    {old, old.Stamp, false},
		"one that it reads by":        {v, old.Stamp, false},
		"its own target":              {v, v.Stamp, false},
		"one above":                   {old, v.Stamp, true},
		"one aside":                   {v, mustView(t, aside).Stamp, true},
		"one that is over":            {old, mustView(t, before).Stamp, false},
		"none, as of an old exchange": {old, Stamp{}, false},
	} {
		if got := c.by.Behind(c.stamp); got != c.behind {
			t.Errorf("%s: behind %v", name, got)
		}
		if c.behind && c.by.Stale(2, c.stamp, false) {
			t.Errorf("%s: stale as well", name)
		}
	}
}

func TestWritesOfASettledViewDoNotAllocate(t *testing.T) {
	v := mustView(t, cluster(5)[0])
	dst := make([]*ring.Ring, 0, MaxLive)
	stamp := v.Stamp
	allocs := testing.AllocsPerRun(100, func() {
		dst = v.Writes(dst[:0], 7)
		_ = v.Stale(2, stamp, true)
	})
	if allocs != 0 || len(dst) != 1 {
		t.Errorf("%v allocations, %d sets", allocs, len(dst))
	}
}

func TestFirstNodeMakesARingOfItself(t *testing.T) {
	s := New(1, []ring.Record{member(1, 1)})
	s = s.Advance(Local{Drained: 9})
	s = s.Advance(Local{Drained: 9, Sent: s.Target().ID()}).Advance(Local{Drained: 9})
	if v := mustView(t, s); !v.Settled || !v.Coordinate {
		t.Errorf("alone: %v", s)
	}
}

// Records that an administrator made are nobody's base, even if they are above it.
func TestAmendedRecordsAreHandedOverToBeforeTheyAreReadFrom(t *testing.T) {
	s := cluster(1)[0]
	base := s.Base().ID()
	if s = s.Amend([]ring.Record{member(1, 2)}); s.Base().ID() != base || !s.admitted {
		t.Errorf("amended: %v", s)
	}
}

func TestRecordsBeyondTheLimitAreRefused(t *testing.T) {
	s := cluster(1)[0]
	var many []ring.Record
	for i := range ring.MaxMembers {
		many = append(many, member(ring.NodeID(2+i), 1))
	}
	if !s.Amend(many).Equal(s) || !s.Merge(Settled(9, many)).Equal(s) {
		t.Error("more members than a ring can have were taken in")
	}
}

func TestViewTellsWhoIsWaitedFor(t *testing.T) {
	states := cluster(3)
	if v := mustView(t, states[0]); len(v.Waits) != 0 {
		t.Fatalf("settled, and waits for %v", v.Waits)
	}
	states = talk(append(states, New(4, nil).Merge(states[0])))
	states[0] = states[0].Amend([]ring.Record{member(4, 1)})
	states = talk(states)
	text := func(i int) string {
		b := ""
		for _, p := range mustView(t, states[i]).Waits {
			b += p.Node.String()[15:]
			for _, step := range []struct {
				done bool
				name string
			}{{p.Acked, "a"}, {p.Synced, "s"}, {p.Read, "r"}} {
				if step.done {
					b += step.name
				}
			}
			b += " "
		}
		return b
	}
	if got := text(1); got != "1 2 3 4 " {
		t.Errorf("at first: %q", got)
	}
	states[2] = states[2].Advance(Local{Drained: 1 << 30})
	states = talk(states)
	if got := text(1); got != "1 2 3a 4 " {
		t.Errorf("when one has acked: %q", got)
	}
	target := states[0].Target().ID()
	for i := range states {
		states[i] = states[i].Advance(Local{Drained: 1 << 30})
	}
	states = talk(states)
	for i := range states[:3] {
		states[i] = states[i].Advance(Local{Drained: 1 << 30, Sent: target})
	}
	states = talk(states)
	if got := text(1); got != "1as 2as 3as 4a " {
		t.Errorf("when all but one have handed over: %q", got)
	}
	states[3] = states[3].Advance(Local{Drained: 1 << 30, Sent: target})
	states = talk(states)
	states[0] = states[0].Advance(Local{Drained: 1 << 30, Sent: target})
	if got := text(0); got != "1asr 2as 3as 4asr " {
		t.Errorf("when two read there: %q", got)
	}
}

// TestWhoLeavesGoesOnceAMemberHasHeardItsLastWord has two nodes leave at once, and what
// they say last stay between the two.
func TestWhoLeavesGoesOnceAMemberHasHeardItsLastWord(t *testing.T) {
	states := cluster(6)
	for _, id := range []ring.NodeID{5, 6} {
		gone := member(id, 2)
		gone.Removed = true
		states[0] = states[0].Amend([]ring.Record{gone})
	}
	leavers := func() []State { return states[4:] }
	for range 20 { // the leavers hear the members' news at once, and the members theirs in the next round
		for i := range states {
			for _, s := range states {
				states[i] = states[i].Merge(s)
			}
			states[i] = states[i].Advance(Local{Drained: 1 << 30, Sent: states[i].Target().ID()})
		}
		if leavers()[1].Leaving() {
			break
		}
	}
	states[4] = states[4].Merge(states[5]).Advance(Local{Drained: 1 << 30})
	talk(leavers())
	for i, s := range leavers() {
		if !s.Leaving() || s.Out() {
			t.Errorf("leaver %d may go: %v, is leaving: %v; no member has heard that it reads no more\n%v", i, s.Out(), s.Leaving(), states[0])
		}
	}
	for i := range 4 {
		if len(states[i].live) == 1 {
			t.Fatalf("member %d waits for nobody, and this tests nothing: %v", i+1, states[i])
		}
	}
	talk(states)
	for i, s := range states {
		states[i] = s.Advance(Local{Drained: 1 << 30})
	}
	talk(states)
	for i, s := range leavers() {
		if s.Leaving() || !s.Out() {
			t.Errorf("leaver %d may go: %v, is leaving: %v; all have heard all\n%v", i, s.Out(), s.Leaving(), states[0])
		}
	}
}
