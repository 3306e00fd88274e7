package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errStrayReply is a reply to a request nobody sent, or of another kind.
	errStrayReply = fmt.Errorf("%w: reply without a request", ErrMalformed)
	// errRemote marks a call whose payload is an error.
	errRemote = errors.New("rpc: error reply")
)

// session is one connection of a lane, with one goroutine that reads and one
// that writes. Whichever fails first ends both.
type session struct {
	lane     *lane
	conn     net.Conn
	maxFrame int
	opened   time.Duration
	heard    atomic.Int64 // instant of the newest reply

	wake *sync.Cond // on the lane's lock: there is something to write
	idle bool       // under the lane's lock: the writer waits for it
}

// arrival is one reply frame.
type arrival struct {
	header
	payload []byte
}

func newSession(l *lane, conn net.Conn, maxFrame int) *session {
	return &session{
		lane:     l,
		conn:     conn,
		maxFrame: maxFrame,
		opened:   l.p.pool.since(time.Now()),
		wake:     sync.NewCond(&l.mu.Mutex),
	}
}

func (s *session) write() {
	w := frameWriter{conn: s.conn, timeout: s.lane.p.pool.cfg.WriteTimeout}
	var out []byte
	for {
		if out = s.lane.takeOut(s, out); out == nil {
			return
		}
		s.lane.p.pool.count.sent.Add(len(out))
		if err := w.write(out); err != nil {
			s.end(err)
			return
		}
	}
}

// read takes what has arrived, as many frames as there are, and then runs
// their callbacks.
func (s *session) read() {
	r := newFrameReader(s.conn, s.maxFrame)
	var arrived []arrival
	var calls []ended
	for {
		err := r.fill()
		if err == nil {
			arrived, err = gather(r, arrived[:0])
			calls = calls[:0]
			var settled error
			calls, settled = s.settle(calls, arrived)
			err = errors.Join(err, settled)
			clear(calls)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// gather returns the whole frames that are buffered. On an error they are the
// ones before the bad frame.
func gather(r *frameReader, dst []arrival) ([]arrival, error) {
	for {
		h, payload, ok, err := r.frame()
		if err != nil || !ok {
			return dst, err
		}
		if !h.kind.reply() {
			return dst, fmt.Errorf("%w: %v is no reply", ErrMalformed, h.kind)
		}
		dst = append(dst, arrival{header: h, payload: payload})
	}
}

// settle completes the calls the arrived replies answer.
func (s *session) settle(calls []ended, arrived []arrival) ([]ended, error) {
	p := s.lane.p
	calls, late, err := s.lane.settle(calls, arrived)
	if late > 0 {
		p.pool.count.late.Add(late)
	}
	if len(arrived) > 0 {
		at := p.pool.since(time.Now())
		s.heard.Store(int64(at))
		p.health.heard(at, calls, !s.lane.bulk)
	}
	for i := range calls {
		if bad := calls[i].answer(); bad != nil && err == nil {
			err = bad
		}
	}
	return calls, err
}

// answer completes a call with its reply. The payload is copied out of the read
// buffer, because callers keep records.
func (e *ended) answer() error {
	if e.err == errRemote {
		remote, err := decodeError(e.payload)
		if err != nil {
			remote = ErrClosed
		}
		return errors.Join(err, e.done.complete(nil, remote))
	}
	var own []byte
	if len(e.payload) > 0 {
		own = bytes.Clone(e.payload)
	}
	return e.done.complete(own, nil)
}

// end closes the connection and ends the calls that were using it. Only the
// first of its two goroutines finds anything to do.
func (s *session) end(err error) {
	calls, first := s.lane.detach(s)
	_ = s.conn.Close() // whatever it says, the connection is not used again
	if !first {
		return
	}
	s.lane.p.broke(s, calls, err)
}
