package coordinator

import (
	"context"
	"slices"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// SpreadRequest asks for which owners of a key hold a write.
type SpreadRequest struct {
	Key    []byte
	Wrote  version.Wrote
	Synced bool          // only owners count that have synced it
	Has    []ring.NodeID // owners that a look has counted already: they are not sent it again
	// It returns soon after so many owners have the write, so many of them others than
	// this node, and with Local this node, if it is one.
	Total, Others int
	Local         bool
}

// Spread is which owners hold a write.
type Spread struct {
	Owner  bool          // this node is one
	Local  bool          // and holds it
	Others int           // other owners that hold it
	Has    []ring.NodeID // all of them
}

// Holders is how many owners hold it.
func (s Spread) Holders() int {
	if s.Local {
		return s.Others + 1
	}
	return s.Others
}

// count takes the answer of one owner, 0 of one that has it not.
func (s *Spread) count(id, self ring.NodeID) {
	switch {
	case id == 0:
		return
	case id == self:
		s.Local = true
	default:
		s.Others++
	}
	s.Has = append(s.Has, id)
}

// Met reports whether the answer is enough.
func (s Spread) Met(req *SpreadRequest) bool {
	return s.Holders() >= req.Total && s.Others >= req.Others && (s.Local || !s.Owner || !req.Local)
}

// spreadGrace is how long the others may take to answer once enough have: the count is
// then of all that are well.
const spreadGrace = 20 * time.Millisecond

// Spread has the owners of a key join what a quorum shows of it, with a write that was
// acknowledged, and counts those that have it then. It looks once. An owner that is down
// or does not answer in time is not counted, and none is while no node that a read would
// ask shows the write: it may be with stand-ins for owners that are back, until they
// have brought it home.
//
// Note: what is sent was read by the same rings a moment ago, as in a read repair. It
// must not be kept for a later look, or it would bring back what is reaped meanwhile.
func (c *Coordinator) Spread(ctx context.Context, req SpreadRequest) (Spread, error) {
	if !c.admit() {
		return Spread{}, ErrOverloaded
	}
	defer c.release()
	began := time.Now()
	rings := c.enter()
	if rings == nil {
		return Spread{}, ErrNoReadQuorum
	}
	defer rings.leave()
	owners := rings.Base.Owners(rings.Base.Partition(ring.SlotOf(req.Key)))
	var s Spread
	for _, id := range owners {
		s.Owner = s.Owner || id == c.cluster.Self()
	}
	if rings.Relay {
		return s, nil // this node brings nothing to anybody any more
	}
	rec, err := c.shown(ctx, rings, &req)
	if err != nil {
		return s, err
	}
	answers := c.bring(ctx, rings, &req, owners, version.EncodeWire(nil, rec), began)
	var grace <-chan time.Time
	for range owners {
		if grace == nil && s.Met(&req) {
			grace = time.After(spreadGrace)
		}
		select {
		case <-grace:
			return s, nil
		case id := <-answers:
			s.count(id, c.cluster.Self())
		case <-ctx.Done():
			return s, nil
		}
	}
	return s, nil
}

// shown reads the key with the write in it.
func (c *Coordinator) shown(ctx context.Context, rings *Rings, req *SpreadRequest) (version.Record, error) {
	type shown struct {
		rec version.Record
		err error
	}
	answer := make(chan shown, 1)
	c.inFlight.Add(1) // the read's own place: its tail may outlast this
	rings.join()
	c.read(readQuery{
		key: req.Key, wrote: &req.Wrote, rings: rings, timeout: time.Until(c.deadlineOf(ctx)),
	}, func(r ReadResult, err error) { answer <- shown{r.Record, err} })
	select {
	case a := <-answer:
		return a.rec, a.err
	case <-ctx.Done():
		return version.Record{}, ctx.Err()
	}
}

// bring has each owner join a record, and tells one after the other who has: 0 for one
// that has not.
func (c *Coordinator) bring(ctx context.Context, rings *Rings, req *SpreadRequest, owners []ring.NodeID, enc []byte, began time.Time) <-chan ring.NodeID {
	answers := make(chan ring.NodeID, len(owners))
	deadline := c.deadlineOf(ctx)
	if last := c.tailDeadline(began); deadline.After(last) {
		deadline = last
	}
	for _, id := range owners {
		if slices.Contains(req.Has, id) {
			answers <- id
			continue
		}
		peer := c.cluster.Peer(id)
		if peer == nil || !c.up(id) {
			answers <- 0
			continue
		}
		c.inFlight.Add(1)
		rings.join()
		peer.Merge(MergeRequest{Key: req.Key, Record: enc, Synced: req.Synced, Stamp: rings.Stamp, Deadline: deadline}, func(err error) {
			if id != c.cluster.Self() {
				rings.settle(err, c.cfg.MessageAge)
			}
			if err != nil {
				answers <- 0
			} else {
				answers <- id
			}
			rings.leave()
			c.release()
		})
	}
	return answers
}
