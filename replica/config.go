package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Config is what a Replica is built from. Actor and Store are required; the
// zero value of every other field means the default written beside it.
type Config struct {
	// Actor is the incarnation that mints: drawn at random at every start of
	// the process and never used again.
	Actor version.Actor
	Store *storage.Store
	// Units is the number of partitions, each with its own counter of dots. It
	// need not be the cluster's; 1024.
	Units int
	// CacheBytes is about the memory kept for decoded records; 64 MiB.
	CacheBytes int64

	Now     func() time.Time // wall clock; time.Now
	Logger  *slog.Logger     // silent if nil
	Metrics *metrics.Set     // a set of its own if nil
}

func (c Config) withDefaults() Config {
	if c.Units == 0 {
		c.Units = 1024
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 64 << 20
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

func (c Config) validate() error {
	var errs []error
	if c.Actor == 0 {
		errs = append(errs, errors.New("actor is not set"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("store is not set"))
	}
	if c.Units < 1 || c.Units > ring.Slots || ring.Slots%c.Units != 0 {
		errs = append(errs, fmt.Errorf("units (%d) must divide %d", c.Units, ring.Slots))
	}
	if c.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("cache bytes (%d) must not be negative", c.CacheBytes))
	}
	return errors.Join(errs...)
}
