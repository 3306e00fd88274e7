package storage

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"
)

// CellsPerSlot is the number of cells that a slot is cut into, by the top bits
// of the key hash; each has a digest.
const CellsPerSlot = 64

// slots is the number of slots of the key space.
const slots = 16384

// digestVersion is the first byte of a digest row; the package comment draws it.
const digestVersion = 1

// cells are the digests of the cells of one slot.
type cells [CellsPerSlot]uint64

// xor adds the changes c.
func (d *cells) xor(c *cells) {
	for i := range c {
		d[i] ^= c[i]
	}
}

// appendCells appends the digest row of a slot, or the operation that corrects
// one, to dst.
func appendCells(dst []byte, c *cells) []byte {
	dst = append(dst, digestVersion)
	set := uint64(0)
	for i, d := range c {
		if d != 0 {
			set |= 1 << i
		}
	}
	dst = binary.BigEndian.AppendUint64(dst, set)
	for ; set != 0; set &= set - 1 {
		dst = binary.BigEndian.AppendUint64(dst, c[bits.TrailingZeros64(set)])
	}
	return dst
}

// decodeCells reads what appendCells wrote; b is that and no more.
func decodeCells(b []byte) (c cells, err error) {
	if len(b) < 9 || b[0] != digestVersion {
		return c, fmt.Errorf("%w: digests of %d bytes", ErrCorrupt, len(b))
	}
	set, b := binary.BigEndian.Uint64(b[1:]), b[9:]
	if len(b) != 8*bits.OnesCount64(set) {
		return c, fmt.Errorf("%w: digests with %d bytes for %d cells", ErrCorrupt, len(b), bits.OnesCount64(set))
	}
	for ; set != 0; set &= set - 1 {
		d := binary.BigEndian.Uint64(b)
		if d == 0 {
			return c, fmt.Errorf("%w: digest of an empty cell", ErrCorrupt)
		}
		c[bits.TrailingZeros64(set)], b = d, b[8:]
	}
	return c, nil
}

// digests are the digests of all cells, and how often those of a slot changed.
// Slots without rows have no page.
type digests struct {
	pages [slots]*digestPage
}

// digestPage is one slot of digests.
type digestPage struct {
	version uint64
	cells   cells
}

// page returns the page of a slot, made if need be.
func (d *digests) page(slot uint16) *digestPage {
	p := d.pages[slot%slots]
	if p == nil {
		p = &digestPage{}
		d.pages[slot%slots] = p
	}
	return p
}

// change adds the change of one row. Requires: key is a data key.
func (d *digests) change(key []byte, change uint64) {
	p := d.page(binary.BigEndian.Uint16(key[1:]))
	p.cells[key[3]>>2] ^= change // the top six bits of the hash
	p.version++
}

// correct adds changes to a slot.
func (d *digests) correct(slot uint16, c *cells) {
	p := d.page(slot)
	p.cells.xor(c)
	p.version++
}

// copyFrom makes d the digests that o has.
func (d *digests) copyFrom(o *digests) {
	for i, p := range o.pages {
		if d.pages[i] = nil; p != nil {
			own := *p
			d.pages[i] = &own
		}
	}
}

// placedDigests are the digests of the rows that are in place, and the slots
// among them that are newer than their digest row. They belong to whoever
// applies.
type placedDigests struct {
	digests
	touched []uint16
}

// note takes in an applied row. Requires: rows come in order of their keys.
func (a *placedDigests) note(key []byte, change uint64) {
	if change == 0 {
		return
	}
	a.change(key, change)
	slot := binary.BigEndian.Uint16(key[1:])
	if n := len(a.touched); n == 0 || a.touched[n-1] != slot {
		a.touched = append(a.touched, slot)
	}
}

// putDigests adds the digest rows of what g touched to the batch.
func (s *Store) putDigests(b *pebble.Batch, g *generation) error {
	a := &s.placed
	for slot, c := range g.corrections {
		a.correct(slot, c)
		a.touched = append(a.touched, slot)
	}
	var buf []byte
	for _, slot := range a.touched {
		buf = appendCells(buf[:0], &a.page(slot).cells)
		if err := b.Set(appendDigestKey(nil, slot), buf, nil); err != nil {
			return err
		}
	}
	a.touched = a.touched[:0]
	return nil
}

// loadDigests reads the digest rows. They can be computed anew from the data, so
// damage to them is no reason not to open: they are then in doubt, all of them.
func (s *Store) loadDigests() {
	it, err := newIter(s.db, []byte{kindDigest}, []byte{kindDigest + 1})
	if err == nil {
		err = merge(it, nil, func(row, value []byte) bool {
			slot, ok := parseDigestKey(row)
			c, err := decodeCells(value)
			if !ok || err != nil {
				s.doubt.Store(true)
				return true
			}
			s.placed.page(slot).cells = c
			return true
		})
	}
	if err != nil || s.doubt.Load() {
		s.doubt.Store(true)
		s.cfg.Logger.Error("storage: digests are damaged and will be computed anew", "err", err)
	}
}

// Digests returns the digests of the cells of a slot, as of the last commit, and
// a number that grows with every change of them in this run.
func (s *Store) Digests(slot uint16) (digests [CellsPerSlot]uint64, version uint64) {
	o := &s.overlay
	o.mu.RLock()
	defer o.mu.RUnlock()
	if p := o.mu.digests.pages[slot%slots]; p != nil {
		return p.cells, p.version
	}
	return digests, 0
}

// DigestVersions adds up the numbers that Digests answers for the slots from
// first to last.
func (s *Store) DigestVersions(first, last uint16) (sum uint64) {
	o := &s.overlay
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, p := range o.mu.digests.pages[first : int(last)+1] {
		if p != nil {
			sum += p.version
		}
	}
	return sum
}

// DigestsDoubtful reports whether digest rows were damaged when the store was
// opened. VerifySlot puts them right, slot by slot.
func (s *Store) DigestsDoubtful() bool { return s.doubt.Load() }

// TrustDigests ends the doubt. Requires: every slot was verified.
func (s *Store) TrustDigests() { s.doubt.Store(false) }

// VerifySlot reads every data row of a slot, has entry say what each adds to the
// digest of its cell, and corrects the digests if they say otherwise. entry is
// given the rows of one moment and answers false for one that cannot be read,
// which leaves the digests as they are. It answers how many digests were wrong.
func (s *Store) VerifySlot(slot uint16, entry func(hash uint32, key, value []byte) (uint64, bool)) (wrong int, err error) {
	if !s.users.enter() {
		return 0, ErrClosed
	}
	defer s.users.leave()
	lo, hi := DataRange(slot, 0, slot)
	var told cells
	it, rows, err := s.view(lo, hi, func() {
		told = cells{}
		if p := s.overlay.mu.digests.pages[slot%slots]; p != nil {
			told = p.cells
		}
	})
	if err != nil {
		return 0, readError(err)
	}
	readable := true
	err = merge(it, rows, func(row, value []byte) bool {
		_, hash, key, ok := ParseDataKey(row)
		if !ok {
			return true
		}
		e, ok := entry(hash, key, value)
		readable = readable && ok
		told[row[3]>>2] ^= e
		return true
	})
	if err != nil || !readable {
		return 0, err
	}
	for _, d := range told {
		if d != 0 {
			wrong++
		}
	}
	if wrong == 0 {
		return 0, nil
	}
	// What is left is what the digests say too much, whatever came meanwhile.
	op := RowOp{Key: appendDigestKey(nil, slot), Value: appendCells(nil, &told)}
	_, err = s.enqueue([]RowOp{op}, forced, nil)
	return wrong, err
}
