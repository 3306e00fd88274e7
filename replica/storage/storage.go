package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// formatVersion is the version of the row layouts that this package writes, and
// oldestFormat the oldest that it reads; between them rows of holes were added.
const (
	formatVersion = 4
	oldestFormat  = 3
)

// Close waits this long for an engine that takes no writes, and this long for
// one that has failed. What still runs then is left to the end of the process.
const (
	stalledWait = 30 * time.Second
	failedWait  = 5 * time.Second
)

// Store is the rows of one node. Open makes one, Start sets it going, Close
// ends it.
type Store struct {
	cfg    Config
	meters meters
	db     *pebble.DB
	cache  *pebble.Cache

	queue   queue
	overlay overlay
	placed  placedDigests
	doubt   atomic.Bool // the digests may be wrong: see VerifySlot
	progress

	health
	space     space
	diskBytes atomic.Int64
	reach     reach
	lost      error     // set by Open: see Lost
	watched   diskWatch // operations of the log under way
	decay

	turn  chan struct{} // held while a batch is given to the engine
	users users         // calls and snapshots that are inside the engine
	ends
}

// progress is how far batches have come.
type progress struct {
	committed atomic.Uint64 // batches up to this one are visible
	synced    atomic.Uint64 // batches up to this one are durable
}

// health is what keeps the engine from taking writes, for now or for good.
type health struct {
	stalledSince atomic.Int64 // unix ns; 0 while writes flow
	waitingSince atomic.Int64 // the same, for commits that wait for room

	failure  atomic.Pointer[error] // set once, by fail
	walDead  atomic.Bool           // the log failed: see engineFS
	retrying atomic.Bool           // flushes or compactions fail: see engineFS
	wedged   atomic.Bool           // the engine panicked: its locks may be lost
}

// decay is what is known of damaged tables, and what is done about them.
type decay struct {
	rot   rot
	swaps swaps
	holes atomic.Pointer[[]Hole]
	metas map[string][]byte // the meta rows in place; of whoever applies
	brake brake
}

// ends are the stages of the end of a Store.
type ends struct {
	stop    chan struct{} // closed by Close; ends the watch
	drained chan struct{} // closed when the commit loop has ended
	broken  chan struct{} // closed by fail
	wg      sync.WaitGroup
}

// Open opens or creates the store in cfg.Dir. It answers an error for a
// directory that is in use, damaged or of a newer format.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("storage: config: %w", err)
	}
	s := &Store{
		cfg: cfg, meters: newMeters(cfg.Metrics),
		turn: make(chan struct{}, 1),
		ends: ends{stop: make(chan struct{}), drained: make(chan struct{}), broken: make(chan struct{})},
	}
	s.users.init()
	s.rot.init()
	s.metas = map[string][]byte{}
	s.space.budget.Store(math.MaxInt64) // until Start has looked
	s.overlay.init(cfg.PendingBytes)
	s.queue.mu.wake.L = &s.queue.mu.Mutex
	s.cache = pebble.NewCache(cfg.BlockCacheBytes)
	if err := guarded(s.openEngine); err != nil {
		if cause := s.failure.Load(); cause != nil {
			err = *cause
		}
		s.cache.Unref()
		return nil, fmt.Errorf("storage: open %s: %w", cfg.Dir, err)
	}
	return s, nil
}

// openEngine opens the engine and applies what the last run had only logged.
func (s *Store) openEngine() (err error) {
	if s.db, err = pebble.Open(s.cfg.Dir, s.engineOptions(s.cache)); err != nil {
		return err
	}
	if err := checkFormat(s.db); err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.loadDigests()
	err = s.loadHoles()
	var last uint64
	if err == nil {
		last, err = s.replay()
	}
	if err == nil {
		last, err = s.openReach(last)
	}
	if err == nil {
		err = s.loadMetas()
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.overlay.mu.digests.copyFrom(&s.placed.digests)
	s.queue.open(last)
	s.committed.Store(last)
	s.synced.Store(last)
	return nil
}

// checkFormat refuses another layout and stamps a new store with ours.
func checkFormat(db *pebble.DB) error {
	key := metaKey("format")
	v, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return db.Set(key, []byte{formatVersion}, pebble.Sync)
	}
	if err != nil {
		return err
	}
	defer func() { _ = closer.Close() }() // closing a read buffer cannot fail
	if len(v) < 1 || v[0] == 0 {
		return fmt.Errorf("%w: format row %x", ErrCorrupt, v)
	}
	if v[0] > formatVersion {
		return fmt.Errorf("%w: layout %d, this program knows %d", ErrFormatTooNew, v[0], formatVersion)
	}
	if v[0] < oldestFormat {
		return fmt.Errorf("%w: layout %d, this program knows %d", ErrFormatTooOld, v[0], formatVersion)
	}
	if v[0] < formatVersion {
		return db.Set(key, []byte{formatVersion}, pebble.Sync)
	}
	return nil
}

// Start begins committing what is enqueued. Requires: called once, before Close.
func (s *Store) Start() {
	s.queue.started.Store(true)
	s.checkDisk()
	s.wg.Go(s.commitLoop)
	s.wg.Go(s.applyLoop)
	s.wg.Go(s.watch)
	s.wg.Go(s.keepReach)
	s.wg.Go(s.turnLog)
	s.wg.Go(s.watchStall)
}

// Close refuses new writes, commits the queued ones, runs their callbacks,
// applies what is logged, waits for reads to end and closes the engine. It must be called once; a second call
// answers ErrClosed. Snapshots must have been closed.
func (s *Store) Close() error {
	if !s.queue.close() {
		return ErrClosed
	}
	close(s.stop)
	ended := make(chan struct{})
	go func() {
		if !s.queue.started.Load() {
			s.wg.Go(s.commitLoop)
			s.wg.Go(s.applyLoop)
		}
		s.wg.Wait()
		close(ended)
	}()
	// What does not end in time is left behind; it ends the engine when it can.
	closed := make(chan error, 1)
	go func() {
		<-ended
		<-s.users.end()
		if s.wedged.Load() {
			// A panic inside the engine left its commit lock held; closing would
			// wait for it for ever.
			closed <- nil
			return
		}
		err := guarded(s.db.Close)
		closed <- errors.Join(err, s.closeReach(err == nil && s.failure.Load() == nil))
	}()
	if s.failure.Load() == nil && !waitFor(ended, stalledWait) {
		return errors.Join(fmt.Errorf("storage: close: writes are still stalled after %v", stalledWait), s.failureOrNil())
	}
	if s.failure.Load() == nil {
		defer s.cache.Unref()
		return <-closed
	}
	// A flush that Fatalf ended may never be reported as over, and a disk that
	// stands still never answers.
	select {
	case err := <-closed:
		return errors.Join(s.failed(), err)
	case <-time.After(failedWait):
		return s.failed()
	}
}

// waitFor waits until ch is closed, but not longer than d.
func waitFor(ch <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
		return false
	}
}

// Stalled reports that the engine takes no writes at the moment. They queue
// until Config.StallGrace has passed and are refused from then on.
func (s *Store) Stalled() bool { return s.stalledSince.Load() != 0 || s.waitingSince.Load() != 0 }

// DiskBytes is the space that the store takes, as of the last second.
func (s *Store) DiskBytes() int64 { return s.diskBytes.Load() }

// Get returns a copy of the row's value, or ErrNotFound. A row that may have been
// lost to damage is ErrHole.
func (s *Store) Get(row []byte) ([]byte, error) {
	if !s.users.enter() {
		return nil, ErrClosed
	}
	defer s.users.leave()
	// Here first: a row that leaves the overlay is in the engine by then.
	if pending, ok := s.overlay.get(row); ok {
		if pending.remove {
			return nil, ErrNotFound
		}
		return append(make([]byte, 0, len(pending.value)), pending.value...), nil
	}
	before := s.swaps.done.Load()
	v, closer, err := s.db.Get(row)
	for errors.Is(err, pebble.ErrNotFound) && s.swaps.hid(before, rowSpan(row), s.broken) {
		before = s.swaps.done.Load()
		v, closer, err = s.db.Get(row)
	}
	if errors.Is(err, pebble.ErrNotFound) && s.InHole(row) { // a hole is there before its rows go
		return nil, ErrHole
	}
	if err != nil {
		return nil, readError(err)
	}
	out := make([]byte, len(v))
	copy(out, v)
	if err := closer.Close(); err != nil {
		return nil, readError(err)
	}
	return out, nil
}

// Scan calls fn for each row of [lo, hi) in order until fn answers false. The
// rows are those of one moment. Key and value are valid within the call only.
// It answers an error if the rest of the range could not be read, and ErrHole at
// the end if some rows may have been lost.
func (s *Store) Scan(lo, hi []byte, fn func(row, value []byte) bool) error {
	if !s.users.enter() {
		return ErrClosed
	}
	defer s.users.leave()
	it, rows, err := s.view(lo, hi, func() {})
	if err != nil {
		return readError(err)
	}
	ended := false
	err = merge(it, rows, func(row, value []byte) bool {
		ended = !fn(row, value)
		return !ended
	})
	if err == nil && !ended && s.overlapsHole(lo, hi) {
		return ErrHole
	}
	return err
}

// view takes hold of the rows of [lo, hi) at one moment, at which it calls also.
// The iterator's rows are hidden by the others.
func (s *Store) view(lo, hi []byte, also func()) (it *pebble.Iterator, rows []pendingRow, err error) {
	for {
		before := s.swaps.done.Load()
		rows, err = s.overlay.view(lo, hi, func() (err error) {
			also()
			it, err = newIter(s.db, lo, hi)
			return err
		})
		if err != nil || !s.swaps.hid(before, boundsSpan(lo, hi), s.broken) {
			return it, rows, err
		}
		_ = it.Close() // nothing was read
	}
}

// newIter returns an iterator over [lo, hi) of the store or a snapshot of it.
func newIter(r pebble.Reader, lo, hi []byte) (*pebble.Iterator, error) {
	return r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
}

// readError maps the engine's errors to ours.
func readError(err error) error {
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return ErrNotFound
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("storage: read: %w", err)
}

// Snapshot is a range of the store at one moment. It keeps overwritten rows on the
// disk until it is closed, and must be closed before the store.
type Snapshot struct {
	s      *Store
	snap   *pebble.Snapshot
	lo, hi []byte
	rows   []pendingRow // logged and not applied at that moment

	swaps uint64 // that had ended
}

// Snapshot returns the rows of [lo, hi) committed so far; a nil bound is none. It
// sorts what of them is not applied: a narrow one costs little, whatever is pending.
func (s *Store) Snapshot(lo, hi []byte) (*Snapshot, error) {
	if !s.users.enter() {
		return nil, ErrClosed
	}
	n := &Snapshot{s: s, lo: lo, hi: hi, swaps: s.swaps.done.Load()}
	n.rows, _ = s.overlay.view(lo, hi, func() error { // open answers no error
		n.snap = s.db.NewSnapshot()
		return nil
	})
	return n, nil
}

// Scan is Store.Scan over the snapshot. It answers ErrReplaced for a range of which
// rows were replaced since, and takes no notice of holes. Requires: the range lies
// within that of the snapshot.
func (n *Snapshot) Scan(lo, hi []byte, fn func(row, value []byte) bool) error {
	it, rows, err := n.view(lo, hi)
	if err != nil {
		return err
	}
	return merge(it, rows, fn)
}

// Walk is Scan for whoever wants some of the rows of a range. It stands before the first
// one: begin with Seek.
func (n *Snapshot) Walk(lo, hi []byte) (*Walk, error) {
	it, rows, err := n.view(lo, hi)
	if err != nil {
		return nil, err
	}
	return newWalk(it, rows), nil
}

// view takes hold of the rows of a range; those of the iterator are hidden by the others.
func (n *Snapshot) view(lo, hi []byte) (it *pebble.Iterator, rows []pendingRow, err error) {
	if bytes.Compare(lo, n.lo) < 0 || n.hi != nil && (hi == nil || bytes.Compare(hi, n.hi) > 0) {
		panic(fmt.Sprintf("storage: scan from %x to %x of a snapshot from %x to %x", lo, hi, n.lo, n.hi))
	}
	if it, err = newIter(n.snap, lo, hi); err != nil {
		return nil, nil, readError(err)
	}
	if n.s.swaps.since(n.swaps, boundsSpan(lo, hi)) {
		_ = it.Close() // nothing was read
		return nil, nil, ErrReplaced
	}
	rows = n.rows[pendingFrom(n.rows, lo):]
	if hi != nil {
		rows = rows[:pendingFrom(rows, hi)]
	}
	return it, rows, nil
}

// Close lets go of the snapshot.
func (n *Snapshot) Close() error {
	defer n.s.users.leave()
	return n.snap.Close()
}

// Meta returns a copy of the meta row called name, or ErrNotFound.
func (s *Store) Meta(name string) ([]byte, error) { return s.Get(metaKey(name)) }

// SetMeta stores the meta row called name, or removes it if value is nil, and
// waits until it and everything enqueued before it is durable, in every Fsync
// mode. It must not be called from a Done callback.
func (s *Store) SetMeta(name string, value []byte) error {
	done := make(chan error, 1)
	op := RowOp{Key: metaKey(name), Value: value, Delete: value == nil}
	if _, err := s.enqueue([]RowOp{op}, forced, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-s.broken: // a disk that stands still may never call back
		return s.failed()
	}
}

// users counts the calls that are inside the engine, so that closing waits for
// them: the engine panics on use after close.
type users struct {
	n    atomic.Int64 // the owner counts as one until end
	idle chan struct{}
}

// init counts the owner.
func (u *users) init() {
	u.idle = make(chan struct{})
	u.n.Store(1)
}

// enter counts one more user; false means that the last one has left.
func (u *users) enter() bool {
	for {
		n := u.n.Load()
		if n <= 0 {
			return false
		}
		if u.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave undoes enter.
func (u *users) leave() {
	if u.n.Add(-1) == 0 {
		close(u.idle)
	}
}

// end drops the owner's count; the channel is closed when all have left.
func (u *users) end() <-chan struct{} {
	u.leave()
	return u.idle
}
