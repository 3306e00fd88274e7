package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/redynamo/redynamo/integration/rerun"
)

const (
	storms     = "^TestStormsLoseNothingInVirtualTime$"
	rain       = "^TestFaultsLoseNoAcknowledgedWriteInVirtualTime$"
	rainEvery  = 8
	chunk      = 20_000           // histories of one task
	runTimeout = 30 * time.Minute // of real time, for one run
)

// programs are what is run.
type programs struct {
	cluster *rerun.Binary
	kernels string
}

func buildKernels(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "kernelsim")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "./integration/kernelsim").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
}

func (p *programs) do(ctx context.Context, c config, t task) result {
	if t.histories > 0 {
		return p.histories(ctx, t)
	}
	return p.run(ctx, c, t)
}

// tallyLine is what a run says of itself.
var tallyLine = regexp.MustCompile(`tally (\{.*\})`)

// faultLine is a line in which a test complains.
var faultLine = regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: seed \d+: .*$|^panic: .*$|^fatal error: .*$`)

// run runs one seed of a cluster. Its schedule of goroutines is another for each seed.
func (p *programs) run(ctx context.Context, c config, t task) (r result) {
	test := storms
	if t.seed%rainEvery == 0 {
		test = rain
	}
	o := p.cluster.Run(ctx, rerun.Run{Test: test, Seed: t.seed, Schedule: t.seed, Timeout: runTimeout, Env: []string{fmt.Sprintf("REDYNAMO_SIM_MINUTES=%d", c.minutes)}})
	if ctx.Err() != nil {
		return result{dropped: true}
	}
	r.cpu = o.CPU
	var said struct {
		VirtualS float64 `json:"virtual_s"`
		Faults   int     `json:"faults"`
		Ops      int     `json:"ops"`
	}
	if m := tallyLine.FindStringSubmatch(o.Output); m != nil {
		if err := json.Unmarshal([]byte(m[1]), &said); err != nil {
			o.Err = fmt.Errorf("what it says of itself: %w", err)
		}
	}
	r.virtual, r.faults, r.ops = time.Duration(said.VirtualS*float64(time.Second)), said.Faults, said.Ops
	if o.Err != nil {
		first := faultLine.FindString(o.Output)
		if first == "" {
			first = o.Err.Error()
		}
		r.broken = append(r.broken, violation{
			name: fmt.Sprintf("cluster-%d", t.seed), first: first, output: o.Output,
			again: fmt.Sprintf("REDYNAMO_SIM_MINUTES=%d go run ./integration/replay -run '%s' -seed %d -schedule %d", c.minutes, test, t.seed, t.seed),
		})
	}
	return r
}

// brokenSeed is how kernelsim names the history that broke a promise.
var brokenSeed = regexp.MustCompile(`(?m)^a promise is broken: seed (\d+): .*$`)

// histories plays some histories, and goes on behind each that breaks a promise.
func (p *programs) histories(ctx context.Context, t task) (r result) {
	for seed, end := t.seed, t.seed+t.histories; seed < end; {
		out, err := exec.CommandContext(ctx, p.kernels, "-workers", "1", "-seed", strconv.Itoa(seed), "-histories", strconv.Itoa(end-seed)).CombinedOutput()
		if ctx.Err() != nil {
			return result{dropped: true}
		}
		if err == nil {
			r.histories += end - seed
			return r
		}
		v := violation{name: fmt.Sprintf("histories-%d", seed), first: err.Error(), output: string(out),
			again: fmt.Sprintf("go run ./integration/kernelsim -seed %d -histories %d", seed, end-seed)}
		m := brokenSeed.FindSubmatch(out)
		if m == nil {
			r.broken = append(r.broken, v)
			return r // it did not say where; the rest is not played
		}
		bad, _ := strconv.Atoi(string(m[1])) // digits
		v.name, v.first = fmt.Sprintf("history-%d", bad), string(m[0])
		v.again = fmt.Sprintf("go run ./integration/kernelsim -replay %d -shrink", bad)
		r.broken = append(r.broken, v)
		r.histories += bad + 1 - seed
		seed = bad + 1
	}
	return r
}

var _ worker = (*programs)(nil)
