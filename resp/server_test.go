package resp

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// fakeAdmin is a node whose readiness and map a test decides.
type fakeAdmin struct {
	identity Identity
	loading  atomic.Bool
	view     atomic.Pointer[View]
	level    uint16      // 2 if not set
	repaired []ring.Slot // the slots of the first repair, which never ends
	stats    atomic.Pointer[Stats]
}

func (a *fakeAdmin) Stats() Stats {
	if s := a.stats.Load(); s != nil {
		return *s
	}
	return Stats{}
}
func (a *fakeAdmin) Identity() Identity { return a.identity }
func (a *fakeAdmin) Ready() bool        { return !a.loading.Load() }
func (a *fakeAdmin) View() *View        { return a.view.Load() }
func (a *fakeAdmin) Level() uint16      { return cmp.Or(a.level, 2) }
func (a *fakeAdmin) Repair(first, last ring.Slot) error {
	if a.repaired != nil {
		return ErrRepairing
	}
	a.repaired = []ring.Slot{first, last}
	return nil
}
func (a *fakeAdmin) RepairStatus() []Field { return []Field{{"state", "done"}} }
func (a *fakeAdmin) RingStatus() RingStatus {
	return RingStatus{Epoch: 0xabc, Units: 1024, N: 3, R: 2, W: 2, Members: []RingMember{{ID: 1, Addr: "h1:7001", Zone: "a", Weight: 100, Alive: true, Partitions: 3, First: 1}}}
}
func (a *fakeAdmin) Hints() []HintTarget {
	return []HintTarget{{ID: 2, Addr: "h2:7001", Up: true, Rows: 3, Bytes: 400, Budget: 1 << 30, Oldest: 1500 * time.Millisecond,
		DeliveredRows: 5, DeliveredBytes: 600, Failed: 7, State: "delivering"}}
}
func (a *fakeAdmin) Owners([]byte) []Owner {
	return []Owner{{Node: 1, Addr: "h1:7001", Zone: "a", Role: "owner", Alive: true}, {Node: 2, Addr: "h2:7001", Role: "fallback"}}
}

// fakeStore answers reads when told, or at once, and knows how many are out.
type fakeStore struct {
	*dataStore
	mu struct {
		sync.Mutex
		hold    bool
		waiting map[string][]func()
		order   []string // keys in the order in which commands were started
	}
	out, most atomic.Int64
	values    func(key []byte) []byte
}

func newFakeStore() *fakeStore {
	f := &fakeStore{dataStore: newDataStore(newDataClock())}
	f.mu.waiting = make(map[string][]func())
	return f
}

func (f *fakeStore) Read(key []byte, o coordinator.ReadOptions, done func(coordinator.ReadResult, error)) {
	f.most.Store(max(f.most.Load(), f.out.Add(1)))
	f.later(key, func() {
		f.out.Add(-1)
		if f.values == nil {
			f.dataStore.Read(key, o, done)
			return
		}
		done(coordinator.ReadResult{Record: version.Record{Versions: []version.Version{
			{Dot: version.Dot{Actor: 1, Counter: 1}, HLC: 1, Value: f.values(key)}}}}, nil)
	})
}

func (f *fakeStore) Write(key []byte, op version.Op, o coordinator.WriteOptions, done func(coordinator.WriteResult, error)) {
	f.later(key, func() { f.dataStore.Write(key, op, o, done) })
}

func (f *fakeStore) later(key []byte, run func()) {
	f.mu.Lock()
	f.mu.order = append(f.mu.order, string(key))
	if f.mu.hold {
		f.mu.waiting[string(key)] = append(f.mu.waiting[string(key)], run)
		run = nil
	}
	f.mu.Unlock()
	if run != nil {
		run()
	}
}

func (f *fakeStore) holdAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.hold = true
}

// release lets the oldest waiting command on key go on and reports whether there
// was one.
func (f *fakeStore) release(key string) bool {
	f.mu.Lock()
	list := f.mu.waiting[key]
	if len(list) == 0 {
		f.mu.Unlock()
		return false
	}
	f.mu.waiting[key] = list[1:]
	f.mu.Unlock()
	list[0]()
	return true
}

func (f *fakeStore) started() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mu.order)
}

// pipeListener is a listener in memory.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours
}

// door is a server behind a pipeListener.
type door struct {
	t     *testing.T
	srv   *Server
	ln    *pipeListener
	store *fakeStore
	admin *fakeAdmin
	ring  fakeRing
}

func openDoor(t *testing.T, change ...func(*Config)) *door {
	t.Helper()
	d := &door{t: t, ln: newPipeListener(), store: newFakeStore(), admin: &fakeAdmin{}}
	cfg := Config{Store: d.store, Admin: d.admin, Ring: &d.ring, Now: d.store.clock.now}
	for _, f := range change {
		f(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.srv = srv
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), d.ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // cut off what a test left open
		_ = srv.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if q, r := srv.query.used.Load(), srv.replies.used.Load(); q != 0 || r != 0 {
			t.Errorf("after the end %d query and %d reply bytes are still counted", q, r)
		}
	})
	return d
}

func (d *door) connect() *dataWire { return newDataWire(d.t, d.ln.dial()) }

// raw sends bytes as they are on a connection of their own and returns all that
// comes back until the server closes it.
func (d *door) raw(data string) string {
	conn := d.ln.dial()
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, data) }() // it may be cut off
	var b strings.Builder
	_, _ = io.Copy(&b, conn)
	return b.String()
}

// hostile are requests that crashed, hung or bloated servers. All must end in
// the answer given and a closed connection.
var hostile = []struct{ name, data, want string }{
	{"bulk length max int64", "*1\r\n$9223372036854775807\r\nx\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
	{"bulk length 2^64+3", "*1\r\n$18446744073709551619\r\nabc\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
	{"bulk length negative", "*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
	{"bulk length leading zero", "*1\r\n$04\r\nPING\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
	{"bulk length 600 MB", "*1\r\n$600000000\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
	{"count max int64", "*9223372036854775807\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
	{"count 2e9", "*2000000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
	{"count not a number", "*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
	{"no dollar, no character", "*1\r\n\x80", "-ERR Protocol error: expected '$', got '\x80'\r\n"},
	{"no dollar", "*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'\r\n"},
	{"missing CRLF", "*1\r\n$4\r\nPINGxx", "-ERR Protocol error: invalid bulk length\r\n"},
	{"inline without end", strings.Repeat("a", 80_000), "-ERR Protocol error: too big inline request\r\n"},
	{"unbalanced quotes", "SET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"},
	{"good before bad", "PING\r\n*1\r\n$-7\r\n", "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"},
	{"HTTP", "POST / HTTP/1.1\r\nHost: x\r\n\r\nSET evil 1\r\n", ""},
	{"HTTP GET", "GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n", "-ERR wrong number of arguments for 'get' command\r\n"},
}

func TestHostileRequestEndsOnlyItsOwnConnection(t *testing.T) {
	d := openDoor(t)
	other := d.connect()
	for _, h := range hostile {
		if got := d.raw(h.data); got != h.want {
			t.Errorf("%s: got %q, want %q", h.name, got, h.want)
		}
		other.expect("+PONG\r\n", "PING")
	}
	other.expect("$-1\r\n", "GET", "evil")
}

func TestIgnoredRequestsAreIgnoredAsRedisIgnoresThem(t *testing.T) {
	d := openDoor(t)
	if got := d.raw("*0\r\n*-1\r\n*-10\r\n\r\n\n  \r\nPING\r\n*0\r\nQUIT\r\nPING\r\n"); got != "+PONG\r\n+OK\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestBeforeLoginRequestsAreSmallAndOnlyLoginIsServed(t *testing.T) {
	d := openDoor(t, func(c *Config) { c.Password = "secret" })
	for data, want := range map[string]string{
		"*11\r\n":                                          "-ERR Protocol error: unauthenticated multibulk length\r\n",
		"*1\r\n$16385\r\n":                                 "-ERR Protocol error: unauthenticated bulk length\r\n",
		strings.Repeat("a", 17_000):                        "-ERR Protocol error: too big inline request\r\n",
		"PING\r\nGET k\r\nQUIT\r\n":                        "-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n+OK\r\n",
		"NOSUCH\r\nQUIT\r\n":                               "-ERR unknown command 'NOSUCH', with args beginning with: \r\n+OK\r\n",
		"AUTH x\r\nQUIT\r\n":                               "-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n",
		"AUTH nobody secret\r\nQUIT\r\n":                   "-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n",
		"AUTH default secret\r\nPING\r\nQUIT\r\n":          "+OK\r\n+PONG\r\n+OK\r\n",
		"AUTH secret\r\nPING\r\nRESET\r\nPING\r\nQUIT\r\n": "+OK\r\n+PONG\r\n+RESET\r\n-NOAUTH Authentication required.\r\n+OK\r\n",
		"HELLO 2 AUTH default x\r\nPING\r\nQUIT\r\n":       "-WRONGPASS invalid username-password pair or user is disabled.\r\n-NOAUTH Authentication required.\r\n+OK\r\n",
		"HELLO 2 AUTH default secret SETNAME me\r\nCLIENT GETNAME\r\nQUIT\r\n": "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:ID\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n$2\r\nme\r\n+OK\r\n",
	} {
		got := d.raw(data)
		if i := strings.Index(got, "$2\r\nid\r\n:"); i >= 0 {
			i += len("$2\r\nid\r\n:")
			end := i + strings.Index(got[i:], "\r")
			got = got[:i] + "ID" + got[end:]
		}
		if got != want {
			t.Errorf("%.60q: got %q, want %q", data, got, want)
		}
	}
}

func TestEveryCommandWaitsForLoginUnlessItIsMadeForIt(t *testing.T) {
	d := openDoor(t, func(c *Config) { c.Password = "secret" })
	open := []string{"auth", "hello", "quit", "reset"}
	c := d.connect()
	d.srv.table.each(func(row *command) {
		if slices.Contains(open, row.full) {
			if !row.noAuth {
				t.Errorf("%s is not open", row.full)
			}
			return
		}
		if len(row.subcommands) > 0 && row.name != "command" {
			return // does nothing by itself
		}
		args := strings.Split(row.full, "|")
		for len(args) < max(row.arity, -row.arity) {
			args = append(args, "x")
		}
		want := errNoAuth
		if row.batch {
			want = abortedBy(errNoAuth) // as in Redis
		}
		if got := c.do(args...); got != "-"+want+"\r\n" {
			t.Errorf("%s before login: %q", row.full, got)
		}
	})
}

func TestConnectionThatDoesNotLogInIsClosed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Password = "secret" })
		began := time.Now()
		conn := d.ln.dial()
		go func() { // keeps it busy
			for {
				if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		_, _ = io.Copy(io.Discard, conn)
		if d := time.Since(began); d < 29*time.Second || d > 31*time.Second {
			t.Errorf("closed after %v", d)
		}
		time.Sleep(2 * time.Second)
	})
}

func TestDataCommandsWaitForTheClusterWhileTheOthersAnswer(t *testing.T) {
	d := openDoor(t)
	d.admin.loading.Store(true)
	c := d.connect()
	for _, line := range []string{"GET k", "SET k v", "DEL k", "MGET a b", "KEYS *", "SCAN 0", "DBSIZE", "RANDOMKEY", "FLUSHALL", "EXPIRE k 1", "VCTX.GET k", "TYPE k"} {
		if got := c.line(line); got != "-LOADING Redis is loading the dataset in memory\r\n" {
			t.Errorf("%s: %q", line, got)
		}
	}
	for _, line := range []string{"PING", "INFO", "HELLO 2", "COMMAND COUNT", "CLIENT ID", "RING STATUS", "CONFIG GET *", "TIME", "ECHO x", "SELECT 0"} {
		if got := c.line(line); got[0] == '-' {
			t.Errorf("%s: %q", line, got)
		}
	}
	d.admin.loading.Store(false)
	c.expect("+OK\r\n", "SET", "k", "v")
}

func TestClientsOverTheLimitAreToldAndTheOthersServed(t *testing.T) {
	d := openDoor(t, func(c *Config) { c.Limits.MaxClients = 2 })
	a, b := d.connect(), d.connect()
	a.expect("+PONG\r\n", "PING")
	b.expect("+PONG\r\n", "PING")
	if got := d.raw(""); got != "-ERR max number of clients reached\r\n" {
		t.Errorf("third client: %q", got)
	}
	a.expect("+OK\r\n", "CONFIG", "SET", "maxclients", "3")
	d.connect().expect("+PONG\r\n", "PING")
}

// failingListener fails as one without descriptors does, then closes.
type failingListener struct {
	*pipeListener
	calls atomic.Int64
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.calls.Add(1)
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
}

func TestAcceptErrorsAreWaitedOutWithoutSpinning(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		srv, err := New(Config{Store: newFakeStore(), Admin: &fakeAdmin{}, Ring: &fakeRing{}})
		if err != nil {
			t.Fatal(err)
		}
		ln := &failingListener{pipeListener: newPipeListener()}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ctx, ln) }()
		time.Sleep(time.Minute)
		if n := ln.calls.Load(); n < 30 || n > 100 {
			t.Errorf("%d attempts in a minute", n)
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = srv.Shutdown(context.Background())
	})
}

func TestServeReportsAListenerThatWasClosedByOthers(t *testing.T) {
	srv, err := New(Config{Store: newFakeStore(), Admin: &fakeAdmin{}, Ring: &fakeRing{}})
	if err != nil {
		t.Fatal(err)
	}
	ln := newPipeListener()
	_ = ln.Close()
	if err := srv.Serve(context.Background(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	_ = srv.Shutdown(context.Background())
}

func TestPanicInAHandlerClosesOneConnectionAndIsCounted(t *testing.T) {
	d := openDoor(t)
	d.srv.table.named([]byte("time")).run = func(*session, [][]byte, *Reply) { panic("planted") }
	other := d.connect()
	if got := d.raw("PING\r\nTIME\r\nPING\r\n"); strings.Contains(got, "planted") {
		t.Errorf("the client was shown %q", got)
	}
	other.expect("+PONG\r\n", "PING")
	if n := d.srv.counts.panics.Load(); n != 1 {
		t.Errorf("%d panics counted", n)
	}
	// The client sees the end before the server has struck the connection off.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); d.srv.connected() != 1; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%d connections left", d.srv.connected())
		}
	}
}

func TestClientThatDoesNotReadHoldsLittleAndIsCutOff(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		value := make([]byte, 1*mib)
		d.store.values = func([]byte) []byte { return value }
		began := time.Now()
		conn := d.ln.dial()
		defer conn.Close()
		go func() {
			for i := range 400 {
				_, _ = conn.Write(encodeCommand([]string{"GET", "k" + strconv.Itoa(i)}))
			}
		}()
		synctest.Wait() // the server waits for the client, which never reads
		if n := len(d.store.started()); n > 2 {
			t.Errorf("%d values of 1 MiB were fetched for a client that reads none", n)
		}
		if n := d.srv.replies.used.Load(); n > 3*mib {
			t.Errorf("%d reply bytes held", n)
		}
		other := d.connect()
		other.expect("+PONG\r\n", "PING")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if n := d.srv.connected(); n != 1 {
			t.Errorf("%d connections %v later", n, time.Since(began))
		}
		_ = other.conn.Close()
	})
}

func TestManyWarmConnectionsTogetherHoldFewLargeReplies(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.MaxInFlight = 64 })
		const conns = 40
		var all []*dataWire
		for range conns {
			c := d.connect()
			for range 64 {
				c.do("GET", "small") // opens the window
			}
			all = append(all, c)
		}
		d.store.holdAll()
		var gets [][]string
		for i := range 64 {
			gets = append(gets, []string{"GET", strconv.Itoa(i)})
		}
		before := len(d.store.started())
		for _, c := range all {
			c.send(gets...)
		}
		synctest.Wait()
		if n := len(d.store.started()) - before; n > 64+conns {
			t.Errorf("%d commands in flight", n)
		}
		if n := d.srv.flying.Load(); n > 64+conns {
			t.Errorf("%d keys counted in flight", n)
		}
		value := make([]byte, 1*mib)
		d.srv.noteReply(1 * mib)
		d.store.values = func([]byte) []byte { return value }
		if !d.srv.crowded() {
			t.Error("not crowded with 64 MiB of replies in flight")
		}
		for _, c := range all {
			_ = c.conn.Close()
		}
		d.store.mu.Lock()
		d.store.mu.hold = false
		d.store.mu.Unlock()
		for i := range 64 {
			for d.store.release(strconv.Itoa(i)) {
			}
		}
		synctest.Wait()
		if n := d.srv.flying.Load(); n != 0 {
			t.Errorf("%d keys counted in flight at the end", n)
		}
		for range 1000 {
			d.srv.noteReply(10)
		}
		if d.srv.large.Load() != 0 {
			t.Error("a large reply is never forgotten")
		}
	})
}

func TestReplyLongerThanTheLimitBecomesAnError(t *testing.T) {
	d := openDoor(t, func(c *Config) { c.Limits.MaxReply, c.Limits.MaxValue = 100*kib, 64*kib })
	value := make([]byte, 40*kib)
	d.store.values = func([]byte) []byte { return value }
	c := d.connect()
	got := c.pipeline([]string{"MGET", "a", "b"}, []string{"MGET", "a", "b", "c"}, []string{"GET", "a"}, []string{"PING"})
	if len(got[0]) < 80*kib || got[1] != "-"+errReplyTooLong+"\r\n" || len(got[2]) < 40*kib || got[3] != "+PONG\r\n" {
		t.Errorf("%d bytes, %.80q, %d bytes, %q", len(got[0]), got[1], len(got[2]), got[3])
	}
}

func TestShutdownFinishesWhatWasBegunAndAnswersIt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		d.store.holdAll()
		idle, busy := d.connect(), d.connect()
		go func() { _, _ = busy.conn.Write(encodeCommand([]string{"GET", "k"})) }()
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- d.srv.Shutdown(context.Background()) }()
		if _, err := idle.r.ReadByte(); err != io.EOF {
			t.Errorf("idle connection: %v", err)
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("shutdown ended before the command: %v", err)
		default:
		}
		d.store.release("k")
		var b strings.Builder
		if err := readRaw(busy.r, &b); err != nil || b.String() != "$-1\r\n" {
			t.Errorf("busy connection: %q, %v", b.String(), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownCutsOffWhoeverTakesTooLong(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		value := make([]byte, 1*mib)
		d.store.values = func([]byte) []byte { return value }
		conn := d.ln.dial()
		defer conn.Close()
		_, _ = conn.Write(encodeCommand([]string{"GET", "k"}))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		if err := d.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestThousandIdleConnectionsStayWithinTheirBudget(t *testing.T) {
	d := openDoor(t)
	const n = 1000
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	open := func() {
		c := newDataWire(t, d.ln.dial())
		c.r = bufio.NewReaderSize(c.conn, 64)
		c.expect("+OK\r\n", "SET", "k", "v")
		conns = append(conns, c.conn)
	}
	open()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		open()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / n
	t.Logf("heap %d stack %d", (int64(after.HeapInuse)-int64(before.HeapInuse))/n, (int64(after.StackInuse)-int64(before.StackInuse))/n)
	t.Logf("%d bytes per idle connection", per)
	if per > 25*kib {
		t.Errorf("%d bytes per idle connection", per)
	}
}

func TestLimitsAreCheckedTogether(t *testing.T) {
	_, err := New(Config{Limits: Limits{MaxKey: -1, MaxBulk: 1, MaxArgs: 1, IdleTimeout: -1}, Door: 7})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"store", "admin", "door", "max key", "max bulk", "max args", "timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not mentioned in %v", want, err)
		}
	}
	l := Limits{MaxValue: 100 * mib}.withDefaults()
	if err := l.validate(); err != nil || l.MaxBulk < 100*mib || int64(l.MaxCommand) > l.MaxQuery || l.MaxArgs > math.MaxInt32 {
		t.Errorf("a large value limit leaves %+v, %v", l, err)
	}
}

func TestKeyLongerThanTheLimitIsRefusedAndTheConnectionLives(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	long := strings.Repeat("k", 64*kib+1)
	c.expect("-"+errKeyTooLong+"\r\n", "GET", long)
	c.expect("-"+errKeyTooLong+"\r\n", "MGET", "a", long)
	c.expect("$-1\r\n", "GET", long[1:])
	if got := c.do("SET", "k", strings.Repeat("v", 2*mib)); got[0] != '-' {
		t.Errorf("a value above the limit: %.50q", got)
	}
	c.expect("+PONG\r\n", "PING")
}
