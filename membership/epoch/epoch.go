package epoch

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// Limits. A state within them fits an exchange of gossip.
const (
	MaxRecords = 4096    // members and removed nodes together
	MaxLive    = 8       // epochs alive at once, the read one and the target included
	MaxCounter = 1 << 40 // of a record: no administrator changes a node that often
)

// ID names an epoch. Equal ids mean equal records.
//
// Sum grows from an epoch to any that is above it, except if two records of one
// node share a counter. So of two epochs that are known to be comparable (those
// that were ever read from, or the targets of one node) the one with the
// greater sum is above; on equal sums nothing is concluded.
type ID struct {
	Sum    uint64 // of all counters
	Digest uint64
}

// Epoch is the join of member records: of each id the winning one. Epochs are a
// lattice: one is above another if it is so record by record. An Epoch is
// immutable, except that its ring is computed on the first use.
type Epoch struct {
	id      ID
	records []ring.Record // sorted by id, one for each
	ring    *ring.Ring    // nil until a view needed it
}

// newEpoch makes an epoch of reconciled records.
func newEpoch(records []ring.Record) *Epoch {
	e := &Epoch{records: records}
	hash := sha256.New()
	var b []byte
	for _, r := range records {
		b = appendRecord(b[:0], r)
		_, _ = hash.Write(b) // a hash never fails
		e.id.Sum += r.Counter
		if r.Forgotten {
			e.id.Sum += MaxCounter // it wins over greater counters
		}
	}
	e.id.Digest = binary.BigEndian.Uint64(hash.Sum(nil))
	return e
}

// ID is the name of the epoch.
func (e *Epoch) ID() ID { return e.id }

// Records are the winning records, sorted by id. Do not modify.
func (e *Epoch) Records() []ring.Record { return e.records }

// Record is the winning record of a node, if it has one.
func (e *Epoch) Record(id ring.NodeID) (ring.Record, bool) {
	i, found := slices.BinarySearchFunc(e.records, id, func(r ring.Record, id ring.NodeID) int {
		switch {
		case r.ID < id:
			return -1
		case r.ID > id:
			return 1
		}
		return 0
	})
	if !found {
		return ring.Record{}, false
	}
	return e.records[i], true
}

// member reports whether a node is in the epoch's ring.
func (e *Epoch) member(id ring.NodeID) bool {
	r, found := e.Record(id)
	return found && !r.Removed
}

// forgot reports whether a node was removed as dead.
func (e *Epoch) forgot(id ring.NodeID) bool {
	r, _ := e.Record(id)
	return r.Forgotten
}

// left reports whether a node is gone from the epoch's ring.
func (e *Epoch) left(id ring.NodeID) bool {
	r, found := e.Record(id)
	return found && r.Removed
}

// beneath reports whether f is e or above it.
func (e *Epoch) beneath(f *Epoch) bool {
	return e.id == f.id || slices.Equal(ring.Reconcile(e.records, f.records), f.records)
}

// under reports whether f is above e and another.
func (e *Epoch) under(f *Epoch) bool { return e.id != f.id && e.beneath(f) }
