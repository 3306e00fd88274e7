package coordinator

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Coordinator runs client requests over the replicas of their keys. Its
// methods may be called from any goroutine.
type Coordinator struct {
	cfg     Config
	cluster Cluster
	local   Local
	count   counters
	up      func(ring.NodeID) bool // cluster.Up, bound once

	reads  sync.Pool // *read
	writes sync.Pool // *write
	repair repairer

	inFlight atomic.Int64
	draining atomic.Bool
	idle     chan struct{} // wakes Drain when inFlight reaches 0
}

// New builds a coordinator; it starts nothing.
func New(cfg Config, cluster Cluster, local Local) (*Coordinator, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg, cluster: cluster, local: local, up: cluster.Up, idle: make(chan struct{}, 1)}
	c.count = newCounters(cfg.Metrics, func() float64 { return float64(c.inFlight.Load()) })
	c.repair.mu.keys = make(map[repairKey]struct{})
	return c, nil
}

// admit takes a place for a client's request, or refuses it.
func (c *Coordinator) admit() bool {
	if c.inFlight.Add(1) > int64(c.cfg.MaxInFlight) || c.draining.Load() {
		c.release()
		c.count.refused.Inc()
		return false
	}
	return true
}

// release gives a place back; for a request, when its tail has ended.
func (c *Coordinator) release() {
	if c.inFlight.Add(-1) == 0 && c.draining.Load() {
		select {
		case c.idle <- struct{}{}:
		default: // Drain has been woken already
		}
	}
}

// InFlight is the number of requests under way, tails and repairs included.
func (c *Coordinator) InFlight() int { return int(c.inFlight.Load()) }

// Drain refuses new requests and waits for those under way, tails and repairs
// included. Every one of them has a deadline.
func (c *Coordinator) Drain(ctx context.Context) error {
	c.draining.Store(true)
	for c.inFlight.Load() > 0 {
		select {
		case <-c.idle:
		case <-ctx.Done():
			return fmt.Errorf("coordinator: drain, %d requests left: %w", c.inFlight.Load(), ctx.Err())
		}
	}
	return nil
}

// ReadOptions are the settings of one read.
type ReadOptions struct {
	R       int            // 0: the configured default; capped by n
	Min     *version.Token // the answer must cover it, else ErrStale; nil: no minimum
	Timeout time.Duration  // 0: the configured default
}

// ReadResult is the join of R copies.
type ReadResult struct {
	Record   version.Record // shared, not to be modified; the zero record is an absent key
	Fallback bool           // a fallback was among the R nodes: R+W>N promises nothing here
}

// WriteOptions are the settings of one write.
type WriteOptions struct {
	R, W    int           // 0: the configured defaults; capped by n
	Timeout time.Duration // 0: the configured default
}

// WriteResult is what an acknowledged write did.
type WriteResult struct {
	version.Outcome
	Fallback bool // minted by a fallback because no owner could be reached
}

// ScanRequest asks for one page of the keys of the cluster.
type ScanRequest struct {
	Cursor uint64 // 0 begins
	Count  int    // about how many keys; 10 if 0
	Owned  bool   // only slots that this node is the first live owner of
}

// ScanPage is one page of keys; Cursor 0 ends the scan.
type ScanPage struct {
	Keys   [][]byte
	Cursor uint64
}
