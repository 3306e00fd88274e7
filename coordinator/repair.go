package coordinator

import (
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// repairer bounds the read repairs under way and keeps a hot stale key from
// being repaired once per read. What it drops, anti-entropy finds.
type repairer struct {
	mu struct {
		sync.Mutex
		keys map[repairKey]struct{}
	}
}

type repairKey struct {
	node ring.NodeID
	key  string
}

// begin claims the repair of key at node.
func (r *repairer) begin(k repairKey, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.mu.keys[k]; busy || len(r.mu.keys) >= limit {
		return false
	}
	r.mu.keys[k] = struct{}{}
	return true
}

func (r *repairer) end(k repairKey) {
	r.mu.Lock()
	delete(r.mu.keys, k)
	r.mu.Unlock()
}

// repairOwners sends record to the owners that a read found stale. The client
// has its answer already; nobody waits for this.
func (c *Coordinator) repairOwners(key []byte, record version.Record, stale []ring.NodeID) {
	c.count.divergent.Inc()
	enc := version.EncodeWire(nil, record)
	for _, node := range stale {
		peer := c.cluster.Peer(node)
		k := repairKey{node, string(key)}
		if peer == nil || !c.repair.begin(k, c.cfg.RepairQueue) {
			c.count.repairsDropped.Inc()
			continue
		}
		c.count.repairs.Inc()
		c.inFlight.Add(1)
		peer.Merge(MergeRequest{
			Key: key, Record: enc, Durable: !c.cfg.FsyncOne,
			Deadline: time.Now().Add(c.cfg.HintTimeout), Class: ClassRepair,
		}, func(err error) {
			if err != nil {
				c.count.repairsFailed.Inc()
			}
			c.repair.end(k)
			c.release()
		})
	}
}
