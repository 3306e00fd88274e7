package resp

import (
	"hash/maphash"
	"time"

	"github.com/tidwall/redcon"
)

// flight is a started command whose reply is still owed.
type flight struct {
	pending pending
	row     *command
	args    [][]byte
	began   time.Duration
	weight  int64 // keys it asks for at once
	mute    bool  // CLIENT REPLY OFF or SKIP
}

// touched is a key of a command in flight.
type touched struct {
	hash   uint64
	writes bool
}

const (
	// firstWindow is how many commands a new connection may have in flight. The
	// window doubles with every round of small replies and shrinks at once after
	// a large one, so that a client that asks for many large values and does not
	// read them makes the server hold few.
	firstWindow = 2
	// windowBytes is what the replies of a window may come to, judged by the
	// largest recent one.
	windowBytes = 1 * mib
	// batchKeys is from how many keys on a command is run alone: comparing them
	// with every key in flight would cost more than it gains.
	batchKeys = 32
	// comparedKeys bounds the keys a new command is compared with.
	comparedKeys = 512
)

// A pipeline keeps the commands of a connection that are under way, oldest
// first. Replies leave in that order.
//
// Invariant: no two commands in flight touch one key unless both only read.
type pipeline struct {
	flights []flight // [head:] are owed
	head    int
	keys    []touched
	seed    maphash.Seed
	window  int
	burst   bool // more commands have arrived than one
	corked  bool // what commands ask of other nodes is held back
}

// execute starts or runs a batch. It ends early when the connection is to be
// closed. What is still in flight afterwards is for the next batch or settle.
func (s *session) execute(cmds []redcon.Command) {
	s.wall = s.srv.cfg.Now()
	s.client.used.Store(s.wall.UnixMilli())
	s.tick = s.srv.uptime()
	s.burst = len(cmds) > 1
	for i := range cmds {
		s.dispatch(cmds[i].Args)
		if s.closing {
			break
		}
	}
	s.uncork()
}

// cork holds back what commands ask of other nodes until uncork, which must come
// before this goroutine waits for any of it.
func (s *session) cork() {
	if !s.corked {
		s.corked = true
		s.srv.cfg.Cork.In()
	}
}

func (s *session) uncork() {
	if s.corked {
		s.corked = false
		s.srv.cfg.Cork.Out()
	}
}

// dispatch gates one command and starts, runs or queues it.
func (s *session) dispatch(args [][]byte) {
	mute := s.muted()
	row, refused := s.srv.table.find(args)
	if refused == "" {
		refused = s.gate(row, args)
	}
	if refused == "" && s.tx.open && !row.atOnce {
		if refused = s.enqueue(row, args); refused == "" {
			s.acknowledge(mute)
			return
		}
	}
	if refused == "" && s.srv.pause.active.Load() {
		if !s.awaitPause(row.changes() || row.batch && s.tx.changes()) {
			return
		}
		if s.srv.access.users.Load() != s.who.users {
			refused = s.gate(row, args) // the rules have changed while it waited
		}
	}
	switch {
	case refused != "":
		s.settle()
		s.refuse(row, refused, mute)
	case row.batch:
		s.settle()
		s.exec(row, args, mute)
		s.showMonitors(row, args) // after the commands of the batch
	default:
		s.perform(row, args, mute)
	}
}

// perform starts or runs a command against which nothing speaks.
func (s *session) perform(row *command, args [][]byte, mute bool) {
	began := s.tick
	if row.start != nil {
		weight := s.admit(row, args)
		s.srv.flying.Add(weight)
		if s.burst || weight > 1 {
			s.cork()
		}
		s.flights = append(s.flights, flight{row.start(s, args), row, args, began, weight, mute})
		return
	}
	s.settle()
	if row.pushes {
		s.handOver()
	}
	if row.blocks && !s.tx.running {
		_ = s.flush() // sets closing; the command looks at the connection itself
	}
	at := s.reply.begin(s.limits().MaxReply)
	s.client.last.Store(row)
	row.run(s, args, &s.reply)
	if row.replyMode {
		mute = s.replyOff // the command speaks for itself
	}
	s.answered(row, args, began, at, mute)
}

// refuse answers a command that is not run; behind MULTI it spoils the batch.
func (s *session) refuse(row *command, text string, mute bool) {
	at := s.reply.begin(s.limits().MaxReply)
	if row != nil {
		row.stats.rejected.Add(1)
	}
	s.reply.Error(s.spoil(row, text))
	if mute {
		s.reply.buf = s.reply.buf[:at]
	}
}

// admit waits until row may start: for room, and for commands in flight that
// touch its keys unless all of them only read. It returns how many keys count as
// in flight with it.
func (s *session) admit(row *command, args [][]byte) (weight int64) {
	first, last, step := row.keyRange(len(args))
	if first == 0 {
		s.settle()
		return 1
	}
	weight = int64((last-first)/step + 1)
	if weight >= batchKeys || len(s.keys) >= comparedKeys {
		s.settle()
	}
	mark := len(s.keys)
	for i := first; i <= last; i += step {
		key := touched{maphash.Bytes(s.seed, args[i]), row.writes}
		if s.conflicts(key, mark) {
			s.settle()
			// The earlier keys of this command went with those settled.
			return s.admit(row, args)
		}
		s.keys = append(s.keys, key)
	}
	if len(s.flights)-s.head >= s.window || s.srv.crowded() {
		s.landTo(s.window / 2)
	}
	return min(weight, fanWidth)
}

// landTo answers until no more than so many commands are in flight, and while the
// server is crowded until none is. A full window is half emptied at once, because
// commands that start one by one are sent one by one.
func (s *session) landTo(most int) {
	for n := len(s.flights) - s.head; n > 0 && (n > most || s.srv.crowded()); n-- {
		s.land()
	}
}

// crowded reports that the server as a whole has enough in flight: then each
// connection runs one command at a time. How much is enough depends on the size
// of the replies lately seen, for their bytes are held until they are sent.
func (s *Server) crowded() bool {
	most := int64(s.cfg.Limits.MaxInFlight)
	if large := s.large.Load(); large > 0 {
		most = min(most, s.cfg.Limits.MaxReplies/large)
	}
	return s.flying.Load() >= most || s.replies.used.Load() > s.cfg.Limits.MaxReplies
}

// noteReply keeps the size of the largest recent reply: a large one counts at
// once, and is forgotten over some hundred small ones.
func (s *Server) noteReply(n int64) {
	large := s.large.Load()
	switch {
	case n >= heldReply && n > large:
		s.large.Store(n)
	case large >= heldReply:
		s.large.Store(large - large/64)
	case large > 0:
		s.large.Store(0)
	}
}

func (s *session) conflicts(key touched, mark int) bool {
	for _, k := range s.keys[:mark] {
		if k.hash == key.hash && (k.writes || key.writes) {
			return true
		}
	}
	return false
}

// settle answers everything in flight.
func (s *session) settle() {
	s.uncork()
	for s.head < len(s.flights) {
		s.land()
	}
	clear(s.flights) // do not keep replies alive
	s.flights, s.head, s.keys = s.flights[:0], 0, s.keys[:0]
}

// abandon forgets what is in flight, after a panic.
func (s *session) abandon() {
	s.uncork()
	for _, f := range s.flights[s.head:] {
		s.srv.flying.Add(-f.weight)
	}
	s.flights, s.head = nil, 0
}

// land answers the oldest command in flight. Its keys stay in keys until the
// pipeline is empty: a superfluous wait at worst.
func (s *session) land() {
	f := s.flights[s.head]
	s.flights[s.head].pending, s.flights[s.head].args = nil, nil
	s.head++
	at := s.reply.begin(s.limits().MaxReply)
	s.client.last.Store(f.row)
	f.pending.finish(&s.reply)
	s.srv.flying.Add(-f.weight)
	s.adapt(len(s.reply.buf) - at)
	s.answered(f.row, f.args, f.began, at, f.mute)
}

// adapt moves the window after a reply of n bytes.
func (s *session) adapt(n int) {
	s.srv.noteReply(int64(n))
	if fit := windowBytes / max(n, 1); s.window > fit {
		s.window = max(1, fit)
	} else if s.window < s.limits().Window {
		s.window++
	}
}

// answered books a reply that was just written at offset at, and sends what has
// gathered when it is much. A command's time is counted from the arrival of its
// batch, or from the reply before it when it began after that.
func (s *session) answered(row *command, args [][]byte, began time.Duration, at int, mute bool) {
	s.tick = s.srv.uptime()
	at = min(at, len(s.reply.buf)) // a reply that was handed over is not there any more
	if s.reply.overflow {
		s.reply.buf = s.reply.buf[:at]
		s.reply.Error(errReplyTooLong)
	}
	took := s.tick - began
	row.stats.calls.Add(1)
	row.stats.nanos.Add(int64(took))
	row.stats.took.add(took)
	s.noteSlow(row, args, took)
	s.noteLatency(row, took)
	if len(s.reply.buf) > at && s.reply.buf[at] == '-' {
		row.stats.failed.Add(1)
	}
	if mute {
		s.reply.buf = s.reply.buf[:at]
	}
	if len(s.events) > 0 {
		s.announce(min(at, len(s.reply.buf)))
	}
	if !row.batch {
		s.showMonitors(row, args)
	}
	if len(s.reply.buf)+s.owed >= s.limits().FlushBytes {
		_ = s.flush() // sets closing; what is in flight is still waited for
	}
}
