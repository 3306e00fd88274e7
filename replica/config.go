package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Config is what a Replica needs. The zero value of a field means the default
// written beside it; Actor and Store have none.
type Config struct {
	// Actor is this incarnation, drawn at random at every start of the process.
	Actor version.Actor
	// Store holds the rows. It must have been started, and is closed by its
	// owner after the Replica.
	Store *storage.Store

	// Units is the number of partitions. Default: 1024.
	Units int
	// CacheBytes bounds the cache of decoded records, as far as they are
	// committed. Default: 64 MiB.
	CacheBytes int64
	// SweepInterval is the pause between two looks for expired payloads.
	// Default: 500 ms.
	SweepInterval time.Duration
	// ScrubPeriod is the time in which every own row is read and checked once.
	// Default: 24 h.
	ScrubPeriod time.Duration
	// Pace waits until some rows may be checked; end is called when they are.
	// Default: at once.
	Pace func(ctx context.Context) (end func(), err error)
	// OnHint is told when something is kept for a node that nothing was kept for.
	// It is called with a lock held and must not block. Default: nobody.
	OnHint func(target ring.NodeID)
	// OnExpired is told that nothing of a key is live any more since the time, once
	// this copy of it has been cleared; not if it was ended by setting a time that was
	// over. It is called with a lock held and must not block, nor keep the key.
	// Default: nobody.
	OnExpired func(key []byte, atMS int64)
	// Now is the wall clock. Default: time.Now.
	Now func() time.Time

	// Logger receives state changes. Default: discarded.
	Logger *slog.Logger
	// Metrics receives the counters. Default: a private set.
	Metrics *metrics.Set
}

// withDefaults returns c with every zero field set to its default.
func (c Config) withDefaults() Config {
	if c.Units == 0 {
		c.Units = 1024
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 64 << 20
	}
	if c.SweepInterval == 0 {
		c.SweepInterval = 500 * time.Millisecond
	}
	if c.ScrubPeriod == 0 {
		c.ScrubPeriod = 24 * time.Hour
	}
	if c.Pace == nil {
		c.Pace = func(context.Context) (func(), error) { return func() {}, nil }
	}
	if c.OnExpired == nil {
		c.OnExpired = func([]byte, int64) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

// validate reports every fault of c at once. Requires: withDefaults ran.
func (c Config) validate() error {
	var errs []error
	if c.Actor == 0 {
		errs = append(errs, errors.New("actor must be given"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("store must be given"))
	}
	if c.Units < 1 || c.Units > ring.Slots || ring.Slots%c.Units != 0 {
		errs = append(errs, fmt.Errorf("units (%d) must divide %d", c.Units, ring.Slots))
	}
	if c.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("cache bytes (%d) must be positive", c.CacheBytes))
	}
	if c.SweepInterval < 0 {
		errs = append(errs, fmt.Errorf("sweep interval (%v) must be positive", c.SweepInterval))
	}
	if c.ScrubPeriod < 0 {
		errs = append(errs, fmt.Errorf("scrub period (%v) must be positive", c.ScrubPeriod))
	}
	return errors.Join(errs...)
}
