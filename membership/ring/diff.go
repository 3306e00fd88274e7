package ring

import (
	"fmt"
	"slices"
)

// Move is what changes for one partition from one ring to another.
type Move struct {
	Partition    int
	Gained, Lost []NodeID // owners only in the new ring, only in the old
}

// Change is the difference between two rings.
type Change struct {
	Moves    []Move // partitions whose set of owners differs, ascending
	Replicas int    // partition copies that must be made
	Heads    int    // partitions whose head differs
	// MinReplicas is the number of copies that any placement which meets the
	// new quotas exactly would have to make, coming from one which met the old.
	MinReplicas int
}

// Diff says what must move when new follows old.
// Requires: both have the same number of units.
func Diff(old, new *Ring) Change {
	if old.Units() != new.Units() {
		panic(fmt.Sprintf("ring: diff of %d and %d units", old.Units(), new.Units()))
	}
	c := Change{MinReplicas: minReplicas(old, new)}
	for u := range new.Units() {
		from, to := old.Owners(u), new.Owners(u)
		if slices.Equal(from, to) {
			continue
		}
		m := Move{Partition: u, Gained: without(to, from), Lost: without(from, to)}
		if len(m.Gained)+len(m.Lost) > 0 {
			c.Moves = append(c.Moves, m)
		}
		c.Replicas += len(m.Gained)
		if len(from) == 0 || len(to) == 0 || from[0] != to[0] {
			c.Heads++
		}
	}
	return c
}

// minReplicas sums what quotas grew by, rounded up to whole partitions.
func minReplicas(old, new *Ring) int {
	had := make(map[NodeID]uint64, len(old.nodes))
	for _, n := range old.nodes {
		had[n.ID] = n.quota
	}
	var grown uint64
	for _, n := range new.nodes {
		if q := had[n.ID]; n.quota > q {
			grown += n.quota - q
		}
	}
	return int((grown + quotaOne - 1) / quotaOne)
}

// without gives the ids of a that are not in b.
func without(a, b []NodeID) []NodeID {
	var only []NodeID
	for _, id := range a {
		if !slices.Contains(b, id) {
			only = append(only, id)
		}
	}
	return only
}
