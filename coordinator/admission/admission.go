package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/coordinator/admission/share"
)

// Kind is a kind of background work.
type Kind uint8

// The kinds.
const (
	Receive  Kind = iota // rows that other nodes deliver
	Send                 // hints on their way home
	Exchange             // rows that differ from another owner's
	Answer               // what an owner that compares asks; it is only charged, for who asks rests
	Scrub                // rows checked against their checksums
	Reap                 // what is left of deleted keys
	kinds
)

// String is the word in metrics and INFO.
func (k Kind) String() string {
	return [kinds]string{"receive", "send", "exchange", "answer", "scrub", "reap"}[k]
}

// Source says whom foreground work is for.
type Source uint8

// The sources.
const (
	Client Source = iota // a request of a client, here
	Peer                 // what another node asks for a client of its own
)

// Config is what a Controller can be told. The zero value of a field means the
// default written beside it.
type Config struct {
	Multiple  float64       // the p99 of clients may be so many times what it is without background work; 1.5, negative: no limit
	LeastGoal time.Duration // and this in any case; 5 ms

	InFlight func() int       // requests under way; none
	Stalled  func() bool      // the disk does not keep up; never
	Now      func() time.Time // wall clock; time.Now

	Metrics *metrics.Set // private if nil
}

func (c Config) withDefaults() Config {
	if c.Multiple == 0 {
		c.Multiple = 1.5
	}
	if c.LeastGoal == 0 {
		c.LeastGoal = 5 * time.Millisecond
	}
	if c.InFlight == nil {
		c.InFlight = func() int { return 0 }
	}
	if c.Stalled == nil {
		c.Stalled = func() bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

// validate reports every fault at once.
func (c Config) validate() error {
	var errs []error
	if c.Multiple >= 0 && c.Multiple < 1 || math.IsNaN(c.Multiple) {
		errs = append(errs, fmt.Errorf("admission: multiple (%v) must be at least 1, or negative", c.Multiple))
	}
	if c.LeastGoal < 0 {
		errs = append(errs, fmt.Errorf("admission: least goal (%v) must be positive", c.LeastGoal))
	}
	return errors.Join(errs...)
}

// Controller shares time between clients and background work.
type Controller struct {
	cfg   Config
	rule  *share.Control // Run's own
	ended [share.Sources][share.Buckets]atomic.Uint64
	seen  [share.Sources]share.Counts // of ended, at the end of the last slice; Run's own

	verdict atomic.Pointer[share.Verdict]
	active  atomic.Int64 // pieces of background work under way
	begun   atomic.Int64 // since the last slice of time

	budgets [kinds]budget
	granted [kinds]*metrics.Counter
	refused [kinds]*metrics.Counter
	busy    [kinds]*metrics.FloatCounter
}

// New makes a Controller; it starts nothing. Until Run runs nothing is held back.
func New(cfg Config) (*Controller, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, rule: share.New(cfg.Multiple, cfg.LeastGoal.Microseconds())}
	c.verdict.Store(&share.Verdict{Share: 1})
	set := cfg.Metrics
	for k := range kinds {
		c.budgets[k].mu.at = time.Now()
		c.granted[k] = set.NewCounter(fmt.Sprintf(`admission_slices_total{kind=%q,outcome="granted"}`, k))
		c.refused[k] = set.NewCounter(fmt.Sprintf(`admission_slices_total{kind=%q,outcome="refused"}`, k))
		c.busy[k] = set.NewFloatCounter(fmt.Sprintf(`admission_busy_seconds_total{kind=%q}`, k))
	}
	set.NewGauge(`admission_share`, func() float64 { return c.Status().Share })
	set.NewGauge(`admission_p99_ms`, func() float64 { return c.Status().P99.Seconds() * 1000 })
	set.NewGauge(`admission_target_ms`, func() float64 { return c.Status().Target.Seconds() * 1000 })
	return c, nil
}

// Ended notes that work for clients took so long.
func (c *Controller) Ended(from Source, took time.Duration) {
	c.ended[from][share.Bucket(took.Microseconds())].Add(1)
}

// Run adjusts the share until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if c.cfg.Multiple < 0 {
		return nil // nothing to adjust
	}
	tick := time.NewTicker(share.SliceMS * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.next()
		}
	}
}

// next ends one slice of time.
func (c *Controller) next() {
	s := share.Slice{
		InFlight: c.cfg.InFlight(), Stalled: c.cfg.Stalled(),
		Quiet: c.begun.Swap(0) == 0 && c.active.Load() == 0, WallMS: c.cfg.Now().UnixMilli(),
	}
	for from := range c.ended {
		for b := range c.ended[from] {
			n := float64(c.ended[from][b].Load())
			s.Ended[from][b], c.seen[from][b] = n-c.seen[from][b], n
		}
	}
	v := c.rule.Next(&s)
	c.verdict.Store(&v)
}

// budget is what one kind of work owes to the others. It never has anything to its
// credit: work after a rest does not come all at once.
type budget struct {
	mu struct {
		sync.Mutex
		owed time.Duration // busy for so much longer than its share
		at   time.Time     // up to which rest was counted
	}
}

// mostOwed bounds what a piece of work costs that took very long, as one does
// that waits for a node that has died.
const mostOwed = time.Second

// take reports whether work may begin with this share, and if not, when to ask
// again.
func (b *budget) take(now time.Time, part float64) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.owed = max(b.mu.owed-time.Duration(part*float64(now.Sub(b.mu.at))), 0)
	b.mu.at = now
	if b.mu.owed == 0 {
		return 0
	}
	return time.Duration(float64(b.mu.owed)/part) + time.Millisecond
}

// charge adds what a piece of work took.
func (b *budget) charge(took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.owed = min(b.mu.owed+took, mostOwed)
}

// ask reports how long to wait before work of a kind may begin; 0: not at all.
func (c *Controller) ask(k Kind) time.Duration {
	v := c.verdict.Load()
	switch {
	case v.Pause || c.cfg.Stalled():
		return share.SliceMS * time.Millisecond
	case v.Share == 1:
		return 0
	}
	return c.budgets[k].take(time.Now(), v.Share)
}

// maxWait bounds a wait for a slice before the share, which may have changed, is
// looked at again.
const maxWait = share.SliceMS * time.Millisecond

// Slice waits until work of a kind may begin, and returns what is to be called
// when it has ended, as Begin does. It answers an error once ctx has ended.
func (c *Controller) Slice(ctx context.Context, k Kind) (end func(waited time.Duration), err error) {
	for told := false; ; told = true {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wait := c.ask(k)
		if wait == 0 {
			return c.Begin(k), nil
		}
		if !told {
			c.refused[k].Inc()
		}
		timer := time.NewTimer(min(wait, maxWait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// Begin charges a kind for work that has begun anyway, because it was granted
// before or cannot wait, until end is called. What it waited for other nodes is not
// charged: those charge themselves.
func (c *Controller) Begin(k Kind) (end func(waited time.Duration)) {
	begin := time.Now()
	c.granted[k].Inc()
	c.begun.Add(1)
	c.active.Add(1)
	return func(waited time.Duration) {
		c.active.Add(-1)
		took := max(time.Since(begin)-waited, 0)
		c.busy[k].Add(took.Seconds())
		c.budgets[k].charge(took)
	}
}

// leastGrant is the least that is granted if anything is: a message of less
// costs about as much.
const leastGrant = 64 << 10

// Grant answers how many bytes, of the number wanted, another node may send
// next; 0 is nothing for now. The work is charged with Begin.
func (c *Controller) Grant(k Kind, want int) int {
	if c.ask(k) > 0 {
		c.refused[k].Inc()
		return 0
	}
	return min(want, max(int(float64(want)*c.verdict.Load().Share), leastGrant))
}

// Status is what holds at present.
type Status struct {
	Share    float64       // part of its time that each kind of work may be busy
	P99      time.Duration // of clients in the last 10 s; 0 if there were too few
	Target   time.Duration // for it
	Measured bool          // the target rests on what was seen without background work
}

// Status answers what holds at present.
func (c *Controller) Status() Status {
	v := c.verdict.Load()
	return Status{
		Share: v.Share, Measured: v.Measured,
		P99: time.Duration(v.P99US) * time.Microsecond, Target: time.Duration(v.TargetUS) * time.Microsecond,
	}
}
