package node

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/replica/rpc"
)

// granted is how many slices a kind of background work has had.
func granted(n *Node, kind string) (count int) {
	var text bytes.Buffer
	n.set.WritePrometheus(&text)
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Sscanf(line, `admission_slices_total{kind="`+kind+`",outcome="granted"} %d`, &count); err == nil {
			return count
		}
	}
	return -1
}

func TestBackgroundWorkAsksForItsTime(t *testing.T) {
	cfg := lone(vfs.NewCrashableMem())
	cfg.ScrubPeriod = time.Minute
	n := start(t, cfg)
	within(t, "the first scrubbing", func() {
		for granted(n, "scrub") < 1 {
			say(t, n, "SET k v")
		}
	})
	done := make(chan error, 1)
	handler{n}.ServeDeliver(rpc.DeliverRequest{Rows: []rpc.DeliverRow{{Key: []byte("k"), Record: nil}}}, rpc.Meta{Class: rpc.Background},
		func(_ rpc.DeliverReply, err error) { done <- err })
	<-done
	if got := granted(n, "receive"); got != 1 {
		t.Errorf("a delivery is counted as %d slices", got)
	}
	handler{n}.ServeList(rpc.ListRequest{Cells: []uint32{1}, Limit: 10}, rpc.Meta{Class: rpc.Background}, func(_ rpc.ListReply, err error) { done <- err })
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := granted(n, "answer"); got != 1 {
		t.Errorf("an answer to a node that compares is counted as %d slices", got)
	}
	var fields []string
	for _, f := range n.publish.Stats().Extra {
		fields = append(fields, f.Name+"="+f.Value)
	}
	if text := strings.Join(fields, " "); !strings.Contains(text, "background_share=") || !strings.Contains(text, "foreground_target_ms=") {
		t.Errorf("INFO: %s", text)
	}
}

func TestATargetBelowTheBaselineIsRefused(t *testing.T) {
	for target, refused := range map[float64]bool{-1: false, 0: false, 0.5: true, 1: false, 101: true} {
		cfg := Config{DataDir: "d", BackgroundTarget: target}.withDefaults()
		if err := cfg.validate(); (err != nil) != refused {
			t.Errorf("background target %v: %v", target, err)
		}
	}
}
