package rpc

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// hostileFrames are requests no caller sends.
func hostileFrames() map[string][]byte {
	badCRC := readFrame(1)
	badCRC[len(badCRC)-1] ^= 1
	short, huge := readFrame(1), readFrame(1)
	binary.BigEndian.PutUint32(short, bodyBytes-1)
	binary.BigEndian.PutUint32(huge, 0xffffffff)
	badKey := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 'k'}
	noEpochs := frame(header{kind: KindWrite, id: 1}, make([]byte, len(Epochs{})-1))
	noEpochs[8] = byte(KindScan)
	sealFrame(noEpochs)
	return map[string][]byte{
		"epochs cut off":    noEpochs,
		"checksum":          badCRC,
		"length too small":  short,
		"length too large":  huge,
		"http":              []byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n"),
		"kind 0":            frame(header{kind: 0, id: 1}, nil),
		"unknown kind":      frame(header{kind: lastKind + 1, id: 1}, nil),
		"reply":             frame(header{kind: KindRead | replyBit, id: 1}, []byte{1}),
		"class":             frame(header{kind: KindPing, class: classes, id: 1}, nil),
		"id 0":              readFrame(0),
		"id repeated":       append(readFrame(5), readFrame(5)...),
		"id gone back":      append(readFrame(5), readFrame(4)...),
		"ping with payload": frame(header{kind: KindPing, id: 1}, []byte{0}),
		"payload cut off":   frame(header{kind: KindRead, id: 1}, badKey),
		"channel cut off":   frame(header{kind: KindPublish, id: 1}, []byte{0, 0xff, 0xff, 0xff, 0xff, 'c'}),
		"unknown flag":      frame(header{kind: KindPublish, id: 1}, []byte{2, 0, 0, 0, 1, 'c'}),
		"payload too long":  frame(header{kind: KindStatus, id: 1}, []byte{0}),
	}
}

func TestABadFrameClosesItsConnectionAndNothingElse(t *testing.T) {
	for name, bad := range hostileFrames() {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
				if _, err := r.read("k", Options{}); err != nil {
					t.Fatal(err)
				}
				conn := r.greeted(1 << 20)
				r.send(conn, bad)
				synctest.Wait()
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Errorf("connection: %v, want it closed", err)
				}
				if n := r.counter(`rpc_bad_frames_total{side="server"}`); n != 1 {
					t.Errorf("%d bad frames counted, want 1", n)
				}
				if _, err := r.read("k", Options{}); err != nil || r.net.dialed() != 2 {
					t.Errorf("the other connection: %v, %d dials", err, r.net.dialed())
				}
				if n := r.server.calls.Load(); n != 0 {
					t.Errorf("%d requests still accounted for", n)
				}
			})
		})
	}
}

func TestACutOffFrameIsNotServed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		served := 0
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) { served++; reply(ReadReply{}, nil) }}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		synctest.Wait()
		whole := readFrame(1)
		for n := range whole {
			conn := r.greeted(1 << 20)
			r.send(conn, whole[:n])
			_ = conn.Close()
		}
		conn := r.greeted(1 << 20)
		for i := range whole { // byte by byte it is whole in the end
			r.send(conn, whole[i:i+1])
			synctest.Wait()
		}
		if served != 1 {
			t.Errorf("%d requests served, want 1", served)
		}
	})
}

func TestRandomDamageNeverStopsTheServer(t *testing.T) {
	seed := rand.Uint64()
	bubble.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		synctest.Wait()
		for range 300 {
			var b []byte
			for id := range uint64(1 + rng.IntN(5)) {
				b = append(b, readFrame(id+1)...)
			}
			for range 1 + rng.IntN(3) {
				b[rng.IntN(len(b))] = byte(rng.Uint32())
			}
			if rng.IntN(2) == 0 {
				binary.BigEndian.PutUint32(b[4:], checksum(b[prefixBytes:len(readFrame(1))]))
			}
			conn := r.greeted(1 << 20)
			r.send(conn, b)
			synctest.Wait()
			_ = conn.Close()
		}
		if _, err := r.read("k", Options{}); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	})
}

func TestAnAnnouncedLengthAllocatesNothing(t *testing.T) {
	a, b := memPipe()
	head := binary.BigEndian.AppendUint32(nil, 4<<20-prefixBytes)
	if _, err := a.Write(append(head, make([]byte, 100)...)); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	r := newFrameReader(b, terms{protocolMax, 4 << 20})
	if err := r.fill(); err != io.ErrUnexpectedEOF {
		t.Errorf("cut off frame: %v", err)
	}
	if len(r.buf) != readBufferBytes {
		t.Errorf("buffer grew to %d bytes for 104 that came", len(r.buf))
	}
}

func TestAReadBufferGrowsForALargeFrameAndShrinksAfterIt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a, b := memPipe()
		go func() {
			_, _ = a.Write(frame(header{kind: KindMerge, id: 1}, make([]byte, 1<<20)))
			_, _ = a.Write(readFrame(2))
			_ = a.Close()
		}()
		r := newFrameReader(b, terms{protocolMax, 4 << 20})
		for id, size := range map[uint64]int{1: 1 << 20} {
			if err := r.fill(); err != nil {
				t.Fatal(err)
			}
			h, payload, ok, err := r.frame()
			if !ok || err != nil || h.id != id || len(payload) != size {
				t.Fatalf("frame %d of %d bytes: %v, %v", h.id, len(payload), ok, err)
			}
		}
		if err := r.fill(); err != nil {
			t.Fatal(err)
		}
		if h, _, ok, err := r.frame(); !ok || err != nil || h.id != 2 || len(r.buf) != readBufferBytes {
			t.Errorf("next frame %d: %v, %v, buffer of %d bytes", h.id, ok, err, len(r.buf))
		}
	})
}

// impostor takes the rig's connections, greets them properly and answers the
// first request with what reply makes of its header.
func (r *rig) impostor(reply func(header) []byte) {
	ln := r.net.listen("two")
	r.wg.Go(func() {
		<-r.ctx.Done()
		_ = ln.Close()
	})
	r.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.impersonate(conn, reply) })
		}
	})
}

func (r *rig) impersonate(conn net.Conn, reply func(header) []byte) {
	defer conn.Close()
	h, err := readHello(conn)
	if err != nil {
		r.t.Error(err)
		return
	}
	answer, _ := admit(h, hello{min: protocolMin, max: protocolMax, cluster: testCluster, from: 2, maxFrame: 1 << 20})
	_, _ = conn.Write(appendHello(nil, answer))
	f := newFrameReader(conn, terms{protocolMax, 1 << 20})
	if f.fill() != nil {
		return
	}
	q, _, _, err := f.frame()
	if err != nil {
		r.t.Error(err)
		return
	}
	_, _ = conn.Write(reply(q))
	_, _ = io.Copy(io.Discard, conn)
}

func TestABadReplyEndsTheCallsOfItsConnection(t *testing.T) {
	same := AppendReadReply(nil, ReadReply{Same: true})
	for name, reply := range map[string]func(header) []byte{
		"other id":       func(q header) []byte { return frame(header{kind: q.kind | replyBit, id: q.id + 1<<slotBits}, same) },
		"id 0":           func(q header) []byte { return frame(header{kind: q.kind | replyBit}, same) },
		"no such slot":   func(q header) []byte { return frame(header{kind: q.kind | replyBit, id: q.id + 9}, same) },
		"other kind":     func(q header) []byte { return frame(header{kind: KindMerge | replyBit, id: q.id}, same) },
		"request":        func(q header) []byte { return frame(header{kind: q.kind, id: q.id}, same) },
		"unknown kind":   func(q header) []byte { return frame(header{kind: 0xf0, id: q.id}, same) },
		"class":          func(q header) []byte { return frame(header{kind: q.kind | replyBit, class: 7, id: q.id}, same) },
		"payload":        func(q header) []byte { return frame(header{kind: q.kind | replyBit, id: q.id}, []byte{9}) },
		"no payload":     func(q header) []byte { return frame(header{kind: q.kind | replyBit, id: q.id}, nil) },
		"error payload":  func(q header) []byte { return frame(header{kind: kindError, id: q.id}, nil) },
		"garbage":        func(header) []byte { return bytes.Repeat([]byte{0xff}, 100) },
		"frame too long": func(header) []byte { return binary.BigEndian.AppendUint32(nil, 1<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRigWith(t, PoolConfig{}, func(r *rig) { r.impostor(reply) })
				_, err := r.read("k", Options{})
				if err != ErrClosed {
					t.Errorf("call ended with %v", err)
				}
				synctest.Wait()
				r.wantChanges(false)
				if n := r.counter(`rpc_bad_frames_total{side="client"}`); n != 1 {
					t.Errorf("%d bad frames counted, want 1", n)
				}
			})
		})
	}
}

func TestARepeatedReplyIsLateAndCompletesNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRigWith(t, PoolConfig{}, func(r *rig) {
			r.impostor(func(q header) []byte {
				return bytes.Repeat(frame(header{kind: q.kind | replyBit, id: q.id}, []byte{flagSame}), 3)
			})
		})
		if m, err := r.read("k", Options{}); err != nil || !m.Same {
			t.Fatalf("read: %+v, %v", m, err)
		}
		synctest.Wait()
		if n := r.counter("rpc_late_replies_total"); n != 2 || !r.peer.Up() {
			t.Errorf("%d late replies, want 2; up: %v", n, r.peer.Up())
		}
	})
}

func TestHelloThatDoesNotFitIsRefused(t *testing.T) {
	fits := helloTo2(1 << 20)
	change := func(f func(*hello)) []byte {
		h := fits
		f(&h)
		return appendHello(nil, h)
	}
	damaged := appendHello(nil, fits)
	damaged[20] ^= 1
	magic := appendHello(nil, fits)
	magic[0] ^= 1
	for name, c := range map[string]struct {
		says []byte
		mark int // in the answer; -1 for none
	}{
		"version":     {change(func(h *hello) { h.min, h.max = protocolMax+1, protocolMax+2 }), int(refusedVersion)},
		"former":      {change(func(h *hello) { h.min, h.max = 3, 3 }), int(refusedVersion)},
		"no version":  {change(func(h *hello) { h.min, h.max = 2, 1 }), int(refusedVersion)},
		"cluster":     {change(func(h *hello) { h.cluster[0]++ }), int(refusedCluster)},
		"node":        {change(func(h *hello) { h.to = 3 }), int(refusedNode)},
		"nobody":      {change(func(h *hello) { h.from = 0 }), int(refusedHello)},
		"lane":        {change(func(h *hello) { h.mark = 2 }), int(refusedHello)},
		"frame limit": {change(func(h *hello) { h.maxFrame = 10 }), int(refusedHello)},
		"damaged":     {damaged, -1},
		"magic":       {magic, -1},
		"http":        {[]byte("GET / HTTP/1.1\r\nHost: 10.0.0.1:7000\r\nUser-Agent: curl\r\n\r\n"), -1},
		"cut off":     {damaged[:30], -1},
		"silence":     {nil, -1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
				synctest.Wait()
				conn, err := r.net.dial(r.ctx, "two")
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				r.send(conn, c.says)
				answer, err := io.ReadAll(conn)
				if err != nil || time.Since(begin) > 5*time.Second {
					t.Fatalf("after %v: %v", time.Since(begin), err)
				}
				got := -1
				if h, err := decodeHello(answer); err == nil {
					got = int(h.mark)
				}
				if got != c.mark {
					t.Errorf("answer %x, want mark %d", answer, c.mark)
				}
				if n := r.counter(`rpc_connections_refused_total{reason="handshake"}`); n != 1 {
					t.Errorf("%d refusals counted", n)
				}
			})
		})
	}
}

func TestAnAnswerThatDoesNotFitIsRefused(t *testing.T) {
	h := helloTo2(1 << 20)
	good, err := admit(h, hello{min: protocolMin, max: protocolMax, cluster: testCluster, from: 2, maxFrame: 1 << 20})
	if err != nil || good.verdict(h) != nil {
		t.Fatalf("a good answer: %v, %v", err, good.verdict(h))
	}
	for name, f := range map[string]func(*hello){
		"version":     func(a *hello) { a.min, a.max = protocolMax+1, protocolMax+1 },
		"no choice":   func(a *hello) { a.min = 0 },
		"cluster":     func(a *hello) { a.cluster[3]++ },
		"node":        func(a *hello) { a.from = 3 },
		"refusal":     func(a *hello) { a.mark = refusedHello },
		"unknown":     func(a *hello) { a.mark = 77 },
		"frame limit": func(a *hello) { a.maxFrame = 1 },
	} {
		a := good
		f(&a)
		wantErr(t, a.verdict(h), errRefused)
		if a.verdict(h) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTheNewestCommonVersionIsSpoken(t *testing.T) {
	for _, c := range []struct {
		aMin, aMax, bMin, bMax, want uint16
		ok                           bool
	}{
		{1, 1, 1, 1, 1, true}, {1, 3, 2, 5, 3, true}, {2, 5, 1, 3, 3, true}, {4, 4, 1, 9, 4, true},
		{1, 2, 3, 4, 0, false}, {3, 4, 1, 2, 0, false}, {2, 1, 1, 2, 0, false}, {1, 2, 2, 1, 0, false},
	} {
		got, ok := negotiate(c.aMin, c.aMax, c.bMin, c.bMax)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%d-%d with %d-%d: %d, %v", c.aMin, c.aMax, c.bMin, c.bMax, got, ok)
		}
	}
}

func TestAWrongNodeAtTheAddressIsASuspect(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		stranger := r.pool.Peer(3, "two")
		synctest.Wait()
		if stranger.Up() || !r.peer.Up() {
			t.Errorf("node 3 at node 2's address is up: %v, node 2: %v", stranger.Up(), r.peer.Up())
		}
	})
}
