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

// startNodes runs a cluster of n nodes in this process, on a network and disks in
// memory, and returns the dialers of the two doors of its last node.
//
// All owners of a key acknowledge a write here, so that what counts keys on one of
// them (DBSIZE) or walks over them answers the same in every run.
func startNodes(t *testing.T, n int) (plain, cluster func() (net.Conn, error)) {
	t.Helper()
	network := simnet.New(simnet.Config{Seed: uint64(n), Delay: time.Nanosecond})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	host := func(i int) string { return fmt.Sprintf("10.0.%d.%d", n, i+1) }
	var nodes []*node.Node
	t.Cleanup(func() {
		for _, nd := range nodes {
			_ = nd.Close(context.Background()) // nothing of it is needed any more
		}
	})
	for i := range n {
		network.Start(host(i))
		gossip, err := network.Transport(host(i), 7946)
		if err != nil {
			t.Fatal(err)
		}
		cfg := node.Config{
			DataDir: "/data", FS: vfs.NewMem(), Network: network.Host(host(i)), GossipTransport: gossip, FastGossip: true,
			Advertise: host(i), AdminListen: "-", Expect: n, Zone: strconv.Itoa(i), W: 3, RequestTimeout: 20 * time.Second,
			MemTableBytes: 1 << 20, BlockCache: 1 << 20, RecordCache: 1 << 20,
		}
		if i > 0 {
			cfg.Join = []string{host(0) + ":7946"}
		}
		nd, err := node.Start(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, nd)
	}
	for _, nd := range nodes {
		if err := nd.AwaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	dial := func(port int) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return network.Dial(ctx, "10.9.9.9", net.JoinHostPort(host(n-1), strconv.Itoa(port)))
		}
	}
	network.Start("10.9.9.9")
	plain, cluster = dial(6379), dial(6380)
	awaitRest(ctx, t, plain)
	return plain, cluster
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
