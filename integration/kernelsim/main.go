package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	if err := command(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// command is the program.
func command(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("kernelsim", flag.ContinueOnError)
	histories := fs.Uint64("histories", 10_000, "how many histories to play")
	seed := fs.Uint64("seed", 1, "the seed of the first; the others follow")
	replay := fs.Uint64("replay", 0, "play only the history of this seed, and show it")
	doShrink := fs.Bool("shrink", false, "make a history that fails small before it is shown")
	save := fs.String("save", "", "write the schedule that failed to this file")
	load := fs.String("load", "", "play the schedule in this file, and show it")
	workers := fs.Int("workers", runtime.GOMAXPROCS(0), "how many are played at once")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case *load != "":
		s, err := loadSchedule(*load)
		if err != nil {
			return err
		}
		return show(out, s, *doShrink, *save)
	case *replay != 0:
		return show(out, generate(*replay), *doShrink, *save)
	}
	// What a history needs is little and soon of no use: a collector that begins at
	// four megabytes would run all the time.
	debug.SetGCPercent(gcPercent)
	t := time.Now()
	r := playMany(*seed, *histories, max(*workers, 1), bugs{})
	took := time.Since(t)
	fmt.Fprintf(out, "%d histories from seed %d, %d events, %d operations, in %v: %.0f histories/s\n",
		r.played, *seed, r.events, r.ops, took.Round(time.Millisecond), float64(r.played)/took.Seconds())
	if r.failed == 0 {
		return nil
	}
	return show(out, generate(r.failed), *doShrink, *save)
}

// gcPercent makes the heap of some megabytes grow to some hundreds.
const gcPercent = 2000

// errBroken ends a program that found something.
var errBroken = errors.New("a promise is broken")

// show plays one history and tells it.
func show(out io.Writer, s *Schedule, doShrink bool, save string) error {
	sh := newShared()
	if doShrink {
		s = shrink(s, bugs{}, sh)
	}
	lines, f := transcript(s, bugs{}, sh)
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	if save != "" {
		if err := saveSchedule(save, s); err != nil {
			return err
		}
	}
	if f == nil {
		return nil
	}
	return fmt.Errorf("%w: seed %d: %v", errBroken, s.Seed, f)
}

// transcript plays a history and tells it in lines.
func transcript(s *Schedule, b bugs, sh *shared) ([]string, *failure) {
	lines := []string{fmt.Sprintf("seed %d: %d nodes, %d keys, %d clients, %d decisions, %d messages named, trouble ends at %s",
		s.Seed, s.Nodes, s.Keys, s.Clients, len(s.Decisions), len(s.Fates), clock(s.End))}
	w := newWorld(s, b, sh)
	w.lines = &lines
	w.run()
	return lines, w.failure
}

func loadSchedule(name string) (*Schedule, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	s := &Schedule{}
	return s, json.Unmarshal(b, s)
}

func saveSchedule(name string, s *Schedule) error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

// tally is what came of many histories.
type tally struct {
	played, failed uint64 // failed: the least seed of the failed ones; 0: none
	events, ops    uint64
}

// playMany plays histories of seeds in a row, until one fails. The least of those that
// failed is told, so that it does not depend on the number of workers.
func playMany(seed, n uint64, workers int, b bugs) (r tally) {
	var next atomic.Uint64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			sh, mine := newShared(), tally{}
			for {
				i := next.Add(1) - 1
				mu.Lock()
				stop := i >= n || r.failed != 0 && seed+i > r.failed
				mu.Unlock()
				if stop {
					break
				}
				w := play(generate(seed+i), b, sh)
				mine.played++
				mine.events += uint64(w.events)
				mine.ops += uint64(len(w.ops))
				if w.failure != nil {
					mu.Lock()
					if r.failed == 0 || seed+i < r.failed {
						r.failed = seed + i
					}
					mu.Unlock()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			r.played, r.events, r.ops = r.played+mine.played, r.events+mine.events, r.ops+mine.ops
		})
	}
	wg.Wait()
	return r
}
