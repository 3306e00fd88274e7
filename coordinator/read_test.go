package coordinator

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/replica/version"
)

// made is a record with one version that replaces everything in past.
func made(actor int, counter uint64, v string, past version.Record) version.Record {
	return past.Put(version.Write{
		Dot: version.Dot{Actor: version.Actor(actor), Counter: counter}, HLC: past.MaxHLC().Next(),
		Value: []byte(v), Cover: past.Context,
	})
}

func TestReadAsksNoMoreNodesThanNeeded(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		rec := made(90, 1, "v", version.Record{})
		for _, o := range owners {
			o.put(key, rec)
		}
		owners[1].mu.latency, owners[2].mu.latency = 9*time.Millisecond, 3*time.Millisecond
		got, err := owners[0].read(key, ReadOptions{})
		if err != nil || value(got.Record) != "v" || got.Fallback {
			t.Fatalf("%+v %v", got, err)
		}
		if len(owners[0].mu.reads) != 1 || len(owners[1].mu.reads) != 0 || len(owners[2].mu.reads) != 1 {
			t.Fatal("want the local copy and the fastest other owner")
		}
		if q := owners[2].mu.reads[0]; !q.HaveAny || q.Have != rec.StateHash() {
			t.Errorf("the fastest owner was not offered the hash at hand: %+v", q)
		}
	})
}

func TestReadFromOutsideMovesThePayloadOnce(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		rec := made(90, 1, "v", version.Record{})
		whole := 0
		for _, o := range owners {
			o.put(key, rec)
			o.mu.delay = time.Millisecond
		}
		if got, err := other.read(key, ReadOptions{R: 3}); err != nil || value(got.Record) != "v" {
			t.Fatalf("%+v %v", got, err)
		}
		for _, o := range owners {
			for _, q := range o.mu.reads {
				if !q.DigestOnly && !q.HaveAny {
					whole++
				}
			}
		}
		if whole != 1 {
			t.Errorf("%d whole copies were asked for", whole)
		}
	})
}

func TestReadJoinsAndRepairsStaleOwners(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		old := made(90, 1, "old", version.Record{})
		now := made(91, 1, "new", old)
		owners[0].put(key, old)
		owners[1].put(key, now)
		got, err := owners[0].read(key, ReadOptions{R: 3})
		if err != nil || value(got.Record) != "new" {
			t.Fatalf("%+v %v", got, err)
		}
		r.drained()
		for _, o := range owners {
			if value(o.get(key, 0)) != "new" {
				t.Errorf("%v was not repaired", o)
			}
		}
		if n := len(owners[1].mu.merges); n != 0 {
			t.Errorf("the owner that was up to date got %d repairs", n)
		}
		for _, m := range owners[2].mu.merges {
			if m.Class != ClassRepair || !m.Durable || m.For != 0 {
				t.Errorf("repair %+v", m)
			}
		}
	})
}

func TestFallbacksAreReadButNeverRepaired(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[0].put(key, made(90, 1, "v", version.Record{}))
		r.seen(owners[1])
		r.seen(owners[2])
		got, err := owners[0].read(key, ReadOptions{R: 3})
		if err != nil || value(got.Record) != "v" || !got.Fallback {
			t.Fatalf("%+v %v", got, err)
		}
		r.drained()
		for _, f := range others {
			if len(f.mu.merges) > 0 {
				t.Errorf("fallback %v was repaired", f)
			}
			if len(f.mu.reads) != 1 || f.mu.reads[0].For == 0 {
				t.Errorf("fallback %v was asked %+v, want for its hint", f, f.mu.reads)
			}
		}
	})
}

func TestReadFindsTheHintOfAnOwnerThatFails(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		for _, o := range owners[:2] {
			o.set(unreachable)
			r.seen(o)
		}
		if _, err := owners[2].write(key, set("v"), WriteOptions{W: 3}); err != nil {
			t.Fatal(err)
		}
		owners[2].set(unreachable)
		for _, n := range r.nodes {
			clear(n.mu.down) // nobody knows yet: every owner is tried in vain first
		}
		got, err := others[0].read(key, ReadOptions{R: 2})
		if err != nil || value(got.Record) != "v" || !got.Fallback {
			t.Fatalf("%+v %v", got, err)
		}
	})
}

func TestAFailedReadIsNotANotFound(t *testing.T) {
	for _, f := range []fault{unreachable, broken, overloaded} {
		inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			owners[1].set(f)
			owners[2].set(f)
			start := time.Now()
			_, err := owners[0].read(key, ReadOptions{})
			if !errors.Is(err, ErrNoReadQuorum) || time.Since(start) != 0 {
				t.Errorf("fault %d: %v after %v", f, err, time.Since(start))
			}
			if got, err := owners[0].read(key, ReadOptions{R: 1}); err != nil || !got.Record.Absent() {
				t.Errorf("fault %d, R 1: %v %v", f, got, err)
			}
		})
	}
}

func TestReadThatCannotReachRFailsAtOnce(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		r.seen(owners[1])
		r.seen(owners[2])
		start := time.Now()
		if _, err := owners[0].read(key, ReadOptions{}); !errors.Is(err, ErrNoReadQuorum) || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

func TestSilentReadTimesOut(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		owners[1].set(deaf)
		owners[2].set(deaf)
		start := time.Now()
		_, err := owners[0].read(key, ReadOptions{Timeout: 300 * time.Millisecond})
		if !errors.Is(err, ErrTimeout) || time.Since(start) != 300*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

func TestSlowReadIsHedgedAfterThePeersP95(t *testing.T) {
	for _, c := range []struct{ p95, want time.Duration }{
		{15 * time.Millisecond, 15 * time.Millisecond},
		{time.Microsecond, 2 * time.Millisecond},
		{10 * time.Second, 250 * time.Millisecond},
	} {
		inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
			owners := r.owners(key)
			for _, o := range owners {
				o.put(key, made(90, 1, "v", version.Record{}))
			}
			owners[1].set(deaf)
			owners[1].mu.latency, owners[2].mu.latency = c.p95, c.p95+1
			start := time.Now()
			got, err := owners[0].read(key, ReadOptions{Timeout: 500 * time.Millisecond})
			if err != nil || value(got.Record) != "v" || time.Since(start) != c.want {
				t.Errorf("p95 %v: %v %v after %v, want %v", c.p95, got, err, time.Since(start), c.want)
			}
		})
	}
}

func TestALateReplyCannotTouchALaterRequest(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		for i, o := range owners {
			o.put(key, made(90, 1, "v", version.Record{}))
			o.put("other", made(90, 1, "other", version.Record{}))
			o.mu.latency = time.Duration(i+1) * time.Millisecond
		}
		owners[1].mu.delay = 200 * time.Millisecond // hedged around
		for i := range 100 {
			k, want := key, "v"
			if i%2 == 1 {
				k, want = "other", "other"
			}
			got, err := owners[0].read(k, ReadOptions{})
			if err != nil || value(got.Record) != want {
				t.Fatalf("read %d of %s: %v %v", i, k, got, err)
			}
		}
	})
}

func TestReadWithMinimumAsksOnUntilItIsCovered(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		now := made(90, 1, "v", version.Record{})
		owners[2].put(key, now)
		token := now.ReadToken()
		got, err := owners[0].read(key, ReadOptions{R: 1, Min: &token})
		if err != nil || value(got.Record) != "v" {
			t.Fatalf("%+v %v", got, err)
		}
		beyond := made(90, 9, "w", version.Record{}).ReadToken()
		if _, err := owners[0].read(key, ReadOptions{R: 1, Min: &beyond}); !errors.Is(err, ErrStale) {
			t.Errorf("token that nobody covers: %v", err)
		}
	})
}

// The two copies show the same value, but only one knows what it replaced.
func TestEqualValuesDoNotHideTheMinimum(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners(key)
		gone := made(91, 1, "gone", version.Record{})
		bare := made(90, 1, "v", version.Record{})
		informed := bare.Delete(gone.Context)
		owners[0].put(key, bare)
		owners[1].put(key, informed)
		owners[2].put(key, informed)
		token := informed.ReadToken()
		if _, err := owners[0].read(key, ReadOptions{Min: &token}); err != nil {
			t.Error(err)
		}
	})
}

func TestRepairsAreBoundedAndNotRepeatedForAHotKey(t *testing.T) {
	inBubble(t, 3, Config{RepairQueue: 2, MinHedge: time.Second}, func(t *testing.T, r *rig) {
		var keys []string
		at := r.owners(key)[0]
		for i := range 5 {
			keys = append(keys, fmt.Sprintf("{k}%d", i))
			r.owners(key)[1].put(keys[i], made(90, 1, "v", version.Record{}))
		}
		at.mu.delay = 50 * time.Millisecond // its own repairs take this long
		for range 3 {
			for _, k := range keys {
				got := newReply[ReadResult](t)
				at.coord.Read([]byte(k), ReadOptions{}, got.take)
			}
		}
		time.Sleep(60 * time.Millisecond) // virtual
		synctest.Wait()
		if n := at.coord.Divergence().RepairsBegun; n != 2 {
			t.Errorf("%d repairs, the bound is 2", n)
		}
		if n := at.coord.Divergence().RepairsDropped; n == 0 {
			t.Error("dropped repairs were not counted")
		}
		r.drained()
		if n := len(at.mu.merges); n != 2 {
			t.Errorf("%d merges", n)
		}
	})
}
