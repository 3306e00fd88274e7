package simnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// packetQueue is how many packets wait at a host; over it they are lost, as in
// a full socket buffer.
const packetQueue = 1024

// Transport is one gossip socket: packets and streams of memberlist.
type Transport struct {
	net     *Network
	process Host
	host    string
	addr    Addr
	ln      net.Listener
	packets chan *memberlist.Packet
	streams chan net.Conn
	closing context.Context // a lifetime, not a request: ended by Shutdown
	cut     context.CancelFunc
	accept  sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// Transport opens the gossip socket of a host, which must be an IP address.
func (n *Network) Transport(host string, port int) (*Transport, error) {
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("simnet: gossip host %q is not an IP address", host)
	}
	process := n.Host(host)
	ln, err := process.listen(port)
	if err != nil {
		return nil, err
	}
	t := &Transport{
		net: n, process: process, host: host, addr: ln.Addr().(Addr), ln: ln,
		packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn),
	}
	t.closing, t.cut = context.WithCancel(context.Background())
	n.mu.Lock()
	n.mu.packets[t.addr.String()] = t
	n.mu.Unlock()
	t.accept.Go(t.acceptStreams)
	return t, nil
}

func (t *Transport) acceptStreams() {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			return
		}
		select {
		case t.streams <- c:
		case <-t.closing.Done():
			_ = c.Close() // nobody is left to take it
			return
		}
	}
}

// FinalAdvertiseAddr is the address given, or else the one listened on.
func (t *Transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if ip == "" {
		return net.ParseIP(t.host), t.addr.port, nil
	}
	given := net.ParseIP(ip)
	if given == nil {
		return nil, 0, fmt.Errorf("simnet: advertised address %q is not an IP address", ip)
	}
	return given, port, nil
}

// WriteTo sends a packet, which may be lost, late, or come twice.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	now := time.Now()
	if t.closing.Err() != nil {
		return now, net.ErrClosed
	}
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return now, err
	}
	n := t.net
	n.mu.Lock()
	n.mu.stats.Packets++
	n.mu.trace.add(t.host, to, b)
	n.mu.stats.PacketBytes += uint64(len(b))
	down := t.process.overLocked()
	var after []time.Duration
	if !down && n.gossipsLocked(t.host, to) {
		after = n.fateLocked(t.host, to)
	}
	if len(after) == 0 {
		n.mu.stats.PacketsLost++
	}
	n.mu.Unlock()
	if down {
		return now, &net.OpError{Op: "write", Net: "udp", Addr: t.addr, Err: syscall.ENETDOWN}
	}
	for _, d := range after {
		copied := append([]byte(nil), b...) // of its own: who receives it may write to it
		time.AfterFunc(d, func() { n.arrive(t.addr, to, addr, copied) })
	}
	return now, nil
}

// arrive puts a packet into the queue of whoever has the address now.
func (n *Network) arrive(from Addr, to, addr string, b []byte) {
	n.mu.Lock()
	t := n.mu.packets[addr]
	lost := t == nil || !n.gossipsLocked(from.host, to)
	n.mu.Unlock()
	if !lost {
		select {
		case t.packets <- &memberlist.Packet{Buf: b, From: from, Timestamp: time.Now()}:
			return
		default:
		}
	}
	n.mu.Lock()
	n.mu.stats.PacketsLost++
	n.mu.Unlock()
}

// WriteToAddress sends a packet to a node; its name is not used.
func (t *Transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh yields the packets that arrive.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout connects to another gossip socket.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.closing, timeout)
	defer cancel()
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if t.net.muted(t.host, to) {
		<-ctx.Done() // nothing comes back
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: t.addr, Err: ctx.Err()}
	}
	return t.process.Dial(ctx, addr)
}

// DialAddressTimeout connects to a node; its name is not used.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// StreamCh yields the streams that others open.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes the socket. Dials in progress end.
func (t *Transport) Shutdown() error {
	t.cut()
	t.net.forget(t)
	err := t.ln.Close()
	t.accept.Wait()
	return err
}

// forget stops packets to a socket, unless another has its address by now.
func (n *Network) forget(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.packets[t.addr.String()] == t {
		delete(n.mu.packets, t.addr.String())
	}
}
