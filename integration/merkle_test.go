package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/loadgen"
	"github.com/redynamo/redynamo/replica/version"
)

// TestOnePercentOfAMillionKeysMovesLittle lets one of three owners miss the new
// values of one key in a hundred of a million, without hints. The comparison that
// brings them must move little more than the rows that differ, and must not read
// the others.
func TestOnePercentOfAMillionKeysMovesLittle(t *testing.T) {
	const (
		keys       = 1_000_000
		differing  = keys / 100
		valueBytes = 100
		slack      = 2 << 20
	)
	c := startProcesses(t, 3, "--hint-budget", "1")
	var addrs []string
	for _, p := range c.nodes {
		c.awaitReady(p)
		addrs = append(addrs, p.plain)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := loadgen.Fill(ctx, loadgen.Config{Addrs: addrs, Clients: 3, Keys: keys, ValueBytes: valueBytes, Op: "set", Pipeline: 1, Duration: time.Second}); err != nil {
		t.Fatal(err)
	}
	c.awaitEqual()

	victim := c.nodes[2]
	c.kill(victim)
	cl := c.client(0)
	rowBytes := 0
	value := make([]byte, valueBytes)
	for from := 0; from < differing; from += 100 {
		pipe := cl.Pipeline()
		for i := range 100 {
			key := loadgen.Key((from + i) * (keys / differing))
			pipe.Set(ctx, key, value, 0)
			rowBytes += len(key)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
	}
	rowBytes += differing * len(sampleRecord(value))

	before := c.sum(c.nodes[:2], sentByClient) + c.sum(c.nodes[:2], sentByServer)
	listed := c.sum(c.nodes[:2], "antientropy_keys_listed_total")
	movedBefore := c.movedRows(c.nodes[:2]) // while the keys were written
	c.start(victim)
	c.awaitReady(victim)
	back := time.Now()
	await(t, time.Minute, "the node that was away has what it missed", func() error {
		moved := c.movedRows(c.nodes) - movedBefore
		if moved < differing*99/100 { // a few were repaired by hints
			return fmt.Errorf("%.0f rows moved", moved)
		}
		return nil
	})
	c.awaitEqual()
	took := time.Since(back)
	sent := c.sum(c.nodes, sentByClient) + c.sum(c.nodes, sentByServer) - before
	listed = c.sum(c.nodes, "antientropy_keys_listed_total") - listed
	t.Logf("%d rows of %d bytes differed; %.0f bytes were sent in all, %.2f times that and 2 MiB; %.0f key states listed; equal %v after the return",
		differing, rowBytes, sent, (sent-slack)/float64(rowBytes), listed, took.Round(time.Millisecond))
	if sent > 1.2*float64(rowBytes)+slack {
		t.Errorf("%.0f bytes were sent for %d that differed", sent, rowBytes)
	}
	if listed > 10*differing {
		t.Errorf("%.0f states were listed: that is a scan", listed)
	}
	c.close()
}

// What the nodes of a cluster have sent to each other.
const (
	sentByClient = `rpc_sent_bytes_total{side="client"}`
	sentByServer = `rpc_sent_bytes_total{side="server"}`
)

// movedRows is how many rows some nodes have moved by comparing, to others and from them.
func (c *processes) movedRows(nodes []*process) float64 {
	return c.sum(nodes, `antientropy_rows_total{way="pushed"}`) + c.sum(nodes, `antientropy_rows_total{way="pulled"}`)
}

// sampleRecord is a record as the rows of this test have it: one version, known
// to one span each of three incarnations.
func sampleRecord(value []byte) []byte {
	rec := version.Record{
		Context:  version.Context{{Actor: 1 << 60, Lo: 900, Hi: 1000}, {Actor: 2 << 60, Lo: 900, Hi: 1000}},
		Versions: []version.Version{{Dot: version.Dot{Actor: 2 << 60, Counter: 1000}, HLC: 1 << 60, Value: value}},
	}
	return version.EncodeWire(nil, rec)
}

// sum adds up a figure of some nodes.
func (c *processes) sum(nodes []*process, name string) (total float64) {
	for _, p := range nodes {
		total += c.metric(p, name)
	}
	return total
}

// awaitEqual waits until every node has compared all its partitions with all
// other owners and found no difference.
func (c *processes) awaitEqual() {
	c.t.Helper()
	for i := range c.nodes {
		cl := c.client(i)
		await(c.t, 2*time.Minute, fmt.Sprintf("node %d equals the other owners", i), func() error {
			if err := cl.Do(c.t.Context(), "REPAIR").Err(); err != nil {
				return err
			}
			for {
				st, err := cl.Do(c.t.Context(), "REPAIR", "STATUS").Result()
				if err != nil {
					return err
				}
				fields, ok := st.(map[any]any)
				if !ok {
					return fmt.Errorf("REPAIR STATUS: %v", st)
				}
				if fields["state"] == "running" {
					<-time.After(50 * time.Millisecond)
					continue
				}
				if fields["peers_failed"] != "0" || fields["partitions_differing"] != "0" {
					return fmt.Errorf("%v", fields)
				}
				break
			}
			return nil
		})
	}
}
