package quorum

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Failure says how a Send failed.
type Failure uint8

// The failures.
const (
	Dead       Failure = iota // unreachable, silent, broken or full: its copy goes to a fallback
	Refused                   // alive, and took nothing: no copy goes elsewhere on its behalf
	OverBudget                // an optional hint was refused: nobody else is to keep it
)

// Send is one message: the new record to one node, which keeps it for itself
// or as a hint for Stand.For.
type Send struct {
	Index int // names the message to Ack and Fail
	Stand ring.Stand
	// Optional says that the write can be met without this hint: enough owners
	// have the record or may still get it. A node that keeps much already may
	// refuse it.
	Optional bool
}

// Write is the state of one write from the moment its dot is minted. The zero
// value must be Reset before use; it may be used again and keeps its storage.
type Write struct {
	need    int
	acked   int
	targets []target
	sent    int // targets[:sent] were sent
	open    int // of those, the ones without outcome

	spared  bool
	spares  []ring.NodeID
	orphans []ring.NodeID // owners that have no copy and no hint on its way
	shed    []ring.Stand  // optional hints that were refused
}

type target struct {
	stand    ring.Stand
	kept     bool // does not count: a hint on the coordinator beside its own copy, or a copy outside the ring
	optional bool // sent as such
	state    targetState
}

type targetState uint8

const (
	waiting targetState = iota
	stored
	lost
)

// Local is the index of the coordinator's own copy: it is not sent by Next,
// but acknowledged and failed like the others.
const Local = 0

// Reset begins a write that must be stored by need nodes. self is the stand of
// the coordinator, walk the stands of the ring's walk (self may be among them),
// owners the owners of the partition.
func (w *Write) Reset(need int, self ring.Stand, walk []ring.Stand, owners []ring.NodeID) {
	*w = Write{
		need: need, sent: 1, open: 1,
		targets: append(w.targets[:0], target{stand: self}),
		spares:  w.spares[:0], orphans: w.orphans[:0], shed: w.shed[:0],
	}
	for _, s := range walk {
		if s.Node != self.Node {
			w.targets = append(w.targets, target{stand: s})
		}
	}
	w.orphanAll(owners)
}

// resetBeside begins the same write for the owners in another ring, in which self,
// the stand of the coordinator, may have no place: then its copy does not count.
func (w *Write) resetBeside(need int, self ring.Stand, walk []ring.Stand, owners []ring.NodeID) {
	w.Reset(need, self, nil, nil)
	w.targets[Local].kept = !slices.Contains(walk, self)
	for _, s := range walk {
		if s != self {
			w.targets = append(w.targets, target{stand: s})
		}
	}
	w.orphanAll(owners)
}

// orphanAll notes the owners that no target is or stands in for.
func (w *Write) orphanAll(owners []ring.NodeID) {
	for _, o := range owners {
		if !slices.ContainsFunc(w.targets, func(t target) bool { return ownerOf(t.stand) == o }) {
			w.orphans = append(w.orphans, o)
		}
	}
}

// Next returns the next message to send, if there is one; also after the
// verdict.
func (w *Write) Next() (Send, bool) {
	if w.sent == len(w.targets) && !w.recruit() && !w.recall() {
		return Send{}, false
	}
	i := w.sent
	w.sent++
	w.open++
	t := &w.targets[i]
	t.optional = t.kept || t.stand.For != 0 && w.ownersSuffice()
	return Send{Index: i, Stand: t.stand, Optional: t.optional}, true
}

// ownersSuffice reports whether owners alone can meet W, as far as is known.
func (w *Write) ownersSuffice() bool {
	n := 0
	for i := range w.targets {
		if t := &w.targets[i]; t.stand.For == 0 && !t.kept && t.state != lost {
			n++
		}
	}
	return n >= w.need
}

// recall asks once more for a hint that was refused as optional, now that it is
// needed.
func (w *Write) recall() bool {
	if len(w.shed) == 0 || w.acked >= w.need || w.ownersSuffice() {
		return false
	}
	w.targets = append(w.targets, target{stand: w.shed[0]})
	w.shed = w.shed[1:]
	return true
}

// recruit finds who keeps a hint for the next owner without one: a spare or,
// when there is none, the coordinator itself (unless its own store has failed).
func (w *Write) recruit() bool {
	for len(w.orphans) > 0 && w.spared {
		owner := w.orphans[0]
		w.orphans = w.orphans[1:]
		self := &w.targets[Local]
		switch {
		case len(w.spares) > 0:
			w.targets = append(w.targets, target{stand: ring.Stand{Node: w.spares[0], For: owner}})
			w.spares = w.spares[1:]
			return true
		case self.state != lost && owner != ownerOf(self.stand):
			w.targets = append(w.targets, target{stand: ring.Stand{Node: self.stand.Node, For: owner}, kept: true})
			return true
		}
	}
	return false
}

// NeedsSpares reports that an owner waits for a fallback; Spares must be called.
func (w *Write) NeedsSpares() bool { return !w.spared && len(w.orphans) > 0 }

// Spares gives the live fallbacks in ring order; those in use are skipped. Only
// the first call counts.
func (w *Write) Spares(nodes []ring.NodeID) {
	if w.spared {
		return
	}
	w.spared = true
	for _, n := range nodes {
		if !slices.ContainsFunc(w.targets, func(t target) bool { return t.stand.Node == n }) {
			w.spares = append(w.spares, n)
		}
	}
}

// Ack records that a node has stored the record.
func (w *Write) Ack(index int) {
	t := &w.targets[index]
	t.state = stored
	w.open--
	if !t.kept {
		w.acked++
	}
}

// Fail records that a node has not stored the record, or not said so.
func (w *Write) Fail(index int, f Failure) {
	t := &w.targets[index]
	t.state = lost
	w.open--
	switch {
	case t.kept: // nobody is left to keep it; anti-entropy will find the owner behind
	case f == Refused && t.stand.For == 0:
	case f == OverBudget && t.optional:
		w.shed = append(w.shed, t.stand)
	default:
		w.orphans = append(w.orphans, ownerOf(t.stand))
	}
}

// Verdict says whether the client has its answer.
func (w *Write) Verdict() Verdict {
	switch {
	case w.acked >= w.need:
		return Met
	case w.acked+w.hopes() < w.need:
		return Impossible
	default:
		return Pending
	}
}

// hopes counts the nodes that may still store the record and would count.
func (w *Write) hopes() int {
	n := len(w.shed)
	for i := range w.targets {
		if t := &w.targets[i]; t.state == waiting && !t.kept {
			n++
		}
	}
	if !w.spared {
		return n + len(w.orphans)
	}
	return n + min(len(w.orphans), len(w.spares))
}

// Acked is the number of distinct nodes that stored the record.
func (w *Write) Acked() int { return w.acked }

// Open reports whether a message is out that has no outcome yet, the
// coordinator's own copy included.
func (w *Write) Open() bool { return w.open > 0 }
