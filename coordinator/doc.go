// Package coordinator runs one client request over the N replicas of its key
// (Dynamo §4.5, §4.6). The rules are in its kernel, package quorum; this
// package sends, waits, keeps the deadlines and answers.
//
// # The life of a request
//
// A request takes one ring pointer and one walk over the preference list, and
// keeps both to its end. A read is coordinated wherever it arrives. A write is
// coordinated by an owner of the key, because only owners should mint dots for
// it (a fallback's lineage ends with its hint): any other node hands it to the
// first owner that shows life. Only with no live owner does a fallback mint, for one of
// them, and then refuses operations whose reply makes a claim about the old
// value. A SET that depends on the old value (NX, XX, GET) moreover wants its R
// copies from owners, and as many live owners as R and W say.
//
// A fallback that is read answers with all that it holds of the key, for whomever
// it keeps it: who stands in for whom changes with every death and return.
//
// Nothing is rolled back after a dot was minted; what cannot be stored W times
// may still surface later.
//
// # Handing a write over
//
// A write that may have reached a coordinator is never handed to another one.
// Two coordinators would mint two dots for it, and nothing can join them again:
// a client that sees one of the two versions and replaces it covers that dot
// alone, so the other one would come back as a sibling of what replaced it, or
// overwrite it, as soon as the first coordinator's disk or a late message brings
// it. A name for the write, carried by the versions, would not help, for contexts
// speak of dots, and to let them speak of names as well would cost every record
// room for the sake of a rare moment. So a forward whose link breaks ends in an
// UncertainError: whether the request was read cannot be known.
//
// What can be had is that it hardly ever comes to that, and never twice in a
// row. A node that was killed stays up in the eyes of the others until the kernel
// closes its sockets, which takes milliseconds, and all they send meanwhile is
// lost. So before a write is handed over the node chosen must show life (Prove):
// answer something sent after the write arrived here. A dead node cannot, so a
// write that arrives after its death goes elsewhere; one that arrived before can
// still be lost, when the node dies between its sign of life and its answer. The
// client is told, and tries again on another node. That try begins after the
// death, since only the death told the client that the first one failed. So of
// two tries in a row at most one is lost to one death.
//
// Owners are asked for their sign of life one after the other, a little apart
// (see scout), and the first to give it is taken. A stopped process or a broken
// link therefore costs milliseconds and no timeout. Asking several is safe, as
// only one is given the write.
//
// After the answer a request lives on as its tail, until every message has its
// outcome: owners that turn out dead get hints, stale ones are repaired. Tails
// count as requests under way, so they are bounded with them.
//
// # How it runs
//
// No goroutine belongs to a request. Everything that happens to it (a reply, a
// failure, its timer) enters through a callback that takes its mutex, feeds the
// kernel and, unless another goroutine is at it already, carries out what the
// kernel then wants, with the mutex released around every call out. A callback
// made within such a call therefore only feeds; the stack does not grow.
//
// Invariant: a request object returns to its pool when no callback of it is
// outstanding, the timer's included; each of them is called exactly once, so
// none can meet the object's next life.
//
// Callers: resp (everything), node (ServeForwarded on behalf of peers, Drain).
package coordinator
