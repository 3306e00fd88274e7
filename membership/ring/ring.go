package ring

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Limits of what New accepts.
const (
	MaxN       = 32
	MaxWeight  = 1000
	MaxMembers = 1024
)

// Member is what placement needs to know of a node.
type Member struct {
	ID NodeID
	// PlaceID is the identity placement hashes. It is the node's own ID, or
	// that of the node it replaced, whose partitions it then takes over
	// exactly. Zero means ID.
	PlaceID NodeID
	Zone    string
	// Weight is the relative capacity, 1..MaxWeight. Zero is a router: it
	// coordinates and owns nothing.
	Weight int
}

// Params are fixed when a cluster is created. The zero value is the default.
type Params struct {
	Units int // partitions, a power of two up to Slots; 0 means 1024
	N     int // replicas of each partition; 0 means 3
}

func (p Params) withDefaults() Params {
	p.Units = cmp.Or(p.Units, 1024)
	p.N = cmp.Or(p.N, 3)
	return p
}

func (p Params) validate() error {
	var errs []error
	if p.Units < 1 || p.Units > Slots || p.Units&(p.Units-1) != 0 {
		errs = append(errs, fmt.Errorf("units (%d) must be a power of two in 1..%d", p.Units, Slots))
	}
	if p.N < 1 || p.N > MaxN {
		errs = append(errs, fmt.Errorf("n (%d) must be in 1..%d", p.N, MaxN))
	}
	return errors.Join(errs...)
}

// Ring says which nodes own each partition. It is immutable.
type Ring struct {
	params  Params
	epoch   uint64
	members []Member // sorted by ID, places resolved
	n       int      // min(N, storage members)
	owners  []NodeID // Units rows of n, the head first
	nodes   []node   // storage members, sorted by place
}

// node is a storage member with what placement found for it.
type node struct {
	Member
	seed      uint64
	price     uint64
	quota     uint64 // partitions to own, in 1/quotaOne
	headQuota uint64
}

// New computes the ring of a set of members. The same set gives the same ring,
// bit for bit, on every machine, in whatever order the members come. With no
// storage member the partitions have no owner.
func New(p Params, ms []Member) (*Ring, error) {
	p = p.withDefaults()
	ms = slices.Clone(ms)
	if err := errors.Join(p.validate(), validateMembers(ms)); err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	slices.SortFunc(ms, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	resolvePlaces(ms)

	var storage []Member
	for _, m := range ms {
		if m.Weight > 0 {
			storage = append(storage, m)
		}
	}
	slices.SortFunc(storage, func(a, b Member) int { return cmp.Compare(a.PlaceID, b.PlaceID) })
	pl := place(p, storage)

	r := &Ring{params: p, members: ms, n: pl.n, owners: make([]NodeID, len(pl.owners))}
	for k, i := range pl.owners {
		r.owners[k] = storage[i].ID
	}
	for i, m := range storage {
		r.nodes = append(r.nodes, node{m, seedOf(m.PlaceID), pl.price[i], pl.quota[i], pl.headQuota[i]})
	}
	r.epoch = r.digest()
	return r, nil
}

func validateMembers(ms []Member) error {
	var errs []error
	if len(ms) > MaxMembers {
		return fmt.Errorf("%d members, at most %d", len(ms), MaxMembers)
	}
	seen := make(map[NodeID]bool, len(ms))
	for _, m := range ms {
		if m.ID == 0 {
			errs = append(errs, errors.New("member with id zero"))
		}
		if seen[m.ID] {
			errs = append(errs, fmt.Errorf("member %v twice", m.ID))
		}
		seen[m.ID] = true
		if err := validateMember(m); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// MaxZoneBytes bounds the name of a zone.
const MaxZoneBytes = 64

// validateMember reports what is wrong with one member.
func validateMember(m Member) error {
	var errs []error
	if m.Weight < 0 || m.Weight > MaxWeight {
		errs = append(errs, fmt.Errorf("member %v: weight (%d) must be in 0..%d", m.ID, m.Weight, MaxWeight))
	}
	if len(m.Zone) > MaxZoneBytes {
		errs = append(errs, fmt.Errorf("member %v: zone of %d bytes, at most %d", m.ID, len(m.Zone), MaxZoneBytes))
	}
	return errors.Join(errs...)
}

// resolvePlaces gives storage members distinct places. When two claim one (two
// administrators replaced the same node at once) the lower id keeps it and the
// other falls back to its own id or, if even that is taken, to a number derived
// from it. Requires: ms sorted by ID.
func resolvePlaces(ms []Member) {
	taken := make(map[NodeID]bool, len(ms))
	for i := range ms {
		m := &ms[i]
		m.PlaceID = cmp.Or(m.PlaceID, m.ID)
		if m.Weight == 0 {
			continue
		}
		if taken[m.PlaceID] {
			m.PlaceID = m.ID
		}
		for k := uint64(1); taken[m.PlaceID] || m.PlaceID == 0; k++ {
			m.PlaceID = NodeID(mix64(uint64(m.ID) + k*0x9E3779B97F4A7C15))
		}
		taken[m.PlaceID] = true
	}
}

// digest covers the constants, the members and the placement itself, so that
// two nodes whose programs place differently do not take their rings for equal.
func (r *Ring) digest() uint64 {
	var b []byte
	for _, v := range []int{algorithm, r.params.Units, r.params.N, slackParts, rounds, len(r.members)} {
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	}
	for _, m := range r.members {
		b = binary.BigEndian.AppendUint64(b, uint64(m.ID))
		b = binary.BigEndian.AppendUint64(b, uint64(m.PlaceID))
		b = binary.BigEndian.AppendUint32(b, uint32(m.Weight))
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.Zone)))
		b = append(b, m.Zone...)
	}
	for _, id := range r.owners {
		b = binary.BigEndian.AppendUint64(b, uint64(id))
	}
	hash := sha256.Sum256(b)
	return binary.BigEndian.Uint64(hash[:])
}

// Epoch is a digest of the ring: equal on two nodes when they route alike.
func (r *Ring) Epoch() uint64 { return r.epoch }

// Params gives the cluster's constants, defaults filled in.
func (r *Ring) Params() Params { return r.params }

// Members gives all members, routers too, sorted by ID. Do not modify.
func (r *Ring) Members() []Member { return r.members }

// N is the number of owners each partition has: the parameter, or fewer while
// there are not that many storage members.
func (r *Ring) N() int { return r.n }

// Units is the number of partitions.
func (r *Ring) Units() int { return r.params.Units }

// Partition is the partition that contains a slot.
func (r *Ring) Partition(s Slot) int { return int(s) * r.params.Units / Slots }

// SlotsOf gives the first and the last slot of a partition.
func (r *Ring) SlotsOf(partition int) (first, last Slot) {
	size := Slots / r.params.Units
	return Slot(partition * size), Slot(partition*size + size - 1)
}

// Owners is the preference list's first N: the owners of a partition, the head
// first. Do not modify.
func (r *Ring) Owners(partition int) []NodeID {
	lo, hi := partition*r.n, (partition+1)*r.n
	return r.owners[lo:hi:hi]
}

// Owns reports whether a node is an owner of a partition.
func (r *Ring) Owns(id NodeID, partition int) bool {
	return slices.Contains(r.Owners(partition), id)
}
