package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/handoff"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

func TestARowIsRejectedOnlyByAnAnswerAboutIt(t *testing.T) {
	for _, c := range []struct {
		answered error // what the receiver ends with
		rejected bool
	}{
		{handoff.ErrBusy, false}, {handoff.ErrLate, false}, {handoff.ErrNotReady, false},
		{storage.ErrBusy, false}, {storage.ErrDiskFull, false}, {storage.ErrClosed, false}, {storage.ErrFailed, false},
		{handoff.ErrNotOwner, true}, {version.ErrCorrupt, true}, {errors.New("a bug"), true},
	} {
		crossed := receiveError(fmt.Errorf("replica: merge: %w", c.answered))
		if !isWireError(crossed) {
			crossed = rpc.ErrInternal
		}
		if got := errors.Is(deliverError(crossed), handoff.ErrRejected); got != c.rejected {
			t.Errorf("%v crosses as %v; the row is rejected: %v, want %v", c.answered, crossed, got, c.rejected)
		}
	}
	for _, err := range []error{rpc.ErrUnreachable, rpc.ErrTimeout, rpc.ErrClosed, rpc.ErrOverloaded} {
		if errors.Is(deliverError(err), handoff.ErrRejected) {
			t.Errorf("%v is taken for a refusal of the rows", err)
		}
	}
	if deliverError(nil) != nil || receiveError(nil) != nil {
		t.Error("a success became an error")
	}
}

// isWireError reports whether an error crosses the wire as itself.
func isWireError(err error) bool {
	for _, e := range []error{rpc.ErrOverloaded, rpc.ErrTimeout, rpc.ErrLoading, rpc.ErrNotOwner, rpc.ErrCorrupt} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// TestAFullBookRefusesOptionalHints asks a whole node to keep hints.
func TestAFullBookRefusesOptionalHints(t *testing.T) {
	cfg := lone(vfs.NewCrashableMem())
	cfg.HintBudget = 1000
	n := start(t, cfg)
	n.tasks.stop() // handoff would bring them to the owner, which is this node
	ask := func(key string, optional bool) error {
		done := make(chan error, 1)
		dot := version.Dot{Actor: 9, Counter: 1}
		rec := version.Record{}.Put(version.Write{Dot: dot, HLC: 1, Value: make([]byte, 300)})
		n.local.Merge(coordinator.MergeRequest{Key: []byte(key), For: 77, Record: version.EncodeWire(nil, rec), Durable: true, Optional: optional},
			func(err error) { done <- err })
		err := <-done
		// It may be durable before it is counted, under the lock that a read takes.
		if _, err := n.replica.Rows([]byte(key)); err != nil {
			t.Fatal(err)
		}
		return err
	}
	for i := range 2 {
		if err := ask(fmt.Sprint("k", i), true); err != nil {
			t.Fatalf("hint %d: %v", i, err)
		}
	}
	if err := ask("k3", true); !errors.Is(err, coordinator.ErrHintBudget) {
		t.Errorf("an optional hint over budget: %v", err)
	}
	if err := ask("k4", false); err != nil {
		t.Errorf("a needed hint over budget: %v", err)
	}
	hints := n.publish.Hints()
	if len(hints) != 1 || hints[0].Rows != 3 || !hints[0].OverBudget || hints[0].Budget != 1000 {
		t.Errorf("HINTS: %+v", hints)
	}
	var fields []string
	for _, f := range n.publish.Stats().Handoff {
		fields = append(fields, f.Name+"="+f.Value)
	}
	if text := strings.Join(fields, " "); !strings.Contains(text, "handoff_rows=3 ") || !strings.Contains(text, "handoff_targets_over_budget=1 ") {
		t.Errorf("INFO: %s", text)
	}
}
