package resp

import (
	"context"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Store is what the doors need of the coordinator. A done callback is called
// exactly once, from any goroutine, and must not block.
type Store interface {
	Read(key []byte, o coordinator.ReadOptions, done func(coordinator.ReadResult, error))
	Write(key []byte, op version.Op, o coordinator.WriteOptions, done func(coordinator.WriteResult, error))
	Scan(ctx context.Context, req coordinator.ScanRequest) (coordinator.ScanPage, error)
	Count(ctx context.Context, owned bool) (int64, error)
	CountSlot(ctx context.Context, slot uint16) (int64, error)
	RandomKey(ctx context.Context, owned bool) (key []byte, found bool, err error)
	Inspect(ctx context.Context, key []byte) ([]coordinator.Inspection, error)
	Spread(ctx context.Context, req coordinator.SpreadRequest) (coordinator.Spread, error)
}

// Admin is what the doors need of the node around them. All methods are cheap
// and never wait.
type Admin interface {
	// Identity is fixed for the life of the process.
	Identity() Identity
	// Ready reports whether data commands may be served. Once true it stays true.
	Ready() bool
	// Level is what all programs of the cluster can read (package membership): 0 as
	// long as nobody knows.
	Level() uint16
	// View is the published map; the same pointer until something changed.
	View() *View
	// Owners lists the owners of key in ring order, then the present fallbacks.
	Owners(key []byte) []Owner
	// RingStatus is one row per member plus figures of the whole ring.
	RingStatus() RingStatus
	// Repair begins a comparison of some slots with their other owners, or answers
	// ErrRepairing.
	Repair(first, last ring.Slot) error
	// RepairStatus describes the last repair.
	RepairStatus() []Field
	// Hints lists the nodes that something is or was kept for.
	Hints() []HintTarget
	// Stats is a snapshot for INFO.
	Stats() Stats
}

// Identity names the process behind the doors.
type Identity struct {
	ID      ring.NodeID
	RunID   string // 40 hex digits, new at every start
	Version string // redynamo's own version
	DataDir string
	Started time.Time
}

// Owner is one row of RING OWNERS.
type Owner struct {
	Node  ring.NodeID
	Addr  string // plain door, host:port
	Zone  string
	Role  string // "owner" or "fallback"
	Alive bool
}

// RingStatus is the content of RING STATUS.
type RingStatus struct {
	Epoch   uint64 // ring digest
	Units   int
	N, R, W int
	Members []RingMember
	Staged  []RingMember // live nodes that are no members: RING PLAN ADD makes them some
	Extra   []Field      // further figures, printed as they are
}

// RingMember is one member in RING STATUS.
type RingMember struct {
	ID         ring.NodeID
	Addr       string
	Zone       string
	Weight     int
	Alive      bool
	Recovering bool   // it has lost writes that it had acknowledged
	Moving     string // "joining" or "leaving" while the ring changes
	Step       string // how far it is in the change: "", "acked", "synced" or "read"
	Partitions int    // owned, in any position
	MaxLevel   int    // highest level of the cluster that its program serves; 0: not known
	First      int    // owned as head of the preference list
}

// HintTarget is one entry of HINTS: a node that this one keeps, or kept, writes
// for.
type HintTarget struct {
	ID             ring.NodeID
	Addr           string // plain door, host:port; "" if unknown
	Up             bool
	Rows, Bytes    int64 // kept now
	Budget         int64 // bytes above which optional hints are refused
	OverBudget     bool
	Oldest         time.Duration // age of the oldest hint; 0 without hints
	DeliveredRows  int64         // since the start
	DeliveredBytes int64
	Failed         int64  // messages and rows that the node did not take
	State          string // idle, delivering, waiting or backing-off
}

// Field is a named figure in an INFO section or a status reply.
type Field struct{ Name, Value string }

// Stats are the node's own figures for INFO. Zero fields are printed as zero.
type Stats struct {
	Keys, Expires int64 // live keys this node holds
	ExpiredKeys   int64 // keys expired since start
	DiskBytes     int64
	CacheBytes    int64
	HintBytes     int64
	Hints         int64
	Hits, Misses  int64  // reads that found a value, and that did not
	Fsync         string // always, interval or one
	Divergence    coordinator.Divergence
	Warnings      []Field // shown in section redynamo
	Extra         []Field // further lines of section redynamo
	Handoff       []Field // section handoff
	Damage        []Field // section damage
}
