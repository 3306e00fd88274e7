package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/simnet"
)

// oracle is the release whose answers count.
const oracle = "7.0.15"

// needRedis skips the test where the oracle is missing, or fails it where
// everything must run (REDYNAMO_REQUIRE=1).
func needRedis(t *testing.T) {
	t.Helper()
	refuse := t.Skipf
	if os.Getenv("REDYNAMO_REQUIRE") != "" {
		refuse = t.Fatalf
	}
	out, err := exec.Command("redis-server", "--version").Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		refuse("redis-server is not installed")
	case err != nil:
		t.Fatal(err)
	case !strings.Contains(string(out), "v="+oracle+" "):
		refuse("redis-server %s is needed, this is %.80q", oracle, out)
	}
}

// startRedis starts a redis-server of the test's own, without a disk, on free ports
// of loopback. It keeps no slow log: what is slow hangs on the machine.
func startRedis(t *testing.T, flags ...string) (dial func() (net.Conn, error)) {
	t.Helper()
	dir := t.TempDir()
	for range 5 { // somebody may have been faster to take a port
		port := freePorts(t)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		args := append([]string{"--port", strconv.Itoa(port), "--cluster-port", strconv.Itoa(port + 1), "--bind", "127.0.0.1",
			"--dir", dir, "--save", "", "--appendonly", "no", "--slowlog-log-slower-than", "-1"}, flags...)
		if runRedis(t, args) {
			return func() (net.Conn, error) { return net.Dial("tcp", addr) }
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

// runRedis reports whether the redis-server takes connections; else it has ended.
func runRedis(t *testing.T, args []string) bool {
	t.Helper()
	cmd := exec.Command("redis-server", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	up := make(chan bool, 1)
	go func() {
		defer close(up)
		for log := bufio.NewScanner(out); log.Scan(); {
			if strings.Contains(log.Text(), "Ready to accept connections") {
				up <- true
			}
		}
	}()
	return <-up
}

// freePorts is the first of two ports of loopback that nobody listens on, from below
// those that the system hands to outgoing connections.
func freePorts(t *testing.T) int {
	t.Helper()
	free := 0
	for port := 20000 + rand.IntN(10000); port < 32000; port++ {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			free = 0
			continue
		}
		_ = l.Close() // only asked whether it is free
		if free++; free == 2 {
			return port - 1
		}
	}
	t.Fatal("no free ports")
	return 0
}

// cluster is n nodes in this process, on a network and disks in memory. It lives in
// one synctest bubble, in virtual time: however busy the machine is, no node takes
// another for dead.
type cluster struct {
	t     *testing.T
	net   *simnet.Network
	nodes []*node.Node
}

func (c *cluster) host(i int) string { return fmt.Sprintf("10.0.0.%d", i+1) }

// startCluster starts n nodes and waits until they are ready and the ring is at rest.
//
// All owners of a key acknowledge a write here, so that what counts keys on one of
// them (DBSIZE) or walks over them answers the same in every run.
func startCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, net: simnet.New(simnet.Config{Seed: uint64(n)})}
	for i := range n {
		c.net.Start(c.host(i))
		gossip, err := c.net.Transport(c.host(i), 7946)
		if err != nil {
			t.Fatal(err)
		}
		cfg := node.Config{
			DataDir: "/data", FS: vfs.NewMem(), Network: c.net.Host(c.host(i)), GossipTransport: gossip, FastGossip: true,
			Advertise: c.host(i), AdminListen: "-", Expect: n, Zone: strconv.Itoa(i), W: 3,
			MemTableBytes: 1 << 20, BlockCache: 1 << 20, RecordCache: 1 << 20,
		}
		if i < n-1 { // CONFIG SET is for the last alone, and whose key it is tells
			cfg.KeyEvents = "KEx"
		}
		if i > 0 {
			cfg.Join = []string{c.host(0) + ":7946"}
		}
		nd, err := node.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, nd)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, nd := range c.nodes {
		if err := nd.AwaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	awaitRest(ctx, t, c.dialer("plain"))
	return c
}

// dialer connects to a door of the last node, as a client on a host of its own.
func (c *cluster) dialer(door string) func() (net.Conn, error) {
	at := net.JoinHostPort(c.host(len(c.nodes)-1), map[string]string{"plain": "6379", "cluster": "6380"}[door])
	return func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return c.net.Dial(ctx, "10.0.9.9", at)
	}
}

// close stops all nodes; goroutines left behind fail the bubble.
func (c *cluster) close() {
	var wg sync.WaitGroup
	for i, nd := range c.nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := nd.Close(ctx); err != nil {
				c.t.Errorf("close node %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	// memberlist's probes sit out their timeouts after a shutdown.
	time.Sleep(time.Minute)
}

// awaitRest waits until the ring is at rest.
func awaitRest(ctx context.Context, t *testing.T, dial func() (net.Conn, error)) {
	t.Helper()
	w, err := newWire(dial)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		w.send(encode([]string{"RING", "STATUS"}))
		status := w.reply(false)
		if strings.Contains(status, "stable") {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the ring does not come to rest: %q", status)
		}
	}
}

// formSlots makes a redis-server the one master of all slots, and waits until it
// serves them.
func formSlots(t *testing.T, dial func() (net.Conn, error)) {
	t.Helper()
	w, err := newWire(dial)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.send(encode([]string{"CLUSTER", "ADDSLOTSRANGE", "0", "16383"}))
	if got := w.reply(false); got != "+OK\r\n" {
		t.Fatalf("ADDSLOTSRANGE: %q", got)
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		w.send(encode([]string{"CLUSTER", "INFO"}))
		info := w.reply(false)
		if strings.Contains(info, "cluster_state:ok") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the slots are not served: %q", info)
		}
		<-tick.C
	}
}
