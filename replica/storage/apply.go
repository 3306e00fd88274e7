package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// batchRowOverhead is more than a row takes in a batch beside key and value.
	batchRowOverhead = 16
	// memTableRowOverhead is what the engine counts for a row beside them, when
	// it decides whether a batch is large.
	memTableRowOverhead = 199
	// pieceBytes is the size of the batches in which few rows are applied.
	pieceBytes = 64 << 10
)

// applyLoop brings logged rows to their places, generation after generation,
// until the commit loop has ended and nothing is left, or the store fails.
func (s *Store) applyLoop() {
	ended := false
	defer func() {
		if !ended {
			s.fail(errGoexit) // Fatalf has failed the store already, with the cause
		}
	}()
	err := s.applyAll()
	ended = true
	if err != nil {
		s.fail(err)
	}
}

// applyAll is applyLoop without what happens to its error.
func (s *Store) applyAll() error {
	aged := time.NewTicker(s.cfg.PendingAge)
	defer aged.Stop()
	for {
		select {
		case <-s.broken:
			return nil
		case <-s.drained:
			if s.failure.Load() != nil {
				return nil
			}
			return s.applyFresh()
		case <-s.overlay.ask:
		case order := <-s.rot.fill:
			err := s.fillHoles(order.holes)
			order.done <- err
			if err != nil {
				return err
			}
			continue
		case <-s.rot.ask:
			if err := s.salvageDue(); err != nil {
				return err
			}
			continue
		case now := <-aged.C:
			if err := s.salvageDue(); err != nil {
				return err
			}
			if !s.overlay.ripe(now.Add(-s.cfg.PendingAge).UnixNano()) {
				continue
			}
		}
		if err := s.applyFresh(); err != nil {
			return err
		}
	}
}

// applyFresh applies what has been logged so far. Requires: the caller is the
// only one.
func (s *Store) applyFresh() error {
	g := s.overlay.take()
	if g == nil {
		return nil
	}
	rows := len(g.rows)
	if err := s.applyGeneration(g, pebble.NoSync); err != nil {
		return err
	}
	s.overlay.drop()
	s.meters.applies.Inc()
	s.meters.appliedRows.Add(rows)
	return nil
}

// applyGeneration writes the rows of g and then, in the last batch, removes its
// log records. Invariant: no log record leaves before the rows that it brings,
// or newer states of them. Whatever a crash leaves of an unsynced log is a
// prefix: while the removal is in it, so are the rows.
//
// The digests of the slots it touches are written in that last batch too: they
// are always those of the batch that the applied row names, and the log records
// behind it have what changed since.
//
// Sorted and large is what the engine likes best: from half a memtable on it
// takes a batch for a memtable of its own, without copying or sorting it. A
// smaller generation goes in pieces, so that commits need not wait long.
func (s *Store) applyGeneration(g *generation, opts *pebble.WriteOptions) error {
	size, engineSize := pieceBytes, int64(0)
	for i := range g.rows {
		n := int(g.rows[i].keyLen) + int(max(g.rows[i].valueLen, 0))
		size += n + batchRowOverhead
		engineSize += int64(n + memTableRowOverhead)
	}
	whole := engineSize >= s.cfg.MemTableBytes/2
	if !whole {
		size = 2 * pieceBytes
	}
	b := s.db.NewBatchWithSize(size)
	for _, i := range g.sorted() {
		if !whole && b.Len() >= pieceBytes {
			if err := s.apply(b, pebble.NoSync); err != nil {
				return err
			}
			b.Reset()
		}
		s.placed.note(g.key(&g.rows[i]), g.rows[i].change)
		s.noteMeta(g.row(&g.rows[i]))
		if err := setRow(b, g.row(&g.rows[i])); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	if err := s.putDigests(b, g); err != nil {
		return errors.Join(err, b.Close())
	}
	lo, hi := logRange(g.first, g.last)
	mark := binary.BigEndian.AppendUint64(nil, g.last)
	s.metas[string(metaKey(appliedRow))] = mark
	if err := errors.Join(b.DeleteRange(lo, hi, nil), b.Set(metaKey(appliedRow), mark, nil)); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := s.apply(b, opts); err != nil {
		return err // the batch may still be in the engine's hands
	}
	return b.Close()
}

// setRow adds the row to the batch.
func setRow(b *pebble.Batch, row pendingRow) error {
	if row.remove {
		return b.Delete(row.key, nil)
	}
	return b.Set(row.key, row.value, nil)
}

// apply applies a batch and waits for the sync if opts ask for one. It answers
// the error of the store if that has failed.
func (s *Store) apply(b *pebble.Batch, opts *pebble.WriteOptions) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.wedged.Store(true)
			err = panicError(p)
		}
	}()
	if err := s.applyInTurn(b, opts); err != nil {
		return err
	}
	if opts.Sync {
		if err := b.SyncWait(); err != nil {
			return err
		}
	}
	if s.failure.Load() != nil {
		return s.failed() // the log may have failed under this very batch
	}
	return nil
}

// applyInTurn is apply without waiting for the sync.
func (s *Store) applyInTurn(b *pebble.Batch, opts *pebble.WriteOptions) error {
	apply := s.db.Apply
	if opts.Sync {
		apply = s.db.ApplyNoSyncWait
	}
	return s.inTurn(func() error { return apply(b, opts) })
}

// inTurn calls the engine with what needs its commit lock. It takes one caller at
// a time anyway; waiting for it here and not for its lock lets the clock of a
// simulation go on while the engine stalls or syncs its log. A call that does not
// come back leaves the lock taken: the store has failed then.
func (s *Store) inTurn(call func() error) error {
	s.turn <- struct{}{}
	completed := false
	defer func() {
		if !completed {
			s.wedged.Store(true) // it panicked, or Fatalf ended the goroutine
		}
		<-s.turn
	}()
	if s.wedged.Load() {
		completed = true
		return s.failed()
	}
	err := call()
	completed = true
	return err
}

// flush writes what the engine has in memory into tables.
func (s *Store) flush() error {
	done, err := s.beginFlush()
	if err != nil {
		return err
	}
	<-done
	return nil
}

// beginFlush is flush without waiting for its end.
func (s *Store) beginFlush() (done <-chan struct{}, err error) {
	err = s.inTurn(func() (err error) {
		done, err = s.db.AsyncFlush() // makes a new log
		return err
	})
	return done, err
}

// turnLog begins a new log every LogAge, and has the engine write into tables what
// the old one brought. A store with few writes would not do so for months; then one
// damaged block of its log took it back by as much, and with it the deletion of keys
// that nobody remembers any more.
func (s *Store) turnLog() {
	tick := time.NewTicker(s.cfg.LogAge)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.broken:
			return
		case <-tick.C:
		}
		if !s.reach.fresh.Swap(false) {
			continue
		}
		if _, err := s.beginFlush(); err != nil {
			s.reach.fresh.Store(true)
			s.cfg.Logger.Warn("storage: the log could not be turned", "err", err)
		}
	}
}

// appliedRow is the meta row with the number of the last batch that has been
// applied. Opening reads the log from there on, and so does not stumble over a
// damaged block of records that are long removed.
const appliedRow = "applied"

// applied reads that number.
func (s *Store) applied() (seq uint64, err error) {
	v, closer, err := s.db.Get(metaKey(appliedRow))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, readError(err)
	}
	defer func() { _ = closer.Close() }() // closing a read buffer cannot fail
	return decodeApplied(v)
}

// decodeApplied reads the value of that row.
func decodeApplied(v []byte) (seq uint64, err error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: applied row %x", ErrCorrupt, v)
	}
	return binary.BigEndian.Uint64(v), nil
}

// replay applies the log records that the last run left, in their order, and
// answers the number of the last batch. A record that cannot be read ends it:
// behind it lie writes that were acknowledged.
func (s *Store) replay() (last uint64, err error) {
	if last, err = s.applied(); err != nil {
		return 0, err
	}
	it, err := newIter(s.db, appendLogKey(nil, last+1), []byte{kindLog + 1})
	if err != nil {
		return 0, readError(err)
	}
	g, records := newGeneration(), 0
	var bad error
	err = merge(it, nil, func(row, value []byte) bool {
		seq, ok := parseLogKey(row)
		if !ok {
			bad = fmt.Errorf("%w: log key %x", ErrCorrupt, row)
			return false
		}
		body, ops, err := openRecord(value)
		if err != nil {
			bad = fmt.Errorf("log record %d: %w", seq, err)
			return false
		}
		g.add(seq, ops, body, 0, nil)
		records++
		return true
	})
	if err = errors.Join(err, bad); err != nil || records == 0 {
		return last, err
	}
	// Synced, so that nobody has to reason about two logs at once.
	if err := s.applyGeneration(g, pebble.Sync); err != nil {
		return 0, err
	}
	s.meters.replayed.Add(records)
	s.cfg.Logger.Info("storage: replayed the log", "records", records, "rows", len(g.rows))
	return g.last, nil
}
