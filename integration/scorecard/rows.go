//go:build linux

package main

// scenarios are the rows, by the numbers under which they are published.
func scenarios() []scenario {
	return []scenario{
		{number: 2, workload: "S", fault: "SIGKILL of one node after the other", run: killOneByOne},
		{number: 3, workload: "S", fault: "SIGKILL of all nodes at once, repeatedly", run: killAll},
		{number: 4, workload: "S", fault: "power cut of several nodes at once", needs: []string{"mkfs.ext4"}, run: losePower},
		{number: 5, workload: "S+C", fault: "2 and 3 nodes cut from each other", run: split},
		{number: 6, workload: "S", fault: "one node isolated", run: isolate},
		{number: 7, workload: "S", fault: "links cut one way, in a ring, and flapping", run: tangle},
		{number: 8, workload: "C", fault: "one host dead without a word", alone: true, run: deadHost},
		{number: 9, workload: "C", fault: "SIGSTOP of one node", alone: true, run: grayNode},
		{number: 10, workload: "C", fault: "link of one node late, lossy and out of order", alone: true, run: badLink},
		{number: 11, workload: "S", fault: "one node away for long", run: longOutage},
		{number: 12, workload: "S", fault: "more hints than may be kept", run: fullHints},
		{number: 13, workload: "S", fault: "a hint holder dies with its hints", run: holderDies},
		{number: 14, workload: "D", fault: "deletes while an owner is away", run: deleteInOutage},
		{number: 16, workload: "C", fault: "data directory of one node wiped", run: wiped},
		{number: 17, workload: "C", fault: "data directory of one node restored from an old copy", run: restored},
		{number: 18, workload: "S+C", fault: "reads of one disk fail", needs: []string{"strace"}, run: readErrors},
		{number: 19, workload: "S", fault: "log of one node damaged", run: rottenLog},
		{number: 20, workload: "S", fault: "bits flipped in tables of one node", run: rottenTables},
		{number: 21, workload: "S+C", fault: "bits flipped between nodes", run: flippedWire},
		{number: 22, workload: "S", fault: "disk full on one node, then on all", run: fullDisk},
		{number: 23, workload: "S", fault: "a sync fails on one node", needs: []string{"strace"}, run: failedSync},
		{number: 24, workload: "S+C", fault: "disk of one node stands still", alone: true, needs: []string{"mkfs.ext4"}, run: frozenDisk},
		{number: 25, workload: "C+T", fault: "clock of one node an hour off, then jumping", run: wrongClock},
		{number: 26, workload: "L", fault: "none, then 2 and 3 nodes cut from each other", run: plainLoss},
		{number: 27, workload: "S+C", fault: "three nodes join five", alone: true, run: grow},
		{number: 28, workload: "S+C", fault: "three of eight nodes leave", alone: true, run: shrink},
		{number: 29, letter: "a", workload: "S+C", fault: "joiner, donor and leaver killed in the middle of a change", waits: true, run: killMidway},
		{number: 29, letter: "b", workload: "S+C", fault: "network cut in two in the middle of a join", waits: true, run: cutMidway},
		{number: 29, letter: "c", workload: "S+C", fault: "ring changed on both sides of a cut", waits: true, run: twoAdmins},
		{number: 29, letter: "d", workload: "S+C", fault: "one node replaced by another", run: replaceNode},
		{number: 29, letter: "e", workload: "S+C", fault: "dead node forgotten, back on its old disk, then on an empty one", waits: true, run: forgetNode},
		{number: 30, workload: "S+C", fault: "rolling restart of all nodes", run: rollingRestart},
		{number: 31, workload: "S+C", fault: "rolling upgrade, put back, made final", run: rollingUpgrade},
		{number: 39, workload: "S", fault: "cold start with one disk lost", run: coldStart},
	}
}

// lack is what the product does not do yet.
type lack struct {
	why       string
	shows     []string // each fault of the row contains one of these
	sometimes bool     // the row passes by chance
}

// What rows show that fail for want of the same thing.
const (
	unequal = " diverged: "
)

// notYet are the rows that the product does not pass yet. A row that begins to
// pass must leave this list, and one that fails in another way fails the run.
var notYet = map[string]lack{
	"29c": {
		why:       "where processes get too little of the processors, calls between all nodes time out while partitions move or are dropped, and writes are UNCERTAIN twice",
		shows:     []string{"operations failed on two nodes in a row"},
		sometimes: true,
	},
}

// lacking returns what the product is known to lack for a row, or nil.
func lacking(row string) *lack {
	if known, lacks := notYet[row]; lacks {
		return &known
	}
	return nil
}
