package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// ErrCounting answers Count while the keys are being counted after an unclean
// stop.
var ErrCounting = errors.New("replica: still counting keys after an unclean stop")

// ErrMending answers Count for slots whose rows damage took, until they are back.
var ErrMending = errors.New("replica: rows were lost to damage and are being brought back")

// countWait is how long Count waits for the counting to end.
const countWait = 2 * time.Second

// tally counts the own keys. Until exact is closed it holds the changes since
// the snapshot that is being counted, and may be negative.
type tally struct {
	keys     [ring.Slots]atomic.Int64
	expiries atomic.Int64              // entries of the expiry index
	changes  [ring.Slots]atomic.Uint32 // of the counter of a slot: see recount
	exact    chan struct{}
}

// change notes that the keys of a slot grew by keys and its index by expiries.
func (t *tally) change(slot ring.Slot, keys int64, expiries int) {
	if keys != 0 {
		t.changes[slot].Add(1)
		t.keys[slot].Add(keys)
	}
	if expiries != 0 {
		t.expiries.Add(int64(expiries))
	}
}

// ready reports whether the counters are exact.
func (t *tally) ready() bool {
	select {
	case <-t.exact:
		return true
	default:
		return false
	}
}

// Count returns the number of own keys with a payload and a slot in [first,
// last]. It is exact, rows that cannot be read left out. After an unclean stop it
// waits a little for the counting and then answers ErrCounting.
func (r *Replica) Count(first, last ring.Slot) (int64, error) {
	if !r.tally.ready() {
		t := time.NewTimer(countWait)
		defer t.Stop()
		select {
		case <-r.tally.exact:
		case <-t.C:
			return 0, ErrCounting
		}
	}
	if r.Lacks(first, 0, last, math.MaxUint32) {
		return 0, ErrMending
	}
	return r.tally.sum(first, last), nil
}

// Tally is the number of own keys with a payload and a slot in [first, last], as
// far as they are counted: it does not wait, and may be low after an unclean stop.
func (r *Replica) Tally(first, last ring.Slot) int64 { return max(0, r.tally.sum(first, last)) }

// Sample reads at most limit own rows with a slot in [first, last], and answers how
// many there were and what they take, keys included. Which of a partition's rows
// come first is a matter of their hashes, so their size is like that of all.
func (r *Replica) Sample(first, last ring.Slot, limit int) (rows int, bytes int64, err error) {
	lo, hi := storage.DataRange(first, 0, last)
	err = r.store.Scan(lo, hi, func(row, value []byte) bool {
		rows++
		bytes += int64(len(row) + len(value))
		return rows < limit
	})
	return rows, bytes, err
}

// Lacks reports whether own rows between two positions, both included, were lost to
// damage and are not back.
func (r *Replica) Lacks(slot ring.Slot, hash uint32, lastSlot ring.Slot, lastHash uint32) bool {
	return slices.ContainsFunc(r.store.Holes(), func(h storage.Hole) bool {
		if h.Kind() != storage.DataRows {
			return false
		}
		first, firstHash, last, holeHash := h.Positions()
		return position(ring.Slot(first), firstHash) <= position(lastSlot, lastHash) &&
			position(slot, hash) <= position(ring.Slot(last), holeHash)
	})
}

// position orders rows by slot and key hash.
func position(slot ring.Slot, hash uint32) uint64 { return uint64(slot)<<32 | uint64(hash) }

const (
	// recountTries bounds how often the rows of a slot are counted.
	recountTries = 5
	// recountRun is the number of slots that are counted at once.
	recountRun = 1024
)

// recount sets the counters of the slots in [first, last] from their rows. While one
// changes, what is queued and what is committed cannot be told apart, so it is
// counted again; a counter that never rests stays as it is.
func (r *Replica) recount(ctx context.Context, first, last ring.Slot) error {
	for lo := int(first); lo <= int(last); lo += recountRun {
		var left []ring.Slot
		for slot := lo; slot < lo+recountRun && slot <= int(last); slot++ {
			left = append(left, ring.Slot(slot))
		}
		for try := 0; try < recountTries && len(left) > 0; try++ {
			var err error
			if left, err = r.recountOnce(ctx, left); err != nil {
				return err
			}
		}
		if len(left) > 0 {
			r.cfg.Logger.Warn("replica: the keys of some slots change too fast to be counted anew", "slots", len(left), "first", left[0])
		}
	}
	return nil
}

// recountOnce counts the rows of some slots, in order and not more than recountRun
// apart, and answers those that changed meanwhile.
func (r *Replica) recountOnce(ctx context.Context, slots []ring.Slot) (changed []ring.Slot, err error) {
	var changes [recountRun]uint32
	var keys [recountRun]int64
	base, last := slots[0], slots[len(slots)-1]
	for _, slot := range slots {
		changes[slot-base] = r.tally.changes[slot].Load()
	}
	if err := r.drained(ctx); err != nil {
		return nil, err
	}
	lo, hi := storage.DataRange(base, 0, last)
	err = r.store.Scan(lo, hi, func(row, value []byte) bool {
		slot, _, _, ok := storage.ParseDataKey(row)
		if rec, err := version.DecodeRecord(value); ok && err == nil {
			keys[slot-base] += one(rec.HasLive())
		}
		return true
	})
	if err != nil && !errors.Is(err, storage.ErrHole) {
		return nil, err
	}
	for _, slot := range slots {
		was := r.tally.keys[slot].Load()
		if r.tally.changes[slot].Load() != changes[slot-base] {
			changed = append(changed, slot)
			continue
		}
		r.tally.keys[slot].Add(keys[slot-base] - was)
	}
	return changed, nil
}

// sum adds the counters of the slots.
func (t *tally) sum(first, last ring.Slot) int64 {
	var n int64
	for s := int(first); s <= int(last) && s < ring.Slots; s++ {
		n += t.keys[s].Load()
	}
	return n
}

// countRows counts the snapshot that was taken before the first change and adds
// it to the changes since. A part of the store that cannot be read is skipped to
// the next slot.
func (r *Replica) countRows(ctx context.Context) error {
	started, rows, bad := time.Now(), 0, 0
	slot := 0
	count := func(row, value []byte) bool {
		s, _, _, ok := storage.ParseDataKey(row)
		rec, err := version.DecodeRecord(value)
		slot = int(s)
		if rows++; !ok || err != nil {
			bad++
		} else {
			r.tally.change(s, one(rec.HasLive()), indexed(rec))
		}
		return rows%1024 != 0 || ctx.Err() == nil
	}
	last := ring.Slot(ring.Slots - 1)
	for ; slot < ring.Slots; slot++ {
		lo, hi := storage.DataRange(ring.Slot(slot), 0, max(last, ring.Slot(slot)))
		err := r.snapshot.Scan(lo, hi, count)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, storage.ErrReplaced) && last != 0 {
			last = 0 // from here on slot by slot: the rows of some were replaced
			slot--
			continue
		}
		if err == nil && last == 0 {
			continue
		}
		if err == nil {
			break
		}
		r.meters.corrupt.Inc()
		r.cfg.Logger.Error("replica: counting skips unreadable rows", "slot", slot, "err", err)
	}
	lo, hi := storage.AllHints()
	err := r.snapshot.Scan(lo, hi, func(row, value []byte) bool {
		if target, _, _, _, ok := storage.ParseHintKey(row); ok {
			r.hints.change(ring.NodeID(target), 0, len(row)+len(value))
		}
		return true
	})
	if err != nil {
		r.cfg.Logger.Error("replica: counting hints ended early", "err", err)
	}
	close(r.tally.exact)
	r.cfg.Logger.Info("replica: counted keys after an unclean stop",
		"rows", rows, "unreadable", bad, "keys", r.tally.sum(0, ring.Slots-1), "took", time.Since(started))
	return nil
}

// indexed is the number of index entries that rec has.
func indexed(rec version.Record) int {
	_, n := appendIndexOps(nil, &entry{}, rec)
	return n
}

// talliesRow is the meta row that a clean close leaves for the next open.
const talliesRow = "replica.tallies"

// talliesFormat is its first byte:
//
//	1    format = 1
//	uv   entries of the expiry index
//	uv   number of slots with keys, ascending
//	  uv   slot - last slot
//	  uv   keys
//	uv   number of targets with hints, ascending
//	  8    target
//	  uv   rows
//	  uv   bytes
//	4    CRC32C of all the above, little-endian
//
// Numbers are big-endian, uv is an unsigned varint.
const talliesFormat = 1

// encodeTallies returns the counters as a meta row; ok is false if they make no
// sense, so that the next open counts again.
func (r *Replica) encodeTallies() (b []byte, ok bool) {
	expiries := r.tally.expiries.Load()
	if expiries < 0 {
		return nil, false
	}
	var slots []byte
	n, last := uint64(0), 0
	for s := range r.tally.keys {
		switch keys := r.tally.keys[s].Load(); {
		case keys < 0:
			return nil, false
		case keys > 0:
			slots = binary.AppendUvarint(slots, uint64(s-last))
			slots = binary.AppendUvarint(slots, uint64(keys))
			n, last = n+1, s
		}
	}
	b = binary.AppendUvarint([]byte{talliesFormat}, uint64(expiries))
	b = append(binary.AppendUvarint(b, n), slots...)
	hints := r.Hints()
	b = binary.AppendUvarint(b, uint64(len(hints)))
	for _, h := range hints {
		if h.Bytes < 0 {
			return nil, false
		}
		b = binary.BigEndian.AppendUint64(b, uint64(h.Target))
		b = binary.AppendUvarint(b, uint64(h.Rows))
		b = binary.AppendUvarint(b, uint64(h.Bytes))
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), true
}

// tallies are the counters of a meta row.
type tallies struct {
	expiries uint64
	keys     map[ring.Slot]uint64
	hints    []HintTotal
}

// decodeTallies is the inverse of encodeTallies.
func decodeTallies(b []byte) (tallies, error) {
	bad := fmt.Errorf("replica: tallies: %w", version.ErrCorrupt)
	body := len(b) - 4
	if body < 1 || crc32.Checksum(b[:body], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[body:]) || b[0] != talliesFormat {
		return tallies{}, bad
	}
	rest, ok := b[1:body], true
	uv := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			ok, rest = false, nil
			return 0
		}
		rest = rest[n:]
		return v
	}
	t := tallies{expiries: uv(), keys: map[ring.Slot]uint64{}}
	slot := uint64(0)
	for n := uv(); ok && n > 0; n-- {
		slot += uv()
		keys := uv()
		if slot >= ring.Slots {
			return tallies{}, bad
		}
		t.keys[ring.Slot(slot)] = keys
	}
	for n := uv(); ok && n > 0; n-- {
		if len(rest) < 8 {
			return tallies{}, bad
		}
		h := HintTotal{Target: ring.NodeID(binary.BigEndian.Uint64(rest))}
		rest = rest[8:]
		h.Rows, h.Bytes = int64(uv()), int64(uv())
		t.hints = append(t.hints, h)
	}
	if !ok || len(rest) != 0 {
		return tallies{}, bad
	}
	return t, nil
}
