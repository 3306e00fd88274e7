package coordinator

import (
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Class says for whom a message to a peer is sent; a busy peer refuses the
// higher classes first.
type Class uint8

// The classes, the most urgent first.
const (
	ClassForeground Class = iota // a client waits for it
	ClassRepair                  // a stale owner is brought up to date
	ClassBackground              // nobody waits
)

// Stamp says by which epochs a request goes, in the words of package epoch. Each of its
// messages for rows carries it, so that a node which knows better can refuse.
type Stamp [32]byte

// Cluster is what the coordinator knows of the other nodes. Its methods are
// called on the hot path: they answer from memory and never block.
type Cluster interface {
	// Rings returns the live rings, nil while this node may not coordinate requests;
	// the same pointer until they change. A request goes by one to its end.
	Rings() *Rings
	// Up reports whether node seems to be alive. The local node is always up.
	Up(node ring.NodeID) bool
	// Peer returns the way to node, nil if it is unknown. Peer(Self()) is the
	// local replica, so that "is it me?" stays out of the algorithms.
	Peer(node ring.NodeID) Peer
	// Self is the identity of the local node.
	Self() ring.NodeID
}

// Peer is one node, remote or local.
//
// Every method returns without waiting and calls done exactly once, from any
// goroutine, perhaps before it returns. done does not block. The bytes in a
// request are shared and never modified; they may be kept. A peer gives up by
// itself at the deadline of the request, with ErrLost.
type Peer interface {
	// Read reads one copy of a key.
	Read(req ReadRequest, done func(ReadReply, error))
	// Merge joins a record into the peer's copy; done(nil) means stored (and
	// synced, if the request says durable).
	Merge(req MergeRequest, done func(error))
	// Prove asks for a sign of life: done(nil) means that the peer's process was
	// alive after the call. An error, which comes within a second or so, means
	// only that it did not show.
	Prove(done func(error))
	// Write hands a client's write to the peer's ServeForwarded.
	Write(req ForwardRequest, done func(WriteResult, error))
	// Scan lists keys that the peer holds for itself, in order of (slot, hash).
	Scan(req ScanRange, done func(ScanReply, error))
	// Count counts the live keys that the peer holds in the slots given.
	Count(req CountRequest, done func(int64, error))
	// Inspect returns every copy of a key at the peer: its own and its hints.
	Inspect(req InspectRequest, done func([]Inspection, error))
	// Latency is about the 95th percentile of the peer's answers, 0 if unknown.
	Latency() time.Duration
}

// Local is the part of the local replica that no peer has: it mints dots.
type Local interface {
	// Mutate merges base into the local copy of key, applies op with a fresh
	// dot and queues the result for commit, atomically. With owner set the copy
	// is the hint kept for that owner.
	//
	// On success it returns at once the encoded new record, to be sent to the
	// other replicas, and what the operation did; done is then called exactly
	// once, when the copy is committed (and synced, if durable) or has failed.
	// With an error nothing was stored, and done is never called: so it ends if
	// the local copy cannot be had before the deadline.
	Mutate(key []byte, owner ring.NodeID, base version.Record, op version.Op, deadline time.Time, durable bool, done func(error)) (enc []byte, out version.Outcome, err error)
}

// ReadRequest asks for one copy of a key.
type ReadRequest struct {
	Key        []byte
	For        ring.NodeID // 0: the peer's own copy; else all that it holds of the key, as it stands in for that owner
	Have       uint64      // state hash that the caller holds; meaningful if HaveAny
	HaveAny    bool
	DigestOnly bool // answer with the state hash and no record
	Stamp      Stamp
	Deadline   time.Time
	Class      Class
}

// ReadReply is one copy of a key, or a statement about it. A key that the peer
// does not have is the zero Record with hash 0.
type ReadReply struct {
	Same       bool   // the copy has the state hash that the request gave; no record follows
	Recovering bool   // the peer has lost writes; the record follows whatever was asked, and is no vote
	Hash       uint64 // state hash of the copy
	Record     version.Record
}

// MergeRequest asks to join an encoded record into a copy of a key.
type MergeRequest struct {
	Key      []byte
	For      ring.NodeID // 0: the peer's own copy; else keep it as a hint for that owner
	Record   []byte
	Durable  bool
	Synced   bool // done(nil) means synced, however rarely the peer syncs by itself
	Optional bool // the write can do without this hint: it may be refused with ErrHintBudget
	Stamp    Stamp
	Deadline time.Time
	Class    Class
}

// ForwardRequest hands a client's write to a node that can mint a dot for it.
type ForwardRequest struct {
	Key      []byte
	Op       version.Op
	R, W     int // as in WriteOptions
	Deadline time.Time
}

// ScanRange asks for one page of keys, beginning with position (FromSlot,
// FromHash) and ending with slot ToSlot, both included.
type ScanRange struct {
	FromSlot uint16
	FromHash uint32
	ToSlot   uint16
	Limit    int // entries wanted; a page may hold more, to end between two positions
	Stamp    Stamp
	Deadline time.Time
}

// ScanEntry is one key of a page.
type ScanEntry struct {
	Slot      uint16
	KeyHash   uint32
	Key       []byte
	StateHash uint64
	Live      bool // has a value that is neither deleted nor expired
}

// ScanReply is one page in order of (Slot, KeyHash). Unless Done, everything
// before position (NextSlot, NextHash) and nothing from there on is in it, and
// that position is greater than the one asked for.
type ScanReply struct {
	Entries  []ScanEntry
	NextSlot uint16
	NextHash uint32
	Done     bool // nothing is left up to ToSlot
}

// SlotRange is a run of slots, both ends included.
type SlotRange struct{ First, Last uint16 }

// CountRequest asks for the number of live keys in some slots.
type CountRequest struct {
	Ranges   []SlotRange
	Stamp    Stamp
	Deadline time.Time
}

// InspectRequest asks for every copy of one key at one node.
type InspectRequest struct {
	Key      []byte
	Stamp    Stamp
	Deadline time.Time
}

// Inspection is one copy of a key. Peers fill For, Hash and Record; the
// coordinator fills the rest.
type Inspection struct {
	Node   ring.NodeID
	Owner  bool        // Node is an owner of the key
	For    ring.NodeID // 0: Node's own copy; else a hint for that owner
	Hash   uint64
	Record version.Record
	Note   string // why a copy without a value is still there
	Err    error  // the node could not be asked; nothing else is known
}
