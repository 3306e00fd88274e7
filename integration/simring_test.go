package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/integration/simnet"
)

// This file changes the ring of whole clusters in virtual time while clients read
// and write. Two things are judged at every moment: a read shows every write that
// was acknowledged before it was sent, or something that had seen it; and no
// operation fails twice in a row, the second time at another node. In the end all
// nodes have one ring, the owners of a key hold the same, and nobody holds what
// others own.
//
//	REDYNAMO_SIM_SEEDS=20  runs that many seeds of each
//	REDYNAMO_SIM_SEED=17   begins with that seed

const (
	ringKeys    = 200 // that are written once, before the ring changes
	ringShared  = 8   // that all clients read, write and delete
	ringClients = 8
	ringPause   = 400 * time.Millisecond // of a client between two operations, at most
	ringCalm    = 10 * time.Second       // of load before and after the change
	ringChange  = 150 * time.Second      // in which a change is over, once nothing is broken: lost messages count for a minute
	ringDrop    = 30 * time.Second       // after that, until nobody holds what others own
	ringPoll    = 20 * time.Millisecond
	ringListed  = 25 // a client lists all keys about once in so many operations
)

// ringSim is a cluster whose ring changes.
type ringSim struct {
	*simCluster
	h     *history
	doors doorList
	ends  atomic.Bool // the load is over
	loads sync.WaitGroup
	// lenient is held up while owners are known to differ: nodes that return have
	// hints to get, and the sides of a split cannot know of each other.
	lenient atomic.Bool
	waves   atomic.Int64 // counts changes of lenient
}

// doorList are the nodes that clients use.
type doorList struct {
	sync.Mutex
	open []int
}

func (d *doorList) set(i int, open bool) {
	d.Lock()
	defer d.Unlock()
	d.open = slices.DeleteFunc(d.open, func(o int) bool { return o == i })
	if open {
		d.open = append(d.open, i)
	}
}

// pick draws a door other than one, if there is one.
func (d *doorList) pick(rng *rand.Rand, not int) int {
	d.Lock()
	defer d.Unlock()
	others := slices.DeleteFunc(slices.Clone(d.open), func(o int) bool { return o == not })
	if len(others) == 0 {
		others = d.open
	}
	return others[rng.IntN(len(others))]
}

func (d *doorList) has(i int) bool {
	d.Lock()
	defer d.Unlock()
	return slices.Contains(d.open, i)
}

// changeRing runs f with a loaded cluster of so many members, and room for so many
// more nodes, and judges what is left. It takes its own seed, or those asked for.
func changeRing(t *testing.T, seed uint64, members, more int, f func(s *ringSim)) {
	t.Helper()
	if os.Getenv("REDYNAMO_SIM_SEEDS") == "" && os.Getenv("REDYNAMO_SIM_SEED") == "" {
		changeOnce(t, seed, members, more, f)
		return
	}
	from, seeds := simSeeds(t, 1)
	for seed := from; seed < from+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { changeOnce(t, uint64(seed), members, more, f) })
	}
}

func changeOnce(t *testing.T, seed uint64, members, more int, f func(s *ringSim)) {
	t.Helper()
	begin := time.Now()
	var took time.Duration
	var counts map[string]int
	bubble.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newRingSim(t, seed, members, more)
		defer s.close()
		defer s.endLoad() // also if f ends the test
		s.load()
		time.Sleep(ringCalm)
		f(s)
		time.Sleep(ringCalm)
		s.endLoad()
		s.judgeEnd()
		took, counts = time.Since(start), s.h.mu.counts
	})
	fmt.Fprintf(os.Stderr, "%s: seed %d: %v of virtual time took %v: %v\n", t.Name(), seed, took.Round(time.Second), time.Since(begin).Round(time.Millisecond), counts)
}

func newRingSim(t *testing.T, seed uint64, members, more int) *ringSim {
	c := newSimCluster(t, seed, members)
	s := &ringSim{simCluster: c, h: newHistory(t, seed)}
	for i := range more {
		c.nodes = append(c.nodes, &simNode{host: fmt.Sprintf("10.0.0.%d", members+i+1), disk: vfs.NewCrashableMem()})
	}
	for i := range members {
		s.doors.set(i, true)
	}
	return s
}

// load writes the old keys, and sets the clients going.
func (s *ringSim) load() {
	members := len(s.doors.open)
	for k := range ringKeys {
		s.must(k%members, "SET", fmt.Sprintf("k%d", k), fmt.Sprintf("v%d", k))
	}
	for id := range ringClients {
		s.loads.Go(func() { s.newClient(id).run() })
	}
}

func (s *ringSim) endLoad() {
	s.ends.Store(true)
	s.loads.Wait()
}

// ringClient is a session that keeps to open doors, and judges each of its reads.
type ringClient struct {
	*session
	s *ringSim
}

func (s *ringSim) newClient(id int) *ringClient {
	// Not newSession: it would draw from all nodes.
	return &ringClient{s: s, session: &session{c: s.simCluster, h: s.h, id: id, rng: rand.New(rand.NewPCG(s.seed, uint64(1000+id))),
		at: id % 3, views: map[string]view{}, pick: s.doors.pick, pace: paceOf(s.seed)}}
}

func (r *ringClient) run() {
	for !r.s.ends.Load() {
		time.Sleep(time.Duration(r.rng.Int64N(int64(ringPause))))
		if r.rng.IntN(5) == 0 || !r.s.doors.has(r.at) {
			r.leave()
		}
		if r.rng.IntN(ringListed) == 0 {
			r.listOld()
			continue
		}
		key := fmt.Sprintf("shared:%d", r.rng.IntN(ringShared))
		switch p := r.rng.IntN(100); {
		case p < 35:
			r.twice("GET", r.readOld)
		case p < 65:
			r.twice("VCTX.GET", func() error { return r.readShared(key) })
		case p < 94 || r.views[key].token == "":
			r.twice("VCTX.SET", func() error { return r.errOf(r.put(key)) })
		default:
			r.twice("VCTX.DEL", func() error { return r.errOf(r.remove(key)) })
		}
	}
	r.leave()
}

// errOf is why a write was not acknowledged, if it was not.
func (r *ringClient) errOf(f fate) error {
	if f == acked {
		return nil
	}
	return r.fault
}

// twice does something, and once more through another node if it fails.
func (r *ringClient) twice(what string, do func() error) {
	lenient, wave := r.s.lenient.Load(), r.s.waves.Load()
	first := r.at
	err := r.once(do)
	if err == nil {
		return
	}
	r.h.count("retried")
	if r.at == first {
		r.leave()
	}
	again := r.once(do)
	if again == nil || lenient || r.s.waves.Load() != wave {
		return
	}
	r.h.errorf("session %d, %s: %s failed at node %d (%v), and again at node %d (%v)", r.id, clockText(), what, first, err, r.at, again)
}

func (r *ringClient) once(do func() error) error {
	if !r.connected() {
		return replyError("no connection")
	}
	return do()
}

// readOld reads a key that was written once, long ago: nothing excuses its absence. In a
// split a side without an owner of it must say that it cannot tell.
func (r *ringClient) readOld() error {
	k := r.rng.IntN(ringKeys)
	where := r.where()
	got, err := r.cl.do("GET", fmt.Sprintf("k%d", k))
	if r.fateOf(err) != acked {
		return err
	}
	r.h.count("read")
	if got != fmt.Sprintf("v%d", k) {
		r.h.errorf("I1 lost: %s: a read of k%d shows %v", where, k, got)
	}
	return nil
}

// listOld lists the old keys, and counts all keys: each of the old ones is on all its
// owners, so none may be left out, whoever is asked for it. A listing that fails is
// repeated by clients, and says nothing.
func (r *ringClient) listOld() {
	lenient, wave := r.s.lenient.Load(), r.s.waves.Load()
	if !r.connected() {
		return
	}
	where := r.where()
	keys, err := r.cl.do("KEYS", "k*")
	if r.fateOf(err) != acked {
		return
	}
	count, err := r.cl.do("DBSIZE")
	if r.fateOf(err) != acked || lenient || r.s.waves.Load() != wave {
		return
	}
	r.h.count("listed")
	listed := map[string]bool{}
	for _, key := range keys.([]any) {
		listed[fmt.Sprint(key)] = true
	}
	for k := range ringKeys {
		if key := fmt.Sprintf("k%d", k); !listed[key] {
			r.h.errorf("I1 lost: %s: KEYS lists %d of %d old keys, and not %s", where, len(listed), ringKeys, key)
			break
		}
	}
	if count.(int64) < ringKeys {
		r.h.errorf("I1 lost: %s: DBSIZE is %d, and there are %d old keys", where, count, ringKeys)
	}
}

// readShared reads a shared key and judges what it shows.
func (r *ringClient) readShared(key string) error {
	lenient, wave := r.s.lenient.Load(), r.s.waves.Load()
	bound, where, o := r.h.soFar(), r.where(), r.op(judge.VGet, key)
	got, err := readMeta(r.cl, key)
	if r.fateOf(err) != acked {
		return err
	}
	r.sawAll(o, got)
	if !lenient && r.s.waves.Load() == wave {
		r.h.judge(key, where, got.versions, bound)
	}
	return nil
}

// bend lets the judge be lenient, or ends that.
func (s *ringSim) bend(on bool) {
	s.lenient.Store(on)
	s.waves.Add(1)
}

// join starts node i, which adds itself to the ring or, if staged, waits for an
// administrator.
func (s *ringSim) join(i int, staged bool) {
	s.t.Helper()
	s.nodes[i].with = func(cfg *node.Config) {
		cfg.Expect, cfg.StageJoin, cfg.Join = 0, staged, nil
		for k, other := range s.nodes {
			if k != i && s.doors.has(k) {
				cfg.Join = append(cfg.Join, other.host+":7946")
			}
		}
	}
	s.start(i)
}

// kill ends the process of node i, as a power failure does.
func (s *ringSim) kill(i int) {
	s.doors.set(i, false)
	n := s.nodes[i]
	s.net.Crash(n.host)
	s.swap(i, n.disk.CrashClone(vfs.CrashCloneCfg{}))
	n.over.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = n.node.Close(ctx) // behind the cut; whatever it still does is lost
	n.node = nil
}

// leaves stops node i for good.
func (s *ringSim) leaves(i int) {
	s.doors.set(i, false)
	s.closeNode(i, 20*time.Second)
	s.nodes[i].node = nil
}

// ring sends a RING command to node i and fails the test if it is refused.
func (s *ringSim) ring(i int, words ...string) map[string]any {
	s.t.Helper()
	return fieldsOf(s.must(i, append([]string{"RING"}, words...)...))
}

// apply has node i plan and apply a change.
func (s *ringSim) apply(i int, words ...string) {
	s.t.Helper()
	p := s.ring(i, append([]string{"PLAN"}, words...)...)
	if got := s.must(i, "RING", "APPLY", fmt.Sprint(p["plan"])); got != "OK" {
		s.t.Fatalf("seed %d: APPLY answers %v", s.seed, got)
	}
}

// fieldsOf reads a map that came as a list.
func fieldsOf(reply any) map[string]any {
	m := map[string]any{}
	list, _ := reply.([]any)
	for k := 0; k+1 < len(list); k += 2 {
		m[fmt.Sprint(list[k])] = list[k+1]
	}
	return m
}

// addr is the name of a node in RING commands.
func (s *ringSim) addr(i int) string { return s.nodes[i].host + ":6379" }

// awaitStaged waits until node i knows of newcomers.
func (s *ringSim) awaitStaged(i int, newcomers ...int) {
	s.t.Helper()
	s.within(30*time.Second, "newcomers are known", func() string {
		text := fmt.Sprint(s.ring(i, "STATUS")["staged"])
		for _, k := range newcomers {
			if !strings.Contains(text, s.addr(k)) {
				return fmt.Sprintf("node %d does not know node %d: %s", i, k, text)
			}
		}
		return ""
	})
}

// within waits until lacks answers "".
func (s *ringSim) within(limit time.Duration, what string, lacks func() string) time.Duration {
	s.t.Helper()
	start := time.Now()
	for {
		text := lacks()
		if text == "" {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			s.t.Fatalf("seed %d: after %v it is not so that %s: %s", s.seed, limit, what, text)
		}
		time.Sleep(ringPoll)
	}
}

// awaitRing waits until exactly some nodes are members by the word of each of them,
// and nothing is under way.
func (s *ringSim) awaitRing(limit time.Duration, members ...int) {
	s.t.Helper()
	took := s.within(limit, fmt.Sprintf("the ring is %v and at rest", members), func() string {
		epochs := map[string]bool{}
		for _, i := range members {
			reply, err := s.try(i, "RING", "STATUS")
			if err != nil {
				return fmt.Sprintf("node %d: %v", i, err)
			}
			st := fieldsOf(reply)
			list, _ := st["members"].([]any)
			if st["state"] != "stable" || len(list) != len(members) {
				return fmt.Sprintf("node %d: %d members, %v, waits for %v", i, len(list), st["change"], st["waits-for"])
			}
			for _, k := range members {
				if !strings.Contains(fmt.Sprint(list), s.addr(k)+" ") {
					return fmt.Sprintf("node %d: node %d is not in %v", i, k, list)
				}
			}
			epochs[fmt.Sprint(st["epoch"])] = true
		}
		if len(epochs) > 1 {
			return fmt.Sprintf("rings differ: %v", epochs)
		}
		return ""
	})
	s.t.Logf("seed %d: the ring of %v was at rest after %v", s.seed, members, took)
	for _, i := range members {
		s.awaitReady(i)
		s.doors.set(i, true)
	}
}

// awaitLeft waits until a removed node says that it may go.
func (s *ringSim) awaitLeft(i int) {
	s.t.Helper()
	s.within(ringChange, fmt.Sprintf("node %d may go", i), func() string {
		text := fmt.Sprint(s.must(i, "INFO", "redynamo"))
		if strings.Contains(text, "warning_left:") {
			return ""
		}
		return fmt.Sprint(s.ring(i, "STATUS"))
	})
}

// awaitMoving waits until the change, as node i sees it, has come so far that rows
// move, or is over.
func (s *ringSim) awaitMoving(i int) {
	s.t.Helper()
	s.within(ringChange, "rows move", func() string {
		if state := s.ring(i, "STATUS")["state"]; state == "announcing" || state == "stable" {
			return fmt.Sprint(state)
		}
		return ""
	})
}

// midway checks that node i sees the change under way: what broke it was in time.
func (s *ringSim) midway(i int) {
	s.t.Helper()
	if st := s.ring(i, "STATUS"); st["state"] != "moving" {
		s.h.errorf("node %d, while the change cannot go on: %v, waits for %v", i, st["state"], st["waits-for"])
	}
}

// judgeEnd checks the whole cluster once the load is over: keys at the doors, all
// copies of them, and that nobody has more than it owns.
func (s *ringSim) judgeEnd() {
	if s.t.Failed() {
		return
	}
	s.bend(false)
	s.home()
	at := s.doors.pick(rand.New(rand.NewPCG(s.seed, 1)), -1)
	cl, err := s.dial(at)
	if err != nil {
		s.t.Fatalf("seed %d: %v", s.seed, err)
	}
	defer cl.conn.Close()
	shared := s.h.keys()
	for _, key := range shared {
		got, err := readMeta(cl, key, "R", "3")
		if err != nil {
			s.h.errorf("VCTX.GET %s R 3, at the end: %v", key, err)
			continue
		}
		s.h.judge(key, "at the end", got.versions, all)
	}
	time.Sleep(5 * time.Second) // repairs run behind the answers
	keys := slices.Clone(shared)
	for k := range ringKeys {
		keys = append(keys, fmt.Sprintf("k%d", k))
	}
	for _, key := range keys {
		s.checkEqual(cl, key)
	}
	s.within(ringDrop, "nobody holds what others own", func() string { return s.strays(cl, keys) })
	if w, l := s.h.mu.counts["write acked"], s.h.mu.counts["listed"]; w < 100 || l == 0 {
		s.h.errorf("only %d writes were acknowledged, and keys were listed %d times: the load was no load", w, l)
	}
}

// strays names own rows of keys on disks of members that do not own them.
func (s *ringSim) strays(cl *simClient, keys []string) string {
	owners := map[string]string{}
	for _, key := range keys {
		reply, err := cl.do("RING", "OWNERS", key)
		if err != nil {
			return err.Error()
		}
		owners[key] = fmt.Sprint(reply)
	}
	for i, n := range s.nodes {
		if n.node == nil {
			continue
		}
		rows, err := readDisk(n.disk.CrashClone(vfs.CrashCloneCfg{}), keys)
		if err != nil && i != s.rots {
			return fmt.Sprintf("disk of node %d: %v", i, err)
		}
		for _, key := range keys {
			for _, row := range rows[key] {
				if row.For == 0 && !strings.Contains(owners[key], s.addr(i)+" ") {
					return fmt.Sprintf("node %d holds %s, which belongs to %s", i, key, owners[key])
				}
			}
		}
	}
	return ""
}

// first are the numbers of the first n nodes.
func first(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

// Nodes that join while others hand partitions over make them begin anew, again and
// again. No session that is given up so may hold up the others.
func TestAClusterWhoseNodesJoinOneAfterTheOtherIsSoonAtRestInVirtualTime(t *testing.T) {
	t.Parallel()
	from, seeds := simSeeds(t, 5)
	for seed := from; seed < from+seeds; seed++ {
		bubble.Test(t, func(t *testing.T) {
			s := newRingSim(t, uint64(seed), 1, 5)
			defer s.close()
			rng := rand.New(rand.NewPCG(uint64(seed), 9))
			for i := 1; i < 6; i++ {
				s.join(i, false)
				time.Sleep(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
			}
			s.awaitRing(15*time.Second, first(6)...)
		})
	}
}

func TestARingGrowsUnderLoadInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 1, 3, 2, func(s *ringSim) {
		s.join(3, false)
		s.join(4, false)
		s.awaitRing(ringChange, first(5)...)
	})
}

func TestARingGrowsFromFiveToEightUnderLoadInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 1, 5, 3, func(s *ringSim) {
		for i := 5; i < 8; i++ {
			s.join(i, true)
		}
		s.awaitStaged(0, 5, 6, 7)
		s.apply(0, "ADD", s.addr(5), s.addr(6), s.addr(7))
		s.awaitRing(2*ringChange, first(8)...)
	})
}

func TestARingShrinksUnderLoadInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 2, 5, 0, func(s *ringSim) {
		s.apply(1, "REMOVE", s.addr(3), s.addr(4))
		s.awaitRing(ringChange, first(3)...)
		for _, i := range []int{3, 4} {
			s.awaitLeft(i)
		}
		time.Sleep(ringCalm) // with clients at both
		for _, i := range []int{3, 4} {
			s.leaves(i)
		}
	})
}

// TestNodesThatHaveLeftServeThroughLaterChangesInVirtualTime keeps clients at two nodes
// that left, at first as their only doors, while the others change their ring without
// waiting for them.
func TestNodesThatHaveLeftServeThroughLaterChangesInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 7, 5, 2, func(s *ringSim) {
		s.apply(1, "REMOVE", s.addr(3), s.addr(4))
		s.awaitRing(ringChange, first(3)...)
		s.awaitLeft(3)
		s.awaitLeft(4)
		s.join(5, true)
		s.join(6, true)
		s.awaitStaged(0, 5, 6)
		for i := range 3 {
			s.doors.set(i, false)
		}
		time.Sleep(ringCalm)
		s.apply(0, "ADD", s.addr(5))
		s.awaitRing(ringChange, 0, 1, 2, 5)
		s.apply(0, "ADD", s.addr(6))
		s.awaitRing(ringChange, 0, 1, 2, 5, 6)
		s.apply(0, "REMOVE", s.addr(1))
		s.awaitRing(ringChange, 0, 2, 5, 6)
		s.awaitLeft(1)
		for _, i := range []int{1, 3, 4} {
			s.leaves(i)
		}
	})
}

func TestANodeIsReplacedUnderLoadInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 3, 5, 1, func(s *ringSim) {
		s.join(5, true)
		s.awaitStaged(0, 5)
		p := s.ring(0, "PLAN", "REPLACE", s.addr(4), s.addr(5))
		for _, n := range p["nodes"].([]any) {
			if n := fieldsOf(n); n["gains"] != "0" && n["after"] != n["gains"] {
				s.h.errorf("a replacement gives to a node that stays: %v", n)
			}
		}
		if got := s.must(0, "RING", "APPLY", fmt.Sprint(p["plan"])); got != "OK" {
			s.h.errorf("APPLY answers %v", got)
		}
		if got := s.must(0, "RING", "APPLY", fmt.Sprint(p["plan"])); got != "OK it is so already" {
			s.h.errorf("APPLY again answers %v", got)
		}
		s.awaitRing(ringChange, 0, 1, 2, 3, 5)
		s.awaitLeft(4)
		s.leaves(4)
	})
}

func TestADeadNodeIsForgottenAndItsOldDirectoryIsRefusedInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 4, 5, 0, func(s *ringSim) {
		if _, err := s.try(0, "RING", "FORGET", s.addr(4)); err == nil || !strings.HasPrefix(err.Error(), "UNSAFE") {
			s.h.errorf("a node that answers is forgotten: %v", err)
		}
		s.bend(true)
		s.kill(4)
		s.within(30*time.Second, "node 4 is seen down", func() string {
			if _, err := s.try(0, "RING", "FORGET", s.addr(4)); err != nil {
				return err.Error()
			}
			return ""
		})
		s.awaitRing(ringChange, first(4)...)
		s.bend(false)
		time.Sleep(20 * time.Second)
		s.slowLinks(4, 300*time.Millisecond) // it is long in hearing of it
		s.join(4, false)                     // on the old disk
		if tries, taken := s.writeAlone(4, time.Minute); taken > 0 || tries == 0 {
			s.h.errorf("a forgotten node took %d of %d writes before it knew", taken, tries)
		}
		s.slowLinks(4, 0)
		select {
		case <-s.nodes[4].node.Done():
		default:
			s.t.Fatalf("seed %d: a forgotten node goes on", s.seed)
		}
		if err := s.nodes[4].node.Err(); err == nil || !strings.Contains(err.Error(), "forgotten") && !strings.Contains(err.Error(), "as dead") {
			s.h.errorf("it ended with: %v", err)
		}
		s.kill(4)
		time.Sleep(10 * time.Second)
		s.swap(4, vfs.NewCrashableMem())
		s.join(4, false)
		s.awaitRing(ringChange, first(5)...)
	})
}

// slowLinks has all that passes between a node and the others come later by d.
func (s *ringSim) slowLinks(i int, d time.Duration) {
	for k, other := range s.nodes {
		if k != i {
			s.net.SlowLink(s.nodes[i].host, other.host, d)
			s.net.SlowLink(other.host, s.nodes[i].host, d)
		}
	}
}

// writeAlone asks a node for writes that no other is to have, until it ends or some time
// has passed, and counts those it was asked for and those it acknowledged.
func (s *ringSim) writeAlone(i int, most time.Duration) (tries, taken int) {
	for until := time.Now().Add(most); time.Now().Before(until); time.Sleep(time.Millisecond) {
		select {
		case <-s.nodes[i].node.Done():
			return tries, taken
		default:
		}
		cl, err := s.dial(i)
		if err != nil {
			continue
		}
		tries++
		if _, err := cl.do("VCTX.SET", fmt.Sprintf("late:%d", tries), "x", "*", "W", "1"); err == nil {
			taken++
		}
		_ = cl.conn.Close() // all was said
	}
	return tries, taken
}

// TestAKilledNodeDelaysAChangeAndUndoesNothingInVirtualTime kills who comes, who
// goes and who gives in the middle of a change, and lets each return.
func TestAKilledNodeDelaysAChangeAndUndoesNothingInVirtualTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		seed          uint64
		members, more int
		change        func(s *ringSim)
		victim        int
		left          []int // members in the end
	}{
		"joiner": {11, 4, 1, func(s *ringSim) { s.apply(0, "ADD", s.addr(4)) }, 4, []int{0, 1, 2, 3, 4}},
		"donor":  {12, 4, 1, func(s *ringSim) { s.apply(0, "ADD", s.addr(4)) }, 2, []int{0, 1, 2, 3, 4}},
		"leaver": {13, 5, 0, func(s *ringSim) { s.apply(0, "REMOVE", s.addr(4)) }, 4, []int{0, 1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			changeRing(t, c.seed, c.members, c.more, func(s *ringSim) {
				if c.more > 0 {
					s.join(c.members, true)
					s.awaitStaged(0, c.members)
				}
				s.bend(true)
				s.net.Slow(s.nodes[c.victim].host, 200*time.Millisecond) // for the change to last
				c.change(s)
				s.awaitMoving(0)
				s.kill(c.victim)
				s.net.Slow(s.nodes[c.victim].host, 0)
				time.Sleep(20 * time.Second)
				s.midway(0)
				s.start(c.victim)
				s.awaitRing(ringChange, c.left...)
				s.home()
				s.bend(false)
				if !slices.Contains(c.left, c.victim) {
					s.awaitLeft(c.victim)
					s.leaves(c.victim)
				}
			})
		})
	}
}

func TestAPartitionDuringAJoinDelaysItInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 5, 5, 1, func(s *ringSim) {
		s.join(5, true)
		s.awaitStaged(0, 5)
		s.bend(true)
		s.net.Slow(s.nodes[5].host, 200*time.Millisecond) // for the change to last
		s.apply(0, "ADD", s.addr(5))
		s.awaitMoving(0)
		s.split([]int{0, 1}, []int{2, 3, 4, 5})
		s.net.Slow(s.nodes[5].host, 0)
		time.Sleep(30 * time.Second)
		s.midway(0)
		s.midway(4)
		s.rejoin()
		s.awaitRing(ringChange, first(6)...)
		s.home()
		s.bend(false)
	})
}

// split cuts the links between some nodes and others.
func (s *ringSim) split(a, b []int) {
	hosts := func(list []int) (names []string) {
		for _, i := range list {
			names = append(names, s.nodes[i].host)
		}
		return names
	}
	s.net.Partition(hosts(a), hosts(b))
}

// rejoin mends the network, and gives the nodes time to notice.
func (s *ringSim) rejoin() {
	s.net.Heal()
	time.Sleep(healTime)
}

// home waits until no node keeps anything for another.
func (s *ringSim) home() {
	s.t.Helper()
	s.within(homeTime, "all hints are home", func() string {
		rows, _, err := s.hintRows()
		if err != nil || rows > 0 {
			return fmt.Sprintf("%d hints, %v", rows, err)
		}
		return ""
	})
}

func TestTwoAdministratorsOnTwoSidesOfASplitMeetInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 6, 5, 2, func(s *ringSim) {
		s.join(5, true)
		s.join(6, true)
		s.awaitStaged(0, 5, 6)
		s.awaitStaged(4, 5, 6)
		s.bend(true)
		s.split([]int{0, 1, 5}, []int{2, 3, 4, 6})
		time.Sleep(10 * time.Second)
		s.apply(0, "ADD", s.addr(5))
		s.apply(4, "ADD", s.addr(6))
		time.Sleep(10 * time.Second)
		for _, i := range []int{0, 4} {
			if st := s.ring(i, "STATUS"); st["state"] == "stable" {
				s.h.errorf("node %d has changed its ring behind the back of others: %v", i, st)
			}
		}
		s.rejoin()
		s.awaitRing(ringChange, first(7)...)
		s.home()
		s.bend(false)
	})
}

// TestALeaverIsNotTakenBackInVirtualTime asks for a node to be taken back while it
// leaves and when it has left, and starts it anew on its directory at both times, as if
// it were to join. Its disk is of before: what others have deleted since may be there.
func TestALeaverIsNotTakenBackInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 14, 4, 1, func(s *ringSim) {
		s.join(4, true)
		s.awaitStaged(0, 4)
		leaver := s.idOf(3)
		refused := func(when string, at int, words ...string) {
			t.Helper()
			_, err := s.try(at, append([]string{"RING", "PLAN"}, words...)...)
			if err == nil || !strings.Contains(err.Error(), "a removal is not undone") {
				s.h.errorf("%s: node %d plans %v: %v", when, at, words, err)
			}
		}
		refuse := func(when string, at ...int) {
			t.Helper()
			for _, i := range at {
				refused(when, i, "ADD", leaver)
				refused(when, i, "ADD", leaver, "FORCE")
				refused(when, i, "REPLACE", s.addr(2), leaver, "FORCE")
			}
		}
		s.bend(true)
		s.net.Slow(s.nodes[3].host, 200*time.Millisecond) // for the change to last
		s.apply(0, "REMOVE", s.addr(3))
		s.awaitMoving(0)
		refuse("it leaves", 0, 3)
		s.kill(3)
		s.net.Slow(s.nodes[3].host, 0)
		s.join(3, false) // on its disk
		s.awaitRing(ringChange, first(3)...)
		s.home()
		s.bend(false)
		s.awaitLeft(3)
		refuse("it has left", 0, 3)
		s.leaves(3)
		refuse("it has left and is stopped", 0)
		s.join(3, false) // before it has dropped anything
		s.awaitLeft(3)
		s.awaitRing(ringChange, first(3)...)
		refuse("it has left and was started again", 0, 3)
		// The others still change as if it were not there.
		s.apply(0, "ADD", s.addr(4))
		s.awaitRing(ringChange, 0, 1, 2, 4)
		s.awaitLeft(3)
		s.leaves(3)
	})
}

// TestAFounderThatIsKilledBeforeTheFirstRingIsForgottenInVirtualTime has a founder die for
// good while the others wait for its word on the first ring.
func TestAFounderThatIsKilledBeforeTheFirstRingIsForgottenInVirtualTime(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		c := &simCluster{t: t, seed: 1, tune: func(*node.Config) {}, net: simnet.New(simnet.Config{Seed: 1, Jitter: time.Millisecond})}
		for i := range 4 {
			c.nodes = append(c.nodes, &simNode{host: fmt.Sprintf("10.0.0.%d", i+1), disk: vfs.NewCrashableMem()})
		}
		defer c.close()
		for i := range c.nodes {
			c.start(i)
		}
		s := &ringSim{simCluster: c, h: newHistory(t, 1)}
		s.within(time.Minute, "a first ring is to come", func() string {
			st := s.ring(0, "STATUS")
			if st["nodes"] != "4" {
				return fmt.Sprint(st)
			}
			return ""
		})
		s.kill(3)
		time.Sleep(time.Minute)
		if _, err := s.try(0, "SET", "k", "v"); err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
			t.Fatalf("seed 1: without a founder's word node 0 serves (%v): it was killed too late", err)
		}
		if got := s.must(0, "RING", "FORGET", s.addr(3)); got != "OK" {
			t.Fatalf("seed 1: FORGET answers %v", got)
		}
		s.awaitRing(ringChange, 0, 1, 2)
		s.must(1, "SET", "k", "v")
		s.swap(3, vfs.NewCrashableMem())
		s.join(3, false)
		s.awaitRing(ringChange, 0, 1, 2, 3)
		if got := s.must(3, "GET", "k"); got != "v" {
			t.Errorf("seed 1: node 3 shows %v", got)
		}
	})
}
