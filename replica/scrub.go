package replica

import (
	"context"
	"time"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// scrub reads every own row over ScrubPeriod, slot after slot, checks it against
// its checksum and the digests against the rows. It begins somewhere else at each
// start, so that a node which never runs for a whole period is read all the same.
// Digests that were found damaged at the start are computed anew first, without
// a pause, but for that of Pace. It returns when ctx ends.
func (r *Replica) scrub(ctx context.Context) {
	if r.store.DigestsDoubtful() && r.scrubAll(ctx) {
		r.store.TrustDigests()
	}
	tick := time.NewTicker(max(r.cfg.ScrubPeriod/ring.Slots, time.Millisecond))
	defer tick.Stop()
	for slot := ring.Slot(r.cfg.Actor % ring.Slots); ; slot = (slot + 1) % ring.Slots {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_ = r.scrubPaced(ctx, slot) // counted and logged; the next pass comes
	}
}

// scrubAll verifies every slot at once and reports whether it could.
func (r *Replica) scrubAll(ctx context.Context) bool {
	for slot := range ring.Slot(ring.Slots) {
		if r.scrubPaced(ctx, slot) != nil {
			return false
		}
	}
	return true
}

// scrubPaced verifies a slot when the time for it has come.
func (r *Replica) scrubPaced(ctx context.Context, slot ring.Slot) error {
	end, err := r.cfg.Pace(ctx)
	if err != nil {
		return err
	}
	defer end()
	return r.scrubSlot(slot)
}

// scrubSlot verifies the rows and digests of one slot.
func (r *Replica) scrubSlot(slot ring.Slot) error {
	bad := 0
	wrong, err := r.store.VerifySlot(slot, func(hash uint32, _, value []byte) (uint64, bool) {
		rec, err := version.DecodeRecord(value)
		if err != nil {
			bad++
			return 0, false
		}
		return merkle.Entry(slot, hash, rec.StateHash()), true
	})
	r.meters.scrubbed.Inc()
	if err != nil {
		r.meters.corrupt.Inc()
	}
	r.meters.corrupt.Add(bad)
	r.meters.digestsWrong.Add(wrong)
	if err != nil || bad > 0 || wrong > 0 {
		r.cfg.Logger.Error("replica: scrubbing found damage", "slot", slot, "unreadable_rows", bad, "wrong_digests", wrong, "err", err)
	}
	return err
}
