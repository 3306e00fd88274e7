package ring

import (
	"cmp"
	"slices"
)

// Constants of the placement. They are part of the epoch: changing one moves
// data, so it needs a new algorithm number and a migration.
const (
	algorithm  = 1
	slackParts = 32 // a node may hold 1/32 more than its quota
	rounds     = 16 // price corrections before the final placement

	minPrice = 1 << 8
	maxPrice = 1 << 31
)

// placement is the working state of one computation of a ring. Nodes are
// indexes into the storage members sorted by place; that order breaks ties.
type placement struct {
	units int
	n     int // owners of each partition: min(N, nodes)
	zcap  int // owners of one partition that may share a zone

	zone   []int    // of each node
	zones  [][]int  // nodes of each zone
	weight []uint64 // of each node
	draws  []uint32 // units rows of one draw for each node

	quota     []uint64 // partitions to own, in 1/quotaOne
	headQuota []uint64 // partitions to head, in 1/quotaOne
	price     []uint64

	load   []int // partitions owned so far
	order  []int // partitions in the order they are given out
	owners []int // units rows of n nodes, the head first
	list   []candidate
}

// candidate is a node that may own the partition at hand.
type candidate struct {
	cost uint64
	node int
}

// place gives every partition its owners. ms are the storage members, sorted by
// place, no two with the same one.
func place(p Params, ms []Member) *placement {
	pl := newPlacement(p, ms)
	if pl.n == 0 {
		return pl
	}
	pl.setQuotas()
	pl.tunePrices()
	pl.assign()
	pl.chooseHeads()
	return pl
}

func newPlacement(p Params, ms []Member) *placement {
	count := len(ms)
	pl := &placement{
		units:     p.Units,
		n:         min(p.N, count),
		zone:      make([]int, count),
		weight:    make([]uint64, count),
		draws:     make([]uint32, p.Units*count),
		quota:     make([]uint64, count),
		headQuota: make([]uint64, count),
		price:     make([]uint64, count),
		load:      make([]int, count),
	}
	names := make(map[string]int)
	seeds := make([]uint64, count)
	for i, m := range ms {
		z, ok := names[m.Zone]
		if !ok {
			z = len(pl.zones)
			names[m.Zone] = z
			pl.zones = append(pl.zones, nil)
		}
		pl.zone[i] = z
		pl.zones[z] = append(pl.zones[z], i)
		pl.weight[i] = uint64(m.Weight)
		seeds[i] = seedOf(m.PlaceID)
	}
	for u := range p.Units {
		for i, seed := range seeds {
			pl.draws[u*count+i] = draw(u, seed)
		}
	}
	pl.zcap = zoneCap(pl.zones, pl.n)
	pl.order = partitionOrder(p.Units)
	pl.owners = make([]int, 0, p.Units*pl.n)
	pl.list = make([]candidate, 0, pl.n)
	return pl
}

// zoneCap is the least number of owners per zone with which n nodes can be
// found: 1 when there are at least n zones.
func zoneCap(zones [][]int, n int) int {
	for c := 1; c < n; c++ {
		room := 0
		for _, nodes := range zones {
			room += min(c, len(nodes))
		}
		if room >= n {
			return c
		}
	}
	return n
}

// partitionOrder is a fixed shuffle, so that the partitions given out last, when
// nodes are nearly full, are spread over the slots.
func partitionOrder(units int) []int {
	order := make([]int, units)
	for u := range order {
		order[u] = u
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(orderKey(a), orderKey(b)), cmp.Compare(a, b))
	})
	return order
}

func orderKey(partition int) uint64 { return mix64(uint64(partition) + 0x5bd1e995) }

func (pl *placement) setQuotas() {
	whole := uint64(pl.units) * quotaOne
	limit := make([]uint64, len(pl.weight))
	all := make([]int, len(pl.weight))
	for i := range limit {
		limit[i], all[i] = whole, i
	}
	zoneLimit := make([]uint64, len(pl.zones))
	for z, nodes := range pl.zones {
		zoneLimit[z] = uint64(min(pl.zcap, len(nodes))) * whole
	}
	fillZones(uint64(pl.n)*whole, pl.zones, pl.weight, limit, zoneLimit, pl.quota)
	fill(whole, all, pl.weight, pl.quota, pl.headQuota)
	for i, q := range pl.quota {
		pl.price[i] = priceOf(q)
	}
}

// priceOf is the price before correction: inverse to the quota.
func priceOf(q uint64) uint64 {
	return min(max((1<<46)/max(q, 1), minPrice), maxPrice)
}

// tunePrices corrects the prices until no node is off its quota by more than
// the slack. Choosing n nodes without repeats favours the light ones over
// their weight; the prices undo that, and the caps of assign then seldom bind.
func (pl *placement) tunePrices() {
	for round := range rounds {
		clear(pl.load)
		for u := range pl.units {
			for _, c := range pl.pick(u, nil) {
				pl.load[c.node]++
			}
		}
		if !pl.correctPrices(round) {
			return // a fixed point: further rounds would change nothing
		}
	}
}

// correctPrices raises the price of nodes with too much load and lowers it for
// those with too little; it reports whether any changed.
func (pl *placement) correctPrices(round int) bool {
	changed := false
	for i, quota := range pl.quota {
		q := int64(max(quota, 1))
		off, slack := int64(pl.load[i])*quotaOne-q, q/slackParts
		switch {
		case off > slack:
			off -= slack
		case off < -slack:
			off += slack
		default:
			continue
		}
		if round >= rounds/2 {
			off /= 2 // calm oscillation
		}
		aim := min(max(q+off, q/4), 4*q)
		price := mulDiv(pl.price[i], uint64(aim), uint64(q))
		price = min(max(price, minPrice), maxPrice)
		changed = changed || price != pl.price[i]
		pl.price[i] = price
	}
	return changed
}

// pick gives the n cheapest nodes for partition u by rising cost, passing over
// those whose zone has zcap cheaper ones and, if limit is given, those whose
// load has reached it. The result is valid until the next call.
func (pl *placement) pick(u int, limit []int) []candidate {
	count := len(pl.weight)
	list := pl.list[:0]
	for i, d := range pl.draws[u*count : (u+1)*count] {
		if limit != nil && pl.load[i] >= limit[i] {
			continue
		}
		cost := uint64(d) * pl.price[i]
		if len(list) == pl.n && cost >= list[pl.n-1].cost {
			continue
		}
		list = pl.insert(list, candidate{cost, i})
	}
	return list
}

// insert keeps the invariant of pick for one more node. When the node's zone is
// full it can only push out the dearest of that zone, otherwise the dearest of
// all. Requires: nodes come by rising index, so that a tie goes to the one in
// the list.
func (pl *placement) insert(list []candidate, c candidate) []candidate {
	at, same, worst := len(list), 0, 0
	for k, have := range list {
		if have.cost > c.cost && at == len(list) {
			at = k
		}
		if pl.zone[have.node] == pl.zone[c.node] {
			same++
			worst = k
		}
	}
	switch {
	case same == pl.zcap && worst < at:
		return list
	case same == pl.zcap:
		list = slices.Delete(list, worst, worst+1)
	case len(list) == pl.n:
		list = list[:pl.n-1]
	}
	return slices.Insert(list, at, c)
}

// assign gives out the partitions under the final prices, no node above its
// quota and slack.
func (pl *placement) assign() {
	limit := make([]int, len(pl.quota))
	for i, q := range pl.quota {
		limit[i] = min(pl.units, withSlack(q))
	}
	clear(pl.load)
	pl.owners = pl.owners[:pl.units*pl.n]
	for _, u := range pl.order {
		row := pl.row(u)
		for k, c := range pl.complete(u, pl.pick(u, limit)) {
			row[k] = c.node
			pl.load[c.node]++
		}
	}
}

// complete adds nodes to a list that the load limits left short. The limit is
// soft: it gives way, and is seen to, only with few nodes of skewed weights.
func (pl *placement) complete(u int, list []candidate) []candidate {
	count := len(pl.weight)
	for len(list) < pl.n {
		best := candidate{node: -1}
		for i, d := range pl.draws[u*count : (u+1)*count] {
			cost := uint64(d) * pl.price[i]
			if (best.node < 0 || cost < best.cost) && pl.hasRoom(list, i) {
				best = candidate{cost, i}
			}
		}
		list = append(list, best)
	}
	return list
}

// hasRoom reports whether node i may join the list: not in it, zone not full.
func (pl *placement) hasRoom(list []candidate, i int) bool {
	same := 0
	for _, c := range list {
		if c.node == i {
			return false
		}
		if pl.zone[c.node] == pl.zone[i] {
			same++
		}
	}
	return same < pl.zcap
}

// row is the owners of partition u.
func (pl *placement) row(u int) []int { return pl.owners[u*pl.n : (u+1)*pl.n] }
