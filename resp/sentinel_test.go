package resp

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// sentinelView is a view of three nodes as node self has it, of which some are dead.
func sentinelView(version uint64, self ring.NodeID, dead ...ring.NodeID) *View {
	var members []Member
	for id := ring.NodeID(1); id <= 3; id++ {
		m := Member{ID: id, Host: "10.0.0." + itoa(int64(id)), Plain: 6379, Alive: true}
		for _, d := range dead {
			m.Alive = m.Alive && d != id
		}
		members = append(members, m)
	}
	return NewView(version, 1, self, members, func(uint16) []ring.NodeID { return []ring.NodeID{1} })
}

func openSentinel(t *testing.T, view *View) *door {
	d := openDoor(t, func(c *Config) { c.Door = Sentinel })
	d.admin.view.Store(view)
	return d
}

func TestASentinelNamesItsOwnNodeOrTheNextThatLives(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openSentinel(t, nil)
		c := d.connect()
		asks := func(want string) {
			t.Helper()
			if got := c.line("SENTINEL get-master-addr-by-name mymaster"); got != want {
				t.Errorf("answers %q, want %q", got, want)
			}
		}
		at := func(host string) string { return aggregated("*", []string{host, "6379"}) }
		asks("*-1\r\n") // no view yet
		c.expect("-"+errNoMaster+"\r\n", "SENTINEL", "MASTER", "mymaster")
		c.expect("*0\r\n", "SENTINEL", "MASTERS")
		d.admin.view.Store(sentinelView(1, 2))
		asks(at("10.0.0.2"))
		d.admin.loading.Store(true)
		asks(at("10.0.0.3"))
		d.admin.view.Store(sentinelView(2, 2, 3))
		asks(at("10.0.0.1"))
		d.admin.view.Store(sentinelView(3, 2, 1, 3))
		asks("*-1\r\n") // none of the others lives
		d.admin.loading.Store(false)
		d.admin.view.Store(sentinelView(4, 9)) // is no member
		asks(at("10.0.0.1"))
		c.expect("*-1\r\n", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "another")
	})
}

func TestASentinelTellsWhenItsMasterIsAnother(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openSentinel(t, sentinelView(1, 9))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.srv.WatchMaster(ctx) }()
		c := d.connect()
		c.line("SUBSCRIBE +switch-master")
		time.Sleep(time.Minute)
		d.admin.view.Store(sentinelView(2, 9, 1))
		c.gets(message("message", "+switch-master", "mymaster 10.0.0.1 6379 10.0.0.2 6379"))
		d.admin.view.Store(sentinelView(3, 9, 1, 2, 3)) // nobody is known to live: no news
		time.Sleep(time.Minute)
		d.admin.view.Store(sentinelView(4, 9, 1, 2))
		c.gets(message("message", "+switch-master", "mymaster 10.0.0.2 6379 10.0.0.3 6379"))
		time.Sleep(time.Minute)
		c.expect(message("pong", ""), "PING")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestASentinelServesWhatItsClientsAskAndNoKeys(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openSentinel(t, sentinelView(1, 2))
		c := d.connect()
		for _, q := range []struct{ words, want string }{
			{"PING", "+PONG\r\n"},
			{"SENTINEL SENTINELS mymaster", "*0\r\n"},
			{"SENTINEL REPLICAS mymaster", "*0\r\n"},
			{"SENTINEL SLAVES mymaster", "*0\r\n"},
			{"SENTINEL SLAVES x", "-" + errNoMaster + "\r\n"},
			{"SENTINEL CKQUORUM mymaster", "+OK 1 usable Sentinels. Quorum and failover authorization can be reached\r\n"},
			{"SENTINEL CKQUORUM x", "-" + errNoMaster + "\r\n"},
			{"SENTINEL MYID", "$40\r\n" + d.admin.identity.ID.Hex40() + "\r\n"},
			{"SENTINEL", "-ERR wrong number of arguments for 'sentinel' command\r\n"},
			{"SENTINEL MASTER", "-ERR wrong number of arguments for 'sentinel|master' command\r\n"},
			{"SENTINEL bogus", "-ERR unknown subcommand 'bogus'. Try SENTINEL HELP.\r\n"},
			{"ROLE", "*2\r\n$8\r\nsentinel\r\n*1\r\n$8\r\nmymaster\r\n"},
			{"PUBLISH a b", "-" + errSentinelPublish + "\r\n"},
			{"GET k", "-ERR unknown command 'GET', with args beginning with: 'k' \r\n"},
			{"CONFIG GET port", "-ERR unknown command 'CONFIG', with args beginning with: 'GET' 'port' \r\n"},
			{"CLIENT SETNAME x", "+OK\r\n"},
			{"SHUTDOWN", "-ERR unknown command 'SHUTDOWN', with args beginning with: \r\n"},
		} {
			if got := c.line(q.words); got != q.want {
				t.Errorf("%s: %q, want %q", q.words, got, q.want)
			}
		}
		master := c.line("SENTINEL MASTER mymaster")
		if !strings.HasPrefix(master, "*40\r\n$4\r\nname\r\n$8\r\nmymaster\r\n$2\r\nip\r\n$8\r\n10.0.0.2\r\n") || c.line("SENTINEL MASTERS") != "*1\r\n"+master {
			t.Errorf("master %q", master)
		}
		if info := c.line("INFO"); !strings.Contains(info, "redis_mode:sentinel\r\n") || strings.Contains(info, "# Keyspace") ||
			!strings.Contains(info, "master0:name=mymaster,status=ok,address=10.0.0.2:6379,slaves=0,sentinels=1\r\n") {
			t.Errorf("INFO %q", info)
		}
		if hello := c.line("HELLO 3"); !strings.HasPrefix(hello, "%6\r\n") || !strings.Contains(hello, "$8\r\nsentinel\r\n") || strings.Contains(hello, "role") {
			t.Errorf("HELLO %q", hello)
		}
		if master := c.line("SENTINEL MASTER mymaster"); !strings.HasPrefix(master, "%20\r\n") {
			t.Errorf("in RESP3 %q", master)
		}
	})
}
