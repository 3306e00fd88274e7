package node

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/resp"
)

const (
	// A peer has at most so many messages of clients under way to it. What does not
	// fit is dropped: whoever publishes never waits for another node.
	heraldMessages = 1024
	heraldBytes    = 8 << 20
	// heraldTimeout is how long a message is worth delivering.
	heraldTimeout = 2 * time.Second
	// heraldQueue is how many messages of other nodes wait for their delivery.
	heraldQueue = 4096
)

// A herald takes what clients publish to the other nodes, and what theirs publish
// to the clients of this one. A message is sent once to every node that is up; what
// a node does not take is counted and lost.
type herald struct {
	hub    *resp.Hub
	peer   func(id nodeID) *rpc.Peer
	others func() []nodeID
	// heard delivers, one after the other so that they keep their order. The
	// goroutines that read connections must not: there may be many patterns to match.
	heard *workers
	under sync.Map // nodeID to *underWay; as many as there ever were nodes
	count heraldCounters
}

// underWay is what one peer was sent and has not answered.
type underWay struct{ messages, bytes atomic.Int64 }

// take makes room for a message, or reports that there is none.
func (u *underWay) take(size int64) bool {
	messages, bytes := u.messages.Add(1), u.bytes.Add(size)
	if messages > heraldMessages || bytes > heraldBytes {
		u.give(size)
		return false
	}
	return true
}

func (u *underWay) give(size int64) {
	u.messages.Add(-1)
	u.bytes.Add(-size)
}

type heraldCounters struct {
	sent, heard                         *metrics.Counter
	crowded, refused, unreachable, lost *metrics.Counter // why messages were dropped
}

func newHerald(n *Node) *herald {
	h := heraldOf(n.set)
	events, _ := resp.ParseEvents(n.cfg.KeyEvents) // validate has looked
	h.hub.SetEvents(events)
	h.peer = n.pool.Get
	h.others = func() (ids []nodeID) {
		for id := range n.members.View().Nodes {
			if id != n.id.node {
				ids = append(ids, id)
			}
		}
		return ids
	}
	return h
}

// heraldOf makes a herald that knows no other nodes yet.
func heraldOf(set *metrics.Set) *herald {
	dropped := func(why string) *metrics.Counter {
		return set.NewCounter(`node_messages_dropped_total{reason="` + why + `"}`)
	}
	h := &herald{heard: newWorkers(1, heraldQueue), count: heraldCounters{
		sent: set.NewCounter(`node_messages_sent_total`), heard: set.NewCounter(`node_messages_heard_total`),
		crowded: dropped("crowded"), refused: dropped("refused"), unreachable: dropped("unreachable"), lost: dropped("lost"),
	}}
	h.hub = resp.NewHub(resp.HubConfig{Peers: h})
	return h
}

// Broadcast is resp.Broadcaster.
func (h *herald) Broadcast(m resp.Message) {
	for _, id := range h.others() {
		if p := h.peer(id); p != nil {
			h.send(p, m)
		}
	}
}

func (h *herald) send(p *rpc.Peer, m resp.Message) {
	known, _ := h.under.LoadOrStore(p.ID(), new(underWay))
	u, size := known.(*underWay), int64(len(m.Channel)+len(m.Payload))
	if !u.take(size) {
		h.count.crowded.Inc()
		return
	}
	request := rpc.PublishRequest{Shard: m.Shard, Channel: m.Channel, Payload: m.Payload}
	p.Publish(request, rpc.Options{Deadline: time.Now().Add(heraldTimeout), Class: rpc.Foreground}, func(err error) {
		u.give(size)
		h.outcome(err).Inc()
	})
}

// outcome is what a message that was sent, or was to be, counts as.
func (h *herald) outcome(err error) *metrics.Counter {
	switch {
	case err == nil:
		return h.count.sent
	case errors.Is(err, rpc.ErrUnreachable):
		return h.count.unreachable
	case errors.Is(err, rpc.ErrTimeout), errors.Is(err, rpc.ErrClosed): // perhaps delivered
		return h.count.lost
	}
	return h.count.refused
}

// expiredNews is how long ago a key may have expired to be news: a copy that comes
// late is cleared after the others have cleared, and told of, theirs.
const expiredNews = 10 * time.Second

// expired tells that the time of a key is over, if that is for this node to tell: each
// owner clears its copy by itself, and the first of them that lives tells.
func (n *Node) expired(key []byte, atMS int64) {
	h, at := n.herald, time.UnixMilli(atMS)
	// What expired before this node started was for others to tell.
	if !h.hub.TellsExpired() || at.Before(n.started) || n.cfg.Now().Sub(at) > expiredNews || !n.firstLive(key) {
		return
	}
	own := bytes.Clone(key)
	everywhere := n.publish.Level() >= 2
	if !h.heard.try(func() { h.hub.Expired(own, everywhere) }) {
		h.count.crowded.Inc()
	}
}

// firstLive reports whether no other live owner of the key comes before this node.
func (n *Node) firstLive(key []byte) bool {
	v := n.members.View()
	if v.Ring == nil {
		return false
	}
	up := cluster{n}.Up
	for _, id := range v.Ring.Owners(v.Ring.Partition(ring.SlotOf(key))) {
		if id == n.id.node || up(id) {
			return id == n.id.node
		}
	}
	return false
}

// ServePublish delivers what a client of another node has published.
func (h handler) ServePublish(m rpc.PublishRequest, meta rpc.Meta, reply func(error)) {
	h.n.herald.heard.later(meta.Deadline, func(err error) {
		if err == nil {
			h.n.herald.count.heard.Inc()
			h.n.herald.hub.Deliver(resp.Message{Shard: m.Shard, Channel: m.Channel, Payload: m.Payload})
		}
		reply(toWire(err))
	})
}

var _ resp.Broadcaster = (*herald)(nil)
