package resp

import (
	"github.com/redynamo/redynamo/replica/version"
)

// fieldsLevel is the level of the cluster from which on every node knows an
// OpFields.
const fieldsLevel = 2

// bitWriteCommands are those that write. SETBIT is a BITFIELD of one bit.
func bitWriteCommands() []command {
	encoded := func(name, token, number string) argument {
		return argument{name: name, kind: "block", token: token, args: arguments("encoding string", "offset integer", number+" integer")}
	}
	overflow := choice("wrap_sat_fail", option("wrap", "pure-token", "WRAP"), option("sat", "pure-token", "SAT"), option("fail", "pure-token", "FAIL"))
	overflow.token = "OVERFLOW"
	operation := argument{name: "operation", kind: "oneof", optional: true, multiple: true, args: []argument{
		{name: "encoding_offset", kind: "block", token: "GET", args: arguments("encoding string", "offset integer")},
		{name: "write", kind: "block", args: []argument{overflow,
			{name: "write_operation", kind: "oneof", args: []argument{
				encoded("encoding_offset_value", "SET", "value"), encoded("encoding_offset_increment", "INCRBY", "increment")}}}}}}
	return []command{
		{name: "setbit", arity: 4, flags: words("write denyoom"), keySpec: words("RW access update"), since: "2.2.0", level: fieldsLevel, start: startSetBit,
			summary: "Set one bit of a value and return the one before it; concurrent ones at two coordinators become siblings",
			args:    arguments("key key", "offset integer", "value integer")},
		{name: "bitfield", arity: -2, flags: words("write denyoom"), keySpec: words("RW access update variable_flags"), since: "3.2.0", level: fieldsLevel,
			complexity: "O(1) for each field", start: startBitField, keyFlags: bitFieldKeyFlags,
			summary: "Read and change integers of any width within a value, all in one step at one coordinator; concurrent ones at two coordinators become siblings, so that an INCRBY may be in one of them only",
			args:    append(arguments("key key"), operation)},
		{name: "bitop", arity: -4, flags: words("write denyoom"), first: 2, last: -1, keySpec: words("OW update"), secondSpec: words("RO access"),
			since: "2.6.0", complexity: complexityN, start: startBitOp,
			summary: "Combine the bits of values, each read on its own, and set another; no step of one piece: the sources may change meanwhile",
			args:    append(arguments("operation string", "destkey key"), argument{name: "key", kind: "key", keySpec: 1, multiple: true})},
	}
}

func startSetBit(s *session, args [][]byte) pending {
	at, ok := parseBitOffset(args[2], 0)
	if !ok {
		return failed(errBitOffset)
	}
	bit, ok := parseInt(args[3])
	if !ok || bit != 0 && bit != 1 {
		return failed(errBit)
	}
	f := version.Field{Op: version.FieldSet, Bits: 1, Offset: at, Number: bit}
	return s.beginFields(args, []version.Field{f}, func(w *Reply, results []version.FieldResult) { w.Int(results[0].Number) })
}

func startBitField(s *session, args [][]byte) pending {
	fields, fault := parseFields(args[2:], s.limits().MaxFields)
	switch {
	case fault != "":
		return failed(fault)
	case onlyGets(fields):
		return s.beginFieldsRead(args, fields)
	}
	return s.beginFields(args, fields, writeFieldResults)
}

// bitFieldKeyFlags is what a BITFIELD does with its key: if it only gets, it reads.
// What cannot be understood is taken to write, as in Redis.
func bitFieldKeyFlags(args [][]byte) []string {
	for i := 2; i < len(args); {
		rest := len(args) - i - 1
		switch {
		case foldEqual(args[i], "GET") && rest >= 2:
			i += 3
		case foldEqual(args[i], "OVERFLOW") && rest >= 1:
			i += 2
		default:
			return words("RW access update")
		}
	}
	return words("RO access")
}

// beginFields starts a write of fields, whose answers the coordinator finds.
func (s *session) beginFields(args [][]byte, fields []version.Field, show func(w *Reply, results []version.FieldResult)) pending {
	for _, f := range fields {
		if f.Op != version.FieldGet && f.End() > int64(s.limits().MaxValue) {
			return failedWith(version.ErrTooLarge)
		}
	}
	n := len(fields)
	op := version.Op{Kind: version.OpFields, Value: version.AppendFields(nil, fields)}
	return s.beginWrite(args[1], args, op, func(c *call, w *Reply) {
		results, err := version.DecodeFieldResults(c.noteWrite().Old, n)
		if err != nil {
			w.Error(errInternal)
			return
		}
		show(w, results)
	})
}

// A bitOp gathers the result of a BITOP, source by source.
type bitOp struct {
	combine func(into, b byte) byte
	not     bool
	result  []byte
	n       int // sources so far
}

// parseBitOp reads the operation for some sources.
func parseBitOp(word []byte, sources int) (op *bitOp, fault string) {
	switch {
	case foldEqual(word, "AND"):
		return &bitOp{combine: func(into, b byte) byte { return into & b }}, ""
	case foldEqual(word, "OR"):
		return &bitOp{combine: func(into, b byte) byte { return into | b }}, ""
	case foldEqual(word, "XOR"):
		return &bitOp{combine: func(into, b byte) byte { return into ^ b }}, ""
	case !foldEqual(word, "NOT"):
		return nil, errSyntax
	case sources != 1:
		return nil, errBitOpNot
	}
	return &bitOp{not: true}, ""
}

// add takes in the next source. The shorter of two values has zeros behind it.
func (o *bitOp) add(source []byte) {
	first := o.n == 0
	o.n++
	if len(source) > len(o.result) {
		o.result = append(o.result, make([]byte, len(source)-len(o.result))...)
	}
	if first {
		copy(o.result, source)
		for i := 0; o.not && i < len(o.result); i++ {
			o.result[i] = ^o.result[i]
		}
		return
	}
	for i := range o.result {
		b := byte(0)
		if i < len(source) {
			b = source[i]
		}
		o.result[i] = o.combine(o.result[i], b)
	}
}

// startBitOp reads the sources and then writes the destination as SET does, or
// deletes it if there is nothing to set.
//
// Note: a destination that is a source too is written as VCTX.SET would with what
// was read of it. A plain write covers all that its coordinator holds, so it
// would lose whatever was written between the two steps.
func startBitOp(s *session, args [][]byte) pending {
	op, fault := parseBitOp(args[1], len(args)-3)
	if fault != "" {
		return failed(fault)
	}
	destination, sources := args[2], args[3:]
	source, seen := false, version.Token{} // of the destination
	f := &fan{n: len(sources)}
	f.begin = func(i int) *call { return s.beginRead(sources[i], nil, nil) }
	f.fold = func(c *call, _ *Reply) {
		v, _ := c.winner()
		op.add(v.Value)
		if string(c.key) == string(destination) {
			source, seen = true, seen.Join(c.read.Record.ReadToken())
		}
	}
	f.done = func(w *Reply) {
		if source {
			s.beginReplace(destination, op.result, seen, showBitOp(op.result)).finish(w)
			return
		}
		s.beginWrite(destination, args, setOrDelete(op.result), showBitOp(op.result)).finish(w)
	}
	return f.launch()
}

func showBitOp(result []byte) func(c *call, w *Reply) {
	return func(c *call, w *Reply) {
		c.noteWrite()
		w.Int(int64(len(result)))
	}
}

func setOrDelete(value []byte) version.Op {
	if len(value) == 0 {
		return version.Op{Kind: version.OpDelete}
	}
	return version.Op{Kind: version.OpSet, Value: value}
}

// beginReplace starts a write that covers what this connection has seen, and
// nothing else that its coordinator holds.
func (s *session) beginReplace(key, value []byte, seen version.Token, show func(c *call, w *Reply)) *call {
	c := s.newCall(key, nil, show)
	op := setOrDelete(value)
	c.deed = deedOf(&op)
	overwriting(&op, seen.Join(s.implicit(key)))
	op.Explicit, op.MinHLC = true, s.hlc()
	op.MaxValue, op.MaxSiblings, op.MaxSiblingBytes = s.limits().MaxValue, maxSiblings, maxSiblingBytes
	c.write(op, s.writeOptions())
	return c
}
