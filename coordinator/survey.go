package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// surveyTries bounds how often a count is asked again of other owners.
const surveyTries = 4

// Count returns the number of live keys in the cluster, or in the slots this
// node is the first live owner of. It trusts one owner of each partition, so
// it can be behind by what that owner has not received yet.
func (c *Coordinator) Count(ctx context.Context, owned bool) (int64, error) {
	return c.survey(ctx, func(r *ring.Ring) []SlotRange {
		var parts []SlotRange
		for p := range r.Units() {
			if owned && c.firstLive(r, p) != c.cluster.Self() {
				continue
			}
			first, last := r.SlotsOf(p)
			parts = append(parts, SlotRange{first, last})
		}
		return parts
	})
}

// CountSlot returns the number of live keys in one slot.
func (c *Coordinator) CountSlot(ctx context.Context, slot uint16) (int64, error) {
	return c.survey(ctx, func(*ring.Ring) []SlotRange { return []SlotRange{{slot, slot}} })
}

// survey adds up the live keys of some ranges, none of which crosses a
// partition. Every node is asked at most once per try, for all it is to count.
func (c *Coordinator) survey(ctx context.Context, ranges func(*ring.Ring) []SlotRange) (int64, error) {
	if !c.admit() {
		return 0, ErrOverloaded
	}
	defer c.release()
	var total int64
	err := c.byRings(ctx, func(rings *Rings) (err error) {
		total, err = c.surveyBy(ctx, rings, ranges)
		return err
	})
	return total, err
}

// surveyBy is survey by some rings.
func (c *Coordinator) surveyBy(ctx context.Context, rings *Rings, ranges func(*ring.Ring) []SlotRange) (int64, error) {
	r, lack := rings.Base, ErrNoReadQuorum
	total, left := int64(0), ranges(r)
	var failed []ring.NodeID
	for range surveyTries {
		nodes, shares, ok := c.share(r, left, failed)
		if !ok {
			return 0, lack
		}
		deadline := c.deadlineOf(ctx)
		counts, err := gather(ctx, len(nodes), func(i int, done func(int64, error)) {
			if peer := c.cluster.Peer(nodes[i]); peer != nil {
				peer.Count(CountRequest{Ranges: joined(shares[i]), Stamp: rings.Stamp, Deadline: deadline}, done)
				return
			}
			done(0, ErrUnreachable)
		})
		if err != nil {
			return 0, err
		}
		left = nil
		for i, n := range counts {
			if n.err != nil {
				if errors.Is(n.err, ErrStaleEpoch) {
					lack = fmt.Errorf("%w: %w", ErrNoReadQuorum, n.err)
				}
				failed = append(failed, nodes[i])
				left = append(left, shares[i]...)
				continue
			}
			total += n.value
		}
		if len(left) == 0 {
			return total, nil
		}
	}
	return 0, lack
}

// share gives each range to an owner that counts it: this node if it is one,
// else the first live one. False: some range has no owner left.
func (c *Coordinator) share(r *ring.Ring, ranges []SlotRange, failed []ring.NodeID) (nodes []ring.NodeID, shares [][]SlotRange, ok bool) {
	for _, s := range ranges {
		var who ring.NodeID
		for _, n := range r.Owners(r.Partition(s.First)) {
			usable := c.up(n) && !slices.Contains(failed, n)
			if usable && (who == 0 || n == c.cluster.Self()) {
				who = n
			}
		}
		if who == 0 {
			return nil, nil, false
		}
		i := slices.Index(nodes, who)
		if i < 0 {
			i = len(nodes)
			nodes, shares = append(nodes, who), append(shares, nil)
		}
		shares[i] = append(shares[i], s)
	}
	return nodes, shares, true
}

// joined makes runs of ranges that touch into one, to keep the question short;
// ranges stays as it is, for a second try.
func joined(ranges []SlotRange) []SlotRange {
	out := make([]SlotRange, 0, len(ranges))
	for _, s := range ranges {
		if n := len(out); n > 0 && int(out[n-1].Last)+1 == int(s.First) {
			out[n-1].Last = s.Last
			continue
		}
		out = append(out, s)
	}
	return out
}

// RandomKey returns some live key, the first found after a random position, so
// keys after gaps are likelier; found is false if there is none.
func (c *Coordinator) RandomKey(ctx context.Context, owned bool) (key []byte, found bool, err error) {
	start := c.cfg.Rand() % (ring.Slots << 32)
	for _, from := range []uint64{start, 0} {
		for cursor := from; ; {
			page, err := c.Scan(ctx, ScanRequest{Cursor: cursor, Count: 1, Owned: owned})
			switch {
			case err != nil:
				return nil, false, err
			case len(page.Keys) > 0:
				return page.Keys[c.cfg.Rand()%uint64(len(page.Keys))], true, nil
			}
			if cursor = page.Cursor; cursor == 0 || from == 0 && cursor > start {
				break
			}
		}
	}
	return nil, false, nil
}

// Inspect returns every copy of key in the cluster: one entry per owner, in
// ring order, each with its hints for other owners after it, then the hints of
// the fallbacks. An owner that could not be asked has an entry that says why.
func (c *Coordinator) Inspect(ctx context.Context, key []byte) ([]Inspection, error) {
	if !c.admit() {
		return nil, ErrOverloaded
	}
	defer c.release()
	rings := c.enter()
	if rings == nil {
		return nil, ErrNoReadQuorum
	}
	defer rings.leave()
	r := rings.Base
	p := r.Partition(ring.SlotOf(key))
	nodes := slices.Concat(r.Owners(p), c.liveFallbacks(r, p))
	deadline := c.deadlineOf(ctx)
	answers, err := gather(ctx, len(nodes), func(i int, done func([]Inspection, error)) {
		peer := c.cluster.Peer(nodes[i])
		if peer == nil || !c.up(nodes[i]) {
			done(nil, ErrUnreachable)
			return
		}
		peer.Inspect(InspectRequest{Key: key, Stamp: rings.Stamp, Deadline: deadline}, done)
	})
	if err != nil {
		return nil, err
	}
	var out []Inspection
	for i, a := range answers {
		owner := i < r.N()
		if a.err != nil && owner {
			out = append(out, Inspection{Node: nodes[i], Owner: true, Err: a.err})
			continue
		}
		if owner && !slices.ContainsFunc(a.value, func(e Inspection) bool { return e.For == 0 }) {
			out = append(out, Inspection{Node: nodes[i], Owner: true}) // it holds nothing
		}
		for _, e := range a.value {
			e.Node, e.Owner, e.Err = nodes[i], owner, nil
			out = append(out, e)
		}
	}
	return out, nil
}
