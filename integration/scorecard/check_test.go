//go:build linux

package main

import (
	"strings"
	"testing"
)

// recorder writes a history by hand.
type recorder struct {
	t *testing.T
	h *history
}

func (r recorder) put(key, value string, past set, f fate) set {
	a := &attempt{value: value, past: past}
	after := r.h.issue(key, a)
	r.h.settle(a, f)
	return after
}

// clean is a run in which all went well: x and y were written at the same time
// and replaced by z; w was deleted; u is of unknown outcome and r was refused.
func clean(t *testing.T) (recorder, map[string][]shown, map[string][]copied) {
	r := recorder{t, newHistory()}
	x, y := r.put("cart", "x", nil, acked), r.put("cart", "y", nil, acked)
	both := r.h.saw("cart", []shown{{"x", "a:1"}, {"y", "b:1"}})
	if want := x.union(y); !both.has(0) || !both.has(1) || len(both) != len(want) {
		t.Fatalf("a read of x and y has seen %b", both)
	}
	r.put("cart", "z", both, acked)
	r.put("cart", "u", nil, unknown)
	r.put("cart", "r", nil, denied)
	w := r.put("gone", "w", nil, acked)
	del := &attempt{past: w}
	r.h.issue("gone", del)
	r.h.settle(del, acked)
	final := map[string][]shown{"cart": {{"z", "a:2"}}, "gone": {}}
	copies := map[string][]copied{
		"cart": {{"n1", "s1", []string{"a:2"}}, {"n2", "s1", []string{"a:2"}}},
		"gone": {{"n1", "s2", nil}, {"n2", "s2", nil}},
	}
	return r, final, copies
}

func TestCheckerPassesACleanHistory(t *testing.T) {
	r, final, copies := clean(t)
	f := r.h.judge(final, copies)
	if lines := f.faults(); len(lines) > 0 {
		t.Errorf("found %q", lines)
	}
}

func TestCheckerPassesAnUnknownWriteThatSurfaces(t *testing.T) {
	r, final, copies := clean(t)
	final["cart"] = append(final["cart"], shown{"u", "c:1"})
	f := r.h.judge(final, copies)
	if lines := f.faults(); len(lines) > 0 {
		t.Errorf("found %q", lines)
	}
}

func TestCheckerBites(t *testing.T) {
	for _, c := range []struct {
		fault string
		plant func(r recorder, final map[string][]shown, copies map[string][]copied)
		want  string
	}{
		{"a dropped acknowledged write", func(r recorder, final map[string][]shown, _ map[string][]copied) {
			r.put("cart", "dropped", nil, acked)
		}, "1 lost"},
		{"a write that replaced what it had not seen", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			final["cart"] = []shown{{"u", "c:1"}}
		}, "3 lost"},
		{"a key that no read reaches", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			delete(final, "cart")
		}, "1 lost"},
		{"a delete undone", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			final["gone"] = []shown{{"w", "c:7"}}
		}, "1 resurrected"},
		{"a replaced value back", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			final["cart"] = append(final["cart"], shown{"x", "a:1"})
		}, "1 resurrected"},
		{"a value out of nowhere", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			final["cart"] = append(final["cart"], shown{"never sent", "d:1"})
		}, "1 phantom"},
		{"a refused write made", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			final["cart"] = append(final["cart"], shown{"r", "d:1"})
		}, "1 phantom"},
		{"a dot that stands for two values", func(_ recorder, final map[string][]shown, _ map[string][]copied) {
			final["cart"] = append(final["cart"], shown{"u", "a:2"})
		}, "1 dot reused"},
		{"a write coordinated twice", func(r recorder, final map[string][]shown, _ map[string][]copied) {
			r.h.saw("cart", []shown{{"z", "b:2"}})
		}, "1 dot reused"},
		{"a false sibling in a read", func(r recorder, _ map[string][]shown, _ map[string][]copied) {
			r.h.saw("cart", []shown{{"z", "a:2"}, {"y", "b:1"}})
		}, "1 false sibling"},
		{"owners that differ", func(_ recorder, _ map[string][]shown, copies map[string][]copied) {
			copies["cart"][1].state = "other"
		}, "1 diverged"},
		{"an owner that is silent", func(_ recorder, _ map[string][]shown, copies map[string][]copied) {
			copies["cart"][0].state = ""
		}, "1 diverged"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			r, final, copies := clean(t)
			c.plant(r, final, copies)
			f := r.h.judge(final, copies)
			lines := strings.Join(f.faults(), "\n")
			if !strings.Contains(lines, c.want) {
				t.Errorf("found %q, want %q", lines, c.want)
			}
		})
	}
}
