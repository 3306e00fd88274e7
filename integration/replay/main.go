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
// The runtime is the installed one, with a few lines edited (see edits). If they do
// not fit, nothing is run, and the exit status is 3. Every run is a process of its own,
// with one processor and no garbage collection, so memory grows with the length of a run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names in the environment of a run.
const (
	seedEnv     = "REDYNAMO_SIM_SEED"
	scheduleEnv = "REDYNAMO_REPLAY_SCHEDULE"
)

// tailBytes is how much of the output of a run that failed is shown.
const tailBytes = 8 << 10

// Exit statuses.
const (
	exitFailed = 1
	exitBroken = 2
	exitMisfit = 3
)

func main() {
	r := &runner{dir: "integration"}
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
	defer stop()
	bad, err := r.run(ctx)
	switch {
	case errors.Is(err, errMisfit):
		fmt.Fprintf(os.Stderr, "replay: NOTHING WAS RUN: %v\n", err)
		os.Exit(exitMisfit)
	case err != nil:
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(exitBroken)
	case bad > 0:
		os.Exit(exitFailed)
	}
}

// runner is one call of the command.
type runner struct {
	test                             string
	seed, seeds, schedule, schedules int
	times, parallel                  int
	timeout                          time.Duration
	binary                           string // of the tests
	dir                              string // that it runs in
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
	if err := r.build(ctx, dir); err != nil {
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

// build makes the test binary with the edited runtime.
func (r *runner) build(ctx context.Context, dir string) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	list, err := overlay(strings.TrimSpace(string(root)), dir)
	if err != nil {
		return err
	}
	r.binary = filepath.Join(dir, "integration.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", list, "-ldflags=-checklinkname=0", "-o", r.binary, "./integration")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// repeat runs a task as often as asked for.
func (r *runner) repeat(ctx context.Context, t task) outcome {
	o := outcome{task: t}
	began := time.Now()
	for i := range max(1, r.times) {
		trace, tail, err := r.once(ctx, t)
		switch {
		case i == 0:
			o.trace = trace
		case trace != o.trace && o.fault == "":
			o.fault = "NOT REPEATED: " + trace + " instead"
		}
		if err != nil && o.fault == "" {
			o.fault, o.tail = "FAILED: "+err.Error(), tail
		}
	}
	o.took = time.Since(began)
	return o
}

// traceLine is what a simulated cluster says at its end.
var traceLine = regexp.MustCompile(`trace [0-9a-f]{16} of [0-9]+ events`)

// once runs a task, and returns what it said of its trace, and the end of what it said.
func (r *runner) once(ctx context.Context, t task) (trace, tail string, err error) {
	cmd := exec.CommandContext(ctx, r.binary, "-test.run", r.test, "-test.v", "-test.timeout", r.timeout.String())
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off",
		fmt.Sprintf("%s=%d", seedEnv, t.seed), fmt.Sprintf("%s=%d", scheduleEnv, t.schedule))
	out, err := cmd.CombinedOutput()
	trace = strings.Join(traceLine.FindAllString(string(out), -1), "; ")
	if trace == "" {
		trace = "no trace"
		if err == nil {
			err = errors.New("it ran no simulated cluster")
		}
	}
	return trace, string(out[max(0, len(out)-tailBytes):]), err
}
