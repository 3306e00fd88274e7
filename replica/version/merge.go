package version

import (
	"fmt"
	"slices"
)

// Merge joins what a replica holds with what it received. It is commutative,
// associative and idempotent in everything but the local flags, which are those
// of local. The result shares memory with its arguments, and is local itself
// when in brings nothing new.
func Merge(local, in Record) Record {
	if in.Absent() {
		return local
	}
	if local.Absent() {
		// This replica may have dropped this key before, own dots included.
		in.Counter.Own = 0
		return Record{Context: in.Context, Versions: in.Versions, Counter: in.Counter, Amnesia: true, LWW: local.LWW || in.LWW}
	}
	out := Record{
		Context:  local.Context.Union(in.Context),
		Versions: mergeVersions(local, in),
		Counter:  local.Counter.join(in.Counter),
		Amnesia:  local.Amnesia,
		LWW:      local.LWW || in.LWW,
	}
	out.AllAcked = local.AllAcked && out.LWW == local.LWW &&
		sameContext(out.Context, local.Context) && sameVersions(out.Versions, local.Versions) &&
		out.Counter.Same(&local.Counter)
	return out
}

// mergeVersions keeps a version that both sides have, or that one side has and
// the other's context does not cover. It first finds out whether the result is
// one of the two lists as it stands, which it nearly always is.
func mergeVersions(local, in Record) []Version {
	isLocal, isIn, n := true, true, 0
	for p := (pairs{local: local, in: in}); p.next(); {
		v, kept := p.join()
		switch {
		case !kept:
			isLocal = isLocal && p.l == nil
			isIn = isIn && p.r == nil
		default:
			isLocal = isLocal && p.l != nil && sameState(&v, p.l)
			isIn = isIn && p.r != nil && sameState(&v, p.r)
			n++
		}
	}
	switch {
	case isLocal:
		return local.Versions
	case isIn:
		return in.Versions
	}
	out := make([]Version, 0, n)
	for p := (pairs{local: local, in: in}); p.next(); {
		if v, kept := p.join(); kept {
			out = append(out, v)
		}
	}
	return out
}

// pairs walks two version lists in dot order and pairs equal dots.
type pairs struct {
	local, in Record
	i, j      int
	l, r      *Version // the current pair; one side may be nil
}

func (p *pairs) next() bool {
	p.l, p.r = nil, nil
	if p.i < len(p.local.Versions) {
		p.l = &p.local.Versions[p.i]
	}
	if p.j < len(p.in.Versions) {
		p.r = &p.in.Versions[p.j]
	}
	if p.l != nil && p.r != nil {
		switch c := p.l.Dot.Compare(p.r.Dot); {
		case c < 0:
			p.r = nil
		case c > 0:
			p.l = nil
		}
	}
	if p.l != nil {
		p.i++
	}
	if p.r != nil {
		p.j++
	}
	return p.l != nil || p.r != nil
}

// join returns what becomes of the current pair.
func (p *pairs) join() (Version, bool) {
	switch {
	case p.r == nil:
		return *p.l, !p.in.Context.Contains(p.l.Dot)
	case p.l == nil:
		return *p.r, !p.local.Context.Contains(p.r.Dot)
	}
	v := *p.l
	if v.Stub && !p.r.Stub {
		// The other side may hold a longer expiry, and then needs the payload.
		v.Stub, v.Value = false, p.r.Value
	}
	v.Expiry = v.Expiry.Join(p.r.Expiry)
	return v, true
}

// sameState compares what can differ between two copies of one dot.
func sameState(a, b *Version) bool { return a.Stub == b.Stub && a.Expiry == b.Expiry }

// Write is a new version and what it replaces.
type Write struct {
	Dot    Dot
	HLC    HLC
	Value  []byte
	Expiry Cell
	Cover  Context  // the past that the writer has seen
	Seen   []Addend // the counter that it has seen
	Floor  uint64   // as in Mint
}

// Put drops the versions that w covers and adds w. The new dot extends the
// actor's own top span only if this record held one, has no amnesia, and no other
// row has minted above it: then every earlier own dot of this key passed through
// this very record, and the longer span claims nothing unseen. Otherwise a fresh
// span begins, and with it a lineage that may be extended, so the amnesia bit is
// cleared.
//
// Requires: w.Dot is above every counter of its actor in r and in w.Cover.
func (r Record) Put(w Write) Record {
	out := Record{
		Context:  r.Context.Union(w.Cover).with(r.ownSpan(w.Dot, w.Floor)),
		Versions: make([]Version, 0, 1+uncovered(r.Versions, w.Cover)),
		Counter:  r.Counter.overwrite(w.Seen, w.HLC),
		LWW:      r.LWW,
	}
	added := Version{Dot: w.Dot, HLC: w.HLC, Value: w.Value, Expiry: w.Expiry}
	placed := false
	for i := range r.Versions {
		v := &r.Versions[i]
		if w.Cover.Contains(v.Dot) {
			continue
		}
		if !placed && v.Dot.Compare(w.Dot) > 0 {
			out.Versions, placed = append(out.Versions, added), true
		}
		out.Versions = append(out.Versions, *v)
	}
	if !placed {
		out.Versions = append(out.Versions, added)
	}
	return out
}

// ownSpan is the span that a new dot makes of what this record holds of its actor.
func (r *Record) ownSpan(d Dot, floor uint64) Span {
	own := Span{d.Actor, d.Counter, d.Counter}
	if top, ok := r.Context.Top(own.Actor); ok {
		if top.Hi >= own.Hi {
			panic(fmt.Sprintf("version: dot %v minted twice, context reaches %d", d, top.Hi))
		}
		if !r.Amnesia && top.Hi >= floor {
			own.Lo = top.Lo
		}
	}
	return own
}

// Count adds d to the record's counter, at w.HLC. It drops and overwrites what w does,
// as Put does, and adds no version.
//
// Requires: w.Dot is above every counter of its actor in r and in w.Cover.
func (r Record) Count(w Write, d Amount) Record {
	own := r.ownSpan(w.Dot, w.Floor)
	out := r.Delete(w.Cover)
	return Record{
		Context:  out.Context.with(own),
		Versions: out.Versions,
		Counter:  r.Counter.overwrite(w.Seen, w.HLC).add(w.Dot, d, w.HLC),
		LWW:      r.LWW,
	}
}

func uncovered(versions []Version, cover Context) int {
	n := 0
	for i := range versions {
		if !cover.Contains(versions[i].Dot) {
			n++
		}
	}
	return n
}

// Delete drops the versions that cover covers and remembers cover. No dot is
// minted, so a concurrent write survives.
//
// A delete on an absent record creates one out of a client's context. That
// context may name own dots of an earlier life of the record, as replication
// may, so the amnesia bit is set here too.
func (r Record) Delete(cover Context) Record {
	left := uncovered(r.Versions, cover)
	out := r
	out.Context = r.Context.Union(cover)
	if left < len(r.Versions) {
		out.Versions = nil
		if left > 0 {
			out.Versions = make([]Version, 0, left)
		}
		for i := range r.Versions {
			if !cover.Contains(r.Versions[i].Dot) {
				out.Versions = append(out.Versions, r.Versions[i])
			}
		}
	}
	if left < len(r.Versions) || !sameContext(out.Context, r.Context) {
		out.AllAcked = false
		out.Amnesia = r.Amnesia || r.Absent()
	}
	return out
}

// SetExpiry joins c into the cell of the version with dot d. The record is
// returned as it is when it has no such version or a later command's cell.
func (r Record) SetExpiry(d Dot, c Cell) Record {
	i := r.find(d)
	if i < 0 {
		return r
	}
	joined := r.Versions[i].Expiry.Join(c)
	if joined == r.Versions[i].Expiry {
		return r
	}
	r.Versions = slices.Clone(r.Versions)
	r.Versions[i].Expiry = joined
	r.AllAcked = false
	return r
}

// DropPayload turns the version with dot d into a stub. It is a local saving,
// not an event: state hash and AllAcked stay, and merging with a full copy
// brings the payload back.
func (r Record) DropPayload(d Dot) Record {
	i := r.find(d)
	if i < 0 || r.Versions[i].Stub {
		return r
	}
	r.Versions = slices.Clone(r.Versions)
	r.Versions[i].Value, r.Versions[i].Stub = nil, true
	return r
}
