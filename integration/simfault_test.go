package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// This file lets faults of all kinds rain on five whole nodes in virtual time
// while clients read and write, and has a history judge what is left. In some runs
// clocks differ, members come and go, or a disk is lost; see simnemesis_test.go.
//
//	REDYNAMO_SIM_SEEDS=200  runs that many seeds instead of a few
//	REDYNAMO_SIM_SEED=17    begins with that seed
//
// The judge looks twice. First through a door, at what reads of all three
// owners show once everything is healed and all hints are home, which they have
// homeTime for. Then at the disks of the stopped nodes, at the join of all their
// rows.

const (
	healTime      = lateMost + 5*time.Second // to notice that all is well again, once the last late packet has come
	homeTime      = time.Minute              // to deliver all hints after that; some wait out a pause
	faultNodes    = 5
	tightBudget   = 1 << 10 // of every fourth run: a few hints
	sharedClients = 6
	soleWriters   = 2
	soleKeys      = 10

	countingClients = 2
)

// pace is how dense a run is.
type pace struct {
	length time.Duration // of the rain
	keys   int           // shared ones
	pause  time.Duration // of a client between two commands, at most
	gap    time.Duration // between two faults, at most
	looks  int           // after one write of so many the disks are looked at
}

// paceOf makes every third run a hot one: a few keys that everybody is at, and
// faults that are not over when the next one comes.
func paceOf(seed uint64) pace {
	if seed%3 == 0 {
		return pace{length: 2 * time.Minute, keys: 3, pause: 50 * time.Millisecond, gap: 2 * time.Second, looks: 100}
	}
	return pace{length: 5 * time.Minute, keys: 10, pause: 400 * time.Millisecond, gap: 8 * time.Second, looks: 100}
}

func TestFaultsLoseNoAcknowledgedWriteInVirtualTime(t *testing.T) {
	t.Parallel()
	first, seeds := simSeeds(t, 8)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			fmt.Fprintf(os.Stderr, "faults: seed %d\n", seed) // a panic of a node would not say it
			begin := time.Now()
			var took time.Duration
			var counts map[string]int
			bubble.Test(t, func(t *testing.T) {
				start := time.Now()
				counts = rain(t, uint64(seed))
				took = time.Since(start)
			})
			t.Logf("seed %d: %v of virtual time took %v: %v", seed, took, time.Since(begin), counts)
			logTally(t, uint64(seed), took, counts)
		})
	}
}

// simSeeds is which seeds to run.
func simSeeds(t *testing.T, byDefault int) (first, seeds int) {
	t.Helper()
	first, seeds = envInt(t, "REDYNAMO_SIM_SEED", 1), envInt(t, "REDYNAMO_SIM_SEEDS", 0)
	switch {
	case seeds > 0:
		return first, seeds
	case os.Getenv("REDYNAMO_SIM_SEED") != "":
		return first, 1
	}
	return first, byDefault
}

func envInt(t *testing.T, name string, byDefault int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a positive number", name, text)
	}
	return n
}

// rain runs one seed and returns what was counted. Nothing in it may end the
// test early: the nodes would go on for ever.
func rain(t *testing.T, seed uint64) map[string]int {
	kind := faultKindOf(seed)
	c := newTunedSimCluster(t, seed, faultNodes, func(cfg *node.Config) {
		if seed%4 == 1 {
			cfg.HintBudget = tightBudget
		}
	})
	h := newHistoryOf(t, seed, judge.Options{OneClock: !kind.clocks})
	n := newNemesis(c, h, kind, 0x6e656d)
	n.gap = paceOf(seed).gap
	until := time.Now().Add(paceOf(seed).length)
	var clients sync.WaitGroup
	for id := range sharedClients {
		clients.Go(func() { n.newSession(id).share(until) })
	}
	for i := range soleWriters {
		clients.Go(func() { n.newSession(sharedClients + i).writeAlone(until) })
	}
	counted := newCounters()
	for i := range countingClients {
		clients.Go(func() { n.newSession(sharedClients+soleWriters+i).countOn(counted, until) })
	}
	n.run(until)
	clients.Wait()
	n.heal()
	n.awaitFilled(append(h.keys(), counted.keys()...))
	c.checkServing()
	c.awaitHome(h)
	c.crossCheck(h, "all hints home")
	keys := append(h.keys(), counted.keys()...)
	shownAtDoors := c.readAll(h, keys)
	n.checkStrays(h.keys())
	c.closeInTime()
	n.ghosts.Wait()
	time.Sleep(time.Minute) // memberlist's probes sit out their timeouts

	rows, bound := c.openDisks(h, keys), n.binds()
	for _, key := range counted.keys() {
		counted.judge(h, key, "at the doors", shownAtDoors[key])
		counted.judge(h, key, "on all disks", rows.join(key, -1))
	}
	for _, key := range h.keys() {
		h.judge(key, "at the doors", shownAtDoors[key], bound)
		h.judge(key, "on all disks", rows.join(key, -1), bound)
	}
	if w := h.mu.counts["write acked"]; w < 100 {
		h.errorf("only %d writes were acknowledged: the load was no load", w)
	}
	return h.mu.counts
}

// closeNode stops a node in order. All that it does has a deadline, so a node
// that needs longer than most is stuck.
func (c *simCluster) closeNode(i int, most time.Duration) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c.nodes[i].over.Store(true)
	if err := c.nodes[i].node.Close(ctx); err != nil {
		c.t.Errorf("seed %d: close node %d: %v", c.seed, i, err)
	}
	if took := time.Since(start); took > most {
		c.t.Errorf("seed %d: closing node %d took %v", c.seed, i, took)
	}
}

func (c *simCluster) closeInTime() {
	var wg sync.WaitGroup
	for i, s := range c.nodes {
		if s.node != nil {
			wg.Go(func() { c.closeNode(i, 10*time.Second) })
		}
	}
	wg.Wait()
}

// checkServing lets every node write and read with all owners: a node that
// cannot, healTime after everything is healed, is stuck.
func (c *simCluster) checkServing() {
	for i, s := range c.nodes {
		if s.node == nil {
			continue
		}
		cl, err := c.dial(i)
		if err != nil {
			c.t.Errorf("seed %d: dial node %d: %v", c.seed, i, err)
			continue
		}
		for k := range 20 {
			key := fmt.Sprintf("probe:%d", k)
			if _, err := cl.do("VCTX.SET", key, fmt.Sprint(i), "*", "W", "3"); err != nil {
				c.t.Errorf("seed %d: node %d, all healed: VCTX.SET %s W 3: %v", c.seed, i, key, err)
			}
			if _, err := cl.do("VCTX.GET", key, "R", "3"); err != nil {
				c.t.Errorf("seed %d: node %d, all healed: VCTX.GET %s R 3: %v", c.seed, i, key, err)
			}
		}
		_ = cl.conn.Close() // all was said
	}
}

// awaitHome waits until no node keeps anything for another, and notes how much
// was brought home during the run.
func (c *simCluster) awaitHome(h *history) {
	start := time.Now()
	for {
		rows, delivered, err := c.hintRows()
		if err == nil && rows == 0 {
			h.mu.Lock()
			h.mu.counts["hints home, of the last lives"] = int(delivered)
			h.mu.Unlock()
			return
		}
		if time.Since(start) > homeTime {
			h.errorf("%d hints are not delivered %v after all is healed: %v", rows, healTime+homeTime, err)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// hintRows sums what all nodes say of their hints.
func (c *simCluster) hintRows() (rows, delivered int64, err error) {
	for i, s := range c.nodes {
		if s.node == nil {
			continue
		}
		cl, err := c.dial(i)
		if err != nil {
			return 0, 0, err
		}
		reply, err := cl.do("HINTS")
		_ = cl.conn.Close() // all was said
		if err != nil {
			return 0, 0, err
		}
		list, _ := reply.([]any)
		for _, entry := range list {
			fields := entry.([]any)
			for k := 0; k < len(fields); k += 2 {
				n, _ := strconv.ParseInt(fields[k+1].(string), 10, 64) // only meaningful for numbers
				switch fields[k] {
				case "rows":
					rows += n
				case "delivered-rows":
					delivered += n
				}
			}
		}
	}
	return rows, delivered, nil
}

// readAll reads each of these keys twice from all its owners, which repairs the stale
// ones, checks that they agree then, and returns what was shown.
func (c *simCluster) readAll(h *history, keys []string) map[string][]shown {
	final := map[string][]shown{}
	for pass := range 2 {
		cl, err := c.dial(c.upNode(int(c.seed) + pass))
		if err != nil {
			h.errorf("dial, all healed: %v", err)
			return final
		}
		for _, key := range keys {
			got, err := readMeta(cl, key, "R", "3")
			if err != nil {
				h.errorf("VCTX.GET %s R 3, all healed: %v", key, err)
				continue
			}
			if got.fallback {
				h.errorf("VCTX.GET %s R 3, all healed: a fallback answered", key)
			}
			final[key] = got.versions
		}
		time.Sleep(6 * time.Second) // repairs run behind the answers
		if pass == 1 {
			for _, key := range keys {
				c.checkEqual(cl, key)
			}
		}
		_ = cl.conn.Close() // all was said
	}
	return final
}

// vctxReply is the reply to VCTX.GET META.
type vctxReply struct {
	token    string
	versions []shown
	fallback bool
}

func readMeta(cl *simClient, key string, more ...string) (r vctxReply, err error) {
	reply, err := cl.do(append([]string{"VCTX.GET", key, "META"}, more...)...)
	if err != nil {
		return r, err
	}
	list := reply.([]any)
	r.token = list[0].(string)
	for _, entry := range list[1].([]any) {
		fields := entry.([]any)
		r.versions = append(r.versions, shown{Value: fields[0].(string), Dot: fields[1].(string)})
		r.fallback = r.fallback || fields[5].(int64) == 1
	}
	return r, nil
}

// diskRows are rows of keys on the disks of the nodes.
type diskRows []map[string][]replica.Row

// openDisks reads the disks of nodes that are stopped, or as a crash of all
// nodes at this moment would leave them.
func (c *simCluster) openDisks(h *history, keys []string) diskRows {
	c.disks.Lock()
	rest := make([]*vfs.MemFS, len(c.nodes))
	for i, s := range c.nodes { // all of one moment: reading takes time
		rest[i] = s.disk.CrashClone(vfs.CrashCloneCfg{})
	}
	c.disks.Unlock()
	rows := make(diskRows, len(rest))
	for i, disk := range rest {
		var err error
		if rows[i], err = readDisk(disk, keys); err != nil && i != c.rots {
			h.errorf("disk of node %d: %v", i, err)
		}
	}
	return rows
}

// damaged reports whether an error says that something cannot be read.
func damaged(err error) bool {
	return errors.Is(err, storage.ErrCorrupt) || errors.Is(err, version.ErrCorrupt)
}

// readDisk reads the rows of some keys. Those that are damaged are left out, and told.
func readDisk(disk vfs.FS, keys []string) (map[string][]replica.Row, error) {
	s, err := storage.Open(storage.Config{FS: disk, Dir: "/data/store", MemTableBytes: 256 << 10, BlockCacheBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	s.Start()
	r, err := replica.New(replica.Config{Actor: 1, Store: s})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	found := map[string][]replica.Row{}
	var failed error
	for _, key := range keys {
		found[key], err = r.Rows([]byte(key))
		failed = errors.Join(failed, err)
	}
	return found, errors.Join(failed, r.Close(), s.Close())
}

// join returns what is live in the join of all rows of a key but those of one
// node; -1 leaves nobody out.
func (d diskRows) join(key string, without int) []shown {
	var joined version.Record
	for i := range d {
		for _, row := range d[i][key] {
			if i != without {
				joined = version.Merge(joined, row.Record)
			}
		}
	}
	return showRecord(joined)
}

// crossCheck looks at the disks in the middle of it all. A write that is
// acknowledged by now is on W disks, so any W-1 of them may burn. If one has burnt
// already, what was on two of them must be on one.
func (c *simCluster) crossCheck(h *history, when string) {
	h.count("cross-check")
	one, keys := h.soFar(), h.keys()
	two := one
	two.W = 2
	rows := c.openDisks(h, keys)
	for _, key := range keys {
		if c.burns {
			h.judge(key, "on all disks, "+when, rows.join(key, -1), two)
			continue
		}
		h.judge(key, "on all disks, "+when, rows.join(key, -1), one)
		for i := range c.nodes {
			h.judge(key, fmt.Sprintf("on all disks but that of node %d, %s", i, when), rows.join(key, i), two)
		}
	}
}

func showRecord(rec version.Record) (live []shown) {
	for _, v := range rec.Live(0) {
		live = append(live, shown{Value: string(v.Value), Dot: dotText(v.Dot)})
	}
	return live
}

// session is a client with one connection, which it moves to the next node
// after an error and now and then anyway.
type session struct {
	c     *simCluster
	h     *history
	id    int
	rng   *rand.Rand
	at    int
	cl    *simClient
	conns int // that it has had
	views map[string]view
	sent  int
	pick  func(rng *rand.Rand, not int) int // draws the next node; nil draws from all
	fault error                             // of the last operation that failed
	pace  pace
	began time.Time     // of the run, and
	epoch time.Duration // for which it stays with some keys, if it leaves keys behind
}

// view is what a session holds of a key: a token, and what it stands for.
type view struct{ token string }

func newSession(c *simCluster, h *history, id int) *session {
	return &session{c: c, h: h, id: id, rng: rand.New(rand.NewPCG(c.seed, uint64(1000+id))), at: id % len(c.nodes), views: map[string]view{}, pace: paceOf(c.seed)}
}

// leave gives the connection up for one to another node.
func (s *session) leave() {
	if s.cl != nil {
		_ = s.cl.conn.Close() // broken, in doubt or of no more use
	}
	s.cl = nil
	if s.pick != nil {
		s.at = s.pick(s.rng, s.at)
		return
	}
	s.at = s.rng.IntN(len(s.c.nodes))
}

func (s *session) pause() {
	time.Sleep(time.Duration(s.rng.Int64N(int64(s.pace.pause))))
	if s.rng.IntN(20) == 0 {
		s.leave()
	}
}

// connected reports whether there is a connection now.
func (s *session) connected() bool {
	if s.cl != nil {
		return true
	}
	cl, err := s.c.dial(s.at)
	if err != nil {
		s.leave()
		return false
	}
	cl.patience = 3 * time.Second
	s.cl = cl
	s.conns++
	return true
}

// fateOf says what an error leaves open, and moves on.
func (s *session) fateOf(err error) fate {
	if err == nil {
		return acked
	}
	s.fault = err
	s.leave()
	var said replyError
	if !errors.As(err, &said) {
		return unknown
	}
	word, _, _ := strings.Cut(string(said), " ")
	s.h.count("reply " + word)
	switch {
	case word != "BADCTX" && judge.Refused(string(said)): // every token is one that was given out
		return denied
	case word == "UNCERTAIN", word == "TIMEOUT":
	default:
		s.h.errorf("session %d: unexpected error: %s", s.id, said)
	}
	return unknown
}

// share works on the keys that all sessions share.
func (s *session) share(until time.Time) {
	for time.Now().Before(until) {
		s.pause()
		if !s.connected() {
			continue
		}
		key := fmt.Sprintf("shared:%d", s.rng.IntN(s.pace.keys))
		switch p := s.rng.IntN(100); {
		case p < 45:
			s.read(key)
		case p < 85:
			s.put(key)
		case p < 90:
			delete(s.views, key) // a client that knows nothing
			s.put(key)
		default:
			s.removeTwice(key)
		}
	}
	s.leave()
}

func (s *session) where() string {
	return fmt.Sprintf("session %d at node %d, %s", s.id, s.at, clockText())
}

func clockText() string { return time.Now().Format("04:05.000000") }

func (s *session) read(key string) {
	var more []string
	if s.rng.IntN(4) == 0 {
		more = append(more, "R", strconv.Itoa(1+s.rng.IntN(3)))
	}
	v := s.views[key]
	covering := v.token != "" && s.rng.IntN(4) == 0
	if covering {
		more = append(more, "MIN", v.token)
	}
	o := s.op(judge.VGet, key)
	if covering {
		o.Min = tokenName(v.token)
	}
	got, err := readMeta(s.cl, key, more...)
	if s.fateOf(err) != acked {
		s.h.count("read failed")
		return
	}
	s.sawAll(o, got)
}

// op is an operation that begins now.
func (s *session) op(kind, key string) judge.Op {
	return judge.Op{Kind: kind, Session: strconv.Itoa(s.id), Key: key, Node: fmt.Sprintf("node %d, connection %d", s.at, s.conns), BeginUS: time.Now().UnixMicro()}
}

// sawAll notes what a read showed.
func (s *session) sawAll(o judge.Op, got vctxReply) {
	s.h.count("read")
	o.Values, o.Next = got.versions, tokenName(got.token)
	s.h.saw(o)
	s.views[o.Key] = view{token: got.token}
}

// quorum draws W, which is mostly the default, and the words that ask for it.
func (s *session) quorum() (nodes int, words []string) {
	if s.rng.IntN(4) > 0 {
		return 2, nil
	}
	nodes = 1 + s.rng.IntN(3)
	return nodes, []string{"W", strconv.Itoa(nodes)}
}

func (s *session) value() string {
	s.sent++
	return fmt.Sprintf("%d-%d", s.id, s.sent)
}

func (s *session) put(key string) fate {
	v := s.views[key]
	nodes, words := s.quorum()
	o := s.op(judge.VSet, key)
	o.Value, o.Token, o.W = s.value(), judge.With(tokenName(v.token)), nodes
	i := s.h.issue(o)
	reply, err := s.cl.do(append([]string{"VCTX.SET", key, o.Value, v.token}, words...)...)
	f, next := s.settle(i, reply, err)
	if f == acked {
		s.views[key] = view{token: next}
		if s.rng.IntN(s.pace.looks) == 0 {
			s.c.crossCheck(s.h, fmt.Sprintf("right after the write of %q to %s", o.Value, key))
		}
	}
	return f
}

// settle notes what came of a write or delete, and returns the token that it gave.
func (s *session) settle(i issued, reply any, err error) (f fate, next string) {
	if list, versioned := reply.([]any); versioned {
		next = list[0].(string)
	}
	f = s.fateOf(err)
	s.h.settle(i, f, tokenName(next), err)
	return f, next
}

// removeTwice deletes and, if the outcome is unknown and now and then anyway,
// deletes again, as clients do. The second delete may find the first one's work
// where that got no further, and must not take it for done.
func (s *session) removeTwice(key string) {
	if s.views[key].token == "" {
		return
	}
	first := s.remove(key)
	if (first == unknown || s.rng.IntN(2) == 0) && s.connected() {
		if again := s.remove(key); first == unknown && again == acked {
			s.c.crossCheck(s.h, "right after a delete was repeated on "+key)
		}
	}
}

func (s *session) remove(key string) fate {
	v := s.views[key]
	nodes, words := s.quorum()
	o := s.op(judge.VDel, key)
	o.Token, o.W = judge.With(tokenName(v.token)), nodes
	i := s.h.issue(o)
	reply, err := s.cl.do(append([]string{"VCTX.DEL", key, v.token}, words...)...)
	f, next := s.settle(i, reply, err)
	if f == acked && s.rng.IntN(2) == 0 {
		s.views[key] = view{token: next}
	}
	return f
}

// writeAlone sets keys that nobody else writes.
func (s *session) writeAlone(until time.Time) {
	for time.Now().Before(until) {
		s.pause()
		if s.connected() {
			s.plainSet(fmt.Sprintf("sole:%d:%d", s.id, s.rng.IntN(soleKeys)))
		}
	}
	s.leave()
}

// plainNodes is the W of plain writes.
const plainNodes = 2

func (s *session) plainSet(key string) {
	o := s.op(judge.Set, key)
	o.Value, o.W = s.value(), plainNodes
	i := s.h.issue(o)
	reply, err := s.cl.do("SET", key, o.Value)
	s.settle(i, reply, err)
}
