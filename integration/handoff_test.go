package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// homeWithin is how long after a node's return its hints may be on the way.
const homeWithin = 20 * time.Second

// TestANodeThatReturnsGetsWhatItMissed kills one of five nodes, writes on, kills
// one that keeps hints, and lets both return: soon the first must hold every key
// itself, and nothing may be kept for it any more.
func TestANodeThatReturnsGetsWhatItMissed(t *testing.T) {
	c := startProcesses(t, 5)
	const keys = 20_000
	victim, holder := c.nodes[2], c.nodes[4]
	name := nodeName(t, c.client(2))
	c.kill(victim)
	c.setMany(keys, []int{0, 1, 3, 4})

	before := c.hints(4, name)
	if before.rows < keys/20 {
		t.Fatalf("node 4 keeps %d hints for the dead node: the load was no load", before.rows)
	}
	c.kill(holder)
	c.start(holder)
	c.awaitReady(holder)
	await(t, 10*time.Second, "the hints outlive their holder", func() error {
		if h := c.hints(4, name); h.rows < before.rows {
			return fmt.Errorf("%d of %d rows", h.rows, before.rows)
		}
		return nil
	})
	c.start(victim)
	c.awaitReady(victim)
	back := time.Now()
	await(t, homeWithin, "nothing is kept for the node that came back", func() error {
		var errs []error
		for i := range c.nodes {
			if h := c.hints(i, name); h.rows > 0 {
				errs = append(errs, fmt.Errorf("node %d keeps %d rows, %s", i, h.rows, h.state))
			}
		}
		return errors.Join(errs...)
	})
	t.Logf("all hints were home %v after the node was ready", time.Since(back))
	c.checkOwners(keys, name)
}

// nodeName is a node's id, as INFO shows it.
func nodeName(t *testing.T, cl *redis.Client) string {
	t.Helper()
	info, err := cl.Info(t.Context(), "redynamo").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "node_id:"); ok {
			return strings.TrimSpace(id)
		}
	}
	t.Fatalf("no node_id in %q", info)
	return ""
}

// setMany writes keys "h:0" and up through some of the nodes, each until it is
// acknowledged.
func (c *processes) setMany(keys int, through []int) {
	c.t.Helper()
	const writers = 16
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for w := range writers {
		cl := c.client(through[w%len(through)])
		wg.Go(func() {
			for i := w; i < keys && ctx.Err() == nil; {
				if err := cl.Set(ctx, fmt.Sprintf("h:%d", i), fmt.Sprintf("v%d", i), 0).Err(); err == nil {
					i += writers
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		c.t.Fatal("the writes are not done in two minutes")
	}
}

// hintRow is what HINTS says of one node.
type hintRow struct {
	rows, failed int64
	state        string
}

// hints asks node i what it keeps for the node of that id.
func (c *processes) hints(i int, id string) (row hintRow) {
	c.t.Helper()
	reply, err := c.client(i).Do(c.t.Context(), "HINTS").Slice()
	if err != nil {
		c.t.Fatalf("HINTS of node %d: %v", i, err)
	}
	for _, entry := range reply {
		fields := entry.(map[any]any)
		if fields["node"] != id {
			continue
		}
		row.state = fields["state"].(string)
		for name, into := range map[string]*int64{"rows": &row.rows, "failed": &row.failed} {
			if _, err := fmt.Sscan(fields[name].(string), into); err != nil {
				c.t.Fatalf("HINTS of node %d: %s: %v", i, name, err)
			}
		}
	}
	return row
}

// checkOwners looks at every copy of the keys: all owners must hold the same,
// among them the node of that id where it is one, and nobody a hint.
func (c *processes) checkOwners(keys int, id string) {
	c.t.Helper()
	ctx, cl := c.t.Context(), c.client(0)
	owned := 0
	const batch = 200
	for from := 0; from < keys; from += batch {
		pipe := cl.Pipeline()
		for i := from; i < min(from+batch, keys); i++ {
			pipe.Do(ctx, "VCTX.INSPECT", fmt.Sprintf("h:%d", i))
		}
		replies, err := pipe.Exec(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		for n, r := range replies {
			copies, err := r.(*redis.Cmd).Slice()
			if err != nil {
				c.t.Fatal(err)
			}
			var states []string
			for _, entry := range copies {
				fields := entry.([]any)
				if fields[1] != "owner" {
					c.t.Fatalf("h:%d is kept as %q: %v", from+n, fields[1], copies)
				}
				states = append(states, fmt.Sprint(fields[2]))
				if fields[0] == id {
					owned++
				}
			}
			if len(states) != 3 || len(slices.Compact(states)) != 1 || states[0] == strings.Repeat("0", 16) {
				c.t.Fatalf("the owners of h:%d do not hold the same: %v", from+n, copies)
			}
		}
	}
	if owned < keys/3 {
		c.t.Errorf("the node that came back owns %d of %d keys: the load was none", owned, keys)
	}
}
