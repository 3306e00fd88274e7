package resp

import (
	"math/bits"

	"github.com/redynamo/redynamo/replica/version"
)

// Texts of Redis 7.0 for commands over bits.
const (
	errBitOffset = "ERR bit offset is not an integer or out of range"
	errBitWanted = "ERR The bit argument must be 1 or 0."
	errBit       = "ERR bit is not an integer or out of range"
	errBitOpNot  = "ERR BITOP NOT must be called with a single source key."
)

// bitmapCommands are the commands over the bits of a value. Bit 0 is the highest
// of the first byte.
func bitmapCommands() []command {
	units := choice("index_unit", option("byte", "pure-token", "BYTE"), option("bit", "pure-token", "BIT"))
	optional := func(name string, args ...argument) argument {
		return argument{name: name, kind: "block", optional: true, args: args}
	}
	fromTo := append(arguments("start integer", "end integer"), units)
	fromMaybeTo := append(arguments("start integer"), optional("end_index", append(arguments("end integer"), units)...))
	rows := []command{
		{name: "getbit", arity: 3, flags: words("readonly fast"), keySpec: words("RO access"), since: "2.2.0", start: startGetBit,
			summary: "Get one bit of a value", args: arguments("key key", "offset integer")},
		{name: "bitcount", arity: -2, flags: words("readonly"), keySpec: words("RO access"), since: "2.6.0", complexity: complexityN,
			start: startBitCount, summary: "Count the bits that are set", args: append(arguments("key key"), optional("index", fromTo...))},
		{name: "bitpos", arity: -3, flags: words("readonly"), keySpec: words("RO access"), since: "2.8.7", complexity: complexityN,
			start: startBitPos, summary: "Find the first bit that is set, or that is not", args: append(arguments("key key", "bit integer"), optional("index", fromMaybeTo...))},
		{name: "bitfield_ro", arity: -2, flags: words("readonly fast"), keySpec: words("RO access"), since: "6.0.0",
			complexity: "O(1) for each field", start: startBitFieldRO,
			summary: "Get integers of any width from a value",
			args: append(arguments("key key"), argument{name: "encoding_offset", kind: "block", token: "GET", optional: true,
				multiple: true, args: arguments("encoding string", "offset integer")})},
	}
	rows = append(rows, bitWriteCommands()...)
	for i := range rows {
		rows[i].categories = append(rows[i].categories, "bitmap")
	}
	return completed("bitmap", "bitmap", rows)
}

// parseBitOffset reads the place of a bit. A # before it counts fields of so many
// bits; width 0 takes none.
func parseBitOffset(b []byte, width int64) (at int64, ok bool) {
	counted := len(b) > 0 && b[0] == '#' && width > 0
	if counted {
		b = b[1:]
	}
	if at, ok = parseInt(b); !ok || at < 0 || at > version.MaxBitOffset {
		return 0, false
	}
	if counted {
		at *= width
	}
	return at, at <= version.MaxBitOffset
}

func startGetBit(s *session, args [][]byte) pending {
	at, ok := parseBitOffset(args[2], 0)
	if !ok {
		return failed(errBitOffset)
	}
	c := s.beginRead(args[1], args, showGetBit)
	c.from = at
	return c
}

func showGetBit(c *call, w *Reply) {
	v, _ := c.shown()
	w.Int(int64(bitAt(v.Value, c.from)))
}

// bitAt is one bit of a value that has zeros behind its end.
func bitAt(value []byte, at int64) byte {
	if at/8 >= int64(len(value)) {
		return 0
	}
	return value[at/8] >> (7 - at%8) & 1
}

// A bitRange is the part of a value that BITCOUNT and BITPOS look at, as it was
// asked for: from and to included, negative ones counting from the end.
type bitRange struct {
	from, to int64
	given    bool // an end was
	inBits   bool
}

// parseBitRange reads [start [end [BYTE|BIT]]]. Of several faults BITPOS tells the
// unit before the end, BITCOUNT after it.
func parseBitRange(args [][]byte, unitFirst bool) (r bitRange, fault string) {
	r.to = -1
	if len(args) > 3 {
		return r, errSyntax
	}
	r.given = len(args) > 1
	unitOK, fromOK, toOK := true, true, true
	if len(args) > 0 {
		r.from, fromOK = parseInt(args[0])
	}
	if len(args) > 1 {
		r.to, toOK = parseInt(args[1])
	}
	if len(args) > 2 {
		r.inBits = foldEqual(args[2], "BIT")
		unitOK = r.inBits || foldEqual(args[2], "BYTE")
	}
	switch {
	case !fromOK || !toOK && !unitFirst:
		return r, errNotInteger
	case !unitOK:
		return r, errSyntax
	case !toOK:
		return r, errNotInteger
	}
	return r, ""
}

// within returns the range as bits of a value of n bytes, the end excluded.
func (r bitRange) within(n int) (from, to int64) {
	total := int64(n)
	if r.inBits {
		total *= 8
	}
	from, to = r.from, r.to
	if from < 0 {
		from = max(total+from, 0)
	}
	if to < 0 {
		to = max(total+to, 0)
	}
	to = min(to, total-1)
	switch {
	case from > to:
		return 0, 0
	case r.inBits:
		return from, to + 1
	}
	return from * 8, (to + 1) * 8
}

// startBitCount reads first: as in Redis 7.0 a key that is absent has no bits,
// whatever else was asked.
func startBitCount(s *session, args [][]byte) pending {
	r, fault := parseBitRange(args[2:], false)
	if len(args) == 3 {
		fault = errSyntax
	}
	return s.beginRead(args[1], args, func(c *call, w *Reply) {
		v, ok := c.shown()
		empty := r.from < 0 && r.to < 0 && r.from > r.to // not clamped first: so Redis
		switch {
		case ok && fault != "" && !(empty && r.given && fault == errSyntax && len(args) == 5): // the unit is looked at last
			w.Error(fault)
			return
		case empty:
			w.Int(0)
			return
		}
		w.Int(countBits(v.Value, r))
	})
}

func countBits(value []byte, r bitRange) (n int64) {
	from, to := r.within(len(value))
	for at := from; at < to; {
		if at%8 == 0 && to-at >= 8 {
			n += int64(bits.OnesCount8(value[at/8]))
			at += 8
			continue
		}
		n += int64(bitAt(value, at))
		at++
	}
	return n
}

func startBitPos(s *session, args [][]byte) pending {
	wanted, ok := parseInt(args[2])
	switch {
	case !ok:
		return failed(errNotInteger)
	case wanted != 0 && wanted != 1:
		return failed(errBitWanted)
	}
	r, fault := parseBitRange(args[3:], true)
	return s.beginRead(args[1], args, func(c *call, w *Reply) {
		v, ok := c.shown()
		switch {
		case !ok:
			w.Int(-wanted) // zeros without end
		case fault != "":
			w.Error(fault)
		default:
			w.Int(findBit(v.Value, byte(wanted), r))
		}
	})
}

// findBit is the place of the first bit that is as wanted, or -1. Behind a value
// there are zeros, unless an end was given.
func findBit(value []byte, wanted byte, r bitRange) int64 {
	from, to := r.within(len(value))
	if from == to {
		return -1
	}
	skip := byte(0)
	if wanted == 0 {
		skip = 0xff
	}
	for at := from; at < to; {
		switch {
		case at%8 == 0 && to-at >= 8 && value[at/8] == skip:
			at += 8
		case bitAt(value, at) == wanted:
			return at
		default:
			at++
		}
	}
	if wanted == 0 && !r.given {
		return to
	}
	return -1
}
