package storage

import "encoding/binary"

// The first byte of a row key names its kind; the package comment draws the
// layouts. Invariant: a letter never changes its meaning within a format
// version.
const (
	kindMeta   = 'm'
	kindData   = 'd'
	kindHint   = 'h'
	kindExpiry = 'e'
	kindGrave  = 'g'
	kindHole   = 'l' // "lost"
	kindDigest = 't'
	kindLog    = 'w'
)

const (
	dataKeyHeader   = 1 + 2 + 4
	hintKeyHeader   = 1 + 8 + 2 + 4
	expiryKeyHeader = 1 + 8 + 2 + 4
)

// AppendDataKey appends the row key of key's own record to dst.
func AppendDataKey(dst []byte, slot uint16, hash uint32, key []byte) []byte {
	dst = append(dst, kindData)
	dst = appendPosition(dst, slot, hash)
	return append(dst, key...)
}

// ParseDataKey splits a row key of AppendDataKey; key aliases row.
func ParseDataKey(row []byte) (slot uint16, hash uint32, key []byte, ok bool) {
	if len(row) < dataKeyHeader || row[0] != kindData {
		return 0, 0, nil, false
	}
	slot, hash = position(row[1:])
	return slot, hash, row[dataKeyHeader:], true
}

// DataRange returns the bounds [lo, hi) of the records at or after position
// (slot, hash) whose slot is not above last.
func DataRange(slot uint16, hash uint32, last uint16) (lo, hi []byte) {
	return AppendDataKey(nil, slot, hash, nil), afterSlot([]byte{kindData}, last)
}

// SetPositionRange puts the bounds [lo, hi) of the records of a slot whose key hash is
// from first to last into lo and hi, whose memory it uses.
func SetPositionRange(lo, hi []byte, slot uint16, first, last uint32) (from, to []byte) {
	return AppendDataKey(lo[:0], slot, first, nil), endOf(AppendDataKey(hi[:0], slot, last, nil))
}

// AppendHintKey appends the row key of the record of key kept for target.
func AppendHintKey(dst []byte, target uint64, slot uint16, hash uint32, key []byte) []byte {
	dst = append(dst, kindHint)
	dst = binary.BigEndian.AppendUint64(dst, target)
	dst = appendPosition(dst, slot, hash)
	return append(dst, key...)
}

// ParseHintKey splits a row key of AppendHintKey; key aliases row.
func ParseHintKey(row []byte) (target uint64, slot uint16, hash uint32, key []byte, ok bool) {
	if len(row) < hintKeyHeader || row[0] != kindHint {
		return 0, 0, 0, nil, false
	}
	slot, hash = position(row[9:])
	return binary.BigEndian.Uint64(row[1:]), slot, hash, row[hintKeyHeader:], true
}

// HintRange returns the bounds [lo, hi) of the records kept for target at or
// after position (slot, hash).
func HintRange(target uint64, slot uint16, hash uint32) (lo, hi []byte) {
	lo = AppendHintKey(nil, target, slot, hash, nil)
	return lo, prefixEnd(lo[:9])
}

// HintSlots returns the bounds [lo, hi) of the records kept for target in the
// slots from first to last.
func HintSlots(target uint64, first, last uint16) (lo, hi []byte) {
	lo = AppendHintKey(nil, target, first, 0, nil)
	return lo, afterSlot(lo[:9:9], last)
}

// AllHints returns the bounds [lo, hi) of the records kept for anyone.
func AllHints() (lo, hi []byte) {
	return []byte{kindHint}, []byte{kindHint + 1}
}

// AppendExpiryKey appends the row key of the expiry index entry of key.
// Requires: atMS > 0.
func AppendExpiryKey(dst []byte, atMS int64, slot uint16, hash uint32, key []byte) []byte {
	dst = append(dst, kindExpiry)
	dst = binary.BigEndian.AppendUint64(dst, uint64(atMS))
	dst = appendPosition(dst, slot, hash)
	return append(dst, key...)
}

// ParseExpiryKey splits a row key of AppendExpiryKey; key aliases row.
func ParseExpiryKey(row []byte) (atMS int64, slot uint16, hash uint32, key []byte, ok bool) {
	if len(row) < expiryKeyHeader || row[0] != kindExpiry {
		return 0, 0, 0, nil, false
	}
	slot, hash = position(row[9:])
	return int64(binary.BigEndian.Uint64(row[1:])), slot, hash, row[expiryKeyHeader:], true
}

// ExpiryRange returns the bounds [lo, hi) of the index entries whose time is
// not above lastMS.
func ExpiryRange(lastMS int64) (lo, hi []byte) {
	return []byte{kindExpiry}, binary.BigEndian.AppendUint64([]byte{kindExpiry}, uint64(lastMS)+1)
}

// isDataKey reports whether row is a row key of AppendDataKey.
func isDataKey(row []byte) bool { return len(row) >= dataKeyHeader && row[0] == kindData }

// appendDigestKey appends the row key of the digests of a slot to dst.
func appendDigestKey(dst []byte, slot uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, kindDigest), slot)
}

// parseDigestKey splits a row key of appendDigestKey.
func parseDigestKey(row []byte) (slot uint16, ok bool) {
	if len(row) != 1+2 || row[0] != kindDigest {
		return 0, false
	}
	return binary.BigEndian.Uint16(row[1:]), true
}

// AppendGraveKey appends the row key of the grave of key to dst.
func AppendGraveKey(dst []byte, slot uint16, hash uint32, key []byte) []byte {
	dst = appendPosition(append(dst, kindGrave), slot, hash)
	return append(dst, key...)
}

// ParseGraveKey splits a row key of AppendGraveKey; key aliases row.
func ParseGraveKey(row []byte) (slot uint16, hash uint32, key []byte, ok bool) {
	if len(row) < dataKeyHeader || row[0] != kindGrave {
		return 0, 0, nil, false
	}
	slot, hash = position(row[1:])
	return slot, hash, row[dataKeyHeader:], true
}

// AllGraves returns the bounds [lo, hi) of the graves.
func AllGraves() (lo, hi []byte) {
	return []byte{kindGrave}, []byte{kindGrave + 1}
}

// appendPosition appends slot and hash to dst.
func appendPosition(dst []byte, slot uint16, hash uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, slot)
	return binary.BigEndian.AppendUint32(dst, hash)
}

// position reads what appendPosition wrote. Requires: len(b) >= 6.
func position(b []byte) (slot uint16, hash uint32) {
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])
}

// afterSlot returns the first row key after every key of prefix and slot last.
func afterSlot(prefix []byte, last uint16) []byte {
	return prefixEnd(binary.BigEndian.AppendUint16(prefix, last))
}

// prefixEnd returns the least string above every string that begins with
// prefix. Requires: some byte of prefix is below 0xff (the kind always is).
func prefixEnd(prefix []byte) []byte { return endOf(append([]byte(nil), prefix...)) }

// endOf is prefixEnd in the place of the prefix.
func endOf(prefix []byte) []byte {
	for i := len(prefix) - 1; ; i-- {
		if prefix[i]++; prefix[i] != 0 {
			return prefix[:i+1]
		}
	}
}

// metaKey returns the row key of the meta row called name.
func metaKey(name string) []byte {
	return append([]byte{kindMeta}, name...)
}
