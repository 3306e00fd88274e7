package rpc

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// judge is a server's hook with what it was asked, and the client's with what it was
// told.
type judge struct {
	mu    sync.Mutex
	stale bool
	asked []bool // whether rows were to be read
	state []byte
	told  []string
}

func (j *judge) judge(from ring.NodeID, e Epochs, read bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if from != 1 || e != testEpochs {
		panic("judged by another's epochs")
	}
	j.asked = append(j.asked, read)
	return j.stale
}

func (j *judge) epochState() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state
}

func (j *judge) onStale(from ring.NodeID, state []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if from != 2 {
		panic("told by another")
	}
	j.told = append(j.told, string(state))
}

func (j *judge) rig(t *testing.T, h Handler) *rig {
	return newRig(t, h, PoolConfig{OnStale: j.onStale}, ServerConfig{Stale: j.judge, EpochState: j.epochState})
}

// everyRowRequest makes one request of each kind that is for rows.
func (r *rig) everyRowRequest(o Options, done func(kind Kind, err error)) {
	r.peer.Read(ReadRequest{Key: []byte("k")}, o, func(_ ReadReply, err error) { done(KindRead, err) })
	r.peer.Merge(MergeRequest{Key: []byte("k")}, o, func(err error) { done(KindMerge, err) })
	r.peer.Scan(ScanRequest{}, o, func(_ ScanReply, err error) { done(KindScan, err) })
	r.peer.Count(CountRequest{}, o, func(_ CountReply, err error) { done(KindCount, err) })
	r.peer.Inspect(InspectRequest{Key: []byte("k")}, o, func(_ InspectReply, err error) { done(KindInspect, err) })
	r.peer.Deliver(DeliverRequest{}, o, func(_ DeliverReply, err error) { done(KindDeliver, err) })
	r.everyExchangeRequest(o, done)
}

// everyExchangeRequest makes those of anti-entropy, which carry epochs since version 5.
func (r *rig) everyExchangeRequest(o Options, done func(kind Kind, err error)) {
	r.peer.Nodes(NodesRequest{}, o, func(_ NodesReply, err error) { done(KindNodes, err) })
	r.peer.List(ListRequest{}, o, func(_ ListReply, err error) { done(KindList, err) })
	r.peer.Fetch(FetchRequest{}, o, func(_ FetchReply, err error) { done(KindFetch, err) })
}

func TestWhatGoesByEpochsThatAreOverIsAnsweredAndNotCarriedOut(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		j := &judge{stale: true, state: []byte("state")}
		r := j.rig(t, &fakeHandler{}) // which would answer ErrUnsupported
		ends := 0
		r.everyRowRequest(Options{Epochs: testEpochs}, func(kind Kind, err error) {
			ends++
			if err != ErrStaleEpoch || len(j.told) == 0 {
				t.Errorf("%v ended with %v, told before: %q", kind, err, j.told)
			}
		})
		synctest.Wait()
		if want := []bool{true, false, true, true, true, false, true, true, true}; ends != 9 || !slices.Equal(j.asked, want) {
			t.Errorf("%d ended; asked for reads %v, want %v", ends, j.asked, want)
		}
		if !slices.Equal(j.told, []string{"state"}) || r.counter("rpc_requests_stale_total") != 9 || !r.peer.Up() {
			t.Errorf("told %q, %d counted, up %v", j.told, r.counter("rpc_requests_stale_total"), r.peer.Up())
		}
		var status, write error
		r.peer.Status(StatusRequest{}, Options{Epochs: testEpochs}, func(_ StatusReply, err error) { status = err })
		r.peer.Write(WriteRequest{Key: []byte("k")}, Options{Epochs: testEpochs}, func(_ WriteReply, err error) { write = err })
		synctest.Wait()
		if status != ErrUnsupported || write != ErrUnsupported || len(j.asked) != 9 || r.server.calls.Load() != 0 {
			t.Errorf("status: %v, write: %v, judged %d", status, write, len(j.asked))
		}
	})
}

// What was queued and is over when its turn comes is refused by its handler.
func TestAHandlerRefusesWhatBecameStaleWhileItWaited(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		j := &judge{state: []byte("state")}
		h := &fakeHandler{merge: func(_ MergeRequest, x Meta, reply func(error)) {
			time.AfterFunc(time.Millisecond, func() {
				if j.judge(x.From, x.Epochs, false) {
					reply(errors.Join(errors.New("its turn came"), ErrStaleEpoch))
					return
				}
				reply(nil)
			})
		}}
		r := j.rig(t, h)
		if err := r.merge(nil, Options{Epochs: testEpochs}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Millisecond/2, func() { j.mu.Lock(); j.stale = true; j.mu.Unlock() })
		if err := r.merge(nil, Options{Epochs: testEpochs}); err != ErrStaleEpoch || !slices.Equal(j.told, []string{"state"}) {
			t.Errorf("%v, told %q", err, j.told)
		}
		synctest.Wait() // an answer leaves before its request is taken off the account
		if r.server.calls.Load() != 0 || r.server.bytes.Load() != 0 {
			t.Errorf("%d calls are still accounted for", r.server.calls.Load())
		}
	})
}

// A node that was given up and does not know it asks as often as its clients do.
func TestAStateIsNotToldWithEveryRefusal(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		j := &judge{stale: true, state: []byte(big(300 << 10))}
		r := j.rig(t, echoHandler())
		ask := func() {
			t.Helper()
			for range 1000 {
				if _, err := r.read("k", Options{Epochs: testEpochs}); err != ErrStaleEpoch {
					t.Fatal(err)
				}
			}
		}
		ask()
		if len(j.told) != 1 || len(j.told[0]) != 300<<10 {
			t.Fatalf("told %d states", len(j.told))
		}
		j.mu.Lock()
		j.state = []byte("another")
		j.mu.Unlock()
		ask()
		if len(j.told) != 2 || j.told[1] != "another" {
			t.Fatalf("told %d states", len(j.told))
		}
		pass(tellAgainAfter)
		ask()
		if len(j.told) != 3 || j.told[2] != "another" {
			t.Errorf("told %d states", len(j.told))
		}
	})
}

func TestAStateThatNoFrameHoldsIsLeftOut(t *testing.T) {
	for size, told := range map[int]int{2<<10 - headerBytes - 1: 1, 2<<10 - headerBytes: 0, 0: 0} {
		bubble.Test(t, func(t *testing.T) {
			j := &judge{stale: true, state: []byte(big(size))}
			r := newRig(t, echoHandler(), PoolConfig{OnStale: j.onStale, MaxFrameBytes: 2 << 10},
				ServerConfig{Stale: j.judge, EpochState: j.epochState})
			if _, err := r.read("k", Options{Epochs: testEpochs}); err != ErrStaleEpoch || len(j.told) != told {
				t.Errorf("%d bytes: %v, told %d", size, err, len(j.told))
			}
			j.mu.Lock()
			j.stale = false
			j.mu.Unlock()
			if _, err := r.read("k", Options{Epochs: testEpochs}); err != nil || r.net.dialed() != 1 {
				t.Errorf("%d bytes: %v afterwards, %d dials", size, err, r.net.dialed())
			}
		})
	}
}

func TestEpochsStayWithARequestThatWaitsForItsConnection(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		j := &judge{}
		var ln net.Listener // nobody accepts yet: the connection is not refused, it waits
		r := newRigWith(t, PoolConfig{}, func(r *rig) { ln = r.net.listen("two") })
		ended := make(chan error, 1)
		r.peer.Merge(MergeRequest{Key: []byte("k")}, Options{Epochs: testEpochs}, func(err error) { ended <- err })
		synctest.Wait()
		r.serveOn(ln, echoHandler(), ServerConfig{Stale: j.judge})
		if err := <-ended; err != nil || !slices.Equal(j.asked, []bool{false}) {
			t.Errorf("%v, judged %v", err, j.asked)
		}
	})
}
