package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sampleOps are a row that is set, one that is removed, one without bytes, and
// two that change a digest.
func sampleOps() []RowOp {
	return []RowOp{
		{Key: []byte("dab"), Value: []byte("xyz")},
		{Key: []byte("dc"), Delete: true},
		{Key: []byte("e"), Value: []byte{}},
		{Key: AppendDataKey(nil, 258, 0x03040506, []byte("ab")), Value: []byte("xyz"), Change: 0x1122334455667788},
		{Key: AppendDataKey(nil, 258, 0x03040506, nil), Delete: true, Change: 1},
	}
}

func sameOp(a, b RowOp) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Delete == b.Delete && a.Change == b.Change
}

// record returns the log record of the operations.
func record(ops []RowOp) []byte {
	var body []byte
	for i := range ops {
		body = appendOp(body, &ops[i])
	}
	return sealRecord(nil, len(ops), body)
}

func TestLogRecordIsGolden(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "record.txt"))
	if err != nil {
		t.Fatal(err)
	}
	squeeze := strings.NewReplacer(" ", "", "\n", "")
	got := fmt.Sprintf("key of batch 0x0102030405060708\n%x\nset dab=xyz, remove dc, set e to nothing, set and remove data rows\n%x\n",
		appendLogKey(nil, 0x0102030405060708), record(sampleOps()))
	if squeeze.Replace(got) != squeeze.Replace(string(want)) {
		t.Errorf("log record changed:\n%s\nwant\n%s", got, want)
	}
}

func TestLogRecordReadsBack(t *testing.T) {
	ops := sampleOps()
	body, n, err := openRecord(record(ops))
	if err != nil || n != len(ops) {
		t.Fatalf("%d operations, %v", n, err)
	}
	for i, op := range ops {
		got, rest, ok := takeOp(body)
		if !ok || !sameOp(got, op) {
			t.Errorf("operation %d: %+v %v, want %+v", i, got, ok, op)
		}
		body = rest
	}
}

func TestDamagedLogRecordIsCorrupt(t *testing.T) {
	whole := record(sampleOps())
	for n := range whole {
		if _, _, err := openRecord(whole[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if _, _, err := openRecord(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
	for name, b := range map[string][]byte{
		"too few operations":  sealRecord(nil, 1, append(appendOp(nil, &sampleOps()[0]), 0)),
		"too many operations": sealRecord(nil, 2, appendOp(nil, &sampleOps()[0])),
		"endless key":         sealRecord(nil, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2}),
	} {
		if _, _, err := openRecord(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpenRecord(f *testing.F) {
	f.Add(record(sampleOps()))
	f.Add(record(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum would keep the fuzzer out: give every input a right one.
		if len(b) > recordTrailer {
			b = sealRecord(nil, int(b[0]), b[1:])
		}
		body, n, err := openRecord(b)
		if err != nil {
			return
		}
		var ops []RowOp
		for range n {
			op, rest, ok := takeOp(body)
			if !ok {
				t.Fatal("a checked record has a bad operation")
			}
			ops = append(ops, op)
			body = rest
		}
		again, m, err := openRecord(record(ops))
		if err != nil || m != n {
			t.Fatalf("%d operations encode to %d, %v", n, m, err)
		}
		for _, op := range ops {
			got, rest, ok := takeOp(again)
			if !ok || !sameOp(got, op) {
				t.Fatalf("operation on %q changed", op.Key)
			}
			again = rest
		}
	})
}

func TestGenerationIsAMapOfTheLatestStates(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	g := newGeneration()
	for round := range 3 { // the table is used again
		model := map[string]RowOp{}
		for seq := range uint64(200) {
			var body []byte
			ops := rng.IntN(20)
			for range ops {
				op := RowOp{Key: randomKey(rng), Value: make([]byte, rng.IntN(40)), Delete: rng.IntN(4) == 0}
				op.Value = fmt.Append(op.Value, seq)
				if op.Delete {
					op.Value = nil
				}
				body = appendOp(body, &op)
				model[string(op.Key)] = op
			}
			g.add(seq+1, ops, body, 7, nil)
		}
		if g.first != 1 || g.last != 200 || g.bornNS != 7 || len(g.rows) != len(model) {
			t.Fatalf("seed %d: batches %d to %d, %d rows, want %d", seed, g.first, g.last, len(g.rows), len(model))
		}
		for range 2000 {
			key := randomKey(rng)
			want, held := model[string(key)]
			if row, ok := g.get(key); ok != held || ok && (row.remove != want.Delete || !bytes.Equal(row.value, want.Value)) {
				t.Fatalf("seed %d round %d: %q is %+v %v, want %+v", seed, round, key, row, ok, want)
			}
		}
		var keys [][]byte
		for _, i := range g.sorted() {
			keys = append(keys, g.key(&g.rows[i]))
		}
		if !slices.IsSortedFunc(keys, bytes.Compare) {
			t.Errorf("seed %d: rows are not sorted", seed)
		}
		checkRanges(t, seed, rng, g, model)
		g.reset()
		if _, ok := g.get(randomKey(rng)); ok || g.bytes != 0 || g.touches(nil, nil) {
			t.Fatalf("seed %d: something is left after reset", seed)
		}
	}
}

// checkRanges compares ranges of the generation with the model.
func checkRanges(t *testing.T, seed uint64, rng *rand.Rand, g *generation, model map[string]RowOp) {
	t.Helper()
	for range 200 {
		lo, hi := randomKey(rng), randomKey(rng)
		if rng.IntN(8) == 0 {
			lo, hi = nil, nil
		}
		want := 0
		for key := range model {
			if key >= string(lo) && (hi == nil || key < string(hi)) {
				want++
			}
		}
		if got := len(g.appendRange(nil, lo, hi)); got != want {
			t.Fatalf("seed %d: %d rows in [%q, %q), want %d", seed, got, lo, hi, want)
		}
	}
}

func TestASlotSetKnowsItsSlots(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 8))
	var s slotSet
	var in []uint16
	if s.any(0, 1<<16-1) {
		t.Error("something is in an empty set")
	}
	for range 40 {
		in = append(in, uint16(rng.Uint32()))
		s.add(in[len(in)-1])
		for range 200 {
			first := uint16(rng.Uint32())
			last := first + uint16(rng.IntN(3000)) // perhaps below first
			if rng.IntN(2) == 0 {
				first = in[rng.IntN(len(in))] + uint16(rng.IntN(3)) - 1
			}
			want := slices.ContainsFunc(in, func(x uint16) bool { return first <= x && x <= last })
			if got := s.any(first, last); got != want {
				t.Fatalf("seed %d: any from %d to %d of %v: %v", seed, first, last, in, got)
			}
		}
	}
}

// randomKey returns one of some hundred keys, many with a common prefix.
func randomKey(rng *rand.Rand) []byte {
	key := []byte{"deh"[rng.IntN(3)]}
	if rng.IntN(2) == 0 {
		key = append(key, "prefix"...)
	}
	for range rng.IntN(5) {
		key = append(key, "ab\x00\xff"[rng.IntN(4)])
	}
	return key
}
