// Package replica is what one node does for the keys it holds: it reads their
// records, joins what other replicas send, applies the operations of clients
// with dots of its own, lists and counts keys, and lets go of expired values.
//
// # Rows
//
// A record lies in a row of package storage. A node that owns a key has it in
// a row of its own; a node that stands in for a dead owner keeps it as a hint
// for that owner, a row of the owner's name (For). Both are treated alike: a
// fallback that coordinates a write reads, merges and mints in its hint row, so
// that writes during an outage extend one lineage (Dynamo, section 4.6).
//
// # One key at a time
//
// A key belongs to one of a fixed number of stripes, by its hash. A stripe has
// one lock, and under it a part of the record cache. Whatever changes a record
// holds the lock from reading the old record to queueing the new one in the
// store; so the order of commits is the order of changes, and a change sees the
// one before it though that is not yet on disk. The lock is not held while a
// commit is waited for; only a record that is not cached is read under it.
//
// Invariant: a cached record whose batch is not committed stays in the cache,
// since the store would answer with the one before it.
//
// Done(nil) of a merge or a mutation means that the resulting record is
// committed, and synced where that was asked, also if it was there before: a
// second copy of a message must not be acknowledged by a first whose commit is
// still to come.
//
// # Counting keys
//
// The number of live keys of each slot is kept in memory and changed with each
// record. A clean close writes it down; an open that finds no such note counts
// the rows of a snapshot taken before the first change, beside the traffic, and
// adds what has changed since.
//
// Only node joins this package to others; it knows version, storage and ring.
package replica
