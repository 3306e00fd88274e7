// Package migrate brings the strings of a Redis into a cluster: from an RDB file, or
// from a server that goes on serving.
//
// # How it runs
//
// A source gives pages: a few hundred keys, and the mark behind them. Each key goes to
// the worker that its hash names, a connection to one of the addresses, so that two
// copies of a key (SCAN may show one twice) are written in order. Workers write
// pipelines of SET and ask another address when one does not answer. Pages end in any
// order; what is saved is the mark behind the last page before which all have ended, with
// the counts and the length of the report that belong to it. Who goes on from there may
// write keys again, and leaves none out.
//
//	source --pages--> split by key --jobs--> workers --> pages in order --> state, report
//
// At most pagesInFlight pages, one that is read and one that is booked are in memory, each
// of pageBytes and one key with its value more. What the cluster refuses adds lines.
//
// # Marks
//
// In a file a mark is a position of package rdb, which carries the sum of all before.
// On a server it is a cursor of SCAN, which means something to that very process only.
// If the server has another run_id when the import goes on, the walk begins again, and if
// it comes to have one on the way, the import ends with an error: every pipeline asks for
// it. A server without one is walked from its begin each time, over one connection.
package migrate
