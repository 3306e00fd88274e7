package rdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"math"
	"strconv"
)

// What DUMP answers and RESTORE takes is Redis' own form of a value:
//
//	1 byte    type of the value: 0 is a string, and there are no others here
//	n bytes   the string
//	2 bytes   version of the form, little-endian
//	8 bytes   CRC-64 (Jones) of all that stands before, little-endian
//
// A string begins with a length. The two highest bits of the first byte say how it
// goes on:
//
//	00nnnnnn                 n bytes follow
//	01nnnnnn nnnnnnnn        the same
//	10000000 and 4 bytes     the same, the length big-endian
//	10000001 and 8 bytes     the same
//	11000000 and 1 byte      the decimal digits of a signed number
//	11000001 and 2 bytes     the same, little-endian
//	11000010 and 4 bytes     the same
//	11000011                 packed: packed length, length, LZF data (lzf.go)
const (
	written  = 10 // as Redis 7.0, so that it can read it
	readable = 11 // Redis 7.2; strings are the same in both
	footer   = 10

	number8, number16, number32, packed = 0xc0, 0xc1, 0xc2, 0xc3

	// Values longer than packFrom bytes are packed if that makes them at least
	// packGain bytes shorter.
	packFrom = 20
	packGain = 4
	// numberLen is the longest text that is looked at as a number.
	numberLen = 11
)

// What may be wrong with the payload of a RESTORE.
var (
	ErrSum     = errors.New("rdb: wrong version or checksum")
	ErrData    = errors.New("rdb: bad data")
	ErrType    = errors.New("rdb: no string")
	ErrTooLong = errors.New("rdb: longer than a value may be")
)

// jonesTable is of the polynomial of Redis, reflected.
var jonesTable = crc64.MakeTable(0x95ac9329ac4bc9b5)

// jones is the CRC-64 of b. Redis inverts nothing where the library does.
func jones(b []byte) uint64 { return ^crc64.Update(math.MaxUint64, jonesTable, b) }

// Dump is what DUMP answers for a string.
func Dump(value []byte) []byte {
	out := append(make([]byte, 0, len(value)+32), typeString)
	out = appendString(out, value)
	out = binary.LittleEndian.AppendUint16(out, written)
	return binary.LittleEndian.AppendUint64(out, jones(out))
}

func appendString(out, value []byte) []byte {
	if len(value) <= numberLen {
		if n, err := strconv.ParseInt(string(value), 10, 32); err == nil && bytes.Equal(decimal(n), value) {
			return appendNumber(out, int32(n))
		}
	}
	if len(value) > packFrom {
		if data := lzfPack(value, len(value)-packGain); data != nil {
			out = append(out, packed)
			out = appendLength(out, len(data))
			return append(appendLength(out, len(value)), data...)
		}
	}
	return append(appendLength(out, len(value)), value...)
}

func appendNumber(out []byte, n int32) []byte {
	switch {
	case n == int32(int8(n)):
		return append(out, number8, byte(n))
	case n == int32(int16(n)):
		return binary.LittleEndian.AppendUint16(append(out, number16), uint16(n))
	}
	return binary.LittleEndian.AppendUint32(append(out, number32), uint32(n))
}

func appendLength(out []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(out, byte(n))
	case n < 1<<14:
		return append(out, byte(n>>8)|0x40, byte(n))
	case uint64(n) <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(out, 0x80), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(out, 0x81), uint64(n))
}

// Restore reads what DUMP made, here or in Redis, of a string of at most most bytes:
// no more is ever allocated. The value may share memory with the payload.
func Restore(payload []byte, most int) (value []byte, err error) {
	if len(payload) < footer {
		return nil, ErrSum
	}
	body, foot := payload[:len(payload)-footer], payload[len(payload)-footer:]
	if binary.LittleEndian.Uint16(foot) > readable || binary.LittleEndian.Uint64(foot[2:]) != jones(payload[:len(payload)-8]) {
		return nil, ErrSum
	}
	switch {
	case len(body) == 0 || body[0] > lastType || body[0] == 8:
		return nil, ErrData
	case body[0] != typeString:
		return nil, ErrType
	}
	d := stringReader{rest: body[1:], most: uint64(most)}
	value = d.str()
	if d.fault == nil && len(value) > most {
		d.fail(ErrTooLong)
	}
	if d.fault != nil {
		return nil, d.fault
	}
	return value, nil
}

// An stringReader reads from rest. The first fault stays; after it only zeros come.
type stringReader struct {
	rest  []byte
	most  uint64
	fault error
}

func (d *stringReader) str() []byte {
	if len(d.rest) == 0 || d.rest[0] < number8 {
		return d.take(d.length())
	}
	switch head := d.take(1)[0]; head {
	case number8:
		return decimal(int64(int8(d.little(1))))
	case number16:
		return decimal(int64(int16(d.little(2))))
	case number32:
		return decimal(int64(int32(d.little(4))))
	case packed:
		return d.packed()
	}
	d.fail(ErrData)
	return nil
}

func decimal(n int64) []byte { return strconv.AppendInt(nil, n, 10) }

func (d *stringReader) packed() []byte {
	size, whole := d.length(), d.length()
	data := d.take(size)
	if whole > d.most {
		d.fail(ErrTooLong)
	}
	if d.fault != nil {
		return nil
	}
	value, ok := lzfUnpack(data, int(whole))
	if !ok {
		d.fail(ErrData)
	}
	return value
}

// length reads a plain length.
func (d *stringReader) length() uint64 {
	head := d.take(1)
	switch {
	case len(head) == 0:
		return 0
	case head[0] < 0x40:
		return uint64(head[0])
	case head[0] < 0x80:
		return uint64(head[0]&0x3f)<<8 | d.big(1)
	case head[0] == 0x80:
		return d.big(4)
	case head[0] == 0x81:
		return d.big(8)
	}
	d.fail(ErrData)
	return 0
}

// take cuts n bytes off; nil if they are not there or too many to be a value.
func (d *stringReader) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail(ErrData)
	}
	if n > max(d.most, 8) {
		d.fail(ErrTooLong)
	}
	if d.fault != nil {
		return nil
	}
	out := d.rest[:n:n]
	d.rest = d.rest[n:]
	return out
}

func (d *stringReader) big(n uint64) (v uint64) {
	for _, b := range d.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (d *stringReader) little(n uint64) (v uint64) {
	for i, b := range d.take(n) {
		v |= uint64(b) << (8 * i)
	}
	return v
}

func (d *stringReader) fail(err error) {
	if d.fault == nil {
		d.fault = err
	}
}
