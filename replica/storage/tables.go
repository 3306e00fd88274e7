package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
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

	blocks []dataBlock // in order, once they were asked for
	opaque bool        // nobody can say which blocks there are
}

// dataBlock is one of the blocks with the rows of a table. Its keys are not above its
// separator, and above that of the block before.
type dataBlock struct {
	handle    block.Handle
	separator []byte
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
	return &table{r: r, it: it}, nil
}

func (t *table) close() error { return errors.Join(ignore(t.it.Close()), t.r.Close()) }

// ignore drops the error of closing an iterator, which is that of Error.
func ignore(error) error { return nil }

// index reads which blocks there are. If that cannot be read the table is opaque.
func (t *table) index() error {
	if t.blocks != nil || t.opaque {
		return nil
	}
	layout, err := t.r.Layout()
	for i := 0; err == nil && i < len(layout.Index); i++ {
		err = t.readIndex(layout.Index[i])
	}
	if err != nil {
		t.blocks, t.opaque = nil, true
	}
	return unlessCorrupt(err)
}

// readIndex reads one block of the index.
func (t *table) readIndex(at block.Handle) error {
	h, err := t.r.BlockReader().Read(context.Background(), block.NoReadEnv, nil, at, blockkind.Metadata, noMetadata)
	if err != nil {
		return err
	}
	defer h.Release()
	var it colblk.IndexIter
	if err := it.Init(pebble.DefaultComparer, h.BlockData(), block.NoTransforms); err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		b, err := it.BlockHandleWithProperties()
		if err != nil {
			return err
		}
		t.blocks = append(t.blocks, dataBlock{b.Handle, bytes.Clone(it.Separator())})
	}
	return nil
}

// noMetadata is what the engine's cache would want to know of a block.
func noMetadata(*block.Metadata, []byte) error { return nil }

// sound reports whether a block has the checksum that it was written with. The
// engine's own check goes on, for damage, to look which bit was turned.
func (t *table) sound(at block.Handle) (bool, error) {
	if at.Length == 0 {
		return true, nil
	}
	b := make([]byte, at.Length+block.TrailerLen)
	if err := t.r.BlockReader().Readable().ReadAt(context.Background(), b, int64(at.Offset)); err != nil {
		return false, err
	}
	if t.r.BlockReader().ChecksumType() != block.ChecksumTypeCRC32c {
		return block.ValidateChecksum(t.r.BlockReader().ChecksumType(), b, at) == nil, nil
	}
	c := crc32.Checksum(b[:at.Length+1], castagnoli)
	return c>>15|c<<17+0xa282ead8 == binary.LittleEndian.Uint32(b[at.Length+1:]), nil // masked, as LevelDB does
}

// besides are the blocks without rows that the engine reads.
func (t *table) besides() ([]block.Handle, error) {
	l, err := t.r.Layout()
	if err != nil {
		return nil, err
	}
	at := append(l.Index, l.TopIndex, l.RangeDel, l.RangeKey, l.Properties, l.MetaIndex, l.BlobReferenceIndex)
	for _, f := range l.Filter {
		at = append(at, f.Handle)
	}
	return at, nil
}

// cursor walks over the keys of a table within a range, and steps over what cannot
// be read.
type cursor struct {
	t    *table
	span pebble.KeyRange

	key  []byte // nil behind the last
	gaps []pebble.KeyRange
	err  error
}

// newCursor returns a cursor at the first key.
func newCursor(t *table, span pebble.KeyRange) *cursor {
	c := &cursor{t: t, span: span}
	c.seek(span.Start)
	return c
}

// next goes to the next key; the versions of a row are one.
func (c *cursor) next() {
	last := c.key
	for {
		kv := c.t.it.Next()
		if kv == nil {
			c.key = nil
			if c.t.it.Error() != nil {
				c.seek(c.skip(successor(last), c.t.it.Error()))
			}
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

// seek goes to the first key from a row on.
func (c *cursor) seek(from []byte) {
	c.key = nil
	for c.err == nil && bytes.Compare(from, c.span.End) < 0 {
		if kv := c.t.it.SeekGE(from, 0); kv != nil {
			c.at(kv.K.UserKey)
			return
		}
		if c.t.it.Error() == nil {
			return
		}
		from = c.skip(from, c.t.it.Error())
	}
}

// skip notes the gap that begins with a row, and answers where it ends.
func (c *cursor) skip(from []byte, err error) (to []byte) {
	if isCorrupt(err) {
		err = c.t.index()
	}
	if err != nil {
		c.err = err
		return c.span.End
	}
	to = c.span.End
	i := sort.Search(len(c.t.blocks), func(i int) bool { return bytes.Compare(from, c.t.blocks[i].separator) <= 0 })
	switch {
	case i < len(c.t.blocks):
		to = successor(c.t.blocks[i].separator)
	case c.t.opaque:
		to = c.back(from)
	}
	if bytes.Compare(to, c.span.End) > 0 {
		to = c.span.End
	}
	c.gaps = append(c.gaps, pebble.KeyRange{Start: from, End: to})
	return to
}

// back reads from the end of the range as far as it can.
func (c *cursor) back(from []byte) (first []byte) {
	first = c.span.End
	for kv := c.t.it.SeekLT(first, 0); kv != nil && bytes.Compare(kv.K.UserKey, from) >= 0; kv = c.t.it.Prev() {
		first = append(first[:0:0], kv.K.UserKey...)
	}
	return first
}

// damage returns the ranges of a part that cannot be read, such that it can be cut at
// their bounds. A file that has damage beside its rows is damaged as a whole.
func (s *Store) damage(p part) ([]pebble.KeyRange, error) {
	t, err := s.openTable(p.file)
	if isCorrupt(err) {
		return []pebble.KeyRange{p.span}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.close() }() // it was only read
	if err := t.index(); err != nil {
		return nil, err
	}
	besides, err := t.besides()
	if err != nil {
		return []pebble.KeyRange{p.span}, unlessCorrupt(err)
	}
	for _, at := range besides {
		if ok, err := t.sound(at); err != nil || !ok {
			return []pebble.KeyRange{p.span}, err
		}
	}
	return s.badRuns(t, p)
}

// badRuns returns the ranges of a part around its damaged blocks. A range takes in the
// row before the damage, and the one behind: an iterator knows that it is at the end
// of a part only when it meets a row beyond, and would run into the damage.
func (s *Store) badRuns(t *table, p part) (ranges []pebble.KeyRange, err error) {
	bad := func(i int) (bool, error) {
		if i >= len(t.blocks) || i > 0 && bytes.Compare(t.blocks[i-1].separator, p.span.End) >= 0 {
			return false, nil
		}
		ok, err := t.sound(t.blocks[i].handle)
		return !ok, err
	}
	first := sort.Search(len(t.blocks), func(i int) bool { return bytes.Compare(p.span.Start, t.blocks[i].separator) <= 0 })
	for i := first; i < len(t.blocks); i++ {
		is, err := bad(i)
		if err != nil {
			return nil, err
		}
		if !is {
			continue
		}
		r := p.span
		if i > first {
			if last := t.lastOf(t.blocks[i-1]); bytes.Compare(last, r.Start) > 0 {
				r.Start = last
			}
		}
		for is && err == nil {
			i++
			is, err = bad(i)
		}
		if err != nil {
			return nil, err
		}
		if kv := t.it.SeekGE(successor(t.blocks[i-1].separator), 0); kv != nil && bytes.Compare(kv.K.UserKey, r.End) < 0 {
			r.End = successor(kv.K.UserKey)
		}
		ranges = append(ranges, r)
	}
	return joinRanges(ranges), nil
}

// lastOf is the last key of a block that can be read.
func (t *table) lastOf(b dataBlock) []byte {
	if kv := t.it.SeekGE(b.separator, 0); kv != nil && bytes.Equal(kv.K.UserKey, b.separator) {
		return b.separator
	}
	if kv := t.it.SeekLT(b.separator, 0); kv != nil {
		return bytes.Clone(kv.K.UserKey)
	}
	return nil
}

// clip is what two ranges have in common. Requires: they overlap.
func clip(a, b pebble.KeyRange) pebble.KeyRange {
	if bytes.Compare(a.Start, b.Start) < 0 {
		a.Start = b.Start
	}
	if bytes.Compare(a.End, b.End) > 0 {
		a.End = b.End
	}
	return a
}

// edges reports whether the engine can cut a part at the start of a range, and at its
// end. It looks for the last row before it and for the first one behind, and takes
// damage there for nothing; later iterators look at the next row beyond.
func (s *Store) edges(p part, span pebble.KeyRange) (start, end bool, err error) {
	t, err := s.openTable(p.file)
	if err != nil {
		return false, false, unlessCorrupt(err)
	}
	defer func() { _ = t.close() }() // it was only read
	var before, behind error
	if bytes.Compare(p.span.Start, span.Start) < 0 {
		if t.it.SeekLT(span.Start, 0) != nil {
			t.it.Next()
		}
		before = t.it.Error()
	}
	if bytes.Compare(span.End, p.span.End) < 0 {
		if t.it.SeekGE(span.End, 0) != nil {
			t.it.Prev()
		}
		behind = t.it.Error()
	}
	return before == nil, behind == nil, errors.Join(unlessCorrupt(before), unlessCorrupt(behind))
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
