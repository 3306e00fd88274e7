// Package antientropy finds and removes differences between the owners of a
// partition (Dynamo §4.7). It is the last of the three ways in which replicas
// converge: a hint or a read repair brings a write to an owner that missed it
// soon, this brings it surely, whatever was lost on the way.
//
// # An exchange
//
// A node compares the partitions that it shares with another owner:
//
//  1. The roots of all of them, in one question. Mostly they are equal, and that
//     is all.
//  2. Where a root differs, the tree is descended to the cells that differ.
//  3. After a pause, in which writes under way arrive everywhere, the states of
//     the keys in those cells are listed on both sides. What now differs has been
//     missed by somebody.
//  4. The rows at those positions are fetched and merged here, and what the other
//     side then still lacks is delivered to it. So one pass serves both sides, and
//     only rows that differ move.
//
// The trees are the digests that storage keeps current in every write batch; no
// row is read to compare them. Rows are read in cells that differ, and nowhere
// else.
//
// # When
//
// Of two nodes one begins their exchanges, by a rule on their ids; after a start
// every node begins one with each other owner, since it is the one that may lack
// something. A node is in one session at a time, whoever began it: brought rows by
// two at once, it would be brought the same ones. Each peer has its turn every Interval, in a random
// place of it, and at once when it has been away and some time has passed for its
// hints to arrive. Repair asks for a pass over some slots now. A failed exchange is
// repeated after a growing pause.
//
// These turns compare what both nodes own in the base. What is to move in a change of
// rings is for Exchange, which compares what both own in any live ring; so does Repair,
// for a node that has lost something must get it back in all of them. The epoch of a
// session tells both sides which of the two it is.
//
// # Contexts
//
// A leaf says nothing of the context of a row that has a value, so that what one replica
// has forgotten of the past is no difference to another for ever. But such a context may
// be all that is left of a delete: it knows a version that must not come back. As long
// as each owner keeps what it has acknowledged, that is known to W of them. An owner that
// has lost rows, or that comes in the place of another, has to be told: so Exchange is
// whole, and Repair on demand. They list every cell that has rows, not only those that
// differ, by hashes of whole records. Only a session of that kind proves that nothing is lost.
//
// # What a session proves
//
// A session is an exchange of one partition with one other owner that ended
// without an error, and was followed by a barrier on both sides: what it found
// equal or made equal is on both disks. It has a beginning and an end that both
// sides know of, so it is a proof for both. The [Exchanger] keeps, for each partition
// and owner, when the last session began, by its own clock. Whoever drops tombstones asks for that
// proof: a session with every other owner that began after the tombstone was last
// changed (package replica).
//
// A session goes by the rings of its beginning, and whatever is asked in it carries
// their epochs: who has let go of these refuses it ([Stamp]), the session ends, and
// proves nothing. One that will not come to its end is given up in so many words,
// because until then the other side is in no other.
//
// # Who may call what
//
// [Exchanger] asks, [Responder] answers; only the frames of a session go to the
// Exchanger of the other side. Package node joins them with replica and
// replica/rpc. Methods may be called from any goroutine; those of a Responder read
// the disk and block.
package antientropy
