package storage

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Hole is a range of rows [Lo, Hi), all of one kind, of which damage to the disk
// took some. What a lookup does not find there may have been lost. Holes outlive
// the process; Fill ends one.
type Hole struct {
	Lo, Hi []byte
	// born tells two holes apart that have the same bounds: rows that came back
	// can be lost again.
	born uint64
}

// The kinds of rows that holes are made for. What else a store holds is in memory,
// and so survives damage to the disk while the store is open.
const (
	DataRows   = kindData
	HintRows   = kindHint
	ExpiryRows = kindExpiry
	GraveRows  = kindGrave
)

// holeKinds are the kinds of rows that holes are made for, ascending.
var holeKinds = [...]byte{DataRows, ExpiryRows, GraveRows, HintRows}

// Kind is the kind of the rows: DataRows, HintRows, ExpiryRows or GraveRows.
func (h Hole) Kind() byte { return h.Lo[0] }

// Contains reports whether a row is in the hole.
func (h Hole) Contains(row []byte) bool {
	return bytes.Compare(h.Lo, row) <= 0 && bytes.Compare(row, h.Hi) < 0
}

// Same reports whether two holes are one: a hole that has grown, or that came
// again, is another.
func (h Hole) Same(o Hole) bool {
	return h.born == o.born && bytes.Equal(h.Lo, o.Lo) && bytes.Equal(h.Hi, o.Hi)
}

// Positions are the first and the last position of key, as slot and hash, that a
// hole of data rows or graves touches.
func (h Hole) Positions() (slot uint16, hash uint32, lastSlot uint16, lastHash uint32) {
	slot, hash = positionAt(h.Lo)
	if h.Hi[0] != h.Lo[0] {
		return slot, hash, slots - 1, 1<<32 - 1
	}
	lastSlot, lastHash = positionAt(h.Hi)
	return slot, hash, lastSlot, lastHash
}

// positionAt is the position in a row key, or in the bound of a range of them.
func positionAt(row []byte) (slot uint16, hash uint32) {
	var b [6]byte
	copy(b[:], row[1:])
	slot = binary.BigEndian.Uint16(b[:])
	if slot >= slots {
		return slots - 1, 1<<32 - 1
	}
	return slot, binary.BigEndian.Uint32(b[2:])
}

// maxHoles bounds the holes: past it two neighbours become one.
const maxHoles = 1024

// Holes returns the holes, in order.
func (s *Store) Holes() []Hole {
	if h := s.holes.Load(); h != nil {
		return *h
	}
	return nil
}

// InHole reports whether a row that is not found may have been lost.
func (s *Store) InHole(row []byte) bool {
	holes := s.Holes()
	if len(holes) == 0 {
		return false
	}
	i, found := slices.BinarySearchFunc(holes, row, func(h Hole, row []byte) int { return bytes.Compare(h.Lo, row) })
	return found || i > 0 && holes[i-1].Contains(row)
}

// overlapsHole reports whether some row of [lo, hi) may have been lost.
func (s *Store) overlapsHole(lo, hi []byte) bool {
	return slices.ContainsFunc(s.Holes(), func(h Hole) bool {
		return bytes.Compare(h.Lo, hi) < 0 && bytes.Compare(lo, h.Hi) < 0
	})
}

// Fill ends the holes that are given: what was lost in them is here again, or is
// given up. It waits until that is durable. A hole that has grown since stays.
func (s *Store) Fill(filled []Hole) error {
	done := make(chan error, 1)
	select {
	case s.rot.fill <- fillOrder{filled, done}:
	case <-s.stop:
		return ErrClosed
	case <-s.broken:
		return s.failed()
	}
	select {
	case err := <-done:
		return err
	case <-s.stop:
		return ErrClosed
	case <-s.broken:
		return s.failed()
	}
}

// fillOrder is a call of Fill, on its way to the goroutine that applies.
type fillOrder struct {
	holes []Hole
	done  chan error
}

// fillHoles carries out Fill.
func (s *Store) fillHoles(filled []Hole) error {
	return s.putHoles(slices.DeleteFunc(slices.Clone(s.Holes()), func(h Hole) bool {
		return slices.ContainsFunc(filled, h.Same)
	}))
}

// holesOf returns what a gap means: a hole for each kind of rows that it touches.
func (s *Store) holesOf(gaps []pebble.KeyRange) (holes []Hole) {
	for _, g := range gaps {
		for _, kind := range holeKinds {
			h := Hole{Lo: g.Start, Hi: g.End}
			if lo := []byte{kind}; bytes.Compare(h.Lo, lo) < 0 {
				h.Lo = lo
			}
			if hi := []byte{kind + 1}; bytes.Compare(h.Hi, hi) > 0 {
				h.Hi = hi
			}
			if bytes.Compare(h.Lo, h.Hi) < 0 {
				s.rot.born++
				h.born = s.rot.born
				holes = append(holes, h)
			}
		}
	}
	return holes
}

// joinHoles adds holes to others. Those of one kind that touch become one, which
// is a new one, and so do neighbours where there are too many.
func (s *Store) joinHoles(old, fresh []Hole) []Hole {
	all := slices.Concat(old, fresh)
	slices.SortStableFunc(all, func(x, y Hole) int { return bytes.Compare(x.Lo, y.Lo) })
	most := max(maxHoles, len(holeKinds))
	var out []Hole
	for _, h := range all {
		n := len(out)
		if n == 0 || h.Kind() != out[n-1].Kind() || bytes.Compare(h.Lo, out[n-1].Hi) > 0 && n < most {
			out = append(out, h)
			continue
		}
		if bytes.Compare(h.Hi, out[n-1].Hi) > 0 {
			out[n-1].Hi = h.Hi
		}
		s.rot.born++
		out[n-1].born = s.rot.born
	}
	return out
}

// appendHoleKey appends the row key of a hole that begins at lo to dst.
func appendHoleKey(dst, lo []byte) []byte { return append(append(dst, kindHole), lo...) }

// putHoles makes the holes durable, and then visible. Their rows go straight into
// the engine. Requires: the caller is the goroutine that applies.
func (s *Store) putHoles(holes []Hole) error {
	b := s.db.NewBatch()
	err := b.DeleteRange([]byte{kindHole}, []byte{kindHole + 1}, nil)
	for _, h := range holes {
		if err == nil {
			err = b.Set(appendHoleKey(nil, h.Lo), h.Hi, nil)
		}
	}
	if err != nil {
		return err
	}
	if err := s.apply(b, pebble.Sync); err != nil {
		return err // the batch may still be in the engine's hands
	}
	s.setHoles(holes)
	return b.Close()
}

func (s *Store) setHoles(holes []Hole) {
	s.holes.Store(&holes)
	s.meters.holes.Set(float64(len(holes)))
}

// loadHoles reads the holes that were there at the last end.
func (s *Store) loadHoles() error {
	it, err := newIter(s.db, []byte{kindHole}, []byte{kindHole + 1})
	if err != nil {
		return readError(err)
	}
	var holes []Hole
	err = merge(it, nil, func(row, hi []byte) bool {
		s.rot.born++
		holes = append(holes, Hole{Lo: bytes.Clone(row[1:]), Hi: bytes.Clone(hi), born: s.rot.born})
		return true
	})
	if err == nil && len(holes) > 0 {
		s.setHoles(holes)
	}
	return err
}
