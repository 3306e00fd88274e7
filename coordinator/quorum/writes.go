package quorum

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Writes is one write to the owners of a partition in every ring that is live:
// while partitions move there are several. It is a [Write] for each ring, and a
// message that more than one of them wants is sent once. The zero value must be
// Reset before use; it may be used again and keeps its storage.
//
// In the ordinary case of one live ring it does nothing of its own.
type Writes struct {
	base     Write
	beside   []Write
	messages []message // only with rings beside the base; the first is Local
}

// message is one that was sent, and for whom.
type message struct {
	send  Send
	parts []part
	ended bool
	acked bool
	why   Failure // if it ended without
}

// part is the place of a message in the write for one ring: 0 is the base.
type part struct{ ring, index int }

// Reset begins a write to the owners in the base ring; see [Write.Reset].
func (w *Writes) Reset(need int, self ring.Stand, walk []ring.Stand, owners []ring.NodeID) {
	w.base.Reset(need, self, walk, owners)
	w.beside, w.messages = w.beside[:0], w.messages[:0]
}

// Beside adds the owners in another live ring, and the walk over that. The
// write is met when each ring has as many copies as it needs. Requires: no
// message was taken yet.
func (w *Writes) Beside(need int, walk []ring.Stand, owners []ring.NodeID) {
	if len(w.beside) < cap(w.beside) {
		w.beside = w.beside[:len(w.beside)+1]
	} else {
		w.beside = append(w.beside, Write{})
	}
	self := w.base.targets[Local].stand
	w.beside[len(w.beside)-1].resetBeside(need, self, walk, owners)
	if len(w.messages) == 0 {
		w.messages = append(w.messages, message{send: Send{Index: Local, Stand: self}, parts: []part{{0, Local}}})
	}
	w.messages[Local].parts = append(w.messages[Local].parts, part{len(w.beside), Local})
}

// of returns the write for one ring.
func (w *Writes) of(r int) *Write {
	if r == 0 {
		return &w.base
	}
	return &w.beside[r-1]
}

// Next returns the next message to send, if there is one; also after the
// verdict.
func (w *Writes) Next() (Send, bool) {
	if len(w.beside) == 0 {
		return w.base.Next()
	}
	for r := range len(w.beside) + 1 {
		for {
			s, ok := w.of(r).Next()
			if !ok {
				break
			}
			if w.share(part{r, s.Index}, s) {
				continue
			}
			p := part{r, s.Index}
			s.Index = len(w.messages)
			w.messages = append(w.messages, message{send: s, parts: []part{p}})
			return s, true
		}
	}
	return Send{}, false
}

// share lets a part take the outcome of a message that says the same, if there
// is one. A hint that was sent as optional may be refused, so it is not what a
// hint that is needed can wait for.
func (w *Writes) share(p part, s Send) bool {
	i := slices.IndexFunc(w.messages, func(m message) bool {
		return m.send.Stand == s.Stand && (!m.send.Optional || s.Optional)
	})
	if i < 0 {
		return false
	}
	m := &w.messages[i]
	switch {
	case !m.ended:
		m.parts = append(m.parts, p)
	case m.acked:
		w.of(p.ring).Ack(p.index)
	default:
		w.of(p.ring).Fail(p.index, m.why)
	}
	return true
}

// Ack records that a node has stored the record.
func (w *Writes) Ack(index int) {
	if len(w.beside) == 0 {
		w.base.Ack(index)
		return
	}
	m := &w.messages[index]
	m.ended, m.acked = true, true
	for _, p := range m.parts {
		w.of(p.ring).Ack(p.index)
	}
}

// Fail records that a node has not stored the record, or not said so.
func (w *Writes) Fail(index int, f Failure) {
	if len(w.beside) == 0 {
		w.base.Fail(index, f)
		return
	}
	m := &w.messages[index]
	m.ended, m.why = true, f
	for _, p := range m.parts {
		w.of(p.ring).Fail(p.index, f)
	}
}

// NeedsSpares reports that in some ring an owner waits for a fallback: Spares
// must be called for that ring, 0 for the base or the number of a Beside.
func (w *Writes) NeedsSpares() (in int, needs bool) {
	for r := range len(w.beside) + 1 {
		if w.of(r).NeedsSpares() {
			return r, true
		}
	}
	return 0, false
}

// Spares gives the live fallbacks of one ring in its order.
func (w *Writes) Spares(in int, nodes []ring.NodeID) { w.of(in).Spares(nodes) }

// Verdict says whether the client has its answer.
func (w *Writes) Verdict() Verdict {
	verdict := w.base.Verdict()
	for i := range w.beside {
		switch v := w.beside[i].Verdict(); {
		case v == Impossible || verdict == Impossible:
			return Impossible
		case v == Pending:
			verdict = Pending
		}
	}
	return verdict
}

// Acked is the number of distinct nodes that stored the record, in the ring
// that has the fewest.
func (w *Writes) Acked() int {
	n := w.base.Acked()
	for i := range w.beside {
		n = min(n, w.beside[i].Acked())
	}
	return n
}

// Open reports whether a message is out that has no outcome yet, the
// coordinator's own copy included.
func (w *Writes) Open() bool {
	return w.base.Open() || slices.ContainsFunc(w.beside, func(b Write) bool { return b.Open() })
}
