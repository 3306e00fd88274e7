package resp

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// onTCP serves a door on a loopback port as well.
func (d *door) onTCP() (port string) {
	d.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- d.srv.Serve(ctx, ln) }()
	d.t.Cleanup(func() {
		cancel()
		<-served
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// tool runs a program of Redis, or skips where it is not installed.
func tool(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestRedisCliAndBenchmarkWorkOnThePlainDoor(t *testing.T) {
	d := openDoor(t)
	port := d.onTCP()
	for input, want := range map[string]string{
		"SET k v\nGET k\n":          "OK\nv\n",
		"HELLO 3\n":                 "server redis\nversion 7.2.4\nproto 3\n",
		"INFO\n":                    "redis_version:7.2.4\r\nredynamo_version:",
		"CLIENT LIST\n":             "cmd=client|list user=default redir=-1 resp=2 lib-name= lib-ver=",
		"COMMAND DOCS GET\n":        "summary\n",
		"COMMAND COUNT\n":           strconv.Itoa(len(d.srv.table.rows)),
		"FOO a\n":                   "ERR unknown command 'FOO', with args beginning with: 'a' \n",
		"CLUSTER INFO\n":            "ERR This instance has cluster support disabled",
		"SET big x\nAPPEND big y\n": "OK\n2\n",
	} {
		if got := tool(t, input, "redis-cli", "-p", port); !strings.Contains(got, want) {
			t.Errorf("%q: %q lacks %q", input, got, want)
		}
	}
	if got := tool(t, "", "redis-cli", "-3", "-p", port, "config", "get", "maxclients"); got != "maxclients 10000\n" && !strings.Contains(got, "10000") {
		t.Errorf("RESP3: %q", got)
	}
	mass := strings.Repeat("*3\r\n$3\r\nSET\r\n$1\r\np\r\n$1\r\nv\r\n", 5000)
	if got := tool(t, mass, "redis-cli", "-p", port, "--pipe"); !strings.Contains(got, "errors: 0, replies: 5000") {
		t.Errorf("--pipe: %q", got)
	}
	if got := tool(t, "", "redis-cli", "-p", port, "--scan"); !strings.Contains(got, "p\n") {
		t.Errorf("--scan: %q", got)
	}
	if got := tool(t, "", "redis-cli", "-p", port, "--bigkeys"); !strings.Contains(got, "Sampled") {
		t.Errorf("--bigkeys: %q", got)
	}
	for _, extra := range [][]string{{}, {"-P", "16"}, {"-3"}} {
		args := append([]string{"-p", port, "-n", "3000", "-c", "10", "-t", "ping,set,get,mset", "-q", "--csv"}, extra...)
		if got := tool(t, "", "redis-benchmark", args...); !strings.Contains(got, `"GET"`) || strings.Contains(got, "ERR") {
			t.Errorf("benchmark %q: %q", extra, got)
		}
	}
}

func TestRedisCliAndBenchmarkWorkOnTheClusterDoor(t *testing.T) {
	var doors [2]*door
	var members []Member
	for i := range doors {
		doors[i] = openDoor(t, func(c *Config) { c.Door = Cluster })
		port, _ := strconv.Atoi(doors[i].onTCP())
		members = append(members, Member{ID: ring.NodeID(i + 1), Host: "127.0.0.1", Cluster: port, Bus: port + 1, Alive: true})
	}
	for i, d := range doors {
		self := ring.NodeID(i + 1)
		d.admin.identity = Identity{ID: self}
		d.admin.view.Store(NewView(1, 1<<20, self, members, func(slot uint16) []ring.NodeID {
			return []ring.NodeID{ring.NodeID(slot/8192 + 1), ring.NodeID(2 - slot/8192)}
		}))
	}
	port := strconv.Itoa(members[0].Cluster)
	if got := tool(t, "SET a 1\nSET b 2\nGET a\n", "redis-cli", "-c", "-p", port); got != "OK\nOK\n1\n" {
		t.Errorf("redis-cli -c: %q", got)
	}
	if got := tool(t, "", "redis-cli", "--cluster", "check", "127.0.0.1:"+port); !strings.Contains(got, "All 16384 slots covered") ||
		!strings.Contains(got, "All nodes agree") {
		t.Errorf("--cluster check: %s", got)
	}
	got := tool(t, "", "redis-benchmark", "--cluster", "-p", port, "-n", "3000", "-c", "10", "-t", "set,get", "-q", "--csv")
	if !strings.Contains(got, `"GET"`) {
		t.Errorf("benchmark: %q", got)
	}
}
