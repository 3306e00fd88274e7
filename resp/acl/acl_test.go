package acl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func rulesFor(t *testing.T, rules ...string) *User {
	t.Helper()
	c := small(t)
	u, err := newUser(c, "u", 1).With(c, rules)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPasswordsAdmit(t *testing.T) {
	for name, q := range map[string]struct {
		rules []string
		given string
		want  bool
	}{
		"the right one":              {[]string{"on", ">a"}, "a", true},
		"one of several":             {[]string{"on", ">a", ">b"}, "b", true},
		"a wrong one":                {[]string{"on", ">a"}, "b", false},
		"none is set":                {[]string{"on"}, "", false},
		"the empty one":              {[]string{"on", ">"}, "", true},
		"any":                        {[]string{"on", "nopass"}, "x", true},
		"any no more":                {[]string{"on", "nopass", ">a"}, "x", false},
		"off":                        {[]string{">a", "off"}, "a", false},
		"off and any":                {[]string{"nopass"}, "a", false},
		"taken back":                 {[]string{"on", ">a", "<a"}, "a", false},
		"all are taken back":         {[]string{"on", "nopass", "resetpass"}, "a", false},
		"its digest":                 {[]string{"on", "#ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}, "a", true},
		"the digest is no password":  {[]string{"on", ">a"}, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", false},
		"its digest is taken back":   {[]string{"on", ">a", "!ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}, "a", false},
		"reset forgets the password": {[]string{"on", ">a", "reset", "on"}, "a", false},
	} {
		if got := rulesFor(t, q.rules...).Admits([]byte(q.given)); got != q.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	var nobody *User
	if nobody.Admits(nil) {
		t.Error("nobody is let in")
	}
}

func TestPasswordsAreNotKept(t *testing.T) {
	u := rulesFor(t, "on", ">opensesame")
	if text := u.Rules(small(t)); strings.Contains(text, "opensesame") || !strings.Contains(text, "#") {
		t.Errorf("written down: %s", text)
	}
}

func TestAFaultChangesNothing(t *testing.T) {
	c := small(t)
	us, err := NewUsers(c)
	if err != nil {
		t.Fatal(err)
	}
	if us, err = us.With("u", []string{"+get", "~a", "(+set)"}); err != nil {
		t.Fatal(err)
	}
	before := us.Text()
	for _, rules := range [][]string{{"+set", "+nosuch"}, {"~b", "foo"}, {"(+get", "~x"}, {"reset", "(on)"}} {
		var fault *RuleError
		if next, err := us.With("u", rules); next != nil || !errors.As(err, &fault) {
			t.Errorf("%v: %v", rules, err)
		}
	}
	changed, err := us.With("u", []string{"-get", "~b", "&c", ">p", "(+get)", "+select|0"})
	if err != nil || changed.Text() == before {
		t.Errorf("%v: %s", err, changed.Text())
	}
	if us.Text() != before {
		t.Errorf("a set that was published has changed:\n%s", us.Text())
	}
}

func TestLimitsOfRulesAndUsers(t *testing.T) {
	c := small(t)
	us, err := NewUsers(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := us.With("u", []string{"~" + strings.Repeat("a", MaxRules-100)}); err != nil {
		t.Error(err)
	}
	if _, err := us.With("u", []string{"~" + strings.Repeat("a", MaxRules)}); !errors.Is(err, errTooLong) {
		t.Errorf("a long pattern: %v", err)
	}
	for name, want := range map[string]error{"": ErrName, "a b": ErrName, "a\x00": ErrName, "a\n": ErrName, "ü": nil, "a|b": nil} {
		if _, err := us.With(name, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	var text strings.Builder
	for i := range MaxUsers - 1 {
		fmt.Fprintf(&text, "user u%d off\n", i)
	}
	full, err := us.Load(text.String(), "f", us.Default())
	if err != nil || len(full.Names()) != MaxUsers {
		t.Fatalf("as many as there may be: %v", err)
	}
	if _, err := full.With("another", nil); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if _, err := full.With("u0", []string{"on"}); err != nil {
		t.Errorf("a change of one that is there: %v", err)
	}
	if _, err := us.Load(text.String()+"user a on\nuser b on\n", "f", us.Default()); err == nil {
		t.Error("a file with too many was taken")
	}
}

func TestAFileIsTakenAsAWholeOrNot(t *testing.T) {
	c := small(t)
	us, err := NewUsers(c, "resetpass", ">p")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                     "",
		"\n \n\t\r\nuser a on +get\r\n":        "",
		"user a on (~x +get) (%R~b)   +set":    "",
		"user default off":                     "",
		"# remark\n":                           "f:1 should start with user keyword followed by the username.",
		"user\n":                               "f:1 should start with user keyword followed by the username.",
		"USER a on\n":                          "f:1 should start with user keyword followed by the username.",
		"user a on\nuser b +nosuch\n":          "f:2: Error in applying operation '+nosuch': Unknown command or category name in ACL.",
		"user a foo\n\nuser b on\nuser b on\n": "f:1: Syntax error. f:4: Duplicate user 'b'.",
		"user a (+get\n":                       "f:1: Unmatched parenthesis in selector definition.",
		"user a %s%d\n":                        "f:1: Syntax error.",
	} {
		next, err := us.Load(text, "f", us.Default())
		switch {
		case want == "" && err != nil, want != "" && (err == nil || err.Error() != want+" "+errLoadNone):
			t.Errorf("%q: %v", text, err)
		case want == "" && next.Default() == nil:
			t.Errorf("%q: there is no default user", text)
		}
	}
}

func TestAUserMadeAnewIsAnother(t *testing.T) {
	c := small(t)
	us, err := NewUsers(c)
	if err != nil {
		t.Fatal(err)
	}
	with := func(us *Users) *Users {
		next, err := us.With("u", []string{"on"})
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	us = with(us)
	old := us.Find("u")
	if !old.Same(with(us).Find("u")) {
		t.Error("a change of the rules made another user")
	}
	gone, n, err := us.Without([]string{"u", "nosuch", "u"})
	if err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	loaded, err := us.Load(us.Text(), "f", us.Default())
	if err != nil {
		t.Fatal(err)
	}
	for name, now := range map[string]*User{"gone": gone.Find("u"), "anew": with(gone).Find("u"), "loaded": loaded.Find("u")} {
		if old.Same(now) {
			t.Errorf("%s: it is the same user", name)
		}
	}
	if !us.Default().Same(loaded.Default()) {
		t.Error("the default user is another after a load")
	}
	if _, _, err := us.Without([]string{"u", Default}); !errors.Is(err, ErrDefault) {
		t.Errorf("the default user: %v", err)
	}
}

// FuzzRules: no rules panic, and what is taken comes back from a file as it was.
func FuzzRules(f *testing.F) {
	for _, text := range []string{"on\n>p\n~a*\n%R~b\n&c\n+@read\n-get", "(+get ~x)\n(\n)", "+select|0\nallkeys\n~x", "(~a\n+get)\nreset", "%RW\n#00", "(~) )\n~(\n(&a) b)"} {
		f.Add(text)
	}
	c := small(f)
	f.Fuzz(func(t *testing.T, text string) {
		us, err := NewUsers(c)
		if err != nil {
			t.Fatal(err)
		}
		us, err = us.With("u", strings.Split(text, "\n"))
		if err != nil {
			return
		}
		again, err := us.Load(us.Text(), "f", nil)
		if err != nil || again.Text() != us.Text() {
			t.Fatalf("%v: %q", err, us.Text())
		}
	})
}

// TestRulesAreBounded: whoever changes the rules of one user keeps all others who want to
// waiting.
func TestRulesAreBounded(t *testing.T) {
	c := small(t)
	u := newUser(c, "u", 1)
	many := func(n int, mark string) (rules []string) {
		for i := range n {
			rules = append(rules, mark+strconv.Itoa(i))
		}
		return rules
	}
	for _, mark := range []string{"~", "&", "%R~"} {
		if _, err := u.With(c, many(MaxPatterns, mark)); err != nil {
			t.Errorf("%d patterns of %s: %v", MaxPatterns, mark, err)
		}
		if _, err := u.With(c, many(MaxPatterns+1, mark)); !errors.Is(err, errTooMany) {
			t.Errorf("one more pattern of %s: %v", mark, err)
		}
	}
	long := strings.Repeat("x", 2*MaxRules)
	for _, rules := range [][]string{{long}, {"(", long}, {"~" + long}, append([]string{"("}, many(MaxRules/2, "~")...)} {
		if _, err := u.With(c, rules); !errors.Is(err, errTooLong) || len(err.Error()) > 500 {
			t.Errorf("%d rules, the first %.10q: %.200v", len(rules), rules[0], err)
		}
	}
	if _, err := u.With(c, []string{"~" + long[:MaxRules]}); !errors.Is(err, errTooLong) {
		t.Errorf("a pattern of %d bytes: %v", MaxRules, err)
	}
}

func TestTwinsAreAllowedAndRefusedTogether(t *testing.T) {
	c, err := NewCatalog([]string{"read"}, []Command{
		{Name: "get", Categories: []string{"read"}}, {Name: "x.get", Categories: []string{"read"}},
		{Name: "x", Subcommands: []Command{{Name: "get", Categories: []string{"read"}, Twin: "x.get"}, {Name: "set"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for rules, allowed := range map[string]bool{
		"+x.get": true, "+x|get": true, "+x": true, "+@read": true, "+@all": true,
		"+@all -x.get": false, "+@all -x|get": false, "+@all -x": false, "+@all -@read": false, "+x|get -x.get": false, "+get": false,
	} {
		u, err := newUser(c, "u", 1).With(c, append(strings.Fields(rules), "on"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := newUser(c, "u", 1).With(c, strings.Fields(u.Rules(c)))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"x.get", "x|get"} {
			id, _ := c.Find(name)
			if u.Root().has(id) != allowed || again.Root().has(id) != allowed {
				t.Errorf("%s: %s is allowed %v, and %v after %q", rules, name, u.Root().has(id), again.Root().has(id), u.Rules(c))
			}
		}
	}
	if _, err := NewCatalog(nil, []Command{{Name: "a", Twin: "b"}}); err == nil {
		t.Error("a twin that is not there is taken")
	}
}
