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
//	'g'   'g' slot(2) keyhash(4) key                      since ms(8)
//	'l'   'l' lo                                          hi: rows from lo to it may be lost
//	't'   't' slot(2)                                     digests of the cells of a slot
//	'w'   'w' batch(8)                                    log record of a batch
//
// Slot, then hash, then key is the order of a SCAN cursor, of the leaves of a
// Merkle tree and of the partitions of the ring: all three are plain ranges.
// A 'g' row, a grave, says that the 'd' row of the same key has no payload left,
// and since when it is as it is.
// An 'e' row points at the 'd' row of the same key, so that whoever drops
// expired payloads reads a prefix and not the store.
//
// The row "format" of kind 'm' holds one byte, the version of this layout (now
// 4; 3 had no rows of kind 'l' and is read, too). A store written by another
// layout is refused, never guessed at. The row "applied" of kind 'm' holds
// the number(8) of the last batch whose rows are in place.
//
// A log record is the rows of one batch, in order:
//
//	1    version = 2
//	4    number of operations
//	uv   length of the row key
//	uv   0: remove the row; else 1 + length of the value
//	     key, value
//	8    of a 'd' row: what it adds to the digest of its cell
//	     ...
//	4    CRC32C of all the above, little-endian
//
// An operation on a 't' row corrects digests: its value is added to them by XOR.
// Numbers are big-endian, uv is an unsigned varint.
//
// # Digests
//
// The key space is cut into cells, 64 to a slot by the top six bits of the key
// hash, and each has a digest that two replicas compare. A digest is the XOR of
// what its rows add to it; whoever changes a row says by how much (RowOp.Change),
// so it is current without a look at other rows. The changes are in the log
// record with the rows. The row of a slot's digests is
//
//	1    version = 1
//	8    bit i (from the lowest): cell i has a digest that is not 0
//	8    each of those, ascending
//
// and is always as of the batch that the row "applied" names: what came later is
// added again from the log when the store is opened. In memory there are the
// digests of the rows in place and those of all committed rows, at most 8 MiB
// each, made slot by slot as rows appear. Digest rows that cannot be read do not
// keep a store from opening: VerifySlot computes them anew.
//
// # Commits
//
// Writes are queued with [Store.Enqueue], which never waits for the disk, and
// are committed by a single goroutine. It takes everything that is queued as
// one batch, logs it with one sync if any write in it asked to be durable, and
// then runs the Done callbacks in the order of the queue. While one batch
// is being synced the next one fills, so the group grows with the load and the
// price of a sync is shared. This is the local persistence engine of Dynamo §5.
//
// Each batch has a sequence number, which grows from one run to the next. [Store.Committed] and [Store.Synced] are
// the numbers up to which everything is visible, and durable. Invariant: a
// write is durable before its Done(nil) if it asked for it; a disk that cannot
// keep that promise ends the store, never the promise: see [Config.Fatal].
//
// # Log first, rows later
//
// A batch reaches Pebble as a single row, its log record. Its rows are kept in
// memory, in a generation, where Get and Scan look first. When a generation is
// large or old, a second goroutine applies it: it writes the latest state of
// each row, sorted, and removes the log records. Most of what a row costs is its
// place in the order of a memtable. This way a row that is overwritten soon
// never takes one, and a large generation is taken as a memtable as it is.
//
// Durability rests on three facts. A durable write is in a synced log record
// before its Done(nil). The log record is removed in the batch that brings its
// rows, or in a later one than those; Pebble writes batches to its own log in
// their order, in one file after the other, and a file is synced before the
// next one begins. A batch is one record of that log and is flushed to tables
// as a whole together with those before it, also when it is taken as a memtable
// of its own. So whatever a crash keeps of unsynced batches is a prefix: if the
// removal is in it, so are the rows; if it is not, the log record is still
// there, and opening applies it again. That is harmless, for what is applied are
// the latest states, in the order of the log. This holds for one directory of
// Pebble's log; fail-over to a second one is not used.
//
// A log record that cannot be read back refuses to open: behind it lie writes
// that were acknowledged.
//
// What the engine cannot notice is a log that ends too early: a file called REACH
// beside it says how far the log was durable, and Open compares the two. A
// directory that holds less still opens, and says so: see [Store.Lost]. What it
// lacks is bounded: nothing is in the log alone for longer than Config.LogAge. And
// whether there are other nodes that have it is noted beside the log, by
// [Store.NoteCompany].
//
// Pending rows have a bound, and so has the time that opening takes. Where the
// bound is reached commits wait, and writes are refused in the end. Reads never
// wait: a scan merges the rows in memory with those of Pebble, and when they are
// many it asks for them to be applied, for the benefit of the next one.
//
// # Damage
//
// A damaged block of a table is found by whoever reads it. The goroutine that
// applies then replaces the rows around it by what can still be read of them, in
// one step of the engine; see salvage.go. Where rows may have been lost is a
// [Hole]: lookups that find nothing there answer [ErrHole], which is corrupt and
// not absent, until the owner of the store has brought back what was lost and
// calls [Store.Fill]. The engine's compactions pause after one that failed, and
// its values are never in files of their own: damage to one would end the process.
//
// # Who may call what
//
// Every method is safe from any goroutine. Done callbacks run on the commit
// goroutine and must neither block nor wait for another write; they may
// enqueue. A store that has been closed answers [ErrClosed] to everything.
package storage
