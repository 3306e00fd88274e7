package resp

import (
	"crypto/tls"
	"net"
	"testing"
	"time"
)

// tcpPair is a connection over loopback, seen from both sides.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it has accepted what it was for
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

func TestAClientThatLeftIsNoticedBehindWhatItHasSent(t *testing.T) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"plain": func(c net.Conn) net.Conn { return c },
		"TLS":   func(c net.Conn) net.Conn { return tls.Server(c, &tls.Config{}) },
	} {
		client, server := tcpPair(t)
		_ = server.SetReadDeadline(time.Now().Add(-time.Second)) // one may be over
		if _, err := client.Write([]byte("PING\r\n")); err != nil {
			t.Fatal(err)
		}
		conn := wrap(server)
		if hungUp(conn) {
			t.Errorf("%s: said to have left", name)
		}
		_ = client.Close()
		for deadline := time.Now().Add(10 * time.Second); !hungUp(conn); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not noticed", name)
			}
		}
	}
}

// TestAWaitEndsWithItsClient has a client leave that waits for ever and has sent more.
func TestAWaitEndsWithItsClient(t *testing.T) {
	d := newDataDoor(t)
	client, server := tcpPair(t)
	d.srv.accept(server)
	c := newDataWire(t, client)
	c.do("SET", "k", "v")
	d.store.spread(owners(true, 0))
	until := func(what string, is func() bool) {
		for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not within 10 s:", what)
			}
		}
	}
	c.send([]string{"WAIT", "3", "0"})
	until("a look", func() bool { return len(d.store.looks()) > 0 })
	c.send([]string{"PING"}) // nobody reads it
	_ = client.Close()
	until("the end of the wait", func() bool { return d.srv.connected() == 0 })
}
