package ring

import (
	"math/big"
	"sort"
)

// The model is the definition of placement written down as plainly as possible:
// exact rationals instead of fixed point, a full sort instead of a running best,
// nothing kept from one step to the next that need not be. It is slow.

type model struct {
	ms    []Member // storage members, sorted by place
	units int
	n     int
	zcap  int
	quota []int64
	price []*big.Int
}

func modelPlace(p Params, ms []Member) (owners [][]NodeID, m *model) {
	m = &model{ms: ms, units: p.Units, n: min(p.N, len(ms))}
	for m.zcap = 1; m.room() < m.n; m.zcap++ {
	}
	m.setQuotas()
	for _, q := range m.quota {
		m.price = append(m.price, modelPrice(q))
	}
	m.tune()
	return m.chooseHeads(m.assign()), m
}

func (m *model) zones() map[string][]int {
	zones := make(map[string][]int)
	for i, member := range m.ms {
		zones[member.Zone] = append(zones[member.Zone], i)
	}
	return zones
}

func (m *model) room() (total int) {
	for _, nodes := range m.zones() {
		total += min(m.zcap, len(nodes))
	}
	return total
}

func rat(v int64) *big.Rat { return new(big.Rat).SetInt64(v) }

func floor(r *big.Rat) int64 {
	return new(big.Int).Quo(r.Num(), r.Denom()).Int64() // shares are not negative
}

// share water-fills total over nodes, exactly.
func (m *model) share(total *big.Rat, nodes []int, limit func(i int) *big.Rat) map[int]*big.Rat {
	out := make(map[int]*big.Rat)
	for {
		rest, weights := new(big.Rat).Set(total), int64(0)
		for _, i := range nodes {
			if out[i] != nil {
				rest.Sub(rest, out[i])
			} else {
				weights += int64(m.ms[i].Weight)
			}
		}
		share := func(i int) *big.Rat { return new(big.Rat).Mul(rest, big.NewRat(int64(m.ms[i].Weight), weights)) }
		var frozen []int
		for _, i := range nodes {
			if out[i] == nil && share(i).Cmp(limit(i)) >= 0 {
				frozen = append(frozen, i)
			}
		}
		if len(frozen) == 0 {
			for _, i := range nodes {
				if out[i] == nil {
					out[i] = share(i)
				}
			}
			return out
		}
		for _, i := range frozen {
			out[i] = limit(i)
		}
	}
}

func (m *model) setQuotas() {
	whole := rat(int64(m.units) << 16)
	nodeLimit := func(int) *big.Rat { return whole }
	zones := m.zones()
	closed := make(map[string]bool)
	zoneLimit := func(z string) *big.Rat {
		return new(big.Rat).Mul(whole, rat(int64(min(m.zcap, len(zones[z])))))
	}
	m.quota = make([]int64, len(m.ms))
	for again := true; again; {
		again = false
		rest := new(big.Rat).Mul(whole, rat(int64(m.n)))
		var open []int
		for z, nodes := range zones {
			if closed[z] {
				rest.Sub(rest, zoneLimit(z))
			} else {
				open = append(open, nodes...)
			}
		}
		shares := m.share(rest, open, nodeLimit)
		for z, nodes := range zones {
			total := new(big.Rat)
			for _, i := range nodes {
				if !closed[z] {
					total.Add(total, shares[i])
					m.quota[i] = floor(shares[i])
				}
			}
			if total.Cmp(zoneLimit(z)) > 0 {
				for i, s := range m.share(zoneLimit(z), nodes, nodeLimit) {
					m.quota[i] = floor(s)
				}
				closed[z], again = true, true
			}
		}
	}
}

func clampBig(v *big.Int, lo, hi int64) *big.Int {
	if l := big.NewInt(lo); v.Cmp(l) < 0 {
		return l
	}
	if h := big.NewInt(hi); v.Cmp(h) > 0 {
		return h
	}
	return v
}

func modelPrice(q int64) *big.Int {
	return clampBig(big.NewInt((1<<46)/max(q, 1)), 1<<8, 1<<31)
}

// ranking is all nodes by rising draw times price.
func (m *model) ranking(u int, price []*big.Int) []int {
	costs := make([]*big.Int, len(m.ms))
	nodes := make([]int, len(m.ms))
	for i := range m.ms {
		nodes[i] = i
		costs[i] = new(big.Int).Mul(big.NewInt(int64(draw(u, seedOf(m.ms[i].PlaceID)))), price[i])
	}
	sort.SliceStable(nodes, func(a, b int) bool { return costs[nodes[a]].Cmp(costs[nodes[b]]) < 0 })
	return nodes
}

func (m *model) zoneOpen(list []int, i int) bool {
	same := 0
	for _, j := range list {
		if m.ms[j].Zone == m.ms[i].Zone {
			same++
		}
	}
	return same < m.zcap
}

func (m *model) pick(u int, ok func(i int) bool) (list []int) {
	for _, i := range m.ranking(u, m.price) {
		if len(list) < m.n && ok(i) && m.zoneOpen(list, i) {
			list = append(list, i)
		}
	}
	return list
}

func (m *model) tune() {
	for k := range 16 {
		load := make([]int64, len(m.ms))
		for u := range m.units {
			for _, i := range m.pick(u, func(int) bool { return true }) {
				load[i]++
			}
		}
		for i, q := range m.quota {
			d := load[i]<<16 - q
			switch {
			case d > q/32:
				d -= q / 32
			case d < -(q / 32):
				d += q / 32
			default:
				continue
			}
			if k >= 8 {
				d /= 2
			}
			aim := clampBig(big.NewInt(q+d), q/4, 4*q)
			next := new(big.Int).Mul(m.price[i], aim)
			m.price[i] = clampBig(next.Quo(next, big.NewInt(q)), 1<<8, 1<<31)
		}
	}
}

func modelLimit(q int64) int {
	v := new(big.Rat).Mul(big.NewRat(q, 65536), big.NewRat(33, 32))
	whole := floor(v)
	if v.Cmp(rat(whole)) > 0 {
		whole++
	}
	return int(whole)
}

func (m *model) order() []int {
	order := make([]int, m.units)
	for u := range order {
		order[u] = u
	}
	sort.SliceStable(order, func(a, b int) bool {
		return mix64(uint64(order[a])+0x5bd1e995) < mix64(uint64(order[b])+0x5bd1e995)
	})
	return order
}

func (m *model) assign() [][]int {
	load := make([]int, len(m.ms))
	owners := make([][]int, m.units)
	for _, u := range m.order() {
		list := m.pick(u, func(i int) bool { return load[i] < min(m.units, modelLimit(m.quota[i])) })
		for _, i := range m.ranking(u, m.price) {
			if len(list) < m.n && !containsInt(list, i) && m.zoneOpen(list, i) {
				list = append(list, i)
			}
		}
		for _, i := range list {
			load[i]++
		}
		owners[u] = list
	}
	return owners
}

func containsInt(list []int, v int) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

func (m *model) chooseHeads(owners [][]int) [][]NodeID {
	all := make([]int, len(m.ms))
	for i := range all {
		all[i] = i
	}
	shares := m.share(rat(int64(m.units)<<16), all, func(i int) *big.Rat { return rat(m.quota[i]) })
	p := make([]int64, len(m.ms))
	price := make([]*big.Int, len(m.ms))
	for i := range p {
		p[i] = floor(shares[i])
		price[i] = modelPrice(p[i])
	}
	head := make([]int, m.units)
	given := make([][]int, len(m.ms))
	room := func(i int) bool { return len(given[i]) < modelLimit(p[i]) }
	rows := make([][]int, m.units)
	toFront := func(u, x int) {
		head[u] = x
		rest := []int{x}
		for _, i := range rows[u] {
			if i != x {
				rest = append(rest, i)
			}
		}
		rows[u] = rest
		given[x] = append(given[x], u)
	}
	headOf := func(u int) {
		for _, x := range rows[u] {
			if room(x) {
				toFront(u, x)
				return
			}
		}
		for _, x := range rows[u] {
			for k, u2 := range given[x] {
				for _, y := range rows[u2] {
					if y != x && room(y) {
						given[x] = append(append([]int{}, given[x][:k]...), given[x][k+1:]...)
						toFront(u2, y)
						toFront(u, x)
						return
					}
				}
			}
		}
		best := rows[u][0]
		for _, x := range rows[u] {
			if big.NewRat(int64(len(given[x])), p[x]).Cmp(big.NewRat(int64(len(given[best])), p[best])) < 0 {
				best = x
			}
		}
		toFront(u, best)
	}
	for _, u := range m.order() {
		for _, i := range m.ranking(u, price) {
			if containsInt(owners[u], i) {
				rows[u] = append(rows[u], i)
			}
		}
		headOf(u)
	}
	out := make([][]NodeID, m.units)
	for u, row := range rows {
		for _, i := range row {
			out[u] = append(out[u], m.ms[i].ID)
		}
	}
	return out
}
