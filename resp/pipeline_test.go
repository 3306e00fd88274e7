package resp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
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
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
