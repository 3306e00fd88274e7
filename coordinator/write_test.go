package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica/version"
)

const key = "k"

func TestOwnerStoresOnAllOwnersAndAnswersAtW(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[2].mu.delay = 300 * time.Millisecond
		start := time.Now()
		res, err := owners[0].write(key, set("v"), WriteOptions{})
		if err != nil || !res.Applied || res.Fallback {
			t.Fatalf("%+v, %v", res, err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v for a third owner", took)
		}
		r.drained()
		for _, o := range owners {
			if got := value(o.get(key, 0)); got != "v" {
				t.Errorf("%v holds %q", o, got)
			}
		}
		if r.mints() != 1 {
			t.Errorf("%d dots were minted", r.mints())
		}
	})
}

func TestNonOwnerForwardsToTheFirstLiveOwner(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		r.seen(owners[0])
		res, err := other.write(key, set("v"), WriteOptions{R: 1, W: 2})
		if err != nil || owners[1].mints() != 1 || r.mints() != 1 {
			t.Fatalf("%v; mints %d, at the first live owner %d", err, r.mints(), owners[1].mints())
		}
		if res.Dot.Actor != version.Actor(owners[1].id) {
			t.Errorf("dot %v", res.Dot)
		}
		if f := owners[1].mu.forwards; len(f) != 1 || f[0].W != 2 || f[0].R != 1 {
			t.Errorf("forwards %+v", f)
		}
	})
}

func TestForwardThatWasNotSentGoesToTheNextOwner(t *testing.T) {
	for _, f := range []fault{unreachable, overloaded, silent, deaf} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners, other := r.owners(key), r.others(key)[0]
			owners[0].set(f)
			if _, err := other.write(key, set("v"), WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			if owners[1].mints() != 1 || r.mints() != 1 {
				t.Errorf("fault %d: mints %d, at the second owner %d", f, r.mints(), owners[1].mints())
			}
		})
	}
}

func TestForwardThatMayHaveArrivedIsNeverRepeated(t *testing.T) {
	for _, f := range []fault{dying, dyingDeaf, broken} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners, other := r.owners(key), r.others(key)[0]
			owners[0].set(f)
			_, err := other.write(key, set("v"), WriteOptions{})
			var uncertain *UncertainError
			if !errors.As(err, &uncertain) || uncertain.Acked != 0 || uncertain.Want != 2 {
				t.Fatalf("fault %d: %v", f, err)
			}
			if n := len(owners[1].mu.forwards) + len(owners[2].mu.forwards); n != 0 || r.mints() > 1 {
				t.Errorf("fault %d: %d more forwards, %d mints", f, n, r.mints())
			}
		})
	}
}

// While the kernel takes a killed process apart its links still swallow what is
// sent. A write that comes in that time must not be lost to them, or a client
// whose first try died with the node would fail with its second.
func TestAWriteIsHandedToNobodyWhoShowsNoLife(t *testing.T) {
	for _, f := range []fault{silent, deaf} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners, other := r.owners(key), r.others(key)[0]
			owners[0].set(f)
			start := time.Now()
			if _, err := other.write(key, set("v"), WriteOptions{}); err != nil {
				t.Fatalf("fault %d: %v", f, err)
			}
			if took := time.Since(start); took != 10*time.Millisecond {
				t.Errorf("fault %d: the next owner was asked after %v", f, took)
			}
			if n := len(owners[0].mu.forwards); n != 0 || r.mints() != 1 {
				t.Errorf("fault %d: handed to the silent owner %d times, %d mints", f, n, r.mints())
			}
			for _, o := range owners[:2] {
				o.set(f)
			}
			if _, err := other.write(key, set("w"), WriteOptions{}); err != nil || r.mints() != 2 {
				t.Errorf("fault %d, two silent owners: %v, %d mints", f, err, r.mints())
			}
		})
	}
}

func TestAFallbackMintsInTimeWhenAllOwnersAreSilent(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		for _, o := range owners {
			o.set(deaf)
		}
		start := time.Now()
		res, err := others[0].write(key, set("v"), WriteOptions{Timeout: time.Second})
		if err != nil || !res.Fallback || time.Since(start) > 600*time.Millisecond {
			t.Errorf("%+v, %v after %v", res, err, time.Since(start))
		}
	})
}

func TestASlowSignOfLifeIsWaitedForButNotAlone(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		for i, o := range owners {
			o.mu.delay = time.Duration(100-20*i) * time.Millisecond
		}
		if _, err := other.write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if owners[2].mints() != 1 || r.mints() != 1 {
			t.Errorf("%d mints, of them %d by the first to show life", r.mints(), owners[2].mints())
		}
		for _, o := range owners {
			o.mu.delay, o.mu.latency = 8*time.Millisecond, 8*time.Millisecond
		}
		if _, err := other.write(key, set("w"), WriteOptions{}); err != nil || owners[0].mints() != 1 {
			t.Errorf("%v: the first owner is not slow, and was passed over", err)
		}
	})
}

func TestForwardedWriteNeverLeavesTheNode(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		other := r.others(key)[0]
		for op, want := range map[*version.Op]error{
			{Kind: version.OpSet, Value: []byte("v")}:                           nil,
			{Kind: version.OpSet, Value: []byte("v"), Cond: version.CondAbsent}: ErrNotOwner,
		} {
			got := newReply[WriteResult](t)
			other.coord.ServeForwarded([]byte(key), *op, WriteOptions{}, got.take)
			if <-got.done; !errors.Is(got.err, want) {
				t.Errorf("%+v: %v, want %v", op, got.err, want)
			}
		}
		for _, n := range r.nodes {
			if len(n.mu.forwards) > 0 {
				t.Errorf("%v was handed the write again", n)
			}
		}
	})
}

func TestWithNoLiveOwnerAFallbackMintsAndKeepsHints(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		for _, o := range owners {
			r.seen(o)
			o.set(unreachable)
		}
		res, err := others[1].write(key, set("v"), WriteOptions{})
		if err != nil || !res.Fallback || others[1].mints() != 1 {
			t.Fatalf("%+v %v, mints %d", res, err, others[1].mints())
		}
		r.drained()
		for i, o := range owners { // the d-th dead owner has its hint at the d-th fallback
			if got := value(others[i].get(key, o.id)); got != "v" {
				t.Errorf("hint for %v at %v: %q", o, others[i], got)
			}
		}
	})
}

func TestAFallbackOutsideTheWalkHandsTheWriteToOneInside(t *testing.T) {
	inBubble(t, 7, Config{}, func(t *testing.T, r *rig) {
		others := r.others(key)
		for _, o := range r.owners(key) {
			r.seen(o)
			o.set(unreachable)
		}
		if _, err := others[3].write(key, set("v"), WriteOptions{}); err != nil || others[0].mints() != 1 {
			t.Fatalf("%v, mints at the first fallback: %d", err, others[0].mints())
		}
	})
}

func TestStrictOperationsAreRefusedOnFallbacks(t *testing.T) {
	ops := map[string]version.Op{
		"NX":  {Kind: version.OpSet, Value: []byte("v"), Cond: version.CondAbsent},
		"DEL": {Kind: version.OpDelete},
	}
	for name, op := range ops {
		inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
			for _, o := range r.owners(key) {
				r.seen(o)
			}
			for _, n := range r.others(key) {
				if _, err := n.write(key, op, WriteOptions{}); !errors.Is(err, ErrNoReplicas) {
					t.Errorf("%s at %v: %v", name, n, err)
				}
			}
			if r.mints() != 0 {
				t.Errorf("%s: %d mints", name, r.mints())
			}
		})
	}
}

// TestASideWithoutOwnersCannotTellWhatItNeverSaw cuts a key off from its owners: what
// needs to know it is refused until the key is written there.
func TestASideWithoutOwnersCannotTellWhatItNeverSaw(t *testing.T) {
	old, present := "old", version.Op{Kind: version.OpSet, Value: []byte("w"), Cond: version.CondPresent}
	inBubble(t, 7, Config{}, func(t *testing.T, r *rig) {
		if _, err := r.owners(key)[0].write(key, set(old), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // its tail
		for _, known := range []bool{false, true} {
			r.only(r.others(key), unreachable, known)
			for _, n := range r.others(key) {
				if res, err := n.read(key, ReadOptions{}); !errors.Is(err, ErrNoOwner) || !errors.Is(err, ErrNoReadQuorum) {
					t.Errorf("known %v: GET at %v: %v %v", known, n, res.Record, err)
				}
				if res, err := n.read(key, ReadOptions{R: 1}); !errors.Is(err, ErrNoOwner) {
					t.Errorf("known %v: GET with R 1 at %v: %v %v", known, n, res.Record, err)
				}
			}
			for name, op := range map[string]version.Op{
				"APPEND":   {Kind: version.OpAppend, Value: []byte("x")},
				"SETRANGE": {Kind: version.OpSetRange, Value: []byte("x")},
				"EXPIRE":   {Kind: version.OpExpire, ExpireAtMS: 1 << 50},
				"GETDEL":   {Kind: version.OpDelete, ReturnOld: true},
				"SET NX":   {Kind: version.OpSet, Value: []byte("w"), Cond: version.CondAbsent},
				"SET XX":   present,
			} {
				if _, err := r.others(key)[0].write(key, op, WriteOptions{}); !errors.Is(err, ErrNoReplicas) {
					t.Errorf("known %v: %s: %v", known, name, err)
				}
			}
		}
		if r.mints() != 1 {
			t.Errorf("%d mints", r.mints())
		}
		at := r.others(key)[0]
		res, err := at.write(key, set("here"), WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := at.read(key, ReadOptions{}); err != nil || value(got.Record) != "here" {
			t.Errorf("what was written here: %v %v", got.Record, err)
		}
		del := version.Op{Kind: version.OpDelete, Explicit: true, Context: res.Outcome.Token.Context}
		if _, err := at.write(key, del, WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, err := at.read(key, ReadOptions{}); err != nil || len(got.Record.Live(1000)) > 0 {
			t.Errorf("what was deleted here: %v %v", got.Record, err)
		}
		const never = "never written"
		r.only(append(r.others(never), r.owners(never)[0]), unreachable, true)
		if got, err := r.others(never)[0].read(never, ReadOptions{}); err != nil || !got.Record.Absent() {
			t.Errorf("a key that nobody wrote, with an owner: %v %v", got.Record, err)
		}
	})
}

func TestExclusiveSetNeedsAHomeQuorum(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		r.seen(owners[1])
		r.seen(owners[2])
		nx := version.Op{Kind: version.OpSet, Value: []byte("v"), Cond: version.CondAbsent}
		if _, err := owners[0].write(key, nx, WriteOptions{}); !errors.Is(err, ErrNoReplicas) {
			t.Errorf("NX with one live owner: %v", err)
		}
		if _, err := owners[0].write(key, nx, WriteOptions{R: 1}); !errors.Is(err, ErrNoReplicas) {
			t.Errorf("NX with one live owner, R 1: %v", err)
		}
		for _, n := range r.nodes {
			clear(n.mu.down)
		}
		owners[1].set(unreachable) // and nobody knows
		owners[2].set(unreachable)
		if _, err := owners[0].write(key, nx, WriteOptions{}); !errors.Is(err, ErrNoReplicas) || r.mints() > 0 {
			t.Errorf("NX decided with fallbacks: %v", err)
		}
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Errorf("plain SET with one live owner: %v", err)
		}
	})
}

func TestAForwardedWriteAnswersBeforeTheForwarderGivesUp(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		for _, n := range slices.Concat(owners[1:], others) {
			n.set(deaf)
		}
		start := time.Now()
		_, err := others[0].write(key, set("v"), WriteOptions{Timeout: time.Second})
		var uncertain *UncertainError
		if !errors.As(err, &uncertain) || uncertain.Acked != 1 || time.Since(start) != 900*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestTimeSpentReadingIsNotTakenFromTheOwners(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		for _, o := range owners {
			o.mu.delay = 1100 * time.Millisecond
		}
		op := version.Op{Kind: version.OpAppend, Value: []byte("v")}
		if _, err := owners[0].write(key, op, WriteOptions{Timeout: 4 * time.Second}); err != nil {
			t.Error(err)
		}
	})
}

func TestTooFewLiveNodesAreRefusedBeforeMinting(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		r.seen(owners[1])
		r.seen(owners[2])
		start := time.Now()
		_, err := owners[0].write(key, set("v"), WriteOptions{})
		if !errors.Is(err, ErrNoReplicas) || r.mints() != 0 || time.Since(start) != 0 {
			t.Fatalf("%v after %v, %d mints", err, time.Since(start), r.mints())
		}
	})
}

func TestUnmetWriteIsUncertainOnceADotIsMinted(t *testing.T) {
	for _, f := range []fault{unreachable, silent, overloaded, broken} {
		inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			owners[1].set(f)
			owners[2].set(f)
			start := time.Now()
			_, err := owners[0].write(key, set("v"), WriteOptions{Timeout: time.Second})
			var uncertain *UncertainError
			if !errors.As(err, &uncertain) || *uncertain != (UncertainError{Acked: 1, Want: 2}) {
				t.Fatalf("fault %d: %v", f, err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("fault %d: answered after %v", f, took)
			}
			if got := value(owners[0].get(key, 0)); got != "v" {
				t.Errorf("the local copy was rolled back to %q", got)
			}
		})
	}
}

func TestSlowWriteIsUncertainAtTheDeadline(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		for _, o := range owners {
			o.mu.delay = 450 * time.Millisecond
		}
		start := time.Now()
		if _, err := owners[0].write(key, set("v"), WriteOptions{Timeout: time.Second}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 450*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		for _, o := range owners {
			o.mu.delay = 3 * time.Second
		}
		start = time.Now()
		_, err := owners[0].write(key, set("w"), WriteOptions{Timeout: time.Second})
		var uncertain *UncertainError
		if !errors.As(err, &uncertain) || uncertain.Acked != 0 || time.Since(start) > time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

func TestASilentOwnerIsReplacedInTimeForTheAnswer(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[1].set(deaf)
		owners[2].set(deaf)
		start := time.Now()
		if _, err := owners[0].write(key, set("v"), WriteOptions{Timeout: time.Second}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Second/2 {
			t.Errorf("answered after %v, half the time is for the owners", took)
		}
		r.drained()
		hints := 0
		for _, f := range others {
			for _, o := range owners[1:] {
				if value(f.get(key, o.id)) == "v" {
					hints++
				}
			}
		}
		if hints != 2 {
			t.Errorf("%d hints for two silent owners", hints)
		}
	})
}

func TestHintsAreSentAfterTheAnswerToo(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[2].set(deaf)
		others[0].set(broken) // the next fallback takes over
		start := time.Now()
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if value(others[1].get(key, owners[2].id)) != "" {
			t.Fatal("there is a hint for an owner that may still answer")
		}
		r.drained()
		if got := value(others[1].get(key, owners[2].id)); got != "v" {
			t.Errorf("hint after the tail: %q", got)
		}
		for _, m := range others[1].mu.merges {
			if time.Until(m.Deadline) < -time.Minute || m.For != owners[2].id {
				t.Errorf("hint %+v", m)
			}
		}
	})
}

func TestAHintMayTakeLongerThanTheClientWaits(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[2].set(deaf)
		others[0].mu.delay = 3 * time.Second
		if _, err := owners[0].write(key, set("v"), WriteOptions{Timeout: time.Second}); err != nil {
			t.Fatal(err)
		}
		r.drained()
		if value(others[0].get(key, owners[2].id)) != "v" || value(others[1].get(key, owners[2].id)) != "" {
			t.Error("a slow fallback was given up")
		}
	})
}

// A node that comes back from behind a broken link suspects everybody for a
// while, and refuses what it is given.
func TestAnOwnerThatSeesNobodyElseIsPassedOver(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		for _, n := range r.nodes {
			owners[0].mu.down[n.id] = n != owners[0]
		}
		if _, err := other.write(key, set("v"), WriteOptions{}); err != nil || owners[1].mints() != 1 || r.mints() != 1 {
			t.Errorf("%v, %d mints, at the next owner %d", err, r.mints(), owners[1].mints())
		}
		for _, o := range owners {
			for _, n := range r.nodes {
				o.mu.down[n.id] = n != o
			}
		}
		if _, err := other.write(key, set("w"), WriteOptions{}); !errors.Is(err, ErrNoReplicas) || r.mints() != 1 {
			t.Errorf("with no owner that sees another: %v, %d mints", err, r.mints())
		}
	})
}

func TestOwnersThatAllRefuseAreNotStoodInFor(t *testing.T) {
	inBubble(t, 6, Config{}, func(t *testing.T, r *rig) {
		for _, o := range r.owners(key) {
			o.set(overloaded)
		}
		r.seen(r.owners(key)[0]) // one is dead, so there is a fallback in the walk
		for _, n := range r.others(key) {
			if _, err := n.write(key, set("v"), WriteOptions{}); !errors.Is(err, ErrOverloaded) || r.mints() != 0 {
				t.Errorf("at %v: %v, %d mints", n, err, r.mints())
			}
		}
	})
}

func TestTheCoordinatorKeepsTheHintWhenNoFallbackIsLeft(t *testing.T) {
	for _, known := range []bool{true, false} {
		inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			owners[2].set(unreachable)
			if known {
				r.seen(owners[2])
			}
			if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			r.drained()
			if got := value(owners[0].get(key, owners[2].id)); got != "v" {
				t.Errorf("known %v: kept hint %q", known, got)
			}
			_, err := owners[0].write(key, set("v"), WriteOptions{W: 3})
			if err == nil {
				t.Errorf("known %v: a kept hint was counted as a third node", known)
			}
		})
	}
}

func TestAnOverloadedOwnerGetsNoHint(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[2].set(overloaded)
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.drained()
		for _, n := range r.nodes {
			if value(n.get(key, owners[2].id)) != "" {
				t.Errorf("%v keeps a hint for an overloaded owner", n)
			}
		}
	})
}

func TestACommitThatFailsHereIsReplacedElsewhere(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[0].mu.local = broken
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.drained()
		if got := value(others[0].get(key, owners[0].id)); got != "v" {
			t.Errorf("hint for the coordinator: %q", got)
		}
	})
}

func TestAnOwnerThatCannotMintHandsTheWriteOn(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		owners[0].mu.mintErr = version.ErrCorrupt
		for _, n := range []*node{owners[0], other} {
			before := owners[1].mints()
			if _, err := n.write(key, set("v"), WriteOptions{}); err != nil || owners[1].mints() != before+1 {
				t.Errorf("at %v: %v, mints at the next owner %d", n, err, owners[1].mints()-before)
			}
		}
	})
}

func TestRefusalOfTheOperationIsTheAnswer(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		op := set("too long")
		op.MaxValue = 3
		for _, n := range []*node{r.owners(key)[0], r.others(key)[0]} {
			if _, err := n.write(key, op, WriteOptions{}); !errors.Is(err, version.ErrTooLarge) {
				t.Errorf("at %v: %v", n, err)
			}
		}
	})
}

func TestReadModifyWriteStartsFromAQuorum(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[0].set(unreachable)
		if _, err := owners[1].write(key, set("new"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		owners[0].set(healthy)
		res, err := owners[0].write(key, version.Op{Kind: version.OpAppend, Value: []byte("+")}, WriteOptions{})
		if err != nil || res.Length != 4 {
			t.Fatalf("append at a stale owner: %+v %v", res, err)
		}
		got, err := owners[2].read(key, ReadOptions{R: 3})
		if err != nil || value(got.Record) != "new+" || len(got.Record.Versions) != 1 {
			t.Errorf("%v %v", got, err)
		}
	})
}

func TestAFailedReadBeforeAWriteLeavesNothingWritten(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[1].set(broken)
		owners[2].set(deaf)
		_, err := owners[0].write(key, version.Op{Kind: version.OpDelete}, WriteOptions{})
		if !errors.Is(err, ErrNoReplicas) || r.mints() != 0 {
			t.Fatalf("%v, %d mints", err, r.mints())
		}
	})
}

func TestAnOperationThatChangesNothingSendsNothing(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		res, err := owners[0].write(key, version.Op{Kind: version.OpDelete}, WriteOptions{})
		if err != nil || res.Applied {
			t.Fatalf("%+v %v", res, err)
		}
		if n := len(owners[1].mu.merges) + len(owners[2].mu.merges); n > 0 {
			t.Errorf("%d merges", n)
		}
	})
}

// A delete that is repeated because its outcome was unknown finds nothing left
// to do where it is repeated. Its answer still says that the key is gone from W
// nodes, so it must be.
func TestADeleteThatFindsNothingToDoIsStoredLikeOneThatDoes(t *testing.T) {
	for _, explicit := range []bool{true, false} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			res, err := owners[0].write(key, set("v"), WriteOptions{W: 3})
			if err != nil {
				t.Fatal(err)
			}
			seen := res.Token.Context
			owners[0].put(key, owners[0].get(key, 0).Delete(seen)) // and told nobody
			for _, n := range r.others(key) {
				n.set(broken)
			}
			owners[1].set(broken)
			owners[2].set(broken)
			op := version.Op{Kind: version.OpDelete, Explicit: explicit, Context: seen}
			var uncertain *UncertainError
			if _, err := owners[0].write(key, op, WriteOptions{R: 1}); !errors.As(err, &uncertain) {
				t.Errorf("explicit %v: %v; only the coordinator has the delete", explicit, err)
			}
			owners[2].set(healthy)
			if _, err := owners[0].write(key, op, WriteOptions{R: 1}); err != nil {
				t.Errorf("explicit %v: %v", explicit, err)
			}
			if got := value(owners[2].get(key, 0)); got != "" {
				t.Errorf("explicit %v: acknowledged, and %v still shows %q", explicit, owners[2], got)
			}
		})
	}
}

// A connection's later write must win over its earlier one, whichever node
// coordinates it.
func TestTheSessionClockReachesTheMint(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		for _, n := range []*node{r.owners(key)[0], r.others(key)[0]} {
			op := set("v")
			op.MinHLC = version.HLCFromMS(5_000_000)
			res, err := n.write(key, op, WriteOptions{})
			if err != nil || res.HLC <= op.MinHLC {
				t.Errorf("at %v: HLC %d, the session was at %d (%v)", n, res.HLC, op.MinHLC, err)
			}
		}
	})
}

func TestFsyncOneAsksOthersForNoSync(t *testing.T) {
	for _, one := range []bool{true, false} {
		inBubble(t, 3, Config{FsyncOne: one}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			if m := owners[1].mu.merges; len(m) != 1 || m[0].Durable == one {
				t.Errorf("fsync one %v: %+v", one, m)
			}
		})
	}
}

func TestALoneNodeNeedsNobody(t *testing.T) {
	inBubble(t, 1, Config{}, func(t *testing.T, r *rig) {
		n := r.nodes[1]
		if _, err := n.write(key, set("v"), WriteOptions{W: 3}); err != nil {
			t.Fatal(err)
		}
		if got, err := n.read(key, ReadOptions{R: 3}); err != nil || value(got.Record) != "v" {
			t.Errorf("%v %v", got, err)
		}
	})
}

func TestRequestsBeyondTheBoundAreRefused(t *testing.T) {
	inBubble(t, 3, Config{MaxInFlight: 4}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		for _, o := range owners {
			o.mu.delay = time.Second / 10
		}
		var replies []*reply[WriteResult]
		for i := range 6 {
			w := newReply[WriteResult](t)
			owners[0].coord.Write(fmt.Appendf(nil, "{k}%d", i), set("v"), WriteOptions{}, w.take)
			replies = append(replies, w)
		}
		for i, w := range replies {
			<-w.done
			if want := i >= 4; errors.Is(w.err, ErrOverloaded) != want {
				t.Errorf("request %d: %v", i, w.err)
			}
		}
		synctest.Wait()
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Errorf("after the rush: %v", err)
		}
	})
}

func TestDrainWaitsForTailsAndRefusesNewRequests(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[2].mu.delay = 700 * time.Millisecond
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		r.drained()
		if took := time.Since(start); took != 700*time.Millisecond {
			t.Errorf("drained after %v", took)
		}
		if _, err := owners[0].write(key, set("v"), WriteOptions{}); !errors.Is(err, ErrOverloaded) {
			t.Errorf("write while draining: %v", err)
		}
		got := newReply[WriteResult](t)
		owners[0].coord.ServeForwarded([]byte(key), set("v"), WriteOptions{}, got.take)
		if <-got.done; !errors.Is(got.err, ErrNotOwner) {
			t.Errorf("forward while draining: %v", got.err)
		}
	})
}

func TestAForwardGoesOnFromADrainingOwner(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		if err := owners[0].coord.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := other.write(key, set("v"), WriteOptions{}); err != nil || owners[1].mints() != 1 {
			t.Errorf("%v, mints at the next owner %d", err, owners[1].mints())
		}
	})
}

func TestAFullFallbackShedsOnlyWhatTheOwnersCanDoWithout(t *testing.T) {
	for w, stored := range map[int]bool{2: false, 3: true} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners, others := r.owners(key), r.others(key)
			r.seen(owners[2])
			for _, n := range r.nodes {
				n.mu.full = true
			}
			if _, err := owners[0].write(key, set("v"), WriteOptions{W: w}); err != nil {
				t.Fatalf("W=%d: %v", w, err)
			}
			r.drained()
			if got := value(others[0].get(key, owners[2].id)) == "v"; got != stored {
				t.Errorf("W=%d: the hint is stored: %v, want %v", w, got, stored)
			}
			if m := others[0].mu.merges; len(m) != 1 || m[0].Optional == stored {
				t.Errorf("W=%d: the fallback was asked %+v", w, m)
			}
			if n := len(others[1].mu.merges); n != 0 {
				t.Errorf("W=%d: %d messages to another fallback", w, n)
			}
		})
	}
}

// All others are deaf: the last fallback times out at the very moment at which the
// client's time is over. What the coordinator then keeps has its time all the same.
func TestAHintIsKeptAlsoWhenTheTimeOfTheClientIsOver(t *testing.T) {
	for seed := range 50 {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t, 5, Config{})
			key := fmt.Sprint("alone", seed)
			owners := r.owners(key)
			for _, n := range r.nodes {
				if n != owners[0] {
					n.set(deaf)
				}
			}
			if _, err := owners[0].write(key, set("v"), WriteOptions{}); err == nil {
				t.Error("acknowledged by one node of two")
			}
			r.drained()
			for _, o := range owners[1:] {
				if got := value(owners[0].get(key, o.id)); got != "v" {
					t.Errorf("%s: the coordinator keeps %q for owner %v", key, got, o.id)
				}
			}
		})
	}
}
