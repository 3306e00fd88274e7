package acl

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// small is a catalog in which categories overlap and containers bring subcommands
// along.
func small(t testing.TB) *Catalog {
	t.Helper()
	c, err := NewCatalog([]string{"read", "write", "admin", "fast", "slow", "empty"}, []Command{
		{Name: "get", Categories: []string{"read", "fast"}},
		{Name: "set", Categories: []string{"write", "slow"}},
		{Name: "incr", Categories: []string{"write", "fast"}},
		{Name: "select", Categories: []string{"fast"}},
		{Name: "scan", Categories: []string{"read", "slow"}},
		{Name: "auth", Categories: []string{"fast"}, Open: true},
		{Name: "config", Categories: []string{"slow"}, Subcommands: []Command{
			{Name: "set", Categories: []string{"admin", "slow"}}, {Name: "get", Categories: []string{"admin", "fast"}}}},
		{Name: "client", Categories: []string{"slow"}, Subcommands: []Command{
			{Name: "id", Categories: []string{"slow"}}, {Name: "kill", Categories: []string{"admin", "slow"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A model keeps the rules as they came and reads all of them for every question.
type model struct{ rules []string }

// allows walks the rules from the first: the last that speaks of a command decides.
func (m *model) allows(c *Catalog, id ID, first string) bool {
	e := c.entries[id]
	if e.open {
		return true
	}
	names := []string{e.full}
	if e.parent >= 0 {
		names = append(names, c.entries[e.parent].full)
	}
	allowed, with := false, map[string]bool{}
	for _, rule := range m.rules {
		allow, word := rule[0] == '+', strings.ToLower(rule[1:])
		hit := word == "@all" || slices.Contains(names, word)
		if name, ok := strings.CutPrefix(word, "@"); ok && word != "@all" {
			for _, full := range names {
				in, _ := c.In(name)
				hit = hit || slices.Contains(in, full)
			}
		}
		if arg, ok := strings.CutPrefix(word, e.full+"|"); ok && len(e.subs) == 0 && !allowed {
			with[arg] = true
		}
		if hit {
			allowed, with = allow, map[string]bool{}
		}
	}
	return allowed || with[strings.ToLower(first)]
}

// allowsKey asks every pattern of the model's own.
func (m *model) allowsKey(rules []string, name string, access Access) bool {
	merged := map[string]Access{}
	for _, rule := range rules {
		switch {
		case rule == "resetkeys":
			clear(merged)
		case rule[0] == '~':
			merged[rule[1:]] |= Read | Write
		default:
			mark, text, _ := strings.Cut(rule[1:], "~")
			if strings.Contains(mark, "R") {
				merged[text] |= Read
			}
			if strings.Contains(mark, "W") {
				merged[text] |= Write
			}
		}
	}
	for text, can := range merged {
		prefix, star := strings.CutSuffix(text, "*")
		if (text == name || star && strings.HasPrefix(name, prefix)) && can&access == access {
			return true
		}
	}
	return false
}

var commandRules = []string{"+@all", "-@all", "+@read", "-@read", "+@write", "-@write", "+@admin", "-@admin", "+@fast", "-@fast",
	"+@slow", "-@slow", "+@empty", "+get", "-get", "+SET", "-set", "+config", "-config", "+config|get", "-config|get", "+client|kill",
	"-client|kill", "+select|0", "+select|A", "-select", "+select", "+scan|x", "-incr", "+incr"}

func TestCommandsAreJudgedAsTheModelDoes(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	c := small(t)
	for round := range 1500 {
		var m model
		for range rng.IntN(9) {
			m.rules = append(m.rules, commandRules[rng.IntN(len(commandRules))])
		}
		u, err := newUser(c, "u", 1).With(c, m.rules)
		if err != nil {
			t.Fatalf("seed %d round %d: %v: %v", seed, round, m.rules, err)
		}
		again, err := newUser(c, "u", 1).With(c, strings.Fields(u.Root().Commands(c)))
		if err != nil {
			t.Fatalf("seed %d round %d: %v: %q: %v", seed, round, m.rules, u.Root().Commands(c), err)
		}
		for id := range c.entries {
			for _, first := range []string{"", "0", "a", "X"} {
				want := m.allows(c, ID(id), first)
				r := &Request{ID: ID(id), Args: [][]byte{[]byte("x"), []byte(first)}}
				for name, who := range map[string]*User{"as it came": u, "as it is written down": again} {
					if v, _ := who.Check(c, r); (v == Allowed) != want {
						t.Fatalf("seed %d round %d: %v, %s (%q): %s with %q: verdict %d, want allowed %v",
							seed, round, m.rules, name, who.Root().Commands(c), c.entries[id].full, first, v, want)
					}
				}
			}
		}
	}
}

func TestKeysAreJudgedAsTheModelDoes(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	c := small(t)
	rules := []string{"~a", "~ab*", "%R~a*", "%W~a*", "%RW~b", "%WR~c*", "%R~b", "%W~ab", "resetkeys", "~", "%R~c"}
	for round := range 1500 {
		var list []string
		for range rng.IntN(7) {
			list = append(list, rules[rng.IntN(len(rules))])
		}
		u, err := newUser(c, "u", 1).With(c, list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := newUser(c, "u", 1).With(c, strings.Fields(u.Root().Keys()))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"", "a", "ab", "abc", "b", "c", "cc", "d"} {
			for access := range Access(4) {
				want := (&model{}).allowsKey(list, name, access)
				if got := u.Root().allowsKey([]byte(name), access); got != want || again.Root().allowsKey([]byte(name), access) != want {
					t.Fatalf("seed %d round %d: %v: %q for %d: %v, want %v", seed, round, list, name, access, got, want)
				}
			}
		}
	}
}

// TestOneSelectorMustAllowAllOfIt: what two selectors allow together is not allowed.
func TestOneSelectorMustAllowAllOfIt(t *testing.T) {
	c := small(t)
	u, err := newUser(c, "u", 1).With(c, []string{"on", "~a", "&n", "+get", "(%R~b +scan +get)", "(%W~b", "+set", "&m*)"})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		command string
		key     string
		access  Access
		channel string
		want    Verdict
		at      int
	}{
		{"get", "a", Read, "", Allowed, 0},
		{"get", "b", Read, "", Allowed, 0},
		{"get", "b", Write, "", NoKey, 1},
		{"get", "c", Read, "", NoKey, 1},
		{"set", "b", Write, "", Allowed, 0},
		{"set", "b", Read | Write, "", NoKey, 1},
		{"set", "a", Write, "", NoKey, 1},
		{"incr", "a", Write, "", NoCommand, 0},
		{"set", "b", Write, "mm", Allowed, 0},
		{"set", "b", Write, "n", NoChannel, 2},
		{"get", "a", Read, "mm", NoChannel, 2},
		{"auth", "", 0, "", Allowed, 0},
	} {
		id, _ := c.Find(q.command)
		r := &Request{ID: id, Args: [][]byte{nil}}
		if q.key != "" {
			r.Keys = func() []Key { return []Key{{[]byte(q.key), q.access, 1}} }
		}
		if q.channel != "" {
			r.Channels = func() []Channel { return []Channel{{[]byte(q.channel), false, 2}} }
		}
		if v, at := u.Check(c, r); v != q.want || at != q.at {
			t.Errorf("%+v: verdict %d at %d", q, v, at)
		}
	}
}

func TestAPatternIsHeardOnlyIfItIsLiterallyThere(t *testing.T) {
	c := small(t)
	u, err := newUser(c, "u", 1).With(c, []string{"&a*", "(&b)"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]bool{"a": {true, false}, "a*": {true, true}, "ab*": {true, false}, "b": {true, true}, "c": {}} {
		if got := [2]bool{u.MayHear([]byte(name), false), u.MayHear([]byte(name), true)}; got != want {
			t.Errorf("%s: channel and pattern %v, want %v", name, got, want)
		}
	}
}

func TestUsersComeBackFromTheirText(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	c := small(t)
	words := append(slices.Clone(commandRules), "on", "off", "nopass", ">a", ">b b", "~a", "%R~b", "&c", "allkeys", "resetkeys",
		"(+get ~x)", "(+@all %W~y &z", "(", ")", "reset", "clearselectors", "sanitize-payload", "skip-sanitize-payload", "%~x", "~)", "~(x")
	loaded := 0
	for round := range 500 {
		us, err := NewUsers(c)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rng.IntN(5) {
			var rules []string
			for range rng.IntN(8) {
				rules = append(rules, words[rng.IntN(len(words))])
			}
			if next, err := us.With(fmt.Sprint("user", i%3), rules); err == nil {
				us = next
			}
		}
		again, err := us.Load(us.Text(), "f", nil)
		if err != nil || again.Text() != us.Text() {
			t.Fatalf("seed %d round %d: %v\n%s\n%s", seed, round, err, us.Text(), again.Text())
		}
		loaded += len(again.Names()) - 1
	}
	if loaded < 100 {
		t.Errorf("seed %d: only %d users came back: the test proves little", seed, loaded)
	}
}
