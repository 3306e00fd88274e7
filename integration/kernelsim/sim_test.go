package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(gcPercent)
	os.Exit(m.Run())
}

// histories is how many TestHistoriesKeepThePromises plays.
const histories = 4_000

func TestHistoriesKeepThePromises(t *testing.T) {
	n := uint64(histories)
	if testing.Short() {
		n /= 10
	}
	r := playMany(1, n, 2, bugs{})
	if r.failed != 0 {
		sh := newShared()
		lines, f := transcript(shrink(generate(r.failed), bugs{}, sh), bugs{}, sh)
		t.Fatalf("seed %d breaks a promise: %v\n%s", r.failed, f, strings.Join(lines, "\n"))
	}
	t.Logf("%d histories, %d events, %d operations", r.played, r.events, r.ops)
}

func TestASeedIsOneHistory(t *testing.T) {
	used := newShared() // what is shared must not tell
	for seed := uint64(1); seed <= 300; seed++ {
		a, b := play(generate(seed), bugs{}, used), play(generate(seed), bugs{}, newShared())
		if a.hash != b.hash || a.events != b.events {
			t.Fatalf("seed %d: %d events with trace %x, then %d with %x", seed, a.events, a.hash, b.events, b.hash)
		}
	}
}

// TestNamedFatesAreTheSameHistory: a schedule whose fates are written down is the one
// from which they were drawn; shrinking rests on it.
func TestNamedFatesAreTheSameHistory(t *testing.T) {
	sh := newShared()
	for seed := uint64(1); seed <= 200; seed++ {
		s := generate(seed)
		exact := named(s, bugs{}, sh)
		if a, b := play(s, bugs{}, sh), play(&exact, bugs{}, sh); a.hash != b.hash {
			t.Fatalf("seed %d: trace %x when drawn, %x when named", seed, a.hash, b.hash)
		}
	}
}

// TestTheScheduleOfAForgottenDeleteHasTeeth: what it shows is too rare to be found among
// histories that are drawn.
func TestTheScheduleOfAForgottenDeleteHasTeeth(t *testing.T) {
	s, err := loadSchedule("testdata/delete-forgotten-by-recovery.json")
	if err != nil {
		t.Fatal(err)
	}
	if f := play(s, bugs{leavesProve: true}, newShared()).failure; f == nil || f.Kind != "resurrected" {
		t.Errorf("where leaves prove contexts it shows %v, want a deleted version back", f)
	}
}

// TestKnownSchedules plays the schedules that once broke a promise.
func TestKnownSchedules(t *testing.T) {
	names, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		s, err := loadSchedule(name)
		if err != nil {
			t.Fatal(err)
		}
		lines, f := transcript(s, bugs{}, newShared())
		if f != nil {
			t.Errorf("%s: %v\n%s", name, f, strings.Join(lines, "\n"))
		}
	}
}
