package integration

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
)

// rotDisk turns bits in so many places of the tables of a disk.
func rotDisk(t *testing.T, disk *vfs.MemFS, rng *rand.Rand, places int) {
	t.Helper()
	if turned, err := rotFiles(disk, ".sst", false, rng, places); err != nil || turned != places {
		t.Fatalf("bits turned in %d places, %v; want %d", turned, err, places)
	}
}

// damage is section damage of a node's INFO.
func (c *simCluster) damage(i int) map[string]string {
	c.t.Helper()
	fields, err := c.tryDamage(i)
	if err != nil {
		c.t.Fatal(err)
	}
	return fields
}

func (c *simCluster) tryDamage(i int) (map[string]string, error) {
	text, err := c.try(i, "INFO", "damage")
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(fmt.Sprint(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}

// rotHealed is the time within which all holes are filled.
const rotHealed = 5 * time.Minute

func TestRotOfARunningNodeIsRepairedInVirtualTime(t *testing.T) {
	t.Parallel()
	const keys = 400
	value := strings.Repeat("v", 600)
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		c.fill(keys, value)
		c.nodes[0].with = func(cfg *node.Config) { cfg.BlockCache, cfg.RecordCache = 1<<10, 1<<10 }
		for range 2 { // then all rows are in tables, and none is cached
			c.crash(0)
			c.restart(0)
		}
		rng := rand.New(rand.NewPCG(c.seed, 7))
		for range 10 {
			rotDisk(t, c.nodes[0].disk, rng, 10)
			c.holds(0, keys, value)
			c.holds(1, keys, value)
			time.Sleep(60 * time.Second)
		}
		c.holds(0, keys, value)
		// Filling one hole may meet the next place of damage.
		d, healed := c.damage(0), time.Now()
		for d["holes"] != "0" && time.Since(healed) < rotHealed {
			time.Sleep(time.Second)
			d = c.damage(0)
		}
		t.Logf("whole %v after the last look: %v", time.Since(healed), d)
		if d["ranges_lost"] == "0" || d["holes"] != "0" || d["holes_filled"] == "0" {
			t.Errorf("seed %d: damage: %v", c.seed, d)
		}
		cl, err := c.dial(0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cl.conn.Close() }() // it was for reading
		for k := range keys {
			c.checkEqual(cl, fmt.Sprintf("k%d", k))
		}
	})
}
