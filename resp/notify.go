package resp

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/replica/version"
)

// Events are kinds of what happens to keys, and the channels it is told on: what
// notify-keyspace-events says.
type Events uint32

// The kinds, in the order in which Redis shows their letters. Of some there is
// nothing here to tell.
const (
	eventGeneric Events = 1 << iota
	eventString
	eventList
	eventSet
	eventHash
	eventZSet
	eventExpired
	eventEvicted
	eventStream
	eventModule
	eventNew
	onKeySpace // channels __keyspace@0__:KEY
	onKeyEvent // channels __keyevent@0__:EVENT
	eventMiss

	eventsAll  = eventNew - 1 // what A stands for
	onChannels = onKeySpace | onKeyEvent
)

// eventLetters stand for the kinds above, in their order.
const eventLetters = "g$lshzxetdnKEm"

const errEvents = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."

// ParseEvents reads the letters of Redis, Ag$lshzxeKEtmdn, and reports whether they
// are ones.
func ParseEvents(letters string) (e Events, ok bool) {
	for _, c := range []byte(letters) {
		switch i := strings.IndexByte(eventLetters, c); {
		case c == 'A':
			e |= eventsAll
		case i >= 0:
			e |= 1 << i
		default:
			return 0, false
		}
	}
	return e, true
}

// String is what ParseEvents reads.
func (e Events) String() string {
	var b strings.Builder
	if e&eventsAll == eventsAll {
		b.WriteByte('A')
		e &^= eventsAll
	}
	for ; e != 0; e &= e - 1 {
		b.WriteByte(eventLetters[bits.TrailingZeros32(uint32(e))])
	}
	return b.String()
}

// Events are what this node tells.
func (h *Hub) Events() Events { return Events(h.events.Load()) }

// SetEvents has the node tell these from now on.
func (h *Hub) SetEvents(e Events) { h.events.Store(uint32(e)) }

// tells reports whether the node tells events of that kind.
func (h *Hub) tells(kind Events) bool {
	e := h.Events()
	return e&onChannels != 0 && e&kind != 0
}

// TellsExpired reports whether anybody is to be told of keys whose time is over.
func (h *Hub) TellsExpired() bool { return h.tells(eventExpired) }

// Expired tells that the time of a key is over; everywhere if other nodes know what
// messages are.
func (h *Hub) Expired(key []byte, everywhere bool) {
	h.tell(keyEvent{eventExpired, "expired", key}, everywhere)
}

// A keyEvent is what happened to a key.
type keyEvent struct {
	kind Events
	name string
	key  []byte
}

// tell publishes an event: at most once, to whoever is subscribed, like any message.
func (h *Hub) tell(e keyEvent, everywhere bool) {
	send := func(m Message) { h.Deliver(m) }
	if everywhere {
		send = func(m Message) { h.Publish(m) }
	}
	on := h.Events()
	if on&onKeySpace != 0 {
		send(Message{Channel: append([]byte("__keyspace@0__:"), e.key...), Payload: []byte(e.name)})
	}
	if on&onKeyEvent != 0 {
		send(Message{Channel: []byte("__keyevent@0__:" + e.name), Payload: slices.Clone(e.key)})
	}
}

// note keeps an event for when the command is answered, if the node tells such.
func (s *session) note(kind Events, name string, key []byte) {
	if s.srv.hub.tells(kind) {
		s.events = append(s.events, keyEvent{kind, name, key})
	}
}

// announce tells what the command did whose reply begins at. A client that is told
// of what it does itself is told before the reply, as in Redis.
func (s *session) announce(at int) {
	if s.sub != nil {
		own := slices.Clone(s.reply.buf[at:])
		s.reply.buf = s.reply.buf[:at]
		s.handOver()
		s.reply.buf = own
	}
	everywhere := s.admin().Level() >= publishLevel
	for _, e := range s.events {
		s.srv.hub.tell(e, everywhere)
	}
	clear(s.events)
	s.events = s.events[:0]
	if cap(s.events) > keepBatch {
		s.events = nil
	}
}

// A deed is what a call does to its key, as far as events tell it.
type deed struct {
	kind      version.OpKind // 0: nothing
	expireAt  int64          // OpExpire and OpSet, 0: none
	versioned bool           // a delete may leave what its context has not seen
	// moves is the event of a value that came from elsewhere: Redis writes such a key
	// anew, whatever was there.
	moves string
	// unseen has a read tell of no miss: the command does not look for the value.
	unseen bool
}

func deedOf(op *version.Op) deed {
	d := deed{kind: op.Kind, versioned: op.Explicit}
	if op.Kind == version.OpExpire || op.Expiry == version.ExpiryAt {
		d.expireAt = op.ExpireAtMS
	}
	return d
}

// noteDeed notes what an acknowledged write did.
func (c *call) noteDeed() {
	s, r := c.s, &c.wrote
	if s.srv.hub.Events() == 0 || c.deed.kind == 0 {
		return
	}
	if c.withOld && !r.HadOld {
		s.note(eventMiss, "keymiss", c.key)
	}
	switch d := &c.deed; {
	case d.kind == version.OpDelete:
		if r.HadOld && (!d.versioned || r.Live == 0) {
			s.note(eventGeneric, "del", c.key)
		}
	case d.kind == version.OpExpire:
		if r.Applied {
			s.note(eventGeneric, d.expiryEvent(r.HLC), c.key)
		}
	case d.moves != "":
		if r.Applied {
			s.note(eventNew, "new", c.key)
			s.note(eventGeneric, d.moves, c.key)
		}
	default:
		c.noteValue()
	}
}

// expiryEvent is what EXPIRE and its relatives have done. A replica that clears a key
// judges by the same reading: the end is told here, or there as `expired`.
func (d *deed) expiryEvent(at version.HLC) string {
	switch {
	case d.expireAt == 0:
		return "persist"
	case version.Cell{HLC: at, AtMS: max(d.expireAt, 1)}.Late():
		return "del"
	}
	return "expire"
}

// noteValue notes what a write of a value did.
func (c *call) noteValue() {
	name := ""
	switch c.deed.kind {
	case version.OpSet:
		name = "set"
	case version.OpAppend:
		name = "append"
	case version.OpSetRange:
		name = "setrange"
	case version.OpCount:
		name = "incrby"
	case version.OpCountFloat:
		name = "incrbyfloat"
	case version.OpFields:
		name = "setbit"
	}
	if !c.wrote.Applied {
		return
	}
	if !c.wrote.HadOld {
		c.s.note(eventNew, "new", c.key)
	}
	c.s.note(eventString, name, c.key)
	if c.deed.kind == version.OpSet && c.deed.expireAt != 0 {
		c.s.note(eventGeneric, "expire", c.key)
	}
}

// noteMiss notes that a read found nothing.
func (c *call) noteMiss() {
	if !c.deed.unseen {
		c.s.note(eventMiss, "keymiss", c.key)
	}
}
