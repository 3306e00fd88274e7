//go:build unix

package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cpu is the processor time that the process has used, in user and kernel.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchKeys returns n row keys in random order of position.
func benchKeys(n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		key := fmt.Appendf(nil, "key:%012d", i)
		h := fnv.New64a()
		_, _ = h.Write(key) // never fails
		x := h.Sum64() * 0x9e3779b97f4a7c15
		keys[i] = AppendDataKey(nil, uint16(x>>50), uint32(x), key)
	}
	return keys
}

// BenchmarkDurableRows writes rows of 150 bytes in groups, one sync each, to a
// real disk. cpu-ns/row counts everything: flushes and compactions too.
func BenchmarkDurableRows(b *testing.B) {
	for _, keys := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) { benchmarkRows(b, keys, 200) })
	}
}

// benchmarkRows writes b.N rows of so many keys in groups of the given size.
func benchmarkRows(b *testing.B, keys, group int) {
	rows, value := benchKeys(keys), make([]byte, 150)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range value[:75] {
		value[i] = byte(rng.Uint32())
	}
	s, err := Open(Config{Dir: b.TempDir(), MinFreeBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	done := make(chan error, 2)
	begun, slowest := cpu(b), time.Duration(0)
	b.ResetTimer()
	for i := 0; i < b.N; i += group {
		start := time.Now()
		for j := range group {
			binary.BigEndian.PutUint64(value, uint64(i+j))
			ack := func(error) {}
			if j == group-1 {
				ack = func(err error) { done <- err }
			}
			ops := [1]RowOp{{Key: rows[rng.IntN(keys)], Value: value}}
			if _, err := s.Enqueue(ops[:], true, ack); err != nil {
				b.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		slowest = max(slowest, time.Since(start))
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu(b)-begun)/float64(b.N), "cpu-ns/row")
	b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
}

// BenchmarkSeek goes to every n-th row, by steps, by seeks, and as Seek does. seekAfter
// rests on it.
func BenchmarkSeek(b *testing.B) {
	s := mustOpen(b, Config{FS: vfs.NewMem(), Dir: "db", MinFreeBytes: -1, BlockCacheBytes: 256 << 20})
	defer s.Close()
	keys := benchKeys(100_000)
	for group := range slices.Chunk(keys, 1000) {
		var ops []RowOp
		for _, key := range group {
			ops = append(ops, RowOp{Key: key, Value: make([]byte, 150)})
		}
		done := make(chan error, 1)
		if _, err := s.Enqueue(ops, false, func(err error) { done <- err }); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	applyNow(b, s)
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(keys, bytes.Compare)
	snap, err := s.Snapshot(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer snap.Close()
	for _, gap := range []int{1, 2, 4, 8, 16, 32, 64, 256} {
		for name, to := range map[string]func(w *Walk, row []byte) bool{
			"step": func(w *Walk, _ []byte) bool {
				for range gap - 1 {
					w.Next()
				}
				return w.Next()
			},
			"seek": func(w *Walk, row []byte) bool { w.within = w.it.SeekGE(row); return w.here() },
			"walk": (*Walk).Seek,
		} {
			b.Run(fmt.Sprintf("gap=%d/%s", gap, name), func(b *testing.B) { benchSeek(b, snap, keys, gap, to) })
		}
	}
}

// benchSeek goes to every gap-th of all keys, again and again.
func benchSeek(b *testing.B, snap *Snapshot, keys [][]byte, gap int, to func(w *Walk, row []byte) bool) {
	var w *Walk
	var err error
	from := cpu(b)
	for i := 0; b.Loop(); i += gap {
		if i >= len(keys) {
			w, i = nil, 0 // the next key is that of the next round
		}
		if w == nil {
			if w, err = snap.Walk(DataRange(0, 0, 1<<14-1)); err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			w.Seek(keys[0])
			continue
		}
		if !to(w, keys[i]) || !bytes.Equal(w.Row(), keys[i]) {
			b.Fatal("not there")
		}
		if _, err := w.Value(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-from)/float64(b.N), "cpu-ns/op")
}
