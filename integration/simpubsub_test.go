package integration

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// mustDial is dial for a node that is up.
func (c *simCluster) mustDial(i int) *simClient {
	c.t.Helper()
	cl, err := c.dial(i)
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// hears wants one message next, within a time.
func (cl *simClient) hears(t *testing.T, within time.Duration, want ...any) {
	t.Helper()
	if err := cl.conn.SetDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	if got, err := cl.reply(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("heard %v, %v, want %v", got, err, want)
	}
}

func TestAMessageReachesTheSubscribersOfAllNodesOnceInVirtualTime(t *testing.T) {
	t.Parallel()
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		var subscribers []*simClient
		for i := range c.nodes {
			cl := c.mustDial(i)
			defer cl.conn.Close()
			for _, words := range [][]string{{"SUBSCRIBE", "news"}, {"PSUBSCRIBE", "n?ws"}, {"SSUBSCRIBE", "news"}} {
				if _, err := cl.do(words...); err != nil {
					t.Fatal(err)
				}
			}
			subscribers = append(subscribers, cl)
		}
		for n := range 100 {
			text := fmt.Sprint(n)
			// The count is of the node that was asked, as in Redis Cluster.
			if got := c.must(n%3, "PUBLISH", "news", text); got != int64(2) {
				t.Fatalf("PUBLISH: %v", got)
			}
			for _, cl := range subscribers {
				cl.hears(t, time.Second, "message", "news", text)
				cl.hears(t, time.Second, "pmessage", "n?ws", "news", text)
			}
		}
		if got := c.must(0, "SPUBLISH", "news", "shard"); got != int64(1) {
			t.Errorf("SPUBLISH: %v", got)
		}
		for _, cl := range subscribers {
			cl.hears(t, time.Second, "smessage", "news", "shard")
		}
		time.Sleep(5 * time.Second)
		for _, cl := range subscribers { // what is answered next is not a message that came twice
			if got, err := cl.do("PING"); err != nil || !reflect.DeepEqual(got, []any{"pong", ""}) {
				t.Errorf("PING: %v, %v", got, err)
			}
		}
	})
}

func TestPublishingWaitsForNoDeadNodeInVirtualTime(t *testing.T) {
	t.Parallel()
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		cl, p := c.mustDial(1), c.mustDial(0)
		defer cl.conn.Close()
		defer p.conn.Close()
		if _, err := cl.do("SUBSCRIBE", "news"); err != nil {
			t.Fatal(err)
		}
		c.crash(2)
		c.nodes[2].node = nil // is down, for close
		for n := range 3000 { // while nobody knows yet, and after
			began, text := time.Now(), fmt.Sprint(n)
			if got, err := p.do("PUBLISH", "news", text); err != nil || got != int64(0) {
				t.Fatalf("PUBLISH: %v, %v", got, err)
			}
			cl.hears(t, time.Second, "message", "news", text)
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Fatalf("message %d took %v", n, took)
			}
		}
		c.restart(2)
		back := c.mustDial(2)
		defer back.conn.Close()
		if _, err := back.do("SUBSCRIBE", "news"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // node 0 tries the peer again now and then
		if got, err := p.do("PUBLISH", "news", "again"); err != nil || got != int64(0) {
			t.Fatalf("PUBLISH: %v, %v", got, err)
		}
		back.hears(t, time.Second, "message", "news", "again")
		cl.hears(t, time.Second, "message", "news", "again")
	})
}
