package resp

import (
	"errors"
	"fmt"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

const (
	// spareCalls bounds the finished calls a connection keeps for reuse.
	spareCalls = 128
	// fanWidth bounds the calls that one command over many keys has in flight;
	// further keys wait for the oldest.
	fanWidth = 256
)

// A call is one request to the store and its reply to come. It is the pending of
// every command over one key, and the part for one key of the others. Calls are
// taken and given back on the connection's goroutine; only the callbacks run
// elsewhere, and they touch nothing but the outcome.
type call struct {
	s    *session
	key  []byte
	args [][]byte
	show func(c *call, w *Reply)

	// What the command keeps for its reply.
	from, to int64
	fault    string
	withOld  bool
	deed     deed
	op       version.OpKind // of the write; 0: it is none

	// The outcome; ready orders it before finish.
	ready chan struct{}
	err   error
	read  coordinator.ReadResult
	wrote coordinator.WriteResult

	onRead  func(coordinator.ReadResult, error)
	onWrite func(coordinator.WriteResult, error)
}

// newCall takes a call from the spare ones of the connection.
func (s *session) newCall(key []byte, args [][]byte, show func(c *call, w *Reply)) *call {
	var c *call
	if n := len(s.spare); n > 0 {
		c, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		c = &call{s: s, ready: make(chan struct{}, 1)}
		c.onRead = func(r coordinator.ReadResult, err error) {
			c.read, c.err = r, err
			c.ready <- struct{}{}
		}
		c.onWrite = func(r coordinator.WriteResult, err error) {
			c.wrote, c.err = r, err
			c.ready <- struct{}{}
		}
	}
	c.key, c.args, c.show = key, args, show
	return c
}

// release gives the call back. It drops every reference, so that a quiet
// connection pins no values.
func (c *call) release() {
	s := c.s
	if len(s.spare) >= spareCalls {
		return
	}
	*c = call{s: s, ready: c.ready, onRead: c.onRead, onWrite: c.onWrite}
	s.spare = append(s.spare, c)
}

// wait returns when the outcome is there.
func (c *call) wait() error {
	if len(c.ready) == 0 {
		c.s.uncork()
	}
	<-c.ready
	c.s.wrote.note(c)
	return c.err
}

// finish implements pending.
func (c *call) finish(w *Reply) {
	if err := c.wait(); err != nil {
		w.Fail(err)
	} else {
		c.show(c, w)
	}
	c.release()
}

// beginRead starts reading key with the settings of the connection.
func (s *session) beginRead(key []byte, args [][]byte, show func(c *call, w *Reply)) *call {
	c := s.newCall(key, args, show)
	s.store().Read(key, s.readOptions(), c.onRead)
	return c
}

// peek is beginRead for commands to which a missing key is no miss.
func (s *session) peek(key []byte, args [][]byte, show func(c *call, w *Reply)) *call {
	c := s.beginRead(key, args, show)
	c.deed.unseen = true
	return c
}

// beginWrite starts a plain write: it covers what the coordinator holds and all
// that this connection has read of the key, and it wins over everything the
// connection has seen (design §3.4).
func (s *session) beginWrite(key []byte, args [][]byte, op version.Op, show func(c *call, w *Reply)) *call {
	c := s.newCall(key, args, show)
	c.withOld, c.deed = op.ReturnOld, deedOf(&op)
	overwriting(&op, s.implicit(key))
	op.MinHLC = s.hlc()
	op.MaxValue = s.limits().MaxValue
	c.write(op, s.writeOptions())
	return c
}

// write starts a write.
func (c *call) write(op version.Op, o coordinator.WriteOptions) {
	c.op = op.Kind
	c.s.store().Write(c.key, op, o, c.onWrite)
}

// tooLong reports whether a value may not be stored at all.
func (s *session) tooLong(value []byte) bool { return len(value) > s.limits().MaxValue }

// winner is the version a plain client sees, if any. The connection's later
// writes will win over it.
func (c *call) winner() (version.Version, bool) {
	c.s.observe(c.read.Record.MaxHLC())
	v, ok := c.read.Record.Winner(c.s.now().UnixMilli())
	if !ok {
		c.noteMiss()
	}
	return v, ok
}

// shown is winner for replies that carry the value: the connection has then
// read all siblings, not only the one shown, or the losers would never be
// collapsed by the write that follows.
func (c *call) shown() (version.Version, bool) {
	c.s.remember(c.key, c.read.Record.ReadToken())
	return c.winner()
}

// noteWrite takes the outcome of a plain write into the session.
func (c *call) noteWrite() *coordinator.WriteResult {
	r := &c.wrote
	c.s.observe(r.HLC)
	c.noteDeed()
	if r.Applied || c.withOld {
		c.s.remember(c.key, r.Token)
	}
	return r
}

// old writes the value before the write, or null.
func (c *call) old(w *Reply) {
	if c.wrote.HadOld {
		w.Bulk(c.wrote.Old)
		return
	}
	w.Null()
}

// A fan is a command over n keys: one call for each, at most fanWidth of them
// in flight, folded in order of the keys.
type fan struct {
	n     int
	begin func(i int) *call
	fold  func(c *call, w *Reply)
	done  func(w *Reply) // after the last fold, when no call failed
	write bool

	calls   []*call // ring of those in flight
	started int
	failure error // the first
	failed  int
	unsure  bool // some failed call may have written
}

// launch starts what may be in flight at once.
func (f *fan) launch() *fan {
	f.calls = make([]*call, min(f.n, fanWidth))
	for f.started < len(f.calls) {
		f.next()
	}
	return f
}

func (f *fan) next() {
	f.calls[f.started%len(f.calls)] = f.begin(f.started)
	f.started++
}

// collect waits for every call, starting the rest as places become free, and
// returns the first failure.
func (f *fan) collect(w *Reply) error {
	for i := range f.n {
		c := f.calls[i%len(f.calls)]
		if err := c.wait(); err != nil {
			f.fail(c)
		} else {
			f.fold(c, w)
		}
		c.release()
		if f.started < f.n {
			f.next()
		}
	}
	if f.unsure { // whatever came of the last key
		f.calls[0].s.wrote.lose()
	}
	return f.failure
}

// finish implements pending: one failed call fails the command, whatever part of
// its reply was built.
func (f *fan) finish(w *Reply) {
	mark := len(w.buf)
	if f.collect(w) != nil {
		w.buf = w.buf[:mark]
		f.refuse(w)
		return
	}
	if f.done != nil {
		f.done(w)
	}
}

func (f *fan) fail(c *call) {
	f.failed++
	if f.failure == nil {
		f.failure = c.err
	}
	f.unsure = f.unsure || c.op != 0 && !unwritten(c.err)
}

// refuse writes the error of the whole command. The words that clients take for
// "nothing was written" are used only when that is so for every key.
func (f *fan) refuse(w *Reply) {
	if !f.write || f.n == 1 || (f.failed == f.n && !f.unsure) {
		w.Fail(f.failure)
		return
	}
	w.Error(fmt.Sprintf("UNCERTAIN wrote %d of %d keys; the first failure was: %s", f.n-f.failed, f.n, errorText(f.failure)))
}

// unwritten reports whether a failed write certainly left nothing behind.
func unwritten(err error) bool {
	for _, e := range []error{coordinator.ErrDiskFull, coordinator.ErrNoReplicas, coordinator.ErrNoReadQuorum, coordinator.ErrOverloaded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return version.Refused(err)
}

// distinct returns the keys in order without repeats.
func distinct(keys [][]byte) [][]byte {
	if len(keys) < 2 {
		return keys
	}
	seen := make(map[string]struct{}, len(keys))
	once := make([][]byte, 0, len(keys))
	for _, k := range keys {
		if _, ok := seen[string(k)]; !ok {
			seen[string(k)] = struct{}{}
			once = append(once, k)
		}
	}
	return once
}
