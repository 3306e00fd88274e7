package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/resp"
)

// Bounds of the plans that a node keeps: the oldest goes when another comes, and
// none outlives the memory of whoever made it.
const (
	plansKept = 32
	planAge   = time.Hour
)

// addWeight is the weight of a node that is added without one and does not say which it
// was started with, as none does below level 2: that of a server without the flag.
const addWeight = 100

// applyTimeout bounds what a node waits for its disk when records are to be saved.
const applyTimeout = 10 * time.Second

// errMyself says that a node was asked to forget itself.
var errMyself = errors.New("a node cannot forget itself, ask another one")

// ringAdmin changes the ring at this node: it is what the doors need for the RING
// commands. Its rules are those of package ring (what records an edit makes) and
// epoch (what becomes of them); here is what an administrator must be told first.
type ringAdmin struct {
	self     nodeID
	view     func() *membership.View
	apply    func(context.Context, []ring.Record) error
	finalise func(context.Context) (bool, error)
	up       func(nodeID) bool
	sizes    func(*ring.Ring) sizes
	moves    mover
	now      func() time.Time
	rand     func() uint64

	mu struct {
		sync.Mutex
		plans []keptPlan // the oldest first
	}
}

// mover is what hands partitions to other nodes.
type mover interface {
	// Transfers are those of the change under way that this node takes part in.
	Transfers() []resp.RingTransfer
	// Pace is about how many bytes one node takes in each second; 0 is unknown.
	Pace() float64
}

// keptPlan is a plan that may still be applied.
type keptPlan struct {
	id      string
	made    time.Time
	history []ring.Record // that it was made for
	change  []ring.Record
}

// newRingAdmin joins the administration of the ring to the parts of n.
func newRingAdmin(n *Node, m mover) *ringAdmin {
	return &ringAdmin{
		self: n.id.node, view: n.members.View, apply: n.members.Apply, finalise: n.members.Finalise, up: cluster{n}.Up,
		sizes: n.partitionSizes, moves: m, now: n.cfg.Now, rand: n.cfg.Rand,
	}
}

// errNoRing says that there is nothing to change yet.
var errNoRing = errors.New("no cluster has been found or formed yet")

// Plan is resp.RingAdmin.
func (a *ringAdmin) Plan(asked []resp.RingEdit, force bool) (resp.RingPlan, error) {
	v := a.view()
	if v.Ring == nil {
		return resp.RingPlan{}, errNoRing
	}
	edits, err := resolveEdits(v, asked)
	if err != nil {
		return resp.RingPlan{}, err
	}
	change, err := ring.Amend(v.Records, edits, v.N, a.stamp(), force)
	if err != nil {
		return resp.RingPlan{}, err
	}
	records := ring.Reconcile(v.Records, change)
	to, err := ring.New(v.Params(), ring.Members(records))
	if err != nil {
		return resp.RingPlan{}, err
	}
	known := a.sizes(v.Ring)
	p := resp.RingPlan{ID: fmt.Sprintf("%012x", a.rand()>>16), Plan: ring.NewPlan(v.Ring, to, known.bytesOf)}
	p.Took = tookToMove(p.Plan, a.moves.Pace())
	risks := a.risks(v, edits, p.Plan)
	if len(risks) > 0 && !force {
		return resp.RingPlan{}, unsafe(risks)
	}
	p.Warnings = slices.Concat(risks, a.remarks(v, records, p.Plan, change, known))
	a.keep(keptPlan{id: p.ID, made: a.now(), history: v.Records, change: change})
	return p, nil
}

func (a *ringAdmin) stamp() ring.Stamp {
	return ring.Stamp{TimeMS: a.now().UnixMilli(), Admin: a.self}
}

// unsafe is the error that names risks.
func unsafe(risks []string) error {
	var errs []error
	for _, r := range risks {
		errs = append(errs, errors.New(r))
	}
	return fmt.Errorf("%w: %w", ring.ErrUnsafe, errors.Join(errs...))
}

// tookToMove is how long the node that gets most needs for it. All take in at
// once.
func tookToMove(p ring.Plan, pace float64) time.Duration {
	if pace <= 0 {
		return 0
	}
	most := int64(0)
	for _, n := range p.Nodes {
		most = max(most, n.BytesIn)
	}
	return max(time.Second, time.Duration(float64(most)/pace*float64(time.Second)))
}

// keep notes a plan for Apply.
func (a *ringAdmin) keep(p keptPlan) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expireLocked()
	if len(a.mu.plans) == plansKept {
		a.mu.plans = slices.Delete(a.mu.plans, 0, 1)
	}
	a.mu.plans = append(a.mu.plans, p)
}

func (a *ringAdmin) expireLocked() {
	a.mu.plans = slices.DeleteFunc(a.mu.plans, func(p keptPlan) bool { return a.now().Sub(p.made) > planAge })
}

func (a *ringAdmin) kept(id string) (keptPlan, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expireLocked()
	for _, p := range a.mu.plans {
		if p.id == id {
			return p, true
		}
	}
	return keptPlan{}, false
}

// Apply is resp.RingAdmin.
func (a *ringAdmin) Apply(id string) (already bool, err error) {
	p, found := a.kept(id)
	if !found {
		return false, resp.ErrNoPlan
	}
	records := a.view().Records
	if holdsAll(records, p.change) {
		return true, nil
	}
	if !slices.Equal(records, p.history) {
		return false, resp.ErrRingMoved
	}
	return false, a.commit(p.change)
}

// holdsAll reports whether a change is made already.
func holdsAll(records, change []ring.Record) bool {
	return !slices.ContainsFunc(change, func(r ring.Record) bool { return !slices.Contains(records, r) })
}

// commit makes a change this node's.
func (a *ringAdmin) commit(change []ring.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
	defer cancel()
	err := a.apply(ctx, change)
	if errors.Is(err, membership.ErrNotTaken) { // others were faster, since the records were looked at
		return resp.ErrRingMoved
	}
	return err
}

// Forget is resp.RingAdmin.
func (a *ringAdmin) Forget(name string, force bool) (already bool, err error) {
	v := a.view()
	if v.Ring == nil {
		return false, errNoRing
	}
	id, err := resolve(v, name, isMember)
	if err != nil {
		return false, err
	}
	if id == a.self {
		return false, errMyself
	}
	change, err := ring.Amend(v.Records, []ring.Edit{{Kind: ring.Forget, Node: id}}, v.N, a.stamp(), force)
	if err != nil {
		return false, err
	}
	if len(change) == 0 {
		return true, nil
	}
	if risks := a.risksOfForgetting(v, id); len(risks) > 0 && !force {
		return false, unsafe(risks)
	}
	return false, a.commit(change)
}

// risksOfForgetting is what may be lost with a node.
func (a *ringAdmin) risksOfForgetting(v *membership.View, id nodeID) (risks []string) {
	if a.up(id) {
		risks = append(risks, fmt.Sprintf("node %v answers: REMOVE lets it hand over what it has, and what only it holds is lost if it is forgotten", id))
	}
	for _, r := range v.Records {
		if r.Forgotten && r.ID != id && member(v.Ring, r.ID) {
			risks = append(risks, fmt.Sprintf("node %v was forgotten too, and what it held has not been copied yet: keys of which both held a copy may be lost", r.ID))
		}
	}
	for _, m := range v.Ring.Members() {
		if m.ID != id && !forgotten(v, m.ID) && !a.up(m.ID) {
			risks = append(risks, fmt.Sprintf("node %v is down too: keys of which both hold a copy cannot be copied before it is back", m.ID))
		}
	}
	return risks
}

func forgotten(v *membership.View, id nodeID) bool {
	return slices.ContainsFunc(v.Records, func(r ring.Record) bool { return r.ID == id && r.Forgotten })
}

// member reports whether a node is in a ring.
func member(r *ring.Ring, id nodeID) bool {
	return slices.ContainsFunc(r.Members(), func(m ring.Member) bool { return m.ID == id })
}

// risks are the reasons to refuse a plan that nobody forces.
func (a *ringAdmin) risks(v *membership.View, edits []ring.Edit, p ring.Plan) (risks []string) {
	moving := movingNodes(v)
	for _, e := range edits {
		for _, id := range []nodeID{e.Node, e.By} {
			if id != 0 && slices.Contains(moving, id) {
				risks = append(risks, fmt.Sprintf("the change under way moves node %v: wait for its end (RING TRANSFERS), or it is given up for this one", id))
			}
		}
		if leaves := e.Kind == ring.Remove || e.Kind == ring.Replace; leaves && !a.up(e.Node) {
			risks = append(risks, fmt.Sprintf("node %v is down: the change waits until it is back and has handed over what it has; RING FORGET gives that up", e.Node))
		}
	}
	for _, id := range crowded(p) {
		risks = append(risks, fmt.Sprintf("node %v is to hold more than twice its share, as replicas must be in different zones", id))
	}
	return risks
}

// crowded lists the nodes that a plan makes hold too much.
func crowded(p ring.Plan) (ids []nodeID) {
	before := ring.NewPlan(p.From, p.From, func(int) int64 { return 0 })
	for _, n := range p.Nodes {
		was := slices.ContainsFunc(before.Nodes, func(b ring.Shift) bool { return b.ID == n.ID && b.Crowded })
		if n.Crowded && !was {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// movingNodes are those whose place the change under way alters.
func movingNodes(v *membership.View) (ids []nodeID) {
	if v.Epoch == nil || v.Epoch.Settled {
		return nil
	}
	old, next := v.Ring.Members(), v.Epoch.Target().Members()
	for _, m := range slices.Concat(old, next) {
		if slices.Contains(old, m) != slices.Contains(next, m) && !slices.Contains(ids, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// remarks are what somebody should know before a plan is applied.
func (a *ringAdmin) remarks(v *membership.View, records []ring.Record, p ring.Plan, change []ring.Record, known sizes) (texts []string) {
	say := func(when bool, format string, args ...any) {
		if when {
			texts = append(texts, fmt.Sprintf(format, args...))
		}
	}
	say(len(change) == 0, "nothing is left to be done: it is so already")
	say(p.ZonesAfter < p.ZonesBefore, "keys survive the loss of fewer zones: %d instead of %d", p.ZonesAfter-1, p.ZonesBefore-1)
	say(v.Epoch != nil && !v.Epoch.Settled, "another change is under way: both end together")
	say(!known.any && len(p.Moves) > 0, "this node holds no data, so it cannot tell how much moves; a member can")
	for _, r := range records {
		waits := !r.Removed || slices.Contains(change, r) || member(v.Ring, r.ID)
		say(waits && !r.Forgotten && !a.up(r.ID), "node %v is down, and the change waits until it is back or forgotten", r.ID)
	}
	return texts
}

// sizes is what a node knows of how much lies in partitions.
type sizes struct {
	any   bool    // something is known
	each  []int64 // bytes of a partition, -1 if it is unknown
	usual int64   // for those
}

func (s sizes) bytesOf(partition int) int64 {
	if partition < len(s.each) && s.each[partition] >= 0 {
		return s.each[partition]
	}
	return s.usual
}

// sampleParts bounds how many partitions are looked into for the usual size of a
// row, and sampleRows how many rows of each.
const (
	sampleParts = 32
	sampleRows  = 8
)

// partitionSizes takes the keys of the partitions that this node owns from its
// counters, a few rows for their size, and the others to be like these.
func (n *Node) partitionSizes(r *ring.Ring) (s sizes) {
	s.each = make([]int64, r.Units())
	var filled []int // partitions with keys
	var owned, keys int64
	for p := range s.each {
		s.each[p] = -1
		if r.Owns(n.id.node, p) && !n.replica.Fenced(p) {
			first, last := r.SlotsOf(p)
			s.each[p] = n.replica.Tally(first, last)
			owned, keys = owned+1, keys+s.each[p]
			if s.each[p] > 0 {
				filled = append(filled, p)
			}
		}
	}
	if owned == 0 {
		return s
	}
	mean := n.rowSize(r, filled)
	for _, p := range filled {
		s.each[p] *= mean
	}
	s.any, s.usual = true, keys*mean/owned
	return s
}

// rowSize is about what a row takes on the way to another node.
func (n *Node) rowSize(r *ring.Ring, filled []int) int64 {
	var rows, bytes int64
	step := max(1, len(filled)/sampleParts)
	for i := 0; i < len(filled); i += step {
		first, last := r.SlotsOf(filled[i])
		count, size, err := n.replica.Sample(first, last, sampleRows)
		if err != nil {
			continue // what can be read is enough for a guess
		}
		rows, bytes = rows+int64(count), bytes+size
	}
	if rows == 0 {
		return 0
	}
	return bytes / rows
}

// resolveEdits finds the nodes that an administrator named.
func resolveEdits(v *membership.View, asked []resp.RingEdit) (edits []ring.Edit, err error) {
	var errs []error
	find := func(name string, fits func(*membership.View, nodeID) bool) nodeID {
		id, err := resolve(v, name, fits)
		if err != nil {
			errs = append(errs, err)
		}
		return id
	}
	added := map[nodeID]bool{}
	for _, q := range asked {
		e := ring.Edit{Kind: q.Kind, Weight: q.Weight, Zone: q.Zone}
		switch q.Kind {
		case ring.Add:
			e.Node = find(q.Node, isNewcomer)
			added[e.Node] = true
			info, _ := v.Node(e.Node)
			e.Weight, e.Zone = cmp.Or(info.Weight, addWeight), info.Zone
		case ring.Replace:
			e.Node, e.By = find(q.Node, isMember), find(q.By, isNewcomer)
		default: // of a member, or of one that this plan adds
			e.Node = find(q.Node, func(v *membership.View, id nodeID) bool { return added[id] || isMember(v, id) })
		}
		edits = append(edits, e)
	}
	return edits, errors.Join(errs...)
}

// isMember reports whether a node has a record: it is a member, or was one.
func isMember(v *membership.View, id nodeID) bool {
	return slices.ContainsFunc(v.Records, func(r ring.Record) bool { return r.ID == id })
}

// isNewcomer reports whether a node has been heard of and may become a member, or has
// a record, of which more can be said than that it is unknown.
func isNewcomer(v *membership.View, id nodeID) bool {
	info, _ := v.Node(id)
	return info.Alive || isMember(v, id)
}

// resolve finds the node with an id or the address of a plain door. An address
// may have been that of several; those that are down give way.
func resolve(v *membership.View, name string, fits func(*membership.View, nodeID) bool) (nodeID, error) {
	if id, err := ring.ParseNodeID(name); err == nil {
		if !fits(v, id) {
			return 0, fmt.Errorf("%w: %s", ring.ErrUnknownNode, name)
		}
		return id, nil
	}
	var all, alive []nodeID
	for id, info := range v.Nodes {
		if info.Endpoints.PlainAddr() != name || !fits(v, id) {
			continue
		}
		all = append(all, id)
		if info.Alive {
			alive = append(alive, id)
		}
	}
	if len(alive) == 1 {
		all = alive
	}
	switch slices.Sort(all); len(all) {
	case 0:
		return 0, fmt.Errorf("%w: %s; nodes are named by id or by the address of their plain door, as RING STATUS shows them", ring.ErrUnknownNode, name)
	case 1:
		return all[0], nil
	}
	return 0, fmt.Errorf("%s is the address of several nodes (%v): name one by its id", name, all)
}

var _ resp.RingAdmin = (*ringAdmin)(nil)
