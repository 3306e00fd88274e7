package integration

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
