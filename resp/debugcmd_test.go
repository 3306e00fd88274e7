package resp

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func debugging(t *testing.T, mode DebugMode) func(*Config) {
	return func(cfg *Config) { cfg.Access = mustAccess(t, AccessConfig{Debug: mode}) }
}

func TestDebugIsForWhomTheNodeSays(t *testing.T) {
	if _, err := NewAccess(AccessConfig{Debug: "maybe"}); err == nil || !strings.Contains(err.Error(), `"maybe"`) {
		t.Errorf("an unknown mode: %v", err)
	}
	for _, x := range []struct {
		mode DebugMode
		want string
	}{{"", "-" + errDebug + "\r\n"}, {DebugNo, "-" + errDebug + "\r\n"}, {DebugLocal, "-" + errDebug + "\r\n"}, {DebugYes, "+OK\r\n"}} {
		c := newDataDoor(t, debugging(t, x.mode)).connect() // over no network
		if got := c.do("DEBUG", "JMAP"); got != x.want {
			t.Errorf("mode %q: %q, want %q", x.mode, got, x.want)
		}
		want := string(x.mode)
		if want == "" {
			want = "no"
		}
		c.expect("*2\r\n$20\r\nenable-debug-command\r\n$"+strconv.Itoa(len(want))+"\r\n"+want+"\r\n", "CONFIG", "GET", "enable-debug-command")
	}
	for text, want := range map[string]bool{"127.0.0.1": true, "::1": true, "10.0.0.1": false, "::ffff:127.0.0.2": true} {
		if got := isLocal(&net.TCPAddr{IP: net.ParseIP(text)}); got != want {
			t.Errorf("%s is local: %v", text, got)
		}
	}
}

func TestDebugSleepHoldsUpOneConnection(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDataDoor(t, debugging(t, DebugYes))
		a, b := d.connect(), d.connect()
		began := time.Now()
		a.send([]string{"PING"}, []string{"DEBUG", "SLEEP", "2.5"}, []string{"PING"})
		synctest.Wait()
		if got := a.receive(); got != "+PONG\r\n" || time.Since(began) > 0 {
			t.Errorf("what came before is answered %q after %v", got, time.Since(began))
		}
		b.expect("+PONG\r\n", "PING")
		if got := a.receive() + a.receive(); got != "+OK\r\n+PONG\r\n" || time.Since(began) != 2500*time.Millisecond {
			t.Errorf("%q after %v", got, time.Since(began))
		}
		for _, number := range []string{"-1", "NaN", "+Inf", "3600.1"} {
			a.expect("-ERR seconds must be between 0 and 3600\r\n", "DEBUG", "SLEEP", number)
		}
		a.expect("-ERR value is not a valid float\r\n", "DEBUG", "SLEEP", "soon")
		a.expect("+OK\r\n", "DEBUG", "sleep", "0")
		for _, words := range []string{"DEBUG SLEEP", "DEBUG SEGFAULT", "DEBUG JMAP 1"} {
			sub := strings.Fields(words)[1]
			a.expect("-"+subcommandText(sub, "DEBUG")+"\r\n", strings.Fields(words)...)
		}
		if got := a.do("DEBUG", "HELP"); !strings.HasPrefix(got, "*7\r\n") {
			t.Errorf("HELP: %q", got)
		}
		a.send([]string{"DEBUG", "SLEEP", "3600"})
		synctest.Wait()
		b.expect(":1\r\n", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		if _, err := a.r.ReadByte(); err == nil || time.Since(began) > 3*time.Second {
			t.Errorf("a killed connection sleeps on: %v, after %v", err, time.Since(began))
		}
		b.send([]string{"DEBUG", "SLEEP", "3600"})
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- d.srv.Shutdown(context.Background()) }()
		if got := b.receive(); got != "+OK\r\n" || time.Since(began) > 4*time.Second {
			t.Errorf("a server that ends wakes a sleeper with %q, after %v", got, time.Since(began))
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
