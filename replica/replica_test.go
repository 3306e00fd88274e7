package replica

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/integration/simdisk"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// host is a replica with its store, on a disk that can crash.
type host struct {
	*Replica
	store *storage.Store
	disk  *vfs.MemFS
}

// openStore opens a small store on the disk.
func openStore(t testing.TB, disk *vfs.MemFS, change func(*storage.Config)) *storage.Store {
	t.Helper()
	cfg := storage.Config{FS: simdisk.Of(disk), Dir: "db", MemTableBytes: 256 << 10, BlockCacheBytes: 1 << 20, MinFreeBytes: -1}
	if change != nil {
		change(&cfg)
	}
	s, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newHost opens a replica of the disk as the given incarnation.
func newHost(t testing.TB, disk *vfs.MemFS, actor version.Actor, change func(*Config)) *host {
	t.Helper()
	s := openStore(t, disk, nil)
	s.Start()
	return hostOn(t, s, disk, actor, change)
}

// hostOn makes a replica on an open store.
func hostOn(t testing.TB, s *storage.Store, disk *vfs.MemFS, actor version.Actor, change func(*Config)) *host {
	t.Helper()
	cfg := Config{Actor: actor, Store: s, CacheBytes: 1 << 20}
	if change != nil {
		change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &host{Replica: r, store: s, disk: disk}
}

// close stops the replica and its store.
func (h *host) close(t testing.TB) {
	t.Helper()
	if err := errors.Join(h.Replica.Close(), h.store.Close()); err != nil {
		t.Error(err)
	}
}

// set is a plain SET that is waited for.
func (h *host) set(t testing.TB, key, value string) []byte {
	t.Helper()
	enc, _ := h.do(t, key, 0, version.Op{Kind: version.OpSet, Value: []byte(value)})
	return enc
}

// do is a durable mutation that is waited for.
func (h *host) do(t testing.TB, key string, target ring.NodeID, op version.Op) ([]byte, version.Outcome) {
	t.Helper()
	done := make(chan error, 1)
	enc, out, err := h.Mutate([]byte(key), target, version.Record{}, op, true, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	if err != nil {
		t.Fatal(err)
	}
	return enc, out
}

// take is a durable merge that is waited for.
func (h *host) take(key string, target ring.NodeID, enc []byte) error {
	done := make(chan error, 1)
	h.Merge([]byte(key), target, enc, true, func(err error) { done <- err })
	return <-done
}

// get returns the plain value of a key.
func (h *host) get(t testing.TB, key string) string {
	t.Helper()
	rec, hash, _, err := h.Read([]byte(key), 0)
	if err != nil {
		t.Fatal(err)
	}
	if hash != rec.StateHash() {
		t.Errorf("%s: hash %x, record has %x", key, hash, rec.StateHash())
	}
	v, ok := rec.Winner(h.cfg.Now().UnixMilli())
	if !ok {
		return "(none)"
	}
	return string(v.Value)
}

// record decodes an encoded record.
func record(t testing.TB, enc []byte) version.Record {
	t.Helper()
	rec, err := version.DecodeRecord(enc)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// setOp is a plain SET.
func setOp(value string) version.Op { return version.Op{Kind: version.OpSet, Value: []byte(value)} }

func TestMutationIsVisibleAtOnceAndDoneWhenCommitted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		disk := vfs.NewCrashableMem()
		s := openStore(t, disk, nil) // not started: nothing is committed yet
		h := hostOn(t, s, disk, 1, func(c *Config) { c.CacheBytes = 1 })
		var done []error
		value := []byte("one")
		_, out, err := h.Mutate([]byte("k"), 0, version.Record{}, version.Op{Kind: version.OpSet, Value: value}, true, func(err error) { done = append(done, err) })
		if err != nil || !out.Applied || out.Dot != (version.Dot{Actor: 1, Counter: 1}) {
			t.Fatalf("outcome %+v, %v", out, err)
		}
		copy(value, "xxx") // the caller's memory again
		enc, out, err := h.Mutate([]byte("k"), 0, version.Record{}, version.Op{Kind: version.OpAppend, Value: []byte("two")}, true, func(err error) { done = append(done, err) })
		if err != nil || out.Length != 6 {
			t.Fatalf("append saw another state: %+v, %v", out, err)
		}
		for i := range 2000 { // the cache is far too small for these
			if _, _, err := h.Mutate(fmt.Appendf(nil, "other%d", i), 0, version.Record{}, setOp("v"), false, func(error) {}); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.get(t, "k"); got != "onetwo" {
			t.Errorf("queued state is %q", got)
		}
		if v, _ := record(t, enc).Winner(0); string(v.Value) != "onetwo" {
			t.Errorf("encoded state is %q", v.Value)
		}
		if len(done) != 0 {
			t.Error("done was called before the commit")
		}
		s.Start()
		synctest.Wait()
		if len(done) != 2 || done[0] != nil || done[1] != nil {
			t.Errorf("done: %v", done)
		}
		h.close(t)
		h = newHost(t, disk.CrashClone(vfs.CrashCloneCfg{}), 2, nil)
		if got := h.get(t, "k"); got != "onetwo" {
			t.Errorf("committed state is %q", got)
		}
		h.close(t)
	})
}

func TestCacheStaysWithinItsBytesOnceCommitted(t *testing.T) {
	h := newHost(t, vfs.NewCrashableMem(), 1, func(c *Config) { c.CacheBytes = 64 << 10 })
	defer h.close(t)
	for i := range 3000 {
		h.set(t, fmt.Sprintf("key%d", i), "some value")
	}
	if got := h.Stats().CacheBytes; got > 64<<10 {
		t.Errorf("cache holds %d bytes of 65536", got)
	}
	for i := range 3000 {
		if got := h.get(t, fmt.Sprintf("key%d", i)); got != "some value" {
			t.Fatalf("key%d is %q", i, got)
		}
	}
}

func TestCoveredMergeWaitsForTheWriteThatCoversIt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		disk := vfs.NewCrashableMem()
		s := openStore(t, disk, nil)
		h := hostOn(t, s, disk, 1, nil)
		enc, _, err := h.Mutate([]byte("k"), 0, version.Record{}, setOp("v"), false, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		merged := 0
		h.Merge([]byte("k"), 0, enc, true, func(err error) {
			if err != nil {
				t.Error(err)
			}
			merged++
		})
		_, out, err := h.Mutate([]byte("absent"), 0, version.Record{}, version.Op{Kind: version.OpDelete}, true, func(error) { merged++ })
		if err != nil || out.Applied {
			t.Fatalf("delete of nothing: %+v, %v", out, err)
		}
		_, out, err = h.Mutate([]byte("k"), 0, version.Record{}, version.Op{Kind: version.OpSet, Value: []byte("w"), Cond: version.CondAbsent}, true, func(error) { merged++ })
		if err != nil || out.Applied {
			t.Fatalf("SET NX of a key: %+v, %v", out, err)
		}
		synctest.Wait()
		if merged != 1 { // the delete rests on nothing
			t.Fatalf("%d calls were answered from a state that is not committed", merged)
		}
		s.Start()
		synctest.Wait()
		if merged != 3 {
			t.Errorf("%d of 3 calls answered after the commit", merged)
		}
		clone := openStore(t, disk.CrashClone(vfs.CrashCloneCfg{}), nil)
		if _, err := clone.Get(storage.AppendDataKey(nil, ring.SlotOf([]byte("k")), ring.KeyHash([]byte("k")), []byte("k"))); err != nil {
			t.Errorf("a durable merge was answered from a state that is not on the disk: %v", err)
		}
		clone.Close()
		h.close(t)
	})
}

// A row may leave the cache when it is committed, before it is synced. What is
// read back must not count as durable.
func TestCoveredMergeSyncsWhatTheCacheForgot(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openStore(t, disk, func(c *storage.Config) { c.Fsync = storage.FsyncOne; c.FsyncInterval = time.Hour })
	s.Start()
	h := hostOn(t, s, disk, 1, func(c *Config) { c.CacheBytes = 1 })
	defer h.close(t)
	done := make(chan error, 1)
	enc, _, err := h.Mutate([]byte("k"), 0, version.Record{}, setOp("v"), false, func(err error) { done <- err })
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if _, _, ok := h.TryRead([]byte("k"), 0); !ok {
			break
		}
		if i > 100000 {
			t.Fatal("the row does not leave the cache")
		}
		_, _, _, _ = h.Read(fmt.Appendf(nil, "other%d", i), 0)
	}
	if err := h.take("k", 0, enc); err != nil {
		t.Fatal(err)
	}
	clone := openStore(t, disk.CrashClone(vfs.CrashCloneCfg{}), nil)
	defer clone.Close()
	if _, err := clone.Get(storage.AppendDataKey(nil, ring.SlotOf([]byte("k")), ring.KeyHash([]byte("k")), []byte("k"))); err != nil {
		t.Errorf("acknowledged as durable, but after a crash: %v", err)
	}
}

func TestConcurrentAppendsAreAllKept(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, func(c *Config) { c.CacheBytes = 1 })
	defer h.close(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				key := fmt.Appendf(nil, "k%d", (g+i)%3)
				done := make(chan error, 1)
				_, _, err := h.Mutate(key, 0, version.Record{}, version.Op{Kind: version.OpAppend, Value: []byte("x")}, false, func(err error) { done <- err })
				if err = errors.Join(err, <-done); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for i := range 3 {
		total += len(h.get(t, fmt.Sprintf("k%d", i)))
	}
	if total != 1600 {
		t.Errorf("1600 appends left %d bytes", total)
	}
}

func TestBusyStoreChangesNothingAndBurnsTheDot(t *testing.T) {
	bubble.Test(t, testBusyStore)
}

func testBusyStore(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openStore(t, disk, func(c *storage.Config) { c.QueueBytes = 1000 })
	h := hostOn(t, s, disk, 1, nil)
	var last version.Outcome
	for i := 0; ; i++ {
		_, out, err := h.Mutate([]byte("k"), 0, version.Record{}, setOp(fmt.Sprint(i)), true, func(error) {})
		if errors.Is(err, storage.ErrBusy) {
			if got := h.get(t, "k"); got != fmt.Sprint(i-1) {
				t.Errorf("after a refused write the key is %q", got)
			}
			break
		}
		if err != nil || i > 1000 {
			t.Fatalf("write %d: %v", i, err)
		}
		last = out
	}
	done := make(chan error, 1)
	h.Merge([]byte("k"), 0, version.EncodeWire(nil, record(t, mustEncode(7, 1, "z"))), true, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, storage.ErrBusy) {
		t.Errorf("merge into a busy store: %v", err)
	}
	s.Start()
	synctest.Wait()
	_, out := h.do(t, "k", 0, setOp("after"))
	if out.Dot.Counter < last.Dot.Counter+2 {
		t.Errorf("dot %v follows %v, though one was burned between them", out.Dot, last.Dot)
	}
	h.close(t)
}

// mustEncode returns the encoded record of one write.
func mustEncode(actor version.Actor, counter uint64, value string) []byte {
	rec := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: actor, Counter: counter}, HLC: version.HLC(counter), Value: []byte(value)})
	return version.EncodeWire(nil, rec)
}

func TestDamagedRowsAreErrorsAndNeverAbsent(t *testing.T) {
	disk := vfs.NewCrashableMem()
	h := newHost(t, disk, 1, nil)
	key := []byte("k")
	h.set(t, "other", "v")
	row := storage.AppendDataKey(nil, ring.SlotOf(key), ring.KeyHash(key), key)
	done := make(chan error, 1)
	enc := mustEncode(9, 1, "v")
	enc[len(enc)-6] ^= 1
	if _, err := h.store.Enqueue([]storage.RowOp{{Key: row, Value: enc}}, true, func(err error) { done <- err }); err != nil || <-done != nil {
		t.Fatal("could not plant the row")
	}
	if _, _, _, err := h.Read(key, 0); !errors.Is(err, version.ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if err := h.take("k", 0, mustEncode(9, 2, "w")); !errors.Is(err, version.ErrCorrupt) {
		t.Errorf("merge: %v", err)
	}
	if _, _, err := h.Mutate(key, 0, version.Record{}, setOp("x"), true, func(error) { t.Error("done called") }); !errors.Is(err, version.ErrCorrupt) {
		t.Errorf("mutate: %v", err)
	}
	if _, err := h.Scan(0, 0, ring.Slots-1, 100); !errors.Is(err, version.ErrCorrupt) {
		t.Errorf("scan: %v", err)
	}
	if err := h.take("k", 0, []byte("garbage")); !errors.Is(err, version.ErrCorrupt) {
		t.Errorf("merge of garbage: %v", err)
	}
	h.close(t)
}

func TestDotsOfAnotherProcessWithOurNameAreRefused(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 5, nil)
	defer h.close(t)
	h.set(t, "k", "v")
	if err := h.take("k", 0, mustEncode(5, 1000, "clone")); !errors.Is(err, version.ErrDotReused) {
		t.Errorf("merge of a dot we never minted: %v", err)
	}
	base := record(t, mustEncode(5, 1000, "clone"))
	if _, _, err := h.Mutate([]byte("k"), 0, base, setOp("w"), true, nil); !errors.Is(err, version.ErrDotReused) {
		t.Errorf("mutation on top of a dot we never minted: %v", err)
	}
	if got := h.get(t, "k"); got != "v" {
		t.Errorf("the key became %q", got)
	}
}

// A node that was a fallback for two owners in turn, and then became one itself,
// must not claim in one row what it wrote in another.
func TestRowsOfOneKeyKeepTheirWrites(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	for range 30 {
		h := newHost(t, vfs.NewMem(), 5, nil)
		written := map[string]bool{}
		for i := range 12 {
			value := fmt.Sprint("v", i)
			// An explicit write with an empty context replaces nothing.
			h.do(t, "k", ring.NodeID(rng.IntN(3)), version.Op{Kind: version.OpSet, Value: []byte(value), Explicit: true})
			written[value] = true
		}
		rows, err := h.Rows([]byte("k"))
		if err != nil {
			t.Fatal(err)
		}
		joined := version.Record{}
		for _, row := range rows {
			joined = version.Merge(joined, row.Record)
		}
		for _, v := range joined.Versions {
			delete(written, string(v.Value))
		}
		if len(written) != 0 {
			t.Errorf("seed %d: joining the %d rows lost %v", seed, len(rows), written)
		}
		h.close(t)
	}
}

func TestMergeTakesTheWinnerAndKeepsSiblings(t *testing.T) {
	a, b := newHost(t, vfs.NewMem(), 1, nil), newHost(t, vfs.NewMem(), 2, nil)
	defer a.close(t)
	defer b.close(t)
	first := a.set(t, "k", "first")
	second := b.set(t, "k", "second") // concurrent
	for range 2 {
		if err := errors.Join(a.take("k", 0, second), b.take("k", 0, first)); err != nil {
			t.Fatal(err)
		}
	}
	ra, ha, _, _ := a.Read([]byte("k"), 0)
	rb, hb, _, _ := b.Read([]byte("k"), 0)
	if ha != hb || !ra.Equal(rb) || len(ra.Versions) != 2 {
		t.Errorf("replicas differ: %+v and %+v", ra, rb)
	}
	third, out := a.do(t, "k", 0, setOp("third")) // covers both
	if out.Live != 1 {
		t.Errorf("live %d after a covering write", out.Live)
	}
	if err := b.take("k", 0, third); err != nil {
		t.Fatal(err)
	}
	if got := b.get(t, "k"); got != "third" {
		t.Errorf("b has %q", got)
	}
}

func TestAcknowledgedMutationsSurviveACrash(t *testing.T) {
	for range 5 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 4))
		disk := vfs.NewCrashableMem()
		h := newHost(t, disk, 1, func(c *Config) { c.CacheBytes = 4096 })
		var mu sync.Mutex
		acked := map[string]version.Dot{}
		var clone *vfs.MemFS
		var want map[string]version.Dot
		n := 200 + rng.IntN(300)
		for i := range n {
			key := fmt.Sprint("k", rng.IntN(50))
			_, out, err := h.Mutate([]byte(key), 0, version.Record{}, setOp(fmt.Sprint(i)), true, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.Merge([]byte(key), 0, mustEncode(77, uint64(i+1), "m"), true, func(err error) {
				if err == nil {
					mu.Lock()
					acked[key] = out.Dot
					mu.Unlock()
				}
			})
			if i == n*2/3 {
				mu.Lock()
				want = map[string]version.Dot{}
				for k, d := range acked {
					want[k] = d
				}
				mu.Unlock()
				clone = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			}
		}
		h.close(t)
		after := newHost(t, clone, 2, nil)
		for key, dot := range want {
			rec, _, _, err := after.Read([]byte(key), 0)
			if err != nil || !rec.Context.Contains(dot) {
				t.Errorf("seed %d: %s lost %v: %v", seed, key, dot, err)
			}
		}
		runFor(t, after, 0)
		after.close(t)
	}
}

// runFor lets Run do what it does at its start, and then for d.
func runFor(t testing.TB, h *host, d time.Duration) {
	t.Helper()
	done := make(chan struct{})
	ctx, cancel := contextFor(t)
	go func() {
		defer close(done)
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	<-h.tally.exact
	if d > 0 {
		time.Sleep(d) // virtual time
	}
	cancel()
	<-done
}

// A row that is not in memory may have taken the disk any time to bring.
func TestARowThatCameTooLateIsNotChanged(t *testing.T) {
	h := newHost(t, vfs.NewCrashableMem(), 5, nil)
	past, soon := time.Now().Add(-time.Second), time.Now().Add(time.Minute)
	enc := version.EncodeWire(nil, version.Record{Context: version.Context{{Actor: 900, Lo: 1, Hi: 1}}})
	merge := func(deadline time.Time) error {
		done := make(chan error, 1)
		h.MergeBefore(deadline, []byte("k"), 7, enc, true, func(err error) { done <- err })
		return <-done
	}
	mutate := func(deadline time.Time) error {
		done := make(chan error, 1)
		_, _, err := h.MutateBefore(deadline, []byte("m"), 0, version.Record{}, setOp("v"), true, func(err error) { done <- err })
		if err == nil {
			err = <-done
		}
		return err
	}
	for name, do := range map[string]func(time.Time) error{"merge": merge, "mutation": mutate} {
		if err := do(past); !errors.Is(err, ErrLate) {
			t.Errorf("late %s: %v", name, err)
		}
		if held, err := h.Records(); held || err != nil {
			t.Errorf("late %s: rows are held: %v, %v", name, held, err)
		}
	}
	for name, do := range map[string]func(time.Time) error{"merge": merge, "mutation": mutate} {
		if err := do(soon); err != nil {
			t.Errorf("%s in time: %v", name, err)
		}
	}
	h.close(t)
}

func TestClockNeverGoesBack(t *testing.T) {
	now := time.UnixMilli(1000)
	c := Clock{now: func() time.Time { return now }}
	last := c.Now()
	for _, step := range []int64{5, 0, 0, -500, 3, 1000} {
		now = now.Add(time.Duration(step) * time.Millisecond)
		if next := c.Now(); next <= last {
			t.Errorf("%x follows %x", next, last)
		} else {
			last = next
		}
	}
	ahead := version.HLCFromMS(1 << 40)
	c.Observe(ahead)
	c.Observe(5)
	if got := c.Now(); got <= ahead {
		t.Errorf("%x after observing %x", got, ahead)
	}
}

func TestTalliesAreGolden(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, nil)
	defer h.close(t)
	h.tally.change(3, 2, 1)
	h.tally.change(16383, 300, 0)
	h.hints.change(0x1122334455667788, 0, 40)
	got, ok := h.encodeTallies()
	want, err := os.ReadFile(filepath.Join("testdata", "tallies.txt"))
	if err != nil || !ok {
		t.Fatal(err, ok)
	}
	if enc := hex.EncodeToString(got); enc != string(bytes.TrimSpace(want)) {
		t.Errorf("tallies %s, want %s", enc, want)
	}
	tl, err := decodeTallies(got)
	if err != nil || tl.keys[3] != 2 || tl.keys[16383] != 300 || tl.expiries[3] != 1 || tl.expiries[16383] != 0 || len(tl.hints) != 1 || tl.hints[0].Bytes != 40 {
		t.Errorf("decoded %+v, %v", tl, err)
	}
	old, err := hex.DecodeString("0101020302fc7fac020111223344556677880128611244e3") // format 1
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeTallies(old); err == nil {
		t.Error("tallies that do not say where the entries are were taken")
	}
	h.tally.change(3, -2, -1)
	h.tally.change(16383, -300, 0)
	h.hints.change(0x1122334455667788, 40, 0)
}

func FuzzDecodeTallies(f *testing.F) {
	f.Add([]byte{2, 2, 3, 2, 1, 0xfc, 0x7f, 0xac, 2, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 1, 40})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeTallies(b) // must not panic, with or without a right checksum
		_, _ = decodeTallies(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
	})
}

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := New(Config{Units: 3})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("actor")) || !bytes.Contains([]byte(err.Error()), []byte("units (3)")) {
		t.Errorf("error %v", err)
	}
}

// What a quorum read found is what the operation works on, and what it overwrites.
func TestAMutationWorksOnWhatOthersHaveToo(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := newHost(t, vfs.NewCrashableMem(), 1, nil)
		base := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 9, Counter: 4}, HLC: version.HLCFromMS(h.cfg.Now().UnixMilli()), Value: []byte("theirs")})
		_, out, err := h.Mutate([]byte("k"), 0, base, version.Op{Kind: version.OpAppend, Value: []byte(" and ours")}, true, func(error) {})
		if err != nil || !out.HadOld || out.Live != 1 || out.Length != int64(len("theirs and ours")) {
			t.Errorf("outcome %+v, %v", out, err)
		}
		synctest.Wait()
		if got := h.get(t, "k"); got != "theirs and ours" {
			t.Errorf("the row is %q", got)
		}
		h.close(t)
	})
}
