//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// TestARowIsToldWhatIsBroken plants what a row can meet into a run in which all
// went well; the judge has tests of its own.
func TestARowIsToldWhatIsBroken(t *testing.T) {
	for _, c := range []struct {
		fault string
		plant func(final map[string][]shown, unequal map[string][]copied)
		bound func(h *history) judge.Binding
		want  string
	}{
		{fault: "none"},
		{fault: "a value that is gone", want: "1 lost: k x was acknowledged", plant: func(final map[string][]shown, _ map[string][]copied) {
			final["k"] = nil
		}},
		{fault: "a value that is gone, from the time that may be lost", plant: func(final map[string][]shown, _ map[string][]copied) {
			final["k"] = nil
		}, bound: func(h *history) judge.Binding { return judge.Binding{UpTo: h.mu.ops[0].EndUS - 1} }},
		{fault: "a value that lies in a hint", want: "1 in undelivered hints alone: h y was acknowledged", plant: func(final map[string][]shown, _ map[string][]copied) {
			final["h"] = nil
		}},
		{fault: "a refused value", want: "1 phantom: k the write of z@c:1 failed, and it is shown", plant: func(final map[string][]shown, _ map[string][]copied) {
			final["k"] = append(final["k"], shown{Value: "z", Dot: "c:1"})
		}},
		{fault: "a key that no read reaches", want: "1 unreadable: k ", plant: func(final map[string][]shown, _ map[string][]copied) {
			delete(final, "k")
		}},
		{fault: "owners that differ", want: "1 diverged: k the owners differ: n1 holds 1, n2 did not answer", plant: func(_ map[string][]shown, unequal map[string][]copied) {
			unequal["k"] = []copied{{Node: "n1", Role: judge.Owner, State: "1"}, {Node: "n2", Role: judge.Owner}}
		}},
		{fault: "owners that could not be asked", want: "1 diverged: k 0 owners answered, and 2 must hold it", plant: func(_ map[string][]shown, unequal map[string][]copied) {
			unequal["k"] = nil
		}},
	} {
		t.Run(c.fault, func(t *testing.T) {
			h := newHistory()
			h.began = h.began.Add(-time.Second)
			cl := newClient(nil, h, 1, []*node{{}})
			for _, w := range []struct {
				key, value string
				err        error
			}{{"k", "x", nil}, {"h", "y", nil}, {"k", "z", errRefused}, {"k", "u", errors.New("no answer")}} {
				o := h.begin(cl, judge.VSet, w.key)
				o.Value, o.Token = w.value, judge.With("")
				h.end(cl, o, w.err)
			}
			final, unequal := map[string][]shown{"k": {{Value: "x"}}, "h": {{Value: "y"}}}, map[string][]copied{}
			if c.plant != nil {
				c.plant(final, unequal)
			}
			var b judge.Binding
			if c.bound != nil {
				b = c.bound(h)
			}
			report, err := h.judge(final, unequal, 2, b)
			if err != nil {
				t.Fatal(err)
			}
			f := findingsOf(report)
			f.split(map[string]bool{"h": true})
			lines := f.faults()
			if c.want == "" && len(lines) > 0 || c.want != "" && (len(lines) != 1 || !strings.HasPrefix(lines[0], c.want)) {
				t.Errorf("told %q, want %q", lines, c.want)
			}
			if h.acknowledged() != 2 || len(h.keys()) != 2 {
				t.Errorf("%d acknowledged on %v", h.acknowledged(), h.keys())
			}
		})
	}
}

// errRefused is what a node answers that has written nothing.
var errRefused = refusal("NOREPLICAS Not enough good replicas to write.")

type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}
