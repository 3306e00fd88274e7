package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

var (
	// errReplayed is a request id that does not ascend.
	errReplayed = fmt.Errorf("%w: request id repeated", ErrMalformed)
	// errBacklog is a caller that sends and does not read.
	errBacklog = errors.New("rpc: caller does not read its replies")
)

// serverConn is one accepted connection. Its reader runs the handlers; replies
// gather in out. While a batch of requests is being handled nothing is sent
// (corked), then the reader itself sends all replies the batch produced. The
// replies that come later are sent by the writer.
type serverConn struct {
	s      *Server
	conn   net.Conn
	from   ring.NodeID
	terms  terms
	lastID uint64 // of the newest request; the reader's own
	fresh  fresh  // the reader's own
	w      frameWriter

	wake sync.Cond // on mu: something in the fields below has changed
	mu   struct {
		sync.Mutex
		out     []byte
		spare   []byte // the buffer written last
		writing int    // bytes being written; whoever writes has w
		corked  bool
		idle    bool // the writer waits
		full    bool // the reader waits
		held    bool // the server's cork knows of out
		err     error
		told    *byte // the first of the state that went out last
		toldAt  time.Time
	}
}

// refusedLogEvery is the time between log lines about refused connections:
// whoever reaches the port can open many.
const refusedLogEvery = 10 * time.Second

// logRefused writes one line for all connections refused since the last.
func (s *Server) logRefused(remote net.Addr, err error) {
	s.mu.Lock()
	now := time.Now()
	if now.Sub(s.mu.refusedLogged) < refusedLogEvery {
		s.mu.refusedSilent++
		s.mu.Unlock()
		return
	}
	silent := s.mu.refusedSilent
	s.mu.refusedLogged, s.mu.refusedSilent = now, 0
	s.mu.Unlock()
	s.cfg.Logger.Warn("peer connection refused", "remote", remote, "err", err, "more_since_last", silent)
}

// serveConn owns one connection from its handshake to its end.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	c, err := s.welcome(conn)
	if err != nil {
		s.count.handshakes.Inc()
		if ctx.Err() == nil {
			s.logRefused(conn.RemoteAddr(), err)
		}
		return
	}
	var wg sync.WaitGroup
	wg.Go(c.write)
	c.stop(c.read())
	wg.Wait()
	err = c.failure()
	switch {
	case ctx.Err() != nil || errors.Is(err, io.EOF):
	case errors.Is(err, ErrMalformed):
		s.count.badFrames.Inc()
		s.cfg.Logger.Warn("peer sent a bad frame", "peer", c.from, "remote", conn.RemoteAddr(), "err", err)
	case errors.Is(err, errOld):
		s.count.old.Inc()
		s.cfg.Logger.Warn("peer connection closed", "peer", c.from, "remote", conn.RemoteAddr(), "err", err)
	case errors.Is(err, errOutgrown):
		s.count.handshakes.Inc() // it will not pass another
		s.cfg.Logger.Warn("peer connection closed", "peer", c.from, "remote", conn.RemoteAddr(), "err", err)
	case errors.Is(err, errBacklog):
		s.count.slow.Inc()
		s.cfg.Logger.Warn("peer connection closed", "peer", c.from, "remote", conn.RemoteAddr(), "err", err)
	}
}

// welcome does the handshake.
func (s *Server) welcome(conn net.Conn) (*serverConn, error) {
	if err := conn.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	h, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	us := hello{
		cluster: s.cfg.ClusterID(), from: s.cfg.Node, maxFrame: uint32(s.cfg.MaxFrameBytes),
	}
	us.min, us.max = s.cfg.Levels().versions()
	answer, refusal := admit(h, us)
	now := s.stampOf(time.Now()) // before the answer, and so before all requests
	if _, err := conn.Write(appendHello(nil, answer)); err != nil || refusal != nil {
		return nil, errors.Join(refusal, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	c := &serverConn{
		s:     s,
		conn:  conn,
		from:  h.from,
		terms: terms{answer.min, min(s.cfg.MaxFrameBytes, int(min(h.maxFrame, maxFrameLimit)))},
		fresh: fresh{now},
		w:     frameWriter{conn: conn, timeout: s.cfg.WriteTimeout},
	}
	c.wake.L = &c.mu.Mutex
	return c, nil
}

// read handles requests in the order they come, all that one read brought
// before their replies are sent.
func (c *serverConn) read() error {
	r := newFrameReader(c.conn, c.terms)
	idle := c.s.cfg.IdleTimeout
	var deadline time.Time
	now := time.Now()
	for {
		if deadline.Sub(now) < idle {
			deadline = now.Add(2 * idle)
			if err := c.conn.SetReadDeadline(deadline); err != nil {
				return err
			}
		}
		if err := r.fill(); err != nil {
			return err
		}
		if err := c.cork(); err != nil {
			return err
		}
		now = time.Now() // after any wait: what was read by then is as old as this says
		if err := c.fresh.check(c.s.stampOf(now), c.s.ages.silence); err != nil {
			return err
		}
		if c.terms.version < protocolMax {
			if oldest, _ := c.s.cfg.Levels().versions(); c.terms.version < oldest {
				return errOutgrown
			}
		}
		c.s.cfg.Cork.In() // for what handlers ask of others
		err := c.handle(r, now)
		c.s.cfg.Cork.Out()
		if err := errors.Join(err, c.flush()); err != nil {
			return err
		}
	}
}

// handle runs the handlers of every whole frame that is buffered. arrived is
// when the last of them was read.
func (c *serverConn) handle(r *frameReader, arrived time.Time) error {
	now := arrived
	for n := 1; ; n++ {
		h, payload, ok, err := r.frame()
		if err != nil || !ok {
			return err
		}
		if !h.kind.request() || !h.kind.spoken(c.terms.version) {
			return fmt.Errorf("%w: %v is no request", ErrMalformed, h.kind)
		}
		if n%16 == 0 {
			now = time.Now()
		}
		if h.kind == KindStamp {
			if err := c.fresh.renew(payload, c.s.stampOf(now), c.s.ages.silence); err != nil {
				return err
			}
			continue
		}
		if h.id <= c.lastID {
			return errReplayed
		}
		c.lastID = h.id
		if err := c.admit(h, payload, c.meta(h, arrived), now); err != nil {
			return err
		}
	}
}

// meta is what the frame says of a request that arrived then.
func (c *serverConn) meta(h header, arrived time.Time) Meta {
	left := c.s.ages.call
	if asked := time.Duration(h.deadlineMS) * time.Millisecond; asked > 0 {
		left = min(left, asked)
	}
	return Meta{From: c.from, Class: h.class, Deadline: arrived.Add(left), Epochs: h.epochs}
}

// admit drops a request nobody waits for, refuses one that goes by epochs which are
// over or that there is no room for, and dispatches the others.
func (c *serverConn) admit(h header, payload []byte, meta Meta, now time.Time) error {
	s := c.s
	s.count.requests[h.kind].Inc()
	if !now.Before(meta.Deadline) {
		s.count.expired.Inc()
		return nil
	}
	if h.kind == KindPing {
		if len(payload) != 0 {
			return ErrMalformed
		}
		c.send(h, func(b []byte) []byte { return appendStamp(b, s.stampOf(now)) })
		return nil
	}
	if h.kind.stamped(c.terms.version) && s.cfg.Stale(c.from, h.epochs, h.kind.reads()) {
		c.sendStale(h)
		return nil
	}
	size := headerBytes + len(payload)
	if !s.take(h.class, size) {
		s.count.overloaded[h.class].Inc()
		c.sendError(h, ErrOverloaded)
		return nil
	}
	return c.dispatch(&request{c: c, h: h, bytes: size}, payload, meta)
}

// cork holds replies back while a batch is handled. It first waits until the
// caller has read enough of the earlier ones.
func (c *serverConn) cork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.mu.out)+c.mu.writing > c.s.cfg.MaxBacklogBytes && c.mu.err == nil {
		c.mu.full = true
		c.wake.Wait()
		c.mu.full = false
	}
	c.mu.corked = true
	return c.mu.err
}

// flush ends a batch and sends what it produced, unless the writer is sending
// and will do so anyway.
func (c *serverConn) flush() error {
	c.mu.Lock()
	c.mu.corked = false
	if c.mu.writing > 0 || len(c.mu.out) == 0 {
		err := c.mu.err
		c.mu.Unlock()
		return err
	}
	out := c.takeLocked()
	c.mu.Unlock()
	return c.put(out)
}

// write is the writer: it sends what gathers outside of batches.
func (c *serverConn) write() {
	for {
		c.mu.Lock()
		for c.mu.err == nil && (len(c.mu.out) == 0 || c.mu.corked || c.mu.writing > 0) {
			c.mu.idle = true
			c.wake.Wait()
			c.mu.idle = false
			c.mu.Unlock()
			runtime.Gosched() // let whoever else has an answer put it there
			c.mu.Lock()
		}
		if c.mu.err != nil {
			c.mu.Unlock()
			return
		}
		out := c.takeLocked()
		c.mu.Unlock()
		if err := c.put(out); err != nil {
			c.stop(err)
			return
		}
	}
}

// takeLocked hands the gathered replies to the one who will put them on the
// connection. Requires: writing is 0.
func (c *serverConn) takeLocked() []byte {
	out := c.mu.out
	c.mu.out = c.mu.spare[:0]
	c.mu.spare = nil
	c.mu.writing = len(out)
	return out
}

// put writes what takeLocked returned.
func (c *serverConn) put(out []byte) error {
	c.s.count.sent.Add(len(out))
	err := c.w.write(out)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.writing = 0
	if cap(out) <= keepBufferBytes {
		c.mu.spare = out[:0]
	}
	if c.mu.full || c.mu.idle && len(c.mu.out) > 0 {
		c.wake.Broadcast()
	}
	return err
}

// send gathers one reply. A reply no frame can hold goes out as ErrTooLarge.
func (c *serverConn) send(h header, enc func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		return
	}
	start := len(c.mu.out)
	c.mu.out = beginFrame(c.mu.out, header{kind: h.kind | replyBit, class: h.class, id: h.id}, c.terms.version)
	c.mu.out = enc(c.mu.out)
	if len(c.mu.out)-start > c.terms.maxFrame {
		c.mu.out = beginFrame(c.mu.out[:start], header{kind: kindError, class: h.class, id: h.id}, c.terms.version)
		c.mu.out = appendError(c.mu.out, ErrTooLarge)
	}
	c.sealLocked(start)
}

// sendError gathers the reply of a request that brought an error.
func (c *serverConn) sendError(h header, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		return
	}
	start := len(c.mu.out)
	c.mu.out = beginFrame(c.mu.out, header{kind: kindError, class: h.class, id: h.id}, c.terms.version)
	c.mu.out = appendError(c.mu.out, errorIn(c.terms.version, err))
	c.sealLocked(start)
}

func (c *serverConn) sealLocked(start int) {
	sealFrame(c.mu.out[start:])
	if len(c.mu.out)+c.mu.writing > 4*c.s.cfg.MaxBacklogBytes {
		c.stopLocked(errBacklog)
	} else if c.mu.idle && !c.mu.corked && !c.holdLocked() {
		c.wake.Broadcast()
	}
}

// holdLocked reports whether the gathered replies wait for the end of a burst.
func (c *serverConn) holdLocked() bool {
	if len(c.mu.out) >= burstBytes {
		return false
	}
	c.mu.held = c.mu.held || c.s.cfg.Cork.Hold(c)
	return c.mu.held
}

// Uncork implements cork.Conn.
func (c *serverConn) Uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.held = false
	if c.mu.idle && !c.mu.corked && len(c.mu.out) > 0 {
		c.wake.Broadcast()
	}
}

// stop ends the connection; the first reason is the one that counts.
func (c *serverConn) stop(err error) {
	c.mu.Lock()
	c.stopLocked(err)
	c.mu.Unlock()
}

func (c *serverConn) stopLocked(err error) {
	if c.mu.err != nil {
		return
	}
	c.mu.err = err
	c.mu.out, c.mu.spare = nil, nil
	c.wake.Broadcast()
	_ = c.conn.Close() // closing is how its goroutines are woken
}

func (c *serverConn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}
