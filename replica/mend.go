package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// This file brings back rows that damage to the disk took. The store has copied what
// could be read and left holes (see storage.Hole).
//
// In a hole of own rows nothing that was loaded from the disk answers a read or is the
// base of a mutation, whether it is there or not, but it takes in what others send.
// What the cache still has is whole; it is written again. Then the digests are made
// those of the rows that are left, so that exchanges see what is missing. When every
// other owner had its exchange after that, and none of them has a hole in the same
// place, whatever was acknowledged is here again, and the hole ends.
//
// Nothing that was deleted comes back by it: the store keeps no row that may be older
// than one that was lost, and what the others send is what they have.
//
// The indexes of expiries and graves are built anew from the own rows. A grave is as
// old as its rebuilding, so its row is kept longer than it had to be.
//
// Nobody can bring back a hint. Its hole ends when what the cache has is written again,
// and how many were lost is counted. That is safe for whoever relies on there being no
// hint: a lost one is never delivered, so nothing old comes back through it. What it
// kept is one copy less of a write, as if the disk of its holder had died.

// Owners is what a Mender needs of the other owners. Its methods may block.
type Owners interface {
	// Exchange asks for an exchange of some slots with every other owner, soon. It
	// answers false, and has not asked, while another is under way.
	Exchange(first, last ring.Slot) bool
	// Whole reports whether a hole is full: every other owner of each of its partitions
	// has had a session with this node that began after since, and has no hole there.
	// It is also full if nobody else could ever fill it.
	Whole(ctx context.Context, h storage.Hole, since time.Time) bool
}

const (
	// mendInterval is the pause between two looks at the holes.
	mendInterval = time.Second
	// askAgain is the time after which an exchange for a hole is asked for again, and
	// hints are counted again that did not rest, at the earliest.
	askAgain = 10 * time.Second
	// countPause is the pause before that, in times of what the counting took: a
	// twentieth of the time goes to it, however much is kept.
	countPause = 19
)

// Mender fills the holes of a Replica.
type Mender struct {
	r      *Replica
	owners Owners
	known  []mending
	hints  time.Time // are not counted again before this: some account never rested
}

// mending is a hole of own rows whose digests are those of the rows that are left.
type mending struct {
	hole  storage.Hole
	since time.Time
	asked time.Time // when an exchange was asked for; zero: not yet
}

// NewMender makes a Mender of r's rows.
func NewMender(r *Replica, owners Owners) *Mender { return &Mender{r: r, owners: owners} }

// Run fills holes until ctx ends, and returns nil then.
func (m *Mender) Run(ctx context.Context) error {
	m.r.repeat(ctx, mendInterval, "bringing back lost rows", m.step)
	return nil
}

// step is one look.
func (m *Mender) step(ctx context.Context) error {
	if !m.r.tally.ready() {
		return nil
	}
	failed := m.countSkipped(ctx) // what is mended can be counted later
	holes := m.r.store.Holes()
	if len(holes) == 0 {
		return failed
	}
	if err := m.restore(ctx, holes); err != nil {
		return err
	}
	var full []storage.Hole
	var known []mending
	for _, h := range holes {
		ended, err := m.mend(ctx, h, &known)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failed = err // of this hole; others can be mended
		case ended:
			full = append(full, h)
		}
	}
	m.known = known
	m.ask()
	if len(full) == 0 {
		return failed
	}
	if err := m.r.store.Fill(full); err != nil {
		return fmt.Errorf("replica: fill: %w", err)
	}
	m.r.meters.filled.Add(len(full))
	m.r.cfg.Logger.Info("replica: what damage took is here again", "holes", len(full), "left", len(holes)-len(full))
	return failed
}

// mend does what can be done for one hole and reports whether it ends. A hole of own
// rows that does not is appended to known.
func (m *Mender) mend(ctx context.Context, h storage.Hole, known *[]mending) (ended bool, err error) {
	switch h.Kind() {
	case storage.HintRows:
		// A change of the ring waits for the end of the hole, which must not wait for
		// hints that never rest: what is kept for a dead node does not.
		counted, err := m.countHints(ctx)
		if !counted {
			m.r.tally.skipped.addHints()
		}
		return true, err
	case storage.ExpiryRows:
		return true, m.r.reindex(ctx, h, 0, ring.Slots-1)
	case storage.GraveRows:
		first, _, last, _ := h.Positions()
		return true, m.r.reindex(ctx, h, ring.Slot(first), ring.Slot(last))
	}
	mending, err := m.verified(ctx, h)
	if err != nil {
		return false, err
	}
	if m.owners.Whole(ctx, h, mending.since) {
		first, _, last, _ := h.Positions()
		_, err := m.r.recount(ctx, ring.Slot(first), ring.Slot(last)) // what came back was counted already
		return true, err
	}
	*known = append(*known, mending)
	return false, nil
}

// ask asks for an exchange for one hole: that for which it is longest ago, if it is long
// ago. They are under way one at a time, and the next is asked for as soon as one is
// over, so holes do not wait for each other.
func (m *Mender) ask() {
	if len(m.known) == 0 {
		return
	}
	next := &m.known[0]
	for i := range m.known {
		if m.known[i].asked.Before(next.asked) {
			next = &m.known[i]
		}
	}
	first, _, last, _ := next.hole.Positions()
	if time.Since(next.asked) > askAgain && m.owners.Exchange(ring.Slot(first), ring.Slot(last)) {
		next.asked = time.Now()
	}
}

// verified makes the digests of a hole those of its rows, and answers since when they
// are.
func (m *Mender) verified(ctx context.Context, h storage.Hole) (mending, error) {
	for _, k := range m.known {
		if k.hole.Same(h) {
			return k, nil
		}
	}
	first, _, last, _ := h.Positions()
	m.r.cfg.Logger.Warn("replica: rows were lost to damage, other owners are asked for them", "first_slot", first, "last_slot", last)
	for slot := int(first); slot <= int(last); slot++ {
		if err := m.r.scrubSlot(ring.Slot(slot)); err != nil {
			return mending{}, err
		}
	}
	if err := m.r.drained(ctx); err != nil {
		return mending{}, err
	}
	return mending{hole: h, since: time.Now()}, nil
}

// restore writes again what the cache has of lost rows. It is done before digests are
// verified: a row that came after that would be in no digest.
func (m *Mender) restore(ctx context.Context, holes []storage.Hole) error {
	fresh := false
	for _, h := range holes {
		seen := false
		for _, k := range m.known {
			seen = seen || k.hole.Same(h)
		}
		fresh = fresh || !seen
	}
	if !fresh {
		return nil
	}
	rows := 0
	for i := range m.r.stripes {
		n, err := m.r.restoreStripe(&m.r.stripes[i])
		if err != nil {
			return err
		}
		rows += n
	}
	m.r.meters.restored.Add(rows)
	return m.r.drained(ctx)
}

// restoreStripe writes what one stripe of the cache has of lost rows.
func (r *Replica) restoreStripe(st *stripe) (rows int, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return 0, storage.ErrClosed
	}
	for _, e := range st.mu.clock {
		if e.partial || e.rec.Absent() || !r.inHole(e) {
			continue
		}
		op := storage.RowOp{Key: e.appendRowKey(nil), Value: version.EncodeRecord(nil, e.rec)}
		if _, err := r.store.Enqueue([]storage.RowOp{op}, true, nil); err != nil {
			return rows, err
		}
		rows++
	}
	return rows, nil
}

// reindexKeys is the number of keys whose index entries are written at once.
const reindexKeys = 1024

// reindex puts the entries of an index into a hole that the own rows of some slots ask
// for.
func (r *Replica) reindex(ctx context.Context, h storage.Hole, first, last ring.Slot) error {
	lo, hi := storage.DataRange(first, 0, last)
	for lo != nil {
		var keys [][]byte
		from := lo
		lo = nil
		err := r.store.Scan(from, hi, func(row, value []byte) bool {
			if len(keys) == reindexKeys {
				lo = bytes.Clone(row)
				return false
			}
			_, _, key, ok := storage.ParseDataKey(row)
			if rec, err := version.DecodeRecord(value); ok && err == nil && (bare(rec) || indexed(rec) > 0) {
				keys = append(keys, bytes.Clone(key))
			}
			return true
		})
		if err != nil && !errors.Is(err, storage.ErrHole) {
			return fmt.Errorf("replica: reindex: %w", err)
		}
		for _, key := range keys {
			if err := r.reindexKey(key, h); err != nil {
				return fmt.Errorf("replica: reindex: %w", err)
			}
		}
		if len(keys) > 0 {
			if err := r.drained(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// reindexKey writes the entries of one key.
func (r *Replica) reindexKey(key []byte, h storage.Hole) error {
	hash := ring.KeyHash(key)
	st := r.stripeOf(hash)
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return storage.ErrClosed
	}
	e, err := r.lookupPartialLocked(st, key, 0, hash)
	if err != nil {
		return err
	}
	all, _ := appendIndexOps(nil, &entry{key: e.key, slot: e.slot, keyPos: e.keyPos}, e.rec)
	if bare(e.rec) {
		all = append(all, storage.RowOp{
			Key:   storage.AppendGraveKey(nil, e.slot, e.keyPos, e.key),
			Value: binary.BigEndian.AppendUint64(nil, uint64(r.cfg.Now().UnixMilli())),
		})
	}
	var ops []storage.RowOp
	for _, op := range all {
		if h.Contains(op.Key) {
			ops = append(ops, op)
		}
	}
	if len(ops) > 0 {
		_, err = r.store.Enqueue(ops, false, nil)
	}
	return err
}

// countHints sets the accounts of hints from the rows that are left, and reports whether
// all are set. One that changed all the time is tried again later, not at once: each try
// reads all that is kept for its target.
func (m *Mender) countHints(ctx context.Context) (counted bool, err error) {
	began := time.Now()
	if began.Before(m.hints) {
		return false, nil
	}
	restless := false
	for _, target := range m.r.hints.targets() {
		rested, err := m.r.recountAccount(ctx, target)
		if err != nil {
			return false, err
		}
		if !rested {
			m.r.cfg.Logger.Warn("replica: hints change too fast to be counted anew", "target", target)
			restless = true
		}
	}
	if restless {
		m.hints = time.Now().Add(max(askAgain, countPause*time.Since(began)))
	}
	return !restless, nil
}

// recountAccount sets the account of one target, unless it changes all the time. See
// recount.
func (r *Replica) recountAccount(ctx context.Context, target ring.NodeID) (rested bool, err error) {
	a := r.hints.account(target)
	lo, hi := storage.HintRange(uint64(target), 0, 0)
	for range recountTries {
		changes := a.changed()
		if err := r.drained(ctx); err != nil {
			return false, err
		}
		rows, size := int64(0), int64(0)
		err := r.store.Scan(lo, hi, func(row, value []byte) bool {
			rows, size = rows+1, size+int64(len(row)+len(value))
			return true
		})
		if err != nil && !errors.Is(err, storage.ErrHole) {
			return false, err
		}
		if lost, ok := r.hints.set(target, changes, rows, size); ok {
			if lost > 0 {
				r.meters.lostHints.Add(int(lost))
				r.cfg.Logger.Error("replica: hints were lost to damage", "target", target, "hints", lost)
			}
			return true, nil
		}
	}
	return false, nil
}
