package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// This file takes damage out of the tables. A damaged block fails every iteration
// and compaction over it for ever, so the rows around it are replaced: what can
// still be read of them is copied into a new table, and one step of the engine, a
// single record of its manifest, puts that in the place of all that any table has
// there. A crash leaves the one or the other. Where rows may have been lost is a
// [Hole], and that is durable before.
//
// What is copied of a row is what Get answers, which looks at the newest table
// first: a row that is newer than the damage is kept, and one that may be older
// than something that was lost is not. So nothing comes back that was removed.
//
// The rows of the node itself, the digests and the holes are in memory and are
// written from there. Log records are dead once they are applied.

const (
	// salvageFile is the table that is being made, in the directory of the store.
	salvageFile = "SALVAGE"
	// salvageRounds bounds how often one range is widened, and one file looked at.
	salvageRounds = 8
	// maxGaps is the number of gaps from which they are joined while they are found.
	maxGaps = 4 * maxHoles
)

// salvageDue takes the known damage out of the tables. Requires: the caller is the
// goroutine that applies, so no rows but log records come meanwhile.
func (s *Store) salvageDue() error {
	for {
		file, ok := s.rot.due(time.Now())
		if !ok {
			return nil
		}
		// The log records in the tables are dead from here on.
		if err := s.applyFresh(); err != nil {
			return err
		}
		err := guarded(func() error { return s.salvage(file) })
		s.rot.settle(file, err)
		if s.failure.Load() != nil {
			return s.failed()
		}
		if err != nil {
			s.meters.unsalvaged.Inc()
			s.cfg.Logger.Error("storage: damage could not be taken out of a table, trying again", "file", file, "err", err)
		}
	}
}

// salvage takes the damage of a file out of the tables.
func (s *Store) salvage(file string) error {
	// What is in tables only is replaced at once.
	if err := s.db.Flush(); err != nil {
		return err
	}
	for range salvageRounds {
		parts, err := s.parts(func(p part) bool { return p.file == file })
		if err != nil {
			return err
		}
		var spans []pebble.KeyRange
		for _, p := range parts {
			some, err := s.damage(p)
			if err != nil {
				return err
			}
			spans = append(spans, some...)
		}
		if len(spans) == 0 {
			return nil // another step has taken it out, or it was no damage of the disk
		}
		for _, span := range spans {
			if err := s.replace(span); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w: %s has more damage each time", ErrCorrupt, file)
}

// errLater says that there are log records in a range that are not applied.
var errLater = errors.New("storage: damage among log records that are in use")

// replace puts what can be read of a range in the place of all of it, and of more if
// that is damaged too.
func (s *Store) replace(span pebble.KeyRange) error {
	span, err := s.widen(span)
	if err != nil {
		return err
	}
	err = s.replaceExactly(span)
	if !isCorrupt(err) {
		return err
	}
	// A table that the range cuts has damage beside its rows. It goes as a whole.
	cut, perr := s.parts(func(p part) bool { return overlaps(p.span, span) && s.rot.suspected(p.file) })
	if perr != nil {
		return perr
	}
	for _, p := range cut {
		span = union(span, p.span)
	}
	if span, perr = s.widen(span); perr != nil {
		return perr
	}
	return s.replaceExactly(span)
}

// widen returns the range, or more: at its bounds every table that reaches beyond it
// can be read.
func (s *Store) widen(span pebble.KeyRange) (pebble.KeyRange, error) {
	for round := range 2 * salvageRounds {
		cut, err := s.parts(func(p part) bool { return overlaps(p.span, span) && !covers(span, p.span) })
		if err != nil {
			return span, err
		}
		wider := false
		for _, p := range cut {
			start, end, err := s.edges(p, span)
			if err != nil {
				return span, err
			}
			if start && end {
				continue
			}
			wider = true
			s.rot.suspect(p.file)
			if round >= salvageRounds {
				span = union(span, p.span)
				continue
			}
			more, err := s.damage(p)
			if err != nil {
				return span, err
			}
			span = nearest(span, more, start, end)
		}
		if !wider {
			return span, nil
		}
	}
	return span, fmt.Errorf("%w: damage on all sides of a range", ErrCorrupt)
}

// nearest returns the range with those of the others that meet it or, at an end that
// cannot be read, are next to it.
func nearest(span pebble.KeyRange, others []pebble.KeyRange, start, end bool) pebble.KeyRange {
	before, behind := span, span
	for _, o := range others { // ascending
		switch {
		case overlaps(o, span):
			before, behind = union(before, o), union(behind, o)
		case bytes.Compare(o.End, span.Start) <= 0 && !start:
			before = union(span, o) // the last is the nearest
		case bytes.Compare(o.Start, span.End) >= 0 && !end:
			behind = union(behind, o)
			return union(before, behind)
		}
	}
	return union(before, behind)
}

// replaceExactly replaces a range.
func (s *Store) replaceExactly(span pebble.KeyRange) error {
	last, err := s.appliedInMemory()
	if err != nil {
		return err
	}
	if bytes.Compare(span.End, appendLogKey(nil, last+1)) > 0 {
		return errLater
	}
	file := s.fs().PathJoin(s.cfg.Dir, salvageFile)
	rows, holes, err := s.copyReadable(file, span)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(holes, s.Holes(), Hole.Same) {
		if err := s.putHoles(holes); err != nil {
			return err
		}
		// Had the engine to flush it within the swap, readers would wait longer.
		if err := s.db.Flush(); err != nil {
			return err
		}
	}
	var files []string
	if rows > 0 {
		files = []string{file}
	}
	if err := s.swapRange(files, span); err != nil {
		return err
	}
	s.meters.salvaged.Inc()
	s.cfg.Logger.Warn("storage: damage was taken out of the tables", "rows_kept", rows, "holes", len(holes))
	return nil
}

// copyReadable writes what can be read of a range into a table, and answers all
// holes that there are then.
func (s *Store) copyReadable(file string, span pebble.KeyRange) (rows int, holes []Hole, err error) {
	_ = s.fs().Remove(file) // of an attempt before; mostly there is none
	f, err := s.fs().Create(file, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, nil, err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{
		TableFormat: engineFormat.MaxTableFormat(), FilterPolicy: bloom.FilterPolicy(10),
	})
	set := func(row, value []byte) error {
		rows++
		return w.Set(row, value)
	}
	gaps, err := s.readable(span, set)
	holes = s.Holes()
	if fresh := s.holesOf(gaps); err == nil && len(fresh) > 0 {
		holes = s.joinHoles(holes, fresh)
		s.meters.lostRanges.Add(len(fresh))
	}
	if err == nil {
		err = s.copyMemory(span, holes, set)
	}
	return rows, holes, errors.Join(err, w.Close())
}

// readable calls set for the rows of a range that can be read, and answers where
// there may have been others.
func (s *Store) readable(span pebble.KeyRange, set func(row, value []byte) error) (gaps []pebble.KeyRange, err error) {
	if end := []byte{kindHole}; bytes.Compare(span.End, end) > 0 {
		span.End = end // the kinds behind are in memory
	}
	if bytes.Compare(span.Start, span.End) >= 0 {
		return nil, nil
	}
	cursors, gaps, err := s.cursors(span)
	defer func() {
		for _, c := range cursors {
			_ = c.t.close() // it was only read
		}
	}()
	if err != nil {
		return nil, err
	}
	for {
		row, err := leastKey(cursors)
		if err != nil {
			return nil, err
		}
		if row == nil {
			break
		}
		value, err := s.fetch(row)
		switch {
		case err == nil:
			err = set(row, value)
		case errors.Is(err, pebble.ErrNotFound):
			err = nil
		case isCorrupt(err):
			gaps, err = appendGap(gaps, row), nil
		}
		if err != nil {
			return nil, err
		}
	}
	for _, c := range cursors {
		gaps = append(gaps, c.gaps...)
	}
	return sortedRanges(gaps), nil
}

// cursors opens every table that has to do with a range. Those that cannot be opened
// are gaps.
func (s *Store) cursors(span pebble.KeyRange) (cursors []*cursor, gaps []pebble.KeyRange, err error) {
	parts, err := s.parts(func(p part) bool { return overlaps(p.span, span) })
	if err != nil {
		return nil, nil, err
	}
	for _, p := range parts {
		both := clip(p.span, span)
		t, err := s.openTable(p.file)
		switch {
		case err == nil:
			cursors = append(cursors, newCursor(t, both))
		case isCorrupt(err):
			gaps = append(gaps, both)
		default:
			return cursors, nil, err
		}
	}
	return cursors, gaps, nil
}

// leastKey returns the least key of the cursors, or nil at the end, and lets go on
// those that have it.
func leastKey(cursors []*cursor) (least []byte, err error) {
	for _, c := range cursors {
		if c.err != nil {
			return nil, c.err
		}
		if c.key != nil && (least == nil || bytes.Compare(c.key, least) < 0) {
			least = c.key
		}
	}
	for _, c := range cursors {
		if c.key != nil && bytes.Equal(c.key, least) {
			c.next()
		}
	}
	return least, nil
}

// appendGap adds a row that cannot be read to the gaps.
func appendGap(gaps []pebble.KeyRange, row []byte) []pebble.KeyRange {
	g := pebble.KeyRange{Start: row, End: successor(row)}
	if len(gaps) >= maxGaps {
		gaps = sortedRanges(gaps)
	}
	for n := len(gaps); n >= maxGaps; n-- { // neighbours: what is between them was not lost, but may be taken for it
		gaps[n-2] = union(gaps[n-2], gaps[n-1])
		gaps = gaps[:n-1]
	}
	return append(gaps, g)
}

// sortedRanges sorts ranges and makes one of those that touch.
func sortedRanges(ranges []pebble.KeyRange) []pebble.KeyRange {
	slices.SortFunc(ranges, func(a, b pebble.KeyRange) int { return bytes.Compare(a.Start, b.Start) })
	return joinRanges(ranges)
}

// fetch reads a row of the engine. Where only the filter of a table is damaged an
// iterator still finds it.
func (s *Store) fetch(row []byte) ([]byte, error) {
	v, closer, err := s.db.Get(row)
	if err == nil {
		return bytes.Clone(v), closer.Close()
	}
	if !isCorrupt(err) {
		return nil, err
	}
	it, ierr := newIter(s.db, row, successor(row))
	if ierr != nil {
		return nil, ierr
	}
	defer func() { _ = it.Close() }() // it repeats the error that Error answers
	if !it.First() {
		return nil, cmpError(it.Error(), pebble.ErrNotFound)
	}
	v, err = it.ValueAndErr()
	return bytes.Clone(v), err
}

// cmpError is the first error that is one.
func cmpError(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// copyMemory calls set for the rows of a range that are in memory, in order: holes,
// rows of the node itself, digests.
func (s *Store) copyMemory(span pebble.KeyRange, holes []Hole, set func(row, value []byte) error) error {
	in := func(row []byte) bool { return bytes.Compare(span.Start, row) <= 0 && bytes.Compare(row, span.End) < 0 }
	for _, h := range holes {
		if row := appendHoleKey(nil, h.Lo); in(row) {
			if err := set(row, h.Hi); err != nil {
				return err
			}
		}
	}
	for _, row := range slices.Sorted(maps.Keys(s.metas)) {
		if in([]byte(row)) {
			if err := set([]byte(row), s.metas[row]); err != nil {
				return err
			}
		}
	}
	for slot, p := range s.placed.pages {
		if row := appendDigestKey(nil, uint16(slot)); p != nil && in(row) {
			if err := set(row, appendCells(nil, &p.cells)); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadMetas keeps the rows of the node itself in memory: no other node has them.
// They are few.
func (s *Store) loadMetas() error {
	it, err := newIter(s.db, []byte{kindMeta}, []byte{kindMeta + 1})
	if err != nil {
		return readError(err)
	}
	return merge(it, nil, func(row, value []byte) bool {
		s.metas[string(row)] = bytes.Clone(value)
		return true
	})
}

// noteMeta follows a row of the node itself that is being applied.
func (s *Store) noteMeta(row pendingRow) {
	switch {
	case len(row.key) == 0 || row.key[0] != kindMeta:
	case row.remove:
		delete(s.metas, string(row.key))
	default:
		s.metas[string(row.key)] = bytes.Clone(row.value)
	}
}

// appliedInMemory is applied without the disk.
func (s *Store) appliedInMemory() (uint64, error) {
	v, ok := s.metas[string(metaKey(appliedRow))]
	if !ok {
		return 0, nil
	}
	return decodeApplied(v)
}

// swapRange puts the tables into the range instead of what is there.
func (s *Store) swapRange(files []string, span pebble.KeyRange) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	defer s.swaps.begin(span)()
	_, err := s.db.IngestAndExcise(context.Background(), files, nil, nil, span)
	return err
}
