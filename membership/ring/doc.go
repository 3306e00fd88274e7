// Package ring says which nodes own which keys. It is a kernel: a pure function
// from the reconciled member records to a [Ring], without clock, lock, input or
// output.
//
// A key has one of 16384 slots, those of Redis Cluster. Slots are grouped into
// a fixed number of partitions of equal size (strategy 3 of Dynamo §6.2), and
// a partition is the unit of placement, of Merkle trees and of handoff. Each
// partition has its own preference list: the owners, headed by the one that
// cluster clients are shown as master, then all other nodes as fallbacks.
//
// # Placement
//
// Dynamo's strategy 3 needs coordination when membership changes. Here the
// owners are computed by priced bounded rendezvous hashing instead, so that the
// same records give the same ring, bit for bit, on every node:
//
//   - Each node gets a quota of partitions in proportion to its weight, as far
//     as "once per node" and the spread over zones allow ([fill]).
//   - Each (partition, node) pair has a pseudo-random draw; draw times price is
//     the cost, and a partition goes to its N cheapest nodes, at most zcap of one
//     zone (1 when there are N zones or more).
//   - Prices begin at 1/quota and are corrected over a fixed number of rounds
//     until loads come within 1/32 of quotas.
//   - Partitions are then given out in a fixed shuffled order, passing over
//     nodes that have reached their quota plus 1/32.
//   - Heads are chosen among the owners under caps of the same kind.
//
// The price correction is what keeps the caps from binding; a cap that binds
// makes one node's arrival move data between others. So a change of membership
// moves about as little as any balanced placement could (see [Diff] and the
// benchmark BenchmarkBalance).
//
// # Histories
//
// Membership changes are records, last writer wins per node ([Reconcile]); only
// the winning records feed the ring.
//
// # Use
//
// Package membership builds rings and publishes them; everyone else reads. A
// Ring is immutable and safe for concurrent readers. Partition, Owners, Owns
// and Walk do not allocate and may be called for every request.
package ring
