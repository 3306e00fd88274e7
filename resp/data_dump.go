package resp

import (
	"math"

	"github.com/redynamo/redynamo/replica/version"
	"github.com/redynamo/redynamo/resp/rdb"
)

// dumpCommands carry values to Redis and from it.
func dumpCommands() []command {
	return []command{
		{name: "dump", arity: 2, flags: words("readonly"), keySpec: words("RO access"), tips: words("nondeterministic_output"),
			since: "2.6.0", complexity: complexityN, start: startDump, args: arguments("key key"),
			summary: "Get a value in the form in which Redis keeps it, for RESTORE here or there"},
		{name: "restore", arity: -4, flags: words("write denyoom"), keySpec: words("OW update"), categories: words("dangerous"),
			since: "2.6.0", complexity: complexityN, start: startRestore,
			args: append(arguments("key key", "ttl integer", "serialized-value string"),
				option("replace", "pure-token", "REPLACE"), option("absttl", "pure-token", "ABSTTL"),
				option("seconds", "integer", "IDLETIME"), option("frequency", "integer", "FREQ")),
			summary: "Set a key to what DUMP answered, here or at a Redis up to 7.2; strings only. Without REPLACE it is as little a lock as SETNX"},
	}
}

func startDump(s *session, args [][]byte) pending {
	return s.beginRead(args[1], args, func(c *call, w *Reply) {
		v, ok := c.shown()
		if !ok {
			w.Null()
			return
		}
		w.Bulk(rdb.Dump(v.Value))
	})
}

const errBusyKey = "BUSYKEY Target key name already exists."

// restoreOptions are the options of RESTORE. How long a key was idle and how often
// it was asked for are not kept.
type restoreOptions struct{ replace, absolute bool }

func parseRestoreOptions(args [][]byte) (o restoreOptions, fault string) {
	idle, often := false, false
	for i := 0; i < len(args); i++ {
		more := i+1 < len(args)
		switch {
		case foldEqual(args[i], "REPLACE"):
			o.replace = true
		case foldEqual(args[i], "ABSTTL"):
			o.absolute = true
		case foldEqual(args[i], "IDLETIME") && more && !often:
			i++
			n, ok := parseInt(args[i])
			switch {
			case !ok:
				return o, errNotInteger
			case n < 0:
				return o, "ERR Invalid IDLETIME value, must be >= 0"
			}
			idle = true
		case foldEqual(args[i], "FREQ") && more && !idle:
			i++
			n, ok := parseInt(args[i])
			switch {
			case !ok:
				return o, errNotInteger
			case n < 0 || n > 255:
				return o, "ERR Invalid FREQ value, must be >= 0 and <= 255"
			}
			often = true
		default:
			return o, errSyntax
		}
	}
	return o, ""
}

// startRestore serves RESTORE key ttl payload. As in Redis a key that is there comes
// before every fault but those of the options.
func startRestore(s *session, args [][]byte) pending {
	o, fault := parseRestoreOptions(args[4:])
	if fault != "" {
		return failed(fault)
	}
	now := s.now().UnixMilli()
	at, fault := parseTTL(args[2])
	var value []byte
	if fault == "" {
		var err error
		if value, err = rdb.Restore(args[3], s.limits().MaxValue); err != nil {
			fault = errorText(err)
		}
	}
	switch {
	case at == 0 || o.absolute:
	case fault == "" && at > math.MaxInt64-now:
		fault = expireTimeFault("restore")
	default:
		at += now
	}
	over := at != 0 && at <= now
	switch {
	case fault != "" && o.replace:
		return failed(fault)
	case fault != "" || over && !o.replace:
		c := s.peek(args[1], args, showBusyOrFault)
		c.fault = fault
		return c
	case over:
		return s.beginWrite(args[1], args, version.Op{Kind: version.OpDelete}, showRestored)
	}
	op := version.Op{Kind: version.OpSet, Value: value}
	if at != 0 {
		op.Expiry, op.ExpireAtMS = version.ExpiryAt, at
	}
	if !o.replace {
		op.Cond = version.CondAbsent
	}
	c := s.beginWrite(args[1], args, op, showRestored)
	c.deed.moves = "restore"
	return c
}

// parseTTL reads the time to live of RESTORE, 0 for none.
func parseTTL(number []byte) (ttl int64, fault string) {
	ttl, ok := parseInt(number)
	switch {
	case !ok:
		return 0, errNotInteger
	case ttl < 0:
		return 0, "ERR Invalid TTL value, must be >= 0"
	}
	return ttl, ""
}

// showBusyOrFault answers a RESTORE that writes nothing.
func showBusyOrFault(c *call, w *Reply) {
	_, there := c.winner()
	switch {
	case there:
		w.Error(errBusyKey)
	case c.fault != "":
		w.Error(c.fault)
	default:
		w.Simple("OK")
	}
}

// showRestored answers one that wrote. A delete of nothing is no failure.
func showRestored(c *call, w *Reply) {
	if r := c.noteWrite(); !r.Applied && r.HadOld {
		w.Error(errBusyKey)
		return
	}
	w.Simple("OK")
}
