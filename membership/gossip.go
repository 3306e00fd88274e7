package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/redynamo/redynamo/membership/ring"
)

// label separates the gossip of this program from that of any other; which
// cluster a node belongs to is in its meta.
const label = "redynamo"

// deadKept is how long memberlist remembers a dead node, and goes on telling
// it that it is taken for dead.
const deadKept = 6 * time.Hour

// broadcastBytes is what one broadcast may carry: a packet of memberlist holds
// 1400 bytes with its own messages.
const broadcastBytes = 1000

// gossip is a running memberlist and the address it advertises.
type gossip struct {
	list *memberlist.Memberlist
	ip   net.IP
	port uint16
}

// addr is what other nodes join.
func (g *gossip) addr() string { return net.JoinHostPort(g.ip.String(), strconv.Itoa(int(g.port))) }

// startGossip opens the sockets, settles what this node says of itself, and
// makes it known to whoever comes.
func (m *Membership) startGossip(ctx context.Context) (*gossip, error) {
	logger := log.New(&logBridge{log: m.log}, "", 0)
	transport, err := m.openTransport(logger)
	if err != nil {
		return nil, err
	}
	g := &gossip{}
	fixed, err := m.advertised(ctx)
	if err == nil {
		g.ip, g.port, err = advertise(transport, fixed, m.cfg.Endpoints.Gossip, m.cfg.Transport == nil)
	}
	if err != nil {
		_ = transport.Shutdown() // the first error is the telling one
		return nil, err
	}
	if err := m.announce(g); err != nil {
		_ = transport.Shutdown() // the first error is the telling one
		return nil, err
	}
	m.delegate.broadcasts.RetransmitMult = 4
	if g.list, err = memberlist.Create(m.gossipConfig(g, transport, logger)); err != nil {
		_ = transport.Shutdown() // the first error is the telling one
		return nil, fmt.Errorf("membership: start gossip: %w", err)
	}
	if err := enlist(g.list, m.cfg.ID.String()); err != nil {
		return nil, errors.Join(err, g.list.Shutdown())
	}
	return g, nil
}

// roster is what memberlist knows of the nodes of a cluster.
type roster interface {
	Members() []*memberlist.Node
	UpdateNode(timeout time.Duration) error
}

// enlistTries bounds how often a node that starts puts itself on its own list.
const enlistTries = 10

// enlist sees to it that this node is on its own list. Memberlist listens before it
// enters itself: word of an earlier run that comes between the two may make it enter
// this node as dead, and pass over what it then says of itself as older. The dead are
// taken off the list, and memberlist would panic when it next spoke of itself.
func enlist(list roster, self string) error {
	for range enlistTries {
		if slices.ContainsFunc(list.Members(), func(n *memberlist.Node) bool { return n.Name == self }) {
			return nil
		}
		_ = list.UpdateNode(time.Nanosecond) // what counts is whether it is on the list then
	}
	return errors.New("membership: start gossip: this node cannot put itself on its own list")
}

func (m *Membership) gossipConfig(g *gossip, t memberlist.Transport, logger *log.Logger) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = m.cfg.ID.String()
	c.Label = label
	c.SecretKey = m.cfg.SecretKey
	c.Transport = t
	c.AdvertiseAddr, c.AdvertisePort = g.ip.String(), int(g.port)
	c.BindPort = int(g.port)
	c.Logger = logger
	c.EnableCompression = false // costs more than all the rest of it
	c.GossipToTheDeadTime = deadKept
	c.DeadNodeReclaimTime = m.timing.reclaim
	c.TCPTimeout = m.timing.stream
	c.ProbeInterval, c.ProbeTimeout = m.timing.probe, m.timing.probeTimeout
	c.GossipInterval = m.timing.gossip
	c.PushPullInterval = m.timing.pushPull
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = m.delegate, m.delegate, m.delegate, m.delegate, m.delegate
	return c
}

// openTransport opens gossip's sockets, unless the caller brought a transport.
func (m *Membership) openTransport(logger *log.Logger) (memberlist.NodeAwareTransport, error) {
	if given := m.cfg.Transport; given != nil {
		if t, ok := given.(memberlist.NodeAwareTransport); ok {
			return t, nil
		}
		return byAddress{given}, nil
	}
	host, port, err := splitHostPort(m.cfg.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("membership: bind address: %w", err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host}, BindPort: int(port), Logger: logger,
	})
	if err != nil {
		return nil, fmt.Errorf("membership: listen for gossip on %s: %w", m.cfg.BindAddr, err)
	}
	return newCuttable(t), nil
}

// advertised resolves the configured host to the address that gossip names;
// nil if none is configured. A name may take a while to appear, for instance
// in a container that has just started.
func (m *Membership) advertised(ctx context.Context) (net.IP, error) {
	host := m.cfg.Endpoints.Host
	if host == "" {
		return nil, nil
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	const tries = 20
	for try := 1; ; try++ {
		ips, err := m.cfg.Resolve(ctx, host)
		if err == nil && len(ips) > 0 {
			return preferred(ips), nil
		}
		if try == tries || ctx.Err() != nil {
			return nil, fmt.Errorf("membership: resolve advertised host %s: %w", host, errors.Join(err, ctx.Err()))
		}
		if try == 1 {
			m.log.Warn("the advertised host has no address yet", "host", host, "err", err)
		}
		if !sleep(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
}

// preferred is the first IPv4 address, or else the first.
func preferred(ips []net.IP) net.IP {
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip
		}
	}
	return ips[0]
}

// advertise settles the address that others join. A transport of the caller's
// knows its own; memberlist's finds one if none is configured, and on a
// machine without a network what is left is loopback.
func advertise(t memberlist.Transport, fixed net.IP, port uint16, own bool) (net.IP, uint16, error) {
	host := ""
	if fixed != nil && (own || port != 0) {
		host = fixed.String()
	}
	ip, found, err := t.FinalAdvertiseAddr(host, int(port))
	if err != nil && own {
		ip, found, err = t.FinalAdvertiseAddr("127.0.0.1", int(port))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("membership: advertised address: %w", err)
	}
	if found == 0 {
		if nt, ok := t.(*cuttable); ok {
			found = nt.NetTransport.GetAutoBindPort()
		}
	}
	return ip, uint16(found), nil
}

// stop says farewell, so that the others see this node down at once, and
// closes the sockets. It is not a leave: the node stays in the ring.
func (g *gossip) stop(wait time.Duration) error {
	err := g.list.Leave(wait)
	return errors.Join(err, g.list.Shutdown())
}

// byAddress lets a transport that knows no names serve as one that does.
type byAddress struct{ memberlist.Transport }

func (t byAddress) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t byAddress) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// sleep waits, and reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// linesPerMinute is how many of memberlist's log lines are passed on. It writes
// one for each broken packet, and whoever reaches the port can send many.
const linesPerMinute = 30

// logBridge writes memberlist's log lines to slog. Its debug lines are dropped
// (one for each stream), and the others lose a level: this package reports
// what they mean itself. Past linesPerMinute they are dropped and counted; the
// first line of the next minute tells how many.
type logBridge struct {
	log *slog.Logger
	mu  struct {
		sync.Mutex
		since   time.Time // the minute began
		lines   int       // passed on in it
		dropped int
	}
}

// admit reports whether one more line may be written, and how many could not
// be since the last that was.
func (b *logBridge) admit(now time.Time) (dropped int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.mu.since) >= time.Minute {
		b.mu.since, b.mu.lines = now, 0
	}
	if b.mu.lines == linesPerMinute {
		b.mu.dropped++
		return 0, false
	}
	b.mu.lines++
	dropped, b.mu.dropped = b.mu.dropped, 0
	return dropped, true
}

func (b *logBridge) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	if bytes.Contains(text, []byte(refusal)) {
		return len(line), nil // reported once for each peer, not for each message
	}
	level := slog.LevelInfo
	for _, l := range []struct {
		mark  string
		level slog.Level
		drop  bool
	}{
		{mark: "[DEBUG] ", drop: true},
		{mark: "[INFO] ", level: slog.LevelDebug},
		{mark: "[WARN] ", level: slog.LevelInfo},
		{mark: "[ERR] ", level: slog.LevelWarn},
	} {
		if rest, found := bytes.CutPrefix(text, []byte(l.mark)); found {
			if l.drop {
				return len(line), nil
			}
			text, level = rest, l.level
			break
		}
	}
	if !b.log.Enabled(context.Background(), level) {
		return len(line), nil
	}
	dropped, ok := b.admit(time.Now())
	if !ok {
		return len(line), nil
	}
	args := []any{"from", "memberlist"}
	if dropped > 0 {
		args = append(args, "lines_dropped", dropped)
	}
	b.log.Log(context.Background(), level, string(bytes.TrimPrefix(text, []byte("memberlist: "))), args...)
	return len(line), nil
}

// nodeName is the id behind a memberlist name.
func nodeName(name string) (ring.NodeID, error) {
	id, err := ring.ParseNodeID(name)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", refusal, err)
	}
	return id, nil
}
