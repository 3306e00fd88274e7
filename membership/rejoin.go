package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Bounds of one round: addresses tried at once, and taken from one name; and
// live members asked for the records they have and this node has not.
const (
	roundWorkers  = 8
	addressesEach = 16
	differingMax  = 3
)

// roundResult is what a round of joins found.
type roundResult struct {
	err   error // why some address was not reached
	alone bool  // every seed names this very node
}

// hurryRound makes the next round due within a time.
func (l *loop) hurryRound(within time.Duration) {
	if t := time.Now().Add(within); t.Before(l.due.round) {
		l.due.round = t
	}
}

// startRound exchanges states with whoever is worth it, in the background.
func (l *loop) startRound(ctx context.Context) {
	seeds, others := l.targets()
	l.due.round = time.Now().Add(l.pause())
	if len(seeds)+len(others) == 0 {
		return
	}
	l.due.round = time.Now().Add(time.Hour) // roundDone, or something urgent, sets it
	l.metrics.rejoins.Add(len(seeds) + len(others))
	l.rounding, l.stale, l.seeded = true, false, true
	l.tasks.Go(func() { l.rounds <- l.round(ctx, seeds, others) })
}

// pause is the time between two rounds.
func (l *loop) pause() time.Duration {
	switch {
	case !l.state.Established, !l.state.ready() && !l.cfg.StageJoin, l.leaving(), l.hearing():
		return l.timing.forming
	case l.stale && time.Since(l.started) < relocating:
		return l.timing.relocate
	}
	return l.timing.rejoin + time.Duration(l.cfg.Rand()%uint64(l.timing.rejoinVar))
}

func (l *loop) roundDone(r roundResult) error {
	l.rounding, l.lastErr = false, r.err
	l.hurryRound(l.pause())
	if r.err != nil {
		l.log.Debug("not every member was reached", "err", r.err)
	}
	if r.alone && !l.state.Established && l.cfg.Expect < 2 {
		l.log.Info("the only seed is this node itself")
		return l.advance(l.found(l.state))
	}
	return nil
}

// targets are the addresses to join now. Memberlist forgets a split and never
// mends it (a join is one attempt), so every node goes on trying, for as long
// as it lives, to reach each member it does not see alive; and the seeds too,
// since such a member may have come back at another address. The first round
// has the seeds in any case: a node that has once become a cluster of its own
// misses nobody, and only by asking learns that its seeds are another cluster.
func (l *loop) targets() (seeds, others []string) {
	missing := !l.state.ready()
	for _, id := range l.state.concerned() {
		if id == l.cfg.ID {
			continue
		}
		alive := l.peers[id].alive
		missing = missing || !alive
		if !alive || l.stale {
			others = append(others, l.addressesOf(id)...)
		}
	}
	others = append(others, l.differing()...)
	if missing || l.stale || !l.seeded {
		seeds = l.cfg.Join
	}
	slices.Sort(others)
	others = slices.Compact(others)
	return seeds, slices.DeleteFunc(others, func(a string) bool {
		return a == "" || a == l.gossip.addr() || slices.Contains(seeds, a)
	})
}

// differs reports whether an exchange with a live node would tell one of the
// two something: it has other records, or a cluster for which one must give
// way, or can say that this node may go, or was not asked yet in this run: it may
// be the only one that remembers how far this node has come. Broadcasts are lost now
// and then, and the regular exchanges are rare.
func (l *loop) differs(p peer) bool {
	if !p.alive {
		return false
	}
	if p.ClusterID != l.state.ClusterID {
		return !l.state.Established || !p.Established
	}
	return p.Digest != l.digest || p.Established != l.state.Established || l.leaving() || l.unheard(p)
}

// unheard reports whether the state of a live member has not come in this run.
func (l *loop) unheard(p peer) bool { return p.alive && l.state.Established && !l.heard[p.ID] }

// hearing reports whether states of live members are still to come, and do come.
func (l *loop) hearing() bool {
	if time.Since(l.heardAt) > l.timing.rejoin {
		return false
	}
	for _, p := range l.peers {
		if l.unheard(p) {
			return true
		}
	}
	return false
}

// leaving reports whether this node may go as soon as a member says so.
func (l *loop) leaving() bool { return l.state.Established && l.state.Epochs.Leaving() }

// differing are the addresses of some live nodes that differ.
func (l *loop) differing() []string {
	var all []string
	for _, p := range l.sortedPeers() {
		if l.differs(p) {
			all = append(all, p.Endpoints.GossipAddr())
		}
	}
	for i := range min(len(all), differingMax) {
		j := i + int(l.cfg.Rand()%uint64(len(all)-i))
		all[i], all[j] = all[j], all[i]
	}
	return all[:min(len(all), differingMax)]
}

// addressesOf is where a member was last heard of.
func (l *loop) addressesOf(id ring.NodeID) []string {
	var all []string
	if a, found := l.state.announced(id); found {
		all = append(all, a.Endpoints.GossipAddr())
	}
	if p, found := l.peers[id]; found {
		all = append(all, p.Endpoints.GossipAddr())
	}
	return all
}

// round joins all targets, a few at a time. Whatever comes of a join arrives
// through the delegates.
func (l *loop) round(ctx context.Context, seeds, others []string) roundResult {
	var (
		result  roundResult
		mu      sync.Mutex
		strange = len(seeds) == 0 // some seed is, or may be, another node
		slots   = make(chan struct{}, roundWorkers)
		wg      sync.WaitGroup
	)
	try := func(target string, seed bool) {
		reached, err := l.joinOne(ctx, target)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			result.err = errors.Join(result.err, err)
		}
		strange = strange || (seed && (err != nil || reached > 0))
	}
	for i, target := range slices.Concat(seeds, others) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			try(target, i < len(seeds))
		})
	}
	wg.Wait()
	result.alone = !strange
	return result
}

// joinOne exchanges states with every address behind HOST:PORT but this node's
// own, and counts those it reached.
func (l *loop) joinOne(ctx context.Context, target string) (reached int, err error) {
	host, port, err := splitHostPort(target)
	if err != nil {
		return 0, err
	}
	ips := []net.IP{net.ParseIP(host)}
	if ips[0] == nil {
		if ips, err = l.cfg.Resolve(ctx, host); err != nil {
			return 0, fmt.Errorf("resolve %s: %w", host, err)
		}
	}
	for _, ip := range ips[:min(len(ips), addressesEach)] {
		if ctx.Err() != nil {
			return reached, ctx.Err()
		}
		if port == l.gossip.port && ip.Equal(l.gossip.ip) {
			continue
		}
		n, joinErr := l.gossip.list.Join([]string{net.JoinHostPort(ip.String(), strconv.Itoa(int(port)))})
		reached += n
		err = errors.Join(err, joinErr)
	}
	return reached, err
}
