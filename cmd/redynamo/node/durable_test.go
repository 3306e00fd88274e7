package node

import (
	"testing"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/replica/handoff"
	"github.com/redynamo/redynamo/replica/storage"
)

// Where W disks are promised, a copy counts once it is synced. With the mode of one
// disk that is the coordinator's; with the mode of intervals the store knows that a
// sync is not waited for.
func TestCopiesCountOnceTheyAreSyncedWhereWDisksArePromised(t *testing.T) {
	for mode, want := range map[storage.Fsync]bool{storage.FsyncAlways: true, storage.FsyncInterval: true, storage.FsyncOne: false} {
		if n := (&Node{cfg: Config{Fsync: mode}}); n.durableRows() != want {
			t.Errorf("%v: %v", mode, n.durableRows())
		}
	}
}

// Its confirmation would let others drop what it may lack.
func TestANodeThatMayLackSomethingHandsNothingOver(t *testing.T) {
	target := epoch.ID{Sum: 3, Digest: 4}
	v := &membership.View{Epoch: &epoch.View{Number: 7}}
	v.Epoch.Transfer.Target = target
	if r := ringsOf(v, false); r.Grant != handoff.Target(target) || r.Plan == nil || r.Number != 7 {
		t.Errorf("without doubt: %+v", r)
	}
	if r := ringsOf(v, true); r.Grant != (handoff.Target{}) || r.Plan == nil || r.Number != 7 {
		t.Errorf("in doubt: %+v", r)
	}
	v.Epoch.Settled = true
	if r := ringsOf(v, false); r.Grant != (handoff.Target{}) || r.Plan != nil {
		t.Errorf("in settled rings: %+v", r)
	}
}
