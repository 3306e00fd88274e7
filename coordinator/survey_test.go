package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// scanAll iterates to the end and returns the keys in order of arrival.
func (n *node) scanAll(t *testing.T, count int, owned bool) (keys []string, calls int) {
	t.Helper()
	for cursor := uint64(0); ; {
		page, err := n.coord.Scan(t.Context(), ScanRequest{Cursor: cursor, Count: count, Owned: owned})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Keys) > count+1 {
			t.Fatalf("a page of %d keys for COUNT %d", len(page.Keys), count)
		}
		for _, k := range page.Keys {
			keys = append(keys, string(k))
		}
		if calls++; page.Cursor == 0 {
			return keys, calls
		}
		if page.Cursor <= cursor {
			t.Fatalf("the cursor went from %x to %x", cursor, page.Cursor)
		}
		cursor = page.Cursor
	}
}

// populate writes keys, most of them everywhere, some only to two of the
// owners, and deletes a few; it returns the live keys in order.
func (r *rig) populate(rng *rand.Rand, n int) []string {
	var live []string
	for i := range n {
		k := fmt.Sprintf("key:%d", i)
		owners := r.owners(k)
		rec := made(90, uint64(i+1), "v", version.Record{})
		for _, o := range owners {
			o.put(k, rec)
		}
		switch rng.IntN(8) {
		case 0: // deleted everywhere
			for _, o := range owners {
				o.put(k, rec.Delete(rec.Context))
			}
			continue
		case 1: // deleted, one owner has not heard of it
			for _, i := range rng.Perm(len(owners))[:2] {
				owners[i].put(k, rec.Delete(rec.Context))
			}
			continue
		case 2: // one owner has nothing
			delete(owners[rng.IntN(len(owners))].mu.rows, row{k, 0})
		}
		live = append(live, k)
	}
	slices.Sort(live)
	return live
}

func TestScanReturnsEveryLiveKeyOnce(t *testing.T) {
	for _, size := range []int{1, 3, 5, 9} {
		inBubble(t, size, Config{}, func(t *testing.T, r *rig) {
			seed := uint64(time.Now().UnixNano())
			if size < 3 {
				seed = 7
			}
			rng := rand.New(rand.NewPCG(seed, 3))
			var want []string
			if size >= 3 {
				want = r.populate(rng, 400)
			}
			for _, count := range []int{1, 10, 1000} {
				got, _ := r.nodes[1].scanAll(t, count, false)
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("seed %d size %d count %d: %d keys, want %d", seed, size, count, len(got), len(want))
				}
			}
			var owned []string
			for _, n := range r.nodes {
				keys, _ := n.scanAll(t, 10, true)
				owned = append(owned, keys...)
			}
			slices.Sort(owned)
			if !slices.Equal(owned, want) {
				t.Errorf("seed %d size %d: the nodes' own keys are %d together, want %d", seed, size, len(owned), len(want))
			}
		})
	}
}

// Each of two owners knows that the other's version was deleted.
func TestScanLeavesOutWhatTheJoinOfAllCopiesDeletes(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		a, b := made(90, 1, "a", version.Record{}), made(91, 1, "b", version.Record{})
		a, b = a.Delete(b.Context), b.Delete(a.Context)
		owners := r.owners(key)
		owners[0].put(key, a)
		owners[1].put(key, b)
		owners[2].put(key, b)
		if got, _ := owners[0].scanAll(t, 10, false); len(got) != 0 {
			t.Errorf("%v", got)
		}
	})
}

// A cursor names a position; keys that share one must come on one page.
func TestScanKeepsKeysOfOnePositionTogether(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		byHash := map[uint32]string{}
		var twins []string
		for i := 0; twins == nil; i++ {
			k := fmt.Sprintf("{k}%d", i)
			h := ring.KeyHash([]byte(k))
			if other, ok := byHash[h]; ok {
				twins = []string{other, k}
			}
			byHash[h] = k
		}
		for _, n := range r.nodes {
			for _, k := range twins {
				n.put(k, made(90, 1, "v", version.Record{}))
			}
		}
		got, _ := r.nodes[1].scanAll(t, 1, false)
		slices.Sort(got)
		slices.Sort(twins)
		if !slices.Equal(got, twins) {
			t.Errorf("%v, want %v", got, twins)
		}
	})
}

func TestScanGoesOnWithoutAnOwner(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		want := r.populate(rand.New(rand.NewPCG(1, 1)), 200)
		r.nodes[2].set(broken)
		got, _ := r.nodes[1].scanAll(t, 50, false)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d keys, want %d", len(got), len(want))
		}
	})
}

func TestScanThatCannotSeeAllKeysFails(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		r.nodes[2].set(broken)
		r.seen(r.nodes[3])
		if page, err := r.nodes[1].coord.Scan(t.Context(), ScanRequest{Count: 10}); !errors.Is(err, ErrNoReadQuorum) {
			t.Errorf("%+v, %v", page, err)
		}
		if n, err := r.nodes[1].coord.Count(t.Context(), false); err != nil {
			t.Errorf("count trusts one owner: %d %v", n, err)
		}
	})
}

func TestScanOfAnEmptyClusterTakesFewQuestions(t *testing.T) {
	for _, owned := range []bool{false, true} {
		inBubble(t, 30, Config{}, func(t *testing.T, r *rig) {
			_, calls := r.nodes[1].scanAll(t, 10, owned)
			asked := 0
			for _, n := range r.nodes {
				asked += n.mu.scans
			}
			if calls > 2 || asked > 16*scanWaves*calls {
				t.Errorf("owned %v: %d calls, %d questions", owned, calls, asked)
			}
		})
	}
}

func TestCountsAgreeWithTheKeys(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		total := int64(300)
		for i := range total {
			k := fmt.Sprintf("key:%d", i)
			for _, o := range r.owners(k) {
				o.put(k, made(90, uint64(i+1), "v", version.Record{}))
			}
		}
		r.nodes[3].set(broken) // counted by other owners then
		n, err := r.nodes[1].coord.Count(t.Context(), false)
		if err != nil || n != total {
			t.Errorf("%d keys, want %d (%v)", n, total, err)
		}
		sum := int64(0)
		for _, node := range r.nodes {
			n, err := node.coord.Count(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != total {
			t.Errorf("the nodes own %d keys together, want %d", sum, total)
		}
		slot := ring.SlotOf([]byte("key:7"))
		if n, err := r.nodes[1].coord.CountSlot(t.Context(), slot); err != nil || n < 1 || n > 3 {
			t.Errorf("slot %d holds %d (%v)", slot, n, err)
		}
	})
}

func TestRandomKeyFindsTheOnlyKey(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	inBubble(t, 5, Config{Rand: rng.Uint64}, func(t *testing.T, r *rig) {
		n := r.nodes[1]
		if k, found, err := n.coord.RandomKey(t.Context(), false); found || err != nil {
			t.Fatalf("%q %v in an empty cluster", k, err)
		}
		for _, o := range r.owners(key) {
			o.put(key, made(90, 1, "v", version.Record{}))
		}
		for range 20 {
			if k, found, err := n.coord.RandomKey(t.Context(), false); !found || string(k) != key || err != nil {
				t.Fatalf("%q %v %v", k, found, err)
			}
		}
	})
}

func TestInspectShowsOwnersAndHints(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners, others := r.owners(key), r.others(key)
		owners[2].set(unreachable)
		if _, err := owners[0].write(key, set("v"), WriteOptions{W: 3}); err != nil {
			t.Fatal(err)
		}
		got, err := others[1].coord.Inspect(t.Context(), []byte(key))
		if err != nil || len(got) != 4 {
			t.Fatalf("%+v %v", got, err)
		}
		for i, e := range got[:3] {
			if e.Node != owners[i].id || !e.Owner || (e.Err != nil) != (i == 2) {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
		if h := got[3]; h.Node != others[0].id || h.For != owners[2].id || value(h.Record) != "v" {
			t.Errorf("hint: %+v", h)
		}
	})
}

func TestASurveyEndsWithItsContext(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		r.nodes[2].set(deaf)
		r.nodes[3].set(deaf)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.nodes[1].coord.Scan(ctx, ScanRequest{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// While the ring changes, a scan and a count go by the ring that is read by, whatever
// stands beside it.
func TestScansAndCountsLeaveNothingOutWhileTheRingChanges(t *testing.T) {
	inBubble(t, 8, Config{}, func(t *testing.T, r *rig) {
		base, next := r.ringOf(5), r.ringOf(8)
		r.ring = base
		var want []string
		for i := range 400 {
			k := fmt.Sprintf("key:%d", i)
			for _, o := range r.owners(k) {
				o.put(k, made(90, uint64(i+1), "v", version.Record{}))
			}
			want = append(want, k)
		}
		slices.Sort(want)
		r.rings.Store(NewRings(ring.NewLive(base, next), Stamp{}, 0))
		got, _ := r.nodes[1].scanAll(t, 10, false)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("a scan finds %d keys, want %d", len(got), len(want))
		}
		var owned []string
		for _, id := range r.ids[:5] {
			keys, _ := r.nodes[id].scanAll(t, 10, true)
			owned = append(owned, keys...)
		}
		if slices.Sort(owned); !slices.Equal(owned, want) {
			t.Errorf("the nodes' own keys are %d together, want %d", len(owned), len(want))
		}
		if n, err := r.nodes[1].coord.Count(t.Context(), false); err != nil || n != int64(len(want)) {
			t.Errorf("%d keys are counted (%v), want %d", n, err, len(want))
		}
	})
}
