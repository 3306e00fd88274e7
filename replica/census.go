package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// census counts what this node holds: live keys by slot, keys that expire, and
// hints by target.
//
// While taken is open, the counters hold only what has changed since the store
// was opened, and the snapshot holds the rest.
type census struct {
	live    [ring.Slots]atomic.Int64
	expires atomic.Int64
	rows    atomic.Bool // some record was ever stored since open, or found

	snapshot *storage.Snapshot // nil once counted
	taken    chan struct{}     // closed once the counts are whole
	failure  atomic.Pointer[error]

	mu struct {
		sync.Mutex
		hints map[ring.NodeID]hintCount
	}
}

type hintCount struct{ rows, bytes int64 }

// The note of a clean close.
//
//	byte  0     version, 1
//	8 bytes     keys that expire, big endian
//	then for each slot with live keys: 2 bytes slot, 8 bytes count
//	4 bytes     CRC32C of the bytes before
const (
	censusVersion = 1
	censusRow     = "census"
)

// open reads the note of a clean close, and removes it: from the first change
// on it would be wrong. Without a note, or with hints, it prepares to count.
func (c *census) open(s *storage.Store) error {
	c.taken = make(chan struct{})
	c.mu.hints = map[ring.NodeID]hintCount{}
	note, err := s.Meta(censusRow)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if err == nil && c.read(note) {
		if err := c.countHints(s.Scan); err != nil {
			return err
		}
		close(c.taken)
	} else if c.snapshot, err = s.Snapshot(); err != nil {
		return err
	}
	return s.SetMeta(censusRow, nil)
}

// read takes the counts from a note; false if it is none.
func (c *census) read(note []byte) bool {
	const head, each, tail = 9, 10, 4
	if len(note) < head+tail || (len(note)-head-tail)%each != 0 || note[0] != censusVersion {
		return false
	}
	body := note[:len(note)-tail]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(note[len(body):]) {
		return false
	}
	c.expires.Store(int64(binary.BigEndian.Uint64(body[1:])))
	for b := body[head:]; len(b) > 0; b = b[each:] {
		slot := binary.BigEndian.Uint16(b)
		if slot >= ring.Slots {
			return false
		}
		c.live[slot].Store(int64(binary.BigEndian.Uint64(b[2:])))
	}
	return true
}

// note is what a clean close writes down.
func (c *census) note() []byte {
	b := binary.BigEndian.AppendUint64([]byte{censusVersion}, uint64(c.expires.Load()))
	for slot := range c.live {
		if n := c.live[slot].Load(); n != 0 {
			b = binary.BigEndian.AppendUint16(b, uint16(slot))
			b = binary.BigEndian.AppendUint64(b, uint64(n))
		}
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// take counts the snapshot, unless the counts are whole already or ctx ends.
func (c *census) take(ctx context.Context) error {
	if c.snapshot == nil {
		return nil
	}
	err := c.countSnapshot(ctx)
	err = errors.Join(err, c.snapshot.Close())
	c.snapshot = nil
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
		c.failure.Store(&err)
		close(c.taken)
		return nil
	case err != nil:
		c.failure.Store(&err)
	}
	close(c.taken)
	return err
}

func (c *census) countSnapshot(ctx context.Context) error {
	lo, hi := storage.DataRange(0, 0, ring.Slots-1)
	err := c.snapshot.Scan(lo, hi, func(row, value []byte) bool {
		slot, _, _, ok := storage.ParseDataKey(row)
		rec, err := version.DecodeRecord(value)
		if !ok || slot >= ring.Slots || err != nil {
			// One unreadable row must not keep the node down: reading it will be
			// an error, and it is no live key.
			return ctx.Err() == nil
		}
		c.rows.Store(true)
		if rec.HasLive() {
			c.live[slot].Add(1)
		}
		if nextExpiry(rec) != 0 {
			c.expires.Add(1)
		}
		return ctx.Err() == nil
	})
	return errors.Join(err, c.countHints(c.snapshot.Scan))
}

func (c *census) countHints(scan func(lo, hi []byte, fn func(row, value []byte) bool) error) error {
	lo, hi := storage.AllHints()
	return scan(lo, hi, func(row, value []byte) bool {
		if target, _, _, _, ok := storage.ParseHintKey(row); ok {
			c.hint(ring.NodeID(target), 1, int64(len(value)))
		}
		return true
	})
}

func (c *census) hint(target ring.NodeID, rows, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.mu.hints[target]
	c.mu.hints[target] = hintCount{n.rows + rows, n.bytes + bytes}
}

// changed notes that the record of a place becomes rec, of size encoded bytes.
// Requires: the stripe is locked.
func (c *census) changed(p *place, e *entry, rec version.Record, size int) {
	c.rows.Store(true)
	if p.owner != 0 {
		var added int64
		if e.rec.Absent() {
			added = 1
		}
		c.hint(p.owner, added, int64(size-e.disk))
		return
	}
	if was, is := e.rec.HasLive(), rec.HasLive(); was != is {
		c.live[p.slot].Add(delta(is))
	}
	if was, is := nextExpiry(e.rec) != 0, nextExpiry(rec) != 0; was != is {
		c.expires.Add(delta(is))
	}
}

func delta(is bool) int64 {
	if is {
		return 1
	}
	return -1
}

// hints is how many hints this node keeps, and their bytes.
func (c *census) hints() (rows, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.mu.hints {
		rows, bytes = rows+n.rows, bytes+n.bytes
	}
	return rows, bytes
}

// targets are the nodes that hints are kept for.
func (c *census) targets() []ring.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]ring.NodeID, 0, len(c.mu.hints))
	for id := range c.mu.hints {
		ids = append(ids, id)
	}
	return ids
}

// close writes the counts down, if they are whole.
func (c *census) close(s *storage.Store) error {
	select {
	case <-c.taken:
	default:
		if c.snapshot != nil {
			return c.snapshot.Close()
		}
		return nil
	}
	if c.failure.Load() != nil {
		return nil
	}
	return s.SetMeta(censusRow, c.note())
}

// Count returns the number of live keys in the slots from first to last. A key
// whose value has expired counts until it is swept, as in Redis. It waits for
// the count of a store that was not closed cleanly.
func (r *Replica) Count(first, last uint16) (int64, error) {
	<-r.census.taken
	if err := r.census.failure.Load(); err != nil {
		return 0, fmt.Errorf("replica: keys could not be counted: %w", *err)
	}
	var sum int64
	for slot := int(first); slot <= int(last) && slot < ring.Slots; slot++ {
		sum += r.census.live[slot].Load()
	}
	return sum, nil
}

// Records reports whether the node holds any record at all, of its own or as a
// hint, live or deleted.
func (r *Replica) Records() (bool, error) {
	if r.census.rows.Load() {
		return true, nil
	}
	found := false
	seen := func([]byte, []byte) bool { found = true; return false }
	lo, hi := storage.DataRange(0, 0, ring.Slots-1)
	err := r.cfg.Store.Scan(lo, hi, seen)
	if err == nil && !found {
		lo, hi = storage.AllHints()
		err = r.cfg.Store.Scan(lo, hi, seen)
	}
	return found, err
}

// Stats are figures of this node for people.
type Stats struct {
	Keys, Expires    int64 // live keys; those of them that expire
	Expired          int64 // values swept since the start
	Hits, Misses     int64 // reads that found a value, and that did not
	CacheBytes       int64
	Hints, HintBytes int64
}

// Stats returns the present figures; keys are zero until they are counted.
func (r *Replica) Stats() Stats {
	st := Stats{
		Expired: int64(r.count.expired.Get()), Hits: int64(r.count.hits.Get()), Misses: int64(r.count.misses.Get()),
		CacheBytes: r.cached.Load(),
	}
	st.Hints, st.HintBytes = r.census.hints()
	select {
	case <-r.census.taken:
		st.Keys, _ = r.Count(0, ring.Slots-1) // an uncounted store shows zero keys
		st.Expires = r.census.expires.Load()
	default:
	}
	return st
}
