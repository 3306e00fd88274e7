package coordinator

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/replica/version"
)

// This file counts how far copies drift apart, as Dynamo §6.3 reports it.

// Bucket is one bar of a histogram.
type Bucket struct {
	Name  string // of what falls into it: "4-7", "8+"
	Count uint64
}

// Divergence is how far copies drifted apart since the process started, as this
// node met it as a coordinator.
type Divergence struct {
	Versions       []Bucket // client reads by the number of live versions they showed
	Siblings       uint64   // versions shown beside the newest one, in all
	DivergentReads uint64   // reads that found an owner stale

	RepairsBegun, RepairsDone     uint64 // of stale owners
	RepairsFailed, RepairsDropped uint64 // dropped: more under way than may be, or the same one

	HintsStored uint64 // writes that a fallback took for an owner
	HintsKept   uint64 // those that a coordinator kept for it, with no fallback left
	HintsFailed uint64 // hints that their holder did not store

	Staleness        []Bucket // repaired owners by the age in ms of the oldest write they missed
	StalenessUnknown uint64   // those of which it is not known: they missed a delete, or told only a hash
}

// histogram counts in buckets with fixed names, since label values come from a
// closed list.
type histogram struct {
	from  []int64 // the least value of each bucket, ascending
	names []string
	count []*metrics.Counter
}

// newHistogram makes a histogram of the metric with a label. What is below the
// first bucket counts for it.
func newHistogram(s *metrics.Set, metric, label string, from ...int64) histogram {
	h := histogram{from: from}
	for i, least := range from {
		name := fmt.Sprintf("%d+", least)
		if i+1 < len(from) {
			if name = fmt.Sprint(least); from[i+1] > least+1 {
				name = fmt.Sprintf("%d-%d", least, from[i+1]-1)
			}
		}
		h.names = append(h.names, name)
		h.count = append(h.count, s.NewCounter(fmt.Sprintf("%s{%s=%q}", metric, label, name)))
	}
	return h
}

func (h *histogram) add(v int64) {
	i := len(h.from) - 1
	for i > 0 && v < h.from[i] {
		i--
	}
	h.count[i].Inc()
}

func (h *histogram) buckets() []Bucket {
	out := make([]Bucket, len(h.names))
	for i, name := range h.names {
		out[i] = Bucket{Name: name, Count: h.count[i].Get()}
	}
	return out
}

// divergence are the counters behind Divergence.
type divergence struct {
	versions         histogram
	siblings         *metrics.Counter
	reads            *metrics.Counter
	repairs          *metrics.Counter
	repairsDone      *metrics.Counter
	repairsDropped   *metrics.Counter
	repairsFailed    *metrics.Counter
	hints            *metrics.Counter
	hintsKept        *metrics.Counter
	hintsFailed      *metrics.Counter
	staleness        histogram
	stalenessUnknown *metrics.Counter
}

func newDivergence(s *metrics.Set) divergence {
	return divergence{
		versions:       newHistogram(s, "coordinator_read_versions_total", "versions", 0, 1, 2, 3, 4, 8),
		siblings:       s.NewCounter(`coordinator_siblings_seen_total`),
		reads:          s.NewCounter(`coordinator_reads_divergent_total`),
		repairs:        s.NewCounter(`coordinator_repairs_total`),
		repairsDone:    s.NewCounter(`coordinator_repairs_done_total`),
		repairsDropped: s.NewCounter(`coordinator_repairs_dropped_total`),
		repairsFailed:  s.NewCounter(`coordinator_repairs_failed_total`),
		hints:          s.NewCounter(`coordinator_hints_total{holder="fallback"}`),
		hintsKept:      s.NewCounter(`coordinator_hints_total{holder="self"}`),
		hintsFailed:    s.NewCounter(`coordinator_hints_failed_total`),
		staleness: newHistogram(s, "coordinator_repair_staleness_total", "ms",
			0, 10, 100, 1000, 10_000, 100_000, 1_000_000),
		stalenessUnknown: s.NewCounter(`coordinator_repair_staleness_unknown_total`),
	}
}

// Divergence returns what was counted so far.
func (c *Coordinator) Divergence() Divergence {
	d := &c.count.divergence
	return Divergence{
		Versions: d.versions.buckets(), Siblings: d.siblings.Get(), DivergentReads: d.reads.Get(),
		RepairsBegun: d.repairs.Get(), RepairsDone: d.repairsDone.Get(),
		RepairsFailed: d.repairsFailed.Get(), RepairsDropped: d.repairsDropped.Get(),
		HintsStored: d.hints.Get(), HintsKept: d.hintsKept.Get(), HintsFailed: d.hintsFailed.Get(),
		Staleness: d.staleness.buckets(), StalenessUnknown: d.stalenessUnknown.Get(),
	}
}

// showed counts what a client's read was answered with.
func (d *divergence) showed(rec version.Record, now time.Time) {
	n := 0
	if len(rec.Versions) > 1 {
		n = len(rec.Live(now.UnixMilli()))
	} else if _, live := rec.Winner(now.UnixMilli()); live {
		n = 1 // nearly always: spares making a list
	}
	d.versions.add(int64(n))
	if n > 1 {
		d.siblings.Add(n - 1)
	}
}

// missed counts how long ago the oldest write was made that a stale owner lacks.
func (d *divergence) missed(s quorum.Repair, now time.Time) {
	if s.Since == 0 {
		d.stalenessUnknown.Inc()
		return
	}
	d.staleness.add(now.UnixMilli() - s.Since.UnixMS())
}
