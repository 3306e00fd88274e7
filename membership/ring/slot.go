package ring

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Slots is the number of hash slots, the same as in Redis Cluster, so that
// stock cluster clients can compute where a key lives.
const Slots = 16384

// Slot is a hash slot, 0..Slots-1.
type Slot = uint16

// SlotOf gives the slot of a key: CRC16 of the key or, when the key has a
// non-empty {tag}, of the tag alone, as Redis Cluster specifies. Only the first
// '{' counts, with the first '}' after it.
func SlotOf(key []byte) Slot {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	return crc16(key) % Slots
}

// KeyHash is the 32-bit murmur3 of a key. It orders the keys of one slot and
// assigns them to tree leaves; it is part of the disk layout and of what peers
// compare, so it can never change.
//
// Note: the library's Sum32 reads words through unsafe pointers, which the race
// detector stops the program for and which depend on the byte order.
func KeyHash(key []byte) uint32 {
	var h uint32
	rest := key
	for ; len(rest) >= 4; rest = rest[4:] {
		h ^= scramble(binary.LittleEndian.Uint32(rest))
		h = bits.RotateLeft32(h, 13)*5 + 0xe6546b64
	}
	var tail uint32
	for i, c := range rest {
		tail |= uint32(c) << (8 * i)
	}
	h ^= scramble(tail) ^ uint32(len(key))
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

func scramble(k uint32) uint32 {
	return bits.RotateLeft32(k*0xcc9e2d51, 15) * 0x1b873593
}

// crc16 is CRC-16/XMODEM: polynomial 0x1021, nothing reflected, start 0.
func crc16(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^c]
	}
	return crc
}

// crcTable is computed once and never written again.
var crcTable = makeCRCTable()

func makeCRCTable() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc & 0x8000
			crc <<= 1
			if carry != 0 {
				crc ^= 0x1021
			}
		}
		t[i] = crc
	}
	return t
}
