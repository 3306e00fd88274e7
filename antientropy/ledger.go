package antientropy

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// ledger keeps when the last session of each partition with each peer began.
type ledger struct {
	mu struct {
		sync.Mutex
		sessions map[ring.NodeID][]time.Time // by partition
		opened   map[ring.NodeID]opened      // by peers, and not at their end
	}
}

// enter notes sessions that have ended well.
func (l *ledger) enter(node ring.NodeID, units int, parts []int, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.sessions == nil {
		l.mu.sessions = map[ring.NodeID][]time.Time{}
	}
	last := l.mu.sessions[node]
	if len(last) != units {
		last = make([]time.Time, units)
		l.mu.sessions[node] = last
	}
	for _, p := range parts {
		last[p] = began
	}
}

// met reports whether there was a session with a node in this run.
func (l *ledger) met(node ring.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.sessions[node] != nil
}

// last returns when the last session of a partition with a node began.
func (l *ledger) last(partition int, node ring.NodeID) (began time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sessions := l.mu.sessions[node]
	if partition < 0 || partition >= len(sessions) {
		return time.Time{}, false
	}
	return sessions[partition], !sessions[partition].IsZero()
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
// noted, so there are few. While another peer's session goes on it answers
// ErrBusy: a node that lacks much would be brought the same rows by everybody at
// once.
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
	now := time.Now()
	for other, o := range l.mu.opened {
		if other != from && now.Sub(o.heard) < lease {
			return ErrBusy
		}
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

// ServeEnd enters a session that a peer has brought to its end, and calls done
// when all that it has brought is durable here. A session that began in another
// run of this node, or under another ring, proves nothing here; it ended well all
// the same.
func (x *Exchanger) ServeEnd(from ring.NodeID, s Session, done func(error)) {
	l := &x.ledger
	l.mu.Lock()
	o, known := l.mu.opened[from]
	delete(l.mu.opened, from)
	l.mu.Unlock()
	x.src.Barrier(func(err error) {
		if r := x.cluster.Ring(); err == nil && known && o.session == s && r != nil && r.Epoch() == s.Epoch {
			l.enter(from, r.Units(), shared(r, x.cluster.Self(), from, s.First, s.Last), o.began)
		}
		done(err)
	})
}
