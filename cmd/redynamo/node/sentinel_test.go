package node

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestTheSentinelDoorHasTheUsersOfTheNode: with users of its own it would be open where
// the others are not, and its clients could not log in.
func TestTheSentinelDoorHasTheUsersOfTheNode(t *testing.T) {
	cfg := lone(vfs.NewCrashableMem())
	cfg.SentinelListen, cfg.RequirePass, cfg.ProtectedMode = "127.0.0.1:0", "secret", true
	n := start(t, cfg)
	sentinel := n.sentinel.listener.Addr().String()
	if got := sayTo(t, sentinel, "ACL WHOAMI"); got != "-NOAUTH Authentication required." {
		t.Errorf("without a password: %q", got)
	}
	if got := sayTo(t, sentinel, "AUTH secret"); got != "+OK" {
		t.Errorf("with the password: %q", got)
	}
	c := dial(t, n.listeners[listenPlain].Addr().String())
	c.want("AUTH secret", "+OK")
	c.want("ACL SETUSER watcher on >pw +sentinel +ping", "+OK")
	c.want("CONFIG SET requirepass other", "+OK")
	for login, want := range map[string]string{
		"AUTH secret": "-WRONGPASS invalid username-password pair or user is disabled.", "AUTH other": "+OK", "AUTH watcher pw": "+OK",
	} {
		if got := sayTo(t, sentinel, login); got != want {
			t.Errorf("%s: %q", login, got)
		}
	}
}
