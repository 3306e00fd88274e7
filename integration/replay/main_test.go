package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/integration/rerun"
)

// TestRunsAreCompared has a program in place of the simulated cluster say what it likes.
func TestRunsAreCompared(t *testing.T) {
	const one, other = "trace 0123456789abcdef of 7 events", "trace 0123456789abcdee of 7 events"
	for name, c := range map[string]struct {
		script, want string
	}{
		"the same twice": {"echo '" + one + "'", ""},
		"another run":    {"if [ -e again ]; then echo '" + other + "'; else touch again; echo '" + one + "'; fi", "NOT REPEATED"},
		"by addresses":   {"echo " + "trace 0123456789abcdef of ${#" + paddingEnv + "} events", "NOT REPEATED"},
		"a failure":      {"echo '" + one + "'; exit 1", "FAILED"},
		"no cluster":     {"echo PASS", "FAILED: rerun: "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			program := filepath.Join(dir, "program")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			r := &runner{binary: &rerun.Binary{Path: program, Dir: dir}, times: 2}
			o := r.repeat(t.Context(), task{seed: 1})
			if c.want == "" && o.fault != "" || !strings.HasPrefix(o.fault, c.want) {
				t.Errorf("fault %q, want %q", o.fault, c.want)
			}
		})
	}
}
