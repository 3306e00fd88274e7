package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/rerun"
)

// fake is a worker whose runs take no time. Some break a promise.
type fake struct {
	sync.Mutex
	seeds, histories map[int]int
	broken           map[int]bool
	stop             int // the seed at which ctx ends
	cancel           func()
}

func (f *fake) do(_ context.Context, _ config, t task) result {
	f.Lock()
	defer f.Unlock()
	if t.histories > 0 {
		f.histories[t.seed] = t.histories
		return result{histories: t.histories, cpu: time.Second}
	}
	if t.seed == f.stop {
		f.cancel()
		return result{dropped: true}
	}
	f.seeds[t.seed]++
	r := result{virtual: 30 * time.Minute, faults: 50, ops: 5000, cpu: 10 * time.Second}
	if f.broken[t.seed] {
		r.broken = []violation{{name: fmt.Sprint("cluster-", t.seed), first: "lost", again: "again", output: "all of it"}}
	}
	return r
}

func newFake() *fake {
	return &fake{seeds: map[int]int{}, histories: map[int]int{}, broken: map[int]bool{}}
}

func TestEverySeedIsRunOnceAndAViolationStopsNothing(t *testing.T) {
	f := newFake()
	f.broken = map[int]bool{103: true, 107: true}
	var out strings.Builder
	c := config{hours: 10, histories: 50_000, from: 100, historiesFrom: 7, minutes: 20, parallel: 3, dir: filepath.Join(t.TempDir(), "broken")}
	if bad := newLane(c, &out).run(t.Context(), f); bad != 2 {
		t.Errorf("%d broke a promise, want 2", bad)
	}
	// At most as many more as were under way when the length of runs was not known.
	if n := len(f.seeds); n < 20 || n > 22 {
		t.Errorf("%d runs of half an hour, want 20", n)
	}
	for seed, n := range f.seeds {
		if n != 1 || seed < 100 || seed >= 100+len(f.seeds) {
			t.Errorf("seed %d was run %d times", seed, n)
		}
	}
	if f.histories[7] != chunk || f.histories[7+chunk] != chunk || f.histories[7+2*chunk] != 10_000 || len(f.histories) != 3 {
		t.Errorf("histories: %v", f.histories)
	}
	last := out.String()[strings.LastIndex(strings.TrimSpace(out.String()), "\n")+1:]
	want := fmt.Sprintf("(100 faults, 10000 operations and 20.0 CPU seconds in each), 50000 histories, 2 broken; go on with -from %d -histories-from 50007\n", 100+len(f.seeds))
	if !strings.HasSuffix(last, want) {
		t.Errorf("it ends with %q, want %q", last, want)
	}
	b, err := os.ReadFile(filepath.Join(c.dir, "cluster-103.txt"))
	if err != nil || string(b) != "again: again\n\nall of it" {
		t.Errorf("written down: %q, %v", b, err)
	}
}

func TestWhatIsStoppedIsGoneOnWithFromTheLeastSeedThatIsOpen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newFake()
	f.stop, f.cancel = 5, cancel
	var out strings.Builder
	if bad := newLane(config{hours: 1000, from: 1, historiesFrom: 1, minutes: 20, parallel: 2, dir: t.TempDir()}, &out).run(ctx, f); bad != 0 {
		t.Errorf("%d broke a promise", bad)
	}
	if !strings.HasSuffix(out.String(), "go on with -from 5 -histories-from 1\n") {
		t.Errorf("it ends with %q", out.String())
	}
}

// TestHistoriesGoOnBehindOneThatBreaksAPromise has a script in place of kernelsim: history
// 12 breaks a promise.
func TestHistoriesGoOnBehindOneThatBreaksAPromise(t *testing.T) {
	script := filepath.Join(t.TempDir(), "kernelsim")
	text := `#!/bin/sh
# -workers 1 -seed S -histories N
if [ $4 -le 12 ] && [ $(($4 + $6)) -gt 12 ]; then echo "a promise is broken: seed 12: lost"; exit 1; fi
`
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	p := &programs{kernels: script}
	r := p.do(t.Context(), config{}, task{seed: 10, histories: 10})
	if r.histories != 10 || len(r.broken) != 1 || r.broken[0].name != "history-12" || !strings.Contains(r.broken[0].again, "-replay 12") {
		t.Errorf("%+v", r)
	}
}

// TestARunSaysWhatItWas has a script in place of the tests.
func TestARunSaysWhatItWas(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "tests")
	text := `#!/bin/sh
echo '    x_test.go:1: tally {"seed":3,"virtual_s":1800,"faults":70,"ops":6000}'
echo '    x_test.go:2: seed 3: it is lost'
echo 'trace 0123456789abcdef of 7 events'
exit $STATUS
`
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	p := &programs{cluster: &rerun.Binary{Path: script, Dir: dir}}
	for status, broken := range map[string]int{"0": 0, "1": 1} {
		t.Setenv("STATUS", status)
		r := p.do(t.Context(), config{minutes: 20}, task{seed: 3})
		if r.virtual != 30*time.Minute || r.faults != 70 || r.ops != 6000 || len(r.broken) != broken {
			t.Errorf("status %s: %+v", status, r)
		}
		if broken > 0 && (!strings.Contains(r.broken[0].first, "it is lost") || !strings.HasSuffix(r.broken[0].again, "-seed 3 -schedule 3")) {
			t.Errorf("status %s: %+v", status, r.broken[0])
		}
	}
}
