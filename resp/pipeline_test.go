package resp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica/cork"
	"github.com/redynamo/redynamo/replica/version"
)

// send writes commands without waiting for replies.
func (c *dataWire) send(commands ...[]string) {
	var all []byte
	for _, args := range commands {
		all = append(all, encodeCommand(args)...)
	}
	go func() { _, _ = c.conn.Write(all) }() // the test reads the replies
}

func (c *dataWire) receive() string {
	c.t.Helper()
	var b strings.Builder
	if err := readRaw(c.r, &b); err != nil {
		c.t.Fatalf("after %q: %v", b.String(), err)
	}
	return b.String()
}

// wide gives a connection its full window.
func (d *door) wide() *dataWire {
	c := d.connect()
	for range 16 {
		c.do("GET", "warm")
	}
	d.store.mu.Lock()
	d.store.mu.order = nil
	d.store.mu.Unlock()
	return c
}

func TestPipelinedCommandsRunTogetherAndAreAnsweredInOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		c := d.wide()
		d.store.holdAll()
		d.store.values = func(key []byte) []byte { return key }
		c.send([]string{"GET", "a"}, []string{"GET", "b"}, []string{"GET", "c"}, []string{"GET", "a"})
		synctest.Wait()
		if got := d.store.started(); !slices.Equal(got, []string{"a", "b", "c", "a"}) {
			t.Fatalf("started %q", got)
		}
		for _, key := range []string{"c", "a", "b", "a"} { // answered out of order
			d.store.release(key)
		}
		for _, want := range []string{"a", "b", "c", "a"} {
			if got := c.receive(); got != "$1\r\n"+want+"\r\n" {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		_ = c.conn.Close()
	})
}

func TestCommandsOnOneKeyKeepTheirOrderUnlessAllRead(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		c := d.wide()
		d.store.holdAll()
		c.send([]string{"SET", "k", "1"}, []string{"SET", "other", "1"}, []string{"GET", "k"}, []string{"SET", "k", "2"}, []string{"GET", "k"})
		for _, want := range [][]string{
			{"k", "other"}, {"k", "other", "k"}, {"k", "other", "k", "k"}, {"k", "other", "k", "k", "k"},
		} {
			synctest.Wait()
			if got := d.store.started(); !slices.Equal(got, want) {
				t.Fatalf("started %q, want %q", got, want)
			}
			d.store.release("other")
			d.store.release("k")
		}
		for _, want := range []string{"+OK\r\n", "+OK\r\n", "$1\r\n1\r\n", "+OK\r\n", "$1\r\n2\r\n"} {
			if got := c.receive(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		_ = c.conn.Close()
	})
}

func TestCommandThatIsNotAsynchronousIsABarrier(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		c := d.wide()
		d.store.holdAll()
		c.send([]string{"SET", "a", "1"}, []string{"DBSIZE"}, []string{"SET", "b", "1"}, []string{"NOSUCH"}, []string{"SET", "c", "1"})
		for i, key := range []string{"a", "b", "c"} {
			synctest.Wait()
			if n := len(d.store.started()); n != i+1 {
				t.Fatalf("%d started before %s", n, key)
			}
			d.store.release(key)
		}
		for i, want := range []string{"+OK\r\n", ":1\r\n", "+OK\r\n", "-ERR unknown", "+OK\r\n"} {
			if got := c.receive(); !strings.HasPrefix(got, want) {
				t.Errorf("reply %d: %q, want %q", i, got, want)
			}
		}
		_ = c.conn.Close()
	})
}

func TestWindowBoundsTheCommandsInFlight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.Window = 8 })
		c := d.wide()
		d.store.holdAll()
		var all [][]string
		for i := range 50 {
			all = append(all, []string{"GET", strconv.Itoa(i)})
		}
		c.send(all...)
		for i := range 50 {
			synctest.Wait()
			if n := len(d.store.started()); n > i+8 {
				t.Fatalf("%d in flight", n-i)
			}
			d.store.release(strconv.Itoa(i))
		}
		for range 50 {
			c.receive()
		}
		_ = c.conn.Close()
	})
}

// TestPipelinesOfRandomCommandsAnswerAsOneByOne compares a pipelined connection
// with one that waits for each reply.
func TestPipelinesOfRandomCommandsAnswerAsOneByOne(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	one, many := openDoor(t), openDoor(t)
	a, b := one.connect(), many.connect()
	key := func() string { return "k" + strconv.Itoa(rnd.IntN(6)) }
	for round := range 60 {
		var batch [][]string
		for range 1 + rnd.IntN(80) {
			batch = append(batch, [][]string{
				{"SET", key(), strconv.Itoa(rnd.IntN(100))}, {"GET", key()}, {"APPEND", key(), "x"}, {"DEL", key(), key()},
				{"MGET", key(), key(), key()}, {"MSET", key(), "m", key(), "n"}, {"STRLEN", key()}, {"PING"}, {"EXISTS", key(), key()},
				{"SET", key()}, {"DBSIZE"}, {"GETSET", key(), "g"}, {"NOSUCH", key()},
			}[rnd.IntN(13)])
		}
		got := b.pipeline(batch...)
		for i, args := range batch {
			if want := a.do(args...); got[i] != want {
				t.Fatalf("seed %d round %d: %q answered %q in a pipeline, %q alone", seed, round, args, got[i], want)
			}
		}
	}
}

func TestClientReplyOffAndSkipSilenceExactlyTheirCommands(t *testing.T) {
	d := openDoor(t)
	for lines, want := range map[string]string{
		"CLIENT REPLY OFF|SET a 1|PING|NOSUCH|CLIENT REPLY ON|GET a|QUIT":          "+OK|$1|1|+OK|",
		"CLIENT REPLY SKIP|SET a 2|GET a|QUIT":                                     "$1|2|+OK|",
		"SET a 3|CLIENT REPLY SKIP|GET a|GET a|PING|QUIT":                          "+OK|$1|3|+PONG|+OK|",
		"CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING|PING|QUIT":                       "+PONG|+OK|",
		"CLIENT REPLY OFF|CLIENT REPLY SKIP|CLIENT REPLY OFF|CLIENT REPLY ON|QUIT": "+OK|+OK|",
		"CLIENT REPLY BAD|QUIT":                                                    "-ERR syntax error|+OK|",
		"CLIENT REPLY OFF|RESET|PING|QUIT":                                         "+RESET|+PONG|+OK|",
	} {
		got := strings.ReplaceAll(d.raw(strings.ReplaceAll(lines, "|", "\r\n")+"\r\n"), "\r\n", "|")
		if got != want {
			t.Errorf("%s: got %q, want %q", lines, got, want)
		}
	}
}

func TestLargePipelineIsAnsweredWhole(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	d.store.values = func(key []byte) []byte { return []byte(strings.Repeat(string(key), 100)) }
	var all [][]string
	for i := range 20_000 {
		all = append(all, []string{"GET", fmt.Sprintf("%05d", i)})
	}
	for i, got := range c.pipeline(all...) {
		if want := fmt.Sprintf("$500\r\n%s\r\n", strings.Repeat(fmt.Sprintf("%05d", i), 100)); got != want {
			t.Fatalf("reply %d: %.80q", i, got)
		}
	}
	if most := d.store.most.Load(); most > defaultWindow {
		t.Errorf("%d in flight", most)
	}
}

// corkedStore has a cork hold back what it is asked: a session that waits within its
// burst gets its answer only once that has been too long.
type corkedStore struct {
	Store
	cork *cork.Cork
	burst
}

// burst is what a corkedStore was asked in one burst, and the most there was of that.
type burst struct {
	mu         sync.Mutex
	held       []func()
	most, came int
}

// Uncork implements cork.Conn.
func (b *burst) Uncork() {
	b.mu.Lock()
	held := b.held
	b.held, b.most, b.came = nil, max(b.most, len(held)), b.came+1
	b.mu.Unlock()
	for _, f := range held {
		f()
	}
}

// bursts is how many there were, and the most that was asked in one.
func (b *burst) bursts() (came, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.came, b.most
}

func (s *corkedStore) hold(f func()) {
	s.mu.Lock()
	first := len(s.held) == 0
	if s.held = append(s.held, f); !first || s.cork.Hold(s) {
		f = nil
	} else {
		s.held = nil
	}
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// open reports whether a burst is under way.
func (s *corkedStore) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cork.Hold(s) // which lets go what is not there
}

// corked is a door with a cork that its store looks at.
func corked(t *testing.T, change ...func(*Config)) (*door, *corkedStore) {
	s := &corkedStore{cork: &cork.Cork{}}
	d := openDoor(t, append(change, func(c *Config) { s.Store, c.Store, c.Cork = c.Store, s, s.cork })...)
	return d, s
}

func (s *corkedStore) Read(key []byte, o coordinator.ReadOptions, done func(coordinator.ReadResult, error)) {
	s.hold(func() { s.Store.Read(key, o, done) })
}

func (s *corkedStore) Write(key []byte, op version.Op, o coordinator.WriteOptions, done func(coordinator.WriteResult, error)) {
	s.hold(func() { s.Store.Write(key, op, o, done) })
}

func TestAPipelineAsksInBurstsAndWaitsInNone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d, store := corked(t)
		c := d.connect()
		c.do("GET", "warm")
		if came, _ := store.bursts(); came != 0 {
			t.Error("a command by itself is held back")
		}
		began := time.Now()
		rng := rand.New(rand.NewPCG(1, 1))
		var commands [][]string
		for i := range 5000 {
			key := strconv.Itoa(rng.IntN(1000))
			switch rng.IntN(40) {
			case 0:
				commands = append(commands, []string{"MGET", key, "a", "b"})
			case 1:
				commands = append(commands, []string{"PING"})
			case 2:
				commands = append(commands, []string{"MULTI"}, []string{"SET", key, "1"}, []string{"GET", key}, []string{"EXEC"})
			case 3:
				commands = append(commands, []string{"NOSUCH"})
			case 4:
				commands = append(commands, []string{"SCAN", "0", "COUNT", "1"})
			case 5, 6, 7, 8, 9, 10, 11, 12:
				commands = append(commands, []string{"GET", key})
			default:
				commands = append(commands, []string{"SET", key, strconv.Itoa(i)})
			}
		}
		c.send(commands...)
		for range commands {
			c.receive()
		}
		synctest.Wait()
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited in a burst, for %v in all", took)
		}
		if _, most := store.bursts(); most < 10 || store.open() {
			t.Errorf("at most %d calls in a burst, one is open: %v", most, store.open())
		}
		_ = c.conn.Close()
	})
}

func TestAFullWindowIsHalfEmptiedAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.Window = 8 })
		c := d.wide()
		d.store.holdAll()
		var commands [][]string
		for i := range 12 {
			commands = append(commands, []string{"GET", strconv.Itoa(i)})
		}
		c.send(commands...)
		started := func(want int) {
			t.Helper()
			if synctest.Wait(); len(d.store.started()) != want {
				t.Fatalf("%d started, want %d", len(d.store.started()), want)
			}
		}
		started(8)
		for i := range 3 {
			d.store.release(strconv.Itoa(i))
			started(8)
		}
		d.store.release("3")
		started(12)
		for i := 4; i < 12; i++ {
			d.store.release(strconv.Itoa(i))
		}
		for range 12 {
			c.receive()
		}
		_ = c.conn.Close()
	})
}

// A client that does not read its replies must hold up nothing but itself.
func TestASlowReaderKeepsNoBurstOpen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d, store := corked(t, func(c *Config) { c.Limits.FlushBytes = 1024 })
		c := d.wide()
		d.store.values = func([]byte) []byte { return make([]byte, 200) }
		var commands [][]string
		for i := range 500 {
			commands = append(commands, []string{"GET", strconv.Itoa(i)})
		}
		c.send(commands...)
		for i := range commands {
			if synctest.Wait(); store.open() { // it reads no more for now
				t.Fatalf("a burst is open after %d replies", i)
			}
			c.receive()
		}
		_ = c.conn.Close()
	})
}
