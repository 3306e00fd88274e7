package history

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// told runs a history given as lines without the first one. A line is short:
// words of the form name=value, the first word is the op.
func told(t *testing.T, calm bool, text string) string {
	t.Helper()
	first := Op{Kind: Header, Version: Version, Calm: calm}
	out := string(AppendLine(nil, &first))
	clock := int64(0)
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		clock += 100
		o := parseShort(t, line, clock)
		out += string(AppendLine(nil, &o))
	}
	return out
}

// parseShort reads `set s key a-1 tok> next`, see TestFindings.
func parseShort(t *testing.T, line string, clock int64) Op {
	t.Helper()
	words := strings.Fields(line)
	o := Op{Kind: words[0], Result: OK, BeginUS: clock, EndUS: clock + 50, Node: "n"}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "s":
			o.Session = value
		case "k":
			o.Key = value
		case "v":
			o.Value = value
		case "tok":
			o.Token = With(value)
		case "min":
			o.Min = value
		case "next":
			o.Next = value
		case "ttl":
			fmt.Sscan(value, &o.TTLMS)
		case "r":
			o.Result = Result(value)
		case "n":
			o.Node = value
		case "w":
			fmt.Sscan(value, &o.W)
		case "owners":
			fmt.Sscan(value, &o.Owners)
		case "begin":
			fmt.Sscan(value, &o.BeginUS)
		case "end":
			fmt.Sscan(value, &o.EndUS)
		case "show":
			for _, v := range strings.Split(value, ",") {
				if v != "" {
					val, dot, _ := strings.Cut(v, "@")
					o.Values = append(o.Values, Shown{val, dot})
				}
			}
		case "copies":
			for i, state := range strings.Split(value, ",") {
				role, s, other := strings.Cut(state, ":")
				if !other {
					role, s = Owner, state
				}
				o.Copies = append(o.Copies, Copy{Node: fmt.Sprint("n", i), Role: role, State: s})
			}
		default:
			t.Fatalf("word %q", w)
		}
	}
	return o
}

// TestFindings has a history for each way to break a promise, and for what looks
// like it and is none. A line of want is a kind and the lines of the excerpt, the
// first operation being line 2.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name string
		calm bool
		opts Options
		text string
		want []string
	}{
		{name: "a cart that two clients fill and one joins", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok= next=2
			vctx.get s=a k=c next=3 show=y@B:1,x@A:1
			vctx.set s=a k=c v=z tok=3 next=4
			inspect k=c copies=h,h,h owners=3
			final k=c show=z@A:2`},
		{name: "lost: a write that is nowhere", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok= next=2
			final k=c show=y`, want: []string{"lost 2 4"}},
		{name: "lost: replaced by a write that had seen another", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok= next=2
			vctx.get s=b k=c next=3 show=y
			vctx.set s=b k=c v=z tok=3 next=4
			final k=c show=z`, want: []string{"lost 2 6"}},
		{name: "lost: deleted by somebody who had not seen it", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok= next=2
			vctx.del s=b k=c tok=2 next=3
			final k=c show=`, want: []string{"lost 2 5"}},
		{name: "lost: a delete that failed takes nothing away", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.del s=b k=c tok=1 r=fail
			final k=c show=`, want: []string{"lost 2 4"}},
		{name: "an unknown delete may take it away", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.del s=b k=c tok=1 r=unknown
			final k=c show=`},
		{name: "an unknown delete need not", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.del s=b k=c tok=1 r=unknown
			final k=c show=x`},
		{name: "an unknown write may be there, or replace what it had seen", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok=1 r=unknown
			vctx.set s=b k=d v=y tok= r=unknown
			final k=c show=y
			final k=d show=`},
		{name: "a delete covers with all that its token had seen", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=a k=c v=y tok=1 next=2
			vctx.set s=a k=c v=z tok=2 next=3
			vctx.del s=b k=c tok=3 next=4
			final k=c show=`},
		{name: "an acknowledgement of fewer nodes than burn binds nobody", opts: Options{Binding: Binding{W: 2}}, text: `
			vctx.set s=a k=c v=x tok= next=1 w=1
			vctx.set s=a k=c v=y tok= next=2 w=2
			vctx.set s=a k=c v=z tok= next=3
			final k=c show=`, want: []string{"lost 3 5", "lost 4 5"}},
		{name: "an acknowledgement that comes too late binds nobody", opts: Options{Binding: Binding{UpTo: 200}}, text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=a k=c v=y tok= next=2
			final k=c show=`, want: []string{"lost 2 4"}},
		{name: "resurrected: a deleted value", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=b k=c next=2 show=x
			vctx.del s=b k=c tok=2 next=3
			final k=c show=x`, want: []string{"resurrected 2 3 4 5"}},
		{name: "resurrected: a replaced value, by way of another", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=a k=c v=y tok=1 r=unknown
			vctx.get s=b k=c next=2 show=y
			vctx.get s=b k=c next=2b show=y
			vctx.set s=b k=c v=z tok=2 next=3
			final k=c show=z,x`, want: []string{"resurrected 2 3 4 6 7", "sibling 2 3 4 6 7"}},
		{name: "phantom: a value out of nowhere", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=a k=c next=2 show=x,ghost
			vctx.set s=a k=c v=y tok=2 next=3
			final k=c show=y`, want: []string{"phantom 3"}},
		{name: "phantom: a value of another key", text: `
			vctx.set s=a k=c v=x tok= next=1
			final k=d show=x`, want: []string{"phantom 3"}},
		{name: "phantom: a refused write", text: `
			vctx.set s=a k=c v=x tok= r=fail
			vctx.get s=b k=c next=2 show=x
			vctx.del s=b k=c tok=2 next=3
			final k=c show=`, want: []string{"phantom 2 3"}},
		{name: "a write is shown before its own line", text: `
			vctx.get s=b k=c next=2 show=x
			vctx.set s=a k=c v=x tok= next=1 begin=50
			final k=c show=x`},
		{name: "sibling: a value beside one that had seen it", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=b k=c next=2 show=x
			vctx.set s=b k=c v=y tok=2 next=3
			vctx.get s=a k=c next=4 show=y,x
			final k=c show=y`, want: []string{"sibling 2 3 4 5"}},
		{name: "sibling: shown before the line of its write", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=a k=c next=4 show=y,x
			vctx.set s=b k=c v=y tok=1 next=3 begin=110
			final k=c show=y`, want: []string{"sibling 2 3 4"}},
		{name: "session: a read shows less than it must", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok= next=2
			vctx.get s=a k=c min=1 next=3 show=y
			final k=c show=x,y`, want: []string{"session 2 4"}},
		{name: "session: what was read is gone at the next read", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=b k=c next=2 show=x
			vctx.get s=b k=c min=2 next=3 show=
			final k=c show=x`, want: []string{"session 2 3 4"}},
		{name: "session: a delete that begins later excuses nothing", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=b k=c min=1 next=2 show=
			vctx.del s=b k=c tok=1 next=3
			final k=c show=`, want: []string{"session 2 3"}},
		{name: "a read that must cover what was deleted, or replaced", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=b k=c min=1 next=2 show=
			vctx.del s=c k=c tok=1 next=3 begin=210 r=unknown
			vctx.set s=a k=c v=y tok=1 next=4
			vctx.set s=a k=c v=z tok=4 next=5
			vctx.get s=b k=c min=1 next=6 show=z
			final k=c show=z`},
		{name: "a read without min may be stale", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=a k=c next=2 show=
			final k=c show=x`},
		{name: "dot: of two values", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=a k=c next=2 show=x@A:1
			vctx.set s=b k=c v=y tok=2 next=3
			final k=c show=y@A:1`, want: []string{"dot 3 5"}},
		{name: "dot: two of one value", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=a k=c next=2 show=x@A:1
			final k=c show=x@B:1`, want: []string{"dot 3 4"}},
		{name: "diverged: two owners differ, a hint does not count", text: `
			inspect k=c copies=h,hint:g,h owners=2
			inspect k=d copies=h,g,h owners=3
			inspect k=e copies=h,h owners=3
			inspect k=f copies=h,,h owners=3
			inspect k=g r=unknown`, want: []string{"diverged 3", "diverged 4", "diverged 5", "diverged 6"}},
		{name: "unreadable: a final read fails", text: `
			vctx.set s=a k=c v=x tok= next=1
			final k=c r=unknown`, want: []string{"unreadable 3"}},
		{name: "expired: a value long after its time, and one just after it", text: `
			vctx.set s=a k=c v=x tok= next=1 ttl=5
			vctx.set s=a k=d v=x tok= next=1 ttl=5
			vctx.get s=a k=c next=2 show=x begin=900000 end=900010
			vctx.get s=a k=d next=2 show=x begin=1100000 end=1100010
			final k=c show= begin=1100000 end=1100010
			final k=d show= begin=1100000 end=1100010`, want: []string{"expired 3 5"}},
		{name: "what has expired takes with it what it had seen", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=a k=c v=y tok=1 next=2 ttl=5
			final k=c show= begin=1100000 end=1100010`},
		{name: "lost: before its time", text: `
			vctx.set s=a k=c v=x tok= next=1 ttl=60000
			final k=c show= begin=1100000 end=1100010`, want: []string{"lost 2 3"}},
		{name: "bound: siblings that were not concurrent", calm: true, text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=b k=c next=2 show=
			vctx.set s=b k=c v=y tok=2 next=3
			vctx.get s=a k=c next=4 show=y,x
			final k=c show=y,x`, want: []string{"bound 2 3 4 5"}},
		{name: "siblings of writers that overlap, in a calm history", calm: true, text: `
			vctx.get s=b k=c next=2 show=
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok=2 next=3
			vctx.set s=b k=c v=z tok=3 next=4
			vctx.get s=a k=c next=5 show=z,x
			final k=c show=z,x`},
		{name: "a key without a final line", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.get s=a k=c next=2 show=ghost`, want: []string{"phantom 3"}},
		{name: "plain: the later write of a connection wins", text: `
			set s=a k=p v=x
			set s=a k=p v=y
			final k=p show=x`, want: []string{"resurrected 2 3 4"}},
		{name: "plain: it wins also when the earlier one is still there", text: `
			set s=a k=p v=x n=m
			set s=a k=p v=y n=o
			final k=p show=x,y`},
		{name: "plain: on all connections if there is one clock", opts: Options{OneClock: true}, text: `
			set s=a k=p v=x n=m
			set s=a k=p v=y n=o
			final k=p show=x,y`, want: []string{"lost 2 3 4"}},
		{name: "plain: what a deleted value hid may show", opts: Options{OneClock: true}, text: `
			set s=a k=p v=x n=m
			set s=a k=p v=y n=o
			del s=b k=p
			final k=p show=x`},
		{name: "plain: a session that was not told ok has a new connection", text: `
			set s=a k=p v=x
			set s=a k=q v=y r=unknown
			set s=a k=p v=z
			final k=p show=x,z
			final k=q show=`},
		{name: "plain: concurrent writes may replace each other", text: `
			set s=a k=p v=x
			set s=b k=p v=y
			final k=p show=x
			set s=a k=q v=x
			set s=b k=q v=y
			final k=q show=y`},
		{name: "plain: all is gone and nobody deleted", text: `
			set s=a k=p v=x
			final k=p show=`, want: []string{"lost 2 3"}},
		{name: "plain: a delete before the write excuses nothing", text: `
			del s=a k=p
			set s=a k=p v=x
			del s=b k=q r=unknown
			set s=a k=q v=x
			final k=p show=
			final k=q show=`, want: []string{"lost 3 6"}},
		{name: "plain: a delete on the connection", text: `
			set s=a k=p v=x
			del s=a k=p
			set s=b k=p v=y
			final k=p show=y,x`, want: []string{"resurrected 2 3 5"}},
		{name: "plain: refused, and out of nowhere", text: `
			set s=a k=p v=x r=fail
			get s=a k=p show=x
			get s=a k=p show=ghost
			final k=p show=`, want: []string{"phantom 2 3", "phantom 4"}},
		{name: "a plain write may replace what others wrote with contexts", text: `
			vctx.set s=a k=c v=x tok= next=1
			vctx.set s=b k=c v=y tok=* next=2
			vctx.get s=a k=c next=3 min=1 show=y
			final k=c show=y`},
	} {
		t.Run(c.name, func(t *testing.T) {
			report, err := Check(strings.NewReader(told(t, c.calm, c.text)), c.opts)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range report.Findings {
				got = append(got, strings.Trim(fmt.Sprint(string(f.Kind), f.Lines), "[]"))
			}
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], "[", " ")
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(c.want))
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q: %v", got, want, report.Findings)
			}
			if report.Total() != len(want) {
				t.Errorf("%d findings are counted, want %d", report.Total(), len(want))
			}
		})
	}
}

func TestAConnectionIsHeldToTheKeysItRemembers(t *testing.T) {
	for between, want := range map[int]Kind{rememberedKeys - 1: Resurrected, rememberedKeys: ""} {
		text := "set s=a k=p v=x\n"
		for i := range between {
			text += fmt.Sprintf("get s=a k=o%d show=\n", i)
		}
		text += "set s=a k=p v=y\nfinal k=p show=y,x"
		report, err := Check(strings.NewReader(told(t, false, text)), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want == "" && report.Total() != 0 || want != "" && report.Counts[want] != 1 {
			t.Errorf("%d keys between: %v, want %q", between, report.Findings, want)
		}
	}
}

func TestFiguresCountPlainWritesThatConcurrentOnesReplaced(t *testing.T) {
	report, err := Check(strings.NewReader(told(t, false, `
		set s=a k=p v=old
		set s=a k=p v=x begin=210 end=290
		set s=b k=p v=y begin=220 end=290
		final k=p show=y
		set s=a k=q v=z r=unknown
		set s=b k=q v=w r=fail
		get s=b k=q show=z`)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := Figures{Reads: 1, Acked: 3, Failed: 1, Unknown: 1, Keys: 2, Unjudged: 1, Uninspected: 2, MostSiblings: 1, PlainAcked: 3, PlainReplaced: 1}
	if report.Figures != want || report.Total() != 0 {
		t.Errorf("%+v, want %+v; %v", report.Figures, want, report.Findings)
	}
}

func TestFindingsBeyondTheMostAreCounted(t *testing.T) {
	var text string
	for i := range 7 {
		text += fmt.Sprintf("vctx.set s=a k=c v=x%d tok= next=%d\n", i, i)
	}
	report, err := Check(strings.NewReader(told(t, false, text+"final k=c show=")), Options{MaxFindings: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Findings) != 3 || report.Counts[Lost] != 7 || report.Total() != 7 {
		t.Errorf("%d findings are kept, %v counted", len(report.Findings), report.Counts)
	}
}

func TestLinesThatDoNotFitAreNamed(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"vctx.set s=a k=c v=x tok=9", `line 2: token "9" of key "c" was given out by no earlier line`},
		{"vctx.set s=a k=c v=x tok= next=1\nvctx.get s=a k=d min=1 show=", `line 3: token "1" of key "d" was given out by no earlier line`},
		{"set s=a k=c v=x\nset s=a k=c v=x", `line 3: value "x" of key "c" was written by line 2: values must be unique`},
		{"final k=c show=\nset s=a k=c v=x", `line 3: an operation on key "c", whose final line has been`},
		{"final k=c show=\nget s=a k=c show=", `line 3: an operation on key "c", whose final line has been`},
		{"final k=c show=\nfinal k=c show=", `line 3: a second final line of key "c"`},
		{"final k=c show=\ninspect k=c copies=h", `line 3: the inspect line of key "c" follows its final line`},
		{"set s=a k=c v=x begin=300 end=400\nset s=a k=c v=y begin=350 end=500", `line 3: session "a" begins an operation at 350, before its last one ended at 400`},
		{"vctx.get s=b k=c next=1 show=x\nvctx.set s=a k=c v=y tok= next=2\nvctx.set s=a k=c v=x tok=2", `line 4: value "x" of key "c" was shown by line 2, before the token that it was written with was given out: lines must be in the order in which operations ended`},
	} {
		_, err := Check(strings.NewReader(told(t, false, c.text)), Options{})
		var at *LineError
		if err == nil || !errors.As(err, &at) || err.Error() != c.want {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	_, err := Check(strings.NewReader(told(t, true, "fault")), Options{})
	if err == nil || err.Error() != "line 2: a fault in a history whose first line says that it is calm" {
		t.Errorf("a fault in a calm history: %v", err)
	}
}

func TestShardsTogetherFindWhatOneFinds(t *testing.T) {
	var text string
	for i := range 50 {
		text += fmt.Sprintf("vctx.set s=a k=k%d v=x tok= next=1\nset s=a k=p%d v=x\n", i, i)
	}
	for i := range 50 {
		text += fmt.Sprintf("final k=k%d show=\nfinal k=p%d show=x\n", i, i)
	}
	whole, err := Check(strings.NewReader(told(t, false, text)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	sum := Report{Counts: map[Kind]int{}}
	for shard := range 3 {
		part, err := Check(strings.NewReader(told(t, false, text)), Options{Shards: 3, Shard: shard})
		if err != nil {
			t.Fatal(err)
		}
		if part.Total() == whole.Total() {
			t.Errorf("shard %d of 3 has all findings", shard)
		}
		sum.Merge(part)
	}
	if fmt.Sprint(sum) != fmt.Sprint(whole) {
		t.Errorf("three shards find %v, one %v", sum, whole)
	}
}
