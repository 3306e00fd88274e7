package ring

import (
	"fmt"
	"testing"
)

// BenchmarkBalance prints, for clusters of growing size, what placement costs,
// how even it is and what one join and one leave move next to the minimum.
func BenchmarkBalance(b *testing.B) {
	for _, units := range []int{1024, 4096, 16384} {
		for _, zones := range []int{1, 3} {
			for _, size := range []int{3, 5, 8, 16, 30, 100} {
				b.Run(fmt.Sprintf("U=%d/zones=%d/S=%d", units, zones, size), func(b *testing.B) {
					p := Params{Units: units}
					for b.Loop() {
						mustRing(b, p, cluster(0, size, zones))
					}
					r := mustRing(b, p, cluster(0, size, zones))
					joined := mustRing(b, p, cluster(0, size+1, zones))
					balance, join, leave := r.Balance(), Diff(r, joined), Diff(joined, r)
					b.ReportMetric(balance.Replicas, "replicas-eff")
					b.ReportMetric(balance.Heads, "heads-eff")
					b.ReportMetric(float64(join.Replicas)/float64(max(join.MinReplicas, 1)), "join/min")
					b.ReportMetric(float64(leave.Replicas)/float64(max(leave.MinReplicas, 1)), "leave/min")
					b.ReportMetric(float64(len(r.Runs())), "runs")
				})
			}
		}
	}
}

func BenchmarkSlotOf(b *testing.B) {
	key := []byte("{user1000}.following")
	for b.Loop() {
		SlotOf(key)
	}
}

func BenchmarkKeyHash(b *testing.B) {
	key := []byte("{user1000}.following")
	for b.Loop() {
		KeyHash(key)
	}
}

func BenchmarkWalk(b *testing.B) {
	r := mustRing(b, Params{}, cluster(0, 30, 3))
	dead := r.Owners(0)[0]
	dst := make([]Stand, 0, 3)
	for name, up := range map[string]func(NodeID) bool{
		"all up":   func(NodeID) bool { return true },
		"one dead": func(id NodeID) bool { return id != dead },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				dst = r.Walk(dst[:0], 0, up)
			}
		})
	}
}
