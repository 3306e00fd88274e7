package replica

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// contextFor returns a context that ends with the test at the latest.
func contextFor(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// census is what a slow look at all rows finds.
type census struct {
	keys    map[ring.Slot]int64
	index   int64
	hints   map[ring.NodeID]HintTotal
	orphans []string // index rows without, and payloads without index rows
}

// look reads every row of the store.
func look(t testing.TB, s *storage.Store) census {
	t.Helper()
	c := census{keys: map[ring.Slot]int64{}, hints: map[ring.NodeID]HintTotal{}}
	want := map[string]bool{}
	err := s.Scan([]byte("d"), []byte("e"), func(row, value []byte) bool {
		slot, hash, key, _ := storage.ParseDataKey(row)
		rec := record(t, value)
		if rec.HasLive() {
			c.keys[slot]++
		}
		for _, v := range rec.Versions {
			if !v.Stub && v.Expiry.AtMS > 0 {
				want[string(storage.AppendExpiryKey(nil, v.Expiry.AtMS, slot, hash, key))] = true
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Scan([]byte("e"), []byte("f"), func(row, _ []byte) bool {
		c.index++
		if !want[string(row)] {
			c.orphans = append(c.orphans, fmt.Sprintf("index row %x", row))
		}
		delete(want, string(row))
		return true
	})
	for row := range want {
		c.orphans = append(c.orphans, fmt.Sprintf("no index row %x", row))
	}
	lo, hi := storage.AllHints()
	err = errors.Join(err, s.Scan(lo, hi, func(row, value []byte) bool {
		target, _, _, _, _ := storage.ParseHintKey(row)
		h := c.hints[ring.NodeID(target)]
		c.hints[ring.NodeID(target)] = HintTotal{Target: ring.NodeID(target), Rows: h.Rows + 1, Bytes: h.Bytes + int64(len(row)+len(value))}
		return true
	}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// compare checks the counters of h against its rows.
func compare(t testing.TB, what string, h *host) {
	t.Helper()
	c := look(t, h.store)
	if len(c.orphans) != 0 {
		t.Errorf("%s: expiry index: %v", what, c.orphans)
	}
	var total int64
	for slot := range ring.Slots {
		n, err := h.Count(ring.Slot(slot), ring.Slot(slot))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n != c.keys[ring.Slot(slot)] {
			t.Errorf("%s: slot %d counts %d, has %d", what, slot, n, c.keys[ring.Slot(slot)])
		}
		total += n
	}
	if n, _ := h.Count(0, ring.Slots-1); n != total {
		t.Errorf("%s: all slots count %d, their sum is %d", what, n, total)
	}
	if got := h.Stats().Expires; got != c.index {
		t.Errorf("%s: %d expiries counted, index has %d rows", what, got, c.index)
	}
	for _, got := range h.Hints() {
		got.Since = time.Time{}
		if got != c.hints[got.Target] {
			t.Errorf("%s: hints %+v, rows %+v", what, got, c.hints[got.Target])
		}
		delete(c.hints, got.Target)
	}
	if len(c.hints) != 0 {
		t.Errorf("%s: hints not counted: %v", what, c.hints)
	}
}

// randomly does one random thing to h and, half of the time, sends the result
// to other.
func randomly(t testing.TB, rng *rand.Rand, h, other *host) {
	t.Helper()
	key := fmt.Sprint("k", rng.IntN(60))
	target := ring.NodeID(max(0, rng.IntN(6)-3))
	nowMS := h.cfg.Now().UnixMilli()
	op := setOp(fmt.Sprint(rng.IntN(1000)))
	switch rng.IntN(8) {
	case 0:
		op = version.Op{Kind: version.OpDelete}
	case 1:
		op = version.Op{Kind: version.OpExpire, ExpireAtMS: nowMS + 1 + rng.Int64N(3000)}
	case 2:
		op = version.Op{Kind: version.OpExpire}
	case 3:
		op.Expiry, op.ExpireAtMS = version.ExpiryAt, nowMS+1+rng.Int64N(3000)
	case 4:
		op.Explicit = true
	case 5:
		if rec, _, _, err := h.Read([]byte(key), 2); err == nil && !rec.Absent() {
			delivered := version.EncodeWire(nil, rec)
			same := rng.IntN(2) == 0
			if !same {
				delivered = delivered[1:]
			}
			h.DropHint([]byte(key), 2, delivered, func(dropped bool, err error) {
				if err != nil || dropped != same {
					t.Errorf("dropped %v, want %v: %v", dropped, same, err)
				}
			})
		}
		return
	}
	enc, _, err := h.Mutate([]byte(key), target, version.Record{}, op, rng.IntN(2) == 0, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(record(t, enc).Context) != 0 && rng.IntN(2) == 0 {
		other.Merge([]byte(key), ring.NodeID(rng.IntN(3)), enc, false, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCountersAndIndexFollowEveryChange(t *testing.T) {
	for range 4 {
		seed := rand.Uint64()
		bubble.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			small := func(c *Config) { c.CacheBytes = 8 << 10 }
			a, b := newHost(t, vfs.NewCrashableMem(), 1, small), newHost(t, vfs.NewCrashableMem(), 2, small)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 2)
			for _, h := range []*host{a, b} {
				go func() { ended <- h.Run(ctx) }()
			}
			for i := range 1500 {
				if rng.IntN(2) == 0 {
					randomly(t, rng, a, b)
				} else {
					randomly(t, rng, b, a)
				}
				if i%100 == 0 {
					time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond) // virtual time
				}
			}
			synctest.Wait()
			compare(t, fmt.Sprintf("seed %d, running", seed), a)
			compare(t, fmt.Sprintf("seed %d, running", seed), b)
			time.Sleep(6 * time.Second) // virtual time: all is expired and swept
			if got := a.Stats().Expires; got != 0 {
				t.Errorf("seed %d: %d payloads outlived their time", seed, got)
			}
			cancel()
			if err := errors.Join(<-ended, <-ended); err != nil {
				t.Error(err)
			}
			keys, _ := a.Count(0, ring.Slots-1)
			a.close(t)
			b.close(t)
			a = newHost(t, a.disk, 3, nil)
			if a.snapshot != nil {
				t.Errorf("seed %d: counts again after a clean close", seed)
			}
			compare(t, fmt.Sprintf("seed %d, reopened", seed), a)
			if n, _ := a.Count(0, ring.Slots-1); n != keys {
				t.Errorf("seed %d: %d keys reopened as %d", seed, keys, n)
			}
			a.close(t)
		})
	}
}

func TestCountingAfterACrashAddsWhatChangesMeanwhile(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 6))
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 1, nil)
	for range 800 {
		randomly(t, rng, h, h)
	}
	h.set(t, "last", "v")
	clone := disk.CrashClone(vfs.CrashCloneCfg{})
	h.close(t)

	h = newHost(t, clone, 2, nil)
	if h.snapshot == nil {
		t.Fatal("an unclean stop was taken for a clean one")
	}
	other := newHost(t, vfs.NewMem(), 3, nil)
	for range 300 { // before and while Run counts
		randomly(t, rng, h, other)
	}
	ctx, cancel := contextFor(t)
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	for range 300 {
		randomly(t, rng, h, other)
	}
	if _, err := h.Count(0, 0); err != nil { // waits
		t.Error(err)
	}
	h.set(t, "drained", "v")
	other.set(t, "drained", "v")
	compare(t, fmt.Sprintf("seed %d", seed), h)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	h.close(t)
	other.close(t)
}

func TestCountersOfACleanCloseServeOnlyOnce(t *testing.T) {
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 1, nil)
	h.set(t, "a", "v")
	h.close(t)
	h = newHost(t, disk, 2, nil)
	h.set(t, "b", "v")
	clone := disk.CrashClone(vfs.CrashCloneCfg{}) // crash after a clean start
	h.close(t)
	h = newHost(t, clone, 3, nil)
	runFor(t, h, 0)
	if n, err := h.Count(0, ring.Slots-1); n != 2 || err != nil {
		t.Errorf("%d keys, %v; want 2", n, err)
	}
	h.close(t)
}

func TestCountGivesUpWhenNothingCounts(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		disk := vfs.NewCrashableMem()
		h := newHost(t, disk, 1, nil)
		h.set(t, "a", "v")
		clone := disk.CrashClone(vfs.CrashCloneCfg{})
		h.close(t)
		h = newHost(t, clone, 2, nil)
		if _, err := h.Count(0, ring.Slots-1); !errors.Is(err, ErrCounting) {
			t.Errorf("count before the counting: %v", err)
		}
		h.close(t) // without Run having taken the snapshot
		h = newHost(t, clone, 3, nil)
		runFor(t, h, 0)
		if n, err := h.Count(0, ring.Slots-1); n != 1 || err != nil {
			t.Errorf("%d keys, %v", n, err)
		}
		h.close(t)
	})
}

func TestExpiredPayloadGoesAfterASecondAndTheDotStays(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newHost(t, vfs.NewMem(), 1, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		at := time.Now().UnixMilli() + 100
		for i, key := range []string{"damaged", "k", "extended"} {
			h.do(t, key, 0, version.Op{Kind: version.OpSet, Value: []byte("v"), Expiry: version.ExpiryAt, ExpireAtMS: at + int64(i)})
		}
		plant(t, h, "damaged", []byte("garbage"))
		time.Sleep(900 * time.Millisecond)
		rec, before, _, _ := h.Read([]byte("k"), 0)
		if _, ok := rec.Winner(time.Now().UnixMilli()); ok || rec.Versions[0].Stub {
			t.Errorf("at 900 ms: shown %v, stub %v", ok, rec.Versions[0].Stub)
		}
		// An extension that was made in time at another replica arrives late.
		ext, _, _, _ := h.Read([]byte("extended"), 0)
		ext = ext.SetExpiry(ext.Versions[0].Dot, version.Cell{HLC: ext.MaxHLC() + 1, AtMS: at + 3600_000})
		if err := h.take("extended", 0, version.EncodeWire(nil, ext)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		rec, hash, _, _ := h.Read([]byte("k"), 0)
		if len(rec.Versions) != 1 || !rec.Versions[0].Stub || rec.HasLive() || hash != before {
			t.Errorf("after the sweep: %+v, hash %x, was %x", rec, hash, before)
		}
		if got := h.get(t, "extended"); got != "v" {
			t.Errorf("extended key is %q", got)
		}
		if s := h.Stats(); s.Expired != 1 || s.Keys != 2 || s.Expires != 2 { // damaged and extended remain
			t.Errorf("stats %+v", s)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		h.close(t)
	})
}

// plant writes a row behind the replica's back and makes it forget the key.
func plant(t testing.TB, h *host, key string, value []byte) {
	t.Helper()
	k := []byte(key)
	row := storage.AppendDataKey(nil, ring.SlotOf(k), ring.KeyHash(k), k)
	done := make(chan error, 1)
	if _, err := h.store.Enqueue([]storage.RowOp{{Key: row, Value: value}}, true, func(err error) { done <- err }); err != nil || <-done != nil {
		t.Fatal("could not plant the row")
	}
	st := h.stripeOf(ring.KeyHash(k))
	st.mu.Lock()
	defer st.mu.Unlock()
	for st.mu.hand = 0; st.mu.hand < len(st.mu.clock); st.mu.hand++ {
		if string(st.mu.clock[st.mu.hand].key) == key {
			st.removeLocked()
			return
		}
	}
}

func TestRowsOfOnePlaceAreToldApart(t *testing.T) {
	var st stripe
	st.init(maphash.MakeSeed())
	// A target can be chosen so that its hint of one key falls on the row of another.
	const factor = 0x9E3779B97F4A7C15
	inverse := uint64(factor)
	for range 5 { // Newton: each step doubles the bits that are right
		inverse *= 2 - factor*inverse
	}
	at := func(key string) uint64 { return maphash.Bytes(st.seed, []byte(key)) }
	target := ring.NodeID((at("a") ^ at("b")) * inverse)
	rows := []*entry{newEntry([]byte("a"), 0, 1), newEntry([]byte("b"), target, 1), newEntry([]byte("a key that is longer than usual"), 0, 2)}
	if st.placeOf([]byte("a"), 0) != st.placeOf([]byte("b"), target) {
		t.Fatal("two places")
	}
	for _, e := range rows {
		st.insertLocked(e)
	}
	for len(rows) > 0 {
		for _, e := range rows {
			if st.findLocked(e.key, e.target) != e {
				t.Errorf("%d rows: %q for %v is not found", len(rows), e.key, e.target)
			}
		}
		st.mu.hand = 0
		gone := st.mu.clock[0]
		st.removeLocked()
		if st.findLocked(gone.key, gone.target) != nil {
			t.Errorf("%q is still found", gone.key)
		}
		rows = slices.DeleteFunc(rows, func(e *entry) bool { return e == gone })
	}
	if st.findLocked([]byte("b"), 0) != nil || len(st.mu.rows) != 0 {
		t.Errorf("%d places left", len(st.mu.rows))
	}
}

// collidingKeys returns two keys of one slot with one key hash.
func collidingKeys() (string, string) {
	seen := map[uint32]string{}
	for i := 0; ; i++ {
		key := fmt.Sprintf("{t}%d", i)
		h := ring.KeyHash([]byte(key))
		if other, ok := seen[h]; ok {
			return other, key
		}
		seen[h] = key
	}
}

func TestScanPagesMissNoKey(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, nil)
	defer h.close(t)
	a, b := collidingKeys()
	want := map[string]bool{a: true, b: true}
	for i := range 300 {
		want[fmt.Sprint("key", i)] = true
		want[fmt.Sprintf("{t}x%d", i)] = true
	}
	for key := range want {
		h.set(t, key, "v")
	}
	h.do(t, "key7", 0, version.Op{Kind: version.OpDelete})
	h.do(t, "hinted", 9, setOp("v")) // no own row
	for _, limit := range []int{1, 7, 10000} {
		seen := map[string]int{}
		p := Page{}
		for !p.Done {
			slot, hash := p.NextSlot, p.NextHash
			var err error
			if p, err = h.Scan(slot, hash, ring.Slots-1, limit); err != nil {
				t.Fatal(err)
			}
			if !p.Done && (p.NextSlot < slot || p.NextSlot == slot && p.NextHash <= hash) {
				t.Fatalf("limit %d: page from %d/%x goes on at %d/%x", limit, slot, hash, p.NextSlot, p.NextHash)
			}
			for _, e := range p.Entries {
				seen[string(e.Key)]++
				if e.Live != (string(e.Key) != "key7") || e.Slot != ring.SlotOf(e.Key) || e.KeyHash != ring.KeyHash(e.Key) {
					t.Errorf("entry %+v", e)
				}
				if rec, hash, _, _ := h.Read(e.Key, 0); hash != e.StateHash || rec.Absent() {
					t.Errorf("entry %q has state %x, record %x", e.Key, e.StateHash, hash)
				}
			}
		}
		for key := range want {
			if seen[key] != 1 {
				t.Errorf("limit %d: %q seen %d times", limit, key, seen[key])
			}
		}
		if len(seen) != len(want) {
			t.Errorf("limit %d: %d keys, want %d", limit, len(seen), len(want))
		}
	}
	p, err := h.Scan(ring.SlotOf([]byte(a)), 0, ring.SlotOf([]byte(a)), 1000)
	if err != nil || !p.Done || len(p.Entries) != 302 {
		t.Errorf("scan of one slot: %d entries, done %v, %v", len(p.Entries), p.Done, err)
	}
}

func TestHintsAreCoalescedCountedAndDroppedWhenDelivered(t *testing.T) {
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 1, nil)
	const target = ring.NodeID(42)
	for i := range 20 {
		for k := range 5 {
			h.do(t, fmt.Sprint("k", k), target, setOp(fmt.Sprint("v", i)))
		}
	}
	if err := h.take("k0", 43, mustEncode(9, 1, "other target")); err != nil {
		t.Fatal(err)
	}
	compare(t, "written", h)
	if got := h.Hints(); len(got) != 2 || got[0].Rows != 5 || got[0].Bytes != h.HintBytes(target) {
		t.Errorf("totals %+v", got)
	}
	if rec, _, _, _ := h.Read([]byte("k0"), 0); !rec.Absent() {
		t.Error("a hint became an own row")
	}
	var hints []Hint
	for slot, hash, done := ring.Slot(0), uint32(0), false; !done; {
		page, err := h.HintPage(target, slot, hash, 1)
		if err != nil || len(page.Hints) == 0 {
			t.Fatalf("page of %d, %v", len(page.Hints), err)
		}
		hints = append(hints, page.Hints...)
		slot, hash, done = page.NextSlot, page.NextHash, page.Done
	}
	if len(hints) != 5 {
		t.Fatalf("%d hints delivered", len(hints))
	}
	h.do(t, "k3", target, setOp("came in during the delivery"))
	for _, x := range hints {
		if v, _ := record(t, x.Record).Winner(0); string(v.Value) != "v19" {
			t.Errorf("hint of %s is %q", x.Key, v.Value)
		}
		if dropped, err := h.drop(x, target); err != nil || dropped != (string(x.Key) != "k3") {
			t.Errorf("hint of %s dropped: %v, %v", x.Key, dropped, err)
		}
	}
	compare(t, "delivered", h)
	if got := h.Hints(); got[0].Target != target || got[0].Rows != 1 {
		t.Errorf("kept %+v, want the one that changed", got)
	}
	h.close(t)
	h = newHost(t, disk, 2, nil)
	compare(t, "reopened", h)
	if held, err := h.Records(); !held || err != nil {
		t.Errorf("records: %v %v", held, err)
	}
	h.close(t)
}

// A fallback answers with all that it holds, for whomever it kept it, also when
// the accounts of its hints are not open yet.
func TestJoinedFindsEveryRowOfAKey(t *testing.T) {
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 1, nil)
	for i, target := range []ring.NodeID{0, 42, 43} {
		if err := h.take("k", target, mustEncode(version.Actor(10+i), 1, fmt.Sprint(target))); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []ring.NodeID{42, 43, 44} {
		rec, hash, err := h.Joined([]byte("k"), target)
		if err != nil || len(rec.Live(0)) != 3 || hash != rec.StateHash() {
			t.Errorf("as a fallback for %v: %v, %v", target, rec.Live(0), err)
		}
	}
	if rec, hash, err := h.Joined([]byte("other"), 42); err != nil || !rec.Absent() || hash != 0 {
		t.Errorf("a key without rows: %v, %d, %v", rec, hash, err)
	}
	h.close(t)
}

// drop is DropHint, waited for.
func (h *host) drop(x Hint, target ring.NodeID) (dropped bool, err error) {
	done := make(chan struct{})
	h.DropHint(x.Key, target, x.Record, func(d bool, e error) {
		dropped, err = d, e
		close(done)
	})
	<-done
	return dropped, err
}

func TestAHintStaysWhenOnlyItsContextGrew(t *testing.T) {
	h := newHost(t, vfs.NewCrashableMem(), 1, nil)
	defer h.close(t)
	const target = ring.NodeID(42)
	kept := record(t, mustEncode(9, 1, "v"))
	if err := h.take("k", target, version.EncodeWire(nil, kept)); err != nil {
		t.Fatal(err)
	}
	page, err := h.HintPage(target, 0, 0, 1)
	if err != nil || len(page.Hints) != 1 {
		t.Fatalf("page %+v, %v", page, err)
	}
	// Elsewhere a sibling of v was written and deleted: the same version is left,
	// and the record knows more.
	removed := version.Dot{Actor: 8, Counter: 1}
	grown := version.Record{Context: kept.Context.Add(removed), Versions: kept.Versions}
	if grown.StateHash() != kept.StateHash() {
		t.Fatal("the case is none: the state hash tells the two apart")
	}
	if err := h.take("k", target, version.EncodeWire(nil, grown)); err != nil {
		t.Fatal(err)
	}
	if dropped, err := h.drop(page.Hints[0], target); dropped || err != nil {
		t.Errorf("dropped %v, %v: the deletion is lost", dropped, err)
	}
	page, err = h.HintPage(target, 0, 0, 1)
	if err != nil || len(page.Hints) != 1 || !record(t, page.Hints[0].Record).Context.Contains(removed) {
		t.Fatalf("page %+v, %v", page, err)
	}
	if dropped, err := h.drop(page.Hints[0], target); !dropped || err != nil {
		t.Errorf("dropped %v, %v once all was delivered", dropped, err)
	}
}

func TestTheFirstHintOfATargetIsToldAndDated(t *testing.T) {
	disk := vfs.NewCrashableMem()
	now := time.UnixMilli(1_000_000)
	var told []ring.NodeID
	change := func(c *Config) {
		c.Now = func() time.Time { return now }
		c.OnHint = func(id ring.NodeID) { told = append(told, id) }
	}
	h := newHost(t, disk, 1, change)
	since := func(want ...int64) {
		t.Helper()
		var got []int64
		for _, x := range h.Hints() {
			got = append(got, x.Since.UnixMilli())
		}
		if !slices.Equal(got, want) {
			t.Errorf("hints since %v, want %v", got, want)
		}
	}
	for i := range 3 {
		h.do(t, fmt.Sprint("k", i), 7, setOp("v"))
		now = now.Add(time.Second)
	}
	since(1_000_000)
	page, err := h.HintPage(7, 0, 0, 1<<20)
	if err != nil || len(page.Hints) != 3 || !page.Done {
		t.Fatalf("page %+v, %v", page, err)
	}
	for _, x := range page.Hints {
		if dropped, err := h.drop(x, 7); !dropped || err != nil {
			t.Errorf("dropped %v, %v", dropped, err)
		}
	}
	since()
	h.do(t, "k", 7, setOp("v"))
	since(1_003_000)
	if !slices.Equal(told, []ring.NodeID{7, 7}) {
		t.Errorf("told of first hints for %v, want 7 twice", told)
	}
	now = now.Add(time.Second)
	crashed := disk.CrashClone(vfs.CrashCloneCfg{})
	h.close(t)
	h = newHost(t, disk, 2, change)
	since(1_004_000)
	h.close(t)

	h = newHost(t, crashed, 3, change) // nothing is counted yet
	defer h.close(t)
	since(1_004_000)
	now = now.Add(time.Second)
	h.do(t, "another", 7, setOp("v"))
	since(1_004_000)
}

func TestADamagedHintHidesNoOther(t *testing.T) {
	h := newHost(t, vfs.NewCrashableMem(), 1, nil)
	defer h.close(t)
	for i := range 20 {
		h.do(t, fmt.Sprint("k", i), 7, setOp("v"))
	}
	page, err := h.HintPage(7, 0, 0, 1<<20)
	if err != nil || len(page.Hints) != 20 {
		t.Fatalf("%d hints, %v", len(page.Hints), err)
	}
	bad := page.Hints[3]
	row := storage.AppendHintKey(nil, 7, bad.Slot, bad.KeyHash, bad.Key)
	done := make(chan error, 1)
	if _, err := h.store.Enqueue([]storage.RowOp{{Key: row, Value: []byte("no record")}}, true, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	page, err = h.HintPage(7, 0, 0, 1<<20)
	if err != nil || len(page.Hints) != 19 || page.Unreadable != 1 || !page.Done {
		t.Errorf("%d hints and %d unreadable, done %v, %v", len(page.Hints), page.Unreadable, page.Done, err)
	}
}

func TestClosedReplicaRefusesChanges(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, nil)
	enc := h.set(t, "k", "v")
	if err := h.Replica.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.take("k2", 0, enc); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("merge: %v", err)
	}
	if _, _, err := h.Mutate([]byte("k"), 0, version.Record{}, setOp("w"), true, nil); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("mutate: %v", err)
	}
	if err := h.Replica.Close(); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if err := h.store.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheEndOfAKeyIsToldOnceAndNotOfOneThatLivesOn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		heard := make(chan string, 10)
		told := func() (all []string) {
			for len(heard) > 0 {
				all = append(all, <-heard)
			}
			return all
		}
		h := newHost(t, vfs.NewMem(), 1, func(c *Config) {
			c.OnExpired = func(key []byte, atMS int64) { heard <- fmt.Sprint(string(key), " ", atMS) }
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		at := time.Now().UnixMilli() + 100
		brief := version.Op{Kind: version.OpSet, Value: []byte("v"), Expiry: version.ExpiryAt, ExpireAtMS: at}
		for _, key := range []string{"k", "written", "persisted", "sibling"} {
			h.do(t, key, 0, brief)
		}
		h.set(t, "written", "again")
		h.do(t, "persisted", 0, version.Op{Kind: version.OpExpire})
		brief.Explicit, brief.ExpireAtMS = true, at+5000
		h.do(t, "sibling", 0, brief) // has seen nothing, and outlives the other
		for key, ends := range map[string]int64{"at once": time.Now().UnixMilli(), "before": -1} {
			h.set(t, key, "v")
			h.do(t, key, 0, version.Op{Kind: version.OpExpire, ExpireAtMS: ends})
		}
		h.do(t, "count", 0, version.Op{Kind: version.OpCount, Value: []byte("1")})
		h.do(t, "count", 0, version.Op{Kind: version.OpExpire, ExpireAtMS: -1})
		time.Sleep(3 * time.Second)
		if got, want := fmt.Sprint(told()), fmt.Sprintf("[k %d]", at); got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		time.Sleep(time.Minute)
		if got, want := fmt.Sprint(told()), fmt.Sprintf("[sibling %d]", at+5000); got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		h.close(t)
	})
}
