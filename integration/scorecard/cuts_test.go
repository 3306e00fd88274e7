//go:build linux

package main

import (
	"testing"
	"time"
)

// Four members and a joiner, cut into one member with the joiner, and three; later into
// two and two.
func TestACutExcusesOnlyWhatNobodyOnItsSideCouldDo(t *testing.T) {
	zero := time.Now()
	at := func(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }
	var n [5]*node
	for i, name := range []string{"a", "b", "c", "d", "joiner"} {
		n[i] = &node{plain: name}
	}
	c := cuts{
		members: n[:4],
		owners: []map[string][]string{
			{"spread": {"a", "b", "c"}, "right": {"b", "c", "d"}, "moves": {"a", "c", "d"}},
			{"spread": {"a", "b", "c"}, "right": {"b", "c", "d"}, "moves": {"c", "d", "joiner"}},
		},
		made: []cutting{
			{at(10), at(11), at(20), [2][]*node{{n[0], n[4]}, {n[1], n[2], n[3]}}},
			{at(30), at(31), at(40), [2][]*node{{n[0], n[1]}, {n[2], n[3], n[4]}}},
		},
	}
	for _, q := range []struct {
		what     string
		by       *node
		key      string
		from, to float64
		want     bool // it may fail
	}{
		{"before all cuts", n[0], "right", 5, 6, false},
		{"on both sides right after a cut", n[1], "right", 9.9, 10.1, true},
		{"until peers are found out", n[1], "right", 12.9, 14, true},
		{"where there are enough", n[1], "spread", 13.1, 14, false},
		{"where one member is left", n[0], "spread", 14, 15, true},
		{"the same just after", n[0], "spread", 22, 23, true},
		{"the same when all is well", n[0], "spread", 23.1, 24, false},
		{"between two members", n[0], "spread", 35, 36, false},
		{"of a key without owners there by the second ring", n[0], "moves", 35, 36, true},
		{"of a key that has one there", n[0], "right", 35, 36, false},
		{"of a key of which nothing is known", n[0], "else", 35, 36, false},
		{"of the other side", n[3], "moves", 35, 36, false},
	} {
		op := sample{key: q.key, at: at(q.from), took: at(q.to).Sub(at(q.from))}
		if got := c.excuses(q.by, op); got != q.want {
			t.Errorf("%s: excused is %v", q.what, got)
		}
	}
	if !c.ownerless("moves", n[1], at(39), at(41)) || c.ownerless("moves", n[2], at(39), at(41)) || c.ownerless("moves", n[1], at(50), at(51)) {
		t.Error("a read of a key without owners on one side is judged wrong")
	}
	c.made[1].to = time.Time{}
	if !c.ownerless("moves", n[1], at(500), at(501)) {
		t.Error("a cut that was not mended is over")
	}
}

func TestAnOldKeyMustBeShownWhereItHasAnOwner(t *testing.T) {
	zero := time.Now()
	a, z := &node{plain: "a"}, &node{plain: "z"}
	for what, q := range map[string]struct {
		by    *node
		at    time.Duration
		fails bool
	}{
		"on the side without an owner": {z, time.Second, false},
		"on the side with one":         {a, time.Second, true},
		"without a cut":                {z, time.Hour, true},
	} {
		b := &bed{res: &result{}, old: &oldKeys{}}
		b.cuts.owners = []map[string][]string{{"k": {"a"}}}
		b.cuts.made = []cutting{{zero, zero, zero.Add(time.Minute), [2][]*node{{a}, {z}}}}
		b.old.mu.reads = 1000
		b.old.mu.wrong = []wrongRead{{"k", "nothing", q.by, zero.Add(q.at), zero.Add(q.at)}}
		if b.judgeOld(); len(b.res.faults) > 0 != q.fails {
			t.Errorf("%s: %v", what, b.res.faults)
		}
	}
}
