package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sync"
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
	expiries [ring.Slots]atomic.Int64  // entries of the expiry index
	changes  [ring.Slots]atomic.Uint32 // of the counters of a slot: see recount
	exact    chan struct{}
	skipped  skipped
}

// skipped is what could not be read when it was to be counted. The Mender counts it
// once it can.
type skipped struct {
	mu struct {
		sync.Mutex
		slots []slotRange
		hints bool
	}
}

// slotRange is some slots, both ends included.
type slotRange struct{ first, last ring.Slot }

// add notes slots of own rows.
func (k *skipped) add(s slotRange) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.slots = append(k.mu.slots, s)
}

// addHints notes hints.
func (k *skipped) addHints() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.hints = true
}

// left is all that is skipped.
func (k *skipped) left() (slots []slotRange, hints bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.mu.slots), k.mu.hints
}

// leave makes slots and hints all that is skipped.
func (k *skipped) leave(slots []slotRange, hints bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.slots, k.mu.hints = slots, hints
}

// any reports whether a slot in [first, last] is skipped.
func (k *skipped) any(first, last ring.Slot) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.mu.slots, func(s slotRange) bool { return s.first <= last && first <= s.last })
}

// change notes that the keys of a slot grew by keys and its index by expiries.
func (t *tally) change(slot ring.Slot, keys int64, expiries int) {
	if keys == 0 && expiries == 0 {
		return
	}
	t.changes[slot].Add(1)
	t.keys[slot].Add(keys)
	t.expiries[slot].Add(int64(expiries))
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
// last]. It is exact. After an unclean stop it waits a little for the counting and then
// answers ErrCounting; rows that could not be read make it ErrMending.
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
	if r.Lacks(first, 0, last, math.MaxUint32) || r.tally.skipped.any(first, last) {
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

// recount sets the counters of the slots in [first, last] from their rows, holes left
// out. While one changes, what is queued and what is committed cannot be told apart, so
// it is counted again. It answers the slots that never rested: their counters stay.
func (r *Replica) recount(ctx context.Context, first, last ring.Slot) (restless []ring.Slot, err error) {
	for lo := int(first); lo <= int(last); lo += recountRun {
		var left []ring.Slot
		for slot := lo; slot < lo+recountRun && slot <= int(last); slot++ {
			left = append(left, ring.Slot(slot))
		}
		for try := 0; try < recountTries && len(left) > 0; try++ {
			if left, err = r.recountOnce(ctx, left); err != nil {
				return nil, err
			}
		}
		if len(left) > 0 {
			r.cfg.Logger.Warn("replica: the keys of some slots change too fast to be counted anew", "slots", len(left), "first", left[0])
		}
		restless = append(restless, left...)
	}
	return restless, nil
}

// recountOnce counts the rows of some slots, in order and not more than recountRun
// apart, and answers those that changed meanwhile.
func (r *Replica) recountOnce(ctx context.Context, slots []ring.Slot) (changed []ring.Slot, err error) {
	var changes [recountRun]uint32
	var keys, expiries [recountRun]int64
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
			expiries[slot-base] += int64(indexed(rec))
		}
		return true
	})
	if err != nil && !errors.Is(err, storage.ErrHole) {
		return nil, err
	}
	for _, slot := range slots {
		wasKeys, wasExpiries := r.tally.keys[slot].Load(), r.tally.expiries[slot].Load()
		if r.tally.changes[slot].Load() != changes[slot-base] {
			changed = append(changed, slot)
			continue
		}
		r.tally.keys[slot].Add(keys[slot-base] - wasKeys)
		r.tally.expiries[slot].Add(expiries[slot-base] - wasExpiries)
	}
	return changed, nil
}

// countSkipped counts what could not be read before, if it can be now. A hole counts
// as read: when it ends, its rows are counted anew.
func (m *Mender) countSkipped(ctx context.Context) error {
	slots, hints := m.r.tally.skipped.left()
	var left []slotRange
	var failed error
	for _, s := range slots {
		restless, err := m.r.recount(ctx, s.first, s.last)
		if err != nil {
			failed, left = err, append(left, s)
		}
		for _, slot := range restless {
			left = append(left, slotRange{slot, slot})
		}
	}
	if hints {
		counted, err := m.countHints(ctx)
		failed, hints = errors.Join(failed, err), !counted
	}
	m.r.tally.skipped.leave(left, hints)
	return failed
}

// sum adds the counters of the slots.
func (t *tally) sum(first, last ring.Slot) int64 { return sumOf(&t.keys, first, last) }

// indexed adds the entries of the expiry index of all slots.
func (t *tally) indexed() int64 { return sumOf(&t.expiries, 0, ring.Slots-1) }

func sumOf(counters *[ring.Slots]atomic.Int64, first, last ring.Slot) (n int64) {
	for s := int(first); s <= int(last) && s < ring.Slots; s++ {
		n += counters[s].Load()
	}
	return n
}

// countRows counts the snapshot that was taken before the first change and adds
// it to the changes since. What cannot be read is skipped, for countSkipped.
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
	single := false // slot by slot: the rows of some were replaced
	scan := func(slot int, fn func(row, value []byte) bool) error {
		last := ring.Slot(ring.Slots - 1)
		if single {
			last = ring.Slot(slot)
		}
		lo, hi := storage.DataRange(ring.Slot(slot), 0, last)
		return r.snapshot.Scan(lo, hi, fn)
	}
	for slot < ring.Slots {
		err := scan(slot, count)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !single:
			slot = ring.Slots
		case err == nil:
			slot++
		case errors.Is(err, storage.ErrReplaced) && !single:
			single = true
		default:
			first := slot
			slot = readableAfter(slot, func(slot int) error {
				err := scan(slot, func(_, _ []byte) bool { return false })
				if errors.Is(err, storage.ErrReplaced) && !single {
					return nil // the next scan finds out of which
				}
				return err
			})
			r.tally.skipped.add(slotRange{ring.Slot(first), ring.Slot(slot - 1)})
			r.meters.corrupt.Inc()
			r.cfg.Logger.Error("replica: counting skips unreadable rows", "first_slot", first, "last_slot", slot-1, "err", err)
		}
	}
	lo, hi := storage.AllHints()
	err := r.snapshot.Scan(lo, hi, func(row, value []byte) bool {
		if target, _, _, _, ok := storage.ParseHintKey(row); ok {
			r.hints.change(ring.NodeID(target), 0, len(row)+len(value))
		}
		return true
	})
	if err != nil {
		r.tally.skipped.addHints()
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
//	1    format = 2
//	uv   number of slots with keys or entries of the expiry index, ascending
//	  uv   slot - last slot
//	  uv   keys
//	  uv   entries
//	uv   number of targets with hints, ascending
//	  8    target
//	  uv   rows
//	  uv   bytes
//	4    CRC32C of all the above, little-endian
//
// Numbers are big-endian, uv is an unsigned varint. Format 1 did not say of which slots
// the entries were; it is not read, and the rows are counted.
const talliesFormat = 2

// encodeTallies returns the counters as a meta row; ok is false if they make no
// sense or something is skipped, so that the next open counts again.
func (r *Replica) encodeTallies() (b []byte, ok bool) {
	if slots, hints := r.tally.skipped.left(); len(slots) > 0 || hints {
		return nil, false
	}
	var slots []byte
	n, last := uint64(0), 0
	for s := range r.tally.keys {
		switch keys, expiries := r.tally.keys[s].Load(), r.tally.expiries[s].Load(); {
		case keys < 0 || expiries < 0:
			return nil, false
		case keys > 0 || expiries > 0:
			slots = binary.AppendUvarint(slots, uint64(s-last))
			slots = binary.AppendUvarint(slots, uint64(keys))
			slots = binary.AppendUvarint(slots, uint64(expiries))
			n, last = n+1, s
		}
	}
	b = append(binary.AppendUvarint([]byte{talliesFormat}, n), slots...)
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
	keys, expiries map[ring.Slot]uint64
	hints          []HintTotal
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
	t := tallies{keys: map[ring.Slot]uint64{}, expiries: map[ring.Slot]uint64{}}
	slot := uint64(0)
	for n := uv(); ok && n > 0; n-- {
		slot += uv()
		keys, expiries := uv(), uv()
		if slot >= ring.Slots {
			return tallies{}, bad
		}
		t.keys[ring.Slot(slot)], t.expiries[ring.Slot(slot)] = keys, expiries
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
