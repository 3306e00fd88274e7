package integration

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

// This file parks tombstones as hints, lets keys be written anew meanwhile, and
// delivers the tombstones late: while the owners still know of the delete, or, from
// an old copy of the disk that they were parked on, after they have forgotten it.
// A tombstone names what it deletes, so the new value must survive all of it.

func TestALateTombstoneHarmsNoNewValueInVirtualTime(t *testing.T) {
	t.Parallel()
	first, seeds := simSeeds(t, 2)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { doom(t, uint64(seed)) })
		})
	}
}

const doomKeys = 60

// revival is one key that is deleted and written anew.
type revival struct {
	key, token string
	when       int // the step at which it is written anew
}

// doom runs one seed: node 2 is away when the keys are deleted, and node 4 with the
// hints for it dies before it is back.
func doom(t *testing.T, seed uint64) {
	c := newTunedSimCluster(t, seed, 5, reaping)
	defer c.close()
	rng := rand.New(rand.NewPCG(seed, 0x646f6f6d))
	const owner, holder = 2, 4
	keys := make([]*revival, doomKeys)
	for k := range keys {
		keys[k] = &revival{key: fmt.Sprint("k", k), when: rng.IntN(6)}
		c.must(rng.IntN(5), "SET", keys[k].key, "old")
	}
	c.crash(owner)
	c.nodes[owner].node = nil
	time.Sleep(20 * time.Second)
	for _, r := range keys {
		at := []int{0, 1, 3, 4}[rng.IntN(4)]
		tok := c.must(at, "VCTX.GET", r.key).([]any)[0].(string)
		r.token = c.must(at, "VCTX.DEL", r.key, tok).([]any)[0].(string)
	}
	time.Sleep(10 * time.Second) // the tails of the deletes
	if rows, _, err := c.hintRows(); err != nil || rows < doomKeys/4 {
		t.Errorf("seed %d: %d tombstones are parked, %v", seed, rows, err)
	}
	parked := c.nodes[holder].disk.CrashClone(vfs.CrashCloneCfg{})
	up := []int{0, 1, 3}
	revive := func(step int) {
		for _, r := range keys {
			if r.when == step {
				c.revive(rng, up[rng.IntN(len(up))], r)
			}
		}
	}
	revive(0)
	c.crash(holder)
	c.nodes[holder].node = nil
	time.Sleep(20 * time.Second)
	revive(1)
	c.start(owner)
	c.awaitReady(owner)
	up = append(up, owner)
	revive(2)
	time.Sleep(3*time.Minute + time.Duration(rng.IntN(120))*time.Second)
	if n := c.reapedRows(); n != 0 {
		t.Errorf("seed %d: %d rows were dropped while tombstones were parked on a node that is down", seed, n)
	}
	revive(3)
	c.restart(holder) // with the hints, which go home
	up = append(up, holder)
	time.Sleep(4*time.Minute + time.Duration(rng.IntN(120))*time.Second)
	reaped := c.reapedRows()
	if reaped == 0 {
		t.Errorf("seed %d: no tombstone was dropped: this tests nothing", seed)
	}
	revive(4)
	c.crash(holder)
	c.nodes[holder].disk = parked // the tombstones are back, and nobody remembers them
	c.restart(holder)
	revive(5)
	c.awaitHome(newHistory(t, seed))
	time.Sleep(time.Minute)
	c.checkRevived(keys)
	t.Logf("seed %d: %d rows were dropped before the old copy was put back", seed, reaped)
}

// revive writes a key anew: with the context of the delete, with none, or plainly.
func (c *simCluster) revive(rng *rand.Rand, at int, r *revival) {
	c.t.Helper()
	switch rng.IntN(3) {
	case 0:
		c.must(at, "VCTX.SET", r.key, "new", r.token)
	case 1:
		c.must(at, "VCTX.SET", r.key, "new", "")
	default:
		c.must(at, "SET", r.key, "new")
	}
}

// checkRevived checks that each key has its new value, on all owners, and that no
// other is beside it.
func (c *simCluster) checkRevived(keys []*revival) {
	c.t.Helper()
	cl, err := c.dial(0)
	if err != nil {
		c.t.Errorf("seed %d: %v", c.seed, err)
		return
	}
	defer cl.conn.Close()
	for k, r := range keys {
		got := c.must(k%len(c.nodes), "VCTX.GET", r.key, "R", "3").([]any)[1].([]any)
		if len(got) != 1 || got[0] != "new" {
			c.t.Errorf("seed %d: %s, written anew at step %d, holds %q", c.seed, r.key, r.when, got)
		}
	}
	time.Sleep(5 * time.Second) // repairs run behind the answers
	for _, r := range keys {
		c.checkEqual(cl, r.key)
	}
}
