package antientropy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// ledger keeps when the last sessions of each partition with each peer began.
type ledger struct {
	mu struct {
		sync.Mutex
		sessions map[ring.NodeID][]sessions // by partition
		opened   map[ring.NodeID]opened     // by peers, and not at their end
		ends     map[ring.NodeID]bool       // peers that may yet be told of an end that this node does not wait for any more
		own      ring.NodeID                // with whom this node has begun one; 0: nobody
		waiting  int                        // those here that wait to begin one
	}
}

// sessions are when the last of a partition with a peer began; zero: none yet.
type sessions struct {
	any   time.Time
	whole time.Time // that this node has begun and in which contexts were compared too
}

// enter notes sessions that have ended well.
func (l *ledger) enter(node ring.NodeID, units int, parts []int, began time.Time, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.sessions == nil {
		l.mu.sessions = map[ring.NodeID][]sessions{}
	}
	last := l.mu.sessions[node]
	if len(last) != units {
		last = make([]sessions, units)
		l.mu.sessions[node] = last
	}
	for _, p := range parts {
		last[p].any = began
		if whole {
			last[p].whole = began
		}
	}
}

// mayEnd notes whether the end of a session may yet reach a peer. Once a later one has
// got there, none will.
func (l *ledger) mayEnd(node ring.NodeID, may bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.ends == nil {
		l.mu.ends = map[ring.NodeID]bool{}
	}
	l.mu.ends[node] = may
}

// ending reports what mayEnd has noted.
func (l *ledger) ending(node ring.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.ends[node]
}

// met reports whether there was a session with a node in this run.
func (l *ledger) met(node ring.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.sessions[node] != nil
}

// last returns when the last sessions of a partition with a node began.
func (l *ledger) last(partition int, node ring.NodeID) sessions {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.mu.sessions[node]
	if partition < 0 || partition >= len(last) {
		return sessions{}
	}
	return last[partition]
}

// ErrBusy refuses a session: another one goes on here.
var ErrBusy = errors.New("antientropy: in a session with another node")

// lease is how long a session without a question counts as going on.
const lease = 20 * time.Second

// opened is a session that a peer began with this node.
type opened struct {
	session Session
	began   time.Time
	heard   time.Time // of the last question
}

// ServeBegin notes that a peer begins a session. Only members of the ring are
// noted, so there are few. While another session goes on, or somebody here waits to
// begin one, it answers ErrBusy: a node that lacks much would be brought the same rows
// by everybody at once. Of two that begin with each other at once, one is refused.
//
// A peer that begins anew has given a session up. Its end may be on the way all
// the same, and would be taken for the end of this one: so what comes to an end
// next counts from the first beginning.
func (x *Exchanger) ServeBegin(from ring.NodeID, s Session) error {
	if !slices.Contains(x.peers(), from) {
		return nil
	}
	l := &x.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	self, now := x.cluster.Self(), time.Now()
	meets := l.mu.own == from && begins(from, self)
	if l.mu.own != 0 && !meets || l.mu.waiting > 0 || x.servesLocked(from, now) {
		return ErrBusy
	}
	if l.mu.opened == nil {
		l.mu.opened = map[ring.NodeID]opened{}
	}
	began := now
	if given, up := l.mu.opened[from]; up {
		began = given.began
	}
	l.mu.opened[from] = opened{s, began, now}
	return nil
}

// servesLocked reports whether the session of some peer but one goes on. One that has
// gone away may begin anew.
func (x *Exchanger) servesLocked(but ring.NodeID, now time.Time) bool {
	for other, o := range x.ledger.mu.opened {
		if other != but && now.Sub(o.heard) < lease && x.cluster.Up(other) {
			return true
		}
	}
	return false
}

// enterOwn reports whether this node may begin a session with a peer, which it then
// has begun until leaveOwn. It is in one session at a time, whoever began it.
func (x *Exchanger) enterOwn(node ring.NodeID) bool {
	l := &x.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.own != 0 || x.servesLocked(0, time.Now()) {
		return false
	}
	l.mu.own = node
	return true
}

// leaveOwn ends what enterOwn began.
func (x *Exchanger) leaveOwn() {
	x.ledger.mu.Lock()
	defer x.ledger.mu.Unlock()
	x.ledger.mu.own = 0
}

// ownPause is the time between two looks whether a session may begin here.
const ownPause = 20 * time.Millisecond

// awaitOwn is enterOwn once that is possible. Nobody else's session begins meanwhile.
func (x *Exchanger) awaitOwn(ctx context.Context, node ring.NodeID) error {
	wait := func(n int) {
		x.ledger.mu.Lock()
		defer x.ledger.mu.Unlock()
		x.ledger.mu.waiting += n
	}
	wait(1)
	defer wait(-1)
	for !x.enterOwn(node) {
		if err := sleep(ctx, ownPause); err != nil {
			return err
		}
	}
	return nil
}

// Heard notes a question of a peer's session.
func (x *Exchanger) Heard(from ring.NodeID) {
	l := &x.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if o, known := l.mu.opened[from]; known {
		o.heard = time.Now()
		l.mu.opened[from] = o
	}
}

// compared returns the rings whose owners a session compares: by its epoch these are
// all live ones, or the base alone; nil if it is about others.
func compared(live *ring.Live, epoch uint64) *ring.Live {
	switch {
	case live == nil || live.Epoch() == epoch:
		return live
	case live.Base.Epoch() == epoch:
		return ring.NewLive(live.Base)
	}
	return nil
}

// ServeEnd enters a session that a peer has brought to its end, and calls done
// when all that it has brought is durable here. A session that began in another
// run of this node, or under another ring, proves nothing here; it ended well all
// the same. The end of another session than the one that is open is late: what is open
// stays. Who gives a session up says so by an end, too.
func (x *Exchanger) ServeEnd(from ring.NodeID, s Session, done func(error)) {
	l := &x.ledger
	l.mu.Lock()
	o, open := l.mu.opened[from]
	known := open && o.session == s
	if known || open && s == o.session.givenUp() {
		delete(l.mu.opened, from)
	}
	l.mu.Unlock()
	x.src.Barrier(func(err error) {
		if r := compared(x.cluster.Rings().Live, s.Epoch); err == nil && known && r != nil {
			l.enter(from, r.Units(), shared(r, x.cluster.Self(), from, s.First, s.Last), o.began, false)
		}
		done(err)
	})
}
