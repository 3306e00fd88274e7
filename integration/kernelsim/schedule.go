package main

import (
	"math/rand/v2"
)

// Sizes of a history.
const (
	maxNodes = 9  // those that may join included
	maxKeys  = 3  //
	maxOps   = 60 // one bit each
	units    = 8  // partitions
	leaves   = 8  // cells of a partition
	copies   = 3  // N
	quorumR  = 2
	quorumW  = 2
)

// Times, in microseconds. They stand to each other as the product's do; the history is
// short because the product's long ones (the age of messages, the restore window) are
// short here.
const (
	ms            = int64(1000)
	requestTime   = 100 * ms // of a client's request
	messageAge    = 150 * ms // nothing is carried out later
	callTime      = 60 * ms  // of a message that no client waits for
	hedgeTime     = 25 * ms
	tickTime      = 20 * ms // between two looks of a node at what there is to do
	exchangeTime  = 220 * ms
	settleTime    = 8 * ms // of an exchange: writes under way arrive
	dropGrace     = 60 * ms
	syncTime      = 2 * ms
	slowSync      = 45 * ms
	restoreWindow = 700 * ms
	healTime      = 12_000 * ms // a healed cluster must have come to rest by then
	plainDelay    = 2 * ms      // of a message of which nothing else is said
)

// The decisions of a schedule.
const (
	doAdd      = "add"       // VCTX.SET that has seen nothing
	doPut      = "put"       // VCTX.SET with the client's token
	doCart     = "cart"      // VCTX.GET and VCTX.SET with its token
	doSet      = "set"       // SET
	doRemove   = "remove"    // VCTX.DEL with the client's token
	doDelete   = "delete"    // DEL
	doGet      = "get"       // VCTX.GET
	doKill     = "kill"      // Node dies and is back after For; Part of what was not synced is there
	doPower    = "power"     // the nodes in Part, in bits, die at once, and what was not synced is lost
	doWipe     = "wipe"      // and its disk is empty
	doRestore  = "restore"   // and its disk is as it was Age before
	doPause    = "pause"     // Node stands still for For
	doCut      = "cut"       // nothing arrives from Node at To for For
	doSplit    = "split"     // Part, a set of nodes in bits, and the others do not hear of each other for For
	doSuspect  = "suspect"   // Node takes To for dead until it looks
	doDoubt    = "doubt"     // Node takes those on the preference list of Key that are in Part, in bits, for dead until it looks
	doSlowDisk = "slow-disk" // Node syncs slowly for For
	doFull     = "full"      // Node keeps no optional hints for For
	doSkew     = "skew"      // Node's clock is set by Age
	doJoin     = "join"      // To comes, and is added at Node
	doLeave    = "leave"     // To is removed at Node, and so is Part if that is a node
	doReplace  = "replace"   // Part, a new node, takes the place of To, at Node
	doForget   = "forget"    // To is dead for good, and is forgotten at Node
)

// Decision is one thing that happens in a history. ID stays when others are taken out.
type Decision struct {
	ID     int    `json:"id"`
	At     int64  `json:"at"`
	Do     string `json:"do"`
	Node   int    `json:"node,omitempty"`
	To     int    `json:"to,omitempty"`
	Client int    `json:"client,omitempty"`
	Key    int    `json:"key,omitempty"`
	For    int64  `json:"for,omitempty"`
	Age    int64  `json:"age,omitempty"`
	Part   int    `json:"part,omitempty"`
}

// isOp reports whether a client asks for it.
func (d *Decision) isOp() bool {
	switch d.Do {
	case doAdd, doPut, doCart, doSet, doRemove, doDelete, doGet:
		return true
	}
	return false
}

// Net is how bad the network is, in thousandths.
type Net struct {
	Loss, Twice, Late int
}

// Fate is what becomes of one message: the N-th of those that one cause made.
type Fate struct {
	Cause uint64 `json:"cause"`
	N     int    `json:"n"`
	Lost  bool   `json:"lost,omitempty"`
	Twice int64  `json:"twice,omitempty"` // it comes again after so long
	Delay int64  `json:"delay,omitempty"`
}

// Schedule is a whole history.
type Schedule struct {
	Seed      uint64     `json:"seed"`
	Nodes     int        `json:"nodes"`
	Keys      int        `json:"keys"`
	Base      int        `json:"base"` // of the names of keys
	Clients   int        `json:"clients"`
	End       int64      `json:"end"` // of trouble
	Restores  bool       `json:"restores,omitempty"`
	Moves     bool       `json:"moves,omitempty"` // the ring changes
	Net       Net        `json:"net"`
	Decisions []Decision `json:"decisions"`
	// Exact says that Fates holds the fate of every message that is not plain. Else
	// they are drawn.
	Exact bool   `json:"exact,omitempty"`
	Fates []Fate `json:"fates,omitempty"`
}

// generate makes the schedule of a seed.
func generate(seed uint64) *Schedule {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	s := &Schedule{
		Seed: seed, Nodes: 3 + rng.IntN(5), Keys: 1 + rng.IntN(maxKeys), Base: rng.IntN(1 << 16),
		Clients: 1 + rng.IntN(4), End: int64(600+rng.IntN(1800)) * ms,
		Restores: rng.IntN(3) == 0, Moves: rng.IntN(3) == 0,
	}
	if rng.IntN(3) > 0 {
		s.Net = Net{Loss: rng.IntN(60), Twice: rng.IntN(40), Late: rng.IntN(60)}
	}
	g := generator{rng: rng, s: s}
	g.ops()
	g.faults()
	if s.Nodes >= 5 && rng.IntN(6) == 0 {
		g.strangers()
	}
	if s.Moves {
		g.changes()
	}
	return s
}

type generator struct {
	rng  *rand.Rand
	s    *Schedule
	mix  []string // of operations
	left int      // operations that there may be yet
}

func (g *generator) add(d Decision) {
	d.ID = len(g.s.Decisions) + 1
	g.s.Decisions = append(g.s.Decisions, d)
}

func (g *generator) node() int { return 1 + g.rng.IntN(g.s.Nodes) }

// time is some moment of the trouble.
func (g *generator) time() int64 { return 1 + g.rng.Int64N(g.s.End) }

// span is a duration, mostly short.
func (g *generator) span(most int64) int64 {
	return ms + g.rng.Int64N(most)*g.rng.Int64N(1000)/1000
}

// mixes are the kinds of clients: each line is one way to use a store.
var mixes = [][]string{
	{doAdd, doAdd, doAdd, doGet, doCart},
	{doCart, doCart, doPut, doGet},
	{doAdd, doPut, doRemove, doGet, doCart, doDelete},
	{doSet, doSet, doGet, doDelete},
	{doSet, doPut, doCart, doRemove, doDelete, doAdd, doGet},
}

// ops are what the clients ask for: some in bursts, so that they meet.
func (g *generator) ops() {
	n := 8 + g.rng.IntN(g.rng.IntN(maxOps-8)+1)
	g.mix, g.left = mixes[g.rng.IntN(len(mixes))], maxOps-n
	at := g.time()
	for range n {
		switch g.rng.IntN(3) {
		case 0:
			at = g.time()
		case 1:
			at = min(at+g.rng.Int64N(40*ms), g.s.End-1)
		}
		g.add(Decision{
			At: at, Do: g.mix[g.rng.IntN(len(g.mix))], Node: g.node(), Client: g.rng.IntN(g.s.Clients), Key: g.rng.IntN(g.s.Keys),
		})
	}
}

// strangers lets nodes that own nothing of a key coordinate its writes, again and again,
// with time for their hints to go home in between: so they come to the same rows with
// and without what they wrote there before.
func (g *generator) strangers() {
	k, who, at := g.rng.IntN(g.s.Keys), []int{g.node(), g.node()}, g.time()/2
	for range 3 + g.rng.IntN(6) {
		d := Decision{At: min(at, g.s.End-1), Do: doDoubt, Node: who[g.rng.IntN(2)], Key: k, Part: 7 | g.rng.IntN(4)<<3&^(g.rng.IntN(4)<<3)}
		g.add(d)
		g.burst(d)
		at += g.rng.Int64N(140 * ms)
	}
}

// burst lets some clients ask a node that is wrong about who is dead, and perhaps its
// neighbour.
func (g *generator) burst(d Decision) {
	at := d.At
	for range g.rng.IntN(4) {
		if g.left == 0 {
			return
		}
		g.left--
		at = min(at+1+g.rng.Int64N(25*ms), g.s.End-1)
		do := g.mix[g.rng.IntN(len(g.mix))]
		g.add(Decision{At: at, Do: do, Node: d.Node, Client: g.rng.IntN(g.s.Clients), Key: d.Key})
	}
}

// faults are what goes wrong; a third of the histories has few of them.
func (g *generator) faults() {
	n := g.rng.IntN(4)
	if g.rng.IntN(3) > 0 {
		n += g.rng.IntN(14)
	}
	kinds := []string{
		doKill, doKill, doPower, doPower, doCut, doCut, doSplit, doSplit, doPause, doSuspect, doDoubt, doDoubt, doDoubt, doSlowDisk, doFull, doSkew, doWipe, doWipe,
	}
	if g.s.Restores {
		kinds = append(kinds, doRestore, doRestore)
	}
	for range n {
		d := Decision{At: g.time(), Do: kinds[g.rng.IntN(len(kinds))], Node: g.node()}
		switch d.Do {
		case doKill, doWipe, doRestore:
			d.For, d.Part, d.Age = g.span(700*ms), g.rng.IntN(101), g.rng.Int64N(restoreWindow-10*ms)
		case doPower:
			d.For, d.Part = g.span(500*ms), g.rng.IntN(1<<g.s.Nodes)|g.rng.IntN(1<<g.s.Nodes)
			d.At = g.afterOp(d.At)
		case doPause, doSlowDisk, doFull:
			d.For = g.span(500 * ms)
		case doCut:
			d.To, d.For = g.node(), g.span(700*ms)
		case doSplit:
			d.Part, d.For = g.rng.IntN(1<<g.s.Nodes), g.span(900*ms)
		case doSuspect:
			d.To = g.node()
		case doDoubt:
			d.Key, d.Part = g.rng.IntN(g.s.Keys), 31&^g.rng.IntN(g.rng.IntN(32)+1)
			g.burst(d)
		case doSkew:
			d.Age = g.rng.Int64N(2000*ms) - 1000*ms
		}
		g.add(d)
	}
}

// changes are what administrators do.
func (g *generator) changes() {
	next := g.s.Nodes + 1
	for range 1 + g.rng.IntN(3) {
		d := Decision{At: g.time(), Node: g.node(), To: g.node()}
		switch k := g.rng.IntN(10); {
		case k < 4 && next <= maxNodes:
			d.Do, d.To = doJoin, next
			next++
		case k < 6 && next <= maxNodes:
			d.Do, d.Part = doReplace, next
			next++
		case k < 8:
			d.Do, d.Part = doLeave, g.rng.IntN(g.s.Nodes+1)
		default:
			d.Do = doForget
		}
		g.add(d)
		if g.rng.IntN(2) == 0 {
			g.during(d.At)
		}
	}
}

// during lets clients ask while the ring changes.
func (g *generator) during(at int64) {
	for range min(g.rng.IntN(8), g.left) {
		g.left--
		g.add(Decision{
			At: min(at+1+g.rng.Int64N(250*ms), g.s.End-1), Do: g.mix[g.rng.IntN(len(g.mix))],
			Node: g.node(), Client: g.rng.IntN(g.s.Clients), Key: g.rng.IntN(g.s.Keys),
		})
	}
}

// afterOp is a moment soon after some operation began.
func (g *generator) afterOp(at int64) int64 {
	if d := &g.s.Decisions[g.rng.IntN(len(g.s.Decisions))]; d.isOp() {
		at = d.At + g.rng.Int64N(12*ms)
	}
	return min(at, g.s.End-1)
}
