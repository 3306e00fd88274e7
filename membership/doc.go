// Package membership keeps this node's part in its cluster: which nodes are
// members, how they are reached, whether they are up, and the ring that follows
// from it. It is the only user of memberlist.
//
// # What is agreed on, and how
//
// A cluster has constants, drawn by whoever creates it and never changed, and
// a history of member records (Dynamo §4.8.1), which is a lattice: per node the
// greatest stamp wins. Placement is a pure function of both, so records are
// gossiped and rings are not, and equal records mean equal rings. A node's
// state (constants, records, the last announcement of each member) is one blob,
// saved before anybody is shown it, exchanged whole on each push/pull of
// memberlist, and in part by broadcast when records change. Each node's meta in
// memberlist carries a digest of its records, so that two nodes that differ
// notice and exchange at once instead of waiting for the next push/pull. A node that
// refuses another's request for want of records gets that one's state by the other
// protocol (package rpc), and hears it as it hears gossip (Hear).
//
// Liveness is memberlist's opinion and only a hint; it never changes the ring.
// Nodes that are down keep their last announcement, so they can be dialled.
// Memberlist forgets a split and its join is one attempt, therefore each node
// tries every 10 to 15 s, for ever, to join each member it does not see alive,
// and its seeds meanwhile. A stopping node says farewell, and is then seen down
// at once instead of after the failure detector's seconds; that is a statement
// about liveness. Leaving the ring is always a command.
//
// # How a cluster comes into being
//
// A node without history and without seeds creates a cluster of its own,
// established at once. A node with seeds draws constants too, but its cluster
// is forming: nothing was served in it and it may be given up.
//
//	contact with an established cluster    adopt it, whatever was drawn
//	two forming ones meet                  both go to the smaller ClusterID
//	two established ones meet              never merge; refused, logged once per peer
//
// A forming node that sees Expect live nodes with its ClusterID, itself
// included, for a settling time, pledges itself: it saves its own record in
// that cluster. A pledge is not taken back for another forming cluster, only
// for an established one. Whoever holds Expect records of a forming cluster
// takes it for established. A node is ready, once and for all, when its cluster
// is established, Expect members are in the ring, and it is one of them. With
// Expect below two a node with seeds never forms a cluster, it waits for one.
//
// Why two nodes cannot become ready with different constants, if every node
// expects more than half of the nodes that start: let X be the first cluster
// established by pledges. More than half of the nodes had pledged to X before
// pledging elsewhere, and none of them leaves X for a forming cluster. To
// establish another, Y, more than half would have to pledge to Y while it was
// forming; some node would be in both halves, and a node that pledged to X goes
// to Y only if Y is established already, and one that pledged to Y first is not
// among those of X. Messages that are late or lost and crashes change nothing,
// since pledges are saved before they are shown.
//
// If Expect is exactly the number of nodes, pledges cannot even differ: all of
// them had the same ClusterID when the first was made, which only the smallest
// drawn can be, as ids go only down and the one who drew it has no other. With
// a smaller majority, pledges can be split between two clusters, if nodes meet
// in an unlucky order just as they settle; then nobody becomes ready and all
// say so in their logs, and emptying the data directories of one side solves
// it. With Expect of half or fewer, two halves that do not see each other
// become two established clusters. Nothing merges them; one side must be
// emptied and started again. The same holds for two nodes started without
// seeds: each was told to create a cluster.
//
// # Joining later
//
// A node that adopted an established cluster asks Config.Admit and then adds its
// record, as an administrator would, but not before a member has told it the state of
// now: it may have been a member for long, and its disk have lost that. Its flags for constants give way, with a
// warning. Package epoch says how the ring changes then, and when the node is ready.
// A founder and its first records go through the same: all rings of a cluster stand
// above an empty one.
//
// # The level of a cluster
//
// While a cluster is upgraded, programs of two releases run beside each other, and
// one that was replaced may be put back. So there is one number, the level, that
// says what all of them can read: nobody writes, gossips or sends anything that a
// program which serves up to this level cannot read. Every node announces the highest level that its
// program serves. The level in force is part of the state and only rises, of two
// the greater wins: by Finalise, a command of an administrator, which is refused
// unless every member and every live node of the cluster is alive and has announced
// that it serves the new level. A new cluster begins at the lowest level that its
// founders serve.
//
// From then on there is no way back. An older program finds the level on its disk,
// or in the first state that it gets, and ends, saying why; the others keep it out
// of gossip and refuse its connections (package rpc). One that was put back just as
// the level rose is in no other place: what it acknowledged lies in its directory,
// and counts again when a newer program is started there.
//
// # Data directories that were put back, and copies
//
// A node's data directory counts its boots, and its log knows how far it is
// durable. Both are in the announcement, and every member keeps the greatest it
// has heard of each node. A member may forget that with a crash, so a node that
// starts exchanges states with each soon after it sees it. If it meets there a boot
// of its own id that is not below its own, or a log that has come
// further, it runs on an old copy of its directory: a restored backup, or an empty
// one in place of a lost one. It does not stop: it takes a boot number above all
// others, is recovering from then on, and tells its owner by Config.Restored.
//
// A disk that loses the end of its log may lose with it that there are other members,
// most easily that of the node which founded the cluster. The log begins with a ring
// of this node alone, in which its own disk is all that a write needs. So a note
// beside the log says whether there are others (Store.NoteCompany), and who is
// recovering, and knows of none though it had some, waits for a word of one before it
// takes anything, for as long as it takes.
//
// The same meeting later, after the others have taken note of this very process,
// means that a second process runs with a copy of the directory. The later comer
// yields if it can: it asks, before it serves and at such a meeting, whether
// somebody answers as this node at the address where its directory last ran, or
// at that of the other boot, and then stops itself with ErrSuperseded. The
// earlier one gives it some seconds. If the other is alive then, the earlier one
// stops; if not, it goes on with a later boot number, and is recovering, because
// its id has acknowledged what it does not have. Two that cannot reach each other
// take turns in this once, and one of them stops. What was said from the address
// where this process listens was said by a life of its own past, however late a
// member that was cut off brings it: it only takes a boot number above that.
//
// How far logs have come travels every 10 s and is saved only
// with other news. A snapshot of a running node's disk that is younger than that
// and is put back without a restart in between is not told from the original.
//
// # Layouts
//
// All numbers are big-endian. A text is its length in one byte and its bytes.
//
//	state     u8 version = 3, or 4 with the level
//	          u8 flags: 1 established, 2 opened (only on disk: was ready once)
//	          u16 level, 2 or more; in version 3 it is 1 and not there
//	          u64 node whose state it is
//	          16 B cluster id, 16 B token key
//	          u32 units, u8 n
//	          once established: u32 bytes, then the epochs (package epoch),
//	          before: u16 count, then records in order of id
//	          u16 count, then announcements in order of id
//	          u32 CRC-32C of all before it
//	record    u64 id, u64 place id, u16 weight, text zone (64 bytes at most),
//	          u64 counter, i64 time in ms, u64 admin, u8 flags: 1 removed
//	announce- u64 id, u64 stamp; u64 boot, u64 incarnation, u64 reached,
//	ment      u8 flags: 1 recovering; u16 highest level, u16 ports: plain, cluster,
//	          peer, admin, gossip; text zone (64), text host (253)
//	meta      u8 version = 2, or 3 with the weight,
//	          u8 flags: 1 established, 16 B cluster id,
//	          u64 digest of the records and of how far each node has come,
//	          announcement;
//	          u16 weight, 1 to 1000, from level 2 on (at most 400 B in all)
//
// Version 1 of both, whose announcements lack what stands between the first
// two semicolons, is still read, and so is version 2 of a state, which has records
// in place of epochs: its cluster never changed its ring. Whatever versions of a state
// come after 4 begin like it, as far as the cluster id, and end with the CRC, so
// that a program which cannot read them can tell why.
//
// # Who calls what
//
// The node assembly makes one Membership, runs it, and reads views from any
// goroutine. Inside, one goroutine owns the state. Memberlist's delegates run
// under its locks: they read the published view and leave mail. After Run has
// returned, probes of memberlist may sit out their timeouts of a few seconds.
package membership
