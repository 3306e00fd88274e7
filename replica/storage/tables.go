package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// This file reads single tables beside the engine. The engine's own iterators stop
// where any of the tables below them is damaged; one table alone can be read on
// behind its damage.

// part is what the engine uses of the file of a table: mostly all of it.
type part struct {
	file string
	span pebble.KeyRange
}

// overlaps reports whether two ranges have a row in common.
func overlaps(a, b pebble.KeyRange) bool {
	return bytes.Compare(a.Start, b.End) < 0 && bytes.Compare(b.Start, a.End) < 0
}

// covers reports whether a has all rows of b.
func covers(a, b pebble.KeyRange) bool {
	return bytes.Compare(a.Start, b.Start) <= 0 && bytes.Compare(b.End, a.End) <= 0
}

func union(a, b pebble.KeyRange) pebble.KeyRange {
	if bytes.Compare(b.Start, a.Start) < 0 {
		a.Start = b.Start
	}
	if bytes.Compare(b.End, a.End) > 0 {
		a.End = b.End
	}
	return a
}

// successor is the first row key after row.
func successor(row []byte) []byte { return append(bytes.Clone(row), 0) }

// parts returns the parts that fit.
func (s *Store) parts(fits func(part) bool) (parts []part, err error) {
	levels, err := s.db.SSTables()
	if err != nil {
		return nil, err
	}
	for _, level := range levels {
		for i := range level {
			t := &level[i]
			p := part{file: fmt.Sprintf("%06d%s", uint64(t.BackingSSTNum), tableSuffix)}
			p.span.Start, p.span.End = bytes.Clone(t.Smallest.UserKey), bytes.Clone(t.Largest.UserKey)
			if !t.Largest.IsExclusiveSentinel() {
				p.span.End = successor(p.span.End)
			}
			if fits(p) {
				parts = append(parts, p)
			}
		}
	}
	return parts, nil
}

// table is the file of a table, open for reading past the engine and its cache.
type table struct {
	r  *sstable.Reader
	it sstable.Iterator
}

// openTable opens a file. An error that is damage means that no row of it can be
// found.
func (s *Store) openTable(file string) (*table, error) {
	f, err := s.fs().Open(s.fs().PathJoin(s.cfg.Dir, file))
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var opts pebble.Options
	opts.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), readable, opts.MakeReaderOptions())
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.DebugHandlesBlobContext)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &table{r, it}, nil
}

func (t *table) close() error { return errors.Join(ignore(t.it.Close()), t.r.Close()) }

// ignore drops the error of closing an iterator, which is that of Error.
func ignore(error) error { return nil }

// cursor walks over the keys of a table within a range, and steps over what cannot
// be read.
type cursor struct {
	t    *table
	span pebble.KeyRange

	key   []byte // nil behind the last
	gaps  []pebble.KeyRange
	edges []pebble.KeyRange // the readable rows around each gap: from the one before to the one behind
	err   error
}

// newCursor returns a cursor at the first key.
func newCursor(t *table, span pebble.KeyRange) *cursor {
	c := &cursor{t: t, span: span}
	c.seek(span.Start, nil)
	return c
}

// next goes to the next key; the versions of a row are one.
func (c *cursor) next() {
	last := c.key
	for {
		kv := c.t.it.Next()
		if kv == nil {
			if err := c.t.it.Error(); err != nil {
				c.skip(last, err)
				return
			}
			c.key = nil
			return
		}
		if !bytes.Equal(kv.K.UserKey, last) {
			c.at(kv.K.UserKey)
			return
		}
	}
}

// at takes a key, unless it is behind the range.
func (c *cursor) at(key []byte) {
	if c.key = nil; bytes.Compare(key, c.span.End) < 0 {
		c.key = bytes.Clone(key)
	}
}

// seek goes to the first key from a row on; last is the readable one before.
func (c *cursor) seek(from, last []byte) {
	if kv := c.t.it.SeekGE(from, 0); kv != nil {
		c.at(kv.K.UserKey)
		return
	}
	c.key = nil
	if err := c.t.it.Error(); err != nil {
		c.skip(last, err)
	}
}

// skip steps over damage that begins behind the key last, or at the start.
func (c *cursor) skip(last []byte, err error) {
	c.key = nil
	for err != nil {
		if !isCorrupt(err) {
			c.err = err
			return
		}
		gap, edge := pebble.KeyRange{Start: c.span.Start}, pebble.KeyRange{Start: c.span.Start}
		if n := len(c.gaps); n > 0 && last == nil {
			gap.Start, edge.Start = c.gaps[n-1].End, c.gaps[n-1].End
		}
		if last != nil {
			gap.Start, edge.Start = successor(last), last
		}
		gap.End = c.endOfDamage(gap.Start)
		edge.End = gap.End
		err = nil
		if bytes.Compare(gap.End, c.span.End) < 0 {
			if kv := c.t.it.SeekGE(gap.End, 0); kv != nil {
				c.at(kv.K.UserKey)
			} else {
				err = c.t.it.Error()
			}
			if edge.End = c.span.End; c.key != nil {
				edge.End = c.key
			}
		}
		c.gaps, c.edges = append(c.gaps, gap), append(c.edges, edge)
		last = nil
	}
}

// probeBytes is how much of a row key the search for the end of damage tells
// apart. It spans the position and the first bytes of the key.
const probeBytes = 24

// endOfDamage finds where rows can be read again: it steps from lo, twice as far
// each time, until they can, and then goes back by halves. It answers the end of
// the range if they never can.
func (c *cursor) endOfDamage(lo []byte) []byte {
	one := big.NewInt(1)
	bad, end := numberOf(lo), numberOf(c.span.End)
	good := end
	for step := new(big.Int).Set(one); ; step.Lsh(step, 1) {
		p := new(big.Int).Add(bad, step)
		if p.Cmp(end) >= 0 {
			break
		}
		if c.readableAt(p) {
			good = p
			break
		}
		bad = p
	}
	for new(big.Int).Sub(good, bad).Cmp(one) > 0 {
		mid := new(big.Int).Add(bad, good)
		if mid.Rsh(mid, 1); c.readableAt(mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	if good.Cmp(end) >= 0 {
		return c.span.End
	}
	return rowAt(good)
}

// readableAt reports whether rows can be read from a place on.
func (c *cursor) readableAt(p *big.Int) bool {
	c.t.it.SeekGE(rowAt(p), 0)
	return c.t.it.Error() == nil
}

// numberOf takes the first bytes of a row key for a number.
func numberOf(row []byte) *big.Int {
	var b [probeBytes]byte
	copy(b[:], row)
	return new(big.Int).SetBytes(b[:])
}

// rowAt is the row key of a number.
func rowAt(n *big.Int) []byte { return n.FillBytes(make([]byte, probeBytes)) }

// damage returns the ranges of a part that cannot be read, each from the readable
// row before to the readable row behind it. A file that has damage beside its rows
// is damaged as a whole.
func (s *Store) damage(p part) ([]pebble.KeyRange, error) {
	t, err := s.openTable(p.file)
	if isCorrupt(err) {
		return []pebble.KeyRange{p.span}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.close() }() // it was only read
	c := newCursor(t, p.span)
	for c.key != nil {
		c.next()
	}
	if c.err != nil {
		return nil, c.err
	}
	if len(c.gaps) == 0 {
		if err := t.r.ValidateBlockChecksums(); isCorrupt(err) {
			return []pebble.KeyRange{p.span}, nil
		} else if err != nil {
			return nil, err
		}
	}
	return joinRanges(c.edges), nil
}

// readsAt reports whether the engine can cut a part at a bound of a range: it looks
// for the last row before the start and for the first one from the end on, and takes
// damage there for nothing.
func (s *Store) readsAt(p part, span pebble.KeyRange) (bool, error) {
	t, err := s.openTable(p.file)
	if err != nil {
		return false, unlessCorrupt(err)
	}
	defer func() { _ = t.close() }() // it was only read
	if bytes.Compare(p.span.Start, span.Start) < 0 {
		t.it.SeekLT(span.Start, 0)
		if err := t.it.Error(); err != nil {
			return false, unlessCorrupt(err)
		}
	}
	if bytes.Compare(span.End, p.span.End) < 0 {
		t.it.SeekGE(span.End, 0)
		return t.it.Error() == nil, unlessCorrupt(t.it.Error())
	}
	return true, nil
}

// unlessCorrupt drops an error that is damage.
func unlessCorrupt(err error) error {
	if isCorrupt(err) {
		return nil
	}
	return err
}

// joinRanges makes one of those ranges, ascending, that touch.
func joinRanges(ranges []pebble.KeyRange) (out []pebble.KeyRange) {
	for _, r := range ranges {
		if n := len(out); n > 0 && bytes.Compare(r.Start, out[n-1].End) <= 0 {
			out[n-1] = union(out[n-1], r)
			continue
		}
		out = append(out, r)
	}
	return out
}

// isCorrupt reports whether an error says that data on the disk is damaged.
func isCorrupt(err error) bool { return pebble.IsCorruptionError(err) || errors.Is(err, ErrCorrupt) }
