package resp

import (
	"math"
	"strconv"

	"github.com/tidwall/redcon"
)

// A Reply builds replies in the connection's protocol version by appending to
// one buffer. Aggregates are announced with their length and followed by that
// many elements (twice that many for a map).
type Reply struct {
	buf    []byte
	proto  int    // 2 or 3
	failed uint64 // error replies written, for INFO

	// most is where the present reply must end, 0 for anywhere. One that would
	// go past it is replaced by an error as a whole.
	most     int
	overflow bool
}

// begin marks the beginning of a reply of at most size bytes and returns its
// offset.
func (w *Reply) begin(size int) (at int) {
	at = len(w.buf)
	w.most, w.overflow = at+size, false
	return at
}

// fits notes when n more bytes are too many.
func (w *Reply) fits(n int) bool {
	if w.most > 0 && len(w.buf)+n > w.most {
		w.overflow = true
		return false
	}
	return true
}

// Proto is the connection's protocol version, 2 or 3.
func (w *Reply) Proto() int { return w.proto }

// Len is the number of bytes not yet sent.
func (w *Reply) Len() int { return len(w.buf) }

// Simple writes a status such as OK. Line ends in s become spaces.
func (w *Reply) Simple(s string) { w.buf = redcon.AppendString(w.buf, s) }

// Error writes an error; msg begins with its code word ("ERR syntax error").
func (w *Reply) Error(msg string) {
	w.failed++
	w.buf = redcon.AppendError(w.buf, msg)
}

// Fail writes err in the words of the error table.
func (w *Reply) Fail(err error) { w.Error(errorText(err)) }

// Int writes an integer.
func (w *Reply) Int(n int64) { w.buf = redcon.AppendInt(w.buf, n) }

// Bulk writes a byte string; nil is the empty string, not null.
func (w *Reply) Bulk(b []byte) {
	if w.fits(len(b)) {
		w.buf = redcon.AppendBulk(w.buf, b)
	}
}

// BulkString writes a byte string.
func (w *Reply) BulkString(s string) { w.buf = redcon.AppendBulkString(w.buf, s) }

// Null writes the absent value ($-1 before RESP3).
func (w *Reply) Null() { w.null("$-1\r\n") }

// NullArray writes the absent array (*-1 before RESP3).
func (w *Reply) NullArray() { w.null("*-1\r\n") }

func (w *Reply) null(resp2 string) {
	if w.proto == 3 {
		resp2 = "_\r\n"
	}
	w.buf = append(w.buf, resp2...)
}

// Array announces n elements.
func (w *Reply) Array(n int) { w.header('*', n) }

// Map announces n pairs.
func (w *Reply) Map(n int) {
	if w.proto == 3 {
		w.header('%', n)
		return
	}
	w.header('*', 2*n)
}

// Set announces n distinct elements.
func (w *Reply) Set(n int) { w.aggregate('~', n) }

// Push announces an out-of-band message of n elements.
func (w *Reply) Push(n int) { w.aggregate('>', n) }

func (w *Reply) aggregate(kind byte, n int) {
	if w.proto != 3 {
		kind = '*'
	}
	w.header(kind, n)
}

func (w *Reply) header(kind byte, n int) {
	w.buf = append(w.buf, kind)
	w.buf = strconv.AppendInt(w.buf, int64(n), 10)
	w.buf = append(w.buf, '\r', '\n')
}

// Verbatim writes text with a three-letter format ("txt"); before RESP3 the
// format is dropped.
func (w *Reply) Verbatim(format, text string) {
	if w.proto != 3 {
		w.BulkString(text)
		return
	}
	w.header('=', len(format)+1+len(text))
	w.buf = append(w.buf, format...)
	w.buf = append(w.buf, ':')
	w.buf = append(w.buf, text...)
	w.buf = append(w.buf, '\r', '\n')
}

// Double writes a floating-point number; before RESP3 as a byte string.
func (w *Reply) Double(f float64) {
	var room [32]byte
	text := strconv.AppendFloat(room[:0], f, 'g', 17, 64)
	switch {
	case math.IsInf(f, 1):
		text = append(room[:0], "inf"...)
	case math.IsInf(f, -1):
		text = append(room[:0], "-inf"...)
	case math.IsNaN(f):
		text = append(room[:0], "nan"...)
	}
	if w.proto != 3 {
		w.Bulk(text)
		return
	}
	w.buf = append(w.buf, ',')
	w.buf = append(w.buf, text...)
	w.buf = append(w.buf, '\r', '\n')
}

// Bool writes a truth value; before RESP3 as 1 or 0.
func (w *Reply) Bool(b bool) {
	switch {
	case w.proto == 3 && b:
		w.buf = append(w.buf, "#t\r\n"...)
	case w.proto == 3:
		w.buf = append(w.buf, "#f\r\n"...)
	case b:
		w.Int(1)
	default:
		w.Int(0)
	}
}

// Raw appends bytes that are already a reply in this protocol version.
func (w *Reply) Raw(b []byte) {
	if w.fits(len(b)) {
		w.buf = append(w.buf, b...)
	}
}
