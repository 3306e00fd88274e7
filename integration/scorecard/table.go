//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// result is what one row of the scorecard came to.
type result struct {
	row             scenario
	acked           int
	found           findings
	gap             time.Duration // longest one that a client saw while the fault lasted
	p99Ratio        float64       // 0: not measured
	converged       time.Duration // since the fault ended; negative: not in time
	faults          []string      // why the row fails
	notes           []string      // figures besides
	broken          error         // the harness could not do its work
	took            time.Duration
	convergedLooked bool
}

func (r *result) verdict() string {
	switch {
	case r.broken != nil:
		return "ERROR"
	case len(r.faults) > 0:
		return "FAIL"
	}
	return "PASS"
}

// expected reports whether the verdict is the one of a row that lacks what
// known says, or nothing.
func (r *result) expected(known *lack) bool {
	if r.verdict() == "PASS" {
		return known == nil || known.sometimes
	}
	return known != nil && r.verdict() == "FAIL" && !slices.ContainsFunc(r.faults, func(fault string) bool {
		return !slices.ContainsFunc(known.shows, func(sign string) bool { return strings.Contains(fault, sign) })
	})
}

// printTable writes one line for each row, and below it why rows fail.
func printTable(w io.Writer, results []*result) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "row\tworkload\tfault\tacked\tlost\tresurrected\tunavailable ms\tp99 ratio\tconverged s\tverdict\t")
	for _, r := range results {
		ratio, converged := "-", "-"
		if r.p99Ratio > 0 {
			ratio = fmt.Sprintf("%.1f", r.p99Ratio)
		}
		if r.convergedLooked {
			converged = fmt.Sprintf("%.1f", r.converged.Seconds())
			if r.converged < 0 {
				converged = "never"
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", r.row.name(), r.row.workload, r.row.fault, r.acked,
			len(r.found[judge.Lost])+len(r.found[judge.Unreadable])+len(r.found[undelivered]), len(r.found[judge.Resurrected]), r.gap.Milliseconds(), ratio, converged, r.verdict())
	}
	_ = tw.Flush() // a lost terminal is told by nothing else either
	for _, r := range results {
		printWhy(w, r)
	}
}

func printWhy(w io.Writer, r *result) {
	var lines []string
	if r.broken != nil {
		lines = append(lines, "error: "+r.broken.Error())
	}
	for _, f := range r.faults {
		lines = append(lines, "fails: "+f)
	}
	for _, n := range r.notes {
		lines = append(lines, "note: "+n)
	}
	switch known := lacking(r.row.name()); {
	case known != nil && r.expected(known):
		lines = append(lines, "expected for now: "+known.why)
	case known != nil:
		lines = append(lines, fmt.Sprintf("unexpected: what was known (%s) shows %q alone", known.why, known.shows))
	case !r.expected(nil):
		lines = append(lines, "unexpected: this row is known to pass")
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\nrow %s, %s (%.0f s):\n  %s\n", r.row.name(), r.row.fault, r.took.Seconds(), strings.Join(lines, "\n  "))
	}
}
