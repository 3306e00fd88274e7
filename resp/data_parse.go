package resp

import (
	"math"

	"github.com/redynamo/redynamo/replica/version"
)

// Texts of Redis 7.0 for EXPIRE and SCAN.
const (
	errCursor      = "ERR invalid cursor"
	errExpireFlags = "ERR NX and XX, GT or LT options at the same time are not compatible"
	errExpireGTLT  = "ERR GT and LT options at the same time are not compatible"
)

// parseInt reads a signed 64-bit integer as Redis does.
func parseInt(b []byte) (int64, bool) { return version.ParseWhole(b) }

// parseCursor reads a SCAN cursor: unlike other integers it may carry leading
// zeros, since clients treat it as opaque text, and an empty one is the start.
func parseCursor(b []byte) (uint64, bool) {
	var v uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if v > (math.MaxUint64-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}

// foldEqual compares an argument with an option name given in upper case.
func foldEqual(b []byte, upper string) bool {
	if len(b) != len(upper) {
		return false
	}
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}

// clampRange turns the inclusive indices of GETRANGE, negative ones counting
// from the end, into the half-open range of a value of n bytes. An end before
// the value counts as its first byte, as in Redis 7.0.
func clampRange(start, end int64, n int) (from, to int) {
	if start < 0 && end < 0 && start > end {
		return 0, 0
	}
	size := int64(n)
	if start < 0 {
		start = max(size+start, 0)
	}
	if end < 0 {
		end = max(size+end, 0)
	}
	end = min(end, size-1)
	if start > end {
		return 0, 0
	}
	return int(start), int(end) + 1
}

// expiryUnit says how the number of an expiry option is to be read.
type expiryUnit uint8

const (
	noExpiry expiryUnit = iota
	inSeconds
	inMillis
	atSeconds
	atMillis
)

// expiryOption is the expiry part of SET, GETEX and VCTX.SET: at most one of
// EX, PX, EXAT, PXAT with its number, or KEEPTTL, or PERSIST.
type expiryOption struct {
	unit    expiryUnit
	number  []byte
	keep    bool
	persist bool
}

// unitOf names the unit an option word stands for; noExpiry for another word.
func unitOf(word []byte) expiryUnit {
	switch {
	case foldEqual(word, "EX"):
		return inSeconds
	case foldEqual(word, "PX"):
		return inMillis
	case foldEqual(word, "EXAT"):
		return atSeconds
	case foldEqual(word, "PXAT"):
		return atMillis
	}
	return noExpiry
}

// take reads one option at args[i] and returns how many arguments it used; 0
// means it is no expiry option here, or not beside those already taken. The
// same option may come twice, as in Redis: the last number counts.
func (e *expiryOption) take(args [][]byte, i int) int {
	if unit := unitOf(args[i]); unit != noExpiry {
		if e.keep || e.persist || (e.unit != noExpiry && e.unit != unit) || i+1 >= len(args) {
			return 0
		}
		e.unit, e.number = unit, args[i+1]
		return 2
	}
	if foldEqual(args[i], "KEEPTTL") && e.unit == noExpiry && !e.persist {
		e.keep = true
		return 1
	}
	return 0
}

// takePersist is take for GETEX: PERSIST in the place of KEEPTTL.
func (e *expiryOption) takePersist(args [][]byte, i int) int {
	if foldEqual(args[i], "KEEPTTL") {
		return 0
	}
	if foldEqual(args[i], "PERSIST") && e.unit == noExpiry {
		e.persist = true
		return 1
	}
	return e.take(args, i)
}

// deadline returns the absolute expiry in milliseconds since 1970 of the number
// taken, or the text of the error; name is the command named in it. Zero and no
// error mean that no expiry was given.
func (e *expiryOption) deadline(nowMS int64, name string) (atMS int64, fault string) {
	if e.unit == noExpiry {
		return 0, ""
	}
	n, ok := parseInt(e.number)
	if !ok {
		return 0, errNotInteger
	}
	seconds := e.unit == inSeconds || e.unit == atSeconds
	if n <= 0 || (seconds && n > math.MaxInt64/1000) {
		return 0, expireTimeFault(name)
	}
	if seconds {
		n *= 1000
	}
	if e.unit == inSeconds || e.unit == inMillis {
		if n > math.MaxInt64-nowMS {
			return 0, expireTimeFault(name)
		}
		n += nowMS
	}
	return n, ""
}

// apply puts the expiry into a write whose number deadline turned into atMS.
func (e *expiryOption) apply(op *version.Op, atMS int64) {
	switch {
	case e.keep:
		op.Expiry = version.ExpiryKeep
	case atMS != 0:
		op.Expiry, op.ExpireAtMS = version.ExpiryAt, atMS
	}
}

// expireTimeFault is the error for an expiry that is zero, negative or too far.
func expireTimeFault(name string) string {
	return "ERR invalid expire time in '" + name + "' command"
}

// setOptions are the options of SET.
type setOptions struct {
	expiry expiryOption
	cond   version.Condition
	get    bool
}

// parseSetOptions reads the options of SET from args[i:]. NX and XX exclude
// each other; everything else may repeat.
func parseSetOptions(args [][]byte, i int) (o setOptions, ok bool) {
	for i < len(args) {
		switch {
		case foldEqual(args[i], "NX") && o.cond != version.CondPresent:
			o.cond = version.CondAbsent
			i++
		case foldEqual(args[i], "XX") && o.cond != version.CondAbsent:
			o.cond = version.CondPresent
			i++
		case foldEqual(args[i], "GET"):
			o.get = true
			i++
		default:
			n := o.expiry.take(args, i)
			if n == 0 {
				return o, false
			}
			i += n
		}
	}
	return o, true
}

// parseExpireAt turns the number of the EXPIRE family into an absolute time:
// unit and base as the command has them. Times before 1970 become the first
// millisecond, since 0 stands for "no expiry"; both are in the past.
func parseExpireAt(number []byte, seconds bool, baseMS int64, name string) (atMS int64, fault string) {
	n, ok := parseInt(number)
	if !ok {
		return 0, errNotInteger
	}
	if seconds {
		if n > math.MaxInt64/1000 || n < math.MinInt64/1000 {
			return 0, expireTimeFault(name)
		}
		n *= 1000
	}
	if n > math.MaxInt64-baseMS {
		return 0, expireTimeFault(name)
	}
	return max(n+baseMS, 1), ""
}

// encodingOf names the encoding Redis would keep a fresh value in.
func encodingOf(value []byte) string {
	if _, ok := parseInt(value); ok {
		return "int"
	}
	if len(value) <= 44 {
		return "embstr"
	}
	return "raw"
}
