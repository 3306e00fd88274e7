package handoff

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

const self = ring.NodeID(1)

// rig is a Sender on node 1 with a book, a cluster and peers in memory.
type rig struct {
	t      *testing.T
	book   *book
	set    *metrics.Set
	log    logBuffer
	sender *Sender
	stop   context.CancelFunc
	done   chan struct{}

	mu struct {
		sync.Mutex
		ring   *ring.Ring
		beside []*ring.Ring
		number uint64
		grant  Target
		down   map[ring.NodeID]bool
		peers  map[ring.NodeID]*peer
	}
}

// logBuffer is what was logged; it may be read while more is.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// inBubble runs f with a rig of so many nodes in virtual time.
func inBubble(t *testing.T, nodes int, cfg Config, f func(t *testing.T, r *rig)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		r := &rig{t: t, book: newBook()}
		r.mu.down, r.mu.peers = map[ring.NodeID]bool{}, map[ring.NodeID]*peer{}
		r.setRing(members(nodes)...)
		r.begin(cfg)
		defer func() { r.end() }()
		f(t, r)
	})
}

func members(n int) (ids []ring.NodeID) {
	for i := range n {
		ids = append(ids, ring.NodeID(i+1))
	}
	return ids
}

func ringOf(t *testing.T, ids ...ring.NodeID) *ring.Ring {
	t.Helper()
	var ms []ring.Member
	for _, id := range ids {
		ms = append(ms, ring.Member{ID: id, Weight: 100})
	}
	r, err := ring.New(ring.Params{Units: 64}, ms)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) setRing(ids ...ring.NodeID) {
	next := ringOf(r.t, ids...)
	r.mu.Lock()
	r.mu.ring, r.mu.beside, r.mu.grant = next, nil, Target{}
	r.mu.number++
	r.knowLocked(ids)
	r.mu.Unlock()
}

// setBeside makes a ring follow the present one.
func (r *rig) setBeside(ids ...ring.NodeID) {
	next := ringOf(r.t, ids...)
	r.mu.Lock()
	r.mu.beside, r.mu.grant = []*ring.Ring{next}, Target{}
	r.mu.number++
	r.knowLocked(ids)
	r.mu.Unlock()
}

func (r *rig) knowLocked(ids []ring.NodeID) {
	for _, id := range ids {
		if r.mu.peers[id] == nil {
			r.mu.peers[id] = &peer{rows: map[string][]byte{}}
		}
	}
}

// begin starts a Sender, as a start of the process does.
func (r *rig) begin(cfg Config) {
	r.t.Helper()
	r.set = metrics.NewSet()
	cfg.Self, cfg.Metrics = self, r.set
	cfg.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	budget := NewBudget(1<<20, r.book, cfg.Logger, r.set)
	var err error
	if r.sender, err = NewSender(cfg, r.book, r.book, r, budget); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop, r.done = cancel, make(chan struct{})
	sender, done := r.sender, r.done
	go func() {
		defer close(done)
		if err := sender.Run(ctx); err != nil {
			r.t.Errorf("run: %v", err)
		}
	}()
}

func (r *rig) end() {
	r.stop()
	<-r.done
}

func (r *rig) Live() *ring.Live { return r.Rings().Live }

func (r *rig) Rings() Rings {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := Rings{Live: ring.NewLive(r.mu.ring, r.mu.beside...), Number: r.mu.number}
	if len(r.mu.beside) > 0 {
		now.Plan, now.Grant = plan{now.Live}, r.mu.grant
	}
	return now
}

// plan is what epoch.View says of a base and one target beside it.
type plan struct{ live *ring.Live }

func (p plan) target() *ring.Ring { return p.live.Beside[len(p.live.Beside)-1] }

func (p plan) Holds(partition int) bool { return p.live.Owns(self, partition) }

func (p plan) Recipients(dst []ring.NodeID, partition int, holder ring.NodeID) []ring.NodeID {
	from, to := p.live.Base.Owners(partition), p.target().Owners(partition)
	stays := slices.Contains(to, holder) && len(to) >= len(from)
	for _, id := range to {
		if id != holder && (!stays || !slices.Contains(from, id)) {
			dst = append(dst, id)
		}
	}
	return dst
}

func (p plan) MayDropHint(partition int, owner ring.NodeID) bool {
	return p.target().Owns(owner, partition)
}

func (r *rig) Up(id ring.NodeID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.mu.down[id]
}

func (r *rig) Peer(id ring.NodeID) Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.mu.peers[id]; p != nil {
		return p
	}
	return nil
}

func (r *rig) peer(id ring.NodeID) *peer { return r.Peer(id).(*peer) }

func (r *rig) fall(id ring.NodeID) {
	r.mu.Lock()
	r.mu.down[id] = true
	r.mu.Unlock()
}

func (r *rig) rise(id ring.NodeID) {
	r.mu.Lock()
	delete(r.mu.down, id)
	r.mu.Unlock()
	r.sender.Returned(id)
}

// keep puts hints for target into the book, of keys that it owns.
func (r *rig) keep(target ring.NodeID, n int, value string) (keys []string) {
	for _, k := range r.keysOf(target, n) {
		r.book.put(target, k, value)
		keys = append(keys, k)
	}
	r.sender.Wake()
	return keys
}

// keysOf returns n keys that a node owns.
func (r *rig) keysOf(id ring.NodeID, n int) (keys []string) {
	current := r.Live()
	for i := 0; len(keys) < n; i++ {
		k := fmt.Sprint("key", i)
		if current.Owns(id, current.Partition(ring.SlotOf([]byte(k)))) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (r *rig) status(id ring.NodeID) Status {
	r.t.Helper()
	for _, st := range r.sender.Status() {
		if st.Target == id {
			return st
		}
	}
	r.t.Fatalf("node %v has no status", id)
	return Status{}
}

func (r *rig) counter(name string) uint64 { return r.set.GetOrCreateCounter(name).Get() }

// wantGone checks that target holds every key and the book nothing for it.
func (r *rig) wantGone(target ring.NodeID, keys []string, value string) {
	r.t.Helper()
	if n := r.book.rows(target); n != 0 {
		r.t.Errorf("%d hints for node %v are still there", n, target)
	}
	p := r.peer(target)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		if string(p.rows[k]) != value {
			r.t.Errorf("node %v holds %q of %s, want %q", target, p.rows[k], k, value)
		}
	}
}

// pass lets virtual time go by and what it sets off come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// book is a Book and a Merger in memory. A merge replaces what was there.
type book struct {
	mu    sync.Mutex
	hints map[ring.NodeID]map[string][]byte
	own   map[string][]byte
	since map[ring.NodeID]time.Time

	mergeErr, dropErr, pageErr error
	damaged                    ring.Slot // cannot be read; 0 none
	merges                     []string  // target/key, in order
	onMerge                    func()    // called once, with the lock held
}

func newBook() *book {
	return &book{hints: map[ring.NodeID]map[string][]byte{}, own: map[string][]byte{}, since: map[ring.NodeID]time.Time{}}
}

func (b *book) put(target ring.NodeID, key, value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.putLocked(target, key, []byte(value))
}

func (b *book) putLocked(target ring.NodeID, key string, value []byte) {
	if b.hints[target] == nil {
		b.hints[target] = map[string][]byte{}
	}
	if len(b.hints[target]) == 0 {
		b.since[target] = time.Now()
	}
	b.hints[target][key] = value
}

// get returns a hint, or an own row for target 0.
func (b *book) get(target ring.NodeID, key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if target == 0 {
		return string(b.own[key])
	}
	return string(b.hints[target][key])
}

// fail makes the book's methods fail from now on.
func (b *book) fail(merge, drop, page error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mergeErr, b.dropErr, b.pageErr = merge, drop, page
}

func (b *book) rows(target ring.NodeID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.hints[target])
}

func (b *book) Totals() (all []Total) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, rows := range b.hints {
		if len(rows) > 0 {
			all = append(all, Total{id, int64(len(rows)), b.bytesLocked(id), b.since[id]})
		}
	}
	return all
}

func (b *book) bytesLocked(target ring.NodeID) (n int64) {
	for k, v := range b.hints[target] {
		n += int64(len(k) + len(v))
	}
	return n
}

func (b *book) HintBytes(target ring.NodeID) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytesLocked(target)
}

func (b *book) Page(target ring.NodeID, slot ring.Slot, hash uint32, maxBytes int) (Page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pageErr != nil {
		return Page{}, b.pageErr
	}
	var rows []Row
	for k, v := range b.hints[target] {
		rows = append(rows, Row{Slot: ring.SlotOf([]byte(k)), KeyHash: ring.KeyHash([]byte(k)), Key: []byte(k), Record: v})
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.KeyHash, b.KeyHash)) })
	p := Page{Done: true}
	size := 0
	for _, row := range rows {
		if row.Slot < slot || row.Slot == slot && row.KeyHash < hash {
			continue
		}
		if b.damaged != 0 && row.Slot == b.damaged {
			p.NextSlot, p.NextHash, p.Done = b.damaged+1, 0, false
			return p, fmt.Errorf("rig: %w", version.ErrCorrupt)
		}
		if size > maxBytes {
			p.NextSlot, p.NextHash, p.Done = row.Slot, row.KeyHash, false
			break
		}
		p.Rows = append(p.Rows, row)
		size += row.size()
	}
	return p, nil
}

func (b *book) Drop(key []byte, target ring.NodeID, record []byte, done func(bool, error)) {
	b.mu.Lock()
	err := b.dropErr
	dropped := err == nil && bytes.Equal(b.hints[target][string(key)], record)
	if dropped {
		delete(b.hints[target], string(key))
	}
	b.mu.Unlock()
	done(dropped, err)
}

func (b *book) Merge(key []byte, target ring.NodeID, record []byte, durable bool, done func(error)) {
	b.mu.Lock()
	err := b.mergeErr
	if !durable {
		err = errors.New("rig: a move that is not durable")
	}
	if err == nil {
		b.merges = append(b.merges, fmt.Sprintf("%d/%s", target, key))
		if b.onMerge != nil {
			b.onMerge()
			b.onMerge = nil
		}
		if target == 0 {
			b.own[string(key)] = record
		} else {
			b.putLocked(target, string(key), record)
		}
	}
	b.mu.Unlock()
	done(err)
}

// peer is a node that takes rows.
type peer struct {
	mu       sync.Mutex
	rows     map[string][]byte
	messages []Message
	asked    int // messages without rows
	busy     int // messages at work now
	most     int // the most of them at once

	delay  time.Duration
	credit func() int          // grants; without limit if nil
	before func(Message) error // refuses a message
	lose   func(Message) bool  // stores the rows, and answers that time ran out
}

var errTimeout = errors.New("rig: timed out")

func (p *peer) Deliver(m Message, deadline time.Time, done func(int, error)) {
	p.mu.Lock()
	p.busy++
	p.most = max(p.most, p.busy)
	delay := p.delay
	p.mu.Unlock()
	if delay == 0 {
		p.serve(m, deadline, done)
		return
	}
	time.AfterFunc(delay, func() { p.serve(m, deadline, done) })
}

func (p *peer) serve(m Message, deadline time.Time, done func(int, error)) {
	p.mu.Lock()
	p.busy--
	if len(m.Rows) == 0 {
		p.asked++
	} else {
		p.messages = append(p.messages, m)
	}
	before, lose, credit := p.before, p.lose, p.credit
	p.mu.Unlock()
	if before != nil {
		if err := before(m); err != nil {
			done(0, err)
			return
		}
	}
	p.mu.Lock()
	for _, row := range m.Rows {
		p.rows[string(row.Key)] = row.Record
	}
	p.mu.Unlock()
	if lose != nil && lose(m) {
		time.AfterFunc(time.Until(deadline), func() { done(0, errTimeout) })
		return
	}
	if credit == nil {
		done(1<<30, nil)
		return
	}
	done(credit(), nil)
}

func (p *peer) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// seen returns the messages with rows, the number of those without, and how many
// were at work at once.
func (p *peer) seen() (messages []Message, asked, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages), p.asked, p.most
}

// sent is the number of rows in all messages, repetitions included.
func (p *peer) sent() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.messages {
		n += len(m.Rows)
	}
	return n
}
