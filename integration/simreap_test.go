package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
)

// This file deletes keys behind the back of owners that are away, in virtual time,
// and follows what is left of them until it is dropped. No owner may show a deleted
// key again, and nothing may be dropped before everybody has agreed.

const (
	absence    = 5 * time.Minute  // longer than any wait for a node that is away
	reapedSoon = 15 * time.Minute // for everybody to agree and for messages to age, with time to spare
	adminPort  = ":8379"
)

// reaping makes nodes drop what is left of deleted keys as soon as that is proven.
func reaping(cfg *node.Config) {
	cfg.RestoreWindow, cfg.ExchangeInterval, cfg.AdminListen = -1, 5*time.Second, adminPort
}

// metric is one figure that node i counts, or an error if it cannot be asked.
func (c *simCluster) metric(i int, name string) (int, error) {
	conn, err := c.net.Dial(c.t.Context(), "10.0.1.1", c.nodes[i].host+adminPort)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
		return 0, err
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), "\n"+name+" ")
	if !ok {
		return 0, fmt.Errorf("node %d has no %s", i, name)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(line)
}

// reapedRows is how many rows the nodes that are up have dropped in this life.
func (c *simCluster) reapedRows() int {
	c.t.Helper()
	sum := 0
	for i, s := range c.nodes {
		if s.node == nil {
			continue
		}
		n, err := c.metric(i, "replica_reaped_total")
		if err != nil {
			c.t.Errorf("seed %d: %v", c.seed, err)
		}
		sum += n
	}
	return sum
}

// copyOf is what one node holds of a key, as an inspection shows it.
type copyOf struct{ node, role, state, note string }

const nothing = "0000000000000000" // the state of an owner without a row

func (c *simCluster) inspect(i int, key string) (copies []copyOf, err error) {
	reply, err := c.try(i, "VCTX.INSPECT", key)
	if err != nil {
		return nil, err
	}
	for _, entry := range reply.([]any) {
		f := entry.([]any)
		copies = append(copies, copyOf{fmt.Sprint(f[0]), fmt.Sprint(f[1]), fmt.Sprint(f[2]), fmt.Sprint(f[6])})
	}
	return copies, nil
}

// rowsLeft is how many rows owners and hint holders have of keys.
func (c *simCluster) rowsLeft(keys []string) (rows int, example string) {
	for k, key := range keys {
		copies, err := c.inspect(c.upNode(k), key)
		if err != nil {
			return -1, err.Error()
		}
		for _, held := range copies {
			if held.state != nothing {
				rows, example = rows+1, fmt.Sprintf("%s: %+v", key, held)
			}
		}
	}
	return rows, example
}

// awaitReaped waits until no row is left of the keys and checks meanwhile that
// nobody shows one of them.
func (c *simCluster) awaitReaped(keys []string) {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Second) {
		c.showNone(keys)
		rows, example := c.rowsLeft(keys)
		if rows == 0 {
			c.t.Logf("seed %d: all rows of %d keys were dropped after %v", c.seed, len(keys), time.Since(began))
			return
		}
		if time.Since(began) > reapedSoon {
			c.t.Errorf("seed %d: %d rows are left after %v, such as %s", c.seed, rows, reapedSoon, example)
			return
		}
	}
}

// showNone checks that no key is shown, through a node drawn for each.
func (c *simCluster) showNone(keys []string) {
	c.t.Helper()
	for _, key := range keys {
		i := rand.IntN(len(c.nodes))
		if c.nodes[i].node == nil {
			continue
		}
		got, err := c.try(i, "GET", key)
		if err != nil || got != nil {
			c.t.Errorf("seed %d: node %d shows the deleted %s = %v, %v", c.seed, i, key, got, err)
		}
	}
}

// showEmpty checks that every node counts and lists no keys at all.
func (c *simCluster) showEmpty() {
	c.t.Helper()
	for i := range c.nodes {
		if n := c.must(i, "DBSIZE"); n != int64(0) {
			c.t.Errorf("seed %d: node %d counts %v keys", c.seed, i, n)
		}
		if keys := c.must(i, "KEYS", "*").([]any); len(keys) != 0 {
			c.t.Errorf("seed %d: node %d lists %q", c.seed, i, keys)
		}
	}
}

// deleteAll deletes keys through nodes that are up, every other one with the context
// of a read.
func (c *simCluster) deleteAll(keys []string, through ...int) {
	c.t.Helper()
	for k, key := range keys {
		i := through[k%len(through)]
		if k%2 == 0 {
			if n := c.must(i, "DEL", key); n != int64(1) {
				c.t.Errorf("seed %d: DEL %s through node %d: %v", c.seed, key, i, n)
			}
			continue
		}
		tok := c.must(i, "VCTX.GET", key).([]any)[0].(string)
		if live := c.must(through[(k+1)%len(through)], "VCTX.DEL", key, tok).([]any)[1]; live != int64(0) {
			c.t.Errorf("seed %d: VCTX.DEL %s leaves %v", c.seed, key, live)
		}
	}
}

func numbered(prefix string, n int) (keys []string) {
	for k := range n {
		keys = append(keys, fmt.Sprint(prefix, k))
	}
	return keys
}

// A delete that an owner missed reaches it, by a hint or without one, before the
// others forget it.
func TestDeletesBehindAnAbsentOwnerHoldAndAreForgottenLast(t *testing.T) {
	t.Parallel()
	for name, budget := range map[string]int64{"hints": 0, "no hints": 1} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				c := newTunedSimCluster(t, 21, 5, func(cfg *node.Config) {
					reaping(cfg)
					cfg.HintBudget = budget
				})
				defer c.close()
				deleteBehindOne(t, c, budget == 0)
			})
		})
	}
}

func deleteBehindOne(t *testing.T, c *simCluster, hinted bool) {
	const away = 2
	keys := numbered("k", 90)
	for k, key := range keys {
		c.must(k%len(c.nodes), "SET", key, "v")
	}
	time.Sleep(10 * time.Second)
	c.crash(away)
	c.nodes[away].node = nil
	time.Sleep(time.Minute) // until everybody has noticed
	c.deleteAll(keys, 0, 1, 3, 4)
	time.Sleep(10 * time.Second) // the tails of the deletes
	rows, _, err := c.hintRows()
	if err != nil || (rows > 0) != hinted {
		t.Errorf("%d hints are kept, %v", rows, err)
	}
	time.Sleep(absence)
	if n := c.reapedRows(); n != 0 {
		t.Errorf("%d rows were dropped while a node was away", n)
	}
	if rows, _ := c.rowsLeftAt(keys, 0); rows < 2*len(keys) {
		t.Errorf("%d rows are left of %d deletes that an owner may have missed", rows, len(keys))
	}
	c.start(away)
	c.awaitReady(away)
	c.awaitReaped(keys)
	c.showEmpty()
	if n := c.reapedRows(); n < 3*len(keys) {
		t.Errorf("only %d rows were dropped by proof, of %d", n, 3*len(keys))
	}
}

// rowsLeftAt is rowsLeft as seen from one node, which counts those it can ask.
func (c *simCluster) rowsLeftAt(keys []string, at int) (rows int, hints int) {
	for _, key := range keys {
		copies, err := c.inspect(at, key)
		if err != nil {
			c.t.Errorf("seed %d: %v", c.seed, err)
		}
		for _, held := range copies {
			switch {
			case held.state == nothing || held.state == "<nil>":
			case held.role == "owner":
				rows++
			default:
				hints++
			}
		}
	}
	return rows, hints
}

// An owner that was up all along and took no write for a while is met by nobody for
// long, since nobody has seen it return. Until then its tombstones are kept.
func TestADeleteThatAnOwnerRefusedIsNotForgottenBeforeItIsMet(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newTunedSimCluster(t, 23, 5, func(cfg *node.Config) {
			reaping(cfg)
			cfg.HintBudget, cfg.ExchangeInterval = 1, 4*time.Hour
		})
		defer c.close()
		keys := numbered("k", 60)
		for k, key := range keys {
			c.must(k%5, "SET", key, "v")
		}
		const full = 2
		room := func(free uint64) {
			c.nodes[full].disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 4 << 30})
			time.Sleep(20 * time.Second)
		}
		room(1 << 20)
		c.deleteAll(keys, 0, 1, 3, 4)
		room(3 << 30)
		time.Sleep(10 * time.Minute)
		unequal := 0
		for _, key := range keys {
			copies, err := c.inspect(0, key)
			states := map[string]bool{}
			for _, held := range copies {
				states[held.state] = true
			}
			if unequal += len(states) - 1; err != nil || states[nothing] && len(states) > 1 {
				t.Errorf("seed %d: %s is forgotten by some and not by all: %+v, %v", c.seed, key, copies, err)
			}
		}
		if unequal < len(keys)/4 {
			t.Errorf("seed %d: %d deletes were refused: this tests nothing", c.seed, unequal)
		}
		for range 2 { // to see the tombstone everywhere, and to see it seen
			for i := range c.nodes {
				c.must(i, "REPAIR")
			}
			time.Sleep(time.Minute)
		}
		c.awaitReaped(keys)
		c.showEmpty()
	})
}

// A hint that is older than the delete, and cannot be delivered, keeps the owners
// from forgetting what it must not bring back; also those who could.
func TestAnOldHintHoldsUpTheDroppingOfTombstones(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newTunedSimCluster(t, 24, 5, reaping)
		defer c.close()
		const full, holder = 2, 4
		room := func(free uint64) {
			c.nodes[full].disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 4 << 30})
			time.Sleep(2 * time.Second)
		}
		keys := numbered("k", 90)
		room(1 << 20)
		for k, key := range keys {
			c.must([]int{0, 1, 3, 4}[k%4], "SET", key, "v")
		}
		time.Sleep(5 * time.Second)
		c.net.Partition([]string{c.nodes[full].host}, []string{c.nodes[holder].host})
		room(3 << 30)
		c.deleteAll(keys, 0, 1, 3)
		time.Sleep(6 * time.Minute)
		c.checkHintsHold(keys)
		c.net.Heal()
		time.Sleep(healTime)
		c.awaitReaped(keys)
		c.showEmpty()
	})
}

// checkHintsHold checks that no owner has dropped a row of a key for which a hint
// is kept, and that there are some.
func (c *simCluster) checkHintsHold(keys []string) {
	c.t.Helper()
	hinted := 0
	for _, key := range keys {
		copies, err := c.inspect(0, key)
		if err != nil {
			c.t.Errorf("seed %d: %v", c.seed, err)
		}
		if !slices.ContainsFunc(copies, func(h copyOf) bool { return h.role != "owner" }) {
			continue
		}
		hinted++
		if slices.ContainsFunc(copies, func(h copyOf) bool { return h.role == "owner" && h.state == nothing }) {
			c.t.Errorf("seed %d: an owner of %s has dropped its row while a hint is kept: %+v", c.seed, key, copies)
		}
	}
	if hinted < len(keys)/10 {
		c.t.Errorf("seed %d: hints are kept of %d keys: this tests nothing", c.seed, hinted)
	}
}

// A node that may have lost its tombstones proves nothing to others, however long it
// takes until it has met all owners.
func TestARecoveringOwnerHoldsUpTheDroppingOfTombstones(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := newTunedSimCluster(t, 22, 3, reaping)
		defer c.close()
		keys := numbered("k", 30)
		for _, key := range keys {
			c.must(0, "SET", key, "v")
		}
		lost, err := node.ParseNodeID(c.idOf(2))
		if err != nil {
			t.Fatal(err)
		}
		c.deleteAll(keys, 0, 1, 2)
		time.Sleep(40 * time.Second) // all owners have agreed
		c.crash(2)
		c.nodes[2].disk = vfs.NewCrashableMem()
		c.nodes[2].with = func(cfg *node.Config) { cfg.ReplaceLost = lost }
		c.net.Partition([]string{c.nodes[1].host}, []string{c.nodes[2].host})
		c.start(2)
		c.awaitReady(2)
		time.Sleep(10 * time.Minute)
		if n := c.reapedRows(); n != 0 {
			t.Errorf("%d rows were dropped while an owner was recovering", n)
		}
		if _, is := c.nodes[2].node.Recovering(); !is {
			t.Error("the owner is not recovering: this tests nothing")
		}
		if copies, err := c.inspect(0, keys[0]); err != nil || !slices.ContainsFunc(copies, func(h copyOf) bool { return strings.Contains(h.note, "member") }) {
			t.Errorf("%v, %v: no copy says whom it waits for", copies, err)
		}
		c.net.Heal()
		time.Sleep(healTime)
		c.awaitReaped(keys)
		c.showEmpty()
	})
}
