package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// slowRows is a Merger whose commits the test ends.
type slowRows struct {
	keys    []string
	pending []func(error)
	fail    map[string]error // at once
	block   chan struct{}    // merges wait for it to be closed
}

func (s *slowRows) MergeBefore(deadline time.Time, key []byte, target ring.NodeID, record []byte, durable bool, done func(error)) {
	if s.block != nil {
		<-s.block
		done(nil)
		return
	}
	if err := s.fail[string(key)]; err != nil {
		done(err)
		return
	}
	s.keys = append(s.keys, fmt.Sprintf("%s for %d, durable %v", key, target, durable))
	s.pending = append(s.pending, done)
}

type grants int

func (g grants) Grant(want int) int { return int(g) }

// liveOf is a ring alone, or none.
func liveOf(r *ring.Ring) *ring.Live {
	if r == nil {
		return nil
	}
	return ring.NewLive(r)
}

// receive runs f with a Receiver on node 1 of a ring of three, which owns all.
func receive(t *testing.T, cfg ReceiverConfig, rows Taker, a Admission, f func(r *Receiver)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		all := ringOf(t, 1, 2, 3)
		if cfg.Live == nil {
			cfg.Live = func() *ring.Live { return ring.NewLive(all) }
		}
		cfg.Self = self
		r, err := NewReceiver(cfg, rows, a)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		f(r)
		cancel()
		<-ended
	})
}

func message(keys ...string) Message {
	m := Message{Durable: true}
	for _, k := range keys {
		m.Rows = append(m.Rows, Row{Key: []byte(k), Record: []byte("r")})
	}
	return m
}

// answer collects the outcome of a Deliver.
type answer struct {
	n      int
	credit int
	err    error
}

func (a *answer) done(credit int, err error) { a.n, a.credit, a.err = a.n+1, credit, err }

func TestTheReplyWaitsForEveryRow(t *testing.T) {
	rows := &slowRows{}
	receive(t, ReceiverConfig{}, rows, grants(100), func(r *Receiver) {
		var a answer
		r.Deliver(message("a", "b", "c"), time.Time{}, a.done)
		synctest.Wait()
		if got := strings.Join(rows.keys, "; "); got != "a for 0, durable true; b for 0, durable true; c for 0, durable true" {
			t.Errorf("merged %s", got)
		}
		rows.pending[2](nil)
		rows.pending[0](nil)
		if a.n != 0 {
			t.Fatal("answered before the last row is committed")
		}
		rows.pending[1](nil)
		if a.n != 1 || a.err != nil || a.credit != 100 {
			t.Errorf("answer %+v", a)
		}
	})
}

func TestOneRowThatFailsFailsTheMessage(t *testing.T) {
	bad := errors.New("rig: corrupt")
	rows := &slowRows{fail: map[string]error{"b": bad}}
	receive(t, ReceiverConfig{}, rows, grants(100), func(r *Receiver) {
		var a, late answer
		r.Deliver(message("a", "b", "c"), time.Time{}, a.done)
		synctest.Wait()
		if len(rows.keys) != 1 || a.n != 0 {
			t.Fatalf("merged %v, answers %d: rows behind a bad one are not to be tried", rows.keys, a.n)
		}
		rows.pending[0](nil)
		if a.n != 1 || !errors.Is(a.err, bad) {
			t.Errorf("answer %+v", a)
		}
		r.Deliver(message("x", "y"), time.Time{}, late.done)
		synctest.Wait()
		rows.pending[1](bad)
		rows.pending[2](nil)
		if late.n != 1 || !errors.Is(late.err, bad) {
			t.Errorf("a row that failed at its commit: %+v", late)
		}
	})
}

func TestAMessageWithoutRowsOnlyAsks(t *testing.T) {
	for grant, want := range map[int]int{0: 0, 7: 7, -1: 0, 1 << 30: 256 << 10} {
		receive(t, ReceiverConfig{}, &slowRows{}, grants(grant), func(r *Receiver) {
			var a answer
			r.Deliver(Message{}, time.Time{}, a.done)
			if a.n != 1 || a.credit != want || a.err != nil {
				t.Errorf("grant of %d: %+v, want %d", grant, a, want)
			}
		})
	}
}

func TestAReceiverTakesFewMessagesAtOnce(t *testing.T) {
	rows := &slowRows{}
	receive(t, ReceiverConfig{Workers: 2, Queue: 3}, rows, grants(1), func(r *Receiver) {
		rows.block = make(chan struct{})
		answers := make([]answer, 8)
		for i := range answers {
			r.Deliver(message("k"), time.Time{}, answers[i].done)
			synctest.Wait()
		}
		for i := range answers {
			if refused := errors.Is(answers[i].err, ErrBusy); refused != (i >= 5) {
				t.Errorf("message %d refused: %v", i, refused)
			}
		}
		close(rows.block)
		synctest.Wait()
		for i := range answers {
			if answers[i].n != 1 {
				t.Errorf("message %d got %d answers", i, answers[i].n)
			}
		}
	})
}

func TestWhatNobodyWaitsForIsLeft(t *testing.T) {
	rows := &slowRows{}
	receive(t, ReceiverConfig{}, rows, grants(1), func(r *Receiver) {
		var a answer
		r.Deliver(message("k"), time.Now().Add(-time.Second), a.done)
		synctest.Wait()
		if a.n != 1 || !errors.Is(a.err, ErrLate) || len(rows.keys) != 0 {
			t.Errorf("answer %+v, merged %v", a, rows.keys)
		}
	})
}

func TestRowsOfOthersAreRefused(t *testing.T) {
	five := ringOf(t, 1, 2, 3, 4, 5)
	for name, c := range map[string]struct {
		ring *ring.Ring
		want error
	}{"no ring": {nil, ErrNotReady}, "another's row": {five, ErrNotOwner}} {
		rows := &slowRows{}
		receive(t, ReceiverConfig{Live: func() *ring.Live { return liveOf(c.ring) }}, rows, grants(1), func(r *Receiver) {
			var foreign []string
			for i := 0; len(foreign) < 1; i++ {
				k := fmt.Sprint("k", i)
				if !five.Owns(self, five.Partition(ring.SlotOf([]byte(k)))) {
					foreign = append(foreign, k)
				}
			}
			var a answer
			r.Deliver(message(foreign...), time.Time{}, a.done)
			synctest.Wait()
			if a.n != 1 || !errors.Is(a.err, c.want) || len(rows.keys) != 0 {
				t.Errorf("%s: answer %+v, merged %v", name, a, rows.keys)
			}
		})
	}
}

func TestHintsForAnyoneButAnOwnerAreRefused(t *testing.T) {
	five := ringOf(t, 1, 2, 3, 4, 5)
	owners := five.Owners(five.Partition(ring.SlotOf([]byte("k"))))
	for _, m := range five.Members() {
		rows := &slowRows{}
		receive(t, ReceiverConfig{Live: func() *ring.Live { return liveOf(five) }}, rows, grants(1), func(r *Receiver) {
			var a answer
			in := message("k")
			in.For = m.ID
			r.Deliver(in, time.Time{}, a.done)
			synctest.Wait()
			want := slices.Contains(owners, m.ID) && m.ID != self
			if took := len(rows.keys) == 1; took != want || !want && !errors.Is(a.err, ErrNotOwner) {
				t.Errorf("for %v, owners are %v: answer %+v, merged %v", m.ID, owners, a, rows.keys)
			}
			for _, done := range rows.pending {
				done(nil)
			}
		})
	}
}

func TestOnlyOptionalHintsAreRefusedOverBudget(t *testing.T) {
	b := newBook()
	var log bytes.Buffer
	set := metrics.NewSet()
	budget := NewBudget(1000, b, slog.New(slog.NewTextHandler(&log, nil)), set)
	fill := func(n int) {
		b.mu.Lock()
		b.hints[7] = map[string][]byte{"k": make([]byte, n-1)}
		b.mu.Unlock()
	}
	for i, step := range []struct {
		kept, size int
		optional   bool
		refused    bool
		over       bool
		logged     int
	}{
		{500, 500, true, false, false, 0},
		{500, 501, true, true, true, 1},
		{950, 10, true, true, true, 1}, // not a tenth is free
		{950, 10, false, false, true, 1},
		{2000, 10, false, false, true, 1},
		{900, 10, true, false, false, 2},
		{990, 20, false, false, true, 3},
	} {
		fill(step.kept)
		err := budget.Admit(7, step.size, step.optional)
		if errors.Is(err, ErrHintBudget) != step.refused || budget.Over(7) != step.over {
			t.Errorf("step %d: %v, over %v", i, err, budget.Over(7))
		}
		if n := strings.Count(log.String(), "changed state"); n != step.logged {
			t.Errorf("step %d: %d changes logged, want %d", i, n, step.logged)
		}
	}
	if budget.Over(8) {
		t.Error("another target is over budget")
	}
	count := func(name string) uint64 { return set.GetOrCreateCounter(name).Get() }
	if d, k := count(`handoff_hints_dropped_over_budget_total`), count(`handoff_hints_kept_over_budget_total`); d != 2 || k != 3 {
		t.Errorf("%d dropped and %d kept over budget, want 2 and 3", d, k)
	}
	fill(1)
	if budget.refresh(); budget.Over(7) {
		t.Error("still over budget after all was delivered")
	}
}

func TestConfigReportsEveryFaultAtOnce(t *testing.T) {
	_, err := NewSender(Config{MaxTargets: -1, MessageBytes: -1, Turn: -1, MinBackoff: time.Hour, MaxBackoff: time.Second}, nil, nil, nil, nil)
	for _, want := range []string{"self", "max targets (-1)", "message bytes (-1)", "turn (-1)", "max backoff (1s)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in %v", want, err)
		}
	}
	if _, err := NewReceiver(ReceiverConfig{Workers: -1}, nil, nil); err == nil || !strings.Contains(err.Error(), "workers (-1)") {
		t.Errorf("receiver: %v", err)
	}
}

// Nobody asks when it arrives, since that says nothing about when its turn comes.
func TestWhatIsVoidWhenItsTurnComesIsNotTaken(t *testing.T) {
	rows := &slowRows{}
	receive(t, ReceiverConfig{}, rows, grants(100), func(r *Receiver) {
		void := errors.New("void")
		asked, ended := 0, make(chan error, 1)
		m := Message{Rows: []Row{{Key: []byte("a")}}, Refuse: func() error { asked++; return void }}
		r.Deliver(m, time.Time{}, func(_ int, err error) { ended <- err })
		if err := <-ended; !errors.Is(err, void) || asked != 1 || len(rows.keys) != 0 {
			t.Errorf("%v, asked %d times, took %v", err, asked, rows.keys)
		}
		m.Refuse = func() error { return nil }
		r.Deliver(m, time.Time{}, func(_ int, err error) { ended <- err })
		synctest.Wait()
		rows.pending[0](nil)
		if err := <-ended; err != nil {
			t.Errorf("when nothing is against it: %v", err)
		}
	})
}
