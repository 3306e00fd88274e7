package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func (c *processes) addrs(of func(*process) string) string {
	var list []string
	for _, p := range c.nodes {
		list = append(list, of(p))
	}
	return strings.Join(list, ",")
}

// TestStockClientsWork runs other people's clients, each in its own language,
// against both doors of one cluster.
func TestStockClientsWork(t *testing.T) {
	c := startProcesses(t, 5)
	plain := c.addrs(func(p *process) string { return p.plain })
	cluster := c.addrs(func(p *process) string { return p.cluster })
	doors := map[string]string{"plain": plain, "cluster": cluster}

	for mode, addrs := range doors {
		t.Run("redis-py/"+mode, func(t *testing.T) {
			need(t, "/usr/bin/python3")
			if err := exec.Command("/usr/bin/python3", "-c", "import redis").Run(); err != nil {
				refuse(t, "Debian's python3-redis is not installed")
			}
			t.Log(run(t, nil, "/usr/bin/python3", "clients/check.py", mode, addrs))
		})
		for _, library := range []string{"redis", "ioredis"} {
			t.Run("node-"+library+"/"+mode, func(t *testing.T) {
				need(t, "node")
				if _, err := os.Stat("clients/node_modules"); err != nil {
					refuse(t, "run 'npm ci' in integration/clients first")
				}
				t.Log(run(t, nil, "node", "clients/check.mjs", library, mode, addrs))
			})
		}
		t.Run("go-redis/"+mode, func(t *testing.T) { goClient(t, mode, strings.Split(addrs, ",")) })
	}
	t.Run("redis-cli", func(t *testing.T) { redisCLI(t, c) })
	t.Run("redis-benchmark", func(t *testing.T) {
		need(t, "redis-benchmark")
		for door, addr := range map[string]string{"plain": c.nodes[0].plain, "cluster": c.nodes[1].cluster} {
			host, port, _ := net.SplitHostPort(addr)
			args := []string{"-h", host, "-p", port, "-n", "5000", "-c", "20", "-P", "4", "-r", "1000", "-t", "ping,set,get,mset", "--csv"}
			if door == "cluster" {
				args = append(args, "--cluster")
			}
			out := run(t, nil, "redis-benchmark", args...)
			if strings.Contains(out, "rror") || strings.Count(out, "\n") < 4 {
				t.Errorf("%s door: redis-benchmark said:\n%s", door, out)
			}
		}
	})
}

func goClient(t *testing.T, mode string, addrs []string) {
	ctx := t.Context()
	connect := func(i int) redis.UniversalClient {
		var cl redis.UniversalClient
		if mode == "cluster" {
			cl = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs[i : i+1]})
		} else {
			cl = redis.NewClient(&redis.Options{Addr: addrs[i]})
		}
		t.Cleanup(func() { _ = cl.Close() }) // the test is over
		return cl
	}
	w, r := connect(0), connect(len(addrs)-1)
	pipe := w.Pipeline()
	for i := range 300 {
		pipe.Set(ctx, fmt.Sprintf("go:%s:%d", mode, i), i, time.Hour)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if v, err := r.Get(ctx, fmt.Sprintf("go:%s:%d", mode, i)).Int(); err != nil || v != i {
			t.Fatalf("key %d = %d, %v", i, v, err)
		}
	}
	if ok, err := w.SetNX(ctx, "go:"+mode+":0", "x", 0).Result(); ok || err != nil {
		t.Errorf("SETNX of a present key = %v, %v", ok, err)
	}
	if _, err := r.Get(ctx, "go:nothing").Result(); !errors.Is(err, redis.Nil) {
		t.Errorf("GET of an absent key: %v", err)
	}
	goSubscriber(t, r.Subscribe(ctx, "go:"+mode+":news"), func(text string) error { return w.Publish(ctx, "go:"+mode+":news", text).Err() })
	goSubscriber(t, r.SSubscribe(ctx, "go:"+mode+":shard"), func(text string) error { return w.SPublish(ctx, "go:"+mode+":shard", text).Err() })
}

func goSubscriber(t *testing.T, s *redis.PubSub, publish func(text string) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	defer func() { _ = s.Close() }()
	if _, err := s.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() {
		for range 5 {
			if m, err := s.ReceiveMessage(ctx); err != nil || m.Payload != "hello" {
				heard <- fmt.Errorf("heard %v: %w", m, err)
				return
			}
		}
		heard <- nil
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for { // a message may be lost where nodes take each other for dead
		select {
		case err := <-heard:
			if err != nil {
				t.Error(err)
			}
			return
		case <-tick.C:
			if err := publish("hello"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// redisCLI uses the tool people try first, also for what it asks unbidden.
func redisCLI(t *testing.T, c *processes) {
	need(t, "redis-cli")
	host, port, _ := net.SplitHostPort(c.nodes[0].plain)
	chost, cport, _ := net.SplitHostPort(c.nodes[0].cluster)
	cli := func(args ...string) string {
		return strings.TrimSpace(run(t, nil, "redis-cli", append([]string{"-h", host, "-p", port}, args...)...))
	}
	for _, c := range []struct{ args, want string }{
		{"set cart milk", "OK"}, {"get cart", "milk"}, {"-3 get cart", "milk"}, {"exists cart nothing", "1"},
		{"expire cart 100", "1"}, {"persist cart", "1"}, {"ttl cart", "-1"}, {"type cart", "string"},
		{"object encoding cart", "embstr"}, {"del cart", "1"}, {"get cart", ""},
		{"cluster info", "ERR This instance has cluster support disabled"},
		{"publish news hello", "0"}, {"spublish news hello", "0"}, {"pubsub numsub news", "news\n0"},
		{"nonsense a", "ERR unknown command 'nonsense', with args beginning with: 'a'"},
	} {
		if got := cli(strings.Fields(c.args)...); got != c.want {
			t.Errorf("redis-cli %s = %q, want %q", c.args, got, c.want)
		}
	}
	if out := run(t, nil, "redis-cli", "-h", chost, "-p", cport, "--cluster", "check", c.nodes[0].cluster); !strings.Contains(out, "All 16384 slots covered") {
		t.Errorf("redis-cli --cluster check:\n%s", out)
	}
	if out := cli("--bigkeys"); !strings.Contains(out, "Sampled") {
		t.Errorf("redis-cli --bigkeys:\n%s", out)
	}
	if out := run(t, []byte("set a 1\nget a\nhelp get\nring status\n"), "redis-cli", "-h", host, "-p", port); !strings.Contains(out, "OK\n") {
		t.Errorf("redis-cli on a pipe:\n%s", out)
	}
}

// TestDemoGreetsAndStops runs the first command of README, tries its three
// suggestions and stops it as Ctrl-C does.
func TestDemoGreetsAndStops(t *testing.T) {
	need(t, "redis-cli")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	base := freePorts(t, 1)[0]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "demo", "--port", strconv.Itoa(base), "--data-dir", filepath.Join(t.TempDir(), "demo"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var tries []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if l := strings.TrimSpace(lines.Text()); strings.HasPrefix(l, "redis-cli") {
			tries = append(tries, l)
		} else if strings.HasPrefix(l, "Ctrl-C") {
			break
		}
	}
	t.Logf("up after %v", time.Since(begin))
	if len(tries) != 3 {
		t.Fatalf("suggested %q, want three commands", tries)
	}
	for i, want := range []string{"OK", "milk", ""} {
		words := strings.Fields(tries[i])
		if got := strings.TrimSpace(run(t, nil, words[0], words[1:]...)); want != "" && got != want || strings.Contains(got, "ERR") {
			t.Errorf("%s = %q, want %q", tries[i], got, want)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // the pipe must be read to its end before Wait
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: %v, want a clean end", err)
	}
}
