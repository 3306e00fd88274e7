package resp

import "strconv"

func serverCommands() []command {
	flush := []argument{choice("flush-type", option("async", "pure-token", "ASYNC"), option("sync", "pure-token", "SYNC"))}
	all := words("request_policy:all_shards response_policy:all_succeeded")
	rows := []command{
		{name: "command", arity: -1, flags: words("loading stale"), run: runCommand, categories: words("connection"),
			tips: words("nondeterministic_output_order"), since: "2.8.13", summary: "Describes all commands.",
			complexity: "O(N) with N = commands", subcommands: commandSubcommands()},
		{name: "info", arity: -1, flags: words("loading stale"), run: runInfo, categories: words("dangerous"),
			tips:  words("nondeterministic_output request_policy:all_shards response_policy:special"),
			since: "1.0.0", summary: "Describes the server.", args: []argument{{name: "section", kind: "string", optional: true, multiple: true}}},
		{name: "config", arity: -2, since: "2.0.0", summary: "Container of commands about settings.", subcommands: configSubcommands()},
		{name: "time", arity: 1, flags: words("loading stale fast"), run: runTime, tips: words("nondeterministic_output"),
			since: "2.6.0", summary: "Answers this node's clock: seconds and microseconds."},
		{name: "dbsize", arity: 1, flags: words("readonly fast"), run: runDBSize, categories: words("keyspace"),
			tips:  words("request_policy:all_shards response_policy:agg_sum"),
			since: "1.0.0", summary: "Counts the keys: of the cluster on the plain door, of the slots this node is first for on the other.",
			complexity: "O(N) with N = nodes"},
		{name: "flushall", arity: -1, flags: words("write"), run: runFlush, categories: words("keyspace dangerous"), tips: all,
			since: "1.0.0", summary: "Deletes the keys it meets, one by one.", complexity: "O(N) with N = keys", args: flush},
		{name: "flushdb", arity: -1, flags: words("write"), run: runFlush, categories: words("keyspace dangerous"), tips: all,
			since: "1.0.0", summary: "The same as FLUSHALL.", complexity: "O(N) with N = keys", args: flush},
		{name: "lastsave", arity: 1, flags: words("loading stale fast"), run: runLastSave, categories: words("admin dangerous"),
			tips: words("nondeterministic_output"), since: "1.0.0", summary: "Answers the time: whatever was acknowledged is saved."},
		monitorCommand(),
		{name: "role", arity: 1, flags: words("noscript loading stale fast"), run: runRole, categories: words("admin dangerous"),
			since: "2.8.12", summary: "Answers master: every node takes writes."},
		{name: "lolwut", arity: -1, flags: words("readonly fast"), run: runLolwut, since: "5.0.0", summary: "Names the version.",
			args: []argument{option("version", "integer", "VERSION")}},
	}
	for i := range rows {
		rows[i].group = "server"
		orDefault(&rows[i].complexity, "O(1)")
	}
	return append(rows, strangerCommands()...)
}

// strangerCommands answer what tools ask of features that are not here, with
// what Redis answers when the feature is unused.
func strangerCommands() []command {
	admin := words("admin noscript loading stale")
	container := func(name, group, since, helpSince string, rows ...command) command {
		rows = append(rows, command{name: "help", arity: 2, flags: words("loading stale"), since: helpSince, summary: "Lists the subcommands."})
		rows[len(rows)-1].run = helper(name, rows)
		for i := range rows {
			orDefault(&rows[i].group, group)
			orDefault(&rows[i].complexity, "O(1)")
			orDefault(&rows[i].since, since)
			if group == "scripting" {
				rows[i].categories = words("scripting")
			}
		}
		return command{name: name, arity: -2, group: group, since: since, complexity: "O(1)",
			summary: "Container of what tools ask for.", subcommands: rows}
	}
	empty := func(_ *session, _ [][]byte, w *Reply) { w.Array(0) }
	nodes := words("request_policy:all_nodes response_policy:all_succeeded")
	special := words("nondeterministic_output request_policy:all_nodes response_policy:special")
	return []command{
		aclCommand(),
		container("function", "scripting", "7.0.0", "7.0.0",
			command{name: "flush", arity: -2, flags: words("write noscript"), run: functionFlush, summary: "Accepted; there are no functions.",
				tips: words("request_policy:all_shards response_policy:all_succeeded")},
			command{name: "list", arity: -2, flags: words("noscript"), run: functionList, summary: "Answers none.",
				tips: words("nondeterministic_output_order")}),
		container("latency", "server", "2.8.13", "2.8.13",
			command{name: "doctor", arity: 2, flags: admin, run: latencyDoctor, tips: special, summary: "Says what the latency monitor has seen."},
			command{name: "graph", arity: 3, flags: admin, run: latencyGraph, tips: special, summary: "Draws the newest samples of an event: command or fast-command.",
				args: arguments("event string")},
			command{name: "histogram", arity: -2, flags: admin, run: latencyHistogram, tips: special, since: "7.0.0",
				summary: "Answers how long commands took on this door, from their arrival on.",
				args:    []argument{{name: "command", kind: "string", optional: true, multiple: true}}},
			command{name: "history", arity: 3, flags: admin, run: latencyHistory, tips: special, summary: "Answers the samples of an event: command or fast-command.",
				args: arguments("event string")},
			command{name: "latest", arity: 2, flags: admin, run: latencyLatest, tips: special, summary: "Answers the last sample of each event."},
			command{name: "reset", arity: -2, flags: admin, run: latencyReset, tips: nodes, summary: "Forgets the samples.",
				args: []argument{{name: "event", kind: "string", optional: true, multiple: true}}}),
		container("memory", "server", "4.0.0", "4.0.0", memoryRows()...),
		container("module", "server", "4.0.0", "5.0.0",
			command{name: "list", arity: 2, flags: words("admin noscript"), run: empty, summary: "Answers none.",
				tips: words("nondeterministic_output_order")}),
		container("script", "scripting", "2.6.0", "5.0.0",
			command{name: "exists", arity: -3, flags: words("noscript"), run: scriptExists, summary: "Answers 0 for each.",
				tips: words("request_policy:all_shards response_policy:agg_logical_and")},
			command{name: "flush", arity: -2, flags: words("noscript"), run: scriptFlush, summary: "Accepted; there are no scripts.", tips: nodes}),
		container("slowlog", "server", "2.2.12", "6.2.0",
			command{name: "get", arity: -2, flags: words("admin loading stale"), run: slowlogGet, summary: "Answers the last commands that were slow on this door, with the time from their arrival on.",
				tips: words("request_policy:all_nodes nondeterministic_output"), args: []argument{{name: "count", kind: "integer", optional: true}}},
			command{name: "len", arity: 2, flags: words("admin loading stale"), run: slowlogLen, summary: "Counts them.",
				tips: words("request_policy:all_nodes response_policy:agg_sum nondeterministic_output")},
			command{name: "reset", arity: 2, flags: words("admin loading stale"), run: slowlogReset, summary: "Forgets them.", tips: nodes}),
		{name: "shutdown", arity: -1, flags: words("admin noscript loading stale no_multi allow_busy"), run: runShutdown, group: "server",
			since: "1.0.0", complexity: "O(1)", summary: "Stops this node in order, as a signal would; it stays a member of the ring.",
			args: shutdownArguments()},
		{name: "debug", arity: -2, flags: admin, run: runDebug, blocks: true, barred: errDebug, allowed: mayDebug, group: "server", since: "1.0.0", complexity: "O(1)",
			summary: "Refused unless the node was started with --enable-debug-command. Then SLEEP holds up this connection, and JMAP does nothing."},
	}
}

func runTime(s *session, _ [][]byte, w *Reply) {
	us := s.now().UnixMicro()
	w.Array(2)
	w.BulkString(strconv.FormatInt(us/1e6, 10))
	w.BulkString(strconv.FormatInt(us%1e6, 10))
}

func runDBSize(s *session, _ [][]byte, w *Reply) {
	n, err := keyCount(s)
	if err != nil {
		w.Fail(err)
		return
	}
	w.Int(n)
}

// runFlush deletes key by key: there is no way to empty a cluster of which nodes
// may be away, only to delete what can be seen.
func runFlush(s *session, args [][]byte, w *Reply) {
	if len(args) > 2 || (len(args) == 2 && !equalFold(args[1], "async") && !equalFold(args[1], "sync")) {
		w.Error(errSyntax)
		return
	}
	if err := flushAll(s); err != nil {
		w.Fail(err)
		return
	}
	w.Simple("OK")
}

func runLastSave(s *session, _ [][]byte, w *Reply) { w.Int(s.now().Unix()) }

func runRole(_ *session, _ [][]byte, w *Reply) {
	w.Array(3)
	w.BulkString("master")
	w.Int(0)
	w.Array(0)
}

// runLolwut names the version; the picture is left to Redis.
func runLolwut(s *session, _ [][]byte, w *Reply) {
	w.Verbatim("txt", "redynamo ver. "+s.admin().Identity().Version+"\n")
}

func scriptExists(_ *session, args [][]byte, w *Reply) {
	w.Array(len(args) - 2)
	for range args[2:] {
		w.Int(0)
	}
}

// flushMode reports whether words are at most one of ASYNC and SYNC.
func flushMode(args [][]byte) bool {
	return len(args) == 0 || len(args) == 1 && (equalFold(args[0], "async") || equalFold(args[0], "sync"))
}

func scriptFlush(_ *session, args [][]byte, w *Reply) {
	if !flushMode(args[2:]) {
		w.Error("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
		return
	}
	w.Simple("OK")
}

func functionFlush(_ *session, args [][]byte, w *Reply) {
	switch {
	case len(args) > 3:
		w.Error(subcommandText(clip(args[1], shownBytes), "FUNCTION"))
	case !flushMode(args[2:]):
		w.Error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
	default:
		w.Simple("OK")
	}
}

func functionList(_ *session, args [][]byte, w *Reply) {
	withCode, named := false, false
	for i := 2; i < len(args); i++ {
		switch {
		case equalFold(args[i], "withcode") && !withCode:
			withCode = true
		case equalFold(args[i], "libraryname") && !named:
			if i++; i == len(args) {
				w.Error("ERR library name argument was not given")
				return
			}
			named = true
		default:
			w.Error("ERR Unknown argument " + clip(args[i], shownBytes))
			return
		}
	}
	w.Array(0)
}
