package node

import (
	"errors"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/version"
)

// handler serves what other nodes ask of this one. Its methods run on the
// goroutines that read connections and never wait: the local peer hands to the
// disk workers what memory cannot answer.
type handler struct{ n *Node }

// reader and writer say who asks for rows, and who brings some.
func reader(meta rpc.Meta) asker { return asker{node: meta.From, epochs: meta.Epochs, read: true} }
func writer(meta rpc.Meta) asker { return asker{node: meta.From, epochs: meta.Epochs} }

func (h handler) ServeRead(m rpc.ReadRequest, meta rpc.Meta, reply func(rpc.ReadReply, error)) {
	req := coordinator.ReadRequest{Key: m.Key, For: m.For, Have: m.Have, HaveAny: m.HaveAny, DigestOnly: m.DigestOnly, Deadline: meta.Deadline}
	began := h.began(meta)
	if r, ok := h.n.local.tryRead(req); ok {
		h.ended(began)
		reply(readReply(m, r), nil)
		return
	}
	h.n.local.readLater(req, reader(meta), func(r coordinator.ReadReply, err error) {
		h.ended(began)
		if err != nil {
			reply(rpc.ReadReply{}, h.n.refusal(meta, toWire(err)))
			return
		}
		reply(readReply(m, r), nil)
	})
}

// readReply is what travels of a reply.
func readReply(m rpc.ReadRequest, r coordinator.ReadReply) rpc.ReadReply {
	out := rpc.ReadReply{Same: r.Same, Recovering: r.Recovering, Hash: r.Hash}
	if !r.Same && (r.Recovering || !m.DigestOnly) && !r.Record.Absent() {
		out.Record = version.EncodeWire(nil, r.Record)
	}
	return out
}

func (h handler) ServeMerge(m rpc.MergeRequest, meta rpc.Meta, reply func(error)) {
	h.serveMerge(m, false, meta, reply)
}

// ServeSettle is a merge that is answered when it is synced.
func (h handler) ServeSettle(m rpc.MergeRequest, meta rpc.Meta, reply func(error)) {
	h.serveMerge(m, true, meta, reply)
}

func (h handler) serveMerge(m rpc.MergeRequest, synced bool, meta rpc.Meta, reply func(error)) {
	s, ok := h.n.local.merges.Get().(*servedMerge)
	if !ok {
		s = &servedMerge{h: h}
		s.done = s.end
	}
	s.reply, s.began, s.meta, s.again = reply, h.began(meta), meta, false
	s.req = coordinator.MergeRequest{
		Key: m.Key, For: m.For, Record: m.Record, Durable: m.Durable, Synced: synced, Optional: m.Optional, Deadline: meta.Deadline,
	}
	h.n.local.merge(s.req, writer(meta), s.done)
}

// servedMerge is a merge that another node waits for. Most of what nodes say to
// each other are merges, so they are used again.
type servedMerge struct {
	h     handler
	req   coordinator.MergeRequest
	meta  rpc.Meta
	again bool // it was refused, and the partition has been opened since
	reply func(error)
	began time.Time
	done  func(error) // end, made once
}

// end answers, and gives s back. It is called once for each merge.
func (s *servedMerge) end(err error) {
	h, reply, behind := s.h, s.reply, false
	if errors.Is(err, replica.ErrFenced) {
		behind = h.n.behind(s.meta.Epochs) // before the look at the fence: the ring may come between them
		if !s.again && h.n.opened(s.req.Key) {
			s.again = true
			h.n.local.merge(s.req, writer(s.meta), s.done)
			return
		}
	}
	h.ended(s.began)
	s.reply, s.req = nil, coordinator.MergeRequest{}
	h.n.local.merges.Put(s)
	if err = toWire(h.n.local.judge(err)); behind {
		err = rpc.Behind(err)
	}
	reply(err)
}

// opened reports whether the partition of a key is open, by the newest view.
func (n *Node) opened(key []byte) bool {
	v := n.rings.turn(n.members)
	return v != nil && !n.replica.Fenced(v.view.Read().Partition(ring.SlotOf(key)))
}

func (h handler) ServeWrite(m rpc.WriteRequest, meta rpc.Meta, reply func(rpc.WriteReply, error)) {
	op, err := version.DecodeOp(m.Op)
	if err != nil {
		reply(rpc.WriteReply{}, rpc.ErrUnsupported)
		return
	}
	// A new owner is handed writes as soon as others read by it, which is before the
	// ring is at rest and this node opens its doors. But like the doors it waits for a
	// word of another: the ring that it remembers may be over, and be of itself alone.
	if cluster(h).Rings() == nil || !h.n.members.View().Met {
		reply(rpc.WriteReply{}, rpc.ErrLoading)
		return
	}
	o := coordinator.WriteOptions{R: int(m.R), W: int(m.W)}
	if !meta.Deadline.IsZero() {
		o.Timeout = max(time.Until(meta.Deadline), time.Millisecond)
	}
	serve := func(err error) {
		if err != nil {
			reply(rpc.WriteReply{}, toWire(err))
			return
		}
		h.n.coord.ServeForwarded(m.Key, op, o, func(r coordinator.WriteResult, err error) {
			if err != nil {
				reply(rpc.WriteReply{}, toWire(err))
				return
			}
			reply(rpc.WriteReply{Outcome: version.AppendOutcome(nil, r.Outcome)}, nil)
		})
	}
	if h.n.replica.Cached(m.Key, 0) {
		serve(nil)
		return
	}
	h.n.disk.later(meta.Deadline, serve)
}

func (h handler) ServeScan(m rpc.ScanRequest, meta rpc.Meta, reply func(rpc.ScanReply, error)) {
	req := coordinator.ScanRange{FromSlot: m.FromSlot, FromHash: m.FromHash, ToSlot: m.ToSlot, Limit: int(m.Limit), Deadline: meta.Deadline}
	h.n.local.scan(req, reader(meta), func(r coordinator.ScanReply, err error) {
		out := rpc.ScanReply{NextSlot: r.NextSlot, NextHash: r.NextHash, Done: r.Done}
		for _, e := range r.Entries {
			out.Entries = append(out.Entries, rpc.ScanEntry{Slot: e.Slot, KeyHash: e.KeyHash, Key: e.Key, StateHash: e.StateHash, Live: e.Live})
		}
		reply(out, h.n.refusal(meta, toWire(err)))
	})
}

func (h handler) ServeCount(m rpc.CountRequest, meta rpc.Meta, reply func(rpc.CountReply, error)) {
	req := coordinator.CountRequest{Deadline: meta.Deadline}
	for _, r := range m.Ranges {
		req.Ranges = append(req.Ranges, coordinator.SlotRange{First: r.First, Last: r.Last})
	}
	h.n.local.count(req, reader(meta), func(n int64, err error) { reply(rpc.CountReply{Keys: n}, h.n.refusal(meta, toWire(err))) })
}

// ServeStatus tells who answers here: a node that starts asks whether another
// process runs as it.
func (h handler) ServeStatus(_ rpc.StatusRequest, _ rpc.Meta, reply func(rpc.StatusReply, error)) {
	v := h.n.members.View()
	out := rpc.StatusReply{Ready: v.Ready, Boot: uint64(h.n.actor)}
	if v.Ring != nil {
		out.Epoch, out.Members = v.Ring.Epoch(), uint32(len(v.Ring.Members()))
	}
	reply(out, nil)
}

func (h handler) ServeInspect(m rpc.InspectRequest, meta rpc.Meta, reply func(rpc.InspectReply, error)) {
	h.n.local.inspect(coordinator.InspectRequest{Key: m.Key, Deadline: meta.Deadline}, reader(meta), func(rows []coordinator.Inspection, err error) {
		var out rpc.InspectReply
		for _, r := range rows {
			out.Entries = append(out.Entries, rpc.InspectEntry{For: r.For, Record: version.EncodeWire(nil, r.Record), Note: []byte(r.Note)})
		}
		reply(out, h.n.refusal(meta, toWire(err)))
	})
}

// ServeSync does what a merge into a row on disk would: wait for a disk worker,
// then for the log. It writes no row.
func (h handler) ServeSync(_ rpc.SyncRequest, meta rpc.Meta, reply func(error)) {
	h.n.disk.later(meta.Deadline, func(err error) {
		if err == nil {
			_, err = h.n.store.Enqueue(nil, true, func(err error) { reply(toWire(err)) })
		}
		if err != nil {
			reply(toWire(err))
		}
	})
}

var _ rpc.Handler = handler{}
