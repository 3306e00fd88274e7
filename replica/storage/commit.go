package storage

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// RowOp sets one row, or removes it.
type RowOp struct {
	Key    []byte
	Value  []byte
	Delete bool
	Change uint64 // of a data row: what it adds to the digest of its cell, by XOR
}

// writeOverhead is what a queued write costs beside its rows, for the bound of
// the queue.
const writeOverhead = 64

// retainedBytes bounds the memory a group keeps for the next one.
const retainedBytes = 4 << 20

// group is what one batch commits.
type group struct {
	seq     uint64
	ops     int
	body    []byte // the operations, as the log record has them
	done    []func(error)
	writes  int
	bytes   int
	durable bool
	force   bool
}

// add appends a write to the group.
func (g *group) add(ops []RowOp, done func(error)) {
	for i := range ops {
		g.body = appendOp(g.body, &ops[i])
	}
	g.ops += len(ops)
	if done != nil {
		g.done = append(g.done, done)
	}
	g.writes++
}

// finish runs the callbacks and empties the group for reuse.
func (g *group) finish(err error) {
	for i, done := range g.done {
		g.done[i] = nil
		done(err)
	}
	if cap(g.done)*8 > retainedBytes {
		g.done = nil
	}
	g.done = g.done[:0]
	if cap(g.body) > retainedBytes {
		g.body = nil
	}
	g.body = g.body[:0]
	g.ops, g.writes, g.bytes, g.durable, g.force = 0, 0, 0, false, false
}

// queue holds the writes that are not yet being committed.
//
// Two groups take turns: callers fill one while the commit goroutine has the
// other. Rows go straight into the record of the filling group, so that a write
// costs one copy and no memory of its own.
type queue struct {
	started atomic.Bool
	mu      struct {
		sync.Mutex
		wake    sync.Cond
		fill    *group // being filled
		spare   *group // empty, waiting for the next swap; nil while committing
		bytes   int    // queued and being committed
		closing bool
		failed  bool
	}
}

// open makes the two groups; last is the number of the last batch before them.
// Requires: mu.wake.L is set.
func (q *queue) open(last uint64) {
	q.mu.fill, q.mu.spare = &group{seq: last + 1}, &group{}
}

// close refuses further writes; false means that it was closed before.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closing {
		return false
	}
	q.mu.closing = true
	q.mu.wake.Broadcast()
	return true
}

// next waits for writes and returns their group; nil means that none will come,
// because the queue was closed and is empty, or the store failed.
func (q *queue) next() *group {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.mu.fill.writes == 0 && !q.mu.closing && !q.mu.failed {
		q.mu.wake.Wait()
	}
	if q.mu.fill.writes == 0 || q.mu.failed {
		return nil
	}
	g := q.mu.fill
	q.mu.fill, q.mu.spare = q.mu.spare, nil
	q.mu.fill.seq = g.seq + 1
	return g
}

// recycle takes back a committed group.
func (q *queue) recycle(g *group, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.spare = g
	q.mu.bytes -= bytes
}

// durability is what a write asks for.
type durability uint8

const (
	committedOnly durability = iota
	durable                  // synced in the modes that sync commits
	forced                   // synced in every mode
)

// Enqueue queues a write: row changes that become visible together, after
// everything enqueued before. It does not wait for the disk. It returns the
// number of the batch that will hold the write.
//
// The rows are copied and may be reused at once. A write without rows is done
// when everything before it is. Unless it is nil, done is called exactly once
// if Enqueue answered no error; done(nil) means that the write is
// on the disk if it had to be synced and the mode syncs commits. An error of Enqueue means that
// nothing of the write was kept and that done will not be called.
func (s *Store) Enqueue(ops []RowOp, mustSync bool, done func(error)) (seq uint64, err error) {
	if mustSync {
		return s.enqueue(ops, durable, done)
	}
	return s.enqueue(ops, committedOnly, done)
}

// enqueue is Enqueue with every degree of durability. Forced writes are few and
// small and keep the node in order, so they pass when others are refused.
func (s *Store) enqueue(ops []RowOp, d durability, done func(error)) (seq uint64, err error) {
	size, removes := writeOverhead, true
	for i := range ops {
		size += len(ops[i].Key) + len(ops[i].Value)
		removes = removes && ops[i].Delete
	}
	if len(ops) > 0 && d != forced {
		if err := s.admit(size, removes); err != nil {
			s.meters.busy.Inc()
			return 0, err
		}
	}
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.mu.failed:
		return 0, s.failed()
	case q.mu.closing:
		return 0, ErrClosed
	case q.mu.bytes+size > s.cfg.QueueBytes && q.mu.bytes > 0 && d != forced:
		// A write larger than the queue passes alone.
		s.meters.busy.Inc()
		return 0, ErrBusy
	}
	g := q.mu.fill
	g.add(ops, done)
	g.durable = g.durable || d == durable
	g.force = g.force || d == forced
	g.bytes += size
	q.mu.bytes += size
	if g.writes == 1 {
		q.mu.wake.Signal()
	}
	return g.seq, nil
}

// admit refuses a write of so many bytes if it would only fill the queue or the
// disk. One that only removes rows may go further: it makes room.
func (s *Store) admit(size int, removes bool) error {
	for _, stall := range []*atomic.Int64{&s.stalledSince, &s.waitingSince} {
		if since := stall.Load(); since != 0 && time.Now().UnixNano()-since > int64(s.cfg.StallGrace) {
			return ErrBusy
		}
	}
	if !s.space.take(size) && !(removes && s.space.takeReserve(size)) {
		return ErrDiskFull
	}
	return nil
}

// Committed returns the batch number up to which every write is visible to
// reads and has been applied.
func (s *Store) Committed() uint64 { return s.committed.Load() }

// Synced returns the batch number up to which every write is durable, as far as
// the Fsync mode promises it: in FsyncInterval it equals Committed.
func (s *Store) Synced() uint64 {
	if s.cfg.Fsync == FsyncInterval {
		return s.committed.Load()
	}
	return s.synced.Load()
}

// Sync has everything that is committed synced, in every mode, and calls done when it is.
func (s *Store) Sync(done func(error)) {
	if upTo := s.committed.Load(); s.synced.Load() >= upTo {
		done(nil)
		return
	}
	if _, err := s.enqueue(nil, forced, done); err != nil {
		done(err)
	}
}

// commitLoop commits group after group until the queue is closed and empty or
// the store fails. However it ends, no callback is left uncalled.
func (s *Store) commitLoop() {
	var g *group
	defer close(s.drained)
	defer func() { s.abandon(g) }() // also when Fatalf ends the goroutine
	batch := s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(retainedBytes))
	for {
		if g = s.queue.next(); g == nil {
			return
		}
		err := s.awaitRoom()
		if err == nil {
			err = s.commit(g, batch)
		}
		if err != nil {
			s.fail(err)
			return
		}
		batch.Reset()
		bytes := g.bytes
		s.cfg.Cork.In()
		g.finish(nil)
		s.cfg.Cork.Out()
		s.queue.recycle(g, bytes)
	}
}

// awaitRoom waits while the pending rows are at their hard bound. Meanwhile
// writes queue, and are refused as in a stall of the engine.
func (s *Store) awaitRoom() error {
	if !s.overlay.full() {
		return nil
	}
	s.meters.stalls.Inc()
	s.waitingSince.Store(time.Now().UnixNano())
	defer s.waitingSince.Store(0)
	for s.overlay.full() {
		select {
		case <-s.overlay.room:
		case <-s.broken:
			return s.failed()
		}
	}
	return nil
}

// commit logs the group as one record and makes its rows visible. It syncs when
// a write asked for it. The batch is empty, and for its use.
func (s *Store) commit(g *group, batch *pebble.Batch) error {
	start := time.Now()
	opts := pebble.NoSync
	if g.force || g.durable && s.cfg.Fsync != FsyncInterval {
		opts = pebble.Sync
	}
	var err error
	switch {
	case g.ops > 0:
		err = putRecord(batch, g.seq, g.ops, g.body)
	case opts == pebble.Sync:
		// An empty batch would not reach the log, and so would not be synced.
		err = batch.LogData(nil, nil)
	default:
		s.committed.Store(g.seq)
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.apply(batch, opts); err != nil {
		return err
	}
	if g.ops > 0 {
		s.overlay.add(g.seq, g.ops, g.body, start.UnixNano())
	}
	s.committed.Store(g.seq)
	if opts == pebble.Sync {
		s.synced.Store(g.seq)
		s.meters.syncs.Inc()
	}
	if err := s.noteCommit(g.seq, g.ops, opts == pebble.Sync); err != nil {
		return err
	}
	s.meters.commits.Inc()
	s.meters.writes.Add(g.writes)
	s.meters.commitSeconds.UpdateDuration(start)
	return nil
}

// abandon fails the callbacks of g, the group at which the loop ended, and of
// everything queued behind it. After a clean end there are none.
func (s *Store) abandon(g *group) {
	if g != nil {
		s.fail(errGoexit) // Fatalf has failed the store already, with the cause
		g.finish(s.failed())
	}
	q := &s.queue
	q.mu.Lock()
	rest := q.mu.fill
	q.mu.fill = &group{seq: rest.seq}
	q.mu.Unlock()
	if rest.writes > 0 {
		rest.finish(s.failed())
	}
}

// fail records the error that ended the engine and tells the owner. Only the
// first one counts. Note: locks of the engine may be held.
func (s *Store) fail(err error) {
	if s.failure.Load() != nil {
		return
	}
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if !s.failure.CompareAndSwap(nil, &err) {
		return
	}
	q := &s.queue
	q.mu.Lock()
	q.mu.failed = true
	q.mu.wake.Broadcast()
	q.mu.Unlock()
	close(s.broken)
	s.cfg.Logger.Error("storage: engine failed", "err", err)
	s.cfg.Fatal(err)
}

// failureOrNil returns the error that ended the engine, if one did.
func (s *Store) failureOrNil() error {
	if s.failure.Load() == nil {
		return nil
	}
	return s.failed()
}

// failed returns the error that ended the engine.
func (s *Store) failed() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return ErrFailed
}

// watch looks after the disk's free space and syncs on a timer in the modes
// that leave commits unsynced.
func (s *Store) watch() {
	disk := time.NewTicker(time.Second)
	defer disk.Stop()
	interval := time.NewTicker(s.cfg.FsyncInterval)
	defer interval.Stop()
	if s.cfg.Fsync == FsyncAlways {
		interval.Stop()
	}
	for {
		select {
		case <-s.stop:
			return
		case <-disk.C:
			s.measure()
			s.checkDisk()
		case <-interval.C:
			if s.committed.Load() != s.synced.Load() {
				// Refused only by a store that is closing, which syncs anyway, or
				// that has failed.
				_, _ = s.enqueue(nil, forced, nil)
			}
		}
	}
}

// measure publishes the engine's own figures.
func (s *Store) measure() {
	if !s.users.enter() {
		return
	}
	defer s.users.leave()
	m := s.db.Metrics()
	s.meters.pendingBytes.Set(float64(s.overlay.bytes()))
	s.diskBytes.Store(int64(m.DiskSpaceUsage()))
	s.meters.diskBytes.Set(float64(m.DiskSpaceUsage()))
	s.space.memTables.Store(int64(m.MemTable.Size))
	s.meters.memTableBytes.Set(float64(m.MemTable.Size))
	s.meters.readAmp.Set(float64(m.ReadAmp()))
}
