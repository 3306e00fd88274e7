package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxLineBytes bounds a line. Values name writes and need not be what was stored.
const MaxLineBytes = 16 << 20

// LineError is a line that is not of the format.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// Reader reads the lines of a history.
type Reader struct {
	lines   *bufio.Scanner
	one     oneLine
	json    *json.Decoder
	line    int
	begun   bool
	calm    bool
	stopped error
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader {
	h := &Reader{lines: bufio.NewScanner(r)}
	h.lines.Buffer(make([]byte, 64<<10), MaxLineBytes)
	h.json = json.NewDecoder(&h.one)
	h.json.DisallowUnknownFields()
	return h
}

// oneLine feeds a decoder one line at a time, so that one decoder serves them all.
type oneLine struct{ left []byte }

func (l *oneLine) Read(p []byte) (int, error) {
	if len(l.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, l.left)
	l.left = l.left[n:]
	return n, nil
}

// Line is the number of the line that Next returned last.
func (h *Reader) Line() int { return h.line }

// Next fills o with the next operation or note. It returns io.EOF at the end, a
// *LineError for a line that is not of the format, and after any error the same
// again. Empty lines are passed over.
func (h *Reader) Next(o *Op) error {
	for h.stopped == nil {
		if !h.lines.Scan() {
			h.stopped = h.ended()
			break
		}
		h.line++
		if len(bytes.TrimSpace(h.lines.Bytes())) == 0 {
			continue
		}
		*o = Op{}
		if err := h.decode(o); err != nil {
			h.stopped = &LineError{h.line, err}
			if disk := h.lines.Err(); disk != nil { // the rest of the line could not be read
				h.stopped = h.ended()
			}
			break
		}
		if h.begun {
			return nil
		}
		h.begun, h.calm = true, o.Calm
	}
	return h.stopped
}

// ended is why there are no more lines.
func (h *Reader) ended() error {
	err := h.lines.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return &LineError{h.line + 1, fmt.Errorf("longer than %d bytes", MaxLineBytes)}
	case err != nil:
		return fmt.Errorf("after line %d: %w", h.line, err)
	case !h.begun:
		return &LineError{1, errors.New("the file is empty: the first line is to name the format")}
	}
	return io.EOF
}

func (h *Reader) decode(o *Op) error {
	h.one.left = h.lines.Bytes()
	if err := h.json.Decode(o); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return errors.New("the line is cut off")
		}
		return err
	}
	if h.rest() {
		return errors.New("something follows the operation")
	}
	if h.begun {
		return o.validate()
	}
	if o.Kind != Header {
		return fmt.Errorf(`the first line is to be {"op":"history","version":%d}`, Version)
	}
	if o.Version != Version {
		return fmt.Errorf("version %d of the format; this program reads %d", o.Version, Version)
	}
	return nil
}

// rest reports whether anything but blanks is left of the line.
func (h *Reader) rest() bool {
	left, _ := io.ReadAll(h.json.Buffered()) // memory
	return len(bytes.TrimSpace(left))+len(bytes.TrimSpace(h.one.left)) > 0
}

// Calm reports whether the first line, once read, says that no fault happened.
func (h *Reader) Calm() bool { return h.calm }

// Check reads a history to its end and judges it. Options.Calm is taken from its
// first line. An error means that the history cannot be judged.
func Check(r io.Reader, opts Options) (Report, error) {
	h := NewReader(r)
	var c *Checker
	var o Op
	for {
		err := h.Next(&o)
		if c == nil && (err == nil || err == io.EOF) {
			opts.Calm = h.Calm()
			c = New(opts)
		}
		if err == io.EOF {
			return c.Finish(), nil
		}
		if err != nil {
			return Report{}, err
		}
		if err := c.Add(h.Line(), &o); err != nil {
			return Report{}, &LineError{h.Line(), err}
		}
	}
}
