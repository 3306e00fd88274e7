package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// writerLog is what one client knows about its own keys: the values that were
// acknowledged, and those whose fate it does not know.
type writerLog struct {
	acked   map[string]string
	unknown map[string][]string
	tries   int           // operations that needed a second try
	gap     time.Duration // longest time between two operations that succeeded
}

// retryPause is what clients commonly wait before they repeat a command.
const retryPause = 8 * time.Millisecond

// longestGap is how long a client may go without a success around a node's death.
const longestGap = 2 * time.Second

// loader is one client with a list of addresses, which moves to the next node
// after an error: to one that is well, for what is judged is how the nodes that
// are left serve it.
type loader struct {
	t       *testing.T
	id      int
	rng     *rand.Rand
	clients []*redis.Client
	at      int
	victim  int // the node that will be sick
	log     *writerLog
	last    time.Time // of a success
}

// load works on keys of its own through all nodes until stop is set: mostly it
// sets them, one value after the other, and beside that it reads, deletes, and
// sets keys that may not exist.
//
// A client gives up on a reply after patience.
func (c *processes) load(ctx context.Context, id, victim int, patience time.Duration, stop *atomic.Bool) *writerLog {
	l := &loader{t: c.t, id: id, rng: rand.New(rand.NewPCG(1, uint64(id))), at: id % len(c.nodes), victim: victim, last: time.Now()}
	l.log = &writerLog{acked: map[string]string{}, unknown: map[string][]string{}}
	for _, p := range c.nodes {
		cl := redis.NewClient(&redis.Options{Addr: p.plain, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: patience})
		defer cl.Close()
		l.clients = append(l.clients, cl)
	}
	for n := 0; !stop.Load(); n++ {
		key, other := fmt.Sprintf("w%d:%d", id, l.rng.IntN(200)), fmt.Sprintf("x%d:%d", id, l.rng.IntN(20))
		switch l.rng.IntN(10) {
		case 0:
			l.do("GET", func(cl *redis.Client) error { return cl.Get(ctx, key).Err() })
		case 1:
			l.do("SET NX", func(cl *redis.Client) error { return cl.SetNX(ctx, other, n, 0).Err() })
		case 2:
			l.do("DEL", func(cl *redis.Client) error { return cl.Del(ctx, other).Err() })
		default:
			l.set(ctx, key, fmt.Sprintf("%d-%d", id, n))
		}
	}
	l.succeeded()
	return l.log
}

// set writes one value; a second try writes another one, to tell them apart. What
// was tried in vain stays of unknown fate, however much is acknowledged after it: a
// stopped node has it in its socket, carries it out when it goes on, although its
// client has left, and it is the latest write then.
func (l *loader) set(ctx context.Context, key, value string) {
	ok := l.do("SET", func(cl *redis.Client) error {
		err := cl.Set(ctx, key, value, 0).Err()
		if err != nil {
			l.log.unknown[key] = append(l.log.unknown[key], value)
			value += "-again"
		}
		return err
	})
	if ok {
		l.log.acked[key] = value
	}
}

// do runs one operation and, if it fails, once more on another node.
func (l *loader) do(what string, op func(*redis.Client) error) bool {
	first := ignoreNil(op(l.clients[l.at]))
	if first == nil {
		l.succeeded()
		return true
	}
	l.log.tries++
	l.next()
	time.Sleep(retryPause)
	err := ignoreNil(op(l.clients[l.at]))
	if err != nil {
		l.t.Errorf("client %d: %s: %v, and then on another node: %v", l.id, what, first, err)
		l.next()
		return false
	}
	l.succeeded()
	return true
}

func (l *loader) next() {
	if l.at = (l.at + 1) % len(l.clients); l.at == l.victim {
		l.next()
	}
}

func (l *loader) succeeded() {
	now := time.Now()
	l.log.gap = max(l.log.gap, now.Sub(l.last))
	l.last = now
}

func ignoreNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
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
			held, _ := cl.Do(ctx, "VCTX.GET", key, "META", "R", "3").Result() // for people
			copies, _ := cl.Do(ctx, "VCTX.INSPECT", key).Result()
			return fmt.Errorf("GET %s = %q, acknowledged %q (unknown fate: %q); all owners have %q; %v", key, got, want, w.unknown[key], held, copies)
		}
	}
	return nil
}

// A killed node costs its clients one try on another node, and never two; and
// nobody waits long.
func TestKilledNodeLosesNoAcknowledgedWrite(t *testing.T) {
	c := startProcesses(t, 5)
	ctx := t.Context()
	var stop atomic.Bool
	var wg sync.WaitGroup
	victim := c.nodes[2]
	logs := make([]*writerLog, 8)
	for i := range logs {
		wg.Go(func() { logs[i] = c.load(ctx, i, victim.index, 5*time.Second, &stop) })
	}
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	pause(3 * time.Second)
	c.kill(victim)
	pause(5 * time.Second)
	stop.Store(true)
	wg.Wait()

	acked, tries, gap := 0, 0, time.Duration(0)
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
		acked, tries, gap = acked+len(w.acked), tries+w.tries, max(gap, w.gap)
	}
	if acked < 1000 {
		t.Errorf("only %d keys were acknowledged: the load was no load", acked)
	}
	if gap > longestGap {
		t.Errorf("some client had no success for %v", gap)
	}
	t.Logf("%d keys, %d second tries, longest gap %v", acked, tries, gap)

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
	c.checkDrift()
	vctxSet(t, c.client(2), "cart", "milk,bread,wine", token, 1)
	for i := range c.nodes {
		if _, values = vctxGet(t, c.client(i), "cart"); !slices.Equal(values, []string{"milk,bread,wine"}) {
			t.Errorf("node %d after settling: values = %q", i, values)
		}
	}
}

// checkDrift checks that both places tell of reads that showed two versions.
func (c *processes) checkDrift() {
	c.t.Helper()
	shown := 0.0
	for i, p := range c.nodes {
		n := c.metric(p, `coordinator_read_versions_total{versions="2"}`)
		shown += n
		info, err := c.client(i).Info(c.t.Context(), "divergence").Result()
		if want := fmt.Sprintf("\r\nreads_with_versions_2:%v\r\n", n); err != nil || !strings.Contains(info, want) {
			c.t.Errorf("node %d: INFO divergence lacks %q: %q, %v", i, want, info, err)
		}
	}
	if shown < float64(len(c.nodes)) {
		c.t.Errorf("%v reads showed two versions, and every node was asked", shown)
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
