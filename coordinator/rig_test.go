package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// fault is how a node of the rig misbehaves towards others.
type fault uint8

const (
	healthy     fault = iota
	unreachable       // certainly not received
	silent            // received, maybe acted on, never answered
	deaf              // neither acted on nor answered
	dying             // as silent, but shows signs of life first
	dyingDeaf         // as deaf, but shows signs of life first
	overloaded
	full
	broken   // answers with an error
	fenced   // is no owner, as far as it knows
	outdated // says that the others are
)

var errBroken = errors.New("rig: broken disk")

// rig is a cluster of coordinators over replicas that live in maps.
type rig struct {
	t     testing.TB
	ring  *ring.Ring
	rings atomic.Pointer[Rings]
	ids   []ring.NodeID
	nodes map[ring.NodeID]*node

	minted sync.Map // value -> *atomic.Int64, how many dots it got
}

// node is one member: its coordinator, and the replica that others see.
type node struct {
	id    ring.NodeID
	rig   *rig
	coord *Coordinator

	mu struct {
		sync.Mutex
		fault    fault
		delay    time.Duration // of every answer
		stopped  time.Duration // it stands still for so long when it next reads for itself
		latency  time.Duration // what others think its p95 is
		down     map[ring.NodeID]bool
		rows     map[row]version.Record
		counter  uint64
		mints    int
		mintErr  error
		lost     bool  // it is recovering
		local    fault // of the local commit
		disk     fault // of merges alone
		merges   []MergeRequest
		full     bool // refuses optional hints
		reads    []ReadRequest
		forwards []ForwardRequest
		scans    int
		stamps   []Stamp // of all messages for rows
		proofs   int     // how often it was asked for a sign of life
		wants    Stamp   // it refuses messages with another one, if it is set
	}
}

type row struct {
	key   string
	owner ring.NodeID
}

func newRig(t testing.TB, size int, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t, nodes: map[ring.NodeID]*node{}}
	var members []ring.Member
	for i := range size {
		id := ring.NodeID(i + 1)
		r.ids = append(r.ids, id)
		members = append(members, ring.Member{ID: id, Weight: 100})
	}
	var err error
	if r.ring, err = ring.New(ring.Params{Units: 64}, members); err != nil {
		t.Fatal(err)
	}
	r.rings.Store(NewRings(ring.NewLive(r.ring), Stamp{}, 0))
	for _, id := range r.ids {
		n := &node{id: id, rig: r}
		n.mu.rows, n.mu.down = map[row]version.Record{}, map[ring.NodeID]bool{}
		cfg.Recovering = n.recovering
		if n.coord, err = New(cfg, n, n); err != nil {
			t.Fatal(err)
		}
		r.nodes[id] = n
	}
	return r
}

// owners are the owners of key, and others the rest in fallback order.
func (r *rig) owners(key string) []*node { return r.pick(r.ring.Owners(r.partition(key))) }
func (r *rig) others(key string) []*node { return r.pick(r.ring.Fallbacks(r.partition(key))) }
func (r *rig) partition(key string) int {
	return r.ring.Partition(ring.SlotOf([]byte(key)))
}

func (r *rig) pick(ids []ring.NodeID) []*node {
	var out []*node
	for _, id := range ids {
		out = append(out, r.nodes[id])
	}
	return out
}

// drained waits for all tails, within a minute of virtual time. Every node
// refuses new requests from then on.
func (r *rig) drained() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range r.nodes {
		if err := n.coord.Drain(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
}

// seen tells everybody that a node is down.
func (r *rig) seen(down *node) {
	for _, n := range r.nodes {
		n.mu.Lock()
		n.mu.down[down.id] = true
		n.mu.Unlock()
	}
}

// stopped takes the time that the node is to stand still.
func (n *node) stopped() (d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, n.mu.stopped = n.mu.stopped, 0
	return d
}

func (n *node) set(f fault) { n.mu.Lock(); n.mu.fault = f; n.mu.Unlock() }

// refuses sets how the node answers to what it is to store.
func (n *node) refuses(f fault) { n.mu.Lock(); n.mu.disk = f; n.mu.Unlock() }

// seemsAt sets how slow others think that the node is.
func (n *node) seemsAt(latency time.Duration) { n.mu.Lock(); n.mu.latency = latency; n.mu.Unlock() }

// lose takes all rows from a node, which knows it.
func (n *node) lose() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.mu.rows)
	n.mu.lost = true
}

func (n *node) recovering() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.lost
}

func (n *node) get(key string, owner ring.NodeID) version.Record {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.rows[row{key, owner}]
}

func (n *node) put(key string, rec version.Record) {
	n.mu.Lock()
	n.mu.rows[row{key, 0}] = rec
	n.mu.Unlock()
}

func value(rec version.Record) string {
	v, ok := rec.Winner(1000)
	if !ok {
		return ""
	}
	return string(v.Value)
}

// Cluster.
func (n *node) Rings() *Rings     { return n.rig.rings.Load() }
func (n *node) Self() ring.NodeID { return n.id }
func (n *node) Up(id ring.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.mu.down[id]
}

func (n *node) Peer(id ring.NodeID) Peer {
	if p := n.rig.nodes[id]; p != nil {
		return link{from: n, to: p}
	}
	return nil
}

// link is the way from one node to another.
type link struct{ from, to *node }

// carry runs act at the far end and answer with its outcome, as the fault and
// the delay of the far end say. The way to oneself has no faults.
func (l link) carry(deadline time.Time, act func(), answer func(error)) {
	l.to.mu.Lock()
	f := l.to.mu.fault
	l.to.mu.Unlock()
	l.carryBy(f, deadline, act, answer)
}

func (l link) carryBy(f fault, deadline time.Time, act func(), answer func(error)) {
	l.to.mu.Lock()
	delay := l.to.mu.delay
	l.to.mu.Unlock()
	if l.from == l.to {
		f = healthy
	}
	if !time.Now().Before(deadline) {
		answer(ErrUnreachable) // too late to be sent
		return
	}
	late := func() { time.AfterFunc(time.Until(deadline), func() { answer(ErrLost) }) }
	switch f {
	case unreachable:
		answer(ErrUnreachable)
	case overloaded:
		answer(ErrOverloaded)
	case full:
		answer(ErrDiskFull)
	case broken:
		answer(errBroken)
	case fenced:
		answer(ErrNotOwner)
	case outdated:
		answer(ErrStaleEpoch)
	case silent, dying:
		act()
		late()
	case deaf, dyingDeaf:
		late()
	default:
		switch {
		case delay == 0:
			act()
			answer(nil)
		case time.Until(deadline) <= delay:
			late()
		default:
			time.AfterFunc(delay, func() { act(); answer(nil) })
		}
	}
}

// stamped notes the stamp of a message, and reports whether it is refused for that.
func (l link) stamped(s Stamp) bool {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	l.to.mu.stamps = append(l.to.mu.stamps, s)
	return l.from != l.to && l.to.mu.wants != Stamp{} && l.to.mu.wants != s
}

func (l link) Read(req ReadRequest, done func(ReadReply, error)) {
	if l.stamped(req.Stamp) {
		done(ReadReply{}, ErrStaleEpoch)
		return
	}
	var out ReadReply
	l.carry(req.Deadline, func() {
		if l.from == l.to {
			time.Sleep(l.to.stopped())
		}
		l.to.mu.Lock()
		defer l.to.mu.Unlock()
		l.to.mu.reads = append(l.to.mu.reads, req)
		rec := l.to.mu.rows[row{string(req.Key), 0}]
		for k, kept := range l.to.mu.rows {
			if req.For != 0 && k.key == string(req.Key) {
				rec = version.Merge(rec, kept)
			}
		}
		out = ReadReply{Hash: rec.StateHash()}
		switch {
		case l.to.mu.lost:
			out.Recovering, out.Record = true, rec
		case req.HaveAny && req.Have == out.Hash:
			out.Same = true
		case !req.DigestOnly:
			out.Record = rec
		}
	}, func(err error) { done(out, err) })
}

func (l link) Merge(req MergeRequest, done func(error)) {
	l.stamped(req.Stamp)
	refused := false
	l.to.mu.Lock()
	f := l.to.mu.fault
	if f == healthy {
		f = l.to.mu.disk
	}
	l.to.mu.Unlock()
	l.carryBy(f, req.Deadline, func() {
		rec, err := version.DecodeRecord(req.Record)
		if err != nil {
			panic(err)
		}
		l.to.mu.Lock()
		defer l.to.mu.Unlock()
		l.to.mu.merges = append(l.to.mu.merges, req)
		if refused = req.Optional && l.to.mu.full; refused {
			return
		}
		k := row{string(req.Key), req.For}
		l.to.mu.rows[k] = version.Merge(l.to.mu.rows[k], rec)
	}, func(err error) {
		if refused && err == nil {
			err = ErrHintBudget
		}
		done(err)
	})
}

// signWait is how long a sign of life is waited for.
const signWait = 500 * time.Millisecond

func (l link) Prove(done func(error)) {
	l.to.mu.Lock()
	f, delay := l.to.mu.fault, l.to.mu.delay
	l.to.mu.proofs++
	l.to.mu.Unlock()
	switch f {
	case unreachable:
		done(ErrUnreachable)
	case silent, deaf:
		time.AfterFunc(signWait, func() { done(ErrLost) })
	default:
		time.AfterFunc(delay, func() { done(nil) })
	}
}

func (l link) Write(req ForwardRequest, done func(WriteResult, error)) {
	l.to.mu.Lock()
	f, delay := l.to.mu.fault, l.to.mu.delay
	l.to.mu.forwards = append(l.to.mu.forwards, req)
	l.to.mu.Unlock()
	serve := func(done func(WriteResult, error)) {
		l.to.coord.ServeForwarded(req.Key, req.Op, WriteOptions{R: req.R, W: req.W, Timeout: time.Until(req.Deadline)}, done)
	}
	switch {
	case f == healthy && delay == 0:
		serve(done)
	case f == healthy:
		time.AfterFunc(delay, func() { serve(done) })
	default:
		l.carry(req.Deadline, func() { serve(func(WriteResult, error) {}) }, func(err error) { done(WriteResult{}, err) })
	}
}

func (l link) Scan(req ScanRange, done func(ScanReply, error)) {
	if l.stamped(req.Stamp) {
		done(ScanReply{}, ErrStaleEpoch)
		return
	}
	var out ScanReply
	l.carry(req.Deadline, func() { out = l.to.page(req) }, func(err error) { done(out, err) })
}

// page lists the own rows of a node as a replica does: a page never ends
// between two keys of one position.
func (n *node) page(req ScanRange) ScanReply {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.scans++
	var all []ScanEntry
	for k, rec := range n.mu.rows {
		key := []byte(k.key)
		e := ScanEntry{Slot: ring.SlotOf(key), KeyHash: ring.KeyHash(key), Key: key, StateHash: rec.StateHash(), Live: value(rec) != ""}
		from := position{int(req.FromSlot), req.FromHash}
		if at := (position{int(e.Slot), e.KeyHash}); k.owner == 0 && at.compare(from) >= 0 && e.Slot <= req.ToSlot {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b ScanEntry) int {
		return position{int(a.Slot), a.KeyHash}.compare(position{int(b.Slot), b.KeyHash})
	})
	for i := req.Limit; i < len(all); i++ {
		if at, last := all[i], all[i-1]; at.Slot != last.Slot || at.KeyHash != last.KeyHash {
			return ScanReply{Entries: all[:i], NextSlot: at.Slot, NextHash: at.KeyHash}
		}
	}
	return ScanReply{Entries: all, Done: true}
}

func (l link) Count(req CountRequest, done func(int64, error)) {
	if l.stamped(req.Stamp) {
		done(0, ErrStaleEpoch)
		return
	}
	total := int64(0)
	l.carry(req.Deadline, func() {
		l.to.mu.Lock()
		defer l.to.mu.Unlock()
		for k, rec := range l.to.mu.rows {
			slot := ring.SlotOf([]byte(k.key))
			for _, s := range req.Ranges {
				if k.owner == 0 && s.First <= slot && slot <= s.Last && value(rec) != "" {
					total++
				}
			}
		}
	}, func(err error) { done(total, err) })
}

func (l link) Inspect(req InspectRequest, done func([]Inspection, error)) {
	l.stamped(req.Stamp)
	var out []Inspection
	l.carry(req.Deadline, func() {
		l.to.mu.Lock()
		defer l.to.mu.Unlock()
		for k, rec := range l.to.mu.rows {
			if k.key == string(req.Key) {
				out = append(out, Inspection{For: k.owner, Hash: rec.StateHash(), Record: rec})
			}
		}
	}, func(err error) { done(out, err) })
}

func (l link) Latency() time.Duration {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	return l.to.mu.latency
}

// Mutate makes node a Local.
func (n *node) Mutate(key []byte, owner ring.NodeID, base version.Record, op version.Op, _ time.Time, _ bool, done func(error)) ([]byte, version.Outcome, error) {
	n.mu.Lock()
	if n.mu.mintErr != nil {
		defer n.mu.Unlock()
		return nil, version.Outcome{}, n.mu.mintErr
	}
	n.mu.counter++
	k := row{string(key), owner}
	rec, out, err := version.Apply(version.Merge(n.mu.rows[k], base), op, version.Mint{
		NowMS: 1000, HLC: version.HLCFromMS(1000), Dot: version.Dot{Actor: version.Actor(n.id), Counter: n.mu.counter},
	})
	if err != nil {
		defer n.mu.Unlock()
		return nil, out, err
	}
	n.mu.mints++
	count, _ := n.rig.minted.LoadOrStore(string(op.Value), new(atomic.Int64))
	count.(*atomic.Int64).Add(1)
	f, delay := n.mu.local, n.mu.delay
	if f == healthy {
		n.mu.rows[k] = rec
	}
	n.mu.Unlock()
	switch {
	case f != healthy:
		done(errBroken)
	case delay > 0:
		time.AfterFunc(delay, func() { done(nil) })
	default:
		done(nil)
	}
	return version.EncodeWire(nil, rec), out, nil
}

func (n *node) mints() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.mints
}

func (r *rig) mints() int {
	total := 0
	for _, n := range r.nodes {
		total += n.mints()
	}
	return total
}

// reply is the outcome of one request; it fails the test on a second one.
type reply[T any] struct {
	t    testing.TB
	done chan struct{}
	mu   sync.Mutex
	n    int
	val  T
	err  error
	at   time.Time
}

func newReply[T any](t testing.TB) *reply[T] { return &reply[T]{t: t, done: make(chan struct{})} }

func (r *reply[T]) take(v T, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n++; r.n > 1 {
		r.t.Errorf("done called %d times", r.n)
		return
	}
	r.val, r.err, r.at = v, err, time.Now()
	close(r.done)
}

func (n *node) write(key string, op version.Op, o WriteOptions) (WriteResult, error) {
	r := newReply[WriteResult](n.rig.t)
	n.coord.Write([]byte(key), op, o, r.take)
	<-r.done
	return r.val, r.err
}

func (n *node) read(key string, o ReadOptions) (ReadResult, error) {
	r := newReply[ReadResult](n.rig.t)
	n.coord.Read([]byte(key), o, r.take)
	<-r.done
	return r.val, r.err
}

func set(v string) version.Op { return version.Op{Kind: version.OpSet, Value: []byte(v)} }

// inBubble runs a test over a rig under virtual time and lets all tails end.
func inBubble(t *testing.T, size int, cfg Config, f func(t *testing.T, r *rig)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, size, cfg)
		f(t, r)
		r.drained()
	})
}

func (n *node) String() string { return fmt.Sprintf("node %d", n.id) }
