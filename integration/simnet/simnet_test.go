package simnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

const (
	hostA = "10.0.0.1"
	hostB = "10.0.0.2"
)

// pair is a connection from a to b, both ends.
func pair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen(hostB, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, err = n.Dial(context.Background(), hostA, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _, _ = near.Close(), far.Close(), l.Close()
	})
	return near, far
}

func readAll(t *testing.T, c net.Conn, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("read: %v", err)
	}
	return b
}

func TestBytesArriveInOrderAfterTheDelay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		seed := uint64(time.Now().UnixNano())
		n := New(Config{Seed: seed, Delay: 3 * time.Millisecond, Jitter: 5 * time.Millisecond, Window: 1000})
		near, far := pair(t, n)
		rnd := rand.New(rand.NewPCG(seed, 1))
		sent := make([]byte, 64<<10)
		for i := range sent {
			sent[i] = byte(rnd.Uint32())
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for rest := sent; len(rest) > 0; {
				k := min(len(rest), 1+rnd.IntN(3000))
				if _, err := near.Write(rest[:k]); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				rest = rest[k:]
			}
		})
		start := time.Now()
		first := readAll(t, far, 1)
		if waited := time.Since(start); waited < 3*time.Millisecond {
			t.Errorf("first byte after %v, before the delay", waited)
		}
		if got := append(first, readAll(t, far, len(sent)-1)...); !bytes.Equal(got, sent) {
			t.Errorf("seed %d: bytes differ", seed)
		}
		wg.Wait()
	})
}

func TestCloseGivesTheOtherEndWhatWasWrittenAndThenEOF(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := pair(t, New(Config{}))
		if _, err := near.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "last words" {
			t.Fatalf("read %q, %v", got, err)
		}
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		// The first write finds nobody; its reset comes a round trip later.
		_, _ = far.Write([]byte("anybody?"))
		time.Sleep(10 * time.Millisecond)
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to a closed end: %v", err)
		}
	})
}

func TestDeadlinesEndReadsAndWrites(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := pair(t, New(Config{Window: 10}))
		start := time.Now()
		_ = near.SetReadDeadline(start.Add(time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		_ = near.SetReadDeadline(time.Time{})
		_ = near.SetWriteDeadline(start.Add(3 * time.Second))
		n, err := near.Write(make([]byte, 11))
		if n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("write into a full window: %d, %v after %v", n, err, time.Since(start))
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v is no timeout", err)
		}
		readAll(t, far, 10)
		_ = near.SetWriteDeadline(time.Time{})
		if _, err := near.Write([]byte("x")); err != nil {
			t.Errorf("write after the deadline was cleared: %v", err)
		}
	})
}

func TestPartitionDelaysStreamsUntilItHealsAndTellsNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		near, far := pair(t, n)
		n.Partition([]string{hostA}, []string{hostB})
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = far.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read across a partition: %v", err)
		}
		_ = far.SetReadDeadline(time.Now().Add(3 * time.Second))
		n.Heal()
		if got := readAll(t, far, 5); string(got) != "hello" {
			t.Errorf("got %q", got)
		}
	})
}

func TestStalledConnectionIsOvertakenByALaterOne(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		near, far := pair(t, n)
		start := time.Now()
		n.Stall(hostA, hostB, 50*time.Second)
		if _, err := near.Write([]byte("early")); err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		later, there := pair(t, n)
		if _, err := later.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if readAll(t, there, 4); time.Since(start) > time.Second {
			t.Errorf("a new connection took %v", time.Since(start))
		}
		if got := readAll(t, far, 5); string(got) != "early" || time.Since(start) != 50*time.Second {
			t.Errorf("got %q after %v", got, time.Since(start))
		}
	})
}

func TestSenderGivesUpOnALongPartition(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		near, _ := pair(t, n)
		n.Cut(hostA, hostB)
		_, _ = near.Write([]byte("hello"))
		start := time.Now()
		_, err := near.Read(make([]byte, 1))
		if !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) < giveUp {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestVanishedHostIsSilentUntilItIsBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		near, far := pair(t, n)
		n.Crash(hostB)
		if _, err := far.Write([]byte("x")); err == nil {
			t.Error("the dead process writes")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := n.Dial(ctx, hostA, hostB+":1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial of a vanished host: %v", err)
		}
		_ = near.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read from a vanished host: %v", err)
		}
		_ = near.SetReadDeadline(time.Time{})
		n.Start(hostB)
		_, _ = near.Write([]byte("x"))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after the host came back: %v", err)
		}
		if _, err := n.Dial(context.Background(), hostA, hostB+":1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial of a host that listens to nothing: %v", err)
		}
	})
}

func TestKilledProcessResetsItsConnectionsAndFreesItsPorts(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		if _, err := n.Listen(hostB, 7); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen(hostB, 7); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: %v", err)
		}
		near, _ := pair(t, n)
		n.Kill(hostB)
		start := time.Now()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || time.Since(start) > time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		l, err := n.Listen(hostB, 7)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	})
}

// What a killed process left running in the test must not speak for the process
// that took its place.
func TestWhatIsLeftOfAnEndedProcessReachesNobody(t *testing.T) {
	for _, vanish := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			n := New(Config{})
			l, err := n.Listen(hostA, 7)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			far, err := n.Transport(hostA, 8)
			if err != nil {
				t.Fatal(err)
			}
			before := n.Host(hostB)
			gossip, err := n.Transport(hostB, 8)
			if err != nil {
				t.Fatal(err)
			}
			n.end(hostB, vanish)
			n.Start(hostB)
			if _, err := before.Dial(context.Background(), hostA+":7"); !errors.Is(err, syscall.ENETDOWN) {
				t.Errorf("vanished %v: dial: %v", vanish, err)
			}
			if _, err := before.Listen(context.Background(), ":9"); !errors.Is(err, syscall.ENETDOWN) {
				t.Errorf("vanished %v: listen: %v", vanish, err)
			}
			if _, err := gossip.WriteTo([]byte("x"), hostA+":8"); !errors.Is(err, syscall.ENETDOWN) {
				t.Errorf("vanished %v: packet: %v", vanish, err)
			}
			time.Sleep(time.Second)
			if len(far.PacketCh()) > 0 {
				t.Errorf("vanished %v: a packet arrived", vanish)
			}
			c, err := n.Host(hostB).Dial(context.Background(), hostA+":7")
			if err != nil {
				t.Fatalf("vanished %v: dial of the process that came next: %v", vanish, err)
			}
			_ = c.Close()
			_ = gossip.Shutdown()
			_ = far.Shutdown()
		})
	}
}

func TestNamesAreResolvedAtEachDial(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		l, err := n.Host("10.0.0.3").Listen(context.Background(), ":7")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n.Name("node", hostB)
		if _, err := n.Host(hostA).Dial(context.Background(), "node:7"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial of the old address: %v", err)
		}
		n.Name("node", "10.0.0.3")
		c, err := n.Host(hostA).Dial(context.Background(), "node:7")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if _, err := n.Resolve(context.Background(), "nobody"); err == nil {
			t.Error("a name nobody gave resolves")
		}
	})
}

func TestPacketsAreLostAtTheRateAskedFor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{Seed: 7, Loss: 0.25})
		a, err := n.Transport(hostA, 7946)
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.Transport(hostB, 7946)
		if err != nil {
			t.Fatal(err)
		}
		const sent = 1000
		for range sent {
			if _, err := a.WriteTo([]byte("ping"), hostB+":7946"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if got := len(b.PacketCh()); got < 700 || got > 800 {
			t.Errorf("%d of %d arrived with a loss of a quarter", got, sent)
		}
		n.SetDatagrams(Datagrams{})
		n.Cut(hostB, hostA)
		_, _ = b.WriteTo([]byte("ping"), hostA+":7946")
		time.Sleep(time.Second)
		if got := len(a.PacketCh()); got != 0 {
			t.Errorf("%d packets crossed a cut", got)
		}
		_, _ = a.Shutdown(), b.Shutdown()
	})
}

func TestTransportCarriesStreamsAndShutsDownCleanly(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		a, _ := n.Transport(hostA, 7946)
		b, _ := n.Transport(hostB, 7946)
		out, err := a.DialTimeout(hostB+":7946", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		in := <-b.StreamCh()
		_, _ = out.Write([]byte("hi"))
		if got := readAll(t, in, 2); string(got) != "hi" {
			t.Errorf("got %q", got)
		}
		_, _ = out.Close(), in.Close()
		n.Crash(hostB)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.DialTimeout(hostB+":7946", time.Hour); err == nil {
				t.Error("dialled a vanished host")
			}
		})
		time.Sleep(time.Second)
		start := time.Now()
		_, _ = a.Shutdown(), b.Shutdown()
		wg.Wait()
		if time.Since(start) > time.Second {
			t.Errorf("shutdown left a dial waiting for %v", time.Since(start))
		}
	})
}

// TestPacketsComeLateAndTwiceAndStreamsDoNot sends numbered packets and bytes.
func TestPacketsComeLateAndTwiceAndStreamsDoNot(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{Seed: 7})
		a, err := n.Transport(hostA, 7946)
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.Transport(hostB, 7946)
		if err != nil {
			t.Fatal(err)
		}
		near, far := pair(t, n)
		const sent = 250
		n.SetDatagrams(Datagrams{Twice: 0.2, Late: 0.3, Delay: 10 * time.Second})
		stream := make([]byte, sent)
		for i := range sent {
			stream[i] = byte(i)
			if _, err := a.WriteTo([]byte{byte(i)}, hostB+":7946"); err != nil {
				t.Fatal(err)
			}
			if _, err := near.Write(stream[i : i+1]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if got := readAll(t, far, sent); !bytes.Equal(got, stream) {
			t.Error("a stream was touched")
		}
		time.Sleep(11 * time.Second)
		times, overtaken, last := map[byte]int{}, 0, byte(0)
		for range len(b.PacketCh()) {
			p := <-b.PacketCh()
			times[p.Buf[0]]++
			if p.Buf[0] < last {
				overtaken++
			}
			last = p.Buf[0]
		}
		twice := 0
		for _, k := range times {
			if k > 1 {
				twice++
			}
		}
		if len(times) != sent || twice < sent/10 || twice > sent*3/10 || overtaken < sent/10 {
			t.Errorf("of %d packets %d came, %d twice, %d behind a later one", sent, len(times), twice, overtaken)
		}
		if st := n.Stats(); int(st.PacketsTwice) != twice || st.PacketsLate == 0 {
			t.Errorf("counted %d twice, %d late", st.PacketsTwice, st.PacketsLate)
		}
		_, _ = a.Shutdown(), b.Shutdown()
	})
}

// TestShapesOfPartitions counts whom each host reaches.
func TestShapesOfPartitions(t *testing.T) {
	for hosts := 4; hosts <= 9; hosts++ {
		names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"}[:hosts]
		sees := func(n *Network) map[string]string {
			views := map[string]string{}
			for _, from := range names {
				for _, to := range names {
					if n.passes(from, to) != n.passes(to, from) {
						t.Errorf("%d hosts: a cut from %s to %s is one way", hosts, from, to)
					}
					if n.passes(from, to) {
						views[from] += to
					}
				}
			}
			return views
		}
		n := New(Config{})
		n.Ring(names...)
		views, once := sees(n), map[string]bool{}
		for _, v := range views {
			once[v] = true
			if len(v) <= hosts/2 {
				t.Errorf("%d hosts: a view of a ring is %s, no majority", hosts, v)
			}
			if hosts > 4 && len(v) == hosts {
				t.Errorf("%d hosts: a view of a ring is %s, all", hosts, v)
			}
		}
		if hosts > 4 && len(once) != hosts {
			t.Errorf("%d hosts: a ring has the views %v", hosts, views)
		}
		n = New(Config{})
		n.Bridge(names...)
		views = sees(n)
		if all := views[names[0]]; len(all) != hosts {
			t.Errorf("%d hosts: the bridge sees %s", hosts, all)
		}
		for _, from := range names[1:] {
			if v := views[from]; len(v) > hosts/2+1 || v[0] != names[0][0] {
				t.Errorf("%d hosts: at a bridge %s sees %s", hosts, from, v)
			}
		}
	}
}

// TestASlowLinkIsSlowOneWay sends packets both ways.
func TestASlowLinkIsSlowOneWay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(Config{})
		a, err := n.Transport(hostA, 7946)
		if err != nil {
			t.Fatal(err)
		}
		b, err := n.Transport(hostB, 7946)
		if err != nil {
			t.Fatal(err)
		}
		took := func(from, to *Transport) time.Duration {
			begin := time.Now()
			if _, err := from.WriteTo([]byte("ping"), to.addr.String()); err != nil {
				t.Fatal(err)
			}
			return (<-to.PacketCh()).Timestamp.Sub(begin)
		}
		n.SlowLink(hostA, hostB, time.Second)
		if there, back := took(a, b), took(b, a); there < time.Second || back > time.Millisecond {
			t.Errorf("a slow link took %v, the way back %v", there, back)
		}
		n.HealSlow()
		if there := took(a, b); there > time.Millisecond {
			t.Errorf("a healed link took %v", there)
		}
		_, _ = a.Shutdown(), b.Shutdown()
	})
}
