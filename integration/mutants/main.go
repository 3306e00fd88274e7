// Command mutants plants bugs in the production code, one at a time, and counts which
// tests find them. A bug that no test of whole clusters finds is a promise that nobody
// watches.
//
//	go run ./integration/mutants                     all of them
//	go run ./integration/mutants -run 'hint|reap'    some of them
//	go run ./integration/mutants -within 5m          as many as there is time for, others every day
//
// A mutant is some text of a function with another text in its place (see mutant). All
// mutants are built at once, and which of them a binary is to be is said in its
// environment: an edited function becomes two, one of which hands over to the other.
// The files are given to the compiler with -overlay, so the tree is never touched.
//
// # Harnesses
//
//	package    the tests of the package that is mutated
//	kernelsim  integration/kernelsim with the mutated kernels; only for mutants of those
//	sim        clusters in virtual time, those tests that bear on the mutant first
//	glue       the bugs that integration/kernelsim plants in its own glue, by its own test
//
// All but the first are of whole systems. By default each mutant goes through the
// package tests, and through the others until one of them has caught it; -all goes on.
//
// A mutant is caught if a test fails that does not fail without it: the unmutated code
// plays the same seed, and if that fails too, nothing is worth anything, and the exit
// status says so. A test that does not end in its budget catches nothing.
//
// The exit status is 1 if fewer than 95 of 100 mutants are caught, and 2 if an edit does
// not apply any more, if what it makes does not compile, or if the unmutated code fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Exit statuses.
const (
	exitFew    = 1
	exitBroken = 2
)

// enough is the share of mutants that must be caught, in percent.
const enough = 95

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errFew):
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(exitFew)
	default:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(exitBroken)
	}
}

// errFew ends a run in which too many mutants got away.
var errFew = errors.New("too few are caught")

// options are the flags.
type options struct {
	run       string
	harnesses string
	budget    time.Duration
	within    time.Duration
	parallel  int
	all       bool
	list      bool
}

func parse(args []string, out io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&o.run, "run", "", "only mutants whose names match")
	fs.StringVar(&o.harnesses, "harness", strings.Join(harnessNames, ","), "harnesses, with commas")
	fs.DurationVar(&o.budget, "budget", time.Minute, "processor time that one harness may take for one mutant, without building")
	fs.DurationVar(&o.within, "within", 0, "begin no mutant after so long, and begin each day with others; 0: all of them")
	fs.IntVar(&o.parallel, "parallel", runtime.NumCPU(), "mutants at a time")
	fs.BoolVar(&o.all, "all", false, "go on with other harnesses after one has caught a mutant")
	fs.BoolVar(&o.list, "list", false, "only list the mutants")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	for _, h := range strings.Split(o.harnesses, ",") {
		if !slices.Contains(harnessNames, h) {
			return o, fmt.Errorf("no harness is named %q: there are %v", h, harnessNames)
		}
	}
	return o, nil
}

// command is the program.
func command(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	match, err := regexp.Compile(o.run)
	if err != nil {
		return err
	}
	var chosen []mutant
	for _, m := range mutants() {
		if match.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no mutant matches %q", o.run)
	}
	if o.list {
		for _, m := range chosen {
			fmt.Fprintf(out, "%-36s %s: %s\n", m.name, m.pkg(), m.breaks)
		}
		return nil
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return fmt.Errorf("run it where go.mod lies: %w", err)
	}
	dir, err := os.MkdirTemp("", "redynamo-mutants-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{root: root, dir: dir, options: o, progress: progress}
	return b.judge(ctx, chosen, out)
}

// judge runs the mutants, prints the table, and says what is wrong.
func (b *bench) judge(ctx context.Context, chosen []mutant, out io.Writer) error {
	began := time.Now()
	files, err := plant(b.root, mutants())
	if err != nil {
		return err
	}
	if b.overlay, err = overlay(b.root, b.dir, files); err != nil {
		return err
	}
	if b.within > 0 {
		chosen = turned(chosen, int(began.Unix()/86400))
	}
	results, err := b.runAll(ctx, chosen, began)
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return errors.New("there was no time for a single mutant")
	}
	caught := printTable(out, results, b.uses)
	if b.uses("glue") && b.run == "" {
		if err := b.glue(ctx, out); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\n%d of %d mutants were run, in %v, with %v of processor time\n",
		len(results), len(chosen), time.Since(began).Round(time.Second), time.Duration(b.spentNS.Load()).Round(time.Second))
	var broken []error
	for i := range results {
		if r := &results[i]; r.broken != nil {
			broken = append(broken, fmt.Errorf("mutant %s: %w", r.name, r.broken))
		}
	}
	if broken != nil {
		return errors.Join(broken...)
	}
	if 100*caught < enough*len(results) {
		return fmt.Errorf("%w: %d of %d, want %d %%", errFew, caught, len(results), enough)
	}
	return nil
}

// turned is a list that begins elsewhere every day, so that runs for which there is
// little time see all of it within days.
func turned(list []mutant, day int) []mutant {
	const stride = 7
	at := day * stride % len(list)
	return slices.Concat(list[at:], list[:at])
}

// runAll runs the mutants, some at a time, and returns the results of those that were
// begun, in the order of the list.
func (b *bench) runAll(ctx context.Context, chosen []mutant, began time.Time) ([]result, error) {
	results := make([]result, len(chosen))
	next := make(chan int)
	var workers sync.WaitGroup
	for range max(1, b.parallel) {
		workers.Go(func() {
			for i := range next {
				r := b.try(ctx, chosen[i])
				results[i] = r
				fmt.Fprintf(b.progress, "%s: %s\n", r.name, r.inShort())
			}
		})
	}
	for i := range chosen {
		if ctx.Err() != nil || b.within > 0 && time.Since(began) > b.within {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return slices.DeleteFunc(results, func(r result) bool { return r.name == "" }), nil
}
