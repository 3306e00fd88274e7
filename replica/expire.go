package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// expiryDelayMS is how long an expired payload is kept, for extensions that
// were made in time and arrive late.
const expiryDelayMS = 1000

// sweepBatch bounds the payloads that are queued to be dropped at once.
const sweepBatch = 256

// appendIndexOps appends what the expiry index needs when e's record becomes
// next, and returns by how many entries the index grows. The index has an entry
// for each time at which the record has a payload to drop.
func appendIndexOps(ops []storage.RowOp, e *entry, next version.Record) ([]storage.RowOp, int) {
	grown := 0
	for i := range dues(&e.rec) {
		if at := dueMS(&e.rec, i); at != 0 && first(&e.rec, i) && !due(&next, at) {
			ops = append(ops, storage.RowOp{Key: e.appendExpiryKey(at), Delete: true})
			grown--
		}
	}
	for i := range dues(&next) {
		if at := dueMS(&next, i); at != 0 && first(&next, i) && !due(&e.rec, at) {
			ops = append(ops, storage.RowOp{Key: e.appendExpiryKey(at)})
			grown++
		}
	}
	return ops, grown
}

// appendExpiryKey returns the index key of e at the time.
func (e *entry) appendExpiryKey(atMS int64) []byte {
	return storage.AppendExpiryKey(nil, atMS, e.slot, e.keyPos, e.key)
}

// dues is how many payloads a record may have: of its versions, and of its counter.
func dues(rec *version.Record) int {
	if len(rec.Counter.Addends) == 0 {
		return len(rec.Versions)
	}
	return len(rec.Versions) + 1
}

// dueMS is the time at which the i-th payload is to be dropped, 0 for never.
func dueMS(rec *version.Record, i int) int64 {
	if i == len(rec.Versions) {
		return rec.CounterDueMS()
	}
	v := &rec.Versions[i]
	if v.Stub || v.Expiry.AtMS <= 0 {
		return 0
	}
	return v.Expiry.AtMS
}

// due reports whether some payload of rec is to be dropped at that time.
func due(rec *version.Record, atMS int64) bool {
	for i := range dues(rec) {
		if dueMS(rec, i) == atMS {
			return true
		}
	}
	return false
}

// first reports whether no payload before the i-th is due at the same time.
func first(rec *version.Record, i int) bool {
	for j := range i {
		if dueMS(rec, j) == dueMS(rec, i) {
			return false
		}
	}
	return true
}

// indexEntry is one entry of the expiry index.
type indexEntry struct {
	row  []byte
	atMS int64
	hash uint32
	key  []byte
}

// sweep drops the payloads whose time is over, in batches, and waits for each
// batch to be committed before the next. It stops early when the store is busy:
// the index keeps what is left.
func (r *Replica) sweep(ctx context.Context) error {
	cutoff := r.cfg.Now().UnixMilli() - expiryDelayMS
	lo, hi := storage.ExpiryRange(cutoff)
	for cutoff > 0 {
		batch, err := r.dueEntries(lo, hi)
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, x := range batch {
			if err := r.expire(x, cutoff); err != nil {
				return err
			}
		}
		if err := r.drained(ctx); err != nil {
			return err
		}
		lo = append(batch[len(batch)-1].row, 0) // the next row key
	}
	return nil
}

// dueEntries returns the first entries of the range, at most a batch.
func (r *Replica) dueEntries(lo, hi []byte) ([]indexEntry, error) {
	var batch []indexEntry
	err := r.store.Scan(lo, hi, func(row, _ []byte) bool {
		own := append([]byte(nil), row...)
		if atMS, _, hash, key, ok := storage.ParseExpiryKey(own); ok {
			batch = append(batch, indexEntry{row: own, atMS: atMS, hash: hash, key: key})
		}
		return len(batch) < sweepBatch
	})
	return batch, err
}

// expire turns the expired versions of x's key into stubs, which removes x, or
// removes x alone if the record no longer says what x does.
func (r *Replica) expire(x indexEntry, cutoffMS int64) error {
	st := r.stripeOf(x.hash)
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return storage.ErrClosed
	}
	e, err := r.lookupLocked(st, x.key, 0, x.hash)
	if errors.Is(err, version.ErrCorrupt) {
		return nil // counted, and told to whoever reads it
	}
	if err != nil {
		return err
	}
	next, dropped, news := e.rec, 0, false
	for i := range dues(&e.rec) {
		switch at := dueMS(&e.rec, i); {
		case at == 0 || at > cutoffMS:
			continue
		case i == len(e.rec.Versions):
			next = next.DropCounter()
			news = news || !e.rec.Counter.Expiry.Late()
		default:
			next = next.DropPayload(e.rec.Versions[i].Dot)
			news = news || endsByTime(&e.rec.Versions[i])
		}
		dropped++
	}
	if dropped == 0 {
		if due(&e.rec, x.atMS) {
			return nil
		}
		_, err := r.store.Enqueue([]storage.RowOp{{Key: x.row, Delete: true}}, false, nil)
		return err
	}
	if err := r.storeLocked(st, e, next, version.EncodeRecord(nil, next), false, nil); err != nil {
		return err
	}
	r.meters.expired.Add(dropped)
	if news && len(next.Live(cutoffMS)) == 0 {
		r.cfg.OnExpired(x.key, x.atMS)
	}
	return nil
}

// endsByTime reports whether it is for the sweep to tell of a version's end: unless an
// expiry that came after its own time has ended it, of which was told then. A value that
// was written with a past time was not told of.
func endsByTime(v *version.Version) bool { return !v.Expiry.Late() || v.Expiry.HLC == v.HLC }

// drained waits until everything queued so far is committed.
func (r *Replica) drained(ctx context.Context) error {
	done := make(chan error, 1)
	if _, err := r.store.Enqueue(nil, false, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mutationFailed passes on the error of a change that was not made. A reused dot
// is told aloud: somebody runs a copy of this process.
func (r *Replica) mutationFailed(e *entry, err error) error {
	if errors.Is(err, version.ErrDotReused) {
		r.meters.reused.Inc()
		r.cfg.Logger.Error("replica: another process mints dots in our name", "slot", e.slot, "err", err)
		return fmt.Errorf("replica: slot %d: %w", e.slot, err)
	}
	return err
}
