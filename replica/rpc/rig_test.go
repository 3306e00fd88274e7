package rpc

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
)

var testCluster = [16]byte{1, 2, 3}

func testClusterID() [16]byte { return testCluster }

// fakeHandler serves what its fields say and fails everything else.
type fakeHandler struct {
	read   func(ReadRequest, Meta, func(ReadReply, error))
	merge  func(MergeRequest, Meta, func(error))
	write  func(WriteRequest, Meta, func(WriteReply, error))
	scan   func(ScanRequest, Meta, func(ScanReply, error))
	count  func(CountRequest, Meta, func(CountReply, error))
	status func(StatusRequest, Meta, func(StatusReply, error))
	look   func(InspectRequest, Meta, func(InspectReply, error))
	take   func(DeliverRequest, Meta, func(DeliverReply, error))
	nodes  func(NodesRequest, Meta, func(NodesReply, error))
	list   func(ListRequest, Meta, func(ListReply, error))
	fetch  func(FetchRequest, Meta, func(FetchReply, error))
	hinted func(HintedRequest, Meta, func(HintedReply, error))
	lacks  func(LacksRequest, Meta, func(LacksReply, error))
	meet   func(SessionRequest, Meta, func(error))
	sync   func(SyncRequest, Meta, func(error))
	state  func(StateRequest, Meta, func(error))
	news   func(PublishRequest, Meta, func(error))
	rest   func(MergeRequest, Meta, func(error))
}

func (h *fakeHandler) ServeRead(m ReadRequest, x Meta, reply func(ReadReply, error)) {
	serveFake(h.read, m, x, reply)
}

func (h *fakeHandler) ServeMerge(m MergeRequest, x Meta, reply func(error)) {
	if h.merge == nil {
		reply(ErrUnsupported)
		return
	}
	h.merge(m, x, reply)
}

func (h *fakeHandler) ServeWrite(m WriteRequest, x Meta, reply func(WriteReply, error)) {
	serveFake(h.write, m, x, reply)
}

func (h *fakeHandler) ServeScan(m ScanRequest, x Meta, reply func(ScanReply, error)) {
	serveFake(h.scan, m, x, reply)
}

func (h *fakeHandler) ServeCount(m CountRequest, x Meta, reply func(CountReply, error)) {
	serveFake(h.count, m, x, reply)
}

func (h *fakeHandler) ServeNodes(m NodesRequest, x Meta, reply func(NodesReply, error)) {
	serveFake(h.nodes, m, x, reply)
}

func (h *fakeHandler) ServeList(m ListRequest, x Meta, reply func(ListReply, error)) {
	serveFake(h.list, m, x, reply)
}

func (h *fakeHandler) ServeFetch(m FetchRequest, x Meta, reply func(FetchReply, error)) {
	serveFake(h.fetch, m, x, reply)
}

func (h *fakeHandler) ServeHinted(m HintedRequest, x Meta, reply func(HintedReply, error)) {
	serveFake(h.hinted, m, x, reply)
}

func (h *fakeHandler) ServeLacks(m LacksRequest, x Meta, reply func(LacksReply, error)) {
	serveFake(h.lacks, m, x, reply)
}

func (h *fakeHandler) ServeSession(m SessionRequest, x Meta, reply func(error)) {
	if h.meet == nil {
		reply(ErrUnsupported)
		return
	}
	h.meet(m, x, reply)
}

func (h *fakeHandler) ServeStatus(m StatusRequest, x Meta, reply func(StatusReply, error)) {
	serveFake(h.status, m, x, reply)
}

func (h *fakeHandler) ServeInspect(m InspectRequest, x Meta, reply func(InspectReply, error)) {
	serveFake(h.look, m, x, reply)
}

func (h *fakeHandler) ServeDeliver(m DeliverRequest, x Meta, reply func(DeliverReply, error)) {
	serveFake(h.take, m, x, reply)
}

// ServeSync finds a healthy disk unless the field says otherwise.
func (h *fakeHandler) ServeSync(m SyncRequest, x Meta, reply func(error)) {
	if h.sync == nil {
		reply(nil)
		return
	}
	h.sync(m, x, reply)
}

func (h *fakeHandler) ServeState(m StateRequest, x Meta, reply func(error)) {
	if h.state == nil {
		reply(ErrUnsupported)
		return
	}
	h.state(m, x, reply)
}

func (h *fakeHandler) ServeSettle(m MergeRequest, x Meta, reply func(error)) { h.rest(m, x, reply) }

func (h *fakeHandler) ServePublish(m PublishRequest, x Meta, reply func(error)) {
	if h.news == nil {
		reply(ErrUnsupported)
		return
	}
	h.news(m, x, reply)
}

func serveFake[M, R any](f func(M, Meta, func(R, error)), m M, x Meta, reply func(R, error)) {
	if f == nil {
		var none R
		reply(none, ErrUnsupported)
		return
	}
	f(m, x, reply)
}

// echoHandler answers a read with its key as the record.
func echoHandler() *fakeHandler {
	return &fakeHandler{
		read: func(m ReadRequest, _ Meta, reply func(ReadReply, error)) {
			reply(ReadReply{Hash: 7, Record: m.Key}, nil)
		},
		merge: func(_ MergeRequest, _ Meta, reply func(error)) { reply(nil) },
	}
}

// rig is node 1, which calls, and node 2 at address "two", which serves.
type rig struct {
	t       *testing.T
	net     *memNet
	pool    *Pool
	peer    *Peer
	metrics *metrics.Set
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	server  *Server
	halt    context.CancelFunc // stops the server
	down    chan struct{}      // closed when it has stopped

	mu      sync.Mutex
	changes []bool
}

func newRig(t *testing.T, h Handler, pc PoolConfig, sc ServerConfig) *rig {
	t.Helper()
	return newRigWith(t, pc, func(r *rig) {
		if h != nil {
			r.serve(h, sc)
		}
	})
}

// newRigWith leaves it to serve what is at address "two" when the pool starts.
func newRigWith(t *testing.T, pc PoolConfig, serve func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, net: newMemNet(), metrics: metrics.NewSet()}
	r.ctx, r.stop = context.WithCancel(t.Context())
	serve(r)
	pc.Node, pc.ClusterID, pc.Dial, pc.Metrics = 1, testClusterID, r.net.dial, r.metrics
	pc.OnChange = func(_ ring.NodeID, up bool) {
		r.mu.Lock()
		r.changes = append(r.changes, up)
		r.mu.Unlock()
	}
	pool, err := NewPool(pc)
	if err != nil {
		t.Fatal(err)
	}
	r.pool = pool
	r.peer = pool.Peer(2, "two")
	r.wg.Go(func() {
		if err := pool.Run(r.ctx); err != nil {
			t.Errorf("pool: %v", err)
		}
	})
	t.Cleanup(r.close)
	return r
}

// close stops everything; in a bubble a goroutine left behind fails the test.
func (r *rig) close() {
	r.stop()
	r.wg.Wait()
}

func (r *rig) serve(h Handler, sc ServerConfig) {
	r.t.Helper()
	r.serveOn(r.net.listen("two"), h, sc)
}

func (r *rig) serveOn(ln net.Listener, h Handler, sc ServerConfig) {
	r.t.Helper()
	sc.Node, sc.ClusterID, sc.Handler, sc.Metrics = 2, testClusterID, h, r.metrics
	server, err := NewServer(sc)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	down := make(chan struct{})
	r.server, r.halt, r.down = server, cancel, down
	r.wg.Go(func() {
		defer close(down)
		if err := server.Serve(ctx, ln); err != nil {
			r.t.Errorf("server: %v", err)
		}
	})
}

func (r *rig) kill() {
	r.halt()
	<-r.down
}

// read calls Read and waits for the reply, which the deadline bounds.
func (r *rig) read(key string, o Options) (ReadReply, error) {
	type result struct {
		m   ReadReply
		err error
	}
	c := make(chan result, 2)
	r.peer.Read(ReadRequest{Key: []byte(key)}, o, func(m ReadReply, err error) { c <- result{m, err} })
	got := <-c
	return got.m, got.err
}

func (r *rig) merge(record []byte, o Options) error {
	c := make(chan error, 2)
	r.peer.Merge(MergeRequest{Key: []byte("k"), Record: record}, o, func(err error) { c <- err })
	return <-c
}

func (r *rig) wantChanges(want ...bool) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.changes) != len(want) {
		r.t.Fatalf("OnChange told %v, want %v", r.changes, want)
	}
	for i := range want {
		if r.changes[i] != want[i] {
			r.t.Fatalf("OnChange told %v, want %v", r.changes, want)
		}
	}
}

// counter returns the value of one metric.
func (r *rig) counter(name string) uint64 {
	return r.metrics.GetOrCreateCounter(name).Get()
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("error %v, want %v", got, want)
	}
}

func within(d time.Duration) Options { return Options{Deadline: time.Now().Add(d)} }

func big(n int) string { return strings.Repeat("x", n) }

// pass lets virtual time go by and what it sets off come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
