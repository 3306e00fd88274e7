package version

import "testing"

// TestAWriteIsInARecordThatJoinedIt asks old copies, some of which another node has
// written to, and what they become by joining the write. It is in those to which that
// adds nothing.
func TestAWriteIsInARecordThatJoinedIt(t *testing.T) {
	count := Op{Kind: OpCount, Value: []byte("2")}
	other := func(r Record, op Op, counter uint64) Record {
		t.Helper()
		r, _, err := Apply(r, op, Mint{NowMS: testNowMS, HLC: HLCFromMS(testNowMS), Dot: Dot{0xb, counter}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, x := range []struct {
		name  string
		first []Op
		op    Op
	}{
		{"set", []Op{{Kind: OpSet, Value: []byte("7")}}, Op{Kind: OpSet, Value: []byte("w")}},
		{"delete", []Op{{Kind: OpSet, Value: []byte("7")}}, Op{Kind: OpDelete}},
		{"delete of a counter", []Op{count}, Op{Kind: OpDelete}},
		{"delete of both", []Op{{Kind: OpSet, Value: []byte("7")}, count}, Op{Kind: OpDelete}},
		{"expiry", []Op{{Kind: OpSet, Value: []byte("7")}}, Op{Kind: OpExpire, ExpireAtMS: testNowMS + 5000}},
		{"expiry of a counter", []Op{count}, Op{Kind: OpExpire, ExpireAtMS: testNowMS + 5000}},
		{"a past expiry", []Op{{Kind: OpSet, Value: []byte("7")}}, Op{Kind: OpExpire, ExpireAtMS: -1}},
		{"persist", []Op{{Kind: OpSet, Value: []byte("7"), Expiry: ExpiryAt, ExpireAtMS: testNowMS + 9}}, Op{Kind: OpExpire}},
		{"count", []Op{{Kind: OpSet, Value: []byte("7")}, count}, count},
	} {
		a := newApplier(t)
		for _, op := range x.first {
			a.do(op)
		}
		old := a.rec
		out := a.do(x.op)
		w := Wrote{Kind: x.op.Kind, HLC: out.HLC, Token: out.Token}
		for i, stale := range []Record{{}, old, other(old, Op{Kind: OpAppend, Value: []byte("1")}, 1), other(old, count, 2)} {
			joined := Merge(stale, a.rec)
			if got, want := w.In(stale), joined.Equal(stale); got != want {
				t.Errorf("%s: seen in copy %d: %t, want %t: %+v", x.name, i, got, want, stale)
			}
			if !w.In(joined) {
				t.Errorf("%s: not seen in copy %d that joined it: %+v", x.name, i, joined)
			}
		}
	}
}

// TestAnExpiryIsNotAskedOfWhatWasOver has a sibling past its time beside the winner.
func TestAnExpiryIsNotAskedOfWhatWasOver(t *testing.T) {
	a := newApplier(t)
	a.set("old", testNowMS-1)
	a.do(Op{Kind: OpSet, Value: []byte("new"), Explicit: true})
	out := a.do(Op{Kind: OpExpire, ExpireAtMS: testNowMS + 5000})
	if w := (&Wrote{Kind: OpExpire, HLC: out.HLC, Token: out.Token}); len(a.rec.Versions) != 2 || !w.In(a.rec) {
		t.Errorf("not seen in %+v", a.rec)
	}
}
