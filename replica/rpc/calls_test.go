package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestEveryRequestReachesItsHandlerAndBringsItsReply(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var got []any
		var metas []Meta
		note := func(m any, x Meta) { got, metas = append(got, m), append(metas, x) }
		replies := []any{
			ReadReply{Hash: 9, Record: []byte("rec")}, WriteReply{Outcome: []byte("out")},
			ScanReply{Entries: []ScanEntry{{Slot: 3, KeyHash: 4, StateHash: 5, Live: true, Key: []byte("a")}}, NextSlot: 6, NextHash: 7, Done: true},
			CountReply{Keys: 12},
			StatusReply{Ready: true, Epoch: 1, Members: 2, Boot: 3},
			InspectReply{Entries: []InspectEntry{{For: 3, Record: []byte("c")}}},
			DeliverReply{Credit: 13},
			NodesReply{Hashes: []uint64{1, 2}},
			ListReply{Cells: 1, NextHash: 2, Entries: []ListEntry{{Slot: 3, KeyHash: 4, State: 5}}},
			FetchReply{Positions: 2, Rows: []FetchRow{{Key: []byte("k"), Record: []byte("rec")}}},
			HintedReply{Partitions: []uint16{2}},
			LacksReply{Lost: true},
		}
		h := &fakeHandler{
			read:   serveNoted[ReadRequest](note, replies[0].(ReadReply)),
			merge:  func(m MergeRequest, x Meta, reply func(error)) { note(m, x); reply(nil) },
			write:  serveNoted[WriteRequest](note, replies[1].(WriteReply)),
			scan:   serveNoted[ScanRequest](note, replies[2].(ScanReply)),
			count:  serveNoted[CountRequest](note, replies[3].(CountReply)),
			status: serveNoted[StatusRequest](note, replies[4].(StatusReply)),
			look:   serveNoted[InspectRequest](note, replies[5].(InspectReply)),
			take:   serveNoted[DeliverRequest](note, replies[6].(DeliverReply)),
			nodes:  serveNoted[NodesRequest](note, replies[7].(NodesReply)),
			list:   serveNoted[ListRequest](note, replies[8].(ListReply)),
			fetch:  serveNoted[FetchRequest](note, replies[9].(FetchReply)),
			hinted: serveNoted[HintedRequest](note, replies[10].(HintedReply)),
			lacks:  serveNoted[LacksRequest](note, replies[11].(LacksReply)),
			meet:   func(m SessionRequest, x Meta, reply func(error)) { note(m, x); reply(nil) },
			sync:   func(m SyncRequest, x Meta, reply func(error)) { note(m, x); reply(nil) },
		}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		requests := []any{
			ReadRequest{Key: []byte("k"), For: 4, Have: 5, HaveAny: true, DigestOnly: true},
			WriteRequest{Key: []byte("k"), Op: []byte("op"), R: 2, W: 3},
			ScanRequest{FromSlot: 1, FromHash: 2, ToSlot: 3, Limit: 4},
			CountRequest{Ranges: []SlotRange{{1, 2}, {3, 4}}},
			StatusRequest{}, InspectRequest{Key: []byte("k")},
			DeliverRequest{Durable: true, Rows: []DeliverRow{{Key: []byte("k"), Record: []byte("rec")}}},
			NodesRequest{Units: 1023, Level: 2, Step: 1, Nodes: []TreeNode{{Partition: 1, Index: 2}}},
			ListRequest{Limit: 1, From: 2, Cells: []uint32{3, 4}},
			FetchRequest{MaxBytes: 1, Positions: []Position{{Slot: 2, KeyHash: 3}}},
			HintedRequest{Units: 1023, Partitions: []uint16{1, 2}},
			LacksRequest{First: Position{1, 2}, Last: Position{3, 4}},
			MergeRequest{Key: []byte("k"), For: 9, Durable: true, Optional: true, Record: []byte("rec")},
			SessionRequest{End: true, Epoch: 1, First: 2, Last: 3},
			SyncRequest{},
		}
		h.rest = func(m MergeRequest, x Meta, reply func(error)) {
			if m.Durable || string(m.Key) != "k" || string(m.Record) != "rec" || x.Epochs != testEpochs {
				t.Errorf("settle: %+v, %+v", m, x)
			}
			reply(ErrDiskFull)
		}
		settled := make(chan error, 1)
		r.peer.Settle(MergeRequest{Key: []byte("k"), Record: []byte("rec")}, Options{Epochs: testEpochs}, func(err error) { settled <- err })
		if err := <-settled; err != ErrDiskFull {
			t.Errorf("settle: %v", err)
		}
		o := Options{Deadline: time.Now().Add(1500 * time.Microsecond), Class: Repair, Epochs: testEpochs}
		var answers []any
		r.peer.Read(requests[0].(ReadRequest), o, collect[ReadReply](t, &answers))
		r.peer.Write(requests[1].(WriteRequest), o, collect[WriteReply](t, &answers))
		r.peer.Scan(requests[2].(ScanRequest), o, collect[ScanReply](t, &answers))
		r.peer.Count(requests[3].(CountRequest), o, collect[CountReply](t, &answers))
		r.peer.Status(requests[4].(StatusRequest), o, collect[StatusReply](t, &answers))
		r.peer.Inspect(requests[5].(InspectRequest), o, collect[InspectReply](t, &answers))
		r.peer.Deliver(requests[6].(DeliverRequest), o, collect[DeliverReply](t, &answers))
		r.peer.Nodes(requests[7].(NodesRequest), o, collect[NodesReply](t, &answers))
		r.peer.List(requests[8].(ListRequest), o, collect[ListReply](t, &answers))
		r.peer.Fetch(requests[9].(FetchRequest), o, collect[FetchReply](t, &answers))
		r.peer.Hinted(requests[10].(HintedRequest), o, collect[HintedReply](t, &answers))
		r.peer.Lacks(requests[11].(LacksRequest), o, collect[LacksReply](t, &answers))
		none := errors.New("no reply")
		merged, pinged, met, synced := none, none, none, none
		r.peer.Merge(requests[12].(MergeRequest), o, func(err error) { merged = err })
		r.peer.Ping(o, func(err error) { pinged = err })
		r.peer.Session(requests[13].(SessionRequest), o, func(err error) { met = err })
		r.peer.Sync(requests[14].(SyncRequest), o, func(err error) { synced = err })
		synctest.Wait()
		if merged != nil || pinged != nil || met != nil || synced != nil {
			t.Errorf("merge: %v, ping: %v, session: %v, sync: %v", merged, pinged, met, synced)
		}
		if !reflect.DeepEqual(got, requests) {
			t.Errorf("handlers got  %+v\nwant          %+v", got, requests)
		}
		if !reflect.DeepEqual(answers, replies) {
			t.Errorf("callers got  %+v\nwant         %+v", answers, replies)
		}
		for i, x := range metas {
			want := testEpochs
			switch requests[i].(type) {
			case ReadRequest, MergeRequest, ScanRequest, CountRequest, InspectRequest, DeliverRequest, NodesRequest, ListRequest, FetchRequest:
			default:
				want = Epochs{}
			}
			if x.Epochs != want {
				t.Errorf("%T came with epochs %x", requests[i], x.Epochs)
			}
			if left := time.Until(x.Deadline); x.From != 1 || x.Class != Repair || left != 2*time.Millisecond {
				t.Errorf("meta %+v, %v left: want node 1, repair and 1.5 ms rounded up to 2", x, left)
			}
		}
	})
}

func serveNoted[M, R any](note func(any, Meta), r R) func(M, Meta, func(R, error)) {
	return func(m M, x Meta, reply func(R, error)) {
		note(m, x)
		reply(r, nil)
	}
}

func collect[R any](t *testing.T, into *[]any) func(R, error) {
	return func(r R, err error) {
		if err != nil {
			t.Errorf("%T: %v", r, err)
		}
		*into = append(*into, r)
	}
}

func TestErrorsCrossTheWireAsThemselves(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var fail error
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) { reply(ReadReply{}, fail) }}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		for _, want := range []error{
			ErrOverloaded, ErrNoReplicas, ErrUncertain, ErrTooManySiblings, ErrTooLarge, ErrCorrupt, ErrStrict,
			ErrNotOwner, ErrLoading, ErrStale, ErrStaleEpoch, ErrUnsupported, ErrTimeout, ErrHintBudget, ErrInternal,
		} {
			fail = fmt.Errorf("read: %w", want)
			_, err := r.read("k", Options{})
			wantErr(t, err, want)
		}
		fail = errors.New("something only the peer knows")
		_, err := r.read("k", Options{})
		wantErr(t, err, ErrInternal)
		fail = fmt.Errorf("write: %w", &UncertainError{Acked: 1, Want: 2})
		_, err = r.read("k", Options{})
		var u *UncertainError
		if !errors.As(err, &u) || u.Acked != 1 || u.Want != 2 {
			t.Errorf("uncertain outcome arrived as %v", err)
		}
	})
}

func TestCallsMadeBeforeTheConnectionStandsGoThrough(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		m, err := r.read("first", Options{})
		if err != nil || string(m.Record) != "first" {
			t.Fatalf("first call: %+v, %v", m, err)
		}
		if !r.peer.Up() {
			t.Errorf("peer is not up after an answer")
		}
	})
}

func TestCallsBeforeRunWaitForItAndCallsAfterItAreUnreachable(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pool, err := NewPool(PoolConfig{Node: 1, ClusterID: testClusterID, Dial: r.net.dial})
		if err != nil {
			t.Fatal(err)
		}
		var ended []error
		note := func(err error) { ended = append(ended, err) }
		peer := pool.Peer(2, "two")
		peer.Ping(Options{}, note)
		synctest.Wait()
		if len(ended) != 0 {
			t.Fatalf("a call before Run ended with %v", ended)
		}
		ctx, stop := context.WithCancel(t.Context())
		r.wg.Go(func() { _ = pool.Run(ctx) })
		synctest.Wait()
		stop()
		synctest.Wait()
		peer.Ping(Options{}, note)
		pool.Peer(3, "three").Ping(Options{}, note)
		if want := []error{nil, ErrUnreachable, ErrUnreachable}; !reflect.DeepEqual(ended, want) {
			t.Errorf("calls before and after Run ended with %v, want %v", ended, want)
		}
		if pool.Up(2) || pool.Up(3) {
			t.Error("a stopped pool has peers that are up")
		}
	})
}

func TestStoppingThePoolEndsCallsInFlight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &fakeHandler{read: func(ReadRequest, Meta, func(ReadReply, error)) {}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		var ended []error
		for range 3 {
			r.peer.Read(ReadRequest{}, Options{}, func(_ ReadReply, err error) { ended = append(ended, err) })
		}
		synctest.Wait()
		r.close()
		if len(ended) != 3 || ended[0] != ErrClosed {
			t.Errorf("calls in flight ended with %v, want three times %v", ended, ErrClosed)
		}
	})
}

func TestADroppedPeerIsForgotten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		if _, err := r.read("k", Options{}); err != nil {
			t.Fatal(err)
		}
		r.pool.Drop(2)
		r.pool.Drop(2)
		synctest.Wait()
		if r.pool.Get(2) != nil || r.pool.Up(2) {
			t.Error("a dropped peer is still there")
		}
		_, err := r.read("k", Options{})
		wantErr(t, err, ErrUnreachable)
		r.peer = r.pool.Peer(2, "two")
		if _, err := r.read("k", Options{}); err != nil {
			t.Errorf("the peer came back: %v", err)
		}
	})
}

func TestRepliesInAnyOrderFindTheirCalls(t *testing.T) {
	seed := rand.Uint64()
	bubble.Test(t, func(t *testing.T) {
		rng, serverRNG := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
		h := &fakeHandler{read: func(m ReadRequest, _ Meta, reply func(ReadReply, error)) {
			if serverRNG.IntN(3) == 0 {
				reply(ReadReply{Record: m.Key}, nil)
				return
			}
			wait := time.Duration(serverRNG.IntN(1000)) * time.Microsecond
			time.AfterFunc(wait, func() { reply(ReadReply{Record: m.Key}, nil) })
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		var answered atomic.Int64
		for i := range 2000 {
			key := fmt.Sprintf("%d-%s", i, big(rng.IntN(300)))
			r.peer.Read(ReadRequest{Key: []byte(key)}, Options{}, func(m ReadReply, err error) {
				if err != nil || string(m.Record) != key {
					t.Errorf("seed %d: %q got %q, %v", seed, key, m.Record, err)
				}
				answered.Add(1)
			})
			if rng.IntN(100) == 0 {
				pass(time.Millisecond)
			}
		}
		pass(time.Second)
		if answered.Load() != 2000 {
			t.Errorf("seed %d: %d of 2000 calls ended", seed, answered.Load())
		}
	})
}

func TestReplyMemoryBelongsToTheCaller(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var kept []byte
		h := &fakeHandler{read: func(m ReadRequest, _ Meta, reply func(ReadReply, error)) {
			if kept == nil {
				kept = m.Key
			}
			reply(ReadReply{Record: m.Key}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		first, err := r.read("aaaa", Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, err := r.read("bbbb", Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if string(first.Record) != "aaaa" || string(kept) != "aaaa" {
			t.Errorf("a reply became %q and a request %q", first.Record, kept)
		}
	})
}

func TestLargeMessagesPassWholeAndOnTheBulkLane(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var size int
		h := echoHandler()
		h.merge = func(m MergeRequest, _ Meta, reply func(error)) { size = len(m.Record); reply(nil) }
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		for _, n := range []int{1, 1 << 10, 64 << 10, 1 << 20, 3 << 20, 10} {
			if err := r.merge([]byte(big(n)), Options{}); err != nil || size != n {
				t.Fatalf("a record of %d bytes: %d arrived, %v", n, size, err)
			}
		}
		if got := r.net.dialed(); got != 2 {
			t.Errorf("%d connections, want one per lane", got)
		}
		if m, err := r.read(big(100<<10), Options{}); err != nil || len(m.Record) != 100<<10 {
			t.Errorf("a reply of 100 KiB: %d bytes, %v", len(m.Record), err)
		}
	})
}

func TestAFramePastTheLimitIsRefusedWhereItArises(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &fakeHandler{read: func(m ReadRequest, _ Meta, reply func(ReadReply, error)) {
			reply(ReadReply{Record: make([]byte, 70<<10)}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{MaxFrameBytes: 64 << 10})
		_, err := r.read("k", Options{})
		wantErr(t, err, ErrTooLarge)
		for range 2 { // the first one before the bulk lane knows the peer's limit
			_, err = r.read(big(65<<10), Options{})
			wantErr(t, err, ErrTooLarge)
		}
		_, err = r.read(big(5<<20), Options{})
		wantErr(t, err, ErrTooLarge)
		if !r.peer.Up() {
			t.Error("a frame too large made the peer a suspect")
		}
	})
}
