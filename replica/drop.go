package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// This file lets go of partitions that have moved to other nodes. What is left of
// one must be gone before this node owns it again: the others may have dropped the
// tombstones that it does not know of.

// ErrFenced says that this node holds nothing of a partition, and may take
// nothing of it: another node owns it.
var ErrFenced = errors.New("replica: the partition is fenced")

// fences are the partitions of which own rows are neither read nor taken.
type fences []atomic.Bool

// Fence closes a partition, or opens it again. Whoever opens it has seen Drop
// succeed since it was closed.
func (r *Replica) Fence(partition int, closed bool) { r.fences[partition].Store(closed) }

// Fenced reports whether a partition is closed.
func (r *Replica) Fenced(partition int) bool { return r.fences[partition].Load() }

// fenced reports whether the own rows of a slot are closed to everybody.
func (r *Replica) fenced(slot ring.Slot) bool { return r.fences[r.partition(slot)].Load() }

// dropPage is how many rows are dropped between two waits for Pace: a few
// milliseconds of work.
const dropPage = 64

// Drop removes every own row of a fenced partition, with what the indexes and
// counters have of it, and answers how many there were once that is durable. It
// may be repeated. Hints are no own rows: they stay until they are delivered.
func (r *Replica) Drop(ctx context.Context, partition int) (rows int, err error) {
	if !r.Fenced(partition) {
		return 0, fmt.Errorf("replica: drop partition %d: it is not fenced", partition)
	}
	// Changes that were let in before the fence closed are in the scan.
	if err := r.Settle(ctx); err != nil {
		return 0, err
	}
	size := ring.Slots / r.cfg.Units
	slot, last, hash := ring.Slot(partition*size), ring.Slot(partition*size+size-1), uint32(0)
	for done := false; !done; {
		end, err := r.cfg.Pace(ctx)
		if err != nil {
			return rows, err
		}
		page, err := r.Scan(slot, hash, last, dropPage)
		if err == nil {
			err = r.dropRows(page.Entries)
		}
		end()
		if err != nil {
			return rows, fmt.Errorf("replica: drop partition %d: %w", partition, err)
		}
		rows += len(page.Entries)
		slot, hash, done = page.NextSlot, page.NextHash, page.Done
	}
	r.meters.dropped.Add(rows)
	return rows, r.settled(ctx)
}

// Settle returns when all changes are committed, and synced, that were let in before
// the fences which are closed by now.
func (r *Replica) Settle(ctx context.Context) error {
	r.passLocks()
	return r.settled(ctx)
}

// Empty reports whether no own row of a partition is committed.
func (r *Replica) Empty(partition int) (bool, error) {
	size := ring.Slots / r.cfg.Units
	empty := true
	lo, hi := storage.DataRange(ring.Slot(partition*size), 0, ring.Slot(partition*size+size-1))
	err := r.store.Scan(lo, hi, func(_, _ []byte) bool {
		empty = false
		return false
	})
	return empty, err
}

// passLocks returns when nobody is left under a lock taken before: whoever was has
// queued its change, whoever comes sees what was set before the call.
func (r *Replica) passLocks() {
	for i := range r.stripes {
		r.stripes[i].mu.Lock()
		//lint:ignore SA2001 having had the lock is all that is wanted
		r.stripes[i].mu.Unlock()
	}
}

// dropRows removes the own rows of some keys.
func (r *Replica) dropRows(entries []ScanEntry) error {
	for i := range entries {
		if err := r.dropRow(entries[i].Key, entries[i].KeyHash); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) dropRow(key []byte, hash uint32) error {
	st := r.stripeOf(hash)
	st.mu.Lock()
	defer st.mu.Unlock()
	e, err := r.lookupLocked(st, key, 0, hash)
	if err != nil || e.rec.Absent() {
		return err
	}
	return r.storeLocked(st, e, version.Record{}, nil, false, nil)
}

// settled waits until every change that was queued before is durable.
func (r *Replica) settled(ctx context.Context) error {
	done := make(chan error, 1)
	r.Barrier(func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
