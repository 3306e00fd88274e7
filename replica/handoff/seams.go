package handoff

import (
	"errors"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Row is one record of a key as it travels. It is not modified.
type Row struct {
	Slot    ring.Slot
	KeyHash uint32
	Key     []byte
	Record  []byte
}

// size is what a row counts against a grant.
func (r *Row) size() int { return len(r.Key) + len(r.Record) }

// Total is what is kept for one target. Rows may be too low while the rows of
// an unclean stop are counted; such a target is listed with none.
type Total struct {
	Target ring.NodeID
	Rows   int64
	Bytes  int64
	Since  time.Time // of the oldest hint, at the latest
}

// Page is a part of what is kept for a target. Unless Done, the next page
// begins at (NextSlot, NextHash), also after an error.
type Page struct {
	Rows       []Row
	NextSlot   ring.Slot
	NextHash   uint32
	Done       bool
	Unreadable int // damaged rows passed over
}

// Book is what this node keeps for others.
type Book interface {
	// Totals lists every target that something is kept for.
	Totals() []Total
	// Page returns rows at or after a position until they exceed maxBytes.
	Page(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (Page, error)
	// Drop deletes the row of key if its record still is the one given, and
	// calls done exactly once.
	Drop(key []byte, target ring.NodeID, record []byte, done func(dropped bool, err error))
}

// Merger joins a record into a row of this node: its own, with target 0, or the
// one that it keeps for target. done is called exactly once, when the row is
// committed, and synced if it is to be durable, or has failed. record is kept.
type Merger interface {
	Merge(key []byte, target ring.NodeID, record []byte, durable bool, done func(error))
}

// Taker is a Merger of what a message brought: if the row cannot be had before the
// deadline, nothing is stored.
type Taker interface {
	MergeBefore(deadline time.Time, key []byte, target ring.NodeID, record []byte, durable bool, done func(error))
}

// Cluster is what a Sender knows of the other nodes. It answers from memory.
type Cluster interface {
	// Rings returns the current rings.
	Rings() Rings
	// Up reports whether a node seems to be alive.
	Up(node ring.NodeID) bool
	// Peer returns the way to a node, nil if it is unknown.
	Peer(node ring.NodeID) Peer
}

// Message brings rows to a node; without rows it only asks for credit.
type Message struct {
	For     ring.NodeID // 0: the receiver's own rows; else hints for that owner
	Durable bool
	Rows    []Row
	// Refuse says of a message that came why its rows must not be taken any more; it is
	// asked when their turn has come. Nil refuses nothing.
	Refuse func() error
}

// Peer delivers to one node. done is called exactly once, from any goroutine:
// with how many bytes the next message may bring, once all rows are stored as
// asked, or with an error, which is or wraps ErrRejected if the peer cannot take
// the rows as they are. A peer gives up by itself at the deadline.
type Peer interface {
	Deliver(m Message, deadline time.Time, done func(credit int, err error))
}

// Admission decides how much a Receiver takes. Grant answers how many bytes, of
// the number wanted, one sender may bring next; 0 is nothing for now.
type Admission interface {
	Grant(want int) int
}

// Sizes knows how many bytes are kept for a target.
type Sizes interface {
	HintBytes(target ring.NodeID) int64
}

var (
	// ErrRejected: the receiver is there and cannot take these rows.
	ErrRejected = errors.New("handoff: rows rejected")
	// ErrBusy: as much is being received as may be. Nothing was stored.
	ErrBusy = errors.New("handoff: receiver is busy")
	// ErrLate: the sender has stopped waiting. Some rows may be stored.
	ErrLate = errors.New("handoff: past the deadline")
	// ErrNotReady: this node knows no ring yet.
	ErrNotReady = errors.New("handoff: no ring yet")
	// ErrNotOwner: a row is not for this node, as far as it knows.
	ErrNotOwner = errors.New("handoff: not an owner of a row")
	// ErrHintBudget: an optional hint was refused, because as much is kept for
	// its target as may be. Nothing was stored.
	ErrHintBudget = errors.New("handoff: too much is kept for that node")
)
