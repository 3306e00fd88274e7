package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/integration/simdisk"
	"github.com/redynamo/redynamo/integration/simnet"
)

// This file runs whole nodes, production code, in one process and in virtual
// time: an hour of cluster life takes seconds. Network and disks are in
// memory; a crash takes from a disk what was not synced. Run with
// REDYNAMO_SIM_LOG=debug to see what the nodes say. Such tests run beside each other,
// when all others are over: how fast a bubble is run changes nothing in it.

// simNode is one node with its host and disk.
type simNode struct {
	host  string
	disk  *vfs.MemFS
	wait  atomic.Int64 // what a sync of the disk takes beyond its usual time
	over  *atomic.Bool // this life is not up: it is being opened or closed
	bad   *atomic.Bool // a sync of this life fails
	node  *node.Node
	boot  int
	clock simClock
	with  func(*node.Config) // changes the configuration of its next starts
}

// simCluster is a cluster in virtual time. It lives inside one synctest bubble.
type simCluster struct {
	t     *testing.T
	seed  uint64
	net   *simnet.Network
	nodes []*simNode
	disks sync.Mutex // held to exchange a disk
	tune  func(*node.Config)
	burns bool // some disk is lost in this run
	rots  int  // the node whose disk may be damaged, -1 for none
}

func newSimCluster(t *testing.T, seed uint64, nodes int) *simCluster {
	return newTunedSimCluster(t, seed, nodes, func(*node.Config) {})
}

// newTunedSimCluster lets tune change the configuration of every node.
func newTunedSimCluster(t *testing.T, seed uint64, nodes int, tune func(*node.Config)) *simCluster {
	c := &simCluster{t: t, seed: seed, tune: tune, rots: -1, net: simnet.New(simnet.Config{Seed: seed, Jitter: time.Millisecond})}
	t.Cleanup(func() { t.Log(c.net.Trace()) })
	for i := range nodes {
		c.nodes = append(c.nodes, &simNode{host: fmt.Sprintf("10.0.0.%d", i+1), disk: vfs.NewCrashableMem()})
	}
	for i := range c.nodes {
		c.start(i)
	}
	for i := range c.nodes {
		c.awaitReady(i)
	}
	c.awaitRest()
	return c
}

// awaitRest waits until no node knows of a ring beside the one that it reads by.
func (c *simCluster) awaitRest() {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		stable := 0
		for i := range c.nodes {
			if fieldsOf(c.must(i, "RING", "STATUS"))["state"] == "stable" {
				stable++
			}
		}
		if stable == len(c.nodes) {
			return
		}
		if time.Since(began) > time.Minute {
			c.t.Fatalf("seed %d: the ring is at rest at %d of %d nodes", c.seed, stable, len(c.nodes))
		}
	}
}

func (c *simCluster) start(i int) {
	c.t.Helper()
	if err := c.boot(i); err != nil {
		c.t.Fatalf("seed %d: node %d: %v", c.seed, i, err)
	}
}

// boot starts node i on what its disk holds.
func (c *simCluster) boot(i int) error {
	s := c.nodes[i]
	c.net.Start(s.host)
	transport, err := c.net.Transport(s.host, 7946)
	if err != nil {
		return err
	}
	s.over, s.bad = new(atomic.Bool), new(atomic.Bool)
	if s.boot == 0 {
		s.clock.since = time.Now()
	}
	rng := rand.New(rand.NewPCG(c.seed, uint64(100*s.boot+i)))
	var mu sync.Mutex
	cfg := node.Config{
		DataDir: "/data", FS: slowDisk{simdisk.Disk{MemFS: s.disk}, &s.wait, s.over, s.bad}, Network: c.net.Host(s.host), GossipTransport: transport,
		Advertise: s.host, AdminListen: "-", Expect: len(c.nodes), Zone: fmt.Sprintf("z%d", i%3),
		MemTableBytes: 256 << 10, BlockCache: 1 << 20, RecordCache: 1 << 20, Now: s.clock.now,
		Rand: func() uint64 {
			mu.Lock()
			defer mu.Unlock()
			return rng.Uint64()
		},
	}
	if i > 0 {
		cfg.Join = []string{c.nodes[0].host + ":7946"}
	}
	if level := os.Getenv("REDYNAMO_SIM_LOG"); level != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return err
		}
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})).With("node", i)
	}
	c.tune(&cfg)
	if s.with != nil {
		s.with(&cfg)
	}
	s.boot++
	s.over.Store(true)
	if s.node, err = node.Start(c.t.Context(), cfg); err != nil {
		return errors.Join(err, transport.Shutdown())
	}
	s.over.Store(false)
	return nil
}

func (c *simCluster) awaitReady(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	if err := c.nodes[i].node.AwaitReady(ctx); err != nil {
		c.t.Fatalf("seed %d: node %d: %v", c.seed, i, err)
	}
}

// crash cuts node i off as a power failure does: the network is gone, and the
// disk keeps what was synced.
func (c *simCluster) crash(i int) {
	s := c.nodes[i]
	c.net.Crash(s.host)
	rest := s.disk.CrashClone(vfs.CrashCloneCfg{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.over.Store(true)
	_ = s.node.Close(ctx) // behind the cut; whatever it still does is lost
	s.disk = rest
}

// close stops all nodes; goroutines left behind fail the bubble.
func (c *simCluster) close() {
	var wg sync.WaitGroup
	for i, s := range c.nodes {
		if s.node == nil {
			continue // down
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s.over.Store(true)
			if err := s.node.Close(ctx); err != nil {
				c.t.Errorf("seed %d: close node %d: %v", c.seed, i, err)
			}
		})
	}
	wg.Wait()
	// memberlist's probes sit out their timeouts after a shutdown.
	time.Sleep(time.Minute)
}

// simClient speaks just enough RESP to use a door.
type simClient struct {
	conn     net.Conn
	br       *bufio.Reader
	patience time.Duration // how long it waits for a reply
}

func (c *simCluster) dial(i int) (*simClient, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := c.net.Dial(ctx, "10.0.1.1", c.nodes[i].host+":6379")
	if err != nil {
		return nil, err
	}
	return &simClient{conn: conn, br: bufio.NewReader(conn), patience: 10 * time.Second}, nil
}

// do sends one command and returns its reply: nil, string, int64, []any, or an
// error for an error reply.
func (cl *simClient) do(words ...string) (any, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if err := cl.conn.SetDeadline(time.Now().Add(cl.patience)); err != nil {
		return nil, err
	}
	if _, err := cl.conn.Write([]byte(b.String())); err != nil {
		return nil, err
	}
	return cl.reply()
}

// replyError is an error that a node answered.
type replyError string

func (e replyError) Error() string { return string(e) }

func (cl *simClient) reply() (any, error) {
	line, err := cl.br.ReadString('\n')
	if err != nil {
		return nil, err
	}
	body := strings.TrimRight(line[1:], "\r\n")
	n, _ := strconv.Atoi(body) // only meaningful for the kinds that carry a number
	switch line[0] {
	case '+':
		return body, nil
	case '-':
		return nil, replyError(body)
	case ':':
		return int64(n), nil
	case '$':
		if n < 0 {
			return nil, nil
		}
		buf := make([]byte, n+2)
		for at := 0; at < len(buf); {
			m, err := cl.br.Read(buf[at:])
			if err != nil {
				return nil, err
			}
			at += m
		}
		return string(buf[:n]), nil
	case '*':
		var list []any
		for range n {
			v, err := cl.reply()
			if err != nil {
				v = err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return nil, fmt.Errorf("unexpected reply %q", line)
}

// simWriter writes keys of its own, one after the other, through one node and
// after a failure through the next, until the given instant.
func (c *simCluster) writer(id int, until time.Time) *writerLog {
	w := &writerLog{acked: map[string]string{}, unknown: map[string][]string{}}
	rng := rand.New(rand.NewPCG(c.seed, uint64(1000+id)))
	at := id % len(c.nodes)
	var cl *simClient
	for n := 0; time.Now().Before(until); n++ {
		time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
		key := fmt.Sprintf("w%d:%d", id, rng.IntN(100))
		value := fmt.Sprintf("%d-%d", id, n)
		var err error
		if cl == nil {
			cl, err = c.dial(at)
		}
		if err == nil {
			_, err = cl.do("SET", key, value)
		}
		if err != nil {
			w.unknown[key] = append(w.unknown[key], value)
			if cl != nil {
				_ = cl.conn.Close() // broken or in doubt
			}
			cl, at = nil, (at+1)%len(c.nodes)
			continue
		}
		w.acked[key], w.unknown[key] = value, nil
	}
	if cl != nil {
		_ = cl.conn.Close() // the load is over
	}
	return w
}

// settle reads every key from all its owners, which repairs the stale ones,
// and then checks that all owners hold the same.
func (c *simCluster) settle(logs []*writerLog) {
	cl, err := c.dial(0)
	if err != nil {
		c.t.Fatalf("seed %d: %v", c.seed, err)
	}
	defer cl.conn.Close()
	for _, w := range logs {
		for _, key := range slices.Sorted(mapKeys(w.acked)) {
			got, err := cl.do("VCTX.GET", key, "R", "3")
			if err != nil {
				c.t.Fatalf("seed %d: VCTX.GET %s: %v", c.seed, key, err)
			}
			values := got.([]any)[1].([]any)
			found := slices.ContainsFunc(values, func(v any) bool {
				return v == w.acked[key] || slices.Contains(w.unknown[key], v.(string))
			})
			if !found {
				c.t.Errorf("seed %d: %s holds %q, acknowledged %q (unknown fate: %q)", c.seed, key, values, w.acked[key], w.unknown[key])
			}
		}
	}
	time.Sleep(5 * time.Second) // repairs run behind the answers
	for _, w := range logs {
		for key := range w.acked {
			c.checkEqual(cl, key)
		}
	}
}

// checkEqual compares the state of one key on all its owners.
func (c *simCluster) checkEqual(cl *simClient, key string) {
	reply, err := cl.do("VCTX.INSPECT", key)
	if err != nil {
		c.t.Errorf("seed %d: VCTX.INSPECT %s: %v", c.seed, key, err)
		return
	}
	states := map[string]int{}
	for _, entry := range reply.([]any) {
		fields := entry.([]any)
		if role := fields[1]; role == "owner" {
			states[fmt.Sprint(fields[2])]++
		}
	}
	if len(states) != 1 {
		c.t.Errorf("seed %d: owners of %s differ: %v", c.seed, key, reply)
	}
	for _, n := range states {
		if n != 3 {
			c.t.Errorf("seed %d: %d owners of %s answered, want 3: %v", c.seed, n, key, reply)
		}
	}
}

// TestANodeThatReturnsGetsWhatItMissedInVirtualTime lets one of five nodes lose
// its power, and then one that keeps hints for it, while clients write. Nobody
// reads: what the owners hold in the end came by writes and hints.
func TestANodeThatReturnsGetsWhatItMissedInVirtualTime(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 7, 5)
		defer c.close()
		time.Sleep(10 * time.Second)
		c.crash(2)
		start := time.Now()
		logs := make([]*writerLog, 8)
		var wg sync.WaitGroup
		for i := range logs {
			wg.Go(func() { logs[i] = c.writer(i, start.Add(5*time.Minute)) })
		}
		time.Sleep(2 * time.Minute)
		c.crash(4)
		time.Sleep(time.Minute)
		c.start(4)
		wg.Wait()
		c.awaitReady(4)
		c.nodes[2].node = nil // it is down, and so keeps nothing
		before, _, err := c.hintRows()
		if err != nil || before < 100 {
			t.Fatalf("%d hints are kept, %v: the load was no load", before, err)
		}
		c.start(2)
		c.awaitReady(2)
		for back := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			rows, delivered, err := c.hintRows()
			if err == nil && rows == 0 {
				t.Logf("%d hints were home after %v", delivered, time.Since(back))
				break
			}
			if time.Since(back) > homeWithin {
				t.Fatalf("%d of %d hints are not home after %v: %v", rows, before, homeWithin, err)
			}
		}
		cl, err := c.dial(0)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.conn.Close()
		for _, w := range logs {
			for key := range w.acked {
				c.checkEqual(cl, key)
			}
		}
	})
}

// TestHintsStayWithinTheirBudgetInVirtualTime lets a node be away for longer than
// the others may keep everything for it. No write may fail for it, no book may
// grow far past its budget, and what was not kept is repaired by reads.
func TestHintsStayWithinTheirBudgetInVirtualTime(t *testing.T) {
	t.Parallel()
	const budget = 8 << 10
	bubble.Test(t, func(t *testing.T) {
		c := newTunedSimCluster(t, 8, 5, func(cfg *node.Config) { cfg.HintBudget = budget })
		defer c.close()
		time.Sleep(10 * time.Second)
		c.crash(2)
		c.nodes[2].node = nil   // it is down, and so keeps nothing
		time.Sleep(time.Minute) // until everybody has noticed
		start := time.Now()
		logs := make([]*writerLog, 8)
		var wg sync.WaitGroup
		for i := range logs {
			i, at := i, []int{0, 1, 3, 4}[i%4]
			wg.Go(func() { logs[i] = c.writeThrough(i, at, start.Add(10*time.Minute)) })
		}
		wg.Wait()
		kept, over := c.hintBytes(0, 1, 3, 4)
		if kept == 0 || over == 0 {
			t.Fatalf("at most %d bytes are kept, %d nodes are over budget: the load was no load", kept, over)
		}
		if kept > budget+budget/10 {
			t.Errorf("%d bytes are kept for one node, the budget is %d", kept, budget)
		}
		c.start(2)
		c.awaitReady(2)
		for back := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			rows, _, err := c.hintRows()
			if _, over := c.hintBytes(0, 1, 3, 4); err == nil && rows == 0 && over == 0 {
				break
			}
			if time.Since(back) > homeWithin {
				t.Fatalf("%d hints are not home after %v: %v", rows, homeWithin, err)
			}
		}
		c.settle(logs)
	})
}

// writeThrough writes keys of its own through one node until the given instant.
func (c *simCluster) writeThrough(id, at int, until time.Time) *writerLog {
	w := &writerLog{acked: map[string]string{}, unknown: map[string][]string{}}
	rng := rand.New(rand.NewPCG(c.seed, uint64(1000+id)))
	cl, err := c.dial(at)
	if err != nil {
		c.t.Errorf("seed %d: %v", c.seed, err)
		return w
	}
	defer cl.conn.Close()
	for n := 0; time.Now().Before(until); n++ {
		time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
		key, value := fmt.Sprintf("w%d:%d", id, rng.IntN(500)), fmt.Sprintf("%d-%d", id, n)
		if _, err := cl.do("SET", key, value); err != nil {
			c.t.Errorf("seed %d: SET through node %d, with two owners of every key up: %v", c.seed, at, err)
			w.unknown[key] = append(w.unknown[key], value)
			continue
		}
		w.acked[key], w.unknown[key] = value, nil
	}
	return w
}

// hintBytes asks some nodes how much they keep for one other, at most, and how
// many of them are over budget.
func (c *simCluster) hintBytes(nodes ...int) (most int64, over int) {
	c.t.Helper()
	for _, i := range nodes {
		cl, err := c.dial(i)
		if err != nil {
			c.t.Fatalf("seed %d: %v", c.seed, err)
		}
		reply, err := cl.do("HINTS")
		_ = cl.conn.Close() // all was said
		if err != nil {
			c.t.Fatalf("seed %d: HINTS of node %d: %v", c.seed, i, err)
		}
		list, _ := reply.([]any)
		for _, entry := range list {
			fields := entry.([]any)
			for k := 0; k < len(fields); k += 2 {
				switch value := fields[k+1].(string); fields[k] {
				case "bytes":
					n, _ := strconv.ParseInt(value, 10, 64) // digits
					most = max(most, n)
				case "over-budget":
					if value == "true" {
						over++
					}
				}
			}
		}
	}
	return most, over
}

func mapKeys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestClusterConvergesAfterCrashInVirtualTime(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	bubble.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 1, 5)
		start := time.Now()
		logs := make([]*writerLog, 4)
		var wg sync.WaitGroup
		for i := range logs {
			wg.Go(func() { logs[i] = c.writer(i, start.Add(time.Hour)) })
		}
		time.Sleep(20 * time.Minute)
		c.crash(2)
		time.Sleep(10 * time.Minute)
		c.start(2)
		c.awaitReady(2)
		wg.Wait()
		acked := 0
		for _, w := range logs {
			acked += len(w.acked)
		}
		if acked < 350 {
			t.Errorf("seed %d: only %d keys were acknowledged: the load was no load", c.seed, acked)
		}
		c.settle(logs)
		c.close()
	})
	t.Logf("one virtual hour of five nodes took %v", time.Since(begin))
}
