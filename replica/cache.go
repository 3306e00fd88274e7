package replica

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// stripes is the number of locks and shards of the record cache; a power of 2.
const stripes = 256

// entryOverhead is what a cached record costs beside its payloads, about.
const entryOverhead = 256

// evictSteps bounds the entries that one call looks at to make room. A large
// record displaces many small ones over the next few calls.
const evictSteps = 64

// evictStripes bounds the other stripes that one call looks at for the same.
const evictStripes = 4

// entry is a cached row: the last state that was queued for it, or read. A key
// of usual length lies inside, for the sake of the processor's cache.
type entry struct {
	next   *entry // another row of the same place
	key    []byte
	room   [24]byte    // where key lies if it is short
	target ring.NodeID // 0: the own row
	slot   ring.Slot
	keyPos uint32 // hash of the key
	live   bool   // rec.HasLive

	rec      version.Record
	hash     uint64 // state hash of rec
	seq      uint64 // rec is committed once the store has committed this batch
	rowBytes int    // key and value of the stored row; 0 if there is none
	size     int64  // what the entry is charged with
	used     bool   // looked up since the clock hand passed
	partial  bool   // loaded in a hole: rec may lack what was lost
}

// newEntry returns an entry for a row of which nothing is known yet.
func newEntry(key []byte, target ring.NodeID, keyHash uint32) *entry {
	e := &entry{target: target, slot: ring.SlotOf(key), keyPos: keyHash}
	e.key = append(e.room[:0], key...)
	return e
}

// place is where a row stands in the cache: a hash of key and target that nobody
// outside can choose, so that few rows share one.
type place uint64

// placeOf returns the place of a row.
func (st *stripe) placeOf(key []byte, target ring.NodeID) place {
	return place(maphash.Bytes(st.seed, key) ^ uint64(target)*0x9E3779B97F4A7C15)
}

// stripe is a shard of the cache together with the lock that makes changes of
// its keys atomic.
type stripe struct {
	loading atomic.Int32 // reads of the disk under the lock
	seed    maphash.Seed // of places

	mu struct {
		sync.Mutex
		rows  map[place]*entry
		clock []*entry // all entries, in no order
		hand  int

		// Memory for the next change: the store copies what it is given.
		rowKey []byte
		row    []byte
		ops    []storage.RowOp
	}

	_ [64]byte // keep neighbours out of each other's cache line
}

// init makes the stripe ready for use.
func (st *stripe) init(seed maphash.Seed) {
	st.seed, st.mu.rows = seed, map[place]*entry{}
}

// findLocked returns the cached row, or nil.
func (st *stripe) findLocked(key []byte, target ring.NodeID) *entry {
	e := st.mu.rows[st.placeOf(key, target)]
	for e != nil && (e.target != target || !bytes.Equal(e.key, key)) {
		e = e.next
	}
	return e
}

// insertLocked adds a row that is not cached.
func (st *stripe) insertLocked(e *entry) {
	at := st.placeOf(e.key, e.target)
	e.next = st.mu.rows[at]
	st.mu.rows[at] = e
	st.mu.clock = append(st.mu.clock, e)
}

// removeLocked drops the entry that the hand is at.
func (st *stripe) removeLocked() {
	e := st.mu.clock[st.mu.hand]
	st.unlinkLocked(e)
	last := len(st.mu.clock) - 1
	st.mu.clock[st.mu.hand] = st.mu.clock[last]
	st.mu.clock[last] = nil
	st.mu.clock = st.mu.clock[:last]
}

// unlinkLocked takes an entry out of its place.
func (st *stripe) unlinkLocked(e *entry) {
	at := st.placeOf(e.key, e.target)
	first := st.mu.rows[at]
	switch {
	case first != e:
		for first.next != e {
			first = first.next
		}
		first.next = e.next
	case e.next != nil:
		st.mu.rows[at] = e.next
	default:
		delete(st.mu.rows, at)
	}
}

// stripeOf returns the stripe of the key with hash h.
func (r *Replica) stripeOf(h uint32) *stripe { return &r.stripes[h%stripes] }

// lookupLocked returns the row of key, from the cache or from the store. An
// error means that the state of the row is unknown; it is never an absent one.
func (r *Replica) lookupLocked(st *stripe, key []byte, target ring.NodeID, keyHash uint32) (*entry, error) {
	e, err := r.lookupPartialLocked(st, key, target, keyHash)
	if err == nil && r.lacks(e) {
		return nil, r.unreadable(e.slot, e.keyPos, storage.ErrHole)
	}
	return e, err
}

// lacks reports whether e may lack what damage took. Invariant: such a row answers
// no read and is the base of no mutation; it only takes in what others send.
func (r *Replica) lacks(e *entry) bool { return e.partial && r.inHole(e) }

// inHole reports whether the row of e on the disk may be lost, whatever the cache
// has of it.
func (r *Replica) inHole(e *entry) bool {
	return len(r.store.Holes()) > 0 && r.store.InHole(e.appendRowKey(nil))
}

// lookupPartialLocked is lookupLocked for whoever only adds to the row.
func (r *Replica) lookupPartialLocked(st *stripe, key []byte, target ring.NodeID, keyHash uint32) (*entry, error) {
	if e := st.findLocked(key, target); e != nil {
		e.used = true
		r.meters.cached.Inc()
		return e, nil
	}
	st.loading.Add(1)
	defer st.loading.Add(-1)
	r.meters.loaded.Inc()
	e := newEntry(key, target, keyHash)
	// What is read now is in some batch up to this one.
	e.seq = r.store.Committed()
	rowKey := e.appendRowKey(st.mu.rowKey[:0])
	st.mu.rowKey = keepSmall(rowKey)
	row, err := r.store.Get(rowKey)
	e.partial = r.store.InHole(rowKey) // looked at after the row: a hole is there before its rows go
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrHole):
	case err != nil:
		return nil, r.unreadable(e.slot, e.keyPos, err)
	default:
		if e.rec, err = version.DecodeRecord(row); err != nil {
			return nil, r.unreadable(e.slot, e.keyPos, err)
		}
		e.hash, e.live = e.rec.StateHash(), e.rec.HasLive()
		e.rowBytes = len(rowKey) + len(row)
	}
	st.insertLocked(e)
	r.chargeLocked(st, e)
	return e, nil
}

// appendRowKey appends the row key of e to dst.
func (e *entry) appendRowKey(dst []byte) []byte {
	if e.target == 0 {
		return storage.AppendDataKey(dst, e.slot, e.keyPos, e.key)
	}
	return storage.AppendHintKey(dst, uint64(e.target), e.slot, e.keyPos, e.key)
}

// unreadable counts a row that could not be read and says so to the caller.
// The key stays out of the text: errors end up in logs.
func (r *Replica) unreadable(slot ring.Slot, keyHash uint32, err error) error {
	if errors.Is(err, storage.ErrCorrupt) || errors.Is(err, version.ErrCorrupt) {
		r.meters.corrupt.Inc()
		if !errors.Is(err, version.ErrCorrupt) {
			err = fmt.Errorf("%w: %w", version.ErrCorrupt, err)
		}
	}
	return fmt.Errorf("replica: read slot %d hash %08x: %w", slot, keyHash, err)
}

// chargeLocked brings the charge of e up to date and makes room for it.
func (r *Replica) chargeLocked(st *stripe, e *entry) {
	size := int64(entryOverhead + len(e.key) + 24*len(e.rec.Context) + 96*len(e.rec.Versions) + 80*len(e.rec.Counter.Addends))
	for i := range e.rec.Versions {
		size += int64(len(e.rec.Versions[i].Value))
	}
	total := r.cacheBytes.Add(size - e.size)
	e.size = size
	if total <= r.cfg.CacheBytes {
		return
	}
	r.evictLocked(st, e)
	for range evictStripes {
		if r.cacheBytes.Load() <= r.cfg.CacheBytes {
			return
		}
		// Nothing more to drop here. Trying, and never waiting, for the lock of
		// another stripe cannot end in a deadlock.
		other := &r.stripes[r.evicting.Add(1)%stripes]
		if other != st && other.mu.TryLock() {
			r.evictLocked(other, nil)
			other.mu.Unlock()
		}
	}
}

// evictLocked drops entries of the stripe, those not looked up lately first,
// until the cache is within its bound. It spares keep, which a caller is using,
// and everything that is not committed: the store cannot give it back yet. The
// bound of the store's queue is also the bound of what is spared.
func (r *Replica) evictLocked(st *stripe, keep *entry) {
	committed := r.store.Committed()
	for range evictSteps {
		if len(st.mu.clock) == 0 || r.cacheBytes.Load() <= r.cfg.CacheBytes {
			return
		}
		if st.mu.hand >= len(st.mu.clock) {
			st.mu.hand = 0
		}
		switch e := st.mu.clock[st.mu.hand]; {
		case e == keep || e.seq > committed:
			st.mu.hand++
		case e.used:
			e.used = false
			st.mu.hand++
		default:
			r.cacheBytes.Add(-e.size)
			st.removeLocked()
		}
	}
}
