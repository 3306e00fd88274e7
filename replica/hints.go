package replica

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// hintBook keeps the number and size of the hint rows of each target.
type hintBook struct {
	mu struct {
		sync.RWMutex
		pages map[ring.NodeID]*hintPage
	}
}

// hintPage is the account of one target. It stays when the last row has gone:
// there are only as many as nodes ever were.
type hintPage struct {
	rows, bytes atomic.Int64
}

// page returns the account of target.
func (b *hintBook) page(target ring.NodeID) *hintPage {
	b.mu.RLock()
	p := b.mu.pages[target]
	b.mu.RUnlock()
	if p != nil {
		return p
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.pages == nil {
		b.mu.pages = map[ring.NodeID]*hintPage{}
	}
	if p = b.mu.pages[target]; p == nil {
		p = &hintPage{}
		b.mu.pages[target] = p
	}
	return p
}

// change notes that a row of target went from was to is bytes; 0 is no row.
func (b *hintBook) change(target ring.NodeID, was, is int) {
	p := b.page(target)
	p.bytes.Add(int64(is - was))
	switch {
	case was == 0 && is != 0:
		p.rows.Add(1)
	case was != 0 && is == 0:
		p.rows.Add(-1)
	}
}

// targets returns every node with an account, in order.
func (b *hintBook) targets() []ring.NodeID {
	b.mu.RLock()
	defer b.mu.RUnlock()
	ids := make([]ring.NodeID, 0, len(b.mu.pages))
	for id := range b.mu.pages {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// HintTotal is what is kept for one target.
type HintTotal struct {
	Target ring.NodeID
	Rows   int64
	Bytes  int64
}

// Hints returns the totals of every target that something is kept for. After an
// unclean stop they are too low until the rows have been counted.
func (r *Replica) Hints() []HintTotal {
	var totals []HintTotal
	for _, id := range r.hints.targets() {
		p := r.hints.page(id)
		if rows := p.rows.Load(); rows > 0 {
			totals = append(totals, HintTotal{Target: id, Rows: rows, Bytes: p.bytes.Load()})
		}
	}
	return totals
}

// HintBytes returns the size of what is kept for target.
func (r *Replica) HintBytes(target ring.NodeID) int64 { return r.hints.page(target).bytes.Load() }

// Hint is one row kept for another node.
type Hint struct {
	Slot      ring.Slot
	KeyHash   uint32
	Key       []byte
	StateHash uint64
	Record    []byte // as it is sent to the target
}

// HintPage returns committed hint rows of target at or after position (slot,
// hash), in order, until they exceed maxBytes, but at least one position. done
// says that there are no more; else the next page begins at (nextSlot, nextHash).
func (r *Replica) HintPage(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (page []Hint, nextSlot ring.Slot, nextHash uint32, done bool, err error) {
	size, done := 0, true
	var bad error
	lo, hi := storage.HintRange(uint64(target), slot, hash)
	err = r.store.Scan(lo, hi, func(row, value []byte) bool {
		_, s, h, key, ok := storage.ParseHintKey(row)
		if !ok {
			bad = r.unreadable(s, h, storage.ErrCorrupt)
			return false
		}
		if n := len(page); n > 0 && size > maxBytes && (page[n-1].Slot != s || page[n-1].KeyHash != h) {
			nextSlot, nextHash, done = s, h, false
			return false
		}
		rec, err := version.DecodeRecord(value)
		if err != nil {
			bad = r.unreadable(s, h, err)
			return false
		}
		page = append(page, Hint{Slot: s, KeyHash: h, Key: slices.Clone(key), StateHash: rec.StateHash(), Record: version.EncodeWire(nil, rec)})
		size += len(row) + len(value)
		return true
	})
	return page, nextSlot, nextHash, done, errors.Join(err, bad)
}

// DropHint removes the row of key kept for target if its state is still the one
// with stateHash, that is, if nothing came in since it was delivered. done is
// called exactly once, as in Merge, with nil also when the row had to stay.
//
// Requires: the target has acknowledged that state durably.
func (r *Replica) DropHint(key []byte, target ring.NodeID, stateHash uint64, done func(error)) {
	settled, err := r.dropHint(key, target, stateHash, done)
	if err != nil || settled {
		done(err)
	}
}

// dropHint does DropHint under the lock.
func (r *Replica) dropHint(key []byte, target ring.NodeID, stateHash uint64, done func(error)) (settled bool, err error) {
	h := ring.KeyHash(key)
	st := r.stripeOf(h)
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return false, storage.ErrClosed
	}
	e, err := r.lookupLocked(st, key, target, h)
	if err != nil {
		return false, err
	}
	if target == 0 || e.hash != stateHash || e.rec.Absent() {
		return true, nil
	}
	return false, r.storeLocked(st, e, version.Record{}, nil, false, done)
}
