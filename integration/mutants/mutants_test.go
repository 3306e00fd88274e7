package main

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// TestMutantsFitTheCode holds that each edit still applies, and that what it makes
// compiles: a mutant that does not is one that nobody has to catch.
func TestMutantsFitTheCode(t *testing.T) {
	check := newChecker(t)
	seen := map[string]bool{}
	for _, m := range mutants() {
		if seen[m.name] || m.breaks == "" || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(m.name) {
			t.Errorf("%s: named twice, or badly, or it breaks nothing", m.name)
		}
		seen[m.name] = true
		if _, err := plant(root, []mutant{m}); err != nil {
			t.Error(err) // each of those that are stale
		}
	}
	if t.Failed() {
		return
	}
	files, err := plant(root, mutants())
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]bool{}
	for file := range files {
		dirs[filepath.Dir(file)] = true
	}
	for dir := range dirs {
		if err := check.compiles(dir, files); err != nil {
			t.Errorf("%v\n%s", err, "the name of a function ends with that of its mutant")
		}
	}
	if len(seen) < 24 {
		t.Errorf("%d mutants are left", len(seen))
	}
}

// TestMutantsNameTestsThatExist holds that no harness runs nothing.
func TestMutantsNameTestsThatExist(t *testing.T) {
	var tests []string
	files, err := filepath.Glob(root + "/integration/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(b, -1) {
			tests = append(tests, string(m[1]))
		}
	}
	for _, s := range sims {
		if !slices.ContainsFunc(tests, regexp.MustCompile(s.tests).MatchString) {
			t.Errorf("%s: no test matches %s", s.name, s.tests)
		}
	}
	for _, m := range mutants() {
		if len(simsOf(&m)) != len(strings.Fields(m.sims)) || m.sims == "" {
			t.Errorf("%s: some of %q is no test", m.name, m.sims)
		}
	}
}

// checker checks the types of edited packages against what is built of all others.
type checker struct {
	set   *token.FileSet
	files map[string][]string // of a directory, as they are built
	types types.Config
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	args := []string{"list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export"}
	dirs := map[string]bool{}
	for _, m := range mutants() {
		for _, e := range m.edits {
			dirs["./"+filepath.Dir(e.file)] = true
		}
	}
	for dir := range dirs {
		args = append(args, dir)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	base, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{set: token.NewFileSet(), files: map[string][]string{}}
	exports := map[string]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath, Dir, Export string
			GoFiles                 []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if dir, err := filepath.Rel(base, p.Dir); err == nil {
			c.files[filepath.ToSlash(dir)] = p.GoFiles
		}
	}
	c.types.Importer = importer.ForCompiler(c.set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	return c
}

// compiles checks a package with some of its files edited.
func (c *checker) compiles(dir string, edited map[string]string) error {
	var parsed []*ast.File
	for _, name := range append(slices.Clone(c.files[dir]), plantedFile) {
		var text any
		if t, is := edited[dir+"/"+name]; is {
			text = t
		}
		f, err := parser.ParseFile(c.set, filepath.Join(root, dir, name), text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed = append(parsed, f)
	}
	_, err := c.types.Check(dir, c.set, parsed, nil)
	return err
}

const hostText = `package host

import "fmt"

func (h *host) one(_ int, more ...string) (n int) {
	n = 1 + 1
	return n * 2
}

func two(string) { fmt.Println("2") }

const three = 3
`

const plantedHost = `package host

import "fmt"

func (h *host) one(unnamed1 int, more ...string) (n int) {
	if plantedMutant == "a-b" {
		return h.one_a_b(unnamed1, more...)
	}

	n = 1 + 1
	return n * 2
}

func two(unnamed0 string) {
	if plantedMutant == "a-b" {
		two_a_b(unnamed0)
		return
	}
 fmt.Println("2") }

const three = 3

func (h *host) one_a_b(_ int, more ...string) (n int) {
	n = 1 - 1
	return n * 3
}

func two_a_b(string) { fmt.Println("4") }
`

func TestAnEditedFunctionStandsBesideTheOther(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte(hostText), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mutant{name: "a-b", edits: []edit{{"a.go", "1 + 1", "1 - 1"}, {"a.go", "n * 2", "n * 3"}, {"a.go", `"2"`, `"4"`}}}
	files, err := plant(dir, []mutant{m})
	if err != nil || files["a.go"] != plantedHost || !strings.HasPrefix(files[plantedFile], "package host\n") {
		t.Errorf("%v\n%s\n%s", err, files["a.go"], files[plantedFile])
	}
	for _, e := range []edit{{"a.go", "none", ""}, {"a.go", "2", ""}, {"a.go", "= 3", ""}, {"b.go", "1 + 1", ""}} {
		if _, err := plant(dir, []mutant{{name: "m", edits: []edit{e}}}); !errors.Is(err, errStale) {
			t.Errorf("%v: %v", e, err)
		}
	}
	for _, edits := range [][]edit{
		{{"a.go", "1 + 1\n\treturn", ""}, {"a.go", "n * 2", ""}, {"a.go", "1\n\treturn n", ""}},
		{{"a.go", "two(string)", "zwei(string)"}},
	} {
		if text, err := plant(dir, []mutant{{name: "m", edits: edits}}); err == nil {
			t.Errorf("%v: %s", edits, text["a.go"])
		}
	}
}

func TestTheFirstFindingIsShown(t *testing.T) {
	for _, c := range []struct{ out, want, test string }{
		{"--- FAIL: TestA (0.1s)\n    --- FAIL: TestA/seed=3 (0.1s)\n        sim_test.go:55: trace 0123456789abcdef of 12 events\n        simhistory_test.go:72: seed 3: I1 lost: x\nFAIL\n", "seed 3: I1 lost: x", "TestA/seed=3"},
		{"--- FAIL: TestA (0.1s)\n--- FAIL: TestB (0.1s)\n", "TestA fails", "TestA"},
		{"faults: seed 1\npanic: version: dot minted twice\n\ngoroutine 1\n", "panic: version: dot minted twice", ""},
		{"line\nlast\n", "last", ""},
	} {
		if got := firstFinding(c.out); got != c.want {
			t.Errorf("firstFinding(%q) = %q, want %q", c.out, got, c.want)
		}
		if got := failedTest(c.out); got != c.test {
			t.Errorf("failedTest(%q) = %q, want %q", c.out, got, c.test)
		}
	}
}

func TestTheTableCountsWhoCaughtWhat(t *testing.T) {
	results := []result{
		{mutant: mutant{name: "a"}, findings: []finding{{harness: "package", caught: true, by: "TestX"}, {harness: "sim"}}},
		{mutant: mutant{name: "b"}, findings: []finding{{harness: "package"}, {harness: "kernelsim"}, {harness: "sim", caught: true, by: "faults, seed 2", line: "lost"}}},
		{mutant: mutant{name: "c"}, findings: []finding{{harness: "package"}, {harness: "sim"}}},
	}
	var out strings.Builder
	if got := printTable(&out, results, func(string) bool { return true }); got != 2 {
		t.Errorf("%d are caught, want 2", got)
	}
	for _, want := range []string{"package tests catch 1 of 3", "whole systems catch 1 of 3 (kernelsim 0, clusters in virtual time 1)", "together they catch 2 of 3", "sim: faults, seed 2, 0s | lost |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestEveryDayBeginsElsewhereAndLeavesOutNothing(t *testing.T) {
	all := mutants()
	begins := map[string]bool{}
	for day := range 2 * len(all) {
		list := turned(all, day)
		if len(list) != len(all) {
			t.Fatalf("day %d has %d of %d", day, len(list), len(all))
		}
		begins[list[0].name] = true
	}
	if len(begins) < len(all)/7 {
		t.Errorf("only %d mutants ever come first", len(begins))
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-harness", "nobody"}, {"-run", "("}, {"-run", "no-such-mutant"}} {
		if err := command(context.Background(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
