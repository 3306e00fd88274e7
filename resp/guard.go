package resp

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/tidwall/redcon"
)

// A guard stands between a client and redcon's reader, which trusts its input:
// one short request can panic it, spin it or overflow its stack. The guard reads
// from the socket into its own buffer, follows the framing byte by byte as it
// arrives (never twice), enforces every limit before the bytes a header promises
// are there, and releases only whole commands.
//
// Invariant: what Read returns is a run of well-formed RESP arrays of bulk
// strings with at least one argument. Inline commands are rewritten as arrays;
// what Redis ignores (empty lines, *0, *-1) is left out. A protocolError comes
// only after every command before the fault was released.
//
// A guard allocates at most twice the bytes received, and nothing on the word of
// a header.
type guard struct {
	net.Conn
	limits *Limits
	query  *budget      // unfinished bytes, shared by the server's connections
	stop   *atomic.Bool // the server is shutting down
	trust  bool         // logged in, or no password needed
	since  time.Time    // when the connection was accepted

	buf []byte
	// buf[out:ready] is to be released; buf[ready:pos] is the checked part of
	// the unfinished command; buf[pos:end] has not been looked at.
	out, ready, pos, end int
	inline               []byte // a rewritten inline command, to be released first
	phase                phase
	args                 int // arguments still missing in the unfinished command
	payload              int // bytes of the present argument still missing, with CRLF
	err                  error
	charged              int64     // bytes taken from query
	begun                time.Time // when the unfinished command was first seen
	deadline             time.Time // as last set on the connection

	read  int64 // bytes received
	large bool  // a command of keepReader bytes or more was released
}

// phase says what the byte at pos belongs to.
type phase uint8

const (
	atCommand phase = iota // the first byte of a command
	atCount                // the line "*<count>"
	atLength               // the line "$<length>"
	atPayload              // the bytes of an argument and its CRLF
	atInline               // an inline command
)

const (
	// queryBuffer is the buffer of a connection that sends small commands, and
	// what is kept when a large one has been served.
	queryBuffer = 4 * kib
	keepBuffer  = 16 * kib
	// batchBytes bounds a batch: a run of small commands is cut when it is this
	// long, for parsed commands take more memory than their bytes.
	batchBytes = 16 * kib
	// copies is how often a large command lies in memory while it is parsed:
	// here, in redcon's buffer, and in the private copy of its arguments.
	copies = 3
)

// A protocolError is answered and then ends the connection.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// Framing errors in the words of Redis, where it has words.
const (
	errCount      protocolError = "invalid multibulk length"
	errLength     protocolError = "invalid bulk length"
	errQuotes     protocolError = "unbalanced quotes in request"
	errInlineSize protocolError = "too big inline request"
	errLoginCount protocolError = "unauthenticated multibulk length"
	errLoginBulk  protocolError = "unauthenticated bulk length"
	errTooBig     protocolError = "too big request"
	errCrowded    protocolError = "too many unfinished requests on this server"
)

var (
	// errCrossProtocol ends a connection that speaks HTTP, without an answer: it
	// is a browser tricked into sending commands.
	errCrossProtocol = errors.New("resp: possible cross protocol scripting")
	errStopping      = errors.New("resp: server is stopping")
)

// A budget is a shared bound on bytes.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// Read releases bytes of whole commands; a command longer than p comes in
// pieces.
func (g *guard) Read(p []byte) (int, error) {
	for {
		if len(g.inline) > 0 {
			n := copy(p, g.inline)
			g.inline = g.inline[n:]
			return n, nil
		}
		if g.out < g.ready {
			n := copy(p, g.buf[g.out:g.ready])
			g.out += n
			return n, nil
		}
		if g.err != nil {
			return 0, g.err
		}
		if g.advance() {
			continue
		}
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
}

// more reports that Read has something to say without waiting for the client.
func (g *guard) more() bool {
	return !g.drained() || g.err != nil || g.advance()
}

// drained reports that nothing whole is waiting to be released.
func (g *guard) drained() bool { return g.out == g.ready && len(g.inline) == 0 }

// release gives the shared budget back; the connection is over.
func (g *guard) release() {
	g.query.give(g.charged)
	g.charged, g.buf, g.inline = 0, nil, nil
}

// A step is what looking at one piece of a command led to.
type step uint8

const (
	again step = iota // go on
	wait              // more bytes are needed
	whole             // a command ends at pos
	halt              // what is ready must be released first, or err is set
)

// advance checks what has arrived and reports whether Read has something to
// release or to fail with.
func (g *guard) advance() bool {
	for g.pos < g.end && g.err == nil {
		switch g.step() {
		case wait:
			return g.out < g.ready
		case halt:
			return true
		case whole:
			g.large = g.large || g.pos-g.ready >= keepReader
			g.ready, g.phase, g.begun = g.pos, atCommand, time.Time{}
			// Before login each command is run before the next is judged: it
			// may be the login.
			if !g.trust || g.ready-g.out >= batchBytes {
				return true
			}
		}
	}
	return g.out < g.ready || g.err != nil
}

func (g *guard) step() step {
	switch g.phase {
	case atCommand:
		g.phase = atInline
		if g.buf[g.pos] == '*' {
			g.phase = atCount
		}
		return again
	case atCount:
		return g.count()
	case atLength:
		return g.length()
	case atPayload:
		return g.skip()
	default:
		return g.line()
	}
}

func (g *guard) count() step {
	n, size, st := headerNumber(g.buf[g.pos:g.end])
	switch {
	case st == wait:
		return wait
	case st == halt || n > int64(g.limits.MaxArgs):
		return g.fail(errCount)
	case n > int64(g.limits.MaxLoginArgs) && !g.trust:
		return g.fail(errLoginCount)
	case n <= 0:
		return g.drop(g.pos + size)
	}
	g.pos += size
	g.args, g.phase = int(n), atLength
	return again
}

func (g *guard) length() step {
	if c := g.buf[g.pos]; c != '$' {
		return g.fail(protocolError("expected '$', got '" + string(rune(c)) + "'"))
	}
	n, size, st := headerNumber(g.buf[g.pos:g.end])
	switch {
	case st == wait:
		return wait
	case st == halt || n < 0 || n > int64(g.limits.MaxBulk):
		return g.fail(errLength)
	case n > int64(g.limits.MaxLoginBulk) && !g.trust:
		return g.fail(errLoginBulk)
	case g.pos+size-g.ready+int(n) > g.limits.MaxCommand:
		return g.fail(errTooBig)
	}
	g.pos += size
	g.payload, g.phase = int(n)+2, atPayload
	return again
}

func (g *guard) skip() step {
	if have := g.end - g.pos; have < g.payload {
		// Stop two short, so that the CRLF is looked at in one piece.
		if have = min(have, g.payload-2); have > 0 {
			g.pos += have
			g.payload -= have
		}
		return wait
	}
	g.pos += g.payload
	if g.buf[g.pos-2] != '\r' || g.buf[g.pos-1] != '\n' {
		return g.fail(errLength)
	}
	g.args--
	g.phase = atLength
	if g.args == 0 {
		return whole
	}
	return again
}

// line handles an inline command once its line has ended.
func (g *guard) line() step {
	i := bytes.IndexByte(g.buf[g.pos:g.end], '\n')
	limit := g.limits.MaxInline
	if !g.trust {
		limit = min(limit, g.limits.MaxLoginBulk)
	}
	if n := g.pos - g.ready + i; n > limit || (i < 0 && g.end-g.ready > limit) {
		return g.fail(errInlineSize)
	}
	if i < 0 {
		g.pos = g.end
		return wait
	}
	next := g.pos + i + 1
	words, ok := splitInline(bytes.TrimSuffix(g.buf[g.ready:next-1], []byte{'\r'}))
	switch {
	case !ok:
		return g.fail(errQuotes)
	case len(words) == 0:
		return g.drop(next)
	case equalFold(words[0], "post"), equalFold(words[0], "host:"):
		return g.fail(errCrossProtocol)
	}
	if st := g.drop(next); st == halt {
		return halt
	}
	g.inline = redcon.AppendArray(g.inline[:0], len(words))
	for _, word := range words {
		g.inline = redcon.AppendBulk(g.inline, word)
	}
	return halt
}

// drop leaves out the bytes up to next, which begin where the last whole command
// ended. What comes before them must be released first.
func (g *guard) drop(next int) step {
	if g.out < g.ready {
		g.pos, g.phase = g.ready, atCommand
		return halt
	}
	g.out, g.ready, g.pos = next, next, next
	g.phase, g.begun = atCommand, time.Time{}
	return again
}

func (g *guard) fail(err error) step {
	g.err = err
	return halt
}

// headerNumber reads "<type><number>CRLF": the number as Redis accepts it (no
// plus, no leading zero, no space), and the length of the line. It answers wait
// when the line is not complete, halt when it can no longer become valid.
func headerNumber(b []byte) (n int64, size int, st step) {
	i, negative := 1, false
	if i < len(b) && b[i] == '-' {
		negative = true
		i++
	}
	first := i
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if i-first == 18 || (i > first && b[first] == '0') {
			return 0, 0, halt // past every limit anyhow
		}
		n = n*10 + int64(b[i]-'0')
	}
	switch {
	case i == len(b):
		return 0, 0, wait
	case b[i] != '\r' || i == first || (negative && n == 0):
		return 0, 0, halt
	case i+1 == len(b):
		return 0, 0, wait
	case b[i+1] != '\n':
		return 0, 0, halt
	case negative:
		n = -n
	}
	return n, i + 2, again
}

// fill receives more bytes. Requires: nothing waits to be released.
func (g *guard) fill() error {
	if err := g.makeRoom(); err != nil {
		return err
	}
	if err := g.setDeadline(); err != nil {
		return err
	}
	n, err := g.Conn.Read(g.buf[g.end:])
	g.end += n
	g.read += int64(n)
	if n > 0 {
		return nil
	}
	if err != nil && g.stop.Load() {
		return errStopping
	}
	return err
}

// makeRoom moves the unfinished command to the front and grows or shrinks the
// buffer. The bytes past keepBuffer are charged to the server's budget.
func (g *guard) makeRoom() error {
	if g.out > 0 {
		copy(g.buf, g.buf[g.out:g.end])
		g.ready -= g.out
		g.pos -= g.out
		g.end -= g.out
		g.out = 0
	}
	size := len(g.buf)
	switch {
	case g.end == 0 && size > keepBuffer, size == 0:
		size = queryBuffer
	case g.end == size:
		size *= 2
	default:
		return nil
	}
	charge := int64(max(0, size-keepBuffer)) * copies
	if more := charge - g.charged; more > 0 && !g.query.take(more) {
		g.err = errCrowded
		return g.err
	} else if more < 0 {
		g.query.give(-more)
	}
	g.charged = charge
	old := g.buf
	g.buf = make([]byte, size)
	copy(g.buf, old[:g.end])
	return nil
}

// setDeadline gives an unfinished command its time to arrive, and an idle
// connection its time to ask; it touches the connection only on a change.
func (g *guard) setDeadline() error {
	var d time.Time
	switch {
	case g.end > g.ready:
		if g.begun.IsZero() {
			g.begun = time.Now()
		}
		d = g.begun.Add(g.limits.ReadTimeout)
	case g.limits.IdleTimeout > 0:
		d = time.Now().Add(g.limits.IdleTimeout)
	}
	if login := g.since.Add(g.limits.LoginTimeout); !g.trust && (d.IsZero() || login.Before(d)) {
		d = login
	}
	if !d.Equal(g.deadline) {
		g.deadline = d
		if err := g.Conn.SetReadDeadline(d); err != nil {
			return err
		}
	}
	// After the deadline is set: a stop that came earlier has set its own
	// deadline, which was just overwritten; a later one will set it again.
	if g.stop.Load() {
		return errStopping
	}
	return nil
}
