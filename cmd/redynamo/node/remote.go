package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// remotePeer makes the node-to-node protocol look like a coordinator's Peer.
type remotePeer struct{ p *rpc.Peer }

func options(deadline time.Time, class coordinator.Class, s coordinator.Stamp) rpc.Options {
	return rpc.Options{Deadline: deadline, Class: classes[class], Epochs: rpc.Epochs(s)}
}

var classes = [...]rpc.Class{
	coordinator.ClassForeground: rpc.Foreground,
	coordinator.ClassRepair:     rpc.Repair,
	coordinator.ClassBackground: rpc.Background,
}

func (r remotePeer) Read(req coordinator.ReadRequest, done func(coordinator.ReadReply, error)) {
	m := rpc.ReadRequest{Key: req.Key, For: req.For, Have: req.Have, HaveAny: req.HaveAny, DigestOnly: req.DigestOnly}
	r.p.Read(m, options(req.Deadline, req.Class, req.Stamp), func(m rpc.ReadReply, err error) {
		if err != nil {
			done(coordinator.ReadReply{}, fromWire(err))
			return
		}
		reply := coordinator.ReadReply{Same: m.Same, Recovering: m.Recovering, Hash: m.Hash}
		if len(m.Record) > 0 {
			if reply.Record, err = version.DecodeRecord(m.Record); err != nil {
				done(coordinator.ReadReply{}, err)
				return
			}
		}
		done(reply, nil)
	})
}

// Merge asks a node twice that is behind, once it has been handed what this one holds. Who
// may be read from by a ring has heard of it, so what reads is refused for good.
func (r remotePeer) Merge(req coordinator.MergeRequest, done func(error)) {
	r.merge(req, func(refused error) {
		if !errors.Is(refused, rpc.ErrBehind) {
			done(fromWire(refused))
			return
		}
		r.p.HandOver(req.Deadline, func(err error) {
			if err != nil {
				done(fromWire(refused))
				return
			}
			r.merge(req, func(err error) { done(fromWire(err)) })
		})
	})
}

func (r remotePeer) merge(req coordinator.MergeRequest, done func(error)) {
	m := rpc.MergeRequest{Key: req.Key, For: req.For, Durable: req.Durable, Optional: req.Optional, Record: req.Record}
	if req.Synced {
		r.p.Settle(m, options(req.Deadline, req.Class, req.Stamp), done)
		return
	}
	r.p.Merge(m, options(req.Deadline, req.Class, req.Stamp), done)
}

func (r remotePeer) Write(req coordinator.ForwardRequest, done func(coordinator.WriteResult, error)) {
	m := rpc.WriteRequest{Key: req.Key, Op: version.AppendOp(nil, req.Op), R: uint8(req.R), W: uint8(req.W)}
	// Whoever coordinates it goes by its own rings.
	r.p.Write(m, options(req.Deadline, coordinator.ClassForeground, coordinator.Stamp{}), func(m rpc.WriteReply, err error) {
		if err != nil {
			done(coordinator.WriteResult{}, fromWire(err))
			return
		}
		out, err := version.DecodeOutcome(m.Outcome)
		if err != nil {
			// The write was made; only its answer is unreadable.
			err = fmt.Errorf("%w: %w", coordinator.ErrLost, err)
		}
		done(coordinator.WriteResult{Outcome: out}, err)
	})
}

func (r remotePeer) Prove(done func(error)) {
	r.p.Prove(func(err error) { done(fromWire(err)) })
}

func (r remotePeer) Scan(req coordinator.ScanRange, done func(coordinator.ScanReply, error)) {
	m := rpc.ScanRequest{FromSlot: req.FromSlot, FromHash: req.FromHash, ToSlot: req.ToSlot, Limit: uint32(req.Limit)}
	r.p.Scan(m, options(req.Deadline, coordinator.ClassForeground, req.Stamp), func(m rpc.ScanReply, err error) {
		if err != nil {
			done(coordinator.ScanReply{}, fromWire(err))
			return
		}
		reply := coordinator.ScanReply{NextSlot: m.NextSlot, NextHash: m.NextHash, Done: m.Done}
		reply.Entries = make([]coordinator.ScanEntry, len(m.Entries))
		for i, e := range m.Entries {
			reply.Entries[i] = coordinator.ScanEntry{Slot: e.Slot, KeyHash: e.KeyHash, Key: e.Key, StateHash: e.StateHash, Live: e.Live}
		}
		done(reply, nil)
	})
}

func (r remotePeer) Count(req coordinator.CountRequest, done func(int64, error)) {
	ranges := make([]rpc.SlotRange, len(req.Ranges))
	for i, s := range req.Ranges {
		ranges[i] = rpc.SlotRange{First: s.First, Last: s.Last}
	}
	r.p.Count(rpc.CountRequest{Ranges: ranges}, options(req.Deadline, coordinator.ClassForeground, req.Stamp), func(m rpc.CountReply, err error) {
		done(m.Keys, fromWire(err))
	})
}

func (r remotePeer) Inspect(req coordinator.InspectRequest, done func([]coordinator.Inspection, error)) {
	r.p.Inspect(rpc.InspectRequest{Key: req.Key}, options(req.Deadline, coordinator.ClassForeground, req.Stamp), func(m rpc.InspectReply, err error) {
		if err != nil {
			done(nil, fromWire(err))
			return
		}
		var rows []coordinator.Inspection
		for _, e := range m.Entries {
			rec, err := version.DecodeRecord(e.Record)
			if err != nil {
				done(nil, err)
				return
			}
			rows = append(rows, coordinator.Inspection{For: e.For, Hash: rec.StateHash(), Record: rec, Note: string(e.Note)})
		}
		done(rows, nil)
	})
}

func (r remotePeer) Latency() time.Duration { return r.p.P95() }

// wireErrors pairs what a room below answers with its word on the wire, and
// with what that word means to a coordinator that hears it.
var wireErrors = []struct{ local, wire, heard error }{
	{coordinator.ErrOverloaded, rpc.ErrOverloaded, coordinator.ErrOverloaded},
	{coordinator.ErrDiskFull, rpc.ErrDiskFull, coordinator.ErrDiskFull},
	{storage.ErrBusy, rpc.ErrOverloaded, coordinator.ErrOverloaded},
	{coordinator.ErrNoReplicas, rpc.ErrNoReplicas, coordinator.ErrNoReplicas},
	{coordinator.ErrNoReadQuorum, rpc.ErrNoReplicas, coordinator.ErrNoReplicas},
	{coordinator.ErrTimeout, rpc.ErrNoReplicas, coordinator.ErrNoReplicas},
	{coordinator.ErrNotOwner, rpc.ErrNotOwner, coordinator.ErrNotOwner},
	{replica.ErrFenced, rpc.ErrNotOwner, coordinator.ErrNotOwner},
	{coordinator.ErrStale, rpc.ErrStale, coordinator.ErrStale},
	{coordinator.ErrStaleEpoch, rpc.ErrStaleEpoch, coordinator.ErrStaleEpoch},
	{coordinator.ErrHintBudget, rpc.ErrHintBudget, coordinator.ErrHintBudget},
	{version.ErrTooManySiblings, rpc.ErrTooManySiblings, version.ErrTooManySiblings},
	{version.ErrTooLarge, rpc.ErrTooLarge, version.ErrTooLarge},
	{version.ErrNotInteger, rpc.ErrNotInteger, version.ErrNotInteger},
	{version.ErrNotFloat, rpc.ErrNotFloat, version.ErrNotFloat},
	{version.ErrOverflow, rpc.ErrOverflow, version.ErrOverflow},
	{version.ErrNotFinite, rpc.ErrNotFinite, version.ErrNotFinite},
	{version.ErrCorrupt, rpc.ErrCorrupt, version.ErrCorrupt},
	{coordinator.ErrUnreachable, rpc.ErrUnreachable, coordinator.ErrUnreachable},
	{coordinator.ErrLost, rpc.ErrTimeout, coordinator.ErrLost},
	{coordinator.ErrLost, rpc.ErrClosed, coordinator.ErrLost},
	{coordinator.ErrNotOwner, rpc.ErrLoading, coordinator.ErrNotOwner},
	{replica.ErrFenced, rpc.ErrLoading, coordinator.ErrNotOwner},
}

// fromWire turns an error of the protocol into the coordinator's word for it.
func fromWire(err error) error {
	if err == nil {
		return nil
	}
	var u *rpc.UncertainError
	if errors.As(err, &u) {
		return &coordinator.UncertainError{Acked: u.Acked, Want: u.Want}
	}
	for _, e := range wireErrors {
		if errors.Is(err, e.wire) {
			return e.heard
		}
	}
	return err
}

// toWire turns an error of this node into the protocol's word for it; what has
// none is an internal error to the other side.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	var u *coordinator.UncertainError
	if errors.As(err, &u) {
		return &rpc.UncertainError{Acked: u.Acked, Want: u.Want}
	}
	for _, e := range wireErrors {
		if errors.Is(err, e.local) {
			return e.wire
		}
	}
	return err
}

var _ coordinator.Peer = remotePeer{}
