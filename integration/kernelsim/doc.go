// Command kernelsim runs whole clusters of the pure kernels (replica/version,
// coordinator/quorum, membership/ring, membership/epoch, antientropy/merkle) in one
// goroutine under one heap of events, thousands of histories a second. A history
// follows from its seed alone, so one that breaks a promise is found again, shrunk and
// kept as a test.
//
//	go run ./integration/kernelsim -histories 100000 -seed 1
//	go run ./integration/kernelsim -replay SEED [-shrink] [-save FILE]
//	go run ./integration/kernelsim -load FILE
//
// # What is real and what is not
//
// The kernels are the product's. What is around them here is thin: each rule of the
// product's own glue (packages coordinator, replica, replica/handoff, antientropy and
// cmd/redynamo/node) is written out again, with its source named. Stores are tables in
// memory with a suffix that is not synced yet, and a log from which an old copy of the
// directory can be put back. What the product finds out with some effort is known here:
// that a directory was put back, that a connection was broken, that a message is too
// old to be carried out. Those are tested elsewhere; here it is the rules that rest on
// them.
//
// # A history
//
// A [Schedule] lists what clients ask and what goes wrong, each with its time: kills
// (with what was not synced lost in part), wiped and restored directories, pauses, cut
// links one way or both, splits, wrong suspicions, slow disks, skewed clocks, and
// changes of the ring. Besides, each message may be lost, come twice or late. Its fate is drawn
// from the seed and from what caused it (a decision, or a node's clock), so it stays
// what it was when other decisions are taken out.
//
// At the end everything heals, and the cluster must come to rest: no hint, no change of
// the ring, all owners alike.
//
// # What is checked
//
// Each record is carried along with the exact sets of writes that are live in it and
// that it knows, one bit for each write, which cannot claim what they have not seen.
// At every change the two must agree. Besides:
//
//	lost         an acknowledged write is neither there nor covered by what saw it
//	resurrected  a version is there that an acknowledged write or delete had seen
//	claim        a context covers a write that never went through its record
//	sibling      one version of a record had seen another one of it
//	dot          a dot is minted twice, or in the name of somebody else
//	clock        a write is not above all that it covers
//	read         R owners answered and did not know what W owners had acknowledged
//	refused      a healed cluster does not answer
//	rest         a healed cluster does not come to rest, or its owners differ
//
// What W nodes hold may be lost with W disks. So a disk is only wiped, put back or
// given up if no other copy of what it holds was lost before and not yet replaced.
//
// # Mutants
//
// [bugs] are switches in the glue, each a bug that such a system can have. The tests
// turn them on one by one and count how many histories it takes to find each. A bug in
// the use of a rule that no history finds means that the histories are too tame.
package main
