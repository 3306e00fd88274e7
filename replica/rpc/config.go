package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/cork"
)

// Dialer opens a connection to a peer's address. TLS, when there is any, is
// inside it and inside the listener.
//
// Requires: Close of a connection does not block. A TLS connection therefore
// has to close the one underneath, without a farewell.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// PoolConfig configures the calling side. Node, ClusterID and Dial are
// required; the zero value of everything else is the default named with it.
type PoolConfig struct {
	Node      ring.NodeID
	ClusterID func() [16]byte // asked at every handshake
	Dial      Dialer

	// Levels are asked for at every handshake, and now and then: a connection to a node
	// that serves only what is below the level in force ends. All levels, if nil.
	Levels func() Levels

	MaxFrameBytes int // largest frame sent or taken; 4 MiB
	BulkBytes     int // a request this large uses the bulk connection; 64 KiB
	MaxCalls      int // in flight on one connection, at most 65536; 4096
	MaxCallBytes  int // bytes of requests in flight on one connection; 32 MiB

	CallTimeout  time.Duration // of a call without a deadline; 2 s
	DialTimeout  time.Duration // for dialing and the handshake together; 1 s
	WriteTimeout time.Duration // for 256 KiB to leave; 5 s
	KeepAlive    time.Duration // silence after which a peer is pinged; 500 ms
	MessageAge   time.Duration // nothing is carried out later after it was sent; 60 s

	SuspectAfter   int           // consecutive timeouts of one kind; 2
	SuspectSlow    time.Duration // how long they must have gone on; 1 s
	SuspectTimeout time.Duration // silence that is enough by itself; 500 ms
	ProbeMin       time.Duration // first wait before a suspect is probed; 100 ms
	ProbeMax       time.Duration // longest wait between probes; 2 s

	// OnChange is told when a peer is suspected and when it is back. It is
	// called by the goroutine that looks after that peer, in order, and must
	// not block. A change undone at once may not be reported.
	OnChange func(id ring.NodeID, up bool)

	// State is what a peer is handed that has not heard of what this node goes by: the
	// same slice as long as it is the same state, and not to be modified. None, if nil.
	State func() []byte

	// OnStale is told the state of epochs that came with a refusal for stale ones,
	// before the call ends with ErrStaleEpoch. The state is its to keep. It must not
	// block. Nobody is told, if nil.
	OnStale func(from ring.NodeID, state []byte)

	Cork    *cork.Cork    // of the node; nil: requests leave as soon as they can
	Rand    func() uint64 // spreads the probes; math/rand/v2
	Logger  *slog.Logger
	Metrics *metrics.Set
}

func (c PoolConfig) withDefaults() PoolConfig {
	c.MaxFrameBytes = or(c.MaxFrameBytes, 4<<20)
	c.BulkBytes = or(c.BulkBytes, 64<<10)
	c.MaxCalls = or(c.MaxCalls, 4096)
	c.MaxCallBytes = or(c.MaxCallBytes, 32<<20)
	c.CallTimeout = or(c.CallTimeout, 2*time.Second)
	c.DialTimeout = or(c.DialTimeout, time.Second)
	c.WriteTimeout = or(c.WriteTimeout, 5*time.Second)
	c.KeepAlive = or(c.KeepAlive, 500*time.Millisecond)
	c.MessageAge = or(c.MessageAge, time.Minute)
	c.SuspectAfter = or(c.SuspectAfter, 2)
	c.SuspectSlow = or(c.SuspectSlow, time.Second)
	c.SuspectTimeout = or(c.SuspectTimeout, 500*time.Millisecond)
	c.ProbeMin = or(c.ProbeMin, 100*time.Millisecond)
	c.ProbeMax = or(c.ProbeMax, max(2*time.Second, c.ProbeMin))
	if c.Levels == nil {
		c.Levels = func() Levels { return Levels{} }
	}
	if c.OnChange == nil {
		c.OnChange = func(ring.NodeID, bool) {}
	}
	if c.State == nil {
		c.State = func() []byte { return nil }
	}
	if c.OnStale == nil {
		c.OnStale = func(ring.NodeID, []byte) {}
	}
	if c.Rand == nil {
		c.Rand = rand.Uint64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

func (c PoolConfig) validate() error {
	var errs []error
	if c.Node == 0 {
		errs = append(errs, errors.New("node is not set"))
	}
	if c.ClusterID == nil {
		errs = append(errs, errors.New("cluster id is not set"))
	}
	if c.Dial == nil {
		errs = append(errs, errors.New("dial is not set"))
	}
	errs = append(errs, checkFrameLimit(c.MaxFrameBytes))
	if c.MaxCalls < 1 || c.MaxCalls > maxSlots {
		errs = append(errs, fmt.Errorf("max calls (%d) must be in 1..%d", c.MaxCalls, maxSlots))
	}
	if c.MaxCallBytes < c.MaxFrameBytes {
		errs = append(errs, fmt.Errorf("max call bytes (%d) must hold one frame (%d)", c.MaxCallBytes, c.MaxFrameBytes))
	}
	if c.BulkBytes < 0 || c.SuspectAfter < 1 {
		errs = append(errs, fmt.Errorf("bulk bytes (%d) and suspect after (%d) must be positive", c.BulkBytes, c.SuspectAfter))
	}
	if c.ProbeMin < 0 || c.ProbeMax < c.ProbeMin {
		errs = append(errs, fmt.Errorf("probe waits (%v to %v) must be positive and ascend", c.ProbeMin, c.ProbeMax))
	}
	errs = append(errs, checkDurations(c.CallTimeout, c.DialTimeout, c.WriteTimeout, c.KeepAlive, c.SuspectSlow, c.SuspectTimeout))
	errs = append(errs, checkAge(c.MessageAge))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rpc: pool: %w", err)
	}
	return nil
}

// ServerConfig configures the serving side. Node, ClusterID and Handler are
// required; the zero value of everything else is the default named with it.
type ServerConfig struct {
	Node      ring.NodeID
	ClusterID func() [16]byte // asked at every handshake
	Handler   Handler

	// Stale judges a request for rows by its sender and the epochs that it goes by:
	// whether it must not be carried out. It must not block. Nothing is stale, if nil.
	Stale func(from ring.NodeID, e Epochs, read bool) bool
	// EpochState is what the sender of a stale request is to merge: the same slice as
	// long as it is the same state, and not to be modified. None, if nil.
	EpochState func() []byte

	// Levels are asked for at every handshake, and now and then: a connection to a node
	// that serves only what is below the level in force ends. All levels, if nil.
	Levels func() Levels

	MaxConns      int // 1024; a connection past it is closed at once
	MaxFrameBytes int // largest frame sent or taken; 4 MiB

	// In flight over all connections, for foreground requests. Repair may use
	// half of it and background a quarter, so that they are refused first.
	MaxCalls     int // 16384
	MaxCallBytes int // 256 MiB

	// MaxBacklogBytes bounds the replies a caller has not read yet: at this
	// size no more of its requests are read, at four times it the connection
	// is closed. 16 MiB.
	MaxBacklogBytes int

	HandshakeTimeout time.Duration // 5 s
	IdleTimeout      time.Duration // a connection silent for as long is closed; 60 s
	WriteTimeout     time.Duration // for 256 KiB to leave; 5 s
	MessageAge       time.Duration // nothing is carried out later after it was sent; 60 s

	Cork    *cork.Cork // of the node; nil: replies leave as soon as they can
	Logger  *slog.Logger
	Metrics *metrics.Set
}

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Stale == nil {
		c.Stale = func(ring.NodeID, Epochs, bool) bool { return false }
	}
	if c.EpochState == nil {
		c.EpochState = func() []byte { return nil }
	}
	if c.Levels == nil {
		c.Levels = func() Levels { return Levels{} }
	}
	c.MaxConns = or(c.MaxConns, 1024)
	c.MaxFrameBytes = or(c.MaxFrameBytes, 4<<20)
	c.MaxCalls = or(c.MaxCalls, 16384)
	c.MaxCallBytes = or(c.MaxCallBytes, 256<<20)
	c.MaxBacklogBytes = or(c.MaxBacklogBytes, 16<<20)
	c.HandshakeTimeout = or(c.HandshakeTimeout, 5*time.Second)
	c.IdleTimeout = or(c.IdleTimeout, time.Minute)
	c.MessageAge = or(c.MessageAge, time.Minute)
	c.WriteTimeout = or(c.WriteTimeout, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

func (c ServerConfig) validate() error {
	var errs []error
	if c.Node == 0 {
		errs = append(errs, errors.New("node is not set"))
	}
	if c.ClusterID == nil {
		errs = append(errs, errors.New("cluster id is not set"))
	}
	if c.Handler == nil {
		errs = append(errs, errors.New("handler is not set"))
	}
	errs = append(errs, checkFrameLimit(c.MaxFrameBytes))
	if c.MaxConns < 1 || c.MaxCalls>>Background < 1 {
		errs = append(errs, fmt.Errorf("max conns (%d) must be positive and max calls (%d) at least %d",
			c.MaxConns, c.MaxCalls, 1<<Background))
	}
	if c.MaxCallBytes>>Background < c.MaxFrameBytes || c.MaxBacklogBytes < c.MaxFrameBytes {
		errs = append(errs, fmt.Errorf("max call bytes (%d) must hold %d frames (%d) and max backlog bytes (%d) one",
			c.MaxCallBytes, 1<<Background, c.MaxFrameBytes, c.MaxBacklogBytes))
	}
	errs = append(errs, checkDurations(c.HandshakeTimeout, c.IdleTimeout, c.WriteTimeout), checkAge(c.MessageAge))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rpc: server: %w", err)
	}
	return nil
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func checkFrameLimit(n int) error {
	if n < minFrameLimit || n > maxFrameLimit {
		return fmt.Errorf("max frame bytes (%d) must be in %d..%d", n, minFrameLimit, maxFrameLimit)
	}
	return nil
}

// minMessageAge leaves room for the pings that show the age of a message.
const minMessageAge = time.Second

func checkAge(d time.Duration) error {
	if d < minMessageAge {
		return fmt.Errorf("message age (%v) must be at least %v", d, minMessageAge)
	}
	return nil
}

func checkDurations(ds ...time.Duration) error {
	for _, d := range ds {
		if d < 0 {
			return fmt.Errorf("timeout %v is negative", d)
		}
	}
	return nil
}
