package resp

import (
	"context"
	"errors"
	"math"
	"net"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

func waitCommands() []command {
	tips := words("request_policy:all_shards response_policy:agg_min")
	return []command{
		{name: "wait", arity: 3, flags: words("noscript"), run: runWait, blocks: true, categories: words("connection"), group: "generic", tips: tips,
			since: "3.0.0", complexity: "O(1)",
			summary: "Waits until so many owners hold the last write of this connection, and answers how many do; those that lack it get it",
			args:    arguments("numreplicas integer", "timeout integer")},
		{name: "waitaof", arity: 4, flags: words("noscript"), run: runWaitAOF, blocks: true, categories: words("connection"), group: "generic", tips: tips,
			since: "7.2.0", complexity: "O(1)",
			summary: "Waits until this node, if it is an owner, and so many other owners have synced the last write of this connection; answers which do",
			args:    arguments("numlocal integer", "numreplicas integer", "timeout integer")},
	}
}

// lastWrite is what WAIT is about.
type lastWrite struct {
	key     []byte // nil: nothing was written
	wrote   version.Wrote
	unknown bool // what came of it, so there is nothing to wait for
}

// note takes the outcome of a call. A delete that had nothing left to do is a write, as
// for its coordinator: it may be the repetition of one that came to one node only.
func (l *lastWrite) note(c *call) {
	switch {
	case c.op == 0, c.err != nil && unwritten(c.err):
		return
	case c.err != nil:
		l.lose()
		return
	case !c.wrote.Applied && (c.op != version.OpDelete || len(c.wrote.Token.Context) == 0):
		return
	}
	if cap(l.key) > keepKey {
		l.key = nil
	}
	l.key = append(l.key[:0], c.key...)
	l.wrote, l.unknown = version.Wrote{Kind: c.op, HLC: c.wrote.HLC, Token: c.wrote.Token}, false
	if l.key == nil {
		l.key = []byte{} // the empty key is one
	}
}

// lose has it be about a write of which nobody knows whether it happened. That one of
// before is held says nothing of it.
func (l *lastWrite) lose() { l.unknown = true }

// keepKey is the longest key whose memory a connection uses again.
const keepKey = 1 * kib

// parseWait reads how long to wait, in milliseconds, 0 for ever.
func (s *session) parseWait(number []byte) (ms int64, fault string) {
	ms, ok := parseInt(number)
	switch {
	case !ok:
		return 0, "ERR timeout is not an integer or out of range"
	case ms < 0:
		return 0, "ERR timeout is negative"
	case ms > math.MaxInt64-s.now().UnixMilli():
		return 0, "ERR timeout is out of range"
	}
	return ms, ""
}

// runWait counts owners that hold the last write, this node included.
func runWait(s *session, args [][]byte, w *Reply) {
	n, ok := parseInt(args[1])
	if !ok {
		w.Error(errNotInteger)
		return
	}
	ms, fault := s.parseWait(args[2])
	if fault != "" {
		w.Error(fault)
		return
	}
	got, err := s.awaitSpread(coordinator.SpreadRequest{Total: int(min(n, math.MaxInt32))}, ms)
	if err != nil {
		w.Error(err.Error())
		return
	}
	w.Int(int64(got.Holders()))
}

// runWaitAOF counts owners that have synced the last write: this node, and others.
func runWaitAOF(s *session, args [][]byte, w *Reply) {
	local, ok := parseInt(args[1])
	n, okN := parseInt(args[2])
	switch {
	case !ok:
		w.Error(errNotInteger)
		return
	case local < 0 || local > 1:
		w.Error("ERR value is out of range, value must between 0 and 1")
		return
	case !okN || n < 0:
		w.Error("ERR value is out of range, must be positive")
		return
	}
	ms, fault := s.parseWait(args[3])
	if fault != "" {
		w.Error(fault)
		return
	}
	got, err := s.awaitSpread(coordinator.SpreadRequest{Synced: true, Local: local == 1, Others: int(min(n, math.MaxInt32))}, ms)
	if err != nil {
		w.Error(err.Error())
		return
	}
	w.Array(2)
	w.Int(int64(got.Holders() - got.Others))
	w.Int(int64(got.Others))
}

// Pauses between two looks at the owners. A look asks each of them once.
const (
	firstLookPause = 20 * time.Millisecond
	longLookPause  = time.Second
)

// errUnblocked is what a command answers that CLIENT UNBLOCK ended with an error.
var errUnblocked = errors.New("UNBLOCKED client unblocked via CLIENT UNBLOCK")

// errBlockEnded ends a wait as if its time were over.
var errBlockEnded = errors.New("resp: the wait was ended")

// A block is a command that waits for long, and how to end it.
type block struct{ end context.CancelCauseFunc }

// unblock ends what the connection waits for, if it does.
func (c *client) unblock(why error) bool {
	b := c.block.Load()
	if b == nil {
		return false
	}
	b.end(why)
	return true
}

// hold has what this connection waits for end with ctx, which others can end, until it
// is released.
func (s *session) hold() (ctx context.Context, release func()) {
	ctx, end := context.WithCancelCause(s.srv.base)
	s.client.block.Store(&block{end})
	return ctx, func() {
		s.client.block.Store(nil)
		end(nil)
	}
}

// awaitSpread looks at the owners of the last write until enough of them have it, the
// time is over or somebody ends the wait. In a batch it looks once, as Redis does.
func (s *session) awaitSpread(req coordinator.SpreadRequest, ms int64) (best coordinator.Spread, err error) {
	switch {
	case s.wrote.unknown:
		return coordinator.Spread{}, nil
	case s.wrote.key == nil: // whatever was written, all have it
		return coordinator.Spread{Owner: true, Local: true, Others: max(0, s.admin().RingStatus().N-1)}, nil
	}
	req.Key, req.Wrote = append([]byte(nil), s.wrote.key...), s.wrote.wrote
	ctx := s.srv.base
	if !s.tx.running {
		held, release := s.hold()
		defer release()
		ctx = held
	}
	if ms > 0 && ms < int64(math.MaxInt64/time.Millisecond) {
		timed, cancel := context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
		ctx = timed
	}
	if s.tx.running {
		return s.look(ctx, req, best), nil
	}
	// Who ended this before it was held has not seen it.
	for pause := firstLookPause; !s.closing && !s.srv.stop.Load() && !s.client.killed.Load(); pause = min(2*pause, longLookPause) {
		req.Has = best.Has
		best = s.look(ctx, req, best)
		if best.Met(&req) || hungUp(s.client.conn) {
			return best, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if cause := context.Cause(ctx); errors.Is(cause, errUnblocked) {
				return best, cause
			}
			return best, nil
		}
	}
	return best, nil
}

// look is one look. What an owner has it keeps, so the most that was seen is true; a
// look that fails has seen nothing.
func (s *session) look(ctx context.Context, req coordinator.SpreadRequest, best coordinator.Spread) coordinator.Spread {
	got, err := s.store().Spread(ctx, req)
	if err != nil {
		return best
	}
	got.Others, got.Local = max(got.Others, best.Others), got.Local || best.Local
	return got
}

// hungUp reports whether the client is known to have left, whatever it has sent before:
// then there is nobody to wait for. Under TLS only the end of the connection below is
// noticed, which follows the alert that closes the one above.
func hungUp(conn net.Conn) bool {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	return peekEnd(conn)
}
