//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
)

// flipper is a wire between nodes that sometimes flips a bit of what passes.
// It ends TCP on both sides, so that no checksum of the network tells.
type flipper struct {
	l       net.Listener
	dial    func(ctx context.Context) (net.Conn, error)
	on      atomic.Bool
	flipped atomic.Int64
	wg      sync.WaitGroup
	mu      struct {
		sync.Mutex
		conns  []net.Conn
		closed bool
	}
}

// flipEvery is how many reads of a connection pass between two flips, on average.
const flipEvery = 50

func startFlipper(l net.Listener, dial func(context.Context) (net.Conn, error)) *flipper {
	f := &flipper{l: l, dial: dial}
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			f.wg.Go(func() { f.carry(c) })
		}
	})
	return f
}

// carry joins c with a connection of its own to the node behind.
func (f *flipper) carry(c net.Conn) {
	to, err := f.dial(context.Background())
	if err != nil {
		_ = c.Close() // as if the node had refused
		return
	}
	if !f.keep(c, to) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { f.pass(c, to) })
	both.Go(func() { f.pass(to, c) })
	both.Wait()
}

// keep notes connections to be closed at the end.
func (f *flipper) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed {
		for _, c := range conns {
			_ = c.Close() // nobody needs it
		}
		return false
	}
	f.mu.conns = append(f.mu.conns, conns...)
	return true
}

func (f *flipper) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && f.on.Load() && rand.IntN(flipEvery) == 0 {
			buf[rand.IntN(n)] ^= 1 << rand.IntN(8)
			f.flipped.Add(1)
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (f *flipper) close() {
	_ = f.l.Close() // it only listened
	f.mu.Lock()
	f.mu.closed = true
	for _, c := range f.mu.conns {
		_ = c.Close() // the row is over
	}
	f.mu.Unlock()
	f.wg.Wait()
}
