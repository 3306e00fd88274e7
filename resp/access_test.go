package resp

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/resp/acl"
)

// paper is an access file that lies nowhere.
type paper struct {
	text string
	err  error
}

func (p *paper) Name() string          { return "users.acl" }
func (p *paper) Load() (string, error) { return p.text, p.err }
func (p *paper) Save(text string) error {
	if p.err == nil {
		p.text = text
	}
	return p.err
}

// closed waits for the end of a connection.
func (c *dataWire) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Errorf("got %q, want the end", b)
	}
}

func mustAccess(t *testing.T, cfg AccessConfig) *Access {
	t.Helper()
	a, err := NewAccess(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestEveryKeyHasAnAccess: a key that nothing is said of would be anybody's who has
// any pattern.
func TestEveryKeyHasAnAccess(t *testing.T) {
	table, err := newTable(commands())
	if err != nil {
		t.Fatal(err)
	}
	table.each(func(row *command) {
		if row.first == 0 && row.keys == nil {
			return
		}
		if len(row.keySpec) == 0 {
			t.Errorf("%s has keys and no key specification", row.full)
		}
		access := accessOf(row.keySpec) | accessOf(row.secondSpec)
		if (row.writes || slices.Contains(row.keySpec, "OW")) && access&acl.Write == 0 {
			t.Errorf("%s writes, and its keys say %v", row.full, row.keySpec)
		}
		if row.keyFlags != nil && accessOf(row.keyFlags([][]byte{[]byte(row.name), []byte("k")}))&^access != 0 {
			t.Errorf("%s: flags of its options say more than its specification", row.full)
		}
	})
}

// TestOurCommandsHaveCategories: what is not of Redis has none to be copied from there.
func TestOurCommandsHaveCategories(t *testing.T) {
	a := mustAccess(t, AccessConfig{})
	for category, want := range map[string]string{
		"dangerous": "ring|plan ring|apply ring|forget ring|finalise ring|repair ring|status repair hints shutdown acl|setuser",
		"admin":     "ring|plan ring|status repair hints",
		"read":      "vctx.get vctx.mget vctx.inspect vctx|get vctx|mget",
		"write":     "vctx.set vctx.del vctx|set vctx|del",
	} {
		names, _ := a.catalog.In(category)
		for name := range strings.FieldsSeq(want) {
			if !slices.Contains(names, name) {
				t.Errorf("%s is not in %s", name, category)
			}
		}
	}
	if names, _ := a.catalog.In("dangerous"); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "vctx") }) {
		t.Errorf("dangerous has %v", names)
	}
}

func TestContextCommandsObeyTheRules(t *testing.T) {
	d := newDataDoor(t)
	admin, c := d.connect(), d.connect()
	const noKey = "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
	admin.expect("+OK\r\n", "ACL", "SETUSER", "u", "on", "nopass", "+@all", "-ring", "%R~r", "%W~w")
	c.expect("+OK\r\n", "AUTH", "u", "x")
	for command, want := range map[string]string{
		"VCTX.GET r":      "",
		"VCTX GET r":      "",
		"VCTX.GET w":      noKey,
		"VCTX GET w":      noKey,
		"VCTX.MGET r w":   noKey,
		"VCTX MGET r w":   noKey,
		"VCTX.SET r v *":  noKey,
		"VCTX SET r v *":  noKey,
		"VCTX.DEL r *":    noKey,
		"VCTX.INSPECT n":  noKey,
		"RING STATUS":     "-NOPERM this user has no permissions to run the 'ring|status' command\r\n",
		"RING OWNERS r":   "-NOPERM this user has no permissions to run the 'ring|owners' command\r\n",
		"ACL DRYRUN u no": "-ERR Command 'no' not found\r\n",
	} {
		if got := c.line(command); want != "" && got != want || want == "" && strings.HasPrefix(got, "-NOPERM") {
			t.Errorf("%s: %q", command, got)
		}
	}
}

func TestAccessIsFreeOfCostForWhoMayDoEverything(t *testing.T) {
	d := newDataDoor(t)
	s := newSession(d.srv, newClient(1, &feed{}, d.srv.access.users.Load().Default(), time.Now()))
	args := [][]byte{[]byte("get"), []byte("k")}
	row, _ := d.srv.table.find(args)
	if n := testing.AllocsPerRun(100, func() {
		if refused := s.gate(row, args); refused != "" {
			t.Fatal(refused)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDoorsOfANodeHaveTheSameUsers(t *testing.T) {
	a := mustAccess(t, AccessConfig{})
	one := newDataDoor(t, func(c *Config) { c.Access = a })
	other := newDataDoor(t, func(c *Config) { c.Access, c.Door = a, Cluster })
	admin, c := one.connect(), other.connect()
	admin.expect("+OK\r\n", "ACL", "SETUSER", "u", "on", ">p", "+@all", "~*", "&a")
	c.expect("+OK\r\n", "AUTH", "u", "p")
	c.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	admin.expect("+OK\r\n", "ACL", "SETUSER", "u", "resetchannels")
	c.closed()
	admin.expect("+OK\r\n", "CONFIG", "SET", "requirepass", "secret")
	fresh := other.connect()
	fresh.expect("-NOAUTH Authentication required.\r\n", "PING")
	admin.expect("+OK\r\n", "CONFIG", "SET", "requirepass", "")
	fresh.expect("+PONG\r\n", "PING") // there already, and let in now
}

// TestASubscriptionBesideAChangeIsJudgedByIt: whoever looks for those to close may have
// looked before.
func TestASubscriptionBesideAChangeIsJudgedByIt(t *testing.T) {
	d := newDataDoor(t)
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	a := d.srv.access
	if err := a.change(nil, func(now *acl.Users) (*acl.Users, error) {
		return now.With("u", []string{"on", "nopass", "+@all", "&a"})
	}); err != nil {
		t.Fatal(err)
	}
	s := newSession(d.srv, newClient(1, theirs, a.users.Load().Default(), time.Now()))
	s.become(a.users.Load(), a.users.Load().Find("u"))
	row, _ := d.srv.table.find([][]byte{[]byte("subscribe"), []byte("a")})
	if refused := s.gate(row, [][]byte{[]byte("subscribe"), []byte("a")}); refused != "" {
		t.Fatal(refused)
	}
	if err := a.change(nil, func(now *acl.Users) (*acl.Users, error) { return now.With("u", []string{"resetchannels"}) }); err != nil {
		t.Fatal(err)
	}
	row.run(s, [][]byte{[]byte("subscribe"), []byte("a")}, &s.reply)
	if !strings.HasPrefix(string(s.reply.buf), "-NOPERM") || s.sub.total() != 0 {
		t.Errorf("answered %q, %d subscriptions", s.reply.buf, s.sub.total())
	}
}

func TestTheFileIsLoadedAndSaved(t *testing.T) {
	file := &paper{text: "user default on nopass ~* &* +@all\nuser u on >p ~a +get\n"}
	a := mustAccess(t, AccessConfig{File: file, Password: "unused"})
	d := newDataDoor(t, func(c *Config) { c.Access = a })
	admin, c := d.connect(), d.connect()
	c.expect("+OK\r\n", "AUTH", "u", "p")
	admin.expect("+OK\r\n", "ACL", "SAVE")
	saved := file.text
	if !strings.Contains(saved, "user u on #") {
		t.Errorf("saved %q", saved)
	}
	file.text = saved + "user v on +nosuch\nuser w foo\n"
	admin.expect("-ERR users.acl:3: Error in applying operation '+nosuch': Unknown command or category name in ACL. users.acl:4: Syntax error. "+
		"WARNING: ACL errors detected, no change to the previously active ACL rules was performed\r\n", "ACL", "LOAD")
	c.expect("-NOPERM this user has no permissions to run the 'echo' command\r\n", "ECHO", "u")
	file.text = "user v on\n"
	admin.expect("+OK\r\n", "ACL", "LOAD")
	admin.expect("*2\r\n$7\r\ndefault\r\n$1\r\nv\r\n", "ACL", "USERS")
	d.connect().expect("-NOAUTH Authentication required.\r\n", "PING") // the file has no default user: requirepass holds
	file.err = errors.New("permission denied")
	admin.expect("-ERR Error loading ACLs, opening file 'users.acl': permission denied\r\n", "ACL", "LOAD")
	admin.expect("-ERR There was an error trying to save the ACLs. Please check the server logs for more information\r\n", "ACL", "SAVE")
	if _, err := NewAccess(AccessConfig{File: file}); err == nil {
		t.Error("a node starts without the file that it was given")
	}
}

func TestALoadClosesTheConnectionsOfAllButTheDefaultUser(t *testing.T) {
	file := &paper{text: "user default on nopass ~* &* +@all\nuser u on nopass ~* &* +@all\n"}
	d := newDataDoor(t, func(c *Config) { c.Access = mustAccess(t, AccessConfig{File: file}) })
	admin, c := d.connect(), d.connect()
	c.expect("+OK\r\n", "AUTH", "u", "x")
	admin.expect("+OK\r\n", "ACL", "LOAD")
	admin.expect("+PONG\r\n", "PING")
	c.closed()
}

// far is a connection from some address.
type far struct {
	net.Conn
	from net.Addr
}

func (f far) RemoteAddr() net.Addr { return f.from }

func TestProtectedModeKeepsOtherMachinesOut(t *testing.T) {
	a := mustAccess(t, AccessConfig{Protected: true})
	d := newDataDoor(t, func(c *Config) { c.Access = a })
	dial := func(ip string) *dataWire {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = ours.Close() })
		go d.srv.accept(far{theirs, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}) // a pipe is written when it is read
		return newDataWire(t, ours)
	}
	local, answer := dial("127.0.0.1"), "+PONG\r\n"
	let := func(want bool, ip string) {
		t.Helper()
		c := dial(ip)
		if want {
			c.expect(answer, "PING")
			return
		}
		if got, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(got, "-DENIED redynamo is running in protected mode") {
			t.Errorf("%s: %.40q, %v", ip, got, err)
		}
		c.closed()
	}
	let(true, "127.8.8.8")
	let(true, "::1")
	let(true, "::ffff:127.0.0.1")
	let(false, "10.0.0.1")
	let(false, "fd00::1")
	local.expect("*2\r\n$14\r\nprotected-mode\r\n$3\r\nyes\r\n", "CONFIG", "GET", "protected-mode")
	local.expect("+OK\r\n", "CONFIG", "SET", "protected-mode", "NO")
	let(true, "10.0.0.1")
	local.expect("+OK\r\n", "CONFIG", "SET", "protected-mode", "yes", "requirepass", "p")
	answer = "-NOAUTH Authentication required.\r\n"
	let(true, "10.0.0.1")
	local.expect("+OK\r\n", "CONFIG", "SET", "requirepass", "")
	let(false, "10.0.0.1")
	local.expect("+OK\r\n", "ACL", "SETUSER", "default", "off") // nobody gets in without a name
	let(true, "10.0.0.1")
}

func TestTheLogOfRefusalsHasBounds(t *testing.T) {
	var l accessLog
	l.most.Store(3)
	now := time.Unix(1000, 0)
	add := func(object string, at time.Duration) {
		l.add(accessEntry{reason: "key", object: object, user: "u", at: now.Add(at)})
	}
	shown := func() (text string) {
		for _, e := range l.list(10) {
			text += e.object + strconv.FormatInt(e.count, 10) + " "
		}
		return text
	}
	for i, step := range []struct {
		object string
		at     time.Duration
		want   string
	}{
		{"a", 0, "a1 "},
		{"a", time.Second, "a2 "},
		{"b", time.Second, "b1 a2 "},
		{"a", logGroup, "a3 b1 "},
		{"a", 2*logGroup + time.Second, "a1 a3 b1 "},
		{"c", 2 * logGroup, "c1 a1 a3 "},
	} {
		if add(step.object, step.at); shown() != step.want {
			t.Errorf("step %d: %s, want %s", i, shown(), step.want)
		}
	}
	l.most.Store(0)
	if add("d", 0); shown() != "" {
		t.Errorf("kept %s", shown())
	}
	l.most.Store(maxACLLog)
	for i := range logLooked + 2 {
		add(strconv.Itoa(i)+"x", 0)
	}
	if add("0x", 0); l.list(1)[0].count != 1 {
		t.Error("an entry was looked for among too many")
	}
	if l.reset(); shown() != "" {
		t.Error("it is still there")
	}
}

func TestALogEntryHasTheBeginningOfALongName(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.expect("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", strings.Repeat("n", 2*logBytes), "x")
	if e := d.srv.access.log.list(1); len(e) != 1 || len(e[0].user) != logBytes {
		t.Errorf("%+v", e)
	}
}

// TestAPausedCommandIsJudgedByTheRulesAtItsEnd: whoever takes a right away during a
// pause wants nothing of the kind done behind it.
func TestAPausedCommandIsJudgedByTheRulesAtItsEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		admin, c := d.connect(), d.connect()
		admin.expect("+OK\r\n", "ACL", "SETUSER", "u", "on", "nopass", "+@all", "~*")
		c.expect("+OK\r\n", "AUTH", "u", "x")
		admin.expect("+OK\r\n", "CLIENT", "PAUSE", "1000", "WRITE")
		done := make(chan string)
		go func() { done <- c.line("SET k v") }()
		synctest.Wait()
		admin.expect("+OK\r\n", "ACL", "SETUSER", "u", "-set")
		if got := <-done; !strings.HasPrefix(got, "-NOPERM") {
			t.Errorf("answered %q", got)
		}
		admin.expect("$-1\r\n", "GET", "k")
	})
}

func TestARuleAboutOneSpellingOfACommandIsAboutBoth(t *testing.T) {
	for _, rules := range [][]string{{"+@all", "-vctx.set"}, {"+@all", "-vctx|set"}, {"+@all", "-vctx", "+vctx.get"}, {"+vctx|get"}} {
		d := newDataDoor(t)
		admin, c := d.connect(), d.connect()
		admin.expect("+OK\r\n", append([]string{"ACL", "SETUSER", "u", "on", "nopass", "~*"}, rules...)...)
		c.expect("+OK\r\n", "AUTH", "u", "x")
		for command, refused := range map[string]bool{"VCTX.SET k v *": true, "VCTX SET k v *": true, "VCTX.GET k": false, "VCTX GET k": false} {
			if got := c.line(command); strings.HasPrefix(got, "-NOPERM") != refused {
				t.Errorf("%v: %s: %q", rules, command, got)
			}
		}
	}
}

// TestAChangeOfOneUserIsNoneOfTheOthers: who has subscribed and then become somebody who
// may not hear that is left alone until its own rules change, as in Redis.
func TestAChangeOfOneUserIsNoneOfTheOthers(t *testing.T) {
	d := newDataDoor(t)
	admin, c := d.connect(), d.connect()
	admin.expect("+OK\r\n", "ACL", "SETUSER", "deaf", "on", "nopass", "+@all", "~*", "resetchannels")
	c.line("HELLO 3")
	c.expect(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	c.expect("+OK\r\n", "AUTH", "deaf", "x")
	admin.expect("+OK\r\n", "ACL", "SETUSER", "other", "on")
	c.expect("+PONG\r\n", "PING")
	admin.expect("+OK\r\n", "ACL", "SETUSER", "deaf", "-get")
	c.closed()
}

func TestAMonitorThatMayNotSeeAnyMoreIsClosed(t *testing.T) {
	d := newDataDoor(t)
	admin, c, still := d.connect(), d.connect(), d.connect()
	for _, user := range []string{"u", "v"} {
		admin.expect("+OK\r\n", "ACL", "SETUSER", user, "on", "nopass", "+@all", "&*", "~*")
	}
	c.expect("+OK\r\n", "AUTH", "u", "x")
	still.expect("+OK\r\n", "AUTH", "v", "x")
	c.expect("+OK\r\n", "MONITOR")
	still.expect("+OK\r\n", "MONITOR")
	admin.expect("+OK\r\n", "ACL", "SETUSER", "u", "-monitor")
	admin.expect("+OK\r\n", "ACL", "SETUSER", "v", "-get")
	c.closed()
	admin.expect("+PONG\r\n", "PING")
	if line, err := still.r.ReadString('\n'); err != nil || !strings.Contains(line, "PING") {
		t.Errorf("the other one is shown %q, %v", line, err)
	}
}

func TestALoadDoesNotBringAnOldPasswordBack(t *testing.T) {
	file := &paper{text: "user u on nopass +@all\n"}
	a := mustAccess(t, AccessConfig{File: file, Password: "old"})
	d := newDataDoor(t, func(c *Config) { c.Access = a })
	admin := d.connect()
	admin.expect("+OK\r\n", "AUTH", "u", "x")
	admin.expect("+OK\r\n", "CONFIG", "SET", "requirepass", "new")
	admin.expect("+OK\r\n", "ACL", "LOAD")
	c := d.connect()
	c.expect("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "old")
	c.expect("+OK\r\n", "AUTH", "new")
}

// TestNamesOfClientsAreBounded: they are kept in logs that anybody can fill.
func TestNamesOfClientsAreBounded(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	long := strings.Repeat("n", labelBytes)
	c.expect("+OK\r\n", "CLIENT", "SETNAME", long)
	c.expect("+OK\r\n", "CLIENT", "SETINFO", "lib-name", long)
	for _, command := range [][]string{{"CLIENT", "SETNAME", long + "n"}, {"CLIENT", "SETINFO", "lib-name", long + "n"},
		{"CLIENT", "SETINFO", "LIB-VER", long + "n"}, {"HELLO", "3", "SETNAME", long + "n"}} {
		if got := c.line(strings.Join(command, " ")); !strings.Contains(got, "cannot be longer than 1024 bytes on this server") {
			t.Errorf("%.30s: %q", command, got)
		}
	}
	c.expect("$1024\r\n"+long+"\r\n", "CLIENT", "GETNAME")
}

func TestPasswordsOfAMistypedHelloAreShownNowhere(t *testing.T) {
	row := &command{full: "hello"}
	for _, text := range []string{"HELLO AUTH u pw", "HELLO 3 AUTH u pw", "HELLO 3 SETNAME AUTH u pw", "HELLO 3 SETNAME AUTH AUTH u pw", "HELLO 3 SETNAME n auth u pw"} {
		words := strings.Fields(text)
		args := make([][]byte, len(words))
		for i, w := range words {
			args[i] = []byte(w)
		}
		if shown := slowWords(row, args); slices.Contains(shown, "pw") || slices.Contains(shown, "u") {
			t.Errorf("%s: %q", text, shown)
		}
	}
}
