package replica

import (
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
