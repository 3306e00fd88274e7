package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Server is the serving side of a node.
type Server struct {
	cfg   ServerConfig
	ages  ages
	epoch time.Time // stamps count from here
	count serverCounters

	// Requests taken and not answered yet, over all connections.
	calls atomic.Int64
	bytes atomic.Int64

	mu struct {
		sync.Mutex
		conns map[net.Conn]uint64 // accepted and not closed, each with its number
		taken uint64              // how many were accepted

		refusedLogged time.Time // of the last log line about a refused connection
		refusedSilent int       // refused without one since then
	}
}

// NewServer returns a server. It starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, ages: agesOf(cfg.MessageAge), epoch: time.Now(), count: newServerCounters(cfg.Metrics)}
	s.mu.conns = make(map[net.Conn]uint64)
	return s, nil
}

// Serve takes connections from ln until ctx ends, then closes ln and every
// connection, waits for their goroutines and returns nil. Handlers that reply
// later reply to nobody. It is called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = ln.Close() // only to end Accept
		s.closeAll()
	})
	err := s.accept(ctx, ln, &wg)
	cancel()
	wg.Wait()
	return err
}

func (s *Server) accept(ctx context.Context, ln net.Listener, wg *sync.WaitGroup) error {
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close() // it came too late
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("rpc: accept: %w", err)
		case err != nil:
			// Out of descriptors, most likely. What is open goes on; the
			// callers that wait come again.
			s.cfg.Logger.Warn("cannot accept a peer connection", "err", err)
			pause(ctx, 100*time.Millisecond)
		case !s.register(ctx, conn):
			s.count.overLimit.Inc()
			_ = conn.Close() // refused
		default:
			s.count.connections.Inc()
			wg.Go(func() {
				s.serveConn(ctx, conn)
				s.unregister(conn)
			})
		}
	}
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// register notes a connection, unless there are enough or ctx has ended: what
// closeAll does not see must not be served.
func (s *Server) register(ctx context.Context, conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil || len(s.mu.conns) >= s.cfg.MaxConns {
		return false
	}
	s.mu.taken++
	s.mu.conns[conn] = s.mu.taken
	return true
}

func (s *Server) unregister(conn net.Conn) {
	s.mu.Lock()
	delete(s.mu.conns, conn)
	s.mu.Unlock()
	_ = conn.Close() // a second close does no harm
}

// closeAll closes every connection, the oldest first, which ends its reader.
func (s *Server) closeAll() {
	s.mu.Lock()
	conns := slices.SortedFunc(maps.Keys(s.mu.conns), func(a, b net.Conn) int {
		return cmp.Compare(s.mu.conns[a], s.mu.conns[b])
	})
	s.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // nobody is left to be told
	}
}

// InFlight is the number of requests being served.
func (s *Server) InFlight() int { return int(s.calls.Load()) }

// take admits a request of so many bytes, or refuses it with ErrOverloaded.
func (s *Server) take(class Class, bytes int) bool {
	calls, held := s.calls.Add(1), s.bytes.Add(int64(bytes))
	if calls <= int64(s.cfg.MaxCalls)>>class && held <= int64(s.cfg.MaxCallBytes)>>class {
		return true
	}
	s.release(bytes)
	return false
}

func (s *Server) release(bytes int) {
	s.calls.Add(-1)
	s.bytes.Add(-int64(bytes))
}
