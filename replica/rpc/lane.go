package rpc

import (
	"encoding/binary"
	"math"
	"runtime"
	"sync"
	"time"
)

const (
	slotBits = 16
	maxSlots = 1 << slotBits

	// A request that waited this long to be written has its deadline written
	// anew, or is left out when nobody waits for it any more.
	staleAfter = 10 * time.Millisecond

	// Buffers grown past this by a burst are given back after it.
	keepBufferBytes = 256 << 10

	// A writer is handed about as much at once. The deadlines of what it has are
	// not looked at again.
	maxBatchBytes = 1 << 20

	// As much is sent even if a burst is under way; see Cork.
	burstBytes = 16 << 10

	never = time.Duration(math.MaxInt64)
)

// lane is one of the two connections to a peer together with the calls that
// use it. The connection comes and goes; the lane stays.
//
// A call's id is its sequence number over its slot in the table, so ids ascend,
// a slot is found without a map, and the reply to an earlier user of the slot
// is told from a reply nobody can have sent.
//
// Invariant: every call in the table is completed exactly once, by whoever
// takes it out of the table, with no lock held.
type lane struct {
	p    *Peer
	bulk bool

	mu struct {
		sync.Mutex
		shut    bool     // no calls are taken any more
		session *session // nil while not connected
		wanted  bool     // a call waits for a connection

		out     []byte        // frames not yet taken by the writer
		firstAt time.Duration // when the oldest of them was put there
		stale   bool          // some of them belong to calls that have ended
		stampAt time.Duration // what was put there by a look at the clock before this must be looked at again
		held    bool          // the pool's cork knows of them

		seq    uint64 // of the newest call
		handed uint64 // of the newest call a writer may have sent
		table  []waiting
		free   []uint16
		calls  int
		bytes  int
		sweep  time.Duration // no deadline in the table is earlier
	}
}

// waiting is a call in flight. A free slot has id 0.
type waiting struct {
	id       uint64
	kind     Kind
	class    Class
	bytes    int
	sent     time.Duration
	deadline time.Duration
	done     completion
}

// ended is a call taken out of the table, with what it ended with.
type ended struct {
	waiting
	payload []byte
	err     error
}

func newLane(p *Peer, bulk bool) *lane {
	l := &lane{p: p, bulk: bulk}
	l.mu.sweep = never
	return l
}

// send puts one request into the table and behind the frames already gathered.
// An error means that it did not, and that done was not called.
func (l *lane) send(kind Kind, o Options, payload int, enc func([]byte) []byte, done completion) error {
	cfg := &l.p.pool.cfg
	size := headerBytes + fixedBytes + payload
	now := time.Now()
	left := cfg.CallTimeout
	if !o.Deadline.IsZero() {
		left = o.Deadline.Sub(now)
	}
	if left <= 0 {
		return ErrUnreachable
	}
	left = min(left, l.p.pool.ages.call)
	at := l.p.pool.since(now)

	l.mu.Lock()
	if err := l.admitLocked(kind, size); err != nil {
		l.mu.Unlock()
		return err
	}
	if len(l.mu.out) == 0 {
		l.mu.firstAt = at
	}
	if at < l.mu.stampAt {
		l.mu.stale = true // this goroutine was held up since it looked at the clock
	}
	id := l.nextIDLocked()
	start := len(l.mu.out)
	l.mu.out = beginFrame(l.mu.out, header{kind: kind, class: o.Class, id: id, deadlineMS: ceilMS(left), epochs: o.Epochs}, l.versionLocked())
	l.mu.out = enc(l.mu.out)
	sealFrame(l.mu.out[start:])
	w := waiting{id: id, kind: kind, class: o.Class, bytes: len(l.mu.out) - start, sent: at, deadline: at + left, done: done}
	l.mu.table[id%maxSlots] = w
	l.mu.calls++
	l.mu.bytes += w.bytes
	earlier := w.deadline < l.mu.sweep
	if earlier {
		l.mu.sweep = w.deadline
	}
	if l.mu.session == nil {
		earlier = earlier || !l.mu.wanted
		l.mu.wanted = true
	} else if l.mu.session.idle && !l.holdLocked() {
		l.mu.session.wake.Signal()
	}
	l.mu.Unlock()
	if earlier {
		nudge(l.p.kick)
	}
	return nil
}

// holdLocked reports whether the gathered frames wait for the end of a burst.
func (l *lane) holdLocked() bool {
	if len(l.mu.out) >= burstBytes {
		return false
	}
	l.mu.held = l.mu.held || l.p.pool.cfg.Cork.Hold(l)
	return l.mu.held
}

// Uncork implements cork.Conn.
func (l *lane) Uncork() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.held = false
	if s := l.mu.session; s != nil && s.idle && len(l.mu.out) > 0 {
		s.wake.Signal()
	}
}

// admitLocked refuses a call there is no room for. Pings pass, up to the size of
// the table: they are few, and without them the connection would end.
func (l *lane) admitLocked(kind Kind, size int) error {
	cfg := &l.p.pool.cfg
	maxFrame := cfg.MaxFrameBytes
	if s := l.mu.session; s != nil {
		maxFrame = s.terms.maxFrame
	}
	switch {
	case l.mu.shut:
		return ErrUnreachable
	case !kind.spoken(l.versionLocked()):
		return ErrUnsupported
	case size > maxFrame:
		return ErrTooLarge
	case l.mu.session == nil && !l.p.Up():
		return ErrUnreachable
	case kind == KindPing && l.mu.calls < maxSlots:
		return nil
	case l.mu.calls >= cfg.MaxCalls:
		return ErrOverloaded
	case l.mu.bytes+size > cfg.MaxCallBytes, len(l.mu.out)+size > cfg.MaxCallBytes:
		return ErrOverloaded
	default:
		return nil
	}
}

// versionLocked is the version of the protocol in which frames are gathered: the newest
// until there is a connection, whose version attach turns them into.
func (l *lane) versionLocked() uint16 {
	if s := l.mu.session; s != nil {
		return s.terms.version
	}
	return protocolMax
}

// nextIDLocked draws the id of a new call and makes sure it has a slot.
func (l *lane) nextIDLocked() uint64 {
	if len(l.mu.free) == 0 {
		l.mu.free = append(l.mu.free, uint16(len(l.mu.table)))
		l.mu.table = append(l.mu.table, waiting{})
	}
	last := len(l.mu.free) - 1
	slot := l.mu.free[last]
	l.mu.free = l.mu.free[:last]
	l.mu.seq++
	return l.mu.seq<<slotBits | uint64(slot)
}

// takeLocked frees a slot and returns the call that had it.
func (l *lane) takeLocked(slot int) waiting {
	w := l.mu.table[slot]
	l.mu.table[slot] = waiting{}
	l.mu.free = append(l.mu.free, uint16(slot))
	l.mu.calls--
	l.mu.bytes -= w.bytes
	return w
}

// takeOut hands the gathered frames to the writer of s and gathers on in spare.
// It waits until there are some, and returns nil once s is no longer the lane's
// connection. A mark is to be written before them: a newer stamp.
//
// Invariant: each frame was looked at, and its call not over, after the newest
// stamp that stands before it was heard.
func (l *lane) takeOut(s *session, spare []byte) (out, mark []byte) {
	if cap(spare) > keepBufferBytes {
		spare = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.mu.out) == 0 && l.mu.session == s {
			s.idle = true
			s.wake.Wait()
			s.idle = false
			l.mu.Unlock()
			runtime.Gosched() // let whoever else has something to send put it there
			l.mu.Lock()
		}
		if l.mu.session != s {
			return nil, nil
		}
		at := l.p.pool.since(time.Now())
		if l.mu.stale || s.stampNews || at-l.mu.firstAt > staleAfter {
			l.renewLocked(at)
		}
		if len(l.mu.out) > 0 {
			break
		}
	}
	if s.stampNews {
		s.stampNews = false
		mark = stampFrame(s.stamp)
	}
	if out = l.mu.out; len(out) > maxBatchBytes {
		return l.takeSomeLocked(), mark
	}
	l.mu.out = spare[:0]
	l.mu.handed = l.mu.seq
	return out, mark
}

// takeSomeLocked takes the first of many gathered frames. The rest stays where it
// is, and gathers on behind them.
func (l *lane) takeSomeLocked() []byte {
	n := 0
	for n < len(l.mu.out) {
		size := prefixBytes + int(binary.BigEndian.Uint32(l.mu.out[n:]))
		if n > 0 && n+size > maxBatchBytes {
			break
		}
		l.mu.handed = binary.BigEndian.Uint64(l.mu.out[n+idOffset:]) >> slotBits
		n += size
	}
	out := l.mu.out[:n:n]
	l.mu.out = l.mu.out[n:]
	return out
}

// renewLocked drops the gathered frames whose calls have ended and gives the
// others the time they have left now.
func (l *lane) renewLocked(at time.Duration) {
	kept := l.mu.out[:0]
	for rest := l.mu.out; len(rest) > 0; {
		n := prefixBytes + int(binary.BigEndian.Uint32(rest))
		frame := rest[:n]
		rest = rest[n:]
		id := binary.BigEndian.Uint64(frame[idOffset:])
		w := l.mu.table[id%maxSlots]
		if w.id != id || w.deadline <= at {
			continue
		}
		binary.BigEndian.PutUint32(frame[deadlineOffset:], ceilMS(w.deadline-at))
		sealFrame(frame)
		kept = append(kept, frame...)
	}
	l.mu.out = kept
	l.mu.firstAt = at
	l.mu.stale = false
}

// settle takes the calls that the arrived replies answer out of the table. It
// appends them to dst and returns how many replies came too late. An error
// means that the frame at its turn was nobody's reply. A reply that came in time
// and was not read in time is late all the same: expire ends that call.
func (l *lane) settle(dst []ended, arrived []arrival, at time.Duration) (_ []ended, late int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range arrived {
		slot, seq := int(a.id%maxSlots), a.id>>slotBits
		if seq == 0 || seq > l.mu.handed || slot >= len(l.mu.table) {
			return dst, late, errStrayReply
		}
		w := &l.mu.table[slot]
		if w.id != a.id || w.deadline < at {
			late++
			continue
		}
		if a.kind != kindError && a.kind != w.kind|replyBit {
			return dst, late, errStrayReply
		}
		dst = append(dst, ended{waiting: l.takeLocked(slot), payload: a.payload})
		if a.kind == kindError {
			dst[len(dst)-1].err = errRemote
		}
	}
	return dst, late, nil
}

// expire takes the calls out whose deadline has passed and appends them to dst:
// with ErrUnreachable when they are still unsent, which they will then stay.
// It also returns when it has to be called next.
func (l *lane) expire(dst []ended, at time.Duration) ([]ended, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at < l.mu.sweep {
		return dst, l.mu.sweep
	}
	l.mu.sweep = never
	for slot := range l.mu.table {
		w := &l.mu.table[slot]
		switch {
		case w.id == 0:
		case w.deadline > at:
			l.mu.sweep = min(l.mu.sweep, w.deadline)
		default:
			dst = append(dst, l.endLocked(slot, ErrTimeout))
		}
	}
	return dst, l.mu.sweep
}

// endLocked takes one call out with the given error, or with ErrUnreachable if
// no writer had it.
func (l *lane) endLocked(slot int, err error) ended {
	e := ended{waiting: l.takeLocked(slot), err: err}
	if e.id>>slotBits > l.mu.handed {
		e.err = ErrUnreachable
		l.mu.stale = true
	}
	return e
}

// attach makes s the lane's connection and lets go what has waited for one. It
// returns the calls that it cannot carry, and false when the lane was shut
// meanwhile.
func (l *lane) attach(s *session) ([]ended, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.shut {
		return nil, false
	}
	l.mu.session = s
	l.mu.wanted = false
	l.mu.out = inVersion(l.mu.out, s.terms.version)
	l.mu.stale = true
	l.mu.stampAt = s.opened
	var calls []ended
	for slot := range l.mu.table {
		switch w := &l.mu.table[slot]; {
		case w.id == 0:
		case w.bytes > s.terms.maxFrame:
			calls = append(calls, ended{waiting: l.takeLocked(slot), err: ErrTooLarge})
		case !w.kind.spoken(s.terms.version):
			calls = append(calls, ended{waiting: l.takeLocked(slot), err: ErrUnsupported})
		}
	}
	return calls, true
}

// detach takes s and every call out of the lane, unless s is no longer its
// connection. With a nil s it takes out the calls that wait for a connection.
func (l *lane) detach(s *session) ([]ended, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.session != s {
		return nil, false
	}
	l.mu.session = nil
	l.mu.wanted = false
	if s != nil {
		s.wake.Broadcast()
	}
	var calls []ended
	for slot := range l.mu.table {
		if l.mu.table[slot].id != 0 {
			calls = append(calls, l.endLocked(slot, ErrClosed))
		}
	}
	l.mu.out = nil
	l.mu.stale = false
	l.mu.sweep = never
	return calls, true
}

// shut makes the lane take no more calls and returns its connection.
func (l *lane) shut() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.shut = true
	return l.mu.session
}

// state returns the connection and whether a call waits for one.
func (l *lane) state() (s *session, wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.session, l.mu.wanted
}

// progress returns the newest call, and the newest that the writer has taken.
func (l *lane) progress() (newest, handed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.seq, l.mu.handed
}

// ceilMS is d in milliseconds, at least one and never rounded down.
func ceilMS(d time.Duration) uint32 {
	return uint32(min(max((d+time.Millisecond-1)/time.Millisecond, 1), math.MaxUint32))
}
