package version

// Wrote is a write that was acknowledged, as far as a record can be asked for it.
type Wrote struct {
	Kind  OpKind
	HLC   HLC
	Token Token
}

// In reports whether a record has the write in it: then joining what the write left
// would add nothing. A delete and an expiry add no dot: of a delete tells that nothing
// is left of what it saw, of an expiry that the cells of what is left are as late.
//
// Note: what was past its time already is not asked for the cell of an expiry, since
// only what lives gets one. The clock of the write judges that, which may be a little
// ahead of the clock that judged then.
func (w *Wrote) In(r Record) bool {
	if !r.Context.Covers(w.Token.Context) {
		return false
	}
	switch w.Kind {
	case OpDelete:
		return w.deletedIn(&r)
	case OpExpire:
		return w.expiresIn(&r)
	}
	return true
}

func (w *Wrote) deletedIn(r *Record) bool {
	for i := range r.Versions {
		if w.Token.Context.Contains(r.Versions[i].Dot) {
			return false
		}
	}
	for i := range w.Token.Addends {
		if a := r.Counter.find(&w.Token.Addends[i]); a == nil || a.Seen < w.Token.Addends[i].Top {
			return false
		}
	}
	return true
}

func (w *Wrote) expiresIn(r *Record) bool {
	for i := range r.Versions {
		if v := &r.Versions[i]; w.Token.Context.Contains(v.Dot) && !w.set(v.Expiry) {
			return false
		}
	}
	counted := Counter{Addends: w.Token.Addends}
	return !counted.Counts() || w.set(r.Counter.Expiry)
}

// set reports whether a cell is that of the expiry or a later one, or was none of its
// business.
func (w *Wrote) set(c Cell) bool {
	return c.HLC >= w.HLC || c.AtMS != 0 && c.AtMS <= w.HLC.UnixMS()
}

// find is what the counter has of an addend, nil for nothing.
func (c *Counter) find(of *Addend) *Addend {
	for i := range c.Addends {
		if c.Addends[i].compare(of) == 0 {
			return &c.Addends[i]
		}
	}
	return nil
}
