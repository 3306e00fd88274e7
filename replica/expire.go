package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Sweeping. A value is hidden from the instant it expires; its bytes go a
// second later, and its dot and expiry stay as a stub, so that a concurrent
// extension made elsewhere still finds what it extends.
const (
	sweepEvery = time.Second
	sweepGrace = time.Second
	sweepBatch = 512 // keys between two looks at the context
)

// nextExpiry is when the earliest payload of rec expires, in Unix ms; 0 never.
func nextExpiry(rec version.Record) int64 {
	var next int64
	for i := range rec.Versions {
		v := &rec.Versions[i]
		if at := v.Expiry.AtMS; !v.Stub && at > 0 && (next == 0 || at < next) {
			next = at
		}
	}
	return next
}

// appendExpiryOps moves the index entry of a key whose record changes.
func appendExpiryOps(ops []storage.RowOp, p *place, old, rec version.Record) []storage.RowOp {
	was, is := nextExpiry(old), nextExpiry(rec)
	if was == is {
		return ops
	}
	if was != 0 {
		ops = append(ops, storage.RowOp{Key: storage.AppendExpiryKey(nil, was, p.slot, p.hash, p.key), Delete: true})
	}
	if is != 0 {
		ops = append(ops, storage.RowOp{Key: storage.AppendExpiryKey(nil, is, p.slot, p.hash, p.key)})
	}
	return ops
}

// sweep drops expired payloads every second until ctx ends. An error of the
// store ends it only if the store has.
func (r *Replica) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for ctx.Err() == nil {
			n, err := r.sweepBatch()
			if err != nil {
				r.cfg.Logger.Warn("sweep of expired values stopped; it goes on in a second", "err", err)
			}
			if err != nil || n < sweepBatch {
				break
			}
		}
	}
}

// sweepBatch drops the payloads of some expired keys and returns how many
// entries of the index it looked at.
func (r *Replica) sweepBatch() (int, error) {
	until := r.cfg.Now().Add(-sweepGrace).UnixMilli()
	if until <= 0 {
		return 0, nil
	}
	var keys [][]byte
	lo, hi := storage.ExpiryRange(until)
	err := r.cfg.Store.Scan(lo, hi, func(row, _ []byte) bool {
		keys = append(keys, append([]byte(nil), row...))
		return len(keys) < sweepBatch
	})
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	committed := make(chan error, 1)
	for i, row := range keys {
		at, _, _, key, ok := storage.ParseExpiryKey(row)
		if !ok {
			return i, fmt.Errorf("expiry index: %w: row %x", storage.ErrCorrupt, row)
		}
		if err := r.expire(key, at, row, until); err != nil {
			return i, err
		}
	}
	// The next look at the index must not find what this one removed.
	if _, err := r.cfg.Store.Enqueue(nil, false, func(err error) { committed <- err }); err != nil {
		return len(keys), err
	}
	return len(keys), <-committed
}

// expire turns the expired payloads of a key into stubs. An index entry that
// the record does not ask for (left by a crash of an older release) is removed.
func (r *Replica) expire(key []byte, at int64, row []byte, until int64) error {
	var buf [rowBytes]byte
	p := r.place(buf[:0], key, 0)
	p.stripe.mu.Lock()
	defer p.stripe.mu.Unlock()
	e, err := r.loadLocked(&p)
	if err != nil {
		return err
	}
	rec := e.rec
	for i := range e.rec.Versions {
		if v := &e.rec.Versions[i]; !v.Stub && v.Expired(until) {
			rec = rec.DropPayload(v.Dot)
			r.count.expired.Inc()
		}
	}
	if nextExpiry(e.rec) != at {
		if _, err := r.cfg.Store.Enqueue([]storage.RowOp{{Key: row, Delete: true}}, false, nil); err != nil {
			return err
		}
	}
	if same(rec, e.rec) {
		return nil
	}
	return r.storeLocked(&p, e, rec, false, nil)
}
