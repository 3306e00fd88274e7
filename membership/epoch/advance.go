package epoch

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Local is what the shell knows of its own node.
type Local struct {
	// Drained is a view number: no request that uses an earlier view can still
	// be answered, and no merge that came with one can still be stored.
	Drained uint64
	// Dropping: rows of partitions that this node gave up are being deleted.
	Dropping bool
	// Sent is the target for which everything was handed over, as View.Transfer
	// demanded; zero while it was not.
	Sent ID
}

// Advance takes each step of a transition that may be taken. Its result is
// saved before anybody, this node's own requests included, sees anything of it.
func (s State) Advance(l Local) State {
	s.drained = max(s.drained, l.Drained)
	for {
		next := s.step(l)
		if next.Equal(s) && next.granted == s.granted {
			return next
		}
		s = next
	}
}

func (s State) step(l Local) State {
	if i, found := s.adoptable(); found {
		s = s.setBase(i)
	}
	if s.mayAck(l.Dropping) {
		s = s.ack()
	}
	if s.mayAdmit() {
		s.admitted = true
		s.number++
	}
	if s.mayTransfer() {
		s.granted = s.Target().id
	}
	if s.maySync(l.Sent) {
		s = s.sync()
	}
	if s.mayFlip() {
		s = s.setBase(len(s.live) - 1)
	}
	if s.mayRead() {
		s = s.read()
	}
	if s.mayRetire() {
		s = s.retire()
	}
	return s.prune()
}

func (s State) ack() State  { return s.say(func(t *Tracker) { t.Ack = s.Target().id }) }
func (s State) sync() State { return s.say(func(t *Tracker) { t.Sync = s.Target().id }) }
func (s State) read() State { return s.say(func(t *Tracker) { t.Read = s.Base().id }) }

// Required lists the nodes that the transition to the target waits for: all
// that may coordinate or hold data in any live epoch. A record of the target
// that is a removal and stands so in the lowest live epoch is of a node that has
// seen its own removal through; any other removed node may not even have heard
// of it. Forgotten ones are waited for by nobody.
func (s State) Required() []ring.NodeID {
	var ids []ring.NodeID
	for _, r := range s.Target().records {
		if s.requires(r) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func (s State) requires(r ring.Record) bool {
	if r.Forgotten {
		return false
	}
	if !r.Removed {
		return true
	}
	low, found := s.live[0].Record(r.ID)
	return !found || low != r
}

// all reports whether a statement holds for the tracker of each required node.
func (s State) all(holds func(Tracker) bool) bool {
	for _, r := range s.Target().records {
		if s.requires(r) && !holds(s.Tracker(r.ID)) {
			return false
		}
	}
	return true
}

// reached reports whether the base that a tracker names is not above e. Bases
// are a chain, so the greater sum is above.
func reached(base ID, e *Epoch) bool { return base == e.id || base.Sum < e.id.Sum }

// adoptable finds a live epoch above the base that somebody reads from already.
func (s State) adoptable() (int, bool) {
	for i := len(s.live) - 1; i > s.base; i-- {
		for _, t := range s.said {
			if t.Base == s.live[i].id && !s.Target().forgot(t.ID) {
				return i, true
			}
		}
	}
	return 0, false
}

// mayAck: every request that began before the target was there has its outcome,
// and no deletion can hit what is written from now on.
func (s State) mayAck(dropping bool) bool {
	own := s.Tracker(s.self)
	return own.Ack != s.Target().id && s.drained >= s.appended && !dropping
}

// mayAdmit: everybody knows this node and waits for it from now on, and nobody
// who said so reads above its base.
func (s State) mayAdmit() bool {
	return !s.admitted && s.Target().member(s.self) && s.all(func(t Tracker) bool {
		return t.Ack == s.Target().id && reached(t.Base, s.Base())
	})
}

// mayTransfer: everybody writes to the target's owners, so what is not there
// yet can only become less.
func (s State) mayTransfer() bool {
	return len(s.live) > 1 && s.granted != s.Target().id && s.base < len(s.live)-1 &&
		s.all(func(t Tracker) bool { return t.Ack == s.Target().id })
}

// maySync: what was sent was sent for this target, after mayTransfer. The limit
// keeps a place free: an epoch that was synced stays when another target comes.
func (s State) maySync(sent ID) bool {
	id := s.Target().id
	return sent == id && s.granted == id && s.Tracker(s.self).Sync != id && len(s.live) < MaxLive
}

// mayFlip: all that the old owners acknowledged is with the target's. A node
// that is not in the target learns from others that they read there.
func (s State) mayFlip() bool {
	return s.base < len(s.live)-1 && s.Target().member(s.self) &&
		s.all(func(t Tracker) bool { return t.Sync == s.Target().id })
}

// mayRead: no request began before the base was there.
func (s State) mayRead() bool {
	return s.Tracker(s.self).Read != s.Base().id && s.drained >= s.flipped
}

// mayRetire: nobody reads below the base any more.
func (s State) mayRetire() bool {
	return s.base > 0 && s.all(func(t Tracker) bool {
		return t.Read == s.Base().id || t.Read.Sum > s.Base().id.Sum
	})
}

// retire drops what is below the base.
func (s State) retire() State {
	s.live, s.base = slices.Clone(s.live[s.base:]), 0
	s.number++
	return s
}

// prune drops epochs between base and target that this node synced, and that
// can become nobody's base any more: everybody has moved on to the target
// without reading there, and only a node whose target it was could begin to.
func (s State) prune() State {
	for i := s.base + 1; i < len(s.live)-1; i++ {
		if s.all(func(t Tracker) bool { return t.Ack == s.Target().id && t.Base.Sum < s.live[i].id.Sum }) {
			s.live = slices.Delete(slices.Clone(s.live), i, i+1)
			s.number++
			i--
		}
	}
	return s
}
