package handoff

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Node 5 leaves the partitions that its hints are in: whoever owns them in the target
// must have what it is given.
func TestAHintForAnOwnerThatLeavesIsKeptForAllOwnersToCome(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		r.fall(5)
		keys := r.keep(5, 40, "v")
		r.setBeside(1, 2, 3, 4, 6)
		for id := ring.NodeID(2); id < 7; id++ {
			if id != 5 {
				r.fall(id) // so that what is kept for them can be looked at
			}
		}
		r.rise(5)
		pass(time.Minute)
		r.wantGone(5, keys, "v")
		target := r.Live().Beside[0]
		for _, k := range keys {
			for _, id := range target.Owners(target.Partition(ring.SlotOf([]byte(k)))) {
				if id == self {
					id = 0
				}
				if r.book.get(id, k) != "v" {
					t.Errorf("%s is not kept for %v, an owner to come", k, id)
				}
			}
		}
	})
}

// With fewer owners than before each must have what the other has. The copies must not
// be copied back.
func TestHintsWaitWhereEachOwnerIsToHaveWhatTheOtherHas(t *testing.T) {
	var handed atomic.Bool
	inBubble(t, 3, Config{Handed: func(uint64) bool { return handed.Load() }}, func(t *testing.T, r *rig) {
		r.fall(2)
		keys := r.keep(2, 40, "v")
		r.setBeside(1, 2)
		r.rise(2)
		pass(time.Minute)
		if n := r.book.rows(2); n != 40 || r.peer(2).sent() != 0 {
			t.Errorf("%d hints are left of 40 before they were handed over", n)
		}
		handed.Store(true)
		pass(time.Minute)
		r.wantGone(2, keys, "v")
	})
}

func TestOldestTellsByWhichRingsADeliveryGoes(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		r.peer(2).delay = 5 * time.Second
		before := r.Rings().Number
		keys := r.keep(2, 3, "v")
		pass(time.Second) // it is on its way
		r.setBeside(1, 2, 3, 4, 5, 6)
		if got := r.sender.Oldest(); got != before {
			t.Errorf("oldest is %d while rows go by %d", got, before)
		}
		pass(time.Minute)
		if got := r.sender.Oldest(); got != r.Rings().Number {
			t.Errorf("oldest is %d of %d, and nothing is on its way", got, r.Rings().Number)
		}
		r.wantGone(2, keys, "v")
	})
}

// way is Exchanges without rows.
type way struct {
	mu       sync.Mutex
	began    map[ring.NodeID][]time.Time // by partition
	units    int
	asked    []ring.NodeID
	busy     int // of the next exchanges
	idle     bool
	oneParts int // exchanges of one partition
}

func (w *way) Exchange(ctx context.Context, node ring.NodeID, first, last ring.Slot) (Moved, error) {
	w.mu.Lock()
	w.asked = append(w.asked, node)
	busy := w.busy > 0
	w.busy--
	began := time.Now()
	w.mu.Unlock()
	if busy {
		return Moved{}, ErrBusy
	}
	if err := pause(ctx, time.Second); err != nil {
		return Moved{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle {
		return Moved{}, nil
	}
	size := ring.Slots / w.units
	if int(last)-int(first) < size {
		w.oneParts++
	}
	if w.began[node] == nil {
		w.began[node] = make([]time.Time, w.units)
	}
	for p := int(first) / size; p <= int(last)/size; p++ {
		w.began[node][p] = began
	}
	return Moved{Rows: 1, Bytes: 10}, nil
}

func (w *way) Session(partition int, node ring.NodeID) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began[node] == nil || w.began[node][partition].IsZero() {
		return time.Time{}, false
	}
	return w.began[node][partition], true
}

func (w *way) exchanges() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

// then is a Moment of the rig's book, which nobody changes.
type then struct{ b *book }

func (m then) Targets() (ids []ring.NodeID, _ error) {
	for _, total := range m.b.Totals() {
		ids = append(ids, total.Target)
	}
	return ids, nil
}

func (m then) Page(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (Page, error) {
	return m.b.Page(target, slot, hash, maxBytes)
}

func (m then) Close() error { return nil }

// inMove runs f with a Mover on node 1 of a rig whose Sender has ended.
func inMove(t *testing.T, nodes int, cfg MoverConfig, f func(t *testing.T, r *rig, m *Mover, w *way)) {
	t.Helper()
	inBubble(t, nodes, Config{}, func(t *testing.T, r *rig) {
		r.end()
		w := &way{began: map[ring.NodeID][]time.Time{}, units: 64}
		cfg.Self = self
		m, err := NewMover(cfg, r, r.book, w, func() (Moment, error) { return then{r.book}, nil })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		f(t, r, m, w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// grant lets everything be handed over for the rings that follow.
func (r *rig) grant(target Target) {
	r.mu.Lock()
	r.mu.grant = target
	r.mu.number++
	r.mu.Unlock()
}

func TestOnlySessionsAfterTheGrantCount(t *testing.T) {
	told := 0
	inMove(t, 4, MoverConfig{Batch: 1, Took: 4 * time.Second, Sent: func() { told++ }}, func(t *testing.T, r *rig, m *Mover, w *way) {
		all := make([]time.Time, 64)
		for p := range all {
			all[p] = time.Now()
		}
		for id := ring.NodeID(2); id < 6; id++ {
			w.began[id] = slices.Clone(all)
		}
		r.setBeside(1, 2, 3, 4, 5)
		pass(time.Minute)
		if w.exchanges() != 0 || m.Sent() != (Target{}) || m.Progress().Target != (Target{}) {
			t.Errorf("%d exchanges before the grant", w.exchanges())
		}
		w.busy = 3
		r.grant(Target{1, 2})
		m.Wake()
		pass(2 * time.Second)
		if p := m.Progress(); p.Sent || m.Sent() != (Target{}) || p.Target != (Target{1, 2}) || len(p.Lanes) == 0 {
			t.Errorf("after the first exchange: %+v", p)
		}
		pass(10 * time.Minute)
		if m.Sent() != (Target{1, 2}) || told != 1 {
			t.Fatalf("sent %v, told %d times: %+v", m.Sent(), told, m.Progress())
		}
		plan := r.Rings().Plan
		for p := range 64 {
			if !plan.Holds(p) {
				continue
			}
			for _, id := range plan.Recipients(nil, p, self) {
				if !w.began[id][p].After(all[p]) {
					t.Errorf("partition %d was not exchanged with %v", p, id)
				}
			}
		}
		if n := w.exchanges(); w.oneParts > 20 || n > 50 {
			t.Errorf("%d exchanges, %d of them of one partition", n, w.oneParts)
		}
		r.grant(Target{3, 4}) // another target, and nothing counts any more
		m.Wake()
		pass(time.Second / 2)
		if m.Sent() != (Target{}) || m.Handed(r.Rings().Number-1) {
			t.Errorf("sent %v, of which nothing was handed over", m.Sent())
		}
		pass(10 * time.Minute)
		if m.Sent() != (Target{3, 4}) || !m.Handed(r.Rings().Number) {
			t.Errorf("sent %v", m.Sent())
		}
		r.setRing(1, 2, 3, 4, 5)
		m.Wake()
		synctest.Wait()
		if m.Sent() != (Target{}) || m.Progress().Target != (Target{}) {
			t.Errorf("sent %v in settled rings", m.Sent())
		}
	})
}

func TestAMoverTellsAboutHowMuchIsLeftToMove(t *testing.T) {
	const size = 300 // of a partition, of which each of three owners brings a third
	cfg := MoverConfig{Batch: 1, Took: time.Millisecond, Sizes: func(r *ring.Ring) func(int) int64 {
		return func(p int) int64 { return size }
	}}
	for name, target := range map[string][]ring.NodeID{"one joins": {1, 2, 3, 4, 5}, "this node leaves": {2, 3, 4}, "another leaves": {1, 2, 3}} {
		inMove(t, 4, cfg, func(t *testing.T, r *rig, m *Mover, _ *way) {
			r.setBeside(target...)
			r.grant(Target{1, 1})
			m.Wake()
			synctest.Wait()
			live, plan := r.Live(), r.Rings().Plan
			want, all := map[ring.NodeID]int64{}, int64(0)
			for p := range live.Units() {
				if !plan.Holds(p) {
					continue
				}
				for _, id := range plan.Recipients(nil, p, self) {
					if !live.Base.Owns(id, p) {
						want[id] += size / 3
						all += size / 3
					}
				}
			}
			var left, before int64 = 0, 1 << 40
			for range 300 {
				left = 0
				for _, l := range m.Progress().Lanes {
					if left += l.BytesLeft; l.Done == 0 && l.BytesLeft != want[l.Node] {
						t.Errorf("%s: %d bytes are left for node %v, want %d", name, l.BytesLeft, l.Node, want[l.Node])
					}
				}
				if before == 1<<40 && left != all || left > before || all == 0 {
					t.Fatalf("%s: %d bytes are left after %d, of %d", name, left, before, all)
				}
				before = left
				pass(time.Second)
			}
			if left != 0 || !m.Progress().Sent {
				t.Errorf("%s: %d bytes are left at the end: %+v", name, left, m.Progress())
			}
		})
	}
}

func TestAnExchangeThatProvesNothingIsNotRepeatedAtOnce(t *testing.T) {
	inMove(t, 4, MoverConfig{}, func(t *testing.T, r *rig, m *Mover, w *way) {
		w.idle = true
		r.setBeside(1, 2, 3, 4, 5)
		r.grant(Target{1, 1})
		pass(time.Minute)
		if n := w.exchanges(); n == 0 || n > 70 || m.Sent() != (Target{}) {
			t.Errorf("%d exchanges in a minute, sent %v", n, m.Sent())
		}
	})
}

// Hints for an owner that is down reach the recipients, and stay.
func TestHintsAreHandedOverAndStay(t *testing.T) {
	inMove(t, 4, MoverConfig{MessageBytes: 20}, func(t *testing.T, r *rig, m *Mover, w *way) {
		r.fall(4)
		for _, k := range r.keysOf(4, 50) {
			r.book.put(4, k, "v")
		}
		r.setBeside(1, 2, 3, 5, 6)
		credits := 0
		r.peer(5).credit = func() int { credits++; return credits % 3 * 10 }
		r.fall(6)
		r.grant(Target{1, 1})
		pass(time.Minute)
		if p := m.Progress(); p.HintsSent || p.HintsWait != 6 {
			t.Errorf("node 6 is down: %+v", p)
		}
		var full atomic.Bool // node 6 takes no hints
		full.Store(true)
		r.peer(6).credit = func() int {
			if full.Load() {
				return 0
			}
			return 1 << 20
		}
		r.mu.Lock()
		delete(r.mu.down, 6)
		r.mu.Unlock()
		pass(10 * time.Minute)
		if p := m.Progress(); p.HintsSent || p.Sent || m.Sent() != (Target{}) {
			t.Errorf("node 6 takes no hints: %+v, sent %v", p, m.Sent())
		}
		for _, l := range m.Progress().Lanes {
			if l.Done != l.Partitions {
				t.Errorf("rows wait for hints: %+v", l)
			}
		}
		full.Store(false)
		pass(5 * time.Minute)
		if m.Sent() != (Target{1, 1}) {
			t.Fatalf("%+v", m.Progress())
		}
		live, seen := r.Live(), 0
		for k := range r.book.hints[4] {
			p := live.Partition(ring.SlotOf([]byte(k)))
			for _, id := range r.Rings().Plan.Recipients(nil, p, 4) {
				seen++
				if id == self && r.book.get(0, k) != "v" || id != self && string(r.peer(id).rows[k]) != "v" {
					t.Errorf("%s has not reached %v", k, id)
				}
			}
		}
		if n := r.book.rows(4); n != 50 || seen == 0 {
			t.Errorf("%d hints of 50 are left, %d copies", n, seen)
		}
	})
}

// Whoever is to have a partition from here is on exactly one lane, with exactly those.
func TestEveryPartitionGoesToEachThatIsToHaveIt(t *testing.T) {
	for name, target := range map[string][]ring.NodeID{"two join": {1, 2, 3, 4, 5, 6}, "this node leaves": {2, 3, 4, 5}, "another is replaced": {1, 2, 5}} {
		inMove(t, 3, MoverConfig{}, func(t *testing.T, r *rig, m *Mover, _ *way) {
			r.setBeside(target...)
			r.grant(Target{1, 1})
			rings := r.Rings()
			want := map[ring.NodeID][]int{}
			for p := range rings.Live.Units() {
				if !rings.Plan.Holds(p) {
					continue
				}
				for _, id := range rings.Plan.Recipients(nil, p, self) {
					want[id] = append(want[id], p)
				}
			}
			for _, l := range m.lanes(rings) {
				if !slices.Equal(l.todo, want[l.node]) || !slices.Equal(l.left, l.todo) {
					t.Errorf("%s: node %v is to have %v and gets %v", name, l.node, want[l.node], l.todo)
				}
				delete(want, l.node)
			}
			if len(want) > 0 {
				t.Errorf("%s: nothing goes to %v", name, want)
			}
		})
	}
}
