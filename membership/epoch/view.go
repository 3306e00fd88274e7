package epoch

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Stamp is what each message of a request carries besides its sender.
type Stamp struct{ Target, Base ID }

// Transfer is what must be handed over before the target can be read from.
type Transfer struct {
	Target ID // to be answered as Local.Sent; zero if nothing is to be done now
}

// Progress is how far a node has come on the way to the target, as far as this
// one has heard.
type Progress struct {
	Node   ring.NodeID
	Acked  bool // it writes to the target's owners
	Synced bool // what it held for them was handed over
	Read   bool // it reads from the target's owners and from no others
}

// View is what requests and background work see of a State: immutable, loaded
// once by each. Requests keep Number until they have their outcome, for
// Local.Drained.
type View struct {
	Number     uint64
	Self       ring.NodeID
	Stamp      Stamp
	Coordinate bool     // this node may coordinate requests
	Relay      bool     // it may not, having left, but may read from the owners and hand writes to them
	Forgotten  bool     // it was removed as dead: its directory is to be emptied
	Out        bool     // it has left and may stop for good
	Settled    bool     // one epoch is live
	Transfer   Transfer // what is to be handed over
	// Waits are the nodes that the change waits for, sorted by id; none in a
	// settled view.
	Waits []Progress

	rings  []*ring.Ring // of the live epochs: the base's first, the target's last, no two of equal owners everywhere
	target *ring.Ring
	known  []ID     // of live epochs from the base up
	floor  ID       // the lowest that may be read from
	below  []*Epoch // live, and no longer read by this node
	told   *Epoch
}

// Builder computes the ring of members; ring.New with the cluster's constants.
type Builder func([]ring.Member) (*ring.Ring, error)

// View computes the view of a state. The rings of epochs are computed once and
// kept; that of a great cluster takes a second.
// Requires: one goroutine deals with a node's states.
func (s State) View(build Builder) (*View, error) {
	for _, e := range s.live {
		if e.ring == nil {
			r, err := build(ring.Members(e.records))
			if err != nil {
				return nil, err
			}
			e.ring = r
		}
	}
	v := &View{
		Number: s.number, Self: s.self,
		Stamp:      Stamp{Target: s.Target().id, Base: s.Base().id},
		Coordinate: s.Serves(),
		Relay:      s.relays(),
		Forgotten:  s.Target().forgot(s.self),
		Out:        s.Out(),
		Settled:    len(s.live) == 1,
		rings:      []*ring.Ring{s.Base().ring},
		target:     s.Target().ring,
		floor:      s.live[0].id,
		below:      s.live[:s.base],
		told:       s.Target(),
	}
	if own := s.Tracker(s.self); s.granted == s.Target().id && own.Sync != s.granted {
		v.Transfer.Target = s.granted
	}
	for _, e := range s.live {
		if !slices.ContainsFunc(v.rings, func(r *ring.Ring) bool { return r.Epoch() == e.ring.Epoch() }) {
			v.rings = append(v.rings, e.ring)
		}
	}
	v.Waits = s.waits()
	for _, e := range s.live[s.base:] {
		v.known = append(v.known, e.id)
	}
	return v, nil
}

// Rings are those of the live epochs, the base's first. Do not modify.
func (v *View) Rings() []*ring.Ring { return v.rings }

// waits says how far each of those is that the change waits for.
func (s State) waits() (list []Progress) {
	if len(s.live) == 1 {
		return nil
	}
	target := s.Target().id
	for _, id := range s.Required() {
		t := s.Tracker(id)
		list = append(list, Progress{
			Node: id, Acked: t.Ack == target, Synced: t.Sync == target || s.Base().id == target, Read: t.Read == target,
		})
	}
	return list
}

// Read is the ring to read from.
func (v *View) Read() *ring.Ring { return v.rings[0] }

// Target is the ring that will be read from next.
func (v *View) Target() *ring.Ring { return v.target }

// Writes appends to dst the rings that a write to a partition is owed to: W
// nodes of the walk of each must store it, a stand-in counting for the owner it
// replaces. The base's comes first. Rings with the same owners of this partition
// are one, so there is nearly always one.
func (v *View) Writes(dst []*ring.Ring, partition int) []*ring.Ring {
	from := len(dst)
	for _, r := range v.rings {
		owners := r.Owners(partition)
		if len(owners) == 0 || slices.ContainsFunc(dst[from:], func(q *ring.Ring) bool { return sameSet(q.Owners(partition), owners) }) {
			continue
		}
		dst = append(dst, r)
	}
	return dst
}

func sameSet(a, b []ring.NodeID) bool {
	if len(a) != len(b) {
		return false
	}
	for _, id := range a {
		if !slices.Contains(b, id) {
			return false
		}
	}
	return true
}

// Holds reports whether this node is an owner of a partition in any live epoch.
// In a settled view the rows of all other partitions are to be dropped.
func (v *View) Holds(partition int) bool {
	return slices.ContainsFunc(v.rings, func(r *ring.Ring) bool { return r.Owns(v.Self, partition) })
}

// Recipients appends to dst the nodes to which the rows of a partition must be
// offered for Transfer, if this node keeps them as the copy of holder: itself,
// or the owner that a hint is for. New owners are offered everything by everybody
// (Dynamo §4.9). What counts as the copy of a node that is no owner in the
// target must survive without it, so it goes to all owners; and so does
// everything if there will be fewer owners, because a lost one may be dead.
func (v *View) Recipients(dst []ring.NodeID, partition int, holder ring.NodeID) []ring.NodeID {
	from, to := v.Read().Owners(partition), v.target.Owners(partition)
	stays := slices.Contains(to, holder) && len(to) >= len(from)
	for _, id := range to {
		if id != holder && (!stays || !slices.Contains(from, id)) {
			dst = append(dst, id)
		}
	}
	return dst
}

// MayDropHint reports whether a hint for owner may be deleted once owner has
// the row. In a transition an owner that is to lose the partition may have
// handed over already what it has, and nobody would hand this over.
func (v *View) MayDropHint(partition int, owner ring.NodeID) bool {
	return v.target.Owns(owner, partition)
}

// Stale reports whether a message must be refused with this node's state, which
// the sender merges before it tries again: a write whose sender does not write
// to where others read, a read of an epoch whose owners may have dropped their
// rows, and anything from a node that was removed as dead or is unknown. A node that
// has left is waited for by nobody, so what it reads by is over for it as soon as
// others begin to read elsewhere.
func (v *View) Stale(from ring.NodeID, st Stamp, read bool) bool {
	if r, found := v.told.Record(from); !found || r.Forgotten {
		return true
	}
	if !slices.Contains(v.known, st.Target) && !v.Behind(st) {
		return true
	}
	if read && st.Base.Sum <= v.floor.Sum && !v.live(st.Base) { // of equal sums one may be above the other
		return true
	}
	return read && slices.ContainsFunc(v.below, func(e *Epoch) bool { return e.id == st.Base && e.left(from) })
}

// live reports whether an epoch is among this node's live ones.
func (v *View) live(id ID) bool {
	return slices.Contains(v.known, id) || slices.ContainsFunc(v.below, func(e *Epoch) bool { return e.id == id })
}

// Behind reports whether a message may go by a target that this node has not heard of: it
// knows of none like it, and it is not one that is over. One that this node let go, since
// another overtook it, is not told from those.
func (v *View) Behind(st Stamp) bool {
	return !slices.Contains(v.known, st.Target) && st.Target.Sum > v.Stamp.Base.Sum
}
