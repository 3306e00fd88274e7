package ring

// Quotas are the load each node should carry: in proportion to weight, as far
// as the rules let it. A node holds a partition at most once and a zone at most
// zoneCap times, so a heavy node or zone gives its excess to the others.
// Quotas are counted in 1/quotaOne of a partition.

const (
	quotaBits = 16
	quotaOne  = 1 << quotaBits
)

// fill shares total among the given nodes by weight, none above its limit, and
// writes q. Nodes whose share reaches their limit are frozen there and the rest
// is shared again among the others. Shares are rounded down.
func fill(total uint64, nodes []int, weight, limit, q []uint64) {
	open := append([]int(nil), nodes...)
	for len(open) > 0 {
		var weights uint64
		for _, i := range open {
			weights += weight[i]
		}
		rest, kept := total, open[:0]
		for _, i := range open {
			// Exactly rest*weight/weights >= limit. No product here passes
			// 2^35 * 1000 or 2^30 * 1000 * nodes.
			if rest*weight[i] >= limit[i]*weights {
				q[i] = limit[i]
				total -= min(total, limit[i])
				continue
			}
			q[i] = mulDiv(rest, weight[i], weights)
			kept = append(kept, i)
		}
		if len(kept) == len(open) {
			return
		}
		open = kept
	}
}

// fillZones is fill with a limit for each zone as well: a zone above its limit
// is filled again on its own, and what it gives up is shared among the others.
func fillZones(total uint64, zones [][]int, weight, limit, zoneLimit, q []uint64) {
	closed := make([]bool, len(zones))
	for {
		var open []int
		rest := total
		for z, nodes := range zones {
			if closed[z] {
				rest -= zoneLimit[z]
			} else {
				open = append(open, nodes...)
			}
		}
		fill(rest, open, weight, limit, q)
		again := false
		for z, nodes := range zones {
			if closed[z] || sum(q, nodes) <= zoneLimit[z] {
				continue
			}
			fill(zoneLimit[z], nodes, weight, limit, q)
			closed[z], again = true, true
		}
		if !again {
			return
		}
	}
}

func sum(q []uint64, nodes []int) (total uint64) {
	for _, i := range nodes {
		total += q[i]
	}
	return total
}

// withSlack is how many whole partitions a node with quota q may hold: q plus
// 1/32, rounded up.
func withSlack(q uint64) int {
	return int((q*(slackParts+1) + slackParts*quotaOne - 1) / (slackParts * quotaOne))
}
