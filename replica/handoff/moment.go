package handoff

import (
	"context"
	"errors"
	"fmt"

	"github.com/redynamo/redynamo/membership/ring"
)

// This file hands hints over. What is kept when a target is granted is read as it was
// at one moment: a hint that goes home or moves at the same time is seen, or the copies
// that were made of it first are. It is delivered to those who are to have it, and
// stays; it goes home, or is moved, as ever. What is kept after that moment was
// written to the owners of the target, too.

// hintTally is what was handed over of the hints.
type hintTally struct {
	rows, bytes int64
	waits       ring.NodeID // that could not be reached last; 0 none
}

// moveHints delivers the hints of one moment to all who are to have them.
func (m *Mover) moveHints(ctx context.Context, j *job) bool {
	for fails := 0; ; {
		err := m.passHints(ctx, j)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			return true
		}
		if fails++; fails == 1 {
			m.cfg.Logger.Warn("handoff: hints cannot be handed over, trying again", "err", err)
		}
		if pause(ctx, m.spread(backoff(fails, m.cfg.MinBackoff, m.cfg.MaxBackoff))) != nil {
			return false
		}
	}
}

// hintPass is one walk over the hints of a moment.
type hintPass struct {
	job    *job
	credit map[ring.NodeID]int
}

func (m *Mover) passHints(ctx context.Context, j *job) (err error) {
	moment, err := m.moment()
	if err != nil {
		return fmt.Errorf("handoff: read hints: %w", err)
	}
	defer func() { err = errors.Join(err, moment.Close()) }()
	targets, err := moment.Targets()
	if err != nil {
		return fmt.Errorf("handoff: read hints: %w", err)
	}
	w := &hintPass{job: j, credit: map[ring.NodeID]int{}}
	for _, target := range targets {
		slot, hash, done := ring.Slot(0), uint32(0), false
		for !done {
			page, err := moment.Page(target, slot, hash, m.cfg.MessageBytes)
			if err != nil && !damaged(err) { // what is damaged can be had by nobody
				return fmt.Errorf("handoff: read hints: %w", err)
			}
			if err := m.passPage(ctx, w, target, page.Rows); err != nil {
				return err
			}
			slot, hash, done = page.NextSlot, page.NextHash, page.Done
		}
	}
	return nil
}

// passPage brings the rows of a page to those who are to have them.
func (m *Mover) passPage(ctx context.Context, w *hintPass, holder ring.NodeID, rows []Row) error {
	own := newGather()
	out := map[ring.NodeID][]Row{}
	var to []ring.NodeID
	for _, row := range rows {
		p := w.job.Live.Partition(row.Slot)
		to = w.job.Plan.Recipients(to[:0], p, holder)
		if w.job.Plan.MayDropHint(p, holder) && !w.job.Live.Base.Owns(holder, p) {
			to = append(to, holder) // a coming owner: it needs what is kept for it
		}
		for _, node := range to {
			if node == m.cfg.Self {
				m.rows.Merge(row.Key, 0, row.Record, true, own.one())
				continue
			}
			out[node] = append(out[node], row)
		}
	}
	if err := own.wait(ctx); err != nil {
		return fmt.Errorf("handoff: take in hints: %w", err)
	}
	for node, rows := range out {
		if err := m.deliver(ctx, w, node, rows); err != nil {
			m.await(w.job, node)
			return fmt.Errorf("handoff: hand hints over to %v: %w", node, err)
		}
	}
	return nil
}

// await notes who could not be reached.
func (m *Mover) await(j *job, node ring.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j.hints.waits = node
}

// deliver sends rows, as many in a message as the node takes.
func (m *Mover) deliver(ctx context.Context, w *hintPass, node ring.NodeID, rows []Row) error {
	for len(rows) > 0 {
		for w.credit[node] == 0 {
			credit, err := m.call(ctx, node, nil)
			if err != nil {
				return err
			}
			if w.credit[node] = credit; credit == 0 && pause(ctx, m.spread(m.cfg.BusyPause)) != nil {
				return ctx.Err()
			}
		}
		n := fit(rows, min(w.credit[node], m.cfg.MessageBytes))
		end, err := m.cfg.Pace(ctx)
		if err != nil {
			return err
		}
		credit, err := m.call(ctx, node, rows[:n])
		end()
		if err != nil {
			return err
		}
		w.credit[node] = credit
		size := int64(sizeOf(rows[:n]))
		m.count.hints.Add(n)
		m.mu.Lock()
		w.job.hints.rows += int64(n)
		w.job.hints.bytes += size
		w.job.hints.waits = 0
		m.mu.Unlock()
		rows = rows[n:]
	}
	return nil
}

// call sends one message and waits for its reply.
func (m *Mover) call(ctx context.Context, node ring.NodeID, rows []Row) (credit int, err error) {
	peer := m.cluster.Peer(node)
	if peer == nil || !m.cluster.Up(node) {
		return 0, errAway
	}
	return bring(ctx, peer, rows, m.cfg.Timeout)
}

var errAway = errors.New("handoff: the node is unknown or away")
