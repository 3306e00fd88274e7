package conformance

import (
	"strings"
	"testing"
)

// table is one of an exact entry and a rule.
const table = `# head

== it is older
@ both plain x: > GET k
  redis "$1\r\na\r\n"
  ours  "$1\r\nb\r\n"

== many
of them
@~ any plain y: .*
  redis ".*
  ours  "-ERR .*
`

func judged(t *testing.T, text string, found ...difference) string {
	t.Helper()
	_, reasons, err := parseTable(text)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(judge(reasons, found), "\n")
}

// TestTheTableIsHeldExactly plays with what the servers would have answered.
func TestTheTableIsHeldExactly(t *testing.T) {
	x := difference{"both", "plain x: > GET k", `"$1\r\na\r\n"`, `"$1\r\nb\r\n"`}
	y := difference{"one", "plain y: > FOO", `"+OK\r\n"`, `"-ERR no\r\n"`}
	with := func(d difference, change func(*difference)) difference {
		change(&d)
		return d
	}
	for name, c := range map[string]struct {
		text  string
		found []difference
		fault string // "" none
	}{
		"all is listed":                  {table, []difference{x, y}, ""},
		"one is not listed":              {table, []difference{x, y, with(x, func(d *difference) { d.key = "plain z: > GET k" })}, "not listed: @ both plain z"},
		"a listed one is none any more":  {table, []difference{y}, "listed, but it is no difference, or another: @ both plain x"},
		"a rule covers none any more":    {table, []difference{x}, "no such difference: @~ any plain y"},
		"we answer something else":       {table, []difference{y, with(x, func(d *difference) { d.ours = `"+c\r\n"` })}, "not listed: @ both plain x"},
		"Redis answers something else":   {table, []difference{y, with(x, func(d *difference) { d.redis = `"+c\r\n"` })}, "not listed: @ both plain x"},
		"only one cluster differs":       {table, []difference{y, with(x, func(d *difference) { d.where = "three" })}, "not listed: @ three plain x"},
		"a rule holds our answer":        {table, []difference{x, y, with(y, func(d *difference) { d.ours = `"+OK\r\n"` })}, "not listed: @ one plain y"},
		"a reason is wanted":             {strings.Replace(table, "it is older", unexplained, 1), []difference{x, y}, "no reason"},
		"a reason has entries":           {table + "\n== nothing\n", []difference{x, y}, "no difference is left"},
		"an entry is listed once":        {table + strings.Join(strings.Split(table, "\n")[2:6], "\n"), []difference{x, y}, "listed twice"},
		"replies of a long kind compare": {table, []difference{y, with(x, func(d *difference) { d.redis = show(strings.Repeat("a", 500)) })}, "not listed"},
	} {
		got := judged(t, c.text, c.found...)
		if c.fault == "" && got != "" || !strings.Contains(got, c.fault) {
			t.Errorf("%s: want a fault with %q, got %q", name, c.fault, got)
		}
	}
}

func TestAnUpdateKeepsReasonsAndAsksForNewOnes(t *testing.T) {
	head, reasons, err := parseTable(table)
	if err != nil {
		t.Fatal(err)
	}
	got := revised(head, reasons, []difference{
		{"both", "plain x: > GET k", `"+new\r\n"`, `"+other\r\n"`},
		{"one", "plain y: > FOO", `"+OK\r\n"`, `"-ERR no\r\n"`},
		{"three", "plain z: > GET", `"+a\r\n"`, `"+b\r\n"`},
	})
	want := strings.NewReplacer(`"$1\r\na\r\n"`, `"+new\r\n"`, `"$1\r\nb\r\n"`, `"+other\r\n"`).Replace(table) +
		"\n== " + unexplained + "\n@ three plain z: > GET\n  redis \"+a\\r\\n\"\n  ours  \"+b\\r\\n\"\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if fault := judged(t, got, difference{"three", "plain z: > GET", `"+a\r\n"`, `"+b\r\n"`}); !strings.Contains(fault, "no reason") {
		t.Errorf("what is new needs no reason: %q", fault)
	}
}

// TestAllowancesHideNoMoreThanTheySay compares replies as a step allows.
func TestAllowancesHideNoMoreThanTheySay(t *testing.T) {
	all, err := parseCorpus("== x\n> TIME\n~ \\d+\n~5> TTL k\n> GET k\n")
	if err != nil {
		t.Fatal(err)
	}
	steps := all[0].steps
	for _, c := range []struct {
		step        int
		redis, ours string
		equal       bool
	}{
		{0, ":12\r\n", ":345\r\n", true},
		{0, ":12\r\n", "+12\r\n", false},
		{0, ":12\r\n", ":x\r\n", false},
		{1, ":100\r\n", ":95\r\n", true},
		{1, ":100\r\n", ":94\r\n", false},
		{1, ":100\r\n", "-ERR\r\n", false},
		{2, ":100\r\n", ":101\r\n", false},
	} {
		if _, _, equal, err := steps[c.step].same(c.redis, c.ours); equal != c.equal || err != nil {
			t.Errorf("step %d: %q and %q: equal %v, %v", c.step, c.redis, c.ours, equal, err)
		}
	}
	if _, _, _, err := steps[0].same("+none\r\n", "+none\r\n"); err == nil {
		t.Error("a blank that matches nothing is not noticed")
	}
}

func TestCorpusIsRead(t *testing.T) {
	all, err := parseCorpus("# c\n== a b\n> SET k (3*x) \"\\x00 y\"\n2%> KEYS *\n>> GET k\n> GET k\n2raw (2*\"A\\r\\n\") b\n2closed\nwait 5\n")
	if err != nil {
		t.Fatal(err)
	}
	sc := all[0].keyed()
	if len(all) != 1 || sc.name != "a b" || len(sc.steps) != 7 {
		t.Fatalf("%+v", all)
	}
	s := sc.steps
	if strings.Join(s[0].words, ",") != "SET,k,xxx,\x00 y" || s[1].conn != 1 || !s[1].loose || s[2].kind != queued || s[3].kind != request ||
		s[4].bytes != "A\r\nA\r\nb" || s[4].conn != 1 || s[5].kind != closed || s[6].pause.Milliseconds() != 5 {
		t.Errorf("%+v", s)
	}
	if s[0].key != `a b: > SET k (3*x) "\x00 y"` {
		t.Errorf("key %q", s[0].key)
	}
	for _, bad := range []string{"> GET", "== a\nnosuch", "== a\n~ x", "== a\n> \"x", "== a\n> GET\n~ (", "== a\nwait x"} {
		if _, err := parseCorpus(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
