package resp

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/redynamo/redynamo/integration/bubble"
)

// watched is a line of MONITOR, by the clock of openDoor's store.
func (d *door) watched(words string) string { return "+" + d.stamp() + " [0 pipe] " + words + "\r\n" }

func (d *door) stamp() string {
	line := monitorLine(d.srv.cfg.Now(), "", &command{}, nil, 1)
	return strings.TrimSuffix(strings.TrimPrefix(string(line), "+"), " [0 ]\r\n")
}

func TestAMonitorIsShownTheCommandsOfBothDoorsButNoSecrets(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		hub := NewHub(HubConfig{})
		share := func(c *Config) { c.Hub, c.Password = hub, "pw" }
		plain, cluster := openDoor(t, share), openDoor(t, share, func(c *Config) { c.Door = Cluster })
		m, a, b := plain.connect(), plain.connect(), cluster.connect()
		m.expect("-NOAUTH Authentication required.\r\n", "MONITOR")
		m.expect("+OK\r\n", "AUTH", "pw")
		m.expect("+OK\r\n", "MONITOR")
		a.do("GET", "k") // refused before the login: not run
		a.do("AUTH", "pw")
		a.do("AUTH", "default", "pw")
		a.do("HELLO", "3", "SETNAME", "auth", "AUTH", "default", "pw")
		a.do("CONFIG", "GET", "port")
		a.do("CLIENT", "LIST")
		a.do("NOSUCH")
		a.do("GET")
		a.do("ECHO", "\x00\n\r\t\a\b\"\\\xff~")
		b.do("hello", "2", "auth", "default", "pw")
		b.do("ping")
		m.gets(plain.watched(`"AUTH" "(redacted)"`), plain.watched(`"AUTH" "(redacted)" "(redacted)"`),
			plain.watched(`"HELLO" "3" "SETNAME" "auth" "AUTH" "(redacted)" "(redacted)"`),
			plain.watched(`"ECHO" "\x00\n\r\t\a\b\"\\\xff~"`),
			plain.watched(`"hello" "2" "auth" "(redacted)" "(redacted)"`), plain.watched(`"ping"`))
		for _, c := range []*dataWire{m, a, b} {
			_ = c.conn.Close()
		}
		synctest.Wait()
		if n := hub.monitors.n.Load(); n != 0 {
			t.Errorf("%d monitors are left", n)
		}
	})
}

func TestAMonitorSeesABatchWhenItIsRunAndBeginsNoneItself(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		m, a := d.connect(), d.connect()
		m.expect("+OK\r\n", "MULTI")
		m.expect("+QUEUED\r\n", "MONITOR")
		m.expect("*1\r\n-"+errMonitorQueued+"\r\n", "EXEC")
		m.expect("+OK\r\n", "MONITOR")
		a.do("MULTI")
		a.do("ECHO", "1")
		a.do("PING")
		m.gets(d.watched(`"MULTI"`))
		a.do("EXEC")
		m.gets(d.watched(`"ECHO" "1"`), d.watched(`"PING"`), d.watched(`"EXEC"`))
	})
}

func TestAMonitorAsksLittleAndSeesItsAnswersFirst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		m := d.connect()
		m.do("HELLO", "3")
		m.expect("+OK\r\n", "MONITOR")
		m.expect("+PONG\r\n", "PING")
		m.gets(d.watched(`"PING"`))
		for _, words := range []string{"GET k", "SET k v", "PUBLISH c m"} {
			if got := m.line(words); got != "-"+errMonitorKeys+"\r\n" {
				t.Errorf("%s: %q", words, got)
			}
		}
		replies := m.pipeline([]string{"MONITOR"}, []string{"PING"}) // the first is answered nothing
		if replies[0] != "+PONG\r\n" || replies[1] != d.watched(`"PING"`) {
			t.Errorf("a second MONITOR: %q", replies)
		}
		if list := m.do("CLIENT", "LIST"); !strings.Contains(list, " flags=O ") {
			t.Errorf("CLIENT LIST: %q", list)
		}
	})
}

func TestRESETAndQUITEndAMonitor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		m, q, a := d.connect(), d.connect(), d.connect()
		m.expect("+OK\r\n", "MONITOR")
		m.expect("+RESET\r\n", "RESET")
		a.do("PING")
		m.expect("$-1\r\n", "GET", "k")
		q.expect("+OK\r\n", "MONITOR")
		q.expect("+OK\r\n", "QUIT")
		var rest strings.Builder
		if err := readRaw(q.r, &rest); err == nil {
			t.Errorf("after QUIT comes %q", rest.String())
		}
		if n := d.srv.hub.monitors.n.Load(); n != 0 {
			t.Errorf("%d monitors are left", n)
		}
	})
}

func TestASlowMonitorIsClosedAndKeepsNobodyWaiting(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.PushHard, c.Limits.PushSoft = 10_000, 5_000 })
		slow, well, a := d.connect(), d.connect(), d.connect()
		slow.do("MONITOR")
		well.do("MONITOR")
		long := strings.Repeat("x", 1000)
		for i := range 20 {
			a.do("ECHO", long)
			well.gets(d.watched(`"ECHO" "` + long + `"`))
			synctest.Wait()
			if pending := d.srv.pushes.used.Load(); pending > 10_000 {
				t.Fatalf("after %d commands %d bytes are held", i+1, pending)
			}
		}
		if n, closed := d.srv.connected(), d.srv.counts.slowSubscribers.Load(); n != 2 || closed != 1 {
			t.Errorf("%d connections, %d closed", n, closed)
		}
		if n := d.srv.hub.monitors.n.Load(); n != 1 {
			t.Errorf("%d monitors are left", n)
		}
	})
}

func TestALineOfMonitorIsCutAtItsLimit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.MaxMonitorLine = 64 })
		m, a := d.connect(), d.connect()
		m.do("MONITOR")
		a.do("DEL", strings.Repeat("a", 100), "b", "c")
		head := "+" + d.stamp() + ` [0 pipe] "DEL" "`
		m.gets(head + strings.Repeat("a", 64-len(head)) + `... (` + itoa(int64(100-64+len(head))) + ` more bytes)" "... (2 more arguments)"` + "\r\n")
	})
}
