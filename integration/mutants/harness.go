package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// harnessNames are the harnesses, the cheapest first.
var harnessNames = []string{"package", "kernelsim", "sim", "glue"}

// sim is a test of clusters in virtual time.
type sim struct {
	name   string
	tests  string // as -test.run takes them
	seeded bool   // another seed is another run
}

// sims are those that mutants name.
var sims = []sim{
	{"faults", "^TestFaultsLoseNoAcknowledgedWriteInVirtualTime$", true},
	{"founder", "^TestAFounderThatHasLostItsLogTakesNothingAloneInVirtualTime$", false},
	{"storms", "^TestStormsLoseNothingInVirtualTime$", true},
	{"deletes", "^TestDeletesHoldWhileTombstonesAreDroppedInVirtualTime$", true},
	{"doom", "^TestALateTombstoneHarmsNoNewValueInVirtualTime$", true},
	{"expiry", "^TestExpiryDropsNoLiveKeyAndRevivesNoneInVirtualTime$", true},
	{"delivery", "^TestFaultsDuringDeliveryLoseNoHintInVirtualTime$", false},
	{"returns", "^TestANodeThatReturnsGetsWhatItMissedInVirtualTime$", false},
	{"budget", "^TestHintsStayWithinTheirBudgetInVirtualTime$", false},
	{"wiped", "^TestAWiped", false},
	{"restored", "^TestARestoredDirectoryIsNoticedAndLosesNothing$", false},
	{"reap", "^Test(DeletesBehind|ADeleteThatAnOwner|AnOldHintHolds|ARecoveringOwnerHolds)", false},
	{"grows", "^TestARingGrowsUnderLoadInVirtualTime$", true},
	{"shrinks", "^TestARingShrinksUnderLoadInVirtualTime$", true},
	{"replaced", "^TestANodeIsReplacedUnderLoadInVirtualTime$", true},
	{"delayed", "^TestAKilledNodeDelaysAChangeAndUndoesNothingInVirtualTime$", true},
	{"forgotten", "^TestADeadNodeIsForgottenAndItsOldDirectoryIsRefusedInVirtualTime$", true},
}

// simsOf are the tests that a mutant names.
func simsOf(m *mutant) (list []sim) {
	for _, name := range strings.Fields(m.sims) {
		for _, s := range sims {
			if s.name == name {
				list = append(list, s)
			}
		}
	}
	return list
}

// kernelsim is the program that plays histories of kernels.
const kernelsim = "integration/kernelsim"

// bench runs mutants.
type bench struct {
	options
	root, dir string
	overlay   string // the list of files with all mutants
	progress  io.Writer
	spentNS   atomic.Int64
	plain     sync.Map // what the unmutated code says, by question: func() error
	binaries  sync.Map // what is built, by path: func() error
}

// spend notes processor time that was spent.
func (b *bench) spend(d time.Duration) { b.spentNS.Add(int64(d)) }

func (b *bench) uses(harness string) bool {
	return slices.Contains(strings.Split(b.harnesses, ","), harness)
}

// finding is what a harness says of a mutant.
type finding struct {
	harness string
	caught  bool
	by      string // which test, and in which run
	line    string // what it says
	took    time.Duration
	runs    int
}

// result is what became of a mutant.
type result struct {
	mutant
	findings []finding
	broken   error // it is not worth anything
}

// caughtBy reports whether one of some harnesses caught it.
func (r *result) caughtBy(harnesses ...string) bool {
	return slices.ContainsFunc(r.findings, func(f finding) bool { return f.caught && slices.Contains(harnesses, f.harness) })
}

// inShort is the result in a line.
func (r *result) inShort() string {
	var parts []string
	for _, f := range r.findings {
		if f.caught {
			parts = append(parts, fmt.Sprintf("%s caught it (%s, %v)", f.harness, f.by, f.took.Round(time.Second)))
		} else {
			parts = append(parts, fmt.Sprintf("%s did not (%d runs, %v)", f.harness, f.runs, f.took.Round(time.Second)))
		}
	}
	if r.broken != nil {
		parts = append(parts, "BROKEN: "+r.broken.Error())
	}
	return strings.Join(parts, "; ")
}

// try runs one mutant through the harnesses.
func (b *bench) try(ctx context.Context, m mutant) result {
	r := result{mutant: m}
	t := &trial{b, &m}
	for _, h := range []struct {
		name string
		fits bool
		run  func(context.Context) (finding, error)
	}{
		{"package", true, t.packageTests},
		{"kernelsim", m.kernel() && !m.apart, t.kernelsim},
		{"sim", m.sims != "", t.sims},
	} {
		system := h.name != "package"
		if !b.uses(h.name) || !h.fits || system && !b.all && r.caughtBy("kernelsim", "sim") {
			continue
		}
		f, err := h.run(ctx)
		if err != nil {
			r.broken = fmt.Errorf("%s: %w", h.name, err)
			return r
		}
		b.spend(f.took)
		f.harness = h.name
		r.findings = append(r.findings, f)
	}
	return r
}

// trial is a mutant that is being run.
type trial struct {
	b *bench
	m *mutant
}

// build builds a program, or the tests of a package, with all mutants.
func (b *bench) build(ctx context.Context, pkg, to string, test bool) error {
	args := []string{"build"}
	if test {
		args = []string{"test", "-c", "-vet=off"}
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-overlay", b.overlay, "-ldflags=-s -w", "-o", to, "./"+pkg)...)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil {
		b.spend(spent(cmd))
	}
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// binary builds a package once.
func (b *bench) binary(ctx context.Context, pkg string, test bool) (string, error) {
	to := filepath.Join(b.dir, "bin-"+strings.ReplaceAll(pkg, "/", "-"))
	if test {
		to += ".test"
	}
	once, _ := b.binaries.LoadOrStore(to, sync.OnceValue(func() error { return b.build(ctx, pkg, to, test) }))
	return to, once.(func() error)()
}

// play is one run of a binary.
type play struct {
	binary, dir string
	args, env   []string
	mutant      string // "": none
}

// played is what came of it.
type played struct {
	out    string
	took   time.Duration // of processor time
	failed bool
	ended  bool // within the limit; else it has not failed
}

// run plays, for so much processor time at most: what else the machine does then says
// nothing of a mutant. Something that waits and does nothing is given up, too.
func (p play) run(ctx context.Context, limit time.Duration) (played, error) {
	const idle = 100 // real time for processor time, at most
	ctx, cancel := context.WithTimeout(ctx, idle*max(limit, time.Second))
	defer cancel()
	seconds := strconv.Itoa(int(max(limit, time.Second) / time.Second))
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `ulimit -t "$0" && exec "$@"`, seconds, p.binary}, p.args...)...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = p.dir, slices.Concat(os.Environ(), p.env, []string{plantedEnv + "=" + p.mutant}), time.Second
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return played{}, err
	}
	r := played{out: b.String(), took: spent(cmd)}
	// The kernel ends what is over its limit by a signal, so there is no exit status.
	r.ended = cmd.ProcessState.Exited()
	r.failed = r.ended && err != nil
	return r, nil
}

// spent is the processor time of a program that has ended, and of those that it ran.
func spent(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// clean checks that the unmutated code passes what a mutant did not, once for each
// question.
func (b *bench) clean(ctx context.Context, p play) error {
	p.mutant = ""
	question := filepath.Base(p.binary) + " " + strings.Join(slices.Concat(p.args, p.env), " ")
	once, _ := b.plain.LoadOrStore(question, sync.OnceValue(func() error {
		r, err := p.run(ctx, plainPatience*b.budget)
		b.spend(r.took)
		switch {
		case err != nil:
			return err
		case !r.ended:
			return fmt.Errorf("the unmutated code does not end: %s", question)
		case r.failed:
			return fmt.Errorf("the unmutated code fails: %s: %s", question, firstFinding(r.out))
		}
		return nil
	}))
	return once.(func() error)()
}

// plainPatience is how many budgets the unmutated code may take: a bug often ends early.
const plainPatience = 5

// packageTests runs the tests of the package that is mutated.
func (t *trial) packageTests(ctx context.Context) (f finding, err error) {
	pkg := t.m.pkg()
	binary, err := t.b.binary(ctx, pkg, true)
	if err != nil {
		return f, err
	}
	p := play{mutant: t.m.name, binary: binary, dir: filepath.Join(t.b.root, filepath.FromSlash(pkg)), args: []string{"-test.failfast"}}
	r, err := p.run(ctx, t.b.budget)
	f.took, f.runs = r.took, 1
	if err != nil || !r.failed {
		return f, err
	}
	f.caught, f.by, f.line = true, failedTest(r.out), firstFinding(r.out)
	return f, t.b.clean(ctx, p)
}

// Of the histories of kernels these are known to be clean: continuous integration plays
// them all, and more.
const (
	firstHistory = 1_000_001
	histories    = 10_000
)

var (
	brokenSeed = regexp.MustCompile(`a promise is broken: seed (\d+): (.*)`)
	playedMany = regexp.MustCompile(`(?m)^(\d+) histories`)
)

// kernelsim plays histories of the mutated kernels.
func (t *trial) kernelsim(ctx context.Context) (f finding, err error) {
	binary, err := t.b.binary(ctx, kernelsim, false)
	if err != nil {
		return f, err
	}
	p := play{mutant: t.m.name, binary: binary, dir: t.b.root, args: []string{"-seed", strconv.Itoa(firstHistory), "-histories", strconv.Itoa(histories), "-workers", "1"}}
	r, err := p.run(ctx, t.b.budget)
	f.took = r.took
	if n := playedMany.FindStringSubmatch(r.out); n != nil {
		f.runs, _ = strconv.Atoi(n[1]) // digits
	}
	if err != nil || !r.failed {
		return f, err
	}
	f.caught, f.by, f.line = true, "a panic", firstFinding(r.out)
	p.args = []string{"-histories", "1000"} // a panic does not say its seed
	if m := brokenSeed.FindStringSubmatch(r.out); m != nil {
		seed, _ := strconv.Atoi(m[1]) // digits
		f.by, f.line = fmt.Sprintf("history %d", seed-firstHistory+1), m[2]
		p.args = []string{"-replay", m[1]}
	}
	return f, t.b.clean(ctx, p)
}

// sims runs clusters in virtual time: the tests that the mutant names by turns, each
// with its first seed, then each with its second, until the budget is spent.
func (t *trial) sims(ctx context.Context) (f finding, err error) {
	const pkg = "integration"
	binary, err := t.b.binary(ctx, pkg, true)
	if err != nil {
		return f, err
	}
	tests := simsOf(t.m)
	for seed := 1; len(tests) > 0; seed++ {
		for _, s := range tests {
			p := play{mutant: t.m.name, binary: binary, dir: filepath.Join(t.b.root, pkg), args: []string{"-test.run", s.tests}, env: []string{fmt.Sprintf("REDYNAMO_SIM_SEED=%d", seed)}}
			if f.took >= t.b.budget {
				return f, nil
			}
			r, err := p.run(ctx, t.b.budget-f.took)
			f.took += r.took
			if err != nil || !r.ended {
				return f, err
			}
			f.runs++
			if r.failed {
				f.caught, f.by, f.line = true, fmt.Sprintf("%s, seed %d", s.name, seed), firstFinding(r.out)
				return f, t.b.clean(ctx, p)
			}
		}
		tests = slices.DeleteFunc(tests, func(s sim) bool { return !s.seeded })
	}
	return f, nil
}
