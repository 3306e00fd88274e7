package ring

import (
	"cmp"
	"slices"
)

// The head of a preference list is what CLUSTER SLOTS shows as the master, so
// clients send it most requests. Any owner coordinates: a head that changes
// moves no data.

// heads is the working state of chooseHeads.
type heads struct {
	*placement
	limit []int   // partitions each node may head
	given [][]int // partitions each node heads, in the order they were given
}

// chooseHeads orders every partition's owners and puts the head first, so that
// no node heads more than its share and slack.
func (pl *placement) chooseHeads() {
	h := heads{
		placement: pl,
		limit:     make([]int, len(pl.weight)),
		given:     make([][]int, len(pl.weight)),
	}
	price := make([]uint64, len(pl.weight))
	for i, q := range pl.headQuota {
		h.limit[i], price[i] = withSlack(q), priceOf(q)
	}
	for _, u := range pl.order {
		draws := pl.draws[u*len(price):]
		cost := func(i int) uint64 { return uint64(draws[i]) * price[i] }
		slices.SortFunc(pl.row(u), func(a, b int) int {
			return cmp.Or(cmp.Compare(cost(a), cost(b)), cmp.Compare(a, b))
		})
		if x := h.firstWithRoom(pl.row(u)); x >= 0 {
			h.give(u, x)
		} else if !h.exchange(u) {
			h.give(u, h.leastLoaded(pl.row(u)))
		}
	}
}

// firstWithRoom is the first node of the row that may head one more, or -1.
func (h *heads) firstWithRoom(row []int) int {
	for _, x := range row {
		if len(h.given[x]) < h.limit[x] {
			return x
		}
	}
	return -1
}

// give makes x the head of partition u.
func (h *heads) give(u, x int) {
	row := h.row(u)
	k := slices.Index(row, x)
	copy(row[1:k+1], row[:k])
	row[0] = x
	h.given[x] = append(h.given[x], u)
}

// exchange finds a head for u when all its owners are full: an owner takes it
// and hands one of its earlier partitions to another owner of that one.
func (h *heads) exchange(u int) bool {
	for _, x := range h.row(u) {
		for k, u2 := range h.given[x] {
			y := h.firstWithRoom(h.row(u2))
			if y < 0 {
				continue
			}
			h.given[x] = slices.Delete(h.given[x], k, k+1)
			h.give(u2, y)
			h.give(u, x)
			return true
		}
	}
	return false
}

// leastLoaded is the node of the row that heads least for its share. It is a
// last resort, never seen to be needed.
func (h *heads) leastLoaded(row []int) int {
	best := row[0]
	for _, x := range row[1:] {
		if uint64(len(h.given[x]))*h.headQuota[best] < uint64(len(h.given[best]))*h.headQuota[x] {
			best = x
		}
	}
	return best
}
