package membership

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// This file is arithmetic: what a node holds of its cluster, how two such
// states join, and the rules by which a cluster comes into being (doc.go).

// announcement is what a node says of itself.
type announcement struct {
	ID         ring.NodeID
	Boot       Boot
	Stamp      uint64 // grows with each start of the node
	Recovering bool
	MaxLevel   uint16 // highest level of a cluster that the node's program serves
	Zone       string
	Endpoints  Endpoints
}

// order compares two announcements of one node: the later boot of its data
// directory wins, and of one boot the later stamp. The incarnation decides
// between two processes that share a directory's copies, so that all nodes
// prefer the same one.
func (a announcement) order(b announcement) int {
	return cmp.Or(cmp.Compare(a.Boot.Number, b.Boot.Number), cmp.Compare(a.Stamp, b.Stamp),
		cmp.Compare(a.Boot.Incarnation, b.Boot.Incarnation), cmp.Compare(a.Boot.Reached, b.Boot.Reached))
}

// saved is what of an announcement is worth a write to the disk.
func (a announcement) saved() announcement {
	a.Boot.Reached = 0
	return a
}

// state is what a node persists, and exchanges with others. A part of a state
// (some records left out) is a state, and joining it is harmless.
type state struct {
	From ring.NodeID // the node whose state this is
	Constants
	Level       uint16         // what all programs of the cluster can read; only rises
	Established bool           // the constants are final
	Opened      bool           // From was ready once; means nothing to others
	Epochs      epoch.State    // once established
	Records     []ring.Record  // pledges; once established, those of the target epoch
	Known       []announcement // of nodes that have a record, and of From; sorted by ID
}

// verdict says what joining another node's state amounted to.
type verdict uint8

const (
	same    verdict = iota // nothing new
	joined                 // same cluster, something new
	adopted                // this node's cluster, still forming, was given up for the other
	ignored                // another cluster, still forming, that this node does not go to
	foreign                // another cluster, and both are established
)

// record is the winning record of a node, if it has one.
func (s state) record(id ring.NodeID) (ring.Record, bool) {
	i, found := slices.BinarySearchFunc(s.Records, id, func(r ring.Record, id ring.NodeID) int {
		return cmp.Compare(r.ID, id)
	})
	if !found {
		return ring.Record{}, false
	}
	return s.Records[i], true
}

// member reports whether a node is in the ring.
func (s state) member(id ring.NodeID) bool {
	r, found := s.record(id)
	return found && !r.Removed
}

// members counts the nodes in the ring.
func (s state) members() (n int) {
	for _, r := range s.Records {
		if !r.Removed {
			n++
		}
	}
	return n
}

// pledged reports whether this node has voted: its record stands in a cluster
// that is still forming.
func (s state) pledged() bool { return !s.Established && s.member(s.From) }

// join folds another node's state into this one.
func (s state) join(in state) (state, verdict) {
	if in.ClusterID == s.ClusterID {
		return s.joinSame(in)
	}
	switch {
	case s.Established && in.Established:
		return s, foreign
	case s.Established:
		return s, ignored // it will come to us
	case in.Established:
		return s.adopt(in), adopted
	case s.pledged():
		return s, ignored // a vote is not taken back
	case bytes.Compare(in.ClusterID[:], s.ClusterID[:]) < 0:
		return s.adopt(in), adopted
	}
	return s, ignored
}

func (s state) joinSame(in state) (state, verdict) {
	next := s
	switch {
	case s.Established && in.Established:
		next = s.at(s.Epochs.Merge(in.Epochs))
	case s.Established:
		next = s.at(s.Epochs.Amend(in.Records)) // pledges of nodes that have not heard of it yet
	case in.Established:
		next = s.enter(in).amend(s.Records)
	default:
		next.Records = ring.Reconcile(s.Records, in.Records)
		if len(next.Records) > epoch.MaxRecords {
			return s, ignored // no cluster of ours: such a state could not even be sent on
		}
	}
	next.Level = max(s.Level, in.Level)
	next = next.learn(in.Known)
	if next.equal(s) {
		return next, same // what is not persisted may be new
	}
	return next, joined
}

// adopt gives up this node's forming cluster for another's.
func (s state) adopt(in state) state {
	next := state{From: s.From, Constants: in.Constants, Level: in.Level}
	if in.Established {
		next = next.enter(in)
	} else {
		next.Records = ring.Reconcile(nil, in.Records)
	}
	return next.learn(s.Known).learn(in.Known)
}

// at is the state with other epochs.
func (s state) at(e epoch.State) state {
	s.Epochs, s.Records = e, e.Target().Records()
	return s
}

// enter makes this node one of an established cluster.
func (s state) enter(in state) state {
	s.Established = true
	return s.at(epoch.New(s.From, nil).Merge(in.Epochs))
}

// amend takes in records that were made at this node.
func (s state) amend(records []ring.Record) state { return s.at(s.Epochs.Amend(records)) }

// establish makes a cluster final whose members have pledged themselves to it. Its
// founders may begin with different pledges: all of them stand above an empty ring.
func (s state) establish(level uint16) state {
	s.Established, s.Level = true, level
	return s.at(epoch.New(s.From, s.Records))
}

// found makes a cluster final that is this node alone.
func (s state) found(own ring.Record, level uint16) state {
	s.Established, s.Level = true, level
	return s.at(epoch.Settled(s.From, []ring.Record{own}))
}

// concerned lists the nodes that this one has to do with: all that have pledged
// themselves, or are members in a live epoch or waited for.
func (s state) concerned() []ring.NodeID {
	var ids []ring.NodeID
	add := func(records []ring.Record) {
		for _, r := range records {
			if !r.Removed {
				ids = append(ids, r.ID)
			}
		}
	}
	if !s.Established {
		add(s.Records)
		return ids
	}
	for _, e := range s.Epochs.Live() {
		add(e.Records())
	}
	ids = append(ids, s.Epochs.Required()...)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// learn takes in newer announcements of nodes that have a record, and of this
// node itself. Those of others are of no use later and would only pile up. The
// furthest that a node was seen to reach is kept over all of them: a directory
// that was put back announces less.
func (s state) learn(said []announcement) state {
	keep := slices.Concat(s.Known, said)
	keep = slices.DeleteFunc(keep, func(a announcement) bool {
		_, found := s.record(a.ID)
		return !found && a.ID != s.From
	})
	slices.SortStableFunc(keep, func(a, b announcement) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), b.order(a))
	})
	s.Known = keep[:0]
	for _, a := range keep {
		if n := len(s.Known); n > 0 && s.Known[n-1].ID == a.ID {
			s.Known[n-1].Boot.Reached = max(s.Known[n-1].Boot.Reached, a.Boot.Reached)
			continue
		}
		s.Known = append(s.Known, a)
	}
	return s
}

// announced is the newest announcement kept of a node.
func (s state) announced(id ring.NodeID) (announcement, bool) {
	i, found := slices.BinarySearchFunc(s.Known, id, func(a announcement, id ring.NodeID) int {
		return cmp.Compare(a.ID, id)
	})
	if !found {
		return announcement{}, false
	}
	return s.Known[i], true
}

// with adds or replaces one record.
func (s state) with(r ring.Record) state {
	if s.Established {
		return s.amend([]ring.Record{r})
	}
	s.Records = ring.Reconcile(s.Records, []ring.Record{r})
	return s
}

// settle establishes a forming cluster once enough nodes have pledged
// themselves to it, at the lowest level that its founders serve. Fewer than two
// expected members never form one: such a node joins what exists.
func (s state) settle(expect int, lowest func(state) uint16) state {
	if !s.Established && expect >= 2 && s.members() >= expect {
		return s.establish(lowest(s))
	}
	return s
}

// open notes that this node may serve from now on, and after every restart: all wait
// for it, and so many nodes have joined. Those that were removed since count: a founder
// may be forgotten before anything is read.
func (s state) open(expect int) state {
	if !s.Opened && s.Established && s.Epochs.Serves() && len(s.Epochs.Base().Records()) >= expect {
		s.Opened = true
	}
	return s
}

// ready reports whether this node may serve.
func (s state) ready() bool { return s.Established && s.Opened && s.Epochs.Serves() }

func (s state) equal(t state) bool {
	return s.From == t.From && s.Constants == t.Constants && s.Level == t.Level && s.Established == t.Established &&
		s.Opened == t.Opened && s.Epochs.Equal(t.Epochs) && slices.Equal(s.Records, t.Records) && slices.Equal(s.Known, t.Known)
}

// worthSaving reports whether s differs from t in more than how far nodes have
// come, which is news every few seconds and may be lost.
func (s state) worthSaving(t state) bool {
	same := slices.EqualFunc(s.Known, t.Known, func(a, b announcement) bool { return a.saved() == b.saved() })
	s.Known, t.Known = nil, nil
	return !same || !s.equal(t)
}

// changedRecords are those of s that t does not have in the same form.
func (s state) changedRecords(t state) []ring.Record {
	var changed []ring.Record
	for _, r := range s.Records {
		if old, found := t.record(r.ID); !found || old != r {
			changed = append(changed, r)
		}
	}
	return changed
}
