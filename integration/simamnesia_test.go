package integration

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica/storage"
)

// This file takes data directories away from whole nodes, puts old ones back and
// lets disks fill up, fail and stand still, in virtual time.

// must sends one command to node i on a connection of its own and returns the
// reply.
func (c *simCluster) must(i int, words ...string) any {
	c.t.Helper()
	reply, err := c.try(i, words...)
	if err != nil {
		c.t.Fatalf("seed %d: node %d: %q: %v", c.seed, i, words, err)
	}
	return reply
}

func (c *simCluster) try(i int, words ...string) (any, error) {
	cl, err := c.dial(i)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cl.conn.Close() }() // it was for one command
	return cl.do(words...)
}

// fill writes keys through all nodes in turn.
func (c *simCluster) fill(keys int, value string) {
	c.t.Helper()
	for k := range keys {
		c.must(k%len(c.nodes), "SET", fmt.Sprintf("k%d", k), value)
	}
}

// holds reads all keys through node i, each of which must have the one value.
func (c *simCluster) holds(i, keys int, value string) {
	c.t.Helper()
	for k := range keys {
		got := c.must(i, "VCTX.GET", fmt.Sprintf("k%d", k)).([]any)[1].([]any)
		if len(got) != 1 || got[0] != value {
			c.t.Errorf("seed %d: node %d shows k%d = %q, want %q", c.seed, i, k, got, value)
		}
	}
}

// restart starts a crashed node on what its disk holds now.
func (c *simCluster) restart(i int) {
	c.t.Helper()
	c.start(i)
	c.awaitReady(i)
}

// wantRecovering checks what a node says of itself, and the others of it.
func (c *simCluster) wantRecovering(i int, want bool) {
	c.t.Helper()
	await := time.Now().Add(5 * time.Second)
	for {
		_, is := c.nodes[i].node.Recovering()
		shown := strings.Contains(fmt.Sprint(c.must((i+1)%len(c.nodes), "RING", "STATUS")), "recovering")
		if is == want && shown == want {
			return
		}
		if time.Now().After(await) {
			c.t.Fatalf("seed %d: node %d is recovering: %v, shown so: %v, want %v", c.seed, i, is, shown, want)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// inCluster runs f with a cluster in virtual time.
func inCluster(t *testing.T, nodes int, f func(t *testing.T, c *simCluster)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		c := newSimCluster(t, 1, nodes)
		defer c.close() // a node left behind would go on for ever
		f(t, c)
	})
}

const amnesiaKeys = 60

// idOf is the id of node i, as its disk has it.
func (c *simCluster) idOf(i int) string {
	c.t.Helper()
	text := fmt.Sprint(c.must(i, "INFO", "redynamo"))
	_, rest, _ := strings.Cut(text, "node_id:")
	id, _, _ := strings.Cut(rest, "\r\n")
	return id
}

func TestAWipedNodeIsRefusedAndCanTakeItsPlaceBack(t *testing.T) {
	t.Parallel()
	inCluster(t, 5, func(t *testing.T, c *simCluster) {
		c.fill(amnesiaKeys, "v1")
		id := c.idOf(2)
		c.crash(2)
		time.Sleep(20 * time.Second) // the others see it down
		c.nodes[2].disk = vfs.NewCrashableMem()
		c.start(2)
		select {
		case <-c.nodes[2].node.Done():
		case <-time.After(time.Minute):
			t.Fatal("a node with an empty directory is not refused")
		}
		err := c.nodes[2].node.Err()
		if err == nil || !strings.Contains(err.Error(), "--replace-lost") || !strings.Contains(err.Error(), id+" (10.0.0.3:6379, down)") {
			t.Errorf("refused with: %v", err)
		}
		c.crash(2)

		lost, err := node.ParseNodeID(id)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[2].disk = vfs.NewCrashableMem()
		c.nodes[2].with = func(cfg *node.Config) { cfg.ReplaceLost = lost }
		c.restart(2)
		if got := c.idOf(2); got != id {
			t.Errorf("it is node %s, want %s", got, id)
		}
		c.wantRecovering(2, true)
		c.holds(2, amnesiaKeys, "v1")
		c.holds(0, amnesiaKeys, "v1")
		for k := range amnesiaKeys {
			c.must(2, "SET", fmt.Sprintf("k%d", k), "v2")
		}
		c.holds(3, amnesiaKeys, "v2")

		c.crash(2) // it is durable, and asks for no flag
		c.nodes[2].with = nil
		c.restart(2)
		c.wantRecovering(2, true)
		time.Sleep(time.Minute) // it meets the other owners
		c.wantRecovering(2, false)
		c.crash(2)
		c.restart(2)
		time.Sleep(time.Minute)
		c.wantRecovering(2, false)
	})
}

// With one of a key's three owners wiped and another down, no read may call the
// key absent: it answers with the copy that is left, or with an error. That lasts
// until the wiped owner has met every other one.
func TestAWipedOwnerMakesNoKeyAbsent(t *testing.T) {
	t.Parallel()
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		lost, err := node.ParseNodeID(c.idOf(2))
		if err != nil {
			t.Fatal(err)
		}
		c.crash(1)
		time.Sleep(20 * time.Second)
		for k := range amnesiaKeys { // on nodes 0 and 2 alone
			c.must(0, "SET", fmt.Sprintf("k%d", k), "v1")
		}
		c.crash(2)
		c.nodes[2].disk = vfs.NewCrashableMem()
		c.nodes[2].with = func(cfg *node.Config) { cfg.ReplaceLost, cfg.Join = lost, []string{c.nodes[1].host + ":7946"} }
		c.net.Cut(c.nodes[0].host, c.nodes[2].host)
		c.net.Cut(c.nodes[2].host, c.nodes[0].host)
		c.restart(1)
		c.restart(2)
		time.Sleep(time.Minute) // node 1 meets both
		for i := range 2 {      // node 2 has no vote and reaches one other
			c.holds(i, amnesiaKeys, "v1")
		}
		c.crash(0)
		time.Sleep(20 * time.Second)
		for i := 1; i <= 2; i++ {
			if got, err := c.try(i, "GET", "never-written"); err == nil {
				t.Errorf("node %d: a key is %v by the word of a node that lost all", i, got)
			}
		}
		if _, is := c.nodes[2].node.Recovering(); !is {
			t.Error("the node counts again without having met every owner")
		}
		c.net.Heal()
		c.restart(0)
		time.Sleep(time.Minute)
		c.wantRecovering(2, false)
	})
}

func TestARestoredDirectoryIsNoticedAndLosesNothing(t *testing.T) {
	t.Parallel()
	for _, reboots := range []int{0, 2} {
		inCluster(t, 5, func(t *testing.T, c *simCluster) {
			c.fill(amnesiaKeys, "v1")
			backup := c.nodes[2].disk.CrashClone(vfs.CrashCloneCfg{})
			for range reboots {
				c.crash(2)
				c.restart(2)
			}
			c.fill(amnesiaKeys, "v2")
			time.Sleep(15 * time.Second) // the others hear how far its log has come
			c.wantRecovering(2, false)
			c.crash(2)
			c.nodes[2].disk = backup
			began := time.Now()
			c.restart(2)
			for time.Since(began) < time.Second {
				if _, recovering := c.nodes[2].node.Recovering(); recovering {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if _, recovering := c.nodes[2].node.Recovering(); !recovering {
				t.Errorf("%d boots later: a restored backup is not noticed within 1 s", reboots)
			}
			c.wantRecovering(2, true)
			for i := range c.nodes {
				c.holds(i, amnesiaKeys, "v2")
			}
			for k := range amnesiaKeys {
				c.must(2, "SET", fmt.Sprintf("k%d", k), "v3")
			}
			c.holds(2, amnesiaKeys, "v3")
		})
	}
}

func TestSwappedDirectoriesSwapTheNodes(t *testing.T) {
	t.Parallel()
	inCluster(t, 5, func(t *testing.T, c *simCluster) {
		c.fill(amnesiaKeys, "v1")
		one, three := c.idOf(1), c.idOf(3)
		c.crash(1)
		c.crash(3)
		c.nodes[1].disk, c.nodes[3].disk = c.nodes[3].disk, c.nodes[1].disk
		c.restart(1)
		c.restart(3)
		if c.idOf(1) != three || c.idOf(3) != one {
			t.Errorf("the nodes are %s and %s, want %s and %s", c.idOf(1), c.idOf(3), three, one)
		}
		time.Sleep(time.Minute)
		for i := range c.nodes {
			c.wantRecovering(i, false)
			c.holds(i, amnesiaKeys, "v1")
		}
		c.fill(amnesiaKeys, "v2")
		c.holds(1, amnesiaKeys, "v2")
		for k := range amnesiaKeys {
			cl, err := c.dial(0)
			if err != nil {
				t.Fatal(err)
			}
			c.must(0, "VCTX.GET", fmt.Sprintf("k%d", k), "R", "3")
			c.checkEqual(cl, fmt.Sprintf("k%d", k))
			_ = cl.conn.Close() // it was for one key
		}
	})
}

func TestACloneAtAnotherAddressDoesNotStart(t *testing.T) {
	t.Parallel()
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		c.fill(amnesiaKeys, "v1")
		clone := &simNode{host: "10.0.0.77", disk: c.nodes[2].disk.CrashClone(vfs.CrashCloneCfg{})}
		c.nodes = append(c.nodes, clone)
		err := c.boot(3)
		c.net.Crash(clone.host)
		c.nodes = c.nodes[:3]
		if err == nil || !strings.Contains(err.Error(), "another process runs as this node, at 10.0.0.3:7379") {
			t.Errorf("the clone starts: %v", err)
		}
		time.Sleep(time.Minute)
		c.wantRecovering(2, false)
		c.holds(2, amnesiaKeys, "v1")
	})
}

func TestACoordinatorThatCannotReadItsCopyMintsNothing(t *testing.T) {
	t.Parallel()
	inCluster(t, 3, func(t *testing.T, c *simCluster) {
		c.fill(amnesiaKeys, "v1")
		var failing atomic.Bool
		var hits atomic.Int64
		c.nodes[0].with = func(cfg *node.Config) {
			cfg.FS = errorfs.Wrap(cfg.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if failing.Load() && op.Kind == errorfs.OpFileReadAt {
					hits.Add(1)
					return errors.New("injected read error")
				}
				return nil
			}))
			cfg.BlockCache = 1 << 10
		}
		for range 2 { // then all rows are in tables, and none is cached
			c.crash(0)
			c.restart(0)
		}
		failing.Store(true)
		for k := range amnesiaKeys {
			c.must(0, "SET", fmt.Sprintf("k%d", k), "v2")
		}
		if hits.Load() == 0 {
			t.Fatal("no read failed")
		}
		c.holds(1, amnesiaKeys, "v2") // no sibling: nothing was minted on an empty record
		for k := range amnesiaKeys {
			if got := c.must(0, "GET", fmt.Sprintf("k%d", k)); got != "v2" {
				t.Errorf("through the node that cannot read: k%d = %v", k, got)
			}
		}
		failing.Store(false)
		c.holds(0, amnesiaKeys, "v2")
	})
}

func TestAFullDiskIsWrittenAroundAndAllFullDisksSaySo(t *testing.T) {
	t.Parallel()
	inCluster(t, 5, func(t *testing.T, c *simCluster) {
		c.fill(amnesiaKeys, "v1")
		set := func(free uint64, nodes ...int) {
			for _, i := range nodes {
				c.nodes[i].disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 4 << 30})
			}
			time.Sleep(2 * time.Second)
		}
		set(1<<20, 2)
		c.fill(amnesiaKeys, "v2") // through the full node too
		for i := range c.nodes {
			c.holds(i, amnesiaKeys, "v2")
		}
		hints := int64(0)
		for i := range c.nodes {
			if i != 2 {
				hints += hintsAt(t, c.must(i, "INFO", "redynamo"))
			}
		}
		if hints == 0 {
			t.Error("no hint is kept for the owner with the full disk")
		}
		set(1<<20, 0, 1, 2, 3, 4)
		for i := range c.nodes {
			began := time.Now()
			_, err := c.try(i, "SET", "k0", "v3")
			if err == nil || !strings.Contains(err.Error(), "disk almost full") || !strings.HasPrefix(err.Error(), "NOREPLICAS") {
				t.Errorf("node %d: %v", i, err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("node %d refused after %v", i, took)
			}
			c.holds(i, amnesiaKeys, "v2")
		}
		set(3<<30, 0, 1, 2, 3, 4)
		c.fill(amnesiaKeys, "v4") // beside what a node has missed, if it coordinates
		for k := range amnesiaKeys {
			if got := c.must(2, "GET", fmt.Sprintf("k%d", k)); got != "v4" {
				t.Errorf("k%d = %v, want v4", k, got)
			}
		}
	})
}

func hintsAt(t *testing.T, info any) int64 {
	t.Helper()
	var n int64
	_, rest, ok := strings.Cut(fmt.Sprint(info), "\nhints:")
	if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
		t.Fatalf("no hints in %v", info)
	}
	return n
}

func TestADiskThatStandsStillIsWaitedForOrEndsTheNode(t *testing.T) {
	t.Parallel()
	for _, stall := range []time.Duration{2 * time.Second, 15 * time.Second, time.Minute} {
		inCluster(t, 5, func(t *testing.T, c *simCluster) {
			c.fill(amnesiaKeys, "v1")
			c.nodes[2].wait.Store(int64(stall))
			began := time.Now()
			failures := 0
			for k := 0; time.Since(began) < 50*time.Second; k++ {
				if time.Since(began) > time.Second {
					c.nodes[2].wait.Store(0) // what is under way takes its time
				}
				if _, err := c.try(k%2, "SET", fmt.Sprintf("s%d", k), "v"); err != nil {
					failures++
				}
				time.Sleep(50 * time.Millisecond)
			}
			if failures > 0 {
				t.Errorf("%v: %d writes through other nodes failed", stall, failures)
			}
			ended := false
			select {
			case <-c.nodes[2].node.Done():
				ended = true
			default:
			}
			if want := stall > 30*time.Second; ended != want {
				t.Fatalf("%v: the node has ended: %v: %v", stall, ended, c.nodes[2].node.Err())
			}
			if !ended {
				c.holds(2, amnesiaKeys, "v1")
				return
			}
			if err := c.nodes[2].node.Err(); !errors.Is(err, storage.ErrStalled) {
				t.Errorf("it ended with: %v", err)
			}
			time.Sleep(time.Minute)
			c.crash(2)
			c.restart(2)
			c.wantRecovering(2, false)
			c.holds(2, amnesiaKeys, "v1")
		})
	}
}

// TestAWipedNodeThatIsToLeaveLeavesInVirtualTime has a node lose its disk, and be
// removed before the others have seen it down. Its replacement has a part in a change
// of which it knows nothing: the change must come to its end, and the node be free to go.
func TestAWipedNodeThatIsToLeaveLeavesInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 15, 5, 0, func(s *ringSim) {
		id, err := node.ParseNodeID(s.idOf(2))
		if err != nil {
			t.Fatal(err)
		}
		s.bend(true)
		s.apply(1, "REMOVE", s.addr(2))
		s.kill(2)
		time.Sleep(20 * time.Second)
		s.swap(2, vfs.NewCrashableMem())
		s.nodes[2].with = func(cfg *node.Config) {
			cfg.ReplaceLost, cfg.Join = id, []string{s.nodes[0].host + ":7946"}
			s.nodes[2].with = nil
		}
		s.start(2)
		s.awaitRing(2*ringChange, 0, 1, 3, 4)
		s.home()
		s.bend(false)
		s.awaitLeft(2)
		s.leaves(2)
	})
}
