package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files anew")

func runCheck(t *testing.T, args ...string) (status int, out, told string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), append([]string{"check"}, args...), &stdout, &stderr)
	if err != nil {
		told = err.Error()
	}
	return exitStatus(err), stdout.String(), told + stderr.String()
}

func TestCheckPrintsFindingsWithTheirExcerpts(t *testing.T) {
	status, out, told := runCheck(t, "history/testdata/golden.jsonl")
	if status != 1 || told != "3 findings" {
		t.Errorf("status %d, %q", status, told)
	}
	const golden = "testdata/check.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out != string(want) {
		t.Errorf("it prints\n%s\nwant\n%s", out, want)
	}
}

const historyBegin = `{"op":"history","version":1}` + "\n"

func TestCheckExitsWithWhatItFound(t *testing.T) {
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	set := `{"op":"vctx.set","session":"a","key":"k","value":"v","token":"","result":"ok","begin_us":1,"end_us":2}` + "\n"
	clean := write("clean", historyBegin+set+`{"op":"final","key":"k","values":[{"value":"v"}],"result":"ok","begin_us":3,"end_us":4}`+"\n")
	lost := write("lost", historyBegin+set+`{"op":"final","key":"k","result":"ok","begin_us":3,"end_us":4}`+"\n")
	broken := write("broken", historyBegin+set+"nonsense\n")
	for _, c := range []struct {
		args      []string
		status    int
		out, told string
	}{
		{[]string{clean}, 0, "  clean\n", ""},
		{[]string{lost}, 1, "lost: key \"k\": v was acknowledged", "1 findings"},
		{[]string{"--min-w", "3", lost}, 0, "clean", ""},
		{[]string{clean, lost}, 1, "clean", "1 findings"},
		{[]string{broken, lost}, 2, "lost: ", "broken: not judged: line 3: invalid character"},
		{[]string{filepath.Join(t.TempDir(), "none")}, 2, "", "no such file"},
		{[]string{t.TempDir()}, 2, "", "not a file"},
		{nil, 2, "", "expected"},
	} {
		status, out, told := runCheck(t, c.args...)
		if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(told, c.told) {
			t.Errorf("%q: status %d, %q, %q; want %d, %q, %q", c.args, status, out, told, c.status, c.out, c.told)
		}
	}
}

func TestCheckReadsALargeFileInSharesOfItsKeys(t *testing.T) {
	const golden = "history/testdata/golden.jsonl"
	k := &checkCmd{MinW: 1, DefaultW: 2, Findings: 10}
	var whole, shares bytes.Buffer
	n, err := k.one(&console{out: &whole}, golden, bytesPerPass)
	m, err2 := k.one(&console{out: &shares}, golden, 500)
	if err != nil || err2 != nil || n != m || whole.String() != shares.String() {
		t.Errorf("at once: %d findings, %v\n%s\nin shares: %d findings, %v\n%s", n, err, &whole, m, err2, &shares)
	}
}

func TestCheckCountsWhatItDoesNotShow(t *testing.T) {
	text := historyBegin
	for _, v := range []string{"x", "y", "z"} {
		text += `{"op":"vctx.set","session":"` + v + `","key":"k","value":"` + v + `","token":"","result":"ok","begin_us":1,"end_us":2}` + "\n"
	}
	path := filepath.Join(t.TempDir(), "lost")
	if err := os.WriteFile(path, []byte(text+`{"op":"final","key":"k","result":"ok","begin_us":3,"end_us":4}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, told := runCheck(t, "--findings", "1", path)
	if strings.Count(out, "\nlost: ") != 1 || !strings.Contains(out, "and 2 more of kind lost") || told != "3 findings" {
		t.Errorf("it prints\n%s%s", out, told)
	}
}
