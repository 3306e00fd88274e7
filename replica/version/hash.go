package version

// What is hashed begins with one of these, so that a tombstone never equals a
// live record.
const (
	hashLive      = 'v'
	hashTombstone = 't'
)

// StateHash is the leaf of this record in a Merkle tree and the "have" of a
// conditional read. It covers dots and expiry cells, and for a tombstone its
// context. Of a counter it covers which increments there are, and which of them were
// overwritten. The context of a live record is left out: replicas may differ in it
// for ever and still hold the same versions, and hashing it makes trees that
// never agree. Payloads are named by their dots. Stubs count as versions, since
// replicas drop payloads at different times. An absent record hashes to 0 and
// nothing else does.
func (r Record) StateHash() uint64 {
	if r.Absent() {
		return 0
	}
	h := uint64(hashLive)
	if r.Tombstone() {
		h = hashTombstone
		for i := range r.Context {
			s := &r.Context[i]
			h = mix(mix(mix(h, uint64(s.Actor)), s.Lo), s.Hi)
		}
	}
	for i := range r.Versions {
		v := &r.Versions[i]
		h = mix(mix(h, uint64(v.Dot.Actor)), v.Dot.Counter)
		h = mix(mix(h, uint64(v.Expiry.HLC)), uint64(v.Expiry.AtMS))
	}
	if c := &r.Counter; len(c.Addends) > 0 {
		h = mix(mix(h, uint64(c.Expiry.HLC)), uint64(c.Expiry.AtMS))
		for i := range c.Addends {
			a := &c.Addends[i]
			h = mix(mix(mix(mix(h, uint64(a.Actor)), a.Start), a.Top), a.Seen)
		}
	}
	return max(h, 1)
}

// WholeHash is the StateHash and the context, of any record.
func (r Record) WholeHash() uint64 {
	h := r.StateHash()
	for i := range r.Context {
		s := &r.Context[i]
		h = mix(mix(mix(h, uint64(s.Actor)), s.Lo), s.Hi)
	}
	return h
}

// mix absorbs one word with the finalizer of murmur3. The library's hash of
// bytes allocates on every call, and this runs on every read.
func mix(h, word uint64) uint64 {
	h = h*5 + 0x52dce729 ^ word
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
