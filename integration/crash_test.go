package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// writerLog is what one client knows about its own keys: the values that were
// acknowledged, and those whose fate it does not know.
type writerLog struct {
	acked   map[string]string
	unknown map[string][]string
}

// retryPause is what clients commonly wait before they repeat a command.
const retryPause = 8 * time.Millisecond

// load writes keys of its own through all nodes, moving to the next node after
// an error as a client with a list of addresses does, until stop is set. Every
// key is written by one writer, one value after the other.
func (c *processes) load(ctx context.Context, id int, stop *atomic.Bool, twice *failures) *writerLog {
	w := &writerLog{acked: map[string]string{}, unknown: map[string][]string{}}
	clients := make([]*redis.Client, len(c.nodes))
	for i := range clients {
		clients[i] = redis.NewClient(&redis.Options{Addr: c.nodes[i].plain, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 5 * time.Second})
		defer clients[i].Close()
	}
	rng := rand.New(rand.NewPCG(1, uint64(id)))
	at := id % len(clients)
	for n := 0; !stop.Load(); n++ {
		key := fmt.Sprintf("w%d:%d", id, rng.IntN(200))
		value := fmt.Sprintf("%d-%d", id, n)
		err := clients[at].Set(ctx, key, value, 0).Err()
		if err != nil {
			w.unknown[key] = append(w.unknown[key], value)
			first := err
			at = (at + 1) % len(clients)
			value += "-again"
			time.Sleep(retryPause)
			err = clients[at].Set(ctx, key, value, 0).Err()
			if gone(err) { // that was the dead node itself, no other one to retry on
				at = (at + 1) % len(clients)
				err = clients[at].Set(ctx, key, value, 0).Err()
			}
			if err != nil {
				w.unknown[key] = append(w.unknown[key], value)
				twice.note()
				c.t.Logf("writer %d: %v, then through the next node: %v", id, first, err)
				at = (at + 1) % len(clients)
				continue
			}
		}
		w.acked[key], w.unknown[key] = value, nil
	}
	return w
}

// gone reports whether err says that the process at the other end is dead.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

// bypassWithin is how long a dead node may still be asked by the others.
const bypassWithin = 2 * time.Second

// failures are the instants at which writes failed on two nodes in a row.
type failures struct {
	mu struct {
		sync.Mutex
		at []time.Time
	}
}

func (f *failures) note() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.at = append(f.mu.at, time.Now())
}

// outside counts those before from and after to.
func (f *failures) outside(from, to time.Time) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.mu.at {
		if t.Before(from) || t.After(to) {
			n++
		}
	}
	return n
}

// verify reads every key of the log through a client: the acknowledged value,
// or a later one of unknown fate, must be there.
func (w *writerLog) verify(ctx context.Context, cl *redis.Client) error {
	for key, want := range w.acked {
		got, err := cl.Get(ctx, key).Result()
		if err != nil {
			return fmt.Errorf("GET %s: %w", key, err)
		}
		if got != want && !slices.Contains(w.unknown[key], got) {
			return fmt.Errorf("GET %s = %q, acknowledged %q (unknown fate: %q)", key, got, want, w.unknown[key])
		}
	}
	return nil
}

func TestKilledNodeLosesNoAcknowledgedWrite(t *testing.T) {
	c := startProcesses(t, 5)
	ctx := t.Context()
	var stop atomic.Bool
	var twice failures
	var wg sync.WaitGroup
	logs := make([]*writerLog, 16)
	for i := range logs {
		wg.Go(func() { logs[i] = c.load(ctx, i, &stop, &twice) })
	}
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	pause(3 * time.Second)
	victim := c.nodes[2]
	before := time.Now()
	c.kill(victim)
	bypassed := time.Now().Add(bypassWithin)
	pause(5 * time.Second)
	stop.Store(true)
	wg.Wait()

	acked := 0
	for i := range c.nodes {
		if c.nodes[i] == victim {
			continue
		}
		for id, w := range logs {
			if err := w.verify(ctx, c.client(i)); err != nil {
				t.Errorf("writer %d through node %d, one node dead: %v", id, i, err)
			}
		}
	}
	for _, w := range logs {
		acked += len(w.acked)
	}
	if acked < 1000 {
		t.Errorf("only %d keys were acknowledged: the load was no load", acked)
	}
	// While the kernel takes the killed process apart, a live node may still hand
	// it a write, whose outcome it then rightly calls uncertain.
	if n := twice.outside(before, bypassed); n > 0 {
		t.Errorf("%d writes failed on two nodes in a row before a node died, or long after it", n)
	}

	c.start(victim)
	c.awaitReady(victim)
	for id, w := range logs {
		if err := w.verify(ctx, c.client(victim.index)); err != nil {
			t.Errorf("writer %d through the node that came back: %v", id, err)
		}
	}
}

// realLines is a list of at least 100,000 distinct lines from this machine:
// the paths of its Go installation, or a word list.
func realLines(t *testing.T) []string {
	t.Helper()
	const want = 100_000
	seen := map[string]bool{}
	var lines []string
	add := func(s string) {
		if s != "" && len(s) < 1000 && !seen[s] {
			seen[s] = true
			lines = append(lines, s)
		}
	}
	if text, err := os.ReadFile("/usr/share/dict/words"); err == nil {
		for l := range strings.Lines(string(text)) {
			add(strings.TrimSpace(l))
		}
	}
	if len(lines) < want {
		// Source lines of the toolchain that runs this test are always there.
		root := strings.TrimSpace(run(t, nil, "go", "env", "GOROOT"))
		out := run(t, nil, "find", root+"/src", "-name", "*.go", "-size", "-200k")
		for path := range strings.Lines(out) {
			text, err := os.ReadFile(strings.TrimSpace(path))
			if err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(string(text)) {
				add(strings.TrimSpace(l))
			}
			if len(lines) >= want {
				break
			}
		}
	}
	if len(lines) < want {
		t.Fatalf("found only %d lines", len(lines))
	}
	return lines
}

func TestPipedFileSurvivesKillingEveryProcess(t *testing.T) {
	need(t, "redis-cli")
	c := startProcesses(t, 3)
	lines := realLines(t)

	var pipe bytes.Buffer
	for i, l := range lines {
		key := fmt.Sprintf("line:%d", i)
		fmt.Fprintf(&pipe, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(l), l)
	}
	host, port, _ := strings.Cut(c.nodes[0].plain, ":")
	begin := time.Now()
	out := run(t, pipe.Bytes(), "redis-cli", "-h", host, "-p", port, "--pipe")
	if !strings.Contains(out, fmt.Sprintf("errors: 0, replies: %d", len(lines))) {
		t.Fatalf("redis-cli --pipe said: %s", out)
	}
	t.Logf("loaded %d lines in %v", len(lines), time.Since(begin))

	readBack := func(when string) {
		for i := range c.nodes {
			if err := compareLines(t.Context(), c.client(i), lines); err != nil {
				t.Fatalf("%s, through node %d: %v", when, i, err)
			}
			if n, err := c.client(i).DBSize(t.Context()).Result(); err != nil || n != int64(len(lines)) {
				t.Errorf("%s, through node %d: DBSIZE = %d, %v; want %d", when, i, n, err, len(lines))
			}
		}
	}
	readBack("after loading")
	for _, p := range c.nodes {
		c.kill(p)
	}
	for _, p := range c.nodes {
		c.start(p)
	}
	for _, p := range c.nodes {
		c.awaitReady(p)
	}
	readBack("after killing all")
}

func compareLines(ctx context.Context, cl *redis.Client, lines []string) error {
	const batch = 1000
	for from := 0; from < len(lines); from += batch {
		pipe := cl.Pipeline()
		part := lines[from:min(from+batch, len(lines))]
		for i := range part {
			pipe.Get(ctx, fmt.Sprintf("line:%d", from+i))
		}
		got, err := pipe.Exec(ctx)
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		for i, want := range part {
			if v, err := got[i].(*redis.StringCmd).Result(); err != nil || v != want {
				return fmt.Errorf("line %d = %q, %v; want %q", from+i, v, err, want)
			}
		}
	}
	return nil
}

// TestConcurrentWritesBecomeSiblings writes one key from one context through
// two nodes, and settles it with the token of the read that showed both.
func TestConcurrentWritesBecomeSiblings(t *testing.T) {
	c := startProcesses(t, 3)
	ctx := t.Context()
	a, b := c.client(0), c.client(1)
	if err := a.Set(ctx, "cart", "milk", 0).Err(); err != nil {
		t.Fatal(err)
	}
	token, values := vctxGet(t, b, "cart")
	if !slices.Equal(values, []string{"milk"}) {
		t.Fatalf("values = %q, want milk alone", values)
	}
	vctxSet(t, a, "cart", "milk,bread", token, 1)
	vctxSet(t, b, "cart", "milk,wine", token, 2)

	var shown string
	for i := range c.nodes {
		token, values = vctxGet(t, c.client(i), "cart")
		if s := slices.Sorted(slices.Values(values)); !slices.Equal(s, []string{"milk,bread", "milk,wine"}) {
			t.Errorf("node %d: values = %q, want both carts", i, values)
		}
		got, err := c.client(i).Get(ctx, "cart").Result()
		if err != nil || (shown != "" && got != shown) {
			t.Errorf("node %d: GET = %q, %v; another node said %q", i, got, err, shown)
		}
		shown = got
	}
	vctxSet(t, c.client(2), "cart", "milk,bread,wine", token, 1)
	for i := range c.nodes {
		if _, values = vctxGet(t, c.client(i), "cart"); !slices.Equal(values, []string{"milk,bread,wine"}) {
			t.Errorf("node %d after settling: values = %q", i, values)
		}
	}
}

func vctxGet(t *testing.T, cl *redis.Client, key string) (token string, values []string) {
	t.Helper()
	reply, err := cl.Do(t.Context(), "VCTX.GET", key).Slice()
	if err != nil || len(reply) != 2 {
		t.Fatalf("VCTX.GET %s: %v %v", key, reply, err)
	}
	for _, v := range reply[1].([]any) {
		values = append(values, v.(string))
	}
	return reply[0].(string), values
}

func vctxSet(t *testing.T, cl *redis.Client, key, value, token string, live int64) {
	t.Helper()
	reply, err := cl.Do(t.Context(), "VCTX.SET", key, value, token).Slice()
	if err != nil || len(reply) != 2 {
		t.Fatalf("VCTX.SET %s: %v %v", key, reply, err)
	}
	if reply[1] != live {
		t.Errorf("VCTX.SET %s %s left %v versions, want %d", key, value, reply[1], live)
	}
}
