package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisProcess is a redis-server of the test's own.
type redisProcess struct {
	*redis.Client
	addr, file string
}

func startRedisServer(t *testing.T, flags ...string) redisProcess {
	t.Helper()
	need(t, "redis-server")
	dir, port := t.TempDir(), freePorts(t, 1)[0]
	cmd := exec.Command("redis-server", append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", ""}, flags...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	r := redisProcess{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), file: filepath.Join(dir, "dump.rdb")}
	r.Client = redis.NewClient(&redis.Options{Addr: r.addr})
	t.Cleanup(func() { _ = r.Close() }) // the test is over
	await(t, 20*time.Second, "redis-server is up", func() error { return r.Ping(t.Context()).Err() })
	return r
}

// fill writes n strings, every third with an expiry far off and some that are over soon,
// and one key of each other type.
func (r redisProcess) fill(t *testing.T, prefix string, n int) {
	t.Helper()
	ctx := t.Context()
	pipe := r.Pipeline()
	for i := range n {
		value := fmt.Sprintf("%s value %d %s", prefix, i, strings.Repeat("x", i%300))
		switch key := fmt.Sprintf("%s:%d", prefix, i); i % 3 {
		case 0:
			pipe.Do(ctx, "SET", key, value, "PXAT", 4_000_000_000_000+i)
		case 1:
			pipe.Do(ctx, "SET", key, i)
		default:
			pipe.Do(ctx, "SET", key, value)
		}
	}
	pipe.Do(ctx, "SET", prefix+":over", "x", "PX", 1)
	pipe.Do(ctx, "RPUSH", prefix+":list", "a", "b")
	pipe.Do(ctx, "SADD", prefix+":set", "a", 1)
	pipe.Do(ctx, "ZADD", prefix+":zset", 1.5, "a")
	pipe.Do(ctx, "HSET", prefix+":hash", "f", "v")
	pipe.Do(ctx, "XADD", prefix+":stream", "*", "f", "v")
	pipe.Do(ctx, "SELECT", 3)
	pipe.Do(ctx, "SET", "elsewhere", "x")
	pipe.Do(ctx, "SELECT", 0)
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
}

// importer is one run of redynamo import.
type importer struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func startImport(t *testing.T, args ...string) *importer {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	im := &importer{cmd: exec.Command(path, append([]string{"import"}, args...)...)}
	im.cmd.Stdout, im.cmd.Stderr = &im.out, &im.out
	if err := im.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return im
}

// killInTheMiddle kills the import once it has written down that it wrote so many keys.
func (im *importer) killInTheMiddle(t *testing.T, state string, written int64) {
	t.Helper()
	await(t, time.Minute, "the import is under way", func() error {
		text, err := os.ReadFile(state)
		if err != nil {
			return err
		}
		var now struct{ Counts struct{ Written int64 } }
		if err := json.Unmarshal(text, &now); err != nil {
			return err
		}
		if now.Counts.Written < written {
			return fmt.Errorf("%d keys written", now.Counts.Written)
		}
		return nil
	})
	_ = im.cmd.Process.Kill() // it may have ended
	if err := im.cmd.Wait(); err == nil || im.cmd.ProcessState.Exited() {
		t.Fatalf("the import was over before it was killed:\n%s", im.out.String())
	}
	if _, err := os.Stat(state); err != nil {
		t.Fatal(err)
	}
}

// compareWithRedis reads every string through every node.
func compareWithRedis(t *testing.T, c *processes, r redisProcess, prefix string, n int) {
	t.Helper()
	const step = 500
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for from := 0; from < n; from += step {
		look := func(cl *redis.Client) (values, ends []string) {
			pipe := cl.Pipeline()
			var cmds []redis.Cmder
			for i := from; i < min(n, from+step); i++ {
				key := fmt.Sprintf("%s:%d", prefix, i)
				cmds = append(cmds, pipe.Do(ctx, "GET", key), pipe.Do(ctx, "PEXPIRETIME", key))
			}
			if _, err := pipe.Exec(ctx); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(cmds); i += 2 {
				values, ends = append(values, cmds[i].String()), append(ends, cmds[i+1].String())
			}
			return values, ends
		}
		values, ends := look(r.Client)
		for node := range c.nodes {
			got, gotEnds := look(c.client(node))
			for i := range values {
				if got[i] != values[i] || gotEnds[i] != ends[i] {
					t.Fatalf("node %d: %.80s and %s, want %.80s and %s", node, got[i], gotEnds[i], values[i], ends[i])
				}
			}
		}
	}
}

// TestARedisIsImported brings a file, and a server, into a cluster, with an import that
// is killed twice on the way.
func TestARedisIsImported(t *testing.T) {
	const keys = 20_000
	c := startProcesses(t, 3)
	for _, way := range []string{"file", "server"} {
		t.Run(way, func(t *testing.T) {
			r := startRedisServer(t)
			r.fill(t, way, keys)
			dir := t.TempDir()
			state := filepath.Join(dir, "state")
			from := []string{"--from", r.addr}
			if way == "file" {
				if err := r.Save(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				from = []string{r.file}
			}
			args := append(from, "--addr", strings.Join(c.addrsFrom(0, "plain"), ","), "--state", state)
			for _, written := range []int64{500, 4000} {
				startImport(t, append(args, "--conns", "1")...).killInTheMiddle(t, state, written)
			}
			began := time.Now()
			im := startImport(t, args...)
			err := im.cmd.Wait()
			text := im.out.String()
			t.Logf("the rest took %v:\n%s", time.Since(began).Round(time.Millisecond), text)
			if im.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, "not all keys were imported: 5 of them") || !strings.Contains(text, "going on behind") || !strings.Contains(text, "1 in database 3") {
				t.Errorf("ended with %v:\n%s", err, text)
			}
			report, err := os.ReadFile(state + ".report")
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"list", "set", "zset", "hash", "stream"} {
				if line := fmt.Sprintf("%s\t\"%s:%s\"\t", kind, way, kind); strings.Count(string(report), line) != 1 {
					t.Errorf("the report is not to the point about a %s:\n%s", kind, report)
				}
			}
			if _, err := os.Stat(state); !os.IsNotExist(err) {
				t.Errorf("the state is still there: %v", err)
			}
			compareWithRedis(t, c, r, way, keys)
		})
	}
	t.Run("one cluster", func(t *testing.T) { oneClusterID(t, c) })
	t.Run("redis-cli --pipe", func(t *testing.T) { pipeCLI(t, c) })
}

// oneClusterID looks at what a state of an import is tied to: it is the same at every
// node, and outlives them.
func oneClusterID(t *testing.T, c *processes) {
	ids := map[string]bool{}
	look := func(node int) error {
		info, err := c.client(node).Info(t.Context(), "redynamo").Result()
		_, rest, found := strings.Cut(info, "\r\ncluster_id:")
		id, _, _ := strings.Cut(rest, "\r\n")
		if err == nil && (!found || len(id) != 32) {
			err = fmt.Errorf("node %d tells the cluster %q", node, id)
		}
		if err == nil {
			ids[id] = true
		}
		return err
	}
	for node := range c.nodes {
		if err := look(node); err != nil {
			t.Fatal(err)
		}
	}
	c.kill(c.nodes[2])
	c.start(c.nodes[2])
	await(t, time.Minute, "the node is there again", func() error { return look(2) })
	if len(ids) != 1 {
		t.Errorf("several clusters: %v", ids)
	}
}

// pipeCLI has redis-cli send many keys as fast as they are taken.
func pipeCLI(t *testing.T, c *processes) {
	need(t, "redis-cli")
	const keys = 100_000
	var in bytes.Buffer
	for i := range keys {
		key, value := fmt.Sprintf("pipe:%d", i), strconv.Itoa(i)
		fmt.Fprintf(&in, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	}
	host, port, _ := net.SplitHostPort(c.nodes[0].plain)
	began := time.Now()
	out := run(t, in.Bytes(), "redis-cli", "-h", host, "-p", port, "--pipe")
	took := time.Since(began)
	if !strings.Contains(out, fmt.Sprintf("errors: 0, replies: %d", keys)) {
		t.Errorf("redis-cli says:\n%s", out)
	}
	t.Logf("redis-cli --pipe: %d keys in %v, %.0f a second", keys, took.Round(time.Millisecond), keys/took.Seconds())
	cl := c.client(2)
	for i := 0; i < keys; i += 997 {
		if got, err := cl.Get(t.Context(), fmt.Sprintf("pipe:%d", i)).Result(); got != strconv.Itoa(i) || err != nil {
			t.Fatalf("key %d: %q, %v", i, got, err)
		}
	}
}
