package ring

import (
	"encoding/binary"
	"math/bits"

	"github.com/spaolacci/murmur3"
)

// Rendezvous hashing gives each (partition, node) pair a random draw and takes
// the nodes with the least draw times price. The draw is -log2 of a uniform
// number, so that a price of 1/weight gives shares in proportion to weight.
//
// Note: everything that decides placement is integer arithmetic. Go may fuse
// floating-point multiply and add on some processors and has per-processor
// math.Log, so float rings could differ between machines.

// fractionBits is the precision of a draw.
const fractionBits = 26

// logSteps is the number of intervals of the logarithm table.
const (
	logStepBits = 12
	logSteps    = 1 << logStepBits
)

// seedOf is the part of a draw that depends on the node alone.
// Note: the library hashes less than 16 bytes alike on machines of either byte
// order, but not longer input.
func seedOf(place NodeID) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(place))
	return murmur3.Sum64(b[:])
}

// draw is -log2(h/2^64) in fixed point with fractionBits of fraction, for the
// hash h of a partition and a node's seed. It is never zero.
func draw(partition int, seed uint64) uint32 {
	h := mix64(seed^(uint64(partition)+1)*0x9E3779B97F4A7C15) | 1
	zeros := bits.LeadingZeros64(h)
	mantissa := h << zeros << 1 // the bits after the leading one
	step := mantissa >> (64 - logStepBits)
	between := mantissa << logStepBits >> 32 // 32 bits of place inside the step

	lo, hi := uint64(logTable[step]), uint64(logTable[step+1])
	log := lo + (hi-lo)*between>>32
	d := uint64(zeros+1)<<fractionBits - log
	return uint32(min(max(d, 1), 1<<32-1))
}

// logTable[i] is log2(1 + i/logSteps) with fractionBits of fraction. It is
// computed once and never written again.
var logTable = makeLogTable()

// makeLogTable finds the bits of each logarithm by repeated squaring: the
// square of x has twice its logarithm, so reaching 2 is the next bit.
func makeLogTable() (t [logSteps + 1]uint32) {
	for i := range logSteps {
		x := uint64(1)<<63 + uint64(i)<<(63-logStepBits) // 1..2 with 63 bits of fraction
		for range fractionBits {
			hi, lo := bits.Mul64(x, x)
			t[i] <<= 1
			if hi >= 1<<63 {
				t[i]++
				x = hi
			} else {
				x = hi<<1 | lo>>63
			}
		}
	}
	t[logSteps] = 1 << fractionBits
	return t
}

// mix64 is murmur3's 64-bit finaliser: a bijection whose every output bit
// depends on every input bit.
func mix64(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}

// mulDiv is a*b/c with a 128-bit product. Requires: the quotient fits 64 bits.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, c)
	return q
}
