package integration

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// TestFaultsDuringDeliveryLoseNoHintInVirtualTime keeps hints of many keys, each
// written once and read by nobody, and breaks their delivery again and again: the
// target and the holders lose their power, links are cut, hosts and disks are
// slow. In the end every owner must hold every key. Nothing else could have
// brought it there.
func TestFaultsDuringDeliveryLoseNoHintInVirtualTime(t *testing.T) {
	t.Parallel()
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { breakDelivery(t, seed) })
		})
	}
}

const (
	deliveryTarget = 2
	deliveryKeys   = 600
)

func breakDelivery(t *testing.T, seed uint64) {
	c := newSimCluster(t, seed, 5)
	defer c.close()
	rng := rand.New(rand.NewPCG(seed, 0x68616e64))
	c.crash(deliveryTarget)
	c.nodes[deliveryTarget].node = nil // it is down, and so keeps nothing
	time.Sleep(time.Minute)            // until everybody has noticed
	c.writeOnce(deliveryKeys, 0, 1, 3, 4)
	time.Sleep(10 * time.Second) // the tails of the writes
	kept, _, err := c.hintRows()
	if err != nil || kept < deliveryKeys/3 {
		t.Errorf("seed %d: %d hints are kept, %v: the load was no load", seed, kept, err)
		return
	}
	c.net.Slow(c.nodes[deliveryTarget].host, 300*time.Millisecond) // for messages to be on the way
	c.start(deliveryTarget)
	left := kept
	for range 40 {
		c.disturb(rng)
		time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
		if rows, _, err := c.hintRows(); err == nil && rows > 0 {
			left = rows
		}
	}
	t.Logf("seed %d: of %d hints %d were left when last seen during the faults", seed, kept, left)
	c.mendAll()
	time.Sleep(healTime)
	for i := range c.nodes {
		c.awaitReady(i)
	}
	for healed := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		rows, _, err := c.hintRows()
		if err == nil && rows == 0 {
			break
		}
		if time.Since(healed) > homeTime {
			t.Errorf("seed %d: %d hints are not home %v after all is healed: %v", seed, rows, homeTime, err)
			return
		}
	}
	cl, err := c.dial(0)
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return
	}
	defer cl.conn.Close()
	for i := range deliveryKeys {
		c.checkEqual(cl, fmt.Sprintf("once:%d", i))
	}
}

// writeOnce writes so many keys, each once, through some of the nodes.
func (c *simCluster) writeOnce(keys int, through ...int) {
	var wg sync.WaitGroup
	for w, at := range through {
		wg.Go(func() {
			cl, err := c.dial(at)
			if err != nil {
				c.t.Errorf("seed %d: %v", c.seed, err)
				return
			}
			defer cl.conn.Close()
			for i := w; i < keys; i += len(through) {
				if _, err := cl.do("SET", fmt.Sprintf("once:%d", i), strings.Repeat("x", 4<<10)); err != nil {
					c.t.Errorf("seed %d: SET through node %d: %v", c.seed, at, err)
				}
			}
		})
	}
	wg.Wait()
}

// disturb does one thing to the delivery, and mostly to its target.
func (c *simCluster) disturb(rng *rand.Rand) {
	victim := deliveryTarget
	if rng.IntN(3) == 0 {
		victim = rng.IntN(len(c.nodes))
	}
	s := c.nodes[victim]
	switch rng.IntN(6) {
	case 0, 1:
		c.crash(victim)
		time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
		c.start(victim)
	case 2:
		c.net.Slow(s.host, time.Duration(rng.IntN(1000))*time.Millisecond)
	case 3:
		s.wait.Store(rng.Int64N(int64(2 * time.Second)))
	case 4:
		other := c.nodes[rng.IntN(len(c.nodes))]
		c.net.Cut(other.host, s.host)
		c.net.Cut(s.host, other.host)
	default:
		c.mendAll()
	}
}

// mendAll ends what disturb began.
func (c *simCluster) mendAll() {
	c.net.Heal()
	for _, s := range c.nodes {
		c.net.Slow(s.host, 0)
		s.wait.Store(0)
	}
}
