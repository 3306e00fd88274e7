package main

import (
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// node is one node: its disk, and the life of its process.
type node struct {
	w    *world
	id   ring.NodeID
	born bool
	up   bool
	dead bool // forgotten, and gone for good
	boot int
	skew int64
	disk
	life
}

// life is what a process knows: all of it is gone when it dies.
type life struct {
	table
	pausedUntil, slowUntil, fullUntil int64

	actor    version.Actor
	counters [units]uint64 // last dot minted, by partition
	hlc      version.HLC
	state    epoch.State
	view     *epoch.View
	current  *rings
	earlier  []*rings
	down     [maxNodes + 1]bool // in its eyes

	hintedAt [units]int64
	sends    [maxNodes + 1]sending
	job      *job
	exchanging
	dropping     dropping
	fenced       [units]bool
	graves       [maxKeys]grave
	reaped       []reapedRow
	settled      settling
	recoverSince int64
}

// found makes a founder.
func (n *node) found(s epoch.State) {
	n.born = true
	n.saves = append(n.saves, savedState{0, s})
	n.start(s)
}

// start begins a life (node.boot: a new incarnation each time).
func (n *node) start(s epoch.State) {
	n.life = life{}
	n.boot++
	n.boots++
	n.up = true
	boots := n.boots
	if n.w.bugs.actorKept {
		boots = 1
	}
	n.actor = version.Actor(mix(uint64(n.id)<<32|boots) | 1)
	n.load()
	n.recoverSince = n.w.now
	n.show(s)
	n.w.after(n, int64(n.id)*2*ms, n.tick)
}

func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// kill ends the process; part of what was not synced, in percent, is on the disk.
func (n *node) kill(part int) {
	n.flush(len(n.pending) * part / 100)
	n.up = false
	n.boot++
	n.touch()
	n.life = life{}
}

// touch notes that the node is out of touch with all others.
func (n *node) touch() {
	for i := range n.w.nodes {
		n.w.apart(int(n.id), i+1)
	}
}

// saved is the state of the epochs that is on the disk.
func (n *node) saved() epoch.State {
	if len(n.saves) == 0 {
		return epoch.New(n.id, nil)
	}
	return n.saves[len(n.saves)-1].state
}

// restart begins another life on what the disk has. The state is read from its bytes.
func (n *node) restart() {
	if n.up || n.dead {
		return
	}
	s := epoch.New(n.id, nil)
	if len(n.saves) == 0 { // node.boot: the directory is that of a lost node
		n.saves = append(n.saves, savedState{n.w.now, s})
	} else {
		saved, err := epoch.Decode(n.saved().Append(nil))
		if err != nil {
			n.w.fail("codec", "node %d cannot read its epochs: %v", n.id, err)
			return
		}
		s = saved
	}
	n.start(s)
	for i := range n.w.nodes {
		n.w.apart(int(n.id), i+1)
	}
	n.w.say("node %d is back: %d rows changed on its disk, recovering %v", n.id, len(n.log), n.recovering)
}

// tick is what a node does again and again.
func (n *node) tick() {
	n.w.after(n, tickTime, n.tick)
	count := n.w.now / tickTime
	if count%2 == 0 {
		n.probe()
	}
	if !n.state.Settled() {
		n.advance()
	}
	if count%3 == int64(n.id)%3 || n.w.calm && count%2 == 0 {
		n.gossip()
	}
	n.sendHints()
	n.handOver()
	n.dropMoved()
	if n.recovering {
		n.recover()
	}
	n.exchangeTurn()
	if count%2 == 1 {
		n.reap()
	}
}

// probe looks whether those that are thought dead are (package rpc, "Suspicion").
func (n *node) probe() {
	for i, m := range n.w.nodes {
		if !n.down[i+1] {
			continue
		}
		if !m.up { // a dial fails at once
			continue
		}
		a := n.w.ticked(n, ofProbe, uint64(i))
		n.w.send(a, n, m, true, func() {
			n.w.send(a, m, n, true, func() { n.down[m.id] = false })
		})
	}
}

// isUp is coordinator.Cluster.Up.
func (n *node) isUp(id ring.NodeID) bool { return id == n.id || !n.down[id] }

// recover ends the recovery when every partition that this node holds in some ring has
// had a session with every other owner since its start, and asks for those sessions
// (node.recoverTask, node.metAll).
func (n *node) recover() {
	live := n.current.live
	if len(live.Members()) < 2 || !live.Member(n.id) {
		return
	}
	for p := range units {
		if !live.Owns(n.id, p) {
			continue
		}
		for _, owner := range live.Owners(nil, p) {
			if owner == n.id || n.forgotten(owner) || n.wholes[owner][p] > n.recoverSince {
				continue
			}
			n.exchange(owner, true, n.w.ticked(n, ofExchange, uint64(owner)), nil)
			return
		}
	}
	n.recovering = false
	n.w.say("node %d is not recovering any more", n.id)
}

// forgotten reports whether a node was given up: it will not be back.
func (n *node) forgotten(id ring.NodeID) bool {
	r, _ := n.state.Target().Record(id)
	return r.Forgotten
}
