package record

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/history"
)

// store is one copy of everything behind several doors. It is right as long as
// nothing is planted: a token lists all values that were seen.
type store struct {
	mu    sync.Mutex
	keys  map[string]*stored
	count int
	// fault returns what a door answers instead, having made the write or not, or
	// nothing: "close" closes the connection.
	fault  func(door, count int, words []string) (answer string, made bool)
	enough func() // ends the load, which is called after loadCommands
}

// loadCommands is how many commands a load has.
const loadCommands = 600

type stored struct {
	live []string // values, newest first
	seen map[string]bool
	ends map[string]time.Time
}

// doors starts so many doors and returns their addresses.
func (s *store) doors(t *testing.T, n int) (addrs []string) {
	s.keys = map[string]*stored{}
	for door := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() }) // the test is over
		addrs = append(addrs, l.Addr().String())
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go s.serve(door, c)
			}
		}()
	}
	return addrs
}

func (s *store) serve(door int, c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		words, err := readCommand(br)
		if err != nil {
			return
		}
		answer := s.answer(door, words)
		if answer == "close" {
			return
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func readCommand(br *bufio.Reader) (words []string, err error) {
	var n int
	if _, err := fmt.Fscanf(br, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	for range n {
		var size int
		if _, err := fmt.Fscanf(br, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(br, b); err != nil {
			return nil, err
		}
		words = append(words, string(b[:size]))
	}
	return words, nil
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

func (s *store) answer(door int, words []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if s.count == loadCommands && s.enough != nil {
		s.enough()
	}
	instead, made := "", true
	if s.fault != nil {
		instead, made = s.fault(door, s.count, words)
	}
	answer := ""
	if made || instead == "" {
		answer = s.carryLocked(words)
	}
	if instead != "" {
		return instead
	}
	return answer
}

func (s *store) carryLocked(words []string) string {
	if words[0] == "ping" || words[0] == "PING" {
		return "+PONG\r\n"
	}
	k := s.keys[words[1]]
	if k == nil {
		k = &stored{seen: map[string]bool{}, ends: map[string]time.Time{}}
		s.keys[words[1]] = k
	}
	k.live = slices.DeleteFunc(k.live, func(v string) bool { return !k.ends[v].IsZero() && time.Now().After(k.ends[v]) })
	switch words[0] {
	case "SET":
		k.put(words[2], k.token())
		return "+OK\r\n"
	case "GET":
		if len(k.live) == 0 {
			return "$-1\r\n"
		}
		return bulk(k.live[0])
	case "VCTX.SET":
		k.put(words[2], words[3])
		if len(words) > 5 {
			ms, _ := strconv.Atoi(words[5])
			k.ends[words[2]] = time.Now().Add(time.Duration(ms) * time.Millisecond)
		}
		return fmt.Sprintf("*2\r\n%s:%d\r\n", bulk(words[3]+" "+words[2]), len(k.live))
	case "VCTX.DEL":
		k.cover(words[2])
		return fmt.Sprintf("*2\r\n%s:%d\r\n", bulk(words[2]), len(k.live))
	case "VCTX.GET":
		out := fmt.Sprintf("*2\r\n%s*%d\r\n", bulk(k.token()), len(k.live))
		for _, v := range k.live {
			out += "*6\r\n" + bulk(v) + bulk("dot of "+v) + ":0\r\n:-1\r\n" + bulk("string") + ":0\r\n"
		}
		return out
	case "VCTX.INSPECT":
		return "*1\r\n*7\r\n" + bulk("n1") + bulk("owner") + bulk("same") + "*0\r\n*0\r\n:0\r\n" + bulk("")
	}
	return "-ERR unknown command\r\n"
}

func (k *stored) token() string { return strings.Join(slices.Sorted(maps.Keys(k.seen)), " ") }

func (k *stored) cover(token string) {
	seen := strings.Fields(token)
	k.live = slices.DeleteFunc(k.live, func(v string) bool { return slices.Contains(seen, v) })
}

func (k *stored) put(value, token string) {
	k.cover(token)
	k.live, k.seen[value] = slices.Insert(k.live, 0, value), true
}

// recorded runs a workload and returns the history and what it comes to.
func recorded(t *testing.T, s *store, cfg Config, doors int) ([]history.Op, history.Report, Summary) {
	t.Helper()
	cfg.Addrs = append(cfg.Addrs, s.doors(t, doors)...)
	cfg.Duration, cfg.Clients, cfg.Keys, cfg.Think, cfg.Seed = time.Hour, 4, 3, 100*time.Microsecond, 1
	if cfg.Settle == 0 {
		cfg.Settle = 20 * time.Second
	}
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.enough = cancel
	sum, err := Run(ctx, cfg, &out, nil)
	if err != nil {
		t.Fatal(err)
	}
	report, err := history.Check(bytes.NewReader(out.Bytes()), history.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var ops []history.Op
	r := history.NewReader(&out)
	var o history.Op
	for r.Next(&o) == nil {
		ops = append(ops, o)
	}
	return ops, report, sum
}

// The load is interrupted, and all that is left is read all the same.
func TestEveryWorkloadRecordsAHistoryThatIsClean(t *testing.T) {
	kinds := map[string][]string{
		"add":    {history.VSet, history.VGet},
		"cart":   {history.VSet, history.VGet},
		"delete": {history.VSet, history.VGet, history.VDel},
		"expire": {history.VSet, history.VGet},
		"plain":  {history.Set, history.Get},
		"mixed":  {history.VSet, history.VGet, history.VDel, history.Set, history.Get},
	}
	for _, workload := range Workloads() {
		t.Run(workload, func(t *testing.T) {
			ops, report, sum := recorded(t, &store{}, Config{Workload: workload, ValueBytes: 100}, 2)
			f := report.Figures
			if report.Total() > 0 || f.Acked == 0 || f.Failed+f.Unknown > 0 || f.Unjudged+f.Uninspected > 0 {
				t.Errorf("%+v, %v", f, report.Findings)
			}
			if sum.Keys != f.Keys || sum.Operations != f.Acked+f.Reads || sum.Failed != 0 || sum.Unequal != 0 {
				t.Errorf("%+v is told of %+v", sum, f)
			}
			for _, kind := range kinds[workload] {
				if !slices.ContainsFunc(ops, func(o history.Op) bool { return o.Kind == kind }) {
					t.Errorf("there is no %s", kind)
				}
			}
			lives := slices.ContainsFunc(ops, func(o history.Op) bool { return o.TTLMS > 0 })
			if want := workload == "expire" || workload == "mixed"; lives != want {
				t.Errorf("values expire: %v", lives)
			}
		})
	}
}

func TestAnErrorIsRecordedAsWhatItLeavesOpen(t *testing.T) {
	for _, c := range []struct {
		answer string
		made   bool
		want   history.Result
	}{
		{"-NOREPLICAS Not enough good replicas to write.\r\n", false, history.Fail},
		{"-TOOMANYSIBLINGS the key\r\n", false, history.Fail},
		{"-UNCERTAIN acked 1/2: the write\r\n", true, history.Unknown},
		{"-UNCERTAIN acked 0/2: the write\r\n", false, history.Unknown},
		{"-ERR internal error\r\n", true, history.Unknown},
		{"close", true, history.Unknown},
		{"+strange\r\n", true, history.Unknown},
	} {
		s := &store{fault: func(_, count int, words []string) (string, bool) {
			if words[0] == "VCTX.SET" && count%5 == 0 {
				return c.answer, c.made
			}
			return "", true
		}}
		ops, report, sum := recorded(t, s, Config{Workload: "cart"}, 2)
		failed, moved := 0, 0
		last := map[string]history.Op{}
		for _, o := range ops {
			if before := last[o.Session]; o.Session != "" && before.Kind != "" {
				if (before.Result != history.OK) != (before.Node != o.Node) {
					t.Errorf("%q: session %s, told %q at %s, goes on at %s", c.answer, o.Session, before.Result, before.Node, o.Node)
				}
				if before.Node != o.Node {
					moved++
				}
			}
			last[o.Session] = o
			if o.Result != history.OK {
				failed++
				if o.Result != c.want || o.Error == "" || o.Next != "" {
					t.Errorf("%q is recorded as %+v, want %s", c.answer, o, c.want)
				}
			}
		}
		if failed < 5 || moved < 5 || sum.Failed != failed || report.Total() > 0 {
			t.Errorf("%q: %d failed, %d moved, %+v, %v", c.answer, failed, moved, sum, report.Findings)
		}
	}
}

func TestANodeThatIsNotThereHasMadeNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // now nobody listens
	ops, report, _ := recorded(t, &store{}, Config{Workload: "add", Addrs: []string{l.Addr().String()}}, 1)
	refused := 0
	for _, o := range ops {
		if o.Node == l.Addr().String() && o.Result != history.OK {
			refused++
			if o.Result != history.Fail {
				t.Errorf("recorded as %+v", o)
			}
		}
	}
	if refused == 0 || report.Total() > 0 {
		t.Errorf("%d refused, %v", refused, report.Findings)
	}
	if _, err := Run(t.Context(), Config{Addrs: []string{l.Addr().String()}}, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "no node answers: "+l.Addr().String()) {
		t.Errorf("recording nobody: %v", err)
	}
}

// TestAStoreThatLosesIsFound plants one fault in the store for each promise.
func TestAStoreThatLosesIsFound(t *testing.T) {
	once := func(f func(count int, words []string) (string, bool)) func(int, int, []string) (string, bool) {
		return func(_, count int, words []string) (string, bool) { return f(count, words) }
	}
	for _, c := range []struct {
		want     history.Kind
		workload string
		fault    func(int, int, []string) (string, bool)
	}{
		{history.Lost, "add", once(func(count int, words []string) (string, bool) {
			if words[0] == "VCTX.SET" && count%40 == 0 {
				return "*2\r\n" + bulk("lost "+words[2]) + ":1\r\n", false
			}
			return "", true
		})},
		{history.Phantom, "cart", once(func(count int, words []string) (string, bool) {
			if words[0] == "VCTX.SET" && count%40 == 0 {
				return "-NOREPLICAS Not enough\r\n", true
			}
			return "", true
		})},
		{history.Diverged, "add", once(func(_ int, words []string) (string, bool) {
			if words[0] == "VCTX.INSPECT" {
				return "*2\r\n*7\r\n" + bulk("n1") + bulk("owner") + bulk("one") + "*0\r\n*0\r\n:0\r\n" + bulk("") +
					"*7\r\n" + bulk("n2") + bulk("owner") + "$-1\r\n" + "*0\r\n*0\r\n:0\r\n" + bulk(""), true
			}
			return "", true
		})},
		{history.Unreadable, "plain", once(func(_ int, words []string) (string, bool) {
			if words[0] == "VCTX.GET" {
				return "-TIMEOUT not enough\r\n", true
			}
			return "", true
		})},
	} {
		_, report, sum := recorded(t, &store{fault: c.fault}, Config{Workload: c.workload, Settle: time.Millisecond, think: brief}, 2)
		if report.Counts[c.want] == 0 {
			t.Errorf("%s: found %v", c.want, report.Findings)
		}
		if c.want == history.Diverged && sum.Unequal != sum.Keys {
			t.Errorf("%+v", sum)
		}
	}
}

// brief does not wait out what a store needs in which everything fails.
func brief(ctx context.Context, d time.Duration) { wait(ctx, min(d, time.Millisecond)) }

func TestAHistoryThatCannotBeWrittenEndsTheRecording(t *testing.T) {
	full := errors.New("disk full")
	s := &store{}
	_, err := Run(t.Context(), Config{Addrs: s.doors(t, 1), Duration: time.Hour, Think: time.Microsecond}, failing{full}, nil)
	if !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestConfigNamesAllItsFaults(t *testing.T) {
	_, err := Run(t.Context(), Config{Workload: "none", Clients: -1}, io.Discard, nil)
	for _, want := range []string{"no address", `workload "none" must be one of [add cart delete expire mixed plain]`, "clients and keys"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
