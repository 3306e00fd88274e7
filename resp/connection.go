package resp

import "github.com/redynamo/redynamo/resp/acl"

// emulated is the Redis version whose commands and replies are promised; it is
// what clients parse from HELLO and INFO to decide what they may use.
const emulated = "7.2.4"

func connectionCommands() []command {
	open := words("noscript loading stale fast no_auth allow_busy")
	rows := []command{
		{name: "ping", arity: -1, flags: words("fast"), run: runPing, subscribed: true,
			tips:    words("request_policy:all_shards response_policy:all_succeeded"),
			summary: "Answers PONG, or the message given.", since: "1.0.0", complexity: "O(1)",
			args: []argument{option("message", "string", "")}},
		{name: "echo", arity: 2, flags: words("loading stale fast"), run: runEcho,
			summary: "Answers the message given.", since: "1.0.0", complexity: "O(1)", args: arguments("message string")},
		{name: "hello", arity: -1, flags: open, run: runHello, pushes: true,
			summary: "Shakes hands: protocol version, login and name in one.", since: "6.0.0", complexity: "O(1)",
			args: helloArguments()},
		{name: "auth", arity: -2, flags: open, run: runAuth,
			summary: "Logs the connection in.", since: "1.0.0", complexity: "O(1)",
			args: []argument{option("username", "string", ""), {name: "password", kind: "string"}}},
		{name: "select", arity: 2, flags: words("loading stale fast"), run: runSelect,
			summary: "Selects a database; there is only 0.", since: "1.0.0", complexity: "O(1)", args: arguments("index integer")},
		{name: "quit", arity: -1, flags: open, run: runQuit, subscribed: true, atOnce: true,
			summary: "Closes the connection.", since: "1.0.0", complexity: "O(1)"},
		{name: "reset", arity: 1, flags: open, run: runReset, replyMode: true, pushes: true, subscribed: true, atOnce: true,
			summary: "Brings the connection back to the state of a new one.", since: "6.2.0", complexity: "O(1)"},
		{name: "client", arity: -2, summary: "Container of commands about connections.", since: "2.4.0",
			complexity: "Depends on the subcommand.", subcommands: clientSubcommands()},
	}
	for i := range rows {
		rows[i].group = "connection"
		if rows[i].subcommands == nil {
			rows[i].categories = words("connection")
		}
	}
	return rows
}

func helloArguments() []argument {
	return []argument{{name: "arguments", kind: "block", optional: true, args: []argument{
		{name: "protover", kind: "integer"},
		{name: "username_password", kind: "block", token: "AUTH", optional: true,
			args: arguments("username string", "password string")},
		option("clientname", "string", "SETNAME"),
	}}}
}

func runPing(s *session, args [][]byte, w *Reply) {
	switch {
	case len(args) > 2:
		w.Error("ERR wrong number of arguments for 'ping' command")
	case s.narrow(): // in the shape of a message
		w.Array(2)
		w.BulkString("pong")
		w.Bulk(append(args, nil)[1])
	case len(args) == 2:
		w.Bulk(args[1])
	default:
		w.Simple("PONG")
	}
}

func runEcho(_ *session, args [][]byte, w *Reply) { w.Bulk(args[1]) }

func runSelect(s *session, args [][]byte, w *Reply) {
	switch fault := databaseFault(args[1]); {
	case fault == errDatabase && s.door() == Cluster:
		w.Error("ERR SELECT is not allowed in cluster mode")
	case fault != "":
		w.Error(fault)
	default:
		w.Simple("OK")
	}
}

func runQuit(s *session, _ [][]byte, w *Reply) {
	s.unmonitor()
	w.Simple("OK")
	s.closing = true
}

func runReset(s *session, _ [][]byte, w *Reply) {
	s.resetSettings()
	s.endTransaction()
	s.unsubscribe()
	s.replyOff, s.skipNext = false, false
	s.logOut()
	s.setProto(2)
	s.client.label(func(l *labels) { l.name, l.noEvict, l.noTouch = "", false, false })
	w.Simple("RESET")
}

func (s *session) setProto(version int) {
	s.reply.proto = version
	s.client.proto.Store(int32(version))
}

// login makes the connection a user's; an unknown user takes the same path as a
// wrong password.
func (s *session) login(word, name, secret []byte) bool {
	users := s.srv.access.users.Load()
	user := users.Find(string(name))
	if !user.Admits(secret) {
		s.srv.counts.authFailed.Add(1)
		s.noteDenied("auth", string(word), string(name))
		return false
	}
	s.become(users, user)
	s.guard.trust = true
	return true
}

func runAuth(s *session, args [][]byte, w *Reply) {
	user, secret := []byte(acl.Default), args[len(args)-1]
	switch {
	case len(args) > 3:
		w.Error(errSyntax)
		return
	case len(args) == 3:
		user = args[1]
	case s.srv.access.users.Load().Default().NoPass():
		w.Error("ERR AUTH <password> called without any password configured for the default user. " +
			"Are you sure your configuration is correct?")
		return
	}
	if !s.login(args[0], user, secret) {
		w.Error(errWrongPass)
		return
	}
	w.Simple("OK")
}

// hello is a parsed HELLO.
type hello struct {
	version      int // 0 = as it is
	user, secret []byte
	name         []byte
	named        bool
}

func parseHello(args [][]byte) (h hello, refused string) {
	if len(args) == 1 {
		return h, ""
	}
	version, ok := parseInt(args[1])
	switch {
	case !ok:
		return h, "ERR Protocol version is not an integer or out of range"
	case version < 2 || version > 3:
		return h, "NOPROTO unsupported protocol version"
	}
	h.version = int(version)
	for i := 2; i < len(args); i++ {
		rest := len(args) - 1 - i
		switch {
		case equalFold(args[i], "auth") && rest >= 2:
			h.user, h.secret = args[i+1], args[i+2]
			i += 2
		case equalFold(args[i], "setname") && rest >= 1:
			h.name, h.named = args[i+1], true
			if refused := refuseLabel("Client names", h.name); refused != "" {
				return h, refused
			}
			i++
		default:
			return h, "ERR Syntax error in HELLO option '" + clip(args[i], shownBytes) + "'"
		}
	}
	return h, ""
}

func runHello(s *session, args [][]byte, w *Reply) {
	h, refused := parseHello(args)
	switch {
	case refused != "":
		w.Error(refused)
		return
	case h.user != nil && !s.login(args[0], h.user, h.secret):
		w.Error(errWrongPass)
		return
	case !s.guard.trust:
		w.Error("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> " +
			"AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version " +
			"at the same time")
		return
	}
	if h.named {
		s.client.label(func(l *labels) { l.name = string(h.name) })
	}
	if h.version != 0 {
		s.setProto(h.version)
	}
	master := s.door() != Sentinel // no role of a sentinel is told here
	if master {
		w.Map(7)
	} else {
		w.Map(6)
	}
	pair := func(name, value string) {
		w.BulkString(name)
		w.BulkString(value)
	}
	pair("server", "redis")
	pair("version", emulated)
	w.BulkString("proto")
	w.Int(int64(w.proto))
	w.BulkString("id")
	w.Int(s.client.id)
	pair("mode", s.srv.mode())
	if master {
		pair("role", "master")
	}
	w.BulkString("modules")
	w.Array(0)
	switch { // messages look different from here on
	case s.sub == nil:
	case s.replyOff || s.skipping:
		s.sub.out.push(nil, w.proto)
	default:
		s.handOver()
	}
}

// mode is redis_mode.
func (s *Server) mode() string {
	switch s.cfg.Door {
	case Cluster:
		return "cluster"
	case Sentinel:
		return "sentinel"
	}
	return "standalone"
}
