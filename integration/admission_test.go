package integration

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redynamo/redynamo/cmd/redynamo/loadgen"
)

// The backlog, and how long it may take to get home while clients come first.
const (
	backlogKeys  = 60_000
	backlogBytes = 512
	drainWithin  = 3 * time.Minute
)

// TestABacklogGetsHomeWhileClientsAreServed has one of five nodes miss 60,000
// writes and return while the others are at about half of what they can do. All
// of it must get home and no client may see an error, with background work held
// back and without. How long the clients waited is printed: on a machine that
// others use too, it is no ground for a verdict.
func TestABacklogGetsHomeWhileClientsAreServed(t *testing.T) {
	for _, target := range []string{"1.5", "0"} {
		t.Run("background-target="+target, func(t *testing.T) {
			d := drainUnderLoad(t, "--background-target", target)
			t.Logf("%.0f operations a second; %d hints home in %v; p99 %v before, %v meanwhile (x %.2f), %v after (x %.2f); p99.9 %v, %v, %v",
				d.rate, d.hints, d.took.Round(time.Millisecond), d.before.at(99), d.during.at(99), ratio(d.during, d.before),
				d.after.at(99), ratio(d.during, d.after), d.before.at(99.9), d.during.at(99.9), d.after.at(99.9))
		})
	}
}

// drained is what a drain under load showed.
type drained struct {
	rate                  float64 // operations a second
	hints                 int64   // kept when the node returned
	took                  time.Duration
	before, during, after waits
}

// waits are latencies, in order.
type waits []time.Duration

func (w waits) at(percent float64) time.Duration {
	if len(w) == 0 {
		return 0
	}
	return w[min(int(float64(len(w))*percent/100), len(w)-1)].Round(10 * time.Microsecond)
}

// ratio is the p99 of a by that of b.
func ratio(a, b waits) float64 { return a.at(99).Seconds() / max(b.at(99), time.Microsecond).Seconds() }

// drainUnderLoad brings a backlog about and watches it go while clients are
// served.
func drainUnderLoad(t *testing.T, flags ...string) (d drained) {
	c := startProcesses(t, 5, flags...)
	victim, name := c.nodes[2], nodeName(t, c.client(2))
	serving := []int{0, 1, 3, 4}
	var addrs []string
	for _, i := range serving {
		addrs = append(addrs, c.nodes[i].plain)
	}
	ctx := t.Context()
	full, err := loadgen.Run(ctx, loadgen.Config{
		Addrs: addrs, Op: "mixed", Clients: 16, ValueBytes: backlogBytes, Warmup: time.Second, Duration: 3 * time.Second,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.rate = full.PerSecond() / 2
	d.before = c.serve(8*time.Second, d.rate, serving, nil)

	c.kill(victim)
	if err := loadgen.Fill(ctx, loadgen.Config{Addrs: addrs, Keys: backlogKeys, ValueBytes: backlogBytes}); err != nil {
		t.Fatal(err)
	}
	left := func() (rows int64) {
		for _, i := range serving {
			rows += c.hints(i, name).rows
		}
		return rows
	}
	if d.hints = left(); d.hints < backlogKeys/3 {
		t.Fatalf("%d hints for a node that missed %d writes: no backlog", d.hints, backlogKeys)
	}
	c.start(victim)
	began := time.Now()
	d.during = c.serve(drainWithin, d.rate, serving, func() bool { return left() == 0 })
	if d.took = time.Since(began); left() > 0 {
		t.Errorf("%d of %d hints are left after %v", left(), d.hints, d.took)
	}
	c.awaitReady(victim)
	d.after = c.serve(8*time.Second, d.rate, serving, nil)
	for _, i := range append(serving, 2) {
		t.Logf("node %d: %s", i, c.background(i))
	}
	if sent, received := c.slices(0, "send"), c.slices(2, "receive"); sent == 0 || received == 0 {
		t.Errorf("sending had %d slices of time and receiving %d: they ask nobody", sent, received)
	}
	return d
}

// serve reads and writes through some nodes at a steady rate until the time is
// over, or enough says so, and returns how long each operation took from the
// moment at which it was due. None may fail.
func (c *processes) serve(most time.Duration, rate float64, through []int, enough func() bool) (all waits) {
	c.t.Helper()
	const workers = 32
	ctx, cancel := context.WithTimeout(c.t.Context(), most)
	defer cancel()
	var wg sync.WaitGroup
	each := make([]waits, workers)
	failed := make([]error, workers)
	began := time.Now()
	for w := range workers {
		cl := c.client(through[w%len(through)])
		wg.Go(func() {
			each[w], failed[w] = steady(ctx, cl, w, began, time.Duration(workers/rate*float64(time.Second)))
		})
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			if enough != nil && enough() {
				cancel()
			}
		}
	}
	wg.Wait()
	for w := range workers {
		if failed[w] != nil {
			c.t.Errorf("a client sees %v", failed[w])
		}
		all = append(all, each[w]...)
	}
	slices.Sort(all)
	return all
}

// steady is one client: it begins an operation at every multiple of every until
// ctx ends, or later if the one before is still under way.
func steady(ctx context.Context, cl *redis.Client, number int, began time.Time, every time.Duration) (took waits, failed error) {
	value := strings.Repeat("s", backlogBytes)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i)*every + every*time.Duration(number)/32)
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return took, failed
		case <-timer.C:
		}
		var err error
		if key := fmt.Sprintf("steady:%d:%d", number, i%500); i%1000 < 500 {
			err = cl.Set(context.WithoutCancel(ctx), key, value, 0).Err()
		} else {
			err = cl.Get(context.WithoutCancel(ctx), key).Err()
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("operation %d: %w", i, err)
		}
		took = append(took, time.Since(due))
	}
}

// background is what node i says of its background work.
func (c *processes) background(i int) string {
	c.t.Helper()
	info, err := c.client(i).Info(c.t.Context(), "redynamo").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(info) {
		if strings.HasPrefix(line, "background_") || strings.HasPrefix(line, "foreground_") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	return strings.Join(said, " ")
}

// slices is how many slices of time node i has given to a kind of background work.
func (c *processes) slices(i int, kind string) (granted int64) {
	c.t.Helper()
	resp, err := http.Get("http://" + c.nodes[i].admin + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), fmt.Sprintf(`admission_slices_total{kind=%q,outcome="granted"} `, kind)); ok {
			if granted, err = strconv.ParseInt(n, 10, 64); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	return granted
}
