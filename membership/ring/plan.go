package ring

import (
	"cmp"
	"slices"
)

// Plan says what a change of the members would come to, before anything moves.
type Plan struct {
	From, To *Ring
	Change
	Bytes int64 // to be sent
	Nodes []Shift
	// Before and After are the number of zones that the owners of every partition
	// are spread over, at least: one less may be lost without losing a key.
	ZonesBefore, ZonesAfter int
	BalanceBefore           float64 // least ratio of fair share to load, 1 when even
	BalanceAfter            float64
}

// Shift is what a plan changes for one node, in partitions and bytes.
type Shift struct {
	ID            NodeID
	Zone          string
	Before, After int // partitions owned
	Gained, Lost  int
	BytesIn       int64
	Crowded       bool // it is to hold more than twice its share by weight
}

// NewPlan compares two rings. bytesOf is the size of one copy of a partition, as
// far as it is known.
func NewPlan(from, to *Ring, bytesOf func(partition int) int64) Plan {
	before, after := from.Balance(), to.Balance()
	p := Plan{
		From: from, To: to, Change: Diff(from, to),
		ZonesBefore: before.Zones, ZonesAfter: after.Zones,
		BalanceBefore: before.Replicas, BalanceAfter: after.Replicas,
	}
	shifts := map[NodeID]*Shift{}
	for _, l := range before.Nodes {
		shifts[l.ID] = &Shift{ID: l.ID, Zone: l.Zone, Before: l.Owned}
	}
	fair := fairShares(after, to.Units()*to.N())
	for _, l := range after.Nodes {
		s := shifts[l.ID]
		if s == nil {
			s = &Shift{ID: l.ID}
			shifts[l.ID] = s
		}
		s.Zone, s.After, s.Crowded = l.Zone, l.Owned, float64(l.Owned) > 2*fair(l.Weight)
	}
	for _, m := range p.Moves {
		for _, id := range m.Gained {
			shifts[id].Gained++
			shifts[id].BytesIn += bytesOf(m.Partition)
			p.Bytes += bytesOf(m.Partition)
		}
		for _, id := range m.Lost {
			shifts[id].Lost++
		}
	}
	for _, s := range shifts {
		p.Nodes = append(p.Nodes, *s)
	}
	slices.SortFunc(p.Nodes, func(a, b Shift) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.ID, b.ID))
	})
	return p
}

// fairShares returns what a node of a weight would own if zones were no matter.
func fairShares(b Balance, copies int) func(weight int) float64 {
	weights := 0
	for _, l := range b.Nodes {
		weights += l.Weight
	}
	return func(weight int) float64 { return float64(copies) * float64(weight) / float64(max(weights, 1)) }
}
