package resp

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Server is one door of a node: an accept loop and the connections it made.
type Server struct {
	cfg    Config
	table  *table
	hub    *Hub
	begun  time.Time // monotonic
	access *Access
	params params
	counts counts

	query   budget       // bytes of unfinished commands
	replies budget       // reply bytes being sent; past it pipelines slow down
	queued  budget       // bytes of commands behind MULTI and of watched keys
	pushes  budget       // bytes of messages still to be sent
	flying  atomic.Int64 // keys of commands in flight
	large   atomic.Int64 // size of the largest recent reply, 0 if all were small
	stop    atomic.Bool  // no new connections, no new batches
	lcs     sync.Mutex   // held by the one LCS under way
	purge   sync.Mutex   // held by the one MEMORY PURGE under way
	pause   pause
	slow    slowlog
	latency latencyMonitor

	httpLogged atomic.Int64 // when HTTP was last logged: time since begun, 0 for never

	// base ends when Shutdown has lost patience. It is kept here because a
	// connection has no caller to pass it down.
	base   context.Context
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		clients   map[int64]*client
		listeners map[net.Listener]struct{}
		lastID    int64
		rate      struct{ atMS, processed, perSecond int64 } // for INFO
	}
	wg      sync.WaitGroup // connections, and refusals being sent
	refused chan struct{}  // bounds the refusals being sent
	seed    maphash.Seed
}

// Accept errors (no descriptors left, mostly) are waited out, not spun on.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
	// refusals is how many clients over the limit are told so at a time; more
	// are closed without a word.
	refusals       = 32
	refusalTimeout = time.Second
)

// New builds a door; it starts nothing.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	s := &Server{cfg: cfg, hub: cfg.Hub, begun: time.Now(), refused: make(chan struct{}, refusals), seed: maphash.MakeSeed()}
	table, err := newTable(rowsOf(cfg.Door))
	if err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	s.table = table
	if s.access = cfg.Access; s.access == nil {
		if s.access, err = NewAccess(AccessConfig{Password: cfg.Password}); err != nil {
			return nil, err
		}
	}
	if err := table.identify(s.access.catalog); err != nil {
		return nil, fmt.Errorf("resp: %w", err)
	}
	s.params.load(&s.cfg, s.access)
	s.query.limit, s.replies.limit = cfg.Limits.MaxQuery, cfg.Limits.MaxReplies
	s.queued.limit = cfg.Limits.MaxQueuedTotal
	s.base, s.cancel = context.WithCancel(context.Background())
	s.mu.clients = make(map[int64]*client)
	s.mu.listeners = make(map[net.Listener]struct{})
	s.registerMetrics()
	s.access.attach(s)
	return s, nil
}

// uptime is a cheap monotonic clock.
func (s *Server) uptime() time.Duration { return time.Since(s.begun) }

// Serve accepts connections from ln until ctx ends or Shutdown is called, and
// closes ln. The connections live on until Shutdown.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if !s.addListener(ln) {
		return ln.Close()
	}
	stopped := context.AfterFunc(ctx, func() { _ = ln.Close() }) // Accept reports it
	defer stopped()
	defer s.removeListener(ln)
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			s.accept(nc)
			continue
		}
		if ctx.Err() != nil || s.stop.Load() {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("resp: accept: %w", err)
		}
		s.counts.acceptErrors.Add(1)
		if pause == 0 {
			s.cfg.Logger.Warn("cannot accept connections, backing off", "error", err)
		}
		pause = min(max(2*pause, acceptPauseMin), acceptPauseMax)
		if !s.wait(ctx, pause) {
			return nil
		}
	}
}

// wait pauses and reports whether to go on.
func (s *Server) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return !s.stop.Load()
	case <-ctx.Done():
	case <-s.base.Done():
	}
	return false
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop.Load() {
		return false
	}
	s.mu.listeners[ln] = struct{}{}
	return true
}

func (s *Server) removeListener(ln net.Listener) {
	_ = ln.Close() // closed already, as a rule
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.listeners, ln)
}

// accept starts a connection, or refuses it.
func (s *Server) accept(nc net.Conn) {
	if s.access.shuts(nc.RemoteAddr()) {
		s.counts.rejected.Add(1)
		s.refuse(nc, errProtected)
		return
	}
	c, full := s.register(nc)
	switch {
	case c != nil:
		s.counts.accepted.Add(1)
		go func() {
			defer s.wg.Done()
			s.serve(c)
		}()
	case full:
		s.counts.rejected.Add(1)
		s.refuse(nc, errMaxClients)
	default:
		_ = nc.Close() // stopping
	}
}

// register makes the client of a connection and counts it in wg; nil with full
// set when there are too many.
func (s *Server) register(nc net.Conn) (c *client, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop.Load() {
		return nil, false
	}
	if len(s.mu.clients) >= s.params.maxClients() {
		return nil, true
	}
	s.mu.lastID++
	c = newClient(s.mu.lastID, nc, s.access.users.Load().Default(), s.cfg.Now())
	s.mu.clients[c.id] = c
	s.wg.Add(1)
	return c, false
}

const errMaxClients = "ERR max number of clients reached"

// refuse tells a client why it is not served, without holding up the accept loop: a
// TLS connection may have to shake hands first.
func (s *Server) refuse(nc net.Conn, text string) {
	select {
	case s.refused <- struct{}{}:
	default:
		_ = nc.Close()
		return
	}
	s.wg.Go(func() {
		defer func() { <-s.refused }()
		defer func() { _ = nc.Close() }()
		if nc.SetDeadline(time.Now().Add(refusalTimeout)) == nil {
			_, _ = nc.Write([]byte("-" + text + "\r\n"))
		}
	})
}

// serve runs one connection to its end. A panic ends the connection, never the
// process.
func (s *Server) serve(c *client) {
	ss := newSession(s, c)
	defer func() {
		if r := recover(); r != nil {
			s.counts.panics.Add(1)
			s.cfg.Logger.Error("panic while serving a client", "client", c.id, "panic", r, "stack", string(debug.Stack()))
		}
		_ = c.conn.Close() // nothing is left to tell the client
		ss.abandon()
		ss.endTransaction()
		if ss.sub != nil {
			s.hub.leave(ss.sub)
			ss.sub.out.end()
		}
		ss.guard.release()
		s.counts.netInput.Add(ss.guard.read - ss.counted)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.mu.clients, c.id)
	}()
	ss.loop()
}

// Shutdown stops accepting, lets every connection finish the commands it has
// begun, and closes it. When ctx ends first the rest is cut off. It returns when
// every goroutine of the server has ended.
func (s *Server) Shutdown(ctx context.Context) error {
	clients := s.halt()
	for _, c := range clients {
		c.unblock(errBlockEnded)
		// Wakes a connection that waits for a request; the guard sees stop.
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("resp: shutdown: %w", context.Cause(ctx))
		for _, c := range clients {
			_ = c.conn.Close()
		}
	}
	s.cancel()
	<-done
	return err
}

// halt sets stop, closes the listeners, and lists the clients there are.
func (s *Server) halt() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop.Store(true)
	s.pause.end()
	for ln := range s.mu.listeners {
		_ = ln.Close() // Serve sees stop
	}
	return s.clientsLocked()
}

func (s *Server) clientsLocked() []*client {
	all := make([]*client, 0, len(s.mu.clients))
	for _, c := range s.mu.clients {
		all = append(all, c)
	}
	return all
}

// clients lists the connections in the order in which they came.
func (s *Server) clients() []*client {
	s.mu.Lock()
	all := s.clientsLocked()
	s.mu.Unlock()
	sortClients(all)
	return all
}
