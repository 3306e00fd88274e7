package resp

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica/version"
)

// spreads makes every look at the owners show one of these, the last again and again.
func (f *dataStore) spread(all ...coordinator.Spread) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.spreads, f.mu.asked = all, nil
}

func (f *dataStore) looks() []coordinator.SpreadRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mu.asked)
}

func owners(local bool, others int) coordinator.Spread {
	return coordinator.Spread{Owner: true, Local: local, Others: others}
}

func TestWaitLooksUntilEnoughOwnersHaveTheLastWrite(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		c := d.connect()
		c.do("SET", "before", "v")
		c.do("SET", "k", "v")
		c.do("SET", "k", "w", "NX") // writes nothing
		c.do("GET", "other")
		d.store.spread(owners(true, 0), owners(true, 1), owners(true, 0), owners(true, 2))
		began := time.Now()
		c.expect(":3\r\n", "WAIT", "3", "0")
		looks := d.store.looks()
		if len(looks) != 4 || string(looks[0].Key) != "k" || looks[0].Wrote.Kind != version.OpSet || looks[0].Wrote.HLC == 0 || len(looks[0].Wrote.Token.Context) == 0 || looks[0].Synced || looks[0].Total != 3 {
			t.Errorf("looked %d times: %+v", len(looks), looks)
		}
		if took := time.Since(began); took != 7*firstLookPause {
			t.Errorf("took %v", took)
		}
		d.store.spread(owners(true, 1), owners(false, 0))
		began = time.Now()
		c.expect(":2\r\n", "WAIT", "3", "10000") // what was seen once stays true
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
		if n := len(d.store.looks()); n > 17 {
			t.Errorf("looked %d times in 10 s", n)
		}
		c.expect(":0\r\n", "WAIT", "-1", "0")
		d.store.spread()
		c.expect(":0\r\n", "WAIT", "1", "5")
		_ = c.conn.Close()
	})
}

func TestWaitIsAboutADeleteThatHadNothingLeftToDo(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.do("SET", "k", "v")
	c.do("DEL", "k")
	c.do("SET", "other", "v")
	d.store.spread(owners(true, 2))
	c.expect(":0\r\n", "DEL", "k") // the first may have come to one node only
	c.expect(":3\r\n", "WAIT", "3", "0")
	c.expect(":0\r\n", "DEL", "never")
	c.expect(":3\r\n", "WAIT", "3", "0")
	for i, look := range d.store.looks() {
		if string(look.Key) != "k" || look.Wrote.Kind != version.OpDelete {
			t.Errorf("look %d: %+v", i, look)
		}
	}
}

func TestWaitCountsNobodyAfterAWriteOfUnknownOutcome(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.spread(owners(true, 2))
	fails := func(err error) {
		d.store.mu.Lock()
		defer d.store.mu.Unlock()
		d.store.mu.fail["k"] = err
	}
	for _, write := range [][]string{{"SET", "k", "v"}, {"DEL", "k"}, {"MSET", "k", "v", "other", "v"}, {"VCTX.SET", "k", "v", ""}} {
		c.do("SET", "before", "v")
		fails(coordinator.ErrNoReplicas)
		c.do(write...)
		c.expect(":3\r\n", "WAIT", "3", "0") // nothing was written of k
		fails(&coordinator.UncertainError{Acked: 1, Want: 2})
		c.do("GET", "k")
		c.expect(":3\r\n", "WAIT", "3", "0")
		c.do(write...)
		c.expect(":0\r\n", "WAIT", "3", "0")
		c.expect("*2\r\n:0\r\n:0\r\n", "WAITAOF", "1", "2", "0")
		c.do("SET", "k2", "v")
		c.expect(":3\r\n", "WAIT", "3", "0")
	}
}

func TestWaitAOFCountsThisNodeAndOthersApart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		c := d.connect()
		c.do("SET", "k", "v")
		d.store.spread(owners(false, 2), owners(true, 1))
		c.expect("*2\r\n:1\r\n:2\r\n", "WAITAOF", "1", "2", "0")
		if looks := d.store.looks(); len(looks) != 2 || !looks[0].Synced || !looks[0].Local || looks[0].Others != 2 {
			t.Errorf("%+v", looks)
		}
		d.store.spread(coordinator.Spread{Others: 1})
		c.expect("*2\r\n:0\r\n:1\r\n", "WAITAOF", "1", "1", "0") // this node is no owner
		_ = c.conn.Close()
	})
}

func TestWaitRefusesWhatRedisRefuses(t *testing.T) {
	c := newDataDoor(t).connect()
	for _, x := range []struct{ command, want string }{
		{"WAIT x 0", errNotInteger},
		{"WAIT 1 x", "ERR timeout is not an integer or out of range"},
		{"WAIT 1 -1", "ERR timeout is negative"},
		{"WAIT 1 9223372036854775807", "ERR timeout is out of range"},
		{"WAITAOF x 0 0", errNotInteger},
		{"WAITAOF 2 0 0", "ERR value is out of range, value must between 0 and 1"},
		{"WAITAOF 0 -1 0", "ERR value is out of range, must be positive"},
		{"WAITAOF 0 0 -1", "ERR timeout is negative"},
	} {
		c.expect("-"+x.want+"\r\n", strings.Fields(x.command)...)
	}
}

func TestWaitInABatchLooksOnce(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.spread(owners(true, 0))
	c.do("MULTI")
	c.do("SET", "k", "v")
	c.do("WAIT", "3", "0")
	c.expect("*2\r\n+OK\r\n:1\r\n", "EXEC")
	if n := len(d.store.looks()); n != 1 {
		t.Errorf("looked %d times", n)
	}
}

// TestAWaitIsEndedFromOutside ends waits without a limit.
func TestAWaitIsEndedFromOutside(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		a, b := d.connect(), d.connect()
		id := strings.Trim(a.do("CLIENT", "ID"), ":\r\n")
		a.do("SET", "k", "v")
		d.store.spread(owners(true, 0))
		b.expect(":0\r\n", "CLIENT", "UNBLOCK", id)
		for _, x := range []struct {
			reason []string
			want   string
		}{{nil, ":1\r\n"}, {[]string{"TIMEOUT"}, ":1\r\n"}, {[]string{"ERROR"}, "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"}} {
			a.send([]string{"PING"}, []string{"WAIT", "2", "0"})
			synctest.Wait()
			if got := a.receive(); got != "+PONG\r\n" { // not held back by the wait
				t.Errorf("got %q", got)
			}
			synctest.Wait()
			if info := b.do("INFO", "clients"); !strings.Contains(info, "blocked_clients:1\r\n") {
				t.Errorf("while one waits: %q", info)
			}
			b.expect(":1\r\n", append([]string{"CLIENT", "UNBLOCK", id}, x.reason...)...)
			if got := a.receive(); got != x.want {
				t.Errorf("%v: %q, want %q", x.reason, got, x.want)
			}
			if info := b.do("INFO", "clients"); !strings.Contains(info, "blocked_clients:0\r\n") {
				t.Errorf("when none waits: %q", info)
			}
		}
		a.send([]string{"WAIT", "2", "0"})
		synctest.Wait()
		b.expect(":1\r\n", "CLIENT", "KILL", "ID", id)
		if _, err := a.r.ReadByte(); err == nil {
			t.Error("the killed connection was answered")
		}
		b.do("SET", "k", "v")
		b.send([]string{"WAIT", "2", "0"})
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- d.srv.Shutdown(context.Background()) }()
		if got := b.receive(); got != ":1\r\n" {
			t.Errorf("at shutdown: %q", got)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
