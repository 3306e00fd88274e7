package node

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redynamo/redynamo/coordinator/admission"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/handoff"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/resp"
)

// hintMover is the two halves of hint delivery, and the bound on what is kept.
type hintMover struct {
	sender   *handoff.Sender
	mover    *handoff.Mover
	receiver *handoff.Receiver
	budget   *handoff.Budget
}

// newHintMover joins hint delivery to the parts of n that exist by now.
func newHintMover(n *Node) (m hintMover, err error) {
	m.budget = handoff.NewBudget(n.cfg.HintBudget, n.replica, n.cfg.Logger, n.set)
	m.receiver, err = handoff.NewReceiver(handoff.ReceiverConfig{
		Self: n.id.node, Live: cluster{n}.Live, Metrics: n.set,
	}, n.replica, receiving{n.admission})
	if err != nil {
		return m, err
	}
	m.sender, err = handoff.NewSender(handoff.Config{
		Self: n.id.node, Pace: n.pace(admission.Send), Handed: func(number uint64) bool { return n.hints.mover.Handed(number) },
		Now: n.cfg.Now, Rand: n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set,
	}, hintBook{n.replica}, n.replica, handoffCluster{cluster{n}}, m.budget)
	if err != nil {
		return m, err
	}
	m.mover, err = handoff.NewMover(handoff.MoverConfig{
		Self: n.id.node, Pace: n.pace(admission.Send), Sent: func() { n.members.Nudge() },
		Sizes: func(r *ring.Ring) func(int) int64 { return n.partitionSizes(r).bytesOf },
		Rand:  n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set,
	}, handoffCluster{cluster{n}}, n.replica, exchanges{n}, n.hintMoment)
	return m, err
}

// hintBook makes the replica's hints a handoff's Book.
type hintBook struct{ r *replica.Replica }

func (b hintBook) Totals() []handoff.Total {
	hints := b.r.Hints()
	totals := make([]handoff.Total, len(hints))
	for i, h := range hints {
		totals[i] = handoff.Total(h)
	}
	return totals
}

func (b hintBook) Page(target nodeID, slot ring.Slot, hash uint32, maxBytes int) (handoff.Page, error) {
	p, err := b.r.HintPage(target, slot, hash, maxBytes)
	return pageOf(p), err
}

// pageOf gives a page the words of handoff.
func pageOf(p replica.HintPage) handoff.Page {
	page := handoff.Page{NextSlot: p.NextSlot, NextHash: p.NextHash, Done: p.Done, Unreadable: p.Unreadable}
	for _, h := range p.Hints {
		page.Rows = append(page.Rows, handoff.Row(h))
	}
	return page
}

func (b hintBook) Drop(key []byte, target nodeID, record []byte, done func(bool, error)) {
	b.r.DropHint(key, target, record, done)
}

// handoffCluster is what a handoff knows of the other nodes.
type handoffCluster struct{ cluster }

func (c handoffCluster) Peer(id nodeID) handoff.Peer {
	if p := c.n.pool.Get(id); p != nil {
		return deliverer{p, c.n.epochs}
	}
	return nil
}

// deliverer makes the node-to-node protocol look like a handoff's Peer.
type deliverer struct {
	p      *rpc.Peer
	epochs func() rpc.Epochs
}

func (d deliverer) Deliver(m handoff.Message, deadline time.Time, done func(int, error)) {
	req := rpc.DeliverRequest{For: m.For, Durable: m.Durable, Rows: make([]rpc.DeliverRow, len(m.Rows))}
	for i, row := range m.Rows {
		req.Rows[i] = rpc.DeliverRow{Key: row.Key, Record: row.Record}
	}
	d.p.Deliver(req, rpc.Options{Deadline: deadline, Class: rpc.Background, Epochs: d.epochs()}, func(r rpc.DeliverReply, err error) {
		done(int(r.Credit), deliverError(err))
	})
}

// transient are the errors that say nothing of the rows of a message.
var transient = []error{rpc.ErrUnreachable, rpc.ErrOverloaded, rpc.ErrTimeout, rpc.ErrClosed, rpc.ErrLoading, rpc.ErrStaleEpoch, rpc.ErrBehind}

// deliverError marks an answer of the peer that is about the rows.
func deliverError(err error) error {
	if err == nil {
		return nil
	}
	for _, t := range transient {
		if errors.Is(err, t) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", handoff.ErrRejected, err)
}

// ServeDeliver takes in what another node has kept.
func (h handler) ServeDeliver(m rpc.DeliverRequest, meta rpc.Meta, reply func(rpc.DeliverReply, error)) {
	h.n.exchange.Heard(meta.From)
	in := handoff.Message{For: m.For, Durable: m.Durable, Rows: make([]handoff.Row, len(m.Rows)), Refuse: func() error {
		if h.n.stale(meta.From, meta.Epochs, false) {
			return rpc.ErrStaleEpoch
		}
		return nil
	}}
	for i, row := range m.Rows {
		in.Rows[i] = handoff.Row{Key: row.Key, Record: row.Record}
	}
	end := func(time.Duration) {}
	if len(in.Rows) > 0 {
		end = h.n.admission.Begin(admission.Receive)
	}
	h.n.hints.receiver.Deliver(in, meta.Deadline, func(credit int, err error) {
		end(0)
		reply(rpc.DeliverReply{Credit: uint32(credit)}, h.n.refusal(meta, receiveError(err)))
	})
}

// receiveErrors pairs what taking rows in can end with and its word on the wire.
var receiveErrors = []struct{ local, wire error }{
	{handoff.ErrBusy, rpc.ErrOverloaded},
	{handoff.ErrLate, rpc.ErrTimeout},
	{replica.ErrLate, rpc.ErrTimeout},
	{replica.ErrFenced, rpc.ErrLoading}, // it is being emptied, and will be open
	{handoff.ErrNotReady, rpc.ErrLoading},
	{handoff.ErrNotOwner, rpc.ErrNotOwner},
	{storage.ErrClosed, rpc.ErrLoading}, // it is stopping, and will be back
	{storage.ErrFailed, rpc.ErrLoading},
}

func receiveError(err error) error {
	for _, e := range receiveErrors {
		if errors.Is(err, e.local) {
			return e.wire
		}
	}
	return toWire(err)
}

// receiving is handoff.Admission: how much the others may deliver here.
type receiving struct{ c *admission.Controller }

func (r receiving) Grant(want int) int { return r.c.Grant(admission.Receive, want) }

// Hints is resp.Admin.
func (p *publisher) Hints() []resp.HintTarget {
	v, n := p.n.members.View(), p.n
	now := n.cfg.Now()
	var all []resp.HintTarget
	for _, st := range n.hints.sender.Status() {
		info, _ := v.Node(st.Target)
		t := resp.HintTarget{
			ID: st.Target, Addr: info.Endpoints.PlainAddr(), Up: cluster{n}.Up(st.Target),
			Rows: st.Rows, Bytes: st.Bytes, Budget: n.hints.budget.Limit(), OverBudget: st.OverBudget,
			DeliveredRows: st.DeliveredRows, DeliveredBytes: st.DeliveredBytes, Failed: st.Failed, State: st.State.String(),
		}
		if !st.Since.IsZero() {
			t.Oldest = now.Sub(st.Since)
		}
		all = append(all, t)
	}
	return all
}

// handoffFields is INFO's section about hints.
func (p *publisher) handoffFields() []resp.Field {
	var kept, active, over, rows, size, delivered, bytes, failed int64
	var oldest time.Duration
	for _, t := range p.Hints() {
		rows, size = rows+t.Rows, size+t.Bytes
		delivered, bytes, failed = delivered+t.DeliveredRows, bytes+t.DeliveredBytes, failed+t.Failed
		oldest = max(oldest, t.Oldest)
		if t.Rows > 0 {
			kept++
		}
		if t.OverBudget {
			over++
		}
		if t.State == handoff.Delivering.String() {
			active++
		}
	}
	number := func(name string, v int64) resp.Field { return resp.Field{Name: name, Value: strconv.FormatInt(v, 10)} }
	return []resp.Field{
		number("handoff_targets", kept), number("handoff_active_targets", active),
		number("handoff_rows", rows), number("handoff_bytes", size), number("handoff_oldest_hint_ms", oldest.Milliseconds()),
		number("handoff_budget", p.n.hints.budget.Limit()), number("handoff_targets_over_budget", over),
		number("handoff_delivered_rows", delivered), number("handoff_delivered_bytes", bytes), number("handoff_failed", failed),
	}
}
