package resp

import (
	"github.com/redynamo/redynamo/replica/version"
)

// keyCommands are the commands over keys, whatever their values.
func keyCommands() []command {
	deleting := words("request_policy:multi_shard response_policy:agg_sum")
	rows := []command{
		{name: "del", arity: -2, flags: words("write"), last: -1, keySpec: words("RM delete"), tips: deleting, since: "1.0.0",
			complexity: complexityN, start: startDel,
			summary: "Delete keys", args: arguments("key key...")},
		{name: "unlink", arity: -2, flags: words("write fast"), last: -1, keySpec: words("RM delete"), tips: deleting, since: "4.0.0",
			complexity: complexityN, start: startDel,
			summary: "Delete keys (the same as DEL)", args: arguments("key key...")},
		{name: "exists", arity: -2, flags: words("readonly fast"), last: -1, keySpec: words("RO"), tips: deleting, since: "1.0.0",
			complexity: complexityN, start: startExists,
			summary: "Count the keys that exist", args: arguments("key key...")},
		{name: "touch", arity: -2, flags: words("readonly fast"), last: -1, keySpec: words("RO"), tips: deleting, since: "3.2.1",
			complexity: complexityN, start: startExists,
			summary: "Count the keys that exist (access times are not kept)", args: arguments("key key...")},
		{name: "type", arity: 2, flags: words("readonly fast"), keySpec: words("RO"), since: "1.0.0", start: startType,
			summary: "Get the type of a key's value", args: arguments("key key")},
	}
	rows = append(rows, expiryCommands()...)
	rows = append(rows, lifetimeCommands()...)
	rows = append(rows, moveCommands()...)
	rows = append(rows, dumpCommands()...)
	rows = append(rows, walkCommands()...)
	rows = completed("generic", "keyspace", rows)
	return append(rows, objectCommand())
}

// startDel counts the distinct keys that were there.
func startDel(s *session, args [][]byte) pending {
	op := version.Op{Kind: version.OpDelete}
	if len(args) == 2 {
		return s.beginWrite(args[1], args, op, showHadOld)
	}
	keys := distinct(args[1:])
	hits := int64(0)
	f := &fan{n: len(keys), write: true}
	f.begin = func(i int) *call { return s.beginWrite(keys[i], nil, op, nil) }
	f.fold = func(c *call, _ *Reply) {
		if c.noteWrite().HadOld {
			hits++
		}
	}
	f.done = func(w *Reply) { w.Int(hits) }
	return f.launch()
}

func showHadOld(c *call, w *Reply) {
	if c.noteWrite().HadOld {
		w.Int(1)
		return
	}
	w.Int(0)
}

// startExists counts keys that exist, repeats included.
func startExists(s *session, args [][]byte) pending {
	if len(args) == 2 {
		return s.beginRead(args[1], args, showExists)
	}
	keys := args[1:]
	hits := int64(0)
	f := &fan{n: len(keys)}
	f.begin = func(i int) *call { return s.beginRead(keys[i], nil, nil) }
	f.fold = func(c *call, _ *Reply) {
		if _, ok := c.winner(); ok {
			hits++
		}
	}
	f.done = func(w *Reply) { w.Int(hits) }
	return f.launch()
}

func showExists(c *call, w *Reply) {
	if _, ok := c.winner(); ok {
		w.Int(1)
		return
	}
	w.Int(0)
}

func startType(s *session, args [][]byte) pending {
	return s.beginRead(args[1], args, showType)
}

func showType(c *call, w *Reply) {
	if _, ok := c.winner(); ok {
		w.Simple("string")
		return
	}
	w.Simple("none")
}

// objectCommand is OBJECT and its subcommands. What they tell about the inside of
// a Redis is answered as a Redis would that was just given the value.
func objectCommand() command {
	row := func(name, since, summary string, show func(c *call, w *Reply)) command {
		return command{
			name: name, arity: 3, flags: words("readonly"), first: 2, keySpec: words("RO"),
			tips: words("nondeterministic_output"), since: since, summary: summary, args: arguments("key key"),
			start: func(s *session, args [][]byte) pending { return s.peek(args[2], args, show) },
		}
	}
	subs := []command{
		row("encoding", "2.2.3", "Get the encoding Redis would keep a value in", showEncoding),
		row("freq", "4.0.0", "Get the access frequency (refused: it is not kept)", showFreq),
		{name: "help", arity: 2, flags: words("loading stale"), since: "6.2.0", run: objectHelp,
			summary: "List the subcommands"},
		row("idletime", "2.2.3", "Get the seconds since the last access (0: it is not kept)", showIdleTime),
		row("refcount", "2.2.3", "Get the reference count Redis would keep", showRefCount),
	}
	return command{
		name: "object", arity: -2, categories: words("slow"), group: "generic", since: "2.2.3",
		complexity: "Depends on subcommand.", summary: "Look at the inside of a value",
		subcommands: completed("generic", "keyspace", subs),
	}
}

func showEncoding(c *call, w *Reply) {
	if v, ok := c.winner(); ok {
		w.BulkString(encodingOf(v.Value))
		return
	}
	w.Null()
}

// showRefCount knows that Redis shares the integers 0..9999 for ever.
func showRefCount(c *call, w *Reply) {
	v, ok := c.winner()
	if !ok {
		w.Null()
		return
	}
	if n, ok := parseInt(v.Value); ok && n >= 0 && n < 10000 {
		w.Int(1<<31 - 1)
		return
	}
	w.Int(1)
}

func showIdleTime(c *call, w *Reply) {
	if _, ok := c.winner(); ok {
		w.Int(0)
		return
	}
	w.Null()
}

func showFreq(c *call, w *Reply) {
	if _, ok := c.winner(); !ok {
		w.Null()
		return
	}
	w.Error("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
}

func objectHelp(_ *session, _ [][]byte, w *Reply) {
	lines := [...]string{
		"OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
		"ENCODING <key>",
		"    Return the kind of internal representation used in order to store the value",
		"    associated with a <key>.",
		"FREQ <key>",
		"    Return the access frequency index of the <key>. The returned integer is",
		"    proportional to the logarithm of the recent access frequency of the key.",
		"IDLETIME <key>",
		"    Return the idle time of the <key>, that is the approximated number of",
		"    seconds elapsed since the last access to the key.",
		"REFCOUNT <key>",
		"    Return the number of references of the value associated with the specified",
		"    <key>.",
		"HELP",
		"    Prints this help.",
	}
	w.Array(len(lines))
	for _, l := range lines {
		w.Simple(l)
	}
}
