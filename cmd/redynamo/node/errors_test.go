package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

func TestWhatANodeAnswersIsHeardInTheCoordinatorsWords(t *testing.T) {
	for _, c := range []struct{ answered, wire, heard error }{
		{coordinator.ErrOverloaded, rpc.ErrOverloaded, coordinator.ErrOverloaded},
		{storage.ErrBusy, rpc.ErrOverloaded, coordinator.ErrOverloaded},
		{coordinator.ErrNoReplicas, rpc.ErrNoReplicas, coordinator.ErrNoReplicas},
		{coordinator.ErrNoReadQuorum, rpc.ErrNoReplicas, coordinator.ErrNoReplicas},
		{coordinator.ErrTimeout, rpc.ErrNoReplicas, coordinator.ErrNoReplicas},
		{coordinator.ErrNotOwner, rpc.ErrNotOwner, coordinator.ErrNotOwner},
		{replica.ErrFenced, rpc.ErrNotOwner, coordinator.ErrNotOwner},
		{coordinator.ErrStale, rpc.ErrStale, coordinator.ErrStale},
		{coordinator.ErrStaleEpoch, rpc.ErrStaleEpoch, coordinator.ErrStaleEpoch},
		{coordinator.ErrHintBudget, rpc.ErrHintBudget, coordinator.ErrHintBudget},
		{coordinator.ErrLost, rpc.ErrTimeout, coordinator.ErrLost},
		{version.ErrTooManySiblings, rpc.ErrTooManySiblings, version.ErrTooManySiblings},
		{version.ErrTooLarge, rpc.ErrTooLarge, version.ErrTooLarge},
		{version.ErrNotInteger, rpc.ErrNotInteger, version.ErrNotInteger},
		{version.ErrNotFloat, rpc.ErrNotFloat, version.ErrNotFloat},
		{version.ErrOverflow, rpc.ErrOverflow, version.ErrOverflow},
		{version.ErrNotFinite, rpc.ErrNotFinite, version.ErrNotFinite},
		{version.ErrCorrupt, rpc.ErrCorrupt, version.ErrCorrupt},
		{coordinator.ErrUnreachable, rpc.ErrUnreachable, coordinator.ErrUnreachable},
		{nil, nil, nil},
	} {
		wrapped := c.answered
		if wrapped != nil {
			wrapped = fmt.Errorf("write partition 7: %w", wrapped)
		}
		if got := toWire(wrapped); got != c.wire {
			t.Errorf("%v crosses as %v, want %v", wrapped, got, c.wire)
		}
		if got := fromWire(toWire(wrapped)); got != c.heard {
			t.Errorf("%v is heard as %v, want %v", wrapped, got, c.heard)
		}
	}
}

func TestEveryRowOfTheErrorTableIsReached(t *testing.T) {
	for _, e := range wireErrors {
		if got := fromWire(fmt.Errorf("call: %w", e.wire)); got != e.heard {
			t.Errorf("%v is heard as %v, want %v: an earlier row hides it", e.wire, got, e.heard)
		}
		if toWire(e.local) == e.local {
			t.Errorf("%v has no word on the wire", e.local)
		}
	}
}

func TestUncertainOutcomesKeepTheirCounts(t *testing.T) {
	sent := toWire(fmt.Errorf("write: %w", &coordinator.UncertainError{Acked: 1, Want: 2}))
	var wire *rpc.UncertainError
	if !errors.As(sent, &wire) || wire.Acked != 1 || wire.Want != 2 {
		t.Fatalf("crosses as %v", sent)
	}
	var heard *coordinator.UncertainError
	if got := fromWire(fmt.Errorf("call: %w", wire)); !errors.As(got, &heard) || heard.Acked != 1 || heard.Want != 2 {
		t.Errorf("is heard as %v", got)
	}
}

// An error that leaves open whether a write was made must not become one after
// which the coordinator lets another node, or the client, repeat it.
func TestAnOpenOutcomeIsNeverHeardAsACertainOne(t *testing.T) {
	certain := []error{coordinator.ErrNoReplicas, coordinator.ErrNoReadQuorum, coordinator.ErrOverloaded, coordinator.ErrNotOwner,
		coordinator.ErrUnreachable, coordinator.ErrStale, coordinator.ErrStaleEpoch}
	for _, open := range []error{
		rpc.ErrTimeout, rpc.ErrClosed, rpc.ErrInternal, rpc.ErrMalformed, &rpc.UncertainError{Acked: 0, Want: 2},
		toWire(storage.ErrFailed), toWire(storage.ErrClosed), toWire(errors.New("anything else")),
	} {
		for _, c := range certain {
			if got := fromWire(open); errors.Is(got, c) {
				t.Errorf("%v is heard as %v", open, got)
			}
		}
	}
}
