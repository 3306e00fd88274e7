package storage

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// swaps are the ranges of rows that were replaced; see salvage. The engine
// publishes such a step in two: first the old rows are gone, then the new ones can
// be seen. Whoever finds nothing looks whether it was between the two, and whoever
// takes hold of the rows as a whole does it again if so. What is found is right at
// every moment: the rows that are copied are those that were there.
//
// Nor does a snapshot survive: it lacks the old rows and never sees the new ones.
type swaps struct {
	now  atomic.Pointer[swap]
	done atomic.Uint64 // swaps that have ended
	mu   struct {
		sync.Mutex
		spans []pebble.KeyRange // of the last of them
	}
}

// swap is one that is under way.
type swap struct {
	span  pebble.KeyRange
	ended chan struct{}
}

// keptSwaps is the number of swaps that are remembered. What is older than that may
// have touched any row.
const keptSwaps = 4096

// begin notes that a swap begins; the function that it answers ends it. Requires:
// there is one at a time.
func (w *swaps) begin(span pebble.KeyRange) (end func()) {
	now := &swap{span, make(chan struct{})}
	w.now.Store(now)
	return func() {
		w.mu.Lock()
		if w.mu.spans = append(w.mu.spans, span); len(w.mu.spans) > keptSwaps {
			w.mu.spans = append([]pebble.KeyRange(nil), w.mu.spans[keptSwaps/2:]...)
		}
		w.done.Add(1)
		w.mu.Unlock()
		w.now.Store(nil)
		close(now.ended)
	}
}

// hid reports whether some row of a range may have been out of sight since done was
// at before. It waits for the end of a swap that is under way.
func (w *swaps) hid(before uint64, span pebble.KeyRange, broken <-chan struct{}) bool {
	if now := w.now.Load(); now != nil && overlaps(now.span, span) {
		select {
		case <-now.ended:
			return true
		case <-broken:
			return false // nothing that is read counts any more
		}
	}
	return w.done.Load() != before
}

// since reports whether some row of a range was replaced after done was at before,
// or is being replaced.
func (w *swaps) since(before uint64, span pebble.KeyRange) bool {
	if now := w.now.Load(); now != nil && overlaps(now.span, span) {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.done.Load() - before
	if n > uint64(len(w.mu.spans)) {
		return true
	}
	for _, s := range w.mu.spans[uint64(len(w.mu.spans))-n:] {
		if overlaps(s, span) {
			return true
		}
	}
	return false
}

// rowSpan is the range of one row.
func rowSpan(row []byte) pebble.KeyRange { return pebble.KeyRange{Start: row, End: successor(row)} }

// boundsSpan is the range between bounds, of which nil is none.
func boundsSpan(lo, hi []byte) pebble.KeyRange {
	if hi == nil {
		hi = bytes.Repeat([]byte{0xff}, 2)
	}
	return pebble.KeyRange{Start: lo, End: hi}
}
