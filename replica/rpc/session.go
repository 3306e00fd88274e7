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
	lane   *lane
	conn   net.Conn
	terms  terms
	opened time.Duration
	heard  atomic.Int64 // instant of the newest reply

	// Under the lane's lock.
	wake      *sync.Cond // there is something to write
	idle      bool       // the writer waits for it
	stamp     stamp      // the newest that a ping brought
	stampNews bool       // the server has not been told that it was heard
}

// arrival is one reply frame.
type arrival struct {
	header
	payload []byte
}

func newSession(l *lane, conn net.Conn, t terms) *session {
	return &session{
		lane:   l,
		conn:   conn,
		terms:  t,
		opened: l.p.pool.since(time.Now()),
		wake:   sync.NewCond(&l.mu.Mutex),
	}
}

// lastSign is when the other side last showed on this connection that it lives.
func (s *session) lastSign() time.Duration { return max(time.Duration(s.heard.Load()), s.opened) }

func (s *session) write() {
	p := s.lane.p.pool
	w := frameWriter{conn: s.conn, timeout: p.cfg.WriteTimeout, total: p.ages.silence}
	var out, mark, marked []byte
	for {
		if out, mark = s.lane.takeOut(s, out); out == nil {
			return
		}
		p.count.sent.Add(len(mark) + len(out))
		var err error
		if len(mark) > 0 && len(out) < burstBytes {
			marked = append(append(marked[:0], mark...), out...)
			err = w.write(marked)
		} else if err = w.write(mark); err == nil {
			err = w.write(out)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// read takes what has arrived, as many frames as there are, and then runs
// their callbacks.
func (s *session) read() {
	r := newFrameReader(s.conn, s.terms)
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
	at := p.pool.since(time.Now())
	calls, late, err := s.lane.settle(calls, arrived, at)
	if late > 0 {
		p.pool.count.late.Add(late)
	}
	if len(arrived) > 0 {
		s.heard.Store(int64(at))
		p.health.heard(at, calls)
	}
	p.pool.cfg.Cork.In()
	defer p.pool.cfg.Cork.Out()
	for i := range calls {
		if c := &calls[i]; c.kind == KindPing && c.err == nil {
			if m, bad := decodeStamp(c.payload); bad == nil { // else answer finds it bad
				s.lane.heardStamp(s, m, at)
			}
		}
		if calls[i].err == errRemote {
			p.tellStale(calls[i].payload)
			p.heardBehind(calls[i].payload)
		}
		if bad := calls[i].answer(); bad != nil && err == nil {
			err = bad
		}
	}
	if !s.lane.bulk && len(calls) > 0 {
		p.health.handled(p.pool.since(time.Now()), calls)
	}
	return calls, err
}

// discardUnsent makes the close of a connection drop what was not sent.
func discardUnsent(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0) // fails on a connection that is gone
	}
}

// answer completes a call with its reply. The payload is copied out of the read
// buffer, because callers keep records.
func (e *ended) answer() error {
	if e.err == errRemote {
		remote, err := decodeError(e.payload)
		if err != nil {
			remote = ErrClosed
		} else if _, stale := remote.(*staleError); stale {
			remote = ErrStaleEpoch // what it says beside that was told; see tellStale
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
// first of its two goroutines finds anything to do. What the kernel has not sent
// yet is thrown away, unless this side stops in order: nobody waits for it any
// more, and a link that heals would still carry it.
func (s *session) end(err error) {
	calls, first := s.lane.detach(s)
	if err != ErrClosed {
		discardUnsent(s.conn)
	}
	_ = s.conn.Close() // whatever it says, the connection is not used again
	if !first {
		return
	}
	s.lane.p.brokeAt.Store(int64(s.lane.p.pool.since(time.Now())))
	s.lane.p.broke(s, calls, err)
}
