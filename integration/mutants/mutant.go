package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mutant is a bug: what is to stand in some places instead of what stands there.
type mutant struct {
	name   string
	breaks string // what goes wrong, and which promise that breaks, in a line
	edits  []edit
	// apart: kernelsim has nothing of what is broken.
	apart bool
	// sims names the tests of clusters in virtual time that are tried, in their order:
	// see sims.
	sims string
}

// edit replaces a text that a file has exactly once, inside of one function.
type edit struct {
	file     string // below the root, with slashes
	old, new string
}

// errStale is a mutant that does not fit the code any more.
var errStale = errors.New("the mutant is stale: look where the decision is made now")

// mutants are all of them.
func mutants() []mutant {
	return slices.Concat(versionMutants, quorumMutants, epochMutants, replicaMutants, storageMutants,
		movingMutants, exchangeMutants, diskMutants, coordinatorMutants, nodeMutants)
}

// pkg is the directory of the package that is tested.
func (m *mutant) pkg() string { return path.Dir(m.edits[0].file) }

// kernel reports whether a package is mutated that integration/kernelsim runs.
func (m *mutant) kernel() bool {
	return slices.ContainsFunc(m.edits, func(e edit) bool {
		return slices.Contains([]string{"replica/version", "coordinator/quorum", "membership/ring", "membership/epoch", "antientropy/merkle"}, path.Dir(e.file))
	})
}

// plantedEnv names the mutant that a binary is to be.
const plantedEnv = "REDYNAMO_MUTANT"

// plantedFile is the file that looks at plantedEnv, in each package with mutants.
const plantedFile = "planted_mutant.go"

const plantedText = `package %s

import "os"

var plantedMutant = os.Getenv("` + plantedEnv + `")
`

// plant makes one tree of all mutants, so that all is built once: a function that is
// edited stays as it is, but hands its call over to an edited copy of it if its binary
// is to be that mutant. It returns the files that are new or others than in the tree.
func plant(root string, all []mutant) (map[string]string, error) {
	hosts := map[string]*host{}
	for i := range all {
		for _, e := range all[i].edits {
			h := hosts[e.file]
			if h == nil {
				var err error
				if h, err = readHost(root, e.file); err != nil {
					return nil, fmt.Errorf("%s: %w: %w", all[i].name, errStale, err)
				}
				hosts[e.file] = h
			}
			if err := h.add(all[i].name, e); err != nil {
				return nil, fmt.Errorf("%s: %w: %w", all[i].name, errStale, err)
			}
		}
	}
	files := map[string]string{}
	for file, h := range hosts {
		text, err := h.text()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		files[file] = text
		files[path.Join(path.Dir(file), plantedFile)] = fmt.Sprintf(plantedText, h.file.Name.Name)
	}
	return files, nil
}

// host is a file that mutants are planted in.
type host struct {
	src    []byte
	file   *ast.File
	copies []*copied
}

// copied is a function with the edits of one mutant.
type copied struct {
	mutant string
	of     *ast.FuncDecl
	edits  []edit
}

func readHost(root, file string) (*host, error) {
	src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		return nil, err
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.SkipObjectResolution)
	return &host{src: src, file: f}, err
}

// at is the place of a position in the source.
func (h *host) at(p token.Pos) int { return int(p - h.file.FileStart) }

// add notes an edit.
func (h *host) add(name string, e edit) error {
	if n := bytes.Count(h.src, []byte(e.old)); n != 1 {
		return fmt.Errorf("%s has %q %d times instead of once", e.file, e.old, n)
	}
	from := bytes.Index(h.src, []byte(e.old))
	to := from + len(e.old)
	for _, d := range h.file.Decls {
		fn, is := d.(*ast.FuncDecl)
		if !is || from < h.at(fn.Pos()) || h.at(fn.End()) < to {
			continue
		}
		for _, c := range h.copies {
			if c.mutant == name && c.of == fn {
				c.edits = append(c.edits, e)
				return nil
			}
		}
		h.copies = append(h.copies, &copied{mutant: name, of: fn, edits: []edit{e}})
		return nil
	}
	return fmt.Errorf("%s has %q, but not inside of a function", e.file, e.old)
}

// insertion is text that comes in at some place, in place of so many bytes.
type insertion struct {
	at, instead int
	text        string
}

// text is the file with all its mutants.
func (h *host) text() (string, error) {
	var in []insertion
	var copies strings.Builder
	named := map[*ast.FuncDecl][]string{} // the arguments of functions that hand over
	for _, c := range h.copies {
		if named[c.of] == nil {
			args, names := h.nameArguments(c.of)
			named[c.of] = append([]string{}, args...)
			in = append(in, names...)
		}
		body, err := h.edited(c)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&copies, "\n%s\n", body)
		in = append(in, insertion{h.at(c.of.Body.Lbrace) + 1, 0, handOver(c, named[c.of])})
	}
	slices.SortStableFunc(in, func(a, b insertion) int { return cmp.Compare(a.at, b.at) })
	var out strings.Builder
	done := 0
	for _, i := range in {
		out.Write(h.src[done:i.at])
		out.WriteString(i.text)
		done = i.at + i.instead
	}
	out.Write(h.src[done:])
	return out.String() + copies.String(), nil
}

// nameArguments returns what a function hands over, its receiver first, and names those
// that have no name.
func (h *host) nameArguments(fn *ast.FuncDecl) (args []string, in []insertion) {
	var fields []*ast.Field
	if fn.Recv != nil {
		fields = append(fields, fn.Recv.List...)
	}
	fields = append(fields, fn.Type.Params.List...)
	for _, f := range fields {
		more := ""
		if _, variadic := f.Type.(*ast.Ellipsis); variadic {
			more = "..."
		}
		if len(f.Names) == 0 {
			name := "unnamed" + strconv.Itoa(len(args))
			args, in = append(args, name+more), append(in, insertion{h.at(f.Type.Pos()), 0, name + " "})
		}
		for _, n := range f.Names {
			name := n.Name
			if name == "_" {
				name = "unnamed" + strconv.Itoa(len(args))
				in = append(in, insertion{h.at(n.Pos()), 1, name})
			}
			args = append(args, name+more)
		}
	}
	return args, in
}

// name is that of the copy.
func (c *copied) name() string { return c.of.Name.Name + "_" + strings.ReplaceAll(c.mutant, "-", "_") }

// handOver is the line with which a function hands over to a copy.
func handOver(c *copied, args []string) string {
	call := c.name()
	if c.of.Recv != nil {
		call, args = args[0]+"."+call, args[1:]
	}
	call += "(" + strings.Join(args, ", ") + ")"
	if c.of.Type.Results != nil {
		return fmt.Sprintf("\n\tif plantedMutant == %q {\n\t\treturn %s\n\t}\n", c.mutant, call)
	}
	return fmt.Sprintf("\n\tif plantedMutant == %q {\n\t\t%s\n\t\treturn\n\t}\n", c.mutant, call)
}

// edited is the copy.
func (h *host) edited(c *copied) (string, error) {
	text := string(h.src[h.at(c.of.Pos()):h.at(c.of.End())])
	for _, e := range c.edits {
		if strings.Count(text, e.old) != 1 {
			return "", fmt.Errorf("%s: the edits of %s overlap", c.mutant, c.of.Name.Name)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	at, name := h.at(c.of.Name.Pos())-h.at(c.of.Pos()), c.of.Name.Name
	if !strings.HasPrefix(text[at:], name+"(") {
		return "", fmt.Errorf("%s: an edit must leave the name of %s alone, which takes no types", c.mutant, name)
	}
	return text[:at] + c.name() + text[at+len(name):], nil
}

// overlay writes files into dir, and the list that go build -overlay takes.
func overlay(root, dir string, files map[string]string) (list string, err error) {
	replace := map[string]string{}
	for file, text := range files {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, filepath.FromSlash(file))] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list = filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, b, 0o600)
}
