package antientropy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/handoff"
)

// The tests here take a cluster of hosts from one ring to the next: each has the
// epochs of membership/epoch and the Mover of replica/handoff, beside its Exchanger.

// change is such a cluster.
type change struct {
	t     *testing.T
	w     *world
	cfg   Config
	nodes map[ring.NodeID]*changing
	rings map[epoch.ID]*ring.Ring
	end   chan struct{}
	ended chan struct{}

	mu sync.Mutex // held while states or nodes change
}

// changing is one node of it.
type changing struct {
	c     *change
	h     *host
	state epoch.State
	rings atomic.Pointer[handoff.Rings]
	view  *epoch.View
	mover *handoff.Mover
	stop  func()
	sent  int // grants for which it said that all is handed over

	hintMu sync.Mutex
	hints  map[ring.NodeID]map[string][]byte
}

func record(id ring.NodeID, counter uint64) ring.Record {
	return ring.Record{Member: ring.Member{ID: id, PlaceID: id, Weight: 100}, Counter: counter, Admin: id}
}

// inChange runs f with a settled cluster of n nodes, in virtual time.
func inChange(t *testing.T, n int, cfg Config, f func(c *change)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		c := &change{t: t, w: newWorld(t, n, cfg), cfg: cfg, nodes: map[ring.NodeID]*changing{}, rings: map[epoch.ID]*ring.Ring{}}
		c.end, c.ended = make(chan struct{}), make(chan struct{})
		var records []ring.Record
		for i := range n {
			records = append(records, record(ring.NodeID(i+1), 1))
		}
		for i := range 2 {
			c.w.add(t, ring.NodeID(n+i+1), cfg) // for join, before anybody looks
		}
		for i := range n {
			id := ring.NodeID(i + 1)
			c.begin(&changing{c: c, h: c.w.hosts[id], state: epoch.Settled(id, records)})
		}
		go c.gossip()
		f(c)
		close(c.end)
		<-c.ended
		for _, d := range c.nodes {
			d.stop()
		}
	})
}

// join adds a node that the cluster has not heard of, and makes it a member.
func (c *change) join(id ring.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(&changing{c: c, h: c.w.hosts[id], state: epoch.New(id, nil).Merge(c.nodes[1].state)})
	c.nodes[1].state = c.nodes[1].state.Amend([]ring.Record{record(id, 1)})
}

// amend makes a change at node 1.
func (c *change) amend(r ring.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[1].state = c.nodes[1].state.Amend([]ring.Record{r})
}

// begin starts the process of a node.
func (c *change) begin(d *changing) {
	if d.hints == nil {
		d.hints = map[ring.NodeID]map[string][]byte{}
	}
	d.publish()
	x, err := New(c.cfg, d.h, d.h)
	if err != nil {
		c.t.Fatal(err)
	}
	d.h.mu.Lock()
	d.h.x = x
	d.h.mu.Unlock()
	if d.mover, err = handoff.NewMover(handoff.MoverConfig{Self: d.h.id, Batch: 16}, d, d, d, d.moment); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = x.Run(ctx) }) // nil when ctx ends
	tasks.Go(func() { _ = d.mover.Run(ctx) })
	d.stop = func() { cancel(); tasks.Wait() }
	c.nodes[d.h.id] = d
}

// crash ends a node's process and begins another with what is on its disk.
func (c *change) crash(id ring.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.nodes[id]
	d.stop()
	state, err := epoch.Decode(d.state.Append(nil))
	if err != nil {
		c.t.Fatal(err)
	}
	c.begin(&changing{c: c, h: d.h, state: state, hints: d.hints, sent: d.sent})
}

// gossip lets all that are up hear of all, and take the steps that they may.
func (c *change) gossip() {
	defer close(c.ended)
	tick := time.NewTicker(20 * time.Millisecond)
	for {
		select {
		case <-c.end:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		for id, d := range c.nodes {
			if c.w.isDown(id) {
				continue
			}
			for other, o := range c.nodes {
				if !c.w.isDown(other) {
					d.state = d.state.Merge(o.state)
				}
			}
			d.publish()
			sent := epoch.ID(d.mover.Sent())
			if sent != (epoch.ID{}) && d.view.Transfer.Target == sent {
				d.sent++
				d.check()
			}
			d.state = d.state.Advance(epoch.Local{Drained: d.view.Number, Sent: sent})
			d.publish()
			d.mover.Wake()
		}
		c.mu.Unlock()
	}
}

// settled waits until all that are up read from a ring of so many members.
func (c *change) settled(members int) {
	c.t.Helper()
	for range 6000 {
		time.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		open := false
		for id, d := range c.nodes {
			open = open || !c.w.isDown(id) && (!d.view.Settled || len(d.view.Read().Members()) != members)
		}
		c.mu.Unlock()
		if !open {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, d := range c.nodes {
		c.t.Errorf("%v: %v\n%+v", id, d.state, d.mover.Progress())
	}
	c.t.Fatal("the change does not end")
}

func (c *change) viewOf(id ring.NodeID) *epoch.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id].view
}

func (c *change) ringOf(e *epoch.Epoch) *ring.Ring {
	r := c.rings[e.ID()]
	if r == nil {
		var err error
		if r, err = c.build(ring.Members(e.Records())); err != nil {
			c.t.Fatal(err)
		}
		c.rings[e.ID()] = r
	}
	return r
}

func (c *change) build(ms []ring.Member) (*ring.Ring, error) {
	return ring.New(ring.Params{Units: c.w.ring.Units(), N: 3}, ms)
}

// publish makes the view of the state the one that the node goes by.
func (d *changing) publish() {
	v, err := d.state.View(d.c.build)
	if err != nil {
		d.c.t.Fatal(err)
	}
	if d.view != nil && d.view.Number == v.Number && d.view.Transfer == v.Transfer {
		return
	}
	base := d.c.ringOf(d.state.Base())
	var beside []*ring.Ring
	for _, e := range d.state.Live() {
		if r := d.c.ringOf(e); r.Epoch() != base.Epoch() {
			beside = append(beside, r)
		}
	}
	rings := &handoff.Rings{Live: ring.NewLive(base, beside...), Number: v.Number}
	if !v.Settled {
		rings.Plan, rings.Grant = v, handoff.Target(v.Transfer.Target)
	}
	d.h.mu.Lock()
	d.h.live = rings.Live
	d.h.mu.Unlock()
	d.view = v
	d.rings.Store(rings)
}

// check looks whether what the node says to have handed over is there.
func (d *changing) check() {
	d.h.mu.Lock()
	own := map[string]set{}
	for key, s := range d.h.rows {
		own[key] = maps.Clone(s)
	}
	d.h.mu.Unlock()
	for key, s := range own {
		p := d.view.Read().Partition(ring.SlotOf([]byte(key)))
		if d.view.Holds(p) {
			d.wants(p, d.h.id, key, s)
		}
	}
	d.hintMu.Lock()
	defer d.hintMu.Unlock()
	for holder, rows := range d.hints {
		for key, rec := range rows {
			d.wants(d.view.Read().Partition(ring.SlotOf([]byte(key))), holder, key, decodeSet(rec))
		}
	}
}

func (d *changing) wants(partition int, holder ring.NodeID, key string, s set) {
	for _, to := range d.view.Recipients(nil, partition, holder) {
		h := d.c.w.hosts[to]
		h.mu.Lock()
		for n := range s {
			if !h.rows[key][n] {
				d.c.t.Errorf("node %v says that it handed all over, but %v lacks %d of %s, which it holds for %v", d.h.id, to, n, key, holder)
			}
		}
		h.mu.Unlock()
	}
}

func (d *changing) Rings() handoff.Rings     { return *d.rings.Load() }
func (d *changing) Up(node ring.NodeID) bool { return d.h.Up(node) }

func (d *changing) Peer(node ring.NodeID) handoff.Peer {
	if h := d.c.w.hosts[node]; h != nil {
		return courier{h}
	}
	return nil
}

// courier delivers hints to a host's own rows.
type courier struct{ h *host }

func (c courier) Deliver(m handoff.Message, _ time.Time, done func(int, error)) {
	if c.h.world.isDown(c.h.id) {
		done(0, errors.New("down"))
		return
	}
	for _, r := range m.Rows {
		c.h.Merge(r.Key, r.Record, time.Time{}, func(error) {})
	}
	done(1<<20, nil)
}

func (d *changing) Exchange(ctx context.Context, node ring.NodeID, first, last ring.Slot) (handoff.Moved, error) {
	t, err := d.h.x.Exchange(ctx, node, first, last)
	if errors.Is(err, ErrBusy) {
		err = handoff.ErrBusy
	}
	return handoff.Moved{Rows: t.Pulled + t.Pushed, Bytes: t.PulledSize + t.PushedSize}, err
}

func (d *changing) Session(partition int, node ring.NodeID) (time.Time, bool) {
	return d.h.x.WholeSession(partition, node)
}

func (d *changing) Merge(key []byte, target ring.NodeID, rec []byte, _ bool, done func(error)) {
	if target == 0 {
		d.h.Merge(key, rec, time.Time{}, done)
		return
	}
	d.keep(target, string(key), rec)
	done(nil)
}

func (d *changing) keep(target ring.NodeID, key string, rec []byte) {
	d.hintMu.Lock()
	defer d.hintMu.Unlock()
	if d.hints[target] == nil {
		d.hints[target] = map[string][]byte{}
	}
	d.hints[target][key] = rec
}

// hintsThen is the hints of one moment.
type hintsThen map[ring.NodeID]map[string][]byte

func (d *changing) moment() (handoff.Moment, error) {
	d.hintMu.Lock()
	defer d.hintMu.Unlock()
	m := hintsThen{}
	for target, rows := range d.hints {
		m[target] = maps.Clone(rows)
	}
	return m, nil
}

func (m hintsThen) Targets() ([]ring.NodeID, error) { return slices.Collect(maps.Keys(m)), nil }

func (m hintsThen) Page(target ring.NodeID, slot ring.Slot, hash uint32, _ int) (handoff.Page, error) {
	var rows []handoff.Row
	for k, v := range m[target] {
		key := []byte(k)
		rows = append(rows, handoff.Row{Slot: ring.SlotOf(key), KeyHash: ring.KeyHash(key), Key: key, Record: v})
	}
	slices.SortFunc(rows, func(a, b handoff.Row) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.KeyHash, b.KeyHash), bytes.Compare(a.Key, b.Key))
	})
	rows = slices.DeleteFunc(rows, func(r handoff.Row) bool { return r.Slot < slot || r.Slot == slot && r.KeyHash < hash })
	p := handoff.Page{Rows: rows, Done: true}
	if len(rows) > 7 {
		p = handoff.Page{Rows: rows[:7], NextSlot: rows[7].Slot, NextHash: rows[7].KeyHash}
	}
	return p, nil
}

func (m hintsThen) Close() error { return nil }

// fill puts n keys into all owners in the present ring.
func (c *change) fill(n int) (keys []string) {
	for i := range n {
		key := fmt.Sprint("k", i)
		c.w.owners(key, 1, func(int) bool { return true })
		keys = append(keys, key)
	}
	return keys
}

// whole checks that all owners in the ring that is read from have all keys.
func (c *change) whole(keys []string, numbers ...uint32) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.nodes[1].view.Read()
	for _, key := range keys {
		for _, id := range r.Owners(r.Partition(ring.SlotOf([]byte(key)))) {
			h := c.w.hosts[id]
			h.mu.Lock()
			for _, n := range numbers {
				if !h.rows[key][n] {
					c.t.Errorf("owner %v lacks %d of %s", id, n, key)
				}
			}
			h.mu.Unlock()
		}
	}
}

// brought counts the rows that a host was brought, and the distinct ones of those.
func (h *host) broughtRows() (rows, distinct int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.brought {
		rows += n
	}
	return rows, len(h.brought)
}

// slow makes an exchange of many rows take a while.
func slow() Config {
	return Config{RowBytes: 64, Settle: 100 * time.Millisecond, Interval: time.Second, Pace: func(ctx context.Context) (func(time.Duration), error) {
		return func(time.Duration) {}, sleep(ctx, 50*time.Millisecond)
	}}
}

func TestANewOwnerIsBroughtEveryRowOnce(t *testing.T) {
	inChange(t, 3, slow(), func(c *change) {
		keys := c.fill(1500)
		c.join(4)
		c.settled(4)
		c.whole(keys, 1)
		rows, distinct := c.w.hosts[4].broughtRows()
		if distinct < 900 || rows*10 > distinct*11 {
			t.Errorf("three old owners brought %d rows of %d", rows, distinct)
		}
	})
}

func TestACrashOnEitherSideProvesNothingAndMovesLittleAgain(t *testing.T) {
	for name, victim := range map[string]ring.NodeID{"old owner": 2, "new owner": 4} {
		t.Run(name, func(t *testing.T) {
			inChange(t, 3, slow(), func(c *change) {
				keys := c.fill(1500)
				c.join(4)
				for range 3 {
					time.Sleep(2 * time.Second)
					c.crash(victim)
				}
				if v := c.viewOf(1); v.Settled {
					t.Error("the change has ended before the crashes")
				}
				c.settled(4)
				c.whole(keys, 1)
				if rows, distinct := c.w.hosts[4].broughtRows(); rows*10 > distinct*13 {
					t.Errorf("the new owner was brought %d rows of %d", rows, distinct)
				}
			})
		})
	}
}

func TestATargetThatIsReplacedIsNotSent(t *testing.T) {
	inChange(t, 3, slow(), func(c *change) {
		keys := c.fill(1500)
		c.join(4)
		time.Sleep(3 * time.Second)
		c.join(5)
		time.Sleep(2 * time.Second)
		c.amend(ring.Record{Member: ring.Member{ID: 2, PlaceID: 2, Weight: 100}, Counter: 2, Admin: 1, Removed: true})
		if v := c.viewOf(1); v.Settled {
			t.Error("the change has ended before the others")
		}
		c.settled(4)
		c.whole(keys, 1)
		c.mu.Lock()
		defer c.mu.Unlock()
		for id, d := range c.nodes {
			if d.sent == 0 || epoch.ID(d.mover.Sent()) != (epoch.ID{}) {
				t.Errorf("node %v has sent for %d targets, and now for %v", id, d.sent, d.mover.Sent())
			}
		}
	})
}

func TestARecipientThatIsDownIsWaitedFor(t *testing.T) {
	inChange(t, 3, slow(), func(c *change) {
		keys := c.fill(900)
		c.join(4)
		time.Sleep(2 * time.Second)
		c.w.down.Store(ring.NodeID(4), true)
		time.Sleep(time.Minute)
		c.mu.Lock()
		p := c.nodes[1].mover.Progress()
		i := slices.IndexFunc(p.Lanes, func(l handoff.LaneProgress) bool { return l.Node == 4 })
		if i < 0 || p.Lanes[i].State != "down" || p.Lanes[i].Done == p.Lanes[i].Partitions || p.Sent {
			t.Errorf("progress of a node that waits: %+v", p)
		}
		c.mu.Unlock()
		c.w.down.Delete(ring.NodeID(4))
		c.settled(4)
		c.whole(keys, 1)
	})
}

// Node 3 dies with writes that only a hint for it and one other owner have.
func TestHintsForADeadOwnerReachTheNewOnes(t *testing.T) {
	inChange(t, 4, slow(), func(c *change) {
		keys := c.fill(400)
		c.w.down.Store(ring.NodeID(3), true)
		var hinted []string
		r := c.w.ring
		for _, key := range keys {
			owners := r.Owners(r.Partition(ring.SlotOf([]byte(key))))
			if !slices.Contains(owners, 3) {
				continue
			}
			hinted = append(hinted, key)
			for id, d := range c.nodes {
				if !slices.Contains(owners, id) {
					d.keep(3, key, set{2: true}.encode())
				}
			}
		}
		c.join(5)
		time.Sleep(time.Minute)
		if v := c.viewOf(1); v.Settled || v.Read().Epoch() != r.Epoch() {
			t.Fatal("the change went on without a member that is down")
		}
		c.amend(ring.Record{Member: ring.Member{ID: 3, PlaceID: 3, Weight: 100}, Counter: 2, Admin: 1, Removed: true, Forgotten: true})
		c.settled(4)
		c.whole(keys, 1)
		c.whole(hinted, 2)
	})
}

// Everybody gives to everybody, one at a time, and nobody waits for ever.
func TestALeavingNodeIsTakenOverByAllOthers(t *testing.T) {
	inChange(t, 7, slow(), func(c *change) {
		keys := c.fill(2000)
		began := time.Now()
		c.amend(ring.Record{Member: ring.Member{ID: 7, PlaceID: 7, Weight: 100}, Counter: 2, Admin: 1, Removed: true})
		c.settled(6)
		c.whole(keys, 1)
		all, distinct := 0, 0
		for _, h := range c.w.hosts {
			rows, once := h.broughtRows()
			all, distinct = all+rows, distinct+once
		}
		if distinct < 500 || all*10 > distinct*11 {
			t.Errorf("%d rows were brought for %d", all, distinct)
		}
		if took := time.Since(began); took > 5*time.Minute {
			t.Errorf("it took %v", took)
		}
		if !c.viewOf(7).Out {
			t.Error("the node that left is still needed")
		}
	})
}
