package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// TestARecordedHistoryIsCleanThoughNodesAreKilled records one with the program, as
// users do, kills a node and starts it again meanwhile, and has the program judge
// it. Then it takes an acknowledged write out of it.
func TestARecordedHistoryIsCleanThoughNodesAreKilled(t *testing.T) {
	c := startProcesses(t, 5)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "history.jsonl")
	var addrs []string
	for _, p := range c.nodes {
		addrs = append(addrs, p.plain)
	}
	var out bytes.Buffer
	bench := exec.Command(path, "bench", "--history", file, "--addr", strings.Join(addrs, ","), "--workload", "mixed",
		"--clients", "12", "--keys", "20", "--duration", "6s", "--value-bytes", "300")
	bench.Stdout, bench.Stderr = &out, &out
	if err := bench.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		time.Sleep(time.Second)
		c.kill(c.nodes[1+i])
		time.Sleep(time.Second)
		c.start(c.nodes[1+i])
		c.awaitReady(c.nodes[1+i])
	}
	if err := bench.Wait(); err != nil {
		t.Fatalf("bench: %v\n%s", err, &out)
	}
	t.Logf("%s%s", &out, run(t, nil, path, "check", file)) // it must succeed

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	report, err := judge.Check(bytes.NewReader(text), judge.Options{})
	if f := report.Figures; err != nil || f.Acked < 500 || f.Reads < 200 || f.Failed+f.Unknown == 0 || f.Keys != 100 || f.Unjudged+f.Uninspected > 0 || f.PlainAcked == 0 {
		t.Errorf("%+v, %v: the load was no load, or nothing failed", f, err)
	}
	planted, key := loseOne(t, text)
	report, err = judge.Check(bytes.NewReader(planted), judge.Options{})
	if err != nil || report.Counts[judge.Lost] == 0 || report.Total() != report.Counts[judge.Lost] {
		t.Errorf("without the final value of %s: %v, %v", key, report.Findings, err)
	}
	for _, f := range report.Findings {
		if f.Key != key {
			t.Errorf("without the final value of %s: %v", key, f)
		}
	}
}

// loseOne takes the last values of one cart away, and returns its key.
func loseOne(t *testing.T, text []byte) (planted []byte, key string) {
	t.Helper()
	r := judge.NewReader(bytes.NewReader(text))
	planted = judge.AppendLine(nil, &judge.Op{Kind: judge.Header, Version: judge.Version})
	var o judge.Op
	for r.Next(&o) == nil {
		if key == "" && o.Kind == judge.Final && strings.Contains(o.Key, ":cart:") && len(o.Values) > 0 {
			key, o.Values = o.Key, nil
		}
		planted = judge.AppendLine(planted, &o)
	}
	if key == "" {
		t.Fatal("no cart has a value at the end")
	}
	return planted, key
}
