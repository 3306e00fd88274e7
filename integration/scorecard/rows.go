//go:build linux

package main

// scenarios are the rows, by the numbers under which they are published.
func scenarios() []scenario {
	return []scenario{
		{number: 2, workload: "S", fault: "SIGKILL of one node after the other", run: killOneByOne},
		{number: 3, workload: "S", fault: "SIGKILL of all nodes at once, repeatedly", run: killAll},
		{number: 5, workload: "S+C", fault: "2 and 3 nodes cut from each other", run: split},
		{number: 6, workload: "S", fault: "one node isolated", run: isolate},
		{number: 7, workload: "S", fault: "links cut one way, in a ring, and flapping", run: tangle},
		{number: 8, workload: "C", fault: "one host dead without a word", alone: true, run: deadHost},
		{number: 9, workload: "C", fault: "SIGSTOP of one node", alone: true, run: grayNode},
		{number: 11, workload: "S", fault: "one node away for long", run: longOutage},
		{number: 12, workload: "S", fault: "more hints than may be kept", run: fullHints},
		{number: 13, workload: "S", fault: "a hint holder dies with its hints", run: holderDies},
		{number: 14, workload: "D", fault: "deletes while an owner is away", run: deleteInOutage},
		{number: 16, workload: "C", fault: "data directory of one node wiped", run: wiped},
		{number: 17, workload: "C", fault: "data directory of one node restored from an old copy", run: restored},
		{number: 39, workload: "S", fault: "cold start with one disk lost", run: coldStart},
	}
}

// lack is what the product does not do yet.
type lack struct {
	why       string
	shows     []string // each fault of the row must contain one of these
	sometimes bool     // the row passes by chance
}

// notYet are the rows that the product does not pass yet. A row that begins to
// pass must leave this list, and one that fails in another way fails the run.
var notYet = map[int]lack{}
