// Package epoch takes a cluster from one ring to the next without losing a read
// or a write. It is a kernel: it holds what a node knows and says what may be
// done; package membership owns the one [State] of a node, gossips it and
// publishes its [View].
//
// # Epochs
//
// An epoch is the join of member records: of each id the winning one. It has a
// ring, which follows from it. Epochs are a lattice, so that administrators who
// change the members on two sides of a split meet in the join of both, and there
// is no leader. Each node holds a chain of live epochs:
//
//	live[0] ...      read by somebody still, perhaps
//	live[base]       whose owners this node reads from
//	live[base+1] ... targets of before, for which this node handed over everything
//	live[last]       the target: the join of all records known
//
// Writes go to the owners in every live epoch, and each such set must give W
// acknowledgements, a hint counting for the owner that it replaces. Reads go to R
// owners in the base. Every node says of itself, versioned, what it has reached:
// ack, sync, base and read. These trackers travel with the records.
//
// # The steps
//
//	merge     records join; if that is a new epoch it becomes the target
//	ack       no request that began before the target was there still runs:
//	          this node writes to the target's owners from now on
//	transfer  when all have acked: what this node holds, hints too, is offered
//	          to the target's owners ([View.Recipients]), who say SKIP or SEND,
//	          store it durably and CONFIRM (Dynamo §4.9)
//	sync      everything was confirmed
//	flip      when all have synced, or when somebody reads there already:
//	          base = target
//	read      no request that began before the flip still runs
//	retire    when all have read: what is below the base is no longer live, and
//	          in a settled view partitions that are not owned are dropped
//
// "All" are those with a record in the target, except the forgotten, and those
// whose removal stands in the lowest live epoch already. A removed node is thus
// waited for until it has seen its removal through, also one that was removed
// while it joined, of which the old epochs know nothing.
//
// # Why it is safe
//
// A target that is completed was acked by everybody, so each writes to its
// owners until its own base is above it. What was acknowledged before that ack
// is at W owners of the base; each of those hands it over or stays. Somebody who
// is no owner in the target offers to all its owners, so W copies remain
// whichever owners leave. So bases are a chain, and a reader of any of them
// finds W copies in its set.
//
// A target that another overtakes before this node has synced it can become
// nobody's base, because all wait for that sync; it is let go at once, so writes
// are owed to few sets however many nodes join in a row. One that was synced
// stays until all have acked a later target with a base below it, since only
// somebody whose target it is can begin to read there. At most MaxLive epochs
// live; the last place is not synced.
//
// # Who may coordinate
//
// A joining node that coordinates as soon as it has acked is not safe: the others
// may not know it, and could retire the epoch that it reads from, or complete
// one that it does not write to. It is admitted when all, as it knows them, have
// acked a target in which it is, and none of them reads above its base. Before
// that it takes over the epochs of whoever is further. It loses admission when its
// removal has become the base, and when others remember more of it than its disk
// does (a restored directory).
//
// A node that has left relays ([View.Relay]): it reads from the owners in its base and
// hands writes to nodes that may coordinate. Nobody waits for it, so whoever reads above
// that base refuses its reads: others may write there no more. Whoever does not has not
// said that it reads elsewhere, so everybody still writes to the owners in that base.
//
// # Removing
//
// A node that is alive is removed by record, and hands over what it has. It may
// stop when [View.Out]: its removal is in its own lowest live epoch, and in that of a
// member, by that member's word. Before that the others may still need to hear what it
// said last. A replaced node is removed in the same change in which the newcomer gets
// its place id.
//
// A dead one is forgotten: its record says so, wins over all its other records,
// and nobody waits for it. It may be alive behind a broken network, therefore
// nobody listens to it ([View.Stale]): what it had written to others before they
// acked the forgetting is handed over like everything else, and what it writes
// after is refused. What only its disk held is given up, hints included. It cannot
// come back; its directory is emptied and it joins as another.
//
// # Hints and drops
//
// A hint that goes home in a transition could reach an owner which has handed
// over already what it had. So it is deleted only if the owner stays one in the
// target ([View.MayDropHint]), or if all [View.Recipients] have the row, too. A row
// whose owner is none goes to the owners in all live epochs. Partitions that are
// not owned are dropped in a settled view only, and no target is acked while a drop
// runs: what comes for the target afterwards is not dropped, and what came before
// is handed over again. A drop waits a little: who has not heard that the change is
// over owes its writes to the owners of before.
//
// # Order of saving
//
// A state is saved, synced, before its view is published and before it is
// gossiped. What a node has said is then what it remembers; requests and
// transfers that were running begin anew, and transfers find SKIP.
//
// # Layout
//
// Numbers are big-endian, a text is its length in one byte and its bytes.
//
//	state    u8 version = 1, u8 flags: 1 admitted, u64 node
//	         records of the target
//	         u8 number of live epochs (1..8), u8 index of the base
//	         for each live epoch but the last: records in which it differs from
//	         the next
//	         u16 count, then trackers in order of id
//	         u32 CRC-32C of all before it
//	records  u16 count (4096 at most), then in order of id
//	record   u64 id, u8 flags: 1 removed, 2 forgotten, or 4 absent (and no more)
//	         u64 place id, u16 weight, text zone (64)
//	         u64 counter, i64 time in ms, u64 admin
//	tracker  u64 id, u64 version, then ack, sync, base, read: each
//	         u8 index of a live epoch, or 255, u64 sum, u64 digest
//	stamp    of the target and of the base: u64 sum, u64 digest
package epoch
