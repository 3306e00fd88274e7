package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/membership/ring"
)

// This file changes the ring in the middle of all other faults. Hosts without a node
// start an empty one, which adds itself or waits for an administrator; members leave,
// are replaced and get other weights. An administrator asks any node; what is refused
// is asked again, some time. Who says that it may go is stopped, and its host is then
// free for a new one.

type nodeID = ring.NodeID

const (
	spareHosts  = 2
	fewestNodes = 4                              // that are not to leave
	ringAtEnd   = 3*ringChange + 2*time.Minute   // for the ring to be at rest, once all is healed
	lossGap     = 2*recoverAtEnd + 2*time.Minute // between two losses of a disk
)

// moves is what the nemesis knows of members.
type moves struct {
	mu struct {
		sync.Mutex
		free map[int]bool // hosts without a node
	}
	asked  map[int]bool // who was asked to leave, as far as is known
	staged int          // who waits for an administrator; -1: nobody
}

// makeRoom adds hosts without a node.
func (n *nemesis) makeRoom() {
	m := &n.moves
	m.mu.free, m.asked, m.staged = map[int]bool{}, map[int]bool{}, -1
	for range spareHosts {
		i := len(n.c.nodes)
		n.c.nodes = append(n.c.nodes, &simNode{host: fmt.Sprintf("10.0.0.%d", i+1), disk: vfs.NewCrashableMem()})
		m.mu.free[i] = true
	}
	for i, s := range n.c.nodes {
		s.with = func(cfg *node.Config) { cfg.Expect, cfg.Join = 0, n.othersOf(i) }
	}
}

func (m *moves) isFree(i int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.free[i]
}

func (m *moves) setFree(i int, free bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.free[i] = free
}

// leaves reports whether node i is to leave, has left, or is no member yet.
func (n *nemesis) leaves(i int) bool {
	return n.kind.ring && (n.moves.asked[i] || n.moves.isFree(i) || n.moves.staged == i)
}

// newSession is a client of hosts that have a node, be it up or not.
func (n *nemesis) newSession(id int) *session {
	s := newSession(n.c, n.h, id)
	s.at = id % faultNodes
	if n.kind.ring {
		s.pick = n.pickDoor
	}
	return s
}

func (n *nemesis) pickDoor(rng *rand.Rand, _ int) int {
	for {
		if i := rng.IntN(len(n.c.nodes)); !n.moves.isFree(i) {
			return i
		}
	}
}

// members are the nodes that are not to leave.
func (n *nemesis) members() (list []int) {
	for i := range n.c.nodes {
		if !n.leaves(i) {
			list = append(list, i)
		}
	}
	return list
}

// move asks for some change of the ring.
func (n *nemesis) move() {
	if !n.kind.ring {
		return
	}
	m, members := &n.moves, n.members()
	free := slices.DeleteFunc(first(len(n.c.nodes)), func(i int) bool { return !m.isFree(i) })
	some := members[n.rng.IntN(len(members))]
	switch p := n.rng.IntN(8); {
	case m.staged >= 0 && p < 5:
		if n.change("replace", "REPLACE", n.addr(some), n.addr(m.staged)) {
			m.asked[some], m.staged = true, -1
		}
	case p == 7:
		n.change("weight", "WEIGHT", n.addr(some), fmt.Sprint(50+n.rng.IntN(150)))
	case len(free) > 0 && (p < 3 || len(members) <= fewestNodes):
		n.join(free[n.rng.IntN(len(free))], m.staged < 0 && n.rng.IntN(2) == 0)
	case len(members) > fewestNodes:
		if n.change("remove", "REMOVE", n.addr(some)) {
			m.asked[some] = true
		}
	}
}

func (n *nemesis) addr(i int) string { return n.c.nodes[i].host + ":6379" }

// join starts an empty node.
func (n *nemesis) join(i int, staged bool) {
	n.struck("join", "of node %d, staged: %v", i, staged)
	s := n.c.nodes[i]
	s.with = func(cfg *node.Config) { cfg.Expect, cfg.Join, cfg.StageJoin = 0, n.othersOf(i), staged }
	if err := n.c.boot(i); err != nil {
		n.h.errorf("node %d does not start on an empty disk: %v", i, err)
		s.node = nil
		return
	}
	n.moves.setFree(i, false)
	if staged {
		n.moves.staged = i
	}
}

// change has some node plan and apply a change, and reports whether it may have been
// applied.
func (n *nemesis) change(what string, words ...string) bool {
	via := n.c.upNode(n.rng.IntN(len(n.c.nodes)))
	n.struck(what, "%v through node %d", words[1:], via)
	reply, err := n.c.try(via, append([]string{"RING", "PLAN"}, words...)...)
	if err != nil {
		n.note("no plan: %v", err)
		n.h.count("change not planned")
		return false
	}
	_, err = n.c.try(via, "RING", "APPLY", fmt.Sprint(fieldsOf(reply)["plan"]))
	if err != nil {
		n.note("not applied, or in doubt: %v", err)
	}
	var said replyError
	if errors.As(err, &said) {
		n.h.count("change refused")
		return false
	}
	n.h.count("change made")
	return true
}

// tendRing stops who may go, and looks for who has ended by itself.
func (n *nemesis) tendRing() {
	for i, s := range n.c.nodes {
		if s.node == nil {
			continue
		}
		select {
		case <-s.node.Done():
			n.ended(i)
			continue
		default:
		}
		if !n.kind.ring || !n.moves.asked[i] {
			continue
		}
		text, err := n.c.try(i, "INFO", "redynamo")
		if err == nil && strings.Contains(fmt.Sprint(text), "warning_left:") {
			n.h.count("change left")
			n.retire(i)
		}
	}
}

// retire stops node i for good, and frees its host.
func (n *nemesis) retire(i int) {
	n.note("node %d goes for good", i)
	n.c.closeNode(i, 50*time.Second)
	n.c.nodes[i].node = nil
	n.c.swap(i, vfs.NewCrashableMem())
	delete(n.back, i)
	delete(n.moves.asked, i)
	if n.moves.staged == i {
		n.moves.staged = -1
	}
	n.moves.setFree(i, true)
}

// settleRing waits until all nodes that are up are members, and the ring is at rest.
func (n *nemesis) settleRing() {
	if !n.kind.ring {
		return
	}
	if i := n.moves.staged; i >= 0 {
		n.retire(i)
	}
	for began := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		n.tendRing()
		lacks := n.unsettled()
		if lacks == "" {
			n.note("the ring is at rest after %v", time.Since(began))
			return
		}
		if time.Since(began) > ringAtEnd {
			n.h.errorf("the ring is not at rest %v after all is healed: %s", ringAtEnd, lacks)
			return
		}
	}
}

// unsettled says what is not yet as it will be.
func (n *nemesis) unsettled() string {
	var up []int
	for i, s := range n.c.nodes {
		if s.node != nil {
			up = append(up, i)
		}
	}
	epochs := map[string]bool{}
	for _, i := range up {
		reply, err := n.c.try(i, "RING", "STATUS")
		if err != nil {
			return fmt.Sprintf("node %d: %v", i, err)
		}
		st := fieldsOf(reply)
		list, _ := st["members"].([]any)
		if st["state"] != "stable" || len(list) != len(up) {
			return fmt.Sprintf("node %d of %v: %v, members %v, %v, waits for %v", i, up, st["state"], list, st["change"], st["waits-for"])
		}
		for _, k := range up {
			if !strings.Contains(fmt.Sprint(list), n.addr(k)+" ") {
				return fmt.Sprintf("node %d: node %d is not in %v", i, k, list)
			}
		}
		epochs[fmt.Sprint(st["epoch"])] = true
	}
	if len(epochs) != 1 {
		return fmt.Sprintf("rings differ: %v", epochs)
	}
	return ""
}

// checkStrays wants nobody to hold what others own, soon after the ring is at rest.
func (n *nemesis) checkStrays(keys []string) {
	if !n.kind.ring {
		return
	}
	cl, err := n.c.dial(n.c.upNode(0))
	if err != nil {
		n.h.errorf("dial, all healed: %v", err)
		return
	}
	defer cl.conn.Close()
	s := &ringSim{simCluster: n.c, h: n.h}
	for began := time.Now(); ; time.Sleep(time.Second) {
		text := s.strays(cl, keys)
		if text == "" {
			return
		}
		if time.Since(began) > ringDrop {
			n.h.errorf("%v after the ring is at rest: %s", ringDrop, text)
			return
		}
	}
}
