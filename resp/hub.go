package resp

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/redynamo/redynamo/resp/glob"
)

// A Message is something published.
type Message struct {
	Shard            bool // to a shard channel: these are names of their own
	Channel, Payload []byte
}

// A Broadcaster takes messages to the other nodes. It never waits: what cannot be
// sent is dropped. The bytes are the caller's again when it returns.
type Broadcaster interface {
	Broadcast(m Message)
}

// HubConfig is what a Hub is built from; the zero value means the defaults.
type HubConfig struct {
	Peers Broadcaster // nil = there are no other nodes
	// MaxNames bounds the bytes that subscriptions take over all connections:
	// past it further ones are refused. 256 MiB.
	MaxNames int64
}

const (
	defaultMaxNames = 256 * mib
	// subscriptionBytes is what a subscription takes besides its name.
	subscriptionBytes = 320
)

// A Hub knows who has subscribed to what on this node, at either door. A message
// is delivered at most once: to whoever is subscribed when it comes, and only
// if it comes; nothing is kept and nothing is sent again.
//
// Invariant: a subscription's confirmation is queued before any message of it,
// and no message of it after the confirmation of its end. Both are queued under
// mu, and so are messages.
type Hub struct {
	peers    Broadcaster
	names    budget
	monitors monitors
	events   atomic.Uint32 // Events

	mu struct {
		sync.RWMutex
		channels [topics]map[string]audience // patterns too
		globs    map[string]*glob.Pattern    // of the patterns
	}
}

// audience are the subscribers of one channel or pattern.
type audience map[*subscriber]struct{}

// A topic is a kind of subscription.
type topic uint8

const (
	toChannel topic = iota
	toPattern
	toShard

	topics = 3
)

// topicWords are the words of confirmations and messages.
var topicWords = [topics]struct{ begun, ended, message string }{
	toChannel: {"subscribe", "unsubscribe", "message"},
	toPattern: {"psubscribe", "punsubscribe", "pmessage"},
	toShard:   {"ssubscribe", "sunsubscribe", "smessage"},
}

// A subscriber is a connection that has subscribed to something, now or before.
type subscriber struct {
	out    *outbox
	names  [topics]map[string]struct{} // the session's own
	counts [topics]atomic.Int64        // for the others

	monitor atomic.Bool // it is shown what all do
}

// NewHub builds a hub. Both doors of a node are given the same.
func NewHub(cfg HubConfig) *Hub {
	h := &Hub{peers: cfg.Peers}
	orDefault(&cfg.MaxNames, defaultMaxNames)
	h.names.limit = cfg.MaxNames
	for t := range h.mu.channels {
		h.mu.channels[t] = make(map[string]audience)
	}
	h.mu.globs = make(map[string]*glob.Pattern)
	return h
}

func newSubscriber(out *outbox) *subscriber {
	s := &subscriber{out: out}
	for t := range s.names {
		s.names[t] = make(map[string]struct{})
	}
	return s
}

// total is the number of all subscriptions.
func (s *subscriber) total() (n int) {
	for t := range s.names {
		n += len(s.names[t])
	}
	return n
}

// told is the number that a confirmation carries: shard channels are counted by
// themselves.
func (s *subscriber) told(t topic) int {
	if t == toShard {
		return len(s.names[toShard])
	}
	return len(s.names[toChannel]) + len(s.names[toPattern])
}

// fresh is how many of names are not subscribed to yet, and what they take. One
// that is there twice counts twice.
func (s *subscriber) fresh(t topic, names [][]byte) (n int, bytes int64) {
	for _, name := range names {
		if _, there := s.names[t][string(name)]; !there {
			n++
			bytes += int64(len(name) + subscriptionBytes)
		}
	}
	return n, bytes
}

// addLocked subscribes s, and reports whether it was not before.
func (h *Hub) addLocked(s *subscriber, t topic, name string) bool {
	if _, there := s.names[t][name]; there {
		return false
	}
	s.names[t][name] = struct{}{}
	s.counts[t].Add(1)
	all := h.mu.channels[t]
	if all[name] == nil {
		all[name] = make(audience)
		if t == toPattern {
			h.mu.globs[name] = glob.Compile([]byte(name))
		}
	}
	all[name][s] = struct{}{}
	return true
}

// removeLocked ends a subscription, if there is one.
func (h *Hub) removeLocked(s *subscriber, t topic, name string) {
	if _, there := s.names[t][name]; !there {
		return
	}
	delete(s.names[t], name)
	s.counts[t].Add(-1)
	h.names.give(int64(len(name) + subscriptionBytes))
	all := h.mu.channels[t]
	delete(all[name], s)
	if len(all[name]) == 0 {
		delete(all, name)
		if t == toPattern {
			delete(h.mu.globs, name)
		}
	}
}

// leave ends all subscriptions of s, and MONITOR.
func (h *Hub) leave(s *subscriber) {
	h.monitors.remove(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	for t := range topic(topics) {
		for name := range s.names[t] {
			h.removeLocked(s, t, name)
		}
	}
}

// Publish delivers m here and sends it to the other nodes. It returns the number
// of deliveries on this node.
func (h *Hub) Publish(m Message) (receivers int64) {
	receivers = h.Deliver(m)
	if h.peers != nil {
		h.peers.Broadcast(m)
	}
	return receivers
}

// Deliver queues m for everybody on this node who has subscribed to its channel
// or to a pattern that matches it. It never waits for a client, but takes its
// time when there are many patterns.
func (h *Hub) Deliver(m Message) (receivers int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	t := toChannel
	if m.Shard {
		t = toShard
	}
	if to := h.mu.channels[t][string(m.Channel)]; len(to) > 0 {
		receivers += to.deliver(&letter{topic: t, m: m})
	}
	if m.Shard {
		return receivers
	}
	for pattern, like := range h.mu.globs {
		// A match that costs too much is none: names are so short that it happens
		// to those of other nodes only, if these have other limits.
		if hit, err := like.MatchName(m.Channel); hit && err == nil {
			receivers += h.mu.channels[toPattern][pattern].deliver(&letter{topic: toPattern, pattern: pattern, m: m})
		}
	}
	return receivers
}

func (a audience) deliver(l *letter) (n int64) {
	for s := range a {
		if s.out.deliver(l) {
			n++
		}
	}
	return n
}

// A letter is a message as it is sent, made once for each protocol version.
type letter struct {
	topic   topic
	pattern string // that matched
	m       Message
	ready   [2][]byte
}

func (l *letter) in(proto int) []byte {
	if b := l.ready[proto-2]; b != nil {
		return b
	}
	w := Reply{proto: proto}
	w.buf = make([]byte, 0, len(l.m.Channel)+len(l.m.Payload)+len(l.pattern)+pushHeadBytes)
	if l.topic == toPattern {
		w.Push(4)
		w.BulkString(topicWords[l.topic].message)
		w.BulkString(l.pattern)
	} else {
		w.Push(3)
		w.BulkString(topicWords[l.topic].message)
	}
	w.Bulk(l.m.Channel)
	w.Bulk(l.m.Payload)
	l.ready[proto-2] = w.buf
	return w.buf
}

// pushHeadBytes is about what a message takes besides names and payload.
const pushHeadBytes = 64

// named lists the channels, or shard channels, that match; all for a nil glob.
func (h *Hub) named(t topic, like *glob.Pattern) ([]string, error) {
	h.mu.RLock()
	names := slices.Collect(maps.Keys(h.mu.channels[t]))
	h.mu.RUnlock()
	if like != nil { // not under the lock: it may take long
		kept := names[:0]
		for _, name := range names {
			hit, err := like.MatchName([]byte(name))
			if err != nil {
				return nil, err
			}
			if hit {
				kept = append(kept, name)
			}
		}
		names = kept
	}
	slices.Sort(names)
	return names, nil
}

// subscribers counts those of one channel.
func (h *Hub) subscribers(t topic, name []byte) int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.mu.channels[t][string(name)])
}

// size is the number of different channels or patterns subscribed to.
func (h *Hub) size(t topic) int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.mu.channels[t])
}
