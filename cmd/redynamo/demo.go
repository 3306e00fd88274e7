package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
)

// demoCmd runs a whole cluster in one process. Node i has its plain door at
// Port+i, its cluster door at Port+100+i and its admin HTTP at Port+200+i;
// peers talk on Port+300+i and gossip on Port+400+i.
type demoCmd struct {
	serverFlags
	Nodes    int    `help:"Nodes in the cluster." default:"5"`
	Port     int    `help:"Port of the first node's plain door." default:"7001"`
	DataDir  string `help:"Where the nodes keep their data; a fresh temporary directory if not given." type:"path" placeholder:"DIR"`
	LogLevel string `help:"Least important message that is logged: ${enum}." enum:"debug,info,warn,error" default:"warn"`
	Zones    int    `help:"Zones that the nodes are spread over." default:"3"`
}

const (
	demoCluster = 100 // offsets of a node's other ports from its plain door
	demoAdmin   = 200
	demoPeer    = 300
	demoGossip  = 400

	demoMaxNodes = 99 // more would run into the next hundred
)

// readyWithin bounds how long a young cluster may take to find itself.
const readyWithin = 60 * time.Second

// Run starts the nodes, tells where they are, and waits.
func (d *demoCmd) Run(ctx context.Context, con *console) error {
	if d.Nodes < 1 || d.Nodes > demoMaxNodes {
		return fmt.Errorf("nodes (%d) must be in 1..%d", d.Nodes, demoMaxNodes)
	}
	if d.Zones < 1 {
		return fmt.Errorf("zones (%d) must be at least 1", d.Zones)
	}
	if last := d.Port + demoGossip + d.Nodes - 1; d.Port < 1 || last > 65535 {
		return fmt.Errorf("port (%d) must leave room up to %d below 65536", d.Port, last)
	}
	log, level, err := newLogger(con.err, d.LogLevel, d.LogFormat)
	if err != nil {
		return err
	}
	fmt.Fprintf(con.err, "starting %d nodes...\n", d.Nodes)
	dir, fresh := d.DataDir, false
	if dir == "" {
		fresh = true
		if dir, err = os.MkdirTemp("", "redynamo-demo-"); err != nil {
			return err
		}
	}
	nodes, err := d.start(ctx, dir, func(i int, c *node.Config) { c.Logger = log.With("node", i) })
	if err == nil {
		err = awaitReady(ctx, nodes)
	}
	if err != nil {
		err = errors.Join(err, stop(log, nodes...))
		if fresh { // nobody was told of it
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return err
	}
	d.greet(con, dir, fresh)
	ended := make(chan struct{}, len(nodes))
	var up atomic.Int64
	up.Store(int64(len(nodes)))
	for _, n := range nodes {
		go func() {
			select {
			case <-n.Done():
				if n.Err() == nil && up.Add(-1) > 0 { // SHUTDOWN: the others go on
					_ = stop(log, n) // logs what is wrong
					return
				}
				ended <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-ctx.Done():
	case <-ended:
		log.Error("a node ended by itself; stopping the others")
	}
	if level.Level() == slog.LevelWarn {
		level.Set(slog.LevelError) // that the others go is no news to a node that goes
	}
	return stop(log, nodes...)
}

// start brings up all nodes side by side; on an error the ones that did start
// are returned too.
func (d *demoCmd) start(ctx context.Context, dir string, tune func(int, *node.Config)) ([]*node.Node, error) {
	configs := make([]node.Config, d.Nodes)
	for i := range configs {
		var err error
		if configs[i], err = d.nodeConfig(i, dir); err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var nodes []*node.Node
	errs := make([]error, d.Nodes) // in the order of nodes
	for i, cfg := range configs {
		tune(i, &cfg)
		wg.Go(func() {
			n, err := node.Start(ctx, cfg)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[i] = fmt.Errorf("node %d: %w", i, err)
				return
			}
			nodes = append(nodes, n)
		})
	}
	wg.Wait()
	return nodes, errors.Join(errs...)
}

func (d *demoCmd) nodeConfig(i int, dir string) (node.Config, error) {
	cfg, err := d.config()
	if err != nil {
		return node.Config{}, err
	}
	at := func(offset int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.Port+offset+i)) }
	cfg.DataDir = filepath.Join(dir, fmt.Sprintf("node-%d", i))
	cfg.Listen, cfg.ClusterListen, cfg.AdminListen = at(0), at(demoCluster), at(demoAdmin)
	cfg.PeerListen, cfg.GossipListen = at(demoPeer), at(demoGossip)
	cfg.Zone = fmt.Sprintf("zone-%c", 'a'+rune(i%min(d.Zones, 26)))
	cfg.Expect = d.Nodes
	cfg.FastGossip = true
	if i > 0 {
		cfg.Join = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(d.Port+demoGossip))}
	}
	// Five nodes share this machine's memory.
	cfg.RecordCache = max(cfg.RecordCache/int64(d.Nodes), 1<<20)
	cfg.BlockCache = max(cfg.BlockCache/int64(d.Nodes), 8<<20)
	cfg.MemTableBytes = 16 << 20
	return cfg, os.MkdirAll(cfg.DataDir, 0o700)
}

func awaitReady(ctx context.Context, nodes []*node.Node) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for _, n := range nodes {
		if err := n.AwaitReady(ctx); err != nil {
			return fmt.Errorf("waiting for the cluster to form: %w", err)
		}
	}
	return nil
}

// greet prints where everything is and what to try first.
func (d *demoCmd) greet(con *console, dir string, fresh bool) {
	fmt.Fprintf(con.out, "\nredynamo: %d nodes are up, N=%d R=%d W=%d, fsync %s\n\n", d.Nodes, min(d.N, d.Nodes), min(d.R, d.Nodes), min(d.W, d.Nodes), d.Fsync)
	tw := tabwriter.NewWriter(con.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "  node\tany Redis client\tRedis Cluster client\tadmin HTTP")
	for i := range d.Nodes {
		p := d.Port + i
		fmt.Fprintf(tw, "  %d\t127.0.0.1:%d\t127.0.0.1:%d\thttp://127.0.0.1:%d/\n", i, p, p+demoCluster, p+demoAdmin)
	}
	_ = tw.Flush() // a closed terminal is no reason to stop
	last := d.Port + d.Nodes - 1
	fmt.Fprintf(con.out, "\nTry:\n  redis-cli -p %d set cart milk\n  redis-cli -p %d get cart\n  redis-cli -p %d ring status\n", d.Port, last, d.Port)
	if fresh {
		fmt.Fprintf(con.out, "\nThe data lies in %s; give it as --data-dir to come back to it.\n", dir)
	} else {
		fmt.Fprintf(con.out, "\nThe data lies in %s.\n", dir)
	}
	fmt.Fprint(con.out, "Ctrl-C stops the cluster.\n\n")
}
