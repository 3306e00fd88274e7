package version

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
)

// ErrCorrupt is bytes that are not a record, an op or an outcome of a format
// that this program knows. It never means "absent".
var ErrCorrupt = errors.New("version: corrupt encoding")

// Format versions, the first byte of each encoding.
const (
	recordFormat  = 1
	tokenFormat   = 1
	opFormat      = 1
	outcomeFormat = 1

	tokenWithAddends = 2
)

const (
	macBytes = 8
	crcBytes = 4

	// The fewest bytes that an element can take; they bound what a decoder
	// allocates by what it was given.
	minActorBytes   = 8 + 1 + 2
	minSpanBytes    = 2
	minVersionBytes = 1 + 1 + 1 + 8
)

// Record flags and version flags.
const (
	flagAmnesia  = 1 << 0
	flagAllAcked = 1 << 1
	flagLWW      = 1 << 2
	flagCounter  = 1 << 3

	flagStub = 1 << 0
	flagCell = 1 << 1
)

// EncodeRecord appends the record, local flags included: the form of the disk.
func EncodeRecord(dst []byte, r Record) []byte {
	flags := byte(0)
	if r.Amnesia {
		flags |= flagAmnesia
	}
	if r.AllAcked {
		flags |= flagAllAcked
	}
	return encodeRecord(dst, r, flags, true)
}

// EncodeWire appends the record without its local flags: the form sent to peers.
func EncodeWire(dst []byte, r Record) []byte { return encodeRecord(dst, r, 0, false) }

// encodeRecord appends the record, with what is local of its counter if disk.
func encodeRecord(dst []byte, r Record, flags byte, disk bool) []byte {
	if r.LWW {
		flags |= flagLWW
	}
	if len(r.Counter.Addends) > 0 {
		flags |= flagCounter
	}
	start := len(dst)
	dst = append(dst, recordFormat, flags)
	dst = appendContext(dst, r.Context)
	dst = binary.AppendUvarint(dst, uint64(len(r.Versions)))
	walk := actorWalk{ctx: r.Context}
	for i := range r.Versions {
		v := &r.Versions[i]
		for walk.actor() != v.Dot.Actor {
			walk.next()
		}
		dst = binary.AppendUvarint(dst, uint64(walk.index))
		dst = binary.AppendUvarint(dst, walk.top()-v.Dot.Counter)
		dst = appendVersion(dst, v)
	}
	if flags&flagCounter != 0 {
		dst = appendCounter(dst, &r.Counter, disk)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli()))
}

// castagnoli returns the CRC32C table; the standard library keeps it once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func appendVersion(dst []byte, v *Version) []byte {
	flags := byte(0)
	if v.Stub {
		flags |= flagStub
	}
	if v.Expiry != (Cell{}) {
		flags |= flagCell
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.HLC))
	if flags&flagCell != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.Expiry.HLC))
		dst = binary.AppendUvarint(dst, uint64(v.Expiry.AtMS))
	}
	if v.Stub {
		return dst
	}
	return appendBytes(dst, v.Value)
}

// DecodeRecord is the inverse of EncodeRecord. It accepts only what EncodeRecord
// can have written. The values alias b.
func DecodeRecord(b []byte) (Record, error) { return decodeRecord(b, &piece{}) }

// Slate is memory for records that are looked at one after another. Its zero value is
// ready for use.
type Slate struct{ mem piece }

// Decode is DecodeRecord; the record is good until the next one.
func (s *Slate) Decode(b []byte) (Record, error) {
	s.mem = piece{}
	return decodeRecord(b, &s.mem)
}

// decodeRecord decodes into mem as far as that has room.
func decodeRecord(b []byte, mem *piece) (Record, error) {
	body := len(b) - crcBytes
	if body < 0 || crc32.Checksum(b[:body], castagnoli()) != binary.LittleEndian.Uint32(b[body:]) {
		return Record{}, ErrCorrupt
	}
	d := decoder{b: b[:body:body]}
	d.format(recordFormat)
	flags := d.flags(flagAmnesia | flagAllAcked | flagLWW | flagCounter)
	r := Record{
		Amnesia:  flags&flagAmnesia != 0,
		AllAcked: flags&flagAllAcked != 0,
		LWW:      flags&flagLWW != 0,
		Context:  d.context(mem.spans[:0]),
	}
	r.Versions = d.versions(mem.versions[:], r.Context)
	if flags&flagCounter != 0 {
		r.Counter = d.counter(r.Context)
	}
	if !d.done() {
		return Record{}, ErrCorrupt
	}
	return r, nil
}

// piece is memory for a decoded record of usual size: in one piece, since the
// time that a replica takes for a record is mostly that of reaching its memory.
type piece struct {
	spans    [3]Span
	versions [1]Version
}

// actorWalk steps through the distinct actors of a context.
type actorWalk struct {
	ctx   Context
	index int // of the current actor among the distinct ones
	pos   int // of its first span
}

func (w *actorWalk) actor() Actor { return w.ctx[w.pos].Actor }

// last returns the position of the current actor's highest span.
func (w *actorWalk) last() int {
	i := w.pos
	for i+1 < len(w.ctx) && w.ctx[i+1].Actor == w.ctx[w.pos].Actor {
		i++
	}
	return i
}

// top returns the current actor's highest counter.
func (w *actorWalk) top() uint64 { return w.ctx[w.last()].Hi }

func (w *actorWalk) next() { w.index, w.pos = w.index+1, w.last()+1 }

func (w *actorWalk) ended() bool { return w.pos >= len(w.ctx) }

func appendContext(dst []byte, c Context) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.Actors()))
	for i := 0; i < len(c); {
		n := 1
		for i+n < len(c) && c[i+n].Actor == c[i].Actor {
			n++
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(c[i].Actor))
		dst = binary.AppendUvarint(dst, uint64(n))
		floor := uint64(1) // the lowest Lo that the next span can have
		for _, s := range c[i : i+n] {
			dst = binary.AppendUvarint(dst, s.Lo-floor)
			dst = binary.AppendUvarint(dst, s.Hi-s.Lo)
			floor = s.Hi + 2
		}
		i += n
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// decoder reads an encoding front to back. After a fault every read returns
// zero and done returns false, so callers check once, at the end.
type decoder struct {
	b   []byte
	bad bool
}

// done reports whether everything was read and nothing was wrong.
func (d *decoder) done() bool { return !d.bad && len(d.b) == 0 }

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) format(want byte) {
	if d.u8() != want {
		d.fail()
	}
}

func (d *decoder) u8() byte {
	if len(d.b) < 1 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// flags reads a byte of which only known bits may be set.
func (d *decoder) flags(known byte) byte {
	f := d.u8()
	if f&^known != 0 {
		d.fail()
		return 0
	}
	return f
}

func (d *decoder) u64() uint64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// uvarint reads a number in its shortest form; longer forms are refused, or
// else equal states could have different bytes.
func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		return uint64(d.u8())
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.b[n-1] == 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// int63 reads a number that must fit a non-negative int64.
func (d *decoder) int63() int64 {
	v := d.uvarint()
	if v > math.MaxInt64 {
		d.fail()
		return 0
	}
	return int64(v)
}

// count reads a number of elements that each take at least size bytes.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes reads a length and returns that many bytes, aliasing the input.
func (d *decoder) bytes() []byte {
	n := d.count(1)
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

// context reads a context, into c if that has room.
func (d *decoder) context(c Context) Context {
	actors := d.count(minActorBytes)
	if actors == 0 {
		return nil
	}
	if actors > cap(c) {
		c = make(Context, 0, actors)
	}
	for i := 0; i < actors && !d.bad; i++ {
		a := Actor(d.u64())
		if i > 0 && a <= c[len(c)-1].Actor {
			d.fail()
			return nil
		}
		n := d.count(minSpanBytes)
		if n == 0 {
			d.fail()
			return nil
		}
		c = d.spans(c, a, n)
	}
	return slices.Clip(c) // values are shared: nobody may append in place
}

// spans reads n spans of one actor. Sums that overflow are faults.
func (d *decoder) spans(c Context, a Actor, n int) Context {
	floor := uint64(1)
	for range n {
		gap, length := d.uvarint(), d.uvarint()
		lo := floor + gap
		hi := lo + length
		if d.bad || floor == 0 || lo < floor || hi < lo {
			d.fail()
			return nil
		}
		c = append(c, Span{a, lo, hi})
		if floor = hi + 2; floor < hi {
			floor = 0 // no room for another span
		}
	}
	return c
}

// versions reads the versions of a record, into out if that has room.
func (d *decoder) versions(out []Version, ctx Context) []Version {
	n := d.count(minVersionBytes)
	if n == 0 {
		return nil
	}
	if n > len(out) {
		out = make([]Version, n)
	}
	out = out[:n]
	walk := actorWalk{ctx: ctx}
	for i := range out {
		v := &out[i]
		index, below := d.uvarint(), d.uvarint()
		for !walk.ended() && uint64(walk.index) < index {
			walk.next()
		}
		if walk.ended() || uint64(walk.index) != index || below >= walk.top() {
			d.fail()
			return nil
		}
		v.Dot = Dot{walk.actor(), walk.top() - below}
		d.version(v)
		if d.bad || !ctx.Contains(v.Dot) || i > 0 && out[i-1].Dot.Compare(v.Dot) >= 0 {
			d.fail()
			return nil
		}
	}
	return out
}

func (d *decoder) version(v *Version) {
	flags := d.flags(flagStub | flagCell)
	v.HLC = HLC(d.u64())
	if flags&flagCell != 0 {
		v.Expiry = d.cell()
	}
	v.Stub = flags&flagStub != 0
	if !v.Stub {
		v.Value = d.bytes()
	}
}

// cell reads an expiry cell that was set by some command.
func (d *decoder) cell() Cell {
	c := Cell{HLC: HLC(d.u64()), AtMS: d.int63()}
	if c == (Cell{}) {
		d.fail()
	}
	return c
}
