package antientropy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Config is what an Exchanger needs beside its seams. The zero value of a field
// means the default written beside it.
type Config struct {
	Interval time.Duration // between two exchanges with one peer; 10 s
	Settle   time.Duration // for writes under way to arrive, before rows are compared; 1 s
	Return   time.Duration // after a peer came back, for hints to arrive first; 5 s
	Timeout  time.Duration // of one question; 10 s

	RowBytes  int // rows asked for or delivered at once; 64 KiB
	ListKeys  int // states asked for at once; 512
	CellBatch int // differing cells that are settled together; 4096

	// Pace waits until a piece of work may begin, such as to list some cells or to move
	// some rows; end is called when it is done, with the time in it that went by in
	// waiting for the peer.
	// Default: at once.
	Pace func(ctx context.Context) (end func(waited time.Duration), err error)

	Now     func() time.Time // time.Now
	Rand    func() uint64    // spreads the exchanges; math/rand/v2
	Logger  *slog.Logger     // silent if nil
	Metrics *metrics.Set     // private if nil
}

func (c Config) withDefaults() Config {
	c.Interval = or(c.Interval, 10*time.Second)
	c.Settle = or(c.Settle, time.Second)
	c.Return = or(c.Return, 5*time.Second)
	c.Timeout = or(c.Timeout, 10*time.Second)
	c.RowBytes = or(c.RowBytes, 64<<10)
	c.ListKeys = or(c.ListKeys, 512)
	c.CellBatch = or(c.CellBatch, 4096)
	if c.Pace == nil {
		c.Pace = func(context.Context) (func(time.Duration), error) { return func(time.Duration) {}, nil }
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

// validate reports every fault at once.
func (c Config) validate() error {
	var errs []error
	if c.Interval < time.Millisecond || c.Settle < 0 || c.Return < 0 || c.Timeout < time.Millisecond {
		errs = append(errs, fmt.Errorf("interval (%v) and timeout (%v) must be at least 1 ms, settle (%v) and return (%v) positive",
			c.Interval, c.Timeout, c.Settle, c.Return))
	}
	if c.RowBytes < 1 || c.ListKeys < 1 || c.CellBatch < 1 {
		errs = append(errs, fmt.Errorf("row bytes (%d), list keys (%d) and cell batch (%d) must be positive", c.RowBytes, c.ListKeys, c.CellBatch))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("antientropy: %w", err)
	}
	return nil
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
