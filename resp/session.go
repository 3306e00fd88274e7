package resp

import (
	"time"

	"github.com/tidwall/redcon"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

// A Door is one of the faces of a node.
type Door uint8

// The doors of design §3.2.
const (
	Plain    Door = iota // the whole key space, no redirections
	Cluster              // the published slot map, one MOVED per map change
	Sentinel             // no keys: tells clients of sentinels which plain door to use
)

// A session is the state of one connection. It belongs to the connection's
// goroutine; what other connections may ask of it is in shared.
type session struct {
	srv    *Server
	client *client
	guard  *guard
	reply  Reply
	batch  []redcon.Command // reused
	pipeline
	settings
	who
	sub    *subscriber // once it has subscribed to something
	owed   int         // reply bytes handed over and not waited for
	seen   seen        // contexts and tokens of the keys last touched
	wrote  lastWrite   // for WAIT
	newest version.HLC // highest HLC this connection read or wrote
	epoch  uint64      // map version the client has been told of
	spare  []*call     // finished calls, for reuse (data_call.go)
	tx     transaction // what came since MULTI or WATCH
	events []keyEvent  // of the command that is being answered

	wall time.Time     // when the present batch began
	tick time.Duration // uptime at the last reply, or when the batch began

	counted  int64 // received bytes already in the server's counts
	closing  bool  // nothing more is read
	broken   bool  // nothing more can be written
	replyOff bool  // CLIENT REPLY OFF
	skipNext bool  // CLIENT REPLY SKIP came; the next command is not answered
	skipping bool  // the present command is not answered
}

func newSession(srv *Server, c *client) *session {
	g := &guard{
		conn: c.conn, limits: &srv.cfg.Limits, query: &srv.query, stop: &srv.stop,
		since: time.Now(),
	}
	s := &session{srv: srv, client: c, guard: g}
	s.reply.proto = 2
	s.pipeline = pipeline{seed: srv.seed, window: min(firstWindow, srv.cfg.Limits.Window)}
	s.seen.seed = srv.seed
	s.logOut()
	if view := srv.cfg.Admin.View(); view != nil {
		s.epoch = view.Version
	}
	return s
}

// muted reports whether the command that begins now goes without an answer.
func (s *session) muted() bool {
	s.skipping, s.skipNext = s.skipNext, false
	return s.skipping || s.replyOff
}

// settings are what VCTX.SESSION changes and RESET restores.
type settings struct {
	r, w      int  // 0 = the namespace's
	siblings  bool // plain GET answers all siblings when there are several
	noContext bool // implicit contexts are off
}

func (s *session) store() Store        { return s.srv.cfg.Store }
func (s *session) admin() Admin        { return s.srv.cfg.Admin }
func (s *session) door() Door          { return s.srv.cfg.Door }
func (s *session) limits() *Limits     { return &s.srv.cfg.Limits }
func (s *session) hlc() version.HLC    { return s.newest }
func (s *session) mac() version.MACKey { return s.srv.cfg.TokenKey() }

// now is the wall clock when the present batch began: as in Redis, commands that
// arrived together see one time.
func (s *session) now() time.Time {
	if s.wall.IsZero() {
		return s.srv.cfg.Now()
	}
	return s.wall
}

// owned reports whether key space walks cover only the slots this node is first
// for (the cluster door), so that clients summing over masters are right.
func (s *session) owned() bool { return s.srv.cfg.Door == Cluster }

// observe makes later writes of this connection win over what it saw at h.
func (s *session) observe(h version.HLC) { s.newest = max(s.newest, h) }

// readOptions are the connection's settings for one read.
func (s *session) readOptions() coordinator.ReadOptions {
	return coordinator.ReadOptions{R: s.r, Timeout: s.limits().RequestTimeout}
}

// writeOptions are the connection's settings for one write.
func (s *session) writeOptions() coordinator.WriteOptions {
	return coordinator.WriteOptions{R: s.r, W: s.w, Timeout: s.limits().RequestTimeout}
}

// remember adds t to what this connection has read of key. It does nothing under
// SESSION CONTEXT OFF.
func (s *session) remember(key []byte, t version.Token) {
	if s.noContext || len(t.Context) == 0 {
		return
	}
	e := s.seen.touch(key)
	e.past = t.Join(e.past)
}

// implicit is what this connection has read of key, if it still knows.
func (s *session) implicit(key []byte) version.Token {
	if s.noContext {
		return version.Token{}
	}
	if e := s.seen.find(key); e != nil {
		return e.past
	}
	return version.Token{}
}

// overwriting has op overwrite what t has seen.
func overwriting(op *version.Op, t version.Token) { op.Context, op.Addends = t.Context, t.Addends }

// setLastToken notes the token a VCTX command returned for key.
func (s *session) setLastToken(key []byte, t version.Token) {
	e := s.seen.touch(key)
	e.token, e.hasToken = t, true
}

// lastToken is the last token this connection saw for key (VCTX "+").
func (s *session) lastToken(key []byte) (version.Token, bool) {
	e := s.seen.find(key)
	if e == nil || !e.hasToken {
		return version.Token{}, false
	}
	return e.token, true
}

// resetSettings restores the settings of a new connection.
func (s *session) resetSettings() {
	s.settings = settings{}
	s.seen.forget()
}
