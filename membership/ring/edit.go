package ring

import (
	"errors"
	"fmt"
	"slices"
)

// Errors of Amend, by what an administrator may do about them.
var (
	// ErrUnknownNode: no member, or no record at all, has the id.
	ErrUnknownNode = errors.New("ring: unknown node")
	// ErrMember: the node is a member already, or was and may not come back.
	ErrMember = errors.New("ring: the node cannot be added")
	// ErrUnsafe: the change would leave too little; it can be forced.
	ErrUnsafe = errors.New("ring: unsafe change")
)

// EditKind says what an Edit does.
type EditKind uint8

// The edits.
const (
	Add     EditKind = iota + 1 // Node becomes a member with Weight and Zone
	Remove                      // Node is to leave; what it holds goes to others first
	Replace                     // By takes the place of Node, with its weight and zone
	Reweigh                     // Node gets another Weight
	Rezone                      // Node gets another Zone
	Forget                      // Node is dead: nobody waits for it, and it may not come back
)

var editNames = [...]string{Add: "add", Remove: "remove", Replace: "replace", Reweigh: "weight", Rezone: "zone", Forget: "forget"}

// String is the word for the edit in commands.
func (k EditKind) String() string {
	if int(k) < len(editNames) && editNames[k] != "" {
		return editNames[k]
	}
	return fmt.Sprintf("edit %d", uint8(k))
}

// Edit is one change of the members, as an administrator asks for it.
type Edit struct {
	Kind   EditKind
	Node   NodeID
	By     NodeID // Replace: the newcomer
	Weight int    // Add, Reweigh
	Zone   string // Add, Rezone
}

// Stamp says who made a change, and when by their clock.
type Stamp struct {
	TimeMS int64
	Admin  NodeID
}

// Amend carries out edits, all or none, and returns the records that change, to
// be reconciled with the history they are based on. An edit that is done already
// changes nothing, so a repeated command is harmless. Two that are amended from
// one history on two sides of a split meet in the join of both.
//
// It refuses what would leave fewer than n members with data, unless force says
// that a human has looked. The errors of all edits are answered together.
func Amend(history []Record, edits []Edit, n int, by Stamp, force bool) ([]Record, error) {
	a := amendment{records: map[NodeID]Record{}, by: by}
	for _, r := range history {
		a.records[r.ID] = r
	}
	before := a.storage()
	var errs []error
	for _, e := range edits {
		if err := a.edit(e); err != nil {
			errs = append(errs, fmt.Errorf("%v %v: %w", e.Kind, e.Node, err))
		}
	}
	if after := a.storage(); after < n && after < before && !force {
		errs = append(errs, fmt.Errorf("%w: %d members with data would be left, every key has %d copies", ErrUnsafe, after, n))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.Sort(a.changed)
	var out []Record
	for _, id := range a.changed {
		out = append(out, a.records[id])
	}
	return out, nil
}

// amendment is a history under change.
type amendment struct {
	records map[NodeID]Record
	changed []NodeID
	by      Stamp
}

// storage counts the members that hold data.
func (a *amendment) storage() (n int) {
	for _, r := range a.records {
		if !r.Removed && r.Weight > 0 {
			n++
		}
	}
	return n
}

// put makes r the record of its node. Its counter goes up once, however many
// edits there are.
func (a *amendment) put(r Record) {
	if !slices.Contains(a.changed, r.ID) {
		a.changed = append(a.changed, r.ID)
		r.Counter = a.records[r.ID].Counter + 1
		r.TimeMS, r.Admin = a.by.TimeMS, a.by.Admin
	}
	a.records[r.ID] = r
}

func (a *amendment) edit(e Edit) error {
	switch e.Kind {
	case Add:
		return a.add(Member{ID: e.Node, Zone: e.Zone, Weight: e.Weight})
	case Remove:
		return a.remove(e.Node)
	case Replace:
		return a.replace(e.Node, e.By)
	case Forget:
		return a.forget(e.Node)
	case Reweigh, Rezone:
		r, ok := a.records[e.Node]
		if !ok || r.Removed {
			return ErrUnknownNode
		}
		m := r.Member
		if e.Kind == Reweigh {
			m.Weight = e.Weight
		} else {
			m.Zone = e.Zone
		}
		if err := validateMember(m); err != nil {
			return err
		}
		if m != r.Member {
			r.Member = m
			a.put(r)
		}
		return nil
	}
	return fmt.Errorf("%v is no change of the ring", e.Kind)
}

func (a *amendment) add(m Member) error {
	r, known := a.records[m.ID]
	switch {
	case known && r.Removed:
		return gone(r)
	case known:
		return nil
	}
	if err := validateMember(m); err != nil {
		return err
	}
	a.put(Record{Member: m})
	return nil
}

// gone is why a node that was removed is not taken back, not even while it leaves. Its
// disk may hold what others have since deleted and dropped every trace of, and from the
// moment at which they read without it nobody counts on what it says. Its directory must
// not be emptied too early: until it has left it may hold the only copies.
func gone(r Record) error {
	if r.Forgotten {
		return fmt.Errorf("%w: %v was forgotten as dead, and what it holds is of no more use; empty its data directory and start it with --join: it will be another node", ErrMember, r.ID)
	}
	return fmt.Errorf("%w: %v was removed, and a removal is not undone; let it hand over what it holds, and once its INFO shows warning_left empty its data directory and start it with --join: it will be another node", ErrMember, r.ID)
}

func (a *amendment) remove(id NodeID) error {
	r, ok := a.records[id]
	if !ok {
		return ErrUnknownNode
	}
	if !r.Removed {
		r.Removed = true
		a.put(r)
	}
	return nil
}

// forget gives a node up, also one that was to leave and died meanwhile.
func (a *amendment) forget(id NodeID) error {
	r, ok := a.records[id]
	if !ok {
		return ErrUnknownNode
	}
	if !r.Forgotten {
		r.Removed, r.Forgotten = true, true
		a.put(r)
	}
	return nil
}

// replace gives the newcomer the old node's place, so that it takes over exactly
// its partitions.
func (a *amendment) replace(old, by NodeID) error {
	r, ok := a.records[old]
	if !ok {
		return ErrUnknownNode
	}
	place := r.PlaceID
	if place == 0 {
		place = old
	}
	newcomer, known := a.records[by]
	switch {
	case old == by:
		return fmt.Errorf("%w: it is the one to be replaced", ErrMember)
	case known && r.Removed && !newcomer.Removed && newcomer.PlaceID == place:
		return nil // done already
	case r.Removed:
		return fmt.Errorf("%w: it was removed", ErrUnknownNode)
	case known && newcomer.Removed:
		return gone(newcomer)
	case known && newcomer.Weight > 0:
		return fmt.Errorf("%w: %v has a place of its own", ErrMember, by)
	}
	m := r.Member
	m.ID, m.PlaceID = by, place
	if err := validateMember(m); err != nil {
		return err
	}
	r.Removed = true
	a.put(r)
	newcomer.Member = m
	a.put(newcomer)
	return nil
}
