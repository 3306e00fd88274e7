package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// transfers are this node's part in a change of the ring: it hands partitions over to
// their new owners, and drops those that it has given up. Exchanges do the moving: a
// new owner and the old ones are owners in some live ring, and what a session that
// began after the grant has compared is with both of its sides.
type transfers struct {
	sent     atomic.Pointer[epoch.ID] // the target for which all was handed over
	dropping atomic.Bool              // rows of partitions given up may be there still
	rest     atomic.Pointer[rest]     // the settled view that was seen last
	mu       struct {
		sync.Mutex
		fenced []bool // by partition; nil until the first settled view
		full   []int  // of those, the ones that may have rows still
	}
	progress atomic.Pointer[Handover]
}

// rest is a ring that does not change.
type rest struct {
	number uint64 // of the view
	since  time.Time
}

// atRest reports whether the ring has been the same, and none beside it, since then.
func (n *Node) atRest(since time.Time) bool {
	v, r := n.members.View().Epoch, n.moves.rest.Load()
	return v != nil && v.Settled && r != nil && r.number == v.Number && r.since.Before(since)
}

// Handover is how far a node is with handing over.
type Handover struct {
	Began time.Time
	Moves int // pairs of a partition and a node that is to get it
	Done  int // of those
	Hints int // partitions that move for which hints are kept still
}

const (
	// transferPause is the pause between two looks at what is to be handed over.
	transferPause = 100 * time.Millisecond
	// dropPause is the pause after a drop has failed.
	dropPause = time.Second
)

// inTransition is what membership asks: how far this node is in a transition. What runs is
// looked at first: a drop that then does not run does not begin before the node has
// seen the new target.
func (n *Node) inTransition() epoch.Local {
	l := epoch.Local{Drained: n.rings.drained(n.members)}
	l.Dropping = n.moves.dropping.Load()
	if id := n.moves.sent.Load(); id != nil {
		l.Sent = *id
	}
	return l
}

// transferTask hands over and drops until ctx ends.
func (n *Node) transferTask(ctx context.Context) error {
	var grant epoch.ID
	var began time.Time
	for {
		view, changed := n.members.Changes()
		var pause <-chan time.Time
		switch v := view.Epoch; {
		case v == nil:
		case n.moves.dropping.Load():
			if err := n.drop(ctx); err != nil && ctx.Err() == nil {
				n.cfg.Logger.Warn("rows of partitions that moved away are not dropped yet", "err", err)
				pause = time.After(dropPause)
			}
			pause = cmp.Or(pause, time.After(0))
		case v.Transfer.Target != (epoch.ID{}):
			if v.Transfer.Target != grant {
				grant, began = v.Transfer.Target, time.Now()
			}
			if done := n.handOver(v, began); done {
				sent := grant // of its own: grant is the next one's soon
				n.moves.sent.Store(&sent)
				n.members.Nudge()
			} else {
				pause = time.After(transferPause)
			}
		case v.Settled:
			grant = epoch.ID{}
			n.moves.progress.Store(nil)
			if r := n.moves.rest.Load(); r == nil || r.number != v.Number {
				n.moves.rest.Store(&rest{v.Number, time.Now()})
				n.beginDrop(v)
				pause = time.After(0)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-pause:
		}
	}
}

// handOver reports whether all that the grant asks for is done, and has what is not
// done soon.
func (n *Node) handOver(v *epoch.View, began time.Time) bool {
	p := Handover{Began: began}
	var to []ring.NodeID
	late := map[ring.NodeID]bool{}
	for part := range v.Read().Units() {
		to = v.Recipients(to[:0], part, n.id.node)
		if !v.Holds(part) {
			to = to[:0]
		}
		for _, id := range to {
			p.Moves++
			if session, met := n.exchange.Session(part, id); met && session.After(began) {
				p.Done++
			} else {
				late[id] = true
			}
		}
		if moves(v, part) {
			first, last := v.Read().SlotsOf(part)
			if kept, err := n.replica.Hinted(first, last, 0); kept || err != nil {
				p.Hints++
			}
		}
	}
	for id := range late {
		n.exchange.Hurry(id)
	}
	if p.Hints > 0 {
		n.hints.sender.Wake()
	}
	n.moves.progress.Store(&p)
	return p.Done == p.Moves && p.Hints == 0
}

// moves reports whether some owner of a partition changes.
func moves(v *epoch.View, part int) bool {
	from, to := v.Read().Owners(part), v.Target().Owners(part)
	return len(from) != len(to) || slices.ContainsFunc(to, func(id ring.NodeID) bool { return !slices.Contains(from, id) })
}

// turned is told of each view before requests go by it: partitions that this node
// owns from now on are opened. It has nothing of them left: no target is acked, and
// so no view with another target takes effect here, while a drop runs.
func (n *Node) turned(v *epoch.View) {
	n.moves.mu.Lock()
	defer n.moves.mu.Unlock()
	if n.moves.dropping.Load() {
		return
	}
	n.openLocked(v)
}

func (n *Node) openLocked(v *epoch.View) {
	for part, fenced := range n.moves.mu.fenced {
		if fenced && v.Holds(part) {
			n.replica.Fence(part, false)
			n.moves.mu.fenced[part] = false
		}
	}
}

// beginDrop fences the partitions that this node gave up. From then on until all their
// rows are gone this node acknowledges no other ring.
func (n *Node) beginDrop(v *epoch.View) {
	n.moves.dropping.Store(true)
	// Whoever changes the ring from here on waits for the drop.
	if now := n.members.View().Epoch; now.Number == v.Number && now.Settled {
		n.fence(v)
	}
}

// fence fences what v does not hold.
func (n *Node) fence(v *epoch.View) {
	n.moves.mu.Lock()
	defer n.moves.mu.Unlock()
	if n.moves.mu.fenced == nil {
		n.moves.mu.fenced = make([]bool, v.Read().Units())
	}
	for part := range n.moves.mu.fenced {
		if !v.Holds(part) && !n.moves.mu.fenced[part] {
			n.replica.Fence(part, true)
			n.moves.mu.fenced[part] = true
			n.moves.mu.full = append(n.moves.mu.full, part)
		}
	}
}

// drop drops what was fenced, whatever happens to the ring meanwhile, and opens what
// is this node's again.
func (n *Node) drop(ctx context.Context) error {
	n.moves.mu.Lock()
	full := n.moves.mu.full
	n.moves.mu.Unlock()
	rows := 0
	if len(full) > 0 {
		var err error
		if rows, err = n.replica.Drop(ctx, full...); err != nil {
			return err
		}
	}
	if rows > 0 {
		n.cfg.Logger.Info("rows of partitions that moved away were dropped", "rows", rows)
	}
	n.moves.mu.Lock()
	n.moves.mu.full = nil
	n.moves.dropping.Store(false)
	n.openLocked(n.members.View().Epoch)
	n.moves.mu.Unlock()
	n.members.Nudge()
	return nil
}
