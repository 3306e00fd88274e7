package version

import (
	"errors"
	"math"
	"strconv"
	"testing"
)

func (a *applier) count(d int64) Outcome {
	a.t.Helper()
	return a.do(Op{Kind: OpCount, Value: strconv.AppendInt(nil, d, 10)})
}

func (a *applier) countFloat(text string) Outcome {
	a.t.Helper()
	return a.do(Op{Kind: OpCountFloat, Value: []byte(text)})
}

// refuse demands that op fails and changes nothing.
func (a *applier) refuse(op Op, want error) {
	a.t.Helper()
	if _, err := a.try(op); !errors.Is(err, want) {
		a.t.Errorf("%+v: %v, want %v", op, err, want)
	}
}

func TestCountingIsWhatRedisDoes(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	if out := a.count(1); string(out.Now) != "1" || out.HadOld || out.Live != 1 || out.Dot.Counter != 1 {
		t.Errorf("got %+v", out)
	}
	a.want("1", 0)
	a.count(41)
	a.want("42", 0)
	a.set("100", 0)
	a.want("100", 0)
	if out := a.count(-1); string(out.Now) != "99" || !out.HadOld {
		t.Errorf("got %+v", out)
	}
	a.do(Op{Kind: OpAppend, Value: []byte("9")})
	a.want("999", 0)
	a.count(1)
	a.want("1000", 0)
	a.do(Op{Kind: OpDelete})
	a.want("-", 0)
	if a.rec.HasLive() || !a.rec.Tombstone() {
		t.Errorf("something is left of %v", a.rec)
	}
	a.count(0)
	a.want("0", 0)
	if len(a.rec.Versions) != 0 || len(a.rec.Counter.Addends) != 1 {
		t.Errorf("counting left %v", a.rec)
	}
	a.set("v", 0)
	a.refuse(Op{Kind: OpCount, Value: []byte("1")}, ErrNotInteger)
	a.refuse(Op{Kind: OpCountFloat, Value: []byte("1")}, ErrNotFloat)
	a.refuse(Op{Kind: OpCount, Value: []byte("1.5")}, ErrNotInteger)
	a.refuse(Op{Kind: OpCountFloat, Value: []byte("x")}, ErrNotFloat)
	a.set("9223372036854775807", 0)
	a.refuse(Op{Kind: OpCount, Value: []byte("1")}, ErrOverflow)
	a.count(math.MinInt64)
	a.want("-1", 0)
	a.count(math.MinInt64 + 1)
	a.refuse(Op{Kind: OpCount, Value: []byte("-1")}, ErrOverflow)
	a.want("-9223372036854775808", 0)
}

func TestCountingWithFractionsPrintsWhatRedisPrints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ was, add, want string }{
		{"", "1.5", "1.5"}, {"10", "3.0", "13"}, {"13", "+0.1", "13.1"}, {"13.1", "+1e2", "113.1"},
		{"5", "1e-17", "5.00000000000000001"}, {"3", "1.1", "4.1"}, {"3.0", "0", "3"}, {"5.0e3", "2.0e2", "5200"},
		{"1000000000000000.1", "0", "1000000000000000.0999755859375"}, {"0.1", "0.2", "0.3"},
		{"17179869184", "1.5", "17179869185.5"}, {"-0.5", "0.5", "0"}, {"007", "1", "8"},
	} {
		a := newApplier(t)
		if c.was != "" {
			a.set(c.was, 0)
		}
		if out := a.countFloat(c.add); string(out.Now) != c.want {
			t.Errorf("%q + %s = %s, want %s", c.was, c.add, out.Now, c.want)
		}
		a.want(c.want, 0)
	}
	a := newApplier(t)
	for _, step := range []struct{ add, want string }{{"0.1", "0.1"}, {"0.2", "0.3"}, {"1", "1.3"}, {"-1e-17", "1.29999999999999999"}} {
		a.countFloat(step.add)
		a.want(step.want, 0)
	}
	a.refuse(Op{Kind: OpCount, Value: []byte("1")}, ErrNotInteger)
	a.refuse(Op{Kind: OpCountFloat, Value: []byte("inf")}, ErrNotFinite)
	a.refuse(Op{Kind: OpCountFloat, Value: []byte("1e21")}, ErrNotFinite)
	a.set("1e21", 0)
	a.refuse(Op{Kind: OpCountFloat, Value: []byte("1")}, ErrNotFinite)
}

func TestWhatIsCountedLivesAsLongAsWhatItIsAddedTo(t *testing.T) {
	t.Parallel()
	soon, later := testNowMS+1000, testNowMS+5000
	a := newApplier(t)
	a.set("10", soon)
	a.count(1)
	a.want("11", soon)
	a.do(Op{Kind: OpExpire, ExpireAtMS: later})
	a.want("11", later)
	a.count(1)
	a.nowMS = later
	a.want("-", 0)
	if got := a.rec.CounterDueMS(); got != later {
		t.Errorf("due at %d", got)
	}
	a.rec = a.rec.DropPayload(a.rec.Versions[0].Dot).DropCounter()
	if a.rec.HasLive() || a.rec.CounterDueMS() != 0 {
		t.Errorf("something is left of %v", a.rec)
	}
	if out := a.count(5); string(out.Now) != "5" || out.HadOld {
		t.Errorf("got %+v", out)
	}
	a.want("5", 0)
	if !a.rec.HasLive() || len(a.rec.Versions) != 0 {
		t.Errorf("got %v", a.rec)
	}
	a.do(Op{Kind: OpExpire, ExpireAtMS: later + 10})
	a.want("5", later+10)
	a.do(Op{Kind: OpExpire})
	a.want("5", 0)
	a.do(Op{Kind: OpExpire, ExpireAtMS: later + 20})
	a.nowMS += 20
	a.want("-", 0)
	a.set("7", a.nowMS+30)
	a.count(1)
	a.want("8", a.nowMS+30)
	a.do(Op{Kind: OpSet, Value: []byte("1"), Expiry: ExpiryKeep})
	a.want("1", a.nowMS+30)
}

// What was counted on a value that never expires, after an EXPIRE that another value
// did not see, begins anew when its time is over.
func TestAnExpiredCountIsNotCountedOn(t *testing.T) {
	t.Parallel()
	a := newApplier(t)
	a.count(3)
	a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 10})
	b := Record{}.Put(Write{Dot: Dot{7, 1}, HLC: HLCFromMS(testNowMS), Value: []byte("100")})
	a.rec = Merge(a.rec, b)
	a.want("103", 0)
	a.nowMS += 10
	a.want("100", 0)
	a.count(1)
	a.want("101", 0)
	a.count(1)
	a.want("102", 0)
}

// actors run ops at three coordinators that merge when they are told to.
type actors struct {
	t    *testing.T
	at   [3]Record
	next uint64
}

func (s *actors) do(i int, op Op) Outcome {
	s.t.Helper()
	s.next++
	now := testNowMS + int64(s.next)
	rec, out, err := Apply(s.at[i], op, Mint{NowMS: now, HLC: HLCFromMS(now), Dot: Dot{Actor(i + 1), s.next}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.at[i] = rec
	return out
}

func (s *actors) count(i int, d int64) Outcome {
	s.t.Helper()
	return s.do(i, Op{Kind: OpCount, Value: strconv.AppendInt(nil, d, 10)})
}

// want merges all and checks what each shows then.
func (s *actors) want(text string) {
	s.t.Helper()
	for range 2 {
		for i := range s.at {
			for j := range s.at {
				wire, err := DecodeRecord(EncodeWire(nil, s.at[j]))
				if err != nil {
					s.t.Fatal(err)
				}
				if i != j {
					s.at[i] = Merge(s.at[i], wire)
				}
			}
		}
	}
	for i := range s.at {
		v, _ := s.at[i].Winner(testNowMS + int64(s.next))
		if string(v.Value) != text || s.at[i].StateHash() != s.at[0].StateHash() {
			s.t.Errorf("at %d: %q, want %q: %v", i, v.Value, text, s.at[i])
		}
	}
}

func TestCountsAtManyCoordinatorsAddUp(t *testing.T) {
	t.Parallel()
	s := &actors{t: t}
	for i := range s.at {
		s.count(i, int64(i+1))
		s.count(i, 10)
	}
	s.want("36")
	s.do(0, Op{Kind: OpCountFloat, Value: []byte("0.5")})
	s.do(1, Op{Kind: OpCountFloat, Value: []byte("0.25")})
	s.want("36.75")
	s.do(2, Op{Kind: OpSet, Value: []byte("1000")})
	s.do(0, Op{Kind: OpCountFloat, Value: []byte("1")}) // has not seen it
	s.want("1001")
	if live := s.at[1].Live(testNowMS + int64(s.next)); len(live) != 1 {
		t.Errorf("%d versions", len(live))
	}
}

func TestADeleteLeavesWhatItHasNotSeen(t *testing.T) {
	t.Parallel()
	s := &actors{t: t}
	s.count(0, 41)
	s.want("41")
	s.do(1, Op{Kind: OpDelete})
	s.count(0, 20)
	s.want("20")
	tok := s.at[0].ReadToken()
	s.count(1, 5)
	s.do(2, Op{Kind: OpDelete, Explicit: true, Context: tok.Context, Addends: tok.Addends})
	s.want("5")
	// The connection that counted at 1 has seen what it counted.
	out := s.count(1, 1)
	s.do(2, Op{Kind: OpSet, Value: []byte("0"), Context: out.Token.Context, Addends: out.Token.Addends})
	s.want("0")
}

func TestSiblingsAreCountedOnWhereTheyAreNumbers(t *testing.T) {
	t.Parallel()
	s := &actors{t: t}
	for i, text := range []string{"7", "x", "9"} {
		s.do(i, Op{Kind: OpSet, Value: []byte(text)})
	}
	s.want("9")
	s.count(1, 1)
	s.want("10")
	live := s.at[0].Live(testNowMS + int64(s.next))
	if len(live) != 3 || string(live[0].Value) != "10" || string(live[1].Value) != "x" || string(live[2].Value) != "8" {
		t.Errorf("got %v", live)
	}
}

// A row that was dropped and came back by replication does not go on with the addend
// that it once had: others may have more of it.
func TestARowThatCameBackBeginsAnAddendOfItsOwn(t *testing.T) {
	t.Parallel()
	s := &actors{t: t}
	s.count(0, 1)
	old := EncodeWire(nil, s.at[0])
	s.count(0, 2)
	s.at[1] = s.at[0] // handed over
	back, err := DecodeRecord(old)
	if err != nil {
		t.Fatal(err)
	}
	s.at[0] = Merge(Record{}, back)
	s.count(0, 4)
	s.want("7")
	if len(s.at[0].Counter.Addends) != 2 {
		t.Errorf("got %+v", s.at[0].Counter)
	}
}

func sampleAddends() []Addend {
	half := wholeAmount(1)
	half.hi, half.lo = 0, amountOne/2
	return []Addend{
		{Actor: 0xa1, Start: 3, Top: 9, HLC: HLCFromMS(testNowMS), Total: wholeAmount(-5), Seen: 7, Base: half},
		{Actor: 0xb2, Start: 300, Top: 300, HLC: HLCFromMS(testNowMS + 1), Total: wholeAmount(1000)},
	}
}

func sampleCounter() Record {
	r := sampleRecord()
	r.Counter = Counter{Addends: sampleAddends(), Expiry: Cell{HLC: HLCFromMS(testNowMS + 3), AtMS: testNowMS + 9}, Stub: true, Own: 3}
	return r
}
