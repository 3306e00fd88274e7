package resp

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A pause keeps the clients of a door waiting until a time, those that write or
// all. Of two pauses the longer time and the wider kind hold, as in Redis.
type pause struct {
	active atomic.Bool // no time until which clients wait is set otherwise
	mu     struct {
		sync.Mutex
		until time.Duration // uptime
		all   bool
		ended chan struct{} // closed when the pause is changed; nil if there was none
	}
}

// begin pauses until a time, or longer if it is paused for longer.
func (p *pause) begin(now, until time.Duration, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.until > now {
		until, all = max(until, p.mu.until), all || p.mu.all
	}
	p.setLocked(until, all)
}

// end lets everybody go.
func (p *pause) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(0, false)
}

func (p *pause) setLocked(until time.Duration, all bool) {
	if p.mu.ended != nil {
		close(p.mu.ended)
	}
	p.mu.until, p.mu.all, p.mu.ended = until, all, make(chan struct{})
	p.active.Store(until > 0)
}

// changes reports whether a command is paused with those that write.
func (c *command) changes() bool { return c.writes || c.has("may_replicate") }

// left is for how long a command has to wait, and what ends the wait before.
func (p *pause) left(now time.Duration, changes bool) (time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.until <= now {
		p.active.Store(false)
		return 0, nil
	}
	if !p.mu.all && !changes {
		return 0, nil
	}
	return p.mu.until - now, p.mu.ended
}

// awaitPause lets a command wait while its kind is paused, and reports whether it is
// still wanted then. What is in flight is answered before.
func (s *session) awaitPause(changes bool) bool {
	for !s.srv.stop.Load() {
		left, ended := s.srv.pause.left(s.srv.uptime(), changes)
		if left <= 0 {
			break
		}
		s.settle()
		_ = s.flush() // sets closing; seen below
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-ended:
		case <-s.client.gone:
		}
		t.Stop()
		s.wall, s.tick = s.srv.cfg.Now(), s.srv.uptime()
		if s.client.killed.Load() {
			break
		}
	}
	s.closing = s.closing || s.client.killed.Load()
	return !s.closing
}

// clientPause keeps the clients of this door waiting. Commands that have begun end.
func clientPause(s *session, args [][]byte, w *Reply) {
	ms, ok := parseInt(args[2])
	now := s.srv.uptime()
	switch {
	case len(args) > 4:
		w.Error(subcommandText(clip(args[1], shownBytes), "CLIENT"))
	case len(args) == 4 && !equalFold(args[3], "write") && !equalFold(args[3], "all"):
		w.Error("ERR CLIENT PAUSE mode must be WRITE or ALL")
	case !ok:
		w.Error("ERR timeout is not an integer or out of range")
	case ms < 0:
		w.Error("ERR timeout is negative")
	case ms > math.MaxInt64-s.now().UnixMilli():
		w.Error("ERR timeout is out of range")
	default:
		until := time.Duration(math.MaxInt64)
		if ms < int64((until-now)/time.Millisecond) {
			until = now + time.Duration(ms)*time.Millisecond
		}
		s.srv.pause.begin(now, until, len(args) == 3 || equalFold(args[3], "all"))
		w.Simple("OK")
	}
}

func clientUnpause(s *session, _ [][]byte, w *Reply) {
	s.srv.pause.end()
	w.Simple("OK")
}

func pauseArguments() []argument {
	return append(arguments("timeout integer"),
		choice("mode", option("write", "pure-token", "WRITE"), option("all", "pure-token", "ALL")))
}
