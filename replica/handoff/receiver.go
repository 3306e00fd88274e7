package handoff

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/membership/ring"
)

// Receiver takes in what other nodes deliver.
type Receiver struct {
	cfg       ReceiverConfig
	rows      Taker
	admission Admission
	queue     chan *arrival

	received      *metrics.Counter
	receivedBytes *metrics.Counter
	refused       *metrics.Counter
	held          *metrics.Counter // grants of nothing
}

// NewReceiver makes a Receiver; it starts nothing.
func NewReceiver(cfg ReceiverConfig, rows Taker, admission Admission) (*Receiver, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Receiver{
		cfg: cfg, rows: rows, admission: admission, queue: make(chan *arrival, cfg.Queue),
		received:      cfg.Metrics.GetOrCreateCounter(`handoff_received_rows_total`),
		receivedBytes: cfg.Metrics.GetOrCreateCounter(`handoff_received_bytes_total`),
		refused:       cfg.Metrics.GetOrCreateCounter(`handoff_received_refused_total`),
		held:          cfg.Metrics.GetOrCreateCounter(`handoff_held_back_total`),
	}, nil
}

// arrival is a message that is being taken in.
type arrival struct {
	Message
	deadline time.Time
	done     func(credit int, err error)

	left  atomic.Int64 // rows without outcome, and one while there may be more
	fault atomic.Pointer[error]
}

// Deliver takes the rows of m in and calls done exactly once: with what the
// sender may bring next when every row is committed, and synced if m is to be
// durable, or with an error if any row is not. It does not wait.
func (r *Receiver) Deliver(m Message, deadline time.Time, done func(credit int, err error)) {
	if len(m.Rows) == 0 {
		done(r.grant(), nil)
		return
	}
	select {
	case r.queue <- &arrival{Message: m, deadline: deadline, done: done}:
	default:
		r.refused.Inc()
		done(0, ErrBusy)
	}
}

// check refuses what became void while it was queued, rows that this node does not own, or hints for a node that does
// not: here they would be held by nobody who is asked for them, and for nobody who
// takes them. The sender's ring or this one is old.
func (r *Receiver) check(m Message) error {
	if m.Refuse != nil {
		if err := m.Refuse(); err != nil {
			return err
		}
	}
	current := r.cfg.Live()
	if current == nil {
		return ErrNotReady
	}
	owner := r.cfg.Self
	if m.For == owner {
		return ErrNotOwner // nobody keeps a hint for itself
	}
	if m.For != 0 {
		owner = m.For
	}
	for i := range m.Rows {
		if !current.Owns(owner, current.Partition(ring.SlotOf(m.Rows[i].Key))) {
			return ErrNotOwner
		}
	}
	return nil
}

// grant asks Admission for the next message's credit.
func (r *Receiver) grant() int {
	credit := min(max(r.admission.Grant(r.cfg.MaxCredit), 0), r.cfg.MaxCredit)
	if credit == 0 {
		r.held.Inc()
	}
	return credit
}

// Run merges what arrives until ctx ends, then what has arrived, and returns.
func (r *Receiver) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range r.cfg.Workers {
		wg.Go(func() {
			for {
				select {
				case a := <-r.queue:
					r.take(a)
				case <-ctx.Done():
					r.drain()
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func (r *Receiver) drain() {
	for {
		select {
		case a := <-r.queue:
			r.take(a)
		default:
			return
		}
	}
}

// take merges the rows of one message, until one of them fails.
func (r *Receiver) take(a *arrival) {
	a.left.Store(1)
	settle := func(err error) { r.settle(a, err) }
	if err := r.check(a.Message); err != nil {
		settle(err)
		return
	}
	for i := range a.Rows {
		if a.fault.Load() != nil {
			break
		}
		if !a.deadline.IsZero() && time.Now().After(a.deadline) {
			a.fail(ErrLate)
			break
		}
		row := &a.Rows[i]
		a.left.Add(1)
		// A record of its own: the cache keeps it, and must not keep the message.
		r.rows.MergeBefore(a.deadline, row.Key, a.For, bytes.Clone(row.Record), a.Durable, settle)
	}
	settle(nil)
}

func (a *arrival) fail(err error) { a.fault.CompareAndSwap(nil, &err) }

// settle takes the outcome of one row; the last one answers the sender.
func (r *Receiver) settle(a *arrival, err error) {
	if err != nil {
		a.fail(err)
	}
	if a.left.Add(-1) > 0 {
		return
	}
	if fault := a.fault.Load(); fault != nil {
		r.refused.Inc()
		a.done(0, *fault)
		return
	}
	size := 0
	for i := range a.Rows {
		size += a.Rows[i].size()
	}
	r.received.Add(len(a.Rows))
	r.receivedBytes.Add(size)
	a.done(r.grant(), nil)
}
