// Package conformance holds redynamo's answers against those of the Redis release
// that it follows, byte for byte.
//
// A corpus of requests (testdata/plain and testdata/cluster, one scenario per block)
// is played to a redis-server, to a cluster of one node and to a cluster of three.
// Every answer that differs is listed in testdata/differences.txt with both answers
// and the reason; one that is not listed fails the test, and so does one that is
// listed and no longer differs.
//
// # A corpus file
//
//	== name        a scenario: an empty store and new connections
//	> WORDS        a request as an array of bulk strings; its reply is compared
//	>> WORDS       the same, sent and answered together with the next one
//	%> WORDS       the same; the order of elements does not count
//	~N> WORDS      the same; integers may differ by N, for a clock runs meanwhile
//	2> WORDS       the same on a second connection
//	inline TEXT    TEXT and a line end as they are; all that is answered is compared
//	raw WORDS      the same with the words themselves, end to end
//	part WORDS     bytes that do not make a request yet
//	mute WORDS     a request that gets no answer
//	walk WORDS     SCAN from page to page: the keys it meets are compared
//	next           one reply more is compared: a message, or what else answers the last request
//	closed         whether the connection is closed
//	resp3          the connection speaks RESP3 from here on
//	new            the connection is given up for a new one
//	wait MS        time passes
//	~ PATTERN      what matches in the reply above is blanked: ids, times, versions
//
// A word is bare, and (N*X) in it stands for N times X, or is quoted as in Go, and
// repeated by (N*"X"). {id1} and {addr2} are the CLIENT ID and the address of a
// connection. What begins with a name takes a 2 before it for the second connection.
package conformance

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/resp"
)

var update = flag.Bool("update", false, "write testdata/differences.txt anew; what is new in it waits for a reason")

const tablePath = "testdata/differences.txt"

// doors are where scenarios are played: the same corpus file never goes to both.
var doors = []string{"plain", "cluster"}

func TestAnswersAreThoseOfRedis(t *testing.T) {
	needRedis(t)
	played := map[string][]scenario{}
	var corpus []scenario
	for _, door := range doors {
		played[door] = readCorpus(t, door)
		corpus = append(corpus, played[door]...)
	}
	replies := playAll(t, played)
	found, err := compare(corpus, replies[0], replies[1], replies[2])
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d scenarios, %d answers compared, %d differ", len(corpus), len(replies[0]), len(found))
	if len(replies[0]) < 5000 { // README tells
		t.Errorf("only %d answers compared", len(replies[0]))
	}
	for _, key := range slices.Sorted(maps.Keys(replies[0])) {
		if strings.Contains(replies[0][key], isSilent) {
			t.Errorf("Redis does not answer this, so there is nothing to compare: %s", key)
		}
	}
	text, err := os.ReadFile(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	head, reasons, err := parseTable(string(text))
	if err != nil {
		t.Fatalf("%s: %v", tablePath, err)
	}
	if *update {
		if err := os.WriteFile(tablePath, []byte(revised(head, reasons, found)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, fault := range judge(reasons, found) {
		t.Error(fault)
	}
}

// playAll plays what is for each door to Redis, to a lone node and to three.
func playAll(t *testing.T, played map[string][]scenario) (replies [3]map[string]string) {
	t.Helper()
	replies[0] = map[string]string{}
	for door, corpus := range played {
		var flags []string
		if door == "cluster" {
			flags = []string{"--cluster-enabled", "yes"}
		}
		dial := startRedis(t, flags...)
		if door == "cluster" {
			formSlots(t, dial)
		}
		p := player{server: server{"redis", dial, dial}}
		if err := p.play(corpus, replies[0]); err != nil {
			t.Fatal(err)
		}
	}
	for i, nodes := range []int{1, 3} {
		replies[i+1] = map[string]string{}
		bubble.Test(t, func(t *testing.T) {
			c := startCluster(t, nodes)
			defer c.close()
			for door, corpus := range played {
				p := player{server: server{fmt.Sprintf("%d nodes", nodes), c.dialer(door), c.dialer("plain")}}
				if err := p.play(corpus, replies[i+1]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	return replies
}

// TestCorpusAsksEveryCommand wants every row of the command table, and every
// subcommand, in the corpus.
func TestCorpusAsksEveryCommand(t *testing.T) {
	asked := map[string]bool{}
	scenarios := 0
	for _, door := range doors {
		for _, sc := range readCorpus(t, door) {
			scenarios++
			for _, s := range sc.steps {
				if len(s.words) > 0 {
					asked[strings.ToLower(s.words[0])] = true
				}
				if len(s.words) > 1 {
					asked[strings.ToLower(s.words[0]+" "+s.words[1])] = true
				}
			}
		}
	}
	if scenarios < 500 {
		t.Errorf("only %d scenarios", scenarios)
	}
	for _, row := range resp.Rows() {
		names := []string{row.Name}
		for _, sub := range row.Subcommands {
			names = append(names, row.Name+" "+sub)
		}
		for _, name := range names {
			if !asked[name] {
				t.Errorf("no scenario asks for %s", name)
			}
		}
	}
}
