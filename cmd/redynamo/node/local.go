package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/handoff"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// localPeer makes this node's replica look like any other node's. What the
// record cache cannot answer is done by the disk workers, since a caller may
// be a goroutine that reads a connection.
type localPeer struct {
	replica    *replica.Replica
	disk       *workers
	budget     *handoff.Budget
	recovering func() bool
	stale      func(from nodeID, e rpc.Epochs, read bool) bool
	fatal      func(error) // is told what must end the node
	why        func(key []byte) string
	merges     sync.Pool // *servedMerge
}

// asker is the node that a request comes from, and what it goes by; the zero asker is
// this node itself, whose requests are waited for before anything they rely on is gone.
type asker struct {
	node   nodeID
	epochs rpc.Epochs
	read   bool // it asks for rows, and brings none
}

// later runs f on a disk worker. What was not stale when it came may be when its turn
// comes.
func (l *localPeer) later(who asker, deadline time.Time, f func(error)) {
	l.disk.later(deadline, func(err error) {
		if err == nil && who.node != 0 && l.stale(who.node, who.epochs, who.read) {
			err = coordinator.ErrStaleEpoch
		}
		f(err)
	})
}

func (l *localPeer) Read(req coordinator.ReadRequest, done func(coordinator.ReadReply, error)) {
	if r, ok := l.tryRead(req); ok {
		done(r, nil)
		return
	}
	l.readLater(req, asker{}, done)
}

// tryRead reads what takes no disk.
func (l *localPeer) tryRead(req coordinator.ReadRequest) (coordinator.ReadReply, bool) {
	if req.For != 0 {
		return coordinator.ReadReply{}, false
	}
	rec, hash, ok := l.replica.TryRead(req.Key, 0)
	if !ok {
		return coordinator.ReadReply{}, false
	}
	return l.reply(req, rec, hash), true
}

// readLater reads on a disk worker.
func (l *localPeer) readLater(req coordinator.ReadRequest, who asker, done func(coordinator.ReadReply, error)) {
	l.later(who, req.Deadline, func(err error) {
		if err != nil {
			done(coordinator.ReadReply{}, err)
			return
		}
		rec, hash, err := l.read(req)
		if err != nil {
			done(coordinator.ReadReply{}, l.judge(err))
			return
		}
		done(l.reply(req, rec, hash), nil)
	})
}

// read reads the own copy of a key, or as a fallback all that there is.
func (l *localPeer) read(req coordinator.ReadRequest) (rec version.Record, hash uint64, err error) {
	if req.For != 0 {
		return l.replica.Joined(req.Key, req.For)
	}
	rec, hash, _, err = l.replica.Read(req.Key, 0)
	return rec, hash, err
}

func (l *localPeer) reply(req coordinator.ReadRequest, rec version.Record, hash uint64) coordinator.ReadReply {
	if l.recovering() {
		return coordinator.ReadReply{Recovering: true, Hash: hash, Record: rec}
	}
	if req.HaveAny && req.Have == hash {
		return coordinator.ReadReply{Same: true, Hash: hash}
	}
	if req.DigestOnly {
		return coordinator.ReadReply{Hash: hash}
	}
	return coordinator.ReadReply{Hash: hash, Record: rec}
}

// Merge is for this node's own requests: one that was held up comes too late here
// as it does elsewhere.
func (l *localPeer) Merge(req coordinator.MergeRequest, done func(error)) {
	if !req.Deadline.IsZero() && !time.Now().Before(req.Deadline) {
		done(coordinator.ErrUnreachable)
		return
	}
	l.merge(req, asker{}, func(err error) { done(l.judge(err)) })
}

// merge joins a record that came in time, and answers errors that nobody has judged.
func (l *localPeer) merge(req coordinator.MergeRequest, who asker, done func(error)) {
	if req.Synced {
		merged := done
		done = func(err error) {
			if err != nil {
				merged(err)
				return
			}
			l.replica.Sync(merged)
		}
	}
	if req.For != 0 && l.budget.Admit(req.For, len(req.Key)+len(req.Record), req.Optional) != nil {
		done(coordinator.ErrHintBudget)
		return
	}
	if l.replica.TryMerge(req.Deadline, req.Key, req.For, req.Record, req.Durable, done) {
		return
	}
	l.later(who, req.Deadline, func(err error) {
		if err != nil {
			done(err)
			return
		}
		l.replica.MergeBefore(req.Deadline, req.Key, req.For, req.Record, req.Durable, done)
	})
}

// Mutate is coordinator.Local.
func (l *localPeer) Mutate(key []byte, owner ring.NodeID, base version.Record, op version.Op, deadline time.Time, durable bool, done func(error)) ([]byte, version.Outcome, error) {
	if owner != 0 {
		// A hint that is minted here is needed: it counts as kept, whatever the budget.
		_ = l.budget.Admit(owner, len(key)+len(op.Value), false) // never refuses what is needed
	}
	enc, out, err := l.replica.MutateBefore(deadline, key, owner, base, op, durable, done)
	return enc, out, l.judge(err)
}

// judge looks at an error of the replica. A dot that somebody else has minted in
// the name of this very process ends the node: two processes run with one memory,
// as after a machine was cloned, and each would overwrite what the other
// acknowledged.
func (l *localPeer) judge(err error) error {
	switch {
	case errors.Is(err, version.ErrDotReused):
		l.fatal(fmt.Errorf("another process mints versions in the name of this one, as a clone of the machine would: %w", err))
	case errors.Is(err, replica.ErrLate):
		return coordinator.ErrLost
	case errors.Is(err, replica.ErrFenced):
		return coordinator.ErrNotOwner
	case errors.Is(err, storage.ErrDiskFull):
		return fmt.Errorf("%w: %w", coordinator.ErrDiskFull, err)
	}
	return err
}

func (l *localPeer) Scan(req coordinator.ScanRange, done func(coordinator.ScanReply, error)) {
	l.scan(req, asker{}, done)
}

func (l *localPeer) scan(req coordinator.ScanRange, who asker, done func(coordinator.ScanReply, error)) {
	l.later(who, req.Deadline, func(err error) {
		if err != nil {
			done(coordinator.ScanReply{}, err)
			return
		}
		if l.recovering() {
			done(coordinator.ScanReply{}, errRecovering)
			return
		}
		page, err := l.replica.Scan(req.FromSlot, req.FromHash, req.ToSlot, req.Limit)
		reply := coordinator.ScanReply{NextSlot: page.NextSlot, NextHash: page.NextHash, Done: page.Done}
		for _, e := range page.Entries {
			reply.Entries = append(reply.Entries, coordinator.ScanEntry{Slot: e.Slot, KeyHash: e.KeyHash, Key: e.Key, StateHash: e.StateHash, Live: e.Live})
		}
		done(reply, err)
	})
}

func (l *localPeer) Count(req coordinator.CountRequest, done func(int64, error)) {
	l.count(req, asker{}, done)
}

func (l *localPeer) count(req coordinator.CountRequest, who asker, done func(int64, error)) {
	l.later(who, req.Deadline, func(err error) {
		if err != nil {
			done(0, err)
			return
		}
		if l.recovering() {
			done(0, errRecovering)
			return
		}
		var sum int64
		for _, s := range req.Ranges {
			n, err := l.replica.Count(s.First, s.Last)
			if err != nil {
				done(0, err)
				return
			}
			sum += n
		}
		done(sum, nil)
	})
}

func (l *localPeer) Inspect(req coordinator.InspectRequest, done func([]coordinator.Inspection, error)) {
	l.inspect(req, asker{}, done)
}

func (l *localPeer) inspect(req coordinator.InspectRequest, who asker, done func([]coordinator.Inspection, error)) {
	l.later(who, req.Deadline, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		rows, err := l.replica.Rows(req.Key)
		var out []coordinator.Inspection
		for _, r := range rows {
			in := coordinator.Inspection{For: r.For, Hash: r.Record.StateHash(), Record: r.Record}
			if r.For == 0 {
				in.Note = l.why(req.Key)
			}
			out = append(out, in)
		}
		done(out, err)
	})
}

// Prove needs no proof.
func (l *localPeer) Prove(done func(error)) { done(nil) }

// Write is never asked of the local node: the coordinator that would hand a
// write to itself coordinates it.
func (l *localPeer) Write(_ coordinator.ForwardRequest, done func(coordinator.WriteResult, error)) {
	done(coordinator.WriteResult{}, fmt.Errorf("%w: a write handed to oneself", coordinator.ErrNotOwner))
}

// Latency is that of memory: the local copy is always the first to ask.
func (l *localPeer) Latency() time.Duration { return 0 }

var _ coordinator.Peer = (*localPeer)(nil)

// cluster is what the coordinator knows of the other nodes.
type cluster struct{ n *Node }

func (c cluster) Live() *ring.Live { return c.n.members.View().Live }

// Rings is coordinator.Cluster.
func (c cluster) Rings() *coordinator.Rings { return c.n.rings.of(c.n.members) }

func (c cluster) Self() ring.NodeID { return c.n.id.node }

func (c cluster) Up(id ring.NodeID) bool { return id == c.n.id.node || c.n.pool.Up(id) }

func (c cluster) Peer(id ring.NodeID) coordinator.Peer {
	if id == c.n.id.node {
		return c.n.local
	}
	if p := c.n.pool.Get(id); p != nil {
		return remotePeer{p}
	}
	return nil
}

var _ coordinator.Cluster = cluster{}
