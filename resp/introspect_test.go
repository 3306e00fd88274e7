package resp

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestSlowlogIsBoundedAndKeepsTheLast(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.expect("+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "2")
	for i := range 5 {
		c.line(fmt.Sprintf("GET key%d", i))
	}
	if got := c.line("SLOWLOG LEN"); got != ":2\r\n" {
		t.Errorf("got %q", got)
	}
	got := c.line("SLOWLOG GET")
	if !strings.HasPrefix(got, "*2\r\n*6\r\n") || !strings.Contains(got, "SLOWLOG") || !strings.Contains(got, "key4") {
		t.Errorf("got %q", got)
	}
	c.expect("+OK\r\n", "CONFIG", "SET", "slowlog-max-len", "0")
	c.expect("+OK\r\n", "SLOWLOG", "RESET")
	c.line("GET key")
	if got := c.line("SLOWLOG GET -1"); got != "*0\r\n" {
		t.Errorf("nothing is to be kept: %q", got)
	}
	if got := c.line(fmt.Sprint("CONFIG SET slowlog-max-len ", maxSlowlog+1)); !strings.HasPrefix(got, "-ERR CONFIG SET failed") {
		t.Errorf("got %q", got)
	}
}

func TestSlowWordsTellNoPasswords(t *testing.T) {
	table, err := newTable(commands())
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"ACL SETUSER u on >secret ~k":                  "ACL SETUSER (redacted) (redacted) (redacted) (redacted)",
		"AUTH secret":                                  "AUTH (redacted)",
		"auth me secret":                               "auth (redacted) (redacted)",
		"HELLO 3 SETNAME x auth me secret":             "HELLO 3 SETNAME x auth (redacted) (redacted)",
		"CONFIG SET maxclients 9 RequirePass secret":   "CONFIG SET maxclients 9 RequirePass (redacted)",
		"CONFIG SET requirepass secret maxclients 100": "CONFIG SET requirepass (redacted) maxclients 100",
		"SET requirepass v":                            "SET requirepass v",
	} {
		var args [][]byte
		for _, word := range strings.Fields(command) {
			args = append(args, []byte(word))
		}
		if got := strings.Join(slowWords(table.lookup(args), args), " "); got != want {
			t.Errorf("%s is kept as %s", command, got)
		}
	}
}

func TestHistogramsGrowByPowersOfTwo(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{0, 1031, 1032, time.Millisecond, time.Second, time.Hour} {
		h.add(d)
	}
	w := &Reply{proto: 3}
	w.begin(mib)
	h.write(w)
	want := "%2\r\n$5\r\ncalls\r\n:6\r\n$14\r\nhistogram_usec\r\n%4\r\n:1\r\n:2\r\n:2\r\n:3\r\n:1056\r\n:4\r\n:1082130\r\n:6\r\n"
	if got := string(w.buf); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLatencyMonitorKeepsTheLongestOfEachSecond(t *testing.T) {
	var m latencyMonitor
	for i := range int64(latencySamples + 5) {
		m.add("command", i, 3)
		m.add("command", i, 7)
		m.add("command", i, 5)
	}
	m.add("fast-command", 1, 900)
	m.add("command", 1000, 2)
	events := m.list()
	if len(events) != 2 || events[0].name != "command" || events[0].most != 7 || events[1].most != 900 {
		t.Fatalf("got %+v", events)
	}
	samples := events[0].samples
	if len(samples) != latencySamples || samples[0] != (latencySample{6, 7}) || samples[len(samples)-1] != (latencySample{1000, 2}) {
		t.Errorf("%d samples from %+v to %+v", len(samples), samples[0], samples[len(samples)-1])
	}
	if n := m.reset("command", "nosuch"); n != 1 || len(m.list()) != 1 {
		t.Errorf("%d were reset", n)
	}
}

// TestConnectionsShareWhatTookLong says something under the race detector.
func TestConnectionsShareWhatTookLong(t *testing.T) {
	const connections, each, most = 4, 200, 10
	var slow slowlog
	var monitor latencyMonitor
	var all sync.WaitGroup
	for c := range connections {
		all.Go(func() {
			for i := range int64(each) {
				slow.add(slowEntry{at: i, args: []string{"GET"}}, most)
				monitor.add("command", i, int64(c))
				if n := max(len(slow.newest(-1)), slow.length()); n > most {
					t.Errorf("%d slow commands kept, at most %d wanted", n, most)
				}
				if n := len(monitor.list()[0].samples); n > latencySamples {
					t.Errorf("%d samples kept", n)
				}
			}
		})
	}
	all.Wait()
	// The identifiers of all that were slow follow each other.
	if last := slow.newest(1)[0].id; last != connections*each-1 {
		t.Errorf("the last slow command is number %d, want %d", last, connections*each-1)
	}
	if e := monitor.list()[0]; e.most != connections-1 {
		t.Errorf("the longest was %d ms, want %d", e.most, connections-1)
	}
}

func TestLatencyEventsAreCommandsThatTookLong(t *testing.T) {
	d := newDataDoor(t)
	s := d.session()
	s.srv.params.latencyMS.Store(10)
	s.noteLatency(s.srv.table.byName["get"], 9*time.Millisecond)
	s.noteLatency(s.srv.table.byName["get"], 10*time.Millisecond)
	s.noteLatency(s.srv.table.byName["keys"], 20*time.Millisecond)
	c := d.connect()
	at := d.clock.now().Unix()
	if got, want := c.line("LATENCY LATEST"), fmt.Sprintf("*2\r\n*4\r\n$7\r\ncommand\r\n:%d\r\n:20\r\n:20\r\n*4\r\n$12\r\nfast-command\r\n:%d\r\n:10\r\n:10\r\n", at, at); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := c.line("LATENCY HISTORY command"), fmt.Sprintf("*1\r\n*2\r\n:%d\r\n:20\r\n", at); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := c.line("LATENCY DOCTOR"); !strings.Contains(got, "fast-command: in 1 seconds") {
		t.Errorf("got %q", got)
	}
	if got := c.line("LATENCY RESET"); got != ":2\r\n" {
		t.Errorf("got %q", got)
	}
}

// took is the virtual time that f takes.
func took(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

func TestPausedClientsWait(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		a, b := d.connect(), d.connect()
		second := time.Second
		a.line("CLIENT PAUSE 1000 WRITE")
		if got := took(func() { b.line("GET k") }); got != 0 {
			t.Errorf("a read waited for %v", got)
		}
		if got := took(func() { b.line("SET k v") }); got != second {
			t.Errorf("a write waited for %v", got)
		}
		a.line("CLIENT PAUSE 1000 WRITE")
		a.line("CLIENT PAUSE 500 ALL")
		if got := took(func() { b.line("PING") }); got != second {
			t.Errorf("of two pauses the longer and wider held for %v", got)
		}
		a.line("CLIENT PAUSE 1000 WRITE")
		done := make(chan time.Duration)
		go func() { done <- took(func() { b.line("SET k v") }) }()
		time.Sleep(second / 4)
		a.line("CLIENT UNPAUSE")
		if got := <-done; got != second/4 {
			t.Errorf("waited for %v after a quarter", got)
		}
		if got := took(func() { a.line("SET k v") }); got != 0 || d.srv.pause.active.Load() {
			t.Errorf("waited for %v with no pause", got)
		}
	})
}

func TestAClientThatIsKilledWhileItIsPausedLeavesAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		a, b := d.connect(), d.connect()
		id := strings.TrimSpace(b.line("CLIENT ID")[1:])
		a.line("CLIENT PAUSE 1000000 WRITE")
		if _, err := b.conn.Write([]byte("SET k v\r\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := a.line("CLIENT KILL ID " + id); got != ":1\r\n" {
			t.Fatalf("KILL answers %q", got)
		}
		synctest.Wait()
		if all := d.srv.clients(); len(all) != 1 {
			t.Errorf("%d clients are there", len(all))
		}
	})
}

func TestShutdownDoesNotWaitForAPause(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		a, b := d.connect(), d.connect()
		a.line("CLIENT PAUSE 1000000 ALL")
		go b.line("SET k v")
		synctest.Wait()
		if got := took(func() { _ = d.srv.Shutdown(t.Context()) }); got != 0 {
			t.Errorf("waited for %v", got)
		}
	})
}

func TestShutdownAsksTheNodeToStop(t *testing.T) {
	var stops atomic.Int64
	d := newDataDoor(t, func(c *Config) { c.Stop = func() { stops.Add(1) } })
	c := d.connect()
	for _, command := range []string{"SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT", "SHUTDOWN x"} {
		if got := c.line(command); got[0] != '-' || stops.Load() != 0 {
			t.Errorf("%s: %q, %d stops", command, got, stops.Load())
		}
	}
	if _, err := c.conn.Write([]byte("SHUTDOWN NOSAVE NOW FORCE\r\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.conn.Read(make([]byte, 1)); err == nil || stops.Load() != 1 {
		t.Errorf("%d bytes, %v, %d stops", n, err, stops.Load())
	}
	if got := newDataDoor(t).connect().line("SHUTDOWN"); got != "-ERR Errors trying to SHUTDOWN. Check logs.\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestMemoryUsageIsWhatACopyTakes(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.line("SET k " + strings.Repeat("x", 1000))
	var n int
	if _, err := fmt.Sscanf(c.line("MEMORY USAGE k SAMPLES 5"), ":%d\r\n", &n); err != nil || n < 1001 || n > 1100 {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.expect("+OK\r\n", "MEMORY", "PURGE")
}

func TestTheGraphOfLatencyIsThatOfRedis(t *testing.T) {
	d := newDataDoor(t)
	s := d.session()
	now := d.clock.now().Unix()
	d.srv.latency.add("command", now-4, 24)
	d.srv.latency.add("command", now-3, 217)
	d.srv.latency.add("command", now-1, 598)
	w := Reply{proto: 2}
	latencyGraph(s, [][]byte{[]byte("latency"), []byte("graph"), []byte("command")}, &w)
	want := "command - high 598 ms, low 24 ms (all time high 598 ms)\n" + strings.Repeat("-", 80) + "\n" +
		"  #\n  |\n o|\n_||\n   \n431\nsss\n"
	if got := string(w.buf); got != "$165\r\n"+want+"\r\n" {
		t.Errorf("%s", got)
	}
	for seconds, text := range map[int64]string{-1: "0s", 59: "59s", 60: "1m", 7199: "1h", 86400: "1d"} {
		if got := ageText(seconds); got != text {
			t.Errorf("%d s are %s", seconds, got)
		}
	}
	for i := range int64(200) { // the newest are shown
		d.srv.latency.add("fast-command", now+i, 1)
	}
	w.buf = nil
	latencyGraph(s, [][]byte{[]byte("latency"), []byte("graph"), []byte("fast-command")}, &w)
	if !strings.Contains(string(w.buf), "\n"+strings.Repeat("_", 80)+"\n") {
		t.Errorf("%s", w.buf)
	}
}
