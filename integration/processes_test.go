package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// This file runs real processes on loopback: the program as users have it,
// real sockets, the real disk, and SIGKILL.

// binary builds the program once per test run.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "redynamo-test-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "redynamo")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/redynamo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// binaryDir is where binary built, or empty if no test asked for it.
var binaryDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir) // leftovers in the temporary directory harm nobody
	}
	os.Exit(code)
}

// need skips the test if a program is missing, or fails it where everything
// must run (REDYNAMO_REQUIRE=1, as continuous integration sets).
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			refuse(t, "%s is not installed", p)
		}
	}
}

func refuse(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("REDYNAMO_REQUIRE") != "" {
		t.Fatalf("must run here: "+format, args...)
	}
	t.Skipf(format, args...)
}

// process is one redynamo server.
type process struct {
	index   int
	args    []string
	plain   string // host:port of the doors
	cluster string
	peer    string
	gossip  string
	admin   string
	// sentinel is what {sentinel} stands for in flags.
	sentinel string
	dir      string
	log      *os.File
	cmd      *exec.Cmd
	waited   chan struct{} // closed when cmd has ended
}

// processes is a cluster of servers on loopback.
type processes struct {
	t     *testing.T
	nodes []*process
}

// freePorts returns n ports of 127.0.0.1 that nobody listens on. They come from
// below the range that the system hands to outgoing connections, so that a
// restarted node finds its own port free again.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for p := 11000 + os.Getpid()%9000; len(ports) < n; p++ {
		if p > 32000 {
			t.Fatal("no free ports")
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", p))
		_ = l.Close() // only asked whether it is free
		if err != nil {
			continue
		}
		_ = u.Close()
		ports = append(ports, p)
	}
	return ports
}

// startProcesses brings up n servers that expect each other, with extra flags.
func startProcesses(t *testing.T, n int, flags ...string) *processes {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	c := &processes{t: t}
	ports := freePorts(t, 6*n)
	at := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	root := t.TempDir()
	for i := range n {
		p := &process{
			index: i, plain: at(6 * i), cluster: at(6*i + 1), peer: at(6*i + 2), gossip: at(6*i + 3), admin: at(6*i + 4), sentinel: at(6*i + 5),
			dir: filepath.Join(root, fmt.Sprintf("n%d", i)),
		}
		p.args = []string{path, "server", "--data-dir", p.dir, "--listen", p.plain, "--cluster-listen", p.cluster,
			"--peer-listen", p.peer, "--gossip-listen", p.gossip, "--admin-listen", p.admin,
			"--expect", strconv.Itoa(n), "--zone", fmt.Sprintf("z%d", i%3)}
		for _, flag := range flags {
			p.args = append(p.args, strings.ReplaceAll(flag, "{sentinel}", p.sentinel))
		}
		if i > 0 {
			p.args = append(p.args, "--join", c.nodes[0].gossip)
		}
		if p.log, err = os.Create(filepath.Join(root, fmt.Sprintf("n%d.log", i))); err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, p)
	}
	t.Cleanup(c.close)
	for _, p := range c.nodes {
		c.start(p)
	}
	for _, p := range c.nodes {
		c.awaitReady(p)
	}
	for i := range c.nodes {
		c.awaitRest(i)
	}
	return c
}

// awaitRest waits until node i knows of no ring beside the one that it reads by. Before
// that a node that is down holds up the forming of the cluster.
func (c *processes) awaitRest(i int) {
	c.t.Helper()
	cl := c.client(i)
	await(c.t, 60*time.Second, fmt.Sprintf("the ring is at rest at node %d", i), func() error {
		status, err := cl.Do(c.t.Context(), "RING", "STATUS").Result()
		if err == nil && !strings.Contains(fmt.Sprint(status), "state:stable") {
			err = fmt.Errorf("RING STATUS: %v", status)
		}
		return err
	})
}

func (c *processes) start(p *process) {
	c.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	p.waited = make(chan struct{})
	go func(cmd *exec.Cmd, waited chan struct{}) {
		_ = cmd.Wait() // killed processes report that; the log tells the rest
		close(waited)
	}(p.cmd, p.waited)
}

// kill ends p at once, as a power switch for one process would.
func (c *processes) kill(p *process) { c.signal(p, syscall.SIGKILL) }

// signal sends sig and waits for the end of the process.
func (c *processes) signal(p *process, sig syscall.Signal) {
	c.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("signal node %d: %v", p.index, err)
	}
	select {
	case <-p.waited:
	case <-time.After(30 * time.Second):
		c.t.Fatalf("node %d did not end 30 s after signal %v", p.index, sig)
	}
}

// awaitReady waits until p says that it serves data.
func (c *processes) awaitReady(p *process) {
	c.t.Helper()
	await(c.t, 60*time.Second, fmt.Sprintf("node %d is ready", p.index), func() error {
		select {
		case <-p.waited:
			return fmt.Errorf("the process has ended")
		default:
		}
		resp, err := http.Get("http://" + p.admin + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", resp.Status)
		}
		return nil
	})
}

// await polls cond until it holds; the deadline is for broken products, not
// for slow machines.
func await(t *testing.T, within time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
		<-tick.C
	}
}

// client is a plain go-redis client of node i.
func (c *processes) client(i int) *redis.Client {
	cl := redis.NewClient(&redis.Options{Addr: c.nodes[i].plain, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 5 * time.Second})
	c.t.Cleanup(func() { _ = cl.Close() }) // the test is over
	return cl
}

// close ends what still runs and shows the logs of a failed test.
func (c *processes) close() {
	for _, p := range c.nodes {
		if p.cmd == nil {
			continue
		}
		select {
		case <-p.waited:
		default:
			c.signal(p, syscall.SIGKILL)
		}
	}
	for _, p := range c.nodes {
		if c.t.Failed() {
			text, _ := os.ReadFile(p.log.Name())
			if n := 4000; len(text) > n {
				text = text[len(text)-n:]
			}
			c.t.Logf("node %d:\n%s", p.index, bytes.TrimSpace(text))
		}
		_ = p.log.Close()
	}
}

// run executes a program and returns its output; it must succeed.
func run(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
