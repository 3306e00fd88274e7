package handoff

import (
	"log/slog"
	"sync"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
)

// DefaultBudget is how many bytes are kept for one target before optional hints
// are refused.
const DefaultBudget = 1 << 30

// Budget bounds the hints for each target. It may be exceeded by what is in
// flight when it is reached, and by hints that their writes rest on.
type Budget struct {
	limit int64
	sizes Sizes
	log   *slog.Logger

	refused *metrics.Counter // optional hints dropped over budget
	beyond  *metrics.Counter // hints kept over budget, because they are needed

	mu struct {
		sync.Mutex
		over map[ring.NodeID]bool
	}
}

// NewBudget allows limit bytes for each target.
func NewBudget(limit int64, sizes Sizes, log *slog.Logger, set *metrics.Set) *Budget {
	b := &Budget{
		limit: limit, sizes: sizes, log: log,
		refused: set.GetOrCreateCounter(`handoff_hints_dropped_over_budget_total`),
		beyond:  set.GetOrCreateCounter(`handoff_hints_kept_over_budget_total`),
	}
	b.mu.over = map[ring.NodeID]bool{}
	set.GetOrCreateGauge(`handoff_targets_over_budget`, func() float64 { return float64(b.overTargets()) })
	return b
}

// Limit is the bytes allowed for each target.
func (b *Budget) Limit() int64 { return b.limit }

// Admit answers ErrHintBudget if a hint of so many bytes is not to be kept for
// target. A hint that is not optional always is.
func (b *Budget) Admit(target ring.NodeID, size int, optional bool) error {
	if !b.update(target, b.sizes.HintBytes(target), int64(size)) {
		return nil
	}
	if optional {
		b.refused.Inc()
		return ErrHintBudget
	}
	b.beyond.Inc()
	return nil
}

// update brings the state of target up to date, with size more bytes, and
// reports whether it is over budget. It is below again when a tenth is free.
func (b *Budget) update(target ring.NodeID, kept, size int64) (is bool) {
	b.mu.Lock()
	was := b.mu.over[target]
	is = kept+size > b.limit || was && kept > b.limit-b.limit/10
	if is {
		b.mu.over[target] = true
	} else if was {
		delete(b.mu.over, target)
	}
	b.mu.Unlock()
	if is != was {
		b.log.Warn("handoff: hint budget changed state", "target", target, "over", is, "bytes", kept, "budget", b.limit)
	}
	return is
}

// Over reports whether target is over budget.
func (b *Budget) Over(target ring.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.over[target]
}

func (b *Budget) overTargets() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mu.over)
}

// refresh looks at the targets that are over budget: nobody may ask for them
// any more.
func (b *Budget) refresh() {
	b.mu.Lock()
	var over []ring.NodeID
	for id := range b.mu.over {
		over = append(over, id)
	}
	b.mu.Unlock()
	for _, id := range over {
		b.update(id, b.sizes.HintBytes(id), 0)
	}
}
