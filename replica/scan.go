package replica

import (
	"fmt"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// ScanEntry is one key of a page.
type ScanEntry struct {
	Slot      uint16
	KeyHash   uint32
	Key       []byte
	StateHash uint64
	Live      bool // has a value that is neither deleted nor expired
}

// Page is some keys in the order slot, key hash, key. Unless Done, everything
// before (NextSlot, NextHash) and nothing from there on is in it.
type Page struct {
	Entries  []ScanEntry
	NextSlot uint16
	NextHash uint32
	Done     bool
}

// Limits of one page. A page ends between two key hashes, so that a position
// never splits keys; those with one hash come together, however many.
const (
	maxPageEntries = 4096
	maxPageBytes   = 1 << 20
)

// Scan returns the keys from position (slot, hash) to the end of slot last,
// about limit of them, tombstones included: only those can tell that another
// replica's value is gone.
func (r *Replica) Scan(slot uint16, hash uint32, last uint16, limit int) (Page, error) {
	if limit <= 0 || limit > maxPageEntries {
		limit = maxPageEntries
	}
	if last >= ring.Slots || slot > last {
		return Page{Done: true}, nil
	}
	page := Page{Done: true}
	now := r.cfg.Now().UnixMilli()
	bytes := 0
	var bad error
	lo, hi := storage.DataRange(slot, hash, last)
	err := r.cfg.Store.Scan(lo, hi, func(row, value []byte) bool {
		slot, hash, key, ok := storage.ParseDataKey(row)
		if !ok {
			bad = fmt.Errorf("%w: row %x", storage.ErrCorrupt, row)
			return false
		}
		if n := len(page.Entries); n > 0 && (n >= limit || bytes >= maxPageBytes) &&
			(page.Entries[n-1].Slot != slot || page.Entries[n-1].KeyHash != hash) {
			page.Done, page.NextSlot, page.NextHash = false, slot, hash
			return false
		}
		var rec version.Record
		if rec, bad = version.DecodeRecord(value); bad != nil {
			return false
		}
		_, live := rec.Winner(now)
		page.Entries = append(page.Entries, ScanEntry{
			Slot: slot, KeyHash: hash, Key: append([]byte(nil), key...), StateHash: rec.StateHash(), Live: live,
		})
		bytes += len(key) + 32
		return true
	})
	if bad != nil {
		err = bad
	}
	if err != nil {
		r.count.readErrors.Inc()
		return Page{}, fmt.Errorf("replica: scan: %w", err)
	}
	return page, nil
}

// HintTotals are the hints kept for one node.
type HintTotals struct {
	Target      ring.NodeID
	Rows, Bytes int64
}

// HintTotals lists the nodes that hints are kept for.
func (r *Replica) HintTotals() []HintTotals {
	var all []HintTotals
	r.census.mu.Lock()
	defer r.census.mu.Unlock()
	for id, n := range r.census.mu.hints {
		if n.rows > 0 {
			all = append(all, HintTotals{Target: id, Rows: n.rows, Bytes: n.bytes})
		}
	}
	return all
}

// Hints calls fn with each hint kept for target from position (slot, hash) on,
// until fn answers false. What fn is given is valid within the call only.
func (r *Replica) Hints(target ring.NodeID, slot uint16, hash uint32, fn func(key, enc []byte) bool) error {
	lo, hi := storage.HintRange(uint64(target), slot, hash)
	return r.cfg.Store.Scan(lo, hi, func(row, value []byte) bool {
		_, _, _, key, ok := storage.ParseHintKey(row)
		return !ok || fn(key, value)
	})
}
