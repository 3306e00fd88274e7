package membership

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// relocating is how long after its start a node presses its address on members
// that still have an old one. Later such a claim means a second node.
const relocating = 2 * time.Minute

// loggedPeers bounds what is remembered so as to be logged only once.
const loggedPeers = 1024

// loop is one run of a Membership: the only goroutine that changes its state.
type loop struct {
	*Membership
	gossip *gossip
	tasks  sync.WaitGroup // rounds and questions of admission

	started time.Time
	due     struct{ round, vote, admit, nag, reach time.Time } // zero: not due
	stale   bool                                               // somebody has an old address of this node
	dirty   bool                                               // the view must be published anew
	further bool                                               // some log has come further; no view shows that
	told    map[string]time.Time                               // what was logged when
	rivalry rivalry

	heard   map[ring.NodeID]bool // whose state has come in this run
	heardAt time.Time            // when the last of them was new

	rounding bool
	seeded   bool // the seeds were tried since the start
	rounds   chan roundResult
	lastErr  error // of the last round
	asking   bool
	answers  chan error
}

// Run takes part in the cluster until ctx ends, and returns nil then. It
// returns an error only when it cannot go on. At the end the others are told
// that this node goes down; it stays in the ring.
func (m *Membership) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := m.startGossip(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	now := time.Now()
	l := &loop{
		Membership: m, gossip: g, started: now, told: map[string]time.Time{}, heard: map[ring.NodeID]bool{},
		rounds: make(chan roundResult, 1), answers: make(chan error, 1),
		rivalry: rivalry{since: now, probes: make(chan bool, 1)},
	}
	l.due.round, l.due.nag, l.due.reach = now, now.Add(m.timing.nag), now.Add(m.timing.reach)
	m.log.Info("gossip started", "node", m.cfg.ID, "address", g.addr(), "cluster", clusterName(m.state.ClusterID),
		"established", m.state.Established, "members", m.state.members())
	err = l.run(ctx)
	cancel()
	if stopErr := g.stop(m.timing.leave); stopErr != nil {
		m.log.Info("gossip did not stop cleanly", "err", stopErr)
	}
	l.tasks.Wait()
	return err
}

func (l *loop) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.inbox.ready:
			if err := l.read(ctx, l.inbox.take()); err != nil {
				return err
			}
		case r := <-l.rounds:
			if err := l.roundDone(r); err != nil {
				return err
			}
		case twin := <-l.rivalry.probes:
			if err := l.probed(twin); err != nil {
				return err
			}
		case o := <-l.orders:
			if err := l.carryOut(ctx, o); err != nil {
				return err
			}
		case <-l.kick:
		case err := <-l.answers:
			if err := l.answered(err); err != nil {
				return err
			}
		case <-timer.C:
		}
		now := time.Now()
		if err := l.step(ctx, now); err != nil {
			return err
		}
		timer.Reset(l.wait(now))
	}
}

// step does what has become due, and publishes what has changed.
func (l *loop) step(ctx context.Context, now time.Time) error {
	if err := l.vote(now); err != nil {
		return err
	}
	if err := l.advance(l.state); err != nil {
		return err
	}
	if err := l.seekAdmission(ctx, now); err != nil {
		return err
	}
	if !now.Before(l.started.Add(l.timing.meet)) && !l.orphaned() {
		l.meetDone()
	}
	if !now.Before(l.due.reach) {
		l.due.reach = now.Add(l.timing.reach)
		l.tellReach()
	}
	switch {
	case l.dirty:
		l.publish()
	case l.further:
		l.republish()
	}
	l.dirty, l.further = false, false
	if !l.rounding && !now.Before(l.due.round) {
		l.startRound(ctx)
	}
	if !now.Before(l.due.nag) {
		l.due.nag = now.Add(l.timing.nag)
		l.nag()
	}
	return nil
}

// wait is how long until something is due.
func (l *loop) wait(now time.Time) time.Duration {
	next := l.due.nag
	earlier := func(t time.Time, counts bool) {
		if counts && !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	earlier(l.due.round, !l.rounding)
	earlier(l.due.reach, true)
	earlier(l.started.Add(l.timing.meet), !l.met && !l.orphaned())
	earlier(l.due.vote, true)
	earlier(l.due.admit, !l.asking)
	earlier(now.Add(l.timing.transition), l.moving())
	return max(next.Sub(now), time.Millisecond)
}

// read works through the mail.
func (l *loop) read(ctx context.Context, m mail) error {
	l.metrics.dropped.Add(m.dropped)
	l.metrics.unreadable.Add(m.unreadable)
	for _, in := range m.states {
		if err := l.receive(ctx, in); err != nil {
			return err
		}
	}
	for id, p := range m.heard {
		l.hear(id, p)
	}
	if err := l.advance(l.state.learn(l.announcements())); err != nil {
		return err
	}
	if m.whole && l.self.Recovering {
		l.self.Recovering = false
		if err := l.reannounce(); err != nil {
			return err
		}
	}
	l.stale = l.stale || m.stale
	if m.stale && time.Since(l.started) < relocating {
		l.hurryRound(l.timing.relocate)
	}
	for c := range m.claims {
		l.claimed(c)
	}
	for name, why := range m.refused {
		l.refused(name, why)
	}
	return nil
}

// receive joins another node's state.
func (l *loop) receive(ctx context.Context, in state) error {
	if in.From == l.cfg.ID {
		return nil // this node is among its own seeds
	}
	if in.Level > l.cfg.MaxLevel {
		return l.outgrown(in)
	}
	next, v := l.state.join(in)
	switch v {
	case foreign:
		l.refused(in.From.String(), fmt.Sprintf("%v (%s)", errForeign, clusterName(in.ClusterID)))
		return nil
	case adopted:
		l.due.vote = time.Time{}
		l.log.Info("joining another node's cluster", "node", in.From, "cluster", clusterName(in.ClusterID),
			"established", in.Established, "members", in.members())
	}
	if err := l.advance(next); err != nil {
		return err
	}
	if !l.heard[in.From] {
		l.heard[in.From], l.heardAt = true, time.Now()
	}
	if own, found := in.announced(l.cfg.ID); found && v != ignored {
		if err := l.meet(ctx, own); err != nil {
			return err
		}
	}
	if v != ignored && !l.rivalry.probing {
		l.meetDone()
	}
	return nil
}

// advance applies the rules of formation to a state and makes it this node's.
func (l *loop) advance(next state) error {
	old, oldDigest := l.state, l.digest
	next = next.settle(l.cfg.Expect, l.lowest).open(l.cfg.Expect).learn([]announcement{l.self})
	next = l.transition(next)
	shows := next.Established && (!old.Established || !next.Epochs.SameView(old.Epochs))
	if next.equal(old) && !shows {
		return nil
	}
	news := next.worthSaving(old) || shows
	if err := l.commit(next); err != nil {
		return err
	}
	l.dirty, l.further = l.dirty || news, true
	if next.Established && !old.Established {
		l.log.Info("the cluster is established", "cluster", clusterName(next.ClusterID), "members", next.members(), "level", next.Level)
	}
	l.raised(old, next)
	if next.ready() && !old.ready() {
		l.log.Info("this node is ready", "members", next.members())
	}
	if !next.ready() && old.ready() {
		l.log.Info("this node serves no more", "epochs", next.Epochs, "before", old.Epochs)
	}
	for _, r := range next.changedRecords(old) {
		l.log.Info("member record", "node", r.ID, "zone", r.Zone, "weight", r.Weight, "removed", r.Removed)
	}
	if next.ClusterID != old.ClusterID || next.Established != old.Established || l.digest != oldDigest {
		l.hurryRound(l.timing.forming) // whoever still differs by then has missed it
		l.publish()                    // the new announcement must be in place when memberlist asks for it
		// Waiting for it to be sent would hold up the loop; the nanosecond
		// passes, and the message is in the queue all the same.
		_ = l.gossip.list.UpdateNode(time.Nanosecond)
	}
	if l.leaving() {
		l.hurryRound(l.timing.forming)
	}
	return nil
}

// hear takes what gossip says of another node.
func (l *loop) hear(id ring.NodeID, p peer) {
	old := l.peers[id]
	if old == p {
		return
	}
	l.peers[id] = p
	old.Boot.Reached = p.Boot.Reached // shown in no view
	if old == p {
		return
	}
	l.dirty = true
	if p.alive != old.alive && p.ClusterID == l.state.ClusterID {
		event := "a node is down"
		if p.alive {
			event = "a node is up"
		}
		l.log.Info(event, "node", id, "address", p.Endpoints.GossipAddr())
	}
	if l.differs(p) {
		l.hurryRound(l.timing.forming)
	}
	if !p.alive && !l.state.member(id) {
		delete(l.peers, id) // nothing that must be remembered
		delete(l.heard, id)
	}
}

// announcements are those of the live nodes of this cluster.
func (l *loop) announcements() []announcement {
	var all []announcement
	for _, p := range l.sortedPeers() {
		if p.ClusterID == l.state.ClusterID {
			all = append(all, p.announcement)
		}
	}
	return all
}

// vote pledges this node to the cluster it is forming, once as many nodes as
// expected have agreed on it for a while. See doc.go for why this is safe.
func (l *loop) vote(now time.Time) error {
	s := l.state
	if s.Established || s.pledged() || l.cfg.StageJoin || l.cfg.Expect < 2 || l.agreeing() < l.cfg.Expect {
		l.due.vote = time.Time{}
		return nil
	}
	if l.due.vote.IsZero() {
		l.due.vote = now.Add(l.timing.settle)
	}
	if now.Before(l.due.vote) {
		return nil
	}
	l.due.vote = time.Time{}
	return l.advance(s.with(l.ownRecord()))
}

// agreeing counts the live nodes of this node's cluster, itself included.
func (l *loop) agreeing() int {
	n := 1
	for _, p := range l.peers {
		if p.alive && p.ClusterID == l.state.ClusterID {
			n++
		}
	}
	return n
}

// seekAdmission asks to enter the ring of an established cluster.
func (l *loop) seekAdmission(ctx context.Context, now time.Time) error {
	r, found := l.state.record(l.cfg.ID)
	if found && r.Forgotten {
		return fmt.Errorf("%w: this node was removed from the cluster as dead; start it with an empty data directory", ErrRefused)
	}
	if !l.state.Established || l.cfg.StageJoin || found { // a removed one hands over what it has
		l.due.admit = time.Time{}
		return nil
	}
	if l.asking || now.Before(l.due.admit) || !l.heardMember() {
		return nil
	}
	if l.cfg.Admit == nil {
		return l.advance(l.state.with(l.ownRecord()))
	}
	l.publish() // the question is about what is known now
	l.dirty = false
	view := l.View()
	l.asking = true
	l.tasks.Go(func() { l.answers <- l.cfg.Admit(ctx, view) })
	return nil
}

// heardMember reports whether a member has told this run its state. A disk that was put
// back, or damaged, may know the cluster of a time before this node entered it: who then
// adds itself again replaces its record in the ring, which is a change for nothing, and
// all have to wait for each other.
func (l *loop) heardMember() bool {
	for id := range l.heard {
		if l.state.member(id) {
			return true
		}
	}
	return false
}

// answered takes the answer to the question of admission.
func (l *loop) answered(err error) error {
	l.asking = false
	switch {
	case errors.Is(err, ErrRefused):
		return fmt.Errorf("membership: join cluster %s: %w", clusterName(l.state.ClusterID), err)
	case err != nil:
		l.tell("admit", l.timing.nag, func() { l.log.Warn("not admitted to the ring yet", "err", err) })
		l.due.admit = time.Now().Add(l.timing.admit)
		return nil
	case l.state.Established && !l.state.member(l.cfg.ID):
		return l.advance(l.state.with(l.ownRecord()))
	}
	return nil
}

// tell runs say unless it was run for the same thing within a time; zero means
// ever.
func (l *loop) tell(what string, within time.Duration, say func()) {
	last, found := l.told[what]
	if found && (within == 0 || time.Since(last) < within) {
		return
	}
	if !found && len(l.told) >= loggedPeers {
		return
	}
	l.told[what] = time.Now()
	say()
}

// refused reports a node that was kept out, once.
func (l *loop) refused(name, why string) {
	l.metrics.foreign.Inc()
	l.tell("refused "+name, 0, func() {
		l.log.Error("a node was refused", "node", name, "why", why,
			"cluster", clusterName(l.state.ClusterID))
	})
}

// claimed reports one id at two addresses. It passes by itself when a node
// moves; a copied data directory makes it last.
func (l *loop) claimed(c claim) {
	l.metrics.claims.Inc()
	if c.id == l.cfg.ID && time.Since(l.started) < relocating {
		l.tell("moved", time.Minute, func() {
			l.log.Info("members still have another address of this node", "here", c.existing, "there", c.other)
		})
		return
	}
	l.tell("claim "+c.id.String(), time.Minute, func() {
		l.log.Error("one node id at two addresses: a node that has just moved, or two nodes with copies of one data directory, of which one must be stopped",
			"node", c.id, "known", c.existing, "claimed", c.other)
	})
}

// nag says what a node that is not ready waits for.
func (l *loop) nag() {
	s := l.state
	switch {
	case s.ready():
	case !s.Established && l.cfg.Expect < 2:
		l.log.Warn("no established cluster reached yet: there is none, or it has another cluster secret; to create one start a node without --join, or all of them with --expect",
			"join", l.cfg.Join, "err", l.lastErr)
	case !s.Established:
		l.log.Warn("the cluster is forming", "expected", l.cfg.Expect, "agreeing", l.agreeing(), "pledged", s.members(),
			"cluster", clusterName(s.ClusterID), "err", l.lastErr)
	case l.cfg.StageJoin && !s.member(l.cfg.ID):
		l.log.Info("staged: not in the ring until an administrator adds this node", "members", s.members())
	case l.leaving():
		l.log.Info("this node has left, and waits for a member to say that it may stop", "members", s.members())
	case l.state.Epochs.Out(): // it waits for nothing; who looks at the view says so, once
	case l.moving():
		l.log.Warn("the ring is changing", "state", l.state.Epochs)
	default:
		l.log.Warn("waiting for members", "expected", l.cfg.Expect, "members", s.members(), "in_ring", s.member(l.cfg.ID))
	}
}
