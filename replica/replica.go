package replica

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
)

// Replica holds the keys of one node.
type Replica struct {
	cfg    Config
	store  *storage.Store
	meters meters
	clock  Clock

	stripes    [stripes]stripe
	cacheBytes atomic.Int64
	evicting   atomic.Uint32 // the stripe last looked at for room

	counters []atomic.Uint64 // last counter minted, by partition
	fences   fences          // by partition
	opened   time.Time
	hintedAt []atomic.Int64 // by partition: when a hint last came or went, since opened

	tally    tally
	reaped   reaped
	hints    hintBook
	snapshot *storage.Snapshot // of the rows to be counted; nil if there are none
	held     atomic.Bool       // some row is or was here

	closed atomic.Bool
}

// New makes the replica of the rows in cfg.Store, which must be started. It
// takes the counters that a clean close left; without them Run has to count.
func New(cfg Config) (*Replica, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("replica: config: %w", err)
	}
	r := &Replica{cfg: cfg, store: cfg.Store, meters: newMeters(cfg.Metrics), opened: time.Now()}
	r.clock.now = cfg.Now
	r.gauge()
	r.hints.now, r.hints.first = cfg.Now, cfg.OnHint
	r.counters, r.fences = make([]atomic.Uint64, cfg.Units), make(fences, cfg.Units)
	r.hintedAt = make([]atomic.Int64, cfg.Units)
	seed := maphash.MakeSeed()
	for i := range r.stripes {
		r.stripes[i].init(seed)
	}
	r.tally.exact = make(chan struct{})
	if err := r.loadTallies(); err != nil {
		return nil, fmt.Errorf("replica: open: %w", err)
	}
	return r, nil
}

// loadTallies takes over the counters of a clean close, or prepares to count.
func (r *Replica) loadTallies() error {
	if err := r.findTargets(); err != nil {
		return err
	}
	row, err := r.store.Meta(talliesRow)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return r.prepareCount()
	case err != nil:
		return err
	}
	// They hold for this one moment. Gone before the first change, they cannot
	// be mistaken for the counters of a later one.
	if err := r.store.SetMeta(talliesRow, nil); err != nil {
		return err
	}
	t, err := decodeTallies(row)
	if err != nil {
		r.cfg.Logger.Error("replica: stored counters are damaged, counting again", "err", err)
		return r.prepareCount()
	}
	for slot, keys := range t.keys {
		r.tally.keys[slot].Store(int64(keys))
		r.tally.expiries[slot].Store(int64(t.expiries[slot]))
	}
	for _, h := range t.hints {
		r.hints.open(h.Target, h.Rows, h.Bytes)
	}
	close(r.tally.exact)
	return nil
}

// prepareCount keeps the rows as they are before the first change, for Run.
func (r *Replica) prepareCount() error {
	held, err := r.Records()
	if err != nil {
		return err
	}
	if !held {
		close(r.tally.exact)
		return nil
	}
	r.snapshot, err = r.store.Snapshot(nil, nil)
	return err
}

// findTargets opens an account for every target with hint rows.
func (r *Replica) findTargets() error {
	targets, err := hintTargets(r.store.Scan)
	for _, target := range targets {
		r.hints.open(target, 0, 0)
	}
	return err
}

// Run counts the rows if a clean close has not left their number, drops expired
// payloads and scrubs, until ctx ends. It must be called once.
func (r *Replica) Run(ctx context.Context) error {
	if r.snapshot != nil {
		err := errors.Join(r.countRows(ctx), r.releaseSnapshot())
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("replica: count: %w", err)
		}
	}
	var scrubbing sync.WaitGroup
	scrubbing.Go(func() { r.scrub(ctx) })
	defer scrubbing.Wait()
	r.repeat(ctx, r.cfg.SweepInterval, "dropping expired payloads", r.sweep)
	return nil
}

// repeat does work at every interval until ctx ends. A busy store is no news; any
// other failure is told once, and its end. A store that has failed ends the node by
// itself.
func (r *Replica) repeat(ctx context.Context, interval time.Duration, what string, work func(context.Context) error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := work(ctx)
		if ctx.Err() != nil {
			return
		}
		if is := err != nil && !errors.Is(err, storage.ErrBusy); is != failing {
			failing = is
			r.cfg.Logger.Warn("replica: "+what+" changed state", "failing", is, "err", err)
		}
	}
}

// releaseSnapshot lets go of the rows that were to be counted.
func (r *Replica) releaseSnapshot() error {
	if r.snapshot == nil {
		return nil
	}
	defer func() { r.snapshot = nil }()
	return r.snapshot.Close()
}

// Close refuses further changes, waits for the queued ones and leaves the
// counters for the next open. Run must have ended. The store stays open.
func (r *Replica) Close() error {
	if r.closed.Swap(true) {
		return storage.ErrClosed
	}
	r.passLocks()
	if !r.tally.ready() {
		return r.releaseSnapshot()
	}
	row, ok := r.encodeTallies()
	if !ok {
		r.cfg.Logger.Error("replica: counters make no sense or are not complete, the next start counts again")
		return nil
	}
	if err := r.store.SetMeta(talliesRow, row); err != nil {
		return fmt.Errorf("replica: close: %w", err)
	}
	return nil
}

// Clock returns the node's hybrid logical clock.
func (r *Replica) Clock() *Clock { return &r.clock }

// Stats is a summary of a Replica at one moment.
type Stats struct {
	Keys       int64 // own keys with a payload; too low while they are counted
	Expires    int64 // payloads with an expiry
	Expired    int64 // payloads dropped since the start
	CacheBytes int64
	Hits       int64 // reads of own rows that found a payload
	Misses     int64 // reads of own rows that found none
	Hints      int64 // rows kept for other nodes
	HintBytes  int64
	Filled     int64 // holes that have ended since the start: see Mender
	Restored   int64 // rows that damage took from the disk and not from the cache
	LostHints  int64 // rows kept for other nodes that damage took
	Unreadable int64 // rows that could not be read when they were asked for
}

// Stats returns a summary.
func (r *Replica) Stats() Stats {
	s := Stats{
		Keys:       r.tally.sum(0, ring.Slots-1),
		Expires:    r.tally.indexed(),
		Expired:    int64(r.meters.expired.Get()),
		CacheBytes: r.cacheBytes.Load(),
		Hits:       int64(r.meters.hits.Get()),
		Misses:     int64(r.meters.misses.Get()),
		Filled:     int64(r.meters.filled.Get()),
		Restored:   int64(r.meters.restored.Get()),
		LostHints:  int64(r.meters.lostHints.Get()),
		Unreadable: int64(r.meters.corrupt.Get()),
	}
	for _, h := range r.Hints() {
		s.Hints += h.Rows
		s.HintBytes += h.Bytes
	}
	return s
}
