package handoff

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Sender delivers what this node keeps for others.
type Sender struct {
	cfg     Config
	book    Book
	rows    Merger
	cluster Cluster
	budget  *Budget
	count   counters

	kick chan struct{} // holds one wish to look at what there is to do
	mu   struct {
		sync.Mutex
		targets map[ring.NodeID]*target // as many as nodes were ever kept for
		active  int                     // workers
		steps   map[*target]uint64      // under way: the number of the rings that each goes by
	}
}

// State says what is being done for a target.
type State uint8

// The states.
const (
	Idle       State = iota // nothing is kept for it
	Delivering              // a worker is at it
	Waiting                 // it is down, grants nothing, or others come first
	BackingOff              // the last try failed
)

// String is the word that people see.
func (s State) String() string {
	return [...]string{"idle", "delivering", "waiting", "backing-off"}[s]
}

// target is one node that something is or was kept for.
type target struct {
	id   ring.NodeID
	work worker // the worker's own while running is set

	// Guarded by Sender.mu.
	state   State
	running bool
	back    bool      // it returned while a worker ran
	news    news      // what the log was told of it
	due     time.Time // no worker before
	served  time.Time // when the last worker ended
	tally
}

// tally is what has become of the rows of a target since the start.
type tally struct {
	rows, bytes int64 // delivered
	failed      int64 // messages, and rows, that the target did not take
}

// Status is what is known of one target.
type Status struct {
	Total
	State          State
	OverBudget     bool
	DeliveredRows  int64
	DeliveredBytes int64
	Failed         int64
}

// NewSender makes a Sender; it starts nothing.
func NewSender(cfg Config, book Book, rows Merger, cluster Cluster, budget *Budget) (*Sender, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Sender{cfg: cfg, book: book, rows: rows, cluster: cluster, budget: budget, kick: make(chan struct{}, 1)}
	s.mu.targets, s.mu.steps = map[ring.NodeID]*target{}, map[*target]uint64{}
	s.count = newCounters(cfg.Metrics, s.activeTargets, s.oldestSeconds)
	return s, nil
}

// Wake makes the Sender look at what there is to do: something is kept for a
// node that nothing was kept for, or the ring has changed.
func (s *Sender) Wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Returned says that a node is back: no wait for it is worth anything now.
func (s *Sender) Returned(id ring.NodeID) {
	s.mu.Lock()
	t := s.mu.targets[id]
	if t != nil {
		t.news.returned = true
	}
	switch {
	case t == nil:
	case t.running:
		t.back = true
	default:
		t.due, t.work.fails = time.Time{}, 0
	}
	s.mu.Unlock()
	s.Wake()
}

// Status lists every target that something was kept for since the start, in
// order of their ids.
func (s *Sender) Status() []Status {
	totals := s.book.Totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Status
	for _, total := range totals {
		if s.mu.targets[total.Target] == nil {
			all = append(all, Status{Total: total, State: Waiting, OverBudget: s.budget.Over(total.Target)})
		}
	}
	for id, t := range s.mu.targets {
		st := Status{
			Total: Total{Target: id}, State: t.state, OverBudget: s.budget.Over(id),
			DeliveredRows: t.rows, DeliveredBytes: t.bytes, Failed: t.failed,
		}
		if i := slices.IndexFunc(totals, func(x Total) bool { return x.Target == id }); i >= 0 {
			st.Total = totals[i]
		}
		if st.Rows == 0 && !t.running {
			st.State = Idle
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Target, b.Target) })
	return all
}

func (s *Sender) activeTargets() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.mu.active)
}

// oldestSeconds is the age of the oldest hint for anyone.
func (s *Sender) oldestSeconds() float64 {
	oldest := time.Duration(0)
	for _, t := range s.book.Totals() {
		if !t.Since.IsZero() {
			oldest = max(oldest, s.cfg.Now().Sub(t.Since))
		}
	}
	return oldest.Seconds()
}

// Run delivers until ctx ends; it waits for its workers, which then end soon.
func (s *Sender) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	ended := make(chan outcome, s.cfg.MaxTargets) // room for all, so that none waits
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.kick:
		case o := <-ended:
			s.settle(o)
		}
		ready, next := s.plan(time.Now())
		s.tell()
		for _, t := range ready {
			workers.Go(func() { ended <- s.turn(ctx, t) })
		}
		timer.Reset(next)
	}
}

// plan brings the targets up to date and picks those that get a worker now. It
// also says when to look again.
func (s *Sender) plan(now time.Time) (ready []*target, next time.Duration) {
	s.budget.refresh()
	current, totals := s.cluster.Rings().Live, s.book.Totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := make(map[ring.NodeID]bool, len(totals))
	for _, total := range totals {
		kept[total.Target] = true
		if s.mu.targets[total.Target] == nil {
			s.mu.targets[total.Target] = &target{id: total.Target}
		}
	}
	next = s.cfg.Interval
	for _, t := range s.mu.targets {
		switch {
		case t.running:
		case !kept[t.id]:
			t.state, t.due, t.work = Idle, time.Time{}, worker{}
		case current == nil, !s.hasWork(current, t):
			t.state = Waiting
		default:
			if t.state == Idle && t.due.IsZero() {
				t.state, t.due = Waiting, now.Add(s.cfg.Linger)
			}
			if wait := t.due.Sub(now); wait > 0 {
				next = min(next, wait)
				continue
			}
			ready = append(ready, t)
		}
	}
	return s.pickLocked(ready), next
}

// news is how far the log knows of what a node that returned is given.
type news struct {
	returned bool // it returned, and has hints
	began    bool // the log knows
	rows     int64
}

// tell logs the beginning and the end of what a node that returned is given.
// The few hints of a live node are no news.
func (s *Sender) tell() {
	for _, st := range s.Status() {
		s.mu.Lock()
		t := s.mu.targets[st.Target]
		began := t != nil && t.news.returned && !t.news.began && st.Rows > 0
		ended := t != nil && t.news.began && st.Rows == 0 && !t.running
		delivered := int64(0)
		switch {
		case began:
			t.news.began, t.news.rows = true, t.rows
		case ended:
			delivered = t.rows - t.news.rows
			t.news = news{}
		case t != nil && st.Rows == 0:
			t.news = news{}
		}
		s.mu.Unlock()
		switch {
		case began:
			s.cfg.Logger.Info("handoff: a node is back and gets its hints", "target", st.Target, "rows", st.Rows, "bytes", st.Bytes)
		case ended:
			s.cfg.Logger.Info("handoff: all hints of a node are delivered", "target", st.Target, "rows", delivered)
		}
	}
}

// hasWork reports whether a worker could do something for t: it can be reached,
// or rows may have to be moved.
func (s *Sender) hasWork(current *ring.Live, t *target) bool {
	return t.id == s.cfg.Self || s.reachable(current, t.id) || t.work.looked != current.Epoch() || !current.Member(t.id)
}

// reachable reports whether rows can be delivered to a node: it is in the ring
// and up, and not this one, whose rows are only to be moved.
func (s *Sender) reachable(current *ring.Live, id ring.NodeID) bool {
	return id != s.cfg.Self && current.Member(id) && s.cluster.Up(id)
}

// pickLocked marks as many of the targets as there are places as running, those
// that waited longest first.
func (s *Sender) pickLocked(ready []*target) []*target {
	slices.SortFunc(ready, func(a, b *target) int {
		return cmp.Or(a.served.Compare(b.served), cmp.Compare(a.id, b.id))
	})
	free := min(len(ready), s.cfg.MaxTargets-s.mu.active)
	for _, t := range ready[free:] {
		t.state = Waiting
	}
	for _, t := range ready[:free] {
		t.state, t.running = Delivering, true
	}
	s.mu.active += free
	return ready[:free]
}

// enter returns the present rings, which a step for t goes by until leave.
func (s *Sender) enter(t *target) Rings {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.cluster.Rings() // with the lock: Oldest sees the step, or the step these rings
	s.mu.steps[t] = r.Number
	return r
}

func (s *Sender) leave(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.steps, t)
}

// Oldest is the least number of rings that something under way goes by: of those
// before nothing is delivered or dropped any more. It is the present one's if nothing
// is under way. Whoever says that nothing goes by earlier rings asks it.
func (s *Sender) Oldest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.cluster.Rings().Number
	for _, number := range s.mu.steps {
		oldest = min(oldest, number)
	}
	return oldest
}

// settle takes the outcome of a worker.
func (s *Sender) settle(o outcome) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := o.target
	t.running, t.served, t.state = false, now, o.state
	if t.due = now.Add(o.pause); t.back {
		t.due, t.back, t.work.fails = now, false, 0
	}
	s.mu.active--
}

// progress adds to the tally of a target, and to the counters.
func (s *Sender) progress(t *target, d tally) {
	s.count.rows.Add(int(d.rows))
	s.count.bytes.Add(int(d.bytes))
	s.count.failed.Add(int(d.failed))
	s.mu.Lock()
	defer s.mu.Unlock()
	t.rows += d.rows
	t.bytes += d.bytes
	t.failed += d.failed
}

// spread is between half of d and d.
func (s *Sender) spread(d time.Duration) time.Duration {
	return d/2 + time.Duration(s.cfg.Rand()%uint64(d/2+1))
}
