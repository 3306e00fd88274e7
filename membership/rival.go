package membership

import (
	"context"
	"fmt"
	"time"
)

// rivalry is what a run has found out about other boots of its own id.
type rivalry struct {
	since   time.Time // this boot number was taken
	settled bool      // the others have taken note of it, and some time has passed
	yielded bool      // it is not the first one of this process, and is not settled
	probing bool
	latest  announcement // the boot that is being probed
	probes  chan bool    // whether another process was found alive
}

// CheckTwin answers ErrSuperseded if another process is alive where this data
// directory last ran: then one of the two is a copy, and the later comer should
// not begin to serve. A directory that has not moved is not looked for.
func (m *Membership) CheckTwin(ctx context.Context) error {
	there := m.former.PeerAddr()
	if there == "" || there == m.self.Endpoints.PeerAddr() || !m.cfg.Twin(ctx, m.former) {
		return nil
	}
	return fmt.Errorf("%w, at %s: this data directory is a copy of one that is in use; give this node an empty one", ErrSuperseded, there)
}

// meet compares this run with what another node knows of it. See the package
// comment for the cases.
func (l *loop) meet(ctx context.Context, a announcement) error {
	r := &l.rivalry
	other := a.Boot.Incarnation != l.self.Boot.Incarnation
	later := other && a.order(l.self) > 0
	there := a.Endpoints.PeerAddr()
	elsewhere := other && there != "" && there != l.self.Endpoints.PeerAddr()
	behind := a.Boot.Reached > l.cfg.Reached() || other && a.Boot.Reached > l.cfg.Boot.Reached && !r.yielded
	switch {
	case !other && !behind:
		if time.Since(r.since) >= l.timing.rejoin {
			r.settled, r.yielded = true, false
		}
		return nil
	case !behind && !(other && a.Boot.Number >= l.self.Boot.Number):
		return nil
	case r.yielded && !later:
		return nil
	case r.yielded && elsewhere:
		return l.superseded(a)
	}
	if a.order(r.latest) > 0 {
		a.Boot.Reached = max(a.Boot.Reached, r.latest.Boot.Reached)
		r.latest = a
	}
	if r.probing {
		return nil
	}
	if !elsewhere {
		return l.probed(false) // nobody but this process can be where it listens: it is a life of the past
	}
	wait := time.Duration(0)
	if r.settled && later {
		wait = l.timing.yield // it is the later comer, and has found this process by then
	}
	r.probing = true
	l.tasks.Go(func() { r.probes <- sleep(ctx, wait) && l.cfg.Twin(ctx, a.Endpoints) })
	return nil
}

// meetDone notes that this node has heard what there is to hear of its past.
func (l *loop) meetDone() {
	l.dirty = l.dirty || !l.met
	l.met = true
}

// superseded ends this run in favour of another process with the same id.
func (l *loop) superseded(a announcement) error {
	return fmt.Errorf("%w, at %s, with a copy of this data directory and a later boot (%d, here %d); one of the two must be given an empty directory",
		ErrSuperseded, a.Endpoints.PeerAddr(), a.Boot.Number, l.self.Boot.Number)
}

// probed goes on once it is known whether the rival boot is alive.
func (l *loop) probed(twin bool) error {
	r := &l.rivalry
	r.probing = false
	if twin {
		return l.superseded(r.latest)
	}
	number := max(l.self.Boot.Number, r.latest.Boot.Number) + 1
	l.log.Error("this data directory lacks what the cluster has seen of this node: it was restored, replaced or damaged, or a copy of it was in use. The node is recovering: it takes writes, and does not count in reads until it has been compared with the others",
		"boot", l.self.Boot.Number, "seen_boot", r.latest.Boot.Number, "reached", l.cfg.Reached(), "seen_reached", r.latest.Boot.Reached, "new_boot", number)
	l.metrics.restored.Inc()
	if err := l.cfg.Restored(number, max(l.cfg.Reached(), r.latest.Boot.Reached)); err != nil {
		return fmt.Errorf("membership: note that the node is recovering: %w", err)
	}
	l.meetDone()
	r.since, r.settled, r.yielded, r.latest = time.Now(), false, true, announcement{}
	l.self.Boot.Number, l.self.Recovering = number, true
	return l.reannounce()
}

// reannounce tells all others what has changed in this node's announcement.
func (l *loop) reannounce() error {
	l.self.Stamp = max(uint64(max(0, l.cfg.Now().UnixMilli())), l.self.Stamp+1)
	l.self.Boot.Reached = l.cfg.Reached()
	if err := l.commit(l.state.learn([]announcement{l.self})); err != nil {
		return err
	}
	l.publish()
	_ = l.gossip.list.UpdateNode(time.Nanosecond) // it is in the queue, whatever this says
	return nil
}

// tellReach tells all others how far the log has come, if it has.
func (l *loop) tellReach() {
	if r := l.cfg.Reached(); r > l.self.Boot.Reached {
		l.self.Boot.Reached = r
		l.state = l.state.learn([]announcement{l.self})
		l.republish()
		_ = l.gossip.list.UpdateNode(time.Nanosecond) // it is in the queue, whatever this says
	}
}

// Recovered tells the others that this node has all again that it had lost.
func (m *Membership) Recovered() { m.inbox.put(func(b *mail) { b.whole = true }) }
