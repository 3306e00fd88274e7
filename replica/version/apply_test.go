package version

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

const (
	testNowMS = int64(1_700_000_000_000)
	testActor = Actor(0xa)
)

// applier runs ops on one record as one coordinator would.
type applier struct {
	t       *testing.T
	rec     Record
	counter uint64
	nowMS   int64
}

func newApplier(t *testing.T) *applier { return &applier{t: t, nowMS: testNowMS} }

func (a *applier) try(op Op) (Outcome, error) {
	a.t.Helper()
	a.counter++
	was := a.rec
	rec, out, err := Apply(was, op, Mint{NowMS: a.nowMS, HLC: HLCFromMS(a.nowMS), Dot: Dot{testActor, a.counter}})
	if changed := !rec.Equal(was); changed != out.Applied {
		a.t.Errorf("%+v: applied %v but changed %v", op, out.Applied, changed)
	}
	a.rec = rec
	return out, err
}

func (a *applier) do(op Op) Outcome {
	a.t.Helper()
	out, err := a.try(op)
	if err != nil {
		a.t.Fatalf("%+v: %v", op, err)
	}
	return out
}

func (a *applier) set(value string, expireAtMS int64) Outcome {
	a.t.Helper()
	op := Op{Kind: OpSet, Value: []byte(value)}
	if expireAtMS != 0 {
		op.Expiry, op.ExpireAtMS = ExpiryAt, expireAtMS
	}
	return a.do(op)
}

// want checks what a plain GET and a PTTL would show; "-" is an absent key.
func (a *applier) want(value string, expireAtMS int64) {
	a.t.Helper()
	v, ok := a.rec.Winner(a.nowMS)
	got := "-"
	if ok {
		got = string(v.Value)
	}
	if got != value || v.Expiry.AtMS != expireAtMS {
		a.t.Errorf("key is %q expiring at %d, want %q at %d", got, v.Expiry.AtMS, value, expireAtMS)
	}
}

func TestSetCoversWhatTheCoordinatorHolds(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	a.rec = Record{}.Put(Write{Dot: Dot{1, 5}, HLC: 5, Value: []byte("x")}).Put(Write{Dot: Dot{2, 6}, HLC: 6, Value: []byte("y")})
	a.counter = 9
	out := a.do(Op{Kind: OpSet, Value: []byte("z"), Context: Context{{3, 1, 4}}, MinHLC: HLCFromMS(testNowMS + 50)})
	if len(a.rec.Versions) != 1 || out.Live != 1 || !a.rec.Context.Equal(Context{{1, 5, 5}, {2, 6, 6}, {3, 1, 4}, {testActor, 10, 10}}) {
		t.Errorf("got %v", a.rec)
	}
	if out.HLC != HLCFromMS(testNowMS+50)+1 || out.Dot != (Dot{testActor, 10}) || out.Token.HLC != out.HLC {
		t.Errorf("got %+v", out)
	}
	a.nowMS -= 1000 // a clock that went back
	if next := a.set("w", 0); next.HLC <= out.HLC {
		t.Errorf("write at %d covers a write at %d", next.HLC, out.HLC)
	}
	if !a.rec.Context.Contains(Dot{testActor, 10}) || len(a.rec.Context) != 4 {
		t.Errorf("own lineage was not extended: %v", a.rec.Context)
	}
}

func TestSetConditionsFollowRedis(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	nx := Op{Kind: OpSet, Value: []byte("n"), Cond: CondAbsent, ReturnOld: true}
	xx := Op{Kind: OpSet, Value: []byte("x"), Cond: CondPresent}
	if out := a.do(xx); out.Applied || !a.rec.Absent() {
		t.Errorf("XX made a key: %+v", out)
	}
	if out := a.do(nx); !out.Applied || out.HadOld || out.Old != nil {
		t.Errorf("NX on no key: %+v", out)
	}
	if out := a.do(nx); out.Applied || !out.HadOld || string(out.Old) != "n" || out.Dot != (Dot{}) {
		t.Errorf("NX GET on a key: %+v", out)
	}
	a.set("m", testNowMS+10)
	if out := a.do(xx); !out.Applied || !out.HadOld || out.Old != nil || out.OldExpireAtMS != testNowMS+10 {
		t.Errorf("XX on a key: %+v", out)
	}
	a.want("x", 0)
	a.set("short", testNowMS+10)
	a.nowMS += 10
	if out := a.do(nx); !out.Applied || out.HadOld {
		t.Errorf("NX on an expired key: %+v", out)
	}
	a.want("n", 0)
	a.set("", 0)
	if out := a.do(Op{Kind: OpSet, Value: []byte("v"), ReturnOld: true}); out.Old == nil || len(out.Old) != 0 {
		t.Errorf("the old empty value reads as none: %+v", out)
	}
}

func TestSetExpiryModes(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	keep := Op{Kind: OpSet, Value: []byte("k"), Expiry: ExpiryKeep}
	a.do(keep)
	a.want("k", 0)
	a.set("v", testNowMS+100)
	a.do(keep)
	a.want("k", testNowMS+100)
	a.set("w", 0)
	a.want("w", 0)
	a.set("v", testNowMS+100)
	a.do(Op{Kind: OpExpire})
	a.do(keep)
	a.want("k", 0)
	if v := a.rec.Versions[0]; v.Expiry != (Cell{}) {
		t.Errorf("KEEPTTL carried an empty cell over: %v", v.Expiry)
	}
}

// SET with a time that has passed is OK and shows no key. It is a write all the
// same: it replaces older copies, and by a clock that is behind it is there.
func TestSetInThePastIsAbsentFromTheStart(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{-1, 0, 1, testNowMS} {
		a := newApplier(t)
		op := Op{Kind: OpSet, Value: []byte("p"), Expiry: ExpiryAt, ExpireAtMS: at}
		absent := func(r Record) bool {
			_, now := r.Winner(testNowMS)
			_, earlier := r.Winner(min(max(at, 1), testNowMS) - 1)
			return !now && earlier && len(r.Versions) == 1
		}
		if out := a.do(op); !out.Applied || out.Live != 0 || !absent(a.rec) {
			t.Errorf("at %d on no key: %+v %v", at, out, a.rec)
		}
		before := Record{}.Put(Write{Dot: Dot{1, 1}, HLC: 1, Value: []byte("o")})
		a.rec = Merge(a.rec, before)
		if out := a.do(op); !out.Applied || !absent(a.rec) {
			t.Errorf("at %d on a key: %+v %v", at, out, a.rec)
		}
		if got := Merge(before, a.rec); !absent(got) {
			t.Errorf("the old value came back: %v", got)
		}
	}
}

func TestDeleteFollowsRedis(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	del := Op{Kind: OpDelete, ReturnOld: true}
	if out := a.do(del); out.Applied || out.HadOld || out.Old != nil || !a.rec.Absent() {
		t.Errorf("no key: %+v", out)
	}
	a.set("v", testNowMS+10)
	if out := a.do(del); !out.Applied || !out.HadOld || string(out.Old) != "v" || !a.rec.Tombstone() || out.HLC == 0 {
		t.Errorf("a key: %+v", out)
	}
	if out := a.do(del); out.Applied || out.HadOld {
		t.Errorf("a tombstone: %+v", out)
	}
	a.set("v", testNowMS+10)
	a.nowMS += 10
	// Nothing to count; but by a clock that is behind it is not over yet, and
	// somebody may have extended it there.
	expired := a.rec
	if out := a.do(del); !out.Applied || out.HadOld || !a.rec.Tombstone() {
		t.Errorf("an expired key: %+v", out)
	}
	extended := expired.SetExpiry(expired.Versions[0].Dot, Cell{HLC: expired.MaxHLC() + 1, AtMS: testNowMS + 1000})
	if got := Merge(a.rec, extended); !got.Tombstone() {
		t.Errorf("a deleted key came back, extended: %v", got)
	}
	// An expired winner hides an older sibling from GET. DEL finds no key to
	// count, and still has to remove it.
	a.rec = expired
	a.rec = Merge(a.rec, Record{}.Put(Write{Dot: Dot{1, 1}, HLC: 1, Value: []byte("older")}))
	a.want("-", 0)
	if out := a.do(del); !out.Applied || out.HadOld || !a.rec.Tombstone() {
		t.Errorf("a hidden sibling: %+v %v", out, a.rec)
	}
}

// A connection deletes a value that it has read, at replicas that have not got
// it yet. The value is still on its way and must not arrive.
func TestDeleteRemembersWhatTheClientHasSeen(t *testing.T) {
	t.Parallel()
	read := Record{}.Put(Write{Dot: Dot{testActor, 1}, HLC: 1, Value: []byte("v")})
	for _, explicit := range []bool{false, true} {
		a := newApplier(t)
		a.counter = 1
		out := a.do(Op{Kind: OpDelete, Explicit: explicit, Context: read.ReadToken().Context})
		if !out.Applied || out.HadOld || !a.rec.Amnesia {
			t.Errorf("explicit %v: %+v %v", explicit, out, a.rec)
		}
		if got := Merge(a.rec, read); !got.Tombstone() {
			t.Errorf("explicit %v: the value arrived: %v", explicit, got)
		}
		a.counter = 8
		a.set("w", 0)
		if a.rec.Amnesia || !a.rec.Context.Equal(Context{{testActor, 1, 1}, {testActor, 9, 9}}) {
			t.Errorf("explicit %v: the lineage claims dots it has not seen: %v", explicit, a.rec.Context)
		}
	}
}

func TestExpireFollowsRedis(t *testing.T) {
	t.Parallel()
	const soon, late = testNowMS + 100, testNowMS + 200
	for _, c := range []struct {
		name        string
		had         int64 // expiry of the key before; -1 = no key
		op          Op
		applied     bool
		wantValue   string
		wantExpires int64
	}{
		{"no key", -1, Op{ExpireAtMS: soon}, false, "-", 0},
		{"set", 0, Op{ExpireAtMS: soon}, true, "v", soon},
		{"shorten", late, Op{ExpireAtMS: soon}, true, "v", soon},
		{"again", soon, Op{ExpireAtMS: soon}, true, "v", soon},
		{"past", late, Op{ExpireAtMS: testNowMS}, true, "-", 0},
		{"before 1970", 0, Op{ExpireAtMS: -1}, true, "-", 0},
		{"persist", soon, Op{}, true, "v", 0},
		{"persist without expiry", 0, Op{}, false, "v", 0},
		{"persist no key", -1, Op{}, false, "-", 0},
		{"NX without", 0, Op{ExpireAtMS: soon, Cond: CondNoExpiry}, true, "v", soon},
		{"NX with", late, Op{ExpireAtMS: soon, Cond: CondNoExpiry}, false, "v", late},
		{"NX past with", late, Op{ExpireAtMS: 1, Cond: CondNoExpiry}, false, "v", late},
		{"NX no key", -1, Op{ExpireAtMS: soon, Cond: CondNoExpiry}, false, "-", 0},
		{"XX without", 0, Op{ExpireAtMS: soon, Cond: CondHasExpiry}, false, "v", 0},
		{"XX with", late, Op{ExpireAtMS: soon, Cond: CondHasExpiry}, true, "v", soon},
		{"GT longer", soon, Op{ExpireAtMS: late, Cond: CondGreater}, true, "v", late},
		{"GT equal", soon, Op{ExpireAtMS: soon, Cond: CondGreater}, false, "v", soon},
		{"GT shorter", late, Op{ExpireAtMS: soon, Cond: CondGreater}, false, "v", late},
		{"GT infinite", 0, Op{ExpireAtMS: late, Cond: CondGreater}, false, "v", 0},
		{"LT longer", soon, Op{ExpireAtMS: late, Cond: CondLess}, false, "v", soon},
		{"LT equal", soon, Op{ExpireAtMS: soon, Cond: CondLess}, false, "v", soon},
		{"LT shorter", late, Op{ExpireAtMS: soon, Cond: CondLess}, true, "v", soon},
		{"LT infinite", 0, Op{ExpireAtMS: late, Cond: CondLess}, true, "v", late},
		{"LT past", 0, Op{ExpireAtMS: 1, Cond: CondLess}, true, "-", 0},
		{"LT no key", -1, Op{ExpireAtMS: soon, Cond: CondLess}, false, "-", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newApplier(t)
			if c.had >= 0 {
				a.set("v", c.had)
			}
			c.op.Kind, c.op.ReturnOld = OpExpire, true
			out := a.do(c.op)
			if out.Applied != c.applied || out.HadOld != (c.had >= 0) || out.HadOld != (string(out.Old) == "v") {
				t.Errorf("got %+v", out)
			}
			if out.OldExpireAtMS != max(c.had, 0) || out.Dot != (Dot{}) {
				t.Errorf("got %+v", out)
			}
			a.want(c.wantValue, c.wantExpires)
		})
	}
}

// An expiry is no rewrite: it must not bring its version back over a concurrent
// SET, and a later command wins even when it shortens.
func TestExpiryIsBoundToItsVersion(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	a.set("v1", 0)
	other := *a
	other.counter = 100
	other.set("v2", 0)
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 5})
	a.rec = Merge(a.rec, other.rec)
	a.want("v2", 0)
	if len(a.rec.Versions) != 1 {
		t.Errorf("got %v", a.rec)
	}

	long, short := *a, *a
	long.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 500})
	short.nowMS++
	short.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 50})
	a.rec = Merge(short.rec, long.rec)
	a.want("v2", testNowMS+50)

	a.nowMS -= 1000 // a clock that went back must not make the command void
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 30})
	a.want("v2", testNowMS+30)
}

// EXPIRE and PERSIST act on all that a client may be shown, and do not wake what
// has expired already.
func TestExpireReachesSiblings(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	a.rec = Record{}.
		Put(Write{Dot: Dot{1, 1}, HLC: 1, Value: []byte("gone"), Expiry: Cell{1, 5}}).
		Put(Write{Dot: Dot{2, 1}, HLC: 2, Value: []byte("old")}).
		Put(Write{Dot: Dot{3, 1}, HLC: 3, Value: []byte("new"), Expiry: Cell{9, testNowMS + 500}})
	was := a.rec
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 20})
	a.want("new", testNowMS+20)
	if got := a.rec.Versions; got[0].Expiry.AtMS != 5 || got[1].Expiry.AtMS != testNowMS+20 {
		t.Errorf("got %v", got)
	}
	if was.Versions[1].Expiry != (Cell{}) {
		t.Error("the old record was modified")
	}
	a.nowMS += 20
	if live := a.rec.Live(a.nowMS); len(live) != 0 {
		t.Errorf("still shown: %v", live)
	}
}

func TestAppendFollowsRedis(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	app := func(s string) Op { return Op{Kind: OpAppend, Value: []byte(s), MaxValue: 6} }
	if out := a.do(app("")); out.Length != 0 || !out.Applied {
		t.Errorf("nothing to no key: %+v", out)
	}
	a.want("", 0)
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 9})
	if out := a.do(app("abc")); out.Length != 3 || out.Dot.Counter != a.counter {
		t.Errorf("got %+v", out)
	}
	was := a.rec
	a.do(app("def"))
	a.want("abcdef", testNowMS+9)
	if string(was.Versions[0].Value) != "abc" {
		t.Error("the old record was modified")
	}
	if _, err := a.try(app("g")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	a.nowMS += 9
	if out := a.do(app("xy")); out.Length != 2 || out.HadOld {
		t.Errorf("to an expired key: %+v", out)
	}
	a.want("xy", 0)
}

func TestSetRangeFollowsRedis(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	at := func(offset int64, s string) Op {
		return Op{Kind: OpSetRange, Offset: offset, Value: []byte(s), MaxValue: 10}
	}
	if out := a.do(at(5, "")); out.Applied || out.Length != 0 || !a.rec.Absent() {
		t.Errorf("nothing to no key: %+v", out)
	}
	if out := a.do(at(2, "ab")); out.Length != 4 {
		t.Errorf("got %+v", out)
	}
	a.want("\x00\x00ab", 0)
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 9})
	if out := a.do(at(0, "X")); out.Length != 4 {
		t.Errorf("got %+v", out)
	}
	a.want("X\x00ab", testNowMS+9)
	if out := a.do(at(6, "Z")); out.Length != 7 {
		t.Errorf("got %+v", out)
	}
	a.want("X\x00ab\x00\x00Z", testNowMS+9)
	if out := a.do(at(100, "")); out.Applied || out.Length != 7 {
		t.Errorf("nothing to a key: %+v", out)
	}
	for _, op := range []Op{at(10, "x"), at(math.MaxInt64, "x"), {Kind: OpSetRange, Offset: math.MaxInt64 - 1, Value: []byte("x")}} {
		if _, err := a.try(op); !errors.Is(err, ErrTooLarge) {
			t.Errorf("offset %d: %v", op.Offset, err)
		}
	}
	if out := a.do(at(9, "x")); out.Length != 10 {
		t.Errorf("up to the limit: %+v", out)
	}
}

func TestSiblingCapsBindOnlyPutsThatGrow(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	put := func(size int, c Context) error {
		_, err := a.try(Op{Kind: OpSet, Value: bytes.Repeat([]byte("s"), size), Explicit: true, Context: c, MaxSiblings: 3, MaxSiblingBytes: 100})
		return err
	}
	if err := put(500, nil); err != nil {
		t.Fatalf("one large value is no sibling: %v", err)
	}
	if err := put(1, nil); !errors.Is(err, ErrTooManySiblings) {
		t.Errorf("bytes: %v", err)
	}
	if err := put(1, a.rec.Context); err != nil {
		t.Errorf("a collapse: %v", err)
	}
	for i := range 2 {
		if err := put(10, nil); err != nil {
			t.Fatalf("sibling %d: %v", i, err)
		}
	}
	was := a.rec
	if err := put(1, nil); !errors.Is(err, ErrTooManySiblings) || !a.rec.Equal(was) {
		t.Errorf("count: %v", err)
	}
	for i := range uint64(5) { // merging is never refused
		a.rec = Merge(a.rec, Record{}.Put(Write{Dot: Dot{99 + Actor(i), 1}, HLC: 1, Value: []byte("m")}))
	}
	if err := put(5, Context{{99, 1, 1}}); err != nil || len(a.rec.Versions) != 8 {
		t.Errorf("replacing one of too many: %v, %d versions", err, len(a.rec.Versions))
	}
	if err := put(80, Context{{100, 1, 1}}); !errors.Is(err, ErrTooManySiblings) {
		t.Errorf("replacing one by many bytes: %v", err)
	}
	a.rec = Merge(a.rec, Record{}.Put(Write{Dot: Dot{77, 1}, HLC: 1, Value: make([]byte, 500)}))
	if err := put(1, Context{{100, 1, 1}}); err != nil {
		t.Errorf("replacing one, with too many bytes merged in: %v", err)
	}
	plain := a.do(Op{Kind: OpSet, Value: []byte("p"), MaxSiblings: 1, MaxSiblingBytes: 1})
	if plain.Live != 1 || len(a.rec.Versions) != 1 {
		t.Errorf("a plain SET collapses: %+v", plain)
	}
}

func TestADotSeenElsewhereIsNotMintedAgain(t *testing.T) {
	t.Parallel()
	set := Op{Kind: OpSet, Value: []byte("v")}
	past := Context{{testActor, 5, 9}}
	r := Record{Context: past}
	for _, n := range []uint64{0, 1, 5, 9} {
		if _, _, err := Apply(r, set, Mint{NowMS: 1, Dot: Dot{testActor, n}}); !errors.Is(err, ErrDotReused) {
			t.Errorf("record, counter %d: %v", n, err)
		}
		op := Op{Kind: OpSet, Explicit: true, Context: past}
		if _, _, err := Apply(Record{}, op, Mint{NowMS: 1, Dot: Dot{testActor, n}}); !errors.Is(err, ErrDotReused) {
			t.Errorf("token, counter %d: %v", n, err)
		}
	}
	if _, _, err := Apply(r, set, Mint{NowMS: 1, Dot: Dot{testActor, 10}}); err != nil {
		t.Error(err)
	}
}

func TestApplyRefusesWhatNoCoordinatorSends(t *testing.T) {
	t.Parallel()
	for _, op := range []Op{
		{}, {Kind: 99}, {Kind: OpSet, Cond: 99}, {Kind: OpSet, Expiry: 99}, {Kind: OpSetRange, Offset: -1},
	} {
		if _, _, err := Apply(Record{}, op, Mint{NowMS: 1, Dot: Dot{1, 1}}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: %v", op, err)
		}
	}
	big := Op{Kind: OpSet, Value: []byte("12345"), MaxValue: 4}
	if _, _, err := Apply(Record{}, big, Mint{NowMS: 1, Dot: Dot{1, 1}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestOpsSayWhatTheyNeed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op           Op
		read, strict bool
	}{
		{Op{Kind: OpSet}, false, false},
		{Op{Kind: OpSet, Expiry: ExpiryAt, ExpireAtMS: 5}, false, false},
		{Op{Kind: OpSet, Explicit: true}, false, false},
		{Op{Kind: OpSet, Expiry: ExpiryKeep}, true, false},
		{Op{Kind: OpSet, Cond: CondAbsent}, true, true},
		{Op{Kind: OpSet, ReturnOld: true}, true, true},
		{Op{Kind: OpDelete}, true, true},
		{Op{Kind: OpDelete, Explicit: true}, false, false},
		{Op{Kind: OpDelete, ReturnOld: true, Explicit: true}, true, true},
		{Op{Kind: OpExpire}, true, false},
		{Op{Kind: OpExpire, Cond: CondGreater}, true, true},
		{Op{Kind: OpAppend}, true, false},
		{Op{Kind: OpSetRange}, true, false},
		{Op{Kind: OpFields}, true, true},
	} {
		if c.op.NeedsRead() != c.read || c.op.Strict() != c.strict {
			t.Errorf("%+v: read %v strict %v", c.op, c.op.NeedsRead(), c.op.Strict())
		}
	}
}

func TestViewsShowTheNewestAndNeverFallThrough(t *testing.T) {
	t.Parallel()
	r := Record{}.
		Put(Write{Dot: Dot{1, 1}, HLC: 3, Value: []byte("b")}).
		Put(Write{Dot: Dot{2, 1}, HLC: 3, Value: []byte("c")}).
		Put(Write{Dot: Dot{3, 1}, HLC: 1, Value: []byte("a")}).
		Put(Write{Dot: Dot{4, 1}, HLC: 2, Value: []byte("b")}).
		Put(Write{Dot: Dot{5, 1}, HLC: 9, Value: []byte("e"), Expiry: Cell{9, 100}})
	show := func(nowMS int64) string {
		var s []string
		for _, v := range r.Live(nowMS) {
			s = append(s, string(v.Value))
		}
		return strings.Join(s, " ")
	}
	if v, ok := r.Winner(99); !ok || string(v.Value) != "e" || show(99) != "e c b a" {
		t.Errorf("before expiry: %q, %q", v.Value, show(99))
	}
	if _, ok := r.Winner(100); ok || show(100) != "c b a" {
		t.Errorf("after expiry: %v, %q", ok, show(100))
	}
	r = r.DropPayload(Dot{5, 1})
	if _, ok := r.Winner(99); ok || show(99) != "c b a" || !r.HasLive() {
		t.Errorf("as a stub: %v, %q", ok, show(99))
	}
	if stub := (Record{}).Put(Write{Dot: Dot{1, 1}}).DropPayload(Dot{1, 1}); stub.HasLive() || stub.Tombstone() || len(stub.Live(0)) != 0 {
		t.Errorf("got %v", stub)
	}
}

func TestStubRegainsItsPayloadFromALongerLife(t *testing.T) {
	t.Parallel()
	r := Record{}.Put(Write{Dot: Dot{1, 1}, HLC: 1, Value: []byte("v"), Expiry: Cell{1, 100}})
	stub, extended := r.DropPayload(Dot{1, 1}), r.SetExpiry(Dot{1, 1}, Cell{2, 500})
	if stub.StateHash() != r.StateHash() {
		t.Error("dropping a payload changed the state hash")
	}
	for _, got := range []Record{Merge(stub, extended), Merge(extended, stub)} {
		if v, ok := got.Winner(200); !ok || string(v.Value) != "v" {
			t.Errorf("got %v", got)
		}
	}
}

func TestLocalFlagsStayLocal(t *testing.T) {
	t.Parallel()
	one := Record{}.Put(Write{Dot: Dot{1, 1}, HLC: 1, Value: []byte("v")})
	two := one.Put(Write{Dot: Dot{1, 2}, HLC: 2, Value: []byte("w"), Cover: one.Context})
	acked := one
	acked.AllAcked = true
	if got := Merge(Record{}, acked); !got.Amnesia || got.AllAcked {
		t.Errorf("created by replication: %+v", got)
	}
	if got := Merge(one, Record{Context: two.Context, Versions: two.Versions, Amnesia: true, AllAcked: true}); got.Amnesia || got.AllAcked {
		t.Errorf("flags came over: %+v", got)
	}
	if got := Merge(acked, one); !got.AllAcked {
		t.Error("a merge without news cleared AllAcked")
	}
	for name, got := range map[string]Record{
		"merge": Merge(acked, two), "put": acked.Put(Write{Dot: Dot{2, 1}}),
		"delete": acked.Delete(acked.Context), "expiry": acked.SetExpiry(Dot{1, 1}, Cell{1, 1}),
	} {
		if got.AllAcked {
			t.Errorf("%s kept AllAcked", name)
		}
	}
	if got := acked.Delete(Context{{1, 1, 1}}).Delete(Context{{1, 1, 1}}); got.Amnesia {
		t.Errorf("deleting a present record gave it amnesia: %+v", got)
	}
	lww := one
	lww.LWW = true
	if Merge(acked, lww).AllAcked {
		t.Error("a policy mark that others lack counts as acked by all")
	}
	if !Merge(one, lww).LWW || !Merge(lww, two).LWW {
		t.Error("the policy mark was lost in a merge")
	}
}

func TestHashTellsAbsentFromTombstone(t *testing.T) {
	t.Parallel()
	a, b := Record{Context: Context{{1, 1, 1}}}, Record{Context: Context{{1, 1, 2}}}
	if (Record{}).StateHash() != 0 || a.StateHash() == 0 || a.StateHash() == b.StateHash() {
		t.Errorf("hashes %x %x %x", Record{}.StateHash(), a.StateHash(), b.StateHash())
	}
	live := Record{}.Put(Write{Dot: Dot{1, 1}, HLC: 1})
	// The same twelve words, once as spans and once as versions.
	dead := Record{Context: Context{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {10, 11, 12}}}
	alive := Record{Versions: []Version{
		{Dot: Dot{1, 2}, Expiry: Cell{3, 4}}, {Dot: Dot{5, 6}, Expiry: Cell{7, 8}}, {Dot: Dot{9, 10}, Expiry: Cell{11, 12}},
	}}
	if dead.StateHash() == alive.StateHash() {
		t.Error("a tombstone hashes as a live record")
	}
	more := live
	more.Context = more.Context.Union(Context{{9, 1, 4}})
	if more.StateHash() != live.StateHash() {
		t.Error("the context of a live record is hashed")
	}
}

func TestARecordIsHollowWhileSomeVersionLacksAPayloadThatHasTimeLeft(t *testing.T) {
	t.Parallel()
	dot := Dot{1, 1}
	r := Record{}.Put(Write{Dot: dot, HLC: 1, Value: []byte("v"), Expiry: Cell{HLC: 1, AtMS: testNowMS}})
	if r.Hollow(testNowMS-1) || !r.DropPayload(dot).Hollow(testNowMS-1) {
		t.Error("a payload that is gone before its time is not missed, or one that is there is")
	}
	if r.DropPayload(dot).Hollow(testNowMS) {
		t.Error("a payload is missed whose time is over")
	}
	if kept := r.DropPayload(dot).SetExpiry(dot, Cell{HLC: 2}); !kept.Hollow(testNowMS) {
		t.Error("a payload is not missed that is to stay for ever")
	}
}
