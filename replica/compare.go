package replica

import (
	"bytes"

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
	Key    []byte
	State  uint64 // WholeHash
	Record []byte
}

// Position is a place in the order of own rows.
type Position struct {
	Slot    ring.Slot
	KeyHash uint32
}

// Reader reads own rows of one moment. It must be closed before the replica.
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

// List returns the states of the own rows of some cells, in order: of all of the first
// covered cells and, if these are not all, of those of the next one whose hashes are
// below next. It begins at hash from in the first cell, and ends when it has limit
// states; those of one position are never split. States are WholeHashes if whole.
// Requires: the cells are ascending, and there is one.
func (x *Reader) List(cells []merkle.Cell, from uint32, limit int, whole bool) (states []KeyState, covered int, next uint32, err error) {
	least, greatest := cells[0].Hashes()
	w, err := x.walk(Position{cells[0].Slot(), min(max(least, from), greatest)}, cells[len(cells)-1].Slot())
	if err != nil {
		return nil, 0, 0, err
	}
	defer w.close(&err)
	states = make([]KeyState, 0, min(limit, len(cells))) // a cell has one row, or some
	for covered < len(cells) && len(states) < limit {
		cell, had := cells[covered], len(states)
		lo, hi := cell.Hashes()
		done := true
		err = w.scan(cell.Slot(), max(lo, from), hi, func(hash uint32, _ []byte, rec version.Record) bool {
			if n := len(states); n >= limit && n > had && states[n-1].KeyHash != hash {
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
		if err != nil || !done {
			return states, covered, next, err
		}
		covered, from = covered+1, 0
	}
	return states, covered, 0, nil
}

// Rows returns the own rows at the first n of some positions, at least of one, until
// they are about maxBytes: one key at each, or the few whose hashes are equal. Requires:
// the positions are ascending, and there is one.
func (x *Reader) Rows(at []Position, maxBytes int) (rows []KeyRow, n int, err error) {
	w, err := x.walk(at[0], at[len(at)-1].Slot)
	if err != nil {
		return nil, 0, err
	}
	defer w.close(&err)
	for size := 0; n < len(at) && (n == 0 || size < maxBytes); n++ {
		p := at[n]
		err = w.scan(p.Slot, p.KeyHash, p.KeyHash, func(_ uint32, key []byte, rec version.Record) bool {
			b := append(make([]byte, 0, len(key)+encodedRoom(rec)), key...)
			b = version.EncodeWire(b, rec)
			rows = append(rows, KeyRow{Key: b[:len(key):len(key)], State: rec.WholeHash(), Record: b[len(key):]})
			size += len(b)
			return true
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return rows, n, nil
}

// rowWalk goes forwards through own rows.
type rowWalk struct {
	r      *Replica
	w      *storage.Walk
	lo, hi []byte // memory for the bounds of a scan
	slate  version.Slate
}

// walk begins one from a position to the end of a slot.
func (x *Reader) walk(from Position, last ring.Slot) (*rowWalk, error) {
	w, err := x.snap.Walk(storage.DataRange(from.Slot, from.KeyHash, last))
	if err != nil {
		return nil, x.r.unreadable(from.Slot, from.KeyHash, err)
	}
	return &rowWalk{r: x.r, w: w}, nil
}

// scan calls fn for the own rows of a slot with hashes from first to last; they are good
// within the call. What is left of a partition that has moved away is no news for
// anybody: the others may have dropped tombstones since. Requires: no row of an earlier
// scan is behind these. There are none if first is above last.
func (w *rowWalk) scan(slot ring.Slot, first, last uint32, fn func(hash uint32, key []byte, rec version.Record) bool) error {
	if w.r.fenced(slot) {
		return ErrFenced
	}
	if first > last {
		return nil // a seek would pass rows that are asked for next
	}
	w.lo, w.hi = storage.SetPositionRange(w.lo, w.hi, slot, first, last)
	for ok := w.w.Seek(w.lo); ok && bytes.Compare(w.w.Row(), w.hi) < 0; ok = w.w.Next() {
		value, err := w.w.Value()
		if err != nil {
			return w.r.unreadable(slot, first, err)
		}
		_, hash, key, parsed := storage.ParseDataKey(w.w.Row())
		if !parsed {
			return w.r.unreadable(slot, first, storage.ErrCorrupt)
		}
		rec, err := w.slate.Decode(value)
		if err != nil {
			return w.r.unreadable(slot, hash, err)
		}
		if !fn(hash, key, rec) {
			return nil
		}
	}
	if err := w.w.Err(); err != nil {
		return w.r.unreadable(slot, first, err)
	}
	return nil
}

// close lets go of the rows.
func (w *rowWalk) close(err *error) {
	if cerr := w.w.Close(); *err == nil {
		*err = cerr
	}
}

// Barrier calls done when everything queued so far is committed, and synced if
// the fsync mode syncs.
func (r *Replica) Barrier(done func(error)) {
	if _, err := r.store.Enqueue(nil, true, done); err != nil {
		done(err)
	}
}
