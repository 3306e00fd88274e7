package resp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

// vget is VCTX.GET taken apart.
func (c *dataWire) vget(args ...string) (token string, values []string) {
	c.t.Helper()
	raw := c.do(append([]string{"VCTX.GET"}, args...)...)
	rest, ok := strings.CutPrefix(raw, "*2\r\n")
	if !ok {
		c.t.Fatalf("VCTX.GET %q: got %q", args, raw)
	}
	token, rest = cutBulk(c.t, rest)
	head, rest, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.Atoi(strings.TrimPrefix(head, "*"))
	if err != nil {
		c.t.Fatalf("VCTX.GET %q: got %q", args, raw)
	}
	for range n {
		var v string
		v, rest = cutBulk(c.t, rest)
		values = append(values, v)
	}
	if rest != "" {
		c.t.Fatalf("VCTX.GET %q: %q is left", args, rest)
	}
	return token, values
}

// vwrite is VCTX.SET or VCTX.DEL taken apart.
func (c *dataWire) vwrite(args ...string) (token string, live int) {
	c.t.Helper()
	raw := c.do(args...)
	rest, ok := strings.CutPrefix(raw, "*2\r\n")
	if !ok {
		c.t.Fatalf("%q: got %q", args, raw)
	}
	token, rest = cutBulk(c.t, rest)
	live, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rest, ":"), "\r\n"))
	if err != nil {
		c.t.Fatalf("%q: got %q", args, raw)
	}
	return token, live
}

func (c *dataWire) expectValues(key string, want ...string) {
	c.t.Helper()
	if _, got := c.vget(key); !slices.Equal(got, want) {
		c.t.Errorf("siblings of %s: got %q, want %q", key, got, want)
	}
}

func (c *dataWire) expectLive(want int, args ...string) (token string) {
	c.t.Helper()
	token, live := c.vwrite(args...)
	if live != want {
		c.t.Errorf("%q: %d live versions, want %d", args, live, want)
	}
	return token
}

func TestTwoWritersFromOneContextMakeSiblingsThatATokenMerges(t *testing.T) {
	d := newDataDoor(t)
	a, b := d.connect(), d.connect()
	a.expect("+OK\r\n", "SET", "k", "base")
	tokA, _ := a.vget("k")
	tokB, _ := b.vget("k")
	a.expectLive(1, "VCTX.SET", "k", "from a", tokA)
	b.expectLive(2, "VCTX.SET", "k", "from b", tokB)
	b.expectValues("k", "from b", "from a")
	b.expect("$6\r\nfrom b\r\n", "GET", "k")
	token, _ := b.vget("k")
	b.expectLive(1, "VCTX.SET", "k", "merged", token)
	a.expectValues("k", "merged")
	a.expect("$6\r\nmerged\r\n", "GET", "k")
}

func TestEmptyTokenAddsASibling(t *testing.T) {
	c := newDataDoor(t).connect()
	c.expectLive(1, "VCTX.SET", "k", "1", "")
	c.expectLive(2, "VCTX.SET", "k", "2", "")
	c.expectLive(3, "VCTX.SET", "k", "3", "")
	c.expectValues("k", "3", "2", "1")
}

func TestTokenOfAPutDoesNotCoverSiblingsItsClientHasNotSeen(t *testing.T) {
	d := newDataDoor(t)
	a, b := d.connect(), d.connect()
	token, _ := a.vget("k")
	a.expectLive(1, "VCTX.SET", "k", "unseen", token)
	mine := b.expectLive(2, "VCTX.SET", "k", "mine", token)
	b.expectLive(2, "VCTX.SET", "k", "mine again", mine)
	b.expectValues("k", "mine again", "unseen")
}

func TestStarTokenIsAPlainSet(t *testing.T) {
	c := newDataDoor(t).connect()
	c.expectLive(1, "VCTX.SET", "k", "1", "")
	c.expectLive(2, "VCTX.SET", "k", "2", "")
	c.expectLive(1, "VCTX.SET", "k", "3", "*")
	c.expectLive(2, "VCTX.SET", "k", "4", "")
	c.expectLive(0, "VCTX.DEL", "k", "*")
	c.expectValues("k")
}

func TestPlusTokenIsTheLastOfThisConnection(t *testing.T) {
	d := newDataDoor(t)
	c, other := d.connect(), d.connect()
	if got := c.do("VCTX.SET", "k", "v", "+"); !strings.HasPrefix(got, "-BADCTX ") {
		t.Errorf("+ with nothing before it: got %q", got)
	}
	c.vget("k")
	c.expectLive(1, "VCTX.SET", "k", "1", "+")
	c.expectLive(1, "VCTX.SET", "k", "2", "+")
	other.expectLive(2, "VCTX.SET", "k", "concurrent", "")
	c.expectLive(2, "VCTX.SET", "k", "3", "+")
	c.expectValues("k", "3", "concurrent")
	c.expectLive(0, "VCTX.DEL", "k", "+")
	if got := other.do("VCTX.SET", "unseen", "v", "+"); !strings.HasPrefix(got, "-BADCTX ") {
		t.Errorf("+ of another key: got %q", got)
	}
}

func TestPipelinedPutsWithPlusFollowEachOther(t *testing.T) {
	c := newDataDoor(t).connect()
	c.pipeline(
		[]string{"VCTX.GET", "k"},
		[]string{"VCTX.SET", "k", "1", "+"},
		[]string{"VCTX.SET", "k", "2", "+"},
		[]string{"VCTX.SET", "k", "3", "+"},
	)
	c.expectValues("k", "3")
}

func TestPipelinedPutsWithOneTokenAreConcurrent(t *testing.T) {
	c := newDataDoor(t).connect()
	token, _ := c.vget("k")
	c.pipeline([]string{"VCTX.SET", "k", "1", token}, []string{"VCTX.SET", "k", "2", token})
	c.expectValues("k", "2", "1")
}

func TestTokenIsBoundToItsKeyAndCluster(t *testing.T) {
	d := newDataDoor(t)
	foreign := newDataDoor(t, func(c *Config) {
		c.TokenKey = func() version.MACKey { return version.MACKey{1} }
	})
	c := d.connect()
	c.do("SET", "k", "v")
	token, _ := c.vget("k")
	bent := []byte(token)
	bent[len(bent)/2] ^= 1
	alien, _ := foreign.connect().vget("k")
	for name, tok := range map[string]string{
		"of another key": func() string { tok, _ := c.vget("other"); return tok }(),
		"damaged":        string(bent), "cut": token[:len(token)-1], "longer": token + "x",
		"of another cluster": alien, "made up": "hello", "one byte": "-",
	} {
		for _, command := range [][]string{
			{"VCTX.SET", "k", "w", tok}, {"VCTX.DEL", "k", tok}, {"VCTX.GET", "k", "MIN", tok},
		} {
			if got := c.do(command...); !strings.HasPrefix(got, "-BADCTX ") {
				t.Errorf("token %s: %q: got %q", name, command, got)
			}
		}
	}
	c.expectValues("k", "v")
}

func TestDeleteRemovesExactlyWhatItsTokenSaw(t *testing.T) {
	d := newDataDoor(t)
	a, b := d.connect(), d.connect()
	a.do("SET", "k", "seen")
	token, _ := a.vget("k")
	b.expectLive(2, "VCTX.SET", "k", "concurrent", "")
	a.expectLive(2, "VCTX.DEL", "k", "")
	after := a.expectLive(1, "VCTX.DEL", "k", token)
	a.expectValues("k", "concurrent")
	a.expectLive(1, "VCTX.DEL", "k", after)
	token, _ = a.vget("k")
	a.expectLive(0, "VCTX.DEL", "k", token)
	a.expect("$-1\r\n", "GET", "k")
}

func TestTokenOfADeletedKeyStillCarriesItsHistory(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.do("SET", "k", "v")
	c.do("DEL", "k")
	token, values := c.vget("k")
	opened, err := version.OpenToken([]byte("k"), []byte(token), version.MACKey{})
	if err != nil || len(opened.Context) == 0 || len(values) != 0 {
		t.Errorf("token %v, %v, values %q", opened, err, values)
	}
}

func TestPlainSetCollapsesAndPlainGetShowsTheNewest(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.put(t, "k", "older", nil)
	d.store.put(t, "k", "newer", nil)
	c.expect("$5\r\nnewer\r\n", "GET", "k")
	c.expectValues("k", "newer", "older")
	c.expect("+OK\r\n", "SET", "k", "one")
	c.expectValues("k", "one")
}

func TestSiblingsOnShowsConflictsInPlainGet(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.expect("+OK\r\n", "VCTX.SESSION", "SIBLINGS", "ON")
	c.expect("$-1\r\n", "GET", "k")
	d.store.put(t, "k", "older", nil)
	c.expect("$5\r\nolder\r\n", "GET", "k")
	d.store.put(t, "k", "newer", nil)
	c.expect("*2\r\n$5\r\nnewer\r\n$5\r\nolder\r\n", "GET", "k")
	d.connect().expect("$5\r\nnewer\r\n", "GET", "k")
	c.expect("+OK\r\n", "VCTX.SESSION", "SIBLINGS", "OFF")
	c.expect("$5\r\nnewer\r\n", "GET", "k")
}

func TestMetaTellsDotTimesAndFlags(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.expectLive(1, "VCTX.SET", "k", "v", "", "PX", "1500")
	c.expectLive(2, "VCTX.SET", "k", "w", "")
	d.clock.advance(500 * time.Millisecond)
	raw := c.do("VCTX.GET", "k", "META")
	_, rest := cutBulk(t, strings.TrimPrefix(raw, "*2\r\n"))
	want := "*2\r\n" +
		"*6\r\n$1\r\nw\r\n$18\r\n0000000000000001:2\r\n:1800000000000\r\n:-1\r\n$6\r\nstring\r\n:0\r\n" +
		"*6\r\n$1\r\nv\r\n$18\r\n0000000000000001:1\r\n:1800000000000\r\n:1000\r\n$6\r\nstring\r\n:0\r\n"
	if rest != want {
		t.Errorf("got %q\nwant %q", rest, want)
	}
}

func TestMinimumIsMetOrStale(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.do("SET", "k", "1")
	behind := d.store.record("k")
	c.do("SET", "k", "2")
	token, _ := c.vget("k")
	for _, minimum := range []string{token, "", "+"} {
		if _, values := c.vget("k", "MIN", minimum); !slices.Equal(values, []string{"2"}) {
			t.Errorf("MIN %q: got %q", minimum, values)
		}
	}
	d.store.mu.Lock()
	d.store.mu.records["k"] = behind
	d.store.mu.Unlock()
	if got := c.do("VCTX.GET", "k", "MIN", token); !strings.HasPrefix(got, "-STALE ") {
		t.Errorf("got %q", got)
	}
}

func TestQuorumOptionsReachTheStore(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.vget("k", "R", "3")
	c.vget("k", "META", "R", "1", "MIN", "")
	c.do("GET", "k")
	c.vwrite("VCTX.SET", "k", "v", "", "W", "3", "EX", "100")
	c.vwrite("VCTX.DEL", "k", "", "W", "1")
	c.do("SET", "k", "v")
	c.expect("+OK\r\n", "VCTX.SESSION", "R", "2", "W", "4")
	c.do("GET", "k")
	c.do("SET", "k", "v")
	c.vget("k", "R", "5")
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	var rs, ws []int
	for _, o := range d.store.mu.reads {
		rs = append(rs, o.R)
	}
	for _, o := range d.store.mu.writes {
		ws = append(ws, o.W)
	}
	if want := []int{3, 1, 0, 2, 5}; !slices.Equal(rs, want) {
		t.Errorf("R of the reads: got %v, want %v", rs, want)
	}
	if want := []int{3, 1, 0, 4}; !slices.Equal(ws, want) {
		t.Errorf("W of the writes: got %v, want %v", ws, want)
	}
}

func TestVersionedCommandsRefuseWhatTheyCannotRead(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	for command, want := range map[string]string{
		"VCTX.GET k FOO":                  errSyntax,
		"VCTX.GET k R":                    errSyntax,
		"VCTX.GET k MIN":                  errSyntax,
		"VCTX.GET k R x":                  errNotInteger,
		"VCTX.GET k R 0":                  errQuorum,
		"VCTX.GET k R 65":                 errQuorum,
		"VCTX.SET k v * FOO":              errSyntax,
		"VCTX.SET k v * W":                errSyntax,
		"VCTX.SET k v * W x":              errNotInteger,
		"VCTX.SET k v * W -1":             errQuorum,
		"VCTX.SET k v * EX 10 PX 10":      errSyntax,
		"VCTX.SET k v * EX 10 KEEPTTL":    errSyntax,
		"VCTX.SET k v * EX":               errSyntax,
		"VCTX.SET k v * NX":               errSyntax,
		"VCTX.SET k v * PERSIST":          errSyntax,
		"VCTX.SET k v * EX x":             errNotInteger,
		"VCTX.SET k v * EX 0":             "ERR invalid expire time in 'vctx.set' command",
		"VCTX.DEL k * FOO":                errSyntax,
		"VCTX.DEL k * W":                  errSyntax,
		"VCTX.DEL k * W 0":                errQuorum,
		"VCTX.SESSION FOO":                errSyntax,
		"VCTX.SESSION CONTEXT":            errSyntax,
		"VCTX.SESSION CONTEXT MAYBE":      errSyntax,
		"VCTX.SESSION R 0":                errQuorum,
		"VCTX.SESSION SIBLINGS ON W none": errNotInteger,
		"VCTX.GET":                        "ERR wrong number of arguments for 'vctx.get' command",
		"VCTX.SET k v":                    "ERR wrong number of arguments for 'vctx.set' command",
		"VCTX.DEL k":                      "ERR wrong number of arguments for 'vctx.del' command",
		"VCTX GET":                        "ERR wrong number of arguments for 'vctx|get' command",
		"VCTX SET k v":                    "ERR wrong number of arguments for 'vctx|set' command",
		"VCTX FOO k":                      "ERR unknown subcommand 'FOO'. Try VCTX HELP.",
		"VCTX":                            "ERR wrong number of arguments for 'vctx' command",
	} {
		if got := c.line(command); got != "-"+want+"\r\n" {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	if len(d.store.mu.reads)+len(d.store.mu.writes) != 0 {
		t.Error("a refused command reached the store")
	}
}

func TestContainerSpellingIsTheSameCommand(t *testing.T) {
	dotted, spaced := newDataDoor(t).connect(), newDataDoor(t).connect()
	for _, command := range []string{
		"GET k", "SET k v +", "SET k w * EX 10", "GET k META R 1", "DEL k +", "MGET k other", "INSPECT k",
		"SESSION SIBLINGS ON", "GET k MIN +", "GET k FOO",
	} {
		a, b := dotted.line("VCTX."+command), spaced.line("VCTX "+command)
		if a != b {
			t.Errorf("%s: %q when dotted, %q when spaced", command, a, b)
		}
	}
}

func TestTooManySiblingsStopsVersionedPutsOnly(t *testing.T) {
	c := newDataDoor(t).connect()
	for i := range maxSiblings {
		c.expectLive(i+1, "VCTX.SET", "k", fmt.Sprint(i), "")
	}
	if got := c.do("VCTX.SET", "k", "one more", ""); !strings.HasPrefix(got, "-TOOMANYSIBLINGS ") {
		t.Errorf("got %.100q", got)
	}
	token, values := c.vget("k")
	if len(values) != maxSiblings {
		t.Errorf("%d values", len(values))
	}
	c.expectLive(1, "VCTX.SET", "k", "merged", token)
	half := strings.Repeat("x", maxSiblingBytes/2+1)
	c.expectLive(2, "VCTX.SET", "k", half, "")
	if got := c.do("VCTX.SET", "k", half+"y", ""); !strings.HasPrefix(got, "-TOOMANYSIBLINGS ") {
		t.Errorf("got %.100q", got)
	}
	c.expect("+OK\r\n", "SET", "k", half)
	c.expectValues("k", half)
}

func TestVersionedSetTakesExpiries(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.expectLive(1, "VCTX.SET", "k", "v", "*", "EX", "100")
	c.expect(":100\r\n", "TTL", "k")
	c.expectLive(1, "VCTX.SET", "k", "w", "+", "KEEPTTL", "W", "1")
	c.expect(":100\r\n", "TTL", "k")
	c.expectLive(1, "VCTX.SET", "k", "w", "+", "W", "1", "PXAT", "4102444800123")
	c.expect(":4102444800123\r\n", "PEXPIRETIME", "k")
	c.expectLive(1, "VCTX.SET", "k", "x", "+")
	c.expect(":-1\r\n", "TTL", "k")
	c.expectLive(0, "VCTX.SET", "k", "x", "+", "EXAT", "1")
	c.expect(":0\r\n", "EXISTS", "k")
	c.expectLive(1, "VCTX.SET", "k", "x", "+", "PX", "50")
	d.clock.advance(time.Second)
	c.expectValues("k")
}

func TestVersionedMGetAnswersPerKey(t *testing.T) {
	c := newDataDoor(t).connect()
	c.expectLive(1, "VCTX.SET", "a", "1", "")
	c.expectLive(2, "VCTX.SET", "a", "2", "")
	tokA, _ := c.vget("a")
	tokB, _ := c.vget("b")
	want := fmt.Sprintf("*2\r\n*2\r\n$%d\r\n%s\r\n*2\r\n$1\r\n2\r\n$1\r\n1\r\n*2\r\n$%d\r\n%s\r\n*0\r\n", len(tokA), tokA, len(tokB), tokB)
	c.expect(want, "VCTX.MGET", "a", "b")
	c.expectLive(1, "VCTX.SET", "a", "3", "+")
}

func TestInspectShowsEveryCopy(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.do("SET", "k", "v")
	d.clock.advance(3 * time.Second)
	hash := fmt.Sprintf("%016x", d.store.record("k").StateHash())
	own := "$16\r\n" + hash + "\r\n*1\r\n$18\r\n0000000000000001:1\r\n*1\r\n$20\r\n0000000000000001:1-1\r\n:3000\r\n$0\r\n\r\n"
	c.expect("*3\r\n"+
		"*7\r\n$16\r\n0000000000000001\r\n$5\r\nowner\r\n"+own+
		"*7\r\n$16\r\n0000000000000002\r\n$5\r\nowner\r\n$-1\r\n*0\r\n*0\r\n:-1\r\n$0\r\n\r\n"+
		"*7\r\n$16\r\n0000000000000003\r\n$25\r\nhint for 0000000000000002\r\n"+own, "VCTX.INSPECT", "k")
}

func TestSessionContextOffForgetsAndResetRestores(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	context := func() version.Context {
		t.Helper()
		c.expect("+OK\r\n", "SET", "k", "v")
		return d.store.lastOp(t).Context
	}
	c.do("SET", "k", "v")
	if context() == nil {
		t.Error("no implicit context by default")
	}
	c.expect("+OK\r\n", "VCTX.SESSION", "CONTEXT", "OFF")
	if got := context(); got != nil {
		t.Errorf("implicit context %v after CONTEXT OFF", got)
	}
	c.expect("+OK\r\n", "VCTX.SESSION", "CONTEXT", "ON", "SIBLINGS", "ON", "R", "2")
	if got := context(); got != nil {
		t.Errorf("implicit context %v from the time before", got)
	}
	if context() == nil {
		t.Error("no implicit context after CONTEXT ON")
	}
	c.expect("+OK\r\n", "VCTX.SESSION", "RESET")
	if got := context(); got != nil {
		t.Errorf("implicit context %v after RESET", got)
	}
	d.store.put(t, "k", "other", nil)
	c.expect("$5\r\nother\r\n", "GET", "k")
	c.expect("+OK\r\n", "VCTX.SESSION")
}

func TestVersionedWriteErrorsKeepTheirWords(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.mu.fail["k"] = coordinator.ErrNoReplicas
	c.expect("-NOREPLICAS Not enough good replicas to write.\r\n", "VCTX.SET", "k", "v", "*")
	d.store.mu.fail["k"] = &coordinator.UncertainError{Acked: 1, Want: 2}
	if got := c.do("VCTX.SET", "k", "v", "*"); !strings.HasPrefix(got, "-UNCERTAIN acked 1/2") {
		t.Errorf("got %q", got)
	}
	if got := c.do("VCTX.SET", "big", strings.Repeat("x", mib+1), "*"); got != "-"+errTooLong+"\r\n" {
		t.Errorf("got %q", got)
	}
}
