package resp

import (
	"cmp"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/resp/acl"
)

// A client is what one connection shows to the others (CLIENT LIST, CLIENT
// KILL). Its session belongs to its own goroutine; this part is shared.
type client struct {
	id     int64
	conn   net.Conn
	addr   string
	laddr  string
	since  time.Time // wall clock
	used   atomic.Int64
	last   atomic.Pointer[command]
	proto  atomic.Int32
	killed atomic.Bool
	user   atomic.Pointer[acl.User]
	block  atomic.Pointer[block]      // nil unless a command waits for long
	gone   chan struct{}              // closed with killed
	sub    atomic.Pointer[subscriber] // nil if it never subscribed

	queued      atomic.Int64 // commands behind MULTI and one more; 0 without MULTI
	queuedBytes atomic.Int64

	mu struct {
		sync.Mutex
		labels
	}
}

// labels are what a client says of itself.
type labels struct {
	name, lib, libVersion string
	noEvict, noTouch      bool
}

func newClient(id int64, nc net.Conn, user *acl.User, now time.Time) *client {
	c := &client{id: id, conn: nc, gone: make(chan struct{}), addr: addrText(nc.RemoteAddr()), laddr: addrText(nc.LocalAddr()), since: now}
	c.used.Store(now.UnixMilli())
	c.proto.Store(2)
	c.user.Store(user)
	return c
}

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func (c *client) labels() labels {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.labels
}

func (c *client) label(change func(l *labels)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.mu.labels)
}

// kill closes the connection; its goroutine notices.
func (c *client) kill() {
	if !c.killed.Swap(true) {
		close(c.gone)
	}
	c.unblock(errBlockEnded)
	conn := c.conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn() // the farewell of TLS would wait for a client that does not read
	}
	_ = conn.Close() // the client may have been faster
}

func sortClients(all []*client) {
	slices.SortFunc(all, func(a, b *client) int { return cmp.Compare(a.id, b.id) })
}

// Buffers of a connection.
const (
	// keepBatch is the largest batch whose slice is kept.
	keepBatch = 64
	// keepReplies is the largest reply buffer kept between batches.
	keepReplies = 16 * kib
	// heldReply is the size from which unsent replies count as held.
	heldReply = 16 * kib
)

// loop reads batches and answers them until the client leaves, errs, is closed,
// or the server stops.
func (s *session) loop() {
	for !s.closing {
		var err error
		if s.batch, err = s.guard.next(s.batch[:0]); err != nil {
			s.farewell(err)
			return
		}
		s.execute(s.batch)
		// Commands that have arrived whole join those in flight; only before
		// waiting for the client is everything answered.
		if !s.closing && s.guard.more() {
			continue
		}
		s.settle()
		if s.flush() != nil || s.client.killed.Load() {
			return
		}
		s.tidy()
	}
}

// farewell answers what made the connection end, where Redis would.
func (s *session) farewell(err error) {
	s.settle()
	_ = s.flush() // the connection ends either way
	var protocol protocolError
	switch {
	case errors.As(err, &protocol):
		s.srv.counts.protocolErrors.Add(1)
		s.reply.Error("ERR " + protocol.Error())
		_ = s.flush()
	case errors.Is(err, errCrossProtocol):
		s.srv.counts.protocolErrors.Add(1)
		s.srv.logHTTP(s.client.addr)
	}
}

// httpLogEvery is the time between log lines about HTTP, as in Redis: a browser
// or a health check on the wrong port comes again and again.
const httpLogEvery = time.Minute

func (s *Server) logHTTP(peer string) {
	now := time.Since(s.begun)
	last := s.httpLogged.Load()
	if last != 0 && now-time.Duration(last) < httpLogEvery || !s.httpLogged.CompareAndSwap(last, int64(max(now, 1))) {
		return
	}
	s.cfg.Logger.Warn("possible security attack: HTTP sent to the Redis port; connection closed", "peer", peer)
}

// flush sends the replies there are. A client that does not take them within
// WriteTimeout is cut off.
func (s *session) flush() error {
	w := &s.reply
	if len(w.buf) == 0 && s.owed == 0 {
		return nil
	}
	if s.broken {
		w.buf = w.buf[:0]
		return net.ErrClosed
	}
	s.uncork() // the client may be slow to take them
	s.countFailed()
	n := int64(len(w.buf))
	held := n >= heldReply
	if held {
		s.srv.replies.used.Add(n)
	}
	err := s.send(w.buf)
	if held {
		s.srv.replies.used.Add(-n)
	}
	w.buf = w.buf[:0]
	if cap(w.buf) > keepReplies || s.sub != nil && err != nil { // it may still be queued
		w.buf = nil
	}
	if err != nil {
		s.closing, s.broken = true, true
	}
	return err
}

// send writes replies, behind the messages there are if there may be any.
func (s *session) send(b []byte) error {
	if s.sub != nil {
		s.owed = 0
		return s.sub.out.reply(b)
	}
	s.srv.counts.netOutput.Add(int64(len(b)))
	if err := s.client.conn.SetWriteDeadline(time.Now().Add(s.limits().WriteTimeout)); err != nil {
		return err
	}
	_, err := s.client.conn.Write(b)
	return err
}

func (s *session) countFailed() {
	if s.reply.failed > 0 {
		s.srv.counts.errorReplies.Add(s.reply.failed)
		s.reply.failed = 0
	}
}

// tidy drops what the batch still points to and keeps the books.
func (s *session) tidy() {
	s.srv.counts.netInput.Add(s.guard.read - s.counted)
	s.counted = s.guard.read
	clear(s.batch[:cap(s.batch)])
	if cap(s.batch) > keepBatch {
		s.batch = nil
	}
}
