package replica

import (
	"slices"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// Digests returns the digests of the cells of a slot, as of the last commit.
func (r *Replica) Digests(slot ring.Slot) [merkle.CellsPerSlot]uint64 {
	d, _ := r.store.Digests(slot)
	return d
}

// DigestVersions is a number that grows with every change of the digests of the
// slots from first to last.
func (r *Replica) DigestVersions(first, last ring.Slot) uint64 {
	return r.store.DigestVersions(first, last)
}

// KeyState names an own row by position and state.
type KeyState struct {
	Slot    ring.Slot
	KeyHash uint32
	State   uint64 // StateHash or WholeHash
}

// KeyRow is an own row as it is sent to another owner.
type KeyRow struct {
	Slot    ring.Slot
	KeyHash uint32
	Key     []byte
	State   uint64 // WholeHash
	Record  []byte
}

// Reader reads own rows of one moment, a cell or a position at a time. It must be
// closed before the replica.
type Reader struct {
	r    *Replica
	snap *storage.Snapshot
}

// Reader returns the own rows in the slots from first to last committed so far. It
// reads no others.
func (r *Replica) Reader(first, last ring.Slot) (*Reader, error) {
	snap, err := r.store.Snapshot(storage.DataRange(first, 0, last))
	if err != nil {
		return nil, err
	}
	return &Reader{r: r, snap: snap}, nil
}

// Close lets go of the moment.
func (x *Reader) Close() error { return x.snap.Close() }

// List appends the states of the own rows of a cell whose hash is not below from,
// in order, until dst holds limit of them. done says that there are no more; else
// the next begin at hash next. Rows of one position are never split. States are
// WholeHashes if whole.
func (x *Reader) List(dst []KeyState, cell merkle.Cell, from uint32, limit int, whole bool) (states []KeyState, next uint32, done bool, err error) {
	lo, hi := cell.Hashes()
	states, done = dst, true
	err = x.scan(cell.Slot(), max(lo, from), hi, func(hash uint32, _ []byte, rec version.Record, _ []byte) bool {
		if n := len(states); n >= limit && n > len(dst) && states[n-1].KeyHash != hash {
			next, done = hash, false
			return false
		}
		state := rec.StateHash()
		if whole {
			state = rec.WholeHash()
		}
		states = append(states, KeyState{Slot: cell.Slot(), KeyHash: hash, State: state})
		return true
	})
	return states, next, done, err
}

// Rows appends the own rows at a position: one key, or the few whose hashes are
// equal.
func (x *Reader) Rows(dst []KeyRow, slot ring.Slot, hash uint32) ([]KeyRow, error) {
	err := x.scan(slot, hash, hash, func(_ uint32, key []byte, rec version.Record, _ []byte) bool {
		dst = append(dst, KeyRow{
			Slot: slot, KeyHash: hash, Key: slices.Clone(key), State: rec.WholeHash(), Record: version.EncodeWire(nil, rec),
		})
		return true
	})
	return dst, err
}

// scan calls fn for the own rows of a slot with hashes from lo to hi. What is left of a
// partition that has moved away is no news for anybody: the others may have dropped
// tombstones since.
func (x *Reader) scan(slot ring.Slot, lo, hi uint32, fn func(hash uint32, key []byte, rec version.Record, row []byte) bool) error {
	if x.r.fenced(slot) {
		return ErrFenced
	}
	first, last := storage.PositionRange(slot, lo, hi)
	var bad error
	err := x.snap.Scan(first, last, func(row, value []byte) bool {
		_, hash, key, ok := storage.ParseDataKey(row)
		if !ok {
			bad = x.r.unreadable(slot, hash, storage.ErrCorrupt)
			return false
		}
		rec, err := version.DecodeRecord(value)
		if err != nil {
			bad = x.r.unreadable(slot, hash, err)
			return false
		}
		return fn(hash, key, rec, row)
	})
	if bad == nil && err != nil {
		bad = x.r.unreadable(slot, lo, err)
	}
	return bad
}

// Barrier calls done when everything queued so far is committed, and synced if
// the fsync mode syncs.
func (r *Replica) Barrier(done func(error)) {
	if _, err := r.store.Enqueue(nil, true, done); err != nil {
		done(err)
	}
}
