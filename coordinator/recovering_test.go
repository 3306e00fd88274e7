package coordinator

import (
	"errors"
	"testing"

	"github.com/redynamo/redynamo/replica/version"
)

// A key that only one healthy owner holds, beside one that has lost it and one
// that never had it, must not be reported absent by those two.
func TestAbsentAtARecoveringOwnerIsNoVote(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		owners[0].put("k", made(1, 1, "x", version.Record{}))
		owners[0].lose()
		owners[1].put("k", made(1, 1, "x", version.Record{}))
		for _, at := range []*node{owners[0], owners[2], r.others("k")[0]} {
			res, err := at.read("k", ReadOptions{})
			if err != nil || value(res.Record) != "x" {
				t.Errorf("read at %v: %q, %v", at, value(res.Record), err)
			}
		}
	})
}

func TestWhatARecoveringOwnerStillHasIsRead(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		owners[0].lose()
		owners[0].put("k", made(1, 1, "x", version.Record{})) // the only copy
		res, err := owners[0].read("k", ReadOptions{})
		if err != nil || value(res.Record) != "x" {
			t.Errorf("read: %q, %v", value(res.Record), err)
		}
	})
}

func TestWithoutRHealthyOwnersAReadFailsInsteadOfGuessing(t *testing.T) {
	inBubble(t, 3, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		owners[0].lose()
		owners[1].set(broken)
		if res, err := owners[2].read("k", ReadOptions{}); !errors.Is(err, ErrNoReadQuorum) {
			t.Errorf("read: %+v, %v", res, err)
		}
	})
}

func TestARecoveringCoordinatorReadsBeforeItWrites(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		for _, o := range owners {
			o.put("k", made(1, 1, "old", version.Record{}))
		}
		owners[0].lose()
		if _, err := owners[0].write("k", set("new"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.drained()
		for _, o := range owners {
			if rec := o.get("k", 0); len(rec.Versions) != 1 || value(rec) != "new" {
				t.Errorf("%v holds %d versions, %q", o, len(rec.Versions), value(rec))
			}
		}
	})
}

func TestARecoveringCoordinatorWritesEvenIfNobodyCanBeRead(t *testing.T) {
	inBubble(t, 3, Config{W: 1}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		owners[0].lose()
		owners[1].set(broken)
		owners[2].set(broken)
		if _, err := owners[0].write("k", set("new"), WriteOptions{W: 1}); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOwnerWithAFullDiskIsStoodInForWithAHint(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		owners[2].set(full)
		if _, err := owners[0].write("k", set("v"), WriteOptions{W: 3}); err != nil {
			t.Fatal(err)
		}
		r.drained()
		hints := 0
		for _, o := range r.others("k") {
			if !o.get("k", owners[2].id).Absent() {
				hints++
			}
		}
		if hints != 1 {
			t.Errorf("%d hints for the owner with the full disk", hints)
		}
	})
}

func TestAWriteAvoidsACoordinatorWithAFullDisk(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		owners := r.owners("k")
		owners[0].mu.mintErr = ErrDiskFull
		for _, at := range []*node{owners[0], r.others("k")[0]} {
			if _, err := at.write("k", set("v"), WriteOptions{}); err != nil {
				t.Errorf("write at %v: %v", at, err)
			}
		}
		if n := owners[1].mints(); n != 2 {
			t.Errorf("the next owner minted %d times", n)
		}
	})
}

func TestWritesToFullDisksAloneSaySo(t *testing.T) {
	inBubble(t, 5, Config{}, func(t *testing.T, r *rig) {
		for _, n := range r.nodes {
			n.mu.mintErr = ErrDiskFull
			n.set(full)
		}
		for _, at := range []*node{r.owners("k")[0], r.others("k")[0]} {
			if _, err := at.write("k", set("v"), WriteOptions{}); !errors.Is(err, ErrDiskFull) {
				t.Errorf("write at %v: %v", at, err)
			}
		}
	})
}
