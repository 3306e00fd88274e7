package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/memberlist"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/replica/handoff"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/resp"
)

// Network is how a node reaches others and is reached. The zero Config uses
// the machine's own; a simulation brings one that lives in memory.
type Network interface {
	Dial(ctx context.Context, addr string) (net.Conn, error)
	Listen(ctx context.Context, addr string) (net.Listener, error)
}

// Config is all that one node needs to know. The zero value of a field means
// the default written beside it.
type Config struct {
	DataDir string // where everything persistent lies; required
	Version string // release name shown by INFO

	Listen        string // plain door; ":6379"
	ClusterListen string // cluster door; ":6380"
	PeerListen    string // node to node; ":7379"
	// SentinelListen is where clients of Redis Sentinel ask for a node; "" for nowhere.
	SentinelListen string
	SentinelName   string // what they call the master; "mymaster"
	GossipListen   string // membership gossip; ":7946"
	AdminListen    string // admin HTTP; ":8379"; "-" for none
	Advertise      string // host that clients and peers dial; found from the listeners if empty

	Join        []string // gossip addresses of members of the cluster to join
	ReplaceLost nodeID   // take over this member, whose data directory is lost, with an empty one; 0 none
	AcceptLoss  bool     // give up acknowledged writes that the data directory has lost, instead of recovering
	StageJoin   bool     // reach the cluster but do not add oneself to the ring
	Expect      int      // on first boot, members that must have joined before data commands are served; 0 none
	Zone        string   // failure zone of this node; ""
	Weight      int      // share of the key space, relative to the others; 100
	Units       int      // partitions of a cluster that this node creates; 1024
	N, R, W     int      // replicas, and how many answer a read and a write; 3, 2, 2
	MaxLevel    uint16   // highest level of a cluster that this node serves; membership.MaxLevel
	FastGossip  bool     // gossip intervals for clusters inside one machine

	Fsync          storage.Fsync // when a write counts as durable; FsyncAlways
	FsyncInterval  time.Duration // how often FsyncInterval syncs; 1 s
	MemTableBytes  int64         // Pebble's write buffer; storage's default
	BlockCache     int64         // Pebble's block cache; storage's default
	MinFree        int64         // bytes of the disk below which writes are refused, negative for none; storage's default
	MinFreePercent int           // the same in percent, instead; 0 none
	StallLimit     time.Duration // the node ends when the disk stands still for longer; storage's default
	RecordCache    int64         // decoded records kept in memory; replica's default
	HintBudget     int64         // bytes kept for one node that is away, before optional hints are refused; 1 GiB

	ExchangeInterval time.Duration // between two comparisons of an owner with another; 10 s
	ScrubPeriod      time.Duration // in which every row is checked once; replica's default
	BackgroundTarget float64       // the p99 of clients may be so many times what it is without background work; 1.5, negative: no limit
	RestoreWindow    time.Duration // how old a copy of a data directory may be when it is put back; 24 h, negative for none
	MessageAge       time.Duration // no message between nodes is carried out later, so a tombstone waits for it; 60 s

	ClusterSecret []byte  // what all nodes of the cluster know and nobody else: seals gossip and what nodes say to each other; nil: neither is
	TLS           DoorTLS // of the doors

	RequestTimeout time.Duration // a request is answered, for good or ill, within it; 1 s
	RequirePass    string        // password of the default user; "" for none
	ACLFile        string        // users and their rules; "" for none
	ProtectedMode  bool          // clients of other machines are refused as long as the default user lets everybody in; false
	DebugCommand   string        // who may run DEBUG: no, local or yes; no
	KeyEvents      string        // what is told of keys on pub/sub channels at first, in Redis's letters; ""
	MaxClients     int           // connections to each door; resp's default
	MaxValue       int           // bytes of one value; 1 MiB

	FS              vfs.FS               // disk; the machine's own
	Network         Network              // sockets; the machine's own
	GossipTransport memberlist.Transport // gossip's sockets; memberlist's own on GossipListen
	Now             func() time.Time     // wall clock for versions and expiry; time.Now
	Rand            func() uint64        // randomness of identities and choices; seeded by the runtime
	Logger          *slog.Logger         // silent if nil
}

// frameBytes is the largest message between nodes. One coordinator lets a record
// grow to a value or a few beyond 1 MiB of siblings; where many write in parts that
// do not see each other, their join is several times as large, and what no message
// holds would never reach another owner.
func (c Config) frameBytes() int { return max(32<<20, 4*c.MaxValue+1<<20) }

func (c Config) withDefaults() Config {
	text := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	number := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	text(&c.Listen, ":6379")
	text(&c.ClusterListen, ":6380")
	text(&c.PeerListen, ":7379")
	text(&c.GossipListen, ":7946")
	text(&c.AdminListen, ":8379")
	text(&c.Version, "dev")
	number(&c.Weight, 100)
	number(&c.Units, 1024)
	number(&c.N, 3)
	number(&c.R, 2)
	number(&c.W, 2)
	number(&c.MaxValue, 1<<20)
	if c.MaxLevel == 0 {
		c.MaxLevel = membership.MaxLevel
	}
	if c.MessageAge == 0 {
		c.MessageAge = time.Minute
	}
	if c.HintBudget == 0 {
		c.HintBudget = handoff.DefaultBudget
	}
	if c.BackgroundTarget == 0 {
		c.BackgroundTarget = 1.5
	}
	if c.FsyncInterval == 0 {
		c.FsyncInterval = time.Second
	}
	if c.ExchangeInterval == 0 {
		c.ExchangeInterval = 10 * time.Second
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = time.Second
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Network == nil {
		c.Network = machineNetwork{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Uint64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate reports every fault at once.
func (c Config) validate() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.DataDir == "", "data-dir is required")
	fault(c.N < 1 || c.N > 9, "n (%d) must be in 1..9", c.N)
	fault(c.R < 1 || c.R > c.N, "r (%d) must be in 1..n (%d)", c.R, c.N)
	fault(c.W < 1 || c.W > c.N, "w (%d) must be in 1..n (%d)", c.W, c.N)
	fault(c.Units != 1024 && c.Units != 4096 && c.Units != 16384, "units (%d) must be 1024, 4096 or 16384", c.Units)
	fault(c.Weight < 1 || c.Weight > 1000, "weight (%d) must be in 1..1000", c.Weight)
	fault(c.Expect < 0, "expect (%d) must not be negative", c.Expect)
	fault(len(c.Zone) > 64, "zone is longer than 64 bytes")
	fault(!bareHost(c.Advertise), "advertise (%q) must be a host without a port", c.Advertise)
	fault(c.MaxValue < 1 || c.MaxValue > 64<<20, "max-value (%d) must be in 1..64 MiB", c.MaxValue)
	fault(c.HintBudget < 0, "hint-budget (%d) must not be negative", c.HintBudget)
	fault(c.MaxClients < 0, "max-clients (%d) must not be negative", c.MaxClients)
	_, told := resp.ParseEvents(c.KeyEvents)
	fault(strings.ContainsAny(c.SentinelName, " \r\n"), "sentinel-name (%q) must have no spaces", c.SentinelName)
	fault(!told, "notify-keyspace-events (%q) must be letters of Ag$lshzxeKEtmdn", c.KeyEvents)
	fault(c.MinFreePercent < 0 || c.MinFreePercent > 99, "min-free (%d%%) must be below 100%%", c.MinFreePercent)
	fault(c.StallLimit != 0 && c.StallLimit < time.Second, "disk-stall-limit (%v) must be at least 1s", c.StallLimit)
	fault(c.ReplaceLost != 0 && len(c.Join) == 0, "replace-lost needs join: the rest is fetched from the other members")
	fault(c.RequestTimeout < 10*time.Millisecond, "request-timeout (%v) must be at least 10ms", c.RequestTimeout)
	fault(c.ExchangeInterval < 100*time.Millisecond, "exchange-interval (%v) must be at least 100ms", c.ExchangeInterval)
	fault(c.ScrubPeriod < 0 || c.ScrubPeriod > 0 && c.ScrubPeriod < time.Minute, "scrub-period (%v) must be at least 1m", c.ScrubPeriod)
	fault(c.BackgroundTarget >= 0 && !(c.BackgroundTarget >= 1 && c.BackgroundTarget <= 100), "background-target (%v) must be in 1..100, or 0 for none", c.BackgroundTarget)
	fault(c.MessageAge < time.Second, "message-age (%v) must be at least 1s", c.MessageAge)
	fault(c.RequestTimeout > c.MessageAge/2, "request-timeout (%v) must be at most half of the age of messages (%v)", c.RequestTimeout, c.MessageAge)
	fault(c.FsyncInterval < time.Millisecond, "fsync-interval (%v) must be at least 1ms", c.FsyncInterval)
	fault(len(c.ClusterSecret) > 0 && len(c.ClusterSecret) < minSecretBytes, "cluster-secret (%d bytes) must have at least %d", len(c.ClusterSecret), minSecretBytes)
	if err := c.TLS.validate(); err != nil {
		errs = append(errs, err)
	}
	for _, a := range []struct{ name, addr string }{
		{"listen", c.Listen}, {"cluster-listen", c.ClusterListen}, {"peer-listen", c.PeerListen}, {"sentinel-listen", c.SentinelListen},
		{"gossip-listen", c.GossipListen}, {"admin-listen", c.AdminListen},
	} {
		if a.name == "admin-listen" && a.addr == "-" || a.name == "sentinel-listen" && a.addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s (%q) must be HOST:PORT or :PORT", a.name, a.addr))
		}
	}
	return errors.Join(errs...)
}

// bareHost reports whether text has no port: a name, an address, or nothing. An
// IPv6 address has colons of its own, and no brackets.
func bareHost(text string) bool {
	return !strings.ContainsAny(text, ":[]") || net.ParseIP(text) != nil
}

// machineNetwork is the sockets of the machine.
type machineNetwork struct{}

func (machineNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (machineNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var l net.ListenConfig
	return l.Listen(ctx, "tcp", addr)
}

// advertised finds the host that others should dial: the one configured, else
// the one listened on, else the first address of the machine that is not
// loopback.
func advertised(configured string, listen string) string {
	if configured != "" {
		return configured
	}
	host, _, _ := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return host
	}
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil && !n.IP.IsLinkLocalUnicast() {
				return n.IP.String()
			}
		}
	}
	if host, err := os.Hostname(); err == nil {
		return host
	}
	return "127.0.0.1"
}
