package coordinator

import (
	"context"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// Coordinator runs client requests over the replicas of their keys. Its
// methods may be called from any goroutine.
type Coordinator struct {
	cfg     Config
	cluster Cluster
	local   Local
}

// New builds a coordinator; it starts nothing.
func New(cfg Config, cluster Cluster, local Local) (*Coordinator, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Coordinator{cfg: cfg, cluster: cluster, local: local}, nil
}

// ReadOptions are the settings of one read.
type ReadOptions struct {
	R       int            // 0: the configured default; capped by n
	Min     *version.Token // the answer must cover it, else ErrStale; nil: no minimum
	Timeout time.Duration  // 0: the configured default
}

// ReadResult is the join of R copies.
type ReadResult struct {
	Record   version.Record // shared, not to be modified; the zero record is an absent key
	Fallback bool           // a fallback was among the R nodes: R+W>N promises nothing here
}

// WriteOptions are the settings of one write.
type WriteOptions struct {
	R, W    int           // 0: the configured defaults; capped by n
	Timeout time.Duration // 0: the configured default
}

// WriteResult is what an acknowledged write did.
type WriteResult struct {
	version.Outcome
	Fallback bool // minted by a fallback because no owner could be reached
}

// ScanRequest asks for one page of the keys of the cluster.
type ScanRequest struct {
	Cursor uint64 // 0 begins
	Count  int    // about how many keys; 10 if 0
	Owned  bool   // only slots that this node is the first live owner of
}

// ScanPage is one page of keys; Cursor 0 ends the scan.
type ScanPage struct {
	Keys   [][]byte
	Cursor uint64
}

// Read reads key from R replicas and calls done exactly once with the join of
// their copies. key must not be modified afterwards.
func (c *Coordinator) Read(key []byte, o ReadOptions, done func(ReadResult, error)) {
	panic("coordinator: not built yet")
}

// Write applies op to key, here if this node is an owner, else at the first
// live owner, and calls done exactly once when W nodes have stored it or that
// cannot be. key and what op points to must not be modified afterwards.
func (c *Coordinator) Write(key []byte, op version.Op, o WriteOptions, done func(WriteResult, error)) {
	panic("coordinator: not built yet")
}

// ServeForwarded coordinates a write that another node handed over; it is
// never handed on.
func (c *Coordinator) ServeForwarded(key []byte, op version.Op, o WriteOptions, done func(WriteResult, error)) {
	panic("coordinator: not built yet")
}

// Scan returns one page of keys.
func (c *Coordinator) Scan(ctx context.Context, req ScanRequest) (ScanPage, error) {
	panic("coordinator: not built yet")
}

// Count returns the number of live keys of the cluster, or of the slots this
// node is the first live owner of.
func (c *Coordinator) Count(ctx context.Context, owned bool) (int64, error) {
	panic("coordinator: not built yet")
}

// CountSlot returns the number of live keys in one slot.
func (c *Coordinator) CountSlot(ctx context.Context, slot uint16) (int64, error) {
	panic("coordinator: not built yet")
}

// RandomKey returns some live key; found is false if there is none.
func (c *Coordinator) RandomKey(ctx context.Context, owned bool) (key []byte, found bool, err error) {
	panic("coordinator: not built yet")
}

// Inspect returns every copy of key in the cluster, owners first.
func (c *Coordinator) Inspect(ctx context.Context, key []byte) ([]Inspection, error) {
	panic("coordinator: not built yet")
}

// Drain refuses new requests and waits for those under way and their tails.
func (c *Coordinator) Drain(ctx context.Context) error {
	panic("coordinator: not built yet")
}

