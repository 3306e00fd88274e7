package version

// A Glimpse is what somebody who watches a key keeps of its record: enough to
// tell later whether the key was written in between, whatever its values weigh.
type Glimpse struct {
	visible bool    // a plain client saw a value
	hash    uint64  // of the versions and their expiries
	context Context // of a record that showed nothing
}

// Glimpse is taken of the record as a read at nowMS found it.
func (r Record) Glimpse(nowMS int64) Glimpse {
	_, visible := r.Winner(nowMS)
	g := Glimpse{visible: visible, hash: r.StateHash()}
	if !visible {
		g.context = r.Context
	}
	return g
}

// Bytes is about what the glimpse keeps in memory.
func (g Glimpse) Bytes() int { return 48 + 24*len(g.context) }

// Changed reports whether the record r, read at nowMS, shows that the key was
// written, deleted or given another expiry after the glimpse, or that its time
// came. A read that met fewer writes than the first one did counts as a change.
//
// Of a visible key the versions are compared and not the contexts, in which
// replicas may differ for ever. Of one that is not there something must have come:
// a tombstone that is reaped, or an expired payload that is dropped, changes
// nothing for a client. What was written and deleted again is seen by its dot, as
// long as the tombstone is there.
func (g Glimpse) Changed(r Record, nowMS int64) bool {
	_, visible := r.Winner(nowMS)
	switch {
	case visible != g.visible:
		return true
	case visible:
		return r.StateHash() != g.hash
	}
	return !g.context.Covers(r.Context)
}
