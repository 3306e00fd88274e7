package resp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestLettersOfEventsAreThoseOfRedis(t *testing.T) {
	for _, c := range []struct{ letters, shown string }{
		{"", ""}, {"A", "A"}, {"g$lshzxetd", "A"}, {"AKE", "AKE"}, {"KEA", "AKE"}, {"Kx", "xK"}, {"nK", "nK"}, {"AmE", "AEm"}, {"AKEmn", "AnKEm"},
	} {
		e, ok := ParseEvents(c.letters)
		if !ok || e.String() != c.shown {
			t.Errorf("%q: %q, %v", c.letters, e.String(), ok)
		}
		if again, ok := ParseEvents(e.String()); !ok || again != e {
			t.Errorf("%q does not come back: %v", c.letters, again)
		}
	}
	for _, bad := range []string{"q", "K E", "AKEa", "\x00", "é"} {
		if e, ok := ParseEvents(bad); ok || e != 0 {
			t.Errorf("%q: %v", bad, e)
		}
	}
}

// told is what PSUBSCRIBE * is sent of an event at both channels.
func told(event, key string) []string {
	return []string{message("pmessage", "*", "__keyspace@0__:"+key, event), message("pmessage", "*", "__keyevent@0__:"+event, key)}
}

func TestEventsAreToldOnBothChannelsAndOnlyThoseAskedFor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		w, c := d.connect(), d.connect()
		w.line("PSUBSCRIBE *")
		c.line("SET silent v") // nothing is told at first
		c.expect("+OK\r\n", "CONFIG", "SET", "notify-keyspace-events", "KEA")
		c.line("SET k v EX 100")
		w.gets(told("set", "k")...)
		w.gets(told("expire", "k")...)
		c.line("GET none") // m is not among A
		c.line("DEL k none k")
		w.gets(told("del", "k")...)
		c.expect("+OK\r\n", "CONFIG", "SET", "notify-keyspace-events", "Eg")
		c.line("SET k v EX 100")
		w.gets(told("expire", "k")[1])
		c.expect("+OK\r\n", "CONFIG", "SET", "notify-keyspace-events", "A") // on no channel
		c.line("SET k v")
		c.expect("+OK\r\n", "CONFIG", "SET", "notify-keyspace-events", "Kmn")
		c.line("MGET none k")
		c.line("RENAME k l")
		w.gets(told("keymiss", "none")[0], told("new", "l")[0])
		c.expect("*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nnKm\r\n", "CONFIG", "GET", "notify-keyspace-events")
		c.expect("-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - "+errEvents+"\r\n", "CONFIG", "SET", "notify-keyspace-events", "KEq")
	})
}

func TestVersionedWritesAreToldByWhatTheyLeave(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		d.srv.hub.SetEvents(eventsAll | eventNew | onKeySpace | eventMiss)
		w, c := d.connect(), d.connect()
		w.line("PSUBSCRIBE *")
		told := func(event, key string) string { return told(event, key)[0] }
		c.line("VCTX.GET k")
		c.do("VCTX.SET", "k", "1", "")
		c.do("VCTX.SET", "k", "2", "", "EX", "100")
		w.gets(told("keymiss", "k"), told("new", "k"), told("set", "k"), told("set", "k"), told("expire", "k"))
		c.do("VCTX.DEL", "k", "+") // has seen the second alone: a sibling is left
		c.do("VCTX.DEL", "k", "*")
		c.line("VCTX.GET k META")
		w.gets(told("del", "k"), told("keymiss", "k"))
	})
}

func TestEventsOfABatchComeInOrderBesideItsRepliesAndBeforeTheReplyOfOne(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t)
		d.srv.hub.SetEvents(eventsAll | onKeyEvent)
		c := d.connect()
		c.line("HELLO 3")
		c.line("PSUBSCRIBE *")
		push := func(event, key string) string {
			return aggregated(">", []string{"pmessage", "*", "__keyevent@0__:" + event, key})
		}
		var commands [][]string
		var want []string
		for i := range 200 {
			key := fmt.Sprintf("k%d", i)
			commands = append(commands, []string{"SET", key, "v"}, []string{"ECHO", key})
			want = append(want, push("set", key), "+OK\r\n", fmt.Sprintf("$%d\r\n%s\r\n", len(key), key))
		}
		go func() {
			for _, words := range commands {
				_, _ = c.conn.Write(encodeCommand(words)) // what is not sent is missed below
			}
		}()
		c.gets(want...)
		c.line("MULTI")
		c.line("SET a 1")
		c.line("DEL a")
		c.expect("*2\r\n+OK\r\n:1\r\n", "EXEC")
		c.gets(push("set", "a"), push("del", "a"))
	})
}

func TestEventsStayOnANodeWhoseClusterDoesNotKnowMessages(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for _, level := range []uint16{1, 2} {
			peers := new(broadcasts)
			d := openDoor(t, func(c *Config) {
				c.Hub = NewHub(HubConfig{Peers: peers})
				c.Admin.(*fakeAdmin).level = level
			})
			d.srv.hub.SetEvents(eventsAll | onKeyEvent)
			d.connect().do("SET", "k", "v")
			if n := len(peers.all); n != int(level-1) {
				t.Errorf("level %d: %d messages", level, n)
			}
		}
	})
}

func TestNothingIsKeptOfEventsThatNobodyAskedFor(t *testing.T) {
	d := newDataDoor(t)
	s := d.session()
	c := &call{s: s, key: []byte("k"), deed: deed{kind: 1}}
	if n := testing.AllocsPerRun(100, func() { c.noteDeed(); c.noteMiss() }); n != 0 || len(s.events) != 0 {
		t.Errorf("%v allocations, %d events", n, len(s.events))
	}
	d.srv.hub.SetEvents(eventString | onKeyEvent)
	s.note(eventGeneric, "del", c.key)
	if len(s.events) != 0 {
		t.Errorf("kept %v", s.events)
	}
	if got := strings.Count(eventLetters, "A"); got != 0 {
		t.Error("A is no kind")
	}
}
