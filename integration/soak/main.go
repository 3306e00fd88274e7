// Command soak is the long lane of the tests: hours of whole clusters in virtual time
// and histories of clusters of kernels, on all cores, until an amount is done or the
// time is over.
//
//	go run ./integration/soak [-hours N] [-histories N] [-for DURATION] [-from SEED] [-histories-from SEED]
//
// A run of a cluster is one seed in a process of its own, in a runtime that repeats
// itself (package rerun), mostly storms with calm between them, and every eighth time
// the denser rain. What breaks a promise is written down with its seed, its schedule of
// faults and the command that runs it again, and the others go on. The exit status is 1
// if there was any, 3 if the installed Go is not one that can be made to repeat itself.
//
// A line after each run says how far it is, and from which seeds to go on if it is
// stopped: -from and -histories-from take them.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/redynamo/redynamo/integration/rerun"
)

// config is what the flags say.
type config struct {
	hours         float64       // of virtual time
	histories     int           // of kernels
	limit         time.Duration // of real time; 0: none
	from          int           // first seed of clusters
	historiesFrom int           // first seed of histories
	minutes       int           // of storms in a run
	parallel      int
	dir           string // where what broke a promise is written down
}

func main() {
	var c config
	flag.Float64Var(&c.hours, "hours", 10, "hours of virtual time of clusters of nodes")
	flag.IntVar(&c.histories, "histories", 1_000_000, "histories of clusters of kernels")
	flag.DurationVar(&c.limit, "for", 0, "stop after so much real time; 0: when all is done")
	flag.IntVar(&c.from, "from", 1, "first seed of clusters of nodes")
	flag.IntVar(&c.historiesFrom, "histories-from", 1, "first seed of histories")
	flag.IntVar(&c.minutes, "minutes", 20, "virtual minutes of storms in one run")
	flag.IntVar(&c.parallel, "parallel", runtime.NumCPU(), "processes at a time")
	flag.StringVar(&c.dir, "dir", "soak-broken", "directory for what broke a promise")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	bad, err := run(ctx, c)
	stop()
	os.Exit(rerun.Status("soak", bad, err))
}

// run builds the programs, lets them run, and counts what broke a promise.
func run(ctx context.Context, c config) (bad int, err error) {
	dir, err := os.MkdirTemp("", "redynamo-soak-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := &programs{}
	if p.cluster, err = rerun.Build(ctx, dir); err != nil {
		return 0, err
	}
	if p.kernels, err = buildKernels(ctx, dir); err != nil {
		return 0, err
	}
	if c.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.limit)
		defer cancel()
	}
	return newLane(c, os.Stdout).run(ctx, p), nil
}
