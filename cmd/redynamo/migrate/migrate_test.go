package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redynamo/redynamo/resp/rdb"
)

// server is a redis-server of the test's own: SET with NX and PXAT, and SCAN, are the
// same here and there.
type server struct {
	*redis.Client
	addr, file string
}

func startServer(t *testing.T, flags ...string) server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("REDYNAMO_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	for range 5 { // somebody may have been faster to take the port
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		_ = l.Close() // only asked whether it is free
		cmd := exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", ""}, flags...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // killed
			close(ended)
		}()
		s := server{redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1}), addr, filepath.Join(dir, "dump.rdb")}
		t.Cleanup(func() {
			_ = s.Close() // the test is over
			_ = cmd.Process.Kill()
			<-ended
		})
		if s.up(t, ended) {
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return server{}
}

func (s server) up(t *testing.T, ended <-chan struct{}) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.Ping(t.Context()).Err(); err == nil || isReply(err) {
			return true
		}
		select {
		case <-ended:
			return false
		case <-tick.C:
		}
	}
}

func (s server) do(t *testing.T, words ...string) any {
	t.Helper()
	args := make([]any, len(words))
	for i, w := range words {
		args[i] = w
	}
	got, err := s.Do(t.Context(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatalf("%v: %v", words, err)
	}
	return got
}

// bench is a source with some keys, as a server and as a file, and a target.
func bench(t *testing.T) (from, to server) {
	from, to = startServer(t), startServer(t)
	for i := range 1000 {
		from.do(t, "SET", fmt.Sprint("k:", i), fmt.Sprint("new ", i))
	}
	from.do(t, "PEXPIREAT", "k:7", "4000000000000")
	from.do(t, "SET", "long", strings.Repeat("x", 2000))
	from.do(t, "SADD", "set", "a")
	from.do(t, "SAVE")
	to.do(t, "SET", "k:1", "old")
	return from, to
}

// ways are a config for each kind of source.
func ways(t *testing.T, from, to server) map[string]Config {
	ways := map[string]Config{}
	for _, way := range []string{"file", "server"} {
		state := filepath.Join(t.TempDir(), "state")
		c := Config{To: Endpoint{Addrs: []string{to.addr}}, State: state, Report: state + ".report", MaxValue: 1000, Conns: 3}
		if way == "file" {
			c.File = from.file
		} else {
			c.From.Addrs = []string{from.addr}
		}
		ways[way] = c
	}
	return ways
}

func TestKeysThatAreThereAreKeptOrReplaced(t *testing.T) {
	from, to := bench(t)
	for way, cfg := range ways(t, from, to) {
		for _, replace := range []bool{false, true} {
			to.do(t, "FLUSHALL")
			to.do(t, "SET", "k:1", "old")
			cfg.Replace = replace
			counts, err := Run(t.Context(), cfg)
			want, kept := any("old"), int64(1)
			if replace {
				want, kept = "new 1", 0
			}
			if err != nil || counts.Kept != kept || counts.Written != 1000-kept || counts.Missing() != 2 || counts.Seen() != 1002 {
				t.Errorf("%s, replace %t: %+v, %v", way, replace, counts, err)
			}
			if got := to.do(t, "GET", "k:1"); got != want {
				t.Errorf("%s, replace %t: %v", way, replace, got)
			}
			if got := to.do(t, "PEXPIRETIME", "k:7"); got != int64(4_000_000_000_000) {
				t.Errorf("%s: k:7 ends at %v", way, got)
			}
			if got := to.do(t, "DBSIZE"); got != int64(1000) {
				t.Errorf("%s: %v keys", way, got)
			}
			report, err := os.ReadFile(cfg.Report)
			if err != nil || !strings.Contains(string(report), "set\t\"set\"\tof a type") || !strings.Contains(string(report), "string\t\"long\"\t2000 bytes are too long") {
				t.Errorf("%s: %v\n%s", way, err, report)
			}
		}
	}
}

func TestPatternsAndDryRuns(t *testing.T) {
	from, to := bench(t)
	for way, cfg := range ways(t, from, to) {
		to.do(t, "FLUSHALL")
		cfg.Match = "k:[1]?"
		if counts, err := Run(t.Context(), cfg); err != nil || counts.Written != 10 || counts.Missing() != 0 {
			t.Errorf("%s: %+v, %v", way, counts, err)
		}
		cfg.Match, cfg.DryRun, cfg.To.Addrs = "", true, nil
		counts, err := Run(t.Context(), cfg)
		if err != nil || counts.Types["string"].Keys != 1001 || counts.Types["string"].Bytes < 2000 || counts.Types["set"].Keys != 1 || counts.Written != 0 {
			t.Errorf("%s: %+v, %v", way, counts, err)
		}
		if got := to.do(t, "DBSIZE"); got != int64(10) {
			t.Errorf("%s: %v keys", way, got)
		}
		if _, err := os.Stat(cfg.State); !os.IsNotExist(err) {
			t.Errorf("%s: there is a state: %v", way, err)
		}
	}
}

// TestAnImportThatIsStoppedGoesOn stops imports after some progress, again and again.
func TestAnImportThatIsStoppedGoesOn(t *testing.T) {
	from, to := bench(t)
	for way, cfg := range ways(t, from, to) {
		to.do(t, "FLUSHALL")
		runs, seen := 0, int64(0)
		for ; ; runs++ {
			ctx, stop := context.WithCancel(t.Context())
			cfg.Progress = func(_ float64, c *Counts) {
				if c.Seen() > seen {
					stop()
				}
			}
			counts, err := Run(ctx, cfg)
			stop()
			if err == nil {
				if counts.Written+counts.Kept < 1000 || counts.Missing() < 2 || counts.Missing() > 4 || way == "file" && counts.Seen() != 1002 {
					t.Errorf("%s: %+v", way, counts)
				}
				break
			}
			if !errors.Is(err, context.Canceled) || counts.Seen() <= seen {
				t.Fatalf("%s: %+v, %v", way, counts, err)
			}
			seen = counts.Seen()
			if _, err := Run(t.Context(), with(cfg, func(c *Config) { c.Match = "x*" })); !errors.Is(err, errOther) {
				t.Errorf("%s: another pattern: %v", way, err)
			}
		}
		if runs < 2 {
			t.Errorf("%s: %d runs: nothing was stopped", way, runs)
		}
		if got := to.do(t, "DBSIZE"); got != int64(1000) {
			t.Errorf("%s: %v keys", way, got)
		}
	}
}

func with(c Config, change func(*Config)) Config {
	change(&c)
	return c
}

// TestACursorOfAnotherProcessIsNotUsed has a state of a server that was started anew, and
// a file that is another one.
func TestACursorOfAnotherProcessIsNotUsed(t *testing.T) {
	from, to := bench(t)
	for way, cfg := range ways(t, from, to) {
		to.do(t, "FLUSHALL")
		id := Identity{Source: from.addr, Run: "another"}
		if way == "file" {
			id = Identity{Source: from.file, Version: "another"}
		}
		old := state{Format: stateFormat, Identity: id, Mark: mark{Cursor: 3, File: &rdb.Position{Version: 10, Offset: 1 << 20}}, Counts: Counts{Written: 5}}
		if err := old.save(cfg.State); err != nil {
			t.Fatal(err)
		}
		if way == "file" {
			if _, err := Run(t.Context(), cfg); !errors.Is(err, io.EOF) && !errors.Is(err, errOther) {
				t.Errorf("another file: %v", err)
			}
			cfg.Restart = true
		}
		if counts, err := Run(t.Context(), cfg); err != nil || counts.Written != 1000 {
			t.Errorf("%s: %+v, %v", way, counts, err)
		}
	}
}

// TestWhatPassesIsTriedAgainElsewhere has an address where nobody is, one that refuses
// writes for a while, and one that takes none at all.
func TestWhatPassesIsTriedAgainElsewhere(t *testing.T) {
	from, to := bench(t)
	busy := startServer(t)
	busy.do(t, "CONFIG", "SET", "min-replicas-to-write", "1") // NOREPLICAS
	for way, cfg := range ways(t, from, to) {
		cfg.To.Addrs = []string{"127.0.0.1:1", busy.addr, to.addr}
		to.do(t, "FLUSHALL")
		if counts, err := Run(t.Context(), cfg); err != nil || counts.Written != 1000 {
			t.Errorf("%s: %+v, %v", way, counts, err)
		}
		cfg.To.Addrs, cfg.Patience = []string{busy.addr}, time.Millisecond
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "nothing is taken") {
			t.Errorf("%s: %v", way, err)
		}
		cfg.To.Password = "wrong"
		if _, err := Run(t.Context(), with(cfg, func(c *Config) { c.Restart = true })); err == nil {
			t.Errorf("%s: with a wrong password: %v", way, err)
		}
		cfg.To = Endpoint{Addrs: []string{"127.0.0.1:1"}}
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
			t.Errorf("%s: nobody there: %v", way, err)
		}
	}
}

func TestADamagedFileIsImportedUpToTheDamage(t *testing.T) {
	from, to := bench(t)
	to.do(t, "FLUSHALL")
	cfg := ways(t, from, to)["file"]
	whole, err := os.ReadFile(cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	cfg.File = filepath.Join(t.TempDir(), "cut.rdb")
	if err := os.WriteFile(cfg.File, whole[:len(whole)*3/4], 0o600); err != nil {
		t.Fatal(err)
	}
	counts, err := Run(t.Context(), cfg)
	if !errors.Is(err, io.ErrUnexpectedEOF) || counts.Written < 256 {
		t.Errorf("%+v, %v", counts, err)
	}
}

func TestServersThatDoNotKnowTheEndOfAKeyAreAskedForTheTimeLeft(t *testing.T) {
	from, to := startServer(t, "--rename-command", "PEXPIRETIME", ""), startServer(t)
	from.do(t, "SET", "k", "v", "PX", "100000")
	from.do(t, "SET", "l", "v")
	cfg := ways(t, from, to)["server"]
	if counts, err := Run(t.Context(), cfg); err != nil || counts.Written != 2 {
		t.Errorf("%+v, %v", counts, err)
	}
	a, b := from.do(t, "PTTL", "k").(int64), to.do(t, "PTTL", "k").(int64)
	if b < a-20_000 || b > a+1000 || to.do(t, "PTTL", "l") != int64(-1) {
		t.Errorf("%d ms left there, %d here; %v", a, b, to.do(t, "PTTL", "l"))
	}
}

func TestWhatIsWrongWithAnImportIsSaidAtOnce(t *testing.T) {
	_, err := Run(t.Context(), Config{File: "f", From: Endpoint{Addrs: []string{"a", "b"}}, Conns: -1})
	for _, want := range []string{"either a file or a server", "one server at a time", "no address of the cluster", "at least 1", "no name for the state"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
