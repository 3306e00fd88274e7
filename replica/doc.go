// Package replica is what one node does for the keys it holds: it reads, joins
// what others send, carries out the mutations of clients and mints their dots,
// scans, counts, and drops expired payloads.
//
// # Rows
//
// A key has at most one own row, the record that this node holds as one of its
// owners, and one hint row for each node on whose behalf it was given writes
// (paper §4.6). They live side by side and are never mixed: every method takes
// the target of the row, 0 for the own one.
//
// # Atomicity
//
// A lock per stripe of keys makes read, change and queueing one step. It is
// held across memory and, when the record cache misses, one read of the disk;
// never across a commit. Writes are queued under it, so that the order of the
// queue is the order of the changes of a key.
//
// A change is visible from the moment it is queued: the record cache keeps it,
// and cannot lose it before it is committed. Invariant: what the cache holds is
// what the disk will hold once the queue has drained. Success is answered only
// later, when the batch is committed, and synced if the caller asked for it. A
// call that changes nothing, because all it brings is known already, rests on a
// state that may itself still be queued; it is answered when that state is
// committed, not before.
//
// # Dots
//
// The actor of a dot is this incarnation of the process (notes: see package
// version). Counters are kept in memory, one for each partition, and only grow:
// a write that fails to be queued burns its number. Each hint row has an actor
// of its own, derived from the incarnation and the target. A node that writes
// to two rows of one key, having been fallback for two owners in turn or having
// become one, would otherwise extend in one row the interval of the other, and
// claim writes it has not got there.
//
// # Counting
//
// [Replica.Count] is exact, without reading the disk: a counter for each slot
// follows every change of a row. A clean close stores the counters; opening
// takes them out again, so that they are used once. After an unclean stop the
// counters begin at zero and follow the changes from there, while Run counts a
// snapshot taken before the first change; the sum is exact when it has ended,
// and no write had to wait. What damage hides from it is remembered, and counted
// by the [Mender].
//
// A key counts while it has a payload, expired or not, as in Redis: the sweeper
// takes payloads away a second after their time, and leaves the dot and its
// expiry behind as a stub, against an extension that is still on its way.
//
// # Who may call what
//
// All methods may be called from any goroutine. TryRead never touches the disk;
// Read, Merge and Mutate may read it once, so a caller that must not wait asks
// TryRead first. Callbacks run on the commit goroutine of the store or inside
// the call, and must not block.
package replica
