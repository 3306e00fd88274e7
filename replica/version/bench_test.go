package version

import (
	"testing"
)

// overwrite returns a record of three actors and the one that replaces it.
func overwrite() (local, in Record) {
	local = Record{
		Context:  Context{{1 << 60, 1, 1_000_000}, {2 << 60, 1, 1_000_000}, {3 << 60, 1, 1_000_000}},
		Versions: []Version{{Dot: Dot{1 << 60, 1_000_000}, HLC: 5, Value: make([]byte, 100)}},
	}
	in = local.Put(Write{Dot: Dot{2 << 60, 1_000_001}, HLC: 6, Value: make([]byte, 100), Cover: local.Context})
	return local, in
}

func siblings(n int) Record {
	var r Record
	for i := range n {
		r = r.Put(Write{Dot: Dot{Actor(i + 1), 7}, HLC: HLC(i), Value: make([]byte, 100)})
	}
	return r
}

// The paths that every request takes: what they may allocate.
func TestHotPathsAllocateLittle(t *testing.T) {
	local, in := overwrite()
	enc := EncodeRecord(nil, in)
	buf := make([]byte, 0, 2*len(enc))
	set := Op{Kind: OpSet, Value: make([]byte, 100)}
	mint := Mint{NowMS: testNowMS, HLC: HLCFromMS(testNowMS), Dot: Dot{1 << 60, 1_000_001}}
	for _, c := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"merge of a covering record", 0, func() { Merge(local, in) }},
		{"merge of a covered record", 0, func() { Merge(in, local) }},
		{"merge of an equal record", 0, func() { Merge(in, in) }},
		{"state hash", 0, func() { in.StateHash() }},
		{"winner and live", 0, func() { in.Winner(testNowMS); in.Live(testNowMS) }},
		{"tokens", 0, func() { in.ReadToken(); in.PutToken(Dot{2 << 60, 1_000_001}, local.Context) }},
		{"encode", 0, func() { EncodeRecord(buf, in) }},
		{"decode: context and versions", 2, func() { _, _ = DecodeRecord(enc) }},
		{"apply a SET: context and versions", 2, func() { _, _, _ = Apply(local, set, mint) }},
	} {
		if got := testing.AllocsPerRun(100, c.f); got > c.max {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.max)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	local, in := overwrite()
	many, more := siblings(8), siblings(9)
	for _, c := range []struct {
		name      string
		local, in Record
	}{
		{"covering", local, in}, {"covered", in, local}, {"equal", in, in}, {"created", Record{}, in},
		{"siblings 8 and 9", many, more}, {"concurrent", local, siblings(1)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Merge(c.local, c.in)
			}
		})
	}
}

func BenchmarkCovers(b *testing.B) {
	local, in := overwrite()
	b.ReportAllocs()
	for b.Loop() {
		in.Context.Covers(local.Context)
	}
}

func BenchmarkApplySet(b *testing.B) {
	local, _ := overwrite()
	op := Op{Kind: OpSet, Value: make([]byte, 100)}
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = Apply(local, op, Mint{NowMS: testNowMS, HLC: 9, Dot: Dot{1 << 60, 1_000_001}})
	}
}

func BenchmarkEncodeRecord(b *testing.B) {
	_, in := overwrite()
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		EncodeRecord(buf, in)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	_, in := overwrite()
	enc := EncodeRecord(nil, in)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = DecodeRecord(enc)
	}
}

func BenchmarkStateHash(b *testing.B) {
	_, in := overwrite()
	b.ReportAllocs()
	for b.Loop() {
		in.StateHash()
	}
}

func BenchmarkToken(b *testing.B) {
	_, in := overwrite()
	key, mac, buf := []byte("user:1000:cart"), MACKey{1}, make([]byte, 0, 256)
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			SealToken(buf, key, in.ReadToken(), mac)
		}
	})
	tok := SealToken(nil, key, in.ReadToken(), mac)
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = OpenToken(key, tok, mac)
		}
	})
}

func BenchmarkOp(b *testing.B) {
	local, _ := overwrite()
	op := Op{Kind: OpSet, Value: make([]byte, 100), Context: local.Context}
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = DecodeOp(AppendOp(buf, op))
	}
}
