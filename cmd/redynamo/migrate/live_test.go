package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// front is an address behind which the server can change.
type front struct {
	listener net.Listener
	mu       struct {
		sync.Mutex
		to    string
		conns []net.Conn
		edit  func([]byte) []byte // of what the server says; nil: nothing
		then  func([]byte) []byte // edit of the next server
	}
}

func startFront(t *testing.T, to string, edit func([]byte) []byte) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{listener: l}
	f.mu.to, f.mu.edit = to, edit
	go f.run()
	t.Cleanup(func() {
		_ = l.Close() // the test is over
		f.switchTo("")
	})
	return f
}

func (f *front) addr() string { return f.listener.Addr().String() }

func (f *front) run() {
	for {
		in, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		out, err := net.Dial("tcp", f.mu.to)
		if err != nil {
			_ = in.Close() // as if nobody were there
			f.mu.Unlock()
			continue
		}
		f.mu.conns = append(f.mu.conns, in, out)
		edit := f.mu.edit
		f.mu.Unlock()
		go func() { _, _ = io.Copy(out, in) }() // until one is closed
		go carry(in, out, edit)
	}
}

// carry brings what a server says.
func carry(to io.WriteCloser, from io.Reader, edit func([]byte) []byte) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		said := buf[:n]
		if edit != nil {
			said = edit(said)
		}
		if _, failed := to.Write(said); err != nil || failed != nil {
			_ = to.Close() // nothing more comes
			return
		}
	}
}

// switchTo breaks all connections; new ones go to another server.
func (f *front) switchTo(to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.to, f.mu.edit = to, f.mu.then
	for _, c := range f.mu.conns {
		_ = c.Close() // breaking it is the point
	}
	f.mu.conns = nil
}

// twins are two servers with the same keys, as one that was started anew.
func twins(t *testing.T, keys int) (a, b server) {
	t.Helper()
	a, b = startServer(t), startServer(t)
	for _, s := range []server{a, b} {
		pipe := s.Pipeline()
		for i := range keys {
			pipe.Do(t.Context(), "SET", fmt.Sprint("k:", i), i)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// TestAServerThatIsStartedAnewOnTheWayIsWalkedAgain has more keys than what is read ahead.
func TestAServerThatIsStartedAnewOnTheWayIsWalkedAgain(t *testing.T) {
	const keys = 40 * pageKeys
	a, b := twins(t, keys)
	run := []byte(infoField(a.Info(t.Context(), "server").Val(), "run_id"))
	hide := func(said []byte) []byte { return bytes.ReplaceAll(said, run, bytes.Repeat([]byte("0"), len(run))) }
	for name, edit := range map[string]func([]byte) []byte{"by run_id": nil, "without a run_id": hide} {
		t.Run(name, func(t *testing.T) {
			to, f := startServer(t), startFront(t, a.addr, edit)
			cfg := Config{To: Endpoint{Addrs: []string{to.addr}}, From: Endpoint{Addrs: []string{f.addr()}}}
			cfg.State = filepath.Join(t.TempDir(), "state")
			cfg.Report = cfg.State + ".report"
			var notes []string
			cfg.Note = func(text string) { notes = append(notes, text) }
			switched := false
			cfg.Progress = func(float64, *Counts) {
				if !switched {
					f.switchTo(b.addr)
				}
				switched = true
			}
			counts, err := Run(t.Context(), cfg)
			if !errors.Is(err, ErrAnew) || counts.Written == 0 || counts.Written >= keys {
				t.Fatalf("%+v, %v", counts, err)
			}
			counts, err = Run(t.Context(), cfg)
			if err != nil || counts.Written+counts.Kept < keys || counts.Kept == 0 || len(notes) != 1 || !strings.Contains(notes[0], "beginning again") {
				t.Errorf("%+v, %v\n%q", counts, err, notes)
			}
			if got := to.do(t, "DBSIZE"); got != int64(keys) {
				t.Errorf("%v keys of %d", got, keys)
			}
		})
	}
}

func TestACursorOfAServerWithoutARunIDIsNotUsed(t *testing.T) {
	for _, run := range []string{"", strings.Repeat("0", 40)} {
		s := &liveSource{id: Identity{Run: run}}
		if !s.restarted(s.id) {
			t.Errorf("run_id %q is taken for one", run)
		}
	}
	s := &liveSource{id: Identity{Run: "1"}}
	if s.restarted(s.id) {
		t.Error("the same process is taken for another")
	}
}

// TestASourceThatLoadsGivesNoKeys says that an error is no type of a key.
func TestASourceThatLoadsGivesNoKeys(t *testing.T) {
	from, to := startServer(t), startServer(t)
	from.do(t, "SET", "k", "v")
	from.do(t, "ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-type")
	cfg := ways(t, from, to)["server"]
	cfg.From.User, cfg.From.Password = "u", "p"
	if counts, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "TYPE") {
		t.Errorf("%+v, %v", counts, err)
	}
}
