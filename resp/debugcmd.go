package resp

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// A DebugMode says who may run DEBUG, as enable-debug-command does.
type DebugMode string

// Modes of DEBUG. The zero value is DebugNo.
const (
	DebugNo    DebugMode = "no"
	DebugLocal DebugMode = "local" // clients of this machine
	DebugYes   DebugMode = "yes"
)

// debugModes are all of them.
var debugModes = [...]DebugMode{DebugNo, DebugLocal, DebugYes}

// errDebug is the refusal of DEBUG.
const errDebug = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it " +
	"from a local connection, otherwise you need to set this option in the configuration file, and then restart " +
	"the server."

// mayDebug reports whether a connection may run DEBUG.
func mayDebug(s *session) bool {
	switch s.srv.access.debug {
	case DebugYes:
		return true
	case DebugLocal:
		return isLocal(s.client.conn.RemoteAddr())
	}
	return false
}

// isLocal reports whether a client is one of this machine, by its address.
func isLocal(client net.Addr) bool {
	tcp, ok := client.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// longestSleep bounds DEBUG SLEEP.
const longestSleep = time.Hour

var debugHelp = helper("debug", []command{
	{name: "jmap", summary: "Does nothing."},
	{name: "sleep", summary: "Holds up this connection, and no other, for so many seconds: an hour at most."},
	{name: "help", summary: "Lists the subcommands."},
})

// runDebug serves what tests of clients use; the rest would look into what is not here.
func runDebug(s *session, args [][]byte, w *Reply) {
	switch {
	case equalFold(args[1], "sleep") && len(args) == 3:
		debugSleep(s, args[2], w)
	case equalFold(args[1], "jmap") && len(args) == 2: // no runtime with a map of its heap: what there is to see, /debug/pprof shows
		w.Simple("OK")
	case equalFold(args[1], "help") && len(args) == 2:
		debugHelp(s, args, w)
	default:
		w.Error(subcommandText(clip(args[1], shownBytes), "DEBUG"))
	}
}

// debugSleep answers after some seconds. No other connection waits: here, unlike in
// Redis, none holds up another.
func debugSleep(s *session, number []byte, w *Reply) {
	seconds, err := strconv.ParseFloat(string(number), 64)
	switch {
	case err != nil:
		w.Error(errNotFloat)
		return
	case !(seconds >= 0 && seconds <= longestSleep.Seconds()): // NaN is neither
		w.Error(fmt.Sprintf("ERR seconds must be between 0 and %d", int(longestSleep.Seconds())))
		return
	}
	s.sleep(time.Duration(seconds * float64(time.Second)))
	w.Simple("OK")
}

// sleep waits for a time, or until the client or the server ends.
func (s *session) sleep(d time.Duration) {
	ctx, release := s.hold()
	defer release()
	over := time.NewTimer(d)
	defer over.Stop()
	look := time.NewTicker(longLookPause)
	defer look.Stop()
	// Who ended this before it was held has not seen it.
	for !s.closing && !s.srv.stop.Load() && !s.client.killed.Load() && !hungUp(s.client.conn) {
		select {
		case <-over.C:
			return
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}
