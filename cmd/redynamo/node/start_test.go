package node

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/resp"
)

// logged is a log that many goroutines write and a test reads.
type logged struct {
	mu struct {
		sync.Mutex
		text bytes.Buffer
	}
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text.String()
}

func TestStartNamesTheFlagWhoseAddressIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for flag, set := range map[string]func(*Config){
		"--listen":         func(c *Config) { c.Listen = taken.Addr().String() },
		"--cluster-listen": func(c *Config) { c.ClusterListen = taken.Addr().String() },
		"--peer-listen":    func(c *Config) { c.PeerListen = taken.Addr().String() },
		"--admin-listen":   func(c *Config) { c.AdminListen = taken.Addr().String() },
	} {
		cfg := lone(vfs.NewMem())
		set(&cfg)
		if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), " "+flag+": ") {
			t.Errorf("%s taken: %v, want the flag named", flag, err)
		}
	}
}

// inUse is a disk on which another process holds every lock.
type inUse struct{ vfs.FS }

func (inUse) Lock(string) (io.Closer, error) { return nil, syscall.EAGAIN }

func TestStartSaysThatAnotherProcessHasTheDataDirectory(t *testing.T) {
	_, err := Start(t.Context(), lone(inUse{vfs.NewMem()}))
	if err == nil || !strings.Contains(err.Error(), "another process uses the data directory d") {
		t.Errorf("start: %v", err)
	}
}

func TestAdvertiseIsAHostAlone(t *testing.T) {
	for host, good := range map[string]bool{
		"": true, "node1": true, "node1.example.org": true, "10.0.0.7": true, "fd00::7": true, "::1": true,
		"node1:6379": false, "10.0.0.7:99": false, "[fd00::7]": false, "[fd00::7]:6379": false, ":6379": false,
	} {
		cfg := lone(vfs.NewMem()).withDefaults()
		cfg.Advertise = host
		if err := cfg.validate(); (err == nil) != good {
			t.Errorf("advertise %q: %v", host, err)
		}
	}
}

// The rows on the disk are counted, fenced and dropped by partition.
func TestANodeOfAnotherNumberOfPartitionsEnds(t *testing.T) {
	cfg := lone(vfs.NewMem())
	cfg.Units = 1024
	if err := start(t, cfg).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Units = 4096
	n, err := Start(t.Context(), cfg)
	if err == nil {
		<-n.Done()
		err = n.Close(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "--units 1024") {
		t.Errorf("it ended with: %v", err)
	}
}

func TestLoneNodeLogsItsDoorsAndThatReplicasAreMissing(t *testing.T) {
	var out logged
	cfg := lone(vfs.NewMem())
	cfg.Logger = slog.New(slog.NewTextHandler(&out, nil))
	n := start(t, cfg)
	for _, l := range n.listeners {
		if !strings.Contains(out.String(), l.Addr().String()) {
			t.Errorf("%v is not in the log:\n%s", l.Addr(), out.String())
		}
	}
	const want = "only 1 members for n=3"
	for deadline := time.Now().Add(patience); !strings.Contains(out.String(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q is not in the log:\n%s", want, out.String())
		}
	}
	if got := n.publish.Stats().Warnings; len(got) != 1 || !strings.Contains(got[0].Value, want) {
		t.Errorf("INFO warns %v, want %q", got, want)
	}
	if got := say(t, n, "CONFIG GET max-value"); got != "*2" {
		t.Errorf("CONFIG GET max-value answers %q", got)
	}
}

// TestAMapIsMadeWhenItIsAnotherOne asks for maps of a ring that stays as it is.
func TestAMapIsMadeWhenItIsAnotherOne(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	if err := n.Close(t.Context()); err != nil { // nobody else makes maps then
		t.Fatal(err)
	}
	p := n.publish
	p.rebuild(p.View().Version + 1000) // it may have ended before its last words
	old := p.View()
	if p.rebuild(old.Version + 1000); p.View() != old {
		t.Error("a map like the one before replaced it")
	}
	for name, change := range map[string]func(v *resp.View){
		"a member that is back": func(v *resp.View) { v.Members[0].Alive = false },
		"another ring":          func(v *resp.View) { v.Epoch++ },
		"one more member":       func(v *resp.View) { v.Members = nil },
	} {
		before := *old
		before.Members = slices.Clone(old.Members)
		change(&before)
		p.view.Store(&before)
		p.rebuild(old.Version + 2000)
		if v := p.View(); v.Version != old.Version+2000 || v.Epoch != old.Epoch || !slices.Equal(v.Members, old.Members) {
			t.Errorf("%s: the map is %+v of version %d", name, v.Members, v.Version)
		}
	}
}
