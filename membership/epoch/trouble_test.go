package epoch

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// This file makes the model's trouble, and judges what is left of it.

func (w *world) pick(ok func(*node) bool) *node {
	var some []*node
	for _, n := range w.nodes {
		if ok(n) {
			some = append(some, n)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[w.rnd.IntN(len(some))]
}

func up(n *node) bool { return n.born && n.up && !n.out }

// leave lets a node that is out stop for good, and reports whether it has.
func (w *world) leave(n *node) bool {
	mayGo := n.view.Out || w.m.leaveEarly && n.state.Leaving()
	if mayGo && len(n.hints) == 0 && w.rnd.IntN(4) == 0 { // it serves on for a while
		w.crash(n)
		n.out = true
		w.counts.left++
	}
	return n.out
}

// step is one event.
func (w *world) step() {
	w.counts.steps++
	n := w.pick(up)
	if n == nil {
		if n = w.pick(func(n *node) bool { return n.born && !n.out }); n != nil {
			w.restart(n)
		}
		return
	}
	if w.leave(n) {
		return
	}
	switch k := w.rnd.IntN(1000); {
	case k < 330:
		for range 6 {
			w.deliver()
		}
	case k < 480:
		if to := w.pick(up); to != n {
			w.gossip(n, to)
		}
	case k < 560:
		if !w.calm {
			w.startWrite(n, w.rnd.IntN(modelUnits))
		}
	case k < 650:
		w.startRead(n, w.rnd.IntN(modelUnits))
	case k < 840:
		if !n.lazy || w.calm || w.rnd.IntN(6) == 0 {
			w.transfer(n)
		}
	case k < 870:
		if w.calm || w.rnd.IntN(3) == 0 {
			w.handoff(n)
		}
	case k < 890:
		if len(n.ops) > 0 { // its time is over
			if o := n.ops[w.rnd.IntN(len(n.ops))]; !o.slow || w.calm || w.rnd.IntN(12) == 0 {
				w.end(o)
			}
		}
	case k < 960:
		w.advance(n)
	case w.calm:
	case k < 966:
		if !w.gentle || w.rnd.IntN(10) == 0 {
			w.crash(n)
		}
	case k < 980:
		if down := w.pick(func(n *node) bool { return n.born && !n.up && !n.out }); down != nil {
			w.restart(down)
		}
	case k < 984:
		w.split = nil
		if !w.gentle && w.rnd.IntN(3) == 0 {
			w.split = make([]bool, modelNodes)
			for i := range w.split {
				w.split[i] = w.rnd.IntN(2) == 0
			}
		}
	case k < 987:
		w.shy = nil
		if w.rnd.IntN(3) > 0 {
			w.shy = n
		}
	default:
		w.administer(n)
	}
}

// administer lets an administrator at n change the members. Two of them may do
// so at once, knowing nothing of each other.
func (w *world) administer(n *node) {
	if !n.view.Coordinate || w.gentle && !n.view.Settled && w.rnd.IntN(8) > 0 {
		return
	}
	t := n.state.Target()
	members := ring.Members(t.records)
	storage := 0
	for _, m := range members {
		if m.Weight > 0 {
			storage++
		}
	}
	some := members[w.rnd.IntN(len(members))].ID
	r, _ := t.Record(some)
	r.Counter++
	r.TimeMS, r.Admin = int64(w.rnd.IntN(3)), n.id
	records := []ring.Record{r}
	kind := w.rnd.IntN(8)
	if w.gentle && w.rnd.IntN(2) == 0 {
		kind = 4
	}
	switch kind {
	case 0, 1: // join
		records = w.join(n)
	case 2, 3: // remove
		if storage <= modelN {
			return
		}
		records[0].Removed = true
	case 4:
		records[0].Weight = w.rnd.IntN(2) * (1 + w.rnd.IntN(4))
		if storage <= modelN+1 && records[0].Weight == 0 {
			records[0].Weight = 1
		}
	case 5: // replace
		fresh := w.join(n)
		if fresh == nil {
			return
		}
		fresh[0].PlaceID, fresh[0].Zone, fresh[0].Weight = r.PlaceID, r.Zone, r.Weight
		if fresh[0].PlaceID == 0 {
			fresh[0].PlaceID = r.ID
		}
		records[0].Removed = true
		records = append(records, fresh...)
	default: // forget one that is down, or seems to be
		absent := func(x *node) bool { return !x.up || w.apart(n, x) || x == w.shy }
		gone := w.pick(func(x *node) bool { return x != n && t.member(x.id) && absent(x) })
		if gone == nil || storage <= modelN {
			return
		}
		some = gone.id
		records[0], _ = t.Record(some)
		records[0].Counter++
		if w.rnd.IntN(8) > 0 && slices.ContainsFunc(w.nodes, func(x *node) bool { return w.forgotten(x.id) && !n.state.live[0].forgot(x.id) }) {
			return // mostly one at a time
		}
		records[0].Removed, records[0].Forgotten = true, !w.m.forgetSoftly
		w.forget(some)
		w.dead = append(w.dead, some)
	}
	if records == nil {
		return
	}
	w.counts.admin++
	w.show(n, n.state.Amend(records))
	w.advance(n)
}

// join makes the record of a node that never was in the ring, which starts with
// what the contact knows.
func (w *world) join(contact *node) []ring.Record {
	n := w.pick(func(n *node) bool { return !n.born })
	if n == nil {
		return nil
	}
	n.born, n.up = true, true
	n.lazy = w.rnd.IntN(3) == 0
	w.show(n, n.state.Merge(contact.state))
	if w.rnd.IntN(2) == 0 {
		w.shy = n
	}
	return []ring.Record{w.record(int(n.id)-1, 1)}
}

// forgotten reports whether anybody has forgotten a node.
func (w *world) forgotten(id ring.NodeID) bool {
	return slices.ContainsFunc(w.nodes, func(x *node) bool { return x.state.Target().forgot(id) })
}

// forget counts what is given up with the disk of a dead node: hints that it
// kept, versions that nobody else has, and, while an earlier forgetting is not
// seen through, its own copies.
func (w *world) forget(id ring.NodeID) {
	w.counts.forgets++
	gone := func(n *node) bool { return n.id == id || w.forgotten(n.id) }
	early := slices.ContainsFunc(w.nodes, func(x *node) bool {
		return x.born && !gone(x) && slices.ContainsFunc(w.nodes, func(y *node) bool {
			return y.id != id && gone(y) && !x.state.live[0].forgot(y.id)
		})
	})
	for p := range modelUnits {
		var kept, lost, hints set
		for _, n := range w.nodes {
			var all, kindness set
			for k, h := range n.hints {
				if k.partition == p {
					kindness.add(h)
				}
			}
			all.add(n.data[p])
			all.add(kindness)
			if gone(n) {
				lost.add(all)
				hints.add(kindness)
			} else {
				kept.add(all)
			}
		}
		if !early {
			lost = lost.less(kept)
		}
		lost.add(hints)
		w.giveUp(p, lost)
	}
}

func (w *world) giveUp(p int, lost set) {
	lost.less(w.given[p]).each(func(int) { w.counts.given++ })
	w.given[p].add(lost)
}

// restsOnTheDead reports whether an acknowledgement counts what was given up
// before: the coordinator does not know yet who was forgotten.
func (w *world) restsOnTheDead(acks []ring.Stand) bool {
	dead := 0
	for _, st := range acks {
		if w.forgotten(st.Node) {
			dead++
			if st.For != 0 {
				dead++
			}
		}
	}
	return dead > 1
}

// needed are the nodes that nobody has forgotten.
func (w *world) needed(n *node) bool {
	return n.born && !n.out && !w.forgotten(n.id) && !slices.Contains(w.dead, n.id)
}

// rest ends the trouble, and waits for the cluster to be at rest.
func (w *world) rest() {
	w.calm, w.split = true, nil
	for _, n := range w.nodes {
		if w.needed(n) && !n.up {
			w.restart(n)
		}
	}
	for _, x := range w.nodes { // a command that only the dead have heard is given again
		if n := w.pick(func(n *node) bool { return w.needed(n) && n != x }); n != nil && x.born {
			w.show(n, n.state.Amend(x.state.Target().records))
		}
	}
	for range 400 {
		for range 250 {
			w.step()
			w.deliver()
		}
		if w.void || w.broken != "" || w.atRest() {
			return
		}
	}
	w.fail("the cluster does not come to rest: %s", w.describe())
}

func (w *world) atRest() bool {
	var first *node
	for _, n := range w.nodes {
		if !w.needed(n) {
			continue
		}
		if first == nil {
			first = n
		}
		if len(n.state.live) > 1 || n.state.Target().id != first.state.Target().id || len(n.hints) > 0 {
			return false
		}
	}
	return true
}

func (w *world) describe() (out string) {
	for _, n := range w.nodes {
		if w.needed(n) {
			out += "\n" + n.state.String()
		}
	}
	return out
}

// judge looks at a cluster at rest: each acknowledged version has W copies in
// the set that reads use, and nobody keeps what is not its own.
func (w *world) judge() {
	n := w.pick(func(n *node) bool { return w.needed(n) && n.view.Coordinate })
	if n == nil {
		w.fail("at rest nobody may coordinate: %s", w.describe())
		return
	}
	r := n.view.Read()
	for p := range modelUnits {
		w.acked[p].less(w.given[p]).each(func(v int) {
			copies := 0
			for _, owner := range r.Owners(p) {
				if w.at(owner).data[p].has(v) {
					copies++
				}
			}
			if copies < min(modelW, r.N()) {
				w.fail("version %d of partition %d has %d copies at rest", v, p, copies)
			}
		})
		for _, x := range w.nodes {
			if w.needed(x) && !r.Owns(x.id, p) {
				w.advance(x)
				if !x.data[p].empty() {
					w.fail("node %v keeps partition %d and is no owner", x.id, p)
				}
			}
		}
	}
}

// play runs one schedule.
func play(seed uint64, steps int, m *mutant) (*world, breach) {
	w := newWorld(seed, m)
	for range steps {
		if w.step(); w.void {
			return w, ""
		} else if w.broken != "" {
			return w, w.broken
		}
	}
	if w.rest(); w.void {
		return w, ""
	}
	if w.broken == "" {
		w.judge()
	}
	return w, w.broken
}
