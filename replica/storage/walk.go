package storage

import (
	"bytes"
	"errors"
	"sort"

	"github.com/cockroachdb/pebble/v2"
)

// seekAfter is the number of rows that Seek steps over before it seeks. A seek costs as
// much as about eight steps (BenchmarkSeek), and nothing tells how many rows lie between:
// so the price is at most twice that of whoever knew it.
const seekAfter = 8

// Walk stands at a row of a range, or past the last one, and goes forwards. It must be
// closed.
type Walk struct {
	it     *pebble.Iterator
	within bool         // it stands at a row
	rows   []pendingRow // those that are not passed; they hide the iterator's
	held   bool         // the present row is the first of rows
	err    error        // what ended it before its end
}

// newWalk returns a walk before the first row of it and rows, which hide those of it.
func newWalk(it *pebble.Iterator, rows []pendingRow) *Walk {
	w := &Walk{it: it, rows: rows}
	w.within = it.First()
	return w
}

// here finds the present row, and reports whether there is one.
func (w *Walk) here() bool {
	for w.err == nil {
		if !w.within {
			// Before any pending row: what it would have said first may be missing.
			if w.err = w.it.Error(); w.err != nil {
				break
			}
		}
		if len(w.rows) == 0 {
			w.held = false
			return w.within
		}
		order := -1 // of the first pending row to the iterator's
		if w.within {
			order = bytes.Compare(w.rows[0].key, w.it.Key())
		}
		if order > 0 {
			w.held = false
			return true
		}
		if order == 0 {
			w.within = w.it.Next() // that one is hidden
		}
		if !w.rows[0].remove {
			w.held = true
			return true
		}
		w.rows = w.rows[1:]
	}
	return false
}

// Next goes to the next row, and reports whether there is one. Requires: the walk
// stands at a row.
func (w *Walk) Next() bool {
	if w.held {
		w.rows = w.rows[1:]
	} else {
		w.within = w.it.Next()
	}
	return w.here()
}

// Seek goes forwards to the first row that is not before row, and reports whether there
// is one. A walk that is past row stays where it is. What lies between costs little if
// it is near, and a seek if it is not.
func (w *Walk) Seek(row []byte) bool {
	for steps := 0; w.within && bytes.Compare(w.it.Key(), row) < 0; steps++ {
		if steps == seekAfter {
			w.within = w.it.SeekGE(row)
			break
		}
		w.within = w.it.Next()
	}
	if len(w.rows) > 0 && bytes.Compare(w.rows[0].key, row) < 0 {
		w.rows = w.rows[pendingFrom(w.rows, row):]
	}
	return w.here()
}

// Row is the key of the present row. Like Value it is valid until the walk moves, and
// requires that the walk stands at a row.
func (w *Walk) Row() []byte {
	if w.held {
		return w.rows[0].key
	}
	return w.it.Key()
}

// Value is the value of the present row.
func (w *Walk) Value() ([]byte, error) {
	if w.held {
		return w.rows[0].value, nil
	}
	v, err := w.it.ValueAndErr()
	if err != nil {
		return nil, readError(err)
	}
	return v, nil
}

// Err is what ended the walk, nil if that was the last row.
func (w *Walk) Err() error {
	if w.err != nil {
		return readError(w.err)
	}
	return nil
}

// Close lets go of the rows, and says what ended the walk if that was not their end.
func (w *Walk) Close() error {
	if err := errors.Join(w.err, w.it.Close()); err != nil {
		return readError(err)
	}
	return nil
}

// merge calls fn for each row of it and of rows, in order, until fn answers false, and
// closes it. rows hide those of it.
func merge(it *pebble.Iterator, rows []pendingRow, fn func(row, value []byte) bool) error {
	w := newWalk(it, rows)
	for ok := w.here(); ok; ok = w.Next() {
		v, err := w.Value()
		if err != nil {
			_ = w.Close() // it would say the same
			return err
		}
		if !fn(w.Row(), v) {
			break
		}
	}
	return w.Close()
}

// pendingFrom is the index of the first of some sorted rows that is not before row.
func pendingFrom(rows []pendingRow, row []byte) int {
	return sort.Search(len(rows), func(i int) bool { return bytes.Compare(rows[i].key, row) >= 0 })
}
