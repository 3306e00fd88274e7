package version

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
)

// Addend is what one actor has added to a counter in one life of one row: a running
// total that only this row writes, and the part of it that has been overwritten. A
// row that replication created begins a new one, as its actor may have gone further
// with the old one in an earlier life of the row.
//
// Invariant: (Actor, Start, Top) names one Total and one HLC, since an actor mints
// a dot once, and what is named by a higher Top has come of it. So replicas join
// addends by the higher Top, and what is overwritten by the higher Seen.
//
// Invariant: Start <= Top, and Seen is 0 or in Start..Top. The dot (Actor, Top) is
// in the context of the record.
type Addend struct {
	Actor Actor
	Start uint64 // the counter of the first increment, which names the addend
	Top   uint64 // that of the newest increment
	HLC   HLC    // of the newest increment
	Total Amount // of all increments
	Seen  uint64 // the increments up to this one were overwritten; 0: none
	Base  Amount // their total
}

// Counter is what INCR and its relatives leave in a record. The number that a
// client is shown is the winner's value, if that is a number, and what the addends
// have beyond their bases; without a winner it is the latter alone. The zero Counter
// counts nothing.
type Counter struct {
	Addends []Addend // by actor and start
	Expiry  Cell     // of what is counted: that of the winner at the last increment
	Stub    bool     // local, like that of a Version: its time was over here
	Own     uint64   // local: Start of the addend that this very row has begun; 0: none
}

// compare orders different addends.
func (a *Addend) compare(o *Addend) int {
	return cmp.Or(cmp.Compare(a.Actor, o.Actor), cmp.Compare(a.Start, o.Start))
}

func (a *Addend) dot() Dot { return Dot{a.Actor, a.Top} }

// counts reports whether some increment has not been overwritten.
func (a *Addend) counts() bool { return a.Top > a.Seen }

// join returns what two replicas know of one addend.
func (a Addend) join(o Addend) Addend {
	if o.Top > a.Top {
		a.Top, a.HLC, a.Total = o.Top, o.HLC, o.Total
	}
	if o.Seen > a.Seen {
		a.Seen, a.Base = o.Seen, o.Base
	}
	return a
}

// joinAddends joins two lists. It returns one of them as it stands if that is the
// result, the first if it can.
func joinAddends(a, b []Addend) []Addend {
	if len(b) == 0 || len(a) > 0 && &a[0] == &b[0] && len(a) == len(b) {
		return a
	}
	out := make([]Addend, 0, len(a)+len(b))
	for i, j := 0, 0; i < len(a) || j < len(b); {
		c := 0
		switch {
		case i == len(a):
			c = 1
		case j == len(b):
			c = -1
		default:
			c = a[i].compare(&b[j])
		}
		switch {
		case c < 0:
			out = append(out, a[i])
			i++
		case c > 0:
			out = append(out, b[j])
			j++
		default:
			out = append(out, a[i].join(b[j]))
			i, j = i+1, j+1
		}
	}
	switch {
	case slices.Equal(out, a):
		return a
	case slices.Equal(out, b):
		return b
	}
	return slices.Clip(out)
}

// join returns what two replicas know of a counter, with what is c's own.
func (c Counter) join(o Counter) Counter {
	switch {
	case len(o.Addends) == 0:
		return c
	case len(c.Addends) == 0:
		o.Own = 0
		return o
	}
	return Counter{joinAddends(c.Addends, o.Addends), c.Expiry.Join(o.Expiry), c.Stub && o.Stub, c.Own}
}

func (c *Counter) equal(o *Counter) bool {
	return c.Expiry == o.Expiry && c.Stub == o.Stub && slices.Equal(c.Addends, o.Addends)
}

// Same reports whether two counters are one in memory, what is local included.
func (c *Counter) Same(o *Counter) bool {
	return c.Expiry == o.Expiry && c.Stub == o.Stub && c.Own == o.Own && len(c.Addends) == len(o.Addends) &&
		(len(c.Addends) == 0 || &c.Addends[0] == &o.Addends[0])
}

// Counts reports whether some increment has not been overwritten, expired or not.
func (c *Counter) Counts() bool {
	for i := range c.Addends {
		if c.Addends[i].counts() {
			return true
		}
	}
	return false
}

// Live reports whether a client is shown what is counted.
func (c *Counter) Live(nowMS int64) bool {
	return len(c.Addends) > 0 && !c.expired(nowMS) && c.Counts()
}

func (c *Counter) expired(nowMS int64) bool { return c.Expiry.AtMS != 0 && c.Expiry.AtMS <= nowMS }

// sum is what is counted and not overwritten.
func (c *Counter) sum() Amount {
	var n Amount
	for i := range c.Addends {
		n = n.plus(c.Addends[i].Total.minus(c.Addends[i].Base))
	}
	return n
}

// newest is the newest addend. Requires: there is one.
func (c *Counter) newest() *Addend {
	top := &c.Addends[0]
	for i := range c.Addends {
		a := &c.Addends[i]
		if a.HLC > top.HLC || a.HLC == top.HLC && a.dot().Compare(top.dot()) > 0 {
			top = a
		}
	}
	return top
}

// overwrite returns the counter after a write at h by somebody who has seen these
// addends. What was added since, or elsewhere, is still counted: a client that sets
// a counter back does not undo increments it did not know of. Without any there is
// nothing left to expire.
func (c Counter) overwrite(seen []Addend, h HLC) Counter {
	if len(seen) == 0 {
		return c
	}
	marked := make([]Addend, len(seen))
	for i := range seen {
		marked[i] = seen[i]
		marked[i].Seen, marked[i].Base = seen[i].Top, seen[i].Total
	}
	out := Counter{Addends: joinAddends(c.Addends, marked), Expiry: c.Expiry, Own: c.Own}
	if out.Expiry != (Cell{}) && !out.Counts() {
		out.Expiry = out.Expiry.Join(Cell{HLC: h})
	}
	return out
}

// add returns the counter with d added by the actor of dot, at h.
func (c Counter) add(dot Dot, d Amount, h HLC) Counter {
	out := Counter{Expiry: c.Expiry, Own: c.Own}
	for i := range c.Addends {
		if a := &c.Addends[i]; a.Actor == dot.Actor && a.Start == c.Own {
			out.Addends = slices.Clone(c.Addends)
			a = &out.Addends[i]
			a.Top, a.HLC, a.Total = dot.Counter, h, a.Total.plus(d)
			return out
		}
	}
	out.Own = dot.Counter
	out.Addends = joinAddends(c.Addends, []Addend{{Actor: dot.Actor, Start: dot.Counter, Top: dot.Counter, HLC: h, Total: d}})
	return out
}

// amount is what a client is shown of a value that is a number, exactly.
func (r *Record) amount(v *Version, nowMS int64) (Amount, bool) {
	n, ok := amountOf(v.Value)
	if ok && r.Counter.Live(nowMS) {
		n = n.plus(r.Counter.sum())
	}
	return n, ok
}

// shown is the version with the value that a client is shown.
func (r *Record) shown(v Version, nowMS int64) Version {
	if !r.Counter.Live(nowMS) {
		return v
	}
	if n, ok := r.amount(&v, nowMS); ok {
		v.Value = n.append(nil)
	}
	return v
}

// counted is what a client is shown of a counter that stands alone. The dot and the
// reading are those of the newest increment.
func (r *Record) counted() Version {
	a := r.Counter.newest()
	return Version{Dot: a.dot(), HLC: a.HLC, Value: r.Counter.sum().append(nil), Expiry: r.Counter.Expiry}
}

// count adds a whole number. What a client is shown must be one, before and after.
func (a *applying) count() (Record, Outcome, error) {
	d, ok := ParseWhole(a.op.Value)
	if !ok {
		return a.r, Outcome{}, ErrNotInteger
	}
	was := int64(0)
	if a.had {
		if was, ok = ParseWhole(a.old.Value); !ok {
			return a.r, Outcome{}, ErrNotInteger
		}
	}
	if d < 0 && was < math.MinInt64-d || d > 0 && was > math.MaxInt64-d {
		return a.r, Outcome{}, ErrOverflow
	}
	return a.add(wholeAmount(d))
}

// countFloat adds a number as Redis does: it sums up what it prints, in long doubles,
// and what it prints afterwards is what is stored. Here the difference between the
// two is, and that is exact.
func (a *applying) countFloat() (Record, Outcome, error) {
	d, ok := parseFloat(a.op.Value)
	if !ok {
		return a.r, Outcome{}, ErrNotFloat
	}
	was, exactly := new(big.Float), Amount{}
	if a.had {
		if was, ok = parseFloat(a.old.Value); !ok {
			return a.r, Outcome{}, ErrNotFloat
		}
		if exactly, ok = a.exactly(); !ok {
			return a.r, Outcome{}, ErrNotFinite
		}
	}
	if was.IsInf() || d.IsInf() {
		return a.r, Outcome{}, ErrNotFinite
	}
	now, ok := roundAmount(new(big.Float).SetPrec(64).Add(was, d))
	if !ok {
		return a.r, Outcome{}, ErrNotFinite
	}
	return a.add(now.minus(exactly))
}

// exactly is the number that the client is shown. Requires: it is shown one.
func (a *applying) exactly() (Amount, bool) {
	if v, ok := a.r.winner(a.m.NowMS); ok {
		return a.r.amount(&v, a.m.NowMS)
	}
	return a.r.Counter.sum(), true
}

// add counts d. On a key that is absent counting begins anew, and so it does on a
// value when the time of what was counted is over; that much this record knows. What
// the client has seen elsewhere is left to count: this is no overwrite. What is
// counted lives as long as what it is added to.
func (a *applying) add(d Amount) (Record, Outcome, error) {
	w := Write{Dot: a.m.Dot, HLC: a.hlc, Floor: a.m.Floor}
	if reaches(a.r.Context, w.Dot) || reaches(a.cover, w.Dot) {
		return a.r, Outcome{}, fmt.Errorf("%w: actor %016x counter %d", ErrDotReused, uint64(w.Dot.Actor), w.Dot.Counter)
	}
	anew := !a.r.Counter.Live(a.m.NowMS)
	if anew {
		w.Seen = a.r.Counter.Addends
	}
	if !a.had {
		w.Cover = a.r.Context
	}
	r := a.r.Count(w, d)
	switch cell := a.old.Expiry; {
	case anew && r.Counter.Expiry != (Cell{}):
		r.Counter.Expiry = Cell{HLC: a.hlc, AtMS: cell.AtMS}
	case cell != (Cell{}):
		r.Counter.Expiry = r.Counter.Expiry.Join(cell)
	}
	r, out, err := a.changed(r)
	now, _ := r.Winner(a.m.NowMS)
	out.Dot, out.Now = w.Dot, now.Value
	return r, out, err
}

// DropCounter notes that the time of the counter was over here. Like DropPayload it
// is a local saving: nothing is forgotten.
func (r Record) DropCounter() Record {
	r.Counter.Stub = true
	return r
}

// CounterDueMS is the time at which what is counted is to be dropped, 0 for never.
func (r *Record) CounterDueMS() int64 {
	if c := &r.Counter; c.Expiry.AtMS > 0 && !c.Stub && c.Counts() {
		return c.Expiry.AtMS
	}
	return 0
}

// The layout of an addend is drawn in doc.go.
const (
	flagSeen = 1 << 0 // of an addend
	flagOwn  = 1 << 2 // of a counter, beside flagStub and flagCell

	minAddendBytes = 8 + 1 + 1 + 8 + 2 + 1
)

func appendAddends(dst []byte, addends []Addend) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(addends)))
	for i := range addends {
		a := &addends[i]
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.Actor))
		dst = binary.AppendUvarint(dst, a.Start)
		dst = binary.AppendUvarint(dst, a.Top-a.Start)
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.HLC))
		dst = appendAmount(dst, a.Total)
		if a.Seen == 0 {
			dst = append(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(append(dst, flagSeen), a.Top-a.Seen)
		dst = appendAmount(dst, a.Base)
	}
	return dst
}

// addends reads a list that is not empty.
func (d *decoder) addends() []Addend {
	n := d.count(minAddendBytes)
	if n == 0 {
		d.fail()
		return nil
	}
	out := make([]Addend, n)
	for i := range out {
		a := &out[i]
		a.Actor, a.Start = Actor(d.u64()), d.uvarint()
		a.Top = a.Start + d.uvarint()
		a.HLC, a.Total = HLC(d.u64()), d.amount()
		if d.flags(flagSeen) != 0 {
			a.Seen = a.Top - d.uvarint()
			a.Base = d.amount()
			d.check(a.Start <= a.Seen && a.Seen <= a.Top)
		}
		d.check(a.Start > 0 && a.Top >= a.Start && (i == 0 || out[i-1].compare(a) < 0))
		if d.bad {
			return nil
		}
	}
	return out
}

// check makes a fault of what must hold and does not.
func (d *decoder) check(ok bool) {
	if !ok {
		d.fail()
	}
}

func appendCounter(dst []byte, c *Counter, own bool) []byte {
	flags := byte(0)
	if own = own && c.Own != 0; own {
		flags |= flagOwn
	}
	if c.Stub {
		flags |= flagStub
	}
	if c.Expiry != (Cell{}) {
		flags |= flagCell
	}
	dst = append(dst, flags)
	if flags&flagCell != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.Expiry.HLC))
		dst = binary.AppendUvarint(dst, uint64(c.Expiry.AtMS))
	}
	if own {
		dst = binary.AppendUvarint(dst, c.Own)
	}
	return appendAddends(dst, c.Addends)
}

// counter reads a counter whose dots must be in ctx.
func (d *decoder) counter(ctx Context) Counter {
	var c Counter
	flags := d.flags(flagStub | flagCell | flagOwn)
	c.Stub = flags&flagStub != 0
	if flags&flagCell != 0 {
		c.Expiry = d.cell()
	}
	if flags&flagOwn != 0 {
		c.Own = d.uvarint()
		d.check(c.Own > 0)
	}
	c.Addends = d.addends()
	own := c.Own == 0
	for i := range c.Addends {
		own = own || c.Addends[i].Start == c.Own
		d.check(ctx.Contains(c.Addends[i].dot()))
	}
	d.check(own)
	return c
}
