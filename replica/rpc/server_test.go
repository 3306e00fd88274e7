package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// greeted opens a connection of its own to the rig's server, as node 9.
func (r *rig) greeted(maxFrame uint32) net.Conn {
	r.t.Helper()
	conn, err := r.net.dial(r.ctx, "two")
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := greet(conn, helloTo2(maxFrame), time.Now().Add(time.Second)); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func helloTo2(maxFrame uint32) hello {
	return hello{min: protocolMin, max: protocolMax, cluster: testCluster, from: 9, to: 2, maxFrame: maxFrame}
}

// frame encodes one request frame.
func frame(h header, payload []byte) []byte {
	return appendTestFrame(nil, testFrame{h, payload}, protocolMax)
}

func readFrame(id uint64) []byte {
	return frame(header{kind: KindRead, id: id}, AppendReadRequest(nil, ReadRequest{Key: []byte("k")}))
}

func (r *rig) send(conn net.Conn, b []byte) {
	r.t.Helper()
	if _, err := conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func TestAServerDropsWhatNobodyWaitsForAnyMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		served := 0
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			if served++; served == 1 {
				time.Sleep(50 * time.Millisecond) // the others wait behind this one
			}
			reply(ReadReply{}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		pass(time.Second)
		conn := r.greeted(1 << 20)
		var batch []byte
		for id := range uint64(40) {
			deadline := uint32(0)
			if id >= 20 {
				deadline = 10
			}
			batch = append(batch, frame(header{kind: KindRead, id: id + 1, deadlineMS: deadline},
				AppendReadRequest(nil, ReadRequest{}))...)
		}
		r.send(conn, batch)
		pass(time.Second)
		if n := r.counter("rpc_requests_expired_total"); served != 20 || n != 20 {
			t.Errorf("%d served and %d dropped, want 20 and 20", served, n)
		}
	})
}

func TestAFullServerRefusesBackgroundFirst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var held []func(ReadReply, error)
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) { held = append(held, reply) }}
		r := newRig(t, h, PoolConfig{}, ServerConfig{MaxCalls: 16})
		refused := [classes]int{}
		fill := func(c Class) {
			for range 20 {
				r.peer.Read(ReadRequest{}, Options{Class: c}, func(_ ReadReply, err error) {
					if errors.Is(err, ErrOverloaded) {
						refused[c]++
					}
				})
			}
			synctest.Wait()
		}
		fill(Background)
		fill(Repair)
		fill(Foreground)
		if want := [classes]int{Foreground: 12, Repair: 16, Background: 16}; refused != want {
			t.Errorf("refused %v, want %v", refused, want)
		}
		for _, reply := range held {
			reply(ReadReply{}, nil)
		}
		synctest.Wait()
		held = nil
		fill(Background)
		if len(held) != 4 {
			t.Errorf("after the replies %d fit, want 4", len(held))
		}
		if !r.peer.Up() {
			t.Error("an overloaded peer is suspected")
		}
	})
}

func TestAFullServerRefusesByBytes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := mute()
		r := newRig(t, h, PoolConfig{}, ServerConfig{MaxFrameBytes: 64 << 10, MaxCallBytes: 256 << 10})
		refused := 0
		for range 10 {
			r.peer.Merge(MergeRequest{Record: make([]byte, 50<<10)}, Options{}, func(err error) {
				if errors.Is(err, ErrOverloaded) {
					refused++
				}
			})
		}
		synctest.Wait()
		if refused != 5 {
			t.Errorf("%d of 10 requests of 50 KiB refused, want 5", refused)
		}
	})
}

func TestACallerThatReadsNoRepliesIsHeldBackAndThenCutOff(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		served := 0
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			served++
			reply(ReadReply{Record: make([]byte, 1<<10)}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{MaxFrameBytes: 64 << 10, MaxBacklogBytes: 64 << 10})
		pass(time.Second)
		conn := r.greeted(64 << 10)
		var wg = make(chan error, 1)
		go func() { // some 100 MB of replies, in batches of at most 64 KiB of requests
			for id := uint64(1); ; {
				var batch []byte
				for range 64 {
					batch = append(batch, readFrame(id)...)
					id++
				}
				if _, err := conn.Write(batch); err != nil {
					wg <- err
					return
				}
			}
		}()
		pass(time.Second)
		if served > 2000 {
			t.Errorf("%d requests served for a caller that reads nothing", served)
		}
		pass(11 * time.Second)
		select {
		case <-wg:
		default:
			t.Error("the connection is still open after WriteTimeout")
		}
	})
}

func TestACallerThatReadsLateGetsEverythingAndIsHeldBackUntilThen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var held []func(ReadReply, error)
		served := 0
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			if served++; served <= 20 {
				held = append(held, reply)
				return
			}
			reply(ReadReply{}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{MaxFrameBytes: 64 << 10, MaxBacklogBytes: 64 << 10})
		pass(time.Second)
		conn := r.greeted(64 << 10)
		for id := range uint64(20) {
			r.send(conn, readFrame(id+1))
		}
		synctest.Wait()
		for _, reply := range held { // 64 KiB of them are on their way, the rest is backlog
			reply(ReadReply{Record: make([]byte, 10<<10)}, nil)
		}
		synctest.Wait()
		for id := range uint64(10) {
			r.send(conn, readFrame(id+21))
			synctest.Wait()
		}
		if served != 20 {
			t.Errorf("%d requests served before the backlog was read, want 20", served)
		}
		in := newFrameReader(conn, terms{protocolMax, 64 << 10})
		for answered := 0; answered < 30; {
			if err := in.fill(); err != nil {
				t.Fatalf("after %d replies: %v", answered, err)
			}
			for _, _, ok, _ := in.frame(); ok; _, _, ok, _ = in.frame() {
				answered++
			}
		}
	})
}

func TestAReplyMadeDuringAWriteIsSentAfterIt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var held func(ReadReply, error)
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			if held == nil {
				held = reply
				return
			}
			reply(ReadReply{Record: make([]byte, 100<<10)}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		pass(time.Second)
		conn := r.greeted(1 << 20)
		r.send(conn, append(readFrame(1), readFrame(2)...))
		synctest.Wait() // the reader writes, and waits because nothing is read
		held(ReadReply{}, nil)
		in := newFrameReader(conn, terms{protocolMax, 1 << 20})
		for _, want := range []uint64{2, 1} {
			if err := in.fill(); err != nil {
				t.Fatal(err)
			}
			if h, _, ok, err := in.frame(); !ok || err != nil || h.id != want {
				t.Errorf("reply to %d: %v, %v, want %d", h.id, ok, err, want)
			}
		}
	})
}

func TestAConnectionThatComesDuringTheStopIsRefused(t *testing.T) {
	s, err := NewServer(ServerConfig{Node: 2, ClusterID: testClusterID, Handler: echoHandler()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s.closeAll()
	if conn, _ := memPipe(); s.register(ctx, conn) {
		t.Error("a connection nobody will close is served")
	}
}

func TestLateRepliesPastTheBacklogCutTheCallerOff(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var held []func(ReadReply, error)
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) { held = append(held, reply) }}
		r := newRig(t, h, PoolConfig{}, ServerConfig{MaxFrameBytes: 64 << 10, MaxBacklogBytes: 64 << 10})
		pass(time.Second)
		conn := r.greeted(64 << 10)
		for id := range uint64(100) {
			r.send(conn, readFrame(id+1))
		}
		synctest.Wait()
		for _, reply := range held {
			reply(ReadReply{Record: make([]byte, 10<<10)}, nil)
		}
		synctest.Wait()
		if n := r.counter(`rpc_connections_closed_total{reason="backlog"}`); n != 1 {
			t.Errorf("%d connections cut off, want 1", n)
		}
		if n := r.server.calls.Load(); n != 0 {
			t.Errorf("%d requests still accounted for", n)
		}
	})
}

func TestRepliesOfOneReadLeaveInOneWrite(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		var batch []byte
		for id := range uint64(100) {
			batch = append(batch, readFrame(id+1)...)
		}
		conn := r.greeted(1 << 20)
		r.send(conn, batch)
		synctest.Wait()
		want := 100 * len(frame(header{kind: KindRead | replyBit}, AppendReadReply(nil, ReadReply{Record: []byte("k")})))
		if got, _ := conn.Read(make([]byte, 64<<10)); got != want {
			t.Errorf("one read brought %d bytes, want all %d", got, want)
		}
		if n := conn.(*memConn).in.writes(); n != 2 {
			t.Errorf("%d writes, want one for the handshake and one for the replies", n)
		}
	})
}

func TestAHandlerMayReplyAfterTheServerHasStopped(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var held func(ReadReply, error)
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) { held = reply }}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		r.peer.Read(ReadRequest{}, Options{}, func(ReadReply, error) {})
		synctest.Wait()
		r.kill()
		held(ReadReply{}, nil)
		if n := r.server.calls.Load(); n != 0 {
			t.Errorf("%d requests still accounted for", n)
		}
	})
}

func TestASecondReplyIsABrokenInvariant(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		caught := ""
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			reply(ReadReply{}, nil)
			defer func() { caught, _ = recover().(string) }()
			reply(ReadReply{}, nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		if _, err := r.read("k", Options{}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(caught, "second reply to read request") {
			t.Errorf("second reply: panic %q", caught)
		}
	})
}

func TestConnectionsPastTheLimitAreClosed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{MaxConns: 3})
		pass(time.Second)
		first := r.greeted(1 << 20)
		r.greeted(1 << 20)
		conn, err := r.net.dial(r.ctx, "two")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("fourth connection: %v, want it closed", err)
		}
		if n := r.counter(`rpc_connections_refused_total{reason="limit"}`); n != 1 {
			t.Errorf("%d refusals counted", n)
		}
		_ = first.Close()
		synctest.Wait()
		r.greeted(1 << 20)
	})
}

func TestASilentConnectionIsClosed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		begin := time.Now()
		conn := r.greeted(1 << 20)
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("an idle connection: %v", err)
		}
		if took := time.Since(begin); took < time.Minute || took > 2*time.Minute {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestAListenerThatFailsEndsServe(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, err := NewServer(ServerConfig{Node: 2, ClusterID: testClusterID, Handler: echoHandler()})
		if err != nil {
			t.Fatal(err)
		}
		ln := newMemNet().listen("x")
		_ = ln.Close()
		wantErr(t, s.Serve(t.Context(), ln), net.ErrClosed)
	})
}

func TestConfigurationFaultsAreReportedTogether(t *testing.T) {
	_, err := NewServer(ServerConfig{MaxFrameBytes: 1, MaxCalls: 1, IdleTimeout: -1})
	for _, want := range []string{"node", "cluster id", "handler", "max frame bytes (1)", "max calls (1)", "-1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("server: %v does not mention %q", err, want)
		}
	}
	_, err = NewPool(PoolConfig{MaxCalls: 1 << 20, MaxCallBytes: 5, SuspectAfter: -1, ProbeMin: -1, KeepAlive: -1})
	for _, want := range []string{"node", "cluster id", "dial", "max calls (1048576)", "max call bytes (5)", "suspect after (-1)", "probe waits", "-1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pool: %v does not mention %q", err, want)
		}
	}
}
