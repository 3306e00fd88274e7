package main

import (
	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// held is a record and, exactly, what it should be: the writes that are live in it and
// those that it knows, a bit for each. The record claims by intervals; the bits cannot
// claim what they have not seen.
type held struct {
	rec        version.Record
	live, past uint64
}

// merge joins two copies, the record by its kernel and the bits by the definition.
func merge(local, in held) held {
	return held{
		rec:  version.Merge(local.rec, in.rec),
		live: local.live&in.live | local.live&^in.past | in.live&^local.past,
		past: local.past | in.past,
	}
}

// wire is a copy as it travels: the local flags stay at home (version.EncodeWire).
func (h held) wire() held {
	h.rec.Amnesia, h.rec.AllAcked = false, false
	return h
}

// row is a row in memory.
type row struct {
	held
	seq uint64 // of its last change
}

// change is a change of a row, on its way to the disk or there.
type change struct {
	key, target int
	held
	at int64 // when it was durable
}

// disk is what a crash leaves.
type disk struct {
	log        []change
	saves      []savedState
	recovering bool
	boots      uint64
}

// savedState is a state of the epochs that was saved.
type savedState struct {
	at    int64
	state epoch.State
}

// table is the rows of a node, what of them is not synced yet, and who waits for that.
type table struct {
	rows    [maxKeys][maxNodes + 1]row // by key and target, 0 the own one
	cells   [units][leaves]uint64      // digests of the own rows
	pending []change
	waiting []func()
	seq     uint64
	synced  uint64
	syncing bool
}

// put makes next the state of a row; done runs when it is durable (replica.storeLocked
// and storage's group commit).
func (n *node) put(k, target int, next held, done func()) {
	n.w.verify(n, k, target, next)
	r := &n.rows[k][target]
	if target == 0 && !(n.w.bugs.leafKept && !r.rec.Absent()) {
		key := &n.w.keys[k]
		n.cells[key.partition][key.cell] ^= merkle.Change(uint16(key.slot), key.hash, r.rec.StateHash(), next.rec.StateHash())
	}
	if target != 0 {
		n.hintedAt[n.w.keys[k].partition] = n.w.now
	}
	n.seq++
	*r = row{next, n.seq}
	n.w.note(next.rec.WholeHash())
	n.pending = append(n.pending, change{key: k, target: target, held: next})
	n.wait(done)
}

// wait runs done when all that was put so far is durable; at once if it is.
func (n *node) wait(done func()) {
	if n.synced == n.seq {
		done()
		return
	}
	n.waiting = append(n.waiting, done)
	if n.syncing {
		return
	}
	n.syncing = true
	d := syncTime
	if n.slowUntil > n.w.now {
		d = slowSync
	}
	n.w.after(n, d, n.sync)
}

// sync makes all durable that was put so far.
func (n *node) sync() {
	n.flush(len(n.pending))
	n.synced, n.syncing = n.seq, false
	waiting := n.waiting
	n.waiting = nil
	for _, done := range waiting {
		done()
	}
}

// flush brings some of the changes to the disk.
func (n *node) flush(some int) {
	for i := range n.pending[:some] {
		n.pending[i].at = n.w.now
	}
	n.log = append(n.log, n.pending[:some]...)
	n.pending = n.pending[:0]
}

// load brings the rows back from the disk.
func (n *node) load() {
	for i := range n.log {
		c := &n.log[i]
		n.rows[c.key][c.target] = row{held: c.held}
	}
	for k := range n.w.keys {
		key := &n.w.keys[k]
		n.cells[key.partition][key.cell] ^= merkle.Entry(uint16(key.slot), key.hash, n.rows[k][0].rec.StateHash())
		for target := 1; target <= maxNodes; target++ {
			if !n.rows[k][target].rec.Absent() {
				n.hintedAt[key.partition] = n.w.now // kept before this run counts as kept at its beginning
			}
		}
	}
}

// durable is what the disk has of a key, all its rows together.
func (n *node) durable(k int, log []change) (past uint64) {
	var rows [maxNodes + 1]uint64
	for i := range log {
		if c := &log[i]; c.key == k {
			rows[c.target] = c.past
		}
	}
	for _, p := range rows {
		past |= p
	}
	return past
}

// durableOwn is durable of the own row.
func (n *node) durableOwn(k int) (past uint64) {
	for i := range n.log {
		if c := &n.log[i]; c.key == k && c.target == 0 {
			past = c.past
		}
	}
	return past
}

// outcome says how a merge ended.
type outcome uint8

const (
	stored outcome = iota
	staleEpoch
	overBudget
	notOwner
	unreachable // no answer, or certainly nothing done
	lostCall
)

// mergeRow joins a copy into a row (replica.mergeLocked).
func (n *node) mergeRow(k, target int, in held, done func(outcome)) {
	if target == 0 && n.fenced[n.w.keys[k].partition] {
		done(notOwner)
		return
	}
	n.checkOwnDots(k, target, in.rec.Context)
	n.observe(in.rec.MaxHLC())
	r := &n.rows[k][target]
	if target == 0 && r.rec.Absent() && n.wasReaped(k, in.rec) {
		done(stored)
		return
	}
	next := merge(r.held, in)
	if n.w.bugs.noAmnesia {
		next.rec.Amnesia = false
	}
	settled := func() { done(stored) }
	if next.rec.Equal(r.rec) {
		n.wait(settled)
		return
	}
	n.put(k, target, next, settled)
}

// checkOwnDots: nobody else mints in the name of this process (replica.checkOwnDots).
func (n *node) checkOwnDots(k, target int, c version.Context) {
	if top, ok := c.Top(n.actorOf(target)); ok && top.Hi > n.counters[n.w.keys[k].partition] {
		n.w.fail("dot", "node %d is shown dot %d of its own actor and has minted %d", n.id, top.Hi, n.counters[n.w.keys[k].partition])
	}
}

// actorOf is replica.actorOf.
func (n *node) actorOf(target int) version.Actor {
	if target == 0 || n.w.bugs.oneActor {
		return n.actor
	}
	x := uint64(target)
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return max(n.actor^version.Actor(x^x>>33), 1)
}

// wallMS is the node's clock on the wall.
func (n *node) wallMS() int64 { return 1_000_000 + (n.w.now+n.skew)/ms }

// tickHLC is replica.Clock.at.
func (n *node) tickHLC() version.HLC {
	n.hlc = max(version.HLCFromMS(n.wallMS()), n.hlc.Next())
	return n.hlc
}

func (n *node) observe(h version.HLC) { n.hlc = max(n.hlc, h) }

// mint is replica.mint.
func (n *node) mint(k, target int) version.Mint {
	p := n.w.keys[k].partition
	n.counters[p]++
	return version.Mint{
		NowMS: n.wallMS(), HLC: n.tickHLC(), Dot: version.Dot{Actor: n.actorOf(target), Counter: n.counters[p]},
	}
}

// joined is all that a node knows of a key: what it answers as a fallback
// (replica.Joined).
func (n *node) joined(k int) held {
	var all held
	for target := maxNodes; target >= 0; target-- {
		if r := &n.rows[k][target]; !r.rec.Absent() && !(target == 0 && n.fenced[n.w.keys[k].partition]) {
			all = merge(all, r.held)
		}
	}
	return all
}

// dropHint removes a row kept for another node if it still is what was delivered
// (replica.DropHint).
func (n *node) dropHint(k, target int, delivered held) {
	r := &n.rows[k][target]
	if r.rec.Absent() || !r.rec.Equal(delivered.rec) {
		return
	}
	n.put(k, target, held{}, func() {})
}

// root is the root of a partition's tree.
func (n *node) root(partition int) uint64 {
	cells := n.cells[partition]
	return merkle.Root(cells[:])
}

// tree folds a partition.
func (n *node) tree(partition int) *merkle.Tree {
	cells := n.cells[partition]
	return merkle.Fold(cells[:])
}

// hints reports whether a node keeps anything for another.
func (n *node) hintsFor(target ring.NodeID) bool {
	for k := range n.w.keys {
		if !n.rows[k][target].rec.Absent() {
			return true
		}
	}
	return false
}
