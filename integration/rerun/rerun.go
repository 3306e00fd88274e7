// Package rerun builds the tests of the simulated cluster with a Go runtime that repeats
// itself, and runs them: one seed and one schedule always give one run, packet by
// packet, and every schedule gives another. Schedule 0 takes goroutines as they come;
// every other one draws the order in which those that are ready run.
//
// The runtime is the installed one, with a few lines edited (see edits). Every run is a
// process of its own, with one processor and no garbage collection, so memory grows
// with the length of a run. The commands integration/replay and integration/soak are
// what calls this.
package rerun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Names in the environment of a run.
const (
	seedEnv     = "REDYNAMO_SIM_SEED"
	scheduleEnv = "REDYNAMO_REPLAY_SCHEDULE"
)

// packageDir is where the tests are, below the directory that a command is run in.
const packageDir = "integration"

// Binary is the tests of the simulated cluster, built.
type Binary struct {
	Path string // of the program
	Dir  string // that it runs in
}

// Build makes the binary below dir. The error is ErrMisfit if the edits do not fit the
// Go that is installed.
func Build(ctx context.Context, dir string) (*Binary, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	list, err := overlay(strings.TrimSpace(string(root)), dir)
	if err != nil {
		return nil, err
	}
	b := &Binary{Path: filepath.Join(dir, "integration.test"), Dir: packageDir}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", list, "-ldflags=-checklinkname=0", "-o", b.Path, "./"+packageDir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	return b, nil
}

// Run is one seed of some tests under one schedule.
type Run struct {
	Test           string // as go test takes it
	Seed, Schedule int
	Timeout        time.Duration // of real time
	Env            []string      // besides
	Args           []string      // of the binary, besides
}

// Outcome is what became of a run.
type Outcome struct {
	Output string
	Trace  string        // sums up all that was sent, of each cluster
	CPU    time.Duration // that it took
	Err    error         // nil if all went well
}

// traceLine is what a simulated cluster says at its end.
var traceLine = regexp.MustCompile(`trace [0-9a-f]{16} of [0-9]+ events`)

// Run runs the binary once.
func (b *Binary) Run(ctx context.Context, r Run) (o Outcome) {
	cmd := exec.CommandContext(ctx, b.Path, append([]string{"-test.run", r.Test, "-test.v", "-test.timeout", r.Timeout.String()}, r.Args...)...)
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off",
		fmt.Sprintf("%s=%d", seedEnv, r.Seed), fmt.Sprintf("%s=%d", scheduleEnv, r.Schedule))
	cmd.Env = append(cmd.Env, r.Env...)
	out, err := cmd.CombinedOutput()
	o = Outcome{Output: string(out), Err: err, Trace: strings.Join(traceLine.FindAllString(string(out), -1), "; ")}
	if s := cmd.ProcessState; s != nil {
		o.CPU = s.UserTime() + s.SystemTime()
	}
	if o.Trace == "" {
		o.Trace = "no trace"
		if err == nil {
			o.Err = fmt.Errorf("rerun: %s with seed %d ran no simulated cluster", r.Test, r.Seed)
		}
	}
	return o
}

// Exit statuses of commands that run tests again.
const (
	exitFailed = 1 // some of what was run
	exitBroken = 2 // nothing can be said
	exitMisfit = 3 // the edits do not fit the Go that is installed
)

// Status is what a command exits with after so many bad runs, or an error, which it says.
func Status(command string, bad int, err error) int {
	switch {
	case errors.Is(err, ErrMisfit):
		fmt.Fprintf(os.Stderr, "%s: NOTHING WAS RUN: %v\n", command, err)
		return exitMisfit
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", command, err)
		return exitBroken
	case bad > 0:
		return exitFailed
	}
	return 0
}
