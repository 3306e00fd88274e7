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
// first live owner. Only with no live owner does a fallback mint, for one of
// them, and then refuses operations whose reply makes a claim about the old
// value. A SET that depends on the old value (NX, XX, GET) moreover wants its R
// copies from owners, and as many live owners as R and W say.
//
// A write that may have reached a coordinator is never handed to another one:
// two coordinators would make two versions of it. It ends in an UncertainError
// instead. For the same reason nothing is rolled back after a dot was minted;
// what cannot be stored W times may still surface later.
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
