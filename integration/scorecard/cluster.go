//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// network is where the nodes of a cluster live: together on loopback, or each
// in a namespace of its own.
type network interface {
	// addrs are the addresses of the doors of node i: plain, cluster, peer,
	// gossip, admin.
	addrs(i int) [5]string
	dial(ctx context.Context, addr string) (net.Conn, error)
	start(i int, cmd *exec.Cmd) error
}

// loopback is a network of ports of 127.0.0.1.
type loopback struct{ ports []int }

func (l loopback) addrs(i int) (a [5]string) {
	for k := range a {
		a[k] = "127.0.0.1:" + strconv.Itoa(l.ports[len(a)*i+k])
	}
	return a
}

func (loopback) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (loopback) start(_ int, cmd *exec.Cmd) error { return cmd.Start() }

// freePorts returns n ports of 127.0.0.1 that nobody listens on, from below the
// range that the system hands to outgoing connections, so that a restarted node
// finds its own port free again. from tells rows that run at once apart.
func freePorts(n, from int) ([]int, error) {
	var ports []int
	for p := from; len(ports) < n; p++ {
		if p > 32000 {
			return nil, errors.New("no free ports")
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
	return ports, nil
}

// node is one redynamo server.
type node struct {
	index                               int
	plain, cluster, peer, gossip, admin string
	dir                                 string
	flags                               []string
	once                                []string // flags of the next start alone
	wrap                                []string // words before the command: a tracer
	env                                 []string
	binary                              string // "" for that of the cluster
	logPath                             string
	cmd                                 *exec.Cmd
	ended                               chan struct{} // closed when cmd has ended
	endedAt                             time.Time     // valid once ended is closed
}

// cluster is the servers of one row.
type cluster struct {
	net    network
	binary string
	nodes  []*node
	http   http.Client
}

// newCluster prepares n servers that expect each other; nothing runs yet.
func newCluster(binary, dir string, nw network, n int, flags ...string) *cluster {
	c := &cluster{net: nw, binary: binary}
	c.http = http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return nw.dial(ctx, addr) },
	}}
	for i := range n {
		a := nw.addrs(i)
		p := &node{index: i, plain: a[0], cluster: a[1], peer: a[2], gossip: a[3], admin: a[4],
			dir: filepath.Join(dir, fmt.Sprintf("n%d", i)), logPath: filepath.Join(dir, fmt.Sprintf("n%d.log", i))}
		p.flags = append([]string{"--expect", strconv.Itoa(n), "--zone", fmt.Sprintf("z%d", i)}, flags...)
		// All nodes are given the same seeds, as README says, and agree on who
		// creates the cluster.
		for j := range min(n, 3) {
			p.flags = append(p.flags, "--join", nw.addrs(j)[3])
		}
		c.nodes = append(c.nodes, p)
	}
	return c
}

// start sets node p going.
func (c *cluster) start(p *node) error {
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	words := append(append([]string{}, p.wrap...), cmp.Or(p.binary, c.binary), "server", "--data-dir", p.dir, "--listen", p.plain,
		"--cluster-listen", p.cluster, "--peer-listen", p.peer, "--gossip-listen", p.gossip, "--admin-listen", p.admin)
	cmd := exec.Command(words[0], slices.Concat(words[1:], p.flags, p.once)...)
	p.once = nil
	cmd.Stdout, cmd.Stderr = log, log
	// The clients of namespaces come from other addresses than loopback.
	cmd.Env = append(append(os.Environ(), "REDYNAMO_PROTECTED_MODE=no"), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.net.start(p.index, cmd); err != nil {
		return fmt.Errorf("start node %d: %w", p.index, err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // killed processes report that; the log tells the rest
		p.endedAt = time.Now()
		close(ended)
	}(p.ended)
	return nil
}

// running reports whether the process of p is there.
func (p *node) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends sig to p, if it runs.
func (p *node) signal(sig syscall.Signal) {
	if p.running() {
		_ = p.cmd.Process.Signal(sig) // it may have ended in between
	}
}

// kill ends p at once, as a power switch for one process would, and returns
// when it has ended.
func (p *node) kill() {
	if p.cmd == nil {
		return
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// ready asks p whether it serves data.
func (c *cluster) ready(ctx context.Context, p *node) error {
	_, err := c.get(ctx, p, "/readyz")
	return err
}

func (c *cluster) get(ctx context.Context, p *node, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return string(text), err
}

// metric sums the series of node p whose name begins with prefix.
func (c *cluster) metric(ctx context.Context, p *node, prefix string) (sum float64, err error) {
	text, err := c.get(ctx, p, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		sum += v
	}
	return sum, nil
}

// logText is all that node p has logged.
func (p *node) logText() string {
	text, err := os.ReadFile(p.logPath)
	if err != nil {
		return ""
	}
	return string(text)
}

// lineBytes bounds a line of a log that is shown: some tell all that a node knows.
const lineBytes = 300

// lastLog is the end of what node p logged, so many lines at most.
func (p *node) lastLog(most int) string { return endOf(p.logText(), most) }

func endOf(text string, most int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[max(0, len(lines)-most):]
	for i, line := range lines {
		if len(line) > lineBytes {
			lines[i] = line[:lineBytes] + "..."
		}
	}
	return strings.Join(lines, "\n")
}

// close ends what still runs.
func (c *cluster) close() {
	for _, p := range c.nodes {
		p.kill()
	}
}
