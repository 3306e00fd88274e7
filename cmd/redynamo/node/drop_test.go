package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// shelf is a replica's partitions, of which only the number of rows is known.
type shelf struct {
	mu     sync.Mutex
	rows   []int
	fenced []bool
	fail   error        // of the next drops
	onDrop func(p int)  // called when one begins
	log    []int        // dropped, in order
	broken map[int]bool // dropped in part
}

func newShelf(rows ...int) *shelf {
	return &shelf{rows: rows, fenced: make([]bool, len(rows)), broken: map[int]bool{}}
}

func (s *shelf) Fence(p int, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !closed && s.broken[p] {
		panic("a partition that was dropped in part is opened")
	}
	s.fenced[p] = closed
}

func (s *shelf) Fenced(p int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fenced[p]
}

func (s *shelf) Settle(context.Context) error { return nil }

func (s *shelf) Empty(p int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[p] == 0, nil
}

func (s *shelf) Drop(_ context.Context, p int) (int, error) {
	if s.onDrop != nil {
		s.onDrop(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fenced[p] {
		panic("an open partition is dropped")
	}
	if s.fail != nil {
		s.broken[p] = true
		return 0, s.fail
	}
	n := s.rows[p]
	s.rows[p] = 0
	s.log = append(s.log, p)
	delete(s.broken, p)
	return n, nil
}

const shelves = 4

func (s *shelf) open() (ps []int) {
	for p := range shelves {
		if !s.Fenced(p) {
			ps = append(ps, p)
		}
	}
	return ps
}

// views are the views of node 1 in a ring with four partitions of one copy each.
type views struct {
	t       *testing.T
	state   epoch.State
	now     *epoch.View
	counter uint64
	units   int
}

func newViews(t *testing.T) *views {
	v := &views{t: t, counter: 1, units: shelves, state: epoch.Settled(1, []ring.Record{v1(1, 1), v1(2, 1), v1(3, 1)})}
	v.publish()
	return v
}

func v1(id ring.NodeID, counter uint64) ring.Record {
	return ring.Record{Member: ring.Member{ID: id, PlaceID: id, Weight: 100}, Counter: counter, Admin: 1}
}

func (v *views) publish() {
	next, err := v.state.View(func(ms []ring.Member) (*ring.Ring, error) {
		return ring.New(ring.Params{Units: v.units, N: 1}, ms)
	})
	if err != nil {
		v.t.Fatal(err)
	}
	v.now = next
}

// target lets others remove a node, or take it back; node 1 hears of it.
func (v *views) target(id ring.NodeID, removed bool) {
	v.counter++
	r := v1(id, v.counter)
	r.Removed = removed
	v.state = v.state.Amend([]ring.Record{r})
	v.publish()
}

func (v *views) held() (ps []int) {
	for p := range shelves {
		if v.now.Holds(p) {
			ps = append(ps, p)
		}
	}
	return ps
}

func newDropping(v *views, s *shelf) (d *dropper, nudged *int) {
	nudged = new(int)
	d = newDropper(s, shelves, func() *epoch.View { return v.now }, func() { *nudged++ }, slog.New(slog.DiscardHandler), metrics.NewSet())
	return d, nudged
}

func mustStep(t *testing.T, d *dropper) {
	t.Helper()
	if err := d.step(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhatMovedAwayIsDroppedInASettledView(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 0, 5)
	d, nudged := newDropping(v, s)
	s.onDrop = func(int) {
		if !d.dropping.Load() {
			t.Error("a partition is dropped and nobody is told")
		}
	}
	held := v.held()
	if len(held) == 0 || len(held) > 2 {
		t.Fatalf("node 1 holds %v", held)
	}
	mustStep(t, d)
	if !slices.Equal(s.open(), held) || d.dropping.Load() || *nudged != 1 {
		t.Errorf("open are %v, held %v; dropping %v, nudged %d", s.open(), held, d.dropping.Load(), *nudged)
	}
	for p := range shelves {
		if (s.rows[p] == 0) != (!v.now.Holds(p) || p == 2) {
			t.Errorf("partition %d has %d rows", p, s.rows[p])
		}
	}
	dropped := len(s.log)
	mustStep(t, d)
	if len(s.log) != dropped {
		t.Error("what is empty is dropped again")
	}
	v.target(2, true)
	v.target(3, true) // everything comes to node 1
	mustStep(t, d)
	if len(s.open()) != shelves || len(v.held()) != shelves || d.dropping.Load() {
		t.Errorf("open are %v of %v", s.open(), v.held())
	}
}

// Whoever goes by a view opens what it holds, and does not wait for the next round.
func TestWhatAViewHoldsIsOpenedAtOnceIfItIsEmpty(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, _ := newDropping(v, s)
	mustStep(t, d)
	away := shelves - len(v.held())
	if away == 0 {
		t.Fatal("nothing moved away")
	}
	d.reopen()
	if len(s.open()) != shelves-away {
		t.Errorf("open are %v of %v", s.open(), v.held())
	}
	v.target(2, true)
	v.target(3, true)
	d.reopen()
	if len(s.open()) != shelves {
		t.Errorf("open are %v of %v", s.open(), v.held())
	}
}

// A view that comes while partitions are emptied gives back those that are.
func TestAViewThatComesDuringADropOpensWhatItHolds(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, _ := newDropping(v, s)
	s.onDrop = func(p int) {
		s.onDrop = nil
		v.target(2, true)
		v.target(3, true)
		d.reopen()
		if !s.Fenced(p) {
			t.Errorf("partition %d is open while it is emptied", p)
		}
	}
	mustStep(t, d)
	if len(s.open()) != shelves || d.dropping.Load() {
		t.Errorf("open are %v of %v", s.open(), v.held())
	}
}

func TestNothingIsDroppedWhileTheRingChanges(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, _ := newDropping(v, s)
	v.target(4, false)
	mustStep(t, d)
	if len(s.log) != 0 || len(s.open()) != shelves || d.dropping.Load() {
		t.Errorf("dropped %v, open %v", s.log, s.open())
	}
}

// The target that comes while partitions are dropped is not acknowledged before that
// is over. What was not begun by then keeps its rows.
func TestATargetThatComesStopsTheDrop(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, nudged := newDropping(v, s)
	s.onDrop = func(int) {
		s.onDrop = nil
		v.target(2, true)
		v.target(3, true)
	}
	mustStep(t, d)
	if len(s.log) != 1 || d.dropping.Load() || *nudged != 1 {
		t.Errorf("dropped %v, dropping %v, nudged %d", s.log, d.dropping.Load(), *nudged)
	}
	mustStep(t, d)
	for p := range shelves {
		if s.fenced[p] || (s.rows[p] == 0) != slices.Contains(s.log, p) {
			t.Errorf("partition %d: closed %v, %d rows", p, s.fenced[p], s.rows[p])
		}
	}
}

// A drop that has begun is ended, whatever comes.
func TestADropThatFailsIsEndedBeforeATargetIsAcknowledged(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, nudged := newDropping(v, s)
	s.fail = errors.New("the disk is busy")
	for range 3 {
		if err := d.step(t.Context()); !errors.Is(err, s.fail) {
			t.Fatal(err)
		}
		if !d.dropping.Load() || *nudged != 0 {
			t.Fatal("a drop that failed is over")
		}
		v.target(2, true)
		v.target(3, true)
	}
	s.fail = nil
	mustStep(t, d)
	if d.dropping.Load() || len(s.open()) != shelves || *nudged != 1 {
		t.Errorf("dropping %v, open %v", d.dropping.Load(), s.open())
	}
}

// What a round has dropped is told in one line, also if it could not go on.
func TestARoundOfDropsIsOneLineOfTheLog(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, _ := newDropping(v, s)
	var told bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&told, nil))
	away := shelves - len(v.held())
	if away < 2 {
		t.Fatalf("only %d partitions moved away", away)
	}
	s.onDrop = func(int) {
		if len(s.log) == 1 {
			s.fail = errors.New("the disk is busy")
		}
	}
	if err := d.step(t.Context()); !errors.Is(err, s.fail) {
		t.Fatal(err)
	}
	s.onDrop, s.fail = nil, nil
	mustStep(t, d)
	mustStep(t, d)
	lines := strings.Split(strings.TrimSpace(told.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "partitions=1 rows=5") ||
		!strings.Contains(lines[1], fmt.Sprintf("partitions=%d rows=%d", away-1, 5*(away-1))) {
		t.Errorf("of %d partitions that moved away in two rounds it is told:\n%s", away, &told)
	}
}

// A view that comes between the look and the fence stops the drop before it begins.
func TestAViewThatIsNotThePresentOneDropsNothing(t *testing.T) {
	v, s := newViews(t), newShelf(5, 5, 5, 5)
	d, _ := newDropping(v, s)
	looks := 0
	d.view = func() *epoch.View {
		if looks++; looks == 2 {
			v.target(4, false)
		}
		return v.now
	}
	mustStep(t, d)
	if len(s.log) != 0 || d.dropping.Load() || len(s.open()) != shelves {
		t.Errorf("dropped %v, dropping %v", s.log, d.dropping.Load())
	}
}

// A whole node, of which partitions moved away: what they held is not counted any
// more, and what is left can be read.
func TestANodeForgetsWhatItDropped(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	keep, gone := "k0", ""
	kept := n.members.View().Ring.Partition(ring.SlotOf([]byte(keep)))
	for i := range 50 {
		key := "k" + string(rune('0'+i))
		if got := say(t, n, "SET "+key+" v"); got != "+OK" {
			t.Fatalf("SET answers %q", got)
		}
		if n.members.View().Ring.Partition(ring.SlotOf([]byte(key))) != kept {
			gone = key
		}
	}
	v := newViews(t) // any settled view of another node's
	v.state, v.units = epoch.Settled(9, []ring.Record{v1(1, 1)}), n.cfg.Units
	v.publish()
	d := newDropper(n.replica, n.cfg.Units, func() *epoch.View { return v.now }, func() {}, slog.New(slog.DiscardHandler), metrics.NewSet())
	mustStep(t, d)
	for p := range n.cfg.Units {
		if !n.replica.Fenced(p) {
			t.Fatalf("partition %d is open", p)
		}
	}
	if s := n.replica.Stats(); s.Keys != 0 {
		t.Errorf("%d keys are counted", s.Keys)
	}
	n.replica.Fence(kept, false)
	if got := say(t, n, "SET "+keep+" w"); got != "+OK" {
		t.Errorf("SET answers %q", got)
	}
	if got := say(t, n, "GET "+gone); got == "$1" {
		t.Errorf("GET of what was dropped answers %q", got)
	}
	if got := say(t, n, "DBSIZE"); got != ":1" {
		t.Errorf("DBSIZE answers %q", got)
	}
}
