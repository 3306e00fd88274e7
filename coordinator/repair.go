package coordinator

import (
	"sync"
	"time"

	"github.com/redynamo/redynamo/coordinator/quorum"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// repairer bounds the read repairs under way, by number and by bytes, and keeps a
// hot stale key from being repaired once per read. What it drops, anti-entropy
// finds.
type repairer struct {
	mu struct {
		sync.Mutex
		keys  map[repairKey]struct{}
		bytes int // of the records under way
	}
}

type repairKey struct {
	node ring.NodeID
	key  string
}

// begin claims the repair of key at node with a record of size bytes. One record
// passes alone however large it is.
func (r *repairer) begin(k repairKey, size int, cfg *Config) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, busy := r.mu.keys[k]
	if busy || len(r.mu.keys) >= cfg.RepairQueue || r.mu.bytes > 0 && r.mu.bytes+size > cfg.RepairBytes {
		return false
	}
	r.mu.keys[k] = struct{}{}
	r.mu.bytes += size
	return true
}

func (r *repairer) end(k repairKey, size int) {
	r.mu.Lock()
	delete(r.mu.keys, k)
	r.mu.bytes -= size
	r.mu.Unlock()
}

// repairOwners sends record to the owners that a read found stale. The client
// that began then has its answer already; nobody waits for this. Requires: the caller
// has entered the rings.
func (c *Coordinator) repairOwners(rings *Rings, key []byte, record version.Record, began time.Time, stale []quorum.Repair) {
	if rings.Relay {
		return
	}
	d := &c.count.divergence
	d.reads.Inc()
	enc := version.EncodeWire(nil, record)
	for _, s := range stale {
		peer := c.cluster.Peer(s.Node)
		k := repairKey{s.Node, string(key)}
		if peer == nil || !c.repair.begin(k, len(enc), &c.cfg) {
			d.repairsDropped.Inc()
			continue
		}
		d.repairs.Inc()
		d.missed(s, c.cfg.Now())
		c.inFlight.Add(1)
		rings.join()
		peer.Merge(MergeRequest{
			Key: key, Record: enc, Durable: !c.cfg.FsyncOne, Stamp: rings.Stamp,
			Deadline: c.tailDeadline(began), Class: ClassRepair,
		}, func(err error) {
			if err != nil {
				d.repairsFailed.Inc()
			} else {
				d.repairsDone.Inc()
			}
			if s.Node != c.cluster.Self() {
				rings.settle(err, c.cfg.MessageAge)
			}
			c.repair.end(k, len(enc))
			rings.leave()
			c.release()
		})
	}
}
