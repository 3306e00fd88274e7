package handoff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
)

// Config is what a Sender can be told. Self is required; the zero value of every
// other field means the default stated beside it.
type Config struct {
	Self ring.NodeID

	MaxTargets   int           // targets delivered to at once; 4
	MessageBytes int           // keys and records of one message, at most; 1 MiB
	Timeout      time.Duration // for the reply to one message; 10 s
	Turn         time.Duration // how long a worker may hold its place; 2 s
	// Linger is the wait between the first hint for a live target and its
	// delivery, in which more of them gather; 100 ms.
	Linger time.Duration
	// Interval is the longest time between two looks at what is kept; 1 s.
	Interval    time.Duration
	CreditPause time.Duration // before a target that granted nothing is asked again; 200 ms
	MinBackoff  time.Duration // after the first failure; 200 ms
	MaxBackoff  time.Duration // after many; 30 s
	// MaxRejected is how many single rows a target may refuse before the worker
	// pauses; 16.
	MaxRejected int

	// Pace waits until a message may be sent; end is called when its rows are
	// dealt with. Default: at once.
	Pace func(ctx context.Context) (end func(), err error)

	// Handed reports whether this node's hints were handed over as rings of that
	// number ask for: Mover.Handed. Default: never.
	Handed func(number uint64) bool

	Now     func() time.Time // wall clock, by which hints have an age; time.Now
	Rand    func() uint64    // spreads the waits; math/rand/v2
	Logger  *slog.Logger     // discards if nil
	Metrics *metrics.Set     // a set of its own if nil
}

func (c Config) withDefaults() Config {
	def(&c.MaxTargets, 4)
	def(&c.MessageBytes, 1<<20)
	def(&c.Timeout, 10*time.Second)
	def(&c.Turn, 2*time.Second)
	def(&c.Linger, 100*time.Millisecond)
	def(&c.Interval, time.Second)
	def(&c.CreditPause, 200*time.Millisecond)
	def(&c.MinBackoff, 200*time.Millisecond)
	def(&c.MaxBackoff, max(30*time.Second, c.MinBackoff))
	def(&c.MaxRejected, 16)
	if c.Pace == nil {
		c.Pace = func(context.Context) (func(), error) { return func() {}, nil }
	}
	if c.Handed == nil {
		c.Handed = func(uint64) bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
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

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// validate reports every fault at once.
func (c Config) validate() error {
	var errs []error
	positive := func(name string, v int64) {
		if v < 1 {
			errs = append(errs, fmt.Errorf("handoff: %s (%d) must be positive", name, v))
		}
	}
	if c.Self == 0 {
		errs = append(errs, errors.New("handoff: self is not set"))
	}
	positive("max targets", int64(c.MaxTargets))
	positive("message bytes", int64(c.MessageBytes))
	positive("timeout", int64(c.Timeout))
	positive("turn", int64(c.Turn))
	positive("linger", int64(c.Linger))
	positive("interval", int64(c.Interval))
	positive("credit pause", int64(c.CreditPause))
	positive("min backoff", int64(c.MinBackoff))
	positive("max rejected", int64(c.MaxRejected))
	if c.MaxBackoff < c.MinBackoff {
		errs = append(errs, fmt.Errorf("handoff: max backoff (%v) is below the min (%v)", c.MaxBackoff, c.MinBackoff))
	}
	return errors.Join(errs...)
}

// ReceiverConfig is what a Receiver can be told. Self and Ring are required; the
// zero value of every other field means the default stated beside it.
type ReceiverConfig struct {
	Self ring.NodeID
	Live func() *ring.Live // nil while there are no rings

	Workers   int // messages merged at once; 2
	Queue     int // messages that wait for a worker before ErrBusy; 16
	MaxCredit int // bytes that Admission is asked for; 256 KiB

	Metrics *metrics.Set // a set of its own if nil
}

func (c ReceiverConfig) withDefaults() ReceiverConfig {
	def(&c.Workers, 2)
	def(&c.Queue, 16)
	def(&c.MaxCredit, 256<<10)
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

func (c ReceiverConfig) validate() error {
	var errs []error
	if c.Self == 0 || c.Live == nil {
		errs = append(errs, errors.New("handoff: self and ring must be set"))
	}
	if c.Workers < 1 || c.Queue < 1 || c.MaxCredit < 1 {
		errs = append(errs, fmt.Errorf("handoff: workers (%d), queue (%d) and max credit (%d) must be positive", c.Workers, c.Queue, c.MaxCredit))
	}
	return errors.Join(errs...)
}
