package rpc

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// tcpPair starts a server and a pool on the loopback interface and returns the
// pool's peer.
func tcpPair(tb testing.TB, h Handler) *Peer {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server, err := NewServer(ServerConfig{Node: 2, ClusterID: testClusterID, Handler: h})
	if err != nil {
		tb.Fatal(err)
	}
	pool, err := NewPool(PoolConfig{
		Node: 1, ClusterID: testClusterID,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(ctx, ln) })
	wg.Go(func() { _ = pool.Run(ctx) })
	tb.Cleanup(func() { stop(); wg.Wait() })
	return pool.Peer(ring.NodeID(2), ln.Addr().String())
}

func TestItWorksOverTCP(t *testing.T) {
	p := tcpPair(t, echoHandler())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				key := big(i * 50)
				done := make(chan struct{})
				p.Read(ReadRequest{Key: []byte(key)}, within(10*time.Second), func(m ReadReply, err error) {
					if err != nil || string(m.Record) != key {
						t.Errorf("read: %d bytes, %v", len(m.Record), err)
					}
					close(done)
				})
				<-done
			}
		})
	}
	wg.Wait()
}

// BenchmarkMerge sends records of 150 bytes over loopback TCP from so many
// callers. cpu-us/call is the processor time of both sides.
func BenchmarkMerge(b *testing.B) {
	for _, callers := range []struct {
		name string
		n    int
	}{{"1", 1}, {"16", 16}, {"64", 64}, {"512", 512}} {
		b.Run("callers="+callers.name, func(b *testing.B) { benchMerge(b, callers.n) })
	}
}

func benchMerge(b *testing.B, callers int) {
	p := tcpPair(b, echoHandler())
	m := MergeRequest{Key: []byte("key:000000000042"), Record: make([]byte, 150)}
	b.ReportAllocs()
	ready := make(chan error)
	p.Ping(Options{}, func(err error) { ready <- err })
	if err := <-ready; err != nil {
		b.Fatal(err)
	}
	before := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			done := make(chan error)
			reply := func(err error) { done <- err }
			for i := c; i < b.N; i += callers {
				p.Merge(m, Options{}, reply)
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/call")
}

// BenchmarkPipelined keeps 64 calls in flight without a goroutine for any of
// them: a reply's callback makes the next call.
func BenchmarkPipelined(b *testing.B) {
	merge := MergeRequest{Key: []byte("key:000000000042"), Record: make([]byte, 150)}
	read := ReadRequest{Key: make([]byte, 150)} // echoed as the record
	b.Run("merge", func(b *testing.B) {
		benchPipelined(b, echoHandler(), func(p *Peer, done func(error)) { p.Merge(merge, Options{}, done) })
	})
	b.Run("read", func(b *testing.B) {
		benchPipelined(b, echoHandler(), func(p *Peer, done func(error)) {
			p.Read(read, Options{}, func(_ ReadReply, err error) { done(err) })
		})
	})
	b.Run("merge-committed-elsewhere", func(b *testing.B) {
		queue := make(chan func(error), 1024)
		h := &fakeHandler{merge: func(_ MergeRequest, _ Meta, reply func(error)) { queue <- reply }}
		b.Cleanup(func() { close(queue) })
		go func() {
			for reply := range queue {
				reply(nil)
			}
		}()
		benchPipelined(b, h, func(p *Peer, done func(error)) { p.Merge(merge, Options{}, done) })
	})
}

func benchPipelined(b *testing.B, h Handler, call func(*Peer, func(error))) {
	p := tcpPair(b, h)
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	var left sync.WaitGroup
	for c := range 64 {
		calls := (b.N + 63 - c) / 64
		if calls == 0 {
			continue
		}
		left.Add(1)
		var reply func(error)
		reply = func(err error) {
			if err != nil {
				b.Error(err)
			}
			if calls--; calls == 0 {
				left.Done()
				return
			}
			call(p, reply)
		}
		call(p, reply)
	}
	left.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/call")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
