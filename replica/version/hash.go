package version

import (
	"encoding/binary"

	"github.com/spaolacci/murmur3"
)

// What is hashed begins with one of these, so that a tombstone never equals a
// live record.
const (
	hashLive      = 'v'
	hashTombstone = 't'
)

// StateHash is the leaf of this record in a Merkle tree and the "have" of a
// conditional read. It covers dots and expiry cells, and for a tombstone its
// context. The context of a live record is left out: replicas may differ in it
// for ever and still hold the same versions, and hashing it makes trees that
// never agree. Payloads are named by their dots. Stubs count as versions, since
// replicas drop payloads at different times. An absent record hashes to 0 and
// nothing else does.
func (r Record) StateHash() uint64 {
	if r.Absent() {
		return 0
	}
	var room [1 + 8*32]byte
	b := room[:0]
	if r.Tombstone() {
		b = append(b, hashTombstone)
		for _, s := range r.Context {
			b = binary.BigEndian.AppendUint64(b, uint64(s.Actor))
			b = binary.BigEndian.AppendUint64(b, s.Lo)
			b = binary.BigEndian.AppendUint64(b, s.Hi)
		}
	} else {
		b = append(b, hashLive)
		for i := range r.Versions {
			v := &r.Versions[i]
			b = binary.BigEndian.AppendUint64(b, uint64(v.Dot.Actor))
			b = binary.BigEndian.AppendUint64(b, v.Dot.Counter)
			b = binary.BigEndian.AppendUint64(b, uint64(v.Expiry.HLC))
			b = binary.BigEndian.AppendUint64(b, uint64(v.Expiry.AtMS))
		}
	}
	return max(murmur3.Sum64(b), 1)
}
