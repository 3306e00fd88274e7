package replica

import (
	"errors"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// TryRead returns the row of key for target and its state hash if that takes no
// disk; ok is false if it does, or if the lock is held for a read of the disk.
func (r *Replica) TryRead(key []byte, target ring.NodeID) (rec version.Record, hash uint64, ok bool) {
	st := r.stripeOf(ring.KeyHash(key))
	if st.loading.Load() != 0 {
		return version.Record{}, 0, false
	}
	st.mu.Lock()
	e := st.findLocked(key, target)
	if e == nil || r.lacks(e) || target == 0 && r.fenced(e.slot) {
		st.mu.Unlock()
		return version.Record{}, 0, false
	}
	e.used = true
	rec, hash = e.rec, e.hash
	live := e.live
	st.mu.Unlock()
	r.meters.cached.Inc()
	r.countRead(live, target)
	return rec, hash, true
}

// Cached reports whether the row of key for target can be had, and so changed,
// without the disk. It counts as no read.
func (r *Replica) Cached(key []byte, target ring.NodeID) bool {
	st := r.stripeOf(ring.KeyHash(key))
	if st.loading.Load() != 0 {
		return false
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	e := st.findLocked(key, target)
	return e != nil && !r.lacks(e)
}

// Read returns the row of key for target and its state hash. An absent row is
// the zero Record with hash 0. A row that cannot be read is an error,
// version.ErrCorrupt if it is damaged. cached reports that the disk was not
// touched.
func (r *Replica) Read(key []byte, target ring.NodeID) (rec version.Record, hash uint64, cached bool, err error) {
	h := ring.KeyHash(key)
	rec, hash, cached, err = r.read(r.stripeOf(h), key, target, h)
	if err == nil {
		r.countRead(rec.HasLive(), target)
	}
	return rec, hash, cached, err
}

// read is Read under the lock.
func (r *Replica) read(st *stripe, key []byte, target ring.NodeID, h uint32) (version.Record, uint64, bool, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	cached := st.findLocked(key, target) != nil
	e, err := r.lookupLocked(st, key, target, h)
	if err != nil {
		return version.Record{}, 0, false, err
	}
	if target == 0 && r.fenced(e.slot) {
		return version.Record{}, 0, false, ErrFenced
	}
	return e.rec, e.hash, cached, nil
}

// countRead counts whether a read found something.
func (r *Replica) countRead(live bool, target ring.NodeID) {
	switch {
	case target != 0:
	case live:
		r.meters.hits.Inc()
	default:
		r.meters.misses.Inc()
	}
}

// Row is one row of a key.
type Row struct {
	For    ring.NodeID // 0: the own row; else the node that it is kept for
	Record version.Record
}

// Rows returns the own row of key, if any, and every hint row of it.
func (r *Replica) Rows(key []byte) ([]Row, error) {
	var rows []Row
	for _, target := range append([]ring.NodeID{0}, r.hints.targets()...) {
		rec, _, _, err := r.Read(key, target)
		if errors.Is(err, ErrFenced) {
			continue // it is no own row
		}
		if err != nil {
			return rows, err
		}
		if !rec.Absent() {
			rows = append(rows, Row{For: target, Record: rec})
		}
	}
	return rows, nil
}

// Joined returns all that the node knows of a key, its own row and every hint
// joined, and the state hash of that: what it answers as a fallback for target.
// For whom it keeps a hint depends on who was down when that was written, so the
// row for target alone need not have it.
func (r *Replica) Joined(key []byte, target ring.NodeID) (rec version.Record, hash uint64, err error) {
	targets := r.hints.targets()
	if !slices.Contains(targets, target) {
		targets = append(targets, target) // not every account is open soon after a start
	}
	for _, t := range append(targets, 0) {
		row, _, _, err := r.Read(key, t)
		if errors.Is(err, ErrFenced) {
			continue // it is no own row
		}
		if err != nil {
			return version.Record{}, 0, err
		}
		rec = version.Merge(rec, row)
	}
	return rec, rec.StateHash(), nil
}

// Records reports whether the node holds any row at all, own or hint.
func (r *Replica) Records() (bool, error) {
	if r.held.Load() {
		return true, nil
	}
	found := false
	any := func(_, _ []byte) bool {
		found = true
		return false
	}
	lo, hi := storage.DataRange(0, 0, ring.Slots-1)
	err := r.store.Scan(lo, hi, any)
	if err == nil && !found {
		lo, hi = storage.AllHints()
		err = r.store.Scan(lo, hi, any)
	}
	if errors.Is(err, storage.ErrCorrupt) {
		return true, nil // damaged rows are rows
	}
	if found {
		r.held.Store(true)
	}
	return found, err
}
