package membership

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/redynamo/redynamo/membership/ring"
)

// refusal begins the text of every error by which a node is kept out.
const refusal = "not of this cluster"

var errForeign = errors.New(refusal + ": an established cluster with another id; two clusters never merge")

// inboxStates bounds the states waiting to be joined. Over it the oldest is
// dropped and counted: exchanges repeat, and a state is never the only copy.
const inboxStates = 64

// inboxNotes bounds what waits to be logged; over it, notes are dropped.
const inboxNotes = 64

// peer is what gossip last said of another node.
type peer struct {
	meta
	alive bool
}

// claim is one id at two addresses.
type claim struct {
	id              ring.NodeID
	existing, other string
}

// mail is what happened since the mailbox was last emptied.
type mail struct {
	states     []state
	heard      map[ring.NodeID]peer
	claims     map[claim]struct{}
	refused    map[string]string // node name -> why it was kept out
	stale      bool              // somebody has an old address of this node
	whole      bool              // this node is no longer recovering
	dropped    int
	unreadable int // states that could not be decoded
}

// inbox is where delegates, which run under memberlist's locks, leave things
// for the loop. Putting never waits.
type inbox struct {
	mu struct {
		sync.Mutex
		mail
	}
	ready chan struct{} // holds one token while there is mail
}

func newInbox() *inbox { return &inbox{ready: make(chan struct{}, 1)} }

func (b *inbox) put(change func(*mail)) {
	b.mu.Lock()
	change(&b.mu.mail)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mu.mail
	b.mu.mail = mail{}
	return m
}

// delegate answers memberlist. Invariant: no method waits for anything or
// calls memberlist; several run while memberlist holds its node lock.
type delegate struct {
	self       ring.NodeID
	current    func() *published
	inbox      *inbox
	broadcasts *memberlist.TransmitLimitedQueue
}

// NodeMeta is this node's own announcement.
func (d *delegate) NodeMeta(int) []byte { return d.current().meta }

// LocalState is this node's side of an exchange: what it has persisted.
func (d *delegate) LocalState(bool) []byte { return d.current().wire }

// MergeRemoteState takes the other side.
func (d *delegate) MergeRemoteState(buf []byte, _ bool) { d.receive(buf) }

// NotifyMsg takes a broadcast, which is a part of a state.
func (d *delegate) NotifyMsg(buf []byte) { d.receive(buf) }

// receive decodes at once: the buffer is memberlist's, and decoding copies.
func (d *delegate) receive(buf []byte) {
	s, err := decodeState(buf)
	if errors.Is(err, ErrNewer) {
		err = nil // the loop knows what to make of the level
	}
	d.inbox.put(func(m *mail) {
		if err != nil {
			m.unreadable++
			m.refuse("?", err.Error())
			return
		}
		if len(m.states) == inboxStates {
			m.states = append(m.states[:0], m.states[1:]...)
			m.dropped++
		}
		m.states = append(m.states, s)
	})
}

// GetBroadcasts hands out waiting broadcasts.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.broadcasts.GetBroadcasts(overhead, limit)
}

// NotifyAlive keeps out nodes of other established clusters.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.self.String() {
		return nil
	}
	_, err := d.judge(n)
	if err != nil {
		d.inbox.put(func(m *mail) { m.refuse(n.Name, err.Error()+" at "+addrOf(n)) })
	}
	return err
}

// judge reads a node's meta and says whether it may be known here.
func (d *delegate) judge(n *memberlist.Node) (peer, error) {
	id, err := nodeName(n.Name)
	if err != nil {
		return peer{}, err
	}
	said, err := decodeMeta(n.Meta)
	if err != nil {
		return peer{}, fmt.Errorf("%s: %w", refusal, err)
	}
	if said.ID != id {
		return peer{}, fmt.Errorf("%s: node %v announces itself as %v", refusal, id, said.ID)
	}
	mine := d.current().view
	if mine.Established && said.Established && said.ClusterID != mine.ClusterID {
		return peer{}, fmt.Errorf("%w (%x)", errForeign, said.ClusterID)
	}
	if said.MaxLevel < mine.Level && mine.Established {
		return peer{}, fmt.Errorf("%w: it serves up to level %d, and the cluster is at %d", errOld, said.MaxLevel, mine.Level)
	}
	return peer{meta: said}, nil
}

// NotifyMerge ends an exchange with a foreign cluster before anything is
// taken from it. A forming node may know nodes of several clusters; it is let
// in, and its company is kept out one by one.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	var strange error
	welcome := false
	for _, n := range nodes {
		if n.Name == d.self.String() {
			d.noteOwnAddress(n)
			continue
		}
		_, err := d.judge(n)
		welcome = welcome || err == nil
		if errors.Is(err, errForeign) {
			strange = err
			d.inbox.put(func(m *mail) { m.refuse(n.Name, err.Error()+" at "+addrOf(n)) })
		}
	}
	if welcome {
		return nil
	}
	return strange
}

// noteOwnAddress notices that the other side has an old address of this node.
func (d *delegate) noteOwnAddress(n *memberlist.Node) {
	if own := d.current(); !n.Addr.Equal(own.ip) || n.Port != own.port {
		d.inbox.put(func(m *mail) { m.stale = true })
	}
}

// NotifyConflict notices one id at two addresses.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	id, err := nodeName(existing.Name)
	if err != nil {
		return
	}
	c := claim{id: id, existing: addrOf(existing), other: addrOf(other)}
	d.inbox.put(func(m *mail) {
		m.stale = m.stale || id == d.self
		if m.claims == nil {
			m.claims = map[claim]struct{}{}
		}
		if len(m.claims) < inboxNotes {
			m.claims[c] = struct{}{}
		}
	})
}

// NotifyJoin notices a node that is up.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.hear(n, true) }

// NotifyUpdate notices a changed announcement.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.hear(n, true) }

// NotifyLeave notices a node that is down, or has said that it will be.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.hear(n, false) }

func (d *delegate) hear(n *memberlist.Node, alive bool) {
	if n.Name == d.self.String() {
		return
	}
	id, err := nodeName(n.Name)
	if err != nil {
		return
	}
	said, err := decodeMeta(n.Meta)
	if err != nil || said.ID != id {
		return // NotifyAlive has refused it
	}
	d.inbox.put(func(m *mail) {
		if m.heard == nil {
			m.heard = map[ring.NodeID]peer{}
		}
		m.heard[id] = peer{meta: said, alive: alive}
	})
}

func (m *mail) refuse(name, why string) {
	if m.refused == nil {
		m.refused = map[string]string{}
	}
	if len(m.refused) < inboxNotes {
		m.refused[name] = why
	}
}

func addrOf(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// news is one broadcast: records that changed.
type news struct{ msg []byte }

// Invalidates is never true: joining old news again changes nothing.
func (n *news) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*news)
	return ok && bytes.Equal(n.msg, o.msg)
}

// Message is the bytes to send.
func (n *news) Message() []byte { return n.msg }

// Finished is told when it was sent often enough.
func (n *news) Finished() {}
