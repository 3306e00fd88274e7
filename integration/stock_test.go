package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stock is a client of other people, with the program under clients/ that drives it.
type stock struct {
	name      string
	program   []string // before the arguments that clients/main.go describes
	needs     []string // a command that succeeds where the driver can run
	doors     []string
	protocols []string
	note      string // for the table, in its first row
	cluster   string // the same about the cluster door
}

// features are what is tried with each client, in the order of the table.
var features = []string{"strings", "pipeline", "expiry", "scan", "multi", "pubsub", "vctx"}

// stockClients builds what is to be built, and lists the clients in the order of the table.
func stockClients(t *testing.T) []stock {
	t.Helper()
	dir := t.TempDir()
	goProgram, cProgram := filepath.Join(dir, "clients"), filepath.Join(dir, "hiredis")
	run(t, nil, "go", "build", "-o", goProgram, "./clients")
	if _, err := exec.LookPath("gcc"); err == nil {
		// Without the library this fails, and the check of hiredis says so.
		_ = exec.Command("gcc", "-Wall", "-O1", "-o", cProgram, "clients/c/hiredis.c", "-lhiredis").Run()
	}
	both, plain := []string{"plain", "cluster"}, []string{"plain"}
	resp23, resp2 := []string{"2", "3"}, []string{"2"}
	return []stock{
		{"redis-cli", []string{goProgram}, []string{"redis-cli", "--version"}, both, resp23, "knows only the node that it is told", "`--scan` walks one node"},
		{"redis-benchmark", []string{goProgram}, []string{"redis-benchmark", "--version"}, both, resp23, "shows no answers; does not end when its node dies: give it a time limit, here 5 s", ""},
		{"go-redis", []string{goProgram}, []string{"true"}, both, resp23, "", ""},
		{"rueidis", []string{goProgram}, []string{"true"}, both, resp23, "wants `DisableCache: true`, for its cache needs CLIENT TRACKING", ""},
		{"redigo", []string{goProgram}, []string{"true"}, plain, resp2, "has neither RESP3 nor a cluster client", ""},
		{"redis-py", []string{"/usr/bin/python3", "clients/python.py"}, []string{"/usr/bin/python3", "-c", "import redis"}, both, resp2, "4.3 has no RESP3", "its pipelines are no transactions; after RedisClusterException make a new client"},
		{"node-redis", []string{"node", "clients/node.mjs"}, []string{"ls", "clients/node_modules"}, both, resp23, "tokens as Buffer, by a type mapping", "what is for a dead node waits until another request hears of the new map: do not send one by one"},
		{"ioredis", []string{"node", "clients/node.mjs"}, []string{"ls", "clients/node_modules"}, both, resp2, "5 has no RESP3; tokens by `callBuffer`", ""},
		{"hiredis", []string{cProgram}, []string{"ls", cProgram}, plain, resp2, "0.14 has neither RESP3 nor a cluster client", ""},
		{"phpredis", []string{"php", "clients/phpredis.php"}, []string{"php", "--ri", "redis"}, both, resp2, "has no RESP3", "RedisCluster has no pipelines"},
		{"redis-rb", []string{"ruby", "clients/redisrb.rb"}, []string{"ruby", "-rredis", "-e", "1"}, both, resp2, "4.8 has no RESP3", "a pipeline stays within one slot"},
		{"perl-redis", []string{"perl", "clients/perl.pl"}, []string{"perl", "-MRedis", "-e", "1"}, plain, resp2, "has neither RESP3 nor a cluster client", ""},
	}
}

// command is the driver for one door of a cluster, told the addresses in this order.
func (s stock) command(t *testing.T, door, protocol string, addrs []string, more ...string) *exec.Cmd {
	t.Helper()
	if out, err := exec.Command(s.needs[0], s.needs[1:]...).CombinedOutput(); err != nil {
		refuse(t, "%s: %q: %v\n%s", s.name, s.needs, err, out)
	}
	args := slices.Concat(s.program, []string{s.name, door, protocol, strings.Join(addrs, ",")}, more)
	return exec.Command(args[0], args[1:]...)
}

// A trial is what a client said of itself and of each feature.
type trial struct {
	version string
	offers  map[string]bool
}

// try runs the driver and takes what is wrong for a failure of the test.
func (s stock) try(t *testing.T, door, protocol string, addrs []string) trial {
	t.Helper()
	cmd := s.command(t, door, protocol, addrs)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := trial{offers: map[string]bool{}}
	for line := range strings.Lines(string(out)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word, text, _ := strings.Cut(rest, " "); {
		case name == "version":
			got.version = word
		case word == "ok", word == "no":
			got.offers[name] = word == "ok"
		default:
			t.Errorf("%s: %s %s", name, word, text)
		}
	}
	for _, f := range features {
		if _, tried := got.offers[f]; !tried {
			t.Errorf("nothing was said of %s:\n%s", f, out)
		}
	}
	return got
}

// addrsFrom are the addresses of one door of all nodes, those of node i first.
func (c *processes) addrsFrom(i int, door string) []string {
	var list []string
	for _, p := range slices.Concat(c.nodes[i:], c.nodes[:i]) {
		if door == "cluster" {
			list = append(list, p.cluster)
		} else {
			list = append(list, p.plain)
		}
	}
	return list
}

// stockRow is the table's line for a client at one door.
type stockRow struct {
	client, version, door, protocols string
	offers                           []string // feature by feature
	back                             string   // seconds after a kill
	note                             string
}

func (r stockRow) line() string {
	return fmt.Sprintf("| %s %s | %s | %s | %s | %s | %s |\n", r.client, r.version, r.door, r.protocols, strings.Join(r.offers, " | "), r.back, r.note)
}

const stockHead = "| client | door | RESP | strings | pipelines | expiry | SCAN | MULTI | pub/sub | VCTX | back, s | |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"

// merged is one row of what a client showed in each protocol.
func merged(s stock, door string, trials map[string]trial) stockRow {
	r := stockRow{client: s.name, door: door, protocols: strings.Join(s.protocols, ", "), note: s.note}
	if door == "cluster" {
		r.note = s.cluster
	}
	for _, f := range features {
		var in []string
		for _, p := range s.protocols {
			if r.version = trials[p].version; trials[p].offers[f] {
				in = append(in, p)
			}
		}
		switch len(in) {
		case len(s.protocols):
			r.offers = append(r.offers, "yes")
		case 0:
			r.offers = append(r.offers, "no")
		default:
			r.offers = append(r.offers, "RESP"+strings.Join(in, ", "))
		}
	}
	return r
}
