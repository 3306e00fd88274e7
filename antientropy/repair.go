package antientropy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// ErrRepairing says that the repair before is not at its end.
var ErrRepairing = errors.New("antientropy: a repair is under way")

// jobs is the repair that was asked for, if any.
type jobs struct {
	mu struct {
		sync.Mutex
		now Repair
		ask []ring.NodeID // peers that it has yet to exchange with
	}
}

// Repair is the state of the pass that Exchanger.Repair began last.
type Repair struct {
	First, Last ring.Slot
	Whole       bool      // contexts are compared too
	Began       time.Time // zero: there was none in this run
	Ended       time.Time // zero: it is under way
	Peers       int       // to exchange with
	Done        int       // of those, exchanged with
	Failed      int       // of those, failed or away; the usual turns come to them
	Tally       Tally
	Err         error // of the last that failed
}

// Repair begins a pass over the partitions that the slots are in, with every other
// owner, ahead of the usual turns. If whole, contexts are compared too: that brings back
// what this node has lost, and reads all rows. One pass runs at a time; RepairStatus
// tells how far it is.
func (x *Exchanger) Repair(first, last ring.Slot, whole bool) error {
	j := &x.jobs
	peers := x.peers()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.mu.now.Began.IsZero() && j.mu.now.Ended.IsZero() {
		return ErrRepairing
	}
	j.mu.now = Repair{First: first, Last: last, Whole: whole, Began: x.cfg.Now(), Peers: len(peers)}
	j.mu.ask = peers
	if len(peers) == 0 {
		j.mu.now.Ended = j.mu.now.Began
	}
	x.nudge()
	return nil
}

// RepairStatus returns the state of the last pass.
func (x *Exchanger) RepairStatus() Repair {
	j := &x.jobs
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.now
}

// repairTries is how often a repair asks a peer that is in another session, a tenth of
// a Settle apart, before it goes on with the next.
const repairTries = 300

// work does the next part of a repair and reports whether there was any.
func (x *Exchanger) work(ctx context.Context) bool {
	j := &x.jobs
	j.mu.Lock()
	if len(j.mu.ask) == 0 {
		j.mu.Unlock()
		return false
	}
	node := j.mu.ask[0]
	first, last, whole := j.mu.now.First, j.mu.now.Last, j.mu.now.Whole
	j.mu.Unlock()
	tally, err := x.exchange(ctx, node, first, last, whole)
	for tries := 0; errors.Is(err, ErrBusy) && tries < repairTries; tries++ {
		if sleep(ctx, x.cfg.Settle/10) != nil {
			return false
		}
		tally, err = x.exchange(ctx, node, first, last, whole)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.ask = j.mu.ask[1:]
	j.mu.now.Tally.add(tally)
	if err != nil {
		j.mu.now.Failed++
		j.mu.now.Err = err
	} else {
		j.mu.now.Done++
	}
	if len(j.mu.ask) == 0 {
		j.mu.now.Ended = x.cfg.Now()
	}
	return true
}
