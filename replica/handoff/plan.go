package handoff

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Target names the rings that a change leads to.
type Target struct{ Sum, Digest uint64 }

// Plan says what goes where in a change of rings. It is immutable, and answers from
// memory. epoch.View is one.
type Plan interface {
	// Holds reports whether this node keeps own rows of a partition.
	Holds(partition int) bool
	// Recipients appends the nodes that must have the rows of a partition which are
	// here as the copy of holder: this node itself, or the owner that a hint is for.
	Recipients(dst []ring.NodeID, partition int, holder ring.NodeID) []ring.NodeID
	// MayDropHint reports whether a hint for owner is needed no more once owner has it.
	MayDropHint(partition int, owner ring.NodeID) bool
}

// Rings are the live rings of one moment, and what their change asks for.
type Rings struct {
	Live   *ring.Live // nil while there are no rings
	Number uint64     // greater than that of all Rings before
	Plan   Plan       // nil unless the rings are changing
	// Grant is the target for which things are to be handed over now: everybody
	// writes to its owners by now. Zero if nothing is to be handed over.
	Grant Target
}

// copies appends who must have a hint for a holder before the holder gets it: one that
// is an owner in the base may have handed over already what it had. What stands for
// any other is held by those in the base as well.
//
// If two owners that stay are each to have what the other has, their hints would be
// copied to and fro without end. Then wait says that the hint must stay where it is
// until this node has handed its hints over.
func (r Rings) copies(dst []ring.NodeID, partition int, holder ring.NodeID) (to []ring.NodeID, wait bool) {
	if r.Plan == nil || !r.Live.Base.Owns(holder, partition) {
		return dst, false
	}
	from := len(dst)
	dst = r.Plan.Recipients(dst, partition, holder)
	if !r.Plan.MayDropHint(partition, holder) {
		// It goes to owners of the target, whose hints are copied to coming ones only.
		return dst, len(dst) == from
	}
	return dst, slices.ContainsFunc(dst[from:], func(id ring.NodeID) bool { return r.Live.Base.Owns(id, partition) })
}
