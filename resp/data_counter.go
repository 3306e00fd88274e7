package resp

import (
	"math"
	"strconv"

	"github.com/redynamo/redynamo/replica/version"
)

// errDecrement is what Redis says to a decrement whose opposite is no integer.
const errDecrement = "ERR decrement would overflow"

// counterLevel is the level of the cluster from which on records may hold counters.
const counterLevel = 2

// counterCommands count. Increments at several coordinators are all counted; a reply
// is the sum as far as the one that was asked has heard of it.
func counterCommands() []command {
	return []command{
		{name: "incr", arity: 2, flags: words("write denyoom fast"), keySpec: words("RW access update"), since: "1.0.0", level: counterLevel, start: startIncr,
			summary: "Add one to a number; no increment is lost, but at two coordinators two clients may get one reply", args: arguments("key key")},
		{name: "decr", arity: 2, flags: words("write denyoom fast"), keySpec: words("RW access update"), since: "1.0.0", level: counterLevel, start: startDecr,
			summary: "Subtract one from a number; no decrement is lost, but at two coordinators two clients may get one reply", args: arguments("key key")},
		{name: "incrby", arity: 3, flags: words("write denyoom fast"), keySpec: words("RW access update"), since: "1.0.0", level: counterLevel, start: startIncrBy,
			summary: "Add to a number; concurrent increments add up, beside a SET or DEL that has not seen them too", args: arguments("key key", "increment integer")},
		{name: "decrby", arity: 3, flags: words("write denyoom fast"), keySpec: words("RW access update"), since: "1.0.0", level: counterLevel, start: startDecrBy,
			summary: "Subtract from a number; concurrent decrements add up, beside a SET or DEL that has not seen them too", args: arguments("key key", "decrement integer")},
		{name: "incrbyfloat", arity: 3, flags: words("write denyoom fast"), keySpec: words("RW access update"), since: "2.6.0", level: counterLevel, start: startIncrByFloat,
			summary: "Add to a number with a fraction, up to 10^20; concurrent increments add up", args: arguments("key key", "increment double")},
	}
}

func startIncr(s *session, args [][]byte) pending { return s.beginCount(args, 1) }
func startDecr(s *session, args [][]byte) pending { return s.beginCount(args, -1) }

func startIncrBy(s *session, args [][]byte) pending {
	d, ok := parseInt(args[2])
	if !ok {
		return failed(errNotInteger)
	}
	return s.beginCount(args, d)
}

func startDecrBy(s *session, args [][]byte) pending {
	d, ok := parseInt(args[2])
	switch {
	case !ok:
		return failed(errNotInteger)
	case d == math.MinInt64:
		return failed(errDecrement)
	}
	return s.beginCount(args, -d)
}

func (s *session) beginCount(args [][]byte, d int64) pending {
	return s.beginWrite(args[1], args, version.Op{Kind: version.OpCount, Value: strconv.AppendInt(nil, d, 10)}, showCount)
}

func showCount(c *call, w *Reply) {
	n, ok := parseInt(c.noteWrite().Now)
	if !ok {
		w.Error(errInternal) // a count that was made shows an integer
		return
	}
	w.Int(n)
}

// startIncrByFloat leaves it to the coordinator whether the increment is a number: as
// in Redis, what is wrong with the value is said first.
func startIncrByFloat(s *session, args [][]byte) pending {
	return s.beginSet(args, version.Op{Kind: version.OpCountFloat, Value: args[2]}, showCountFloat)
}

func showCountFloat(c *call, w *Reply) { w.Bulk(c.noteWrite().Now) }
