package resp

import (
	"cmp"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// A View is the published map: an immutable value, new whenever membership,
// placement or liveness as this node sees it changed. See NewView.
type View struct {
	Version uint64 // differs from the previous view's; local to this node
	Epoch   uint64 // the same on every node that has the same ring
	Self    ring.NodeID
	Members []Member  // by ID
	Runs    []SlotRun // contiguous, ascending, every slot exactly once

	self  int                // index of Self in Members, -1 if it is not one
	runOf [ring.Slots]uint16 // slot -> index in Runs
	first []int              // member -> slots it is first for
}

// Member is one member of the ring with its addresses.
type Member struct {
	ID      ring.NodeID
	Host    string
	Plain   int // ports
	Cluster int
	Bus     int // gossip; shown after '@' in CLUSTER NODES
	Zone    string
	Alive   bool // as this node sees it
}

// SlotRun is a run of slots with one owner list.
type SlotRun struct {
	First, Last uint16
	Owners      []int // indices into Members: the live ones in ring order, then the others
}

// NewView builds a view. owners lists the owners of a slot, head first; it is
// called once per slot. Neighbouring slots with the same list become one run. An
// owner that is no member is left out; with no members there are no runs.
//
// Version must differ from that of every earlier view of this process, Epoch
// must depend on the ring alone.
func NewView(version, epoch uint64, self ring.NodeID, members []Member, owners func(slot uint16) []ring.NodeID) *View {
	v := &View{Version: version, Epoch: epoch, Self: self, self: -1}
	v.Members = slices.Clone(members)
	slices.SortFunc(v.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	index := make(map[ring.NodeID]int, len(v.Members))
	for i, m := range v.Members {
		index[m.ID] = i
		if m.ID == self {
			v.self = i
		}
	}
	v.first = make([]int, len(v.Members))
	if len(v.Members) == 0 {
		return v
	}
	var order []int
	var before []ring.NodeID // the owners of the slot before: slots of one partition have the same
	for slot := range uint16(ring.Slots) {
		last := len(v.Runs) - 1
		if of := owners(slot); last < 0 || !slices.Equal(of, before) {
			before = append(before[:0], of...)
			order = v.order(order[:0], of, index)
			if last < 0 || !slices.Equal(v.Runs[last].Owners, order) {
				v.Runs = append(v.Runs, SlotRun{First: slot, Owners: slices.Clone(order)})
				last++
			}
		}
		v.Runs[last].Last = slot
		v.runOf[slot] = uint16(last)
		if len(order) > 0 {
			v.first[order[0]]++
		}
	}
	return v
}

// order appends the indices of owners, live ones first.
func (v *View) order(dst []int, owners []ring.NodeID, index map[ring.NodeID]int) []int {
	for _, alive := range []bool{true, false} {
		for _, id := range owners {
			if i, ok := index[id]; ok && v.Members[i].Alive == alive {
				dst = append(dst, i)
			}
		}
	}
	return dst
}

// Run returns the run of a slot. Requires: the view has members.
func (v *View) Run(slot uint16) SlotRun { return v.Runs[v.runOf[slot]] }

// First returns the first live owner of a slot; the zero Member when the slot
// has no owner among the members.
func (v *View) First(slot uint16) Member {
	if run := v.Run(slot); len(run.Owners) > 0 {
		return v.Members[run.Owners[0]]
	}
	return Member{}
}
