package ring

import (
	"cmp"
	"slices"
)

// Record is one entry of the membership history (Dynamo §4.8.1): what an
// administrator last said of one node. Records are gossiped and persisted; a
// removed node's record stays, so that its removal is not forgotten.
type Record struct {
	Member
	Counter uint64 // grows by one with each change to this node
	TimeMS  int64
	Admin   NodeID // the node at which the change was made
	Removed bool
	// Forgotten says that the node was removed without its consent, being dead:
	// nobody waits for it, and nobody listens to it should it come back. It is
	// final: such a record wins over all others of the node, because a ring may
	// already have been adopted behind its back.
	Forgotten bool
}

// compareStamp orders the records of one node; the greatest wins. The contents
// come last, so that even records that wrongly share a stamp are reconciled
// alike everywhere.
func (r Record) compareStamp(s Record) int {
	return cmp.Or(
		compareBool(r.Forgotten, s.Forgotten),
		cmp.Compare(r.Counter, s.Counter),
		cmp.Compare(r.TimeMS, s.TimeMS),
		cmp.Compare(r.Admin, s.Admin),
		compareBool(r.Removed, s.Removed),
		cmp.Compare(r.Weight, s.Weight),
		cmp.Compare(r.PlaceID, s.PlaceID),
		cmp.Compare(r.Zone, s.Zone),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// Reconcile joins two histories: of each node the winning record, sorted by ID.
// It is commutative, associative and idempotent, so histories converge however
// gossip spreads them. The arguments need no order and are not changed.
func Reconcile(a, b []Record) []Record {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(r, s Record) int {
		return cmp.Or(cmp.Compare(r.ID, s.ID), s.compareStamp(r))
	})
	return slices.CompactFunc(all, func(r, s Record) bool { return r.ID == s.ID })
}

// Members gives the members a reconciled history leaves: all not removed. Two
// that claim one place are settled by [New].
func Members(history []Record) []Member {
	var ms []Member
	for _, r := range history {
		if !r.Removed {
			ms = append(ms, r.Member)
		}
	}
	return ms
}
