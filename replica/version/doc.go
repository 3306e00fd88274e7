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
// # Counters
//
// What INCR adds must not be lost to a concurrent INCR, so it is no version. Each row
// keeps one running total, its Addend, and the addends of the others as it has heard
// of them; they are joined by taking the newer, and summed up when a client looks.
// A write that replaces the key's value says of each addend how much of it it has
// seen, and that much is subtracted from then on; what was added beside it still
// counts. So a DEL by somebody who saw 41, beside an INCRBY 20, leaves 20. Expiry is a
// Cell like any other. Addends stay until the record is dropped: whoever folded two
// of them into one would count one twice when they come from elsewhere.
//
// A total must grow in one place only. A row that was created by replication may
// have had an earlier life that went further, and a process that crashed may have
// lost increments that others have; so an addend is extended only by the process and
// the life of the row that began it (Counter.Own, and the actor), as a context's span
// is.
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
//	1        flags: 1 amnesia (local), 2 all-acked (local), 4 lww, 8 counter
//	...      context
//	uv       number of versions, ascending by dot
//	  uv     index of the actor in the context
//	  uv     highest counter of that actor in the context - counter
//	  1      flags: 1 stub, 2 expiry cell
//	  8      HLC
//	  8 uv   HLC and Unix ms of the expiry cell, if flagged
//	  uv ... length and bytes of the value, unless a stub
//	         of a counter:
//	  1      flags: 1 stub (local), 2 expiry cell, 4 own (local)
//	  8 uv   HLC and Unix ms of the expiry cell, if flagged
//	  uv     Start of the own addend, if flagged
//	  ...    addends
//	4        CRC32C of all the above, little-endian
//
// Addends:
//
//	uv       number of addends, at least 1, ascending by actor and Start
//	  8      actor
//	  uv uv  Start, Top - Start
//	  8      HLC
//	  ...    total
//	  1      flags: 1 some were overwritten
//	  uv ... Top - Seen and the base, if flagged
//
// Amount:
//
//	1        0: a whole number; 1: any other
//	uv       the whole number, zigzag
//	16       else units of 10^-17, two's complement
//
// Token, opaque to clients and bound to its key:
//
//	1        format = 1, or 2 with addends
//	8        HLC
//	...      context
//	...      addends, in format 2
//	8        SipHash-2-4 of (key length as 8 bytes, key, all the above)
//
// Op:
//
//	1        format = 1
//	1 1 1    kind, condition, expiry mode
//	1        flags: 1 return old, 2 explicit, 4 addends
//	8        expire-at, Unix ms, two's complement
//	uv       offset
//	8        minimum HLC
//	uv uv uv limits: value bytes, siblings, sibling bytes
//	...      context
//	...      addends, if flagged
//	uv ...   length and bytes of the value
//
// Fields, the value of an OpFields, one after the other:
//
//	1        operation | overflow << 2 | signed << 4
//	1        bits
//	uv       offset in bits
//	8        number, two's complement, unless the operation is a get
//
// Their answers, which travel as the old value of the outcome:
//
//	1        1, or 0 for none
//	8        number, two's complement, if there is one
//
// Outcome:
//
//	1        format = 1
//	1        flags: 1 applied, 2 had old, 4 old value, 8 value now, 16 addends
//	8        HLC
//	8 uv     dot
//	8        old expire-at, Unix ms, two's complement
//	uv uv    length, live versions
//	8 ...    token: HLC, context, addends if flagged
//	uv ...   length and bytes of the old value, if flagged
//	uv ...   and of the value now
package version
