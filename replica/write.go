package replica

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Merge joins an encoded record into the row of key for target. done is called
// exactly once: with nil when everything that the record brought is committed,
// and synced if the caller asks for durable, whether this call stored it or an
// earlier one did. enc is kept by the cache and must not be modified: it should
// be an allocation of its own, not a part of something large.
func (r *Replica) Merge(key []byte, target ring.NodeID, enc []byte, durable bool, done func(error)) {
	r.MergeBefore(time.Time{}, key, target, enc, durable, done)
}

// MergeBefore is Merge with the deadline of a message: if the row cannot be had
// before it, nothing is stored and done is told ErrLate. Looking at the deadline
// before the call is left to the caller.
func (r *Replica) MergeBefore(deadline time.Time, key []byte, target ring.NodeID, enc []byte, durable bool, done func(error)) {
	in, err := version.DecodeRecord(enc)
	if err != nil {
		done(fmt.Errorf("replica: merge: %w", err))
		return
	}
	settled, err := r.merge(deadline, key, target, in, enc, durable, done)
	if err != nil || settled {
		done(err)
	}
}

// TryMerge is MergeBefore if that takes no disk. If it does, or if the lock is held for
// a read of the disk, it answers false and done is never called.
func (r *Replica) TryMerge(deadline time.Time, key []byte, target ring.NodeID, enc []byte, durable bool, done func(error)) bool {
	h := ring.KeyHash(key)
	st := r.stripeOf(h)
	if st.loading.Load() != 0 {
		return false
	}
	in, err := version.DecodeRecord(enc)
	if err != nil {
		done(fmt.Errorf("replica: merge: %w", err))
		return true
	}
	waited := st.lock()
	e := st.findLocked(key, target)
	if e == nil {
		st.mu.Unlock()
		return false
	}
	settled := false
	if waited {
		err = late(deadline)
	}
	if err == nil {
		r.meters.cached.Inc()
		settled, err = r.mergeLocked(st, e, in, enc, durable, done)
	}
	st.mu.Unlock()
	if err != nil || settled {
		done(err)
	}
	return true
}

// merge does Merge under the lock. done stays uncalled, and will be, if it
// answers an error or that there is nothing to wait for.
func (r *Replica) merge(deadline time.Time, key []byte, target ring.NodeID, in version.Record, enc []byte, durable bool, done func(error)) (settled bool, err error) {
	h := ring.KeyHash(key)
	st := r.stripeOf(h)
	waited := st.lock()
	defer st.mu.Unlock()
	e, err := r.lookupBeforeLocked(st, key, target, h, deadline, waited)
	if err != nil {
		return false, err
	}
	return r.mergeLocked(st, e, in, enc, durable, done)
}

// mergeLocked is merge with the row at hand.
func (r *Replica) mergeLocked(st *stripe, e *entry, in version.Record, enc []byte, durable bool, done func(error)) (settled bool, err error) {
	if r.closed.Load() {
		return false, storage.ErrClosed
	}
	e.used = true
	if e.target == 0 && r.fenced(e.slot) {
		return false, ErrFenced
	}
	if err := r.checkOwnDots(e, in.Context); err != nil {
		return false, err
	}
	r.clock.Observe(in.MaxHLC())
	r.meters.merged.Inc()
	if e.target == 0 && e.rec.Absent() && r.reaped.has(e, in) {
		return true, nil
	}
	next := version.Merge(e.rec, in)
	if next.Equal(e.rec) && !r.mustRewrite(e) {
		r.meters.unchanged.Inc()
		return r.awaitLocked(e, durable, done)
	}
	if !sameAsSent(next, in) {
		enc = version.EncodeRecord(st.mu.row[:0], next)
		st.mu.row = keepSmall(enc)
	}
	return false, r.storeLocked(st, e, next, enc, durable, done)
}

// Sync calls done when everything that is committed is synced, in every mode.
func (r *Replica) Sync(done func(error)) { r.store.Sync(done) }

// ErrLate: the row could not be had before the deadline. Nothing was stored.
var ErrLate = errors.New("replica: past the deadline")

// lock locks the stripe and reports whether it had to wait: perhaps behind a read
// of the disk.
func (st *stripe) lock() (waited bool) {
	if st.mu.TryLock() {
		return false
	}
	st.mu.Lock()
	return true
}

// lookupBeforeLocked is lookupPartialLocked, and looks at the deadline again if there was
// something to wait for: whoever acts on a row must know that it is not too late
// when the row is there, however long the disk took.
func (r *Replica) lookupBeforeLocked(st *stripe, key []byte, target ring.NodeID, keyHash uint32, deadline time.Time, waited bool) (*entry, error) {
	if e := st.findLocked(key, target); e != nil && !waited {
		e.used = true
		r.meters.cached.Inc()
		return e, nil
	}
	e, err := r.lookupPartialLocked(st, key, target, keyHash)
	if err == nil {
		err = late(deadline)
	}
	return e, err
}

// late answers ErrLate past a deadline. Who had nothing to wait for since the last
// look at the clock need not ask.
func late(deadline time.Time) error {
	if !deadline.IsZero() && !time.Now().Before(deadline) {
		return ErrLate
	}
	return nil
}

// mustRewrite reports whether a change that changes nothing has to be written all
// the same: the cache has the row, and the disk may not.
func (r *Replica) mustRewrite(e *entry) bool { return !e.rec.Absent() && r.inHole(e) }

// sameAsSent reports whether the row of merged is the very encoding that in was
// decoded from: Merge shares what it takes as a whole, and equal records have
// equal bytes.
func sameAsSent(merged, in version.Record) bool {
	return merged.Amnesia == in.Amnesia && merged.AllAcked == in.AllAcked && merged.LWW == in.LWW &&
		len(merged.Context) == len(in.Context) && len(in.Context) > 0 && &merged.Context[0] == &in.Context[0] &&
		len(merged.Versions) == len(in.Versions) && (len(in.Versions) == 0 || &merged.Versions[0] == &in.Versions[0]) &&
		merged.Counter.Same(&in.Counter)
}

// scratchBytes bounds what a stripe keeps for the next encoding.
const scratchBytes = 16 << 10

// keepSmall returns b, or nothing if b is too large to keep.
func keepSmall(b []byte) []byte {
	if cap(b) > scratchBytes {
		return nil
	}
	return b
}

// Mutate merges base, the state that a quorum read found, into the row of key
// for target, applies op with a fresh dot and queues the result, all in one
// step. It returns at once: the new record as it is sent to other replicas, and
// what op did. done is then called exactly once, when the row is committed (and
// synced, if the caller asks for durable) or has failed; an op that changed
// nothing waits for the state that it rests on.
//
// With an error nothing was stored and done is never called; the dot is burned.
// op.Value is copied. Requires: base is not modified afterwards.
func (r *Replica) Mutate(key []byte, target ring.NodeID, base version.Record, op version.Op, durable bool, done func(error)) (enc []byte, out version.Outcome, err error) {
	return r.MutateBefore(time.Time{}, key, target, base, op, durable, done)
}

// MutateBefore is Mutate with the deadline of the request: if the row cannot be
// had before it, it answers ErrLate. Looking at the deadline before the call is
// left to the caller.
func (r *Replica) MutateBefore(deadline time.Time, key []byte, target ring.NodeID, base version.Record, op version.Op, durable bool, done func(error)) (enc []byte, out version.Outcome, err error) {
	if op.Kind == version.OpSet {
		op.Value = bytes.Clone(op.Value)
	}
	enc, out, settled, err := r.mutate(deadline, key, target, base, &op, durable, done)
	if settled && err == nil {
		done(nil)
	}
	return enc, out, err
}

// mutate does Mutate under the lock. done stays uncalled if it answers an error
// or that there is nothing to wait for.
func (r *Replica) mutate(deadline time.Time, key []byte, target ring.NodeID, base version.Record, op *version.Op, durable bool, done func(error)) (enc []byte, out version.Outcome, settled bool, err error) {
	h := ring.KeyHash(key)
	st := r.stripeOf(h)
	waited := st.lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return nil, out, false, storage.ErrClosed
	}
	e, err := r.lookupBeforeLocked(st, key, target, h, deadline, waited)
	if err == nil && r.lacks(e) {
		err = r.unreadable(e.slot, e.keyPos, storage.ErrHole)
	}
	if err != nil {
		return nil, out, false, err
	}
	if target == 0 && r.fenced(e.slot) {
		return nil, out, false, ErrFenced
	}
	if err := r.checkOwnDots(e, base.Context); err != nil {
		return nil, out, false, err
	}
	r.meters.mutated.Inc()
	held := version.Merge(e.rec, base)
	next, out, err := version.Apply(held, *op, r.mint(e))
	if err != nil {
		return nil, out, false, r.mutationFailed(e, err)
	}
	r.clock.Observe(out.HLC)
	enc = version.EncodeWire(make([]byte, 0, encodedRoom(next)), next)
	if !out.Applied && held.Equal(e.rec) && !r.mustRewrite(e) {
		r.meters.unchanged.Inc()
		settled, err = r.awaitLocked(e, durable, done)
		return enc, out, settled, err
	}
	row := enc
	if next.Amnesia || next.AllAcked || next.Counter.Own != 0 {
		row = version.EncodeRecord(nil, next) // rare but of counters: a mutation clears the others, mostly
	}
	return enc, out, false, r.storeLocked(st, e, next, row, durable, done)
}

// encodedRoom is about what rec takes encoded, rather more than less.
func encodedRoom(rec version.Record) int {
	n := 16 + 24*len(rec.Context) + 64*len(rec.Counter.Addends)
	for i := range rec.Versions {
		n += 32 + len(rec.Versions[i].Value)
	}
	return n
}

// mint returns what this replica contributes to a mutation of e's row.
func (r *Replica) mint(e *entry) version.Mint {
	nowMS := r.cfg.Now().UnixMilli()
	return version.Mint{
		NowMS: nowMS,
		HLC:   r.clock.at(nowMS),
		Dot:   version.Dot{Actor: r.actorOf(e.target), Counter: r.counters[r.partition(e.slot)].Add(1)},
	}
}

// actorOf returns the actor of the rows for target; the package comment says
// why they have one each.
func (r *Replica) actorOf(target ring.NodeID) version.Actor {
	if target == 0 {
		return r.cfg.Actor
	}
	// The finalizer of murmur3 spreads the target over all bits.
	x := uint64(target)
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return max(r.cfg.Actor^version.Actor(x^x>>33), 1)
}

// partition returns the partition of a slot.
func (r *Replica) partition(s ring.Slot) int { return int(s) * r.cfg.Units / ring.Slots }

// checkOwnDots refuses a context that names dots of this incarnation which it
// has not minted. Then two processes have one actor (a cloned machine, say), and
// each would overwrite in the name of the other.
func (r *Replica) checkOwnDots(e *entry, c version.Context) error {
	top, ok := c.Top(r.actorOf(e.target))
	if !ok {
		return nil
	}
	if minted := r.counters[r.partition(e.slot)].Load(); top.Hi > minted {
		return r.mutationFailed(e, fmt.Errorf("%w: counter %d is above %d", version.ErrDotReused, top.Hi, minted))
	}
	return nil
}

// awaitLocked lets done wait for the state of e to be committed, or answers that
// it is. Invariant: a success that rests on a queued write waits for it.
func (r *Replica) awaitLocked(e *entry, durable bool, done func(error)) (settled bool, err error) {
	reached := r.store.Committed()
	if durable {
		reached = r.store.Synced()
	}
	if e.seq <= reached {
		return true, nil
	}
	_, err = r.store.Enqueue(nil, durable, done)
	return false, err
}

// storeLocked makes next the state of e's row, with everything that hangs on it:
// the expiry index, the counters, the cache. row is the encoding of next, or
// nil to remove the row. On an error nothing has changed.
func (r *Replica) storeLocked(st *stripe, e *entry, next version.Record, row []byte, durable bool, done func(error)) error {
	rowKey := e.appendRowKey(st.mu.rowKey[:0])
	hash := next.StateHash()
	ops := append(st.mu.ops[:0], storage.RowOp{Key: rowKey, Value: row, Delete: row == nil})
	st.mu.rowKey = keepSmall(rowKey)
	expiring := 0
	if e.target != 0 {
		r.hintedAt[r.partition(e.slot)].Store(int64(time.Since(r.opened)))
	} else {
		ops[0].Change = merkle.Change(e.slot, e.keyPos, e.hash, hash)
		ops, expiring = appendIndexOps(ops, e, next)
		ops = r.appendGraveOp(ops, e, next)
	}
	seq, err := r.store.Enqueue(ops, durable, done)
	clear(ops)
	st.mu.ops = ops[:0]
	if err != nil {
		r.meters.refused.Inc()
		return err
	}
	rowBytes, alive := 0, next.HasLive()
	if row != nil {
		rowBytes = len(rowKey) + len(row)
		if !r.held.Load() {
			r.held.Store(true)
		}
	}
	if e.target == 0 {
		r.tally.change(e.slot, one(alive)-one(e.live), expiring)
	} else {
		r.hints.change(e.target, e.rowBytes, rowBytes)
	}
	e.rec, e.hash, e.seq, e.rowBytes, e.live = next, hash, seq, rowBytes, alive
	r.chargeLocked(st, e)
	return nil
}

// one is 1 for true, else 0.
func one(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
