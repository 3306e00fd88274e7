package version

import (
	"encoding/binary"
	"math/bits"
)

// sipHash is SipHash-2-4 (Aumasson and Bernstein 2012): a keyed 64-bit hash
// whose output cannot be forged without the key, fed in pieces.
type sipHash struct {
	v0, v1, v2, v3 uint64
	tail           uint64 // bytes not yet absorbed, low byte first
	size           int    // bytes written
}

func newSipHash(key MACKey) sipHash {
	k0 := binary.LittleEndian.Uint64(key[:8])
	k1 := binary.LittleEndian.Uint64(key[8:])
	return sipHash{
		v0: k0 ^ 0x736f6d6570736575,
		v1: k1 ^ 0x646f72616e646f6d,
		v2: k0 ^ 0x6c7967656e657261,
		v3: k1 ^ 0x7465646279746573,
	}
}

func (s *sipHash) write(b []byte) {
	if s.size%8 == 0 {
		for len(b) >= 8 {
			s.absorb(binary.LittleEndian.Uint64(b))
			s.size += 8
			b = b[8:]
		}
	}
	for _, c := range b {
		s.tail |= uint64(c) << (8 * (s.size % 8))
		if s.size++; s.size%8 == 0 {
			s.absorb(s.tail)
			s.tail = 0
		}
	}
}

func (s *sipHash) sum() uint64 {
	s.absorb(s.tail | uint64(s.size)<<56)
	s.v2 ^= 0xff
	for range 4 {
		s.round()
	}
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3
}

func (s *sipHash) absorb(word uint64) {
	s.v3 ^= word
	s.round()
	s.round()
	s.v0 ^= word
}

func (s *sipHash) round() {
	s.v0 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v2 = bits.RotateLeft64(s.v2, 32)
}
