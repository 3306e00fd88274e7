package resp

import (
	"strconv"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Limits of what VCTX puts may pile up (design §3.3). Merging, repair and plain
// writes are never refused for it.
const (
	maxSiblings     = 64
	maxSiblingBytes = 1 * mib
)

// maxQuorum bounds R and W of a request; the coordinator caps them by n.
const maxQuorum = 64

const errQuorum = "ERR R and W must be between 1 and 64"

// vctxCommands are the commands that show siblings and take contexts, each in
// two spellings: VCTX.GET k, whose key stands where any client library looks for
// one, and VCTX GET k.
func vctxCommands() []command {
	rows := vctxRows()
	subs := vctxRows()
	for i := range rows {
		rows[i].name = "vctx." + rows[i].name
		sub := &subs[i]
		if sub.arity > 0 {
			sub.arity++
		} else {
			sub.arity--
		}
		if sub.first > 0 {
			sub.first++
			if sub.last > 0 {
				sub.last++
			}
		}
		if start := sub.start; start != nil {
			sub.start = func(s *session, args [][]byte) pending { return start(s, args[1:]) }
		}
		if run := sub.run; run != nil {
			sub.run = func(s *session, args [][]byte, w *Reply) { run(s, args[1:], w) }
		}
	}
	subs = append(subs, command{name: "help", arity: 2, flags: words("loading stale"), group: "vctx", since: "0.1.0",
		complexity: "O(1)", summary: "List the subcommands"})
	subs[len(subs)-1].run = helper("vctx", subs)
	return append(rows, command{
		name: "vctx", arity: -2, categories: words("slow"), group: "vctx", since: "0.1.0",
		complexity: "Depends on subcommand.", summary: "Read and write with contexts and siblings",
		subcommands: subs,
	})
}

func vctxRows() []command {
	minimum, r, wr := option("min", "string", "MIN"), option("r", "integer", "R"), option("w", "integer", "W")
	onOff := func(name, token string) argument {
		return choice(name, option("on", "pure-token", token+" ON"), option("off", "pure-token", token+" OFF"))
	}
	return completed("vctx", "string", []command{
		{name: "get", arity: -2, flags: words("readonly fast"), keySpec: words("RO access"), since: "0.1.0", start: startVGet,
			summary: "Get all siblings of a key and the context to write with",
			args:    append(arguments("key key"), option("meta", "pure-token", "META"), r, minimum)},
		{name: "set", arity: -4, flags: words("write denyoom fast"), keySpec: words("RW update"), since: "0.1.0", start: startVSet,
			summary: "Set a value that replaces exactly what its context has seen",
			args:    append(arguments("key key", "value string", "token string"), expiryArgument("keepttl", "KEEPTTL"), wr)},
		{name: "del", arity: -3, flags: words("write fast"), keySpec: words("RW delete"), since: "0.1.0", start: startVDel,
			summary: "Delete exactly what a context has seen", args: append(arguments("key key", "token string"), wr)},
		{name: "mget", arity: -2, flags: words("readonly fast"), last: -1, keySpec: words("RO access"), since: "0.1.0",
			complexity: complexityN, start: startVMGet,
			summary: "Get all siblings of several keys", args: arguments("key key...")},
		{name: "inspect", arity: 2, flags: words("readonly"), keySpec: words("RO"), since: "0.1.0", run: runVInspect,
			summary: "Show the copy of a key at every owner and hint holder", args: arguments("key key")},
		{name: "session", arity: -1, flags: words("loading stale fast"), since: "0.1.0", run: runVSession,
			summary: "Change the settings of this connection",
			args: []argument{onOff("context", "CONTEXT"), onOff("siblings", "SIBLINGS"), r, wr,
				option("reset", "pure-token", "RESET")}},
	})
}

// parseQuorum reads the number of R or W.
func parseQuorum(b []byte) (n int, fault string) {
	v, ok := parseInt(b)
	switch {
	case !ok:
		return 0, errNotInteger
	case v < 1 || v > maxQuorum:
		return 0, errQuorum
	}
	return int(v), ""
}

// seenToken opens a token that a client presents as its past: sealed bytes, ""
// for nothing, or "+" for the last token of this connection for the key.
func (s *session) seenToken(key, tok []byte) (version.Token, error) {
	switch string(tok) {
	case "":
		return version.Token{}, nil
	case "+":
		if t, ok := s.lastToken(key); ok {
			return t, nil
		}
		return version.Token{}, version.ErrBadToken
	}
	return version.OpenToken(key, tok, s.mac())
}

// startVGet serves VCTX.GET k [META] [R n] [MIN tok].
func startVGet(s *session, args [][]byte) pending {
	o := s.readOptions()
	show := showVGet
	for i := 2; i < len(args); i++ {
		switch {
		case foldEqual(args[i], "META"):
			show = showVMeta
		case foldEqual(args[i], "R") && i+1 < len(args):
			i++
			var fault string
			if o.R, fault = parseQuorum(args[i]); fault != "" {
				return failed(fault)
			}
		case foldEqual(args[i], "MIN") && i+1 < len(args):
			i++
			t, err := s.seenToken(args[1], args[i])
			if err != nil {
				return failedWith(err)
			}
			o.Min = &t
		default:
			return failed(errSyntax)
		}
	}
	c := s.newCall(args[1], args, show)
	s.store().Read(args[1], o, c.onRead)
	return c
}

// replyToken seals a token, writes it, and keeps it as the connection's "+".
func (c *call) replyToken(w *Reply, t version.Token) {
	c.s.setLastToken(c.key, t)
	c.s.remember(c.key, t)
	c.s.observe(t.HLC)
	w.Bulk(version.SealToken(nil, c.key, t, c.s.mac()))
}

func showVGet(c *call, w *Reply) {
	live := c.read.Record.Live(c.s.now().UnixMilli())
	if len(live) == 0 {
		c.noteMiss()
	}
	w.Array(2)
	c.replyToken(w, c.read.Record.ReadToken())
	w.Array(len(live))
	for i := range live {
		w.Bulk(live[i].Value)
	}
}

// flagFallback in a META reply: a fallback was among the nodes that answered, so
// that R+W>N promises nothing for this read.
const flagFallback = 1

func showVMeta(c *call, w *Reply) {
	now := c.s.now().UnixMilli()
	live := c.read.Record.Live(now)
	if len(live) == 0 {
		c.noteMiss()
	}
	flags := int64(0)
	if c.read.Fallback {
		flags |= flagFallback
	}
	w.Array(2)
	c.replyToken(w, c.read.Record.ReadToken())
	w.Array(len(live))
	for i := range live {
		v := &live[i]
		ttl := int64(-1)
		if v.Expiry.AtMS != 0 {
			ttl = v.Expiry.AtMS - now
		}
		w.Array(6)
		w.Bulk(v.Value)
		w.BulkString(dotText(v.Dot))
		w.Int(v.HLC.UnixMS())
		w.Int(ttl)
		w.BulkString("string")
		w.Int(flags)
	}
}

// dotText is actor:counter, the actor as 16 hex digits.
func dotText(d version.Dot) string {
	return ring.NodeID(d.Actor).String() + ":" + strconv.FormatUint(d.Counter, 10)
}

// spanText is actor:lo-hi.
func spanText(s version.Span) string {
	return dotText(version.Dot{Actor: s.Actor, Counter: s.Lo}) + "-" + strconv.FormatUint(s.Hi, 10)
}

// startVSet serves VCTX.SET k v tok [expiry] [W n].
func startVSet(s *session, args [][]byte) pending {
	o := s.writeOptions()
	var e expiryOption
	for i := 4; i < len(args); {
		if n := e.take(args, i); n > 0 {
			i += n
			continue
		}
		if !foldEqual(args[i], "W") || i+1 == len(args) {
			return failed(errSyntax)
		}
		var fault string
		if o.W, fault = parseQuorum(args[i+1]); fault != "" {
			return failed(fault)
		}
		i += 2
	}
	at, fault := e.deadline(s.now().UnixMilli(), "vctx.set")
	if fault != "" {
		return failed(fault)
	}
	if s.tooLong(args[2]) {
		return failedWith(version.ErrTooLarge)
	}
	op := version.Op{Kind: version.OpSet, Value: args[2], MaxSiblings: maxSiblings, MaxSiblingBytes: maxSiblingBytes}
	e.apply(&op, at)
	return s.beginVersioned(args, args[3], op, o)
}

// startVDel serves VCTX.DEL k tok [W n].
func startVDel(s *session, args [][]byte) pending {
	o := s.writeOptions()
	for i := 3; i < len(args); i += 2 {
		if !foldEqual(args[i], "W") || i+1 == len(args) {
			return failed(errSyntax)
		}
		var fault string
		if o.W, fault = parseQuorum(args[i+1]); fault != "" {
			return failed(fault)
		}
	}
	return s.beginVersioned(args, args[2], version.Op{Kind: version.OpDelete}, o)
}

// beginVersioned starts a write with the token tok: it covers what the token has
// seen and nothing else. "*" is the token of a plain write.
func (s *session) beginVersioned(args [][]byte, tok []byte, op version.Op, o coordinator.WriteOptions) pending {
	key := args[1]
	op.MinHLC, op.MaxValue = s.hlc(), s.limits().MaxValue
	if string(tok) == "*" {
		overwriting(&op, s.implicit(key))
	} else {
		t, err := s.seenToken(key, tok)
		if err != nil {
			return failedWith(err)
		}
		overwriting(&op, t)
		op.Explicit = true
		op.MinHLC = max(op.MinHLC, t.HLC)
	}
	c := s.newCall(key, args, showVersioned)
	c.deed = deedOf(&op)
	c.write(op, o)
	return c
}

// showVersioned answers the token after a write, which leaves out the siblings
// that its client has not seen, and how many versions are live now.
func showVersioned(c *call, w *Reply) {
	w.Array(2)
	c.s.observe(c.wrote.HLC)
	c.noteDeed()
	c.replyToken(w, c.wrote.Token)
	w.Int(int64(c.wrote.Live))
}

func startVMGet(s *session, args [][]byte) pending {
	keys := args[1:]
	header := false
	f := &fan{n: len(keys)}
	f.begin = func(i int) *call { return s.beginRead(keys[i], nil, nil) }
	f.fold = func(c *call, w *Reply) {
		if !header {
			w.Array(len(keys))
			header = true
		}
		showVGet(c, w)
	}
	return f.launch()
}

// runVInspect answers one entry per copy, owners first: node, role, state hash
// (null when the node could not be asked), dots, context, the age in milliseconds
// of the newest write (-1 for none), and why a copy without a value is still there.
func runVInspect(s *session, args [][]byte, w *Reply) {
	ctx, cancel := s.walkContext()
	defer cancel()
	copies, err := s.store().Inspect(ctx, args[1])
	if err != nil {
		w.Fail(err)
		return
	}
	w.Array(len(copies))
	for i := range copies {
		writeInspection(w, &copies[i], s.now().UnixMilli())
	}
}

func writeInspection(w *Reply, in *coordinator.Inspection, nowMS int64) {
	w.Array(7)
	w.BulkString(in.Node.String())
	w.BulkString(roleText(in))
	if in.Err != nil {
		w.Null()
	} else {
		w.BulkString(ring.NodeID(in.Hash).String())
	}
	dots := in.Record.Dots()
	w.Array(len(dots))
	for _, d := range dots {
		w.BulkString(dotText(d))
	}
	w.Array(len(in.Record.Context))
	for _, span := range in.Record.Context {
		w.BulkString(spanText(span))
	}
	age := int64(-1)
	if h := in.Record.MaxHLC(); h != 0 {
		age = max(nowMS-h.UnixMS(), 0)
	}
	w.Int(age)
	w.BulkString(in.Note)
}

// roleText says what the copy is to the node: its own as an owner, a hint kept
// for an owner, or a copy left from when the ring was another.
func roleText(in *coordinator.Inspection) string {
	switch {
	case in.For != 0:
		return "hint for " + in.For.String()
	case in.Owner:
		return "owner"
	}
	return "other"
}

// runVSession serves VCTX.SESSION [CONTEXT ON|OFF] [SIBLINGS ON|OFF] [R n] [W n]
// [RESET]. Nothing is changed unless all of it can be read.
func runVSession(s *session, args [][]byte, w *Reply) {
	next, reset := s.settings, false
	for i := 1; i < len(args); {
		if foldEqual(args[i], "RESET") {
			next, reset = settings{}, true
			i++
			continue
		}
		if i+1 == len(args) {
			w.Error(errSyntax)
			return
		}
		if fault := next.change(args[i], args[i+1]); fault != "" {
			w.Error(fault)
			return
		}
		i += 2
	}
	if reset {
		s.resetSettings()
	}
	if next.noContext && !s.noContext {
		s.seen.forget()
	}
	s.settings = next
	w.Simple("OK")
}

// change takes one setting and returns the text of an error, if any.
func (t *settings) change(name, value []byte) (fault string) {
	on, off := foldEqual(value, "ON"), foldEqual(value, "OFF")
	switch {
	case foldEqual(name, "CONTEXT") && (on || off):
		t.noContext = off
	case foldEqual(name, "SIBLINGS") && (on || off):
		t.siblings = on
	case foldEqual(name, "R"):
		t.r, fault = parseQuorum(value)
	case foldEqual(name, "W"):
		t.w, fault = parseQuorum(value)
	default:
		return errSyntax
	}
	return fault
}
