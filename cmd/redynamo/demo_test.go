package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
)

func TestDemoRefusesArgumentsItCannotServe(t *testing.T) {
	for args, want := range map[string]string{
		"--nodes 0":               "nodes (0) must be in 1..99",
		"--nodes=-1":              "nodes (-1) must be in 1..99",
		"--nodes 100":             "nodes (100) must be in 1..99",
		"--zones 0":               "zones (0) must be at least 1",
		"--port 0":                "port (0)",
		"--port=-5":               "port (-5)",
		"--port 65132 --nodes 5":  "up to 65536",
		"--port 65531":            "below 65536",
		"--r 4":                   "r (4) must be in 1..n (3)",
		"--n 10 --w 11 --nodes 1": "w (11) must be in 1..n (10)",
	} {
		var out, errs bytes.Buffer
		dir := t.TempDir()
		err := run(t.Context(), append([]string{"demo", "--data-dir", dir}, strings.Fields(args)...), &out, &errs)
		if err == nil || errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q said", args, err, want)
		}
		if out.Len() > 0 {
			t.Errorf("%s: greets with %q", args, out.String())
		}
	}
}

func TestDemoRefusesWordsItDoesNotKnow(t *testing.T) {
	for _, args := range []string{"--nodes many", "--fsync never", "--log-level loud", "--units 7", "--log-format xml", "--nosuch", "extra"} {
		var out, errs bytes.Buffer
		if err := run(t.Context(), append([]string{"demo"}, strings.Fields(args)...), &out, &errs); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v, want a word about usage", args, err)
		}
		if out.Len() > 0 || !strings.Contains(errs.String(), "--help") {
			t.Errorf("%s: prints %q and %q, want the way to help", args, out.String(), errs.String())
		}
	}
}

func TestDemoStartsNoNodeUnlessItCanStartAll(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node-2"), nil, 0o600); err != nil { // no directory
		t.Fatal(err)
	}
	d := mustParse(t, "", "demo", "--nodes", "3").Demo
	tuned := 0
	nodes, err := d.start(t.Context(), dir, func(int, *node.Config) { tuned++ })
	if err == nil || !strings.Contains(err.Error(), "node-2") {
		t.Errorf("start: %v, want the directory named", err)
	}
	if len(nodes) > 0 || tuned > 0 {
		t.Errorf("%d nodes returned, %d about to start", len(nodes), tuned)
	}
}

func TestDemoGivesEveryNodePortsZoneAndDirectoryOfItsOwn(t *testing.T) {
	d := mustParse(t, "", "demo", "--nodes", "99", "--zones", "40").Demo
	taken := map[string]int{}
	zones := map[string]bool{}
	dir := t.TempDir()
	for i := range d.Nodes {
		c, err := d.nodeConfig(i, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []string{c.Listen, c.ClusterListen, c.AdminListen, c.PeerListen, c.GossipListen, c.DataDir} {
			if j, twice := taken[a]; twice {
				t.Errorf("nodes %d and %d both have %s", j, i, a)
			}
			taken[a] = i
		}
		zones[c.Zone] = true
		if c.Expect != 99 || (len(c.Join) == 0) != (i == 0) {
			t.Errorf("node %d expects %d and joins %q", i, c.Expect, c.Join)
		}
	}
	if len(zones) != 26 {
		t.Errorf("%d zones, want as many as there are letters", len(zones))
	}
}
