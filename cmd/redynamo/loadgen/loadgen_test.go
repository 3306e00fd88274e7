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
