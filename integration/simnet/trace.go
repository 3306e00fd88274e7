package simnet

import (
	"fmt"
	"hash/crc32"
	"time"
)

// trace sums up everything that was sent, when, by whom, to whom and what. Two runs
// with one trace were one run, as far as nodes can tell.
type trace struct {
	sum, events uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tracePrime is that of FNV-1a with 64 bits.
const tracePrime = 1099511628211

func (t *trace) add(from, to string, b []byte) {
	ends := crc32.Checksum([]byte(to), castagnoli)
	ends = crc32.Update(ends, castagnoli, []byte(from))
	for _, part := range []uint64{
		uint64(time.Now().UnixNano()),
		uint64(ends)<<32 | uint64(crc32.Checksum(b, castagnoli)),
		uint64(len(b)),
	} {
		t.sum = (t.sum ^ part) * tracePrime
	}
	t.events++
}

// Trace is a line that sums up all that was sent so far.
func (n *Network) Trace() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprintf("trace %016x of %d events", n.mu.trace.sum, n.mu.trace.events)
}
