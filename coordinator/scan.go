package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Bounds of one Scan call. An empty page with a cursor is a legal answer, so
// work is bounded by these and not by what is found.
const (
	scanWaves      = 12    // rounds of questions
	scanFan        = 16    // nodes asked in a round
	scanWindow     = 2048  // partitions covered by a round, at most
	scanFirst      = 64    // partitions covered by the first one
	scanMaxCount   = 10000 // keys
	scanMinLimit   = 16    // entries asked of one node
	scanDefaultLen = 10
)

// Scan returns one page of the live keys, in order of (slot, hash). Every key
// that exists from the first page to the last is returned; each is known to R
// of its owners, or was settled by a read if they differ about it. A page may
// be empty before the end.
func (c *Coordinator) Scan(ctx context.Context, req ScanRequest) (ScanPage, error) {
	if !c.admit() {
		return ScanPage{}, ErrOverloaded
	}
	defer c.release()
	var page ScanPage
	err := c.byRings(ctx, func(rings *Rings) (err error) {
		page, err = c.scanBy(ctx, rings, req)
		return err
	})
	return page, err
}

// scanBy is Scan by some rings.
func (c *Coordinator) scanBy(ctx context.Context, rings *Rings, req ScanRequest) (ScanPage, error) {
	s := scan{c: c, rings: rings, ring: rings.Base, owned: req.Owned, want: req.Count, window: scanFirst}
	if s.want <= 0 {
		s.want = scanDefaultLen
	}
	s.want = min(s.want, scanMaxCount)
	from := position{slot: int(min(req.Cursor>>32, ring.Slots)), hash: uint32(req.Cursor)}
	s.at = from
	for range scanWaves {
		w, ok := s.plan()
		if !ok {
			return ScanPage{Keys: s.keys}, s.noQuorum(s.err)
		}
		if err := s.run(ctx, w); err != nil {
			return ScanPage{}, err
		}
		if len(s.keys) >= s.want {
			break
		}
		s.window = min(4*s.window, scanWindow)
	}
	if s.at == from {
		return ScanPage{}, s.noQuorum(ErrNoReadQuorum) // one node after the other failed
	}
	return ScanPage{Keys: s.keys, Cursor: s.at.cursor()}, nil
}

// position is a place in the order of keys: everything before it was seen.
type position struct {
	slot int // ring.Slots is the end
	hash uint32
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.slot, q.slot), cmp.Compare(p.hash, q.hash))
}

// cursor is what a client hands back; 0 is the end, and also the start, which
// is never a place to go on from.
func (p position) cursor() uint64 {
	if p.slot >= ring.Slots {
		return 0
	}
	return uint64(p.slot)<<32 | uint64(p.hash)
}

// scan is one Scan call.
type scan struct {
	c      *Coordinator
	rings  *Rings
	ring   *ring.Ring // the base of rings
	owned  bool
	want   int
	window int // partitions to cover next; grows while little is found
	at     position
	failed []ring.NodeID // asked in vain by this call
	keys   [][]byte
	err    error // why plan found nothing
	stale  bool  // some node goes by later rings
}

// noQuorum adds to an error that some node goes by later rings, if one does.
func (s *scan) noQuorum(err error) error {
	if err != nil && s.stale {
		return fmt.Errorf("%w: %w", err, ErrStaleEpoch)
	}
	return err
}

// wave is one round of questions: a run of partitions, and few nodes that
// together hold R copies of each.
type wave struct {
	from, to int // partitions, both included
	nodes    []ring.NodeID
	readers  []uint32 // per partition from from on: a bit for each of nodes that is asked about it
}

// plan finds the next wave from s.at on; false at the end, or on s.err.
func (s *scan) plan() (wave, bool) {
	if s.at.slot >= ring.Slots {
		return wave{}, false
	}
	p := s.ring.Partition(uint16(s.at.slot))
	for s.skipped(p) {
		if p++; p == s.ring.Units() {
			return wave{}, false
		}
		first, _ := s.ring.SlotsOf(p)
		s.at = position{slot: int(first)}
	}
	w := wave{from: p, to: p}
	for ; p < s.ring.Units() && p-w.from < s.window; p++ {
		mask, ok := uint32(0), true
		if !s.skipped(p) {
			mask, ok = s.addReaders(&w, p)
		}
		if !ok {
			break
		}
		w.readers = append(w.readers, mask)
		w.to = p
	}
	if len(w.readers) == 0 {
		s.err = ErrNoReadQuorum
		return wave{}, false
	}
	return w, true
}

// skipped reports whether the partition is not asked for.
func (s *scan) skipped(p int) bool {
	return s.owned && s.c.firstLive(s.ring, p) != s.c.cluster.Self()
}

// addReaders chooses R live owners of a partition, those that are asked anyway
// before others and the local node before remote ones. False: it has not so
// many, or the wave would ask too many nodes.
func (s *scan) addReaders(w *wave, p int) (mask uint32, ok bool) {
	need := min(s.c.cfg.R, s.ring.N())
	owners := s.ring.Owners(p)
	added := len(w.nodes)
	for round := range 3 {
		for _, n := range owners {
			at := slices.Index(w.nodes, n)
			switch {
			case need == 0:
				return mask, true
			case at >= 0 && mask&(1<<at) != 0, !s.c.up(n), slices.Contains(s.failed, n):
				continue
			case round == 0 && at < 0, round == 1 && n != s.c.cluster.Self():
				continue
			}
			if at < 0 {
				if at = len(w.nodes); at == scanFan {
					w.nodes = w.nodes[:added]
					return 0, false
				}
				w.nodes = append(w.nodes, n)
			}
			mask |= 1 << at
			need--
		}
	}
	if need > 0 {
		w.nodes = w.nodes[:added]
	}
	return mask, need == 0
}

func (e *ScanEntry) position() position { return position{int(e.Slot), e.KeyHash} }

// run asks the nodes of a wave and takes in what all of them have covered. A
// node that fails is left out by the next plan.
func (s *scan) run(ctx context.Context, w wave) error {
	_, lastSlot := s.ring.SlotsOf(w.to)
	ask := ScanRange{
		FromSlot: uint16(s.at.slot), FromHash: s.at.hash, ToSlot: lastSlot,
		Limit: s.limit(), Stamp: s.rings.Stamp, Deadline: s.c.deadlineOf(ctx),
	}
	pages, err := gather(ctx, len(w.nodes), func(i int, done func(ScanReply, error)) {
		if peer := s.c.cluster.Peer(w.nodes[i]); peer != nil {
			peer.Scan(ask, done)
			return
		}
		done(ScanReply{}, ErrUnreachable)
	})
	if err != nil {
		return err
	}
	end, failed := position{slot: int(lastSlot) + 1}, false
	for i := range pages {
		next := position{int(pages[i].value.NextSlot), pages[i].value.NextHash}
		if pages[i].err != nil || !pages[i].value.Done && next.compare(s.at) <= 0 {
			s.failed = append(s.failed, w.nodes[i])
			s.stale = s.stale || errors.Is(pages[i].err, ErrStaleEpoch)
			failed = true
		} else if !pages[i].value.Done && next.compare(end) < 0 {
			end = next
		}
	}
	if failed {
		return nil
	}
	return s.take(ctx, w, pages, end)
}

// limit is how many entries to ask of each node. Of what an owner holds, it is
// the first owner of one in N.
func (s *scan) limit() int {
	n := max(s.want-len(s.keys), scanMinLimit)
	if s.owned {
		n *= s.ring.N()
	}
	return min(n, scanMaxCount)
}

// take adds the live keys before end, as many as are wanted, and moves on.
func (s *scan) take(ctx context.Context, w wave, pages []answer[ScanReply], end position) error {
	var seen []ScanEntry
	for i := range pages {
		for _, e := range pages[i].value.Entries {
			if w.asked(s.ring, e.Slot, i) && e.position().compare(end) < 0 {
				seen = append(seen, e)
			}
		}
	}
	slices.SortFunc(seen, func(a, b ScanEntry) int {
		return cmp.Or(a.position().compare(b.position()), bytes.Compare(a.Key, b.Key))
	})
	var unsettled [][]byte
	for i := 0; i < len(seen); {
		if len(s.keys)+len(unsettled) >= s.want && (i == 0 || seen[i].position() != seen[i-1].position()) {
			end = seen[i].position()
			break
		}
		next := i + 1
		for next < len(seen) && bytes.Equal(seen[i].Key, seen[next].Key) {
			next++
		}
		switch live, agreed := judge(seen[i:next]); {
		case !agreed:
			unsettled = append(unsettled, seen[i].Key)
		case live:
			s.keys = append(s.keys, seen[i].Key)
		}
		i = next
	}
	if err := s.settle(ctx, unsettled); err != nil {
		return err
	}
	s.at = end
	return nil
}

// judge says whether a key is live, and whether those who have it agree. Who has
// nothing adds nothing to what the others have.
func judge(seen []ScanEntry) (live, agreed bool) {
	for _, e := range seen {
		if e.StateHash != seen[0].StateHash || e.Live != seen[0].Live {
			return false, false
		}
	}
	return seen[0].Live, true
}

// asked reports whether node i of the wave was asked about slot; nodes also
// list keys that others were asked about.
func (w *wave) asked(r *ring.Ring, slot uint16, i int) bool {
	p := r.Partition(slot) - w.from
	return p >= 0 && p < len(w.readers) && w.readers[p]&(1<<i) != 0
}

// settle reads the keys on which the owners differ.
func (s *scan) settle(ctx context.Context, keys [][]byte) error {
	answers, err := gather(ctx, len(keys), func(i int, done func(ReadResult, error)) {
		s.c.inFlight.Add(1)
		s.rings.join()
		s.c.read(readQuery{key: keys[i], rings: s.rings}, done)
	})
	if err != nil {
		return err
	}
	nowMS := s.c.cfg.Now().UnixMilli()
	for i, a := range answers {
		if a.err != nil {
			return a.err
		}
		s.c.count.scansSettled.Inc()
		if _, live := a.value.Record.Winner(nowMS); live {
			s.keys = append(s.keys, keys[i])
		}
	}
	return nil
}
