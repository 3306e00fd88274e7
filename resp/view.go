package resp

import "github.com/redynamo/redynamo/membership/ring"

// A View is the published map: an immutable value, new whenever membership,
// placement or liveness as this node sees it changed. See NewView.
type View struct {
	Version uint64 // differs from the previous view's; local to this node
	Epoch   uint64 // the same on every node that has the same ring
	Self    ring.NodeID
	Members []Member  // by ID
	Runs    []SlotRun // contiguous, ascending, every slot exactly once

	runOf [ring.Slots]uint16 // slot -> index in Runs
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
