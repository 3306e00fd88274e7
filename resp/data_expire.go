package resp

import (
	"github.com/redynamo/redynamo/replica/version"
)

// expiryCommands set and remove expiries. An expiry is stored as an absolute
// time beside the value, so that setting one never rewrites the value.
func expiryCommands() []command {
	row := func(name, since, number, summary string, seconds, relative bool) command {
		full := append(arguments("key key", number), choice("condition",
			option("nx", "pure-token", "NX"), option("xx", "pure-token", "XX"),
			option("gt", "pure-token", "GT"), option("lt", "pure-token", "LT")))
		return command{
			name: name, arity: -3, flags: words("write fast"), keySpec: words("RW update"), since: since, summary: summary, args: full,
			start: func(s *session, args [][]byte) pending { return startExpire(s, args, name, seconds, relative) },
		}
	}
	return []command{
		row("expire", "1.0.0", "seconds integer", "Let a key expire after some seconds", true, true),
		row("pexpire", "2.6.0", "milliseconds integer", "Let a key expire after some milliseconds", false, true),
		row("expireat", "1.2.0", "unix-time-seconds unix-time", "Let a key expire at a Unix time in seconds", true, false),
		row("pexpireat", "2.6.0", "unix-time-milliseconds unix-time", "Let a key expire at a Unix time in milliseconds", false, false),
		{name: "persist", arity: 2, flags: words("write fast"), keySpec: words("RW update"), since: "2.2.0", start: startPersist,
			summary: "Let a key no longer expire", args: arguments("key key")},
	}
}

// lifetimeCommands tell when a key expires.
func lifetimeCommands() []command {
	row := func(name, since, summary string, tips []string, show func(c *call, w *Reply)) command {
		return command{
			name: name, arity: 2, flags: words("readonly fast"), keySpec: words("RO access"), tips: tips,
			since: since, summary: summary, args: arguments("key key"),
			start: func(s *session, args [][]byte) pending { return s.beginRead(args[1], args, show) },
		}
	}
	moving := words("nondeterministic_output")
	return []command{
		row("ttl", "1.0.0", "Get the seconds until a key expires", moving, showTTL),
		row("pttl", "2.6.0", "Get the milliseconds until a key expires", moving, showPTTL),
		row("expiretime", "7.0.0", "Get the Unix time in seconds at which a key expires", nil, showExpireTime),
		row("pexpiretime", "7.0.0", "Get the Unix time in milliseconds at which a key expires", nil, showPExpireTime),
	}
}

// expireFlags are the conditions of EXPIRE.
type expireFlags struct{ nx, xx, gt, lt bool }

// parseExpireFlags reads them and returns the text of an error, if any.
func parseExpireFlags(args [][]byte) (f expireFlags, fault string) {
	for _, a := range args {
		switch {
		case foldEqual(a, "NX"):
			f.nx = true
		case foldEqual(a, "XX"):
			f.xx = true
		case foldEqual(a, "GT"):
			f.gt = true
		case foldEqual(a, "LT"):
			f.lt = true
		default:
			return f, "ERR Unsupported option " + clip(a, len(a))
		}
	}
	switch {
	case f.nx && (f.xx || f.gt || f.lt):
		return f, errExpireFlags
	case f.gt && f.lt:
		return f, errExpireGTLT
	}
	return f, ""
}

// condition is what the replica has to check; XX adds nothing to GT, which no
// key without an expiry passes. XX with LT is startExpireXXLT.
func (f expireFlags) condition() version.Condition {
	switch {
	case f.nx:
		return version.CondNoExpiry
	case f.gt:
		return version.CondGreater
	case f.lt:
		return version.CondLess
	case f.xx:
		return version.CondHasExpiry
	}
	return version.CondNone
}

func startExpire(s *session, args [][]byte, name string, seconds, relative bool) pending {
	flags, fault := parseExpireFlags(args[3:])
	if fault != "" {
		return failed(fault)
	}
	base := int64(0)
	if relative {
		base = s.now().UnixMilli()
	}
	at, fault := parseExpireAt(args[2], seconds, base, name)
	if fault != "" {
		return failed(fault)
	}
	if flags.xx && flags.lt {
		return startExpireXXLT(s, args, at)
	}
	op := version.Op{Kind: version.OpExpire, ExpireAtMS: at, Cond: flags.condition()}
	return s.beginWrite(args[1], args, op, showApplied)
}

// startExpireXXLT checks XX by a read and leaves LT to the replica.
//
// Note: a PERSIST between the two makes LT pass where XX would not; one
// condition for both would have to come from version.
func startExpireXXLT(s *session, args [][]byte, atMS int64) pending {
	c := s.peek(args[1], args, func(c *call, w *Reply) {
		if v, ok := c.winner(); !ok || v.Expiry.AtMS == 0 {
			w.Int(0)
			return
		}
		op := version.Op{Kind: version.OpExpire, ExpireAtMS: atMS, Cond: version.CondLess}
		s.beginWrite(c.key, nil, op, showApplied).finish(w)
	})
	return c
}

func startPersist(s *session, args [][]byte) pending {
	return s.beginWrite(args[1], args, version.Op{Kind: version.OpExpire}, showApplied)
}

// expiry writes -2 for no key, -1 for a key that does not expire, and else what
// of makes of the time in milliseconds.
func (c *call) expiry(w *Reply, of func(atMS int64) int64) {
	v, ok := c.winner()
	switch {
	case !ok:
		w.Int(-2)
	case v.Expiry.AtMS == 0:
		w.Int(-1)
	default:
		w.Int(of(v.Expiry.AtMS))
	}
}

func (c *call) msLeft(atMS int64) int64 { return max(atMS-c.s.now().UnixMilli(), 0) }

// roundToSeconds rounds to the nearest second, as Redis does.
func roundToSeconds(ms int64) int64 { return ms/1000 + (ms%1000+500)/1000 }

func showTTL(c *call, w *Reply) {
	c.expiry(w, func(at int64) int64 { return roundToSeconds(c.msLeft(at)) })
}

func showPTTL(c *call, w *Reply)        { c.expiry(w, c.msLeft) }
func showExpireTime(c *call, w *Reply)  { c.expiry(w, roundToSeconds) }
func showPExpireTime(c *call, w *Reply) { c.expiry(w, func(at int64) int64 { return at }) }
