package version

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"
)

func randomField(r *rand.Rand, offsets int64) Field {
	f := Field{Op: FieldOp(1 + r.IntN(3)), Signed: r.IntN(2) == 0, Offset: r.Int64N(offsets)}
	f.Bits = uint8(1 + r.IntN(63))
	if f.Signed {
		f.Bits += uint8(r.IntN(2))
	}
	if f.Op != FieldGet {
		f.Overflow = Overflow(r.IntN(3))
		f.Number = int64(r.Uint64()) >> r.IntN(64)
	}
	return f
}

// slowRun does a field with numbers of any size. far: a new value so far below
// the least that what Redis does is no arithmetic (see fit).
func slowRun(bits *big.Int, total int64, f Field) (result FieldResult, far bool) {
	width := new(big.Int).Lsh(big.NewInt(1), uint(f.Bits))
	shift := uint(total - f.Offset - int64(f.Bits))
	old := new(big.Int).Rsh(bits, shift)
	old.Mod(old, width)
	stored := new(big.Int).Set(old)
	least, most := big.NewInt(0), new(big.Int).Sub(width, big.NewInt(1))
	if f.Signed {
		half := new(big.Int).Rsh(width, 1)
		least, most = new(big.Int).Neg(half), new(big.Int).Sub(half, big.NewInt(1))
		if old.Cmp(half) >= 0 {
			old.Sub(old, width)
		}
	}
	next := big.NewInt(f.Number)
	switch f.Op {
	case FieldGet:
		return FieldResult{Number: old.Int64()}, false
	case FieldIncr:
		next.Add(next, old)
	case FieldSet:
		if !f.Signed && f.Number < 0 {
			next.Add(next, new(big.Int).Lsh(big.NewInt(1), 64)) // so Redis reads it
		}
		far = f.Signed && f.Bits < 64 && new(big.Int).Sub(most, next).Cmp(big.NewInt(math.MaxInt64)) > 0
	}
	if next.Cmp(least) < 0 || next.Cmp(most) > 0 {
		switch f.Overflow {
		case OverflowFail:
			return FieldResult{None: true}, far
		case OverflowSaturate:
			if next.Cmp(least) < 0 {
				next.Set(least)
			} else {
				next.Set(most)
			}
		default:
			next.Mod(next, width)
			if next.Cmp(most) > 0 {
				next.Sub(next, width)
			}
		}
	}
	if far && f.Overflow == OverflowSaturate {
		next.Set(most)
	}
	now := new(big.Int).Mod(next, width)
	bits.Add(bits, new(big.Int).Lsh(new(big.Int).Sub(now, stored), shift))
	if f.Op == FieldSet {
		return FieldResult{Number: old.Int64()}, far
	}
	return FieldResult{Number: next.Int64()}, far
}

func TestFieldsAreIntegersOfTheirWidth(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	const size = 40
	for range 300 {
		value, model := make([]byte, size), new(big.Int)
		for i := range value {
			value[i] = byte(r.Uint32())
		}
		model.SetBytes(value)
		for range 50 {
			f := randomField(r, 8*size-64)
			was := append([]byte(nil), value...)
			got := RunFields(value, []Field{f})[0]
			want, _ := slowRun(model, 8*size, f)
			if got != want || model.Cmp(new(big.Int).SetBytes(value)) != 0 {
				t.Fatalf("seed %d: %+v of %x: got %+v, want %+v, value %x", seed, f, was, got, want, value)
			}
		}
	}
}

func TestFieldsBehindTheEndAreZero(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		f    Field
		want int64
	}{
		{Field{Op: FieldGet, Bits: 8, Offset: 4}, 0xf0},
		{Field{Op: FieldGet, Bits: 8, Offset: 4, Signed: true}, -16},
		{Field{Op: FieldGet, Bits: 63, Offset: MaxBitOffset}, 0},
		{Field{Op: FieldGet, Bits: 64, Offset: 7, Signed: true}, math.MinInt64},
	} {
		if got := RunFields([]byte{0xff}, []Field{c.f}); got[0].Number != c.want {
			t.Errorf("%+v: got %d, want %d", c.f, got[0].Number, c.want)
		}
	}
}

func TestFieldsTravel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		fields := make([]Field, 1+r.IntN(5))
		for i := range fields {
			fields[i] = randomField(r, MaxBitOffset)
		}
		got, err := DecodeFields(AppendFields(nil, fields))
		if err != nil || !reflect.DeepEqual(got, fields) {
			t.Fatalf("seed %d: got %+v, %v, want %+v", seed, got, err, fields)
		}
	}
	results := []FieldResult{{Number: -5}, {None: true}, {Number: math.MaxInt64}}
	b := appendResults(nil, results)
	if got, err := DecodeFieldResults(b, len(results)); err != nil || !reflect.DeepEqual(got, results) {
		t.Errorf("got %+v, %v", got, err)
	}
	for n, b := range map[int][]byte{2: b, 4: b, 3: b[:len(b)-1], 1: {7}, 0: {0}} {
		if got, err := DecodeFieldResults(b, n); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d results in %x: %+v, %v", n, b, got, err)
		}
	}
}

func TestFieldsThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"nothing":             {},
		"no operation":        {0, 8, 0},
		"unknown bit":         {1<<5 | 1, 8, 0},
		"unknown overflow":    {3<<2 | 2, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"get with overflow":   {1<<2 | 1, 8, 0},
		"no width":            {1, 0, 0},
		"unsigned, too wide":  {1, 64, 0},
		"signed, too wide":    {1<<4 | 1, 65, 0},
		"no offset":           {1, 8},
		"offset too far":      {1, 8, 0x80, 0x80, 0x80, 0x80, 0x10},
		"offset in long form": {1, 8, 0x80, 0},
		"no number":           {2, 8, 0, 1, 2, 3},
	} {
		if fields, err := DecodeFields(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, fields, err)
		}
	}
}

func FuzzDecodeFields(f *testing.F) {
	f.Add(AppendFields(nil, []Field{{Op: FieldGet, Bits: 8}, {Op: FieldIncr, Overflow: OverflowFail, Signed: true, Bits: 64, Offset: 1000, Number: -1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecoder(t, b, func(b []byte) ([]byte, error) {
			fields, err := DecodeFields(b)
			return AppendFields(nil, fields), err
		})
	})
}

// answered decodes the answers of an OpFields.
func answered(t *testing.T, out Outcome, n int) []FieldResult {
	t.Helper()
	results, err := DecodeFieldResults(out.Old, n)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestFieldsFollowRedis(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	fields := func(list ...Field) Op {
		return Op{Kind: OpFields, Value: AppendFields(nil, list), MaxValue: 4}
	}
	set := func(at, bit int64) Op { return fields(Field{Op: FieldSet, Bits: 1, Offset: at, Number: bit}) }
	if out := a.do(fields(Field{Op: FieldGet, Bits: 8})); out.Applied || out.HadOld || !a.rec.Absent() || answered(t, out, 1)[0].Number != 0 {
		t.Errorf("get of no key: %+v", out)
	}
	if out := a.do(set(9, 0)); !out.Applied || answered(t, out, 1)[0].Number != 0 || out.Length != 2 {
		t.Errorf("a zero to no key: %+v", out)
	}
	a.want("\x00\x00", 0)
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 9})
	if out := a.do(set(1, 1)); !out.Applied || answered(t, out, 1)[0].Number != 0 {
		t.Errorf("got %+v", out)
	}
	a.want("\x40\x00", testNowMS+9)
	if out := a.do(set(1, 1)); out.Applied || answered(t, out, 1)[0].Number != 1 {
		t.Errorf("a bit that is set: %+v", out)
	}
	out := a.do(fields(Field{Op: FieldIncr, Bits: 8, Number: 3}, Field{Op: FieldIncr, Overflow: OverflowFail, Bits: 2, Number: 9}, Field{Op: FieldGet, Bits: 16}))
	if got := answered(t, out, 3); got[0].Number != 0x43 || !got[1].None || got[2].Number != 0x4300 {
		t.Errorf("got %+v", got)
	}
	a.want("C\x00", testNowMS+9)
	for _, op := range []Op{set(32, 1), set(MaxBitOffset, 1), fields(Field{Op: FieldSet, Bits: 8, Offset: 25})} {
		if _, err := a.try(op); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v", err)
		}
	}
	if out := a.do(set(31, 1)); out.Length != 4 {
		t.Errorf("up to the limit: %+v", out)
	}
	a.nowMS += 9
	if out := a.do(set(0, 1)); out.HadOld || out.Length != 1 {
		t.Errorf("to an expired key: %+v", out)
	}
	a.want("\x80", 0)
	for _, value := range [][]byte{nil, {0}} {
		if _, err := a.try(Op{Kind: OpFields, Value: value}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x: %v", value, err)
		}
	}
}

// A bit that is as it should be is no reason to write, but siblings and what only
// the client has seen are.
func TestFieldsThatChangeNothingStillCoverWhatWasSeen(t *testing.T) {
	t.Parallel()
	op := Op{Kind: OpFields, Value: AppendFields(nil, []Field{{Op: FieldSet, Bits: 1, Offset: 0, Number: 1}})}
	one := Record{}.Put(Write{Dot: Dot{0xa1, 1}, HLC: 5, Value: []byte("\x80")})
	two := one.Put(Write{Dot: Dot{0xb2, 1}, HLC: 4, Value: []byte("\x00")})
	mint := Mint{NowMS: testNowMS, HLC: 9, Dot: Dot{0xee, 1}}
	if r, out, err := Apply(one, op, mint); err != nil || out.Applied || !r.Equal(one) {
		t.Errorf("got %v, %+v, %v", r, out, err)
	}
	if r, out, err := Apply(two, op, mint); err != nil || !out.Applied || len(r.Versions) != 1 {
		t.Errorf("siblings: %v, %+v, %v", r, out, err)
	}
	op.Context = Context{{0xc3, 1, 1}}
	if r, out, err := Apply(one, op, mint); err != nil || !out.Applied || !r.Context.Covers(op.Context) {
		t.Errorf("seen elsewhere: %v, %+v, %v", r, out, err)
	}
}
