package replica

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// benchKeys is how many keys the benchmarks go around.
const benchKeys = 10000

// benchHost is a replica as a server has it, on a disk of memory.
func benchHost(b *testing.B) (*host, [][]byte) {
	b.Helper()
	disk := vfs.NewMem()
	s, err := storage.Open(storage.Config{FS: disk, Dir: "db", MinFreeBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	h := hostOn(b, s, disk, 1, func(c *Config) { c.CacheBytes = 64 << 20 })
	b.Cleanup(func() { h.close(b) })
	keys := make([][]byte, benchKeys)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key:%012d", i)
	}
	return h, keys
}

// window lets at most so many calls wait for their commit.
const window = 64

// flight is the calls under way; its done never blocks.
type flight chan struct{}

func (f flight) done(err error) {
	if err != nil {
		panic(err)
	}
	<-f
}

func (f flight) land() {
	for range window {
		f <- struct{}{}
	}
}

func BenchmarkMutateSet(b *testing.B) {
	h, keys := benchHost(b)
	value := make([]byte, 100)
	f := make(flight, window)
	done := f.done
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f <- struct{}{}
		op := version.Op{Kind: version.OpSet, Value: value}
		if _, _, err := h.Mutate(keys[i%benchKeys], 0, version.Record{}, op, false, done); err != nil {
			b.Fatal(err)
		}
	}
	f.land()
}

// BenchmarkMutateSetDurable syncs to a real disk, with so many calls under way.
func BenchmarkMutateSetDurable(b *testing.B) {
	for _, under := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("inflight=%d", under), func(b *testing.B) {
			s, err := storage.Open(storage.Config{Dir: b.TempDir(), MinFreeBytes: -1})
			if err != nil {
				b.Fatal(err)
			}
			s.Start()
			h := hostOn(b, s, nil, 1, nil)
			defer h.close(b)
			value := make([]byte, 100)
			f := make(flight, under)
			done := f.done
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f <- struct{}{}
				op := version.Op{Kind: version.OpSet, Value: value}
				if _, _, err := h.Mutate(fmt.Appendf(nil, "key:%012d", i%benchKeys), 0, version.Record{}, op, true, done); err != nil {
					b.Fatal(err)
				}
			}
			for range under {
				f <- struct{}{}
			}
		})
	}
}

func BenchmarkMergeThatDominates(b *testing.B) {
	h, keys := benchHost(b)
	value := make([]byte, 100)
	f := make(flight, window)
	done := f.done
	encs := make([][]byte, 0, 64*benchKeys)
	recs := make([]version.Record, benchKeys)
	for i := range cap(encs) {
		k := i % benchKeys
		recs[k] = recs[k].Put(version.Write{
			Dot: version.Dot{Actor: 9, Counter: uint64(i + 1)}, HLC: version.HLC(i + 1), Value: value, Cover: recs[k].Context,
		})
		encs = append(encs, version.EncodeWire(nil, recs[k]))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		f <- struct{}{}
		h.Merge(keys[i%benchKeys], 0, encs[i%len(encs)], false, done)
	}
	f.land()
}

func BenchmarkMergeAlreadyCovered(b *testing.B) {
	h, keys := benchHost(b)
	enc := mustEncode(9, 1, string(make([]byte, 100)))
	done := func(error) {}
	for _, key := range keys {
		if err := h.take(string(key), 0, enc); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Merge(keys[i%benchKeys], 0, enc, false, done)
	}
}

func BenchmarkTryReadCached(b *testing.B) {
	h, keys := benchHost(b)
	for _, key := range keys {
		h.set(b, string(key), "some value of some length")
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, ok := h.TryRead(keys[i%benchKeys], 0); !ok {
			b.Fatal("not cached")
		}
	}
}

func BenchmarkReadFromStore(b *testing.B) {
	h, keys := benchHost(b)
	h.cfg.CacheBytes = 1
	for _, key := range keys {
		h.set(b, string(key), "some value of some length")
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, _, err := h.Read(keys[i%benchKeys], 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeAndHash(b *testing.B) {
	rec := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 9, Counter: 1}, HLC: 1, Value: make([]byte, 100)})
	key := []byte("key:000000000012")
	b.ReportAllocs()
	for b.Loop() {
		if rec.StateHash() == 0 || ring.SlotOf(key) > ring.Slots || ring.KeyHash(key) == 0 {
			b.Fatal("zero")
		}
	}
}
