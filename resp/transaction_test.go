package resp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// lines runs commands one by one: "command" and the reply wanted, alternately.
func (c *dataWire) lines(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		c.expect(pairs[i+1], strings.Fields(pairs[i])...)
	}
}

func TestBatchRunsInOrderWhenExecComes(t *testing.T) {
	d := newDataDoor(t)
	c, other := d.connect(), d.connect()
	c.lines("MULTI", "+OK\r\n", "SET k 1", "+QUEUED\r\n", "APPEND k 2", "+QUEUED\r\n", "NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n")
	c.lines("EXEC", "-"+errAborted+"\r\n", "GET k", "$-1\r\n")
	c.lines("MULTI", "+OK\r\n", "SET k 1", "+QUEUED\r\n", "APPEND k 2", "+QUEUED\r\n", "SETRANGE k -1 x", "+QUEUED\r\n", "GET k", "+QUEUED\r\n")
	other.lines("GET k", "$-1\r\n")
	c.lines("EXEC", "*4\r\n+OK\r\n:2\r\n-ERR offset is out of range\r\n$2\r\n12\r\n", "EXEC", "-ERR EXEC without MULTI\r\n")
	other.lines("GET k", "$2\r\n12\r\n")
}

func TestBatchKeepsTheOrderOfAKeyAndRunsOthersTogether(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		c := d.connect()
		c.pipeline([]string{"SET", "a", "1"}, []string{"SET", "b", "2"}) // opens the window
		c.lines("MULTI", "+OK\r\n", "GET a", "+QUEUED\r\n", "GET b", "+QUEUED\r\n")
		d.store.mu.hold = 2
		// Nobody is answered before both have come.
		c.lines("EXEC", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n")
		var batch []string
		var want strings.Builder
		fmt.Fprintf(&want, "*%d\r\n", 300)
		for i := range 300 {
			batch = append(batch, fmt.Sprintf("APPEND k%d x", i%3))
			fmt.Fprintf(&want, ":%d\r\n", i/3+1)
		}
		c.lines("MULTI", "+OK\r\n")
		for _, line := range batch {
			c.lines(line, "+QUEUED\r\n")
		}
		c.lines("EXEC", want.String())
	})
}

func TestWatchNoticesWhatChangedBetween(t *testing.T) {
	for _, change := range []string{"SET k w", "SET k v", "DEL k", "EXPIRE k 100", "APPEND k x", "FLUSHALL", "VCTX.SET k w *"} {
		d := newDataDoor(t)
		c, other := d.connect(), d.connect()
		other.do("SET", "k", "v")
		c.lines("WATCH x k", "+OK\r\n", "WATCH k", "+OK\r\n")
		other.do(strings.Fields(change)...)
		c.lines("WATCH k", "+OK\r\n") // looks at the key no second time
		c.lines("MULTI", "+OK\r\n", "SET ran 1", "+QUEUED\r\n", "EXEC", "*-1\r\n", "EXISTS ran", ":0\r\n")
		c.lines("MULTI", "+OK\r\n", "SET ran 1", "+QUEUED\r\n", "EXEC", "*1\r\n+OK\r\n")
	}
	for _, nothing := range []string{"GET k", "PERSIST k", "DEL y", "SET y 1", "SETNX k 2"} {
		d := newDataDoor(t)
		c, other := d.connect(), d.connect()
		other.do("SET", "k", "v")
		c.lines("WATCH x k", "+OK\r\n")
		other.do(strings.Fields(nothing)...)
		c.lines("MULTI", "+OK\r\n", "GET k", "+QUEUED\r\n", "EXEC", "*1\r\n$1\r\nv\r\n")
	}
}

func TestWatchNoticesThatTheTimeOfAKeyCame(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.lines("SET k v PX 50", "+OK\r\n", "WATCH k", "+OK\r\n")
	d.clock.advance(60 * time.Millisecond)
	c.lines("MULTI", "+OK\r\n", "EXEC", "*-1\r\n", "WATCH k", "+OK\r\n", "MULTI", "+OK\r\n", "EXEC", "*0\r\n")
}

func TestWatchIsForgottenByExecDiscardUnwatchAndReset(t *testing.T) {
	for _, end := range [][]string{{"UNWATCH"}, {"MULTI", "DISCARD"}, {"MULTI", "EXEC"}, {"RESET"}, {"MULTI", "NOSUCH", "EXEC"}} {
		d := newDataDoor(t)
		c := d.connect()
		c.lines("WATCH k", "+OK\r\n", "SET k 1", "+OK\r\n")
		for _, line := range end {
			c.line(line)
		}
		if used := d.srv.queued.used.Load(); used != 0 {
			t.Errorf("%q leaves %d bytes charged", end, used)
		}
		c.lines("MULTI", "+OK\r\n", "EXEC", "*0\r\n")
	}
}

func TestNothingRunsWhenTheWatchedKeysCannotBeRead(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.lines("WATCH k", "+OK\r\n", "MULTI", "+OK\r\n", "SET ran 1", "+QUEUED\r\n")
	d.store.mu.fail["k"] = coordinator.ErrNoReadQuorum
	c.lines("EXEC", "-EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to read.\r\n",
		"EXISTS ran", ":0\r\n", "EXEC", "-ERR EXEC without MULTI\r\n", "WATCH a k", "-NOREPLICAS Not enough good replicas to read.\r\n")
	d.store.mu.fail["k"] = nil
	c.lines("SET a 1", "+OK\r\n", "MULTI", "+OK\r\n", "EXEC", "*0\r\n")
}

func TestUncertainCommandOfABatchStopsNoOther(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.mu.fail["k"] = &coordinator.UncertainError{Acked: 1, Want: 2}
	c.lines("MULTI", "+OK\r\n", "SET a 1", "+QUEUED\r\n", "SET k 1", "+QUEUED\r\n", "SET b 1", "+QUEUED\r\n")
	got := c.do("EXEC")
	if !strings.HasPrefix(got, "*3\r\n+OK\r\n-UNCERTAIN acked 1/2") || !strings.HasSuffix(got, "\r\n+OK\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestLimitsOfATransaction(t *testing.T) {
	aborted := "-" + errAborted + "\r\n"
	small := func(c *Config) {
		c.Limits.MaxQueued, c.Limits.MaxQueuedBytes, c.Limits.MaxQueuedTotal, c.Limits.MaxWatched = 3, 2000, 3000, 2
	}
	d := newDataDoor(t, small)
	c, other := d.connect(), d.connect()
	ping, okay := []string{"PING"}, []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n"}
	got := c.pipeline([]string{"MULTI"}, ping, ping, ping)
	if !slices.Equal(got, okay) {
		t.Errorf("three commands: %q", got)
	}
	c.lines("PING", "-"+errQueueLong+"\r\n", "EXEC", aborted)

	large := strings.Repeat("x", 1500)
	c.lines("MULTI", "+OK\r\n", "ECHO "+large, "+QUEUED\r\n", "ECHO "+large, "-"+errQueueBytes+"\r\n")
	other.lines("MULTI", "+OK\r\n", "ECHO "+large, "-"+errQueueTotal+"\r\n", "EXEC", aborted)
	c.lines("EXEC", aborted)
	other.lines("MULTI", "+OK\r\n", "ECHO "+large, "+QUEUED\r\n")

	c.lines("WATCH a b c", "-"+errWatchedMany+"\r\n", "WATCH a b a", "+OK\r\n", "WATCH c", "-"+errWatchedMany+"\r\n",
		"WATCH a b", "+OK\r\n", "UNWATCH", "+OK\r\n", "WATCH "+large+"y "+large, "-"+errQueueBytes+"\r\n", "WATCH "+large, "-"+errQueueTotal+"\r\n")
	_ = other.conn.Close() // gives back what it had queued
	deadline := time.Now().Add(5 * time.Second)
	for d.srv.queued.used.Load() != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are still charged", d.srv.queued.used.Load())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestQueuedArgumentsPinNothingElse(t *testing.T) {
	own := cloneArgs([][]byte{[]byte("SET"), []byte(""), []byte("value")})
	if string(own[0]) != "SET" || len(own[1]) != 0 || string(own[2]) != "value" || cap(own[0]) != 3 {
		t.Errorf("got %q", own)
	}
}

func TestDefaultLimitsOfTransactionsFit(t *testing.T) {
	l := Limits{}.withDefaults()
	if l.MaxQueued != 256*kib || l.MaxQueuedBytes != 64*mib || l.MaxQueuedTotal != 256*mib || l.MaxWatched != 1024 {
		t.Errorf("got %d %d %d %d", l.MaxQueued, l.MaxQueuedBytes, l.MaxQueuedTotal, l.MaxWatched)
	}
	for _, bad := range []func(*Limits){
		func(l *Limits) { l.MaxQueued = -1 }, func(l *Limits) { l.MaxQueuedBytes = -1 },
		func(l *Limits) { l.MaxQueuedTotal = l.MaxQueuedBytes - 1 }, func(l *Limits) { l.MaxWatched = -1 },
	} {
		l := Limits{}.withDefaults()
		bad(&l)
		if l.validate() == nil {
			t.Errorf("%+v passes", l)
		}
	}
}

func TestBatchOnTheClusterDoorHasKeysOfOneSlot(t *testing.T) {
	admin := &fakeAdmin{}
	d := newDataDoor(t, func(c *Config) { c.Door, c.Admin = Cluster, admin })
	c := d.connect()
	c.lines("MULTI", "+OK\r\n", "SET a 1", "+QUEUED\r\n", "SET b 1", "+QUEUED\r\n", "EXEC", "-"+errCrossSlot+"\r\n", "EXEC", "-ERR EXEC without MULTI\r\n")
	c.lines("MULTI", "+OK\r\n", "SET {t}a 1", "+QUEUED\r\n", "PING", "+QUEUED\r\n", "EXISTS {t}b {t}a", "+QUEUED\r\n",
		"EXEC", "*3\r\n+OK\r\n+PONG\r\n:1\r\n", "WATCH a b", "-"+errCrossSlot+"\r\n")
	c.lines("MULTI", "+OK\r\n", "MGET a b", "-"+errCrossSlot+"\r\n", "EXEC", "-"+errAborted+"\r\n")

	// A new map: the one MOVED spoils the batch, as it does in Redis.
	admin.view.Store(NewView(7, 1, 1, []Member{{ID: 1, Host: "h", Cluster: 7, Alive: true}},
		func(uint16) []ring.NodeID { return []ring.NodeID{1} }))
	c.lines("MULTI", "+OK\r\n", "SET a 1", "-MOVED 15495 h:7\r\n", "SET a 2", "+QUEUED\r\n", "EXEC", "-"+errAborted+"\r\n",
		"MULTI", "+OK\r\n", "SET a 2", "+QUEUED\r\n", "EXEC", "*1\r\n+OK\r\n")
}

func TestNobodyUnknownQueuesAnything(t *testing.T) {
	d := newDataDoor(t, func(c *Config) { c.Password = "secret" })
	c := d.connect()
	c.lines("MULTI", "-"+errNoAuth+"\r\n", "EXEC", "-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n")
}

func TestBatchOutlivesItsClientButNotTheServer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		c := d.connect()
		c.lines("MULTI", "+OK\r\n")
		for i := range 10 {
			c.lines(fmt.Sprintf("SET k%d v", i), "+QUEUED\r\n")
		}
		if _, err := c.conn.Write(encodeCommand([]string{"EXEC"})); err != nil {
			t.Fatal(err)
		}
		_ = c.conn.Close()
		synctest.Wait()
		for i := range 10 {
			if _, ok := d.store.record(fmt.Sprint("k", i)).Winner(d.clock.now().UnixMilli()); !ok {
				t.Errorf("k%d was not written", i)
			}
		}
	})
	d := newDataDoor(t)
	s := d.session()
	s.client = &client{}
	s.tx.open = true
	s.tx.queue = []queuedCommand{{d.srv.table.byName["set"], [][]byte{[]byte("set"), []byte("k"), []byte("v")}}}
	s.window = 1
	d.srv.cancel()
	s.exec(d.srv.table.byName["exec"], nil, false)
	if !s.closing || len(d.store.mu.ops) != 0 {
		t.Errorf("closing %t after %d writes", s.closing, len(d.store.mu.ops))
	}
}

func TestReadErrorOfAWatchedKeyIsNoChange(t *testing.T) {
	d := newDataDoor(t)
	s := d.session()
	s.tx.watched = []watchedKey{{key: []byte("k")}}
	d.store.mu.fail["k"] = coordinator.ErrTimeout
	if broken, err := s.watchBroken(); broken || !errors.Is(err, coordinator.ErrTimeout) {
		t.Errorf("broken %t, %v", broken, err)
	}
}
