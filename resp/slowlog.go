package resp

import (
	"slices"
	"strconv"
	"sync"
	"time"
)

// What the slow log keeps of a command, as in Redis.
const (
	slowArgs     = 32
	slowArgBytes = 128
	// maxSlowlog bounds slowlog-max-len, and with the two above the memory.
	maxSlowlog = 10000

	defaultSlowAfter = 10000 // microseconds
	defaultSlowlog   = 128
	slowlogShown     = 10 // by SLOWLOG GET without a number
)

// A slowEntry is one slow command.
type slowEntry struct {
	id     int64
	at     int64 // Unix seconds
	micros int64
	args   []string
	addr   string
	name   string
}

// A slowlog keeps the last slow commands of a door, oldest first.
type slowlog struct {
	mu struct {
		sync.Mutex
		entries []slowEntry
		nextID  int64 // as many as were slow before
	}
}

// add keeps e, and most entries in all.
func (l *slowlog) add(e slowEntry, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.id = l.mu.nextID
	l.mu.nextID++
	l.mu.entries = append(l.mu.entries, e)
	if over := len(l.mu.entries) - most; over > 0 {
		l.mu.entries = slices.Delete(l.mu.entries, 0, over)
	}
}

// newest lists up to n entries, the newest first; all for a negative n.
func (l *slowlog) newest(n int64) []slowEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.mu.entries
	if n >= 0 && n < int64(len(all)) {
		all = all[int64(len(all))-n:]
	}
	out := slices.Clone(all)
	slices.Reverse(out)
	return out
}

func (l *slowlog) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.entries)
}

func (l *slowlog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.entries = nil
}

// noteSlow keeps a command that took long enough.
func (s *session) noteSlow(row *command, args [][]byte, took time.Duration) {
	after := s.srv.params.slowAfter.Load()
	if after < 0 || took.Microseconds() < after || row.has("skip_slowlog") {
		return
	}
	most := int(s.srv.params.slowMax.Load())
	if most == 0 {
		return
	}
	s.srv.slow.add(slowEntry{
		at: s.srv.cfg.Now().Unix(), micros: took.Microseconds(), args: slowWords(row, args),
		addr: s.client.addr, name: s.client.labels().name,
	}, most)
}

// slowWords is the beginning of a command, without passwords.
func slowWords(row *command, args [][]byte) []string {
	shown := args[:min(len(args), slowArgs)]
	words := make([]string, len(shown))
	secret := secretWords(row, args)
	for i, arg := range shown {
		switch {
		case i == slowArgs-1 && len(args) > slowArgs:
			words[i] = "... (" + strconv.Itoa(len(args)-slowArgs+1) + " more arguments)"
		case secret(i):
			words[i] = "(redacted)"
		case len(arg) > slowArgBytes:
			words[i] = string(arg[:slowArgBytes]) + "... (" + strconv.Itoa(len(arg)-slowArgBytes) + " more bytes)"
		default:
			words[i] = string(arg)
		}
	}
	return words
}

// secretWords says which words of a command are nobody's business.
func secretWords(row *command, args [][]byte) func(i int) bool {
	switch row.full {
	case "auth":
		return func(i int) bool { return i > 0 }
	case "hello":
		return helloSecrets(args)
	case "acl|setuser":
		return func(i int) bool { return i > 1 }
	case "config|set":
		return func(i int) bool { return i > 2 && i%2 == 1 && equalFold(args[i-1], "requirepass") }
	}
	return func(int) bool { return false }
}

// helloSecrets finds user and password in HELLO, also in one that is refused: the two
// words behind every AUTH, for it may stand in the wrong place or be a name.
func helloSecrets(args [][]byte) func(i int) bool {
	is := func(i int) bool { return i > 0 && foldEqual(args[i], "AUTH") }
	return func(i int) bool { return !is(i) && (is(i-1) || is(i-2)) }
}

func slowlogGet(s *session, args [][]byte, w *Reply) {
	if len(args) > 3 {
		w.Error(subcommandText(clip(args[1], shownBytes), "SLOWLOG"))
		return
	}
	n := int64(slowlogShown)
	if len(args) == 3 {
		var ok bool
		if n, ok = parseInt(args[2]); !ok || n < -1 {
			w.Error("ERR count should be greater than or equal to -1")
			return
		}
	}
	entries := s.srv.slow.newest(n)
	w.Array(len(entries))
	for _, e := range entries {
		w.Array(6)
		w.Int(e.id)
		w.Int(e.at)
		w.Int(e.micros)
		w.Array(len(e.args))
		for _, arg := range e.args {
			w.BulkString(arg)
		}
		w.BulkString(e.addr)
		w.BulkString(e.name)
	}
}

func slowlogLen(s *session, _ [][]byte, w *Reply) { w.Int(int64(s.srv.slow.length())) }

func slowlogReset(s *session, _ [][]byte, w *Reply) {
	s.srv.slow.reset()
	w.Simple("OK")
}
