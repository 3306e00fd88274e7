package node

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redynamo/redynamo/antientropy"
	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/coordinator/admission"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/version"
	"github.com/redynamo/redynamo/resp"
)

// ownRows makes the own rows of the replica the source of anti-entropy.
type ownRows struct {
	*replica.Replica
	durable bool // what is merged counts only when it is synced
}

func (o ownRows) Reader(first, last ring.Slot) (antientropy.Reader, error) {
	r, err := o.Replica.Reader(first, last)
	return rowReader{r}, err
}

func (o ownRows) Merge(key, record []byte, deadline time.Time, done func(error)) {
	o.MergeBefore(deadline, key, 0, record, o.durable, done)
}

// rowReader gives what it reads the words of anti-entropy.
type rowReader struct{ *replica.Reader }

func (r rowReader) List(q antientropy.ListQuery) (a antientropy.ListAnswer, err error) {
	list, covered, next, err := r.Reader.List(q.Cells, q.From, q.Limit, q.Whole)
	a = antientropy.ListAnswer{Cells: covered, Next: next, States: make([]antientropy.KeyState, 0, len(list))}
	for _, s := range list {
		a.States = append(a.States, antientropy.KeyState(s))
	}
	return a, err
}

func (r rowReader) Rows(at []antientropy.Position, maxBytes int) (rows []antientropy.Row, n int, err error) {
	places := make([]replica.Position, 0, len(at))
	for _, p := range at {
		places = append(places, replica.Position(p))
	}
	list, n, err := r.Reader.Rows(places, maxBytes)
	for _, row := range list {
		rows = append(rows, antientropy.Row(row))
	}
	return rows, n, err
}

// exchangeCluster is what anti-entropy knows of the other nodes.
type exchangeCluster struct{ cluster }

// Rings is antientropy.Cluster.
func (c exchangeCluster) Rings() antientropy.Rings {
	v := c.n.members.View()
	r := antientropy.Rings{Live: v.Live}
	if v.Epoch != nil {
		r.Stamp = antientropy.Stamp(v.Epoch.Stamp.Bytes())
	}
	return r
}

func (c exchangeCluster) Peer(id ring.NodeID, by antientropy.Stamp) antientropy.Peer {
	if p := c.n.pool.Get(id); p != nil {
		return exchangePeer{p: p, durable: c.n.durableRows(), epochs: rpc.Epochs(by)}
	}
	return nil
}

// exchangePeer asks another node, and waits.
type exchangePeer struct {
	p       *rpc.Peer
	durable bool
	epochs  rpc.Epochs
}

// outcome is what came of a call.
type outcome[T any] struct {
	value T
	err   error
}

// await makes a call and waits for its outcome. The call ends by itself at the
// deadline of ctx.
func await[T any](ctx context.Context, call func(o rpc.Options, done func(T, error))) (T, error) {
	o := rpc.Options{Class: rpc.Background}
	o.Deadline, _ = ctx.Deadline()
	got := make(chan outcome[T], 1)
	call(o, func(v T, err error) { got <- outcome[T]{v, err} })
	select {
	case a := <-got:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (e exchangePeer) Nodes(ctx context.Context, q antientropy.NodesQuery) ([]uint64, error) {
	m := rpc.NodesRequest{Units: uint16(q.Units - 1), Level: uint8(q.Level), Step: uint8(q.Step)}
	for _, n := range q.Nodes {
		m.Nodes = append(m.Nodes, rpc.TreeNode{Partition: uint16(n.Partition), Index: uint32(n.Index)})
	}
	a, err := await(ctx, func(o rpc.Options, done func(rpc.NodesReply, error)) {
		o.Epochs = e.epochs
		e.p.Nodes(m, o, done)
	})
	return a.Hashes, err
}

func (e exchangePeer) List(ctx context.Context, q antientropy.ListQuery) (antientropy.ListAnswer, error) {
	m := rpc.ListRequest{Limit: uint32(q.Limit), From: q.From, Whole: q.Whole}
	for _, c := range q.Cells {
		m.Cells = append(m.Cells, uint32(c))
	}
	a, err := await(ctx, func(o rpc.Options, done func(rpc.ListReply, error)) {
		o.Epochs = e.epochs
		e.p.List(m, o, done)
	})
	out := antientropy.ListAnswer{Cells: int(a.Cells), Next: a.NextHash}
	for _, s := range a.Entries {
		out.States = append(out.States, antientropy.KeyState(s))
	}
	return out, err
}

func (e exchangePeer) Fetch(ctx context.Context, at []antientropy.Position, maxBytes int) ([]antientropy.Row, int, error) {
	m := rpc.FetchRequest{MaxBytes: uint32(maxBytes)}
	for _, p := range at {
		m.Positions = append(m.Positions, rpc.Position(p))
	}
	a, err := await(ctx, func(o rpc.Options, done func(rpc.FetchReply, error)) {
		o.Epochs = e.epochs
		e.p.Fetch(m, o, done)
	})
	if err != nil {
		return nil, 0, err
	}
	var rows []antientropy.Row
	for _, r := range a.Rows {
		rec, err := version.DecodeRecord(r.Record)
		if err != nil {
			return nil, 0, err
		}
		rows = append(rows, antientropy.Row{Key: r.Key, State: rec.WholeHash(), Record: r.Record})
	}
	return rows, int(a.Positions), nil
}

func (e exchangePeer) Deliver(ctx context.Context, rows []antientropy.Row) (int, error) {
	m := rpc.DeliverRequest{Durable: e.durable}
	for _, r := range rows {
		m.Rows = append(m.Rows, rpc.DeliverRow{Key: r.Key, Record: r.Record})
	}
	a, err := await(ctx, func(o rpc.Options, done func(rpc.DeliverReply, error)) {
		o.Epochs = e.epochs
		e.p.Deliver(m, o, done)
	})
	return int(a.Credit), err
}

func (e exchangePeer) Begin(ctx context.Context, s antientropy.Session) error {
	err := e.session(ctx, s, false)
	if errors.Is(err, rpc.ErrOverloaded) {
		return antientropy.ErrBusy
	}
	return err
}

func (e exchangePeer) End(ctx context.Context, s antientropy.Session) error {
	return e.session(ctx, s, true)
}

func (e exchangePeer) session(ctx context.Context, s antientropy.Session, end bool) error {
	m := rpc.SessionRequest{End: end, Epoch: s.Epoch, First: s.First, Last: s.Last}
	_, err := await(ctx, func(o rpc.Options, done func(struct{}, error)) {
		e.p.Session(m, o, func(err error) { done(struct{}{}, err) })
	})
	return err
}

// later runs f on one of the few workers for what no client waits for, unless the
// caller has given up or there are too many before it. What was not stale when it came
// may be when its turn comes; below version 5 of the protocol it does not say what it
// goes by.
func later[R any](h handler, meta rpc.Meta, reply func(R, error), f func() (R, error)) {
	h.n.back.later(meta.Deadline, func(err error) {
		var r R
		if err == nil && meta.Epochs != (rpc.Epochs{}) && h.n.stale(meta.From, meta.Epochs, true) {
			err = rpc.ErrStaleEpoch
		}
		if err == nil {
			end := h.n.admission.Begin(admission.Answer)
			r, err = f()
			end(0)
		}
		reply(r, h.n.refusal(meta, exchangeError(err)))
	})
}

// exchangeError is toWire with the words of anti-entropy.
func exchangeError(err error) error {
	switch {
	case errors.Is(err, antientropy.ErrShape):
		return rpc.ErrUnsupported
	case errors.Is(err, antientropy.ErrBusy):
		return rpc.ErrOverloaded
	}
	return toWire(err)
}

func (h handler) ServeNodes(m rpc.NodesRequest, meta rpc.Meta, reply func(rpc.NodesReply, error)) {
	r := h.n.members.View().Ring
	if r == nil {
		reply(rpc.NodesReply{}, rpc.ErrLoading)
		return
	}
	later(h, meta, reply, func() (rpc.NodesReply, error) {
		q := antientropy.NodesQuery{Units: int(m.Units) + 1, Level: int(m.Level), Step: int(m.Step)}
		for _, n := range m.Nodes {
			q.Nodes = append(q.Nodes, antientropy.Node{Partition: int(n.Partition), Index: int(n.Index)})
		}
		hashes, err := h.n.responder.Nodes(q, r.Units())
		return rpc.NodesReply{Hashes: hashes}, err
	})
}

func (h handler) ServeList(m rpc.ListRequest, meta rpc.Meta, reply func(rpc.ListReply, error)) {
	h.n.exchange.Heard(meta.From)
	later(h, meta, reply, func() (rpc.ListReply, error) {
		q := antientropy.ListQuery{From: m.From, Limit: int(m.Limit), Whole: m.Whole}
		for _, c := range m.Cells {
			q.Cells = append(q.Cells, merkle.Cell(c))
		}
		a, err := h.n.responder.List(q)
		out := rpc.ListReply{Cells: uint32(a.Cells), NextHash: a.Next}
		for _, s := range a.States {
			out.Entries = append(out.Entries, rpc.ListEntry(s))
		}
		return out, err
	})
}

func (h handler) ServeFetch(m rpc.FetchRequest, meta rpc.Meta, reply func(rpc.FetchReply, error)) {
	h.n.exchange.Heard(meta.From)
	later(h, meta, reply, func() (rpc.FetchReply, error) {
		var at []antientropy.Position
		for _, p := range m.Positions {
			at = append(at, antientropy.Position(p))
		}
		rows, n, err := h.n.responder.Fetch(at, int(m.MaxBytes))
		out := rpc.FetchReply{Positions: uint32(n)}
		for _, r := range rows {
			out.Rows = append(out.Rows, rpc.FetchRow{Key: r.Key, Record: r.Record})
		}
		return out, err
	})
}

func (h handler) ServeSession(m rpc.SessionRequest, meta rpc.Meta, reply func(error)) {
	s := antientropy.Session{Epoch: m.Epoch, First: m.First, Last: m.Last}
	if !m.End {
		reply(exchangeError(h.n.exchange.ServeBegin(meta.From, s)))
		return
	}
	h.n.exchange.ServeEnd(meta.From, s, func(err error) { reply(toWire(err)) })
}

// Repair begins a comparison of some slots with their other owners.
func (p *publisher) Repair(first, last ring.Slot) error {
	err := p.n.exchange.Repair(first, last, false)
	if errors.Is(err, antientropy.ErrRepairing) {
		return resp.ErrRepairing
	}
	return err
}

// RepairStatus describes the last repair.
func (p *publisher) RepairStatus() []resp.Field {
	s := p.n.exchange.RepairStatus()
	state, took := "none", time.Duration(0)
	switch {
	case s.Began.IsZero():
	case s.Ended.IsZero():
		state, took = "running", p.n.cfg.Now().Sub(s.Began)
	default:
		state, took = "done", s.Ended.Sub(s.Began)
	}
	fields := []resp.Field{{Name: "state", Value: state}}
	number := func(name string, n int64) {
		fields = append(fields, resp.Field{Name: name, Value: strconv.FormatInt(n, 10)})
	}
	number("first_slot", int64(s.First))
	number("last_slot", int64(s.Last))
	number("took_ms", took.Milliseconds())
	number("peers", int64(s.Peers))
	number("peers_done", int64(s.Done))
	number("peers_failed", int64(s.Failed))
	number("partitions_compared", int64(s.Tally.Partitions))
	number("partitions_differing", int64(s.Tally.Differing))
	number("rows_pulled", s.Tally.Pulled)
	number("rows_pushed", s.Tally.Pushed)
	number("bytes_moved", s.Tally.PulledSize+s.Tally.PushedSize)
	if s.Err != nil {
		fields = append(fields, resp.Field{Name: "last_error", Value: s.Err.Error()})
	}
	return fields
}

// buildExchange makes both sides of anti-entropy.
func (n *Node) buildExchange(context.Context) (err error) {
	src := ownRows{Replica: n.replica, durable: n.durableRows()}
	n.responder = antientropy.NewResponder(src)
	n.exchange, err = antientropy.New(antientropy.Config{
		Interval: n.cfg.ExchangeInterval, Pace: n.paceExchange, Now: n.cfg.Now, Rand: n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set,
	}, exchangeCluster{cluster{n}}, src)
	return err
}

var (
	_ antientropy.Source = ownRows{}
	_ antientropy.Peer   = exchangePeer{}
)
