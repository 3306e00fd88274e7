package coordinator

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Config is what the coordinator can be told. The zero value of every field
// means the default stated beside it.
type Config struct {
	R int // nodes that must answer a read; 2, never above n
	W int // nodes that must store a write; 2, never above n

	ReadTimeout  time.Duration // 1 s; when a request gives none
	WriteTimeout time.Duration // 2 s; when a request gives none
	// HintTimeout bounds each message sent after the client has its answer;
	// 5 s.
	HintTimeout time.Duration
	// MaxAge is how long after its beginning a request may still send a message, and
	// the longest timeout of one; 30 s. Whatever it read or minted goes out by then.
	MaxAge time.Duration
	// MessageAge is how long after it was sent a message can be carried out by a peer
	// that has not answered it; 60 s.
	MessageAge time.Duration
	// MinHedge is the least time a read waits before it asks one more owner;
	// 2 ms. The most is half the timeout.
	MinHedge time.Duration
	// MinDoubt is the least time a write that is to be handed over waits for its
	// coordinator's sign of life before another owner is asked too; 10 ms.
	MinDoubt time.Duration

	MaxInFlight int // requests under way, tails included, before ErrOverloaded; 65536
	RepairQueue int // read repairs under way before more are dropped; 1024
	RepairBytes int // records they carry before more are dropped; 64 MiB

	// FsyncOne makes only the coordinator's own copy durable before the
	// acknowledgement (fsync mode "one").
	FsyncOne bool

	// Recovering reports that the local copies may lack what was acknowledged:
	// then every write begins with a read of R others. Never, if nil.
	Recovering func() bool

	// Ended is told how long each request of a client took, those included that
	// other nodes handed over. It must not block. Nobody, if nil.
	Ended func(time.Duration)

	Now     func() time.Time // wall clock; time.Now. Only decides what has expired.
	Rand    func() uint64    // for RandomKey; always the first key if nil
	Logger  *slog.Logger     // discards if nil
	Metrics *metrics.Set     // a set of its own if nil
}

func (c Config) withDefaults() Config {
	def(&c.R, 2)
	def(&c.W, 2)
	def(&c.ReadTimeout, time.Second)
	def(&c.WriteTimeout, 2*time.Second)
	def(&c.HintTimeout, 5*time.Second)
	def(&c.MaxAge, 30*time.Second)
	def(&c.MessageAge, time.Minute)
	def(&c.MinHedge, 2*time.Millisecond)
	def(&c.MinDoubt, 10*time.Millisecond)
	def(&c.MaxInFlight, 1<<16)
	def(&c.RepairQueue, 1024)
	if c.Recovering == nil {
		c.Recovering = func() bool { return false }
	}
	def(&c.RepairBytes, 64<<20)
	if c.Ended == nil {
		c.Ended = func(time.Duration) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = func() uint64 { return 0 }
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
			errs = append(errs, fmt.Errorf("coordinator: %s (%d) must be positive", name, v))
		}
	}
	positive("r", int64(c.R))
	positive("w", int64(c.W))
	positive("read timeout", int64(c.ReadTimeout))
	positive("write timeout", int64(c.WriteTimeout))
	positive("hint timeout", int64(c.HintTimeout))
	positive("max age", int64(c.MaxAge))
	positive("message age", int64(c.MessageAge))
	positive("min hedge", int64(c.MinHedge))
	positive("min doubt", int64(c.MinDoubt))
	positive("max in flight", int64(c.MaxInFlight))
	positive("repair queue", int64(c.RepairQueue))
	positive("repair bytes", int64(c.RepairBytes))
	return errors.Join(errs...)
}
