package version

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// FieldOp says what is done with a bit field.
type FieldOp uint8

const (
	FieldGet  FieldOp = iota + 1
	FieldSet          // answers the value before
	FieldIncr         // answers the value after
	fieldOpEnd
)

// Overflow says what becomes of a number that its field cannot hold.
type Overflow uint8

const (
	OverflowWrap     Overflow = iota // the lowest bits of it
	OverflowSaturate                 // the nearest number that fits
	OverflowFail                     // nothing is written, and the answer is none
	overflowEnd
)

// A Field is an integer within a value and what is done with it. Bit 0 is the
// highest of the first byte; bits behind the end of the value are 0.
type Field struct {
	Op       FieldOp
	Overflow Overflow // not FieldGet
	Signed   bool
	Bits     uint8 // 1 to 64, of unsigned ones to 63
	Offset   int64 // its first bit
	Number   int64 // FieldSet: the new value; FieldIncr: what is added
}

// MaxBitOffset is the highest bit that a value may have.
const MaxBitOffset = 8*maxValueBytes - 1

func (f Field) valid() bool {
	most := uint8(64)
	if !f.Signed {
		most = 63
	}
	return f.Op > 0 && f.Op < fieldOpEnd && f.Overflow < overflowEnd && f.Bits > 0 && f.Bits <= most &&
		f.Offset >= 0 && f.Offset <= MaxBitOffset && (f.Op != FieldGet || f.Overflow == 0 && f.Number == 0)
}

// End is the length of the shortest value that holds the field.
func (f Field) End() int64 { return (f.Offset+int64(f.Bits)-1)/8 + 1 }

// A FieldResult is the answer to one Field.
type FieldResult struct {
	Number int64
	None   bool // an overflow that fails
}

// fieldSigned and the places of what else is in the first byte of a field.
const (
	fieldOpMask     = 1<<2 - 1
	overflowShift   = 2
	overflowMask    = 1<<2 - 1
	fieldSigned     = 1 << 4
	resultNone      = 0
	resultThere     = 1
	fieldHeadBytes  = 2
	fieldLeastBytes = fieldHeadBytes + 1
)

// AppendFields appends the form in which fields travel as the value of an OpFields.
func AppendFields(dst []byte, fields []Field) []byte {
	for _, f := range fields {
		head := byte(f.Op) | byte(f.Overflow)<<overflowShift
		if f.Signed {
			head |= fieldSigned
		}
		dst = append(dst, head, f.Bits)
		dst = binary.AppendUvarint(dst, uint64(f.Offset))
		if f.Op != FieldGet {
			dst = binary.BigEndian.AppendUint64(dst, uint64(f.Number))
		}
	}
	return dst
}

// DecodeFields is the inverse of AppendFields. No fields at all are an error.
func DecodeFields(b []byte) ([]Field, error) {
	fields := make([]Field, 0, min(len(b)/fieldLeastBytes, 64))
	d := decoder{b: b}
	for !d.done() {
		head := d.u8()
		f := Field{
			Op: FieldOp(head & fieldOpMask), Overflow: Overflow(head >> overflowShift & overflowMask),
			Signed: head&fieldSigned != 0, Bits: d.u8(), Offset: d.int63(),
		}
		if f.Op != FieldGet {
			f.Number = int64(d.u64())
		}
		if d.bad || head >= fieldSigned<<1 || !f.valid() {
			return nil, fmt.Errorf("%w: bit field", ErrCorrupt)
		}
		fields = append(fields, f)
	}
	if len(fields) == 0 {
		return nil, fmt.Errorf("%w: no bit fields", ErrCorrupt)
	}
	return fields, nil
}

func appendResults(dst []byte, results []FieldResult) []byte {
	for _, r := range results {
		if r.None {
			dst = append(dst, resultNone)
			continue
		}
		dst = binary.BigEndian.AppendUint64(append(dst, resultThere), uint64(r.Number))
	}
	return dst
}

// DecodeFieldResults reads what Outcome.Old is after an OpFields of n fields.
func DecodeFieldResults(b []byte, n int) ([]FieldResult, error) {
	results := make([]FieldResult, 0, min(n, len(b)))
	d := decoder{b: b}
	for !d.done() {
		switch d.u8() {
		case resultNone:
			results = append(results, FieldResult{None: true})
		case resultThere:
			results = append(results, FieldResult{Number: int64(d.u64())})
		default:
			d.fail()
		}
		if d.bad {
			return nil, fmt.Errorf("%w: results of bit fields", ErrCorrupt)
		}
	}
	if len(results) != n {
		return nil, fmt.Errorf("%w: %d results of %d bit fields", ErrCorrupt, len(results), n)
	}
	return results, nil
}

// RunFields does what fields say with value, in order, and returns the answers.
// Requires: value is long enough for every field that is written.
func RunFields(value []byte, fields []Field) []FieldResult {
	results := make([]FieldResult, len(fields))
	for i, f := range fields {
		results[i] = f.run(value)
	}
	return results
}

func (f Field) run(value []byte) FieldResult {
	old := f.read(value)
	var next int64
	var over bool
	switch f.Op {
	case FieldSet:
		next, over = f.fit(f.Number, 0)
	case FieldIncr:
		next, over = f.fit(old, f.Number)
	default:
		return FieldResult{Number: old}
	}
	if over && f.Overflow == OverflowFail {
		return FieldResult{None: true}
	}
	f.write(value, next)
	if f.Op == FieldSet {
		return FieldResult{Number: old}
	}
	return FieldResult{Number: next}
}

// read returns the field; one with a sign has it spread over the higher bits.
func (f Field) read(value []byte) int64 {
	var v uint64
	for at := f.Offset; at < f.Offset+int64(f.Bits); at++ {
		v <<= 1
		if at/8 < int64(len(value)) {
			v |= uint64(value[at/8]>>(7-at%8)) & 1
		}
	}
	if f.Signed {
		unused := 64 - f.Bits
		return int64(v<<unused) >> unused
	}
	return int64(v)
}

func (f Field) write(value []byte, number int64) {
	for i := int64(f.Bits) - 1; i >= 0; i-- {
		at := f.Offset + i
		mask := byte(1) << (7 - at%8)
		value[at/8] &^= mask
		if number&1 != 0 {
			value[at/8] |= mask
		}
		number >>= 1
	}
}

// fit returns v + incr as the field can hold it, and whether it cannot without
// more ado.
//
// Note: it judges as Redis does, to the bit. There the room above a v that is far
// below the least number overflows, and that v counts as too large: SAT of it is
// the highest number.
func (f Field) fit(v, incr int64) (fitting int64, over bool) {
	if !f.Signed {
		return f.fitUnsigned(uint64(v), incr)
	}
	most := int64(math.MaxInt64)
	if f.Bits < 64 {
		most = 1<<(f.Bits-1) - 1
	}
	least := -most - 1
	above, below := most-v, least-v // may wrap where they are not looked at, and see the note
	narrow := f.Bits < 64
	switch {
	case v > most || narrow && incr > above || v >= 0 && incr > 0 && incr > above:
		fitting = most
	case v < least || narrow && incr < below || v < 0 && incr < 0 && incr < below:
		fitting = least
	default:
		return v + incr, false
	}
	if f.Overflow == OverflowWrap {
		unused := 64 - f.Bits
		fitting = (v + incr) << unused >> unused
	}
	return fitting, true
}

// fitUnsigned is fit for a field without a sign: a negative v was given as a new
// value, and counts as a very large one.
func (f Field) fitUnsigned(v uint64, incr int64) (fitting int64, over bool) {
	most := uint64(1)<<f.Bits - 1
	switch {
	case v > most || incr > 0 && incr > int64(most-v):
		fitting = int64(most)
	case incr < 0 && incr < -int64(v):
		fitting = 0
	default:
		return int64(v) + incr, false
	}
	if f.Overflow == OverflowWrap {
		fitting = int64((v + uint64(incr)) & most)
	}
	return fitting, true
}

// fields applies an OpFields. Its answers say what was there, so it is one of those
// that no fallback may decide (Strict), and nothing is written for bits that are as
// they should be: unless there are siblings to collapse, or the client has seen a
// version that is not here, against which this one must be remembered.
func (a *applying) fields() (Record, Outcome, error) {
	fields, err := DecodeFields(a.op.Value)
	if err != nil {
		return a.r, Outcome{}, err
	}
	size := int64(len(a.old.Value))
	writes := false
	for _, f := range fields {
		if f.Op != FieldGet {
			size, writes = max(size, f.End()), true
		}
	}
	if writes && size > a.limit() {
		return a.r, Outcome{}, ErrTooLarge
	}
	value := make([]byte, size)
	copy(value, a.old.Value)
	answers := appendResults(nil, RunFields(value, fields))
	same := a.had && bytes.Equal(value, a.old.Value) && len(a.r.Versions) == 1 && a.r.Context.Covers(a.op.Context)
	var r Record
	var out Outcome
	if same || !writes {
		r, out, err = a.unchanged()
	} else {
		r, out, err = a.put(value, a.keptCell(), size)
	}
	if err == nil {
		out.Old = answers
	}
	return r, out, err
}
