package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/hashicorp/memberlist"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// Config is what one node brings to its membership. The zero value of a field
// means the default written beside it.
type Config struct {
	ID     ring.NodeID // this node's own, drawn once and persisted by the caller; required
	Zone   string      // failure zone; ""
	Weight int         // share of the key space, relative to the others; 100
	Params ring.Params // of a cluster that this node creates; {Units: 1024, N: 3}

	Join      []string // HOST:GOSSIPPORT of some members; names are resolved at every try
	Expect    int      // on first boot, members that must have joined before Ready; 0 none
	StageJoin bool     // reach the cluster but do not add oneself to the ring

	BindAddr  string               // where gossip listens; ":7946"
	Transport memberlist.Transport // gossip's sockets; memberlist's own on BindAddr
	SecretKey []byte               // of 32 bytes, seals gossip; nil: it is open
	Endpoints Endpoints            // how others reach this node; Host and Gossip are found from BindAddr if empty
	MaxLevel  uint16               // highest level of a cluster that this node serves; MaxLevel

	Boot       Boot // this start of the data directory, and how far its log had come by then
	Recovering bool // the directory lacks writes that were acknowledged
	// Reached is how far the log is durable by now; Boot.Reached if nil.
	Reached func() uint64
	// Restored is told, mostly never, that the cluster has seen more of this node
	// than its directory holds. It must save that the node is recovering, and the
	// number and reach from which to count on. Nothing if nil.
	Restored func(number, reached uint64) error
	// Twin reports whether another process answers as this node there; never if
	// nil. It may take a second or so.
	Twin func(ctx context.Context, there Endpoints) bool

	// Store keeps the state of this package between runs; required.
	Store Store
	// Admit is asked before this node adds itself to a ring that has members.
	// An error that wraps ErrRefused ends Run; any other is tried again. Nil
	// admits always.
	Admit func(ctx context.Context, v *View) error
	// Local tells how far this node is in a transition. It is asked often while one goes
	// on. Nil is a node without requests and without data.
	Local func() epoch.Local
	// Resolve finds the addresses of a host name; the machine's resolver.
	Resolve func(ctx context.Context, host string) ([]net.IP, error)

	Logger  *slog.Logger     // silent if nil
	Metrics *metrics.Set     // a set of its own if nil
	Now     func() time.Time // wall clock for stamps; time.Now
	Rand    func() uint64    // identities and jitter; seeded by the runtime
	Fast    bool             // intervals for clusters inside one machine
}

// Store keeps one small blob. Save returns once the blob is durable; a torn
// Save must leave the old blob readable.
//
// Beside it lies a note that is still there when a damaged disk has lost what was
// saved last: whether this node has company, other members. Company answers true
// if nobody can say.
type Store interface {
	// Load returns nil and no error if nothing was ever saved.
	Load() ([]byte, error)
	Save(blob []byte) error
	Company() bool
	// NoteCompany returns once the note is durable.
	NoteCompany(company bool) error
}

func (c Config) withDefaults() Config {
	if c.Weight == 0 {
		c.Weight = 100
	}
	if c.Params.Units == 0 {
		c.Params.Units = 1024
	}
	if c.Params.N == 0 {
		c.Params.N = 3
	}
	if c.BindAddr == "" {
		c.BindAddr = ":7946"
	}
	if c.MaxLevel == 0 {
		c.MaxLevel = MaxLevel
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]net.IP, error) {
			return net.DefaultResolver.LookupIP(ctx, "ip", host)
		}
	}
	if c.Reached == nil {
		c.Reached = func() uint64 { return c.Boot.Reached }
	}
	if c.Restored == nil {
		c.Restored = func(uint64, uint64) error { return nil }
	}
	if c.Twin == nil {
		c.Twin = func(context.Context, Endpoints) bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Uint64
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
	fault(c.ID == 0, "node id is required")
	fault(c.Store == nil, "store is required")
	fault(c.Expect < 0, "expect (%d) must not be negative", c.Expect)
	fault(c.MaxLevel > MaxLevel, "max level (%d) must be at most %d", c.MaxLevel, MaxLevel)
	fault(c.Weight < 1 || c.Weight > 1000, "weight (%d) must be in 1..1000", c.Weight)
	fault(len(c.Zone) > maxZoneBytes, "zone is longer than %d bytes", maxZoneBytes)
	fault(len(c.Endpoints.Host) > maxHostBytes, "host is longer than %d bytes", maxHostBytes)
	if _, err := ring.New(c.Params, nil); err != nil {
		errs = append(errs, err)
	}
	for _, seed := range c.Join {
		if _, _, err := splitHostPort(seed); err != nil {
			errs = append(errs, fmt.Errorf("join (%q) must be HOST:GOSSIPPORT", seed))
		}
	}
	if _, _, err := splitHostPort(c.BindAddr); err != nil && c.Transport == nil {
		errs = append(errs, fmt.Errorf("bind address (%q) must be HOST:PORT or :PORT", c.BindAddr))
	}
	return errors.Join(errs...)
}

// timing is every interval of this package and of memberlist below it.
type timing struct {
	probe, probeTimeout time.Duration // liveness probes
	gossip              time.Duration // broadcasts
	pushPull            time.Duration // full exchange with a random member
	stream              time.Duration // one exchange may take at most this
	reclaim             time.Duration // a dead member's id may return at another address after it
	leave               time.Duration // a stopping node waits at most this for its farewell to go out
	forming             time.Duration // between tries to find a cluster
	settle              time.Duration // the nodes that form a cluster must agree this long before a vote
	rejoin, rejoinVar   time.Duration // between tries to reach members that are not alive: rejoin + [0, rejoinVar)
	relocate            time.Duration // between tries to tell members this node's new address
	admit               time.Duration // between tries to be admitted
	nag                 time.Duration // between log lines about waiting
	reach               time.Duration // between tellings of how far the log has come
	meet                time.Duration // a starting node waits this long for a word of another
	transition          time.Duration // between looks at how far this node is, while the ring changes
	yield               time.Duration // a settled process gives a later boot of its id this long to yield
}

func (c Config) timing() timing {
	if c.Fast {
		return timing{
			probe: 500 * time.Millisecond, probeTimeout: 200 * time.Millisecond,
			gossip: 50 * time.Millisecond, pushPull: 5 * time.Second, stream: 2 * time.Second,
			reclaim: 100 * time.Millisecond, leave: 500 * time.Millisecond,
			forming: 100 * time.Millisecond, settle: 200 * time.Millisecond,
			rejoin: 2 * time.Second, rejoinVar: time.Second, relocate: 500 * time.Millisecond,
			admit: 200 * time.Millisecond, nag: 10 * time.Second, reach: 2 * time.Second, meet: 5 * time.Second, yield: time.Second,
			transition: 5 * time.Millisecond,
		}
	}
	return timing{
		probe: time.Second, probeTimeout: 500 * time.Millisecond,
		gossip: 200 * time.Millisecond, pushPull: 30 * time.Second, stream: 5 * time.Second,
		reclaim: time.Second, leave: time.Second,
		forming: time.Second, settle: time.Second,
		rejoin: 10 * time.Second, rejoinVar: 5 * time.Second, relocate: 2 * time.Second,
		admit: time.Second, nag: 10 * time.Second, reach: 10 * time.Second, meet: 5 * time.Second, yield: 5 * time.Second,
		transition: 50 * time.Millisecond,
	}
}
