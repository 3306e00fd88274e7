package node

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/resp"
)

// This file tells people how far a change of the ring is.

// errForgotten ends a node that the others have given up. What it holds may be
// older than what they have dropped the traces of, so it is of no use.
var errForgotten = errors.New("the cluster goes on without this node: an administrator had it forgotten as dead, and the others have taken over what it held. To make it a member again, empty its data directory and start it with --join; it will be another node")

// leftText is what a node that was removed says when it may go.
const leftText = "this node has left the ring and handed over what it held: it can be stopped, and its data directory deleted"

// hasLeft reports whether a node is of no more use to its cluster.
func hasLeft(v *membership.View) bool { return v.Epoch != nil && v.Epoch.Out }

// The phases of a change, in order; stable is the rest.
const (
	phaseAnnouncing = "announcing" // not every node writes to the new owners yet
	phaseMoving     = "moving"     // partitions go to their new owners
	phaseSwitching  = "switching"  // the new owners begin to be read
	phaseStable     = "stable"
)

// steps counts who has come how far in a change.
type steps struct {
	nodes, acked, synced, read int
	waiting                    []nodeID // for the end of the present phase
	phase                      string
}

func stepsOf(v *membership.View) steps {
	s := steps{phase: phaseStable}
	if v.Epoch == nil || v.Epoch.Settled {
		return s
	}
	one := func(done bool) int {
		if done {
			return 1
		}
		return 0
	}
	waits := v.Epoch.Waits
	s.nodes = len(waits)
	for _, w := range waits {
		s.acked, s.synced, s.read = s.acked+one(w.Acked), s.synced+one(w.Synced), s.read+one(w.Read)
	}
	switch {
	case s.acked < s.nodes:
		s.phase = phaseAnnouncing
	case s.synced < s.nodes:
		s.phase = phaseMoving
	default:
		s.phase = phaseSwitching
	}
	for _, w := range waits {
		done := map[string]bool{phaseAnnouncing: w.Acked, phaseMoving: w.Synced, phaseSwitching: w.Read}
		if !done[s.phase] {
			s.waiting = append(s.waiting, w.Node)
		}
	}
	return s
}

// changeFields are the figures of the change under way, for RING STATUS and RING
// TRANSFERS alike.
func changeFields(v *membership.View) (fields []resp.Field) {
	add := func(name, value string) { fields = append(fields, resp.Field{Name: name, Value: value}) }
	s := stepsOf(v)
	add("state", s.phase)
	if s.phase == phaseStable {
		return fields
	}
	add("target-epoch", strconv.FormatUint(v.Epoch.Target().Epoch(), 16))
	for _, n := range []struct {
		name  string
		count int
	}{{"nodes", s.nodes}, {"nodes-acked", s.acked}, {"nodes-synced", s.synced}, {"nodes-read", s.read}} {
		add(n.name, strconv.Itoa(n.count))
	}
	var names []string
	for _, id := range s.waiting {
		names = append(names, id.String())
	}
	add("waits-for", strings.Join(names, " "))
	add("change", fmt.Sprintf("%s, waits for %d of %d nodes", s.phase, len(s.waiting), s.nodes))
	return fields
}

// movingText says whether a node comes or goes.
func movingText(v *membership.View, id nodeID) string {
	if v.Epoch == nil || v.Epoch.Settled {
		return ""
	}
	is, willBe := member(v.Ring, id), member(v.Epoch.Target(), id)
	switch {
	case willBe && !is:
		return "joining"
	case is && !willBe:
		return "leaving"
	}
	return ""
}

// stepText is the last step that a node has taken in the change.
func stepText(v *membership.View, id nodeID) string {
	if v.Epoch == nil {
		return ""
	}
	for _, w := range v.Epoch.Waits {
		switch {
		case w.Node != id:
		case w.Read:
			return "read"
		case w.Synced:
			return "synced"
		case w.Acked:
			return "acked"
		}
	}
	return ""
}

// Transfers is resp.RingAdmin. The transfers are those of this node; how many
// partitions there are to move is known of all nodes.
func (a *ringAdmin) Transfers() resp.RingTransfers {
	v := a.view()
	if v.Ring == nil {
		return resp.RingTransfers{Fields: []resp.Field{{Name: "state", Value: phaseStable}}}
	}
	t := resp.RingTransfers{Fields: changeFields(v)}
	if v.Epoch == nil || v.Epoch.Settled {
		return t
	}
	t.Transfers = a.moves.Transfers()
	moves := len(ring.Diff(v.Ring, v.Epoch.Target()).Moves)
	var here, done int
	var bytes, total int64
	for _, x := range t.Transfers {
		if x.From == a.self { // each is told by both ends
			here, done = here+x.Partitions, done+x.Done
			bytes, total = bytes+x.Bytes, total+x.BytesTotal
		}
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"partitions-changing", int64(moves)}, {"partitions", int64(here)}, {"partitions-done", int64(done)},
		{"bytes", bytes}, {"bytes-total", total},
	} {
		t.Fields = append(t.Fields, resp.Field{Name: f.name, Value: strconv.FormatInt(f.n, 10)})
	}
	return t
}
