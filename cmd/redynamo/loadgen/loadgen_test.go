package loadgen

import (
	"net"
	"strings"
	"testing"
)

func TestFillSaysWhyItWasRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer c.Close()
		_, _ = c.Write([]byte("-NOAUTH Authentication required.\r\n")) // Fill reports it
		_, _ = c.Read(make([]byte, 1<<16))
	}()
	err = Fill(t.Context(), Config{Addrs: []string{l.Addr().String()}, Keys: 1})
	want := "fill through " + l.Addr().String() + ": the server answers NOAUTH"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("fill: %v, want %q", err, want)
	}
}

func TestFillRepeatsWhatABusyServerDidNotTake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	batches := make(chan int, 10)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return // the test is over
		}
		defer c.Close()
		in := make([]byte, 1<<16)
		for _, answer := range []string{"+OK\r\n-UNCERTAIN acked 1/2\r\n", "-NOREPLICAS\r\n+OK\r\n", "+OK\r\n+OK\r\n"} {
			n, _ := c.Read(in)
			batches <- n
			_, _ = c.Write([]byte(answer)) // Fill reports it
		}
		_, _ = c.Read(in)
	}()
	if err := Fill(t.Context(), Config{Addrs: []string{l.Addr().String()}, Keys: 2}); err != nil {
		t.Error(err)
	}
	if len(batches) != 3 {
		t.Errorf("%d batches were sent", len(batches))
	}
	if a, b := <-batches, <-batches; a != b || a == 0 {
		t.Errorf("batches of %d and %d bytes: the second was to be the first again", a, b)
	}
}
