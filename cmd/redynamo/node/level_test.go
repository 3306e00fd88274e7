package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/resp"
)

func TestFinaliseAsksWhoeverGossipTakesForAlive(t *testing.T) {
	r := newAdminRig(t, 5)
	for id, info := range r.nodes {
		info.MaxLevel = 2
		r.nodes[id] = info
	}
	raised, fail := 0, error(nil)
	r.admin.finalise = func(context.Context) (bool, error) {
		if fail == nil {
			raised++
		}
		return raised > 1, fail
	}
	r.down[3], r.down[6] = true, true
	_, err := r.admin.Finalise()
	if !errors.Is(err, resp.ErrMixed) || !strings.Contains(err.Error(), "0000000000000003") || !strings.Contains(err.Error(), "0000000000000006") || raised != 0 {
		t.Errorf("two nodes do not answer: %v", err)
	}
	r.down = map[nodeID]bool{}
	for _, want := range []bool{false, true} {
		if already, err := r.admin.Finalise(); err != nil || already != want {
			t.Errorf("already %v, %v, want %v", already, err, want)
		}
	}
	fail = fmt.Errorf("%w 2: node a is down", membership.ErrMixed)
	if _, err := r.admin.Finalise(); !errors.Is(err, resp.ErrMixed) || !strings.Contains(err.Error(), "node a is down") {
		t.Errorf("membership refuses: %v", err)
	}
}
