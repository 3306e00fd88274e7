package version

import "testing"

func TestGlimpseTellsWhetherTheKeyWasWritten(t *testing.T) {
	const now = 1_000_000
	counter := uint64(0)
	do := func(r Record, op Op) Record {
		t.Helper()
		counter++
		out, _, err := Apply(r, op, Mint{NowMS: now, HLC: HLCFromMS(now) + HLC(counter), Dot: Dot{Actor: 7, Counter: counter}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	set := func(r Record, value string) Record { return do(r, Op{Kind: OpSet, Value: []byte(value)}) }
	there := set(Record{}, "v")
	gone := do(there, Op{Kind: OpDelete})
	fleeting := do(Record{}, Op{Kind: OpSet, Value: []byte("v"), Expiry: ExpiryAt, ExpireAtMS: now + 10})
	dropped := fleeting.DropPayload(fleeting.Versions[0].Dot)
	wider := there
	wider.Context = there.Context.Add(Dot{Actor: 9, Counter: 1})
	for _, c := range []struct {
		name       string
		then, read Record
		later      int64 // ms until the read
		want       bool
	}{
		{"nothing happened", there, there, 1, false},
		{"never there", Record{}, Record{}, 1, false},
		{"the same value again", there, set(there, "v"), 1, true},
		{"created", Record{}, there, 1, true},
		{"deleted", there, gone, 1, true},
		{"created and deleted", Record{}, gone, 1, true},
		{"deleted already", gone, gone, 1, false},
		{"written and deleted again", gone, do(set(gone, "w"), Op{Kind: OpDelete}), 1, true},
		{"a tombstone was reaped", gone, Record{}, 1, false},
		{"given an expiry", there, do(there, Op{Kind: OpExpire, ExpireAtMS: now + 99}), 1, true},
		{"its time came", fleeting, fleeting, 10, true},
		{"its time came, and the payload was dropped", fleeting, dropped, 10, true},
		{"a sibling came", there, Merge(there, do(Record{}, Op{Kind: OpSet})), 1, true},
		{"an older copy was read", set(there, "w"), there, 1, true},
		{"another copy knows more of the past", there, wider, 1, false},
	} {
		if got := c.then.Glimpse(now).Changed(c.read, now+c.later); got != c.want {
			t.Errorf("%s: changed %t", c.name, got)
		}
	}
	if late := fleeting.Glimpse(now + 10); late.Changed(dropped, now+20) {
		t.Error("an expired key counts as changed when its payload is dropped")
	}
}
