// Package record lets clients work on a cluster and writes down what they did and
// saw, for package history to judge.
//
// Each client is one session: one connection, one operation at a time. After an
// operation that does not succeed it goes on at another node, with a new
// connection; nothing is ever repeated behind the history's back, so what people
// call a retry is an operation of its own. When the load is over, the recorder
// waits until the owners of every key are equal by themselves, notes what each of
// them holds, and only then reads every key from all of them, which would repair
// them.
//
// Keys are of this run alone, so that a history begins with nothing.
package record

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/history"
)

// Config is one recording. The zero value of a field means the default beside it.
type Config struct {
	Addrs      []string // nodes; clients are spread over them; required
	Password   string
	TLS        *tls.Config   // spoken if not nil
	Workload   string        // one of Workloads; "mixed"
	Clients    int           // sessions; 12
	Keys       int           // distinct keys of each workload; 100
	ValueBytes int           // stored values are filled up to this size; 0: they are not
	Duration   time.Duration // of the load; 10 s
	Think      time.Duration // of a client between two operations, on average; 5 ms
	Settle     time.Duration // at most, for the owners to become equal; 60 s
	Seed       uint64        // of what clients do; 0: drawn
	Calm       bool          // the history says that no fault happens
	Run        string        // prefix of all keys; drawn

	think func(context.Context, time.Duration) // waits; for tests
}

func (c Config) withDefaults() (Config, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defDuration := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.Clients, 12)
	def(&c.Keys, 100)
	defDuration(&c.Duration, 10*time.Second)
	defDuration(&c.Think, 5*time.Millisecond)
	defDuration(&c.Settle, time.Minute)
	if c.Workload == "" {
		c.Workload = "mixed"
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64() | 1
	}
	if c.Run == "" {
		c.Run = fmt.Sprintf("history:%08x", uint32(rand.Uint64()))
	}
	if c.think == nil {
		c.think = wait
	}
	var errs []error
	if len(c.Addrs) == 0 {
		errs = append(errs, errors.New("no address to record"))
	}
	if workloads[c.Workload] == nil {
		errs = append(errs, fmt.Errorf("workload %q must be one of %v", c.Workload, Workloads()))
	}
	if c.Clients < 1 || c.Keys < 1 || c.ValueBytes < 0 || c.Duration < 0 || c.Think < 0 || c.Settle < 0 {
		errs = append(errs, errors.New("clients and keys must be at least 1, sizes and times not negative"))
	}
	return c, errors.Join(errs...)
}

// Summary is what was recorded.
type Summary struct {
	Operations int
	Failed     int // of these, with any outcome but success
	Keys       int
	Unequal    int // keys whose owners were not equal in time
}

// Run records until the duration is over or ctx ends, reads what is left, and
// writes all of it to w. told, if not nil, is told of what goes on.
func Run(ctx context.Context, cfg Config, w io.Writer, told func(string)) (Summary, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	if told == nil {
		told = func(string) {}
	}
	l := newLog(w, cfg.Calm)
	if err := ask(ctx, cfg); err != nil {
		return Summary{}, err
	}
	load, stop := context.WithTimeout(ctx, cfg.Duration)
	defer stop()
	var wg sync.WaitGroup
	for i := range cfg.Clients {
		wg.Go(func() { newClient(cfg, l, i).run(load) })
	}
	wg.Wait()
	// A recording that is cut short is a shorter one: what is left is read all the
	// same.
	sum := l.summary()
	told(fmt.Sprintf("%d operations on %d keys; waiting for their owners to be equal", sum.Operations, sum.Keys))
	s := newSurvey(cfg, l)
	defer s.close()
	sum.Unequal = s.inspect(context.WithoutCancel(ctx))
	told("reading every key from all its owners")
	s.read(context.WithoutCancel(ctx))
	return sum, l.flush()
}

// ask finds out whether anybody is there, before a history is filled with failures.
func ask(ctx context.Context, cfg Config) error {
	var errs []error
	for _, addr := range cfg.Addrs {
		c := dial(cfg, addr)
		err := c.Ping(ctx).Err()
		_ = c.Close() // it was asked what it had to be
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", addr, err))
	}
	return fmt.Errorf("no node answers: %w", errors.Join(errs...))
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// log is the history as it is written.
type log struct {
	began time.Time
	mu    struct {
		sync.Mutex
		w    *bufio.Writer
		err  error // the first one
		keys map[string]bool
		buf  []byte
		sum  Summary
	}
}

func newLog(w io.Writer, calm bool) *log {
	l := &log{began: time.Now()}
	l.mu.w, l.mu.keys = bufio.NewWriterSize(w, 1<<16), map[string]bool{}
	l.writeLocked(&history.Op{Kind: history.Header, Version: history.Version, Calm: calm})
	return l
}

func (l *log) now() int64 { return time.Since(l.began).Microseconds() }

// end notes an operation of a client. The lock puts the lines in the order of the
// ends that they name.
func (l *log) end(o *history.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.EndUS = l.now()
	l.writeLocked(o)
	l.mu.keys[o.Key] = true
	l.mu.sum.Operations++
	if o.Result != history.OK {
		l.mu.sum.Failed++
	}
}

// add notes a line of the end of a history.
func (l *log) add(o *history.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.EndUS = l.now()
	l.writeLocked(o)
}

func (l *log) writeLocked(o *history.Op) {
	l.mu.buf = history.AppendLine(l.mu.buf[:0], o)
	if _, err := l.mu.w.Write(l.mu.buf); err != nil && l.mu.err == nil {
		l.mu.err = fmt.Errorf("write the history: %w", err)
	}
}

// failed reports whether the history cannot be written.
func (l *log) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err != nil
}

func (l *log) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.mu.err, l.mu.w.Flush())
}

func (l *log) summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := l.mu.sum
	sum.Keys = len(l.mu.keys)
	return sum
}

func (l *log) keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := make([]string, 0, len(l.mu.keys))
	for key := range l.mu.keys {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
