package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestHostileRequestsHurtNobodyElse throws what the fuzz test of the guard begins with,
// and what random changes make of it, at a node for some seconds. The node goes on, in
// bounded memory, and other clients see no error. How much longer they wait is printed.
func TestHostileRequestsHurtNobodyElse(t *testing.T) {
	const (
		each      = 5 * time.Second
		attackers = 6
		// unfinished is what all unfinished commands of a door may take
		// (resp.Limits.MaxQuery), and so the most that they may add.
		unfinished = 256 << 20
	)
	c := startProcesses(t, 1)
	p := c.nodes[0]
	calm := c.latencies(each)
	before := resident(t, p)

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	after := int64(0)
	for _, rest := range []time.Duration{attackers * 10 * time.Millisecond, 0} { // a hundred connections a second, and all there can be
		stop := attack(t, p, seed, attackers, rest)
		busy := c.latencies(each)
		after = max(after, resident(t, p))
		t.Logf("99%% of others waited at most %v, and %v beside %d connections with hostile requests: %.2f times",
			calm, busy, stop(), float64(busy)/float64(calm))
	}
	t.Logf("memory %d MiB, then at most %d MiB", before>>20, after>>20)
	if after > before+unfinished {
		t.Errorf("the node grew from %d to %d bytes, by more than %d", before, after, unfinished)
	}
	if err := c.client(0).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.waited:
		t.Error("the process has ended")
	default:
	}
	// A door survives what goes wrong in one connection, and says so.
	if text, err := os.ReadFile(p.log.Name()); err != nil || strings.Contains(string(text), "panic") {
		t.Errorf("something panicked: see the log: %v", err)
	}
}

// attack has attackers at the plain door of a node, each of which rests after each
// connection, until stop is called; stop answers how many connections there were.
func attack(t *testing.T, p *process, seed uint64, attackers int, rest time.Duration) (stop func() (connections int)) {
	over := make(chan struct{})
	var all sync.WaitGroup
	sent := make([]int, attackers)
	for i := range attackers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			for {
				sent[i] += assail(p.plain, rnd, over)
				select {
				case <-over:
					return
				case <-time.After(rest):
				}
			}
		})
	}
	return func() (connections int) {
		close(over)
		all.Wait()
		if slices.Contains(sent, 0) {
			t.Errorf("an attacker sent nothing: %d", sent)
		}
		for _, n := range sent {
			connections += n
		}
		return connections
	}
}

// assail connects once, says random things and hears what is answered, for as long as
// it is listened to. Some connections are left in the middle of a long request.
func assail(addr string, rnd *rand.Rand, stop <-chan struct{}) (connections int) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()               // the other end may have done so
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // some wait for more, and are given up
	go func() { _, _ = io.Copy(io.Discard, conn) }()  // whatever it is
	for range 1 + rnd.IntN(20) {
		select {
		case <-stop:
			return 1
		default:
		}
		if _, err := conn.Write(hostile(rnd)); err != nil {
			break
		}
	}
	return 1
}

// scraps are those of resp/guard_test.go.
var scraps = sync.OnceValue(func() (all []string) {
	text, err := os.ReadFile("../resp/testdata/scraps.txt")
	if err != nil {
		panic(err) // it is part of the module
	}
	for line := range strings.Lines(string(text)) {
		scrap, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			panic(line)
		}
		all = append(all, scrap)
	}
	return all
})

// hostile is a few scraps, some cut short or changed, or a long request without an end.
func hostile(rnd *rand.Rand) []byte {
	if rnd.IntN(50) == 0 {
		return fmt.Appendf(nil, "*2\r\n$3\r\nGET\r\n$%d\r\n%s", 16<<20, strings.Repeat("x", rnd.IntN(1<<20)))
	}
	all := scraps()
	var data []byte
	for range 1 + rnd.IntN(8) {
		scrap := all[rnd.IntN(len(all))]
		if rnd.IntN(5) == 0 {
			scrap = scrap[:1+rnd.IntN(len(scrap))]
		}
		data = append(data, scrap...)
	}
	for range rnd.IntN(3) {
		data[rnd.IntN(len(data))] = byte(rnd.IntN(256))
	}
	return data
}

// latencies is the 99th percentile of what two calm clients of node 0 wait.
func (c *processes) latencies(within time.Duration) time.Duration {
	c.t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var clients sync.WaitGroup
	end := time.Now().Add(within)
	for i := range 2 {
		cl := c.client(0)
		clients.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for n := 0; time.Now().Before(end); n++ {
				<-tick.C
				key, begin := fmt.Sprintf("calm:%d:%d", i, n%100), time.Now()
				err := cl.Set(c.t.Context(), key, n, 0).Err()
				if err == nil {
					err = cl.Get(c.t.Context(), key).Err()
				}
				if err != nil {
					c.t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	if len(all) < 100 {
		c.t.Fatalf("only %d requests in %v", len(all), within)
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// resident is the memory that a process has in use.
func resident(t *testing.T, p *process) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
