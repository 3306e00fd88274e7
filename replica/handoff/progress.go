package handoff

import (
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
)

// Progress is how far handing over for a target is.
type Progress struct {
	Target Target    // zero: nothing is to be handed over
	Since  time.Time // when that was granted
	Sent   bool      // all of it is handed over

	Lanes []LaneProgress // own rows, by the nodes that they go to

	HintRows  int64 // delivered, repetitions included
	HintBytes int64
	HintsSent bool
	HintsWait ring.NodeID // could not be reached last; 0 none
}

// LaneProgress is what goes to one node.
type LaneProgress struct {
	Node       ring.NodeID
	Partitions int     // that it is to have from this node
	Done       int     // of those, handed over
	Rows       int64   // moved by this node, in both directions
	Bytes      int64   // of those
	BytesLeft  int64   // about what the partitions that are not done bring from here
	Rate       float64 // bytes in a second, since the grant
	State      string  // moving, waiting, backing-off, down or done
}

// Progress tells how far handing over is.
func (m *Mover) Progress() Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.mu.job
	if j == nil {
		return Progress{}
	}
	p := Progress{
		Target: j.Grant, Since: j.since, Sent: j.rowed && j.hinted,
		HintRows: j.hints.rows, HintBytes: j.hints.bytes, HintsSent: j.hinted, HintsWait: j.hints.waits,
	}
	took := time.Since(j.since).Seconds()
	for _, l := range j.lanes {
		x := LaneProgress{
			Node: l.node, Partitions: len(l.todo), Done: len(l.todo) - len(l.left),
			Rows: l.moved.Rows, Bytes: l.moved.Bytes, BytesLeft: l.leftBytes, State: l.state,
		}
		if took > 0 {
			x.Rate = float64(x.Bytes) / took
		}
		p.Lanes = append(p.Lanes, x)
	}
	return p
}

// togo is how many copies of partitions have yet to be handed over.
func (m *Mover) togo() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	if m.mu.job != nil {
		for _, l := range m.mu.job.lanes {
			n += len(l.left)
		}
	}
	return float64(n)
}

// moverCounters are the metrics of a Mover.
type moverCounters struct {
	partitions       *metrics.Counter // copies of partitions that were handed over
	rows, bytes      *metrics.Counter // moved for them
	hints            *metrics.Counter // hints handed over
	ok, busy, failed *metrics.Counter // exchanges
}

func newMoverCounters(set *metrics.Set, togo func() float64) moverCounters {
	set.GetOrCreateGauge(`handoff_transfer_partitions_left`, togo)
	return moverCounters{
		partitions: set.GetOrCreateCounter(`handoff_transfer_partitions_total`),
		rows:       set.GetOrCreateCounter(`handoff_transfer_rows_total`),
		bytes:      set.GetOrCreateCounter(`handoff_transfer_bytes_total`),
		hints:      set.GetOrCreateCounter(`handoff_transfer_hints_total`),
		ok:         set.GetOrCreateCounter(`handoff_transfer_exchanges_total{outcome="ok"}`),
		busy:       set.GetOrCreateCounter(`handoff_transfer_exchanges_total{outcome="busy"}`),
		failed:     set.GetOrCreateCounter(`handoff_transfer_exchanges_total{outcome="failed"}`),
	}
}
