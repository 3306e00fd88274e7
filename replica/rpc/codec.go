package rpc

import "encoding/binary"

// cursor takes a message apart from the front. The first fault sticks, so that
// decoders read straight through and ask once at the end.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad = true
		c.b = nil
		return nil
	}
	head := c.b[:n:n]
	c.b = c.b[n:]
	return head
}

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes reads a length and as many bytes, aliasing the message. Nothing is
// read as nil.
func (c *cursor) bytes() []byte {
	n := c.u32()
	if n == 0 {
		return nil
	}
	if uint64(n) > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	return c.take(int(n))
}

// flags reads a byte in which only the bits of known may be set.
func (c *cursor) flags(known uint8) uint8 {
	f := c.u8()
	if f&^known != 0 {
		c.bad = true
	}
	return f
}

// count reads the number of entries that follow. Each takes at least
// entryBytes, so a number the message cannot hold is refused before anything
// is allocated for it.
func (c *cursor) count(entryBytes int) int {
	n := c.u32()
	if uint64(n)*uint64(entryBytes) > uint64(len(c.b)) {
		c.bad = true
		return 0
	}
	return int(n)
}

// end reports the sticking fault, or one of its own when bytes are left over.
func (c *cursor) end() error {
	if c.bad || len(c.b) != 0 {
		return ErrMalformed
	}
	return nil
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// flag returns bit when on, so that flag bytes are written as a sum.
func flag(on bool, bit uint8) uint8 {
	if on {
		return bit
	}
	return 0
}
