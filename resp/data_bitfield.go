package resp

import (
	"bytes"
	"strconv"

	"github.com/redynamo/redynamo/replica/version"
)

// Texts of Redis 7.0 for BITFIELD.
const (
	errFieldType   = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
	errOverflow    = "ERR Invalid OVERFLOW type specified"
	errFieldsWrite = "ERR BITFIELD_RO only supports the GET subcommand"
)

// parseFields reads the operations of BITFIELD; most is how many there may be.
func parseFields(args [][]byte, most int) (fields []version.Field, fault string) {
	overflow := version.OverflowWrap
	for len(args) > 0 {
		var f version.Field
		used := 4
		switch word, rest := args[0], len(args)-1; {
		case foldEqual(word, "GET") && rest >= 2:
			f.Op, used = version.FieldGet, 3
		case foldEqual(word, "SET") && rest >= 3:
			f.Op, f.Overflow = version.FieldSet, overflow
		case foldEqual(word, "INCRBY") && rest >= 3:
			f.Op, f.Overflow = version.FieldIncr, overflow
		case foldEqual(word, "OVERFLOW") && rest >= 1:
			var ok bool
			if overflow, ok = parseOverflow(args[1]); !ok {
				return nil, errOverflow
			}
			args = args[2:]
			continue
		default:
			return nil, errSyntax
		}
		if fault := parseField(&f, args[1:used]); fault != "" {
			return nil, fault
		}
		if len(fields) == most {
			return nil, "ERR more than " + strconv.Itoa(most) + " operations in one BITFIELD: the limit of this server"
		}
		fields = append(fields, f)
		args = args[used:]
	}
	return fields, ""
}

// parseField reads type and offset, and the number if there is one.
func parseField(f *version.Field, args [][]byte) (fault string) {
	var ok bool
	if f.Signed, f.Bits, ok = parseFieldType(args[0]); !ok {
		return errFieldType
	}
	if f.Offset, ok = parseBitOffset(args[1], int64(f.Bits)); !ok {
		return errBitOffset
	}
	if f.Op == version.FieldGet {
		return ""
	}
	if f.Number, ok = parseInt(args[2]); !ok {
		return errNotInteger
	}
	return ""
}

// parseFieldType reads i1 to i64 and u1 to u63, up to a zero byte.
func parseFieldType(b []byte) (signed bool, width uint8, ok bool) {
	if at := bytes.IndexByte(b, 0); at >= 0 {
		b = b[:at]
	}
	if len(b) == 0 || b[0] != 'i' && b[0] != 'u' {
		return false, 0, false
	}
	signed = b[0] == 'i'
	n, ok := parseInt(b[1:])
	if !ok || n < 1 || n > 64 || !signed && n == 64 {
		return false, 0, false
	}
	return signed, uint8(n), true
}

func parseOverflow(b []byte) (o version.Overflow, ok bool) {
	switch {
	case foldEqual(b, "WRAP"):
		return version.OverflowWrap, true
	case foldEqual(b, "SAT"):
		return version.OverflowSaturate, true
	case foldEqual(b, "FAIL"):
		return version.OverflowFail, true
	}
	return 0, false
}

// onlyGets reports whether fields write nothing.
func onlyGets(fields []version.Field) bool {
	for _, f := range fields {
		if f.Op != version.FieldGet {
			return false
		}
	}
	return true
}

func startBitFieldRO(s *session, args [][]byte) pending {
	fields, fault := parseFields(args[2:], s.limits().MaxFields)
	switch {
	case fault != "":
		return failed(fault)
	case !onlyGets(fields):
		return failed(errFieldsWrite)
	}
	return s.beginFieldsRead(args, fields)
}

// beginFieldsRead starts a read of which fields are answered.
func (s *session) beginFieldsRead(args [][]byte, fields []version.Field) pending {
	return s.beginRead(args[1], args, func(c *call, w *Reply) {
		v, _ := c.shown()
		writeFieldResults(w, version.RunFields(v.Value, fields))
	})
}

func writeFieldResults(w *Reply, results []version.FieldResult) {
	w.Array(len(results))
	for _, r := range results {
		if r.None {
			w.Null()
		} else {
			w.Int(r.Number)
		}
	}
}
