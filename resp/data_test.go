package resp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica/version"
)

func TestGetRemembersTheWholeReadForTheNextSet(t *testing.T) {
	d := newDataDoor(t)
	d.store.put(t, "k", "older", nil)
	d.store.put(t, "k", "newer", nil)
	read := d.store.record("k")
	for _, get := range [][]string{
		{"GET", "k"}, {"MGET", "x", "k"}, {"GETRANGE", "k", "0", "-1"}, {"GETEX", "k"},
	} {
		c := d.connect()
		c.do(get...)
		c.do("SET", "k", "v", "XX")
		if op := d.store.lastOp(t); !op.Context.Covers(read.Context) || op.MinHLC < read.MaxHLC() {
			t.Errorf("%q: the SET after it has context %v above %d, want %v above %d",
				get, op.Context, op.MinHLC, read.Context, read.MaxHLC())
		}
		d.store.mu.records["k"] = read
	}
}

func TestSetRemembersWhatItWroteForTheNextSet(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	for _, write := range [][]string{
		{"SET", "k", "1"}, {"SETEX", "k", "10", "2"}, {"APPEND", "k", "3"}, {"GETSET", "k", "4"},
		{"MSET", "x", "1", "k", "5"}, {"VCTX.SET", "k", "6", "*"}, {"DEL", "k"},
	} {
		c.do(write...)
		wrote := d.store.record("k")
		c.do("SET", "k", "next")
		if op := d.store.lastOp(t); !op.Context.Covers(wrote.Context) || op.MinHLC < wrote.MaxHLC() {
			t.Errorf("%q: the SET after it has context %v above %d, want %v above %d",
				write, op.Context, op.MinHLC, wrote.Context, wrote.MaxHLC())
		}
	}
}

func TestLaterSetOfAConnectionWinsAtAnyCoordinator(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.do("SET", "other", "v")
	last := d.store.record("other").MaxHLC()
	c.do("SET", "k", "v")
	if op := d.store.lastOp(t); op.MinHLC < last {
		t.Errorf("MinHLC %d is below %d, which this connection wrote", op.MinHLC, last)
	}
}

func TestPipelinedCommandsAreInFlightTogether(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		c := d.connect()
		c.pipeline([]string{"SET", "a", "1"}, []string{"SET", "b", "2"}) // opens the window
		d.store.mu.hold = 2
		// Nobody is answered before both have come: run one after the other,
		// they would wait for ever, and synctest would say so.
		got := c.pipeline([]string{"GET", "a"}, []string{"GET", "b"})
		if want := []string{"$1\r\n1\r\n", "$1\r\n2\r\n"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestManyKeysAreInFlightTogetherUpToABound(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		c := d.connect()
		n := fanWidth + 50
		mset, mget := []string{"MSET"}, []string{"MGET"}
		var want strings.Builder
		fmt.Fprintf(&want, "*%d\r\n", n)
		for i := range n {
			mset = append(mset, fmt.Sprint("key", i), fmt.Sprint(1000+i))
			mget = append(mget, fmt.Sprint("key", i))
			fmt.Fprintf(&want, "$4\r\n%d\r\n", 1000+i)
		}
		c.expect("+OK\r\n", mset...)
		d.store.mu.hold = n + 1
		result := make(chan string)
		go func() { result <- c.do(mget...) }()
		synctest.Wait()
		d.store.mu.Lock()
		if got := len(d.store.mu.reads); got != fanWidth {
			t.Errorf("%d reads in flight, want %d", got, fanWidth)
		}
		held := d.store.mu.held
		d.store.mu.held, d.store.mu.hold = nil, 0
		d.store.mu.Unlock()
		for _, done := range held {
			done()
		}
		if got := <-result; got != want.String() {
			t.Errorf("got %.200q", got)
		}
	})
}

func TestRepliesStayWithTheirCommands(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	d := newDataDoor(t)
	c := d.connect()
	model := map[string]string{}
	for range 50 {
		var commands [][]string
		var want []string
		for range 1 + rng.IntN(40) {
			k, v := fmt.Sprint("k", rng.IntN(5)), fmt.Sprint(rng.IntN(1000))
			switch old, ok := model[k]; rng.IntN(3) {
			case 0:
				commands, want = append(commands, []string{"SET", k, v}), append(want, "+OK\r\n")
				model[k] = v
			case 1:
				reply := "$-1\r\n"
				if ok {
					reply = fmt.Sprintf("$%d\r\n%s\r\n", len(old), old)
				}
				commands, want = append(commands, []string{"GET", k}), append(want, reply)
			default:
				n := 0
				if ok {
					n = 1
				}
				commands, want = append(commands, []string{"DEL", k}), append(want, fmt.Sprintf(":%d\r\n", n))
				delete(model, k)
			}
		}
		if got := c.pipeline(commands...); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %q:\n got %q\nwant %q", seed, commands, got, want)
		}
	}
}

func TestFailureOfOneKeyFailsTheCommand(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.do("MSET", "a", "1", "b", "2", "c", "3")
	fail := d.store.mu.fail
	fail["b"] = coordinator.ErrNoReadQuorum
	for _, command := range []string{"MGET a b c", "EXISTS a b c", "VCTX.MGET a b c", "GET b", "STRLEN b", "TTL b", "GETEX b EX x"} {
		c.expect("-NOREPLICAS Not enough good replicas to read.\r\n", strings.Fields(command)...)
	}
	fail["b"] = coordinator.ErrNoReplicas
	c.expect("-UNCERTAIN wrote 2 of 3 keys; the first failure was: NOREPLICAS Not enough good replicas to write.\r\n",
		"MSET", "a", "1", "b", "2", "c", "3")
	c.expect("-UNCERTAIN wrote 1 of 2 keys; the first failure was: NOREPLICAS Not enough good replicas to write.\r\n",
		"DEL", "b", "c")
	c.expect("-NOREPLICAS Not enough good replicas to write.\r\n", "DEL", "b")
	fail["a"] = coordinator.ErrNoReplicas
	c.expect("-NOREPLICAS Not enough good replicas to write.\r\n", "MSET", "a", "1", "b", "2")
	fail["a"] = &coordinator.UncertainError{Acked: 1, Want: 2}
	if got := c.do("MSET", "b", "2", "a", "1"); !strings.HasPrefix(got, "-UNCERTAIN wrote 0 of 2 keys") {
		t.Errorf("got %q", got)
	}
	c.expect("$-1\r\n", "GET", "c")
}

func TestValuesAboveTheLimitAreRefused(t *testing.T) {
	d := newDataDoor(t, func(c *Config) { c.Limits.MaxValue = 100 })
	c := d.connect()
	fits, long := strings.Repeat("x", 100), strings.Repeat("x", 101)
	for _, command := range [][]string{
		{"SET", "k", long}, {"SETEX", "k", "10", long}, {"SETNX", "k", long}, {"GETSET", "k", long},
		{"MSET", "a", "1", "k", long}, {"APPEND", "k", long}, {"SETRANGE", "k", "0", long},
		{"SETRANGE", "k", "100", "x"}, {"SETRANGE", "k", "9223372036854775807", "x"}, {"VCTX.SET", "k", long, ""},
	} {
		c.expect("-"+errTooLong+"\r\n", command...)
	}
	c.expect(":0\r\n", "EXISTS", "k", "a")
	c.expect("+OK\r\n", "SET", "k", fits)
	c.expect("-"+errTooLong+"\r\n", "APPEND", "k", "y")
	c.expect(":100\r\n", "SETRANGE", "k", "99", "y")
	c.expect(":100\r\n", "STRLEN", "k")
}

func TestReadModifyWritesAskForTheOldValueAndNothingElse(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	for _, want := range []struct {
		command string
		op      version.Op
	}{
		{"SET k v", version.Op{Kind: version.OpSet}},
		{"SET k v NX", version.Op{Kind: version.OpSet, Cond: version.CondAbsent}},
		{"SET k v XX GET", version.Op{Kind: version.OpSet, Cond: version.CondPresent, ReturnOld: true}},
		{"SET k v KEEPTTL", version.Op{Kind: version.OpSet, Expiry: version.ExpiryKeep}},
		{"SET k v PXAT 99", version.Op{Kind: version.OpSet, Expiry: version.ExpiryAt, ExpireAtMS: 99}},
		{"GETDEL k", version.Op{Kind: version.OpDelete, ReturnOld: true}},
		{"GETEX k PERSIST", version.Op{Kind: version.OpExpire, ReturnOld: true}},
		{"EXPIREAT k -7", version.Op{Kind: version.OpExpire, ExpireAtMS: 1}},
		{"PEXPIREAT k 99 GT", version.Op{Kind: version.OpExpire, ExpireAtMS: 99, Cond: version.CondGreater}},
		{"APPEND k v", version.Op{Kind: version.OpAppend}},
		{"SETRANGE k 7 v", version.Op{Kind: version.OpSetRange, Offset: 7}},
		{"INCR k", version.Op{Kind: version.OpCount, Value: []byte("1")}},
		{"DECR k", version.Op{Kind: version.OpCount, Value: []byte("-1")}},
		{"INCRBY k -9223372036854775808", version.Op{Kind: version.OpCount, Value: []byte("-9223372036854775808")}},
		{"DECRBY k 9223372036854775807", version.Op{Kind: version.OpCount, Value: []byte("-9223372036854775807")}},
		{"INCRBYFLOAT k 1e3", version.Op{Kind: version.OpCountFloat, Value: []byte("1e3")}},
	} {
		c.line(want.command)
		got := d.store.lastOp(t)
		if got.MaxValue != mib || got.Explicit || got.MaxSiblings != 0 {
			t.Errorf("%s: limits %+v", want.command, got)
		}
		if got.Kind != version.OpCount && got.Kind != version.OpCountFloat {
			got.Value = nil
		}
		got.Context, got.MinHLC, got.MaxValue = nil, 0, 0
		if fmt.Sprint(got) != fmt.Sprint(want.op) {
			t.Errorf("%s: got %+v, want %+v", want.command, got, want.op)
		}
	}
}

func TestFinishedCallsAreReusedAndPinNothing(t *testing.T) {
	d := newDataDoor(t)
	s := d.session()
	w := &Reply{proto: 2}
	var all []pending
	for range spareCalls + 10 {
		all = append(all, startSet(s, [][]byte{[]byte("SET"), []byte("k"), []byte("v")}))
	}
	for _, p := range all {
		p.finish(w)
	}
	if len(s.spare) != spareCalls {
		t.Errorf("%d calls kept, want %d", len(s.spare), spareCalls)
	}
	for _, c := range s.spare {
		if c.key != nil || c.args != nil || c.wrote.Token.Context != nil || c.wrote.Old != nil || c.read.Record.Versions != nil {
			t.Fatalf("a finished call holds %+v", c)
		}
	}
	args := [][]byte{[]byte("GET"), []byte("k")}
	if n := testing.AllocsPerRun(100, func() {
		w.buf = w.buf[:0]
		startGet(s, args).finish(w)
	}); n > 2 { // of the fake store's own
		t.Errorf("a GET allocates %v times", n)
	}
}
