package version

import (
	"bytes"
	"slices"
)

// Cell is the expiry of one version: a register joined by the later command,
// not by the longer time, so that shortening a TTL works. The zero Cell was
// never set; AtMS == 0 with an HLC was persisted.
type Cell struct {
	HLC  HLC
	AtMS int64 // Unix milliseconds, 0 = no expiry
}

// Late reports whether the time was over when the cell was set: then that ended what it
// is of, and not the time. The clock of the command judges, which whoever asked for it
// is told too, so that all judge alike.
func (c Cell) Late() bool { return c.AtMS != 0 && c.AtMS <= c.HLC.UnixMS() }

// Join returns the cell of the later command. Commands with one HLC, which only
// two coordinators can produce, are settled for the longer life; no expiry is
// the longest.
func (c Cell) Join(o Cell) Cell {
	switch {
	case o.HLC > c.HLC:
		return o
	case o.HLC == c.HLC && c.AtMS != 0 && (o.AtMS == 0 || o.AtMS > c.AtMS):
		return o
	}
	return c
}

// Version is one live write of a key.
type Version struct {
	Dot    Dot
	HLC    HLC
	Value  []byte
	Expiry Cell
	Stub   bool // the payload was dropped after expiry; dot and cell remain
}

// Expired reports whether the version's time has come.
func (v Version) Expired(nowMS int64) bool {
	return v.Expiry.AtMS != 0 && v.Expiry.AtMS <= nowMS
}

// live reports whether a client may be shown the version.
func (v *Version) live(nowMS int64) bool { return !v.Stub && !v.Expired(nowMS) }

// newer orders versions for the view: by HLC, then by dot.
func (v *Version) newer(o *Version) bool {
	return v.HLC > o.HLC || v.HLC == o.HLC && v.Dot.Compare(o.Dot) > 0
}

// Record is everything a replica holds for one key. It is an immutable value;
// the zero Record is an absent key.
//
// Invariant: Versions is sorted by dot without duplicates and every dot of it
// is in Context.
type Record struct {
	Context  Context
	Versions []Version
	Counter  Counter

	// Amnesia is local: this record was re-created by replication, so the
	// replica cannot know which of its own dots it once held (see doc.go).
	Amnesia bool
	// AllAcked is local: all N owners durably hold exactly this record. Every
	// change clears it.
	AllAcked bool
	// LWW marks a key of a last-writer-wins namespace. It travels with the
	// record; nothing in this package collapses on it.
	LWW bool
}

// Absent reports whether nothing at all is known about the key.
func (r Record) Absent() bool { return len(r.Context) == 0 && len(r.Versions) == 0 }

// Tombstone reports whether the record only remembers what was deleted.
func (r Record) Tombstone() bool {
	return len(r.Context) > 0 && len(r.Versions) == 0 && !r.Counter.Counts()
}

// Equal reports whether two replicas hold the same state. Amnesia and AllAcked
// are local and not compared.
func (r Record) Equal(o Record) bool {
	if r.LWW != o.LWW || !r.Context.Equal(o.Context) || !r.Counter.equal(&o.Counter) {
		return false
	}
	return sameVersions(r.Versions, o.Versions) || slices.EqualFunc(r.Versions, o.Versions, equalVersions)
}

func equalVersions(a, b Version) bool {
	return a.Dot == b.Dot && a.HLC == b.HLC && a.Expiry == b.Expiry && a.Stub == b.Stub &&
		bytes.Equal(a.Value, b.Value)
}

// sameVersions reports whether two lists are one slice in memory.
func sameVersions(a, b []Version) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// sameContext reports whether two contexts are one slice in memory.
func sameContext(a, b Context) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// find returns the index of the version with dot d, or -1.
func (r Record) find(d Dot) int {
	for i := range r.Versions {
		if r.Versions[i].Dot == d {
			return i
		}
	}
	return -1
}

// Dots names what the record holds: its versions, and of its counter the newest
// increment of each addend that has any left.
func (r Record) Dots() []Dot {
	dots := make([]Dot, 0, len(r.Versions)+len(r.Counter.Addends))
	for i := range r.Versions {
		dots = append(dots, r.Versions[i].Dot)
	}
	for i := range r.Counter.Addends {
		if a := &r.Counter.Addends[i]; a.counts() {
			dots = append(dots, a.dot())
		}
	}
	return dots
}

// Winner returns the version that a plain client sees: the highest (HLC, dot).
// If that one is expired or a stub the key is absent; an older sibling is never
// shown instead, or else expiry would bring back what had been overwritten. What is
// counted is added to a winner that is a number, and shown where there is none.
func (r Record) Winner(nowMS int64) (Version, bool) {
	v, ok := r.winner(nowMS)
	switch {
	case len(r.Counter.Addends) == 0:
		return v, ok
	case ok:
		return r.shown(v, nowMS), true
	case r.Counter.Live(nowMS):
		return r.counted(), true
	}
	return Version{}, false
}

// winner is Winner before anything is added to it.
func (r *Record) winner(nowMS int64) (Version, bool) {
	if len(r.Versions) == 0 {
		return Version{}, false
	}
	top := &r.Versions[0]
	for i := 1; i < len(r.Versions); i++ {
		if r.Versions[i].newer(top) {
			top = &r.Versions[i]
		}
	}
	if !top.live(nowMS) {
		return Version{}, false
	}
	return *top, true
}

// Live returns the versions that a VCTX client sees, newest (HLC, dot) first.
// Versions with equal bytes are returned once, as the newest of them. What is
// counted is added to each that is a number, and is shown where there is none. The
// result may share memory with the record.
func (r Record) Live(nowMS int64) []Version {
	if len(r.Versions) == 1 && len(r.Counter.Addends) == 0 {
		if r.Versions[0].live(nowMS) {
			return r.Versions
		}
		return nil
	}
	var out []Version
	for i := range r.Versions {
		if r.Versions[i].live(nowMS) {
			out = append(out, r.shown(r.Versions[i], nowMS))
		}
	}
	if len(out) == 0 && r.Counter.Live(nowMS) {
		return []Version{r.counted()}
	}
	slices.SortFunc(out, func(a, b Version) int {
		if a.newer(&b) {
			return -1
		}
		return 1
	})
	kept := out[:0]
	for _, v := range out {
		if !slices.ContainsFunc(kept, func(k Version) bool { return bytes.Equal(k.Value, v.Value) }) {
			kept = append(kept, v)
		}
	}
	return kept
}

// HasLive reports whether the record holds any payload, expired or not: what
// DBSIZE counts.
func (r Record) HasLive() bool {
	for i := range r.Versions {
		if !r.Versions[i].Stub {
			return true
		}
	}
	return !r.Counter.Stub && r.Counter.Counts()
}

// Hollow reports whether the record lacks the payload of a version whose time is
// not over: it was dropped by a clock that was ahead, or the version was extended
// afterwards. Another replica may still have it.
func (r Record) Hollow(nowMS int64) bool {
	for i := range r.Versions {
		if v := &r.Versions[i]; v.Stub && !v.Expired(nowMS) {
			return true
		}
	}
	return false
}

// MaxHLC returns the highest reading anywhere in the record, cells included.
func (r Record) MaxHLC() HLC {
	top := HLC(0)
	for i := range r.Versions {
		v := &r.Versions[i]
		top = max(top, v.HLC, v.Expiry.HLC)
	}
	for i := range r.Counter.Addends {
		top = max(top, r.Counter.Addends[i].HLC)
	}
	return max(top, r.Counter.Expiry.HLC)
}
