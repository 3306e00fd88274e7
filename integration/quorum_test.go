package integration

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// spread is a number of keys that meets most choices of owners.
const spread = 200

// setAll writes one value to every key through node i, and reads it back
// through each node of from.
func (c *processes) setAll(i int, value string, conn func(*redis.Client) *redis.Conn, from ...int) {
	c.t.Helper()
	ctx := c.t.Context()
	writer := conn(c.client(i))
	var readers []*redis.Conn
	for _, j := range from {
		readers = append(readers, conn(c.client(j)))
	}
	for k := range spread {
		key := fmt.Sprintf("key:%d", k)
		if err := writer.Set(ctx, key, value, 0).Err(); err != nil {
			c.t.Fatalf("SET %s through node %d: %v", key, i, err)
		}
		for r, cl := range readers {
			if got, err := cl.Get(ctx, key).Result(); err != nil || got != value {
				c.t.Fatalf("GET %s through node %d = %q, %v; node %d has acknowledged %q", key, from[r], got, err, i, value)
			}
		}
	}
}

// Any two live nodes of five take and show every key with R=W=2, from the first
// moment on; one does with R=W=1, and with W=2 it acknowledges nothing.
func TestTheLastTwoNodesOfFiveServeEveryKey(t *testing.T) {
	c := startProcesses(t, 5)
	ctx := t.Context()
	plain := func(cl *redis.Client) *redis.Conn { return cl.Conn() }
	c.setAll(0, "all", plain, 1, 2, 3, 4)
	var wg sync.WaitGroup
	for _, i := range []int{1, 2, 4} {
		wg.Go(func() { c.kill(c.nodes[i]) })
	}
	wg.Wait()
	c.setAll(0, "two", plain, 0, 3)
	c.setAll(3, "two again", plain, 0, 3)

	c.kill(c.nodes[3])
	strict, refused := c.client(0), 0
	for k := range spread {
		begin := time.Now()
		err := strict.Set(ctx, fmt.Sprintf("key:%d", k), "one", 0).Err()
		switch {
		case err == nil:
			t.Fatalf("key:%d: acknowledged with one live node and W=2", k)
		case strings.HasPrefix(err.Error(), "NOREPLICAS"):
			refused++
		case !strings.HasPrefix(err.Error(), "UNCERTAIN acked 1/2"):
			t.Errorf("key:%d: %v", k, err)
		}
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("key:%d: refused after %v", k, took)
		}
	}
	if refused < spread-5 {
		t.Errorf("only %d of %d writes were told that nothing was written", refused, spread)
	}
	loose := func(cl *redis.Client) *redis.Conn {
		conn := cl.Conn()
		if err := conn.Process(ctx, redis.NewCmd(ctx, "VCTX.SESSION", "R", "1", "W", "1")); err != nil {
			t.Fatalf("VCTX.SESSION R 1 W 1: %v", err)
		}
		return conn
	}
	c.setAll(0, "one", loose, 0)
}

// lists reports whether CLUSTER SLOTS of node i names p.
func (c *processes) lists(i int, p *process) (bool, error) {
	cl := redis.NewClient(&redis.Options{Addr: c.nodes[i].cluster, MaxRetries: -1, ReadTimeout: time.Second})
	defer cl.Close()
	//lint:ignore SA1019 deprecated, and still what most cluster clients ask
	slots, err := cl.ClusterSlots(c.t.Context()).Result()
	if err != nil {
		return false, err
	}
	for _, s := range slots {
		for _, n := range s.Nodes {
			if n.Addr == p.cluster {
				return true, nil
			}
		}
	}
	return false, nil
}

// awaitLists waits until the maps of all nodes but p itself list p, or do not.
func (c *processes) awaitLists(within time.Duration, p *process, want bool) {
	c.t.Helper()
	for i := range c.nodes {
		if c.nodes[i] == p {
			continue
		}
		await(c.t, within, fmt.Sprintf("the map of node %d lists node %d: %v", i, p.index, want), func() error {
			if got, err := c.lists(i, p); err != nil || got != want {
				return fmt.Errorf("it lists it: %v, %v", got, err)
			}
			return nil
		})
	}
}

// metric reads one figure of a node.
func (c *processes) metric(p *process, name string) float64 {
	c.t.Helper()
	resp, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				c.t.Fatalf("%s: %v", name, err)
			}
			return f
		}
	}
	c.t.Fatalf("node %d has no metric %s", p.index, name)
	return 0
}

// A stopped process takes connections and says nothing, as a machine does that
// is out of breath. It leaves the maps and the way of every request, and is back
// soon after it goes on, without taking the others for dead itself.
func TestAStoppedNodeIsBypassedAndComesBack(t *testing.T) {
	c := startProcesses(t, 5)
	victim := c.nodes[3]
	for i := range c.nodes { // the map is published when a node has met the others
		await(t, 10*time.Second, "all are in all maps", func() error {
			for _, p := range c.nodes {
				if ok, err := c.lists(i, p); !ok || err != nil {
					return fmt.Errorf("node %d misses node %d: %v", i, p.index, err)
				}
			}
			return nil
		})
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	logs := make([]*writerLog, 8)
	for i := range logs {
		wg.Go(func() { logs[i] = c.load(t.Context(), i, victim.index, time.Second, &stop) })
	}
	await(t, 10*time.Second, "the load is on", func() error {
		if n := c.metric(victim, `coordinator_requests_total{op="forwarded"}`); n < 50 {
			return fmt.Errorf("%v writes forwarded to it", n)
		}
		return nil
	})
	suspicions := c.metric(victim, "rpc_suspicions_total")
	c.tell(victim, syscall.SIGSTOP)
	c.awaitLists(bypassTime, victim, false)
	begin := time.Now()
	conn, err := net.Dial("tcp", victim.plain) // it is stopped, not dead
	if err != nil {
		t.Errorf("the stopped node: %v", err)
	} else {
		_ = conn.Close() // only asked whether it opens
	}
	await(t, 10*time.Second, "clients work on", func() error {
		if time.Since(begin) < 4*time.Second {
			return fmt.Errorf("%v have gone by", time.Since(begin))
		}
		return nil
	})
	c.tell(victim, syscall.SIGCONT)
	c.awaitLists(returnTime, victim, true)
	if n := c.metric(victim, "rpc_suspicions_total") - suspicions; n > 0 {
		t.Errorf("the node that was stopped suspected %v others when it went on", n)
	}
	stop.Store(true)
	wg.Wait()
	for id, w := range logs {
		if w.gap > longestGap {
			t.Errorf("client %d had no success for %v", id, w.gap)
		}
		for i := range c.nodes {
			if err := w.verify(t.Context(), c.client(i)); err != nil {
				t.Errorf("client %d through node %d: %v", id, i, err)
			}
		}
	}
}

// tell sends a signal that does not end p.
func (c *processes) tell(p *process, sig syscall.Signal) {
	c.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("signal node %d: %v", p.index, err)
	}
}
