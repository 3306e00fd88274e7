package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEditsFitTheInstalledGo says early and alone what else the command would say.
func TestEditsFitTheInstalledGo(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := strings.TrimSpace(string(out))
	list, err := overlay(root, t.TempDir())
	if errors.Is(err, errMisfit) && os.Getenv("REDYNAMO_REQUIRE") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var o struct{ Replace map[string]string }
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	for _, file := range files() {
		from := filepath.Join(root, "src", "runtime", file)
		was, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		is, err := os.ReadFile(o.Replace[from])
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range editsOf(file) {
			if !strings.Contains(string(is), e.new) {
				t.Errorf("%s lacks %q", file, e.new)
			}
		}
		if string(was) == string(is) {
			t.Errorf("%s is as it was", file)
		}
	}
}

// TestAnotherGoIsNotEdited wants every place to be there exactly once.
func TestAnotherGoIsNotEdited(t *testing.T) {
	e := []edit{{"a.go", "old\n", "new\n"}}
	for text, fits := range map[string]bool{
		"one\nold\ntwo\n":   true,
		"one\ntwo\n":        false,
		"old\none\nold\n":   false,
		"":                  false,
		"old without a end": false,
	} {
		got, err := apply("a.go", text, e)
		switch {
		case fits && (err != nil || got != "one\nnew\ntwo\n"):
			t.Errorf("apply(%q) = %q, %v", text, got, err)
		case !fits && !errors.Is(err, errMisfit):
			t.Errorf("apply(%q) = %q, %v, want a misfit", text, got, err)
		}
	}
	root := t.TempDir()
	if _, err := overlay(root, t.TempDir()); !errors.Is(err, errMisfit) {
		t.Errorf("overlay of no Go: %v, want a misfit", err)
	}
}

// TestRunsAreCompared has a program in place of the simulated cluster say what it likes.
func TestRunsAreCompared(t *testing.T) {
	const one, other = "trace 0123456789abcdef of 7 events", "trace 0123456789abcdee of 7 events"
	for name, c := range map[string]struct {
		script, want string
	}{
		"the same twice": {"echo '" + one + "'", ""},
		"another run":    {"if [ -e again ]; then echo '" + other + "'; else touch again; echo '" + one + "'; fi", "NOT REPEATED"},
		"a failure":      {"echo '" + one + "'; exit 1", "FAILED"},
		"no cluster":     {"echo PASS", "FAILED: it ran no simulated cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			program := filepath.Join(dir, "program")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			r := &runner{binary: program, dir: dir, times: 2}
			o := r.repeat(t.Context(), task{seed: 1})
			if c.want == "" && o.fault != "" || !strings.HasPrefix(o.fault, c.want) {
				t.Errorf("fault %q, want %q", o.fault, c.want)
			}
		})
	}
}
