package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
)

// TestAKeyOfManyLargeSiblingsReachesItsOwnersInVirtualTime lets nodes that see
// nobody else write large values of one key. What the owners have of it together is
// larger than what any of them took.
func TestAKeyOfManyLargeSiblingsReachesItsOwnersInVirtualTime(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		const nodes = 6
		c := newTunedSimCluster(t, 1, nodes, func(cfg *node.Config) {
			cfg.R, cfg.W, cfg.MemTableBytes, cfg.ExchangeInterval = 1, 1, 16<<20, time.Second
		})
		defer c.close()
		var alone [][]string
		for _, s := range c.nodes {
			alone = append(alone, []string{s.host})
		}
		c.net.Partition(alone...)
		time.Sleep(10 * time.Second)
		for i := range nodes {
			c.must(i, "SET", "large", strings.Repeat(fmt.Sprint(i), 1<<20))
		}
		c.net.Heal()
		for healed := time.Now(); ; time.Sleep(time.Second) {
			whole := 0
			for i := range nodes {
				reply, err := c.try(i, "VCTX.GET", "large", "R", "3")
				if err != nil {
					continue // it has not found the others yet
				}
				if got := reply.([]any)[1].([]any); len(got) == nodes {
					whole++
				}
			}
			rows, _, err := c.hintRows()
			if whole == nodes && rows == 0 && err == nil {
				break
			}
			if time.Since(healed) > 5*time.Minute {
				t.Fatalf("%d nodes show all %d values, %d hints are kept: %v", whole, nodes, rows, err)
			}
		}
		cl, err := c.dial(0)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.conn.Close()
		c.checkEqual(cl, "large")
	})
}
