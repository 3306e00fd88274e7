package rerun

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
	if errors.Is(err, ErrMisfit) && os.Getenv("REDYNAMO_REQUIRE") == "" {
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
		from := filepath.Join(root, "src", filepath.FromSlash(file))
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
		case !fits && !errors.Is(err, ErrMisfit):
			t.Errorf("apply(%q) = %q, %v, want a misfit", text, got, err)
		}
	}
	root := t.TempDir()
	if _, err := overlay(root, t.TempDir()); !errors.Is(err, ErrMisfit) {
		t.Errorf("overlay of no Go: %v, want a misfit", err)
	}
}
