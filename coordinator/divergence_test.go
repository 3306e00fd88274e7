package coordinator

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// counts are the counts of a histogram.
func counts(buckets []Bucket) (list []uint64) {
	for _, b := range buckets {
		list = append(list, b.Count)
	}
	return list
}

// siblings is a record with n live versions, a minute apart, the last of them
// made at an instant.
func siblings(n int, last time.Time) (rec version.Record) {
	for i := range n {
		at := last.Add(time.Duration(i+1-n) * time.Minute)
		rec = version.Merge(rec, version.Record{}.Put(version.Write{
			Dot: version.Dot{Actor: version.Actor(50 + i), Counter: 1}, HLC: version.HLCFromMS(at.UnixMilli()), Value: fmt.Append(nil, i),
		}))
	}
	return rec
}

func TestClientReadsAreCountedByTheVersionsTheyShow(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		at := r.owners(key)[0]
		for n := range 10 {
			k := fmt.Sprintf("{k}%d", n)
			for _, o := range r.owners(k) {
				o.put(k, siblings(n, time.Now()))
			}
			if _, err := at.read(k, ReadOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		// What a write reads for itself shows nothing to anybody.
		if _, err := at.write("{k}9", version.Op{Kind: version.OpAppend, Value: []byte("+")}, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		d := at.coord.Divergence()
		if got, want := counts(d.Versions), []uint64{1, 1, 1, 1, 4, 2}; !slices.Equal(got, want) {
			t.Errorf("versions %+v, want %v", d.Versions, want)
		}
		if want := uint64(1 + 2 + 3 + 4 + 5 + 6 + 7 + 8); d.Siblings != want || d.DivergentReads != 0 || d.RepairsBegun != 0 {
			t.Errorf("%d siblings, want %d; %d divergent reads, %d repairs", d.Siblings, want, d.DivergentReads, d.RepairsBegun)
		}
		var names []string
		for _, b := range d.Versions {
			names = append(names, b.Name)
		}
		if want := []string{"0", "1", "2", "3", "4-7", "8+"}; !slices.Equal(names, want) {
			t.Errorf("buckets %q, want %q", names, want)
		}
	})
}

func TestRepairsAreCountedByWhatTheOwnerMissed(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		at := owners[0]
		for i, age := range []time.Duration{3 * time.Millisecond, 50 * time.Millisecond, time.Hour} {
			k := fmt.Sprintf("{k}%d", i)
			rec := siblings(1, time.Now().Add(-age))
			for _, o := range owners[:2] {
				o.put(k, rec)
			}
			if _, err := at.read(k, ReadOptions{R: 3}); err != nil {
				t.Fatal(err)
			}
		}
		// One that has the newest of three misses the oldest, two minutes old.
		three := siblings(3, time.Now())
		at.put("{k}three", three)
		owners[1].put("{k}three", three)
		owners[2].put("{k}three", version.Record{}.Put(version.Write{
			Dot: three.Versions[2].Dot, HLC: three.Versions[2].HLC, Value: three.Versions[2].Value,
		}))
		// And one that misses a delete misses no version.
		owners[2].put("{k}gone", siblings(1, time.Now()))
		for _, o := range owners[:2] {
			o.put("{k}gone", siblings(1, time.Now()).Delete(siblings(1, time.Now()).Context))
		}
		for _, k := range []string{"{k}three", "{k}gone"} {
			if _, err := at.read(k, ReadOptions{R: 3}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		d := at.coord.Divergence()
		if got, want := counts(d.Staleness), []uint64{1, 1, 0, 0, 0, 1, 1}; !slices.Equal(got, want) || d.StalenessUnknown != 1 {
			t.Errorf("staleness %+v and %d unknown, want %v and 1", d.Staleness, d.StalenessUnknown, want)
		}
		if d.DivergentReads != 5 || d.RepairsBegun != 5 || d.RepairsDone != 5 || d.RepairsFailed != 0 {
			t.Errorf("%+v", d)
		}
	})
}

func TestAFailedRepairIsCountedAndMayBeRepeated(t *testing.T) {
	inBubble(t, 3, Config{MinHedge: time.Second}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[0].put(key, siblings(1, time.Now()))
		owners[1].put(key, siblings(1, time.Now()))
		for _, f := range []fault{broken, healthy} {
			owners[2].mu.disk = f
			if _, err := owners[0].read(key, ReadOptions{R: 3}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if d := owners[0].coord.Divergence(); d.RepairsBegun != 2 || d.RepairsDone != 1 || d.RepairsFailed != 1 {
			t.Errorf("%+v", d)
		}
		if value(owners[2].get(key, 0)) == "" {
			t.Error("the second repair did not arrive")
		}
	})
}

// Large records would make a bound by number alone a very large one.
func TestRepairsAreBoundedByBytes(t *testing.T) {
	inBubble(t, 3, Config{RepairBytes: 2500, MinHedge: time.Second}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[0].mu.delay = 50 * time.Millisecond
		large := version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 50, Counter: 1}, HLC: 1, Value: make([]byte, 1000)})
		read := func(keys ...string) {
			var all []*reply[ReadResult]
			for _, k := range keys {
				owners[1].put(k, large)
				got := newReply[ReadResult](t)
				owners[0].coord.Read([]byte(k), ReadOptions{}, got.take)
				all = append(all, got)
			}
			for _, got := range all {
				<-got.done
			}
			time.Sleep(60 * time.Millisecond)
			synctest.Wait()
		}
		read("{k}1", "{k}2", "{k}3", "{k}4")
		if d := owners[0].coord.Divergence(); d.RepairsBegun != 2 || d.RepairsDropped < 2 {
			t.Errorf("begun %d, dropped %d; two records fit", d.RepairsBegun, d.RepairsDropped)
		}
		large = version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 50, Counter: 2}, HLC: 1, Value: make([]byte, 5000)})
		time.Sleep(time.Minute)
		read("{k}5")
		if d := owners[0].coord.Divergence(); d.RepairsBegun != 3 {
			t.Errorf("a record larger than the bound is never repaired: %+v", d)
		}
	})
}

func TestHintsAreCountedByWhatBecameOfThem(t *testing.T) {
	inBubble(t, 4, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		r.seen(owners[1])
		r.seen(owners[2])
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d := owners[0].coord.Divergence(); d.HintsStored != 1 || d.HintsKept != 1 || d.HintsFailed != 0 {
			t.Errorf("one fallback for two dead owners: %+v", d)
		}
		other.set(broken)
		if _, err := owners[0].write(key, set("w"), WriteOptions{W: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d := owners[0].coord.Divergence(); d.HintsStored != 1 || d.HintsFailed != 1 || d.HintsKept != 3 {
			t.Errorf("the fallback fails: %+v", d)
		}
		other.set(healthy)
		r.seen(owners[0])
		if _, err := other.write(key, set("x"), WriteOptions{W: 1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d := other.coord.Divergence(); d.HintsStored != 1 || d.HintsKept != 2 {
			t.Errorf("a fallback coordinates, alone: %+v", d)
		}
	})
}
