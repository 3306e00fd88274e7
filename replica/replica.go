package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Replica is the records of one node. Its methods may be called from any
// goroutine.
type Replica struct {
	cfg         Config
	clock       Clock
	stripes     []stripe
	stripeBytes int // cache share of one stripe
	mints       []mints
	cached      atomic.Int64 // bytes in all stripes
	census      census
	count       counters
	closed      atomic.Bool
}

type counters struct {
	hits, misses        *metrics.Counter // reads that found a value, and that did not
	cacheHits, fromDisk *metrics.Counter
	merges, mergesNoop  *metrics.Counter
	mutations           *metrics.Counter
	expired             *metrics.Counter
	readErrors          *metrics.Counter
}

func newCounters(set *metrics.Set) counters {
	return counters{
		hits:       set.NewCounter(`replica_reads_total{found="yes"}`),
		misses:     set.NewCounter(`replica_reads_total{found="no"}`),
		cacheHits:  set.NewCounter(`replica_cache_lookups_total{hit="yes"}`),
		fromDisk:   set.NewCounter(`replica_cache_lookups_total{hit="no"}`),
		merges:     set.NewCounter(`replica_merges_total{changed="yes"}`),
		mergesNoop: set.NewCounter(`replica_merges_total{changed="no"}`),
		mutations:  set.NewCounter(`replica_mutations_total`),
		expired:    set.NewCounter(`replica_expired_total`),
		readErrors: set.NewCounter(`replica_read_errors_total`),
	}
}

// New opens the records in cfg.Store. It starts nothing; until Run, expired
// values stay and keys may be uncounted. Requires: nothing was written to the
// store since it was opened, except meta rows.
func New(cfg Config) (*Replica, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("replica: config: %w", err)
	}
	r := &Replica{
		cfg: cfg, clock: Clock{now: cfg.Now}, stripes: make([]stripe, stripeCount),
		stripeBytes: int(cfg.CacheBytes / stripeCount), mints: make([]mints, cfg.Units),
		count: newCounters(cfg.Metrics),
	}
	cfg.Metrics.NewGauge("replica_cache_bytes", func() float64 { return float64(r.cached.Load()) })
	cfg.Metrics.NewGauge("replica_hints", func() float64 { n, _ := r.census.hints(); return float64(n) })
	cfg.Metrics.NewGauge("replica_hint_bytes", func() float64 { _, b := r.census.hints(); return float64(b) })
	if err := r.census.open(cfg.Store); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	return r, nil
}

// Clock is the hybrid logical clock of this node.
func (r *Replica) Clock() *Clock { return &r.clock }

// Run counts the keys if they are not counted, and sweeps expired values until
// ctx ends.
func (r *Replica) Run(ctx context.Context) error {
	if err := r.census.take(ctx); err != nil {
		return fmt.Errorf("replica: count keys: %w", err)
	}
	return r.sweep(ctx)
}

// Close refuses changes and writes the counts down. Requires: Run has returned.
func (r *Replica) Close() error {
	if r.closed.Swap(true) {
		return storage.ErrClosed
	}
	return r.census.close(r.cfg.Store)
}

// TryRead answers from the cache; ok is false if the disk would be needed.
func (r *Replica) TryRead(key []byte, owner ring.NodeID) (rec version.Record, hash uint64, ok bool) {
	var buf [rowBytes]byte
	p := r.place(buf[:0], key, owner)
	p.stripe.mu.Lock()
	e := p.stripe.mu.entries[string(p.row)]
	if e == nil {
		p.stripe.mu.Unlock()
		return version.Record{}, 0, false
	}
	e.used = true
	rec, hash = e.rec, e.hash
	p.stripe.mu.Unlock()
	r.count.cacheHits.Inc()
	r.tally(rec)
	return rec, hash, true
}

// Read returns this node's record of a key, or with owner set the one it keeps
// for that owner, and its state hash. The zero record is an absent key; a
// record that cannot be read is an error.
func (r *Replica) Read(key []byte, owner ring.NodeID) (version.Record, uint64, error) {
	if rec, hash, ok := r.TryRead(key, owner); ok {
		return rec, hash, nil
	}
	r.count.fromDisk.Inc()
	var buf [rowBytes]byte
	p := r.place(buf[:0], key, owner)
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	e, err := r.loadLocked(&p)
	if err != nil {
		return version.Record{}, 0, err
	}
	r.tally(e.rec)
	return e.rec, e.hash, nil
}

func (r *Replica) tally(rec version.Record) {
	if rec.HasLive() {
		r.count.hits.Inc()
		return
	}
	r.count.misses.Inc()
}

// Merge joins an encoded record into this node's own, or with owner set into
// the one it keeps for that owner. enc is kept and must not be modified. done
// is called exactly once, when the join is committed (and synced, if durable)
// or has failed.
func (r *Replica) Merge(key []byte, owner ring.NodeID, enc []byte, durable bool, done func(error)) {
	in, err := version.DecodeRecord(enc)
	if err != nil {
		done(fmt.Errorf("replica: record to merge: %w", err))
		return
	}
	r.clock.Observe(in.MaxHLC())
	var buf [rowBytes]byte
	p := r.place(buf[:0], key, owner)
	settled, err := r.mergeInto(&p, in, durable, done)
	if err != nil || settled {
		done(err)
	}
}

// mergeInto does the locked part of Merge. Settled means that done has not been
// handed on and nothing is left to wait for.
func (r *Replica) mergeInto(p *place, in version.Record, durable bool, done func(error)) (settled bool, err error) {
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	e, err := r.loadLocked(p)
	if err != nil {
		return false, err
	}
	rec := version.Merge(e.rec, in)
	if same(rec, e.rec) {
		r.count.mergesNoop.Inc()
		return r.awaitLocked(e, durable, done)
	}
	r.count.merges.Inc()
	return false, r.storeLocked(p, e, rec, durable, done)
}

// awaitLocked lets done wait for the commit of what is there already.
func (r *Replica) awaitLocked(e *entry, durable bool, done func(error)) (settled bool, err error) {
	s := r.cfg.Store
	if e.seq <= s.Synced() || !durable && e.seq <= s.Committed() {
		return true, nil
	}
	_, err = s.Enqueue(nil, durable, done)
	return false, err
}

// Mutate merges base into this node's record of a key, or with owner set into
// the one it keeps for that owner, applies op with a fresh dot, and queues the
// result: atomically among all that this node does to the key.
//
// On success it returns at once the new record in wire form, to be sent to the
// other replicas, and what op did; done is called exactly once, when the record
// is committed (and synced, if durable) or has failed. With an error nothing
// was stored and done is never called.
func (r *Replica) Mutate(key []byte, owner ring.NodeID, base version.Record, op version.Op, durable bool, done func(error)) ([]byte, version.Outcome, error) {
	if r.closed.Load() {
		return nil, version.Outcome{}, storage.ErrClosed
	}
	r.count.mutations.Inc()
	var buf [rowBytes]byte
	p := r.place(buf[:0], key, owner)
	enc, out, settled, err := r.mutate(&p, base, op, durable, done)
	if settled {
		done(nil)
	}
	return enc, out, err
}

func (r *Replica) mutate(p *place, base version.Record, op version.Op, durable bool, done func(error)) (enc []byte, out version.Outcome, settled bool, err error) {
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	e, err := r.loadLocked(p)
	if err != nil {
		return nil, out, false, err
	}
	known := e.rec
	if !base.Absent() {
		known = version.Merge(known, base)
	}
	dot, floor := r.mints[int(p.slot)*r.cfg.Units/ring.Slots].next(r.cfg.Actor, p.owner)
	rec, out, err := version.Apply(known, op, version.Mint{
		NowMS: r.cfg.Now().UnixMilli(), HLC: r.clock.Now(), Dot: dot, Floor: floor,
	})
	if err != nil {
		return nil, out, false, err
	}
	r.clock.Observe(out.HLC)
	if same(rec, e.rec) {
		settled, err = r.awaitLocked(e, durable, done)
	} else {
		err = r.storeLocked(p, e, rec, durable, done)
	}
	if err != nil {
		return nil, version.Outcome{}, false, err
	}
	return version.EncodeWire(make([]byte, 0, e.disk+wireSlack), rec), out, settled, nil
}

// wireSlack is room for a record to differ from its form on disk.
const wireSlack = 16

// storeLocked queues rec as the new record of a place and caches it.
func (r *Replica) storeLocked(p *place, e *entry, rec version.Record, durable bool, done func(error)) error {
	if r.closed.Load() {
		return storage.ErrClosed
	}
	st := p.stripe
	st.mu.scratch = version.EncodeRecord(st.mu.scratch[:0], rec)
	enc := st.mu.scratch
	var space [3]storage.RowOp
	ops := append(space[:0], storage.RowOp{Key: p.row, Value: enc})
	if p.owner == 0 {
		ops = appendExpiryOps(ops, p, e.rec, rec)
	}
	seq, err := r.cfg.Store.Enqueue(ops, durable, done)
	if err != nil {
		return err
	}
	r.census.changed(p, e, rec, len(enc))
	if cap(st.mu.scratch) > maxScratch {
		st.mu.scratch = nil
	}
	e.rec, e.hash, e.disk, e.seq = rec, rec.StateHash(), len(enc), seq
	if e.row == "" {
		e.row = string(p.row)
		r.insertLocked(st, e)
	} else {
		r.replaceLocked(st, e)
	}
	return nil
}

// maxScratch bounds the memory that a stripe keeps for encoding.
const maxScratch = 64 << 10

// same reports whether two records of one key are equal in all that is stored.
// Versions with one dot have one value.
func same(a, b version.Record) bool {
	if len(a.Versions) != len(b.Versions) || a.Amnesia != b.Amnesia || a.AllAcked != b.AllAcked || a.LWW != b.LWW {
		return false
	}
	for i := range a.Versions {
		x, y := &a.Versions[i], &b.Versions[i]
		if x.Dot != y.Dot || x.HLC != y.HLC || x.Expiry != y.Expiry || x.Stub != y.Stub {
			return false
		}
	}
	return a.Context.Equal(b.Context)
}

// Row is one record of a key at this node.
type Row struct {
	For    ring.NodeID // 0: its own
	Record version.Record
}

// Rows returns every record of a key at this node: its own, and those it keeps
// for others.
func (r *Replica) Rows(key []byte) ([]Row, error) {
	var rows []Row
	var errs []error
	for _, owner := range append([]ring.NodeID{0}, r.census.targets()...) {
		rec, _, err := r.Read(key, owner)
		if err != nil {
			errs = append(errs, err)
		} else if !rec.Absent() {
			rows = append(rows, Row{For: owner, Record: rec})
		}
	}
	return rows, errors.Join(errs...)
}
