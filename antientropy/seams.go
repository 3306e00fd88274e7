package antientropy

import (
	"cmp"
	"context"
	"time"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// KeyState is the position and a hash of one own row: of what a leaf of the trees tells
// of it, or of the whole record.
type KeyState struct {
	Slot    ring.Slot
	KeyHash uint32
	State   uint64
}

// Position is a place in the order of rows. The few keys whose hashes are equal
// share one.
type Position struct {
	Slot    ring.Slot
	KeyHash uint32
}

// compare is negative if p is before q, and positive if it is behind it.
func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Slot, q.Slot), cmp.Compare(p.KeyHash, q.KeyHash))
}

// Row is one own row, as it travels.
type Row struct {
	Key    []byte
	State  uint64 // hash of the whole Record
	Record []byte
}

// size is what a row counts for in bounds and figures.
func (r *Row) size() int { return len(r.Key) + len(r.Record) }

// Source is the own rows of this node.
type Source interface {
	// Digests returns the digests of the cells of a slot.
	Digests(slot ring.Slot) [merkle.CellsPerSlot]uint64
	// DigestVersions grows with every change of the digests of some slots.
	DigestVersions(first, last ring.Slot) uint64
	// Reader returns the rows in the slots from first to last of this moment.
	Reader(first, last ring.Slot) (Reader, error)
	// Merge joins a record into the own row of key, unless the row cannot be had
	// before the deadline; done(nil) means that it is durable.
	Merge(key, record []byte, deadline time.Time, done func(error))
	// Barrier calls done when all that was taken before is durable.
	Barrier(done func(error))
}

// Reader reads rows of one moment.
type Reader interface {
	// List answers a question. It has no bound but the limit, which it may exceed by the
	// states of one position. Requires: the question names a cell.
	List(q ListQuery) (ListAnswer, error)
	// Rows returns the rows at the first n of some positions, ascending, at least of one,
	// until they are about maxBytes. Requires: there is a position.
	Rows(at []Position, maxBytes int) (rows []Row, n int, err error)
	// Close lets go of the moment.
	Close() error
}

// Peer is another owner.
type Peer interface {
	// Nodes returns hashes of one level of the trees of some partitions.
	Nodes(ctx context.Context, q NodesQuery) ([]uint64, error)
	// List returns the states of the keys in some cells.
	List(ctx context.Context, q ListQuery) (ListAnswer, error)
	// Fetch returns the rows at the first of some positions, ascending; n says how many
	// were answered, at least one.
	Fetch(ctx context.Context, at []Position, maxBytes int) (rows []Row, n int, err error)
	// Deliver brings rows, which are durable when it returns. credit is how many
	// bytes the peer would take next, 0 none for now.
	Deliver(ctx context.Context, rows []Row) (credit int, err error)
	// Begin tells the peer that a session begins. It comes before every question.
	// ErrBusy means that the peer is in another one.
	Begin(ctx context.Context, s Session) error
	// End returns when all that the peer has taken is durable, and lets it know
	// that the session has succeeded.
	End(ctx context.Context, s Session) error
}

// Session is a comparison of the partitions that two nodes own in some slots.
type Session struct {
	Epoch       uint64 // of the ring
	First, Last ring.Slot
}

// givenUp is what stands in the end of a session that was given up: a session of a ring
// that is none, so the release before takes it for the end of another.
func (s Session) givenUp() Session {
	s.Epoch = ^s.Epoch
	return s
}

// Node names a node of the tree of a partition.
type Node struct {
	Partition int
	Index     int
}

// NodesQuery asks for hashes of one level of some trees: of all nodes of that level
// that are below those named, which are Step levels higher. So a question about
// many nodes is short.
type NodesQuery struct {
	Units int // partitions of the ring
	Level int
	Step  int
	Nodes []Node
}

// ListQuery asks for the states of the keys in some cells, ascending, from key
// hash From on in the first, until there are Limit.
type ListQuery struct {
	Cells []merkle.Cell
	From  uint32
	Limit int
	Whole bool // states are those of whole records. A peer that cannot tell answers others.
}

// ListAnswer has the keys of the first Cells cells and, if these are not all,
// those of the next one below hash Next.
type ListAnswer struct {
	Cells  int
	Next   uint32
	States []KeyState
}

// Cluster is what is known of the other nodes. Its methods do not block.
type Cluster interface {
	// Rings returns the rings in force; their Live is nil while there are none.
	Rings() Rings
	// Self is this node.
	Self() ring.NodeID
	// Up reports whether a node seems to be alive.
	Up(node ring.NodeID) bool
	// Peer returns the way to another node for what goes by some epochs, nil if the node
	// is unknown. Once these are over for the node, it refuses all questions.
	Peer(node ring.NodeID, by Stamp) Peer
}

// Stamp names the epochs that rings follow from, to other nodes. This package does not
// look inside.
type Stamp [32]byte

// Rings are the rings of one moment.
type Rings struct {
	*ring.Live
	Stamp Stamp
}
