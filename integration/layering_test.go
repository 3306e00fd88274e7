package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/redynamo/redynamo/"

// layers is a statement of policy: a package may import, of this module,
// exactly what stands behind its arrow. Rooms meet through small interfaces
// that the consumer declares; only cmd/redynamo/node joins them.
var layers = map[string][]string{
	"replica/version":             {},
	"membership/ring":             {},
	"membership/epoch":            {"membership/ring"},
	"antientropy/merkle":          {},
	"coordinator/quorum":          {"membership/ring", "replica/version"},
	"coordinator/admission/share": {},
	"coordinator/admission":       {"coordinator/admission/share"}, // those who ask it know a func
	"replica/cork":                {},                              // stands between those who ask and those who send
	"replica/storage":             {"replica/version", "replica/cork"},
	"replica/rpc":                 {"replica/version", "replica/cork", "membership/ring", "antientropy/merkle"},
	"replica/handoff":             {"replica/version", "replica/storage", "membership/ring"},
	// A write knows by how much it changes the digest of its cell.
	"replica":     {"replica/version", "replica/storage", "membership/ring", "antientropy/merkle"},
	"membership":  {"membership/ring", "membership/epoch"},
	"antientropy": {"antientropy/merkle", "membership/ring", "replica/version"},
	"coordinator": {"coordinator/quorum", "membership/ring", "replica/version"},
	// resp names the coordinator's types and errors, and speaks of slots,
	// contexts and tokens, which are kernel words.
	"resp":      {"coordinator", "membership/ring", "replica/version", "replica/cork", "resp/glob", "resp/acl", "resp/rdb"},
	"resp/glob": {},
	"resp/acl":  {"resp/glob"},
	"resp/rdb":  {},
	// bubble is of tests alone, everywhere.
	"integration/bubble":  {},
	"integration/simdisk": {},
	"integration/simnet":  {},
	"cmd/redynamo/node":   {"*"},
	"cmd/redynamo":        {"cmd/redynamo/node", "cmd/redynamo/loadgen", "cmd/redynamo/history", "cmd/redynamo/record", "cmd/redynamo/migrate"},
	// migrate reads files and patterns as the doors do.
	"cmd/redynamo/migrate": {"resp/glob", "resp/rdb"},
	"cmd/redynamo/record":  {"cmd/redynamo/history"},
	"cmd/redynamo/history": {},
	"integration":          {"*"},
	"integration/compare":  {"cmd/redynamo/loadgen"},
	// clients drives what other people wrote, and knows a cluster by its addresses.
	"integration/clients": {},
	"integration/drivers": {},
	// These run the tests of integration, and kernelsim, as binaries.
	"integration/rerun":  {},
	"integration/replay": {"integration/rerun"},
	"integration/soak":   {"integration/rerun"},
	// mutants edits production code, and runs tests of it, as binaries.
	"integration/mutants": {},
	// kernelsim has glue of its own around the kernels, and nothing else.
	"integration/kernelsim": {"replica/version", "membership/ring", "membership/epoch", "antientropy/merkle", "coordinator/quorum"},
	// scorecard knows the program only as a binary, as users do, but for its judge.
	"integration/scorecard": {"cmd/redynamo/history"},
	"cmd/redynamo/loadgen":  {},
}

// kernels are arithmetic: time and randomness are arguments, and nothing waits.
var kernels = []string{"replica/version", "membership/ring", "membership/epoch", "antientropy/merkle", "coordinator/quorum", "coordinator/admission/share", "resp/glob", "resp/acl"}

// bannedInKernels names what would let a kernel wait, look at the world or be
// changed from two sides at once.
var bannedInKernels = []string{"net", "os", "context", "sync", "sync/atomic", "log", "log/slog", "time", "math/rand", "math/rand/v2", "crypto/rand", "io", "runtime", "github.com/VictoriaMetrics/metrics"}

// soleUsers says which packages may know a foreign library, so that replacing
// one is the business of one room.
var soleUsers = map[string][]string{
	// vfs is Pebble's file-system seam: node hands it to storage unopened, and
	// the simulated cluster makes crashable ones.
	"github.com/cockroachdb/pebble/v2":     {"replica/storage"},
	"github.com/cockroachdb/pebble/v2/vfs": {"replica/storage", "cmd/redynamo", "cmd/redynamo/node", "integration", "integration/simdisk"},
	"github.com/hashicorp/memberlist":      {"membership", "integration/simnet", "cmd/redynamo/node"},
	"github.com/tidwall/redcon":            {"resp"},
	"github.com/alecthomas/kong":           {"cmd/redynamo"},
}

// goPackage is one directory of this module with what its non-test files import.
type goPackage struct {
	path    string
	imports map[string]string // import path -> a file that has it
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*goPackage{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") && path != root {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		rel, _ := filepath.Rel(root, filepath.Dir(path))
		p := found[rel]
		if p == nil {
			p = &goPackage{path: filepath.ToSlash(rel), imports: map[string]string{}}
			found[rel] = p
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			name, _ := strconv.Unquote(imp.Path.Value)
			p.imports[name] = filepath.Base(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for _, p := range found {
		all = append(all, *p)
	}
	if len(all) < 10 {
		t.Fatalf("only %d packages found under %s: the walk is wrong", len(all), root)
	}
	return all
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := layers[p.path]
		if !known {
			t.Errorf("package %s has no arrows: add it to layers with the reason it exists", p.path)
			continue
		}
		for imp, file := range p.imports {
			target, own := strings.CutPrefix(imp, module)
			if own && !slices.Contains(allowed, "*") && !slices.Contains(allowed, target) {
				t.Errorf("%s/%s imports %s: not among its arrows %v", p.path, file, target, allowed)
			}
			if own && strings.HasPrefix(target, "cmd/") && !strings.HasPrefix(p.path, "cmd/") && !strings.HasPrefix(p.path, "integration") {
				t.Errorf("%s/%s imports %s: nothing below may know the program", p.path, file, target)
			}
		}
	}
}

func TestKernelsAreArithmetic(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(kernels, p.path) {
			continue
		}
		for imp, file := range p.imports {
			if slices.Contains(bannedInKernels, imp) {
				t.Errorf("kernel %s/%s imports %q", p.path, file, imp)
			}
		}
	}
}

func TestForeignLibrariesHaveOneHome(t *testing.T) {
	for _, p := range packages(t) {
		for imp, file := range p.imports {
			homes, watched := soleUsers[imp]
			if !watched {
				for lib, h := range soleUsers {
					if strings.HasPrefix(imp, lib+"/") {
						homes, watched = h, true
					}
				}
			}
			if watched && !slices.Contains(homes, p.path) {
				t.Errorf("%s/%s imports %s, which belongs to %v", p.path, file, imp, homes)
			}
		}
	}
}

// TestSourceStaysLegible holds the sizes of the style guide: functions of at
// most 70 lines and files of at most 800; and no package is named for being
// useful to others.
func TestSourceStaysLegible(t *testing.T) {
	for _, p := range packages(t) {
		switch base := filepath.Base(p.path); base {
		case "util", "utils", "common", "helpers", "types", "models":
			t.Errorf("package %s: name the noun instead", p.path)
		}
		files, _ := filepath.Glob(filepath.Join("..", filepath.FromSlash(p.path), "*.go"))
		for _, name := range files {
			if !strings.HasSuffix(name, "_test.go") {
				measureSource(t, name)
			}
		}
	}
}

// TestSourceHasOneDoorToVirtualTime: a bubble that is not made by package
// bubble now and then ends the process under the race detector.
func TestSourceHasOneDoorToVirtualTime(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || filepath.Base(filepath.Dir(path)) == "bubble" {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "synctest."+"Test(") {
			t.Errorf("%s makes a bubble: integration/bubble does it", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func measureSource(t *testing.T, name string) {
	t.Helper()
	const fileLines, functionLines = 800, 70
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := set.File(f.FileStart).LineCount(); n > fileLines {
		t.Errorf("%s has %d lines, over %d: a noun is hiding", name, n, fileLines)
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; n > functionLines {
			t.Errorf("%s: %s has %d lines, over %d: a noun is hiding", name, fn.Name.Name, n, functionLines)
		}
	}
}
