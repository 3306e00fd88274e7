package resp

import (
	"slices"
	"strconv"
	"strings"
)

func clientSubcommands() []command {
	plain, admin := words("noscript loading stale"), words("admin noscript loading stale")
	sub := func(name string, arity int, flags []string, since, summary string, run handler, args ...argument) command {
		return command{name: name, arity: arity, flags: flags, categories: words("connection"), group: "connection",
			since: since, summary: summary, complexity: "O(1)", run: run, args: args}
	}
	onOff := argument{name: "enabled", kind: "oneof", args: []argument{
		{name: "on", kind: "pure-token", token: "ON"}, {name: "off", kind: "pure-token", token: "OFF"}}}
	rows := []command{
		sub("caching", 3, plain, "6.0.0", "Refused: client tracking is not offered.", clientCaching),
		sub("getname", 2, plain, "2.6.9", "Answers the name of the connection.", clientGetName),
		sub("getredir", 2, plain, "6.0.0", "Answers -1: tracking is off.", clientGetRedir),
		sub("help", 2, words("loading stale"), "5.0.0", "Lists the subcommands.", nil),
		sub("id", 2, plain, "5.0.0", "Answers the number of the connection.", clientID),
		sub("info", 2, plain, "6.2.0", "Describes the connection.", clientInfo),
		sub("kill", -3, admin, "2.4.0", "Closes connections.", clientKill),
		sub("list", -2, admin, "2.4.0", "Describes all connections of this door.", clientList),
		sub("no-evict", 3, admin, "7.0.0", "Accepted; clients are never evicted.", clientNoEvict, onOff),
		sub("no-touch", 3, plain, "7.2.0", "Accepted; reads never touch.", clientNoTouch, onOff),
		sub("pause", -3, admin, "2.9.50", "Keeps the clients of this door waiting, those that write or all; other nodes go on.", clientPause, pauseArguments()...),
		sub("reply", 3, plain, "3.2.0", "Says whether the connection wants replies.", clientReply),
		sub("setinfo", 4, plain, "7.2.0", "Notes the client's library.", clientSetInfo),
		sub("setname", 3, plain, "2.6.9", "Names the connection.", clientSetName, arguments("connection-name string")...),
		sub("tracking", -3, plain, "6.0.0", "Only OFF: tracking is not offered.", clientTracking),
		sub("trackinginfo", 2, plain, "6.2.0", "Says that tracking is off.", clientTrackingInfo),
		sub("unblock", -3, admin, "5.0.0", "Ends the WAIT or WAITAOF of a connection of this door, as if its time were over or with an error.", clientUnblock),
		sub("unpause", 2, admin, "6.2.0", "Ends a pause of those that write.", clientUnpause),
	}
	for i := range rows {
		switch rows[i].name {
		case "help":
			rows[i].run = helper("client", rows)
		case "info", "list":
			rows[i].tips = words("nondeterministic_output")
		case "reply":
			rows[i].replyMode = true
		}
	}
	return rows
}

// okay is the handler of commands that need nothing done.
func okay(_ *session, _ [][]byte, w *Reply) { w.Simple("OK") }

// helper is the HELP subcommand of a container.
func helper(name string, rows []command) handler {
	lines := []string{strings.ToUpper(name) + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"}
	for _, row := range rows {
		lines = append(lines, strings.ToUpper(row.name), "    "+row.summary)
	}
	return func(_ *session, _ [][]byte, w *Reply) {
		w.Array(len(lines))
		for _, line := range lines {
			w.Simple(line)
		}
	}
}

// subcommandText refuses too many words for a subcommand.
func subcommandText(sub, container string) string {
	return "ERR unknown subcommand or wrong number of arguments for '" + sub + "'. Try " + container + " HELP."
}

// validLabel reports whether a name may stand in CLIENT LIST.
// labelBytes is the longest name of a client or of its library. They are kept with
// every entry of the slow log and of ACL LOG.
const labelBytes = 1 << 10

// refuseLabel is what speaks against a name of a client or of its library, or "".
func refuseLabel(what string, name []byte) string {
	if len(name) > labelBytes {
		return "ERR " + what + " cannot be longer than " + strconv.Itoa(labelBytes) + " bytes on this server."
	}
	for _, c := range name {
		if c < '!' || c > '~' {
			return "ERR " + what + " cannot contain spaces, newlines or special characters."
		}
	}
	return ""
}

func clientID(s *session, _ [][]byte, w *Reply) { w.Int(s.client.id) }

func clientGetName(s *session, _ [][]byte, w *Reply) {
	if name := s.client.labels().name; name != "" {
		w.BulkString(name)
		return
	}
	w.Null()
}

func clientSetName(s *session, args [][]byte, w *Reply) {
	if refused := refuseLabel("Client names", args[2]); refused != "" {
		w.Error(refused)
		return
	}
	s.client.label(func(l *labels) { l.name = string(args[2]) })
	w.Simple("OK")
}

func clientSetInfo(s *session, args [][]byte, w *Reply) {
	value := string(args[3])
	set := func(l *labels) { l.lib = value }
	switch {
	case equalFold(args[2], "lib-name"):
	case equalFold(args[2], "lib-ver"):
		set = func(l *labels) { l.libVersion = value }
	default:
		w.Error("ERR Unrecognized option '" + clip(args[2], shownBytes) + "'")
		return
	}
	if refused := refuseLabel(strings.ToLower(string(args[2])), args[3]); refused != "" {
		w.Error(refused)
		return
	}
	s.client.label(set)
	w.Simple("OK")
}

func clientReply(s *session, args [][]byte, w *Reply) {
	switch {
	case equalFold(args[2], "on"):
		s.replyOff, s.skipNext = false, false
		w.Simple("OK")
	case equalFold(args[2], "off"):
		s.replyOff = true
	case equalFold(args[2], "skip"):
		s.skipNext = !s.replyOff
	default:
		w.Error(errSyntax)
	}
}

func clientCaching(_ *session, _ [][]byte, w *Reply) {
	w.Error("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
}

func clientGetRedir(_ *session, _ [][]byte, w *Reply) { w.Int(-1) }

func clientTracking(s *session, args [][]byte, w *Reply) {
	refused := s.trackingFault(args[3:])
	switch {
	case refused != "":
		w.Error(refused)
	case equalFold(args[2], "off"):
		w.Simple("OK")
	case equalFold(args[2], "on"):
		// Note: answering OK without ever sending an invalidation would make
		// clients serve stale values without knowing.
		w.Error("ERR client tracking is not supported: disable client side caching")
	default:
		w.Error(errSyntax)
	}
}

// trackingFault checks the options of CLIENT TRACKING and returns the text of an
// error, if any.
func (s *session) trackingFault(options [][]byte) string {
	redirect := int64(0)
	for i := 0; i < len(options); i++ {
		word, more := options[i], i+1 < len(options)
		switch {
		case equalFold(word, "redirect") && more:
			i++
			id, ok := parseInt(options[i])
			switch {
			case redirect != 0:
				return "ERR A client can only redirect to a single other client"
			case !ok:
				return errNotInteger
			case !slices.ContainsFunc(s.srv.clients(), func(c *client) bool { return c.id == id }):
				return "ERR The client ID you want redirect to does not exist"
			}
			redirect = id
		case equalFold(word, "prefix") && more:
			i++
		case equalFold(word, "bcast"), equalFold(word, "optin"), equalFold(word, "optout"), equalFold(word, "noloop"):
		default:
			return errSyntax
		}
	}
	return ""
}

func clientTrackingInfo(_ *session, _ [][]byte, w *Reply) {
	w.Map(3)
	w.BulkString("flags")
	w.Set(1)
	w.BulkString("off")
	w.BulkString("redirect")
	w.Int(-1)
	w.BulkString("prefixes")
	w.Array(0)
}

func clientUnblock(s *session, args [][]byte, w *Reply) {
	id, ok := parseInt(args[2])
	why := errBlockEnded
	switch {
	case len(args) > 4:
		w.Error(subcommandText(clip(args[1], shownBytes), "CLIENT"))
		return
	case len(args) == 4 && equalFold(args[3], "error"):
		why = errUnblocked
	case len(args) == 4 && !equalFold(args[3], "timeout"):
		w.Error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
		return
	}
	if !ok {
		w.Error(errNotInteger)
		return
	}
	n := int64(0)
	for _, c := range s.srv.clients() {
		if c.id == id && c.unblock(why) {
			n = 1
		}
	}
	w.Int(n)
}

func clientNoEvict(s *session, args [][]byte, w *Reply) {
	s.toggle(args[2], w, func(l *labels, on bool) { l.noEvict = on })
}

func clientNoTouch(s *session, args [][]byte, w *Reply) {
	s.toggle(args[2], w, func(l *labels, on bool) { l.noTouch = on })
}

func (s *session) toggle(word []byte, w *Reply, set func(l *labels, on bool)) {
	on := equalFold(word, "on")
	if !on && !equalFold(word, "off") {
		w.Error(errSyntax)
		return
	}
	s.client.label(func(l *labels) { set(l, on) })
	w.Simple("OK")
}

func clientInfo(s *session, _ [][]byte, w *Reply) {
	w.Verbatim("txt", string(s.srv.describe(nil, s.client, s)))
}

func clientList(s *session, args [][]byte, w *Reply) {
	var ids map[int64]bool
	kind := ""
	switch {
	case len(args) == 4 && equalFold(args[2], "type"):
		if kind = clientType(args[3]); kind == "" {
			w.Error("ERR Unknown client type '" + clip(args[3], shownBytes) + "'")
			return
		}
	case len(args) >= 4 && equalFold(args[2], "id"):
		ids = make(map[int64]bool, len(args)-3)
		for _, arg := range args[3:] {
			id, ok := parseInt(arg)
			if !ok {
				w.Error("ERR Invalid client ID")
				return
			}
			ids[id] = true
		}
	case len(args) != 2:
		w.Error(errSyntax)
		return
	}
	var text []byte
	for _, c := range s.srv.clients() {
		if (ids == nil || ids[c.id]) && (kind == "" || kind == c.kind()) {
			text = s.srv.describe(text, c, s)
		}
	}
	w.Verbatim("txt", string(text))
}

// clientType is the type of client that word means, or "". There are none but normal
// and pubsub here.
func clientType(word []byte) string {
	switch kind := strings.ToLower(clip(word, nameBytes)); kind {
	case "normal", "master", "replica", "pubsub":
		return kind
	case "slave":
		return "replica"
	}
	return ""
}

// subscriptions are how many the client has of each kind.
func (c *client) subscriptions() (n [topics]int64) {
	if sub := c.sub.Load(); sub != nil {
		for t := range n {
			n[t] = sub.counts[t].Load()
		}
	}
	return n
}

// monitor reports whether the client is shown what all do.
func (c *client) monitor() bool {
	sub := c.sub.Load()
	return sub != nil && sub.monitor.Load()
}

// kind is the client's type.
func (c *client) kind() string {
	if c.subscriptions() != [topics]int64{} {
		return "pubsub"
	}
	return "normal"
}

// clientFlags is the letters by which CLIENT LIST says what a connection is.
func clientFlags(monitor, subscribed, queuing bool, l labels) (flags string) {
	if monitor {
		flags += "O"
	}
	if subscribed {
		flags += "P"
	}
	if queuing {
		flags += "x"
	}
	if l.noEvict {
		flags += "e"
	}
	if l.noTouch {
		flags += "T"
	}
	if flags == "" {
		return "N"
	}
	return flags
}

// describe appends the CLIENT LIST line of c. Figures that only c's own session
// knows are given for the one that asks and are 0 for others; every field is
// there, because clients index them.
func (s *Server) describe(dst []byte, c *client, asking *session) []byte {
	now, l := s.cfg.Now(), c.labels()
	var qbuf, room, omem int
	if asking.client == c {
		g := asking.guard
		qbuf, room, omem = g.end-g.out, len(g.buf)-g.end, cap(asking.reply.buf)
	}
	last := "NULL"
	if row := c.last.Load(); row != nil {
		last = row.full
	}
	subs, queued := c.subscriptions(), c.queued.Load()-1
	field := func(name, value string) {
		dst = append(dst, name...)
		dst = append(dst, '=')
		dst = append(append(dst, value...), ' ')
	}
	number := func(name string, n int64) { field(name, strconv.FormatInt(n, 10)) }
	number("id", c.id)
	field("addr", c.addr)
	field("laddr", c.laddr)
	number("fd", c.id+7) // unknown here; some parsers want a number
	field("name", l.name)
	number("age", max(0, int64(now.Sub(c.since).Seconds())))
	number("idle", max(0, (now.UnixMilli()-c.used.Load())/1000))
	field("flags", clientFlags(c.monitor(), subs != [topics]int64{}, queued >= 0, l))
	number("db", 0)
	number("sub", subs[toChannel])
	number("psub", subs[toPattern])
	number("ssub", subs[toShard])
	number("multi", queued)
	number("qbuf", int64(qbuf))
	number("qbuf-free", int64(room))
	number("argv-mem", 0)
	number("multi-mem", c.queuedBytes.Load())
	for _, name := range []string{"rbs", "rbp", "obl"} {
		number(name, 0)
	}
	unsent := 0
	if sub := c.sub.Load(); sub != nil {
		chunks, bytes := sub.out.backlog()
		unsent, omem = chunks, omem+int(bytes)
	}
	number("oll", int64(unsent))
	number("omem", int64(omem))
	number("tot-mem", int64(qbuf+room+omem))
	field("events", "r")
	field("cmd", last)
	field("user", c.user.Load().Name())
	number("redir", -1)
	number("resp", int64(c.proto.Load()))
	field("lib-name", l.lib)
	field("lib-ver", l.libVersion)
	dst[len(dst)-1] = '\n'
	return dst
}
