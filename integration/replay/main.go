// Command replay runs tests of the simulated cluster in a Go runtime that repeats
// itself: one seed and one schedule always give one run, packet by packet, and every
// schedule gives another.
//
//	go run ./integration/replay [-run REGEXP] [-seed N] [-seeds N] [-schedule N] [-schedules N] [-times N]
//
// What a plain `go test` found once comes back under some schedule, and then as often
// as one likes. Schedule 0 takes goroutines as they come; every other one draws the
// order in which those that are ready run.
//
// The runtime is the installed one, with a few lines edited (package rerun). If they do
// not fit, nothing is run, and the exit status is 3. Every run is a process of its own,
// with one processor and no garbage collection, so memory grows with the length of a run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redynamo/redynamo/integration/rerun"
)

// tailBytes is how much of the output of a run that failed is shown.
const tailBytes = 64 << 10

// paddingEnv is the name of what each run of a task has more of than the one before.
const (
	paddingEnv   = "REDYNAMO_REPLAY_PADDING"
	paddingBytes = 10_000
)

func main() {
	r := &runner{}
	flag.StringVar(&r.test, "run", "^TestFaultsLoseNoAcknowledgedWriteInVirtualTime$", "tests to run, as go test takes it")
	flag.IntVar(&r.seed, "seed", 1, "first seed")
	flag.IntVar(&r.seeds, "seeds", 1, "number of seeds")
	flag.IntVar(&r.schedule, "schedule", 0, "first schedule")
	flag.IntVar(&r.schedules, "schedules", 1, "number of schedules of each seed")
	flag.IntVar(&r.times, "times", 1, "how often each is run; all its runs must be one")
	flag.IntVar(&r.parallel, "parallel", runtime.NumCPU(), "processes at a time")
	flag.DurationVar(&r.timeout, "timeout", 10*time.Minute, "of real time, for one run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	bad, err := r.run(ctx)
	stop()
	os.Exit(rerun.Status("replay", bad, err))
}

// runner is one call of the command.
type runner struct {
	test                             string
	seed, seeds, schedule, schedules int
	times, parallel                  int
	timeout                          time.Duration
	binary                           *rerun.Binary
}

// task is one seed under one schedule.
type task struct{ seed, schedule int }

// outcome is what became of a task.
type outcome struct {
	task
	trace string // the last trace line of the first run
	fault string // "" if all went well
	tail  string // of the output of the run that failed
	took  time.Duration
}

// run runs all tasks, and counts those that went wrong.
func (r *runner) run(ctx context.Context) (bad int, err error) {
	dir, err := os.MkdirTemp("", "redynamo-replay-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if r.binary, err = rerun.Build(ctx, dir); err != nil {
		return 0, err
	}
	tasks, outcomes := make(chan task), make(chan outcome)
	var workers sync.WaitGroup
	for range max(1, r.parallel) {
		workers.Go(func() {
			for t := range tasks {
				outcomes <- r.repeat(ctx, t)
			}
		})
	}
	go func() {
		for s := range r.seeds {
			for q := range r.schedules {
				tasks <- task{r.seed + s, r.schedule + q}
			}
		}
		close(tasks)
		workers.Wait()
		close(outcomes)
	}()
	for o := range outcomes {
		if o.fault == "" {
			fmt.Printf("seed %d, schedule %d: ok, %s, %v\n", o.seed, o.schedule, o.trace, o.took.Round(100*time.Millisecond))
			continue
		}
		bad++
		fmt.Printf("seed %d, schedule %d: %s, %s\n%s\nagain: go run ./integration/replay -run '%s' -seed %d -schedule %d\n",
			o.seed, o.schedule, o.fault, o.trace, o.tail, r.test, o.seed, o.schedule)
	}
	fmt.Printf("%d of %d went wrong\n", bad, r.seeds*r.schedules)
	return bad, ctx.Err()
}

// repeat runs a task as often as asked for, each time with more in its environment, so
// that the heap begins elsewhere: what hangs on addresses is not the same run either.
func (r *runner) repeat(ctx context.Context, t task) outcome {
	o := outcome{task: t}
	began := time.Now()
	for i := range max(1, r.times) {
		got := r.binary.Run(ctx, rerun.Run{Test: r.test, Seed: t.seed, Schedule: t.schedule, Timeout: r.timeout,
			Env: []string{paddingEnv + "=" + strings.Repeat("x", i*paddingBytes)}})
		switch {
		case i == 0:
			o.trace = got.Trace
		case got.Trace != o.trace && o.fault == "":
			o.fault = "NOT REPEATED: " + got.Trace + " instead"
		}
		if got.Err != nil && o.fault == "" {
			o.fault, o.tail = "FAILED: "+got.Err.Error(), got.Output[max(0, len(got.Output)-tailBytes):]
		}
	}
	o.took = time.Since(began)
	return o
}
