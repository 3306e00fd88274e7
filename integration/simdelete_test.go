package integration

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
)

// This file lets faults rain on five whole nodes in virtual time while clients add
// and delete, and the nodes drop what is left of deleted keys as soon as they can
// prove that it is safe. Between storms there is calm for long enough to prove it.
//
// Clients work on a few keys at a time and leave them behind, mostly deleted, so
// that there is something to drop; now and then they come back to an old one.
//
// The judge is the history (I1 to I9). It looks at the disks all along, where a
// deleted version must not be live in the join of all rows, and at the end at the
// doors. At the end, too, no row may be left of a key without a value, and over all
// seeds some must have been dropped in the middle of it all.

const (
	dropShort    = 7 * time.Minute  // of the rain
	dropLong     = 14 * time.Minute // the same, if many seeds are asked for
	dropKeys     = 4                // of each epoch
	dropClients  = 5
	dropWriters  = 2
	stallMost    = 50 * time.Second // below the age that nodes assume of no message
	fullMost     = 40 * time.Second
	lazyInterval = 2 * time.Minute
	copyAge      = 4 * time.Minute  // of an old copy that is put back, at most
	copyWindow   = 6 * time.Minute  // what nodes are told of it
	equalAtLast  = 10 * time.Minute // for owners to agree by themselves, after copyWindow
	recoverAtEnd = 3 * time.Minute
)

func TestDeletesHoldWhileTombstonesAreDroppedInVirtualTime(t *testing.T) {
	t.Parallel()
	first, seeds := simSeeds(t, 2)
	length := dropShort
	if os.Getenv("REDYNAMO_SIM_SEEDS") != "" {
		length = dropLong
	}
	sum := map[string]int{}
	var virtual time.Duration
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			fmt.Fprintf(os.Stderr, "deletes: seed %d\n", seed) // a panic of a node would not say it
			begin := time.Now()
			var took time.Duration
			var counts map[string]int
			bubble.Test(t, func(t *testing.T) {
				start := time.Now()
				counts = drops(t, uint64(seed), weather{length: length, gap: 6 * time.Second, epoch: 20 * time.Second, looks: 12, storm: 8, calm: 2 * time.Minute,
					pace: pace{pause: 800 * time.Millisecond, looks: 100}})
				took = time.Since(start)
			})
			virtual += took
			for what, n := range counts {
				sum[what] += n
			}
			t.Logf("seed %d: %v of virtual time took %v: %v", seed, took, time.Since(begin), counts)
			logTally(t, uint64(seed), took, counts)
		})
	}
	t.Logf("%d seeds, %v of virtual time: %v", seeds, virtual, sum)
	if seeds > 1 && sum["reaped in the rain"] == 0 {
		t.Error("no row was dropped in the middle of it all: this tests nothing")
	}
}

// dropKind is what is special about a run.
type dropKind struct {
	faultKind
	tight bool // few hints are kept
	lazy  bool // owners are compared rarely
}

func dropKindOf(seed uint64) dropKind {
	return dropKind{faultKind: faultKindOf(seed), tight: seed%4 == 3, lazy: seed%8 == 3}
}

// weather is how dense a run is.
type weather struct {
	length time.Duration // of the rain
	gap    time.Duration // between two faults of a storm, at most
	epoch  time.Duration // for which clients stay with some keys
	looks  int           // after one fault of so many the disks are looked at
	storm  int           // faults of a storm, mostly
	calm   time.Duration // of the calm between two, up to twice as much
	pace   pace          // of clients
	shared int           // clients besides, of shared keys
}

// drops runs one seed and returns what was counted. Nothing in it may end the test
// early: the nodes would go on for ever.
func drops(t *testing.T, seed uint64, w weather) map[string]int {
	kind := dropKindOf(seed)
	c := newTunedSimCluster(t, seed, faultNodes, func(cfg *node.Config) {
		reaping(cfg)
		if kind.tight {
			cfg.HintBudget = tightBudget
		}
		if kind.lazy {
			cfg.ExchangeInterval = lazyInterval
		}
		if kind.restore || kind.rot { // bits of a log take a node back, too
			cfg.RestoreWindow = copyWindow
		}
	})
	h := newHistoryOf(t, seed, judge.Options{OneClock: !kind.clocks})
	n := &dropNemesis{nemesis: newNemesis(c, h, kind.faultKind, 0x64726f70), w: w, reaped: map[*node.Node]int{}}
	n.gap = w.gap
	start := time.Now()
	until := start.Add(w.length)
	var clients sync.WaitGroup
	client := func(id int) *session {
		s := n.newSession(id)
		s.pace, s.began, s.epoch = w.pace, start, w.epoch
		return s
	}
	for id := range dropClients {
		clients.Go(func() { client(id).leaveBehind(until) })
	}
	for i := range dropWriters {
		clients.Go(func() { client(dropClients + i).setOrDelete(until) })
	}
	for i := range w.shared {
		clients.Go(func() { client(dropClients + dropWriters + i).share(until) })
	}
	n.run(until)
	clients.Wait()
	h.mu.counts["reaped in the rain"] = n.sample()
	n.heal()
	n.awaitFilled(h.keys())
	time.Sleep(fullMost)
	c.awaitHome(h)
	c.crossCheck(h, "all hints home")
	keys := h.keys()
	c.awaitEqual(h, keys, kind)
	c.crossCheck(h, "all owners equal")
	shownAtDoors := c.readKeys(h, keys)
	c.awaitGone(h, keys, shownAtDoors)
	n.checkStrays(keys)
	h.mu.counts["reaped"] = n.sample()
	c.closeInTime()
	n.ghosts.Wait()
	time.Sleep(time.Minute) // memberlist's probes sit out their timeouts

	rows, bound := c.openDisks(h, keys), n.binds()
	for _, key := range keys {
		h.judge(key, "at the doors", shownAtDoors[key], bound)
		h.judge(key, "on all disks", rows.join(key, -1), bound)
	}
	if h.mu.counts["write acked"] < 100 || h.mu.counts["delete acked"] < 50 {
		h.errorf("only %d writes and %d deletes were acknowledged: the load was no load", h.mu.counts["write acked"], h.mu.counts["delete acked"])
	}
	return h.mu.counts
}

// dropNemesis lets storms and calm follow each other.
type dropNemesis struct {
	*nemesis
	w      weather
	reaped map[*node.Node]int
}

// sample notes how much the lives of the nodes have dropped so far, as far as they
// were asked, and returns the sum.
func (n *dropNemesis) sample() (sum int) {
	for i, s := range n.c.nodes {
		if s.node == nil {
			continue
		}
		if rows, err := n.c.metric(i, "replica_reaped_total"); err == nil {
			n.reaped[s.node] = rows
		}
	}
	for _, rows := range n.reaped {
		sum += rows
	}
	return sum
}

func (n *dropNemesis) run(until time.Time) {
	for time.Now().Before(until) {
		if n.rng.IntN(n.w.storm) == 0 {
			n.calm(until)
		}
		n.pause(50*time.Millisecond, n.gap)
		n.tend()
		switch n.rng.IntN(10) {
		case 0, 1:
			n.stall()
		case 2:
			n.fill()
		default:
			n.strike()
		}
		if n.rng.IntN(n.w.looks) == 0 {
			n.c.crossCheck(n.h, "between two faults, "+clockText())
		}
	}
}

// calm mends everything, mostly, and lets some time pass in which tombstones may be
// dropped.
func (n *dropNemesis) calm(until time.Time) {
	n.h.count("calm")
	n.note("calm")
	if n.rng.IntN(5) > 0 {
		n.mend()
	}
	end := time.Now().Add(n.w.calm + time.Duration(n.rng.Int64N(int64(n.w.calm))))
	for time.Now().Before(end) && time.Now().Before(until) {
		time.Sleep(5 * time.Second)
		n.tend()
		if n.rng.IntN(4) == 0 {
			n.sample()
		}
		if n.rng.IntN(8) == 0 {
			n.stall() // nobody notices for long
		}
		if n.rng.IntN(10) == 0 {
			n.c.crossCheck(n.h, "in the calm, "+clockText())
		}
	}
}

// stall holds back what is under way between some hosts, while new connections get
// through.
func (n *dropNemesis) stall() {
	hosts := n.hosts()
	for _, to := range hosts[1 : 2+n.rng.IntN(3)] {
		d := time.Duration(1 + n.rng.Int64N(int64(stallMost)))
		n.struck("stall", "%v -> %v for %v", hosts[0], to, d)
		n.c.net.Stall(hosts[0], to, d)
	}
}

// fill leaves no room on a disk for a while. Its node refuses writes, and nobody
// suspects it.
func (n *dropNemesis) fill() {
	i, d := n.rng.IntN(len(n.c.nodes)), time.Duration(n.rng.Int64N(int64(fullMost)))
	n.struck("full", "is the disk of node %d for %v", i, d)
	s := n.c.nodes[i]
	room := func(free uint64) {
		n.c.disks.Lock()
		defer n.c.disks.Unlock()
		s.disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 4 << 30})
	}
	room(1 << 20)
	time.AfterFunc(d, func() { room(3 << 30) })
}

// awaitEqual waits until the owners of every key hold the same, all by themselves:
// nobody reads.
func (c *simCluster) awaitEqual(h *history, keys []string, kind dropKind) {
	patience := equalAtLast
	if kind.restore || kind.rot {
		patience += copyWindow
	}
	if kind.rot { // graves that were lost are as old as their rebuilding
		patience += copyWindow
	}
	left := slices.Clone(keys)
	for began := time.Now(); ; time.Sleep(10 * time.Second) {
		var last []copyOf
		left = slices.DeleteFunc(left, func(key string) bool {
			copies, err := c.inspect(c.rngNode(key), key)
			same := err == nil && len(copies) == 3
			for i := range copies {
				same = same && copies[i].role == "owner" && copies[i].state == copies[0].state && (copies[i].note == "" || copies[i].state == nothing)
			}
			if !same {
				last = copies
			}
			return same
		})
		if len(left) == 0 {
			return
		}
		if time.Since(began) > patience {
			h.errorf("I6 convergence: %d keys are not equal on their owners, or not dropped, after %v, such as %s: %+v", len(left), patience, left[len(left)-1], last)
			return
		}
	}
}

// rngNode is the node through which a key is inspected.
func (c *simCluster) rngNode(key string) int { return c.upNode(len(key) + int(key[len(key)-1])) }

// readKeys reads every key from all its owners.
func (c *simCluster) readKeys(h *history, keys []string) map[string][]shown {
	final := map[string][]shown{}
	cl, err := c.dial(c.upNode(int(c.seed)))
	if err != nil {
		h.errorf("dial, all healed: %v", err)
		return final
	}
	defer cl.conn.Close()
	for _, key := range keys {
		got, err := readMeta(cl, key, "R", "3")
		if err != nil {
			h.errorf("VCTX.GET %s R 3, all healed: %v", key, err)
			continue
		}
		final[key] = got.versions
	}
	return final
}

// awaitGone checks that no row is left of the keys without a value, and that they
// are all that the nodes count.
func (c *simCluster) awaitGone(h *history, keys []string, final map[string][]shown) {
	var gone []string
	for _, key := range keys {
		if len(final[key]) == 0 {
			gone = append(gone, key)
		}
	}
	if rows, example := c.rowsLeft(gone); rows != 0 {
		h.errorf("%d rows are left of %d keys without a value, such as %s", rows, len(gone), example)
	}
	for i, s := range c.nodes {
		if s.node == nil {
			continue // no member
		}
		n, err := c.try(i, "DBSIZE")
		if err != nil || n != int64(len(keys)-len(gone)) {
			h.errorf("node %d counts %v keys, %v; %d have a value", i, n, err, len(keys)-len(gone))
		}
	}
	h.count("keys")
	h.mu.counts["keys"], h.mu.counts["keys without a value"] = len(keys), len(gone)
}

// epochKey draws a key of the present epoch or the one before, or now and then one
// that was left behind.
func (s *session) epochKey(prefix string) string {
	epoch := int(time.Since(s.began) / s.epoch)
	switch p := s.rng.IntN(100); {
	case p < 4:
		epoch = s.rng.IntN(epoch + 1)
	case p < 30 && epoch > 0:
		epoch--
	}
	return fmt.Sprintf("%s:%d:%d", prefix, epoch, s.rng.IntN(dropKeys))
}

// leaveBehind adds and deletes with contexts.
func (s *session) leaveBehind(until time.Time) {
	for time.Now().Before(until) {
		s.rest()
		if !s.connected() {
			continue
		}
		key := s.epochKey("d")
		switch p := s.rng.IntN(100); {
		case p < 40:
			s.read(key)
		case p < 65:
			s.put(key)
		case p < 70:
			delete(s.views, key) // a client that knows nothing
			s.put(key)
		default:
			s.removeTwice(key)
		}
	}
	s.leave()
}

func (s *session) rest() {
	time.Sleep(time.Duration(s.rng.Int64N(int64(s.pace.pause))))
	if s.rng.IntN(20) == 0 {
		s.leave()
	}
}

// setOrDelete sets and deletes keys that nobody else writes, with plain commands.
func (s *session) setOrDelete(until time.Time) {
	for time.Now().Before(until) {
		s.rest()
		if !s.connected() {
			continue
		}
		key := s.epochKey(fmt.Sprintf("p%d", s.id))
		if s.rng.IntN(5) < 2 {
			s.plainDelete(key)
		} else {
			s.plainSet(key)
		}
	}
	s.leave()
}

func (s *session) plainDelete(key string) {
	o := s.op(judge.Del, key)
	o.W = plainNodes
	i := s.h.issue(o)
	reply, err := s.cl.do("DEL", key)
	s.settle(i, reply, err)
}
