package membership

import (
	"net"
	"strconv"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// Constants are fixed when a cluster is created and are the same on all of its
// nodes for ever.
type Constants struct {
	ClusterID [16]byte
	TokenKey  [16]byte // key of the MAC over context tokens
	Units, N  int      // partitions of the ring, and replicas of each
}

// Params are the constants that placement depends on.
func (c Constants) Params() ring.Params { return ring.Params{Units: c.Units, N: c.N} }

// Endpoints say how a node is reached: one host, a port per door. A port of 0
// means that there is no such door.
type Endpoints struct {
	Host                                string
	Plain, Cluster, Peer, Admin, Gossip uint16
}

// PlainAddr is HOST:PORT of the plain door.
func (e Endpoints) PlainAddr() string { return e.addr(e.Plain) }

// ClusterAddr is HOST:PORT of the cluster door.
func (e Endpoints) ClusterAddr() string { return e.addr(e.Cluster) }

// PeerAddr is HOST:PORT of the node-to-node protocol.
func (e Endpoints) PeerAddr() string { return e.addr(e.Peer) }

// AdminAddr is HOST:PORT of the admin HTTP door.
func (e Endpoints) AdminAddr() string { return e.addr(e.Admin) }

// GossipAddr is HOST:PORT of membership gossip.
func (e Endpoints) GossipAddr() string { return e.addr(e.Gossip) }

func (e Endpoints) addr(port uint16) string {
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(int(port)))
}

// Boot is one start of a node's data directory.
type Boot struct {
	Number      uint64 // how often the directory was opened; the greatest wins
	Incarnation uint64 // drawn at random by the process
	Reached     uint64 // how far the node's log was durable; grows over all boots
}

// NodeInfo is the latest that is known of a node, alive or not.
type NodeInfo struct {
	ID         ring.NodeID
	Endpoints  Endpoints
	Zone       string // as the node says; the ring's own word is in Ring.Members
	Weight     int    // as the live node says, likewise; 0 if it does not, or is down
	MaxLevel   uint16 // highest level that its program serves; 0 if it was never heard
	Recovering bool   // it has lost writes that it had acknowledged
	Alive      bool   // by gossip, which is seconds behind; a hint, never a promise
	Member     bool   // in the ring, or about to be
}

// View is one immutable state of the cluster as this node knows it.
type View struct {
	Constants
	Self        ring.NodeID
	Level       uint16                   // what all programs of the cluster can read: nothing above it is written
	Established bool                     // the constants are final
	Ring        *ring.Ring               // that is read by; nil until Established
	Live        *ring.Live               // the rings in force; the same pointer until they change
	Epoch       *epoch.View              // what requests and transfers may do; nil until Established
	Records     []ring.Record            // the winning record of each id, removed ones included
	Nodes       map[ring.NodeID]NodeInfo // members, of any live epoch, and live nodes of this cluster, this one included
	Met         bool                     // since its start this node has heard what others know of it, or waited in vain: only then may clients come. Who lost even the word of the others waits without end
	Ready       bool                     // this node may coordinate: Expect was reached once, and all wait for it
}

// Node returns what is known of a node.
func (v *View) Node(id ring.NodeID) (NodeInfo, bool) {
	n, ok := v.Nodes[id]
	return n, ok
}
