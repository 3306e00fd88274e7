// Package simnet is a network in memory: connections, listeners and gossip
// packets between named hosts, with delay, jitter, packets that are lost, late or
// come twice, partitions, slow hosts and links, processes that die and hosts that
// vanish.
//
// All waiting is on timers, channels and condition variables, never under a
// lock, so a whole cluster runs in one testing/synctest bubble, in virtual
// time. Nothing is global; a Network is seeded, though what a run draws when
// also hangs on the order in which goroutines come to draw.
//
// It keeps to what UDP and TCP show a program. A packet may come late, behind later
// ones, and twice. Of a connection bytes arrive once and in order or not at all. A
// partition delays them until it heals or the sender gives up; nobody is told.
// A vanished host says nothing: whoever waits for it waits, until the host is
// back and answers what it does not know with a reset. A dead process on a
// live host is reset, and refused, at once.
package simnet

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Config shapes a Network. The zero value of a field means the default beside it.
type Config struct {
	Seed   uint64
	Delay  time.Duration // one way; 500 µs
	Jitter time.Duration // at most this is added to each packet and segment; 0
	Loss   float64       // share of packets lost; streams lose nothing; 0
	Window int           // bytes under way in one direction of a connection; 256 KiB
}

// Times of the stream protocol.
const (
	retransmit    = 100 * time.Millisecond // first retry of what did not get through, doubling
	retransmitMax = 2 * time.Second
	giveUp        = 2 * time.Minute // a sender whose bytes do not arrive gets ETIMEDOUT
	backlog       = 256             // connections waiting to be accepted
)

// Network is a set of hosts. A host exists from the first time it is named.
type Network struct {
	cfg Config
	mu  struct {
		sync.Mutex
		rnd       *rand.Rand
		cut       map[link]bool
		slowLinks map[link]time.Duration
		down      map[string]bool
		ends      map[string]int // how often what ran on a host was ended
		slow      map[string]time.Duration
		mute      map[string]bool // hosts that gossip does not reach or leave
		names     map[string]string
		listeners map[string]*listener
		packets   map[string]*Transport
		datagrams Datagrams
		conns     map[*conn]struct{}
		lastPort  int
		stats     Stats
		trace     trace
	}
}

// Stats count what was sent since the network was made.
type Stats struct {
	Packets, PacketsLost, PacketBytes uint64
	PacketsLate, PacketsTwice         uint64
	Dials, Segments, StreamBytes      uint64
}

type link struct{ from, to string }

// New makes a network without faults.
func New(cfg Config) *Network {
	if cfg.Delay == 0 {
		cfg.Delay = 500 * time.Microsecond
	}
	if cfg.Window == 0 {
		cfg.Window = 256 << 10
	}
	n := &Network{cfg: cfg}
	n.mu.rnd = rand.New(rand.NewPCG(cfg.Seed, 0x73696d6e6574))
	n.mu.cut = map[link]bool{}
	n.mu.slowLinks = map[link]time.Duration{}
	n.mu.datagrams = Datagrams{Loss: cfg.Loss}
	n.mu.down = map[string]bool{}
	n.mu.ends = map[string]int{}
	n.mu.slow = map[string]time.Duration{}
	n.mu.mute = map[string]bool{}
	n.mu.names = map[string]string{}
	n.mu.listeners = map[string]*listener{}
	n.mu.packets = map[string]*Transport{}
	n.mu.conns = map[*conn]struct{}{}
	n.mu.lastPort = 40000
	return n
}

// Slow adds a delay to everything from and to a host; zero undoes it.
func (n *Network) Slow(host string, extra time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.slow[host] = extra
}

// Mute withholds gossip from a host, and its gossip from the others, or ends that. What
// else goes to and fro is not touched, nor is a stream that is open.
func (n *Network) Mute(host string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.mute[host] = on
}

// Stall holds back, for a while, what connections that are open now carry from one
// host to another, also if they are closed meanwhile; later ones are not touched. It
// is a path that is stuck, or a middlebox, where a new connection takes another way.
func (n *Network) Stall(from, to string, d time.Duration) {
	n.mu.Lock()
	var stuck []*pipe
	for c := range n.mu.conns {
		if c.out.from == from && c.out.to == to {
			stuck = append(stuck, c.out)
		}
	}
	n.mu.Unlock()
	for _, p := range stuck {
		p.stall(time.Now().Add(d))
	}
}

// Name lets a name stand for a host, in Dial and Resolve, until it is changed.
// An empty host removes it.
func (n *Network) Name(name, host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if host == "" {
		delete(n.mu.names, name)
		return
	}
	n.mu.names[name] = host
}

// Resolve finds the address behind a name.
func (n *Network) Resolve(_ context.Context, name string) ([]net.IP, error) {
	if ip := net.ParseIP(n.host(name)); ip != nil {
		return []net.IP{ip}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// Crash makes a host vanish, as by a loss of power: its sockets are gone and
// nobody is told.
func (n *Network) Crash(host string) { n.end(host, true) }

// Kill ends all that listens or is connected on a host, as if its process were
// killed: the host stays and tells whoever asks. Both leave the goroutines of
// the process running, as nothing can end them; its handle of the host and its
// gossip socket reach nobody any more.
func (n *Network) Kill(host string) { n.end(host, false) }

// Start brings a vanished host back, without any socket.
func (n *Network) Start(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.down, host)
}

func (n *Network) end(host string, vanish bool) {
	n.mu.Lock()
	if vanish {
		n.mu.down[host] = true
	}
	n.mu.ends[host]++
	var (
		listeners  []*listener
		transports []*Transport
		conns      []*conn
	)
	for _, l := range n.mu.listeners {
		if l.host == host {
			listeners = append(listeners, l)
		}
	}
	for _, t := range n.mu.packets {
		if t.host == host {
			transports = append(transports, t)
		}
	}
	for c := range n.mu.conns {
		if c.local.host == host {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	// In an order of their own: that of a map with pointers for keys would hang on
	// where memory happened to be free.
	slices.SortFunc(listeners, func(a, b *listener) int { return a.addr.compare(b.addr) })
	slices.SortFunc(transports, func(a, b *Transport) int { return a.addr.compare(b.addr) })
	slices.SortFunc(conns, func(a, b *conn) int {
		return cmp.Or(a.local.compare(b.local), a.remote.compare(b.remote))
	})
	for _, l := range listeners {
		_ = l.Close() // never fails
	}
	for _, t := range transports {
		n.forget(t)
	}
	for _, c := range conns {
		c.abort()
	}
}

// Stats are the counts so far.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.stats
}

// host is what a name stands for, or the name itself.
func (n *Network) host(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, found := n.mu.names[name]; found {
		return h
	}
	return name
}

// passes reports whether something sent now would get through.
func (n *Network) passes(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passesLocked(from, to)
}

func (n *Network) passesLocked(from, to string) bool {
	return !n.mu.cut[link{from, to}] && !n.mu.down[from] && !n.mu.down[to]
}

// gossipsLocked reports whether gossip sent now would get through.
func (n *Network) gossipsLocked(from, to string) bool {
	return n.passesLocked(from, to) && !n.mu.mute[from] && !n.mu.mute[to]
}

// muted reports whether gossip between two hosts is withheld.
func (n *Network) muted(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.mute[from] || n.mu.mute[to]
}

// delay draws how long something takes from one host to another.
func (n *Network) delay(from, to string) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.delayLocked(from, to)
}

func (n *Network) delayLocked(from, to string) time.Duration {
	d := n.cfg.Delay + n.mu.slow[from] + n.mu.slow[to] + n.mu.slowLinks[link{from, to}]
	if n.cfg.Jitter > 0 {
		d += time.Duration(n.mu.rnd.Int64N(int64(n.cfg.Jitter)))
	}
	return d
}

// Listen accepts connections on a host. Port 0 means any.
func (n *Network) Listen(host string, port int) (net.Listener, error) {
	return n.Host(host).listen(port)
}

func (h Host) listen(port int) (net.Listener, error) {
	n, host := h.net, h.name
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		port = n.portLocked()
	}
	l := &listener{net: n, host: host, addr: Addr{host, port}, queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	key := l.addr.String()
	if h.overLocked() {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: l.addr, Err: syscall.ENETDOWN}
	}
	if n.mu.listeners[key] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: l.addr, Err: syscall.EADDRINUSE}
	}
	n.mu.listeners[key] = l
	return l, nil
}

func (n *Network) portLocked() int {
	n.mu.lastPort++
	return n.mu.lastPort
}

// Dial connects a host to an address. It takes a round trip; an address that
// nothing comes back from takes until ctx ends, or giveUp.
func (n *Network) Dial(ctx context.Context, from, addr string) (net.Conn, error) {
	return n.Host(from).Dial(ctx, addr)
}

// Dial connects this host to an address.
func (h Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n, from := h.net, h.name
	name, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("simnet: port %q: %w", text, err)
	}
	to := Addr{n.host(name), port}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: to, Err: err}
	}
	deadline := time.Now().Add(giveUp)
	for pause := retransmit; ; pause = min(2*pause, retransmitMax) {
		if h.over() {
			return fail(syscall.ENETDOWN)
		}
		through := n.passes(from, to.host) && n.passes(to.host, from)
		wait := pause
		if through {
			wait = n.delay(from, to.host) + n.delay(to.host, from)
		}
		if err := sleep(ctx, wait); err != nil {
			return fail(err)
		}
		if through && n.passes(from, to.host) && n.passes(to.host, from) {
			c, err := h.connect(to)
			if err != nil {
				return fail(err)
			}
			return c, nil
		}
		if time.Now().After(deadline) {
			return fail(syscall.ETIMEDOUT)
		}
	}
}

func (h Host) over() bool {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.overLocked()
}

// overLocked reports whether the host is down, or was ended since the handle
// was made.
func (h Host) overLocked() bool { return h.net.mu.down[h.name] || h.net.mu.ends[h.name] != h.ends }

// connect makes both ends of a connection and queues the far one.
func (h Host) connect(to Addr) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.overLocked() {
		return nil, syscall.ENETDOWN
	}
	l := n.mu.listeners[to.String()]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	near, far := newPair(n, Addr{h.name, n.portLocked()}, to)
	select {
	case l.queue <- far:
	default:
		return nil, syscall.ECONNREFUSED // the backlog is full
	}
	n.mu.conns[near], n.mu.conns[far] = struct{}{}, struct{}{}
	n.mu.stats.Dials++
	n.mu.trace.add(near.local.String(), to.String(), nil)
	return near, nil
}

// Addr is a host and a port.
type Addr struct {
	host string
	port int
}

// Network is always "tcp".
func (a Addr) Network() string { return "tcp" }

func (a Addr) compare(b Addr) int {
	return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.port, b.port))
}

func (a Addr) String() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

// listener hands out what was dialled.
type listener struct {
	net    *Network
	host   string
	addr   Addr
	queue  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	case c := <-l.queue:
		return c, nil
	}
}

// Close refuses what comes from now on, and resets what was not yet accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		if l.net.mu.listeners[l.addr.String()] == l {
			delete(l.net.mu.listeners, l.addr.String())
		}
		l.net.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.(*conn).abort()
				continue
			default:
			}
			return
		}
	})
	return nil
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Host is the network as one process on a host sees it: what a node needs for
// its seam. It is of no use after the host was ended, as its process is not.
type Host struct {
	net  *Network
	name string
	ends int
}

// Host is a handle of one host, for a process that starts there now.
func (n *Network) Host(name string) Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Host{n, name, n.mu.ends[name]}
}

// Listen accepts connections on this host; of addr only the port counts.
func (h Host) Listen(_ context.Context, addr string) (net.Listener, error) {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("simnet: port %q: %w", text, err)
	}
	return h.listen(port)
}
