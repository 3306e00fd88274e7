package node

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/version"
)

func TestDrainedIsTheNewestViewWithNothingBeforeIt(t *testing.T) {
	type view struct {
		number uint64
		idle   bool
	}
	for name, c := range map[string]struct {
		earlier []view
		newest  uint64
		want    uint64
		left    int
	}{
		"nothing before":            {nil, 7, 7, 0},
		"all before are idle":       {[]view{{4, true}, {6, true}}, 7, 7, 0},
		"the last is in use":        {[]view{{4, true}, {6, false}}, 7, 6, 1},
		"the first is in use":       {[]view{{4, false}, {6, true}}, 7, 4, 2},
		"an older one, first idle":  {[]view{{2, true}, {4, false}, {6, false}}, 9, 4, 2},
		"replaced while one looked": {[]view{{7, false}}, 7, 7, 1},
		"newer ones than asked for": {[]view{{8, false}, {9, false}}, 7, 7, 2},
	} {
		var r replaced
		for _, e := range c.earlier {
			r = append(r, earlier{e.number, func() bool { return e.idle }})
		}
		if got := r.drained(c.newest); got != c.want || len(r) != c.left {
			t.Errorf("%s: %d with %d kept, want %d with %d", name, got, len(r), c.want, c.left)
		}
	}
}

func TestRingsAreThoseOfTheViewAndOnlyWhileItLetsCoordinate(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	v, r := n.members.View(), cluster{n}.Rings()
	if r == nil || r.Live != v.Live || r.Number != v.Epoch.Number || epoch.StampOf(r.Stamp) != v.Epoch.Stamp || n.drained() != r.Number {
		t.Fatalf("rings %+v of %+v, drained %d", r, v.Epoch, n.drained())
	}
	if again := (cluster{n}).Rings(); again != r {
		t.Error("the same view has other rings")
	}
	view := *v.Epoch
	view.Coordinate = false
	if got := (&numbered{&view, r}).open(); got != nil {
		t.Error("a node that may not coordinate has rings")
	}
	if got := (*numbered)(nil).open(); got != nil {
		t.Error("a node without a view has rings")
	}
}

func TestAMessageIsStaleBySenderAndStamp(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	self, now := n.id.node, n.epochs()
	for name, c := range map[string]struct {
		from        nodeID
		e           rpc.Epochs
		read, stale bool
	}{
		"a member":          {self, now, false, false},
		"a member's read":   {self, now, true, false},
		"of no epoch":       {self, rpc.Epochs{}, false, true},
		"nobody known":      {self + 1, now, false, true},
		"nobody known read": {self + 1, now, true, true},
	} {
		if got := n.stale(c.from, c.e, c.read); got != c.stale {
			t.Errorf("%s: stale %v", name, got)
		}
	}
}

func TestAFenceIsARefusalByNoOwner(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	if got := say(t, n, "SET k v"); got != "+OK" {
		t.Fatal(got)
	}
	key, deadline := []byte("k"), time.Now().Add(patience)
	n.replica.Fence(n.members.View().Ring.Partition(ring.SlotOf(key)), true)
	ended := make(chan error, 1)
	n.local.Read(coordinator.ReadRequest{Key: key, Deadline: deadline}, func(_ coordinator.ReadReply, err error) { ended <- err })
	if err := <-ended; !errors.Is(err, coordinator.ErrNotOwner) {
		t.Errorf("read: %v", err)
	}
	rec := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 9, Counter: 1}, HLC: 1, Value: []byte("w")})
	n.local.Merge(coordinator.MergeRequest{Key: key, Record: version.EncodeWire(nil, rec), Deadline: deadline}, func(err error) { ended <- err })
	if err := <-ended; !errors.Is(err, coordinator.ErrNotOwner) {
		t.Errorf("merge: %v", err)
	}
	_, _, err := n.local.Mutate(key, 0, version.Record{}, version.Op{Kind: version.OpSet, Value: []byte("x")}, deadline, true, func(error) { t.Error("called") })
	if !errors.Is(err, coordinator.ErrNotOwner) {
		t.Errorf("mutate: %v", err)
	}
	for _, command := range []string{"GET k", "SET k x"} {
		if got := say(t, n, command); got[0] != '-' {
			t.Errorf("%s is answered %q", command, got)
		}
	}
	if err := toWire(replica.ErrFenced); err != rpc.ErrNotOwner {
		t.Errorf("others hear %v", err)
	}
}

// Requests that were in time when they came, and are stale when a worker comes to them.
func TestWhatBecameStaleInTheQueueIsNotCarriedOut(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	stale, asked := false, []bool{}
	queue := newWorkers(1, 16)
	local := &localPeer{replica: n.replica, disk: queue, budget: n.hints.budget, recovering: n.doubted, fatal: n.fail,
		stale: func(from nodeID, e rpc.Epochs, read bool) bool {
			if from != 5 || e != (rpc.Epochs{6}) {
				t.Errorf("asked about %v, %v", from, e)
			}
			asked = append(asked, read)
			return stale
		}}
	h := handler{&Node{local: local}}
	h.n.admission = n.admission
	meta := rpc.Meta{From: 5, Epochs: rpc.Epochs{6}, Deadline: time.Now().Add(patience)}
	rec := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 9, Counter: 1}, HLC: 1, Value: []byte("w")})
	var ends []error
	h.ServeRead(rpc.ReadRequest{Key: []byte("a")}, meta, func(_ rpc.ReadReply, err error) { ends = append(ends, err) })
	h.ServeMerge(rpc.MergeRequest{Key: []byte("b"), Record: version.EncodeWire(nil, rec)}, meta, func(err error) { ends = append(ends, err) })
	h.ServeScan(rpc.ScanRequest{ToSlot: 9, Limit: 9}, meta, func(_ rpc.ScanReply, err error) { ends = append(ends, err) })
	h.ServeCount(rpc.CountRequest{}, meta, func(_ rpc.CountReply, err error) { ends = append(ends, err) })
	h.ServeInspect(rpc.InspectRequest{Key: []byte("a")}, meta, func(_ rpc.InspectReply, err error) { ends = append(ends, err) })
	if len(ends) != 0 {
		t.Fatalf("%d were not queued", len(ends))
	}
	stale = true
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_ = queue.Run(done) // does what is queued and returns
	for i, err := range ends {
		if !errors.Is(err, rpc.ErrStaleEpoch) || asked[i] != (i != 1) {
			t.Errorf("request %d: %v, asked as a read: %v", i, err, asked[i])
		}
	}
	if _, hash, _, err := n.replica.Read([]byte("b"), 0); len(ends) != 5 || hash != 0 || err != nil {
		t.Errorf("%d ended; what was merged is there: %v, %v", len(ends), hash != 0, err)
	}
}

// staleNode serves node id on an address of its own and finds all stale.
func staleNode(t *testing.T, id nodeID, state []byte) (addr string) {
	t.Helper()
	return serveAs(t, rpc.ServerConfig{
		Node: id, Handler: handler{},
		Stale: func(nodeID, rpc.Epochs, bool) bool { return true }, EpochState: func() []byte { return state },
	})
}

// serveAs serves a node of cluster 1 on an address of its own.
func serveAs(t *testing.T, cfg rpc.ServerConfig) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.ClusterID = func() [16]byte { return [16]byte{1} }
	s, err := rpc.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// given is a cluster of this node, which is behind, and others.
type given struct {
	rings *coordinator.Rings
	local coordinator.Peer
	pool  *rpc.Pool
}

func (g given) Rings() *coordinator.Rings { return g.rings }
func (g given) Up(id nodeID) bool         { return true }
func (g given) Self() nodeID              { return 1 }
func (g given) Peer(id nodeID) coordinator.Peer {
	if id == 1 {
		return g.local
	}
	return remotePeer{g.pool.Get(id)}
}

// runPool runs the pool of node 1 until the test has ended.
func runPool(t *testing.T, cfg rpc.PoolConfig) *rpc.Pool {
	t.Helper()
	cfg.Node, cfg.ClusterID = 1, func() [16]byte { return [16]byte{1} }
	cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	pool, err := rpc.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return pool
}

func TestARequestThatIsStaleElsewhereFailsAndTheNodeHearsWhy(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	heard := newHearing()
	pool := runPool(t, rpc.PoolConfig{OnStale: heard.take})
	var members []ring.Member
	for id := nodeID(1); id <= 3; id++ {
		members = append(members, ring.Member{ID: id, Weight: 100})
		if id > 1 {
			pool.Peer(id, staleNode(t, id, []byte("state")))
		}
	}
	r, err := ring.New(ring.Params{Units: 64}, members)
	if err != nil {
		t.Fatal(err)
	}
	c, err := coordinator.New(coordinator.Config{},
		given{coordinator.NewRings(ring.NewLive(r), coordinator.Stamp{1}, 1), n.local, pool}, n.local)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	c.Read([]byte("k"), coordinator.ReadOptions{}, func(_ coordinator.ReadResult, err error) { result <- err })
	if err := <-result; !errors.Is(err, coordinator.ErrNoReadQuorum) || !errors.Is(err, coordinator.ErrStaleEpoch) {
		t.Errorf("read: %v", err)
	}
	if state := <-heard.states; string(state) != "state" {
		t.Errorf("heard %q", state)
	}
	c.Write([]byte("k"), version.Op{Kind: version.OpSet, Value: []byte("v")}, coordinator.WriteOptions{}, func(_ coordinator.WriteResult, err error) { result <- err })
	var uncertain *coordinator.UncertainError
	if err := <-result; !errors.As(err, &uncertain) {
		t.Errorf("write: %v", err)
	}
	if err := c.Drain(t.Context()); err != nil || !pool.Up(2) || !pool.Up(3) {
		t.Errorf("%v; up: %v and %v", err, pool.Up(2), pool.Up(3))
	}
}

func TestAStateThatMakesNoSenseEndsNothing(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	for range 3 {
		n.hearing.take(2, []byte("nonsense")) // never waits
	}
	for deadline := time.Now().Add(patience); len(n.hearing.states) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody takes it in")
		}
	}
	n.hearing.take(2, n.members.EpochState())
	if got := say(t, n, "SET k v"); got != "+OK" {
		t.Error(got)
	}
}
