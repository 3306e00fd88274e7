package ring

import (
	"cmp"
	"slices"
)

// Stand is a place in the walk over a partition's preference list: a node and,
// if it is a fallback, the dead owner it stands in for, who is to get the data
// back (Dynamo §4.6). For is zero when the node is an owner itself.
type Stand struct {
	Node, For NodeID
}

// Fallbacks is the rest of the preference list: every other storage member, in
// the order in which they stand in. It is computed on each call.
func (r *Ring) Fallbacks(partition int) []NodeID {
	var list []candidate
	for i := range r.nodes {
		if !r.Owns(r.nodes[i].ID, partition) {
			list = append(list, candidate{r.cost(partition, i), i})
		}
	}
	slices.SortFunc(list, candidate.compare)
	ids := make([]NodeID, len(list))
	for k, c := range list {
		ids[k] = r.nodes[c.node].ID
	}
	return ids
}

// Walk appends to dst the nodes to use for a partition: the owners in order,
// each one that is not up replaced by a fallback. The d-th dead owner gets the
// d-th live fallback, so all who see the same nodes up agree on who holds what
// for whom. Dead owners for whom no fallback is left are omitted.
func (r *Ring) Walk(dst []Stand, partition int, up func(NodeID) bool) []Stand {
	last, left := candidate{node: -1}, true
	for _, owner := range r.Owners(partition) {
		if up(owner) {
			dst = append(dst, Stand{Node: owner})
			continue
		}
		if left {
			last, left = r.nextFallback(partition, last, up)
		}
		if left {
			dst = append(dst, Stand{Node: r.nodes[last.node].ID, For: owner})
		}
	}
	return dst
}

// nextFallback finds the live fallback that follows another in order, without
// sorting or allocating. Few owners are dead at once, so few scans are made.
func (r *Ring) nextFallback(partition int, after candidate, up func(NodeID) bool) (candidate, bool) {
	best := candidate{node: -1}
	for i := range r.nodes {
		c := candidate{r.cost(partition, i), i}
		if after.node >= 0 && c.compare(after) <= 0 || best.node >= 0 && c.compare(best) >= 0 {
			continue
		}
		if id := r.nodes[i].ID; !r.Owns(id, partition) && up(id) {
			best = c
		}
	}
	return best, best.node >= 0
}

func (r *Ring) cost(partition, i int) uint64 {
	return uint64(draw(partition, r.nodes[i].seed)) * r.nodes[i].price
}

func (c candidate) compare(d candidate) int {
	return cmp.Or(cmp.Compare(c.cost, d.cost), cmp.Compare(c.node, d.node))
}
