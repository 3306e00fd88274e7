package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/integration/simnet"
	"github.com/redynamo/redynamo/membership/ring"
)

// memStore is a disk: it outlives the node.
type memStore struct {
	mu    sync.Mutex
	blob  []byte
	saves int
	fail  error

	company bool
	blobs   [][]byte // all that was saved
	untrue  bool     // a state with other members was saved, and company was not noted
}

func (s *memStore) Company() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.company
}

func (s *memStore) NoteCompany(company bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.company = company
	return nil
}

func (s *memStore) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blob, nil
}

func (s *memStore) Save(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.blob = append([]byte(nil), b...)
	s.saves++
	s.blobs = append(s.blobs, s.blob)
	if saved, err := decodeState(b); err != nil || saved.members() > 1 && !s.company {
		s.untrue = true
	}
	return nil
}

// saved is how often something was saved.
func (s *memStore) saved() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saves
}

// world is a network with nodes on it.
type world struct {
	t     *testing.T
	net   *simnet.Network
	rnd   *rand.Rand
	seed  uint64
	log   *logCounter
	nodes []*testNode
}

// testNode is one node; its config and store last from run to run.
type testNode struct {
	w      *world
	cfg    Config
	store  *memStore
	host   string
	m      *Membership
	cancel context.CancelFunc
	done   chan error
}

func newWorld(t *testing.T) *world {
	seed := uint64(time.Now().UnixNano()) // the bubble's clock: see reseed
	seed ^= rand.Uint64()
	t.Logf("seed %d", seed)
	w := &world{
		t: t, net: simnet.New(simnet.Config{Seed: seed, Jitter: time.Millisecond, Loss: 0.01}),
		rnd: rand.New(rand.NewPCG(seed, 2)), seed: seed, log: &logCounter{counts: map[string]int{}, levels: map[string]int{}},
	}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.stop()
		}
		// Memberlist's probes sit out their timeouts after its shutdown. What
		// still runs then is a leak, and the bubble reports it.
		time.Sleep(15 * time.Second)
	})
	return w
}

// add makes a node that is not yet started. Seeds are numbers of nodes.
func (w *world) add(expect int, seeds ...int) *testNode {
	i := len(w.nodes)
	n := &testNode{w: w, store: &memStore{}, host: hostOf(i)}
	rnd := rand.New(rand.NewPCG(w.seed, uint64(100+i)))
	n.cfg = Config{
		ID: ring.NodeID(rnd.Uint64() | 1), Zone: fmt.Sprintf("z%d", i%3), Expect: expect, Params: ring.Params{Units: 64, N: 3},
		Endpoints: Endpoints{Plain: uint16(7000 + i), Peer: 7379}, Store: n.store, Rand: rnd.Uint64,
		Resolve: w.net.Resolve, Logger: slog.New(w.log),
	}
	for _, s := range seeds {
		n.cfg.Join = append(n.cfg.Join, hostOf(s)+":7946")
	}
	w.nodes = append(w.nodes, n)
	return n
}

func hostOf(i int) string { return fmt.Sprintf("10.0.0.%d", i+1) }

func (n *testNode) start() {
	n.w.t.Helper()
	transport, err := n.w.net.Transport(n.host, 7946)
	if err != nil {
		n.w.t.Fatal(err)
	}
	cfg := n.cfg
	cfg.Transport = transport
	if n.m, err = New(cfg); err != nil {
		n.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	go func() { n.done <- n.m.Run(ctx) }()
}

// stop ends a node in order.
func (n *testNode) stop() {
	if n.cancel == nil {
		return
	}
	n.cancel()
	if err := <-n.done; err != nil {
		n.w.t.Errorf("node %s: %v", n.host, err)
	}
	n.cancel = nil
}

// crash cuts a node off and then ends it, so that nobody is told.
func (n *testNode) crash() {
	n.w.net.Crash(n.host)
	n.stop()
	n.w.net.Start(n.host)
}

// within waits until a condition holds.
func (w *world) within(d time.Duration, what string, holds func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !holds() {
		if time.Since(start) > d {
			for _, n := range w.nodes {
				if n.m != nil {
					v := n.m.View()
					w.t.Logf("%s %v: cluster %x established %v ready %v records %d alive %d",
						n.host, n.cfg.ID, v.ClusterID[:4], v.Established, v.Ready, len(v.Records), aliveIn(v))
				}
			}
			w.t.Fatalf("seed %d: not within %v: %s", w.seed, d, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(start)
}

func aliveIn(v *View) (n int) {
	for _, info := range v.Nodes {
		if info.Alive {
			n++
		}
	}
	return n
}

// united reports whether nodes are ready, agree on everything and see each
// other alive.
func united(nodes ...*testNode) bool {
	first := nodes[0].m.View()
	for _, n := range nodes {
		v := n.m.View()
		if !v.Ready || v.Constants != first.Constants || v.Ring.Epoch() != first.Ring.Epoch() ||
			len(v.Ring.Members()) != len(nodes) || aliveIn(v) != len(nodes) {
			return false
		}
	}
	return true
}

// conflicts counts how often one id was seen at two addresses.
func (w *world) conflicts() (n uint64) {
	for _, o := range w.nodes {
		n += o.m.metrics.claims.Get()
	}
	return n
}

// logCounter counts log messages.
type logCounter struct {
	mu     sync.Mutex
	counts map[string]int
	levels map[string]int
}

func (l *logCounter) Enabled(context.Context, slog.Level) bool { return true }
func (l *logCounter) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logCounter) WithGroup(string) slog.Handler            { return l }

func (l *logCounter) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[r.Message]++
	l.levels[r.Level.String()]++
	return nil
}

// total counts the lines of each level.
func (l *logCounter) total() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.levels)
}

func (l *logCounter) count(msg string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[msg]
}

func TestFiveNodesThatListEachOtherFormOneCluster(t *testing.T) {
	for _, fast := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 5 {
				w.add(5, 0, 1, 2, 3, 4).cfg.Fast = fast
			}
			for i, n := range w.nodes {
				n.start()
				if i == 2 {
					time.Sleep(700 * time.Millisecond)
				}
			}
			limit := 15 * time.Second
			if fast {
				limit = 3 * time.Second
			}
			took := w.within(limit, "one cluster", func() bool { return united(w.nodes...) })
			t.Logf("fast %v: formed in %v", fast, took)
		})
	}
}

func TestNobodyIsReadyBeforeTheExpectedMembersJoined(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			w.add(5, 0, 1, 2, 3, 4)
		}
		for _, n := range w.nodes[:4] {
			n.start()
		}
		time.Sleep(2 * time.Minute)
		for _, n := range w.nodes[:4] {
			if v := n.m.View(); v.Established || v.Ready || v.Ring != nil {
				t.Errorf("%s: established %v ready %v with one member missing", n.host, v.Established, v.Ready)
			}
		}
		w.nodes[4].start()
		w.within(15*time.Second, "one cluster", func() bool { return united(w.nodes...) })
	})
}

func TestFiveNodesFormOneClusterByASingleSeed(t *testing.T) {
	for name, seedHasJoin := range map[string]bool{"founder": false, "seed lists itself": true} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for i := range 5 {
					if i == 0 && !seedHasJoin {
						w.add(5)
						continue
					}
					w.add(5, 0)
				}
				for _, n := range w.nodes[1:] {
					n.start()
				}
				time.Sleep(3 * time.Second)
				w.nodes[0].start()
				w.within(20*time.Second, "one cluster", func() bool { return united(w.nodes...) })
			})
		})
	}
}

func TestTheClustersConstantsWinOverFlags(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0)
		w.add(0, 0).cfg.Params = ring.Params{Units: 256, N: 5}
		w.nodes[0].start()
		w.nodes[1].start()
		w.within(10*time.Second, "one cluster", func() bool { return united(w.nodes...) })
		if v := w.nodes[1].m.View(); v.Units != 64 || v.N != 3 {
			t.Errorf("units %d, n %d", v.Units, v.N)
		}
		if w.log.count("the cluster was created with other constants, which stay in force") != 1 {
			t.Error("no warning")
		}
	})
}

func TestSeedThatNamesOnlyThisNodeIsNone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0, 0)
		w.nodes[0].start()
		w.within(5*time.Second, "a cluster of one", func() bool { return united(w.nodes[0]) })
	})
}

func TestSeedNamesAreResolvedAtEachTry(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0)
		w.add(0).cfg.Join = []string{"seed.example:7946"}
		w.net.Name("seed.example", "10.0.7.7")
		w.nodes[0].start()
		w.nodes[1].start()
		time.Sleep(20 * time.Second)
		if w.nodes[1].m.View().Established {
			t.Error("established without having reached anybody")
		}
		w.net.Name("seed.example", hostOf(0))
		w.within(10*time.Second, "one cluster", func() bool { return united(w.nodes...) })
	})
}

func TestThirtyNodesFormOneCluster(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 30 {
			w.add(30, 0, 1, 2)
		}
		for _, n := range w.nodes {
			n.start()
			time.Sleep(20 * time.Millisecond)
		}
		took := w.within(30*time.Second, "one cluster", func() bool { return united(w.nodes...) })
		t.Logf("formed in %v", took)
	})
}

func TestSplitOfAMinuteHealsByRejoining(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			w.add(5, 0, 1, 2, 3, 4)
		}
		for _, n := range w.nodes {
			n.start()
		}
		w.within(15*time.Second, "one cluster", func() bool { return united(w.nodes...) })
		epoch := w.nodes[0].m.View().Ring.Epoch()
		w.net.Partition([]string{hostOf(0), hostOf(1)}, []string{hostOf(2), hostOf(3), hostOf(4)})
		time.Sleep(time.Minute)
		if a, b := aliveIn(w.nodes[0].m.View()), aliveIn(w.nodes[4].m.View()); a != 2 || b != 3 {
			t.Errorf("in the split %d and %d seen alive, want 2 and 3", a, b)
		}
		for _, n := range w.nodes {
			v := n.m.View()
			if !v.Ready || v.Ring.Epoch() != epoch {
				t.Errorf("%s: a failure changed the ring", n.host)
			}
			if info := v.Nodes[w.nodes[0].cfg.ID]; info.Endpoints.Plain != 7000 || info.Endpoints.Host != hostOf(0) {
				t.Errorf("%s: endpoints of a member forgotten: %+v", n.host, info)
			}
		}
		w.net.Heal()
		w.within(20*time.Second, "healed", func() bool { return united(w.nodes...) })
	})
}

func TestRestartedNodeHasItsRingAtOnceAndWaitsForNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			w.add(3, 0, 1, 2)
		}
		for _, n := range w.nodes {
			n.start()
		}
		w.within(15*time.Second, "one cluster", func() bool { return united(w.nodes...) })
		epoch := w.nodes[0].m.View().Ring.Epoch()
		for _, n := range w.nodes {
			n.crash()
		}
		n := w.nodes[0]
		n.cfg.Expect = 9 // ignored after the first time
		n.start()
		v := n.m.View()
		if !v.Ready || v.Ring.Epoch() != epoch || aliveIn(v) != 1 {
			t.Errorf("after a restart: ready %v, alive %d", v.Ready, aliveIn(v))
		}
		if info := v.Nodes[w.nodes[2].cfg.ID]; info.Endpoints.PeerAddr() != "10.0.0.3:7379" || info.Alive || !info.Member {
			t.Errorf("a member that is down cannot be dialled: %+v", info)
		}
		w.nodes[1].cfg.Join, w.nodes[2].cfg.Join = nil, nil // the persisted addresses must do
		w.nodes[1].start()
		w.nodes[2].start()
		w.within(20*time.Second, "one cluster again", func() bool { return united(w.nodes...) })
	})
}

func TestNodeComesBackAtANewAddress(t *testing.T) {
	for name, crash := range map[string]bool{"after a crash": true, "after a stop": false} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for range 5 {
					w.add(5, 0, 1, 2, 3, 4)
				}
				for _, n := range w.nodes {
					n.start()
				}
				w.within(15*time.Second, "one cluster", func() bool { return united(w.nodes...) })
				n := w.nodes[3]
				limit := 5 * time.Second
				if crash {
					n.crash()
					limit = 45 * time.Second
				} else {
					n.stop()
				}
				n.host = "10.0.9.9"
				n.start()
				took := w.within(limit, "seen at the new address by all", func() bool {
					for _, o := range w.nodes {
						if o.m.View().Nodes[n.cfg.ID].Endpoints.Host != n.host {
							return false
						}
					}
					return united(w.nodes...)
				})
				t.Logf("back in %v", took)
				time.Sleep(time.Minute)
				before := w.conflicts()
				time.Sleep(time.Minute)
				if got := w.conflicts(); got != before || !united(w.nodes...) {
					t.Errorf("a minute later %d conflicts more, united %v", got-before, united(w.nodes...))
				}
			})
		})
	}
}

func TestStoppingTellsTheOthersAtOnceAndLeavesNoRing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			w.add(3, 0, 1, 2)
		}
		for _, n := range w.nodes {
			n.start()
		}
		w.within(15*time.Second, "one cluster", func() bool { return united(w.nodes...) })
		start := time.Now()
		w.nodes[2].stop()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("stopping took %v", took)
		}
		w.within(2*time.Second, "seen down", func() bool {
			return aliveIn(w.nodes[0].m.View()) == 2 && aliveIn(w.nodes[1].m.View()) == 2
		})
		if got := len(w.nodes[0].m.View().Ring.Members()); got != 3 {
			t.Errorf("%d members after a stop: stopping is not leaving", got)
		}
		w.nodes[2].start()
		w.within(5*time.Second, "back", func() bool { return united(w.nodes...) })
	})
}

func TestTwoEstablishedClustersNeverMerge(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(2, 0, 1)
		w.add(2, 0, 1)
		w.add(2, 2, 3)
		w.add(2, 2, 3)
		for _, n := range w.nodes {
			n.start()
		}
		a, b := w.nodes[:2], w.nodes[2:]
		w.within(15*time.Second, "two clusters", func() bool { return united(a...) && united(b...) })
		b[0].stop()
		b[0].cfg.Join = []string{hostOf(0) + ":7946"}
		b[0].start()
		b[1].crash() // so that the seeds are tried again and again
		time.Sleep(2 * time.Minute)
		b[1].start()
		w.within(20*time.Second, "two clusters still", func() bool { return united(a...) && united(b...) })
		if a[0].m.View().ClusterID == b[0].m.View().ClusterID {
			t.Error("the clusters merged")
		}
		msg := "a node was refused"
		if got := w.log.count(msg); got < 1 || got > 2*4 {
			t.Errorf("%d log lines about the foreign cluster, want one for each pair of nodes at most", got)
		}
	})
}

func TestNodeIsNotAddedWhenAdmissionIsRefused(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0)
		n := w.add(0, 0)
		asked := 0
		n.cfg.Admit = func(_ context.Context, v *View) error {
			asked++
			if !v.Established || len(v.Ring.Members()) != 1 || v.Nodes[w.nodes[0].cfg.ID].Endpoints.Peer != 7379 {
				t.Errorf("asked about %+v", v)
			}
			if asked == 1 {
				return errors.New("member 1 did not answer")
			}
			return fmt.Errorf("%w: members hold data", ErrRefused)
		}
		w.nodes[0].start()
		n.start()
		if err := <-n.done; !errors.Is(err, ErrRefused) {
			t.Errorf("run: %v", err)
		}
		n.cancel()
		n.cancel = nil
		if asked != 2 {
			t.Errorf("asked %d times: a failure to ask is no refusal", asked)
		}
		time.Sleep(time.Minute)
		if got := len(w.nodes[0].m.View().Records); got != 1 {
			t.Errorf("%d records after a refusal", got)
		}
	})
}

func TestStagedNodeKnowsTheClusterAndStaysOutOfTheRing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0)
		n := w.add(0, 0)
		n.cfg.StageJoin = true
		w.nodes[0].start()
		n.start()
		time.Sleep(30 * time.Second)
		v, o := n.m.View(), w.nodes[0].m.View()
		if v.Ready || !v.Established || v.ClusterID != o.ClusterID || len(o.Ring.Members()) != 1 {
			t.Errorf("staged: ready %v established %v, members %d", v.Ready, v.Established, len(o.Ring.Members()))
		}
		if info, found := o.Node(n.cfg.ID); !found || !info.Alive || info.Member {
			t.Errorf("the member sees the staged node as %+v", info)
		}
	})
}

func TestCopiedDataDirectoryIsReported(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 3 {
			w.add(3, 0, 1, 2)
		}
		for _, n := range w.nodes {
			n.start()
		}
		w.within(15*time.Second, "one cluster", func() bool { return united(w.nodes...) })
		double := w.add(3, 0)
		double.cfg.ID = w.nodes[2].cfg.ID
		blob, _ := w.nodes[2].store.Load()
		_ = double.store.Save(blob)
		double.start()
		time.Sleep(5 * time.Minute)
		const msg = "one node id at two addresses: a node that has just moved, or two nodes with copies of one data directory, of which one must be stopped"
		if got := w.log.count(msg); got == 0 || got > 5*4+4 {
			t.Errorf("%d reports in 5 minutes among 4 nodes", got)
		}
	})
}

func TestFailedSaveEndsRunBeforeAnythingIsPublished(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0)
		n := w.add(0, 0)
		w.nodes[0].start()
		w.within(time.Second, "alone", func() bool { return united(w.nodes[0]) })
		broken := errors.New("disk gone")
		n.start()
		n.store.mu.Lock()
		n.store.fail = broken
		n.store.mu.Unlock()
		if err := <-n.done; !errors.Is(err, broken) {
			t.Errorf("run: %v", err)
		}
		n.cancel()
		n.cancel = nil
		time.Sleep(time.Minute)
		if got := len(w.nodes[0].m.View().Records); got != 1 {
			t.Errorf("%d records: one was gossiped that was never saved", got)
		}
	})
}

func TestConfigReportsEveryFaultAtOnce(t *testing.T) {
	_, err := New(Config{
		Params: ring.Params{Units: 1000, N: 99}, Expect: -1, Weight: 2000, Join: []string{"nowhere"},
		Zone: strings.Repeat("z", 65), BindAddr: "x",
	})
	for _, word := range []string{"node id", "store", "units", "n (99)", "expect", "weight", "join", "zone", "bind"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("no word of %s in: %v", word, err)
		}
	}
}

func TestStateOfAnotherNodeIsNotTaken(t *testing.T) {
	store := &memStore{}
	if _, err := New(Config{ID: 1, Store: store}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{ID: 2, Store: store}); err == nil {
		t.Error("node 2 took the state of node 1")
	}
	store.blob[3] ^= 1
	if _, err := New(Config{ID: 1, Store: store}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged state: %v", err)
	}
}

func TestChangesTellsOfEveryNewView(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.add(0)
		w.add(0, 0)
		w.nodes[0].start()
		for _, n := range w.nodes[1:] {
			n.start()
		}
		for deadline := time.After(10 * time.Second); ; {
			v, changed := w.nodes[0].m.Changes()
			if len(v.Ring.Members()) == 2 {
				break
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatal("the view changed and nobody was told")
			}
		}
	})
}
