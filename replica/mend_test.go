package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// fakeOwners have everything, and send it when they may.
type fakeOwners struct {
	h    *host
	rows map[string][]byte
	ask  bool
	send chan struct{} // closed when they may
	err  error
}

func (o *fakeOwners) Exchange(_, _ ring.Slot) bool {
	o.ask = true
	return true
}

func (o *fakeOwners) Whole(context.Context, storage.Hole, time.Time) bool {
	select {
	case <-o.send:
	default:
		return false
	}
	for key, enc := range o.rows {
		o.err = errors.Join(o.err, o.h.take(key, 0, enc))
	}
	return true
}

// busyOwners exchange one part after the other, in some seconds each.
type busyOwners struct {
	*fakeOwners
	until time.Time               // of the exchange under way
	ended map[ring.Slot]time.Time // of the last exchange from each slot on
	began map[ring.Slot]time.Time
	sent  bool
}

const exchangeTakes = 2 * time.Second

func (o *busyOwners) Exchange(first, _ ring.Slot) bool {
	now := time.Now()
	if now.Before(o.until) {
		return false
	}
	o.until = now.Add(exchangeTakes)
	o.began[first], o.ended[first] = now, o.until
	return true
}

func (o *busyOwners) Whole(ctx context.Context, h storage.Hole, since time.Time) bool {
	first, _, _, _ := h.Positions()
	end, asked := o.ended[ring.Slot(first)]
	if !asked || time.Now().Before(end) || o.began[ring.Slot(first)].Before(since) {
		return false
	}
	if !o.sent { // all at once, which is what they have then
		o.sent = o.fakeOwners.Whole(ctx, h, since)
	}
	return true
}

// Each hole has an exchange of its own, and none waits for more than the ones before.
func TestHolesAreMendedAsFastAsExchangesGo(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const keys = 1000
		disk := vfs.NewCrashableMem()
		h := newHost(t, disk, 5, nil)
		for i := range keys {
			h.set(t, fmt.Sprint("k", i), strings.Repeat("v", 200))
		}
		h, s, rows := settled(t, h, disk, keys)
		h.rot(t, 5000)
		h.check(t, rows)
		time.Sleep(time.Second) // damage that was met is taken out of the tables
		holes := len(s.Holes())
		if holes < 5 {
			t.Fatalf("only %d holes", holes)
		}
		owners := &busyOwners{fakeOwners: &fakeOwners{h: h, rows: rows, send: make(chan struct{})}, began: map[ring.Slot]time.Time{}, ended: map[ring.Slot]time.Time{}}
		close(owners.send)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		began := time.Now()
		go func() { ended <- NewMender(h.Replica, owners).Run(ctx) }()
		for len(s.Holes()) > 0 && time.Since(began) < 10*time.Minute {
			time.Sleep(time.Second)
		}
		if took, most := time.Since(began), time.Duration(holes+2)*(exchangeTakes+2*mendInterval); took > most {
			t.Errorf("%d holes took %v, more than %v", holes, took, most)
		}
		cancel()
		if err := errors.Join(<-ended, owners.err); err != nil {
			t.Error(err)
		}
		if lost := h.check(t, rows); lost > 0 {
			t.Errorf("%d rows are still lost", lost)
		}
		h.close(t)
	})
}

// settled starts a host again until all rows are in tables and none is cached, and answers
// it with its store and what its keys are.
func settled(t *testing.T, h *host, disk *vfs.MemFS, keys int) (*host, *storage.Store, map[string][]byte) {
	t.Helper()
	for range 2 {
		h.close(t)
		h = newHost(t, disk, version.Actor(6), func(c *Config) { c.CacheBytes = 1 })
	}
	rows := map[string][]byte{}
	for i := range keys {
		key := fmt.Sprint("k", i)
		rec, _, _, err := h.Read([]byte(key), 0)
		if err != nil {
			t.Fatal(err)
		}
		rows[key] = version.EncodeWire(nil, rec)
	}
	h.close(t)
	s := openStore(t, disk, func(c *storage.Config) { c.BlockCacheBytes = 1 << 10 })
	s.Start()
	return hostOn(t, s, disk, 7, func(c *Config) { c.CacheBytes = 1 }), s, rows
}

// rot turns a bit in every so many bytes of every table.
func (h *host) rot(t *testing.T, every int64) {
	t.Helper()
	names, err := h.disk.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		f, err := h.disk.OpenReadWrite("db/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		for at := every / 2; err == nil && at < info.Size(); at += every {
			var b [1]byte
			_, rerr := f.ReadAt(b[:], at)
			b[0] ^= 4
			_, werr := f.WriteAt(b[:], at)
			err = errors.Join(rerr, werr)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMenderBringsBackRowsAndIndexesAndCountsLostHints(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const keys = 300
		disk := vfs.NewCrashableMem()
		h := newHost(t, disk, 5, nil)
		at := time.Now().Add(time.Hour).UnixMilli()
		for i := range keys {
			key := fmt.Sprint("k", i)
			switch i % 3 {
			case 0:
				h.set(t, key, strings.Repeat("v", i))
			case 1:
				h.do(t, key, 0, version.Op{Kind: version.OpSet, Value: []byte("x"), Expiry: version.ExpiryAt, ExpireAtMS: at})
			default:
				h.set(t, key, "gone")
				h.del(t, key)
			}
			h.do(t, key, 9, version.Op{Kind: version.OpSet, Value: []byte("hint")})
		}
		h, s, rows := settled(t, h, disk, keys)
		h.rot(t, 700)
		h.check(t, rows)

		owners := &fakeOwners{h: h, rows: rows, send: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- NewMender(h.Replica, owners).Run(ctx) }()
		time.Sleep(time.Minute)
		if lost := h.check(t, rows); lost == 0 || !owners.ask {
			t.Errorf("%d rows are lost, owners asked: %v; want some, and true", lost, owners.ask)
		}
		if _, err := h.Count(0, ring.Slots-1); !errors.Is(err, ErrMending) {
			t.Errorf("count: %v, want ErrMending", err)
		}
		close(owners.send)
		time.Sleep(time.Minute)
		cancel()
		if err := errors.Join(<-ended, owners.err); err != nil {
			t.Error(err)
		}
		if holes := s.Holes(); len(holes) > 0 {
			t.Errorf("holes are left: %x", holes)
		}
		if lost := h.check(t, rows); lost > 0 {
			t.Errorf("%d rows are still lost", lost)
		}
		c := look(t, s)
		if len(c.orphans) > 0 {
			t.Errorf("expiry index: %v", c.orphans)
		}
		graves := 0
		lo, hi := storage.AllGraves()
		if err := s.Scan(lo, hi, func(_, _ []byte) bool { graves++; return true }); err != nil || graves != keys/3 {
			t.Errorf("%d graves, %v; want %d", graves, err, keys/3)
		}
		if n, err := h.Count(0, ring.Slots-1); err != nil || n != 2*keys/3 {
			t.Errorf("count: %d, %v; want %d", n, err, 2*keys/3)
		}
		st := h.Stats()
		if st.Expires != keys/3 {
			t.Errorf("%d payloads with an expiry are counted, want %d", st.Expires, keys/3)
		}
		if st.LostHints == 0 || st.LostHints+c.hints[9].Rows != keys || st.Hints != c.hints[9].Rows {
			t.Errorf("%d hints lost, %d counted, %d there of %d", st.LostHints, st.Hints, c.hints[9].Rows, keys)
		}
		h.close(t)
	})
}

// check reads every row: it is right, or damaged, and never absent. It answers how many
// are damaged.
func (h *host) check(t *testing.T, rows map[string][]byte) (damaged int) {
	t.Helper()
	for key, want := range rows {
		rec, _, _, err := h.Read([]byte(key), 0)
		switch {
		case errors.Is(err, version.ErrCorrupt):
			damaged++
		case err != nil:
			t.Fatal(err)
		case string(version.EncodeWire(nil, rec)) != string(want):
			t.Errorf("%s is another record, absent: %v", key, rec.Absent())
		}
	}
	return damaged
}

// After an unclean stop the rows are counted. What damage hides then is no key that is
// gone: it is counted when it is back, and until then the number is not known.
func TestWhatCannotBeReadAfterACrashIsCountedOnceItCan(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const keys = 1000
		disk := vfs.NewCrashableMem()
		h := newHost(t, disk, 5, nil)
		at := time.Now().Add(time.Hour).UnixMilli()
		for i := range keys {
			op := version.Op{Kind: version.OpSet, Value: []byte(strings.Repeat("v", 200))}
			if i%2 == 0 {
				op.Expiry, op.ExpireAtMS = version.ExpiryAt, at
			}
			h.do(t, fmt.Sprint("k", i), 0, op)
			h.do(t, fmt.Sprint("k", i), 9, version.Op{Kind: version.OpSet, Value: []byte("hint")})
			if i%10 == 0 {
				h.do(t, fmt.Sprint("k", i), 11, version.Op{Kind: version.OpSet, Value: []byte("hint")})
			}
		}
		h, s, rows := settled(t, h, disk, keys)
		// Killed: no tallies are left, and all rows are in tables.
		h.disk = disk.CrashClone(vfs.CrashCloneCfg{})
		if err := errors.Join(h.Replica.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		h.rot(t, 30000)
		s = openStore(t, h.disk, func(c *storage.Config) { c.BlockCacheBytes = 1 << 10 })
		s.Start()
		told := map[ring.NodeID]int{}
		var telling sync.Mutex
		h = hostOn(t, s, h.disk, 8, func(c *Config) {
			c.CacheBytes = 1
			c.OnHint = func(target ring.NodeID) {
				telling.Lock()
				defer telling.Unlock()
				told[target]++
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- h.Run(ctx) }()
		<-h.tally.exact
		if slots, hints := h.tally.skipped.left(); len(slots) == 0 || !hints {
			t.Fatalf("%v of the slots are skipped, hints: %v: the damage was none", slots, hints)
		}
		if n, err := h.Count(0, ring.Slots-1); !errors.Is(err, ErrMending) {
			t.Errorf("count: %d, %v; want ErrMending", n, err)
		}
		if _, ok := h.encodeTallies(); ok {
			t.Error("tallies are left that lack something")
		}
		owners := &fakeOwners{h: h, rows: rows, send: make(chan struct{})}
		close(owners.send)
		go func() { ended <- NewMender(h.Replica, owners).Run(ctx) }()
		time.Sleep(time.Minute)
		for key := range rows { // what nobody asked for is not found out
			_, _, _, _ = h.Read([]byte(key), 0)
		}
		time.Sleep(time.Minute)
		if n, err := h.Count(0, ring.Slots-1); err != nil || n != keys {
			t.Errorf("count: %d, %v; want %d", n, err, keys)
		}
		st, c := h.Stats(), look(t, s)
		if st.Expires != keys/2 || len(c.orphans) > 0 {
			t.Errorf("%d payloads with an expiry are counted, want %d; index: %v", st.Expires, keys/2, c.orphans)
		}
		if st.Hints != c.hints[9].Rows+c.hints[11].Rows || st.HintBytes != c.hints[9].Bytes+c.hints[11].Bytes || c.hints[9].Rows == 0 || c.hints[11].Rows == 0 {
			t.Errorf("%d hints of %d bytes are counted, %+v are there", st.Hints, st.HintBytes, c.hints)
		}
		if told[11] == 0 {
			t.Error("nobody was told that there are hints which the damage hid")
		}
		cancel()
		if err := errors.Join(<-ended, <-ended, owners.err); err != nil {
			t.Error(err)
		}
		h.close(t)
	})
}

// What changes all the time cannot be counted. That is tried again, but not at once.
func TestHintsThatNeverRestAreCountedLater(t *testing.T) {
	h := newHost(t, vfs.NewCrashableMem(), 5, nil)
	defer h.close(t)
	h.do(t, "k", 9, version.Op{Kind: version.OpSet, Value: []byte("hint")})
	h.hints.change(9, 0, 40) // a row that is not there
	h.tally.skipped.addHints()
	m := NewMender(h.Replica, nil)
	// A change is always queued before what the counting waits for.
	var stop atomic.Bool
	stopped := make(chan error, 1)
	var next func(error)
	next = func(err error) {
		if err != nil || stop.Load() {
			stopped <- err
			return
		}
		if _, err := h.store.Enqueue(nil, false, next); err != nil {
			stopped <- err
		}
		h.hints.change(9, 40, 40)
	}
	next(nil)
	err := m.countSkipped(t.Context())
	_, skipped := h.tally.skipped.left()
	h.tally.skipped.leave(nil, false)
	var hole storage.Hole
	hole.Lo, hole.Hi = storage.AllHints()
	m.hints = time.Time{}
	ended, holeErr := m.mend(t.Context(), hole, new([]mending))
	stop.Store(true)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err != nil || !skipped {
		t.Fatalf("hints that never rested count as counted: %v", err)
	}
	if _, hints := h.tally.skipped.left(); holeErr != nil || !ended || !hints {
		t.Fatalf("a hole of hints that never rest ends: %v, and they are to be counted later: %v; %v", ended, hints, holeErr)
	}
	if err := m.countSkipped(t.Context()); err != nil || h.Stats().Hints != 2 || time.Until(m.hints) < askAgain/2 {
		t.Errorf("they were counted again at once, or soon: in %v; %v", time.Until(m.hints), err)
	}
	m.hints = time.Time{}
	if err := m.countSkipped(t.Context()); err != nil || h.Stats().Hints != 1 {
		t.Errorf("%d hints are counted, want one: %v", h.Stats().Hints, err)
	}
	if _, hints := h.tally.skipped.left(); hints {
		t.Error("hints that were counted are still to be counted")
	}
}

func TestDamageIsPassedOverInFewLooks(t *testing.T) {
	for _, c := range []struct{ bad, end int }{{0, 1}, {0, 2}, {7, 5000}, {0, ring.Slots}, {ring.Slots - 1, ring.Slots}, {ring.Slots - 2, ring.Slots - 1}, {9000, 9001}} {
		looks := 0
		got := readableAfter(c.bad, func(slot int) error {
			if looks++; slot <= c.bad || slot >= ring.Slots {
				t.Errorf("looked at %d, damage from %d", slot, c.bad)
			}
			if slot < c.end {
				return storage.ErrCorrupt
			}
			return nil
		})
		if got != c.end || looks > 32 {
			t.Errorf("damage from %d to %d: %d looks found %d", c.bad, c.end-1, looks, got)
		}
	}
}

func TestALostStretchOfHintsIsPassedOverAtOnce(t *testing.T) {
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 5, nil)
	defer h.close(t)
	h.do(t, "k", 9, version.Op{Kind: version.OpSet, Value: []byte("hint")})
	slot := ring.SlotOf([]byte("k"))
	for _, kind := range []error{storage.ErrHole, storage.ErrCorrupt} {
		scans, pages, found := 0, 0, 0
		scan := func(lo, hi []byte, fn func(row, value []byte) bool) error {
			scans++
			if err := h.store.Scan(lo, hi, fn); err != nil {
				return err
			}
			if from, _ := storage.HintRange(9, slot+1, 0); errors.Is(kind, storage.ErrHole) || string(lo) <= string(from) {
				return kind // a hole is told at the end; damage ends the scan
			}
			return nil
		}
		for p := (HintPage{}); !p.Done; pages++ {
			p, _ = h.hintPage(scan, 9, p.NextSlot, p.NextHash, 1<<20)
			found += len(p.Hints)
		}
		if found != 1 || pages > 4 || scans > 40 {
			t.Errorf("%v: %d hints in %d pages and %d scans, want one and few", kind, found, pages, scans)
		}
	}
}

// Whatever changes a row changes the leaf of the tree that it is in, so that exchanges
// see it: the digests are those of the rows at any time.
func TestDigestsFollowEveryChangeOfARow(t *testing.T) {
	h, other := newHost(t, vfs.NewCrashableMem(), 5, nil), newHost(t, vfs.NewCrashableMem(), 6, nil)
	defer h.close(t)
	defer other.close(t)
	for what, change := range map[string]func(key string){
		"written": func(key string) { h.set(t, key, "v") },
		"overwritten": func(key string) {
			h.set(t, key, "v")
			h.set(t, key, "w")
		},
		"deleted": func(key string) {
			h.set(t, key, "v")
			h.del(t, key)
		},
		"merged": func(key string) {
			if err := h.take(key, 0, other.set(t, key, "v")); err != nil {
				t.Fatal(err)
			}
		},
		"merged into another": func(key string) {
			h.set(t, key, "v")
			if err := h.take(key, 0, other.set(t, key, "w")); err != nil {
				t.Fatal(err)
			}
		},
		"kept for another": func(key string) {
			h.do(t, key, 9, version.Op{Kind: version.OpSet, Value: []byte("hint")})
		},
	} {
		before := h.meters.digestsWrong.Get()
		for i := range 20 {
			change(fmt.Sprint(what, i))
		}
		for i := range 20 {
			if err := h.scrubSlot(ring.SlotOf([]byte(fmt.Sprint(what, i)))); err != nil {
				t.Fatal(err)
			}
		}
		if wrong := h.meters.digestsWrong.Get() - before; wrong > 0 {
			t.Errorf("%s: %d digests are wrong", what, wrong)
		}
	}
}
