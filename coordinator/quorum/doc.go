// Package quorum decides what one client request does next: whom to ask or
// tell, when the client has its answer, who needs a hint and who needs repair.
// It is arithmetic over replies; package coordinator carries the decisions out.
//
// Both machines are pulled. The shell feeds each reply or failure in as it
// comes, then takes what is to be done with Next until nothing is left, then
// looks at Verdict. Indexes name the messages: the one in an Ask or a Send is
// given back with its outcome, once.
//
// # Read
//
// R distinct nodes must answer (Dynamo §4.5), and an answer is one whatever it
// says: that the key is absent counts like a record, that the copy cannot be
// read never counts (so a failed read is never a not-found). The payload
// travels once: the best candidate is asked for its whole copy, the others
// whether they have the same state, and only one that differs is asked for its
// own. The answer is the join of all copies that came.
//
// Who stands in for an owner knows what was written while it stood in. That it
// has nothing of a key counts only once an owner has answered, or somebody has a
// record of it, be it the trace of a delete. Until then others are asked, one more
// for each such node of the walk.
//
// Candidates are tried in the order given: owners, then the fallbacks that
// stand in for dead ones, then, as candidates fail, further fallbacks
// (spares). An owner asked in vain is replaced at once; a slow one is doubled
// by Hedge.
//
// # Write
//
// The new record goes to every stand of the walk at once, and W distinct nodes
// must store it, whichever they are (the sloppy quorum of §4.6). An owner that
// is dead, or fails, is replaced by the next fallback, which keeps the record
// as a hint for it; that goes on after the client has its answer, until every
// owner has the record or somebody keeps it for him. When no fallback is left
// the coordinator keeps the hint itself, which protects the owner but not the
// data, and so never counts towards W. An owner that refuses for overload gets
// no hint: it is alive, and hints would multiply the load that it refused.
//
// A hint is optional while owners alone, those not known to have failed, can
// meet W, and always if the coordinator keeps it beside its own copy. A fallback
// that keeps much already may refuse an optional hint: it then counts for
// nothing and goes to nobody else, but is asked for again, as one that is
// needed, when owners fail and W cannot be met without it.
//
// Invariant: the nodes counted for W are distinct, and for each owner at most
// one hint is out or stored that is not known to have failed (besides the own
// copy of a coordinator that is in no walk).
package quorum
