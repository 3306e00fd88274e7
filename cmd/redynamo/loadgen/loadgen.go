// Package loadgen loads a server that speaks RESP and measures what its
// clients see and what its processes spend.
//
// Each client is one connection in a closed loop: it sends Pipeline commands
// in one write, reads their replies, and begins again. Keys are drawn
// uniformly, so a cluster sees no hot spot of our making. The generator
// shares the machine with what it measures; CPU time per operation of the
// server's processes, read from /proc, is therefore the steadier figure and
// throughput the noisier one.
package loadgen

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Config is one run. The zero value of a field means the default beside it.
type Config struct {
	Addrs      []string      // servers; clients are spread over them; required
	Password   string        // sent with AUTH if not empty
	TLS        *tls.Config   // spoken if not nil
	Op         string        // "set", "get" or "mixed" (half and half); "set"
	Clients    int           // connections; 50
	Pipeline   int           // commands in flight per connection; 1
	Keys       int           // distinct keys; 100000
	ValueBytes int           // size of a value; 100
	Duration   time.Duration // measured time; 3 s
	Warmup     time.Duration // time before it that is not counted
	Seed       uint64        // of keys and values; 1
	PIDs       []int         // processes of the server, whose CPU time is accounted
}

// Result is what one run showed.
type Result struct {
	Ops      int64
	Errors   map[string]int64 // first word of an error reply, or "io" -> count
	Elapsed  time.Duration
	P50      time.Duration // latency of a pipeline, from its write to its last reply
	P99      time.Duration
	P999     time.Duration
	Max      time.Duration
	CPUPerOp time.Duration // user and system time of PIDs by operation; 0 without PIDs
}

// PerSecond is the throughput.
func (r Result) PerSecond() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }

// Failed counts the error replies and broken connections.
func (r Result) Failed() int64 {
	var n int64
	for _, c := range r.Errors {
		n += c
	}
	return n
}

func (c Config) withDefaults() (Config, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.Clients, 50)
	def(&c.Pipeline, 1)
	def(&c.Keys, 100_000)
	def(&c.ValueBytes, 100)
	if c.Duration == 0 {
		c.Duration = 3 * time.Second
	}
	if c.Op == "" {
		c.Op = "set"
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	var errs []error
	if len(c.Addrs) == 0 {
		errs = append(errs, errors.New("no address to load"))
	}
	if c.Op != "set" && c.Op != "get" && c.Op != "mixed" {
		errs = append(errs, fmt.Errorf("op (%q) must be set, get or mixed", c.Op))
	}
	if c.Clients < 1 || c.Pipeline < 1 || c.Keys < 1 || c.ValueBytes < 0 {
		errs = append(errs, errors.New("clients, pipeline and keys must be at least 1"))
	}
	return c, errors.Join(errs...)
}

// measuring states of a run, seen by all clients.
const (
	warming int32 = iota
	counting
	finished
)

type run struct {
	cfg   Config
	state atomic.Int32
	ops   atomic.Int64 // replies while counting

	mu struct {
		sync.Mutex
		latency *hdrhistogram.Histogram
		errors  map[string]int64
	}
}

// Run loads the servers until the duration is over or ctx ends. progress, if
// not nil, is called a few times a second with the share done, 0 to 1.
func Run(ctx context.Context, cfg Config, progress func(done float64, ops int64)) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Result{}, err
	}
	r := &run{cfg: cfg}
	r.mu.latency = newHistogram()
	r.mu.errors = map[string]int64{}

	conns := make([]net.Conn, cfg.Clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close() // the run is over; nothing more is expected of it
			}
		}
	}()
	for i := range conns {
		if conns[i], err = dial(ctx, cfg.Addrs[i%len(cfg.Addrs)], cfg); err != nil {
			return Result{}, err
		}
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { r.client(c, rand.New(rand.NewPCG(cfg.Seed, uint64(i)))) })
	}
	elapsed, cpu := r.conduct(ctx, progress)
	wg.Wait()

	res := Result{Ops: r.ops.Load(), Errors: r.mu.errors, Elapsed: elapsed}
	h := r.mu.latency
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
	res.P50, res.P99, res.P999, res.Max = at(50), at(99), at(99.9), time.Duration(h.Max())*time.Microsecond
	if res.Ops > 0 && len(cfg.PIDs) > 0 {
		res.CPUPerOp = cpu / time.Duration(res.Ops)
	}
	return res, ctx.Err()
}

// conduct leads the clients through warm-up and measurement and returns the
// measured time and the CPU time that the servers spent in it.
func (r *run) conduct(ctx context.Context, progress func(float64, int64)) (elapsed, cpu time.Duration) {
	wait(ctx, r.cfg.Warmup)
	cpu0 := CPUTime(r.cfg.PIDs)
	begin := time.Now()
	r.state.Store(counting)
	const steps = 20
	for i := range steps {
		wait(ctx, r.cfg.Duration/steps)
		if progress != nil {
			progress(float64(i+1)/steps, r.ops.Load())
		}
	}
	r.state.Store(finished)
	return time.Since(begin), CPUTime(r.cfg.PIDs) - cpu0
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

func dial(ctx context.Context, addr string, cfg Config) (c net.Conn, err error) {
	if cfg.TLS != nil {
		c, err = (&tls.Dialer{Config: cfg.TLS}).DialContext(ctx, "tcp", addr)
	} else {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if cfg.Password == "" {
		return c, nil
	}
	if _, err = c.Write(appendCommand(nil, "AUTH", cfg.Password)); err == nil {
		var line string
		if line, err = bufio.NewReader(c).ReadString('\n'); err == nil && !strings.HasPrefix(line, "+") {
			err = errors.New(strings.TrimSpace(line))
		}
	}
	if err != nil {
		_ = c.Close() // the first error is the one to tell
		return nil, fmt.Errorf("log in at %s: %w", addr, err)
	}
	return c, nil
}

// Key is the i-th key of a run: 16 bytes.
func Key(i int) string { return fmt.Sprintf("key:%012d", i) }

// fillBatch is how many SETs a fill has under way on a connection. A batch that was
// not wholly taken is sent again, at most fillTries times, fillPause apart: a server
// that is as busy as a fill makes it may be uncertain of a write now and then, and a
// SET can be repeated.
const (
	fillBatch = 100
	fillTries = 10
	fillPause = 200 * time.Millisecond
)

// passing are the error words of a server that is busy, or missed an answer.
var passing = [...]string{"UNCERTAIN", "NOREPLICAS", "OVERLOADED", "TIMEOUT", "LOADING"}

// Fill sets every key, through all addresses, so that later reads find something.
func Fill(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(cfg.Addrs))
	for a, addr := range cfg.Addrs {
		wg.Go(func() {
			if err := fillShare(ctx, cfg, a); err != nil {
				errs[a] = fmt.Errorf("fill through %s: %w", addr, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fillShare sets the keys that go through one address.
func fillShare(ctx context.Context, cfg Config, a int) error {
	c, err := dial(ctx, cfg.Addrs[a], cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	br := bufio.NewReader(c)
	value := strings.Repeat("v", cfg.ValueBytes)
	var buf []byte
	for i := a * fillBatch; i < cfg.Keys; i += fillBatch * len(cfg.Addrs) {
		buf = buf[:0]
		n := min(fillBatch, cfg.Keys-i)
		for k := range n {
			buf = appendCommand(buf, "SET", Key(i+k), value)
		}
		for try := 1; ; try++ {
			refused, err := exchangeBatch(c, br, buf, n)
			if err != nil {
				return err
			}
			if refused == "" {
				break
			}
			if try == fillTries || !slices.Contains(passing[:], refused) {
				return fmt.Errorf("the server answers %s", refused)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(fillPause):
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// exchangeBatch sends commands and returns the word of the last error among their
// n replies, if there is one.
func exchangeBatch(c net.Conn, br *bufio.Reader, commands []byte, n int) (refused string, err error) {
	if _, err := c.Write(commands); err != nil {
		return "", err
	}
	for range n {
		word, err := readReply(br)
		if err != nil {
			return "", err
		}
		if word != "" {
			refused = word
		}
	}
	return refused, nil
}

// client is one connection's closed loop.
func (r *run) client(c net.Conn, rng *rand.Rand) {
	br := bufio.NewReaderSize(c, 64<<10)
	value := make([]byte, r.cfg.ValueBytes)
	for i := range value {
		value[i] = 'a' + byte(rng.UintN(26))
	}
	latency := newHistogram()
	failures := map[string]int64{}
	var buf []byte
	for r.state.Load() != finished {
		buf = r.pipeline(buf[:0], rng, value)
		counted := r.state.Load() == counting
		begin := time.Now()
		_, err := c.Write(buf)
		n := int64(0)
		for ; err == nil && n < int64(r.cfg.Pipeline); n++ {
			var word string
			if word, err = readReply(br); word != "" && counted {
				failures[word]++
			}
		}
		if err != nil {
			if r.state.Load() != finished {
				failures["io"]++
			}
			break
		}
		if counted && r.state.Load() == counting {
			r.ops.Add(n)
			_ = latency.RecordValue(time.Since(begin).Microseconds() + 1) // beyond a minute is cut off, not kept
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.latency.Merge(latency)
	for word, n := range failures {
		r.mu.errors[word] += n
	}
}

// pipeline appends one round of commands.
func (r *run) pipeline(buf []byte, rng *rand.Rand, value []byte) []byte {
	for range r.cfg.Pipeline {
		set := r.cfg.Op == "set" || r.cfg.Op == "mixed" && rng.Uint32()&1 == 0
		k := rng.IntN(r.cfg.Keys)
		if set {
			buf = append(buf, "*3\r\n$3\r\nSET\r\n$16\r\nkey:"...)
			buf = appendPadded(buf, k)
			buf = append(buf, "\r\n$"...)
			buf = strconv.AppendInt(buf, int64(len(value)), 10)
			buf = append(append(append(buf, "\r\n"...), value...), "\r\n"...)
			continue
		}
		buf = append(buf, "*2\r\n$3\r\nGET\r\n$16\r\nkey:"...)
		buf = append(appendPadded(buf, k), "\r\n"...)
	}
	return buf
}

// appendPadded writes k as the twelve digits of Key.
func appendPadded(buf []byte, k int) []byte {
	var d [12]byte
	for i := len(d) - 1; i >= 0; i-- {
		d[i] = '0' + byte(k%10)
		k /= 10
	}
	return append(buf, d[:]...)
}

func appendCommand(buf []byte, words ...string) []byte {
	buf = append(strconv.AppendInt(append(buf, '*'), int64(len(words)), 10), "\r\n"...)
	for _, w := range words {
		buf = append(strconv.AppendInt(append(buf, '$'), int64(len(w)), 10), "\r\n"...)
		buf = append(append(buf, w...), "\r\n"...)
	}
	return buf
}

// readReply skips one simple, error, integer, null or bulk reply and returns
// the first word of an error.
func readReply(br *bufio.Reader) (errWord string, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	switch line[0] {
	case '+', ':', '_':
		return "", nil
	case '-':
		word, _, _ := strings.Cut(strings.TrimSpace(string(line[1:])), " ")
		return word, nil
	case '$':
		n := 0
		for _, d := range line[1 : len(line)-2] {
			if d == '-' {
				return "", nil
			}
			n = n*10 + int(d-'0')
		}
		_, err = br.Discard(n + 2)
		return "", err
	}
	return "", fmt.Errorf("unexpected reply %q", line)
}
