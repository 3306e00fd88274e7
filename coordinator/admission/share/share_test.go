package share

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestABucketHoldsWhatIsBelowItsEnd(t *testing.T) {
	for us := int64(0); us < 30_000_000; us += 1 + us/50 {
		b := Bucket(us)
		if us >= upper(b) || b > 0 && us < upper(b-1) {
			t.Fatalf("%d us is in bucket %d, which ends at %d", us, b, upper(b))
		}
		if us > 100 && float64(upper(b)) > 1.13*float64(us) {
			t.Errorf("%d us may be taken for %d", us, upper(b))
		}
	}
	for us, want := range map[int64]int{-1: 0, 0: 0, 1 << 40: Buckets - 1} {
		if got := Bucket(us); got != want {
			t.Errorf("%d us is in bucket %d, want %d", us, got, want)
		}
	}
}

func TestP99IsTheOneOfTheSortedList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var c Counts
		var list []int64
		for range 200 + rng.IntN(2000) {
			us := int64(rng.ExpFloat64() * 3000)
			list = append(list, us)
			c[Bucket(us)]++
		}
		slices.Sort(list)
		want := list[len(list)-len(list)/100-1]
		if got := c.p99(); got < want || float64(got) > 1.3*float64(want)+1 {
			t.Errorf("p99 of %d latencies is %d us, want about %d", len(list), got, want)
		}
	}
	if got := new(Counts).p99(); got != 0 {
		t.Errorf("p99 of nothing is %d", got)
	}
}

// load is n requests of which all took us microseconds.
func load(n int, us int64) (c Counts) {
	c[Bucket(us)] = float64(n)
	return c
}

// phase is a time in which everything stays as it is.
type phase struct {
	slices int
	slice  Slice
	least  float64 // bounds of the share at its end
	most   float64
}

func steady(n int, us int64, quiet bool) Slice {
	return Slice{Ended: [Sources]Counts{load(n, us)}, Quiet: quiet}
}

func TestShareFollowsTheLatency(t *testing.T) {
	calm, fine, slow := steady(100, 10_000, true), steady(100, 12_000, false), steady(100, 40_000, false)
	quick := steady(100, 2000, false)
	for name, phases := range map[string][]phase{
		"clients that come seldom":    {{150, steady(2, 10_000, true), Floor, Floor}, {60, steady(2, 40_000, false), Floor, Floor}},
		"no clients":                  {{50, Slice{}, 1, 1}},
		"few clients, however slow":   {{1, steady(40, 900_000, false), 1, 1}},
		"nothing in the background":   {{200, calm, Floor, Floor}},
		"harmless work":               {{100, calm, Floor, Floor}, {1, fine, Floor, Floor + 2*grow}, {50, calm, Floor, Floor + 2*grow}, {30, fine, Most, Most}, {300, fine, Most, Most}},
		"work after a rest":           {{100, calm, Floor, Floor}, {50, fine, Most, Most}, {window - 1, calm, Most, Most}, {1, calm, Floor, Floor}},
		"clients come to work":        {{50, Slice{}, 1, 1}, {1, quick, Floor, Floor}, {50, quick, Most, Most}},
		"below the floor of targets":  {{100, steady(100, 400, true), Floor, Floor}, {200, steady(100, 4000, false), Most, Most}},
		"harmful work":                {{100, calm, Floor, Floor}, {50, fine, Most, Most}, {4, slow, Floor, Floor}, {300, slow, Floor, Floor}},
		"harm ended":                  {{100, calm, Floor, Floor}, {20, slow, Floor, Floor}, {95, fine, Floor, Floor}, {30, fine, Most, Most}},
		"clients gone":                {{100, calm, Floor, Floor}, {20, slow, Floor, Floor}, {window, Slice{}, 1, 1}},
		"the disk stalls":             {{100, calm, Floor, Floor}, {50, fine, Most, Most}, {10, Slice{Ended: fine.Ended, Stalled: true}, Floor, Floor}},
		"a stall without clients":     {{10, Slice{Stalled: true}, Floor, Floor}, {1, Slice{}, 1, 1}},
		"a crowd that has not ended":  {{10, Slice{}, 1, 1}, {1, Slice{InFlight: crowd + 1}, Floor, Floor}, {300, Slice{InFlight: crowd + 1}, Floor, Floor}},
		"what other nodes ask counts": {{100, Slice{Ended: [Sources]Counts{{}, load(100, 3000)}, Quiet: true}, Floor, Floor}, {30, Slice{Ended: [Sources]Counts{{}, load(100, 3000)}}, Most, Most}, {20, Slice{Ended: [Sources]Counts{{}, load(100, 90_000)}}, Floor, Floor}},
		"more clients are no fault":   {{100, calm, Floor, Floor}, {500, steady(100, 60_000, true), Floor, Floor}, {50, steady(100, 60_000, false), Most, Most}},
	} {
		c := New(1.5, 5000)
		for i, p := range phases {
			var v Verdict
			for range p.slices {
				v = c.Next(&p.slice)
				if v.Share < Floor || v.Share > 1 {
					t.Fatalf("%s: share %v", name, v.Share)
				}
			}
			if v.Share < p.least || v.Share > p.most {
				t.Errorf("%s: after phase %d the share is %.3f, want %v to %v; %+v", name, i, v.Share, p.least, p.most, v)
			}
		}
	}
}

// TestAHeavyLoadIsForgotten has a node filled by large pipelines, whose commands
// wait for each other, before the clients come that work is to be no harm to.
func TestAHeavyLoadIsForgotten(t *testing.T) {
	c := New(1.5, 5000)
	bulk, calm := steady(2000, 25_000, true), steady(7, 8000, true)
	for range 600 {
		c.Next(&bulk)
	}
	var v Verdict
	for i := range 150 {
		if v = c.Next(&calm); i > 2*block && v.TargetUS > 13_500 {
			t.Fatalf("after %d slices the target is %d us, want 1.5 times 8 ms", i, v.TargetUS)
		}
	}
	if !v.Measured || v.TargetUS < 12_000 {
		t.Errorf("%+v", v)
	}
}

// TestPausesFindTheBaseline has a node that never was quiet: its target is a
// guess until a pause shows what clients see without background work.
func TestPausesFindTheBaseline(t *testing.T) {
	c := New(1.5, 5000)
	v := Verdict{Share: 1}
	paused, sum := 0, 0.0
	for i := range 600 {
		s := steady(100, 20_000, true)
		if !v.Pause {
			s = steady(100, 20_000+int64(20_000*v.Share), false)
		}
		s.WallMS = int64(i * SliceMS)
		if v = c.Next(&s); v.Pause {
			paused++
		}
		sum += v.Share
		if i == 60 && !v.Measured {
			t.Error("after 6 s there is no baseline")
		}
	}
	if v.TargetUS < 30_000 || v.TargetUS > 36_000 {
		t.Errorf("the target is %d us, want 1.5 times 20 ms", v.TargetUS)
	}
	if mean := sum / 600; mean < 1.5*Floor || mean > 0.6 {
		t.Errorf("the mean share is %.2f; half of the harm is allowed", mean)
	}
	if paused < 20 || paused > 100 {
		t.Errorf("%d of 600 slices were pauses", paused)
	}
}

// TestHarmDoneByOtherNodesIsNotTheBaseline has a node whose work comes and goes while
// others work on and on: its clients are served as slowly when it rests alone. One of the
// pauses that all take is disturbed.
func TestHarmDoneByOtherNodesIsNotTheBaseline(t *testing.T) {
	c := New(1.5, 5000)
	calm := steady(9, 8000, true)
	for range 120 {
		c.Next(&calm)
	}
	var v Verdict
	paused, pauses := false, 0
	for i := range 3000 {
		s := steady(9, 20_000, i%13 >= 5)
		if v.Pause {
			s = calm
			if pauses == 20 {
				s = steady(9, 40_000, true)
			}
		}
		s.WallMS = int64(i * SliceMS)
		v = c.Next(&s)
		if v.TargetUS > 13_500 {
			t.Fatalf("after %d slices and %d pauses the target is %d us, want 1.5 times 8 ms", i, pauses, v.TargetUS)
		}
		if v.Pause && !paused {
			pauses++
		}
		paused = v.Pause
	}
	if pauses < 25 {
		t.Errorf("%d pauses", pauses)
	}
}

// TestPausesOfAllNodesAreTogether has nodes that came to work at different times, with
// clocks a little apart.
func TestPausesOfAllNodesAreTogether(t *testing.T) {
	nodes := make([]*Control, 5)
	begin := []int{0, 40, 170, 233, 405}
	offset := []int64{0, 80, -150, 200, -40}
	verdicts := make([]Verdict, len(nodes))
	for i := range nodes {
		nodes[i] = New(1.5, 5000)
	}
	some, all := 0, 0
	for i := range 2000 {
		pausing := 0
		for n, c := range nodes {
			s := steady(100, 20_000, i < begin[n] || verdicts[n].Pause)
			s.WallMS = 1_800_000_000_000 + int64(i*SliceMS) + offset[n]
			if verdicts[n] = c.Next(&s); verdicts[n].Pause {
				pausing++
			}
		}
		if i < 600 { // all have begun, and measured once
			continue
		}
		if pausing > 0 {
			some++
		}
		if pausing == len(nodes) {
			all++
		}
	}
	if all < 1400/period*(pause-4) || some > 1400/period*(pause+6) {
		t.Errorf("in %d slices all nodes paused, in %d some", all, some)
	}
}

// TestWindowsHoldTheLastSlices adds up anew what Control keeps up to date.
func TestWindowsHoldTheLastSlices(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	c := New(1.5, 5000)
	var past []Slice
	for range 3 * window {
		var s Slice
		for i := range s.Ended {
			for range rng.IntN(20) {
				s.Ended[i][Bucket(rng.Int64N(1<<40>>rng.IntN(40)))]++
			}
		}
		past = append(past, s)
		c.Next(&s)
		for i := range c.sources {
			for n, got := range map[int]Counts{recent: c.sources[i].recent, window: c.sources[i].whole} {
				var want Counts
				for k := max(0, len(past)-n); k < len(past); k++ {
					want.add(&past[k].Ended[i])
				}
				if got != want {
					t.Fatalf("after %d slices the last %d of source %d hold %v, want %v", len(past), n, i, got, want)
				}
			}
		}
	}
}
