package resp

import (
	"slices"

	"github.com/redynamo/redynamo/replica/version"
)

// stringCommands are the commands over values.
func stringCommands() []command {
	rows := []command{
		{name: "get", arity: 2, flags: words("readonly fast"), keySpec: words("RO access"), since: "1.0.0", start: startGet,
			summary: "Get the value of a key", args: arguments("key key")},
		{name: "set", arity: -3, flags: words("write denyoom"), keySpec: words("RW access update variable_flags"), since: "1.0.0", start: startSet,
			keyFlags: setKeyFlags,
			summary:  "Set the value of a key, with conditions and an expiry", args: setArguments()},
		{name: "setex", arity: 4, flags: words("write denyoom"), keySpec: words("OW update"), since: "2.0.0", start: startSetEX,
			summary: "Set a value that expires after some seconds", args: arguments("key key", "seconds integer", "value string")},
		{name: "psetex", arity: 4, flags: words("write denyoom"), keySpec: words("OW update"), since: "2.6.0", start: startPSetEX,
			summary: "Set a value that expires after some milliseconds", args: arguments("key key", "milliseconds integer", "value string")},
		{name: "setnx", arity: 3, flags: words("write denyoom fast"), keySpec: words("OW insert"), since: "1.0.0", start: startSetNX,
			summary: "Set a value unless the key exists; no lock: at two coordinators two clients may both succeed", args: arguments("key key", "value string")},
		{name: "getset", arity: 3, flags: words("write denyoom fast"), keySpec: words("RW access update"), since: "1.0.0", start: startGetSet,
			summary: "Set a value and return the one before it", args: arguments("key key", "value string")},
		{name: "getdel", arity: 2, flags: words("write fast"), keySpec: words("RW access delete"), since: "6.2.0", start: startGetDel,
			summary: "Get the value of a key and delete the key", args: arguments("key key")},
		{name: "getex", arity: -2, flags: words("write fast"), keySpec: words("RW access update"), since: "6.2.0", start: startGetEX,
			summary: "Get the value of a key and change its expiry", args: append(arguments("key key"), expiryArgument("persist", "PERSIST"))},
		{name: "mget", arity: -2, flags: words("readonly fast"), last: -1, keySpec: words("RO access"), tips: words("request_policy:multi_shard"),
			since: "1.0.0", complexity: complexityN, start: startMGet,
			summary: "Get the values of several keys", args: arguments("key key...")},
		{name: "mset", arity: -3, flags: words("write denyoom"), last: -1, step: 2, keySpec: words("OW update"),
			tips:  words("request_policy:multi_shard response_policy:all_succeeded"),
			since: "1.0.1", complexity: complexityN, start: startMSet,
			summary: "Set the values of several keys, each on its own",
			args:    []argument{{name: "key_value", kind: "block", multiple: true, args: arguments("key key", "value string")}}},
		{name: "msetnx", arity: -3, flags: words("write denyoom"), last: -1, step: 2, keySpec: words("OW insert"),
			tips:  words("request_policy:multi_shard response_policy:agg_min"),
			since: "1.0.1", complexity: complexityN, start: startMSetNX,
			summary: "Set the values of several keys if none of them is found; each on its own, not atomic: a key that comes up in between is left alone and reported",
			args:    []argument{{name: "key_value", kind: "block", multiple: true, args: arguments("key key", "value string")}}},
	}
	return completed("string", "string", slices.Concat(rows, rangeCommands(), counterCommands(), []command{lcsCommand()}))
}

// rangeCommands are those over parts of a value.
func rangeCommands() []command {
	return []command{
		{name: "strlen", arity: 2, flags: words("readonly fast"), keySpec: words("RO"), since: "2.2.0", start: startStrLen,
			summary: "Get the length of a value", args: arguments("key key")},
		{name: "append", arity: 3, flags: words("write denyoom fast"), keySpec: words("RW insert"), since: "2.0.0", start: startAppend,
			summary: "Append to a value; concurrent appends at two coordinators become siblings", args: arguments("key key", "value string")},
		{name: "getrange", arity: 4, flags: words("readonly"), keySpec: words("RO access"), since: "2.4.0", complexity: complexityN, start: startGetRange,
			summary: "Get a part of a value", args: arguments("key key", "start integer", "end integer")},
		{name: "substr", arity: 4, flags: words("readonly"), keySpec: words("RO access"), since: "1.0.0", complexity: complexityN, start: startGetRange,
			summary: "Get a part of a value (the old name of GETRANGE)", args: arguments("key key", "start integer", "end integer")},
		{name: "setrange", arity: 4, flags: words("write denyoom"), keySpec: words("RW update"), since: "2.2.0", start: startSetRange,
			summary: "Overwrite a part of a value; concurrent ones at two coordinators become siblings", args: arguments("key key", "offset integer", "value string")},
	}
}

func startGet(s *session, args [][]byte) pending {
	return s.beginRead(args[1], args, showGet)
}

// showGet answers the winner. Under SIBLINGS ON a key in conflict answers all
// its live values instead, newest first.
func showGet(c *call, w *Reply) {
	v, ok := c.shown()
	if c.s.siblings && len(c.read.Record.Versions) > 1 {
		if live := c.read.Record.Live(c.s.now().UnixMilli()); len(live) > 1 {
			w.Array(len(live))
			for i := range live {
				w.Bulk(live[i].Value)
			}
			return
		}
	}
	if !ok {
		w.Null()
		return
	}
	w.Bulk(v.Value)
}

func startSet(s *session, args [][]byte) pending {
	o, ok := parseSetOptions(args, 3)
	if !ok {
		return failed(errSyntax)
	}
	at, fault := o.expiry.deadline(s.now().UnixMilli(), "set")
	if fault != "" {
		return failed(fault)
	}
	op := version.Op{Kind: version.OpSet, Value: args[2], Cond: o.cond, ReturnOld: o.get}
	o.expiry.apply(&op, at)
	return s.beginSet(args, op, showSet)
}

// setKeyFlags is what SET does with its key: it looks at what was there only with
// GET. That the rest are options is not judged here, as in Redis.
func setKeyFlags(args [][]byte) []string {
	for _, word := range args[min(len(args), 3):] {
		if foldEqual(word, "GET") {
			return words("RW access update")
		}
	}
	return words("OW update")
}

// beginSet starts a write of a whole value.
func (s *session) beginSet(args [][]byte, op version.Op, show func(c *call, w *Reply)) pending {
	if s.tooLong(op.Value) {
		return failedWith(version.ErrTooLarge)
	}
	return s.beginWrite(args[1], args, op, show)
}

func showSet(c *call, w *Reply) {
	r := c.noteWrite()
	switch {
	case c.withOld:
		c.old(w)
	case r.Applied:
		w.Simple("OK")
	default:
		w.Null()
	}
}

func startSetEX(s *session, args [][]byte) pending {
	return startSetFor(s, args, expiryOption{unit: inSeconds, number: args[2]}, "setex")
}

func startPSetEX(s *session, args [][]byte) pending {
	return startSetFor(s, args, expiryOption{unit: inMillis, number: args[2]}, "psetex")
}

func startSetFor(s *session, args [][]byte, e expiryOption, name string) pending {
	at, fault := e.deadline(s.now().UnixMilli(), name)
	if fault != "" {
		return failed(fault)
	}
	op := version.Op{Kind: version.OpSet, Value: args[3]}
	e.apply(&op, at)
	return s.beginSet(args, op, showSet)
}

func startSetNX(s *session, args [][]byte) pending {
	return s.beginSet(args, version.Op{Kind: version.OpSet, Value: args[2], Cond: version.CondAbsent}, showApplied)
}

// showApplied answers 1 for a write that was made, 0 for one that was not.
func showApplied(c *call, w *Reply) {
	if c.noteWrite().Applied {
		w.Int(1)
		return
	}
	w.Int(0)
}

func startGetSet(s *session, args [][]byte) pending {
	return s.beginSet(args, version.Op{Kind: version.OpSet, Value: args[2], ReturnOld: true}, showOld)
}

func startGetDel(s *session, args [][]byte) pending {
	return s.beginWrite(args[1], args, version.Op{Kind: version.OpDelete, ReturnOld: true}, showOld)
}

func showOld(c *call, w *Reply) {
	c.noteWrite()
	c.old(w)
}

// startGetEX reads, or changes the expiry and returns the value as it was. As in
// Redis the number of an expiry is looked at only if the key exists.
func startGetEX(s *session, args [][]byte) pending {
	var e expiryOption
	for i := 2; i < len(args); {
		n := e.takePersist(args, i)
		if n == 0 {
			return failed(errSyntax)
		}
		i += n
	}
	at, fault := e.deadline(s.now().UnixMilli(), "getex")
	switch {
	case fault != "":
		c := s.beginRead(args[1], args, showNullOrFault)
		c.fault = fault
		return c
	case at != 0 || e.persist:
		return s.beginWrite(args[1], args, version.Op{Kind: version.OpExpire, ExpireAtMS: at, ReturnOld: true}, showOld)
	}
	return s.beginRead(args[1], args, showGet)
}

func showNullOrFault(c *call, w *Reply) {
	if _, ok := c.winner(); ok {
		w.Error(c.fault)
		return
	}
	w.Null()
}

func startMGet(s *session, args [][]byte) pending {
	keys := args[1:]
	header := false
	f := &fan{n: len(keys)}
	f.begin = func(i int) *call { return s.beginRead(keys[i], nil, nil) }
	f.fold = func(c *call, w *Reply) {
		if !header {
			w.Array(len(keys))
			header = true
		}
		if v, ok := c.shown(); ok {
			w.Bulk(v.Value)
			return
		}
		w.Null()
	}
	return f.launch()
}

// startMSet writes every key on its own: there is no atomicity over keys, and
// the last value of a repeated key counts.
func startMSet(s *session, args [][]byte) pending {
	order, fault := s.pairs(args, "mset")
	if fault != "" {
		return failed(fault)
	}
	f := &fan{n: len(order), write: true}
	f.begin = func(i int) *call {
		k := order[i]
		return s.beginWrite(args[k], nil, version.Op{Kind: version.OpSet, Value: args[k+1]}, nil)
	}
	f.fold = func(c *call, _ *Reply) { c.noteWrite() }
	f.done = func(w *Reply) { w.Simple("OK") }
	return f.launch()
}

// pairs finds the keys among keys and values: where the last value of each stands
// behind it, in the order in which the keys came.
func (s *session) pairs(args [][]byte, name string) (order []int, fault string) {
	if len(args)%2 == 0 {
		return nil, "ERR wrong number of arguments for '" + name + "' command"
	}
	at := make(map[string]int, len(args)/2)
	order = make([]int, 0, len(args)/2)
	for i := 1; i < len(args); i += 2 {
		if s.tooLong(args[i+1]) {
			return nil, errorText(version.ErrTooLarge)
		}
		j, repeated := at[string(args[i])]
		if repeated {
			order[j] = i
			continue
		}
		at[string(args[i])] = len(order)
		order = append(order, i)
	}
	return order, ""
}

func startStrLen(s *session, args [][]byte) pending {
	return s.beginRead(args[1], args, showStrLen)
}

func showStrLen(c *call, w *Reply) {
	v, _ := c.winner()
	w.Int(int64(len(v.Value)))
}

func startAppend(s *session, args [][]byte) pending {
	return s.beginSet(args, version.Op{Kind: version.OpAppend, Value: args[2]}, showLength)
}

func showLength(c *call, w *Reply) { w.Int(c.noteWrite().Length) }

func startGetRange(s *session, args [][]byte) pending {
	from, ok := parseInt(args[2])
	if !ok {
		return failed(errNotInteger)
	}
	to, ok := parseInt(args[3])
	if !ok {
		return failed(errNotInteger)
	}
	c := s.newCall(args[1], args, showGetRange)
	c.from, c.to = from, to
	s.store().Read(args[1], s.readOptions(), c.onRead)
	return c
}

func showGetRange(c *call, w *Reply) {
	v, _ := c.shown()
	from, to := clampRange(c.from, c.to, len(v.Value))
	w.Bulk(v.Value[from:to])
}

// startSetRange overwrites from an offset on. Setting nothing creates nothing,
// whatever the offset: it only answers the length.
func startSetRange(s *session, args [][]byte) pending {
	offset, ok := parseInt(args[2])
	switch {
	case !ok:
		return failed(errNotInteger)
	case offset < 0:
		return failed(errOffset)
	case len(args[3]) == 0:
		return s.peek(args[1], args, showStrLen)
	case offset > int64(s.limits().MaxValue-len(args[3])):
		return failedWith(version.ErrTooLarge)
	}
	return s.beginWrite(args[1], args, version.Op{Kind: version.OpSetRange, Offset: offset, Value: args[3]}, showLength)
}
