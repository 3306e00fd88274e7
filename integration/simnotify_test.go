package integration

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
)

// listeners subscribes on every node to the names of all events.
func (c *simCluster) listeners() (all []*simClient) {
	c.t.Helper()
	for i := range c.nodes {
		cl := c.mustDial(i)
		if _, err := cl.do("PSUBSCRIBE", "__keyspace@0__:*"); err != nil {
			c.t.Fatal(err)
		}
		all = append(all, cl)
	}
	return all
}

// heardSince gathers how often a listener has heard what, until it has heard nothing
// for a while.
func (cl *simClient) heardSince() map[string]int {
	heard := map[string]int{}
	for {
		_ = cl.conn.SetDeadline(time.Now().Add(5 * time.Second)) // a dead connection ends the loop too
		m, err := cl.reply()
		if err != nil {
			return heard
		}
		if parts, ok := m.([]any); ok && len(parts) == 4 {
			heard[fmt.Sprint(parts[2], " ", parts[3])]++
		}
	}
}

func TestEventsReachTheSubscribersOfAllNodesOnceInVirtualTime(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newTunedSimCluster(t, 1, 5, func(cfg *node.Config) { cfg.KeyEvents = "KA" })
		defer c.close()
		listeners := c.listeners()
		want := map[string]int{}
		for i := range 100 {
			key := fmt.Sprint("k", i)
			c.must(i%5, "SET", key, "v", "PX", "3000")
			for _, event := range []string{"set", "expire", "expired"} {
				want["__keyspace@0__:"+key+" "+event] = 1
			}
			c.must((i+1)%5, "SET", "x"+key, "v", "PX", "1500")
			c.must((i+2)%5, "DEL", "x"+key)
			for _, event := range []string{"set", "expire", "del"} {
				want["__keyspace@0__:x"+key+" "+event] = 1
			}
		}
		for i, words := range [][]string{{"EXPIRE", "", "0"}, {"EXPIRE", "", "-1"}, {"GETEX", "", "EXAT", "1"}, {"SET", "", "w", "EXAT", "1"}, {"EXPIRE", "", "1"}} {
			words[1] = fmt.Sprint("ends", i)
			c.must(i%5, "SET", words[1], "v")
			c.must((i+1)%5, words...)
			for _, event := range [][]string{{"set", "del"}, {"set", "del"}, {"set", "del"}, {"set", "set", "expire"}, {"set", "expire", "expired"}}[i] {
				want["__keyspace@0__:"+words[1]+" "+event]++
			}
		}
		for i, cl := range listeners {
			if heard := cl.heardSince(); !reflect.DeepEqual(heard, want) {
				t.Errorf("node %d heard %v", i, differences(heard, want))
			}
			_ = cl.conn.Close()
		}
	})
}

// differences is what two counts do not share.
func differences(got, want map[string]int) (out []string) {
	for what, n := range want {
		if got[what] != n {
			out = append(out, fmt.Sprintf("%s %d times, not %d", what, got[what], n))
		}
	}
	for what, n := range got {
		if want[what] == 0 {
			out = append(out, fmt.Sprintf("%s %d times", what, n))
		}
	}
	return out
}

// The first owner of some of the keys is down when their time comes, so that the next
// one tells; it is back later, clears its copies and must tell nothing.
func TestTheNextOwnerTellsOfKeysThatExpireAndNobodyTellsTwiceInVirtualTime(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newTunedSimCluster(t, 1, 5, func(cfg *node.Config) { cfg.KeyEvents = "Kx" })
		defer c.close()
		want := map[string]int{}
		for i := range 100 {
			key := fmt.Sprint("k", i)
			c.must(i%4, "SET", key, "v", "PX", "20000")
			want["__keyspace@0__:"+key+" expired"] = 1
		}
		c.crash(4)
		c.nodes[4].node = nil // is down, for close
		cl := c.mustDial(0)
		defer cl.conn.Close()
		if _, err := cl.do("PSUBSCRIBE", "*"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		heard := cl.heardSince()
		if !reflect.DeepEqual(heard, want) {
			t.Errorf("heard %v", differences(heard, want))
		}
		again := c.mustDial(1)
		defer again.conn.Close()
		if _, err := again.do("PSUBSCRIBE", "*"); err != nil {
			t.Fatal(err)
		}
		c.restart(4)
		time.Sleep(20 * time.Second)
		if heard := again.heardSince(); len(heard) != 0 {
			t.Errorf("told again: %v", heard)
		}
	})
}
