package antientropy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
)

// The tests know records as sets of numbers that join by union: enough of a
// lattice to see rows lost or moved in vain.

// set is such a record. Numbers from past on are its context.
type set map[uint32]bool

const past = 1 << 31

func (s set) encode() []byte {
	var b []byte
	for _, n := range slices.Sorted(maps.Keys(s)) {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func decodeSet(b []byte) set {
	s := set{}
	for ; len(b) > 0; b = b[4:] {
		s[binary.BigEndian.Uint32(b)] = true
	}
	return s
}

// stateOf is the state hash of a row. No two keys share one, as no two records of
// a partition share their dots.
func stateOf(key string, s set) uint64 {
	s = maps.Clone(s)
	maps.DeleteFunc(s, func(n uint32, _ bool) bool { return n >= past })
	return hashOf("state of "+key, s.encode())
}

// wholeOf is the hash of a whole record, never equal to that of a state.
func wholeOf(key string, record []byte) uint64 { return hashOf("all of "+key, record) }

func hashOf(key string, record []byte) uint64 {
	if len(record) == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(append([]byte(key), record...)) // a hash takes everything
	return h.Sum64() | 1
}

// host is one node: rows, an Exchanger, a Responder and the way to the others.
type host struct {
	t     *testing.T
	id    ring.NodeID
	world *world
	x     *Exchanger
	r     *Responder

	mu       sync.Mutex
	rows     map[string]set // by key
	digests  [merkle.Slots]*[merkle.CellsPerSlot]uint64
	versions [merkle.Slots]uint64
	fail     error // of every question to this host
	credits  []int // of the deliveries to come; none left: plenty
	calls    map[string]int
	answers  time.Duration // how long any answer of it takes but to the frames of a session
	barriers int
	brought  map[string]int                                   // merges by key: rows that others brought or that were fetched
	live     *ring.Live                                       // nil: the world's ring alone
	deaf     bool                                             // to questions for whole records
	stamp    Stamp                                            // of these
	floor    Stamp                                            // what goes by less is refused
	hears    func(what string, cells []merkle.Cell, size int) // told of every question
}

// world is a cluster of hosts with one ring.
type world struct {
	ring  *ring.Ring
	hosts map[ring.NodeID]*host
	down  sync.Map // of the nodes that are away
}

func (w *world) isDown(node ring.NodeID) bool {
	_, down := w.down.Load(node)
	return down
}

// position places keys: those that begin with "@" share one cell, those that begin
// with "=" one position.
func position(key string) (slot uint16, hash uint32) {
	hash = ring.KeyHash([]byte(key))
	switch key[0] {
	case '@':
		return 7, hash >> 6
	case '=':
		return 800, 99
	}
	return ring.SlotOf([]byte(key)), hash
}

func newWorld(t *testing.T, n int, cfg Config) *world {
	t.Helper()
	w := &world{hosts: map[ring.NodeID]*host{}}
	var members []ring.Member
	for i := range n {
		id := ring.NodeID(i + 1)
		members = append(members, ring.Member{ID: id, PlaceID: id, Weight: 100})
	}
	var err error
	if w.ring, err = ring.New(ring.Params{Units: 1024, N: min(n, 3)}, members); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		w.add(t, m.ID, cfg)
	}
	return w
}

// add makes one more host.
func (w *world) add(t *testing.T, id ring.NodeID, cfg Config) *host {
	t.Helper()
	h := &host{t: t, id: id, world: w, rows: map[string]set{}, calls: map[string]int{}, brought: map[string]int{}}
	h.r = NewResponder(h)
	var err error
	if h.x, err = New(cfg, h, h); err != nil {
		t.Fatal(err)
	}
	w.hosts[id] = h
	return h
}

// put joins numbers into a row of the host alone.
func (h *host) put(key string, numbers ...uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	slot, hash := position(key)
	row := h.rows[key]
	old := stateOf(key, row)
	if row == nil {
		row = set{}
		h.rows[key] = row
	}
	for _, n := range numbers {
		row[n] = true
	}
	if h.digests[slot] == nil {
		h.digests[slot] = &[merkle.CellsPerSlot]uint64{}
	}
	h.digests[slot][merkle.CellOf(slot, hash).Index()] ^= merkle.Change(slot, hash, old, stateOf(key, row))
	h.versions[slot]++
}

func (h *host) Digests(slot ring.Slot) (d [merkle.CellsPerSlot]uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.digests[slot]; p != nil {
		d = *p
	}
	return d
}

func (h *host) DigestVersions(first, last ring.Slot) (sum uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := int(first); s <= int(last); s++ {
		sum += h.versions[s]
	}
	return sum
}

func (h *host) Merge(key, record []byte, _ time.Time, done func(error)) {
	h.mu.Lock()
	h.brought[string(key)]++
	h.mu.Unlock()
	h.put(string(key), slices.Collect(maps.Keys(decodeSet(record)))...)
	done(nil)
}

func (h *host) Barrier(done func(error)) {
	h.mu.Lock()
	h.barriers++
	h.mu.Unlock()
	done(nil)
}

// Reader copies the rows in some slots, in order.
func (h *host) Reader(first, last ring.Slot) (Reader, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var rows hostReader
	for key, s := range h.rows {
		slot, hash := position(key)
		if slot < first || slot > last {
			continue
		}
		enc := s.encode()
		rows = append(rows, hostRow{Position{slot, hash}, Row{Key: []byte(key), State: wholeOf(key, enc), Record: enc}})
	}
	slices.SortFunc(rows, func(a, b hostRow) int {
		return cmp.Or(a.at.compare(b.at), bytes.Compare(a.row.Key, b.row.Key))
	})
	return rows, nil
}

type hostRow struct {
	at  Position
	row Row
}

type hostReader []hostRow

// List looks at all rows for each cell.
func (r hostReader) List(q ListQuery) (a ListAnswer, err error) {
	from := q.From
	for a.Cells < len(q.Cells) && len(a.States) < q.Limit {
		had := len(a.States)
		for _, x := range r {
			if merkle.CellOf(x.at.Slot, x.at.KeyHash) != q.Cells[a.Cells] || x.at.KeyHash < from {
				continue
			}
			if n := len(a.States); n >= q.Limit && n > had && a.States[n-1].KeyHash != x.at.KeyHash {
				a.Next = x.at.KeyHash
				return a, nil
			}
			state := x.row.State
			if !q.Whole {
				state = stateOf(string(x.row.Key), decodeSet(x.row.Record))
			}
			a.States = append(a.States, KeyState{x.at.Slot, x.at.KeyHash, state})
		}
		a.Cells, from = a.Cells+1, 0
	}
	return a, nil
}

func (r hostReader) Rows(at []Position, maxBytes int) (rows []Row, n int, err error) {
	for n < len(at) && (n == 0 || sizeOf(rows) < maxBytes) {
		for _, x := range r {
			if x.at == at[n] {
				rows = append(rows, x.row)
			}
		}
		n++
	}
	return rows, n, nil
}

func (r hostReader) Close() error { return nil }

func (h *host) Rings() Rings {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil {
		return Rings{h.live, h.stamp}
	}
	return Rings{ring.NewLive(h.world.ring), h.stamp}
}

func (h *host) Self() ring.NodeID        { return h.id }
func (h *host) Up(node ring.NodeID) bool { return !h.world.isDown(node) }

func (h *host) Peer(node ring.NodeID, by Stamp) Peer {
	if other := h.world.hosts[node]; other != nil {
		return link{from: h.id, to: other, x: other.exchanger(), by: by}
	}
	return nil
}

// exchanger is that of the present process.
func (h *host) exchanger() *Exchanger {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.x
}

// link is the way from one host to the process of another.
type link struct {
	from ring.NodeID
	to   *host
	x    *Exchanger
	by   Stamp
}

// errOver refuses what goes by epochs that are over.
var errOver = errors.New("the epochs are over")

func (l link) called(what string, cells []merkle.Cell, size int) error {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	l.to.calls[what]++
	if l.to.hears != nil {
		l.to.hears(what, cells, size)
	}
	if l.to.world.isDown(l.to.id) || l.to.x != l.x {
		return errors.New("down")
	}
	if what != "begin" && what != "end" && bytes.Compare(l.by[:], l.to.floor[:]) < 0 {
		return errOver
	}
	return l.to.fail
}

func sizeOf(rows []Row) (size int) {
	for i := range rows {
		size += rows[i].size()
	}
	return size
}

func (l link) Nodes(_ context.Context, q NodesQuery) ([]uint64, error) {
	if err := l.called("nodes", nil, 0); err != nil {
		return nil, err
	}
	time.Sleep(l.to.answers)
	return l.to.r.Nodes(q, l.to.world.ring.Units())
}

func (l link) List(_ context.Context, q ListQuery) (ListAnswer, error) {
	if err := l.called("list", q.Cells, 0); err != nil {
		return ListAnswer{}, err
	}
	time.Sleep(l.to.answers)
	q.Whole = q.Whole && !l.to.deaf
	return l.to.r.List(q)
}

func (l link) Fetch(_ context.Context, at []Position, maxBytes int) ([]Row, int, error) {
	if err := l.called("fetch", nil, 0); err != nil {
		return nil, 0, err
	}
	rows, n, err := l.to.r.Fetch(at, maxBytes)
	time.Sleep(l.to.answers)
	return rows, n, err
}

func (l link) Deliver(_ context.Context, rows []Row) (int, error) {
	if err := l.called("deliver", nil, sizeOf(rows)); err != nil {
		return 0, err
	}
	time.Sleep(l.to.answers)
	for _, r := range rows {
		l.to.Merge(r.Key, r.Record, time.Time{}, func(error) {})
	}
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	if len(l.to.credits) == 0 {
		return 1 << 20, nil
	}
	credit := l.to.credits[0]
	l.to.credits = l.to.credits[1:]
	return credit, nil
}

func (l link) Begin(_ context.Context, s Session) error {
	if err := l.called("begin", nil, 0); err != nil {
		return err
	}
	return l.x.ServeBegin(l.from, s)
}

func (l link) End(_ context.Context, s Session) error {
	if err := l.called("end", nil, 0); err != nil {
		return err
	}
	var out error
	l.x.ServeEnd(l.from, s, func(err error) { out = err })
	return out
}

// owners puts a number into a row of those owners that has answers true for.
func (w *world) owners(key string, number uint32, has func(i int) bool) {
	slot, _ := position(key)
	for i, node := range w.ring.Owners(w.ring.Partition(slot)) {
		if has(i) {
			w.hosts[node].put(key, number)
		}
	}
}

// unequal lists the keys whose owners differ, and those that no owner has.
func (w *world) unequal() (bad []string) {
	keys := map[string]bool{}
	for _, h := range w.hosts {
		h.mu.Lock()
		for key := range h.rows {
			keys[key] = true
		}
		h.mu.Unlock()
	}
	for key := range keys {
		slot, _ := position(key)
		states := map[uint64]bool{}
		for _, node := range w.ring.Owners(w.ring.Partition(slot)) {
			states[w.hosts[node].state(key)] = true
		}
		if len(states) != 1 || states[0] {
			bad = append(bad, fmt.Sprintf("%s: %v", key, slices.Sorted(maps.Keys(states))))
		}
	}
	return bad
}

// state is the state of a row, 0 if there is none.
func (h *host) state(key string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return stateOf(key, h.rows[key])
}

// asked is how often a question was put to the host.
func (h *host) asked(what string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[what]
}

// pair is a world of two hosts, of which the first begins.
func pair(t *testing.T, cfg Config) (a, b *host) {
	t.Helper()
	w := newWorld(t, 2, cfg)
	a, b = w.hosts[1], w.hosts[2]
	if !begins(a.id, b.id) {
		a, b = b, a
	}
	return a, b
}
