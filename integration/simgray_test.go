package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// This file has nodes that are neither dead nor well: a disk that hangs, a link
// that carries one way only. Such a node must be out of everybody's way in
// bypassTime, stay out while it is sick, and be back soon after.

const (
	bypassTime = 2 * time.Second
	returnTime = 5 * time.Second
)

// dialCluster connects to the cluster door of node i.
func (c *simCluster) dialCluster(i int) (*simClient, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := c.net.Dial(ctx, "10.0.1.1", c.nodes[i].host+":6380")
	if err != nil {
		return nil, err
	}
	return &simClient{conn: conn, br: bufio.NewReader(conn), patience: 10 * time.Second}, nil
}

// listed reports whether the map of node i names a host for any slot.
func (c *simCluster) listed(i int, host string) (bool, error) {
	cl, err := c.dialCluster(i)
	if err != nil {
		return false, err
	}
	defer cl.conn.Close()
	reply, err := cl.do("CLUSTER", "SLOTS")
	if err != nil {
		return false, err
	}
	runs, ok := reply.([]any)
	if !ok || len(runs) == 0 {
		return false, fmt.Errorf("CLUSTER SLOTS: %v", reply)
	}
	for _, run := range runs {
		for _, owner := range run.([]any)[2:] {
			if owner.([]any)[0] == host {
				return true, nil
			}
		}
	}
	return false, nil
}

// checkListed checks what the maps of some nodes say of a host.
func (c *simCluster) checkListed(watchers []int, host string, want bool, when string) {
	c.t.Helper()
	for _, i := range watchers {
		got, err := c.listed(i, host)
		if err != nil || got != want {
			c.t.Errorf("seed %d: %s: the map of node %d lists %s: %v (%v), want %v", c.seed, when, i, host, got, err, want)
		}
	}
}

// slowest is the longest that one of several clients had to wait.
type slowest struct {
	sync.Mutex
	took   time.Duration
	failed []string
}

// work writes and reads through node i until the given instant.
func (c *simCluster) work(i int, until time.Time, s *slowest) {
	cl, err := c.dial(i)
	if err != nil {
		c.t.Errorf("seed %d: dial node %d: %v", c.seed, i, err)
		return
	}
	defer cl.conn.Close()
	for n := 0; time.Now().Before(until); n++ {
		time.Sleep(20 * time.Millisecond)
		begin := time.Now()
		key := fmt.Sprintf("g%d:%d", i, n%100)
		_, err := cl.do("SET", key, fmt.Sprint(n))
		if err == nil {
			_, err = cl.do("GET", key)
		}
		s.Lock()
		s.took = max(s.took, time.Since(begin))
		if err != nil {
			s.failed = append(s.failed, fmt.Sprintf("node %d at %s: %v", i, clockText(), err))
		}
		s.Unlock()
		var said replyError
		if err != nil && !errors.As(err, &said) {
			return // the connection is of no more use
		}
	}
}

// workAll works through some nodes for a while and returns what was slowest.
func (c *simCluster) workAll(nodes []int, d time.Duration) *slowest {
	var wg sync.WaitGroup
	s := &slowest{}
	until := time.Now().Add(d)
	for _, i := range nodes {
		wg.Go(func() { c.work(i, until, s) })
	}
	wg.Wait()
	return s
}

// gray makes node 2 sick, checks what the others do about it, and makes it well.
func gray(t *testing.T, seed uint64, watchers []int, fallIll, getWell func(*simCluster)) {
	bubble.Test(t, func(t *testing.T) {
		c := newSimCluster(t, seed, 5)
		sick := c.nodes[2].host
		c.workAll(watchers, 3*time.Second)
		c.checkListed(watchers, sick, true, "all well")
		fallIll(c)
		s := c.workAll(watchers, bypassTime)
		c.checkListed(watchers, sick, false, "2 s after it fell ill")
		if s.took > bypassTime {
			t.Errorf("seed %d: some client waited %v when the node fell ill", seed, s.took)
		}
		for range 20 {
			s := c.workAll(watchers, time.Second)
			c.checkListed(watchers, sick, false, "while it is ill")
			if s.took > 100*time.Millisecond || len(s.failed) > 0 {
				t.Errorf("seed %d: with the sick node known some client waited %v; failures: %v", seed, s.took, s.failed)
			}
		}
		getWell(c)
		s = c.workAll(watchers, returnTime)
		c.checkListed(watchers, sick, true, "after it got well")
		if len(s.failed) > 0 {
			t.Errorf("seed %d: failures while the node came back: %v", seed, s.failed)
		}
		c.close()
	})
}

func TestANodeWhoseDiskHangsIsBypassedUntilItIsWell(t *testing.T) {
	t.Parallel()
	const illness = 25 * time.Second // what a sync takes that begins now
	gray(t, 11, []int{0, 1, 3, 4},
		func(c *simCluster) { c.nodes[2].wait.Store(int64(illness)) },
		func(c *simCluster) {
			c.nodes[2].wait.Store(0)
			time.Sleep(illness - bypassTime - 20*time.Second)
		})
}

func TestAHalfOpenNodeIsBypassedUntilItIsWell(t *testing.T) {
	t.Parallel()
	hosts := func(c *simCluster) (sick string, others []string) {
		for i, s := range c.nodes {
			if i != 2 {
				others = append(others, s.host)
			}
		}
		return c.nodes[2].host, others
	}
	heal := func(c *simCluster) { c.net.Heal() }
	t.Run("says nothing", func(t *testing.T) {
		gray(t, 12, []int{0, 1, 3, 4}, func(c *simCluster) {
			sick, others := hosts(c)
			for _, o := range others {
				c.net.Cut(sick, o)
			}
		}, heal)
	})
	t.Run("hears nothing", func(t *testing.T) {
		gray(t, 13, []int{0, 1, 3, 4}, func(c *simCluster) {
			sick, others := hosts(c)
			for _, o := range others {
				c.net.Cut(o, sick)
			}
		}, heal)
	})
	// Gossip goes round the cut and finds everybody alive; whom a node cannot
	// reach it must bypass nevertheless.
	t.Run("to one node alone", func(t *testing.T) {
		gray(t, 14, []int{0}, func(c *simCluster) { c.net.Cut(c.nodes[0].host, c.nodes[2].host) }, heal)
	})
}

// A node that nobody calls is found out too.
func TestAnIdleNodeThatFallsSilentLeavesTheMaps(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 15, 5)
		time.Sleep(5 * time.Second)
		var hosts []string
		for _, s := range c.nodes {
			hosts = append(hosts, s.host)
		}
		sick := hosts[2]
		c.net.Partition([]string{sick}, slices.Delete(hosts, 2, 3))
		time.Sleep(bypassTime)
		c.checkListed([]int{0, 1, 3, 4}, sick, false, "2 s after it fell silent")
		c.net.Heal()
		time.Sleep(returnTime)
		c.checkListed([]int{0, 1, 3, 4}, sick, true, "after it is back")
		c.close()
	})
}
