package handoff

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

func TestHintsGoHomeWhenTheirTargetReturns(t *testing.T) {
	inBubble(t, 5, Config{MessageBytes: 100}, func(t *testing.T, r *rig) {
		r.fall(3)
		keys := r.keep(3, 50, "v")
		pass(time.Minute)
		if st := r.status(3); st.State != Waiting || st.Rows != 50 || time.Since(st.Since) != time.Minute {
			t.Errorf("while it is down: %+v", st)
		}
		if n := r.peer(3).sent(); n != 0 {
			t.Fatalf("%d rows were sent to a node that is down", n)
		}
		r.rise(3)
		pass(100 * time.Millisecond)
		r.wantGone(3, keys, "v")
		p := r.peer(3)
		messages, _, most := p.seen()
		if p.sent() != 50 || most != 1 {
			t.Errorf("%d rows sent with %d messages at once, want 50 with 1", p.sent(), most)
		}
		for _, m := range messages {
			if !m.Durable || m.For != 0 || sizeOf(m.Rows) > 100 {
				t.Errorf("a message of %d bytes, durable %v, for %v", sizeOf(m.Rows), m.Durable, m.For)
			}
		}
		pass(2 * time.Second)
		for _, line := range []string{"is back and gets its hints\" target=0000000000000003 rows=50", "are delivered\" target=0000000000000003 rows=50"} {
			if n := strings.Count(r.log.String(), line); n != 1 {
				t.Errorf("the log says %q %d times:\n%s", line, n, r.log.String())
			}
		}
		if st := r.status(3); st.State != Idle || st.DeliveredRows != 50 || st.Failed != 0 || st.Rows != 0 {
			t.Errorf("when all is done: %+v", st)
		}
		if n := r.counter(`handoff_delivered_rows_total`); n != 50 {
			t.Errorf("%d rows counted", n)
		}
	})
}

func TestHintsForALiveTargetGatherAndGo(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		keys := r.keep(2, 3, "v")
		pass(200 * time.Millisecond)
		r.wantGone(2, keys, "v")
		if m, _, _ := r.peer(2).seen(); len(m) != 1 {
			t.Errorf("%d messages for three hints", len(m))
		}
	})
}

func TestALostReplyRepeatsTheDelivery(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		var lost atomic.Int32
		r.peer(3).lose = func(m Message) bool { return len(m.Rows) > 0 && lost.Add(1) <= 2 }
		keys := r.keep(3, 10, "v")
		pass(9 * time.Second)
		if n := r.book.rows(3); n != 10 {
			t.Fatalf("%d of 10 hints are left without any reply", n)
		}
		pass(30 * time.Second)
		r.wantGone(3, keys, "v")
		if n := r.peer(3).sent(); n != 30 {
			t.Errorf("%d rows were sent, want three times 10", n)
		}
		if n := r.counter(`handoff_requeued_rows_total`); n != 20 {
			t.Errorf("%d rows were queued again, want 20", n)
		}
	})
}

func TestACrashBetweenReplyAndDeletionRepeatsTheDelivery(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		r.book.fail(nil, errors.New("rig: the process has ended"), nil)
		keys := r.keep(3, 10, "v")
		pass(150 * time.Millisecond)
		if n := r.peer(3).sent(); n != 10 || r.book.rows(3) != 10 {
			t.Fatalf("%d rows sent, %d hints left: want 10 and 10", n, r.book.rows(3))
		}
		r.end()
		r.book.fail(nil, nil, nil)
		r.begin(Config{})
		pass(time.Second)
		r.wantGone(3, keys, "v")
		if n := r.peer(3).sent(); n != 20 {
			t.Errorf("%d rows were sent, want twice 10", n)
		}
	})
}

func TestAHintThatChangesInFlightIsKept(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		keys := r.keysOf(3, 2)
		var changed atomic.Bool
		r.peer(3).before = func(m Message) error {
			if len(m.Rows) > 0 && !changed.Swap(true) {
				r.book.put(3, keys[1], "new")
			}
			return nil
		}
		r.keep(3, 2, "v")
		pass(140 * time.Millisecond)
		if n := r.book.rows(3); n != 1 {
			t.Fatalf("%d hints are left, want the one that changed", n)
		}
		pass(time.Second)
		r.wantGone(3, keys[1:], "new")
		r.wantGone(3, keys[:1], "v")
	})
}

func TestASenderWaitsForCredit(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		var grant atomic.Int64
		p := r.peer(3)
		p.credit = func() int { return int(grant.Load()) }
		keys := r.keep(3, 40, "v")
		pass(10 * time.Second)
		if p.sent() != 0 || r.book.rows(3) != 40 {
			t.Fatalf("%d rows were sent without credit", p.sent())
		}
		if st := r.status(3); st.State != Waiting || st.Failed != 0 {
			t.Errorf("without credit: %+v", st)
		}
		if _, asked, _ := p.seen(); asked < 40 || asked > 110 {
			t.Errorf("asked %d times in 10 s, at pauses of 100 to 200 ms", asked)
		}
		grant.Store(30)
		pass(10 * time.Second)
		r.wantGone(3, keys, "v")
		messages, _, _ := p.seen()
		for _, m := range messages {
			if n := sizeOf(m.Rows); n > 30 {
				t.Errorf("a message of %d bytes on a credit of 30", n)
			}
		}
	})
}

func TestARowAboveTheCreditGoesAlone(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		p := r.peer(3)
		p.credit = func() int { return 10 }
		keys := r.keep(3, 5, strings.Repeat("v", 100))
		pass(time.Second)
		r.wantGone(3, keys, strings.Repeat("v", 100))
		if m, _, _ := p.seen(); len(m) != 5 {
			t.Errorf("%d messages for 5 large rows", len(m))
		}
	})
}

// poison makes a peer refuse messages with one of the keys.
func poison(p *peer, keys ...string) {
	p.before = func(m Message) error {
		for _, row := range m.Rows {
			if slices.Contains(keys, string(row.Key)) {
				return fmt.Errorf("%w: rig", ErrRejected)
			}
		}
		return nil
	}
}

func TestARowThatIsRefusedStaysAndHidesNoOther(t *testing.T) {
	for _, bad := range []int{1, 40} { // more than MaxRejected, too
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			keys := r.keysOf(3, 100)
			p := r.peer(3)
			poison(p, keys[:bad]...)
			r.keep(3, 100, "v")
			pass(time.Minute)
			if n := r.book.rows(3); n != bad {
				t.Fatalf("%d hints are left, want the %d refused ones", n, bad)
			}
			if st := r.status(3); st.State != BackingOff || st.Failed < int64(bad) || st.DeliveredRows != int64(100-bad) {
				t.Errorf("%d refused: %+v", bad, st)
			}
			if n := r.counter(`handoff_rejected_rows_total`); n < uint64(bad) {
				t.Errorf("%d refusals counted", n)
			}
			if n := strings.Count(r.log.String(), "rejects a row"); n != 1 {
				t.Errorf("%d refused rows are logged %d times:\n%s", bad, n, r.log.String())
			}
			before, _, _ := p.seen()
			pass(10 * time.Minute)
			after, _, _ := p.seen()
			if n := len(after) - len(before); n == 0 || n > 20*40*2*bad {
				t.Errorf("%d messages in ten minutes for %d refused rows", n, bad)
			}
			p.set(func() { p.before = nil })
			pass(time.Minute)
			r.wantGone(3, keys, "v")
			if !strings.Contains(r.log.String(), "stuck=false") {
				t.Error("the log does not say that all rows go again")
			}
		})
	}
}

func TestFailuresBackOffAndAReturnEndsTheWait(t *testing.T) {
	inBubble(t, 5, Config{MaxBackoff: 5 * time.Minute}, func(t *testing.T, r *rig) {
		p := r.peer(3)
		var count atomic.Int64
		p.before = func(Message) error { count.Add(1); return errTimeout }
		keys := r.keep(3, 3, "v")
		pass(10 * time.Minute)
		tries := count.Load()
		if tries < 8 || tries > 20 {
			t.Errorf("%d tries in ten minutes", tries)
		}
		if st := r.status(3); st.State != BackingOff || st.Failed != tries {
			t.Errorf("after %d tries: %+v", tries, st)
		}
		if n := strings.Count(r.log.String(), "backs off"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		p.set(func() { p.before = nil })
		r.rise(3)
		pass(10 * time.Millisecond)
		r.wantGone(3, keys, "v")
	})
}

func TestFewTargetsAreServedAtOnceAndAllInTurn(t *testing.T) {
	inBubble(t, 20, Config{MaxTargets: 3, MessageBytes: 1, Turn: time.Second}, func(t *testing.T, r *rig) {
		var kept [][]string
		for id := ring.NodeID(2); id < 12; id++ {
			r.peer(id).delay = 100 * time.Millisecond
			kept = append(kept, r.keep(id, 50, "v"))
		}
		for range 100 {
			pass(100 * time.Millisecond)
			delivering := 0
			for _, st := range r.sender.Status() {
				if st.State == Delivering {
					delivering++
				}
			}
			if delivering > 3 {
				t.Fatalf("%d targets are served at once", delivering)
			}
		}
		for id := ring.NodeID(2); id < 12; id++ {
			if n := r.peer(id).sent(); n == 0 || n == 50 {
				t.Errorf("node %v got %d of 50 rows in ten seconds", id, n)
			}
			if _, _, most := r.peer(id).seen(); most != 1 {
				t.Errorf("node %v got %d messages at once", id, most)
			}
		}
		pass(time.Minute)
		for i, keys := range kept {
			r.wantGone(ring.NodeID(i+2), keys, "v")
		}
	})
}

func TestHintsReachThoseWhoAreToOwnTheKeysToo(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		r.fall(5)
		keys := r.keep(5, 60, "v")
		pass(5 * time.Second)
		r.setBeside(1, 2, 3, 4, 5, 6, 7)
		r.fall(6)
		r.sender.Wake()
		pass(5 * time.Second)
		if n := r.book.rows(5); n != 60 {
			t.Fatalf("%d of 60 hints are left for a node that is down", n)
		}
		r.rise(5)
		pass(time.Minute)
		gained := map[ring.NodeID]int{}
		live := r.Live()
		for _, k := range keys {
			r.wantGone(5, []string{k}, "v")
			for _, id := range live.Gained(nil, live.Partition(ring.SlotOf([]byte(k)))) {
				gained[id]++
				switch id {
				case self:
				case 6:
					if r.book.get(6, k) != "v" {
						t.Errorf("%s is not kept for node 6, which is to own it and down", k)
					}
				default:
					r.wantGone(id, []string{k}, "v")
				}
			}
		}
		if gained[6] == 0 || gained[7] == 0 {
			t.Fatalf("nothing moves to the new nodes: %v", gained)
		}
		r.rise(6)
		pass(time.Minute)
		for _, id := range []ring.NodeID{5, 6, 7} {
			if n := r.book.rows(id); n != 0 {
				t.Errorf("%d hints for node %v", n, id)
			}
		}
	})
}

func TestHintsOfANodeThatLeftGoToTheOwners(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		for _, id := range []ring.NodeID{2, 3, 4, 5} {
			r.fall(id) // so that the owners' hints can be looked at
		}
		keys := r.keep(5, 60, "v")
		pass(5 * time.Second)
		r.book.fail(errors.New("rig: disk full"), nil, nil)
		r.setRing(1, 2, 3, 4)
		r.sender.Wake()
		pass(5 * time.Second)
		if n := r.book.rows(5); n != 60 {
			t.Fatalf("%d of 60 hints are left, and they are nowhere else", n)
		}
		r.book.fail(nil, nil, nil)
		pass(time.Minute)
		current := r.Live().Base
		for _, k := range keys {
			for _, owner := range current.Owners(current.Partition(ring.SlotOf([]byte(k)))) {
				into := owner
				if owner == self {
					into = 0
				}
				if r.book.get(into, k) != "v" {
					t.Errorf("%s is not kept for its owner %v", k, owner)
				}
			}
		}
		if n := r.book.rows(5); n != 0 {
			t.Errorf("%d hints for the node that left", n)
		}
		if n := r.counter(`handoff_moved_rows_total`); n != 60 {
			t.Errorf("%d rows were moved", n)
		}
		for _, id := range []ring.NodeID{2, 3, 4} {
			r.rise(id)
		}
		pass(5 * time.Second)
		for _, k := range keys {
			for _, owner := range current.Owners(current.Partition(ring.SlotOf([]byte(k)))) {
				if owner != self {
					r.wantGone(owner, []string{k}, "v")
				}
			}
		}
	})
}

func TestHintsForThisNodeBecomeItsOwn(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		keys := r.keep(self, 10, "v")
		pass(time.Second)
		if n := r.book.rows(self); n != 0 {
			t.Errorf("%d hints for this node itself", n)
		}
		for _, k := range keys {
			if r.book.get(0, k) != "v" {
				t.Errorf("%s is not among the own rows", k)
			}
		}
		r.book.mu.Lock()
		defer r.book.mu.Unlock()
		for _, m := range r.book.merges {
			if !strings.HasPrefix(m, "0/") {
				t.Errorf("merged into %s", m)
			}
		}
	})
}

func TestHintsForThisNodeThatComeLaterAreMovedToo(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		keys := r.keysOf(self, 2)
		r.book.mu.Lock()
		r.book.onMerge = func() { r.book.putLocked(self, keys[1], []byte("v")) } // while the first is moved
		r.book.mu.Unlock()
		r.keep(self, 1, "v")
		pass(10 * time.Second)
		if n := r.book.rows(self); n != 0 || r.book.get(0, keys[1]) != "v" {
			t.Errorf("%d hints for this node itself", n)
		}
	})
}

func TestATurnEndsInTheMiddleOfAPage(t *testing.T) {
	inBubble(t, 20, Config{MaxTargets: 1, Turn: time.Second}, func(t *testing.T, r *rig) {
		for id := ring.NodeID(2); id < 5; id++ {
			p := r.peer(id)
			p.delay, p.credit = 100*time.Millisecond, func() int { return 1 }
			r.keep(id, 100, "v") // a page, and a message each
		}
		pass(6 * time.Second)
		for id := ring.NodeID(2); id < 5; id++ {
			if n := r.peer(id).sent(); n < 5 || n > 40 {
				t.Errorf("node %v got %d rows in six seconds for three", id, n)
			}
		}
		pass(time.Minute)
		for id := ring.NodeID(2); id < 5; id++ {
			r.wantGone(id, r.keysOf(id, 100), "v")
			if n := r.peer(id).sent(); n != 100 {
				t.Errorf("node %v got %d rows, want each once", id, n)
			}
		}
	})
}

func TestAnUnreadableBookIsTriedAgain(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		r.book.fail(nil, nil, errors.New("rig: input/output error"))
		keys := r.keep(3, 3, "v")
		pass(10 * time.Second)
		if st := r.status(3); st.State != BackingOff || st.Failed == 0 {
			t.Errorf("%+v", st)
		}
		r.book.fail(nil, nil, nil)
		pass(time.Minute)
		r.wantGone(3, keys, "v")
	})
}

func TestADamagedPartOfTheBookIsPassedOver(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		keys := r.keysOf(3, 50)
		slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(ring.SlotOf([]byte(a)), ring.SlotOf([]byte(b))) })
		r.book.mu.Lock()
		r.book.damaged = ring.SlotOf([]byte(keys[20]))
		r.book.mu.Unlock()
		r.keep(3, 50, "v")
		pass(time.Second)
		if n := r.book.rows(3); n == 0 || n > 3 {
			t.Errorf("%d hints are left, want those of one slot", n)
		}
		if st := r.status(3); st.Failed == 0 {
			t.Errorf("%+v", st)
		}
		pass(10 * time.Minute)
		if n := r.counter(`handoff_unreadable_rows_total`); n < 20 || n > 100 {
			t.Errorf("looked %d times in ten minutes", n)
		}
		if n := strings.Count(r.log.String(), "stuck=true"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

func TestAStopWaitsForNoReply(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		r.peer(3).delay = 5 * time.Second
		r.keep(3, 3, "v")
		pass(time.Second)
		began := time.Now()
		r.end()
		if took := time.Since(began); took != 0 {
			t.Errorf("stopping took %v", took)
		}
		if n := r.book.rows(3); n != 3 {
			t.Errorf("%d of 3 hints are left", n)
		}
		pass(10 * time.Second) // the replies come, and nobody waits
		r.begin(Config{})
	})
}

func TestWaitsGrowToABound(t *testing.T) {
	for _, c := range []struct {
		fails int
		want  time.Duration
	}{{1, 100}, {2, 200}, {3, 400}, {4, 800}, {5, 1000}, {6, 1000}, {1000, 1000}} {
		if got := backoff(c.fails, 100, 1000); got != c.want {
			t.Errorf("after %d failures %d, want %d", c.fails, got, c.want)
		}
	}
}

func TestFitTakesWhatTheCreditHolds(t *testing.T) {
	row := func(n int) Row { return Row{Record: make([]byte, n)} }
	rows := []Row{row(10), row(20), row(30)}
	for credit, want := range map[int]int{1: 1, 10: 1, 29: 1, 30: 2, 59: 2, 60: 3, 1000: 3} {
		if got := fit(rows, credit); got != want {
			t.Errorf("%d rows fit into %d bytes, want %d", got, credit, want)
		}
	}
}

func TestRowsAreSortedByWhoOwnsThemNow(t *testing.T) {
	current := liveOf(ringOf(t, 1, 2, 3, 4, 5))
	for slot := range ring.Slot(2000) {
		owners := current.Owners(nil, current.Partition(slot))
		for target := ring.NodeID(1); target < 7; target++ {
			stay, moving := sortRows(current, target, self, []Row{{Slot: slot}})
			owned := slices.Contains(owners, target)
			switch {
			case owned && target != self:
				if len(stay) != 1 || len(moving) != 0 {
					t.Fatalf("slot %d of owner %v: %d stay, %d move", slot, target, len(stay), len(moving))
				}
			case len(stay) != 0 || len(moving) != 1:
				t.Fatalf("slot %d, target %v: %d stay, %d move", slot, target, len(stay), len(moving))
			case owned && !slices.Equal(moving[0].owners, []ring.NodeID{self}):
				t.Fatalf("slot %d of this node goes to %v", slot, moving[0].owners)
			case !owned && !slices.Equal(moving[0].owners, owners):
				t.Fatalf("slot %d goes to %v, owners are %v", slot, moving[0].owners, owners)
			}
		}
	}
}
