package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// conn is one end of a connection.
type conn struct {
	net           *Network
	local, remote Addr
	in, out       *pipe
}

func newPair(n *Network, a, b Addr) (near, far *conn) {
	there, back := newPipe(n, a.host, b.host), newPipe(n, b.host, a.host)
	near = &conn{net: n, local: a, remote: b, in: back, out: there}
	far = &conn{net: n, local: b, remote: a, in: there, out: back}
	there.writer, back.writer = near, far
	return near, far
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	return n, c.describe("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.write(b)
	return n, c.describe("write", err)
}

func (c *conn) describe(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Close sends what was written and then an end of file.
func (c *conn) Close() error {
	c.net.drop(c)
	c.in.endReading(net.ErrClosed)
	c.out.endWriting(net.ErrClosed, true)
	return nil
}

// CloseWrite sends an end of file and leaves the other direction open.
func (c *conn) CloseWrite() error {
	c.out.endWriting(syscall.EPIPE, true)
	return nil
}

// abort is the death of the process that holds this end. What it had sent is
// lost, and the other end is told if its host can be reached.
func (c *conn) abort() {
	c.net.drop(c)
	c.in.endReading(syscall.ECONNRESET)
	c.out.endWriting(syscall.ECONNRESET, false)
	c.net.resetLater(c.in.writer)
}

// reset is the arrival of the news that the other end is gone.
func (c *conn) reset(err error) {
	c.net.drop(c)
	c.in.endReading(err)
	c.out.endWriting(err, false)
}

// resetLater tells an end that the other does not exist, if that gets through.
func (n *Network) resetLater(c *conn) {
	from, to := c.remote.host, c.local.host
	time.AfterFunc(n.delay(from, to), func() {
		if n.passes(from, to) {
			c.reset(syscall.ECONNRESET)
		}
	})
}

func (n *Network) drop(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.conns, c)
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.mu.readBy, t)
	c.out.setDeadline(&c.out.mu.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.mu.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.mu.writeBy, t)
	return nil
}

// segment is bytes under way, or an end of file.
type segment struct {
	due  time.Time
	data []byte
	fin  bool
}

// deadline is a moment, and the timer that wakes whoever waits past it.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// pipe is one direction of a connection. Both its ends hold it; writer is the
// end that sends.
type pipe struct {
	net      *Network
	from, to string
	writer   *conn
	mu       struct {
		sync.Mutex
		flight          []segment // sent and not arrived, by due time
		arrived         []byte
		size            int // bytes in flight and arrived
		ended           bool
		stuck           time.Time     // nothing gets through before
		timer           *time.Timer   // delivers the head of flight
		pause           time.Duration // before the next retransmission; 0 if the last got through
		since           time.Time     // when the head first did not get through
		readErr         error         // why the reading end may not read
		writeErr        error         // why the writing end may not write
		readBy, writeBy deadline
	}
	changed *sync.Cond // of mu
}

func newPipe(n *Network, from, to string) *pipe {
	p := &pipe{net: n, from: from, to: to}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.mu.readErr != nil:
			return 0, p.mu.readErr
		case p.mu.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(p.mu.arrived) > 0:
			n := copy(b, p.mu.arrived)
			p.mu.arrived = p.mu.arrived[n:]
			if len(p.mu.arrived) == 0 {
				p.mu.arrived = nil
			}
			p.mu.size -= n
			p.changed.Broadcast()
			return n, nil
		case p.mu.ended:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (int, error) {
	delay := p.net.sent(p.from, p.to, b)
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.mu.writeErr != nil:
			return written, p.mu.writeErr
		case p.mu.writeBy.passed():
			return written, os.ErrDeadlineExceeded
		case written == len(b):
			return written, nil
		}
		room := p.net.cfg.Window - p.mu.size
		if room <= 0 {
			p.changed.Wait()
			continue
		}
		n := min(room, len(b)-written)
		p.sendLocked(segment{data: append([]byte(nil), b[written:written+n]...)}, delay)
		written += n
	}
}

// sent counts a write and draws its delay.
func (n *Network) sent(from, to string, b []byte) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.stats.Segments++
	n.mu.stats.StreamBytes += uint64(len(b))
	n.mu.trace.add(from, to, b)
	return n.delayLocked(from, to)
}

// sendLocked puts a segment under way, behind those before it.
func (p *pipe) sendLocked(s segment, delay time.Duration) {
	s.due = time.Now().Add(delay)
	if k := len(p.mu.flight); k > 0 && p.mu.flight[k-1].due.After(s.due) {
		s.due = p.mu.flight[k-1].due
	}
	p.mu.flight = append(p.mu.flight, s)
	p.mu.size += len(s.data)
	if len(p.mu.flight) == 1 {
		p.armLocked(time.Until(s.due))
	}
}

func (p *pipe) armLocked(d time.Duration) {
	if p.mu.timer == nil {
		p.mu.timer = time.AfterFunc(d, p.deliver)
		return
	}
	p.mu.timer.Reset(d)
}

// deliver moves what is due to the reading end, if it gets through.
func (p *pipe) deliver() {
	through := p.net.passes(p.from, p.to)
	p.mu.Lock()
	unknown, lost := p.deliverLocked(through, time.Now())
	p.mu.Unlock()
	if unknown {
		p.net.resetLater(p.writer)
	}
	if lost {
		p.writer.reset(syscall.ETIMEDOUT)
	}
}

// deliverLocked reports whether bytes came to an end that is closed, and
// whether the sender gives up.
func (p *pipe) deliverLocked(through bool, now time.Time) (unknown, lost bool) {
	if len(p.mu.flight) == 0 {
		return false, false
	}
	if now.Before(p.mu.stuck) {
		p.armLocked(p.mu.stuck.Sub(now))
		return false, false
	}
	if !through {
		if p.mu.pause == 0 {
			p.mu.since, p.mu.pause = now, retransmit
		}
		if now.Sub(p.mu.since) > giveUp {
			return false, true
		}
		p.armLocked(p.mu.pause)
		p.mu.pause = min(2*p.mu.pause, retransmitMax)
		return false, false
	}
	p.mu.pause = 0
	for len(p.mu.flight) > 0 && !p.mu.flight[0].due.After(now) {
		s := p.mu.flight[0]
		p.mu.flight = p.mu.flight[1:]
		if p.mu.readErr != nil {
			p.mu.size -= len(s.data)
			unknown = unknown || len(s.data) > 0
			continue
		}
		p.mu.arrived = append(p.mu.arrived, s.data...)
		p.mu.ended = p.mu.ended || s.fin
	}
	if len(p.mu.flight) > 0 {
		p.armLocked(p.mu.flight[0].due.Sub(now))
	}
	p.changed.Broadcast()
	return unknown, false
}

// stall lets nothing through before until.
func (p *pipe) stall(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.stuck = until
}

// endReading ends the reading side for the one who reads; the writer learns
// when its bytes come to nothing.
func (p *pipe) endReading(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.readErr == nil {
		p.mu.readErr = err
		p.mu.size -= len(p.mu.arrived)
		p.mu.arrived = nil
	}
	p.mu.readBy.stop()
	p.changed.Broadcast()
}

// endWriting ends the writing side: in order, with an end of file behind what
// was written, or by dropping what is still under way.
func (p *pipe) endWriting(err error, inOrder bool) {
	delay := p.net.delay(p.from, p.to)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !inOrder {
		for _, s := range p.mu.flight {
			p.mu.size -= len(s.data)
		}
		p.mu.flight = nil
		if p.mu.timer != nil {
			p.mu.timer.Stop()
		}
	} else if p.mu.writeErr == nil {
		p.sendLocked(segment{fin: true}, delay)
	}
	if p.mu.writeErr == nil || err == net.ErrClosed {
		p.mu.writeErr = err
	}
	p.mu.writeBy.stop()
	p.changed.Broadcast()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// setDeadline sets one of the pipe's deadlines; the zero time clears it.
func (p *pipe) setDeadline(d *deadline, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.at = at
	if at.IsZero() {
		d.stop()
		return
	}
	if wait := time.Until(at); d.timer == nil {
		d.timer = time.AfterFunc(wait, p.wake)
	} else {
		d.timer.Reset(wait)
	}
}

// wake lets whoever waits look at the deadlines again.
func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Broadcast()
}
