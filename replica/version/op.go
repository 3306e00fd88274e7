package version

import (
	"errors"
	"fmt"
	"slices"
)

var (
	// ErrTooManySiblings refuses a VCTX put that would pile up live versions.
	ErrTooManySiblings = errors.New("version: too many siblings")
	// ErrTooLarge refuses a value above the limit.
	ErrTooLarge = errors.New("version: value too large")
	// ErrNotInteger refuses to count on a value that is no integer, or with one that
	// is none.
	ErrNotInteger = errors.New("version: not an integer")
	// ErrNotFloat refuses to count on a value that is no number, or with one.
	ErrNotFloat = errors.New("version: not a number")
	// ErrOverflow refuses a count beyond 64 bits.
	ErrOverflow = errors.New("version: count beyond 64 bits")
	// ErrNotFinite refuses a count beyond the range of an Amount.
	ErrNotFinite = errors.New("version: count out of range")
	// ErrDotReused means that some replica has already seen the dot about to be
	// minted, or a later one of the same actor: two processes share an
	// incarnation. The partition must stop.
	ErrDotReused = errors.New("version: dot reused")
)

// Refused reports whether err is Apply's refusal of an op that does not fit the
// record: nothing has changed, and nothing is wrong with this replica.
func Refused(err error) bool {
	for _, e := range []error{ErrTooManySiblings, ErrTooLarge, ErrNotInteger, ErrNotFloat, ErrOverflow, ErrNotFinite} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// OpKind says what a mutation does.
type OpKind uint8

const (
	OpSet        OpKind = iota + 1 // SET and its relatives, GETSET
	OpDelete                       // DEL, GETDEL, VCTX.DEL
	OpExpire                       // EXPIRE, PERSIST (ExpireAtMS 0), GETEX
	OpAppend                       // APPEND
	OpSetRange                     // SETRANGE
	OpCount                        // INCR, DECR, INCRBY, DECRBY: Value is a whole number
	OpCountFloat                   // INCRBYFLOAT: Value is a number
	OpFields                       // SETBIT, BITFIELD: Value has the fields (bits.go)
	opKindEnd
)

// Condition must hold for a mutation to be applied. It is judged on what a plain
// client sees.
type Condition uint8

const (
	CondNone      Condition = iota
	CondAbsent              // SET NX
	CondPresent             // SET XX
	CondNoExpiry            // EXPIRE NX
	CondHasExpiry           // EXPIRE XX
	CondGreater             // EXPIRE GT; no expiry counts as infinite
	CondLess                // EXPIRE LT
	conditionEnd
)

// ExpiryMode says which expiry cell a new value gets.
type ExpiryMode uint8

const (
	ExpiryClear ExpiryMode = iota // none
	ExpiryKeep                    // that of the winner: KEEPTTL
	ExpiryAt                      // ExpireAtMS
	expiryModeEnd
)

// maxValueBytes bounds every value whatever the caller says, as Redis does.
const maxValueBytes = 512 << 20

// Op is a mutation of one key as a client asked for it, before any replica has
// looked at the key. The record that it makes keeps Value, which must not be
// modified afterwards.
type Op struct {
	Kind       OpKind
	Value      []byte
	Offset     int64 // OpSetRange
	Cond       Condition
	Expiry     ExpiryMode // OpSet
	ExpireAtMS int64      // ExpiryAt and OpExpire; a past time makes the key absent. OpExpire: 0 persists
	ReturnOld  bool       // fill Outcome.Old
	Explicit   bool       // OpSet, OpDelete: cover Context and nothing else (VCTX)
	Context    Context    // what the client has seen
	Addends    []Addend   // what it has seen of the counter
	MinHLC     HLC        // the write must be above it

	MaxValue        int // bytes; 0 = the built-in limit
	MaxSiblings     int // versions left by an Explicit put; 0 = no cap
	MaxSiblingBytes int // payload bytes left by an Explicit put; 0 = no cap
}

// NeedsRead reports whether the op depends on the current value, so that R
// replicas have to be read first.
func (o Op) NeedsRead() bool {
	switch o.Kind {
	case OpSet:
		return o.Cond != CondNone || o.ReturnOld || o.Expiry == ExpiryKeep
	case OpDelete:
		return !o.Explicit || o.Cond != CondNone || o.ReturnOld
	}
	return true
}

// Strict reports whether the reply makes a claim about the old value that a
// fallback, which holds only what reached it, must not make.
func (o Op) Strict() bool {
	return o.Cond != CondNone || o.ReturnOld || o.Kind == OpDelete && !o.Explicit || o.Kind == OpFields
}

// Mint is what a replica contributes to a mutation: its clock and the next dot
// of its actor in this partition. A dot that Apply did not use is burned or
// used for the next op; both are safe.
type Mint struct {
	NowMS int64
	HLC   HLC // proposed; Apply raises it above everything it covers
	Dot   Dot
	// Floor is the highest counter that the actor has minted in another row of
	// this partition; 0 when it mints in one row only. Own spans that end below
	// it are not extended (see doc.go). It may be too high, at the price of a
	// span per write; it must not be too low.
	Floor uint64
}

// Outcome is what a mutation did.
type Outcome struct {
	Applied       bool   // the record changed and must be stored and sent
	HadOld        bool   // the key was visible before: the count of DEL
	Old           []byte // with ReturnOld, if HadOld: never nil then; aliases the record. OpFields: the answers
	OldExpireAtMS int64  // of the old value, 0 = none
	Length        int64  // of the value after OpAppend and OpSetRange
	Now           []byte // the value after OpCount and OpCountFloat
	Live          int    // versions that VCTX shows afterwards
	Dot           Dot    // of the new version; zero if none
	HLC           HLC    // of the write; if not applied, of the record
	Token         Token  // what the client has now seen
}

// Apply performs op on the record that a replica holds, with what its quorum
// read found merged in. Either the outcome is Applied and the record differs, or
// the record is returned as it was.
func Apply(r Record, op Op, m Mint) (Record, Outcome, error) {
	if op.Kind == 0 || op.Kind >= opKindEnd || op.Cond >= conditionEnd ||
		op.Expiry >= expiryModeEnd || op.Offset < 0 {
		return r, Outcome{}, fmt.Errorf("%w: op kind %d condition %d expiry %d offset %d",
			ErrCorrupt, op.Kind, op.Cond, op.Expiry, op.Offset)
	}
	a := applying{r: r, op: op, m: m, hlc: max(m.HLC, r.MaxHLC().Next(), op.MinHLC.Next())}
	a.old, a.had = r.Winner(m.NowMS)
	a.cover, a.seen = op.Context, op.Addends
	if !op.Explicit || op.Kind != OpSet && op.Kind != OpDelete {
		a.cover, a.seen = r.Context.Union(op.Context), joinAddends(r.Counter.Addends, op.Addends)
	}
	for i := range a.seen {
		a.cover = a.cover.Add(a.seen[i].dot())
	}
	if !a.holds() {
		return a.unchanged()
	}
	switch op.Kind {
	case OpSet:
		return a.set()
	case OpDelete:
		return a.delete()
	case OpExpire:
		return a.expire()
	case OpAppend:
		return a.append()
	case OpCount:
		return a.count()
	case OpCountFloat:
		return a.countFloat()
	case OpFields:
		return a.fields()
	default:
		return a.setRange()
	}
}

// applying is one Apply in progress.
type applying struct {
	r     Record
	op    Op
	m     Mint
	old   Version // the winner
	had   bool
	cover Context  // what the op has seen
	seen  []Addend // of the counter
	hlc   HLC
}

// holds judges the condition. ExpireAtMS 0 persists, which is the longest life.
func (a *applying) holds() bool {
	was, at := a.old.Expiry.AtMS, a.op.ExpireAtMS
	switch a.op.Cond {
	case CondAbsent:
		return !a.had
	case CondPresent:
		return a.had
	case CondNoExpiry:
		return a.had && was == 0
	case CondHasExpiry:
		return a.had && was != 0
	case CondGreater:
		return a.had && was != 0 && (at == 0 || at > was)
	case CondLess:
		return a.had && at != 0 && (was == 0 || at < was)
	}
	return true
}

func (a *applying) set() (Record, Outcome, error) {
	cell := Cell{}
	switch {
	case a.op.Expiry == ExpiryAt:
		cell = Cell{HLC: a.hlc, AtMS: max(a.op.ExpireAtMS, 1)}
	case a.op.Expiry == ExpiryKeep:
		cell = a.keptCell()
	}
	return a.put(a.op.Value, cell, 0)
}

// keptCell returns the winner's cell for the version that replaces it.
func (a *applying) keptCell() Cell {
	if a.old.Expiry.AtMS == 0 {
		return Cell{}
	}
	return a.old.Expiry
}

func (a *applying) append() (Record, Outcome, error) {
	n := int64(len(a.old.Value) + len(a.op.Value))
	if n > a.limit() {
		return a.r, Outcome{}, ErrTooLarge
	}
	value := append(append(make([]byte, 0, n), a.old.Value...), a.op.Value...)
	return a.put(value, a.keptCell(), n)
}

func (a *applying) setRange() (Record, Outcome, error) {
	was := int64(len(a.old.Value))
	if len(a.op.Value) == 0 {
		r, out, err := a.unchanged()
		out.Length = was
		return r, out, err
	}
	if a.op.Offset > a.limit()-int64(len(a.op.Value)) {
		return a.r, Outcome{}, ErrTooLarge
	}
	n := max(was, a.op.Offset+int64(len(a.op.Value)))
	value := make([]byte, n)
	copy(value, a.old.Value)
	copy(value[a.op.Offset:], a.op.Value)
	return a.put(value, a.keptCell(), n)
}

func (a *applying) limit() int64 {
	if a.op.MaxValue <= 0 {
		return maxValueBytes
	}
	return int64(min(a.op.MaxValue, maxValueBytes))
}

// put writes a new version. One whose time seems to be over already is written like
// any other: a clock that is ahead must not turn an acknowledged write into a
// delete, and by a right clock it is absent from the start.
func (a *applying) put(value []byte, cell Cell, length int64) (Record, Outcome, error) {
	if int64(len(value)) > a.limit() {
		return a.r, Outcome{}, ErrTooLarge
	}
	dot := a.m.Dot
	if reaches(a.r.Context, dot) || reaches(a.cover, dot) {
		return a.r, Outcome{}, fmt.Errorf("%w: actor %016x counter %d", ErrDotReused, uint64(dot.Actor), dot.Counter)
	}
	r := a.r.Put(Write{Dot: dot, HLC: a.hlc, Value: value, Expiry: cell, Cover: a.cover, Seen: a.seen, Floor: a.m.Floor})
	if a.op.Explicit && a.pilesUp(r) {
		return a.r, Outcome{}, ErrTooManySiblings
	}
	r, out, err := a.changed(r)
	out.Dot, out.Length = dot, length
	return r, out, err
}

// reaches reports whether c knows d or a later dot of its actor.
func reaches(c Context, d Dot) bool {
	top, ok := c.Top(d.Actor)
	return d.Counter == 0 || ok && top.Hi >= d.Counter
}

// pilesUp reports whether a put grew the siblings beyond a cap. A put that only
// replaces or collapses is progress and passes, however many merging brought.
func (a *applying) pilesUp(r Record) bool {
	count, size := payload(r)
	wasCount, wasSize := payload(a.r)
	return a.op.MaxSiblings > 0 && count > a.op.MaxSiblings && count > wasCount ||
		a.op.MaxSiblingBytes > 0 && count > 1 && size > a.op.MaxSiblingBytes && size > wasSize
}

// payload counts the versions with a value and the bytes of those values.
func payload(r Record) (count, size int) {
	for i := range r.Versions {
		if !r.Versions[i].Stub {
			count++
			size += len(r.Versions[i].Value)
		}
	}
	return count, size
}

// delete removes what the op has seen. An explicit delete, and a plain one whose
// connection has seen more than was found here, may change a record that shows
// nothing: the context has to be remembered against versions still on their way. So
// may one that finds a version whose time is over: a clock that is behind still
// shows it, and it may have been extended elsewhere before.
func (a *applying) delete() (Record, Outcome, error) {
	if !a.op.Explicit && len(a.r.Versions) == 0 && a.r.Context.Covers(a.op.Context) && !a.overwrites() {
		return a.unchanged()
	}
	return a.remove()
}

func (a *applying) remove() (Record, Outcome, error) {
	r := a.r.Delete(a.cover)
	counts := a.overwrites()
	if len(r.Versions) == len(a.r.Versions) && sameContext(r.Context, a.r.Context) && !counts {
		return a.unchanged()
	}
	if counts {
		r.Counter, r.AllAcked = a.r.Counter.overwrite(a.seen, a.hlc), false
	}
	return a.changed(r)
}

// overwrites reports whether an overwrite by the op would change the counter.
func (a *applying) overwrites() bool {
	now := a.r.Counter.overwrite(a.seen, a.hlc)
	return !slices.Equal(now.Addends, a.r.Counter.Addends)
}

// expire sets the cell of every version that a client may be shown, as a delete
// would remove them all: with the winner's alone, siblings that nobody sees
// would outlive the key. A past time is an expiry like any other, for the reason
// that put gives.
func (a *applying) expire() (Record, Outcome, error) {
	at := a.op.ExpireAtMS
	if !a.had || at == 0 && a.old.Expiry.AtMS == 0 {
		return a.unchanged()
	}
	if at < 0 {
		at = 1
	}
	r := a.r
	r.AllAcked = false
	r.Versions = make([]Version, len(a.r.Versions))
	for i := range a.r.Versions {
		v := &r.Versions[i]
		*v = a.r.Versions[i]
		if v.live(a.m.NowMS) {
			v.Expiry = v.Expiry.Join(Cell{HLC: a.hlc, AtMS: at})
		}
	}
	if r.Counter.Live(a.m.NowMS) {
		r.Counter.Expiry, r.Counter.Stub = r.Counter.Expiry.Join(Cell{HLC: a.hlc, AtMS: at}), false
	}
	return a.changed(r)
}

// changed reports success.
func (a *applying) changed(r Record) (Record, Outcome, error) {
	out := a.outcome(r)
	out.Applied, out.HLC = true, a.hlc
	out.Token.HLC = max(out.Token.HLC, a.hlc)
	return r, out, nil
}

// unchanged reports that the op had nothing to do.
func (a *applying) unchanged() (Record, Outcome, error) {
	out := a.outcome(a.r)
	out.HLC = a.r.MaxHLC()
	return a.r, out, nil
}

// nonNil tells an empty value from none.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (a *applying) outcome(r Record) Outcome {
	out := Outcome{
		HadOld: a.had,
		Live:   len(r.Live(a.m.NowMS)),
		Token:  r.PutToken(a.m.Dot, a.cover),
	}
	if out.Token.Addends = a.seen; !a.op.Explicit {
		out.Token.Addends = r.Counter.Addends
	}
	if a.had {
		out.OldExpireAtMS = a.old.Expiry.AtMS
		if a.op.ReturnOld {
			out.Old = nonNil(a.old.Value)
		}
	}
	return out
}
