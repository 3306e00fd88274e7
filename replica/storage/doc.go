// Package storage keeps the rows of one node on its disk. It is the only
// package that knows Pebble.
//
// # Rows
//
// One Pebble holds everything; a row key begins with the letter of its kind.
// Integers are big endian, so that byte order is number order.
//
//	kind  row key                                         row value
//	'm'   'm' name                                        as its owner likes
//	'd'   'd' slot(2) keyhash(4) key                      record of an owner
//	'h'   'h' target(8) slot(2) keyhash(4) key            record kept for target
//	'e'   'e' expiry ms(8) slot(2) keyhash(4) key         empty
//
// Slot, then hash, then key is the order of a SCAN cursor, of the leaves of a
// Merkle tree and of the partitions of the ring: all three are plain ranges.
// An 'e' row points at the 'd' row of the same key, so that whoever drops
// expired payloads reads a prefix and not the store.
//
// The row "format" of kind 'm' holds one byte, the version of this layout (now
// 1). A store written by a newer layout is refused, never guessed at.
//
// # Commits
//
// Writes are queued with [Store.Enqueue], which never waits for the disk, and
// are committed by a single goroutine. It takes everything that is queued as
// one batch, applies it with one sync if any write in it asked to be durable,
// and then runs the Done callbacks in the order of the queue. While one batch
// is being synced the next one fills, so the group grows with the load and the
// price of a sync is shared. This is the local persistence engine of Dynamo §5.
//
// Each batch has a sequence number. [Store.Committed] and [Store.Synced] are
// the numbers up to which everything is visible, and durable. Invariant: a
// write is durable before its Done(nil) if it asked for it; a disk that cannot
// keep that promise ends the store, never the promise: see [Config.Fatal].
//
// # Who may call what
//
// Every method is safe from any goroutine. Done callbacks run on the commit
// goroutine and must neither block nor wait for another write; they may
// enqueue. A store that has been closed answers [ErrClosed] to everything.
package storage
