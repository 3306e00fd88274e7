package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/resp"
)

// nodeID is spelled short because the seams are full of it.
type nodeID = ring.NodeID

func (n *Node) params() ring.Params { return ring.Params{Units: n.cfg.Units, N: n.cfg.N} }

// endpoints is where others find this node: the advertised host with the ports
// that are really listened on.
func (n *Node) endpoints() membership.Endpoints {
	_, gossip, _ := net.SplitHostPort(n.cfg.GossipListen)
	gossipPort, _ := strconv.ParseUint(gossip, 10, 16)
	e := membership.Endpoints{
		Host:  advertised(n.cfg.Advertise, n.cfg.Listen),
		Plain: uint16(port(n.listeners[listenPlain])), Cluster: uint16(port(n.listeners[listenCluster])),
		Peer: uint16(port(n.listeners[listenPeer])), Gossip: uint16(gossipPort),
	}
	if len(n.listeners) > listenAdmin {
		e.Admin = uint16(port(n.listeners[listenAdmin]))
	}
	return e
}

func port(l net.Listener) int {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(p)
	return n
}

// admit refuses what is most likely a mistake: a member's machine came back with an
// empty directory. As one more member it would leave the old one in the ring, whom
// every change waits for.
func (n *Node) admit(_ context.Context, v *membership.View) error {
	if lost := n.cfg.ReplaceLost; lost != 0 {
		return fmt.Errorf("%w: --replace-lost %v: there is no such member; %s", membership.ErrRefused, lost, membersOf(v))
	}
	if v.Ring == nil {
		return nil
	}
	self, _ := v.Node(n.id.node)
	here := self.Endpoints.PeerAddr()
	for _, m := range v.Ring.Members() {
		if info, _ := v.Node(m.ID); m.ID != n.id.node && info.Endpoints.PeerAddr() == here {
			return fmt.Errorf("%w: node %v is a member and was last at this very address, %s. If its data directory is lost, start this one with --replace-lost %v, or give that member up first with: redynamo ring forget %v; %s",
				membership.ErrRefused, m.ID, here, m.ID, m.ID, membersOf(v))
		}
	}
	return nil
}

// membersOf lists the members, and which of them are down.
func membersOf(v *membership.View) string {
	if v.Ring == nil {
		return "no members are known yet"
	}
	var text strings.Builder
	text.WriteString("the members are")
	for _, m := range v.Ring.Members() {
		info, _ := v.Node(m.ID)
		fmt.Fprintf(&text, " %v (%s", m.ID, info.Endpoints.PlainAddr())
		if !info.Alive {
			text.WriteString(", down")
		}
		text.WriteString(")")
	}
	return text.String()
}

// ask asks a peer for its status.
func ask(ctx context.Context, p *rpc.Peer, timeout time.Duration) (rpc.StatusReply, error) {
	type answer struct {
		reply rpc.StatusReply
		err   error
	}
	ch := make(chan answer, 1)
	p.Status(rpc.StatusRequest{}, rpc.Options{Deadline: time.Now().Add(timeout)},
		func(r rpc.StatusReply, err error) { ch <- answer{r, err} })
	select {
	case a := <-ch:
		return a.reply, a.err
	case <-ctx.Done():
		return rpc.StatusReply{}, ctx.Err()
	}
}

// publisher keeps the map that the doors show, and answers their questions
// about the node. A new map is made whenever the members, placement or the
// liveness of a peer changed.
type publisher struct {
	n      *Node
	dirty  chan struct{} // holds one wish for a new map
	view   atomic.Pointer[resp.View]
	ready  chan struct{} // closed once data commands may be served, as they may be from then on while the ring allows
	opened sync.Once
}

func newPublisher(n *Node) *publisher {
	p := &publisher{n: n, dirty: make(chan struct{}, 1), ready: make(chan struct{})}
	p.rebuild(0)
	return p
}

// wake asks for a new map; it never waits.
func (p *publisher) wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// Run makes new maps until ctx ends.
func (p *publisher) Run(ctx context.Context) error {
	warned, gossiped, left := "", map[nodeID]bool{}, false
	for version := uint64(1); ; version++ {
		v, changed := p.n.members.Changes()
		if v.Established && v.Units != p.n.cfg.Units {
			return fmt.Errorf("the cluster has %d partitions, fixed when it was created: start this node with --units %d", v.Units, v.Units)
		}
		p.connect(v)
		p.heed(v, gossiped)
		p.n.hints.sender.Wake() // owners may be others now
		p.n.hints.mover.Wake()
		p.n.drops.wake()
		p.rebuild(version)
		if serves(v) && v.Met { // else it may take writes by a ring that is over, alone
			p.opened.Do(func() { close(p.ready) })
		}
		if err := p.n.recoverAlone(v); err != nil {
			return err
		}
		if v.Epoch != nil && v.Epoch.Forgotten {
			return errForgotten
		}
		if out := hasLeft(v); out && !left {
			p.n.cfg.Logger.Warn(leftText)
			left = true
		}
		if warning := fewReplicas(v); v.Ready && warning != warned {
			if warned = warning; warning != "" {
				p.n.cfg.Logger.Warn(warning)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-p.dirty:
		}
	}
}

// connect tells the pool where every other node is.
func (p *publisher) connect(v *membership.View) {
	for id, info := range v.Nodes {
		if addr := info.Endpoints.PeerAddr(); id != p.n.id.node && addr != "" {
			p.n.pool.Peer(id, addr)
		}
	}
}

// heed has those peers looked at of which gossip now says something else: that
// they left or died, or are back. It decides nothing.
func (p *publisher) heed(v *membership.View, gossiped map[nodeID]bool) {
	for id, info := range v.Nodes {
		was, known := gossiped[id]
		gossiped[id] = info.Alive
		if peer := p.n.pool.Get(id); peer != nil && known && was != info.Alive {
			peer.Check()
		}
	}
}

// rebuild makes a new map if the ring, or something that the map says of a member, is
// another. Views of membership come far more often: each heard word makes one.
func (p *publisher) rebuild(version uint64) {
	v := p.n.members.View()
	var members []resp.Member
	owners := func(uint16) []nodeID { return nil }
	var epoch uint64
	if v.Ring != nil {
		epoch = v.Ring.Epoch()
		owners = func(slot uint16) []nodeID { return v.Ring.Owners(v.Ring.Partition(slot)) }
		for _, m := range v.Ring.Members() {
			info, _ := v.Node(m.ID)
			members = append(members, resp.Member{
				ID: m.ID, Host: info.Endpoints.Host, Plain: int(info.Endpoints.Plain), Cluster: int(info.Endpoints.Cluster),
				Bus: int(info.Endpoints.Gossip), Zone: m.Zone, Alive: cluster{p.n}.Up(m.ID),
			})
		}
	}
	if old := p.view.Load(); old != nil && old.Epoch == epoch && slices.Equal(old.Members, members) {
		return
	}
	p.view.Store(resp.NewView(version, epoch, p.n.id.node, members, owners))
}

// Identity, Ready, View, Owners, RingStatus and Stats are resp.Admin.
func (p *publisher) Identity() resp.Identity {
	return resp.Identity{ID: p.n.id.node, RunID: p.n.runID, Version: p.n.cfg.Version, DataDir: p.n.cfg.DataDir, Started: p.n.started}
}

// serves reports whether requests of clients can be met. A node that has left has others
// meet them, until it is stopped.
func serves(v *membership.View) bool { return v.Ready || v.Epoch != nil && v.Epoch.Relay }

// Ready reports whether data commands may be served.
func (p *publisher) Ready() bool {
	select {
	case <-p.ready:
		return serves(p.n.members.View())
	default:
		return false
	}
}

// Level is that in force.
func (p *publisher) Level() uint16 { return p.n.members.View().Level }

// View is the published map.
func (p *publisher) View() *resp.View { return p.view.Load() }

// Owners lists the owners of key in ring order, then who stands in for the
// dead ones.
func (p *publisher) Owners(key []byte) []resp.Owner {
	v := p.n.members.View()
	if v.Ring == nil {
		return nil
	}
	partition := v.Ring.Partition(ring.SlotOf(key))
	up := cluster{p.n}.Up
	row := func(id nodeID, role string) resp.Owner {
		info, _ := v.Node(id)
		return resp.Owner{Node: id, Addr: info.Endpoints.PlainAddr(), Zone: info.Zone, Role: role, Alive: up(id)}
	}
	var rows []resp.Owner
	for _, id := range v.Ring.Owners(partition) {
		rows = append(rows, row(id, "owner"))
	}
	for _, s := range v.Ring.Walk(nil, partition, up) {
		if s.For != 0 {
			rows = append(rows, row(s.Node, "fallback"))
		}
	}
	return rows
}

// RingStatus is the ring with the share of each member, and how far each is if it
// is changing.
func (p *publisher) RingStatus() resp.RingStatus {
	v := p.n.members.View()
	st := resp.RingStatus{Units: v.Units, N: v.N, R: p.n.cfg.R, W: p.n.cfg.W}
	if v.Ring == nil {
		return st
	}
	st.Epoch, st.N = v.Ring.Epoch(), v.Ring.N()
	st.R, st.W = min(st.R, st.N), min(st.W, st.N)
	owned, first := map[nodeID]int{}, map[nodeID]int{}
	for u := range v.Ring.Units() {
		for i, id := range v.Ring.Owners(u) {
			owned[id]++
			if i == 0 {
				first[id]++
			}
		}
	}
	for _, m := range v.Live.Members() {
		info, _ := v.Node(m.ID)
		st.Members = append(st.Members, resp.RingMember{
			ID: m.ID, Addr: info.Endpoints.PlainAddr(), Zone: m.Zone, Weight: m.Weight,
			Alive: cluster{p.n}.Up(m.ID), Recovering: info.Recovering, Partitions: owned[m.ID], First: first[m.ID], MaxLevel: int(info.MaxLevel),
			Moving: movingText(v, m.ID), Step: stepText(v, m.ID),
		})
	}
	for id, info := range v.Nodes {
		if info.Alive && !isMember(v, id) {
			st.Staged = append(st.Staged, resp.RingMember{
				ID: id, Addr: info.Endpoints.PlainAddr(), Zone: info.Zone, Weight: cmp.Or(info.Weight, addWeight),
				Alive: true, Moving: "staged", MaxLevel: int(info.MaxLevel),
			})
		}
	}
	slices.SortFunc(st.Staged, func(a, b resp.RingMember) int { return cmp.Compare(a.ID, b.ID) })
	st.Extra = append(levelFields(v), changeFields(v)...)
	return st
}

// AwaitReady waits until the node serves data commands.
func (n *Node) AwaitReady(ctx context.Context) error {
	select {
	case <-n.publish.ready:
	case <-n.end.done:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), n.notReady())
	}
	select {
	case <-n.end.done: // it may have been ready before
		return errors.Join(errors.New("the node has ended"), n.Err())
	default:
		return nil
	}
}

// notReady says why data commands are not served, or nil if they are.
func (n *Node) notReady() error {
	if err := n.Err(); err != nil {
		return err
	}
	if n.publish.Ready() {
		return nil
	}
	v := n.members.View()
	if v.Ring == nil {
		return errors.New("loading: no cluster has been found or formed yet")
	}
	if serves(v) && !v.Met {
		return errors.New("loading: this node has yet to hear from another member what has become of the ring")
	}
	if have := len(v.Records); have < n.cfg.Expect {
		return fmt.Errorf("loading: %d of %d expected members have joined", have, n.cfg.Expect)
	}
	return errors.New("loading: this node is not part of the ring, or not every other one knows yet that it is")
}

// impairment is what a node that serves cannot do.
type impairment struct{ name, text string }

// impaired says what this node cannot do though it serves: the others do it.
func (n *Node) impaired() []impairment {
	var all []impairment
	if n.store.DiskFull() {
		all = append(all, impairment{"disk", "disk almost full: writes are refused here and made elsewhere, reads go on"})
	}
	if n.recovery.on() {
		all = append(all, impairment{"recovering", "recovering: this node has lost writes that it had acknowledged, and does not count in reads"})
	}
	if hasLeft(n.members.View()) {
		all = append(all, impairment{"left", leftText})
	}
	return all
}

// fewReplicas says what is missing for the n that the cluster was created with,
// whatever this node's own flag says; "" if nothing is.
func fewReplicas(v *membership.View) string {
	if v.Ring == nil || len(v.Ring.Members()) >= v.N {
		return ""
	}
	members := len(v.Ring.Members())
	return fmt.Sprintf("only %d members for n=%d: every key is on all of them, and r and w are capped", members, v.N)
}

// damageFields are the lines of section damage.
func damageFields(d storage.Damage, r replica.Stats) (fields []resp.Field) {
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"damaged_blocks_met", d.Found}, {"unreadable_rows_met", r.Unreadable},
		{"ranges_salvaged", d.Salvaged}, {"salvages_failed", d.Unsalvaged},
		{"ranges_lost", d.Lost}, {"holes", d.Holes}, {"holes_filled", r.Filled},
		{"rows_restored_from_cache", r.Restored}, {"hints_lost", r.LostHints},
	} {
		fields = append(fields, resp.Field{Name: f.name, Value: strconv.FormatInt(f.n, 10)})
	}
	return fields
}

// Stats is a snapshot for INFO.
func (p *publisher) Stats() resp.Stats {
	n := p.n
	st := resp.Stats{Fsync: n.cfg.Fsync.String()}
	r := n.replica.Stats()
	st.Keys, st.Expires, st.ExpiredKeys = r.Keys, r.Expires, r.Expired
	st.CacheBytes, st.DiskBytes = r.CacheBytes, n.store.DiskBytes()
	st.Hits, st.Misses = r.Hits, r.Misses
	st.Hints, st.HintBytes = r.Hints, r.HintBytes
	st.Handoff = p.handoffFields()
	st.Divergence = n.coord.Divergence()
	st.Damage = damageFields(n.store.Damage(), r)
	v := n.members.View()
	members := 0
	if v.Ring != nil {
		members = len(v.Ring.Members())
	}
	if warning := fewReplicas(v); warning != "" && p.Ready() {
		st.Warnings = append(st.Warnings, resp.Field{Name: "warning_replicas", Value: warning})
	}
	for _, w := range n.impaired() {
		st.Warnings = append(st.Warnings, resp.Field{Name: "warning_" + w.name, Value: w.text})
	}
	st.Extra = []resp.Field{
		{Name: "cluster_members", Value: strconv.Itoa(members)},
		{Name: "n", Value: strconv.Itoa(n.cfg.N)}, {Name: "r", Value: strconv.Itoa(n.cfg.R)}, {Name: "w", Value: strconv.Itoa(n.cfg.W)},
		{Name: "units", Value: strconv.Itoa(v.Units)}, {Name: "zone", Value: n.cfg.Zone},
		{Name: "incarnation", Value: fmt.Sprintf("%016x", uint64(n.actor))}, {Name: "boots", Value: strconv.FormatUint(n.recovery.now.Load().boots, 10)},
		{Name: "recovering", Value: strconv.FormatBool(n.recovery.on())},
	}
	for _, f := range levelFields(v) {
		st.Extra = append(st.Extra, resp.Field{Name: strings.ReplaceAll(f.Name, "-", "_"), Value: f.Value})
	}
	if v.Established { // before, the cluster may be given up for another
		st.Extra = append(st.Extra, resp.Field{Name: "cluster_id", Value: fmt.Sprintf("%x", v.ClusterID)})
	}
	st.Extra = append(st.Extra, p.admissionFields()...)
	return st
}

// settings are what CONFIG GET shows of this node beside the doors' own.
func (n *Node) settings() []resp.Field {
	return []resp.Field{
		{Name: "n", Value: strconv.Itoa(n.cfg.N)}, {Name: "r", Value: strconv.Itoa(n.cfg.R)}, {Name: "w", Value: strconv.Itoa(n.cfg.W)},
		{Name: "units", Value: strconv.Itoa(n.cfg.Units)}, {Name: "zone", Value: n.cfg.Zone}, {Name: "weight", Value: strconv.Itoa(n.cfg.Weight)},
		{Name: "fsync", Value: n.cfg.Fsync.String()}, {Name: "data-dir", Value: n.cfg.DataDir},
		{Name: "max-value", Value: strconv.Itoa(n.cfg.MaxValue)}, {Name: "hint-budget", Value: strconv.FormatInt(n.cfg.HintBudget, 10)},
	}
}

// nodeStatus is what the admin HTTP shows at its root.
type nodeStatus struct {
	Node    string        `json:"node"`
	Version string        `json:"version"`
	Ready   bool          `json:"ready"`
	Waiting string        `json:"waiting,omitempty"`
	Notes   []string      `json:"notes,omitempty"`
	Epoch   string        `json:"epoch"`
	Members []memberState `json:"members"`
}

type memberState struct {
	Node       string `json:"node"`
	Address    string `json:"address"`
	Zone       string `json:"zone"`
	Up         bool   `json:"up"`
	Partitions int    `json:"partitions"`
}

func (n *Node) status() nodeStatus {
	ring := n.publish.RingStatus()
	st := nodeStatus{Node: n.id.node.String(), Version: n.cfg.Version, Ready: n.publish.Ready(), Epoch: fmt.Sprintf("%016x", ring.Epoch)}
	if err := n.notReady(); err != nil {
		st.Waiting = err.Error()
	}
	for _, i := range n.impaired() {
		st.Notes = append(st.Notes, i.text)
	}
	for _, m := range ring.Members {
		st.Members = append(st.Members, memberState{Node: m.ID.String(), Address: m.Addr, Zone: m.Zone, Up: m.Alive, Partitions: m.Partitions})
	}
	return st
}
