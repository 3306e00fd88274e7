// Command compare measures a three-node redynamo beside redis-server, on the
// same machine in the same run, and prints throughput, latency and the CPU
// time that all server processes spend on one operation, as figures and as
// ratios.
//
//	go run ./integration/compare [-rounds 3] [-duration 3s]
//
// It is a benchmark, not a test: it judges nothing. Rounds alternate between
// the two stores, so that other work on the machine hits both; each figure is
// the median of its rounds. Everything runs on loopback and ends with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/loadgen"
)

func main() {
	rounds := flag.Int("rounds", 3, "measurements of each row; the median is shown")
	duration := flag.Duration("duration", 3*time.Second, "measured time of one row in one round")
	nodes := flag.Int("nodes", 3, "nodes of the redynamo cluster")
	port := flag.Int("port", 18100, "first of the ports used")
	fsync := flag.String("fsync", "always", "fsync mode of the redynamo cluster")
	keys := flag.Int("keys", 100_000, "distinct keys")
	profile := flag.String("profile", "", "directory for CPU profiles of the first node, one per row")
	ops := flag.String("ops", "set,get", "operations to measure")
	depths := flag.String("pipelines", "1,16", "pipeline depths to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &comparison{rounds: *rounds, nodes: *nodes, port: *port, fsync: *fsync, profile: *profile, ops: strings.Split(*ops, ","), depths: strings.Split(*depths, ","),
		base: loadgen.Config{Clients: 50, Keys: *keys, ValueBytes: 100, Duration: *duration, Warmup: 500 * time.Millisecond}}
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

type comparison struct {
	rounds, nodes, port int
	fsync, profile      string
	ops, depths         []string
	base                loadgen.Config
}

// store is one of the two that are compared.
type store struct {
	name  string
	addrs []string
	admin string // of the first node, for profiles; "" for none
	cmds  []*exec.Cmd
}

func (s *store) pids() (ids []int) {
	for _, c := range s.cmds {
		ids = append(ids, c.Process.Pid)
	}
	return ids
}

// stop ends the processes of s and waits for them.
func (s *store) stop() {
	for _, c := range s.cmds {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended already
	}
	for _, c := range s.cmds {
		_ = c.Wait() // its exit code says nothing about the measurement
	}
}

func (c *comparison) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "redynamo-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	redis, err := c.startRedis(ctx, dir)
	if err != nil {
		return err
	}
	defer redis.stop()
	ours, err := c.startCluster(ctx, dir)
	if ours != nil {
		defer ours.stop()
	}
	if err != nil {
		return err
	}
	for _, s := range []*store{redis, ours} {
		cfg := c.base
		cfg.Addrs = s.addrs
		if err := loadgen.Fill(ctx, cfg); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	fmt.Printf("%d B values, %d connections, %d keys; redynamo: %d nodes, N=3 R=2 W=2, fsync %s; median of %d rounds of %v\n\n",
		c.base.ValueBytes, c.base.Clients, c.base.Keys, c.nodes, c.fsync, c.rounds, c.base.Duration)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "op\tpipeline\tstore\tops/s\tp50 ms\tp99 ms\tp99.9 ms\tcpu us/op\terrors\tcpu ratio\tops ratio\t")
	for _, text := range c.depths {
		depth, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("pipelines: %w", err)
		}
		for _, op := range c.ops {
			if err := c.row(ctx, tw, op, depth, redis, ours); err != nil {
				return err
			}
			_ = tw.Flush() // a lost terminal is no reason to stop
		}
	}
	return nil
}

// row measures one operation at one depth on both stores in turn.
func (c *comparison) row(ctx context.Context, tw *tabwriter.Writer, op string, depth int, redis, ours *store) error {
	results := map[*store][]loadgen.Result{}
	for round := range c.rounds {
		for _, s := range []*store{redis, ours} {
			cfg := c.base
			cfg.Addrs, cfg.PIDs, cfg.Op, cfg.Pipeline, cfg.Seed = s.addrs, s.pids(), op, depth, uint64(round+1)
			profiled := c.beginProfile(s, round, fmt.Sprintf("%s-%d", op, depth))
			res, err := loadgen.Run(ctx, cfg, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			profiled()
			results[s] = append(results[s], res)
		}
	}
	r, o := middle(results[redis]), middle(results[ours])
	for _, x := range []struct {
		s   *store
		res loadgen.Result
	}{{redis, r}, {ours, o}} {
		ratios := "\t\t"
		if x.s == ours {
			ratios = fmt.Sprintf("%.1fx\t%.2fx\t", float64(o.CPUPerOp)/float64(r.CPUPerOp), o.PerSecond()/r.PerSecond())
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%.0f\t%.2f\t%.2f\t%.2f\t%.1f\t%d\t%s\n", op, depth, x.s.name, x.res.PerSecond(),
			ms(x.res.P50), ms(x.res.P99), ms(x.res.P999), float64(x.res.CPUPerOp)/1e3, x.res.Failed(), ratios)
	}
	return nil
}

// beginProfile fetches a CPU profile of s while a row runs; the function it
// returns waits for the end of that.
func (c *comparison) beginProfile(s *store, round int, name string) func() {
	if c.profile == "" || s.admin == "" || round > 0 {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		seconds := max(int(c.base.Duration.Seconds()), 1)
		resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.admin, seconds))
		if err != nil {
			fmt.Fprintln(os.Stderr, "compare: profile:", err)
			return
		}
		defer resp.Body.Close()
		f, err := os.Create(filepath.Join(c.profile, name+".prof"))
		if err == nil {
			_, err = f.ReadFrom(resp.Body)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "compare: profile:", err)
		}
	}()
	return func() { <-done }
}

// middle takes each figure's median over the rounds.
func middle(rs []loadgen.Result) loadgen.Result {
	med := func(of func(loadgen.Result) float64) float64 {
		var xs []float64
		for _, r := range rs {
			xs = append(xs, of(r))
		}
		slices.Sort(xs)
		return xs[len(xs)/2]
	}
	dur := func(of func(loadgen.Result) time.Duration) time.Duration {
		return time.Duration(med(func(r loadgen.Result) float64 { return float64(of(r)) }))
	}
	m := loadgen.Result{Elapsed: time.Second, Ops: int64(med(loadgen.Result.PerSecond)), Errors: map[string]int64{}}
	m.P50 = dur(func(r loadgen.Result) time.Duration { return r.P50 })
	m.P99 = dur(func(r loadgen.Result) time.Duration { return r.P99 })
	m.P999 = dur(func(r loadgen.Result) time.Duration { return r.P999 })
	m.CPUPerOp = dur(func(r loadgen.Result) time.Duration { return r.CPUPerOp })
	for _, r := range rs {
		for word, n := range r.Errors {
			m.Errors[word] += n
		}
	}
	return m
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (c *comparison) startRedis(ctx context.Context, dir string) (*store, error) {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
	s := &store{name: "redis-server, no disk", addrs: []string{addr}}
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(c.port), "--save", "", "--appendonly", "no", "--dir", dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.cmds = append(s.cmds, cmd)
	return s, until(ctx, func() error {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

func (c *comparison) startCluster(ctx context.Context, dir string) (*store, error) {
	path := filepath.Join(dir, "redynamo")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/redynamo/redynamo/cmd/redynamo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	at := func(i, door int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port+1+5*i+door)) }
	s := &store{name: "redynamo", admin: at(0, 4)}
	for i := range c.nodes {
		args := []string{"server", "--data-dir", filepath.Join(dir, fmt.Sprintf("n%d", i)), "--fsync", c.fsync, "--log-level", "warn",
			"--listen", at(i, 0), "--cluster-listen", at(i, 1), "--peer-listen", at(i, 2), "--gossip-listen", at(i, 3), "--admin-listen", at(i, 4),
			"--expect", strconv.Itoa(c.nodes)}
		if i > 0 {
			args = append(args, "--join", at(0, 3))
		}
		cmd := exec.Command(path, args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return s, err
		}
		s.cmds = append(s.cmds, cmd)
		s.addrs = append(s.addrs, at(i, 0))
	}
	for i := range c.nodes {
		err := until(ctx, func() error {
			resp, err := http.Get("http://" + at(i, 4) + "/readyz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			return nil
		})
		if err != nil {
			return s, fmt.Errorf("node %d: %w", i, err)
		}
	}
	return s, nil
}

// until polls cond for half a minute.
func until(ctx context.Context, cond func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
