package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memNet is a network inside one process that works in a synctest bubble: it
// waits on condition variables only. Each direction of a connection holds at
// most memBufferBytes on their way.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	silent    map[string]bool // dials to these addresses get no answer
	conns     []*memConn      // dialed ends
	dials     int
}

const memBufferBytes = 64 << 10

func newMemNet() *memNet {
	return &memNet{listeners: map[string]*memListener{}, silent: map[string]bool{}}
}

func (n *memNet) listen(addr string) *memListener {
	l := &memListener{net: n, addr: addr, queue: make(chan net.Conn, 64), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

func (n *memNet) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	l, silent := n.listeners[addr], n.silent[addr]
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	a, b := memPipe()
	select {
	case l.queue <- b:
	case <-l.done:
		return nil, syscall.ECONNREFUSED
	}
	n.mu.Lock()
	n.conns = append(n.conns, a)
	n.mu.Unlock()
	return a, nil
}

func (n *memNet) setSilent(addr string, silent bool) {
	n.mu.Lock()
	n.silent[addr] = silent
	n.mu.Unlock()
}

// hold stops, or lets go, whatever the dialed connections carry, both ways.
func (n *memNet) hold(held bool) {
	n.holdRequests(held)
	n.holdReplies(held)
}

func (n *memNet) holdRequests(held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.out.setHeld(held)
	}
}

func (n *memNet) holdReplies(held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.in.setHeld(held)
	}
}

// breakAll closes both ends of everything that was dialed.
func (n *memNet) breakAll() {
	n.mu.Lock()
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for _, c := range conns {
		c.in.closeReading()
		c.out.closeReading()
	}
}

func (n *memNet) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

type memListener struct {
	net   *memNet
	addr  string
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		if l.net.listeners[l.addr] == l {
			delete(l.net.listeners, l.addr)
		}
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return memAddr(l.addr) }

type memAddr string

func (a memAddr) Network() string { return "mem" }
func (a memAddr) String() string  { return string(a) }

// memFlow is one direction of a connection.
type memFlow struct {
	mu     sync.Mutex
	cond   sync.Cond
	buf    []byte
	closed bool
	deaf   bool // the reading end is closed
	held   bool
	wrote  int
	until  [2]time.Time // deadlines of the reading and the writing side
	timer  [2]*time.Timer
}

func newMemFlow() *memFlow {
	f := &memFlow{}
	f.cond.L = &f.mu
	return f
}

func (f *memFlow) closeReading() {
	f.mu.Lock()
	f.deaf = true
	f.mu.Unlock()
	f.close()
}

func (f *memFlow) close() {
	f.mu.Lock()
	f.closed = true
	for _, t := range f.timer {
		if t != nil {
			t.Stop()
		}
	}
	f.cond.Broadcast()
	f.mu.Unlock()
}

// empty loses what is on its way.
func (f *memFlow) empty() {
	f.mu.Lock()
	f.buf = nil
	f.mu.Unlock()
}

func (f *memFlow) setHeld(held bool) {
	f.mu.Lock()
	f.held = held
	f.cond.Broadcast()
	f.mu.Unlock()
}

func (f *memFlow) setDeadline(side int, t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until[side] = t
	if f.timer[side] != nil {
		f.timer[side].Stop()
	}
	if !t.IsZero() && !f.closed {
		f.timer[side] = time.AfterFunc(time.Until(t), func() {
			f.mu.Lock()
			f.cond.Broadcast()
			f.mu.Unlock()
		})
	}
	f.cond.Broadcast()
}

// writes is how often write was called.
func (f *memFlow) writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrote
}

func (f *memFlow) lateLocked(side int) bool {
	return !f.until[side].IsZero() && !time.Now().Before(f.until[side])
}

func (f *memFlow) read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.lateLocked(0):
			return 0, os.ErrDeadlineExceeded
		case len(f.buf) > 0 && !f.held:
			n := copy(b, f.buf)
			f.buf = f.buf[n:]
			f.cond.Broadcast()
			return n, nil
		case f.deaf, f.closed && !f.held:
			return 0, io.EOF
		}
		f.cond.Wait()
	}
}

func (f *memFlow) write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote++
	done := 0
	for {
		switch {
		case f.closed:
			return done, syscall.EPIPE
		case done == len(b):
			return done, nil
		case f.lateLocked(1):
			return done, os.ErrDeadlineExceeded
		case len(f.buf) < memBufferBytes:
			n := min(len(b)-done, memBufferBytes-len(f.buf))
			f.buf = append(f.buf, b[done:done+n]...)
			done += n
			f.cond.Broadcast()
		default:
			f.cond.Wait()
		}
	}
}

type memConn struct {
	in, out *memFlow
	mu      sync.Mutex
	gone    bool
	discard bool // a close drops what has not arrived
}

// SetLinger is what discardUnsent looks for.
func (c *memConn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discard = sec == 0
	return nil
}

func memPipe() (*memConn, *memConn) {
	x, y := newMemFlow(), newMemFlow()
	return &memConn{in: x, out: y}, &memConn{in: y, out: x}
}

func (c *memConn) closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

func (c *memConn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	if err != nil && c.closed() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *memConn) Close() error {
	c.mu.Lock()
	again, discard := c.gone, c.discard
	c.gone = true
	c.mu.Unlock()
	if discard {
		c.out.empty()
	}
	c.in.closeReading()
	c.out.close()
	if again {
		return net.ErrClosed
	}
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(0, t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(1, t)
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return memAddr("local") }
func (c *memConn) RemoteAddr() net.Addr { return memAddr("remote") }
