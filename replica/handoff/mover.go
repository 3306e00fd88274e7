package handoff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Moved is what an exchange brought, in both directions.
type Moved struct{ Rows, Bytes int64 }

// Exchanges brings own rows to other owners.
type Exchanges interface {
	// Exchange makes the rows in some slots equal here and at another node, contexts
	// included, as far as both own them in some ring. ErrBusy: it is in another exchange.
	Exchange(ctx context.Context, node ring.NodeID, first, last ring.Slot) (Moved, error)
	// Session returns when the last Exchange of a partition with a node began that has
	// ended well, with the rows on both disks.
	Session(partition int, node ring.NodeID) (began time.Time, ok bool)
}

// Moment is what is kept for others, as it was at one moment.
type Moment interface {
	// Targets lists those that something is kept for.
	Targets() ([]ring.NodeID, error)
	// Page is Book.Page.
	Page(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (Page, error)
	// Close lets go of the moment.
	Close() error
}

// MoverConfig is what a Mover can be told. Self is required; the zero value of every
// other field means the default stated beside it.
type MoverConfig struct {
	Self ring.NodeID

	Batch        int           // partitions of the first exchange with a node; 64
	Took         time.Duration // what an exchange is to take: the next has more partitions, or fewer; 5 s
	MessageBytes int           // hints in one message, at most; 1 MiB
	Timeout      time.Duration // for the reply to one message; 10 s
	BusyPause    time.Duration // before a node that is busy is asked again; 100 ms
	MinBackoff   time.Duration // after the first failure; 200 ms
	MaxBackoff   time.Duration // after many; 10 s

	// Pace waits until a message with hints may be sent; end is called when it was.
	// Default: at once.
	Pace func(ctx context.Context) (end func(), err error)
	// Sizes tells about how many bytes the own rows of a partition of a ring take. It is
	// asked once for each job, and may look at the disk. Default: nothing is known.
	Sizes func(r *ring.Ring) func(partition int) int64
	// Sent is told that everything is handed over. It must not block. Default: nobody.
	Sent func()

	Rand    func() uint64 // spreads the waits; math/rand/v2
	Logger  *slog.Logger  // discards if nil
	Metrics *metrics.Set  // a set of its own if nil
}

func (c MoverConfig) withDefaults() MoverConfig {
	def(&c.Batch, 64)
	def(&c.Took, 5*time.Second)
	def(&c.MessageBytes, 1<<20)
	def(&c.Timeout, 10*time.Second)
	def(&c.BusyPause, 100*time.Millisecond)
	def(&c.MinBackoff, 200*time.Millisecond)
	def(&c.MaxBackoff, max(10*time.Second, c.MinBackoff))
	if c.Pace == nil {
		c.Pace = func(context.Context) (func(), error) { return func() {}, nil }
	}
	if c.Sizes == nil {
		c.Sizes = func(*ring.Ring) func(int) int64 { return func(int) int64 { return 0 } }
	}
	if c.Sent == nil {
		c.Sent = func() {}
	}
	if c.Rand == nil {
		c.Rand = rand.Uint64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

// validate reports every fault at once.
func (c MoverConfig) validate() error {
	var errs []error
	if c.Self == 0 {
		errs = append(errs, errors.New("handoff: mover: self is not set"))
	}
	if c.Batch < 1 || c.MessageBytes < 1 || c.Took < 1 || c.Timeout < 1 || c.BusyPause < 1 || c.MinBackoff < 1 || c.MaxBackoff < c.MinBackoff {
		errs = append(errs, fmt.Errorf("handoff: mover: batch (%d), message bytes (%d), took (%v), timeout (%v), busy pause (%v), min backoff (%v) and max backoff (%v) must be positive and in order",
			c.Batch, c.MessageBytes, c.Took, c.Timeout, c.BusyPause, c.MinBackoff, c.MaxBackoff))
	}
	return errors.Join(errs...)
}

// Mover hands over what this node holds when the rings change: its own rows, and the
// hints that it keeps.
type Mover struct {
	cfg     MoverConfig
	cluster Cluster
	rows    Merger
	way     Exchanges
	moment  func() (Moment, error)
	count   moverCounters

	kick chan struct{} // holds one wish to look at the rings
	mu   struct {
		sync.Mutex
		job *job // nil if nothing is to be handed over
	}
}

// job is what one grant asks for, under one plan.
type job struct {
	Rings
	// Invariant: only exchanges that began after since, and hints that were read after
	// it, count. By then everybody wrote to the owners of the target.
	since time.Time
	sizes func(partition int) int64 // set before the job is worked on

	// Guarded by Mover.mu.
	lanes         []*lane
	hints         hintTally
	rowed, hinted bool // own rows, hints are handed over
}

// NewMover makes a Mover; it starts nothing. moment takes hold of the hints.
func NewMover(cfg MoverConfig, cluster Cluster, rows Merger, way Exchanges, moment func() (Moment, error)) (*Mover, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Mover{cfg: cfg, cluster: cluster, rows: rows, way: way, moment: moment, kick: make(chan struct{}, 1)}
	m.count = newMoverCounters(cfg.Metrics, m.togo)
	return m, nil
}

// Wake makes the Mover look at the rings, which may have changed.
func (m *Mover) Wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Sent is the target for which everything was handed over; zero if it is not, or if
// nothing is asked for.
func (m *Mover) Sent() Target {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.mu.job; j != nil && j.rowed && j.hinted {
		return j.Grant
	}
	return Target{}
}

// Handed reports whether the hints that rings of this number ask for were handed over.
func (m *Mover) Handed(number uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.mu.job
	return j != nil && j.hinted && j.Number == number
}

// lookPause is the longest time between two looks at the rings.
const lookPause = time.Second

// Run hands over what the rings ask for until ctx ends.
func (m *Mover) Run(ctx context.Context) error {
	end := func() {}
	defer func() { end() }()
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	for {
		if j, changed := m.look(); changed {
			end()
			end = func() {}
			if j != nil {
				end = m.begin(ctx, j)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.kick:
		}
	}
}

// look brings the job up to the rings. Another plan for the same target goes on with
// what was proven since it was granted.
func (m *Mover) look() (j *job, changed bool) {
	rings := m.cluster.Rings()
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.mu.job
	if rings.Live == nil || rings.Plan == nil || rings.Grant == (Target{}) {
		m.mu.job = nil
		return nil, was != nil
	}
	if was != nil && was.Grant == rings.Grant && was.Number == rings.Number {
		return was, false
	}
	j = &job{Rings: rings, since: time.Now()}
	if was != nil && was.Grant == rings.Grant {
		j.since = was.since
	}
	j.lanes = m.lanes(rings)
	m.mu.job = j
	return j, true
}

// begin works on a job; the function that it returns ends that.
func (m *Mover) begin(ctx context.Context, j *job) (end func()) {
	j.sizes = m.cfg.Sizes(j.Live.Base)
	partitions := 0
	m.mu.Lock()
	for _, l := range j.lanes {
		partitions += len(l.todo)
		l.leftBytes = j.bytesTo(l.node, l.todo)
	}
	m.mu.Unlock()
	m.cfg.Logger.Info("handoff: partitions are handed over", "nodes", len(j.lanes), "copies", partitions)
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() {
		if m.moveRows(ctx, j) {
			m.done(j, &j.rowed)
		}
	})
	parts.Go(func() {
		if m.moveHints(ctx, j) {
			m.done(j, &j.hinted)
		}
	})
	return func() {
		cancel()
		parts.Wait()
	}
}

// bytesTo is about what partitions bring from here to a node. Who owns one already
// lacks next to nothing of it. Another is offered it by all who own it, and takes it
// from whoever comes first: so each brings its part.
func (j *job) bytesTo(node ring.NodeID, partitions []int) (size int64) {
	for _, p := range partitions {
		if owners := j.Live.Base.Owners(p); !slices.Contains(owners, node) {
			size += j.sizes(p) / int64(max(len(owners), 1))
		}
	}
	return size
}

// done notes the end of one part of a job.
func (m *Mover) done(j *job, part *bool) {
	m.mu.Lock()
	*part = true
	sent := m.mu.job == j && j.rowed && j.hinted
	m.mu.Unlock()
	if sent {
		m.cfg.Logger.Info("handoff: everything is handed over", "took", time.Since(j.since).Round(time.Millisecond))
		m.cfg.Sent()
	}
}

// lane is what goes to one node.
type lane struct {
	node  ring.NodeID
	todo  []int // partitions that it is to have from here, ascending
	batch int   // partitions of the next exchange
	due   time.Time

	// Guarded by Mover.mu.
	left      []int // of todo, those without proof
	leftBytes int64 // about what these bring from here
	moved     Moved
	fails     int
	state     string
}

// lanes lists what the own rows ask for.
func (m *Mover) lanes(rings Rings) (all []*lane) {
	of := map[ring.NodeID]*lane{}
	var to []ring.NodeID
	for p := range rings.Live.Units() {
		if !rings.Plan.Holds(p) {
			continue
		}
		to = rings.Plan.Recipients(to[:0], p, m.cfg.Self)
		for _, node := range to {
			l := of[node]
			if l == nil {
				l = &lane{node: node, batch: m.cfg.Batch, state: Waiting.String()}
				of[node] = l
				all = append(all, l)
			}
			l.todo = append(l.todo, p)
		}
	}
	for _, l := range all {
		l.left = l.todo
	}
	return all
}

// moveRows exchanges what the lanes ask for, until all of it is proven.
func (m *Mover) moveRows(ctx context.Context, j *job) bool {
	// So that no exchange seems to have begun at the very moment of the grant.
	if pause(ctx, time.Millisecond) != nil {
		return false
	}
	lanes := slices.Clone(j.lanes)
	for {
		next, open := time.Duration(0), false
		// Every node begins elsewhere: else all would wait for the same one.
		start := int(m.cfg.Rand() % uint64(max(len(lanes), 1)))
		for i := range lanes {
			l := lanes[(start+i)%len(lanes)]
			if m.prove(j, l) == 0 {
				continue
			}
			if wait := time.Until(l.due); wait <= 0 {
				m.exchange(ctx, j, l)
			}
			if ctx.Err() != nil {
				return false
			}
			if m.prove(j, l) > 0 {
				wait := max(time.Until(l.due), 0)
				if !open || wait < next {
					next = wait
				}
				open = true
			}
		}
		if !open {
			return true
		}
		if pause(ctx, next) != nil {
			return false
		}
	}
}

// prove takes the partitions off a lane whose exchanges are proven, and answers how many
// are left.
func (m *Mover) prove(j *job, l *lane) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []int
	for _, p := range l.left {
		if began, ok := m.way.Session(p, l.node); !ok || !began.After(j.since) {
			left = append(left, p)
		}
	}
	m.count.partitions.Add(len(l.left) - len(left))
	if len(left) < len(l.left) {
		l.leftBytes = j.bytesTo(l.node, left)
	}
	if l.left = left; len(left) == 0 {
		l.state = "done"
	}
	return len(left)
}

// exchange runs the next exchange of a lane. Those that do not share a range with it
// are for the next one.
func (m *Mover) exchange(ctx context.Context, j *job, l *lane) {
	if !m.cluster.Up(l.node) {
		m.settle(l, Moved{}, "down", m.cfg.MinBackoff)
		return
	}
	m.mu.Lock()
	left, parts := len(l.left), l.left[:min(l.batch, len(l.left))]
	l.state = "moving"
	m.mu.Unlock()
	first, _ := j.Live.SlotsOf(parts[0])
	_, last := j.Live.SlotsOf(parts[len(parts)-1])
	began := time.Now()
	moved, err := m.way.Exchange(ctx, l.node, first, last)
	m.count.rows.AddInt64(moved.Rows)
	m.count.bytes.AddInt64(moved.Bytes)
	switch took := time.Since(began); {
	case err == nil && took < m.cfg.Took/2:
		l.batch *= 2
	case err == nil && took > 2*m.cfg.Took:
		l.batch = max(l.batch/2, 1)
	}
	switch {
	case err == nil && m.prove(j, l) < left:
		m.count.ok.Inc()
		m.settle(l, moved, Waiting.String(), 0)
	case err == nil: // it was about other rings than this job
		m.settle(l, moved, Waiting.String(), m.spread(m.cfg.BusyPause))
	case errors.Is(err, ErrBusy):
		m.count.busy.Inc()
		m.settle(l, moved, Waiting.String(), m.spread(m.cfg.BusyPause))
	case ctx.Err() == nil:
		m.count.failed.Inc()
		m.mu.Lock()
		l.fails++
		fails := l.fails
		m.mu.Unlock()
		if fails == 1 {
			m.cfg.Logger.Warn("handoff: partitions cannot be handed over, trying again", "node", l.node, "err", err)
		}
		m.settle(l, moved, BackingOff.String(), m.spread(backoff(fails, m.cfg.MinBackoff, m.cfg.MaxBackoff)))
	}
}

// settle notes how an exchange of a lane ended, and when the next may begin.
func (m *Mover) settle(l *lane, moved Moved, state string, wait time.Duration) {
	l.due = time.Now().Add(wait)
	m.mu.Lock()
	defer m.mu.Unlock()
	l.moved.Rows += moved.Rows
	l.moved.Bytes += moved.Bytes
	if l.state = state; wait == 0 {
		l.fails = 0
	}
}

// spread is between half of d and d.
func (m *Mover) spread(d time.Duration) time.Duration {
	return d/2 + time.Duration(m.cfg.Rand()%uint64(d/2+1))
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// damaged reports whether an error is about a part of the store that cannot be read.
func damaged(err error) bool { return errors.Is(err, version.ErrCorrupt) }
