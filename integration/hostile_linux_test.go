package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestHostileRequestsHurtNobodyElse throws what the fuzz test of the guard begins with,
// and what random changes make of it, at a node for some seconds. The node goes on, in
// bounded memory, and other clients see no error. How much longer they wait is printed.
func TestHostileRequestsHurtNobodyElse(t *testing.T) {
	const (
		each = 5 * time.Second
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
	for _, x := range []struct {
		how string
		attackers
	}{
		{"a hundred a second", attackers{6, 60 * time.Millisecond, 0}},
		{"as many as the processors that are left over can make", attackers{6, 0, 19}},
		{"as many as can be made at the cost of all others", attackers{6, 0, 0}},
	} {
		stop := x.attack(t, p, seed)
		busy := c.latencies(each)
		after = max(after, resident(t, p))
		t.Logf("99%% of others waited at most %v, and %v beside %d connections with hostile requests, %s: %.2f times",
			calm, busy, stop(), x.how, float64(busy)/float64(calm))
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

// attackers are clients in a process of their own, each of which rests after each
// connection.
type attackers struct {
	number int
	rest   time.Duration
	nice   int // 19: they run where nobody else does
}

// attackVar names the environment variable that makes attackers of this program.
const attackVar = "REDYNAMO_ATTACK"

// attack has attackers at the plain door of a node until stop is called; stop answers how
// many connections there were.
func (a attackers) attack(t *testing.T, p *process, seed uint64) (stop func() (connections int)) {
	t.Helper()
	cmd := exec.Command("nice", "-n", strconv.Itoa(a.nice), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %d", attackVar, p.plain, seed, a.number, a.rest))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() }) // it ends with its input, also if the test ends early
	return func() (connections int) {
		err := errors.Join(in.Close(), cmd.Wait())
		if _, serr := fmt.Sscan(out.String(), &connections); err != nil || serr != nil || connections < a.number {
			t.Errorf("%d attackers: %q, %v", a.number, &out, errors.Join(err, serr))
		}
		return connections
	}
}

// A process of attackers runs no test.
func init() {
	told := os.Getenv(attackVar)
	if told == "" {
		return
	}
	if err := attackAsTold(told); err != nil {
		fmt.Fprintln(os.Stderr, "attackers:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// attackAsTold is the whole of a process of attackers, which ends with its input and
// prints how many connections there were.
func attackAsTold(told string) error {
	var (
		addr string
		seed uint64
		a    attackers
	)
	if _, err := fmt.Sscan(told, &addr, &seed, &a.number, (*int64)(&a.rest)); err != nil {
		return err
	}
	over := make(chan struct{})
	var all sync.WaitGroup
	var connections atomic.Int64
	for i := range a.number {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			for {
				connections.Add(int64(assail(addr, rnd, over)))
				select {
				case <-over:
					return
				case <-time.After(a.rest):
				}
			}
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	close(over)
	all.Wait()
	fmt.Println(connections.Load())
	return err
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
