package resp

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// dataClock is a wall clock that moves only when told.
type dataClock struct {
	mu sync.Mutex
	at time.Time
}

func newDataClock() *dataClock { return &dataClock{at: time.UnixMilli(1_800_000_000_000)} }

func (c *dataClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *dataClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// dataStore is the Store of a cluster of one node: a map and version.Apply.
type dataStore struct {
	clock *dataClock

	mu struct {
		sync.Mutex
		records map[string]version.Record
		spreads []coordinator.Spread
		asked   []coordinator.SpreadRequest
		counter uint64
		clock   version.HLC
		ops     []version.Op // all writes asked for
		reads   []coordinator.ReadOptions
		writes  []coordinator.WriteOptions
		fail    map[string]error // by key
		hold    int              // answer nobody before this many calls have come
		held    []func()
	}
}

func newDataStore(clock *dataClock) *dataStore {
	f := &dataStore{clock: clock}
	f.mu.records = make(map[string]version.Record)
	f.mu.fail = make(map[string]error)
	return f
}

// answer runs the callback, or keeps it until enough calls are in flight.
func (f *dataStore) answer(done func()) {
	f.mu.Lock()
	if f.mu.hold > 0 {
		f.mu.hold--
		f.mu.held = append(f.mu.held, done)
		if f.mu.hold > 0 {
			f.mu.Unlock()
			return
		}
	}
	held := f.mu.held
	f.mu.held = nil
	f.mu.Unlock()
	if held == nil {
		done()
	}
	for _, d := range held {
		d()
	}
}

func (f *dataStore) Read(key []byte, o coordinator.ReadOptions, done func(coordinator.ReadResult, error)) {
	f.mu.Lock()
	f.mu.reads = append(f.mu.reads, o)
	r, err := f.mu.records[string(key)], f.mu.fail[string(key)]
	f.mu.Unlock()
	if err == nil && o.Min != nil && !r.Context.Covers(o.Min.Context) {
		err = coordinator.ErrStale
	}
	if err != nil {
		f.answer(func() { done(coordinator.ReadResult{}, err) })
		return
	}
	f.answer(func() { done(coordinator.ReadResult{Record: r}, nil) })
}

func (f *dataStore) Write(key []byte, op version.Op, o coordinator.WriteOptions, done func(coordinator.WriteResult, error)) {
	f.mu.Lock()
	f.mu.ops = append(f.mu.ops, op)
	f.mu.writes = append(f.mu.writes, o)
	out, err := f.applyLocked(string(key), op, 1)
	f.mu.Unlock()
	f.answer(func() { done(coordinator.WriteResult{Outcome: out}, err) })
}

func (f *dataStore) applyLocked(key string, op version.Op, actor version.Actor) (version.Outcome, error) {
	if err := f.mu.fail[key]; err != nil {
		return version.Outcome{}, err
	}
	now := f.clock.now().UnixMilli()
	f.mu.counter++
	f.mu.clock = max(f.mu.clock.Next(), version.HLCFromMS(now))
	r, out, err := version.Apply(f.mu.records[key], op, version.Mint{
		NowMS: now, HLC: f.mu.clock, Dot: version.Dot{Actor: actor, Counter: f.mu.counter},
	})
	if err == nil && out.Applied {
		f.mu.records[key] = r
	}
	f.mu.clock = max(f.mu.clock, out.HLC)
	return out, err
}

// put writes as another node would that has seen only ctx.
func (f *dataStore) put(t *testing.T, key, value string, ctx version.Context) version.Outcome {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	out, err := f.applyLocked(key, version.Op{Kind: version.OpSet, Value: []byte(value), Explicit: true, Context: ctx}, 2)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return out
}

func (f *dataStore) record(key string) version.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.records[key]
}

func (f *dataStore) lastOp(t *testing.T) version.Op {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mu.ops) == 0 {
		t.Fatal("no write reached the store")
	}
	return f.mu.ops[len(f.mu.ops)-1]
}

// place is a key's position in the order of a scan.
func place(key string) uint64 {
	return uint64(ring.SlotOf([]byte(key)))<<32 | uint64(ring.KeyHash([]byte(key)))
}

func (f *dataStore) liveLocked() []string {
	var keys []string
	now := f.clock.now().UnixMilli()
	for k, r := range f.mu.records {
		if _, ok := r.Winner(now); ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b)) })
	return keys
}

func (f *dataStore) Scan(_ context.Context, req coordinator.ScanRequest) (coordinator.ScanPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var page coordinator.ScanPage
	for _, k := range f.liveLocked() {
		switch at := place(k); {
		case at < req.Cursor:
			continue
		case len(page.Keys) >= req.Count && at != place(string(page.Keys[len(page.Keys)-1])):
			page.Cursor = at
			return page, nil
		}
		page.Keys = append(page.Keys, []byte(k))
	}
	return page, nil
}

func (f *dataStore) Count(context.Context, bool) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.liveLocked())), nil
}

func (f *dataStore) CountSlot(context.Context, uint16) (int64, error) { return 0, nil }

func (f *dataStore) RandomKey(context.Context, bool) ([]byte, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := f.liveLocked()
	if len(keys) == 0 {
		return nil, false, nil
	}
	return []byte(keys[0]), true, nil
}

func (f *dataStore) Inspect(_ context.Context, key []byte) ([]coordinator.Inspection, error) {
	r := f.record(string(key))
	return []coordinator.Inspection{
		{Node: 1, Owner: true, Hash: r.StateHash(), Record: r},
		{Node: 2, Owner: true, Err: coordinator.ErrUnreachable},
		{Node: 3, For: 2, Hash: r.StateHash(), Record: r},
	}, nil
}

// Spread answers what the test wants: the n-th look the n-th of spreads, then the last.
func (f *dataStore) Spread(_ context.Context, req coordinator.SpreadRequest) (coordinator.Spread, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.asked = append(f.mu.asked, req)
	if len(f.mu.spreads) == 0 {
		return coordinator.Spread{}, coordinator.ErrNoReadQuorum
	}
	s := f.mu.spreads[0]
	if len(f.mu.spreads) > 1 {
		f.mu.spreads = f.mu.spreads[1:]
	}
	return s, nil
}

// dataAdmin is a node that is ready and has nothing to tell.
type dataAdmin struct{}

func (dataAdmin) Identity() Identity          { return Identity{ID: 1} }
func (dataAdmin) Ready() bool                 { return true }
func (dataAdmin) Level() uint16               { return 2 }
func (dataAdmin) View() *View                 { return &View{} }
func (dataAdmin) Owners([]byte) []Owner       { return nil }
func (dataAdmin) RingStatus() RingStatus      { return RingStatus{} }
func (dataAdmin) Repair(_, _ ring.Slot) error { return nil }
func (dataAdmin) RepairStatus() []Field       { return nil }
func (dataAdmin) Stats() Stats                { return Stats{} }
func (dataAdmin) Hints() []HintTarget         { return nil }

// dataDoor is a plain door in front of a dataStore.
type dataDoor struct {
	t     *testing.T
	clock *dataClock
	store *dataStore
	srv   *Server
}

func newDataDoor(t *testing.T, change ...func(*Config)) *dataDoor {
	t.Helper()
	clock := newDataClock()
	d := &dataDoor{t: t, clock: clock, store: newDataStore(clock)}
	cfg := Config{Store: d.store, Admin: dataAdmin{}, Ring: &fakeRing{}, Now: clock.now}
	for _, f := range change {
		f(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.srv = srv
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return d
}

// session is a session without a connection, for calling handlers directly.
func (d *dataDoor) session() *session {
	return &session{srv: d.srv, seen: seen{seed: d.srv.seed}}
}

func (d *dataDoor) connect() *dataWire {
	ours, theirs := net.Pipe()
	d.srv.accept(theirs)
	d.t.Cleanup(func() { _ = ours.Close() })
	return newDataWire(d.t, ours)
}

// dataWire is a client that shows replies as they are.
type dataWire struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func newDataWire(t *testing.T, conn net.Conn) *dataWire {
	return &dataWire{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func encodeCommand(args []string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}

// do sends one command and returns the reply's bytes.
func (c *dataWire) do(args ...string) string {
	c.t.Helper()
	return c.pipeline(args)[0]
}

// line is do for a command without special bytes.
func (c *dataWire) line(command string) string {
	c.t.Helper()
	return c.do(strings.Fields(command)...)
}

// pipeline sends commands at once and returns their replies.
func (c *dataWire) pipeline(commands ...[]string) []string {
	c.t.Helper()
	var all []byte
	for _, args := range commands {
		all = append(all, encodeCommand(args)...)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.conn.Write(all)
		sent <- err
	}()
	replies := make([]string, len(commands))
	for i := range commands {
		var b strings.Builder
		if err := readRaw(c.r, &b); err != nil {
			c.t.Fatalf("%.200q: reply after %q: %v", commands[i], b.String(), err)
		}
		replies[i] = b.String()
	}
	if err := <-sent; err != nil {
		c.t.Fatalf("send: %v", err)
	}
	return replies
}

// readRaw copies one reply of either protocol version.
func readRaw(r *bufio.Reader, to *strings.Builder) error {
	line, err := r.ReadString('\n')
	to.WriteString(line)
	if err != nil || len(line) < 3 {
		return cmp.Or(err, io.ErrUnexpectedEOF)
	}
	n, _ := strconv.Atoi(line[1 : len(line)-2])
	switch line[0] {
	case '$', '=':
		if n >= 0 {
			_, err = io.CopyN(to, r, int64(n)+2)
		}
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for ; n > 0 && err == nil; n-- {
			err = readRaw(r, to)
		}
	}
	return err
}

// expect fails unless the command's reply is exactly want.
func (c *dataWire) expect(want string, args ...string) {
	c.t.Helper()
	if got := c.do(args...); got != want {
		c.t.Errorf("%q: got %q, want %q", args, got, want)
	}
}

// bulkString reads a bulk string reply, or an element of one, from the front.
func cutBulk(t *testing.T, raw string) (value, rest string) {
	t.Helper()
	head, tail, ok := strings.Cut(raw, "\r\n")
	n, err := strconv.Atoi(strings.TrimPrefix(head, "$"))
	if !ok || err != nil || n < 0 || len(tail) < n+2 {
		t.Fatalf("no bulk string at %q", raw)
	}
	return tail[:n], tail[n+2:]
}
