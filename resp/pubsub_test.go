package resp

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// message is a message as RESP2 has it.
func message(words ...string) string { return aggregated("*", words) }

func aggregated(kind string, words []string) string {
	b := fmt.Appendf(nil, "%s%d\r\n", kind, len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return string(b)
}

// confirmation is the answer to one name of SUBSCRIBE and its like.
func confirmation(word, name string, left int) string {
	return fmt.Sprintf("*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:%d\r\n", len(word), word, len(name), name, left)
}

// gets fails unless just these replies and messages come, in this order.
func (c *dataWire) gets(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.receive(); got != w {
			c.t.Errorf("got %q, want %q", got, w)
		}
	}
}

func TestMessagesReachTheSubscribersOfBothDoorsAndThePatternsThatMatch(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		hub := NewHub(HubConfig{})
		share := func(c *Config) { c.Hub = hub }
		plain, cluster := openDoor(t, share), openDoor(t, share, func(c *Config) { c.Door = Cluster })
		a, b, p := plain.connect(), cluster.connect(), plain.connect()
		a.expect(confirmation("subscribe", "news", 1), "SUBSCRIBE", "news")
		b.expect(confirmation("psubscribe", "n*", 1), "PSUBSCRIBE", "n*")
		p.expect(":2\r\n", "PUBLISH", "news", "hello")
		a.gets(message("message", "news", "hello"))
		b.gets(message("pmessage", "n*", "news", "hello"))
		p.expect(":1\r\n", "PUBLISH", "nobody", "")
		b.gets(message("pmessage", "n*", "nobody", ""))
		p.expect(":0\r\n", "PUBLISH", "elsewhere", "x")
		p.expect(":0\r\n", "SPUBLISH", "news", "shard channels have names of their own")
		a.expect(confirmation("ssubscribe", "news", 1), "SSUBSCRIBE", "news")
		p.expect(":1\r\n", "SPUBLISH", "news", "x")
		a.gets(message("smessage", "news", "x"))
		for _, c := range []*dataWire{a, b, p} {
			_ = c.conn.Close()
		}
		synctest.Wait()
		if n := hub.size(toChannel) + hub.size(toPattern) + hub.size(toShard); n != 0 || len(hub.mu.globs) != 0 || hub.names.used.Load() != 0 {
			t.Errorf("%d channels and %d bytes are left", n, hub.names.used.Load())
		}
	})
}

// broadcasts notes what goes to other nodes.
type broadcasts struct{ all []string }

func (b *broadcasts) Broadcast(m Message) {
	b.all = append(b.all, fmt.Sprint(m.Shard, " ", string(m.Channel), " ", string(m.Payload)))
}

func TestPublishedMessagesGoToTheOtherNodesOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var far broadcasts
		hub := NewHub(HubConfig{Peers: &far})
		c := openDoor(t, func(c *Config) { c.Hub = hub }).connect()
		c.expect(":0\r\n", "PUBLISH", "a", "x")
		c.expect(":0\r\n", "SPUBLISH", "b", "y")
		hub.Deliver(Message{Channel: []byte("a"), Payload: []byte("from another node")})
		if got, want := fmt.Sprint(far.all), "[false a x true b y]"; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	})
}

func TestFullConnectionWithSubscriptionsAllowsFewCommandsBeforeRESP3(t *testing.T) {
	d := openDoor(t, func(c *Config) { c.Limits.IdleTimeout = time.Hour })
	c := d.connect()
	c.expect("+PONG\r\n", "PING")
	c.expect(confirmation("subscribe", "a", 1), "SUBSCRIBE", "a")
	open := map[string]bool{"ping": true, "quit": true, "reset": true, "subscribe": true, "unsubscribe": true,
		"psubscribe": true, "punsubscribe": true, "ssubscribe": true, "sunsubscribe": true}
	d.srv.table.each(func(row *command) {
		if row.subscribed != open[row.full] {
			t.Errorf("%s: allowed is %v", row.full, row.subscribed)
		}
		if open[row.full] || len(row.subcommands) > 0 && row.name != "command" {
			return
		}
		args := strings.Split(row.full, "|")
		for len(args) < max(row.arity, -row.arity) {
			args = append(args, "x")
		}
		want := "-" + errNarrow(row)
		switch {
		case row.barred != "":
			want = "-" + row.barred
		case row.full == "exec":
			want = strings.Replace(want, "-ERR ", "-EXECABORT Transaction discarded because of: ", 1)
		}
		c.expect(want+"\r\n", args...)
	})
	c.expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n", "PING")
	c.expect("*2\r\n$4\r\npong\r\n$1\r\nx\r\n", "PING", "x")
	c.expect("+RESET\r\n", "RESET")
	c.expect("+PONG\r\n", "PING")
	c.expect("*0\r\n", "PUBSUB", "CHANNELS")
}

func TestClientSeesItsOwnMessageBeforeTheCountInRESP3(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	c.do("HELLO", "3")
	c.expect(strings.Replace(confirmation("subscribe", "a", 1), "*", ">", 1), "SUBSCRIBE", "a")
	c.send([]string{"GET", "k"}, []string{"PUBLISH", "a", "x"}, []string{"GET", "k"}, []string{"HELLO", "2"})
	c.gets("_\r\n", aggregated(">", []string{"message", "a", "x"}), ":1\r\n", "_\r\n")
	c.receive()
	other := d.connect()
	other.expect(":1\r\n", "PUBLISH", "a", "y")
	c.gets(message("message", "a", "y"))
}

func TestRepliesThatAreOffKeepNeitherConfirmationsNorMessagesBack(t *testing.T) {
	d := openDoor(t)
	c, other := d.connect(), d.connect()
	c.do("HELLO", "3")
	c.send([]string{"CLIENT", "REPLY", "OFF"}, []string{"SUBSCRIBE", "a"}, []string{"PUBLISH", "a", "x"}, []string{"HELLO", "2"}, []string{"PING"})
	c.gets(strings.Replace(confirmation("subscribe", "a", 1), "*", ">", 1), aggregated(">", []string{"message", "a", "x"}))
	c.send([]string{"UNSUBSCRIBE"}, []string{"SUBSCRIBE", "b"})
	c.gets(confirmation("unsubscribe", "a", 0), confirmation("subscribe", "b", 1))
	other.expect(":1\r\n", "PUBLISH", "b", "y")
	c.gets(message("message", "b", "y"))
}

// TestRepliesAndMessagesNeverStandInsideEachOther has several clients publish to one
// that asks for large values all the while.
func TestRepliesAndMessagesNeverStandInsideEachOther(t *testing.T) {
	d := openDoor(t)
	large := bytes.Repeat([]byte("v"), 100_000)
	d.store.values = func([]byte) []byte { return large }
	c := d.connect()
	c.do("HELLO", "3")
	c.do("SUBSCRIBE", "a")
	const publishers, each, asked = 4, 200, 100
	var wg sync.WaitGroup
	for p := range publishers {
		other := d.connect()
		wg.Go(func() {
			for i := range each {
				if got := other.do("PUBLISH", "a", fmt.Sprintf("%d %d", p, i)); got != ":1\r\n" {
					t.Errorf("receivers: %q", got)
				}
			}
		})
	}
	go func() {
		for range asked {
			_, _ = c.conn.Write(encodeCommand([]string{"GET", "k"}))
		}
	}()
	replies, next := 0, [publishers]int{}
	for range asked + publishers*each {
		got := c.receive()
		if strings.HasPrefix(got, "$100000\r\nv") && len(got) == 100_000+len("$100000\r\n\r\n") {
			replies++
			continue
		}
		var p, i int
		_, text, _ := strings.Cut(got, "$1\r\na\r\n")
		_, text, _ = strings.Cut(text, "\r\n")
		if _, err := fmt.Sscanf(text, "%d %d", &p, &i); err != nil || next[p] != i {
			t.Fatalf("%.80q after %v: %v", got, next, err)
		}
		next[p]++
	}
	if replies != asked {
		t.Errorf("%d replies", replies)
	}
	wg.Wait()
}

// TestMessagesWaitForTheWholeReplyToEXEC has several clients publish to one that runs
// transactions with long replies, and subscribes within the first of them.
func TestMessagesWaitForTheWholeReplyToEXEC(t *testing.T) {
	for _, flushBytes := range []int{0, 1} { // the default, and what leaves as soon as it is there
		messagesWaitForEXEC(t, openDoor(t, func(c *Config) { c.Limits.FlushBytes = flushBytes }))
	}
}

func messagesWaitForEXEC(t *testing.T, d *door) {
	t.Helper()
	large := bytes.Repeat([]byte("v"), 100_000)
	d.store.values = func([]byte) []byte { return large }
	c := d.connect()
	c.do("HELLO", "3")
	value := "$100000\r\n" + string(large) + "\r\n"
	c.send([]string{"MULTI"}, []string{"GET", "k"}, []string{"SUBSCRIBE", "a"}, []string{"PUBLISH", "a", "first"}, []string{"GET", "k"}, []string{"EXEC"})
	c.gets("+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n",
		"*4\r\n"+value+strings.Replace(confirmation("subscribe", "a", 1), "*", ">", 1)+":1\r\n"+value,
		aggregated(">", []string{"message", "a", "first"}))
	const publishers, each, asked = 3, 100, 30
	var wg sync.WaitGroup
	for range publishers {
		other := d.connect()
		wg.Go(func() {
			for range each {
				if got := other.do("PUBLISH", "a", "x"); got != ":1\r\n" {
					t.Errorf("receivers: %q", got)
				}
			}
		})
	}
	go func() {
		for range asked {
			for _, words := range [][]string{{"MULTI"}, {"GET", "k"}, {"GET", "k"}, {"GET", "k"}, {"EXEC"}} {
				_, _ = c.conn.Write(encodeCommand(words))
			}
		}
	}()
	want := map[string]int{"+OK\r\n": asked, "+QUEUED\r\n": 3 * asked, "*3\r\n" + strings.Repeat(value, 3): asked,
		aggregated(">", []string{"message", "a", "x"}): publishers * each}
	for range 5*asked + publishers*each {
		got := c.receive()
		if want[got]--; want[got] < 0 {
			t.Fatalf("got %.80q, %d bytes", got, len(got))
		}
	}
	wg.Wait()
}

func TestSubscriberThatReadsNothingIsClosedAtTheHardLimitAndCounted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.PushHard, c.Limits.PushSoft = 10_000, 5_000 })
		slow, well, p := d.connect(), d.connect(), d.connect()
		slow.do("SUBSCRIBE", "a")
		well.do("SUBSCRIBE", "a")
		for i := range 20 {
			p.do("PUBLISH", "a", strings.Repeat("x", 1000))
			well.receive()
			synctest.Wait()
			if pending := d.srv.pushes.used.Load(); pending > 10_000 {
				t.Fatalf("after %d messages %d bytes are held", i+1, pending)
			}
		}
		synctest.Wait()
		if n, closed := d.srv.connected(), d.srv.counts.slowSubscribers.Load(); n != 2 || closed != 1 {
			t.Errorf("%d connections, %d closed", n, closed)
		}
		p.expect(":1\r\n", "PUBLISH", "a", "x")
		well.gets(message("message", "a", "x"))
	})
}

func TestSubscriberThatLagsForLongIsClosedAtTheSoftLimit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) {
			c.Limits.PushHard, c.Limits.PushSoft, c.Limits.PushSoftTime = 1*mib, 5_000, 30*time.Second
			c.Limits.WriteTimeout = time.Hour
		})
		slow, p := d.connect(), d.connect()
		slow.do("SUBSCRIBE", "a")
		for range 8 {
			p.do("PUBLISH", "a", strings.Repeat("x", 1000))
		}
		time.Sleep(29 * time.Second)
		p.expect(":1\r\n", "PUBLISH", "a", "x")
		for range 9 { // it catches up, and has its time again
			slow.receive()
		}
		synctest.Wait()
		for range 8 {
			p.do("PUBLISH", "a", strings.Repeat("x", 1000))
		}
		time.Sleep(29 * time.Second)
		p.expect(":1\r\n", "PUBLISH", "a", "x")
		time.Sleep(2 * time.Second)
		p.expect(":0\r\n", "PUBLISH", "a", "x")
		synctest.Wait()
		if n, closed := d.srv.connected(), d.srv.counts.slowSubscribers.Load(); n != 1 || closed != 1 {
			t.Errorf("%d connections, %d closed", n, closed)
		}
	})
}

func TestSubscriberThatTakesNothingForTheWriteTimeoutIsClosed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		slow, p := d.connect(), d.connect()
		slow.do("SUBSCRIBE", "a")
		p.expect(":1\r\n", "PUBLISH", "a", "x")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if n := d.srv.connected(); n != 1 {
			t.Errorf("%d connections", n)
		}
		_ = p.conn.Close()
	})
}

func TestWhenAllQueuesAreFullWhoeverHasABacklogIsClosed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.PushHard, c.Limits.PushSoft, c.Limits.MaxPushes = 10_000, 10_000, 20_000 })
		p := d.connect()
		for range 5 {
			d.connect().do("SUBSCRIBE", "a")
		}
		for range 5 {
			p.do("PUBLISH", "a", strings.Repeat("x", 1000))
			if n := d.srv.pushes.used.Load(); n > 20_000 {
				t.Errorf("%d bytes are held", n)
			}
		}
		synctest.Wait()
		if n := d.srv.counts.slowSubscribers.Load(); n < 1 || n > 4 {
			t.Errorf("%d closed", n)
		}
	})
}

func TestIdleSubscribersHaveNoGoroutineForWritingAndAreNotTimedOut(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t, func(c *Config) { c.Limits.IdleTimeout = time.Minute })
		c, p := d.connect(), d.connect()
		c.do("SUBSCRIBE", "a")
		c.expect(confirmation("unsubscribe", "a", 0), "UNSUBSCRIBE")
		c.expect("+PONG\r\n", "PING")
		c.do("SUBSCRIBE", "a")
		p.expect(":1\r\n", "PUBLISH", "a", "x")
		c.receive()
		time.Sleep(time.Hour)
		synctest.Wait()
		clients := d.srv.clients()
		if len(clients) != 1 {
			t.Fatalf("%d connections", len(clients))
		}
		sub := clients[0].sub.Load()
		sub.out.mu.Lock()
		defer sub.out.mu.Unlock()
		if sub.out.mu.writing || sub.out.mu.pending != 0 || sub.out.mu.queue != nil {
			t.Errorf("an idle subscriber keeps %+v", &sub.out.mu.queue)
		}
	})
}

func TestShutdownEndsSubscribersThatReadNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) { // a goroutine that is left fails it
		d := openDoor(t)
		for range 3 {
			c := d.connect()
			c.do("SUBSCRIBE", "a")
			c.do("PSUBSCRIBE", "*")
		}
		p := d.connect()
		p.expect(":6\r\n", "PUBLISH", "a", "x")
		if err := d.srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if n := d.srv.pushes.used.Load(); n != 0 {
			t.Errorf("%d bytes of messages are still counted", n)
		}
	})
}

func TestNamesAndMessagesOverTheirLimitsAreRefused(t *testing.T) {
	hub := NewHub(HubConfig{MaxNames: 4 * (subscriptionBytes + 1)})
	d := openDoor(t, func(c *Config) {
		c.Hub = hub
		c.Limits.MaxChannel, c.Limits.MaxMessage, c.Limits.MaxSubscriptions, c.Limits.MaxPatterns = 10, 20, 3, 1
	})
	c := d.connect()
	c.do("HELLO", "3")
	long := strings.Repeat("n", 11)
	for _, name := range []string{"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"} {
		c.expect("-"+errChannelTooLong+"\r\n", name, "a", long)
	}
	c.expect("-"+errChannelTooLong+"\r\n", "PUBLISH", long, "x")
	c.expect("-"+errMessageTooLong+"\r\n", "PUBLISH", "a", strings.Repeat("x", 21))
	c.expect(":0\r\n", "PUBLISH", long[1:], strings.Repeat("x", 20))
	c.expect("-"+errSubscriptions+"\r\n", "SUBSCRIBE", "a", "b", "c", "d")
	c.expect("-"+errSubscriptions+"\r\n", "PSUBSCRIBE", "a", "b")
	c.expect("*0\r\n", "PUBSUB", "CHANNELS")
	c.do("SUBSCRIBE", "a")
	c.do("SSUBSCRIBE", "b")
	c.expect("-"+errSubscriptions+"\r\n", "SSUBSCRIBE", "c", "d")
	c.do("SUBSCRIBE", "a") // is there already
	c.do("SUBSCRIBE", "c")
	c.expect("-"+errSubscriptions+"\r\n", "SUBSCRIBE", "d")
	other := d.connect()
	other.expect("-"+errSubscribersFull+"\r\n", "SUBSCRIBE", "a", "e")
	other.expect(confirmation("subscribe", "a", 1), "SUBSCRIBE", "a")
	if n := hub.names.used.Load(); n != hub.names.limit {
		t.Errorf("%d bytes of names are counted, not %d", n, hub.names.limit)
	}
}

func TestKillAndListTellSubscribersFromOthers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := openDoor(t)
		c, p := d.connect(), d.connect()
		c.do("SUBSCRIBE", "a")
		c.do("PSUBSCRIBE", "b*")
		c.do("SSUBSCRIBE", "c")
		list := p.do("CLIENT", "LIST", "TYPE", "pubsub")
		if !strings.Contains(list, " flags=P db=0 sub=1 psub=1 ssub=1 ") || strings.Count(list, "id=") != 1 {
			t.Errorf("got %q", list)
		}
		if list := p.do("CLIENT", "LIST", "TYPE", "normal"); strings.Count(list, "id=") != 1 || !strings.Contains(list, " flags=N ") {
			t.Errorf("got %q", list)
		}
		info := p.do("INFO", "stats")
		for _, field := range []string{"pubsub_channels:1\r\n", "pubsub_patterns:1\r\n", "pubsubshard_channels:1\r\n"} {
			if !strings.Contains(info, field) {
				t.Errorf("INFO lacks %q", field)
			}
		}
		p.expect(":1\r\n", "CLIENT", "KILL", "TYPE", "pubsub")
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("the subscriber is not closed: %v", err)
		}
		synctest.Wait()
		p.expect(":0\r\n", "PUBLISH", "a", "x")
	})
}

func TestShardChannelsHaveSlotsAtTheClusterDoorOnly(t *testing.T) {
	d := openClusterDoor(t, threeNodes(1))
	c := d.connect()
	c.expect("-"+errCrossSlot+"\r\n", "SSUBSCRIBE", "a", "b")
	c.expect("-"+errCrossSlot+"\r\n", "SUNSUBSCRIBE", "a", "b")
	c.expect(":0\r\n", "SPUBLISH", "a", "x")
	c.expect(":0\r\n", "PUBLISH", "b", "x")
	d.admin.view.Store(threeNodes(2))
	if got := c.do("PUBLISH", "b", "x"); got != ":0\r\n" {
		t.Errorf("a channel that is no shard channel was redirected: %q", got)
	}
	if got := c.do("SPUBLISH", "a", "x"); !strings.HasPrefix(got, "-MOVED 15495 ") {
		t.Errorf("got %q", got)
	}
	c.expect(":0\r\n", "SPUBLISH", "a", "x")
	plain := openDoor(t).connect()
	plain.send([]string{"SSUBSCRIBE", "a", "b"})
	plain.gets(confirmation("ssubscribe", "a", 1), confirmation("ssubscribe", "b", 2))
}

func TestPublishWaitsForALevelWhoseProgramsKnowMessages(t *testing.T) {
	d := openDoor(t)
	d.admin.level = 1
	c := d.connect()
	for _, name := range []string{"PUBLISH", "SPUBLISH"} {
		if got := c.do(name, "a", "x"); !strings.Contains(got, "is not served before every node") {
			t.Errorf("%s: %q", name, got)
		}
	}
	c.expect(confirmation("subscribe", "a", 1), "SUBSCRIBE", "a")
}

func TestConfirmationsAndMessagesOfManyClientsKeepTheirOrder(t *testing.T) {
	d := openDoor(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	p := d.connect()
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				p.do("PUBLISH", "a", "x")
			}
		}
	})
	c := d.connect()
	for range 300 {
		c.send([]string{"SUBSCRIBE", "a"}, []string{"UNSUBSCRIBE", "a"}, []string{"PING"})
		c.gets(confirmation("subscribe", "a", 1))
		for {
			got := c.receive()
			if got == message("message", "a", "x") {
				continue
			}
			if got != confirmation("unsubscribe", "a", 0) {
				t.Fatalf("got %q", got)
			}
			break
		}
		c.gets("+PONG\r\n")
	}
	close(stop)
	wg.Wait()
}
