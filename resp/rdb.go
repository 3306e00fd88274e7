package resp

import (
	"encoding/binary"
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
	rdbWritten  = 10 // as Redis 7.0, so that it can read it
	rdbReadable = 11 // Redis 7.2; strings are the same in both
	rdbFooter   = 10

	rdbString   = 0
	rdbLastType = 21 // of Redis 7.2

	rdbNumber8, rdbNumber16, rdbNumber32, rdbPacked = 0xc0, 0xc1, 0xc2, 0xc3

	// Values longer than rdbPackFrom bytes are packed if that makes them at least
	// rdbPackGain bytes shorter.
	rdbPackFrom = 20
	rdbPackGain = 4
	// rdbNumberLen is the longest text that is looked at as a number.
	rdbNumberLen = 11
)

const (
	errDumpSum  = "ERR DUMP payload version or checksum are wrong"
	errDumpData = "ERR Bad data format"
	errDumpType = "ERR Bad data format: only strings can be restored here"
)

// jonesTable is of the polynomial of Redis, reflected.
var jonesTable = crc64.MakeTable(0x95ac9329ac4bc9b5)

// jones is the CRC-64 of b. Redis inverts nothing where the library does.
func jones(b []byte) uint64 { return ^crc64.Update(math.MaxUint64, jonesTable, b) }

// dumpString is the answer of DUMP.
func dumpString(value []byte) []byte {
	out := append(make([]byte, 0, len(value)+32), rdbString)
	out = appendRDBString(out, value)
	out = binary.LittleEndian.AppendUint16(out, rdbWritten)
	return binary.LittleEndian.AppendUint64(out, jones(out))
}

func appendRDBString(out, value []byte) []byte {
	if len(value) <= rdbNumberLen {
		if n, ok := parseInt(value); ok && n == int64(int32(n)) {
			return appendRDBNumber(out, int32(n))
		}
	}
	if len(value) > rdbPackFrom {
		if packed := lzfPack(value, len(value)-rdbPackGain); packed != nil {
			out = append(out, rdbPacked)
			out = appendRDBLength(out, len(packed))
			return append(appendRDBLength(out, len(value)), packed...)
		}
	}
	return append(appendRDBLength(out, len(value)), value...)
}

func appendRDBNumber(out []byte, n int32) []byte {
	switch {
	case n == int32(int8(n)):
		return append(out, rdbNumber8, byte(n))
	case n == int32(int16(n)):
		return binary.LittleEndian.AppendUint16(append(out, rdbNumber16), uint16(n))
	}
	return binary.LittleEndian.AppendUint32(append(out, rdbNumber32), uint32(n))
}

func appendRDBLength(out []byte, n int) []byte {
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

// restoreString reads what DUMP made, here or in Redis, of a value of at most most
// bytes: no more is ever allocated. It returns the text of an error, if any. The
// value may share memory with the payload.
func restoreString(payload []byte, most int) (value []byte, fault string) {
	if len(payload) < rdbFooter {
		return nil, errDumpSum
	}
	body, foot := payload[:len(payload)-rdbFooter], payload[len(payload)-rdbFooter:]
	if binary.LittleEndian.Uint16(foot) > rdbReadable || binary.LittleEndian.Uint64(foot[2:]) != jones(payload[:len(payload)-8]) {
		return nil, errDumpSum
	}
	switch {
	case len(body) == 0 || body[0] > rdbLastType || body[0] == 8:
		return nil, errDumpData
	case body[0] != rdbString:
		return nil, errDumpType
	}
	d := rdbReader{rest: body[1:], most: uint64(most)}
	value = d.str()
	if d.fault == "" && len(value) > most {
		d.fail(errTooLong)
	}
	if d.fault != "" {
		return nil, d.fault
	}
	return value, ""
}

// An rdbReader reads from rest. The first fault stays; after it only zeros come.
type rdbReader struct {
	rest  []byte
	most  uint64
	fault string
}

func (d *rdbReader) str() []byte {
	if len(d.rest) == 0 || d.rest[0] < rdbNumber8 {
		return d.take(d.length())
	}
	switch head := d.take(1)[0]; head {
	case rdbNumber8:
		return decimal(int64(int8(d.little(1))))
	case rdbNumber16:
		return decimal(int64(int16(d.little(2))))
	case rdbNumber32:
		return decimal(int64(int32(d.little(4))))
	case rdbPacked:
		return d.packed()
	}
	d.fail(errDumpData)
	return nil
}

func decimal(n int64) []byte { return strconv.AppendInt(nil, n, 10) }

func (d *rdbReader) packed() []byte {
	size, whole := d.length(), d.length()
	data := d.take(size)
	if whole > d.most {
		d.fail(errTooLong)
	}
	if d.fault != "" {
		return nil
	}
	value, ok := lzfUnpack(data, int(whole))
	if !ok {
		d.fail(errDumpData)
	}
	return value
}

// length reads a plain length.
func (d *rdbReader) length() uint64 {
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
	d.fail(errDumpData)
	return 0
}

// take cuts n bytes off; nil if they are not there or too many to be a value.
func (d *rdbReader) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail(errDumpData)
	}
	if n > max(d.most, 8) {
		d.fail(errTooLong)
	}
	if d.fault != "" {
		return nil
	}
	out := d.rest[:n:n]
	d.rest = d.rest[n:]
	return out
}

func (d *rdbReader) big(n uint64) (v uint64) {
	for _, b := range d.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (d *rdbReader) little(n uint64) (v uint64) {
	for i, b := range d.take(n) {
		v |= uint64(b) << (8 * i)
	}
	return v
}

func (d *rdbReader) fail(text string) {
	if d.fault == "" {
		d.fault = text
	}
}
