//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// undelivered is lost but for a hint that is kept somewhere.
const undelivered judge.Kind = "in undelivered hints alone"

// findings are broken promises by kind.
type findings map[judge.Kind][]judge.Finding

func findingsOf(r judge.Report) findings {
	f := findings{}
	for _, one := range r.Findings {
		f[one.Kind] = append(f[one.Kind], one)
	}
	return f
}

// faults describes all that is wrong, one line for each kind.
func (f findings) faults() (lines []string) {
	for _, kind := range slices.Concat([]judge.Kind{undelivered}, judge.Kinds) {
		all := f[kind]
		if len(all) == 0 {
			continue
		}
		var few []string
		for _, one := range all[:min(3, len(all))] {
			few = append(few, one.Key+" "+one.What)
		}
		lines = append(lines, fmt.Sprintf("%d %s: %s", len(all), kind, strings.Join(few, "; ")))
	}
	return lines
}

// split moves what is lost of some keys to undelivered.
func (f findings) split(hinted map[string]bool) {
	for _, l := range f[judge.Lost] {
		if hinted[l.Key] {
			f[undelivered] = append(f[undelivered], l)
		}
	}
	f[judge.Lost] = slices.DeleteFunc(f[judge.Lost], func(l judge.Finding) bool { return hinted[l.Key] })
}
