package resp

import (
	"github.com/redynamo/redynamo/resp/acl"
)

// who is the user of a connection, as it was when the users were last looked at.
type who struct {
	users *acl.Users
	user  *acl.User
	free  bool // may do everything
}

// become makes user that of the connection.
func (s *session) become(users *acl.Users, user *acl.User) {
	s.who = who{users, user, user.Unbound()}
	s.client.user.Store(user)
}

// logOut makes the connection one that has just come: everybody's if the default user
// lets everybody in.
func (s *session) logOut() {
	users := s.srv.access.users.Load()
	s.become(users, users.Default())
	s.guard.trust = users.Default().Open()
}

// renew looks at users that were changed. It reports whether the connection's user is
// still there; one of the same name that was made anew is another.
func (s *session) renew(users *acl.Users) bool {
	user := users.Find(s.user.Name())
	if !s.user.Same(user) {
		s.closing = true
		return false
	}
	s.become(users, user)
	if user.Name() == acl.Default && user.Open() {
		s.guard.trust = true
	}
	return true
}

// refusals of the judgement, with the words of ACL LOG and of EXEC.
var denials = [...]struct{ reason, text, why string }{
	acl.NoCommand: {"command", "", "no permission to execute the command or subcommand"},
	acl.NoKey: {"key", "NOPERM this user has no permissions to access one of the keys used as arguments",
		"no permission to touch the specified keys"},
	acl.NoChannel: {"channel", "NOPERM this user has no permissions to access one of the channels used as arguments",
		"no permission to access one of the channels used as arguments"},
}

// judge asks the rules of the connection's user.
func (s *session) judge(user *acl.User, row *command, args [][]byte) (v acl.Verdict, object string) {
	r := acl.Request{ID: row.id, Args: args}
	if row.first > 0 || row.keys != nil {
		r.Keys = func() []acl.Key { return row.touches(args) }
	}
	if row.channels != noChannel {
		r.Channels = func() []acl.Channel { return row.channelsIn(args) }
	}
	v, at := user.Check(s.srv.access.catalog, &r)
	if v == acl.NoCommand {
		return v, row.full
	}
	return v, string(args[at])
}

// denied is the refusal of a command that the user may not run, or "". It is noted.
func (s *session) denied(row *command, args [][]byte) string {
	v, object := s.judge(s.user, row, args)
	if v == acl.Allowed {
		return ""
	}
	s.noteDenied(denials[v].reason, object, s.user.Name())
	if v == acl.NoCommand {
		return "NOPERM this user has no permissions to run the '" + row.full + "' command"
	}
	return denials[v].text
}

// deniedNow is denied for a command of a batch that EXEC has begun: what the user may
// do can have changed since it was queued.
func (s *session) deniedNow(row *command, args [][]byte) string {
	if users := s.srv.access.users.Load(); users != s.who.users && !s.renew(users) {
		return errNoAuth
	}
	if s.free {
		return ""
	}
	v, object := s.judge(s.user, row, args)
	if v == acl.Allowed {
		return ""
	}
	s.noteDenied(denials[v].reason, object, s.user.Name())
	return "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. " +
		"This command is no longer allowed for the following reason: " + denials[v].why
}

// mayHear reports whether the connection's user may hear names. It looks at the users
// there are now: they may have changed since the command was let through.
func (s *session) mayHear(t topic, names [][]byte) bool {
	users := s.srv.access.users.Load()
	if users == s.who.users {
		return true
	}
	user := users.Find(s.user.Name())
	if !s.user.Same(user) {
		return false
	}
	for _, name := range names {
		if !user.MayHear(name, t == toPattern) {
			return false
		}
	}
	return true
}

func (s *session) noteDenied(reason, object, user string) {
	context := "toplevel"
	if s.tx.open {
		context = "multi"
	}
	s.srv.access.log.add(accessEntry{
		reason: reason, context: context, object: clip([]byte(object), logBytes), user: clip([]byte(user), logBytes),
		client: string(s.srv.describe(nil, s.client, s)), at: s.srv.cfg.Now(),
	})
}
