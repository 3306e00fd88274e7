package storage

import (
	"fmt"
	"sync/atomic"
	"time"
)

// diskWatch knows since when operations of the log are under way. Whoever does
// one may hang in it for as long as the disk likes; whoever looks does not.
//
// Only the log is watched. Every acknowledgement waits for it, an idle store
// writes to it every few seconds, and the engine's other work may wait for good
// reasons: for space, or for its turn.
type diskWatch struct {
	since [watchedOps]atomic.Int64 // unix ns; 0: the place is free
}

// watchedOps is how many operations are followed at once. There is one log
// writer, one that closes the last file, and the note; more need no watching.
const watchedOps = 8

// begin notes that an operation begins, and returns its place for end.
func (w *diskWatch) begin() (place int) {
	now := time.Now().UnixNano()
	for i := range w.since {
		if w.since[i].CompareAndSwap(0, now) {
			return i
		}
	}
	return -1
}

// end notes that the operation with this place has ended.
func (w *diskWatch) end(place int) {
	if place >= 0 {
		w.since[place].Store(0)
	}
}

// longest is how long the oldest operation has been under way.
func (w *diskWatch) longest(now time.Time) time.Duration {
	var longest time.Duration
	for i := range w.since {
		if since := w.since[i].Load(); since != 0 {
			longest = max(longest, time.Duration(now.UnixNano()-since))
		}
	}
	return longest
}

// stallLooks is how often the disk is looked at within the limit.
const stallLooks = 30

// watchStall ends the store when the disk has stood still for too long. Clients
// have had their errors long before, and other nodes have taken over; what is
// left is a node that cannot tell when it will be back, and would come back with
// requests that nobody waits for any more. Its supervisor can start it anew.
func (s *Store) watchStall() {
	limit := s.cfg.StallLimit
	if limit < 0 {
		return
	}
	tick := time.NewTicker(max(limit/stallLooks, time.Millisecond))
	defer tick.Stop()
	slow := false
	for {
		select {
		case <-s.stop:
			return
		case <-s.broken:
			return
		case <-tick.C:
		}
		longest := s.watched.longest(time.Now())
		if longest > limit {
			s.fail(fmt.Errorf("%w: an operation of the log has taken more than %v", ErrStalled, limit))
			return
		}
		if is := longest > limit/stallLooks; is != slow {
			slow = is
			s.cfg.Logger.Warn("storage: the disk changed pace", "slow", slow, "operation_for", longest, "limit", limit)
			if slow {
				s.meters.slowDisk.Inc()
			}
		}
	}
}
