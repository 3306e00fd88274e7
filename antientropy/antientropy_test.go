package antientropy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// exchangeAll runs one exchange from a to b.
func exchangeAll(t *testing.T, a, b *host) Tally {
	t.Helper()
	tally, err := a.x.Exchange(t.Context(), b.id, 0, ring.Slots-1)
	if err != nil {
		t.Fatal(err)
	}
	return tally
}

func TestOneExchangeMakesBothSidesEqualAndMovesOnlyWhatDiffers(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		bubble.Test(t, func(t *testing.T) {
			a, b := pair(t, Config{RowBytes: 1 + rng.IntN(100), ListKeys: 1 + rng.IntN(50), CellBatch: 1 + rng.IntN(20)})
			pulls, pushes := 0, 0
			for i := range 300 {
				key := fmt.Sprintf("%s%d", []string{"k", "@", "="}[min(rng.IntN(20), 2)], i)
				if key[0] == '=' && i > 20 {
					continue // few keys share one position
				}
				a.put(key, 1)
				b.put(key, 1)
				switch rng.IntN(8) {
				case 0: // only here
					a.put(key+"a", 2)
					pushes++
				case 1: // only there
					b.put(key+"b", 2)
					pulls++
				case 2: // newer here
					a.put(key, 3)
					pulls, pushes = pulls+1, pushes+1
				case 3: // newer there
					b.put(key, 3)
					pulls++
				case 4: // concurrent
					a.put(key, 4)
					b.put(key, 5)
					pulls, pushes = pulls+1, pushes+1
				}
			}
			tally := exchangeAll(t, a, b)
			if bad := a.world.unequal(); len(bad) > 0 {
				t.Fatalf("seed %d: %d keys differ after an exchange: %v", seed, len(bad), bad[0])
			}
			// Keys of one position travel together: a few more may be pulled.
			if tally.Pulled < int64(pulls) || tally.Pulled > int64(pulls)+30 || tally.Pushed != int64(pushes) {
				t.Errorf("seed %d: pulled %d and pushed %d rows, %d and %d differed", seed, tally.Pulled, tally.Pushed, pulls, pushes)
			}
			again := exchangeAll(t, a, b)
			if again.Differing != 0 || again.Pulled+again.Pushed != 0 || again.Partitions != 1024 {
				t.Errorf("seed %d: a second exchange found %+v", seed, again)
			}
		})
	}
}

func TestEqualSidesReadNoRows(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{})
		for i := range 1000 {
			a.put(fmt.Sprint("k", i), 1)
			b.put(fmt.Sprint("k", i), 1)
		}
		if _, err := a.x.turnOf(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		if b.calls["nodes"] != 1 || b.calls["list"]+b.calls["fetch"]+b.calls["deliver"] != 0 {
			t.Errorf("questions: %v", b.calls)
		}
	})
}

// TestOnlyWholeSessionsTellOfContexts has rows with equal values of which one side, or
// each, knows more of the past.
func TestOnlyWholeSessionsTellOfContexts(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{ListKeys: 10, CellBatch: 7})
		key := func(i int) string { return fmt.Sprintf("%s%d", []string{"k", "@"}[i%2], i) }
		for i := range 100 {
			a.put(key(i), 1)
			b.put(key(i), 1)
			a.put(key(i), []uint32{past + 1, past + 2}[:i%3]...)
			b.put(key(i), []uint32{past + 3, past + 4}[:i/3%3]...)
		}
		differing := func() (n int) {
			for i := range 100 {
				if !maps.Equal(a.rows[key(i)], b.rows[key(i)]) {
					n++
				}
			}
			return n
		}
		before := differing()
		part := a.world.ring.Partition(0)
		if tally, err := a.x.turnOf(t.Context(), b.id); err != nil || tally.Differing != 0 || differing() != before || before == 0 {
			t.Errorf("a turn: %+v, %v; %d of %d rows differ as before", tally, err, differing(), before)
		}
		if _, ok := a.x.WholeSession(part, b.id); ok {
			t.Error("a turn proves that contexts agree")
		}
		began := time.Now()
		tally := exchangeAll(t, a, b)
		if took := time.Since(began); took >= 2*a.x.cfg.Settle {
			t.Errorf("a whole session waits %v for writes under way", took)
		}
		if n := differing(); n != 0 || tally.Pulled > int64(before) || tally.Pushed > int64(before) {
			t.Errorf("after a whole session %d rows of %d differ; %+v", n, before, tally)
		}
		if at, ok := a.x.WholeSession(part, b.id); !ok || !at.Equal(began) {
			t.Errorf("the whole session of %v is entered as of %v, %v", began, at, ok)
		}
		if _, ok := b.x.WholeSession(part, a.id); ok {
			t.Error("the side that was asked takes it for a whole session of its own")
		}
		if tally = exchangeAll(t, a, b); tally.Pulled+tally.Pushed != 0 {
			t.Errorf("a second whole session found %+v", tally)
		}
	})
}

// TestPeerThatCannotTellOfContextsIsAskedForRows: it answers the state hashes of a turn.
func TestPeerThatCannotTellOfContextsIsAskedForRows(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{})
		b.deaf = true
		a.put("here", 1, past+1)
		b.put("here", 1)
		a.put("there", 1)
		b.put("there", 1, past+1)
		exchangeAll(t, a, b)
		for _, key := range []string{"here", "there"} {
			if !a.rows[key][past+1] || !b.rows[key][past+1] {
				t.Errorf("%s: %v here, %v there", key, a.rows[key], b.rows[key])
			}
		}
	})
}

func TestWritesUnderWayAreNotMoved(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{Settle: time.Second})
		a.put("k", 1)
		time.AfterFunc(500*time.Millisecond, func() { b.put("k", 1) }) // it was on its way
		if tally := exchangeAll(t, a, b); tally.Differing != 1 || tally.Pulled+tally.Pushed != 0 {
			t.Errorf("moved %+v", tally)
		}
	})
}

func TestDeliveriesWaitForCredit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{RowBytes: 10, Settle: time.Millisecond})
		for i := range 50 {
			a.put(fmt.Sprint("k", i), 1)
		}
		b.credits = []int{0, 0, 0, 1}
		began := time.Now()
		exchangeAll(t, a, b)
		if bad := a.world.unequal(); len(bad) > 0 {
			t.Errorf("differ: %v", bad)
		}
		if waited := time.Since(began); waited < creditPause+2*creditPause+4*creditPause {
			t.Errorf("waited only %v", waited)
		}
	})
}

func TestRowsAreReadAfterTheWaitAndNotBefore(t *testing.T) {
	var a *host
	waits := 0
	pace := func(context.Context) (func(time.Duration), error) {
		waits++
		a.put("k", 100) // while this side waits for its turn
		return func(time.Duration) {}, nil
	}
	var b *host
	a, b = pair(t, Config{Settle: time.Nanosecond, Pace: pace})
	a.put("k", 1)
	if _, err := a.x.Exchange(t.Context(), b.id, 0, ring.Slots-1); err != nil {
		t.Fatal(err)
	}
	if waits == 0 || b.state("k") != a.state("k") {
		t.Errorf("after %d waits the other side was sent what was read before them", waits)
	}
}

// TestAnExchangeIsMadeOfSmallPieces brings many rows to a host that has none, and has
// every question that costs something asked within a piece that was waited for. Such a
// piece is about as large as it may be, once it is known how full the cells are.
func TestAnExchangeIsMadeOfSmallPieces(t *testing.T) {
	for _, listKeys := range []int{4, 20, 200} {
		bubble.Test(t, func(t *testing.T) {
			begun, ended := 0, 0
			a, b := pair(t, Config{RowBytes: 500, ListKeys: listKeys, Pace: func(context.Context) (func(time.Duration), error) {
				if begun++; begun != ended+1 {
					t.Errorf("piece %d begins when %d have ended", begun, ended)
				}
				return func(time.Duration) { ended++ }, nil
			}})
			const rows, row = 3000, 16 // number, and bytes of one at most
			keys := map[merkle.Cell]int{}
			for i := range rows {
				key := fmt.Sprint("k", i)
				a.put(key, 1)
				keys[merkle.CellOf(position(key))]++
			}
			pieces := map[string]int{} // that such a question was asked in
			last := map[string]int{}
			b.hears = func(what string, cells []merkle.Cell, size int) {
				if what == "begin" || what == "end" || what == "nodes" && begun == 0 {
					return // the frame, and the roots: one question
				}
				if begun != ended+1 {
					t.Errorf("%s is asked outside of any piece", what)
				}
				if what != "nodes" && last[what] == begun {
					t.Errorf("%s is asked twice in piece %d", what, begun)
				}
				if last[what] != begun {
					pieces[what]++
				}
				last[what] = begun
				listed := 0
				for _, cell := range cells {
					listed += keys[cell]
				}
				if size > 500+row || pieces["list"] > 3 && listed > 2*listKeys {
					t.Errorf("%s of %d keys, %d bytes", what, listed, size)
				}
			}
			exchangeAll(t, a, b)
			if bad := a.world.unequal(); len(bad) > 0 || ended != begun {
				t.Errorf("%d keys differ, %d of %d pieces ended", len(bad), ended, begun)
			}
			if lists := pieces["list"]; pieces["nodes"] < 900 || lists > 5+2*rows/listKeys {
				t.Errorf("%d keys at once: %d pieces of trees, %d of lists", listKeys, pieces["nodes"], lists)
			}
		})
	}
}

// TestWaitingForThePeerIsNoWorkOfThisNode has every answer take a second of virtual
// time, in which this side does nothing else that takes any.
func TestWaitingForThePeerIsNoWorkOfThisNode(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		busy, pieces := time.Duration(0), 0
		a, b := pair(t, Config{Settle: time.Nanosecond, Pace: func(context.Context) (func(time.Duration), error) {
			began := time.Now()
			return func(waited time.Duration) { busy, pieces = busy+time.Since(began)-waited, pieces+1 }, nil
		}})
		for i := range 50 {
			a.put(fmt.Sprint("a", i), 1)
			b.put(fmt.Sprint("b", i), 1)
		}
		b.answers = time.Second
		exchangeAll(t, a, b)
		if busy != 0 || pieces < 4 {
			t.Errorf("%d pieces, in which this side was busy for %v", pieces, busy)
		}
	})
}

func TestRowsThatWereFetchedLongAgoAreNotMerged(t *testing.T) {
	for took, merged := range map[time.Duration]bool{time.Second: true, time.Hour: false} {
		bubble.Test(t, func(t *testing.T) {
			a, b := pair(t, Config{Settle: time.Nanosecond})
			b.put("k", 1)
			b.answers = took // and this side is not there to see its deadline pass
			_, err := a.x.Exchange(t.Context(), b.id, 0, ring.Slots-1)
			if is := a.state("k") == b.state("k"); is != merged || merged != (err == nil) {
				t.Errorf("after %v: merged %v, %v", took, is, err)
			}
		})
	}
}

func TestSessionsAreProofsForBothSidesAndOnlyWhenTheySucceed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{})
		p := a.world.ring.Partition(9)
		none := func(when string) {
			t.Helper()
			for _, h := range []*host{a, b} {
				for _, o := range []*host{a, b} {
					if began, ok := h.x.Session(p, o.id); ok {
						t.Errorf("%s: node %v has a session with %v of %v", when, h.id, o.id, began)
					}
				}
			}
		}
		none("at first")
		b.fail = errors.New("no answer")
		if _, err := a.x.Exchange(t.Context(), b.id, 0, ring.Slots-1); !errors.Is(err, b.fail) {
			t.Errorf("exchange: %v", err)
		}
		none("after a failure")
		b.fail = nil
		time.Sleep(time.Second)
		began := time.Now()
		a.put("k", 1)
		exchangeAll(t, a, b) // takes Settle
		for _, c := range []struct{ at, with *host }{{a, b}, {b, a}} {
			if s, ok := c.at.x.Session(p, c.with.id); !ok || !s.Equal(began) {
				t.Errorf("node %v: session with %v began %v %v, want %v", c.at.id, c.with.id, s, ok, began)
			}
		}
		if a.barriers != 1 || b.barriers != 1 {
			t.Errorf("%d and %d barriers", a.barriers, b.barriers)
		}
	})
}

func TestSessionOfAnotherRingOrWithoutBeginningProvesNothing(t *testing.T) {
	a, b := pair(t, Config{})
	r := a.world.ring
	ended := false
	end := func(s Session) {
		ended = false
		b.x.ServeEnd(a.id, s, func(err error) { ended = err == nil })
	}
	s := Session{Epoch: r.Epoch(), Last: ring.Slots - 1}
	end(s)
	begin := func(from ring.NodeID, s Session) {
		if err := b.x.ServeBegin(from, s); err != nil {
			t.Error(err)
		}
	}
	begin(a.id, Session{Epoch: r.Epoch() + 1, Last: s.Last})
	end(Session{Epoch: r.Epoch() + 1, Last: s.Last})
	begin(a.id, Session{Epoch: r.Epoch(), First: 5, Last: s.Last})
	end(s)
	if n := len(b.x.ledger.mu.opened); n != 1 {
		t.Errorf("%d sessions are open after the late end of another", n)
	}
	end(Session{Epoch: r.Epoch(), First: 5, Last: s.Last}.givenUp())
	begin(77, s) // no member
	if _, ok := b.x.Session(0, a.id); ok || !ended {
		t.Errorf("proven %v, ended %v", ok, ended)
	}
	if n := len(b.x.ledger.mu.opened); n != 0 {
		t.Errorf("%d sessions are kept open", n)
	}
	begin(a.id, s)
	end(s)
	if _, ok := b.x.Session(0, a.id); !ok {
		t.Error("a good session is no proof")
	}
}

// The end of a session that nobody waits for any more may come when the next one
// has begun. It says nothing of what happened between the two beginnings.
func TestLateEndOfASessionProvesOnlyWhatItCompared(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, Config{})
		x, s := w.hosts[1].x, Session{Epoch: w.ring.Epoch(), Last: ring.Slots - 1}
		first := time.Now()
		for _, next := range []Session{s, {Epoch: s.Epoch, Last: 5}, s} {
			if err := x.ServeBegin(2, next); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
		}
		x.ServeEnd(2, s, func(error) {})
		if began, ok := x.Session(w.ring.Partition(0), 2); ok && began.After(first) {
			t.Errorf("a session that began at %v is entered as of %v", first, began)
		}
		x.ServeEnd(2, s, func(error) {}) // of the session that began last
		again := time.Now()
		if err := x.ServeBegin(2, s); err != nil {
			t.Fatal(err)
		}
		x.ServeEnd(2, s, func(error) {})
		if began, ok := x.Session(w.ring.Partition(0), 2); !ok || !began.Equal(again) {
			t.Errorf("the session after that began at %v: %v, want %v", began, ok, again)
		}
	})
}

// A session is given up when the one who began it is told to stop, as happens whenever
// the ring changes again in a change. Nobody may have to wait for that.
func TestASessionThatIsGivenUpIsInNobodysWay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, Config{})
		a, b, c := w.hosts[1], w.hosts[2], w.hosts[3]
		a.put("k", 1)
		ctx, cancel := context.WithCancel(t.Context())
		b.hears = func(what string, _ []merkle.Cell, _ int) {
			if what == "nodes" {
				cancel()
			}
		}
		if _, err := a.x.Exchange(ctx, b.id, 0, ring.Slots-1); !errors.Is(err, context.Canceled) {
			t.Fatalf("exchange: %v", err)
		}
		b.hears = nil
		began := time.Now()
		exchangeAll(t, c, b)
		exchangeAll(t, b, a)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the next ones took %v", took)
		}
		if _, ok := b.x.Session(w.ring.Partition(9), a.id); !ok {
			t.Error("no session after that one")
		}
	})
}

// The rings change at the one who asks, then the epochs of before end at the other: what
// that has dropped since must not be taken for rows that it lacks.
func TestASessionGoesByTheEpochsOfItsBeginning(t *testing.T) {
	for _, c := range []struct {
		name  string
		moves func(a, b *host) // when the first rows are listed; with b.mu held
		err   error
		proof bool
	}{
		{"nothing changes", func(a, b *host) {}, nil, true},
		{"they change here, and the others still read by those of before", func(a, b *host) { a.stamp[0]++ }, nil, true},
		{"they are over there", func(a, b *host) { a.stamp[0]++; b.floor[0]++ }, errOver, false},
		{"they are over here", func(a, b *host) {
			a.stamp[0]++
			r, err := ring.New(ring.Params{Units: 1024, N: 2}, []ring.Member{{ID: a.id, Weight: 1}, {ID: b.id, Weight: 2}, {ID: 9, Weight: 3}})
			if err != nil {
				t.Fatal(err)
			}
			a.live = ring.NewLive(r)
		}, nil, false},
	} {
		bubble.Test(t, func(t *testing.T) {
			a, b := pair(t, Config{})
			a.put("k", 1)
			b.put("l", 1)
			asked := false
			b.hears = func(what string, _ []merkle.Cell, _ int) {
				if what == "list" && !asked {
					asked = true
					a.mu.Lock()
					c.moves(a, b)
					a.mu.Unlock()
				}
			}
			_, err := a.x.Exchange(t.Context(), b.id, 0, ring.Slots-1)
			if !errors.Is(err, c.err) || !asked {
				t.Errorf("%s: %v", c.name, err)
			}
			if _, ok := a.x.Session(a.world.ring.Partition(9), b.id); ok != c.proof {
				t.Errorf("%s: a session counts: %v", c.name, ok)
			}
			if _, ok := b.x.Session(a.world.ring.Partition(9), a.id); ok != (c.err == nil) {
				t.Errorf("%s: a session counts at the other side: %v", c.name, ok)
			}
		})
	}
}

// The end of a session that nobody waits for any more may be on its way. Were the next
// session given up and forgotten meanwhile, that end would prove the one after that.
func TestASessionIsNotForgottenWhileTheEndOfOneBeforeMayCome(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{})
		p, lost := a.world.ring.Partition(9), errors.New("lost")
		s := Session{Epoch: a.world.ring.Epoch(), Last: ring.Slots - 1}
		failing := func(at string) {
			b.hears = func(what string, _ []merkle.Cell, _ int) {
				b.fail = nil
				if what == at {
					b.fail = lost
				}
			}
			if _, err := a.x.Exchange(t.Context(), b.id, 0, ring.Slots-1); !errors.Is(err, lost) {
				t.Fatalf("fails at the %s: %v", at, err)
			}
			b.hears, b.fail = nil, nil
			time.Sleep(time.Second)
		}
		first := time.Now()
		failing("end")
		failing("nodes")
		if err := b.x.ServeBegin(a.id, s); err != nil {
			t.Fatal(err)
		}
		b.x.ServeEnd(a.id, s, func(error) {}) // the first, at last
		if began, ok := b.x.Session(p, a.id); !ok || !began.Equal(first) {
			t.Errorf("a session of %v is entered, that of %v has ended", began, first)
		}
		exchangeAll(t, a, b)
		failing("nodes")
		if n := len(b.x.ledger.mu.opened); n != 0 {
			t.Errorf("%d sessions go on after the last was given up", n)
		}
	})
}

func TestOneSessionAtATimeIsServed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, Config{})
		x, s := w.hosts[1].x, Session{Epoch: w.ring.Epoch(), Last: ring.Slots - 1}
		try := func(from ring.NodeID, want error) {
			t.Helper()
			if err := x.ServeBegin(from, s); !errors.Is(err, want) {
				t.Errorf("node %v begins: %v, want %v", from, err, want)
			}
		}
		try(2, nil)
		try(3, ErrBusy)
		try(2, nil) // it began anew
		time.Sleep(lease - time.Second)
		x.Heard(2)
		time.Sleep(lease - time.Second)
		try(3, ErrBusy)
		x.ServeEnd(2, s, func(error) {})
		try(3, nil)
		time.Sleep(lease) // it has died
		try(2, nil)
	})
}

func TestPeerInAnotherSessionIsAskedAgainSoon(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, Config{Interval: time.Hour})
		w.owners("k", 1, func(i int) bool { return i == 0 })
		busy := w.hosts[2]
		if err := busy.x.ServeBegin(3, Session{Epoch: w.ring.Epoch()}); err != nil {
			t.Fatal(err)
		}
		stop := w.run(t)
		if err := w.hosts[1].x.Repair(0, ring.Slots-1, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease + 5*time.Second)
		if s := w.hosts[1].x.RepairStatus(); s.Done != 2 || s.Failed != 0 || len(w.unequal()) > 0 {
			t.Errorf("%+v, differ: %v", s, w.unequal())
		}
		stop()
	})
}

// run starts the Exchangers of a world; the function it returns stops them.
func (w *world) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	for _, h := range w.hosts {
		go func() { done <- h.x.Run(ctx) }()
	}
	return func() {
		cancel()
		for range w.hosts {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAllOwnersConvergeByThemselves(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, Config{})
		rng := rand.New(rand.NewPCG(7, 7))
		for i := range 600 {
			w.owners(fmt.Sprint("k", i), 1, func(int) bool { return rng.IntN(2) == 0 })
			w.owners(fmt.Sprint("k", i), 2, func(int) bool { return rng.IntN(3) == 0 })
		}
		stop := w.run(t)
		time.Sleep(time.Minute)
		if bad := w.unequal(); len(bad) > 0 {
			t.Errorf("%d keys differ after a minute: %v", len(bad), bad[0])
		}
		for _, h := range w.hosts {
			for p := range w.ring.Units() {
				for _, o := range w.ring.Owners(p) {
					if began, ok := h.x.Session(p, o); w.ring.Owns(h.id, p) && o != h.id && (!ok || time.Since(began) > 40*time.Second) {
						t.Fatalf("node %v: last session of partition %d with %v was %v %v", h.id, p, o, began, ok)
					}
				}
			}
		}
		stop()
	})
}

func TestPeerThatIsBackIsMetSoonAndOneThatIsAwayIsNotAsked(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{Interval: time.Hour, Return: 5 * time.Second})
		a.put("k", 1)
		a.world.down.Store(b.id, true)
		stop := a.world.run(t)
		time.Sleep(3 * time.Hour)
		if n := b.asked("begin"); n != 0 {
			t.Errorf("a peer that is away was asked %d times", n)
		}
		a.world.down.Delete(b.id)
		a.x.PeerUp(b.id)
		time.Sleep(12 * time.Second)
		if bad := a.world.unequal(); len(bad) > 0 {
			t.Errorf("differ after the return: %v", bad)
		}
		stop()
	})
}

func TestRepairComparesSomeSlotsNowAndTellsHowFarItIs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{Interval: time.Hour, Return: time.Hour})
		a.put("@inside", 1) // slot 7
		a.put("=outside", 1)
		stop := a.world.run(t)
		// Also the side that does not begin by itself can be told to.
		if err := b.x.Repair(0, 7, true); err != nil {
			t.Fatal(err)
		}
		if err := b.x.Repair(0, 7, true); !errors.Is(err, ErrRepairing) {
			t.Errorf("a second repair: %v", err)
		}
		if s := b.x.RepairStatus(); s.Peers != 1 || s.Done != 0 || !s.Ended.IsZero() {
			t.Errorf("status while it runs: %+v", s)
		}
		time.Sleep(5 * time.Second)
		s := b.x.RepairStatus()
		if s.Done != 1 || s.Failed != 0 || s.Ended.IsZero() || s.Tally.Pulled != 1 || s.First != 0 || s.Last != 7 {
			t.Errorf("status: %+v", s)
		}
		if bad := a.world.unequal(); len(bad) != 1 {
			t.Errorf("differ: %v, want only what was not asked for", bad)
		}
		a.world.down.Store(a.id, true)
		if err := b.x.Repair(0, ring.Slots-1, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if s := b.x.RepairStatus(); s.Failed != 1 || s.Err == nil || s.Ended.IsZero() {
			t.Errorf("status without a peer: %+v", s)
		}
		stop()
	})
}

func TestFailuresSlowDownAndEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{Interval: time.Second})
		a.put("k", 1)
		b.fail = errors.New("no answer")
		stop := a.world.run(t)
		time.Sleep(100 * time.Second)
		asked := b.asked("begin")
		b.mu.Lock()
		b.fail = nil
		b.mu.Unlock()
		if asked < 8 || asked > 40 {
			t.Errorf("asked %d times in 100 intervals", asked)
		}
		time.Sleep(20 * time.Second)
		if bad := a.world.unequal(); len(bad) > 0 {
			t.Errorf("differ: %v", bad)
		}
		stop()
	})
}

func TestHostileQuestionsAreRefused(t *testing.T) {
	a, _ := pair(t, Config{})
	for _, q := range []NodesQuery{
		{Units: 512, Nodes: []Node{{}}},
		{Units: 1024, Nodes: []Node{{Partition: 1024}}},
		{Units: 1024, Level: 11, Nodes: []Node{{}}},
		{Units: 1024, Level: 1, Nodes: []Node{{Index: 2}}},
		{Units: 1024, Level: 4, Step: 2, Nodes: []Node{{Index: 4}}},
		{Units: 1024, Level: 1, Step: 2, Nodes: []Node{{}}},
		{Units: 1024, Level: 40, Step: 30, Nodes: []Node{{}}},
		{Units: 1024, Level: 200, Nodes: []Node{{Index: 1 << 40}}},
		{Units: 1024, Nodes: []Node{{Index: 1}}},
		{Units: 1024, Nodes: make([]Node, maxNodes+1)},
	} {
		if _, err := a.r.Nodes(q, 1024); !errors.Is(err, ErrShape) {
			t.Errorf("%d nodes, level %d: %v", len(q.Nodes), q.Level, err)
		}
	}
	for name, cells := range map[string][]merkle.Cell{"a cell that is none": {1, merkle.Cells}, "cells out of order": {2, 1}} {
		if _, err := a.r.List(ListQuery{Cells: cells}); !errors.Is(err, ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, at := range [][]Position{{{1, 1}, {1, 0}}, {{2, 0}, {1, 1}}} {
		if _, _, err := a.r.Fetch(at, 1); !errors.Is(err, ErrShape) {
			t.Errorf("positions out of order: %v", err)
		}
	}
}

func TestAnswersThatLeadNowhereEndTheExchange(t *testing.T) {
	for name, a := range map[string]ListAnswer{
		"no progress":      {},
		"too many cells":   {Cells: 2},
		"more than all":    {Cells: 1, Next: 5},
		"back in the cell": {Next: 3},
	} {
		x, _ := pair(t, Config{})
		e := &exchange{x: x.x, peer: liar{a}}
		if _, err := e.list(t.Context(), ListQuery{Cells: []merkle.Cell{1}, From: 4}); !errors.Is(err, ErrShape) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := e.fetch(t.Context(), []Position{{}}); !errors.Is(err, ErrShape) {
			t.Errorf("fetch without progress: %v", err)
		}
	}
}

// liar answers with what it was given, and fetches nothing.
type liar struct{ a ListAnswer }

func (l liar) Nodes(context.Context, NodesQuery) ([]uint64, error)        { return nil, nil }
func (l liar) List(context.Context, ListQuery) (ListAnswer, error)        { return l.a, nil }
func (l liar) Fetch(context.Context, []Position, int) ([]Row, int, error) { return nil, 0, nil }
func (l liar) Deliver(context.Context, []Row) (int, error)                { return 0, nil }
func (l liar) Begin(context.Context, Session) error                       { return nil }
func (l liar) End(context.Context, Session) error                         { return nil }

// A whole session lists the cells that are filled, and no tree says which they are.
func TestFilledCellsAreThoseWithKeys(t *testing.T) {
	h := newWorld(t, 3, Config{}).hosts[1]
	f := newForest(h, 1024)
	filled := make([]map[int]bool, f.units) // leaves, of each partition
	for i := range 3000 {
		key := fmt.Sprint("k", i)
		h.put(key, 1)
		slot, hash := position(key)
		p := int(slot) / (ring.Slots / f.units)
		if filled[p] == nil {
			filled[p] = map[int]bool{}
		}
		filled[p][int(merkle.CellOf(slot, hash)-f.cellOf(p, 0))] = true
	}
	for p := range f.units {
		want := append([]int{9}, slices.Sorted(maps.Keys(filled[p]))...)
		if got := f.filled([]int{9}, p); !slices.Equal(got, want) {
			t.Fatalf("partition %d: %v, want %v", p, got, want)
		}
	}
}
