package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// This file is the form in which hours of cluster life are run: storms with calm
// between them, and a load that is sparse enough for an hour to be cheap and dense
// enough for it to mean something. A run of the tests has a short one; the long ones
// are those of integration/soak.
//
//	REDYNAMO_SIM_MINUTES=60  of virtual time that storms last

const (
	stormMinutes = 5
	stormOps     = 5000 // of clients, in a virtual hour, at least
	stormFaults  = 60   // in a virtual hour, at least
)

func TestStormsLoseNothingInVirtualTime(t *testing.T) {
	t.Parallel()
	first, seeds := simSeeds(t, 2)
	minutes := envInt(t, "REDYNAMO_SIM_MINUTES", stormMinutes)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			fmt.Fprintf(os.Stderr, "storms: seed %d\n", seed) // a panic of a node would not say it
			begin := time.Now()
			var took time.Duration
			var counts map[string]int
			bubble.Test(t, func(t *testing.T) {
				start := time.Now()
				counts = drops(t, uint64(seed), weather{
					length: time.Duration(minutes) * time.Minute, gap: 12 * time.Second, epoch: time.Minute, looks: 30, shared: 2,
					storm: 16, calm: 75 * time.Second, pace: pace{keys: 6, pause: 3 * time.Second, looks: 300},
				})
				took = time.Since(start)
			})
			t.Logf("seed %d: %v of virtual time took %v: %v", seed, took, time.Since(begin), counts)
			r := logTally(t, uint64(seed), took, counts)
			if hours := r.VirtualS / 3600; minutes >= 20 && (float64(r.Ops) < stormOps*hours || float64(r.Faults) < stormFaults*hours) {
				t.Errorf("seed %d: %d operations and %d faults in %.2f h: this tests little", seed, r.Ops, r.Faults, hours)
			}
		})
	}
}
