package version

import (
	"encoding/binary"
	"math"
)

// Flags of an op and of an outcome.
const (
	flagReturnOld = 1 << 0
	flagExplicit  = 1 << 1
	flagAddends   = 1 << 2

	flagApplied = 1 << 0
	flagHadOld  = 1 << 1
	flagOld     = 1 << 2
	flagNow     = 1 << 3
	flagCounted = 1 << 4
)

// AppendOp appends the op in the form sent to a coordinator. There is no
// checksum: ops live in frames that have one, and are never stored.
func AppendOp(dst []byte, op Op) []byte {
	flags := byte(0)
	if op.ReturnOld {
		flags |= flagReturnOld
	}
	if op.Explicit {
		flags |= flagExplicit
	}
	if len(op.Addends) > 0 {
		flags |= flagAddends
	}
	dst = append(dst, opFormat, byte(op.Kind), byte(op.Cond), byte(op.Expiry), flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(op.ExpireAtMS))
	dst = binary.AppendUvarint(dst, uint64(op.Offset))
	dst = binary.BigEndian.AppendUint64(dst, uint64(op.MinHLC))
	dst = binary.AppendUvarint(dst, uint64(max(op.MaxValue, 0)))
	dst = binary.AppendUvarint(dst, uint64(max(op.MaxSiblings, 0)))
	dst = binary.AppendUvarint(dst, uint64(max(op.MaxSiblingBytes, 0)))
	dst = appendContext(dst, op.Context)
	if len(op.Addends) > 0 {
		dst = appendAddends(dst, op.Addends)
	}
	return appendBytes(dst, op.Value)
}

// DecodeOp is the inverse of AppendOp. The value aliases b.
func DecodeOp(b []byte) (Op, error) {
	d := decoder{b: b}
	d.format(opFormat)
	op := Op{Kind: OpKind(d.u8()), Cond: Condition(d.u8()), Expiry: ExpiryMode(d.u8())}
	if op.Kind == 0 || op.Kind >= opKindEnd || op.Cond >= conditionEnd || op.Expiry >= expiryModeEnd {
		return Op{}, ErrCorrupt
	}
	flags := d.flags(flagReturnOld | flagExplicit | flagAddends)
	op.ReturnOld = flags&flagReturnOld != 0
	op.Explicit = flags&flagExplicit != 0
	op.ExpireAtMS = int64(d.u64())
	op.Offset = d.int63()
	op.MinHLC = HLC(d.u64())
	op.MaxValue = d.int()
	op.MaxSiblings = d.int()
	op.MaxSiblingBytes = d.int()
	op.Context = d.context(nil)
	if flags&flagAddends != 0 {
		op.Addends = d.addends()
	}
	op.Value = d.bytes()
	if !d.done() {
		return Op{}, ErrCorrupt
	}
	return op, nil
}

// AppendOutcome appends the outcome in the form sent back by a coordinator.
func AppendOutcome(dst []byte, o Outcome) []byte {
	flags := byte(0)
	if o.Applied {
		flags |= flagApplied
	}
	if o.HadOld {
		flags |= flagHadOld
	}
	if o.Old != nil {
		flags |= flagOld
	}
	if o.Now != nil {
		flags |= flagNow
	}
	if len(o.Token.Addends) > 0 {
		flags |= flagCounted
	}
	dst = append(dst, outcomeFormat, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.HLC))
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.Dot.Actor))
	dst = binary.AppendUvarint(dst, o.Dot.Counter)
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.OldExpireAtMS))
	dst = binary.AppendUvarint(dst, uint64(o.Length))
	dst = binary.AppendUvarint(dst, uint64(o.Live))
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.Token.HLC))
	dst = appendContext(dst, o.Token.Context)
	if len(o.Token.Addends) > 0 {
		dst = appendAddends(dst, o.Token.Addends)
	}
	if o.Old != nil {
		dst = appendBytes(dst, o.Old)
	}
	if o.Now != nil {
		dst = appendBytes(dst, o.Now)
	}
	return dst
}

// DecodeOutcome is the inverse of AppendOutcome. The values alias b.
func DecodeOutcome(b []byte) (Outcome, error) {
	d := decoder{b: b}
	d.format(outcomeFormat)
	flags := d.flags(flagApplied | flagHadOld | flagOld | flagNow | flagCounted)
	o := Outcome{
		Applied:       flags&flagApplied != 0,
		HadOld:        flags&flagHadOld != 0,
		HLC:           HLC(d.u64()),
		Dot:           Dot{Actor(d.u64()), d.uvarint()},
		OldExpireAtMS: int64(d.u64()),
		Length:        d.int63(),
		Live:          d.int(),
	}
	o.Token = Token{HLC: HLC(d.u64()), Context: d.context(nil)}
	if flags&flagCounted != 0 {
		o.Token.Addends = d.addends()
	}
	if flags&flagOld != 0 {
		o.Old = d.bytes()
	}
	if flags&flagNow != 0 {
		o.Now = d.bytes()
	}
	if !d.done() {
		return Outcome{}, ErrCorrupt
	}
	return o, nil
}

// int reads a number that must fit a non-negative int.
func (d *decoder) int() int {
	v := d.uvarint()
	if v > math.MaxInt {
		d.fail()
		return 0
	}
	return int(v)
}
