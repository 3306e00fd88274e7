package resp

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Texts of Redis 7.0 for MONITOR.
const (
	errMonitorQueued = "ERR MONITOR isn't allowed for DENY BLOCKING client"
	errMonitorKeys   = "ERR Replica can't interact with the keyspace"
)

// monitors are the connections of a node that are shown what all others do. They
// are sent it as subscribers are sent messages: nobody waits for them, and one that
// does not read is closed.
type monitors struct {
	n  atomic.Int32 // of them: all that a command looks at when there are none
	mu struct {
		sync.RWMutex
		all audience
	}
}

func (m *monitors) add(s *subscriber) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.all == nil {
		m.mu.all = make(audience)
	}
	m.mu.all[s] = struct{}{}
	m.n.Store(int32(len(m.mu.all)))
	s.monitor.Store(true)
}

// remove does nothing for one that is none.
func (m *monitors) remove(s *subscriber) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.all, s)
	m.n.Store(int32(len(m.mu.all)))
	s.monitor.Store(false)
}

// show queues a line for all.
func (m *monitors) show(line []byte) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.mu.all.deliver(&letter{ready: [2][]byte{line, line}})
}

func monitorCommand() command {
	return command{name: "monitor", arity: 1, flags: words("admin noscript loading stale"), run: runMonitor, pushes: true,
		since: "1.0.0", summary: "Shows the commands that are run at the doors of this node, but for those of administration, with passwords left out."}
}

// runMonitor answers a monitor nothing, as Redis does.
func runMonitor(s *session, _ [][]byte, w *Reply) {
	switch {
	case s.tx.running:
		w.Error(errMonitorQueued)
	case !s.monitoring():
		sub := s.subscriber()
		w.Simple("OK")
		if s.replyOff || s.skipping {
			w.buf = w.buf[:0] // subscriber has handed over what came before
		}
		// It is one before it is told so, and shown nothing before.
		sub.out.hold()
		s.srv.hub.monitors.add(sub)
		s.handOver()
		sub.out.release()
		s.guard.patient = true
	}
}

func (s *session) monitoring() bool { return s.sub != nil && s.sub.monitor.Load() }

// unmonitor makes the connection one that is shown nothing.
func (s *session) unmonitor() {
	if s.monitoring() {
		s.srv.hub.monitors.remove(s.sub)
		s.guard.patient = s.sub.total() > 0
	}
}

// errMonitor is why a monitor may not run a command, or "".
func (s *session) errMonitor(row *command) string {
	if s.monitoring() && (row.writes || row.has("readonly") || row.name == "publish" || row.name == "spublish") {
		return errMonitorKeys
	}
	return ""
}

// showMonitors shows a command that was answered. A monitor that asks something
// itself sees the answer first.
func (s *session) showMonitors(row *command, args [][]byte) {
	m := &s.srv.hub.monitors
	if m.n.Load() == 0 || row.has("admin") || row.has("skip_monitor") {
		return
	}
	if s.monitoring() {
		s.handOver()
	}
	m.show(monitorLine(s.srv.cfg.Now(), s.client.addr, row, args, s.limits().MaxMonitorLine))
}

// monitorLine is a command as MONITOR shows it, cut where it gets longer than most.
func monitorLine(at time.Time, addr string, row *command, args [][]byte, most int) []byte {
	us := at.UnixMicro()
	line := strconv.AppendInt([]byte{'+'}, us/1e6, 10)
	line = append(line, '.')
	line = append(line, strconv.FormatInt(1e6+us%1e6, 10)[1:]...)
	line = append(append(append(line, " [0 "...), addr...), ']')
	secret := secretWords(row, args)
	for i, arg := range args {
		line = append(line, ' ')
		switch {
		case len(line) >= most:
			line = append(line, `"... (`+strconv.Itoa(len(args)-i)+` more arguments)"`...)
			return append(line, "\r\n"...)
		case secret(i):
			line = append(line, `"(redacted)"`...)
		default:
			line = appendQuoted(line, arg, most)
		}
	}
	return append(line, "\r\n"...)
}

// appendQuoted appends b in quotes, as Redis shows bytes to people. What would make
// dst longer than most is counted instead.
func appendQuoted(dst, b []byte, most int) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i, c := range b {
		if len(dst) >= most {
			dst = append(dst, "... ("+strconv.Itoa(len(b)-i)+" more bytes)"...)
			break
		}
		switch {
		case c == '\\' || c == '"':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\a':
			dst = append(dst, `\a`...)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c < ' ' || c > '~':
			dst = append(dst, '\\', 'x', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
