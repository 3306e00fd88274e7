package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/membership/ring"
)

// This file keeps the level of a cluster: what the oldest program that is among its
// nodes, or may come back, can read. The package comment has the protocol.

// firstLevel is that of a cluster whose states do not say.
const firstLevel = 1

var (
	// ErrNewer says that what is on disk was written at a level of the cluster that
	// this program does not serve.
	ErrNewer = errors.New("written by a newer release")
	// ErrMixed says that the level cannot be raised yet, and why.
	ErrMixed = errors.New("not every node is known to serve the level")
)

// errOld keeps out a node whose program does not serve the level of the cluster.
var errOld = errors.New(refusal + ": its program is too old")

// newer is ErrNewer with both levels.
func newer(level, most uint16) error {
	return fmt.Errorf("%w: level %d; this program serves up to %d", ErrNewer, level, most)
}

// lowest is the lowest of what those serve that found a cluster: this node, the live
// ones that are forming it, and all that have pledged themselves. One that was never
// heard may be of any release.
func (m *Membership) lowest(s state) uint16 {
	level := m.self.MaxLevel
	for _, p := range m.peers {
		if p.alive && p.ClusterID == s.ClusterID {
			level = min(level, p.MaxLevel)
		}
	}
	for _, r := range s.Records {
		a, found := s.announced(r.ID)
		switch {
		case r.ID == s.From || r.Removed || m.peers[r.ID].alive:
		case !found:
			return firstLevel
		default:
			level = min(level, a.MaxLevel)
		}
	}
	return max(level, firstLevel)
}

// Finalise raises the level of the cluster to the highest that this program serves.
// From then on no older program can take part, nor read what is written. When it
// returns nil the level is saved and published; the others hear of it by gossip. It
// answers whether the cluster was there already, and ErrMixed unless every member and
// every live node of the cluster is known to serve that level.
func (m *Membership) Finalise(ctx context.Context) (already bool, err error) {
	to := m.cfg.MaxLevel
	err = m.order(ctx, func(l *loop) (state, error) {
		if already = l.state.Level >= to; already {
			return l.state, nil
		}
		if why := l.hindrances(to); len(why) > 0 {
			return state{}, fmt.Errorf("%w %d: %s", ErrMixed, to, strings.Join(why, "; "))
		}
		next := l.state
		next.Level = to
		return next, nil
	})
	return already, err
}

// hindrances names the nodes that are not known to serve a level. One that is down
// may come back with any program, so what it once said does not count.
func (l *loop) hindrances(level uint16) (why []string) {
	all := l.nodes()
	ids := make([]ring.NodeID, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		switch n := all[id]; {
		case !n.Alive:
			why = append(why, fmt.Sprintf("node %v (%s) is down, and might come back with an older program", id, n.Endpoints.PlainAddr()))
		case n.MaxLevel < level:
			why = append(why, fmt.Sprintf("node %v (%s) serves up to %d", id, n.Endpoints.PlainAddr(), n.MaxLevel))
		}
	}
	return why
}

// outgrown is what becomes of a state of a level that this program does not serve. It
// ends this node, unless it comes from another cluster and this one has its own.
func (l *loop) outgrown(in state) error {
	if l.state.Established && in.ClusterID != l.state.ClusterID {
		l.refused(in.From.String(), fmt.Sprintf("%v (%s)", errForeign, clusterName(in.ClusterID)))
		return nil
	}
	return fmt.Errorf("%w: cluster %s is at level %d, as node %v says, and this program serves up to %d: start a newer release on this data directory",
		ErrRefused, clusterName(in.ClusterID), in.Level, in.From, l.cfg.MaxLevel)
}

// raised logs that the level has risen.
func (l *loop) raised(old, next state) {
	if next.Level > old.Level && next.Established {
		l.log.Info("the level of the cluster", "level", next.Level, "before", old.Level)
	}
}
