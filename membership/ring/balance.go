package ring

import "slices"

// Load is what one node carries next to what it should carry, in partitions.
type Load struct {
	ID        NodeID
	Zone      string
	Weight    int
	Quota     float64 // fair share by weight, within node and zone limits
	HeadQuota float64
	Owned     int
	Headed    int
}

// Balance describes how evenly a ring spreads its partitions.
type Balance struct {
	Nodes []Load // storage members, sorted by place
	// Replicas and Heads are efficiencies: the least ratio of fair share to
	// load over all nodes, 1 when perfect (for equal nodes and even zones that
	// is mean load over greatest, as in Dynamo §6.2).
	Replicas, Heads float64
	// Zones is the least number of zones any partition's owners are spread
	// over; losing Zones-1 of them leaves every partition a copy.
	Zones int
}

// Balance computes the statistics; it reads the whole ring.
// Note: it uses floating point, which is safe because no decision depends on it.
func (r *Ring) Balance() Balance {
	index := make(map[NodeID]int, len(r.nodes))
	b := Balance{Nodes: make([]Load, len(r.nodes)), Replicas: 1, Heads: 1}
	for i, n := range r.nodes {
		index[n.ID] = i
		b.Nodes[i] = Load{
			ID: n.ID, Zone: n.Zone, Weight: n.Weight,
			Quota:     float64(n.quota) / quotaOne,
			HeadQuota: float64(n.headQuota) / quotaOne,
		}
	}
	b.Zones = r.n
	zones := make([]string, 0, r.n)
	for u := range r.Units() {
		zones = zones[:0]
		for k, id := range r.Owners(u) {
			load := &b.Nodes[index[id]]
			load.Owned++
			if k == 0 {
				load.Headed++
			}
			if !slices.Contains(zones, load.Zone) {
				zones = append(zones, load.Zone)
			}
		}
		b.Zones = min(b.Zones, len(zones))
	}
	for _, n := range b.Nodes {
		b.Replicas = min(b.Replicas, efficiency(n.Quota, n.Owned))
		b.Heads = min(b.Heads, efficiency(n.HeadQuota, n.Headed))
	}
	return b
}

func efficiency(quota float64, load int) float64 {
	if load == 0 {
		return 1
	}
	return quota / float64(load)
}

// Run is a range of slots with the same owners.
type Run struct {
	First, Last Slot
	Owners      []NodeID // the head first; do not modify
}

// Runs gives the fewest ranges that cover all slots in order, which is what
// CLUSTER SLOTS prints. Runs of neighbours differ in their lists.
func (r *Ring) Runs() []Run {
	var runs []Run
	for u := range r.Units() {
		first, last := r.SlotsOf(u)
		owners := r.Owners(u)
		if k := len(runs) - 1; k >= 0 && slices.Equal(runs[k].Owners, owners) {
			runs[k].Last = last
			continue
		}
		runs = append(runs, Run{first, last, owners})
	}
	return runs
}
