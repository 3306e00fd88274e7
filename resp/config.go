package resp

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/replica/cork"
	"github.com/redynamo/redynamo/replica/version"
)

// Config is what a Server is built from. The zero value of every field but
// Store, Admin and Ring means the documented default.
type Config struct {
	Door  Door
	Store Store
	Admin Admin
	Ring  RingAdmin
	// Hub knows the subscribers of the node: both doors have the same. Nil = one of
	// this door's own.
	Hub *Hub

	// SentinelName is what clients of the Sentinel door call the master; "mymaster".
	SentinelName string

	// Port is what INFO and CLUSTER print for this door; 0 = unknown.
	Port int
	// TLS says that the listener speaks it: what shows the port shows it as such.
	TLS bool
	// Access knows the users of the node: both doors have the same. Nil = one of this
	// door's own, without a file, with Password for requirepass.
	Access   *Access
	Password string
	// TokenKey seals the contexts handed to clients. It is asked for each time,
	// because a forming cluster may still change it. Nil = a key of zeros.
	TokenKey func() version.MACKey

	Limits  Limits
	Cork    *cork.Cork       // of the node's connections to others; nil = none
	Now     func() time.Time // wall clock; nil = time.Now
	Rand    func() uint64    // nil = a clock-seeded generator
	Logger  *slog.Logger     // nil = silent
	Metrics *metrics.Set     // nil = a set of its own
	Params  []Field          // further CONFIG GET parameters of the node

	// Stop has the node stop in order, for SHUTDOWN. It must not wait. Nil: SHUTDOWN
	// is refused.
	Stop func()
}

// Limits bound what clients can make a door hold or wait for. Zero = default.
type Limits struct {
	MaxKey   int // bytes of a key; default 64 KiB
	MaxValue int // bytes of a value; default 1 MiB

	MaxBulk    int // bytes of one argument on the wire; default 16 MiB, at least MaxValue and MaxKey
	MaxArgs    int // arguments of one command; default 1 Mi
	MaxCommand int // bytes of one command; default 64 MiB, at least MaxBulk + 64 KiB
	MaxInline  int // bytes of an inline command; default 64 KiB
	// MaxQuery bounds the bytes of unfinished commands over all connections of
	// this server, and of read buffers that pipelines fill; past it the connection that
	// asks for more is closed, and past half of it those buffers are small. 256 MiB.
	MaxQuery int64

	// Before login (only when a password is set).
	MaxLoginArgs int // default 10
	MaxLoginBulk int // default 16 KiB

	MaxClients int // connections; default 10000

	// Window is how many commands of one connection may run at a time. 128.
	Window int
	// MaxInFlight is the same for all connections of this server together, in
	// keys; past it each connection runs one command at a time. 1024.
	MaxInFlight int
	// MaxReply bounds one reply; a longer one becomes an error. 256 MiB.
	MaxReply int
	// MaxReplies bounds the reply bytes held for clients that read slowly; past
	// it pipelines run one command at a time. Default 64 MiB.
	MaxReplies int64
	// MaxLCS bounds the work of one LCS: the product of the lengths of its two
	// values, each and one. Default 16 Mi; there is one LCS at a time.
	MaxLCS int
	// MaxFields bounds the operations of one BITFIELD. Default 16 Ki.
	MaxFields int
	// FlushBytes of replies are sent without waiting for the batch. 64 KiB.
	FlushBytes int

	// MaxQueued is how many commands may wait behind MULTI on one connection, and
	// MaxQueuedBytes what they and the keys watched may take; a command too many is
	// refused, and EXEC with it. Default 256 Ki commands, 64 MiB.
	MaxQueued      int
	MaxQueuedBytes int64
	// MaxQueuedTotal is MaxQueuedBytes of all connections of this server together.
	// Default 256 MiB.
	MaxQueuedTotal int64
	// MaxWatched is how many keys a connection may watch. Default 1024.
	MaxWatched int
	// Publish and subscribe. A channel's name and a pattern may have MaxChannel
	// bytes, 4 KiB, a message MaxMessage, MaxValue. A connection may subscribe to
	// MaxSubscriptions channels, 16384, and MaxPatterns patterns, 1024.
	MaxChannel, MaxMessage, MaxSubscriptions, MaxPatterns int
	// A connection that has PushHard bytes of messages still to be sent is closed,
	// 32 MiB, and so is one that has had more than PushSoft, 8 MiB, for
	// PushSoftTime, 60 s.
	PushHard, PushSoft int64
	PushSoftTime       time.Duration
	// MaxPushes bounds the bytes of messages still to be sent over all
	// connections of this server: past it whoever has a backlog and is sent
	// another message is closed. 256 MiB.
	MaxPushes int64

	// MaxMonitorLine is how long a line of MONITOR may be, about; what is longer is
	// cut. Default: room for any one value, up to half of PushHard.
	MaxMonitorLine int

	// IdleTimeout closes a connection that asks nothing for so long; default 0:
	// never, as Redis.
	IdleTimeout time.Duration
	// ReadTimeout is how long a command may take to arrive. Default 60 s.
	ReadTimeout time.Duration
	// LoginTimeout is how long a connection may stay without having logged in,
	// when a password is set. Default 30 s.
	LoginTimeout time.Duration
	// WriteTimeout is how long a client may leave a reply unread. Default 10 s.
	WriteTimeout time.Duration
	// RequestTimeout bounds one read or write in the cluster. Default 0: the
	// coordinator's own.
	RequestTimeout time.Duration
	// WalkTimeout bounds a command over many keys (SCAN, KEYS, DBSIZE,
	// FLUSHALL). Default 60 s.
	WalkTimeout time.Duration
}

// Defaults of Limits.
const (
	kib = 1 << 10
	mib = 1 << 20

	defaultMaxKey       = 64 * kib
	defaultMaxValue     = 1 * mib
	defaultMaxBulk      = 16 * mib
	defaultMaxArgs      = 1 << 20
	defaultMaxCommand   = 64 * mib
	defaultMaxInline    = 64 * kib
	defaultMaxQuery     = 256 * mib
	defaultMaxLoginArgs = 10
	defaultMaxLoginBulk = 16 * kib
	defaultMaxClients   = 10000
	defaultWindow       = 128
	defaultMaxInFlight  = 1024
	defaultMaxReply     = 256 * mib
	defaultMaxReplies   = 64 * mib
	defaultMaxLCS       = 16 * mib
	defaultMaxFields    = 16 * kib
	defaultFlushBytes   = 64 * kib
	defaultMaxQueued    = 256 * kib
	defaultQueuedBytes  = 64 * mib
	defaultQueuedTotal  = 256 * mib
	defaultMaxWatched   = 1024
	defaultMaxChannel   = 4 * kib // the square is less than glob.Steps
	defaultMaxSubs      = 16384
	defaultMaxPatterns  = 1024
	defaultPushHard     = 32 * mib
	defaultPushSoft     = 8 * mib
	defaultPushSoftTime = 60 * time.Second
	defaultMaxPushes    = 256 * mib
	defaultReadTimeout  = 60 * time.Second
	defaultLoginTimeout = 30 * time.Second
	defaultWriteTimeout = 10 * time.Second
	defaultWalkTimeout  = 60 * time.Second
)

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (l Limits) withDefaults() Limits {
	orDefault(&l.MaxKey, defaultMaxKey)
	orDefault(&l.MaxValue, defaultMaxValue)
	orDefault(&l.MaxBulk, max(defaultMaxBulk, l.MaxKey, l.MaxValue))
	orDefault(&l.MaxArgs, defaultMaxArgs)
	orDefault(&l.MaxCommand, max(defaultMaxCommand, l.MaxBulk+64*kib))
	orDefault(&l.MaxInline, defaultMaxInline)
	orDefault(&l.MaxQuery, max(defaultMaxQuery, 4*int64(l.MaxCommand)))
	orDefault(&l.MaxLoginArgs, defaultMaxLoginArgs)
	orDefault(&l.MaxLoginBulk, defaultMaxLoginBulk)
	orDefault(&l.MaxClients, defaultMaxClients)
	orDefault(&l.Window, defaultWindow)
	orDefault(&l.MaxInFlight, defaultMaxInFlight)
	orDefault(&l.MaxReply, max(defaultMaxReply, 2*l.MaxBulk))
	orDefault(&l.MaxReplies, defaultMaxReplies)
	orDefault(&l.MaxLCS, defaultMaxLCS)
	orDefault(&l.MaxFields, defaultMaxFields)
	orDefault(&l.FlushBytes, defaultFlushBytes)
	orDefault(&l.MaxQueued, defaultMaxQueued)
	orDefault(&l.MaxQueuedBytes, max(defaultQueuedBytes, int64(l.MaxCommand)))
	orDefault(&l.MaxQueuedTotal, max(defaultQueuedTotal, l.MaxQueuedBytes))
	orDefault(&l.MaxWatched, defaultMaxWatched)
	orDefault(&l.MaxChannel, defaultMaxChannel)
	orDefault(&l.MaxMessage, l.MaxValue)
	orDefault(&l.MaxSubscriptions, defaultMaxSubs)
	orDefault(&l.MaxPatterns, defaultMaxPatterns)
	orDefault(&l.PushHard, max(defaultPushHard, 2*int64(l.MaxMessage)))
	orDefault(&l.PushSoft, min(defaultPushSoft, l.PushHard))
	orDefault(&l.PushSoftTime, defaultPushSoftTime)
	orDefault(&l.MaxPushes, max(defaultMaxPushes, 2*l.PushHard))
	orDefault(&l.MaxMonitorLine, int(min(int64(4*l.MaxValue+64*kib), l.PushHard/2))) // a byte may take four
	orDefault(&l.ReadTimeout, defaultReadTimeout)
	orDefault(&l.LoginTimeout, defaultLoginTimeout)
	orDefault(&l.WriteTimeout, defaultWriteTimeout)
	orDefault(&l.WalkTimeout, defaultWalkTimeout)
	return l
}

func (l Limits) validate() error {
	var errs []error
	atLeast := func(name string, got, want int) {
		if got < want {
			errs = append(errs, fmt.Errorf("%s (%d) must be at least %d", name, got, want))
		}
	}
	atLeast("max key", l.MaxKey, 1)
	atLeast("max value", l.MaxValue, 1)
	atLeast("max bulk", l.MaxBulk, max(l.MaxKey, l.MaxValue))
	atLeast("max args", l.MaxArgs, 16)
	atLeast("max command", l.MaxCommand, l.MaxBulk)
	atLeast("max inline", l.MaxInline, 1*kib)
	atLeast("max login args", l.MaxLoginArgs, 3)
	atLeast("max login bulk", l.MaxLoginBulk, 64)
	atLeast("max clients", l.MaxClients, 1)
	atLeast("window", l.Window, 1)
	atLeast("max in flight", l.MaxInFlight, 1)
	atLeast("max reply", l.MaxReply, l.MaxValue+kib)
	atLeast("max lcs", l.MaxLCS, 1)
	atLeast("max fields", l.MaxFields, 1)
	atLeast("flush bytes", l.FlushBytes, 1)
	atLeast("max queued", l.MaxQueued, 1)
	atLeast("max watched", l.MaxWatched, 1)
	if l.MaxQueuedBytes < 1 || l.MaxQueuedTotal < l.MaxQueuedBytes {
		errs = append(errs, fmt.Errorf("max queued total (%d) must be at least max queued bytes (%d), and that at least 1", l.MaxQueuedTotal, l.MaxQueuedBytes))
	}
	atLeast("max channel", l.MaxChannel, 1)
	atLeast("max message", l.MaxMessage, 1)
	atLeast("max monitor line", l.MaxMonitorLine, 1)
	atLeast("max subscriptions", l.MaxSubscriptions, 1)
	atLeast("max patterns", l.MaxPatterns, 1)
	if l.PushSoft < 1 || l.PushHard < l.PushSoft || l.MaxPushes < l.PushHard {
		errs = append(errs, fmt.Errorf("push soft (%d), push hard (%d) and max pushes (%d) must be positive and ascend",
			l.PushSoft, l.PushHard, l.MaxPushes))
	}
	if l.MaxQuery < int64(l.MaxCommand) {
		errs = append(errs, fmt.Errorf("max query (%d) must be at least max command (%d)", l.MaxQuery, l.MaxCommand))
	}
	for _, d := range []time.Duration{l.IdleTimeout, l.ReadTimeout, l.LoginTimeout, l.WriteTimeout, l.RequestTimeout, l.WalkTimeout, l.PushSoftTime} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("negative timeout %v", d))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.withDefaults()
	orDefault(&c.SentinelName, defaultSentinelName)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TokenKey == nil {
		c.TokenKey = func() version.MACKey { return version.MACKey{} }
	}
	if c.Hub == nil {
		c.Hub = NewHub(HubConfig{})
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("store is missing"))
	}
	if c.Admin == nil {
		errs = append(errs, errors.New("admin is missing"))
	}
	if c.Ring == nil {
		errs = append(errs, errors.New("ring is missing"))
	}
	if c.Door > Sentinel {
		errs = append(errs, fmt.Errorf("unknown door %d", c.Door))
	}
	if err := c.Limits.validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
