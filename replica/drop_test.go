package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/antientropy/merkle"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// unitsOfFew makes partitions that many of a test's keys share.
func unitsOfFew(c *Config) { c.Units = 4 }

// foreign is a record that some other node made.
func foreign(counter uint64, value string) []byte { return mustEncode(77, counter, value) }

func TestDropLeavesNothingOfAPartitionAndAllOfTheOthers(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	other := newHost(t, vfs.NewMem(), 2, unitsOfFew)
	defer h.close(t)
	defer other.close(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 600 {
		randomly(t, rng, h, other)
	}
	kept := map[string]uint64{}
	gone := 0
	each := func(do func(key string, partition int)) {
		for i := range 60 {
			key := fmt.Sprint("k", i)
			do(key, h.partition(ring.SlotOf([]byte(key))))
		}
	}
	each(func(key string, partition int) {
		_, hash, _, err := h.Read([]byte(key), 0)
		switch {
		case err != nil:
			t.Fatal(err)
		case partition != 2:
			kept[key] = hash
		case hash != 0:
			gone++
		}
	})
	if _, err := h.Drop(t.Context(), 2); err == nil {
		t.Fatal("an open partition was dropped")
	}
	h.Fence(2, true)
	rows, err := h.Drop(t.Context(), 2)
	if err != nil || rows != gone || gone == 0 {
		t.Fatalf("seed %d: dropped %d rows of %d: %v", seed, rows, gone, err)
	}
	compare(t, fmt.Sprint("after the drop, seed ", seed), h)
	for slot := ring.Slot(ring.Slots / 2); slot < ring.Slots*3/4; slot++ {
		if digests, _ := h.store.Digests(slot); digests != [merkle.CellsPerSlot]uint64{} {
			t.Fatalf("seed %d: slot %d has digests left", seed, slot)
		}
	}
	if rows, err := h.Drop(t.Context(), 2); rows != 0 || err != nil {
		t.Errorf("again: %d rows, %v", rows, err)
	}
	h.Fence(2, false)
	each(func(key string, partition int) {
		_, hash, _, err := h.Read([]byte(key), 0)
		if err != nil || hash != kept[key] {
			t.Errorf("seed %d: %s of partition %d: state %x, want %x, %v", seed, key, partition, hash, kept[key], err)
		}
	})
}

func TestAFencedPartitionAnswersNothing(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	defer h.close(t)
	key := "k"
	partition := h.partition(ring.SlotOf([]byte(key)))
	h.set(t, key, "v")
	h.Fence(partition, true)
	if _, _, ok := h.TryRead([]byte(key), 0); ok {
		t.Error("the cache answers")
	}
	if _, _, _, err := h.Read([]byte(key), 0); !errors.Is(err, ErrFenced) {
		t.Errorf("read: %v", err)
	}
	if err := h.take(key, 0, foreign(1, "w")); !errors.Is(err, ErrFenced) {
		t.Errorf("merge: %v", err)
	}
	if _, _, err := h.Mutate([]byte(key), 0, version.Record{}, setOp("w"), true, func(error) { t.Error("called") }); !errors.Is(err, ErrFenced) {
		t.Errorf("mutate: %v", err)
	}
	if err := h.take(key, 9, foreign(2, "hint")); err != nil {
		t.Errorf("a hint for another node: %v", err)
	}
	if rec, _, err := h.Joined([]byte(key), 9); err != nil || len(rec.Versions) != 1 || string(rec.Versions[0].Value) != "hint" {
		t.Errorf("as a fallback it answers %v, %v, want the hint alone", rec, err)
	}
	if rows, err := h.Rows([]byte(key)); err != nil || len(rows) != 1 || rows[0].For != 9 {
		t.Errorf("rows: %v, %v", rows, err)
	}
	h.Fence(partition, false)
	if got := h.get(t, key); got != "v" {
		t.Errorf("open again: %q", got)
	}
}

// Merges that race with the fence are in the drop or refused, and never after it.
func TestNoRowComesBackBehindADrop(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	defer h.close(t)
	key := "k"
	partition := h.partition(ring.SlotOf([]byte(key)))
	counter := uint64(0)
	for range 200 {
		var writers sync.WaitGroup
		for w := range 4 {
			counter++
			enc := foreign(counter, "v")
			writers.Go(func() {
				if err := h.take(fmt.Sprint("{k}", w), 0, enc); err != nil && !errors.Is(err, ErrFenced) {
					t.Error(err)
				}
			})
		}
		h.Fence(partition, true)
		if _, err := h.Drop(t.Context(), partition); err != nil {
			t.Fatal(err)
		}
		writers.Wait()
		page, err := h.Scan(0, 0, ring.Slots-1, 10)
		if err != nil || len(page.Entries) != 0 {
			t.Fatalf("%d rows behind the drop, %v", len(page.Entries), err)
		}
		h.Fence(partition, false)
	}
}

// A node that owns nothing of a partition may stand in for an owner of it.
func TestHintsOfAFencedPartitionAreReadAndShown(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	defer h.close(t)
	key := []byte("k")
	h.Fence(h.partition(ring.SlotOf(key)), true)
	done := make(chan error, 1)
	h.Merge(key, 9, foreign(3, "kept"), true, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	rows, err := h.Rows(key)
	if err != nil || len(rows) != 1 || rows[0].For != 9 {
		t.Errorf("rows: %+v, %v", rows, err)
	}
	if _, hash, err := h.Joined(key, 9); err != nil || hash == 0 {
		t.Errorf("joined: %x, %v", hash, err)
	}
	if _, _, _, err := h.Read(key, 0); !errors.Is(err, ErrFenced) {
		t.Errorf("own row: %v", err)
	}
}

// What is left of a partition that moved away is not compared: the others may have
// dropped tombstones that it knows nothing of.
func TestNobodyIsToldOfTheRowsOfAFencedPartition(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	defer h.close(t)
	key := "k"
	slot, hash := ring.SlotOf([]byte(key)), ring.KeyHash([]byte(key))
	h.set(t, key, "v")
	if err := h.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Fence(h.partition(slot), true)
	rd, err := h.Reader(slot, slot)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if _, _, _, err := rd.List([]merkle.Cell{merkle.CellOf(slot, hash)}, 0, 10, false); !errors.Is(err, ErrFenced) {
		t.Errorf("list: %v", err)
	}
	if _, _, err := rd.Rows([]Position{{slot, hash}}, 1); !errors.Is(err, ErrFenced) {
		t.Errorf("rows: %v", err)
	}
	h.Fence(h.partition(slot), false)
	if rows, _, err := rd.Rows([]Position{{slot, hash}}, 1); err != nil || len(rows) != 1 {
		t.Errorf("open again: %d rows, %v", len(rows), err)
	}
}

func TestEmptyIsSaidOfWhatIsCommitted(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	defer h.close(t)
	key := "k"
	partition := h.partition(ring.SlotOf([]byte(key)))
	want := func(is bool) {
		t.Helper()
		for p := range 4 {
			if got, err := h.Empty(p); err != nil || got != (is || p != partition) {
				t.Errorf("partition %d is empty: %v, %v", p, got, err)
			}
		}
	}
	if err := h.take(key, 9, foreign(1, "hint")); err != nil {
		t.Fatal(err)
	}
	want(true)
	if err := h.take(key, 0, foreign(1, "w")); err != nil {
		t.Fatal(err)
	}
	h.Fence(partition, true)
	if err := h.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(false)
	if _, err := h.Drop(t.Context(), partition); err != nil {
		t.Fatal(err)
	}
	want(true)
}

// A drop that was cut off goes on after a restart, with right counters.
func TestADropThatWasCutOffIsEndedLater(t *testing.T) {
	disk := vfs.NewMem()
	ctx, cancel := context.WithCancel(t.Context())
	paces := 0
	h := newHost(t, disk, 1, func(c *Config) {
		unitsOfFew(c)
		c.Pace = func(ctx context.Context) (func(), error) {
			if paces++; paces == 2 {
				cancel()
			}
			return func() {}, ctx.Err()
		}
	})
	inIt := 0
	for i := range 2000 {
		key := fmt.Sprint("k", i)
		if h.partition(ring.SlotOf([]byte(key))) == 1 {
			inIt++
		}
		if err := h.take(key, 0, foreign(uint64(i+1), "v")); err != nil {
			t.Fatal(err)
		}
	}
	h.Fence(1, true)
	if rows, err := h.Drop(ctx, 1); !errors.Is(err, context.Canceled) || rows == 0 || rows >= inIt {
		t.Fatalf("cut off after %d rows of %d: %v", rows, inIt, err)
	}
	h.close(t)
	h = newHost(t, disk, 2, unitsOfFew)
	defer h.close(t)
	if empty, err := h.Empty(1); empty || err != nil {
		t.Fatalf("empty after a part of a drop: %v", err)
	}
	h.Fence(1, true)
	if _, err := h.Drop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	compare(t, "after the end of a drop", h)
	if n := h.Stats().Keys; n != int64(2000-inIt) {
		t.Errorf("%d keys are left of %d", n, 2000-inIt)
	}
}

func TestHintsOfOneMomentStayAsTheyWere(t *testing.T) {
	h := newHost(t, vfs.NewMem(), 1, unitsOfFew)
	defer h.close(t)
	for i := range 30 {
		for target := ring.NodeID(8); target < 10; target++ {
			if err := h.take(fmt.Sprint("k", i), target, foreign(uint64(i+1), "hint")); err != nil {
				t.Fatal(err)
			}
		}
	}
	m, err := h.HintMoment()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := h.take("later", 7, foreign(99, "hint")); err != nil {
		t.Fatal(err)
	}
	page, err := h.HintPage(8, 0, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range page.Hints {
		done := make(chan bool, 1)
		h.DropHint(x.Key, 8, x.Record, func(dropped bool, err error) { done <- dropped && err == nil })
		if !<-done {
			t.Fatal("a hint was not dropped")
		}
	}
	if targets, err := m.Targets(); err != nil || len(targets) != 2 || targets[0] != 8 || targets[1] != 9 {
		t.Errorf("targets %v, %v", targets, err)
	}
	n := 0
	for p := (HintPage{}); !p.Done; n += len(p.Hints) {
		if p, err = m.Page(8, p.NextSlot, p.NextHash, 50); err != nil {
			t.Fatal(err)
		}
	}
	if n != 30 {
		t.Errorf("%d hints of 30", n)
	}
}
