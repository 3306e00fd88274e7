package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/epoch"
)

// partitions is what a dropper needs of the replica.
type partitions interface {
	Fence(partition int, closed bool)
	Fenced(partition int) bool
	// Settle returns when what came before the fences is committed.
	Settle(ctx context.Context) error
	// Empty reports whether nothing is committed of a partition.
	Empty(partition int) (bool, error)
	// Drop removes all rows of a fenced partition, durably.
	Drop(ctx context.Context, partition int) (rows int, err error)
}

// dropper closes and empties the partitions that have moved away.
//
// In a settled view that is every partition which this node does not hold. A change of
// the ring may give one back at any time: then it is opened, if it is empty. While one
// is being emptied no target is acknowledged, because what others write here for the
// target would be dropped as well. So dropping is set before anything is, and then the
// view is looked at again: whoever publishes a view asks for dropping after it.
type dropper struct {
	rows  partitions
	view  func() *epoch.View // nil while there is none
	units int
	nudge func() // told when dropping has ended
	log   *slog.Logger

	grace time.Duration // a view is settled for so long before anything is closed

	kick     chan struct{} // holds one wish to look at the view
	dropping atomic.Bool
	left     atomic.Int64 // partitions to be emptied
	// Invariant: of a closed partition it is known whether it is empty, or dropping is
	// set. Only Run closes, and empties.
	mu struct {
		sync.Mutex
		empty []bool // closed, and empty
	}
	// Only Run knows these.
	rest rest   // the settled view that was seen last
	done bool   // everything that a view asks for
	seen uint64 // the number of that view
}

func newDropper(rows partitions, units int, view func() *epoch.View, nudge func(), log *slog.Logger, set *metrics.Set) *dropper {
	d := &dropper{rows: rows, view: view, units: units, nudge: nudge, log: log, kick: make(chan struct{}, 1)}
	d.mu.empty = make([]bool, units)
	set.GetOrCreateGauge(`node_partitions_to_drop`, func() float64 { return float64(d.left.Load()) })
	return d
}

// wake makes it look at the view, which may have changed.
func (d *dropper) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// dropAgain is the pause before a drop that failed is tried again.
const dropAgain = time.Second

// Run drops and opens partitions until ctx ends.
func (d *dropper) Run(ctx context.Context) error {
	tick := time.NewTicker(dropAgain)
	defer tick.Stop()
	failing := false
	for {
		err := d.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if is := err != nil; is != failing { // a store that has failed ends the node by itself
			failing = is
			d.log.Warn("dropping partitions that moved away changed state", "failing", is, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.kick:
		case <-tick.C:
		}
	}
}

// step brings the partitions up to the view.
func (d *dropper) step(ctx context.Context) error {
	v := d.view()
	if v == nil {
		return nil
	}
	if units := v.Read().Units(); units != d.units {
		return fmt.Errorf("the rings have %d partitions, the store has %d", units, d.units)
	}
	if d.dropping.Load() { // what was begun is ended, whatever the view says by now
		if err := d.dropClosed(ctx, nil); err != nil {
			return err
		}
	}
	if d.done && v.Number == d.seen {
		return nil
	}
	if v.Settled && !d.rested(v) {
		d.reopen()
		return nil
	}
	if v.Settled && !d.close(v) {
		d.wake() // another view has come
		return nil
	}
	if v.Settled {
		if err := d.dropClosed(ctx, v); err != nil {
			return err
		}
	}
	d.reopen()
	if d.ended() {
		d.done, d.seen = true, v.Number
	}
	return nil
}

// dropGrace is the grace of a node. Nobody reads by the rings of before when a view is
// settled, but some node may not have heard of that yet, and owes its writes to their
// owners, too.
const dropGrace = 5 * time.Second

// rest is a settled view and when it was first seen.
type rest struct {
	number uint64
	since  time.Time
}

// rested reports whether a settled view has lasted.
func (d *dropper) rested(v *epoch.View) bool {
	if d.rest.number != v.Number || d.rest.since.IsZero() {
		d.rest = rest{v.Number, time.Now()}
	}
	return time.Since(d.rest.since) >= d.grace
}

// reopen opens what the present view holds, and is empty. Whoever goes by a view does it
// before, because Run comes to it only later. The view is looked at under the lock: what
// an earlier one held may have been closed since.
func (d *dropper) reopen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view()
	if v == nil || v.Read().Units() != d.units {
		return // Run says what is wrong
	}
	for p := range d.units {
		if d.mu.empty[p] && v.Holds(p) {
			d.mu.empty[p] = false
			d.rows.Fence(p, false)
		}
	}
}

// close fences what is not held in a settled view, unless the view has been replaced.
func (d *dropper) close(v *epoch.View) bool {
	d.dropping.Store(true)
	if !d.closeAll(v) {
		d.ended()
		return false
	}
	return true
}

// closeAll is close once dropping is set. Whoever opens what a later view holds has come
// before the look at the view, or comes when all is closed.
func (d *dropper) closeAll(v *epoch.View) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.view().Number != v.Number {
		return false
	}
	for p := range d.units {
		if !v.Holds(p) {
			d.rows.Fence(p, true)
		}
	}
	return true
}

// dropped is what one round has emptied: there are hundreds of partitions, so they are
// logged together.
type dropped struct{ partitions, rows int }

// dropClosed empties the closed partitions. Once another view than v has come it drops
// no more, and opens those again that it has not touched: their rows are handed over as
// if the view had never been settled. Without v it empties all, since it is not known
// which were begun.
func (d *dropper) dropClosed(ctx context.Context, v *epoch.View) error {
	if err := d.rows.Settle(ctx); err != nil {
		return err
	}
	var gone dropped
	defer func() {
		d.count()
		if gone.partitions > 0 {
			d.log.Info("partitions that moved away are dropped", "partitions", gone.partitions, "rows", gone.rows)
		}
	}()
	d.count()
	for p := range d.units {
		if !d.pending(p) {
			continue
		}
		empty, err := d.rows.Empty(p)
		if err != nil {
			return err
		}
		if !empty && v != nil && d.view().Number != v.Number {
			d.rows.Fence(p, false)
			continue
		}
		if !empty {
			rows, err := d.rows.Drop(ctx, p)
			if err != nil {
				return err
			}
			gone.partitions, gone.rows = gone.partitions+1, gone.rows+rows
			d.left.Add(-1)
		}
		d.mu.Lock()
		d.mu.empty[p] = true
		d.mu.Unlock()
	}
	d.ended()
	return nil
}

// pending reports whether a partition is closed and not known to be empty.
func (d *dropper) pending(p int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows.Fenced(p) && !d.mu.empty[p]
}

// count notes how many partitions have yet to be emptied.
func (d *dropper) count() {
	left := int64(0)
	for p := range d.units {
		if d.pending(p) {
			left++
		}
	}
	d.left.Store(left)
}

// ended clears dropping if no closed partition is left to be emptied, and reports
// whether that is so.
func (d *dropper) ended() bool {
	for p := range d.units {
		if d.pending(p) {
			return false
		}
	}
	if d.dropping.Swap(false) {
		d.nudge()
	}
	return true
}
