package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/simdisk"
)

// patience is for broken products, not for slow machines.
const patience = 30 * time.Second

// lone is the configuration of a cluster of one, on free ports of loopback and
// with a disk in memory.
func lone(disk vfs.FS) Config {
	return Config{
		DataDir: "d", FS: simdisk.Of(disk), FastGossip: true,
		Listen: "127.0.0.1:0", ClusterListen: "127.0.0.1:0", PeerListen: "127.0.0.1:0",
		GossipListen: "127.0.0.1:0", AdminListen: "127.0.0.1:0",
	}
}

func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(context.Background()) }) // most tests have closed it
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

// within runs f, which must end in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatalf("%s did not end", what)
	}
}

// say sends one inline command to the plain door and returns the first line of
// the answer.
func say(t *testing.T, n *Node, command string) string {
	t.Helper()
	return sayTo(t, n.listeners[listenPlain].Addr().String(), command)
}

// sayTo is say at any door.
func sayTo(t *testing.T, addr, command string) string {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	return c.ask(command)
}

// talk is a connection to a door.
type talk struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *talk {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the test is over
	return &talk{t, c, bufio.NewReader(c)}
}

func (c *talk) ask(command string) string {
	c.t.Helper()
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(line)
}

func (c *talk) want(command, answer string) {
	c.t.Helper()
	if got := c.ask(command); got != answer {
		c.t.Errorf("%s: %q, want %q", command, got, answer)
	}
}

func TestConfigReportsEveryFaultAtOnce(t *testing.T) {
	_, err := Start(t.Context(), Config{N: 10, R: 11, W: -1, Units: 7, Weight: -1, Expect: -1, Zone: strings.Repeat("z", 65),
		MaxValue: -1, HintBudget: -1, MaxClients: -1, RequestTimeout: time.Nanosecond, FsyncInterval: time.Nanosecond, Listen: "here"})
	if err == nil {
		t.Fatal("no fault is seen")
	}
	for _, want := range []string{"data-dir", "n (10)", "r (11)", "w (-1)", "units (7)", "weight (-1)", "expect (-1)", "zone", "max-value (-1)", "hint-budget (-1)",
		"max-clients (-1)", "request-timeout (1ns)", "fsync-interval (1ns)", `listen ("here")`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in\n%v", want, err)
		}
	}
}

func TestAFailedStartLetsGoOfPortsAndDisk(t *testing.T) {
	disk := vfs.NewCrashableMem()
	first := start(t, lone(disk))
	if got := say(t, first, "SET k v"); got != "+OK" {
		t.Fatalf("SET answers %q", got)
	}
	crashed := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, disk := range map[string]vfs.FS{"a clean stop": disk, "a crash": crashed} {
		bad := lone(disk)
		var opened []net.Listener
		bad.Network = noting{&opened}
		bad.Join = []string{"no port"} // seen by membership, when half of the node stands
		within(t, "the start after "+name, func() {
			if _, err := Start(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "no port") {
				t.Errorf("after %s: %v, want the bad address named", name, err)
			}
		})
		if t.Failed() {
			t.FailNow()
		}
		if len(opened) != 4 {
			t.Errorf("after %s: %d listeners, want 4", name, len(opened))
		}
		for _, l := range opened {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after %s: %v still listens: %v", name, l.Addr(), err)
			}
		}
		n := start(t, lone(disk))
		if got := say(t, n, "STRLEN k"); got != ":1" {
			t.Errorf("after %s and a failed start the value is gone: STRLEN answers %q", name, got)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Errorf("after %s: close: %v", name, err)
		}
	}
}

// noting is the machine's network; it notes what listens.
type noting struct{ opened *[]net.Listener }

func (noting) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return machineNetwork{}.Dial(ctx, addr)
}

func (n noting) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := machineNetwork{}.Listen(ctx, addr)
	if err == nil {
		*n.opened = append(*n.opened, l)
	}
	return l, err
}

func TestAPortInUseEndsTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, set := range map[string]func(*Config){
		"listen":         func(c *Config) { c.Listen = taken.Addr().String() },
		"cluster-listen": func(c *Config) { c.ClusterListen = taken.Addr().String() },
		"peer-listen":    func(c *Config) { c.PeerListen = taken.Addr().String() },
		"admin-listen":   func(c *Config) { c.AdminListen = taken.Addr().String() },
	} {
		var opened []net.Listener
		cfg := lone(vfs.NewMem())
		cfg.Network = noting{&opened}
		set(&cfg)
		if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("%s: %v, want the address named", name, err)
		}
		for _, l := range opened {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v still listens: %v", name, l.Addr(), err)
			}
		}
	}
}

func TestClosingAgainAnswersTheSame(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := n.Close(t.Context()); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	within(t, "closing three times", wg.Wait)
	cause := errors.New("the disk is on fire")
	n = start(t, lone(vfs.NewMem()))
	n.fail(cause)
	for range 2 {
		if err := n.Close(t.Context()); !errors.Is(err, cause) {
			t.Errorf("close answers %v, want the failure", err)
		}
	}
}

func TestATaskThatCannotGoOnEndsTheNode(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := lone(vfs.NewMem())
	cfg.GossipListen = taken.Addr().String()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	within(t, "a node without gossip", func() { <-n.Done() })
	if err := n.AwaitReady(t.Context()); err == nil {
		t.Error("a node that has ended is awaited with success")
	}
	if err := n.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "task membership") {
		t.Errorf("close answers %v, want the task named", err)
	}
}

func TestANodeWithoutAdminHTTPServesTheRest(t *testing.T) {
	cfg := lone(vfs.NewMem())
	cfg.AdminListen = "-"
	n := start(t, cfg)
	if len(n.listeners) != listenAdmin {
		t.Errorf("%d listeners, want %d", len(n.listeners), listenAdmin)
	}
	if got := say(t, n, "PING"); got != "+PONG" {
		t.Errorf("PING answers %q", got)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestAdminHTTPTellsHowTheNodeIs(t *testing.T) {
	cfg := lone(vfs.NewMem())
	cfg.RequirePass, cfg.Zone = "open-sesame", "cellar"
	n := start(t, cfg)
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + n.listeners[listenAdmin].Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), cfg.RequirePass) {
			t.Errorf("%s tells the password", path)
		}
		return r.StatusCode, string(text)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n", "/metrics": "membership_members 1", "/": `"ready": true`, "/debug/pprof/": "goroutine"} {
		if code, text := get(path); code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s answers %d %q, want %q in it", path, code, text, want)
		}
	}
	// The command line may hold the password.
	for _, path := range []string{"/debug/pprof/cmdline", "/nothing", "/metrics/more"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s answers %d, want 404", path, code)
		}
	}
	var st nodeStatus
	_, text := get("/")
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	want := []memberState{{Node: st.Node, Address: st.Members[0].Address, Zone: "cellar", Up: true, Partitions: 1024}}
	if !slices.Equal(st.Members, want) {
		t.Errorf("members %+v, want %+v", st.Members, want)
	}
	n.fail(errors.New("the disk is on fire"))
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, text := get(path); code != http.StatusServiceUnavailable || !strings.Contains(text, "on fire") {
			t.Errorf("%s of a failed node answers %d %q", path, code, text)
		}
	}
}
