package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2"
)

// recordVersion is the first byte of a log record; the package comment draws
// the layout.
const recordVersion = 2

const (
	recordHeader  = 1 + 4
	recordTrailer = 4
	logKeyBytes   = 1 + 8
	changeBytes   = 8
)

// castagnoli is the polynomial that processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLogKey appends the row key of the log record of batch seq to dst.
func appendLogKey(dst []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, kindLog), seq)
}

// parseLogKey splits a row key of appendLogKey.
func parseLogKey(row []byte) (seq uint64, ok bool) {
	if len(row) != logKeyBytes || row[0] != kindLog {
		return 0, false
	}
	return binary.BigEndian.Uint64(row[1:]), true
}

// logRange returns the bounds [lo, hi) of the log records from first to last.
// Requires: last is below the greatest number.
func logRange(first, last uint64) (lo, hi []byte) {
	return appendLogKey(nil, first), appendLogKey(nil, last+1)
}

// appendOp appends one operation to the body of a log record.
func appendOp(dst []byte, op *RowOp) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(op.Key)))
	size := uint64(0)
	if !op.Delete {
		size = uint64(len(op.Value)) + 1
	}
	dst = append(binary.AppendUvarint(dst, size), op.Key...)
	if !op.Delete {
		dst = append(dst, op.Value...)
	}
	if isDataKey(op.Key) {
		dst = binary.BigEndian.AppendUint64(dst, op.Change)
	}
	return dst
}

// takeOp splits off the first operation of body. Its key and value alias body.
func takeOp(body []byte) (op RowOp, rest []byte, ok bool) {
	keyLen, n := binary.Uvarint(body)
	if n <= 0 {
		return RowOp{}, nil, false
	}
	body = body[n:]
	valueLen, n := binary.Uvarint(body)
	if n <= 0 {
		return RowOp{}, nil, false
	}
	body = body[n:]
	if op.Delete = valueLen == 0; !op.Delete {
		valueLen--
	}
	size := uint64(len(body))
	if keyLen > size || valueLen > size-keyLen {
		return RowOp{}, nil, false
	}
	end := keyLen + valueLen
	op.Key, op.Value, body = body[:keyLen], body[keyLen:end], body[end:]
	if isDataKey(op.Key) {
		if len(body) < changeBytes {
			return RowOp{}, nil, false
		}
		op.Change, body = binary.BigEndian.Uint64(body), body[changeBytes:]
	}
	return op, body, true
}

// trailer is how many bytes of the operation follow its value in a log record.
func (op *RowOp) trailer() int {
	if isDataKey(op.Key) {
		return changeBytes
	}
	return 0
}

// putRecord adds the log record of batch seq, with so many operations in body,
// to the batch.
func putRecord(b *pebble.Batch, seq uint64, ops int, body []byte) error {
	d := b.SetDeferred(logKeyBytes, recordHeader+len(body)+recordTrailer)
	appendLogKey(d.Key[:0], seq)
	sealRecord(d.Value[:0], ops, body)
	return d.Finish()
}

// sealRecord appends the record to dst.
func sealRecord(dst []byte, ops int, body []byte) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(append(dst, recordVersion), uint32(ops))
	dst = append(dst, body...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// openRecord returns the body of a log record, checked to its end, and the
// number of operations in it.
func openRecord(b []byte) (body []byte, ops int, err error) {
	end := len(b) - recordTrailer
	if end < recordHeader {
		return nil, 0, fmt.Errorf("%w: log record of %d bytes", ErrCorrupt, len(b))
	}
	if got, want := crc32.Checksum(b[:end], castagnoli), binary.LittleEndian.Uint32(b[end:]); got != want {
		return nil, 0, fmt.Errorf("%w: log record has checksum %08x, want %08x", ErrCorrupt, got, want)
	}
	if b[0] != recordVersion {
		return nil, 0, fmt.Errorf("%w: log record of version %d", ErrCorrupt, b[0])
	}
	body = b[recordHeader:end]
	ops = int(binary.BigEndian.Uint32(b[1:]))
	rest, ok := body, true
	for range ops {
		var op RowOp
		if op, rest, ok = takeOp(rest); !ok {
			return nil, 0, fmt.Errorf("%w: log record ends within an operation", ErrCorrupt)
		}
		if _, is := parseDigestKey(op.Key); is {
			if _, err := decodeCells(op.Value); err != nil {
				return nil, 0, fmt.Errorf("log record: %w", err)
			}
		}
	}
	if len(rest) != 0 {
		return nil, 0, fmt.Errorf("%w: log record has %d bytes too many", ErrCorrupt, len(rest))
	}
	return body, ops, nil
}
