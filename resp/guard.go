package resp

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/tidwall/redcon"
)

// A guard stands between a client and redcon's parser, which trusts its input:
// one short request can panic it, spin it or overflow its stack. The guard reads
// from the connection into its own buffer, follows the framing byte by byte as
// it arrives (never twice), enforces every limit before the bytes that a header
// promises are there, and has only whole commands parsed.
//
// Invariant: what is handed to redcon is one well-formed RESP array of at least
// one bulk string. Inline commands are split here, as Redis splits them, and
// what Redis ignores (empty lines, *0, *-1) is left out. An error comes only
// after every command before the fault.
//
// A guard allocates at most twice the bytes received, and nothing on the word of
// a header.
type guard struct {
	conn    net.Conn
	limits  *Limits
	query   *budget      // unfinished bytes, shared by the server's connections
	stop    *atomic.Bool // the server is shutting down
	trust   bool         // logged in, or no password needed
	patient bool         // may be idle: it waits for messages
	since   time.Time    // when the connection was accepted

	buf  []byte
	want int // bytes of buf that the last reads would have filled
	// buf[out:ready] has the whole commands that spans lists; buf[ready:pos] is
	// the checked part of the unfinished one; buf[pos:end] was not looked at.
	out, ready, pos, end int
	spans                []span
	phase                phase
	args                 int // arguments still missing in the unfinished command
	parsed               int // arguments of it that are there
	payload              int // bytes of the present argument still missing, with CRLF
	err                  error
	charged              int64     // bytes taken from query
	begun                time.Time // when the unfinished command was first seen
	deadline             time.Time // as last set on the connection

	read int64 // bytes received
}

// A span is a whole command: a part of the buffer, or the words of an inline
// command.
type span struct {
	start, end int
	words      [][]byte
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
	// queryBuffer is the buffer of a connection that sends one small command at a
	// time, and what is kept when a large one has been served. A connection that
	// fills its buffer, as pipelines do, gets a larger one, up to pipelineBuffer:
	// only what has been read can be under way at the same time.
	queryBuffer    = 4 * kib
	keepBuffer     = 16 * kib
	pipelineBuffer = 64 * kib
	// batchBytes bounds a batch: a run of small commands is cut when it is this
	// long, for parsed commands take more memory than their bytes.
	batchBytes = 16 * kib
	// copies is how often an unfinished command lies in memory while the buffer
	// grows.
	copies = 2
	// argumentBytes is what parsing takes for each argument besides its bytes.
	argumentBytes = 56
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

// next appends the commands that have arrived whole, and waits for one if none
// has. Their arguments are private to them.
func (g *guard) next(dst []redcon.Command) ([]redcon.Command, error) {
	for {
		g.advance()
		switch {
		case len(g.spans) > 0:
			return g.hand(dst)
		case g.err != nil:
			return dst, g.err
		}
		if err := g.fill(); err != nil {
			return dst, err
		}
	}
}

// hand has the whole commands parsed from a copy of the buffer, or from the
// buffer itself when they fill most of it.
func (g *guard) hand(dst []redcon.Command) ([]redcon.Command, error) {
	own, base := g.buf[g.out:g.ready:g.ready], g.out
	if len(own) < keepBuffer || len(own) < len(g.buf)/2 {
		own = bytes.Clone(own)
	} else {
		g.surrender()
	}
	for _, sp := range g.spans {
		cmd := redcon.Command{Args: sp.words}
		if sp.words == nil {
			var err error
			if cmd, err = redcon.Parse(own[sp.start-base : sp.end-base]); err != nil {
				return dst, protocolError(err.Error())
			}
		}
		dst = append(dst, cmd)
	}
	g.spans, g.out = g.spans[:0], g.ready
	return dst, nil
}

// surrender leaves the buffer to the commands in it and goes on with a new one.
func (g *guard) surrender() {
	rest := g.buf[g.ready:g.end]
	size := g.wanted()
	for size < len(rest) {
		size *= 2
	}
	if !g.charge(size) {
		size = len(g.buf) // is charged
	}
	g.buf = make([]byte, size)
	copy(g.buf, rest)
	g.pos, g.end, g.ready = g.pos-g.ready, len(rest), 0
}

// charge makes the bytes taken from the shared budget fit a buffer of size. It
// reports whether the budget allows it; less is always allowed.
func (g *guard) charge(size int) bool {
	due := int64(max(0, size-keepBuffer)) * copies
	if due > 0 {
		due += int64(g.parsed) * argumentBytes
	}
	if more := due - g.charged; more > 0 && !g.query.take(more) {
		return false
	} else if more < 0 {
		g.query.give(-more)
	}
	g.charged = due
	return true
}

// more reports that next has something to say without waiting for the client.
func (g *guard) more() bool {
	g.advance()
	return len(g.spans) > 0 || g.err != nil
}

// release gives the shared budget back; the connection is over.
func (g *guard) release() {
	g.query.give(g.charged)
	g.charged, g.buf, g.spans = 0, nil, nil
}

// A step is what looking at one piece of a command led to.
type step uint8

const (
	again step = iota // go on
	wait              // more bytes are needed
	whole             // a command ends at pos
	halt              // err is set
)

// advance checks what has arrived and lists the whole commands, up to a batch.
func (g *guard) advance() {
	for g.pos < g.end && g.err == nil && g.ready-g.out < batchBytes {
		// Before login each command is run before the next is judged: it may
		// be the login.
		if !g.trust && len(g.spans) > 0 {
			return
		}
		switch g.step() {
		case wait, halt:
			return
		case whole:
			g.spans = append(g.spans, span{start: g.ready, end: g.pos})
			g.settle(g.pos)
		}
	}
}

// settle makes next the beginning of the next command.
func (g *guard) settle(next int) {
	g.ready, g.pos, g.phase, g.parsed, g.begun = next, next, atCommand, 0, time.Time{}
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
		g.settle(g.pos + size) // ignored
		return again
	}
	g.pos += size
	g.args, g.phase = int(n), atLength
	return again
}

func (g *guard) length() step {
	if c := g.buf[g.pos]; c != '$' {
		return g.fail(protocolError("expected '$', got '" + string([]byte{c}) + "'"))
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
	g.parsed++
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
	case len(words) > 0 && (equalFold(words[0], "post") || equalFold(words[0], "host:")):
		return g.fail(errCrossProtocol)
	case len(words) > 0:
		g.spans = append(g.spans, span{words: words})
	}
	g.settle(next)
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

// fill receives more bytes. Requires: no whole command waits to be handed out.
func (g *guard) fill() error {
	if err := g.makeRoom(); err != nil {
		return err
	}
	if err := g.setDeadline(); err != nil {
		return err
	}
	room := len(g.buf) - g.end
	n, err := g.conn.Read(g.buf[g.end:])
	switch g.end += n; {
	case n == room && g.end >= g.want:
		g.want = min(2*g.want, pipelineBuffer)
	case n < g.want/4:
		g.want = max(g.want/2, queryBuffer)
	}
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
	if g.ready > 0 {
		copy(g.buf, g.buf[g.ready:g.end])
		g.pos -= g.ready
		g.end -= g.ready
		g.ready = 0
	}
	g.out = 0
	g.want = max(g.want, queryBuffer)
	size := len(g.buf)
	switch want := g.wanted(); {
	case size < want, g.end == 0 && size > max(want, keepBuffer):
		size = want
	case g.end == size:
		size *= 2
	default:
		return nil
	}
	if !g.charge(size) {
		if g.end < len(g.buf) {
			return nil // it would only be faster
		}
		g.err = errCrowded
		return g.err
	}
	old := g.buf
	g.buf = make([]byte, size)
	copy(g.buf, old[:g.end])
	return nil
}

// wanted is the size of a new buffer. What it has above keepBuffer is charged, but
// must leave half of the budget to commands that cannot do with less.
func (g *guard) wanted() int {
	if g.want > keepBuffer && g.query.used.Load() > g.query.limit/2 {
		return keepBuffer
	}
	return g.want
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
	case g.limits.IdleTimeout > 0 && !g.patient:
		d = time.Now().Add(g.limits.IdleTimeout)
	}
	if login := g.since.Add(g.limits.LoginTimeout); !g.trust && (d.IsZero() || login.Before(d)) {
		d = login
	}
	if !d.Equal(g.deadline) {
		g.deadline = d
		if err := g.conn.SetReadDeadline(d); err != nil {
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
