package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/simnet"
)

// This file draws faults, and in the end mends them. What was done when is the
// schedule of a run, which it prints.

const (
	clockDrift = 500              // of a clock, in millionths, at most, to either side
	clockStep  = 2 * time.Second  // by which a clock is set, at most, to either side
	lateMost   = 20 * time.Second // that a packet, or its second copy, is late
)

// faultKind is what is special about the faults of a run.
type faultKind struct {
	clocks  bool // clocks differ, run at their own speeds, and are set
	ring    bool // members come and go
	wipe    bool // a disk is emptied
	restore bool // a disk is put back as it was a while ago
	rot     bool // bits of a disk turn
	badSync bool // syncs fail, and with them nodes
}

func faultKindOf(seed uint64) faultKind {
	rng := rand.New(rand.NewPCG(seed, 0x6b696e64))
	k := faultKind{clocks: rng.IntN(2) == 0, ring: rng.IntN(2) == 0}
	switch rng.IntN(4) {
	case 0:
		k.wipe = true
	case 1:
		k.restore = true
	case 2:
		k.rot = true
	}
	k.badSync = rng.IntN(2) == 0
	return k
}

// loses reports whether a disk is lost, and with it what was on one node alone.
func (k faultKind) loses() bool { return k.wipe || k.restore || k.rot }

// simClock is the clock of a node. The zero value is right. It runs while it is set.
type simClock struct {
	off   atomic.Int64 // ahead of the right time, at since
	ppm   atomic.Int64 // faster than the right time, in millionths
	since time.Time    // of its cluster
}

func (k *simClock) now() time.Time {
	t := time.Now()
	return t.Add(time.Duration(k.off.Load()) + t.Sub(k.since)/1e6*time.Duration(k.ppm.Load()))
}

// nemesis breaks things, and in the end mends them.
type nemesis struct {
	c        *simCluster
	h        *history
	rng      *rand.Rand
	kind     faultKind
	gap      time.Duration     // between two faults, at most
	back     map[int]time.Time // when the nodes that are down return
	ghosts   sync.WaitGroup    // what is left of ended processes
	began    time.Time
	schedule []string
	loss     diskLoss
	moves    moves
}

// newNemesis makes room for newcomers, and sets the clocks, if its kind is so. The
// nodes are up.
func newNemesis(c *simCluster, h *history, kind faultKind, salt uint64) *nemesis {
	n := &nemesis{c: c, h: h, kind: kind, rng: rand.New(rand.NewPCG(c.seed, salt)), back: map[int]time.Time{}, began: time.Now()}
	c.burns = kind.loses()
	n.loss.victim = -1
	n.note("%d nodes, %+v", len(c.nodes), kind)
	if kind.ring {
		n.makeRoom()
	}
	if kind.clocks {
		for i, s := range c.nodes {
			s.clock.ppm.Store(int64(n.rng.IntN(2*clockDrift+1) - clockDrift))
			s.clock.off.Store(int64(n.eitherSide(clockSpread)))
			n.note("the clock of node %d is %v ahead and gains %d ppm", i, time.Duration(s.clock.off.Load()), s.clock.ppm.Load())
		}
	}
	c.t.Cleanup(func() {
		c.t.Logf("seed %d: the schedule:\n%s", c.seed, strings.Join(n.schedule, "\n"))
	})
	return n
}

func (n *nemesis) eitherSide(most time.Duration) time.Duration {
	return time.Duration(n.rng.Int64N(int64(2*most))) - most
}

// note writes a line of the schedule.
func (n *nemesis) note(format string, args ...any) {
	n.schedule = append(n.schedule, fmt.Sprintf("%10.3fs ", time.Since(n.began).Seconds())+fmt.Sprintf(format, args...))
}

func (n *nemesis) run(until time.Time) {
	for time.Now().Before(until) {
		n.pause(50*time.Millisecond, n.gap)
		n.tend()
		n.strike()
		if n.rng.IntN(8) == 0 {
			n.c.crossCheck(n.h, "between two faults, "+clockText())
		}
	}
}

// tend starts who is to be back, and stops who has left.
func (n *nemesis) tend() {
	n.restart(time.Now())
	n.tendRing()
}

func (n *nemesis) pause(least, most time.Duration) {
	time.Sleep(least + time.Duration(n.rng.Int64N(int64(most-least))))
}

// strikes are the names of faults, each as often as its share.
var strikes = slices.Concat(
	slices.Repeat([]string{"crash", "mend"}, 4),
	slices.Repeat([]string{"kill", "one way", "packets", "clock", "lose disk"}, 2),
	slices.Repeat([]string{"move"}, 3),
	[]string{"stop", "halves", "one", "ring", "bridge", "slow", "slow link", "slow disk", "bad sync", "blackout"},
)

func (n *nemesis) strike() {
	what := strikes[n.rng.IntN(len(strikes))]
	victim := n.rng.IntN(len(n.c.nodes))
	switch what {
	case "crash":
		n.crash(victim)
	case "kill":
		n.end(victim, false, 100)
	case "stop":
		n.stop(victim)
	case "slow disk":
		wait := time.Duration(n.rng.IntN(3000)) * time.Millisecond
		n.struck(what, "of node %d by %v", victim, wait)
		n.c.nodes[victim].wait.Store(int64(wait))
	case "bad sync":
		if n.kind.badSync && n.c.nodes[victim].node != nil {
			n.struck(what, "of node %d", victim)
			n.c.nodes[victim].bad.Store(true)
		}
	case "clock":
		n.setClock(victim)
	case "lose disk":
		n.loseDisk()
	case "move":
		n.move()
	case "blackout":
		if n.rng.IntN(3) > 0 {
			return
		}
		n.struck(what, "")
		for i := range n.c.nodes {
			n.crash(i)
		}
	case "mend":
		n.struck(what, "")
		n.mend()
	default:
		n.breakLinks(what)
	}
}

// struck counts a fault and writes it into the schedule.
func (n *nemesis) struck(what, format string, args ...any) {
	n.h.count("fault " + what)
	n.note("%s "+format, append([]any{what}, args...)...)
}

// breakLinks is what happens to the network.
func (n *nemesis) breakLinks(what string) {
	hosts, net := n.hosts(), n.c.net
	switch what {
	case "one":
		n.struck(what, "alone: %v", hosts[0])
		net.Partition(hosts[:1], hosts[1:])
	case "halves":
		at := (len(hosts) + n.rng.IntN(2)) / 2
		n.struck(what, "%v | %v", hosts[:at], hosts[at:])
		net.Partition(hosts[:at], hosts[at:])
	case "ring":
		n.struck(what, "of majorities: %v", hosts)
		net.Ring(hosts...)
	case "bridge":
		n.struck(what, "%v between halves of %v", hosts[0], hosts[1:])
		net.Bridge(hosts...)
	case "one way":
		// To one host from some, or from one host to some.
		some, to := hosts[1:2+n.rng.IntN(3)], n.rng.IntN(2) == 0
		if to {
			n.struck(what, "not %v -> %v", some, hosts[0])
		} else {
			n.struck(what, "not %v -> %v", hosts[0], some)
		}
		for _, other := range some {
			if to {
				net.Cut(other, hosts[0])
			} else {
				net.Cut(hosts[0], other)
			}
		}
	case "slow":
		extra := time.Duration(20+n.rng.IntN(2000)) * time.Millisecond
		n.struck(what, "%v by %v", hosts[0], extra)
		net.Slow(hosts[0], extra)
	case "slow link":
		extra := time.Duration(20+n.rng.IntN(3000)) * time.Millisecond
		n.struck(what, "%v -> %v by %v", hosts[0], hosts[1], extra)
		net.SlowLink(hosts[0], hosts[1], extra)
	case "packets":
		d := simnet.Datagrams{Delay: time.Duration(1 + n.rng.Int64N(int64(lateMost)))}
		d.Loss, d.Twice, d.Late = n.rng.Float64()/2, n.rng.Float64()/2, n.rng.Float64()/2
		n.struck(what, "%+v", d)
		net.SetDatagrams(d)
	}
}

// setClock lets a clock jump.
func (n *nemesis) setClock(i int) {
	if !n.kind.clocks {
		return
	}
	s, by := n.c.nodes[i], n.eitherSide(clockStep)
	n.struck("clock", "of node %d set by %v", i, by)
	s.clock.off.Store(max(-int64(clockSpread), min(int64(clockSpread), s.clock.off.Load()+int64(by))))
}

// hosts returns all hosts, in random order.
func (n *nemesis) hosts() []string {
	var hosts []string
	for _, s := range n.c.nodes {
		hosts = append(hosts, s.host)
	}
	n.rng.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	return hosts
}

// crash loses the power: of what was not synced nothing is left, or some
// blocks are.
func (n *nemesis) crash(i int) {
	unsynced := 0
	if n.rng.IntN(3) == 0 {
		unsynced = n.rng.IntN(100)
	}
	n.end(i, true, unsynced)
}

// end ends the process of node i, and with it the host if it is to vanish; a
// share of what was not synced stays on the disk.
func (n *nemesis) end(i int, vanish bool, unsyncedPercent int) {
	s := n.c.nodes[i]
	if s.node == nil {
		return
	}
	n.back[i] = n.wayBack()
	away := time.Until(n.back[i]).Round(time.Millisecond)
	if vanish {
		n.struck("crash", "of node %d for %v, %d %% of what was not synced is left", i, away, unsyncedPercent)
		n.c.net.Crash(s.host)
	} else {
		n.struck("kill", "of node %d for %v", i, away)
		n.c.net.Kill(s.host)
	}
	rest := s.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsyncedPercent, RNG: n.rng})
	ghost := s.node
	s.over.Store(true)
	n.ghosts.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = ghost.Close(ctx) // its listeners failed; what counts is that it ends
	})
	n.c.swap(i, rest)
	s.node = nil
}

// stop ends node i as an operator does.
func (n *nemesis) stop(i int) {
	s := n.c.nodes[i]
	if s.node == nil || s.bad.Load() {
		return
	}
	n.back[i] = n.wayBack()
	n.struck("stop", "of node %d for %v", i, time.Until(n.back[i]).Round(time.Millisecond))
	n.c.closeNode(i, 50*time.Second)
	s.node = nil
}

// wayBack is when a node that goes down now returns: mostly soon.
func (n *nemesis) wayBack() time.Time {
	most := 3 * n.gap
	if n.rng.IntN(6) == 0 {
		most = 3 * time.Minute
	}
	return time.Now().Add(100*time.Millisecond + time.Duration(n.rng.Int64N(int64(most))))
}

// restart starts the nodes that are to be back by now.
func (n *nemesis) restart(now time.Time) {
	for _, i := range slices.Sorted(maps.Keys(n.back)) {
		if n.back[i].After(now) {
			continue
		}
		delete(n.back, i)
		n.note("node %d starts", i)
		err := n.c.boot(i)
		if err == nil {
			continue
		}
		n.c.nodes[i].node = nil
		if i == n.c.rots {
			n.struck("refused", "is the disk of node %d: %v", i, err) // as it may be, however the engine puts it
			n.c.net.Kill(n.c.nodes[i].host)
			n.replaceLost(i)
			continue
		}
		n.h.errorf("restart of node %d: %v", i, err)
	}
}

// mend heals network and disks; nodes that are down stay so.
func (n *nemesis) mend() {
	n.c.net.Heal()
	n.c.net.HealSlow()
	n.c.net.SetDatagrams(simnet.Datagrams{})
	for _, s := range n.c.nodes {
		s.wait.Store(0)
	}
}

// heal ends all faults and gives the cluster a little to find itself.
func (n *nemesis) heal() {
	n.mend()
	n.awaitBad()
	for now := time.Now(); len(n.back) > 0 && time.Since(now) < recoverAtEnd; time.Sleep(time.Second) {
		n.restart(now.Add(time.Hour)) // whose disk turns out to be damaged starts on an empty one
	}
	n.note("all is healed")
	n.awaitRecovered()
	n.settleRing()
	for i, s := range n.c.nodes {
		if s.node == nil {
			continue // told by restart, or it is no member
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := s.node.AwaitReady(ctx); err != nil {
			n.h.errorf("node %d is not ready a minute after all is healed: %v", i, err)
		}
		cancel()
	}
	time.Sleep(healTime)
	// A node that was alone in all its lives since its disk was put back has heard only
	// now what the others had seen of it.
	n.awaitRecovered()
}

// awaitRecovered waits until nobody is recovering; who has never lost a disk is not.
func (n *nemesis) awaitRecovered() {
	for began := time.Now(); ; time.Sleep(time.Second) {
		recovering := -1
		for i, s := range n.c.nodes {
			if s.node == nil {
				continue
			}
			if _, is := s.node.Recovering(); is {
				recovering = i
			}
		}
		switch {
		case recovering < 0:
			return
		case !n.kind.loses():
			n.h.errorf("node %d is recovering, and no disk has lost what was synced", recovering)
			return
		case time.Since(began) > recoverAtEnd:
			n.h.errorf("node %d is still recovering %v after all is healed", recovering, recoverAtEnd)
			return
		}
	}
}

// binds is which acknowledgements bind what is there in the end: those for two nodes,
// if one has lost its disk.
func (n *nemesis) binds() binding {
	if n.kind.loses() {
		return binding{W: 2}
	}
	return all
}

// awaitBad waits until the nodes that a failing sync must end have ended. An idle one
// syncs now and then.
func (n *nemesis) awaitBad() {
	for i, s := range n.c.nodes {
		if s.node == nil || !s.bad.Load() {
			continue
		}
		select {
		case <-s.node.Done():
			n.ended(i)
		case <-time.After(healTime):
			n.h.errorf("node %d goes on, and cannot sync", i)
		}
	}
}

// ended takes note of a node that has ended by itself.
func (n *nemesis) ended(i int) {
	s := n.c.nodes[i]
	err := s.node.Err()
	n.note("node %d has ended: %v", i, err)
	if !s.bad.Load() && (i != n.c.rots || !damaged(err)) {
		n.h.errorf("node %d has ended: %v", i, err)
	}
	n.crash(i)
}

// awaitFilled waits until all that damage took is here again. Keys that nobody asks for
// would not meet it.
func (n *nemesis) awaitFilled(keys []string) {
	if !n.kind.rot {
		return
	}
	for began := time.Now(); ; time.Sleep(5 * time.Second) {
		for _, key := range keys {
			_, _ = n.c.try(n.c.upNode(0), "VCTX.INSPECT", key) // of all owners; whatever comes of it
		}
		holes := ""
		for i, s := range n.c.nodes {
			if s.node == nil {
				continue
			}
			d, err := n.c.tryDamage(i)
			if err != nil || d["holes"] != "0" {
				holes += fmt.Sprintf("node %d: %v %v; ", i, d, err)
			}
		}
		if holes == "" {
			n.note("all is filled after %v", time.Since(began))
			return
		}
		if time.Since(began) > rotHealed {
			n.h.errorf("%v after all is healed there is damage: %s", rotHealed, holes)
			return
		}
	}
}

// diskLoss is a disk that is lost, in a run that has that. It is always that of one
// node, so nothing that another holds is lost with it.
type diskLoss struct {
	victim int // -1: none yet
	copy   *vfs.MemFS
	copied time.Time
	times  int
	last   time.Time
	id     nodeID // of the victim
}

// loseDisk empties the disk of the victim, puts an old copy of it back, or turns bits.
func (n *nemesis) loseDisk() {
	l := &n.loss
	if !n.kind.loses() {
		return
	}
	if l.victim < 0 {
		l.victim = n.rng.IntN(faultNodes)
	}
	if n.kind.rot {
		n.rot(l.victim)
		return
	}
	if l.times > 0 && time.Since(l.last) < lossGap {
		return
	}
	s := n.c.nodes[l.victim]
	if s.node == nil || n.leaves(l.victim) {
		l.copy = nil
		return
	}
	if _, recovering := s.node.Recovering(); recovering {
		return
	}
	if n.kind.restore && (l.copy == nil || time.Since(l.copied) > copyAge-time.Minute) {
		l.copy, l.copied = s.disk.CrashClone(vfs.CrashCloneCfg{}), time.Now()
		return
	}
	id, err := n.identity(l.victim)
	if err != nil {
		n.note("node %d does not say who it is: %v", l.victim, err)
		return
	}
	if n.kind.wipe && !n.isMember(l.victim, id) {
		n.note("nobody knows node %d yet", l.victim) // nor that it lost anything: it would be refused
		return
	}
	l.times, l.last, l.id = l.times+1, time.Now(), id
	n.end(l.victim, true, 0)
	if n.kind.restore {
		n.struck("old copy", "of the disk of node %d, of %v ago", l.victim, time.Since(l.copied))
		n.c.swap(l.victim, l.copy)
		l.copy = nil
		n.back[l.victim] = time.Now().Add(time.Duration(n.rng.Int64N(int64(30 * time.Second))))
		return
	}
	n.struck("wiped", "is the disk of node %d", l.victim)
	n.replaceLost(l.victim)
}

// replaceLost gives the victim an empty disk, which is to take the place of the lost one.
func (n *nemesis) replaceLost(i int) {
	s := n.c.nodes[i]
	n.c.swap(i, vfs.NewCrashableMem())
	before := s.with
	s.with = func(cfg *node.Config) {
		if before != nil {
			before(cfg)
		}
		// Later starts say it too: a crash may leave nothing of the first.
		cfg.ReplaceLost, cfg.Join = n.loss.id, n.othersOf(i)
	}
	n.back[i] = time.Now().Add(20*time.Second + time.Duration(n.rng.Int64N(int64(time.Minute))))
}

// rot turns bits of the disk of node i: of its tables while it runs, and while it is
// down also of its log.
func (n *nemesis) rot(i int) {
	l, s := &n.loss, n.c.nodes[i]
	if n.leaves(i) {
		return
	}
	if s.node != nil {
		id, err := n.identity(i)
		if err != nil || !n.isMember(i, id) {
			n.note("node %d does not say who it is, or nobody knows it yet: %v", i, err)
			return
		}
		l.id, n.c.rots = id, i
		if n.rng.IntN(2) == 0 {
			n.crash(i)
		}
	}
	if l.id == 0 {
		return
	}
	tables, logs := 0, 0
	var failed, err error
	if n.rng.IntN(3) > 0 {
		tables, failed = rotFiles(s.disk, ".sst", false, n.rng, 1+n.rng.IntN(10))
	}
	if s.node == nil && n.rng.IntN(2) == 0 {
		logs, err = rotFiles(s.disk, ".log", true, n.rng, 1+n.rng.IntN(3))
	}
	if err := errors.Join(failed, err); err != nil {
		n.h.errorf("rot of node %d: %v", i, err)
	}
	if tables+logs > 0 {
		n.struck("rot", "of node %d: %d bits of tables, %d of the log", i, tables, logs)
	}
}

// isMember reports whether a node other than i knows a member with the id of node i.
// One that joins is known to nobody else at first.
func (n *nemesis) isMember(i int, id nodeID) bool {
	if !n.kind.ring {
		return true
	}
	for k, s := range n.c.nodes {
		if k == i || s.node == nil {
			continue
		}
		if reply, err := n.c.try(k, "RING", "STATUS"); err == nil && strings.Contains(fmt.Sprint(fieldsOf(reply)["members"]), id.String()) {
			return true
		}
	}
	return false
}

// identity is the id of node i, if it can be asked.
func (n *nemesis) identity(i int) (id nodeID, err error) {
	text, err := n.c.try(i, "INFO", "redynamo")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(fmt.Sprint(text), "node_id:")
	word, _, _ := strings.Cut(rest, "\r\n")
	return node.ParseNodeID(word)
}

// othersOf are the gossip addresses of all other hosts.
func (n *nemesis) othersOf(i int) (list []string) {
	for k, s := range n.c.nodes {
		if k != i {
			list = append(list, s.host+":7946")
		}
	}
	return list
}

// swap gives node i another disk; a client may be looking at the disks.
func (c *simCluster) swap(i int, disk *vfs.MemFS) {
	c.disks.Lock()
	defer c.disks.Unlock()
	c.nodes[i].disk = disk
}

// upNode is a node that is up: another for each k, as far as there are.
func (c *simCluster) upNode(k int) int {
	var up []int
	for i, s := range c.nodes {
		if s.node != nil {
			up = append(up, i)
		}
	}
	if len(up) == 0 {
		return 0 // nobody answers, which is told by who asks
	}
	return up[k%len(up)]
}

// tally is one line about a run, for programs.
type tally struct {
	Seed     uint64  `json:"seed"`
	VirtualS float64 `json:"virtual_s"`
	Faults   int     `json:"faults"`
	Ops      int     `json:"ops"`
}

func logTally(t *testing.T, seed uint64, took time.Duration, counts map[string]int) tally {
	r := tally{Seed: seed, VirtualS: took.Seconds()}
	for what, n := range counts {
		switch {
		case what == "fault mend":
		case strings.HasPrefix(what, "fault "):
			r.Faults += n
		case strings.HasPrefix(what, "read"), strings.Contains(what, "write "), strings.Contains(what, "delete "):
			r.Ops += n
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("tally %s", b)
	return r
}
