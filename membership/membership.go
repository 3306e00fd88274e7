package membership

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/memberlist"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

var (
	// ErrRefused says that this node may not add itself to the ring, or that it was
	// forgotten; Run ends with it. Config.Admit wraps it.
	ErrRefused = errors.New("membership: refused by the cluster")
	// ErrNotTaken says that records of an administrator were not taken in, because
	// others overtake them or there are too many.
	ErrNotTaken = errors.New("membership: the ring was changed meanwhile, or is full")
	// ErrSuperseded says that another process runs as this node, with a copy of
	// its data directory. Run ends with it.
	ErrSuperseded = errors.New("membership: another process runs as this node")
	// ErrCorrupt says that a persisted or received state is unreadable.
	ErrCorrupt = errors.New("membership: corrupt state")
)

// Membership is this node's part in its cluster.
type Membership struct {
	cfg      Config
	timing   timing
	log      *slog.Logger
	metrics  counters
	inbox    *inbox
	delegate *delegate
	current  atomic.Pointer[published]
	alive    atomic.Int64  // live nodes, this one included
	orders   chan order    // for the goroutine of Run
	kick     chan struct{} // holds a token when Config.Local may say something new

	// The rest belongs to New, and from then on to the goroutine of Run.
	state  state
	digest uint64      // of the state
	epoch  *epoch.View // of the state
	live   *ring.Live  // the rings of that
	self   announcement
	former Endpoints // of the run before
	met    bool      // see View.Met
	peers  map[ring.NodeID]peer
	ip     net.IP // what gossip advertises
	port   uint16
}

// published is all that other goroutines see of a Membership.
type published struct {
	view    *View
	wire    []byte // the state, for exchanges: never more than is persisted
	epochs  []byte // its epochs, for nodes that are behind; nil until established
	meta    []byte // the announcement, for memberlist
	ip      net.IP
	port    uint16
	changed chan struct{} // closed when another has replaced this one
}

// New reads what is persisted, and on first boot writes the first state: after
// it the view is as good as the disk allows, before anybody was heard.
func New(cfg Config) (*Membership, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	m := &Membership{
		cfg: cfg, timing: cfg.timing(), log: cfg.Logger.With("room", "membership"),
		inbox: newInbox(), peers: map[ring.NodeID]peer{}, orders: make(chan order), kick: make(chan struct{}, 1),
	}
	m.alive.Store(1)
	m.delegate = &delegate{self: cfg.ID, current: m.current.Load, inbox: m.inbox}
	m.delegate.broadcasts = &memberlist.TransmitLimitedQueue{NumNodes: func() int { return int(m.alive.Load()) }}
	m.metrics = newCounters(cfg.Metrics, m)
	if err := m.load(); err != nil {
		return nil, err
	}
	last, _ := m.state.announced(cfg.ID)
	m.former = last.Endpoints
	m.self = m.announcement()
	m.publish()
	m.warnOfFlags()
	return m, nil
}

// load takes the state from disk, or makes and saves the first one.
func (m *Membership) load() error {
	blob, err := m.cfg.Store.Load()
	if err != nil {
		return fmt.Errorf("membership: load: %w", err)
	}
	if blob == nil {
		if m.cfg.Recovering && m.cfg.Store.Company() && len(m.cfg.Join) == 0 {
			return errOrphan
		}
		return m.commit(m.firstState())
	}
	s, err := decodeState(blob)
	if err == nil && s.Level > m.cfg.MaxLevel {
		err = newer(s.Level, m.cfg.MaxLevel)
	}
	if err != nil {
		return fmt.Errorf("membership: load: %w", err)
	}
	if s.From != m.cfg.ID {
		return fmt.Errorf("membership: the state on disk is that of node %v, this is node %v", s.From, m.cfg.ID)
	}
	m.state, m.digest = s, digest(s)
	if err := m.computeView(); err != nil {
		return err
	}
	if m.orphaned() {
		m.log.Error("this node's disk has lost the end of its history, and with it who the other members are: it waits for one of them")
		return nil
	}
	return m.noteCompany(s.members() > 1)
}

// firstState is what a node without history holds: without seeds a cluster of
// its own, with seeds a cluster that is forming and may be given up.
func (m *Membership) firstState() state {
	s := state{From: m.cfg.ID, Level: firstLevel}
	s.Units, s.N = m.cfg.Params.Units, m.cfg.Params.N
	for _, id := range []*[16]byte{&s.ClusterID, &s.TokenKey} {
		binary.BigEndian.PutUint64(id[:8], m.cfg.Rand())
		binary.BigEndian.PutUint64(id[8:], m.cfg.Rand())
	}
	if len(m.cfg.Join) > 0 {
		return s
	}
	return m.found(s)
}

// found makes a forming cluster a final one, of this node alone.
func (m *Membership) found(s state) state {
	s = s.found(m.ownRecord(), m.cfg.MaxLevel).open(m.cfg.Expect)
	m.log.Info("created a cluster", "cluster", clusterName(s.ClusterID), "units", s.Units, "n", s.N, "level", s.Level)
	return s
}

// ownRecord is the record by which this node enters a ring.
func (m *Membership) ownRecord() ring.Record {
	id := m.cfg.ID
	return ring.Record{
		Member:  ring.Member{ID: id, PlaceID: id, Zone: m.cfg.Zone, Weight: m.cfg.Weight},
		Counter: 1, TimeMS: m.cfg.Now().UnixMilli(), Admin: id,
	}
}

// announcement is what this run of the node says of itself. Its stamp is above
// those of earlier runs even if the clock went back.
func (m *Membership) announcement() announcement {
	a := announcement{
		ID: m.cfg.ID, Stamp: uint64(max(0, m.cfg.Now().UnixMilli())), MaxLevel: m.cfg.MaxLevel,
		Boot: m.cfg.Boot, Recovering: m.cfg.Recovering, Zone: m.cfg.Zone, Endpoints: m.cfg.Endpoints,
	}
	if last, found := m.state.announced(a.ID); found {
		a.Stamp = max(a.Stamp, last.Stamp+1)
	}
	return a
}

// announce completes this node's announcement with the address that gossip
// found, and publishes it.
func (m *Membership) announce(g *gossip) error {
	m.ip, m.port = g.ip, g.port
	m.self.Endpoints.Host = cmp.Or(m.self.Endpoints.Host, g.ip.String())
	m.self.Endpoints.Gossip = cmp.Or(m.self.Endpoints.Gossip, g.port)
	if err := m.commit(m.state.learn([]announcement{m.self})); err != nil {
		return err
	}
	m.publish()
	return nil
}

// commit persists a state, and only then makes it this node's.
func (m *Membership) commit(next state) error {
	if !next.worthSaving(m.state) {
		m.state = next
		return m.computeView()
	}
	if err := m.save(next); err != nil {
		return err
	}
	old := m.state
	m.state, m.digest = next, digest(next)
	m.broadcast(old)
	if next.Established && !old.Established {
		m.warnOfFlags()
	}
	return m.computeView()
}

// save persists a state. Company is noted before, and its end after: should a crash
// come between, the note says rather too much than too little.
func (m *Membership) save(next state) error {
	company := next.members() > 1
	if company {
		if err := m.noteCompany(true); err != nil {
			return err
		}
	}
	if err := m.cfg.Store.Save(appendState(nil, next)); err != nil {
		return fmt.Errorf("membership: save: %w", err)
	}
	if company || m.orphaned() {
		return nil
	}
	return m.noteCompany(false)
}

// computeView brings the view of the epochs up to the state.
func (m *Membership) computeView() error {
	if !m.state.Established {
		return nil
	}
	v, err := m.state.Epochs.View(func(members []ring.Member) (*ring.Ring, error) {
		return ring.New(m.state.Params(), members)
	})
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	m.epoch = v
	rings := v.Rings()
	if m.live == nil || !slices.Equal(slices.Concat([]*ring.Ring{m.live.Base}, m.live.Beside), rings) {
		m.live = ring.NewLive(rings[0], rings[1:]...)
	}
	return nil
}

// broadcast spreads what is new in the state, in a packet if it fits one; whatever is
// lost or greater travels with the next exchange, which the digest asks for.
func (m *Membership) broadcast(old state) {
	if m.digest == digest(old) && m.state.Established == old.Established {
		return
	}
	part := m.state
	part.Opened, part.Known = false, nil
	if msg := appendState(nil, part); len(msg) <= broadcastBytes {
		m.delegate.broadcasts.QueueBroadcast(&news{msg})
		return
	}
	if m.state.Established {
		return
	}
	for _, r := range m.state.changedRecords(old) {
		part.Records = []ring.Record{r}
		m.delegate.broadcasts.QueueBroadcast(&news{appendState(nil, part)})
	}
}

// publish replaces the view.
func (m *Membership) publish() {
	s := m.state
	v := &View{
		Constants: s.Constants, Self: s.From, Level: s.Level, Established: s.Established, Live: m.live, Epoch: m.epoch,
		Records: s.Records, Nodes: m.nodes(), Ready: s.ready(),
		Met: m.met || s.members() <= 1 && !m.orphaned(),
	}
	if m.live != nil {
		v.Ring = m.live.Base
	}
	alive := 0
	for _, n := range v.Nodes {
		if n.Alive {
			alive++
		}
	}
	m.alive.Store(int64(alive))
	if old := m.current.Swap(m.publication(v, make(chan struct{}))); old != nil {
		close(old.changed)
		m.metrics.views.Inc()
	}
}

// publication is a view with what goes out to others.
func (m *Membership) publication(v *View, changed chan struct{}) *published {
	shared := m.state
	shared.Opened = false
	var epochs []byte
	if shared.Established {
		epochs = shared.Epochs.Append(nil)
	}
	return &published{
		view: v, epochs: epochs, wire: appendState(nil, shared), ip: m.ip, port: m.port,
		meta:    appendMeta(nil, m.metaOf(shared)),
		changed: changed,
	}
}

// metaOf is what gossip says of this node while it holds a state.
func (m *Membership) metaOf(s state) meta {
	said := meta{announcement: m.self, ClusterID: s.ClusterID, Established: s.Established, Digest: m.digest}
	if s.Level >= weightLevel {
		said.Weight = uint16(m.cfg.Weight)
	}
	return said
}

// republish replaces what goes out to others, and leaves the view.
func (m *Membership) republish() {
	old := m.current.Load()
	m.current.Store(m.publication(old.view, old.changed))
}

// nodes collects what is known of each member and each live node of this
// cluster: from gossip, or from an earlier run.
func (m *Membership) nodes() map[ring.NodeID]NodeInfo {
	all := map[ring.NodeID]NodeInfo{}
	tell := func(a announcement, weight int, alive bool) {
		all[a.ID] = NodeInfo{
			ID: a.ID, Endpoints: a.Endpoints, Zone: a.Zone, Weight: weight, MaxLevel: a.MaxLevel, Recovering: a.Recovering,
			Alive: alive, Member: m.state.Established && m.state.member(a.ID),
		}
	}
	for _, id := range m.state.concerned() {
		a, _ := m.state.announced(id)
		a.ID = id
		tell(a, 0, false)
	}
	for id, p := range m.peers {
		if !p.alive || p.ClusterID != m.state.ClusterID {
			continue
		}
		a := p.announcement
		if kept, found := m.state.announced(id); found && kept.order(a) > 0 {
			a = kept
		}
		tell(a, int(p.Weight), true)
	}
	tell(m.self, m.cfg.Weight, true)
	return all
}

// View is the present view, never nil.
func (m *Membership) View() *View { return m.current.Load().view }

// Changes returns the present view and a channel that is closed when another
// has replaced it.
func (m *Membership) Changes() (*View, <-chan struct{}) {
	p := m.current.Load()
	return p.view, p.changed
}

// warnOfFlags says which flags a cluster or an earlier run has overruled.
func (m *Membership) warnOfFlags() {
	s := m.state
	if !s.Established {
		return
	}
	if s.Params() != m.cfg.Params {
		m.log.Warn("the cluster was created with other constants, which stay in force",
			"units", s.Units, "n", s.N, "units_flag", m.cfg.Params.Units, "n_flag", m.cfg.Params.N)
	}
	if r, found := s.record(s.From); found && !r.Removed && (r.Zone != m.cfg.Zone || r.Weight != m.cfg.Weight) {
		m.log.Warn("this node entered the ring with another zone or weight, which stay in force",
			"zone", r.Zone, "weight", r.Weight, "zone_flag", m.cfg.Zone, "weight_flag", m.cfg.Weight)
	}
}

// sortedPeers are the peers by id, for choices that must not hang on map order.
func (m *Membership) sortedPeers() []peer {
	return slices.SortedFunc(maps.Values(m.peers), func(a, b peer) int { return cmp.Compare(a.ID, b.ID) })
}

func clusterName(id [16]byte) string { return fmt.Sprintf("%x", id) }
