package version

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// golden reads an annotated hex file: bytes, then "#" and words, per line.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, b...)
	}
	return out
}

func sampleRecord() Record {
	return Record{
		Amnesia: true, LWW: true,
		Context: Context{{0xa1, 1, 9}, {0xa1, 12, 12}, {0xb2, 4, 300}, {0xc3, 1_000_000, 1_000_000}},
		Versions: []Version{
			{Dot: Dot{0xa1, 7}, HLC: HLCFromMS(testNowMS), Value: []byte("old")},
			{Dot: Dot{0xa1, 12}, HLC: HLCFromMS(testNowMS + 1), Value: []byte{}, Expiry: Cell{HLC: HLCFromMS(testNowMS + 2)}},
			{Dot: Dot{0xc3, 1_000_000}, HLC: HLCFromMS(testNowMS) + 5, Stub: true,
				Expiry: Cell{HLC: HLCFromMS(testNowMS), AtMS: testNowMS + 1000}},
		},
	}
}

func sampleOp() Op {
	return Op{
		Kind: OpSetRange, Value: []byte("hello"), Offset: 300, Cond: CondPresent, Expiry: ExpiryAt, ExpireAtMS: -2,
		ReturnOld: true, Explicit: true, Context: sampleToken().Context, MinHLC: HLCFromMS(testNowMS),
		MaxValue: 1 << 20, MaxSiblings: 64, MaxSiblingBytes: 1 << 20,
	}
}

func sampleOutcome() Outcome {
	return Outcome{
		Applied: true, HadOld: true, Old: []byte("was"), Length: 305, Live: 2, Dot: Dot{0xa1, 12},
		HLC: HLCFromMS(testNowMS), Token: sampleToken(), OldExpireAtMS: testNowMS + 1000,
	}
}

func sampleFields() []Field {
	return []Field{
		{Op: FieldGet, Bits: 63, Offset: MaxBitOffset},
		{Op: FieldSet, Bits: 1, Offset: 300, Number: 1},
		{Op: FieldIncr, Overflow: OverflowFail, Signed: true, Bits: 64, Offset: 7, Number: -2},
		{Op: FieldIncr, Overflow: OverflowSaturate, Bits: 8, Number: 1 << 40},
	}
}

func sampleResults() []FieldResult {
	return []FieldResult{{Number: 0x0102}, {None: true}, {Number: -1}}
}

func TestFormatsAreFrozen(t *testing.T) {
	t.Parallel()
	key, mac := []byte("cart:7"), MACKey{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for name, c := range map[string]struct {
		encoded []byte
		decode  func([]byte) (any, error)
		value   any
	}{
		"record.hex": {EncodeRecord(nil, sampleRecord()),
			func(b []byte) (any, error) { return DecodeRecord(b) }, sampleRecord()},
		"token.hex": {SealToken(nil, key, sampleToken(), mac),
			func(b []byte) (any, error) { return OpenToken(key, b, mac) }, sampleToken()},
		"counter.hex": {EncodeRecord(nil, sampleCounter()),
			func(b []byte) (any, error) { return DecodeRecord(b) }, sampleCounter()},
		"op.hex": {AppendOp(nil, sampleOp()), func(b []byte) (any, error) { return DecodeOp(b) }, sampleOp()},
		"fields.hex": {AppendOp(nil, Op{Kind: OpFields, Value: AppendFields(nil, sampleFields())}),
			func(b []byte) (any, error) {
				op, err := DecodeOp(b)
				if err != nil {
					return nil, err
				}
				return DecodeFields(op.Value)
			}, sampleFields()},
		"fieldresults.hex": {appendResults(nil, sampleResults()),
			func(b []byte) (any, error) { return DecodeFieldResults(b, len(sampleResults())) }, sampleResults()},
		"outcome.hex": {AppendOutcome(nil, sampleOutcome()), func(b []byte) (any, error) { return DecodeOutcome(b) }, sampleOutcome()},
	} {
		want := golden(t, name)
		if !bytes.Equal(c.encoded, want) {
			t.Errorf("%s: encoded\n%x, want\n%x", name, c.encoded, want)
		}
		got, err := c.decode(want)
		if err != nil || !reflect.DeepEqual(got, c.value) {
			t.Errorf("%s: decoded\n%+v, %v, want\n%+v", name, got, err, c.value)
		}
	}
}

func TestEncodingsGrowTheirDestination(t *testing.T) {
	t.Parallel()
	head := []byte("head")
	r, err := DecodeRecord(EncodeRecord(head, sampleRecord())[len(head):])
	if err != nil || !reflect.DeepEqual(r, sampleRecord()) {
		t.Errorf("got %v, %v", r, err)
	}
	w, err := DecodeRecord(EncodeWire(head, sampleRecord())[len(head):])
	if err != nil || w.Amnesia || w.AllAcked || !w.LWW || !w.Equal(sampleRecord()) {
		t.Errorf("got %v, %v", w, err)
	}
}

// Sizes that the storage budget counts on; a first write is what most keys are.
func TestRecordsAreSmall(t *testing.T) {
	t.Parallel()
	three := Context{{1 << 60, 1, 1_000_000}, {2 << 60, 1, 1_000_000}, {3 << 60, 1, 1_000_000}}
	for _, c := range []struct {
		name string
		rec  Record
		want int
	}{
		{"first write", Record{Context: Context{{1, 1_000_000, 1_000_000}}, Versions: []Version{{Dot: Dot{1, 1_000_000}}}}, 33},
		{"three actors", Record{Context: three, Versions: []Version{{Dot: Dot{1 << 60, 1_000_000}}}}, 59},
		{"tombstone of three actors", Record{Context: three}, 47},
		{"absent", Record{}, 8},
	} {
		if got := len(EncodeRecord(nil, c.rec)); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, got, c.want)
		}
	}
}

// sealed puts a right checksum under a body.
func sealed(body ...byte) []byte {
	return binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, castagnoli()))
}

func TestDamagedRecordsAreCorruptAndNeverAbsent(t *testing.T) {
	t.Parallel()
	good := EncodeRecord(nil, sampleRecord())
	for i := range good {
		bent := bytes.Clone(good)
		bent[i] ^= 0x40
		if _, err := DecodeRecord(bent); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := DecodeRecord(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := DecodeRecord(append(bytes.Clone(good), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
}

// Each of these has a right checksum and says something that no encoder says.
func TestOnlyTheCanonicalFormIsARecord(t *testing.T) {
	t.Parallel()
	actor := func(id byte, tail ...byte) []byte { return append([]byte{0, 0, 0, 0, 0, 0, 0, id}, tail...) }
	version := func(index, below byte) []byte { return append([]byte{index, below, 0}, append(make([]byte, 8), 0)...) }
	join := func(parts ...[]byte) []byte { return sealed(bytes.Join(parts, nil)...) }
	head := []byte{recordFormat, 0}
	one := join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, version(0, 0))
	if r, err := DecodeRecord(one); err != nil || !bytes.Equal(EncodeRecord(nil, r), one) {
		t.Fatalf("the base case is wrong: %v %v", r, err)
	}
	ones := bytes.Repeat([]byte{0xff}, 9)
	for name, b := range map[string][]byte{
		"unknown format":          join([]byte{2, 0}, []byte{0, 0}),
		"unknown flag":            join([]byte{recordFormat, 16}, []byte{0, 0}),
		"counter of nothing":      join([]byte{recordFormat, 8}, []byte{0, 0}, []byte{0, 0}),
		"long varint":             join(head, []byte{0x80, 0}, []byte{0}),
		"version outside context": join(head, []byte{1}, actor(1, 1, 4, 0), []byte{1}, version(0, 1)),
		"version in a gap":        join(head, []byte{1}, actor(1, 2, 0, 0, 0, 0), []byte{1}, version(0, 1)),
		"version without context": join(head, []byte{0}, []byte{1}, version(0, 0)),
		"index past the actors":   join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, version(1, 0)),
		"counter zero":            join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, version(0, 5)),
		"dots descend":            join(head, []byte{1}, actor(1, 1, 0, 4), []byte{2}, version(0, 0), version(0, 1)),
		"actors descend":          join(head, []byte{2}, actor(2, 1, 0, 4), actor(1, 1, 0, 4), []byte{0}),
		"actor twice":             join(head, []byte{2}, actor(1, 1, 0, 4), actor(1, 1, 9, 4), []byte{0}),
		"actor without spans":     join(head, []byte{1}, actor(1, 0, 0, 0), []byte{0}),
		"span overflows":          join(head, []byte{1}, actor(1, 1, 5), ones, []byte{1}, []byte{0}),
		"span after the last":     join(head, []byte{1}, actor(1, 2, 0xfe), ones[:8], []byte{1}, []byte{0, 0, 0}, []byte{0}),
		"unknown version flag":    join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, []byte{0, 0, 4}, make([]byte, 9)),
		"empty cell":              join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, []byte{0, 0, 3}, make([]byte, 17)),
		"negative expiry":         join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, []byte{0, 0, 3}, make([]byte, 16), ones, []byte{1}),
		"trailing byte":           join(head, []byte{0, 0, 0}),
		"huge count of versions":  join(head, []byte{0}, ones, []byte{1}),
		"huge value":              join(head, []byte{1}, actor(1, 1, 0, 4), []byte{1}, []byte{0, 0, 0}, make([]byte, 8), ones, []byte{1}),
	} {
		if r, err := DecodeRecord(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A decoder allocates at most this many bytes per byte of input: a span or an
// actor's span of 24 bytes from as few as 2, doubled by growth. The constant
// leaves room for what the runtime and a fuzzing engine allocate beside it.
const (
	allocFactor = 64
	allocSlack  = 64 << 10
)

func checkDecoder(t *testing.T, b []byte, decode func([]byte) ([]byte, error)) {
	t.Helper()
	var again []byte
	var err error
	cost := allocated(func() { again, err = decode(b) })
	if limit := uint64(allocFactor*len(b) + allocSlack); cost > limit {
		t.Errorf("%d bytes of input cost %d bytes of memory", len(b), cost)
	}
	if err == nil && !bytes.Equal(again, b) {
		t.Errorf("accepted\n%x, re-encoded as\n%x", b, again)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(EncodeRecord(nil, Record{})[:4])
	for _, r := range []Record{sampleRecord(), sampleCounter(), {Context: sampleToken().Context}} {
		b := EncodeRecord(nil, r)
		f.Add(b[:len(b)-crcBytes])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = DecodeRecord(body)         // as it came
		b := sealed(bytes.Clone(body)...) // and past the checksum
		checkDecoder(t, b, func(b []byte) ([]byte, error) {
			r, err := DecodeRecord(b)
			return EncodeRecord(nil, r), err
		})
		var s Slate
		_, _ = s.Decode(EncodeRecord(nil, sampleRecord())) // leaves nothing for the next
		checkDecoder(t, b, func(b []byte) ([]byte, error) {
			r, err := s.Decode(b)
			return EncodeRecord(nil, r), err
		})
		if r, err := DecodeRecord(b); err == nil {
			useRecord(t, r)
		}
	})
}

// useRecord runs what a replica does with a record from outside.
func useRecord(t *testing.T, r Record) {
	checkCanonical(t, 0, r.Context)
	if !sharesDots(r, sampleRecord()) && !Merge(r, sampleRecord()).Equal(Merge(sampleRecord(), r)) {
		t.Errorf("merge is not commutative on %v", r)
	}
	if (r.StateHash() == 0) != r.Absent() {
		t.Errorf("hash %x of %v", r.StateHash(), r)
	}
	_, _ = r.Winner(testNowMS)
	_ = r.Live(testNowMS)
	_ = r.PutToken(Dot{}, nil)
}

// sharesDots reports whether two unrelated records have a dot in common, which
// no two that were really minted have.
func sharesDots(a, b Record) bool {
	for _, v := range a.Versions {
		if b.find(v.Dot) >= 0 {
			return true
		}
	}
	return false
}

func FuzzDecodeOp(f *testing.F) {
	f.Add(AppendOp(nil, sampleOp()))
	f.Add(AppendOp(nil, Op{Kind: OpDelete}))
	f.Add(AppendOp(nil, Op{Kind: OpCountFloat, Value: []byte("-1.5"), Addends: sampleAddends()}))
	f.Add(AppendOp(nil, Op{Kind: OpFields, Value: AppendFields(nil, sampleFields())}))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecoder(t, b, func(b []byte) ([]byte, error) {
			op, err := DecodeOp(b)
			return AppendOp(nil, op), err
		})
		if op, err := DecodeOp(b); err == nil && op.Offset < 1<<16 {
			op.MaxValue = 1 << 20 // of what OpFields may ask for, too
			_, _, _ = Apply(sampleCounter(), op, Mint{NowMS: testNowMS, HLC: 1, Dot: Dot{0xee, 1}})
		}
	})
}

func FuzzDecodeOutcome(f *testing.F) {
	f.Add(AppendOutcome(nil, sampleOutcome()))
	f.Add(AppendOutcome(nil, Outcome{}))
	f.Add(AppendOutcome(nil, Outcome{Now: []byte("7"), Token: Token{Addends: sampleAddends()}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecoder(t, b, func(b []byte) ([]byte, error) {
			o, err := DecodeOutcome(b)
			return AppendOutcome(nil, o), err
		})
	})
}

func FuzzOpenToken(f *testing.F) {
	key, mac := []byte("k"), MACKey{7}
	tok := SealToken(nil, key, sampleToken(), mac)
	f.Add(tok[:len(tok)-macBytes])
	tok = SealToken(nil, key, Token{Context: sampleToken().Context, Addends: sampleAddends()}, mac)
	f.Add(tok[:len(tok)-macBytes])
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = OpenToken(key, body, mac) // as it came
		b := binary.BigEndian.AppendUint64(bytes.Clone(body), tokenMAC(key, body, mac))
		checkDecoder(t, b, func(b []byte) ([]byte, error) {
			tok, err := OpenToken(key, b, mac)
			return SealToken(nil, key, tok, mac), err
		})
	})
}

// Any sequence of writes, cut from fuzz bytes, encodes and decodes to itself.
func FuzzRecordRoundTrip(f *testing.F) {
	f.Add([]byte("some bytes to be cut into writes"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		for n := uint64(1); len(b) >= 4; n++ {
			w := Write{Dot: Dot{Actor(b[0] % 5), n}, HLC: HLC(b[1]), Value: b[2 : 2+min(int(b[2]), len(b)-2)], Expiry: Cell{HLC(b[3]), int64(b[3]) * 7}}
			switch b[1] % 4 {
			case 0:
				w.Cover = r.Context
			case 1:
				r.Amnesia = true
			}
			if b[1]%8 == 6 {
				r = r.Count(w, wholeAmount(int64(b[3])-100))
			} else {
				r = r.Put(w)
			}
			if b[2]%8 == 0 {
				r = r.DropPayload(w.Dot)
			}
			b = b[3:]
		}
		got, err := DecodeRecord(EncodeRecord(nil, r))
		if err != nil || !got.Equal(r) || got.Amnesia != r.Amnesia {
			t.Fatalf("got %v, %v, want %v", got, err, r)
		}
	})
}
