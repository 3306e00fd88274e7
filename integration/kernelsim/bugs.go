package main

// bugs are mistakes in the glue, for the tests that count how soon each is found. No
// production code knows them.
type bugs struct {
	ackTwice        bool // W: the first acknowledgement counts for two nodes
	hintDropEarly   bool // a hint goes when it is sent, not when it is durable there
	contextDropped  bool // a VCTX write forgets its token
	actorKept       bool // a node keeps its actor over a restart and counts from one again
	oneActor        bool // all rows of a node have one actor
	noAmnesia       bool // a row that replication re-created looks like one that was never gone
	noRecovering    bool // a wiped or restored node counts in reads at once
	reapByAge       bool // a tombstone goes when it is old
	reapHints       bool // a tombstone goes though hints may be kept
	errorIsAbsent   bool // a node that does not answer a read has nothing
	absentIsError   bool // a node that has nothing does not answer
	confirmEarly    bool // rows are confirmed before they are synced
	baseOnly        bool // a write goes to the owners in the base alone
	noStale         bool // requests by old rings are carried out
	moveNothing     bool // a change of the ring does not wait for what is handed over
	moveNoHints     bool // or not for the hints
	leafKept        bool // a merge does not change its leaf of the tree
	tokenWhole      bool // the token of a write covers siblings that its client has not seen
	barrierSkipped  bool // a session proves what is not synced
	leavesProve     bool // a recovery or a hand-over compares leaves, and not contexts
	dropUnfenced    bool // a partition is dropped while a change of the ring begins
	sloppyForgotten bool // a fallback takes a row for its own
}
