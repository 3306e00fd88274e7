// Package version is the arithmetic of one key: what a replica holds, how two
// replicas' holdings join, what a client's mutation makes of them. It does no
// I/O and knows no time, randomness or lock; the caller supplies clock readings
// and dots, and holds the key's lock around read, Apply and store.
//
// # The record
//
// A Record is a set of live versions and a Context, the exact set of dots that
// are known. A dot in the context without a version is a write that was
// overwritten or deleted, so a record without versions is a tombstone and a
// delete needs no marker of its own. This is a dotted version vector set (Dynamo
// §4.4; Preguiça et al. 2012) with one change: the context keeps intervals per
// actor and not one counter per actor. A counter claims everything below it, and
// a replica that lost data makes claims that are not so: after a crash, a
// counter that skips ahead covers the very write that was lost here and still
// lives on a peer.
//
// Four rules keep contexts exact:
//
//   - An Actor is one incarnation of a process, drawn at random at its start.
//     Whatever a crash took away belonged to an actor that mints no more.
//   - A new dot extends its actor's top span only when this record has that span
//     and no amnesia: all own dots in between then went through this record.
//   - A record that replication, or a client's context, created where there was
//     none has amnesia: an earlier life of it may have been handed off and
//     dropped, with dots that only others know. Its next own dot starts a new
//     span, which may be extended again.
//   - A node may hold two rows of a key, its own and one held for another node.
//     A lineage that is extended in one row would claim dots minted in the
//     other, so the minter says in Mint.Floor how far other rows have come.
//
// Merge keeps what both sides have and what the other side has not seen. It is
// commutative, associative and idempotent. Policy never enters it. Local flags
// never enter it either, nor the state hash: if they did, repairing a difference
// would create one.
//
// Every version carries an HLC above all that it covers. Plain clients see the
// version with the highest (HLC, dot); the others stay until a write that saw
// them replaces them. An expiry is a Cell bound to a dot and joined by HLC.
//
// # Callers
//
// The replica package stores records and calls Merge and Apply. The coordinator
// merges what it reads and carries Op and Outcome. The doors seal and open
// tokens. The anti-entropy packages compare StateHashes, and
// WholeHashes where a replica has lost something or is new.
//
// # Layouts
//
// Disk and wire use one record codec with 8-byte actor ids. A dictionary of
// local actor numbers would save about 7 bytes per actor on disk and would make
// every row depend on another one; it is left out on purpose. Numbers are
// big-endian, "uv" is an unsigned LEB128 varint in its shortest form. Equal
// values have equal bytes, and a decoder refuses any other form of them.
//
// Context:
//
//	uv       number of actors, ascending
//	  8      actor
//	  uv     number of spans, at least 1, ascending
//	    uv   Lo - lowest possible Lo (1 at first, then the last Hi + 2)
//	    uv   Hi - Lo
//
// Record:
//
//	1        format = 1
//	1        flags: 1 amnesia (local), 2 all-acked (local), 4 lww
//	...      context
//	uv       number of versions, ascending by dot
//	  uv     index of the actor in the context
//	  uv     highest counter of that actor in the context - counter
//	  1      flags: 1 stub, 2 expiry cell
//	  8      HLC
//	  8 uv   HLC and Unix ms of the expiry cell, if flagged
//	  uv ... length and bytes of the value, unless a stub
//	4        CRC32C of all the above, little-endian
//
// Token, opaque to clients and bound to its key:
//
//	1        format = 1
//	8        HLC
//	...      context
//	8        SipHash-2-4 of (key length as 8 bytes, key, all the above)
//
// Op:
//
//	1        format = 1
//	1 1 1    kind, condition, expiry mode
//	1        flags: 1 return old, 2 explicit
//	8        expire-at, Unix ms, two's complement
//	uv       offset
//	8        minimum HLC
//	uv uv uv limits: value bytes, siblings, sibling bytes
//	...      context
//	uv ...   length and bytes of the value
//
// Outcome:
//
//	1        format = 1
//	1        flags: 1 applied, 2 had old, 4 old value present
//	8        HLC
//	8 uv     dot
//	8        old expire-at, Unix ms, two's complement
//	uv uv    length, live versions
//	8 ...    token: HLC, context
//	uv ...   length and bytes of the old value, if flagged
package version
