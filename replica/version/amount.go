package version

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// Amount is what a counter counts: a decimal with 17 places, in two's complement
// over 128 bits. That is what Redis prints of a float, so no sum of printed numbers
// is ever rounded, and sums do not depend on the order of what is added.
//
// Sums wrap around. A sum whose value is in the range is right however far its
// parts have run out of it.
type Amount struct{ hi, lo uint64 }

const (
	amountPlaces = 17
	amountOne    = 100_000_000_000_000_000 // the Amount of 1
	// amountText is more than the longest number, and Redis' bound on floats.
	amountText = 256
)

// maxAmount bounds what a single operation may lead to, so that what a dozen
// coordinators add at once stays far from wrapping around: 10^20.
var maxAmount = new(big.Int).Exp(big.NewInt(10), big.NewInt(20+amountPlaces), nil)

// wholeAmount is n.
func wholeAmount(n int64) Amount {
	hi, lo := bits.Mul64(magnitude(n), amountOne)
	a := Amount{hi, lo}
	if n < 0 {
		return Amount{}.minus(a)
	}
	return a
}

// magnitude is the absolute value, that of the least int64 included.
func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

func (a Amount) plus(b Amount) Amount {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return Amount{hi, lo}
}

func (a Amount) minus(b Amount) Amount {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return Amount{hi, lo}
}

func (a Amount) negative() bool { return a.hi>>63 != 0 }

// whole returns the amount as an int64, if it is one.
func (a Amount) whole() (int64, bool) {
	m, negative := a, a.negative()
	if negative {
		m = Amount{}.minus(a)
	}
	if m.hi >= amountOne {
		return 0, false
	}
	n, rest := bits.Div64(m.hi, m.lo, amountOne)
	switch {
	case rest != 0:
		return 0, false
	case negative && n <= 1<<63:
		return int64(-n), true
	case !negative && n <= math.MaxInt64:
		return int64(n), true
	}
	return 0, false
}

// append appends the amount as Redis prints it: without a fraction that is zero,
// and without zeros at the end of one.
func (a Amount) append(dst []byte) []byte {
	if n, ok := a.whole(); ok {
		return strconv.AppendInt(dst, n, 10)
	}
	if a.negative() {
		dst = append(dst, '-')
		a = Amount{}.minus(a)
	}
	units := new(big.Int).SetUint64(a.hi)
	units.Or(units.Lsh(units, 64), new(big.Int).SetUint64(a.lo))
	digits := units.String()
	if short := amountPlaces + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	point := len(digits) - amountPlaces
	dst = append(dst, digits[:point]...)
	if fraction := strings.TrimRight(digits[point:], "0"); fraction != "" {
		dst = append(append(dst, '.'), fraction...)
	}
	return dst
}

// amountOf reads a value as a number.
func amountOf(value []byte) (Amount, bool) {
	if n, ok := ParseWhole(value); ok {
		return wholeAmount(n), true
	}
	f, ok := parseFloat(value)
	if !ok {
		return Amount{}, false
	}
	return roundAmount(f)
}

// ParseWhole reads a signed 64-bit integer in the one form that Redis takes for one:
// the canonical decimal, no space, no plus, no leading zero, no "-0".
func ParseWhole(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	digits := b
	if negative {
		digits = b[1:]
	}
	switch {
	case len(digits) == 0 || len(digits) > 19:
		return 0, false
	case digits[0] == '0':
		return 0, len(b) == 1
	}
	var v uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		// 19 digits stay below 2^64, so v cannot wrap.
		v = v*10 + uint64(c-'0')
	}
	if negative {
		if v > 1<<63 {
			return 0, false
		}
		return -int64(v), true // -(1<<63) wraps to itself
	}
	return int64(v), v <= math.MaxInt64
}

// The exponents of two of a long double, subnormal ones included.
const minExponent, maxExponent = -16445, 16384

// parseFloat reads a number as strtold does, into the 64 bits of mantissa that a
// long double has where Redis is used mostly.
func parseFloat(b []byte) (*big.Float, bool) {
	text := string(b)
	unsigned := strings.ToLower(strings.TrimLeft(text, "+-"))
	if len(text) == 0 || len(text) >= amountText || len(text)-len(unsigned) > 1 {
		return nil, false
	}
	base, digits := 10, "0123456789.e+-"
	switch {
	case unsigned == "inf" || unsigned == "infinity":
		return new(big.Float).SetInf(text[0] == '-'), true
	case strings.HasPrefix(unsigned, "0x"):
		base, digits = 0, "0123456789abcdefxp.+-"
	}
	if strings.Trim(unsigned, digits) != "" {
		return nil, false
	}
	f, _, err := big.ParseFloat(text, base, 64, big.ToNearestEven)
	if err != nil || f.IsInf() || f.MantExp(nil) > maxExponent || f.MantExp(nil) < minExponent {
		return nil, false
	}
	if mantissa, _, _ := strings.Cut(unsigned, "e"); f.Sign() == 0 && base == 10 && strings.ContainsAny(mantissa, "123456789") {
		return nil, false // too small to be told from 0
	}
	return f, true
}

// roundAmount rounds to the places of an Amount as printing would; false for what
// is beyond maxAmount.
func roundAmount(f *big.Float) (Amount, bool) {
	switch exp := f.MantExp(nil); {
	case f.IsInf() || exp > 67: // 10^20 < 2^67
		return Amount{}, false
	case exp < -64: // printing would write out all the zeros first
		return Amount{}, true
	}
	digits := strings.Replace(f.Text('f', amountPlaces), ".", "", 1)
	units, ok := new(big.Int).SetString(digits, 10)
	if !ok || units.CmpAbs(maxAmount) > 0 {
		return Amount{}, false
	}
	var b [16]byte
	new(big.Int).Abs(units).FillBytes(b[:])
	a := Amount{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
	if units.Sign() < 0 {
		a = Amount{}.minus(a)
	}
	return a, true
}

// The two forms of an amount in an encoding. A whole one has the first.
const (
	amountWhole = 0 // and a zigzag varint
	amountUnits = 1 // and 16 bytes, units of 10^-17
)

func appendAmount(dst []byte, a Amount) []byte {
	if n, ok := a.whole(); ok {
		return binary.AppendUvarint(append(dst, amountWhole), uint64(n)<<1^uint64(n>>63))
	}
	dst = binary.BigEndian.AppendUint64(append(dst, amountUnits), a.hi)
	return binary.BigEndian.AppendUint64(dst, a.lo)
}

func (d *decoder) amount() Amount {
	switch d.u8() {
	case amountWhole:
		u := d.uvarint()
		return wholeAmount(int64(u>>1) ^ -int64(u&1))
	case amountUnits:
		a := Amount{d.u64(), d.u64()}
		if _, ok := a.whole(); ok {
			d.fail()
		}
		return a
	}
	d.fail()
	return Amount{}
}
