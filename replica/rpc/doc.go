// Package rpc is how nodes ask each other: one multiplexed, asynchronous
// protocol over a pair of connections per peer and direction.
//
// # Use
//
// A node has one Pool to call with and one Server to be called by; both are
// assembled by cmd/redynamo/node, which also supplies the Handler. The
// coordinator and the background tasks call the methods of Peer. Records and
// operations travel as the bytes package version makes of them; this package
// does not look inside.
//
// No request has a goroutine. A connection has two at each end: one reads as
// many frames as there are and runs callbacks or handlers, one writes whatever
// has gathered since its last write. An idle connection sends at once, a busy one
// sends many frames per system call, and package cork makes it busy while a goroutine of
// the node asks or answers much in a row.
//
// Everything has a bound: frames (checked before anything is allocated), calls
// and bytes in flight on a connection, requests and bytes in a server, replies a
// caller does not read, connections, the time a handshake, a write or silence
// may take. Past a bound a call ends at once with ErrOverloaded; a caller that
// does not read loses its connection.
//
// # What an error says
//
// ErrUnreachable is certain: the request was never sent, and will not be.
// ErrOverloaded is certain too: nothing was done. After ErrTimeout and ErrClosed
// the peer may have done it. The other errors are the peer's own answer. A call
// ends at its deadline whatever the connection does.
//
// # Suspicion
//
// A peer is up until there is a reason to think otherwise: a dial or handshake
// that fails, a connection that breaks with calls in flight or after a bad frame,
// a call that timed out while nothing at all was heard for SuspectTimeout, or SuspectAfter sweeps
// in a row, over SuspectSlow, in which foreground reads (or merges, or pings) timed out without one
// of that kind being answered in between. A forwarded write or a scan may be
// slow for reasons of its own and counts only as silence. The second reason takes
// its time because a disk that everybody is busy with stalls for half a second
// now and then; to take two owners for dead for that leaves writes to fallbacks. A peer that has been
// silent for KeepAlive is pinged (and every connection each second, see below), so a stopped process or a half-open link is
// found within KeepAlive and DialTimeout even with no traffic. A peer that is
// only busy (ErrOverloaded) is no suspect.
//
// A suspect is dialed with growing waits and asked to Sync: to put something on
// its disk and answer. That brings it back, and a ping would not do, because a
// node whose disk hangs answers pings and reads from memory; it would come back
// again and again, each time for as long as merges take to time out.
//
// What a node hears from others about a peer only decides when it looks for
// itself (Check): nobody is suspected or taken back on hearsay. A node that was
// stopped itself, and finds everything expired when it goes on, suspects nobody
// for that.
//
// # Proof of life
//
// Up is what is believed, and for some time after a process died it is wrong:
// while the kernel takes the process apart its sockets still take bytes, which
// nobody will read. Prove asks for more: that the process was alive after the
// question. The answer to a ping sent after the question proves that, and
// nothing older does.
//
// # The age of messages
//
// Nothing is carried out later than MessageAge after it was sent, whatever lay in
// between: full buffers, a link that was cut, a process that was stopped. Whoever
// drops tombstones rests on that (package replica). The two nodes need not have
// the same time, and the times below are parts of MessageAge.
//
// The answer to a ping carries a stamp, the moment of that answer by the server's
// own clocks. The caller pings each connection every second, and repeats the newest
// stamp before the requests that follow it. Every request behind a stamp was looked
// at, and found to have time left, after that stamp was heard (lane.takeOut). So a
// server knows without trusting the caller's clock how long ago that look was, at
// most. Above a quarter it closes the connection and carries out nothing that lies
// in its buffers. The stamp that counts before the first is the handshake's.
//
// What a request has left is no more than half, and counts from its arrival; who
// queues it looks again before acting. So it is carried out within three quarters
// of its sender's last look at the clock. Replies need no stamp: the one clock that
// a call is measured by is its caller's, and a reply that is read after the deadline
// is late even if nobody noticed yet.
//
// A caller gives a connection up after a quarter of silence, and all of them as soon
// as a probe fails, and throws away what the kernel has not sent. That is for the
// peer's sake no duty; it lets calls go on elsewhere.
//
// A clock stands still while its machine is suspended. The server notices when the
// wall clock has moved on, and the caller's stamp is old by the server's clock. A
// virtual machine that does not know that it was paused is left: it may act once
// more on what it holds. The others see its silence, so Unbroken tells whoever must
// be sure: a connection that was never silent for a quarter, and a peer whose server
// was answered in time, belong to two nodes that were not.
//
// # Epochs
//
// A request for rows carries the epochs that its sender goes by (package epoch), and
// its connection says who the sender is. ServerConfig.Stale judges by both when the
// request arrives, and a handler that queued it asks again when its turn comes. What
// goes by epochs that are over is not carried out: the answer is an error with the
// state of this node's epochs, which the caller's node merges. A state can be large, so
// a connection carries the same one once a second at most, and none that its frames
// cannot hold; the other answers are the bare error.
//
// The other way round: whoever refuses a request by what it knows of the ring, and has
// not heard of the epochs that the request goes by, says so with the refusal (Behind). The
// caller's node then hands it what it holds of the cluster, as gossip would sooner or
// later, and asks again once that is merged (HandOver). It comes from the caller since its
// connection is known to work: after a cut heals, the other node may for seconds take the
// caller for dead. One hand-over to a peer runs at a time, at the urgency of a client's
// request, and whoever needs it waits for it, for half of the time that it has; a state
// that the peer has merged goes to it once a second at most, and none that its frames
// cannot hold. In version 4 the answer is the bare refusal.
//
// # Handshake
//
// The caller speaks first; both sides say the same thing, 54 bytes, big endian:
//
//	at  bytes
//	 0  8   magic "redynrpc"
//	 8  1   version of this layout: 1
//	 9  1   caller: lane, 0 small or 1 bulk; server: 0 accepted, 1 version,
//	        2 cluster, 3 node, 4 hello refused
//	10  2   oldest protocol version spoken  (in an acceptance both are
//	12  2   newest protocol version spoken   the newest both speak)
//	14  16  cluster id
//	30  8   node id of the speaker
//	38  8   node id spoken to
//	46  4   largest frame taken, in bytes
//	50  4   CRC32C of all before
//
// A connection where any of it does not fit is closed. The protocol version
// covers everything below: a changed frame or message is a new version.
//
// A node speaks the versions from that of the cluster's level in force (package
// membership) to that of the highest level that its program serves: 4 is of level 1, 5 of
// level 2. So two programs of one release speak the newest at once, which is safe since
// a version is agreed on for a connection and nothing of it is kept; and whoever serves less than
// the level in force is refused, with a log line at both ends. Connections that have
// an older version end when the level rises.
//
// # Frames
//
//	at  bytes
//	 0  4   length of what follows the crc
//	 4  4   CRC32C of what follows
//	 8  1   kind
//	 9  1   class: 0 foreground, 1 repair, 2 background
//	10  8   id
//	18  4   milliseconds the request has left when it is sent, 0 = as many as a
//	        call may take
//	22  32  epochs of the sender, in the requests marked * below, and since version 5
//	        in those marked 5, and nowhere else
//	 -  -   payload
//
// Request ids ascend on a connection; a stamp has id 0 and no reply. A reply repeats class and id, has the
// request's kind plus 0x80, and comes when it is ready, in any order; an error
// reply has kind 0xff and a payload of one byte, the code, which for an
// uncertain write is followed by one byte each for nodes acknowledged and
// wanted, for epochs that are over by the state to merge, or nothing, and for epochs that
// the peer has not heard of, since version 5, by the code of the refusal.
// Whatever breaks these rules ends that connection and is counted.
//
// # Messages
//
// Fields stand in the order given. "key", "record", "op" and "outcome" are a
// four byte length and as many bytes; "...rest" is what remains of the payload.
// Flag bits not named are zero. A decoder takes exactly what an encoder writes.
//
//	1 ping       (nothing)                            reply 16 stamp
//	2 read *     1 flags: 1 digest only, 2 have       reply 1 flags: 1 same (nothing
//	             8 for                                        follows), 2 record,
//	             8 have, if flagged                           4 recovering
//	                                                        8 state hash
//	             key                                        record...rest, if flagged
//	3 merge *    1 flags: 1 durable, 2 optional       reply (nothing)
//	             8 for, key, record
//	4 write      1 r, 1 w, key, op                    reply outcome
//	5 scan *     2 from slot, 4 from hash,            reply 1 flags: 1 done
//	             2 to slot, 4 limit                         2 next slot, 4 next hash
//	                                                        4 number of entries, each
//	                                                        2 slot, 4 key hash,
//	                                                        8 state hash,
//	                                                        1 flags: 1 live, key
//	6 count *    4 number of ranges, each             reply 8 keys
//	             2 first slot, 2 last slot
//	7 status     (nothing)                            reply 1 flags: 1 ready
//	                                                        8 epoch, 4 members,
//	                                                        8 boot actor
//	8 inspect *  key                                  reply 4 number of entries, each
//	                                                        8 for, record,
//	                                                        4 length and bytes of a note
//	9 deliver *  1 flags: 1 durable, 8 for            reply 4 credit
//	             4 number of rows, each
//	             key, record
//	10 nodes 5   2 number of partitions - 1, 1 level, reply 4 number of hashes, each
//	             1 step, 4 number of nodes, each            8 hash
//	             2 partition, 4 index
//	11 list 5    1 bit whole, 31 limit, 4 from hash   reply 4 whole cells, 4 next hash
//	             4 number of cells, each                    4 number of entries, each
//	             4 cell                                     2 slot, 4 key hash,
//	                                                        8 state hash
//	12 fetch 5   4 most bytes                         reply 4 positions answered
//	             4 number of positions, each                4 number of rows, each
//	             2 slot, 4 key hash                         key, record
//	13 session   1 flags: 1 end, 8 epoch              reply (nothing)
//	             2 first slot, 2 last slot
//	14 sync      (nothing)                            reply (nothing)
//	15 hinted    2 number of partitions - 1           reply 4 number of partitions, each
//	             4 number of partitions, each               2 partition
//	             2 partition
//	16 stamp     16 stamp                             no reply
//	17 lacks     2 slot, 4 key hash                   reply 1 flags: 1 some may be lost
//	             2 slot, 4 key hash
//	18 state     state...rest (package membership)    reply (nothing)
//	19 publish   1 flags: 1 shard channel             reply (nothing)
//	             4 length and bytes of the channel
//	             message...rest
//
//	20 settle 5  as merge                             reply (nothing)
//
// State, publish and settle are there since version 5. The reply to settle means that what the
// merge brought is synced, in every mode. The reply to state means that it is merged
// and in force, the reply to publish that the message was handed to the subscribers.
//
// A merge is optional when the write that it belongs to can do without it: a
// node that already keeps much for that owner then answers ErrHintBudget.
//
// The reply to deliver means that every row is committed, and synced if that
// was asked for. Its credit is how many bytes of keys and records the receiver
// takes in the next message; after 0 the sender pauses and asks again, with a
// message without rows. One row that cannot be merged fails the whole message.
//
// The replies to list and fetch may stop early: to list with the limit, to fetch
// with the most bytes, but never without any progress. They say where. Nodes of
// trees over another number of partitions are refused with ErrUnsupported.
package rpc
