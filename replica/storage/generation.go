package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
)

const (
	// chunkBytes is the unit in which a generation takes memory for its rows.
	chunkBytes = 1 << 20
	// recordOverhead is what a log record costs the engine beside its bytes.
	recordOverhead = 128
	// minTable is the least size of a hash table; a power of 2.
	minTable = 1 << 8
	// retainedRows bounds the table that a generation keeps for its next use.
	retainedRows = 1 << 18
)

// pendingRow is the latest state of one row that is logged and not applied.
type pendingRow struct {
	key    []byte
	value  []byte
	remove bool
}

// rowRef finds a pendingRow in the chunks of its generation. It holds no
// pointer, so that the collector need not look at hundreds of thousands.
type rowRef struct {
	prefix   uint64 // first bytes of the key, for comparing
	hash     uint32
	chunk    uint32
	offset   uint32 // of the key; the value follows it
	keyLen   uint32
	valueLen int32  // -1: the row is removed
	change   uint64 // of the digest of its cell, over all batches
}

// generation is what a run of batches wrote: the latest state of each row, in a
// hash table over the bytes of the log records.
//
// Invariant: bytes in a chunk never change or move. Slices of them stay good
// when the generation is reused, which gives up its chunks.
type generation struct {
	first, last uint64 // the batches; 0 if there are none
	bornNS      int64  // when the first one came
	bytes       int    // of the log records, about what they take in the engine
	kinds       [256]int
	slots       slotSet // of the data rows
	seed        maphash.Seed

	chunks [][]byte
	rows   []rowRef
	table  []uint32 // 1 + index in rows, by hash, linear probing

	corrections map[uint16]*cells // changes of digests without a change of rows
}

// newGeneration returns an empty generation.
func newGeneration() *generation {
	return &generation{seed: maphash.MakeSeed(), table: make([]uint32, minTable)}
}

// reset empties g for reuse.
func (g *generation) reset() {
	if len(g.rows) > retainedRows {
		*g = *newGeneration()
		return
	}
	clear(g.table)
	*g = generation{seed: g.seed, rows: g.rows[:0], table: g.table}
}

// add takes in the operations of batch seq, and their changes of digests also
// into d unless it is nil. The body is copied. Requires: it is one that appendOp
// made or openRecord checked, and seq is above g.last.
func (g *generation) add(seq uint64, ops int, body []byte, nowNS int64, d *digests) {
	if g.last == 0 {
		g.first, g.bornNS = seq, nowNS
	}
	g.last = seq
	g.bytes += len(body) + recordOverhead
	chunk := g.keep(body)
	buf := g.chunks[chunk]
	rest := buf[len(buf)-len(body):]
	for range ops {
		op, tail, ok := takeOp(rest)
		if !ok {
			panic(fmt.Sprintf("storage: batch %d: bad operation %d bytes before its end", seq, len(rest)))
		}
		rest = tail
		if slot, ok := parseDigestKey(op.Key); ok {
			g.correct(slot, op.Value, d)
			continue
		}
		if d != nil && op.Change != 0 {
			d.change(op.Key, op.Change)
		}
		key := op.Key
		ref := rowRef{
			prefix:   prefixOf(key),
			hash:     uint32(maphash.Bytes(g.seed, key)),
			chunk:    chunk,
			offset:   uint32(len(buf) - len(tail) - op.trailer() - len(op.Value) - len(key)),
			keyLen:   uint32(len(key)),
			valueLen: int32(len(op.Value)),
			change:   op.Change,
		}
		if op.Delete {
			ref.valueLen = -1
		}
		g.set(ref, key)
	}
}

// correct notes changes of the digests of a slot that no row stands for.
func (g *generation) correct(slot uint16, changes []byte, d *digests) {
	c, err := decodeCells(changes)
	if err != nil {
		panic(fmt.Sprintf("storage: correction of slot %d: %v", slot, err))
	}
	if g.corrections == nil {
		g.corrections = map[uint16]*cells{}
	}
	sum := g.corrections[slot]
	if sum == nil {
		sum = &cells{}
		g.corrections[slot] = sum
	}
	sum.xor(&c)
	if d != nil {
		d.correct(slot, &c)
	}
}

// keep copies body into a chunk and returns the number of the chunk.
func (g *generation) keep(body []byte) uint32 {
	last := len(g.chunks) - 1
	if last < 0 || cap(g.chunks[last])-len(g.chunks[last]) < len(body) {
		g.chunks = append(g.chunks, make([]byte, 0, max(chunkBytes, len(body))))
		last++
	}
	g.chunks[last] = append(g.chunks[last], body...)
	return uint32(last)
}

// set makes ref the latest state of the row called key.
func (g *generation) set(ref rowRef, key []byte) {
	at, found := g.find(key, ref.prefix, ref.hash)
	if found {
		last := &g.rows[g.table[at]-1]
		ref.change ^= last.change
		*last = ref
		return
	}
	g.rows = append(g.rows, ref)
	g.table[at] = uint32(len(g.rows))
	if len(key) > 0 {
		g.kinds[key[0]]++
		if key[0] == kindData {
			g.slots.add(slotIn(key))
		}
	}
	if len(g.rows)*4 >= len(g.table)*3 {
		g.grow()
	}
}

// find returns the place of key in the table, or the free one where it belongs.
func (g *generation) find(key []byte, prefix uint64, hash uint32) (at int, found bool) {
	mask := len(g.table) - 1
	for at = int(hash) & mask; g.table[at] != 0; at = (at + 1) & mask {
		if r := &g.rows[g.table[at]-1]; r.hash == hash && r.prefix == prefix && bytes.Equal(g.key(r), key) {
			return at, true
		}
	}
	return at, false
}

// grow doubles the table.
func (g *generation) grow() {
	g.table = make([]uint32, 2*len(g.table))
	mask := len(g.table) - 1
	for i := range g.rows {
		at := int(g.rows[i].hash) & mask
		for g.table[at] != 0 {
			at = (at + 1) & mask
		}
		g.table[at] = uint32(i + 1)
	}
}

// key returns the key of a row.
func (g *generation) key(r *rowRef) []byte {
	return g.chunks[r.chunk][r.offset : r.offset+r.keyLen : r.offset+r.keyLen]
}

// row returns what r refers to.
func (g *generation) row(r *rowRef) pendingRow {
	if r.valueLen < 0 {
		return pendingRow{key: g.key(r), remove: true}
	}
	from := r.offset + r.keyLen
	to := from + uint32(r.valueLen)
	return pendingRow{key: g.key(r), value: g.chunks[r.chunk][from:to:to]}
}

// get returns the row called key.
func (g *generation) get(key []byte) (row pendingRow, ok bool) {
	if len(g.rows) == 0 {
		return pendingRow{}, false
	}
	at, found := g.find(key, prefixOf(key), uint32(maphash.Bytes(g.seed, key)))
	if !found {
		return pendingRow{}, false
	}
	return g.row(&g.rows[g.table[at]-1]), true
}

// touches reports whether some row may be in [lo, hi).
func (g *generation) touches(lo, hi []byte) bool {
	if len(g.rows) == 0 || len(lo) == 0 || len(hi) == 0 {
		return len(g.rows) > 0
	}
	if lo[0] == kindData && hi[0] == kindData {
		return g.slots.any(slotIn(lo), slotIn(hi))
	}
	for kind := int(lo[0]); kind <= int(hi[0]); kind++ {
		if g.kinds[kind] > 0 && (kind < int(hi[0]) || len(hi) > 1) {
			return true
		}
	}
	return false
}

// slotSet is a set of slots: whoever looks for pending rows in a few slots, time and
// again, need not look at those of others.
type slotSet [1 << 16 / 64]uint64

func (s *slotSet) add(slot uint16) { s[slot/64] |= 1 << (slot % 64) }

// any reports whether there is one from first to last.
func (s *slotSet) any(first, last uint16) bool {
	for i := first / 64; i <= last/64; i++ {
		word := s[i]
		if i == first/64 {
			word &= ^uint64(0) << (first % 64)
		}
		if i == last/64 {
			word &= ^uint64(0) >> (63 - last%64)
		}
		if word != 0 {
			return true
		}
	}
	return false
}

// slotIn is the slot in a key of a data row, or in what there is of it in a bound.
func slotIn(key []byte) uint16 { return uint16(prefixOf(key[1:]) >> 48) }

// appendRange appends the rows in [lo, hi) to dst, in no order. A nil bound is
// none.
func (g *generation) appendRange(dst []pendingRow, lo, hi []byte) []pendingRow {
	if !g.touches(lo, hi) {
		return dst
	}
	from, to := prefixOf(lo), prefixOf(hi)
	for i := range g.rows {
		r := &g.rows[i]
		if r.prefix < from || hi != nil && r.prefix > to {
			continue
		}
		if row := g.row(r); bytes.Compare(row.key, lo) >= 0 && (hi == nil || bytes.Compare(row.key, hi) < 0) {
			dst = append(dst, row)
		}
	}
	return dst
}

// sorted returns the indexes of the rows in the order of their keys.
func (g *generation) sorted() []uint32 {
	type place struct {
		prefix uint64
		index  uint32
	}
	places := make([]place, len(g.rows))
	for i := range g.rows {
		places[i] = place{g.rows[i].prefix, uint32(i)}
	}
	slices.SortFunc(places, func(a, b place) int {
		switch {
		case a.prefix < b.prefix:
			return -1
		case a.prefix > b.prefix:
			return 1
		}
		return bytes.Compare(g.key(&g.rows[a.index]), g.key(&g.rows[b.index]))
	})
	order := make([]uint32, len(places))
	for i := range places {
		order[i] = places[i].index
	}
	return order
}

// prefixOf returns the first eight bytes of key as a number. The order of such
// numbers never contradicts that of the keys.
func prefixOf(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}
