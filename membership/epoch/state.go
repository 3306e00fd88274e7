package epoch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/membership/ring"
)

// Tracker is how far a node has come, in its own words: others keep it and pass
// it on, only the node itself changes it, and of two the greater version counts.
type Tracker struct {
	ID      ring.NodeID
	Version uint64
	Ack     ID // the node writes to this epoch's owners, whatever it does
	Sync    ID // what it held for others was handed to this epoch's owners
	Base    ID // it reads from this epoch's owners, and was told all before
	Read    ID // it reads from no epoch below this one any more
}

// State is all that a node holds of its cluster's epochs. It is a value: methods
// return the next state and leave this one as it is.
type State struct {
	self ring.NodeID
	// live ascends. The first is the lowest that anybody may still read from,
	// live[base] is where this node reads, the last is the target.
	live     []*Epoch
	base     int
	said     []Tracker // sorted by id: of nodes that have a record in the target
	admitted bool      // everybody waits for this node, so it may coordinate
	local
}

// local is what is not persisted: a process that has just started runs no
// request and has handed over nothing.
type local struct {
	number   uint64 // of the view; grows with each change of what requests do
	appended uint64 // the view that first wrote to the target
	flipped  uint64 // the view that first read from the base
	drained  uint64 // no request with an earlier view runs
	granted  ID     // the target for which transfers may run or ran
	// released is the removal of this node that is in the lowest live epoch of a member,
	// as that member told.
	released ring.Record
}

// New is the state of a node that has heard of no epoch: everything stands above
// the empty one, in which nobody owns anything. records are those that a cluster
// begins with, if the node is one of its founders.
func New(self ring.NodeID, records []ring.Record) State {
	s := State{self: self, live: []*Epoch{newEpoch(nil)}}
	return s.aim(newEpoch(ring.Reconcile(nil, records)))
}

// Settled is the state of a member whose cluster never changed its ring: the
// state from before there were epochs.
func Settled(self ring.NodeID, records []ring.Record) State {
	e := newEpoch(ring.Reconcile(nil, records))
	s := State{self: self, live: []*Epoch{e}, admitted: e.member(self)}
	return s.say(func(t *Tracker) { t.Ack, t.Sync, t.Base, t.Read = e.id, e.id, e.id, e.id })
}

// Self is the node whose state this is.
func (s State) Self() ring.NodeID { return s.self }

// Target is the epoch of all records known.
func (s State) Target() *Epoch { return s.live[len(s.live)-1] }

// Base is the epoch whose owners this node reads from.
func (s State) Base() *Epoch { return s.live[s.base] }

// Live are the epochs whose owners this node writes to, ascending. Do not modify.
func (s State) Live() []*Epoch { return s.live }

// Trackers are those known, sorted by id. Do not modify.
func (s State) Trackers() []Tracker { return s.said }

// Admitted reports whether everybody waits for this node.
func (s State) Admitted() bool { return s.admitted }

// Serves reports whether this node may coordinate requests.
func (s State) Serves() bool { return s.admitted && s.routes() }

// relays reports whether this node has left, and may still pass requests on.
func (s State) relays() bool { return !s.admitted && s.Base().left(s.self) && s.routes() }

// routes reports whether there are owners, by the word of a node that was not given up.
func (s State) routes() bool {
	owned := slices.ContainsFunc(s.Base().records, func(r ring.Record) bool { return !r.Removed && r.Weight > 0 })
	return owned && !s.Target().forgot(s.self)
}

// Settled reports whether one epoch is live, and this node has said all that there is
// to say of it.
func (s State) Settled() bool {
	own, id := s.Tracker(s.self), s.Target().id
	_, known := s.Target().Record(s.self)
	return len(s.live) == 1 && (!known || own.Ack == id && own.Read == id)
}

// SameView reports whether the views of both states are alike.
func (s State) SameView(t State) bool {
	return s.number == t.number && s.granted == t.granted && s.Equal(t)
}

// Out reports whether this node has left the ring and nobody needs it any more:
// it may stop for good. That its own epochs are below it does not suffice: its word on
// that may still be on its way, and all would wait for it. A member that has heard it
// passes it on; another node that leaves might not.
func (s State) Out() bool {
	r, left := s.removal()
	return left && s.released == r
}

// Leaving reports whether this node has left by its own epochs, and has yet to hear
// from a member that nobody waits for it.
func (s State) Leaving() bool {
	r, left := s.removal()
	return left && s.released != r
}

// removal is the record by which this node has left, if it is in its only live epoch.
func (s State) removal() (r ring.Record, left bool) {
	r, found := s.live[0].Record(s.self)
	return r, found && r.Removed && len(s.live) == 1
}

// Equal reports whether the persisted parts are the same, so that nothing need
// be saved or told.
func (s State) Equal(t State) bool {
	return s.self == t.self && s.base == t.base && s.admitted == t.admitted && slices.Equal(s.said, t.said) &&
		slices.EqualFunc(s.live, t.live, func(a, b *Epoch) bool { return a.id == b.id })
}

func (s State) find(id ring.NodeID) (int, bool) {
	return slices.BinarySearchFunc(s.said, id, func(t Tracker, id ring.NodeID) int { return cmp.Compare(t.ID, id) })
}

// Tracker is what is known of a node's progress; zero if nothing is.
func (s State) Tracker(id ring.NodeID) Tracker {
	if i, found := s.find(id); found {
		return s.said[i]
	}
	return Tracker{ID: id}
}

// say changes this node's own tracker. A node without record says nothing.
func (s State) say(change func(*Tracker)) State {
	if _, found := s.Target().Record(s.self); !found {
		return s
	}
	own := s.Tracker(s.self)
	next := own
	change(&next)
	if next != own {
		next.Version++
		s.said = put(s.said, next)
	}
	return s
}

// put returns the list with t in it, in place of the other of its node.
func put(said []Tracker, t Tracker) []Tracker {
	i, found := slices.BinarySearchFunc(said, t.ID, func(t Tracker, id ring.NodeID) int { return cmp.Compare(t.ID, id) })
	said = slices.Clone(said)
	if found {
		said[i] = t
		return said
	}
	return slices.Insert(said, i, t)
}

// Merge takes in another node's state. Only what is certain is taken: records
// and trackers join; where the other reads from tells a node that is not
// admitted where everybody is. Records beyond the limits are refused, all of them.
func (s State) Merge(in State) State {
	target, fits := s.join(in.Target().records)
	if in.self == s.self || !fits {
		return s
	}
	s = s.hearOfSelf(in.Tracker(s.self))
	if !target.forgot(in.self) {
		s = s.follow(in, target)
	}
	s = s.aim(target)
	s.said = s.joinTrackers(in.said)
	return s.hearOfRelease(in)
}

// hearOfRelease notes that a member waits for this node no more.
func (s State) hearOfRelease(in State) State {
	r, found := in.live[0].Record(s.self)
	if !found || !r.Removed || r == s.released || !s.Target().member(in.self) {
		return s
	}
	s.released = r
	s.number++ // the view says so
	return s
}

// Amend takes in records that an administrator made at this node.
func (s State) Amend(records []ring.Record) State {
	target, fits := s.join(records)
	if !fits {
		return s
	}
	return s.aim(target)
}

// join is the epoch of the target's and other records, and whether it is within
// the limits.
func (s State) join(records []ring.Record) (*Epoch, bool) {
	joined := ring.Reconcile(s.Target().records, records)
	if slices.Equal(joined, s.Target().records) {
		return s.Target(), true
	}
	fits := len(joined) <= MaxRecords && len(ring.Members(joined)) <= ring.MaxMembers
	return newEpoch(joined), fits
}

// aim makes an epoch the target. The old target is kept only if this node has
// said that it handed everything over for it: otherwise nobody, who would all
// wait for that word, can have begun to read from it, or will.
func (s State) aim(e *Epoch) State {
	last := len(s.live) - 1
	if s.live[last].id == e.id {
		return s
	}
	keep := s.live
	if last > s.base && s.Tracker(s.self).Sync != s.live[last].id {
		keep = s.live[:last]
	}
	s.live = append(slices.Clip(keep), e)
	s.number++
	s.appended = s.number
	s.granted = ID{}
	return s.say(func(t *Tracker) { t.Base = s.Base().id })
}

// joinTrackers joins what the other knows of nodes that have a record. What a
// node says of itself is its own business.
func (s State) joinTrackers(in []Tracker) []Tracker {
	said := s.said
	for _, t := range in {
		if _, found := s.Target().Record(t.ID); !found || t.ID == s.self {
			continue
		}
		if i, found := s.find(t.ID); !found || s.said[i].Version < t.Version {
			said = put(said, t)
		}
	}
	return said
}

// hearOfSelf looks at what others keep of this node. What it has not said, or
// said otherwise, it said in a life that its disk does not remember: a restored
// directory. It speaks above that from now on, and coordinates nothing until it
// is admitted anew.
func (s State) hearOfSelf(kept Tracker) State {
	own := s.Tracker(s.self)
	if kept.Version < own.Version || kept == own {
		return s
	}
	own.Version = kept.Version + 1
	own.Ack, own.Sync = ID{}, ID{}
	s.said = put(s.said, own)
	s.admitted = false
	s.number++
	return s
}

// follow takes over where the other reads. A node that is admitted has all
// epochs that anybody can read from among its own; one that is not, and has
// fallen behind, takes the epochs of the other instead of its own.
func (s State) follow(in State, target *Epoch) State {
	for i := s.base + 1; i < len(s.live); i++ {
		if s.live[i].id == in.Base().id {
			return s.setBase(i)
		}
	}
	if !s.Base().under(in.Base()) || !in.Base().beneath(target) {
		return s
	}
	s.admitted = false
	s.live, s.base = in.live, in.base
	s.number++
	s.appended, s.flipped, s.granted = s.number, s.number, ID{}
	return s.say(func(t *Tracker) { t.Base = s.Base().id })
}

// setBase makes this node read from live[i]. One that has left by then
// coordinates no more.
func (s State) setBase(i int) State {
	s.base = i
	s.number++
	s.flipped = s.number
	if s.Base().left(s.self) {
		s.admitted = false
	}
	return s.say(func(t *Tracker) { t.Base = s.Base().id })
}

// String is the state in one line, for logs and tests.
func (s State) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v admitted=%v base=%d live=", s.self, s.admitted, s.base)
	for _, e := range s.live {
		fmt.Fprintf(&b, " %v", e.id)
	}
	b.WriteString(" waits for")
	for _, id := range s.Required() {
		if t := s.Tracker(id); t.Ack != s.Target().id || t.Sync != s.Target().id || t.Read != s.Base().id {
			fmt.Fprintf(&b, " %v", t)
		}
	}
	return b.String()
}

// String gives sum and digest.
func (id ID) String() string { return fmt.Sprintf("%d-%04x", id.Sum, id.Digest>>48) }
