package replica

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Bounds of one page of a scan.
const (
	defaultPage  = 10
	maxPage      = 4096
	maxPageBytes = 1 << 20 // of keys
)

// ScanEntry is one own row.
type ScanEntry struct {
	Slot      ring.Slot
	KeyHash   uint32
	Key       []byte
	StateHash uint64
	Live      bool // a plain client would see a value
}

// Page is a run of own rows in order of (Slot, KeyHash), tombstones included.
//
// Invariant: unless Done, every row before position (NextSlot, NextHash) is in
// it and none from there on. Keys of equal position are never split between two
// pages, so a cursor made of a position misses none of them.
type Page struct {
	Entries  []ScanEntry
	NextSlot ring.Slot
	NextHash uint32
	Done     bool
}

// Scan returns the committed own rows from position (slot, hash) on whose slot
// is not above last: about limit of them.
func (r *Replica) Scan(slot ring.Slot, hash uint32, last ring.Slot, limit int) (Page, error) {
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	p := Page{Done: true}
	nowMS, size := r.cfg.Now().UnixMilli(), 0
	var bad error
	lo, hi := storage.DataRange(slot, hash, last)
	err := r.store.Scan(lo, hi, func(row, value []byte) bool {
		s, h, key, ok := storage.ParseDataKey(row)
		if !ok {
			bad = r.unreadable(s, h, storage.ErrCorrupt)
			return false
		}
		if n := len(p.Entries); (n >= limit || size >= maxPageBytes) && (p.Entries[n-1].Slot != s || p.Entries[n-1].KeyHash != h) {
			p.NextSlot, p.NextHash, p.Done = s, h, false
			return false
		}
		rec, err := version.DecodeRecord(value)
		if err != nil {
			bad = r.unreadable(s, h, err)
			return false
		}
		_, live := rec.Winner(nowMS)
		p.Entries = append(p.Entries, ScanEntry{Slot: s, KeyHash: h, Key: slices.Clone(key), StateHash: rec.StateHash(), Live: live})
		size += len(key)
		return true
	})
	if err != nil && bad == nil {
		bad = r.unreadable(slot, hash, err)
	}
	return p, bad
}

// readableAfter is a slot behind damage that begins at slot bad: the first one, as far
// as halving the steps between what can be read and what cannot finds it, or ring.Slots.
// A look at damage costs the engine milliseconds, so there are some thirty looks and
// not one for each slot.
func readableAfter(bad int, look func(slot int) error) int {
	good := ring.Slots
	for step := 1; bad+step < ring.Slots; step *= 2 {
		if at := bad + step; look(at) == nil {
			good = at
			break
		}
		bad += step
	}
	for good-bad > 1 {
		if at := (bad + good) / 2; look(at) == nil {
			good = at
		} else {
			bad = at
		}
	}
	return good
}
