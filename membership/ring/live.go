package ring

import (
	"cmp"
	"slices"
)

// Live are the rings in force at one moment. Reads go by the base alone. While
// partitions move to other nodes there are rings beside it that are to follow, and
// what is written must reach the owners in each. A Live is immutable.
type Live struct {
	Base   *Ring
	Beside []*Ring // the oldest first; all have the partitions of the base
	epoch  uint64
}

// NewLive puts rings together.
func NewLive(base *Ring, beside ...*Ring) *Live {
	l := &Live{Base: base, Beside: beside, epoch: base.Epoch()}
	for _, r := range beside {
		l.epoch = mix64(l.epoch ^ mix64(r.Epoch()))
	}
	return l
}

// Epoch is a digest of all rings: equal on two nodes when they route alike.
func (l *Live) Epoch() uint64 { return l.epoch }

// Units is the number of partitions.
func (l *Live) Units() int { return l.Base.Units() }

// Partition is the partition that contains a slot.
func (l *Live) Partition(s Slot) int { return l.Base.Partition(s) }

// SlotsOf gives the first and the last slot of a partition.
func (l *Live) SlotsOf(partition int) (first, last Slot) { return l.Base.SlotsOf(partition) }

// Owns reports whether a node is an owner of a partition in some ring.
func (l *Live) Owns(id NodeID, partition int) bool {
	return l.Base.Owns(id, partition) || slices.ContainsFunc(l.Beside, func(r *Ring) bool { return r.Owns(id, partition) })
}

// Gained appends the owners of a partition that are none in the base.
func (l *Live) Gained(dst []NodeID, partition int) []NodeID {
	from := len(dst)
	for _, r := range l.Beside {
		for _, id := range r.Owners(partition) {
			if !l.Base.Owns(id, partition) && !slices.Contains(dst[from:], id) {
				dst = append(dst, id)
			}
		}
	}
	return dst
}

// Owners appends the owners of a partition in any ring, those in the base first.
func (l *Live) Owners(dst []NodeID, partition int) []NodeID {
	return l.Gained(append(dst, l.Base.Owners(partition)...), partition)
}

// Member reports whether a node is in some ring.
func (l *Live) Member(id NodeID) bool {
	return l.Base.member(id) || slices.ContainsFunc(l.Beside, func(r *Ring) bool { return r.member(id) })
}

// Members gives the members of all rings, sorted by ID.
func (l *Live) Members() []Member {
	if len(l.Beside) == 0 {
		return l.Base.Members()
	}
	all := slices.Clone(l.Base.Members())
	for _, r := range l.Beside {
		for _, m := range r.Members() {
			if !slices.ContainsFunc(all, func(o Member) bool { return o.ID == m.ID }) {
				all = append(all, m)
			}
		}
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// member reports whether a node is in the ring.
func (r *Ring) member(id NodeID) bool {
	_, found := slices.BinarySearchFunc(r.members, id, func(m Member, id NodeID) int { return cmp.Compare(m.ID, id) })
	return found
}
