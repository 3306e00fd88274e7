// Package handoff brings hints home: the rows that this node was given on
// behalf of an owner that did not answer go to that owner once it does (paper
// §4.6), and the rows that others bring are taken in.
//
// # Sending
//
// A Sender looks after every node that something is kept for. A target that is
// up and has rows gets a worker, at most MaxTargets at once and the one that
// waited longest first. A worker pages through the rows in order of (slot, hash)
// and has at most one message in flight. A row is deleted when the target has
// said that it is durable there, and only if it still is what was sent; what
// came in meanwhile stays for the next pass. So losing a reply, a crash between
// the reply and the deletion, or two workers in two lives of the process repeat
// a delivery, which merges to nothing. Rows are on disk, so a restart goes on
// where the deletions ended.
//
// A pass that fails waits, longer each time, up to MaxBackoff and with jitter. A
// target that comes back ends the wait. A message that the target cannot take is
// halved until the row that it refuses is found; that row is counted, logged and
// kept.
//
// # Pace
//
// The receiver says how much it takes: the reply to each message grants the
// bytes of the next one, and the first message of a delivery is empty and only
// asks. After a grant of nothing the worker gives its place up and asks again
// later. What to grant is the business of Admission. The sender waits for Pace as
// well: reading and dropping rows costs the time of its own clients.
//
// # Rows of nobody
//
// A row whose target no longer owns the key, having left or lost the partition,
// is moved: it is merged into the own row, if this node is an owner, and into
// the hints for the other owners. When all of these are durable here, the row
// goes; the owners' hints then travel as hints do. Rows kept for this node
// itself are merged into its own. A ring that changed lets every target's rows
// be looked at once, also when the target is down. What is moved is acknowledged
// data and heeds no budget.
//
// # When the rings change
//
// A hint that goes home may come to an owner that has handed its rows over by then. So
// it is first noted for those who are to have it, too ([Plan]); those notes travel as
// hints do. Rows and hints that are here already are the business of a Mover. Once a
// target is granted, it has every partition that this node holds exchanged with those
// who are to have it, some partitions at a time. An exchange is a comparison first, so
// what somebody else has brought is not sent again (SKIP, Dynamo §4.9), and whoever
// begins anew after a crash finds most of it done. Only exchanges that began after the
// grant, and ended with all rows on both disks, count. The hints of one moment after
// the grant are delivered to those who are to have them, and stay where they are. When
// all of this is done, the target is [Mover.Sent].
//
// # Receiving
//
// A Receiver merges the rows of a message and answers when all are durable. It
// has few workers of its own, because a row that is not cached costs a read of
// the disk that clients wait for too.
//
// # Budget
//
// Budget bounds what is kept for one target, against a target that is away for
// long. Only hints that their write can do without are refused; a hint that a
// write rests on is acknowledged data and is kept whatever it costs, and
// counted. Nothing is deleted to make room.
//
// # Who may call what
//
// cmd/redynamo/node assembles the parts and runs Sender.Run, Mover.Run and
// Receiver.Run.
// Every other method may be called from any goroutine and does not wait.
package handoff
