package replica

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// hintBook keeps the number and size of the hint rows of each target.
type hintBook struct {
	now   func() time.Time
	first func(ring.NodeID) // told when an account gets its first row
	mu    struct {
		sync.RWMutex
		accounts map[ring.NodeID]*hintAccount
	}
}

// hintAccount is what is kept for one target. It stays when the last row has
// gone: there are only as many as nodes ever were.
type hintAccount struct {
	mu struct {
		sync.Mutex
		rows, bytes int64
		changes     uint64
		since       time.Time // of the first row since there was none
	}
}

// account returns the account of target.
func (b *hintBook) account(target ring.NodeID) *hintAccount {
	b.mu.RLock()
	a := b.mu.accounts[target]
	b.mu.RUnlock()
	if a != nil {
		return a
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.accounts == nil {
		b.mu.accounts = map[ring.NodeID]*hintAccount{}
	}
	if a = b.mu.accounts[target]; a == nil {
		a = &hintAccount{}
		b.mu.accounts[target] = a
	}
	return a
}

// change notes that a row of target went from was to is bytes; 0 is no row.
func (b *hintBook) change(target ring.NodeID, was, is int) {
	if b.account(target).change(was, is, b.now()) && b.first != nil {
		b.first(target)
	}
}

// change reports whether the account has its first row now.
func (a *hintAccount) change(was, is int, now time.Time) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.changes++
	a.mu.bytes += int64(is - was)
	switch {
	case was == 0 && is != 0:
		a.mu.rows++
		first = a.mu.rows == 1
	case was != 0 && is == 0:
		a.mu.rows--
	}
	switch {
	case a.mu.rows == 0:
		a.mu.since = time.Time{}
	case a.mu.since.IsZero():
		a.mu.since = now
	}
	return first
}

// changed is how often the account has changed.
func (a *hintAccount) changed() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.changes
}

// set makes an account what was counted, unless it has changed meanwhile, and answers
// how many rows fewer that is.
func (b *hintBook) set(target ring.NodeID, changes uint64, rows, bytes int64) (lost int64, ok bool) {
	lost, first, ok := b.account(target).set(changes, rows, bytes, b.now())
	if first && b.first != nil {
		b.first(target)
	}
	return lost, ok
}

func (a *hintAccount) set(changes uint64, rows, bytes int64, now time.Time) (lost int64, first, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.changes != changes {
		return 0, false, false
	}
	lost, first = a.mu.rows-rows, a.mu.rows <= 0 && rows > 0
	a.mu.rows, a.mu.bytes = rows, bytes
	switch {
	case rows == 0:
		a.mu.since = time.Time{}
	case a.mu.since.IsZero():
		a.mu.since = now
	}
	return lost, first, true
}

// total returns what is kept now.
func (a *hintAccount) total(target ring.NodeID) HintTotal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return HintTotal{Target: target, Rows: a.mu.rows, Bytes: a.mu.bytes, Since: a.mu.since}
}

// open sets an account to what an earlier run left.
func (b *hintBook) open(target ring.NodeID, rows, bytes int64) {
	a := b.account(target)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.rows, a.mu.bytes, a.mu.since = rows, bytes, b.now()
}

// targets returns every node with an account, in order.
func (b *hintBook) targets() []ring.NodeID {
	b.mu.RLock()
	defer b.mu.RUnlock()
	ids := make([]ring.NodeID, 0, len(b.mu.accounts))
	for id := range b.mu.accounts {
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
	// Since is when the first row came since there was none. Of rows that an
	// earlier run left it is when this one began.
	Since time.Time
}

// Hints returns the totals of every target that something is kept for. After an
// unclean stop they are too low until the rows have been counted; a target
// whose rows are not counted yet is there, too.
func (r *Replica) Hints() []HintTotal {
	counted := r.tally.ready()
	var totals []HintTotal
	for _, id := range r.hints.targets() {
		t := r.hints.account(id).total(id)
		if t.Rows > 0 || !counted {
			t.Rows, t.Bytes = max(t.Rows, 0), max(t.Bytes, 0)
			totals = append(totals, t)
		}
	}
	return totals
}

// HintBytes returns the size of what is kept for target.
func (r *Replica) HintBytes(target ring.NodeID) int64 {
	return r.hints.account(target).total(target).Bytes
}

// Hinted reports whether a hint is kept for some key in the slots from first to
// last, whomever it is for, or was at some time of the last while. What was kept
// before this run counts as kept when it began. What is still queued does not
// count: see Barrier.
func (r *Replica) Hinted(first, last ring.Slot, while time.Duration) (found bool, err error) {
	now := time.Since(r.opened)
	for _, target := range r.hints.targets() {
		lo, hi := storage.HintSlots(uint64(target), first, last)
		err = errors.Join(err, r.store.Scan(lo, hi, func(_, _ []byte) bool {
			found = true
			return false
		}))
		if found {
			return true, nil
		}
	}
	for p := r.partition(first); p <= r.partition(last); p++ {
		if time.Duration(r.hintedAt[p].Load()) > now-while {
			return true, err
		}
	}
	return false, err
}

// Hint is one row kept for another node.
type Hint struct {
	Slot    ring.Slot
	KeyHash uint32
	Key     []byte
	Record  []byte // as it is sent to the target
}

// HintPage is a part of what is kept for a target, in order of (slot, hash).
type HintPage struct {
	Hints []Hint
	// Unless Done, the next page begins at (NextSlot, NextHash), also after an
	// error.
	NextSlot ring.Slot
	NextHash uint32
	Done     bool
	// Unreadable is the number of damaged rows passed over. They stay.
	Unreadable int
}

// HintPage returns committed hint rows of target at or after position (slot,
// hash) until they exceed maxBytes, but at least one position. With an error the
// page holds what could be read before it, and the next one begins behind that:
// a damaged part of the store does not hide what lies behind it.
func (r *Replica) HintPage(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (HintPage, error) {
	return r.hintPage(r.store.Scan, target, slot, hash, maxBytes)
}

// scanner calls fn for the rows between two keys until it answers false.
type scanner func(lo, hi []byte, fn func(row, value []byte) bool) error

// hintPage is HintPage of what scan finds.
func (r *Replica) hintPage(scan scanner, target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (HintPage, error) {
	page, size := HintPage{Done: true}, 0
	lo, hi := storage.HintRange(uint64(target), slot, hash)
	err := scan(lo, hi, func(row, value []byte) bool {
		_, s, h, key, ok := storage.ParseHintKey(row)
		if n := len(page.Hints); ok && n > 0 && size > maxBytes && (page.Hints[n-1].Slot != s || page.Hints[n-1].KeyHash != h) {
			page.NextSlot, page.NextHash, page.Done = s, h, false
			return false
		}
		rec, err := version.DecodeRecord(value)
		if !ok || err != nil {
			_ = r.unreadable(s, h, errors.Join(err, storage.ErrCorrupt)) // counted, which is all that can be done
			page.Unreadable++
			return true
		}
		page.Hints = append(page.Hints, Hint{Slot: s, KeyHash: h, Key: bytes.Clone(key), Record: version.EncodeWire(nil, rec)})
		size += len(row) + len(value)
		return true
	})
	if errors.Is(err, storage.ErrHole) { // told at the end: what is left was read
		return page, r.unreadable(slot, hash, err)
	}
	if err != nil {
		page.after(slot, func(slot int) error {
			lo, hi := storage.HintRange(uint64(target), ring.Slot(slot), 0)
			if err := scan(lo, hi, func(_, _ []byte) bool { return false }); !errors.Is(err, storage.ErrHole) {
				return err
			}
			return nil // all that is left can be read
		})
		return page, r.unreadable(page.NextSlot, page.NextHash, err)
	}
	return page, nil
}

// HintMoment is the hint rows of one moment. It must be closed before the replica.
type HintMoment struct {
	r    *Replica
	snap *storage.Snapshot
}

// HintMoment returns the hints that are committed by now. The disk keeps all that is
// deleted until it is closed.
func (r *Replica) HintMoment() (*HintMoment, error) {
	snap, err := r.store.Snapshot(storage.AllHints())
	if err != nil {
		return nil, err
	}
	return &HintMoment{r, snap}, nil
}

// Targets lists the nodes that rows are kept for.
func (m *HintMoment) Targets() ([]ring.NodeID, error) { return hintTargets(m.snap.Scan) }

// Page is Replica.HintPage.
func (m *HintMoment) Page(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (HintPage, error) {
	return m.r.hintPage(m.snap.Scan, target, slot, hash, maxBytes)
}

// Close lets go of the moment.
func (m *HintMoment) Close() error { return m.snap.Close() }

// hintTargets lists the targets that scan finds rows of.
func hintTargets(scan scanner) (targets []ring.NodeID, err error) {
	lo, hi := storage.AllHints()
	for {
		found := false
		err := scan(lo, hi, func(row, _ []byte) bool {
			if target, _, _, _, ok := storage.ParseHintKey(row); ok {
				targets = append(targets, ring.NodeID(target))
				_, lo = storage.HintRange(target, 0, 0) // behind its last row
				found = true
			}
			return false
		})
		if err != nil || !found {
			return targets, err
		}
	}
}

// after lets the next page begin behind the last row of this one or, if there
// is none, at a slot behind the one that this one began with, which look can read.
func (p *HintPage) after(slot ring.Slot, look func(slot int) error) {
	if n := len(p.Hints); n > 0 {
		last := p.Hints[n-1]
		if p.NextSlot, p.NextHash, p.Done = last.Slot, last.KeyHash+1, false; p.NextHash != 0 {
			return
		}
		slot = last.Slot
	}
	next := readableAfter(int(slot), look)
	p.Done = next >= ring.Slots
	p.NextSlot, p.NextHash = ring.Slot(next), 0
}

// DropHint removes the row of key kept for target if it still is what was
// delivered, a Hint's Record: if anything came in since then, even a context
// without a version, the row stays. done is called exactly once, when the
// removal is committed, has failed or is not to be.
//
// Requires: the target has acknowledged that record durably.
func (r *Replica) DropHint(key []byte, target ring.NodeID, delivered []byte, done func(dropped bool, err error)) {
	removed, err := r.dropHint(key, target, delivered, done)
	if err != nil || !removed {
		done(false, err)
	}
}

// dropHint does DropHint under the lock.
func (r *Replica) dropHint(key []byte, target ring.NodeID, delivered []byte, done func(bool, error)) (removed bool, err error) {
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
	// The state hash would not do: it leaves out the context of a live record,
	// and with it what was deleted beside a version that stayed.
	if target == 0 || e.rec.Absent() || !bytes.Equal(version.EncodeWire(nil, e.rec), delivered) {
		return false, nil
	}
	err = r.storeLocked(st, e, version.Record{}, nil, false, func(err error) { done(err == nil, err) })
	return err == nil, err
}
