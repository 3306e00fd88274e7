package main

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

// long looks for each mutant from the first seed on.
var long = flag.Bool("long", false, "look for each mutant from seed 1 on, in up to 100,000 histories")

// mutant is a planted bug.
type mutant struct {
	name      string
	plant     func(*bugs)
	from      uint64 // the seed to begin at
	within    uint64
	decisions int
}

// mutants are the planted bugs: each must be found within so many histories, and the
// schedule that shows it must shrink to a few decisions.
var mutants = []mutant{
	{"W counts one node twice", func(b *bugs) { b.ackTwice = true }, 1, 5_000, 8},
	{"a hint is dropped before it is delivered", func(b *bugs) { b.hintDropEarly = true }, 1, 20_000, 8},
	{"a write forgets its token", func(b *bugs) { b.contextDropped = true }, 1, 200, 3},
	{"a node counts from one again", func(b *bugs) { b.actorKept = true }, 1, 2_000, 6},
	{"all rows of a node have one actor", func(b *bugs) { b.oneActor = true }, 1, 20_000, 8},
	{"no amnesia", func(b *bugs) { b.noAmnesia = true }, 1, 20_000, 8},
	{"a wiped node counts in reads", func(b *bugs) { b.noRecovering = true }, 1, 20_000, 8},
	{"a tombstone goes by age", func(b *bugs) { b.reapByAge = true }, 1, 20_000, 8},
	{"an error is taken for not found", func(b *bugs) { b.errorIsAbsent = true }, 1, 20_000, 8},
	{"not found is taken for an error", func(b *bugs) { b.absentIsError = true }, 1, 200, 4},
	{"rows are confirmed before they are synced", func(b *bugs) { b.confirmEarly = true }, 1, 20_000, 8},
	{"writes go to the owners of the base alone", func(b *bugs) { b.baseOnly = true }, 48_001, 20_000, 8},
	{"nothing is handed over", func(b *bugs) { b.moveNothing = true }, 1, 20_000, 8},
	{"a merge leaves its leaf of the tree", func(b *bugs) { b.leafKept = true }, 1, 2_000, 6},
	{"a token covers unseen siblings", func(b *bugs) { b.tokenWhole = true }, 1, 2_000, 6},
	{"a hint is taken for an own row", func(b *bugs) { b.sloppyForgotten = true }, 1, 20_000, 8},
}

// rare are bugs that it takes more histories to find than a test has time for: some of
// them were not found in 100,000. They are looked for with -long.
var rare = []mutant{
	{"a tombstone goes whatever hints are kept", func(b *bugs) { b.reapHints = true }, 1, 100_000, 8},
	{"requests by old rings are carried out", func(b *bugs) { b.noStale = true }, 1, 100_000, 8},
	{"hints are not handed over", func(b *bugs) { b.moveNoHints = true }, 1, 100_000, 8},
	{"a session proves what is not synced", func(b *bugs) { b.barrierSkipped = true }, 1, 100_000, 10},
	{"leaves prove that contexts are equal", func(b *bugs) { b.leavesProve = true }, 1, 100_000, 10},
}

func TestMutantsAreFound(t *testing.T) {
	all := mutants
	if *long {
		all = slices.Concat(mutants, rare)
	}
	for _, m := range all {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			sh := newShared()
			var b bugs
			m.plant(&b)
			from, within := m.from, m.within
			if *long {
				from, within = 1, 100_000
			}
			r := playMany(from, within, 2, b)
			if r.failed == 0 {
				t.Fatalf("not found in %d histories from seed %d", within, from)
			}
			first := play(generate(r.failed), b, sh).failure
			small := shrink(generate(r.failed), b, sh)
			lines, f := transcript(small, b, sh)
			t.Logf("found in history %d as %q; %d decisions and %d messages show it", r.failed, f.Kind, len(small.Decisions), len(small.Fates))
			if f.Kind != first.Kind || len(small.Decisions) > m.decisions {
				t.Errorf("%d decisions are left, %q for %q:\n%s", len(small.Decisions), f.Kind, first.Kind, strings.Join(lines, "\n"))
			}
		})
	}
}
