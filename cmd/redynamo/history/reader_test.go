package history

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

const firstLine = `{"op":"history","version":1}` + "\n"

func TestMalformedLinesAreNamed(t *testing.T) {
	const good = `{"op":"set","session":"a","key":"k","value":"v","result":"ok","begin_us":1,"end_us":2}`
	for _, c := range []struct{ text, want string }{
		{"", "line 1: the file is empty: the first line is to name the format"},
		{"\n\n", "line 1: the file is empty: the first line is to name the format"},
		{good, `line 1: the first line is to be {"op":"history","version":1}`},
		{`{"op":"history","version":2}`, "line 1: version 2 of the format; this program reads 1"},
		{firstLine + firstLine, "line 2: a second first line"},
		{firstLine + good + "\n\nnonsense", "line 4: invalid character"},
		{firstLine + good[:40], "line 2: the line is cut off"},
		{firstLine + good + good, "line 2: something follows the operation"},
		{firstLine + good + " x", "line 2: something follows the operation"},
		{firstLine + `{"op":"set","sesion":"a"}`, `line 2: json: unknown field "sesion"`},
		{firstLine + `null`, "line 2: a line without op"},
		{firstLine + `{"op":"put"}`, `line 2: op "put" is unknown`},
		{firstLine + `{"op":"set","result":"ok"}`, "line 2: set without a value\nset without a key\nset without a session"},
		{firstLine + `{"op":"vctx.set","session":"a","key":"k","value":"v","result":"maybe"}`, "line 2: vctx.set with result \"maybe\": ok, fail or unknown\nvctx.set without a token"},
		{firstLine + `{"op":"vctx.get","session":"a","key":"k","result":"ok","token":"t","begin_us":5}`, "line 2: vctx.get with a token\nvctx.get that ends before it begins"},
		{firstLine + `{"op":"get","session":"a","key":"k","result":"ok","values":[{"value":"a"},{"value":"b"}]}`, "line 2: get with several values"},
		{firstLine + `{"op":"set","session":"a","key":"k","value":"v","result":"ok","ttl_ms":-1}`, "line 2: set with that ttl_ms"},
		{firstLine + `{"op":"set","key":"` + strings.Repeat("k", MaxLineBytes) + `"}`, "line 2: longer than 16777216 bytes"},
	} {
		r := NewReader(strings.NewReader(c.text))
		var o Op
		var err error
		for err == nil {
			err = r.Next(&o)
		}
		var at *LineError
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.100q: %v, want %q", c.text, err, c.want)
		}
		if again := r.Next(&o); again != err {
			t.Errorf("%.100q: after the error: %v", c.text, again)
		}
	}
}

func TestAReaderPassesOnWhatTheDiskSays(t *testing.T) {
	broken := errors.New("broken")
	r := NewReader(io.MultiReader(strings.NewReader(firstLine+"{"), failing{broken}))
	var o Op
	if err := r.Next(&o); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

var update = flag.Bool("update", false, "write golden files anew")

// TestGoldenHistory holds the format: a file of today can be read for ever.
func TestGoldenHistory(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	report, err := Check(bytes.NewReader(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range report.Findings {
		fmt.Fprintf(&got, "%v %v\n", f, f.Lines)
	}
	fmt.Fprintf(&got, "%+v\n", report.Figures)
	const golden = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the golden history comes to\n%s\nwant\n%s", got.String(), want)
	}
	// Written again, it is the same byte for byte.
	r := NewReader(bytes.NewReader(text))
	var o Op
	again := []byte(firstLine)
	for err = r.Next(&o); err == nil; err = r.Next(&o) {
		again = AppendLine(again, &o)
	}
	if !bytes.Equal(again, text) {
		t.Errorf("the golden history is written again as\n%s", again)
	}
}

// FuzzCheck feeds any bytes. Nothing may panic; what is read is written and read
// again as the same; and a history that can be judged is judged alike again.
func FuzzCheck(f *testing.F) {
	golden, err := os.ReadFile("testdata/golden.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(firstLine))
	f.Add([]byte(`{"op":"history","version":1,"calm":true}` + "\n" +
		`{"op":"vctx.set","session":"a","key":"k","value":"v","token":"","next":"t","result":"ok","begin_us":1,"end_us":2}` + "\n" +
		`{"op":"vctx.get","session":"a","key":"k","next":"t","min":"t","values":[{"value":"v"},{"value":"v"}],"result":"ok","begin_us":2,"end_us":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := NewReader(bytes.NewReader(text))
		var o Op
		again := AppendLine(nil, &Op{Kind: Header, Version: Version})
		read := 0
		for r.Next(&o) == nil {
			again = AppendLine(again, &o)
			read++
		}
		second := NewReader(bytes.NewReader(again))
		for i := range read {
			if err := second.Next(&o); err != nil {
				t.Fatalf("operation %d of %q cannot be read again: %v", i, again, err)
			}
		}
		first, err := Check(bytes.NewReader(text), Options{})
		if err != nil || r.Calm() {
			return
		}
		if twice, err := Check(bytes.NewReader(again), Options{}); err != nil || len(twice.Findings) != len(first.Findings) {
			t.Fatalf("judged again: %v, %v; at first %v", twice.Findings, err, first.Findings)
		}
	})
}
