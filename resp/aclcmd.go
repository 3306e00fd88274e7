package resp

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"

	"github.com/redynamo/redynamo/resp/acl"
)

// aclCommand is the container of commands about users.
func aclCommand() command {
	plain, admin := words("noscript loading stale"), words("admin noscript loading stale")
	perhaps := func(name, kind string) []argument { return []argument{option(name, kind, "")} }
	rows := []command{
		{name: "cat", arity: -2, flags: plain, run: aclCat, summary: "Lists the categories, or the commands of one.", args: perhaps("category", "string")},
		{name: "deluser", arity: -3, flags: admin, run: aclDelUser, summary: "Deletes users of this node and closes their connections.",
			args: arguments("username string...")},
		{name: "dryrun", arity: -4, flags: admin, run: aclDryRun, since: "7.0.0", summary: "Tells whether a user may run a command, without running it.",
			args: append(arguments("username string", "command string"), argument{name: "arg", kind: "string", optional: true, multiple: true})},
		{name: "genpass", arity: -2, flags: plain, run: aclGenPass, summary: "Answers a random password.", args: perhaps("bits", "integer")},
		{name: "getuser", arity: 3, flags: admin, run: aclGetUser, summary: "Shows the rules of a user.", args: arguments("username string")},
		{name: "help", arity: 2, flags: words("loading stale"), summary: "Lists the subcommands."},
		{name: "list", arity: 2, flags: admin, run: aclList, summary: "Shows all users as the ACL file has them."},
		{name: "load", arity: 2, flags: admin, run: aclLoad, summary: "Reads the users of this node from its file anew, all or, after a fault, none."},
		{name: "log", arity: -2, flags: admin, run: aclLog, summary: "Shows what was refused on this node, newest first.",
			args: []argument{choice("operation", option("count", "integer", ""), option("reset", "pure-token", "RESET"))}},
		{name: "save", arity: 2, flags: admin, run: aclSave, summary: "Writes the users of this node to its file."},
		{name: "setuser", arity: -3, flags: admin, run: aclSetUser, summary: "Makes or changes a user of this node.",
			args: append(arguments("username string"), argument{name: "rule", kind: "string", optional: true, multiple: true})},
		{name: "users", arity: 2, flags: admin, run: aclUsers, summary: "Names the users."},
		{name: "whoami", arity: 2, flags: plain, run: aclWhoAmI, summary: "Names the user of the connection."},
	}
	rows[5].run = helper("acl", rows)
	for i := range rows {
		rows[i].group, rows[i].complexity = "server", "O(N) with N = what is listed"
		rows[i].flags = append([]string(nil), rows[i].flags...) // prepare sorts them in place
		orDefault(&rows[i].since, "6.0.0")
	}
	return command{name: "acl", arity: -2, group: "server", since: "6.0.0", complexity: "Depends on the subcommand.",
		summary: "Container of commands about users, who are this node's own.", subcommands: rows}
}

func aclWhoAmI(s *session, _ [][]byte, w *Reply) { w.BulkString(s.user.Name()) }

// accounts are the users there are now.
func (s *session) accounts() *acl.Users { return s.srv.access.users.Load() }

func writeStrings(w *Reply, list []string) {
	w.Array(len(list))
	for _, text := range list {
		w.BulkString(text)
	}
}

func aclUsers(s *session, _ [][]byte, w *Reply) { writeStrings(w, s.accounts().Names()) }

func aclList(s *session, _ [][]byte, w *Reply) { writeStrings(w, s.accounts().Lines()) }

func aclCat(s *session, args [][]byte, w *Reply) {
	catalog := s.srv.access.catalog
	if len(args) > 3 {
		w.Error(subcommandText(clip(args[1], shownBytes), "ACL"))
		return
	}
	if len(args) == 2 {
		writeStrings(w, catalog.Categories())
		return
	}
	names, ok := catalog.In(string(args[2]))
	if !ok {
		w.Error("ERR Unknown category '" + clip(args[2], shownBytes) + "'")
		return
	}
	writeStrings(w, names)
}

// aclSetUser changes a user, or nothing if one rule is at fault.
func aclSetUser(s *session, args [][]byte, w *Reply) {
	rules := make([]string, len(args)-3)
	for i, arg := range args[3:] {
		rules[i] = string(arg)
	}
	s.changed(w, func(now *acl.Users) (*acl.Users, error) { return now.With(string(args[2]), rules) })
}

// changed changes the users and answers.
func (s *session) changed(w *Reply, next func(*acl.Users) (*acl.Users, error)) {
	if err := s.srv.access.change(s, next); err != nil {
		w.Error("ERR " + err.Error())
		return
	}
	w.Simple("OK")
}

func aclDelUser(s *session, args [][]byte, w *Reply) {
	names := make([]string, len(args)-2)
	for i, arg := range args[2:] {
		names[i] = string(arg)
	}
	gone := 0
	err := s.srv.access.change(s, func(now *acl.Users) (next *acl.Users, err error) {
		next, gone, err = now.Without(names)
		return next, err
	})
	if err != nil {
		w.Error("ERR " + err.Error())
		return
	}
	w.Int(int64(gone))
}

func aclGetUser(s *session, args [][]byte, w *Reply) {
	user := s.accounts().Find(string(args[2]))
	if user == nil {
		w.Null()
		return
	}
	w.Map(6)
	w.BulkString("flags")
	flags := user.Flags()
	w.Set(len(flags))
	for _, f := range flags {
		w.BulkString(f)
	}
	w.BulkString("passwords")
	w.Array(len(user.Digests()))
	for _, d := range user.Digests() {
		w.BulkString(d.String())
	}
	s.writeSelector(w, user.Root())
	w.BulkString("selectors")
	w.Array(len(user.Extra()))
	for _, one := range user.Extra() {
		w.Map(3)
		s.writeSelector(w, one)
	}
}

// writeSelector writes three pairs.
func (s *session) writeSelector(w *Reply, one *acl.Selector) {
	w.BulkString("commands")
	w.BulkString(one.Commands(s.srv.access.catalog))
	w.BulkString("keys")
	w.BulkString(one.Keys())
	w.BulkString("channels")
	w.BulkString(one.Channels())
}

const (
	passBits    = 256
	maxPassBits = 4096
)

func aclGenPass(_ *session, args [][]byte, w *Reply) {
	bits := int64(passBits)
	if len(args) > 3 {
		w.Error(subcommandText(clip(args[1], shownBytes), "ACL"))
		return
	}
	if len(args) == 3 {
		n, ok := parseInt(args[2])
		switch {
		case !ok:
			w.Error(errNotInteger)
			return
		case n < 1 || n > maxPassBits:
			w.Error("ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096")
			return
		}
		bits = n
	}
	digits := (bits + 3) / 4
	random := make([]byte, (digits+1)/2)
	if _, err := io.ReadFull(rand.Reader, random); err != nil {
		w.Fail(err)
		return
	}
	w.BulkString(hex.EncodeToString(random)[:digits])
}

func aclDryRun(s *session, args [][]byte, w *Reply) {
	user, inner := s.accounts().Find(string(args[2])), args[3:]
	if user == nil {
		w.Error("ERR User '" + clip(args[2], shownBytes) + "' not found")
		return
	}
	row := s.srv.table.lookup(inner)
	switch {
	case row == nil:
		w.Error("ERR Command '" + clip(inner[0], shownBytes) + "' not found")
		return
	case row.arity > 0 && row.arity != len(inner) || len(inner) < -row.arity:
		w.Error(row.arityText())
		return
	}
	switch v, object := s.judge(user, row, inner); v {
	case acl.Allowed:
		w.Simple("OK")
	case acl.NoCommand:
		w.BulkString("This user has no permissions to run the '" + object + "' command")
	default:
		w.BulkString("This user has no permissions to access the '" + object + "' " + denials[v].reason)
	}
}

func aclLog(s *session, args [][]byte, w *Reply) {
	n := int64(logShown)
	switch {
	case len(args) > 3:
		w.Error(subcommandText(clip(args[1], shownBytes), "ACL"))
		return
	case len(args) == 3 && equalFold(args[2], "reset"):
		s.srv.access.log.reset()
		w.Simple("OK")
		return
	case len(args) == 3:
		var ok bool
		if n, ok = parseInt(args[2]); !ok {
			w.Error(errNotInteger)
			return
		}
	}
	entries := s.srv.access.log.list(n)
	w.Array(len(entries))
	for i := range entries {
		e := &entries[i]
		w.Map(7)
		w.BulkString("count")
		w.Int(e.count)
		for _, f := range []Field{{"reason", e.reason}, {"context", e.context}, {"object", e.object}, {"username", e.user}} {
			w.BulkString(f.Name)
			w.BulkString(f.Value)
		}
		w.BulkString("age-seconds")
		w.Double(s.srv.cfg.Now().Sub(e.at).Seconds())
		w.BulkString("client-info")
		w.BulkString(e.client)
	}
}

func aclLoad(s *session, _ [][]byte, w *Reply) {
	if err := s.srv.access.load(s); err != nil {
		w.Error("ERR " + err.Error())
		return
	}
	s.srv.cfg.Logger.Info("access rules were loaded")
	w.Simple("OK")
}

func aclSave(s *session, _ [][]byte, w *Reply) {
	err := s.srv.access.save()
	switch {
	case errors.Is(err, errNoAccessFile):
		w.Error("ERR " + err.Error())
	case err != nil:
		s.srv.cfg.Logger.Error("access rules were not saved", "error", err)
		w.Error("ERR There was an error trying to save the ACLs. Please check the server logs for more information")
	default:
		w.Simple("OK")
	}
}
