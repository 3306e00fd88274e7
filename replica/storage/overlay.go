package storage

import (
	"bytes"
	"slices"
	"sync"
)

// scanPatience is the number of pending rows from which a scan asks for them to
// be applied: it had to sort them, and so would the next one.
const scanPatience = 1024

// overlay holds the rows that are in the log and not yet in place: those of
// the batches being committed, and those being applied. What is newer hides
// what is older, and both hide the engine's own rows.
type overlay struct {
	limit int           // bytes from which the fresh generation is applied
	ask   chan struct{} // holds a token when somebody wants it applied
	room  chan struct{} // holds a token when a generation has been applied
	mu    struct {
		sync.RWMutex
		fresh    *generation
		applying *generation // nil unless a generation is being applied
		spare    *generation // nil while applying
		digests  digests     // of the rows of the store as a whole
	}
}

// init makes an empty overlay.
func (o *overlay) init(limit int) {
	o.limit = limit
	o.ask, o.room = make(chan struct{}, 1), make(chan struct{}, 1)
	o.mu.fresh, o.mu.spare = newGeneration(), newGeneration()
}

// signal puts a token into c unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// add takes in the rows of a batch that the engine has committed. They become
// visible together.
func (o *overlay) add(seq uint64, ops int, body []byte, nowNS int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.fresh.add(seq, ops, body, nowNS, &o.mu.digests)
	if o.mu.fresh.bytes >= o.limit {
		signal(o.ask)
	}
}

// full reports whether the pending rows have reached their hard bound, twice
// the limit: one generation being applied and another one waiting.
func (o *overlay) full() bool { return o.bytes() >= 2*o.limit }

// bytes is about what the pending rows take in the log.
func (o *overlay) bytes() int {
	o.mu.RLock()
	defer o.mu.RUnlock()
	n := o.mu.fresh.bytes
	if o.mu.applying != nil {
		n += o.mu.applying.bytes
	}
	return n
}

// ripe reports whether the fresh generation began before the time, or is full.
func (o *overlay) ripe(beforeNS int64) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	g := o.mu.fresh
	return g.last != 0 && (g.bornNS <= beforeNS || g.bytes >= o.limit)
}

// take makes the fresh generation the one being applied, and returns it; nil
// means that it is empty. It is not changed from here on. Requires: none is
// being applied.
func (o *overlay) take() *generation {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.fresh.last == 0 {
		return nil
	}
	o.mu.applying = o.mu.fresh
	o.mu.fresh, o.mu.spare = o.mu.spare, nil
	return o.mu.applying
}

// drop lets go of the generation that take returned. Requires: the engine has
// its rows.
func (o *overlay) drop() {
	o.mu.Lock()
	g := o.mu.applying
	o.mu.applying = nil
	o.mu.Unlock()
	g.reset() // nobody else can find it any more
	o.mu.Lock()
	o.mu.spare = g
	o.mu.Unlock()
	signal(o.room)
}

// get returns the pending state of a row, if it has one.
func (o *overlay) get(key []byte) (row pendingRow, ok bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if row, ok = o.mu.fresh.get(key); ok || o.mu.applying == nil {
		return row, ok
	}
	return o.mu.applying.get(key)
}

// view returns the pending rows of [lo, hi), sorted, and calls open, which must
// take hold of the engine's rows: together they are the store at one moment. A
// nil bound is none.
func (o *overlay) view(lo, hi []byte, open func() error) ([]pendingRow, error) {
	rows, fresh, err := o.collect(lo, hi, open)
	if len(rows) >= scanPatience {
		signal(o.ask)
	}
	// Stable: of two states of a row the fresh one stays first, and is kept.
	slices.SortStableFunc(rows, func(a, b pendingRow) int { return bytes.Compare(a.key, b.key) })
	if fresh < len(rows) {
		rows = slices.CompactFunc(rows, func(a, b pendingRow) bool { return bytes.Equal(a.key, b.key) })
	}
	return rows, err
}

// collect is the part of view that needs the lock; the first of the rows are
// from the fresh generation.
func (o *overlay) collect(lo, hi []byte, open func() error) (rows []pendingRow, fresh int, err error) {
	o.mu.RLock()
	defer o.mu.RUnlock() // also when the engine ends the goroutine
	rows = o.mu.fresh.appendRange(nil, lo, hi)
	fresh = len(rows)
	if o.mu.applying != nil {
		rows = o.mu.applying.appendRange(rows, lo, hi)
	}
	return rows, fresh, open()
}
