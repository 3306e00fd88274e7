package replica

import (
	"errors"
	"fmt"
	"sync"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// stripeCount is how many keys can change side by side. A power of two.
const stripeCount = 512

// stripe serialises the keys of one part of the hash space and caches their
// records.
type stripe struct {
	mu struct {
		sync.Mutex
		entries map[string]*entry
		ring    []*entry // CLOCK: the hand walks it and spares what was used since
		hand    int
		bytes   int
		scratch []byte // for the encoded record of a commit
	}
}

// entry is one cached record.
type entry struct {
	row   string
	rec   version.Record
	hash  uint64 // rec.StateHash()
	disk  int    // encoded bytes in the store
	bytes int    // about the memory held
	seq   uint64 // batch of its last change; 0 if it was read from the store
	used  bool
	at    int // index in the CLOCK
}

// place is a key's place in the store of this node.
type place struct {
	key    []byte
	owner  ring.NodeID // 0: own row; else a hint for it
	slot   uint16
	hash   uint32
	row    []byte
	stripe *stripe
}

// rowBytes is enough for most row keys to be built without an allocation.
const rowBytes = 96

// place finds the row of a key; buf is memory for the row key.
func (r *Replica) place(buf []byte, key []byte, owner ring.NodeID) place {
	p := place{key: key, owner: owner, slot: ring.SlotOf(key), hash: ring.KeyHash(key)}
	p.row = p.appendRow(buf)
	p.stripe = &r.stripes[p.hash%stripeCount]
	return p
}

func (p *place) appendRow(dst []byte) []byte {
	if p.owner == 0 {
		return storage.AppendDataKey(dst, p.slot, p.hash, p.key)
	}
	return storage.AppendHintKey(dst, uint64(p.owner), p.slot, p.hash, p.key)
}

// loadLocked returns the record of a place, from the cache or the store, which
// it then caches. An absent record is a zero entry that is not cached. A row
// that cannot be read is an error, never absent.
func (r *Replica) loadLocked(p *place) (*entry, error) {
	st := p.stripe
	if e := st.mu.entries[string(p.row)]; e != nil {
		e.used = true
		return e, nil
	}
	enc, err := r.cfg.Store.Get(p.row)
	if errors.Is(err, storage.ErrNotFound) {
		return &entry{}, nil
	}
	if err != nil {
		r.count.readErrors.Inc()
		return nil, fmt.Errorf("replica: read a record: %w", err)
	}
	rec, err := version.DecodeRecord(enc)
	if err != nil {
		r.count.readErrors.Inc()
		return nil, fmt.Errorf("replica: stored record: %w", err)
	}
	e := &entry{row: string(p.row), rec: rec, hash: rec.StateHash(), disk: len(enc)}
	r.insertLocked(st, e)
	return e, nil
}

// insertLocked caches a new entry and makes room for it.
func (r *Replica) insertLocked(st *stripe, e *entry) {
	if st.mu.entries == nil {
		st.mu.entries = map[string]*entry{}
	}
	e.bytes = entryBytes(e)
	e.used = true
	e.at = len(st.mu.ring)
	st.mu.entries[e.row] = e
	st.mu.ring = append(st.mu.ring, e)
	st.mu.bytes += e.bytes
	r.cached.Add(int64(e.bytes))
	r.evictLocked(st)
}

// replaceLocked gives a cached entry another record.
func (r *Replica) replaceLocked(st *stripe, e *entry) {
	was := e.bytes
	e.bytes = entryBytes(e)
	e.used = true
	st.mu.bytes += e.bytes - was
	r.cached.Add(int64(e.bytes - was))
	r.evictLocked(st)
}

// entryBytes is about what an entry holds in memory.
func entryBytes(e *entry) int {
	n := 256 + 2*len(e.row) + 24*len(e.rec.Context) + 96*len(e.rec.Versions)
	for i := range e.rec.Versions {
		n += len(e.rec.Versions[i].Value)
	}
	return n
}

// evictLocked lets the hand go once round at most, until the stripe is within
// its share. What is not committed stays, see the invariant of the package.
func (r *Replica) evictLocked(st *stripe) {
	committed := r.cfg.Store.Committed()
	for steps := 2 * len(st.mu.ring); st.mu.bytes > r.stripeBytes && steps > 0; steps-- {
		if st.mu.hand >= len(st.mu.ring) {
			st.mu.hand = 0
		}
		e := st.mu.ring[st.mu.hand]
		if e.used || e.seq > committed {
			e.used = false
			st.mu.hand++
			continue
		}
		last := len(st.mu.ring) - 1
		st.mu.ring[e.at] = st.mu.ring[last]
		st.mu.ring[e.at].at = e.at
		st.mu.ring[last] = nil
		st.mu.ring = st.mu.ring[:last]
		delete(st.mu.entries, e.row)
		st.mu.bytes -= e.bytes
		r.cached.Add(-int64(e.bytes))
	}
}
