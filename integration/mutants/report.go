package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var (
	panicked  = regexp.MustCompile(`(?m)^panic: (.*)$`)
	testLine  = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.*)$`)
	failedRun = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	// logs are what tests say that went well so far.
	logs = regexp.MustCompile(`^trace [0-9a-f]{16}|of virtual time|^seed \d+: (the ring of|of \d+ hints|map\[)|hints were home|what happened to that key`)
)

// firstFinding is the first thing that a failed test or program says of its failure.
func firstFinding(out string) string {
	for _, m := range testLine.FindAllStringSubmatch(out, -1) {
		if !logs.MatchString(m[1]) {
			return m[1]
		}
	}
	if m := panicked.FindStringSubmatch(out); m != nil {
		return "panic: " + m[1]
	}
	if name := failedTest(out); name != "" {
		return name + " fails"
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// failedTest is the first test that failed, by the line that the innermost has.
func failedTest(out string) string {
	all := failedRun.FindAllStringSubmatch(out, -1)
	name := ""
	for _, m := range all {
		if !strings.HasPrefix(m[1], name) {
			break
		}
		name = m[1]
	}
	return name
}

// printTable prints one row for each mutant and below it what was caught by whom, and
// returns how many were.
func printTable(out io.Writer, results []result, uses func(string) bool) (caught int) {
	const longest = 110
	fmt.Fprintln(out, "| mutant | what it breaks | package tests | whole systems | first line of the finding |")
	fmt.Fprintln(out, "|---|---|---|---|---|")
	counts := map[string]int{}
	for i := range results {
		r := &results[i]
		local, system, line := "", "", ""
		for _, f := range r.findings {
			cell := &system
			if f.harness == "package" {
				cell = &local
			}
			text := fmt.Sprintf("**no**, %d runs in %v", f.runs, f.took.Round(time.Second))
			if f.harness == "package" && !f.caught {
				text = fmt.Sprintf("**no**, %v", f.took.Round(time.Second))
			}
			if f.caught {
				counts[f.harness]++
				text = fmt.Sprintf("%s, %v", f.by, f.took.Round(time.Second))
			}
			if f.harness != "package" {
				text = f.harness + ": " + text
			}
			*cell = strings.TrimPrefix(*cell+"; "+text, "; ")
			if f.caught && (line == "" || f.harness != "package") {
				line = f.line
			}
		}
		if r.caughtBy("package", "kernelsim", "sim") {
			caught++
		}
		if r.caughtBy("kernelsim", "sim") {
			counts["system"]++
		}
		if r.broken != nil {
			line = "BROKEN: " + r.broken.Error()
		}
		if line = strings.ReplaceAll(line, "\n", " "); len(line) > longest {
			line = line[:longest] + "..."
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", r.name, r.breaks, local, system, strings.ReplaceAll(line, "|", "/"))
	}
	fmt.Fprintln(out)
	n := len(results)
	if uses("package") {
		fmt.Fprintf(out, "package tests catch %d of %d\n", counts["package"], n)
	}
	if uses("kernelsim") || uses("sim") {
		fmt.Fprintf(out, "whole systems catch %d of %d (kernelsim %d, clusters in virtual time %d)\n", counts["system"], n, counts["kernelsim"], counts["sim"])
	}
	fmt.Fprintf(out, "together they catch %d of %d\n", caught, n)
	return caught
}

var (
	glueRun   = regexp.MustCompile(`(?m)^\s+--- (PASS|FAIL): TestMutantsAreFound/(\S+) \(([\d.]+)s\)`)
	glueFound = regexp.MustCompile(`found in history (\d+) as "(\w+)"; (.*)`)
)

// glue prints which of the bugs that kernelsim plants in its own glue it finds.
func (b *bench) glue(ctx context.Context, out io.Writer) error {
	binary, err := b.binary(ctx, kernelsim, true)
	if err != nil {
		return err
	}
	p := play{binary: binary, dir: filepath.Join(b.root, kernelsim), args: []string{"-test.run", "^TestMutantsAreFound$", "-test.v"}}
	r, err := p.run(ctx, plainPatience*b.budget)
	b.spend(r.took)
	text := r.out
	switch {
	case err != nil:
		return err
	case !r.ended:
		return fmt.Errorf("the bugs that kernelsim plants were not all looked for in %v", plainPatience*b.budget)
	}
	fmt.Fprintf(out, "\n| bug in the glue of kernelsim | found in history | as | s |\n|---|---|---|---|\n")
	found := 0
	runs := glueRun.FindAllStringSubmatch(text, -1)
	for _, m := range runs {
		_, rest, _ := strings.Cut(text, "=== RUN   TestMutantsAreFound/"+m[2]+"\n")
		rest, _, _ = strings.Cut(rest, "=== RUN")
		history, as := "**not found**", ""
		if f := glueFound.FindStringSubmatch(rest); f != nil {
			history, as = f[1], f[2]+"; "+f[3]
			found++
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", strings.ReplaceAll(m[2], "-", " "), history, as, m[3])
	}
	fmt.Fprintf(out, "\nkernelsim finds %d of %d\n", found, len(runs))
	if r.failed {
		return fmt.Errorf("TestMutantsAreFound of %s fails: %s", kernelsim, firstFinding(text))
	}
	return nil
}
