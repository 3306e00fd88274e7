package rpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	readBufferBytes = 64 << 10
	writePieceBytes = 256 << 10
)

// frameReader cuts a connection into frames. Its buffer grows only as bytes
// arrive, so a length that is announced and never sent costs nothing, and it
// shrinks again once a large frame has been taken.
type frameReader struct {
	conn       net.Conn
	terms      terms
	buf        []byte
	start, end int
}

func newFrameReader(conn net.Conn, t terms) *frameReader {
	return &frameReader{conn: conn, terms: t, buf: make([]byte, readBufferBytes)}
}

// fill reads until at least one whole frame is buffered. What frame returned
// before is then overwritten.
func (r *frameReader) fill() error {
	r.compact()
	for {
		need, err := frameLen(r.buf[r.start:r.end], r.terms.maxFrame)
		if err != nil {
			return err
		}
		if need > 0 && r.end-r.start >= need {
			return nil
		}
		if r.end == len(r.buf) {
			r.grow(need)
		}
		n, err := r.conn.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			if err == io.EOF && r.end > r.start {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// frame returns the next whole frame of the buffer; ok is false when the rest
// has yet to be read. The payload is valid until the next fill.
func (r *frameReader) frame() (h header, payload []byte, ok bool, err error) {
	n, err := frameLen(r.buf[r.start:r.end], r.terms.maxFrame)
	if err != nil || n == 0 || r.end-r.start < n {
		return header{}, nil, false, err
	}
	h, payload, err = openFrame(r.buf[r.start:r.start+n], r.terms.version)
	r.start += n
	return h, payload, err == nil, err
}

// compact moves what is left to the front.
func (r *frameReader) compact() {
	left := r.end - r.start
	if len(r.buf) > readBufferBytes && left <= readBufferBytes/2 {
		small := make([]byte, readBufferBytes)
		copy(small, r.buf[r.start:r.end])
		r.buf = small
	} else if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
	}
	r.start, r.end = 0, left
}

// grow doubles the full buffer, but not past the frame it has to hold.
func (r *frameReader) grow(need int) {
	size := 2 * len(r.buf)
	if need > len(r.buf) && need < size {
		size = need
	}
	larger := make([]byte, size)
	copy(larger, r.buf[:r.end])
	r.buf = larger
}

// frameWriter writes gathered frames, each piece of them in bounded time.
type frameWriter struct {
	conn     net.Conn
	timeout  time.Duration
	total    time.Duration // for everything that is gathered at once; 0: no bound
	deadline time.Time     // the one set on conn
}

// errSlow is a connection that takes what is written to it too slowly.
var errSlow = errors.New("rpc: connection is too slow")

// write sends b. The deadline of the connection is moved only when half of it
// is used up: setting it costs as much as framing a message.
func (w *frameWriter) write(b []byte) error {
	var began time.Time
	for len(b) > 0 {
		now := time.Now()
		if began.IsZero() {
			began = now
		} else if w.total > 0 && now.Sub(began) > w.total {
			return errSlow
		}
		if w.deadline.Sub(now) < w.timeout {
			w.deadline = now.Add(2 * w.timeout)
			if err := w.conn.SetWriteDeadline(w.deadline); err != nil {
				return fmt.Errorf("set write deadline: %w", err)
			}
		}
		n, err := w.conn.Write(b[:min(len(b), writePieceBytes)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
