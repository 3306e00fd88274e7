package membership

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/redynamo/redynamo/membership/ring"
)

// TestRealSocketsFormAClusterAndLeaveNothingBehind is the one test outside a
// bubble: memberlist's own transport, and its shutdown.
func TestRealSocketsFormAClusterAndLeaveNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(context.Background())
	var done []chan error
	run := func(id ring.NodeID, join ...string) *Membership {
		m, err := New(Config{
			ID: id, BindAddr: "127.0.0.1:0", Join: join, Store: &memStore{}, Fast: true,
			Params: ring.Params{Units: 64, N: 3},
		})
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		done = append(done, end)
		go func() { end <- m.Run(ctx) }()
		return m
	}
	await := func(m *Membership, what string, holds func(*View) bool) *View {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			v, changed := m.Changes()
			if holds(v) {
				return v
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("not in time: %s; %+v", what, v)
			}
		}
	}
	a := run(1)
	seed := await(a, "own address", func(v *View) bool { return v.Nodes[1].Endpoints.Gossip != 0 }).Nodes[1].Endpoints.GossipAddr()
	b := run(2, seed, "127.0.0.1:1")
	for _, m := range []*Membership{a, b} {
		await(m, "two live members", func(v *View) bool { return v.Ready && len(v.Ring.Members()) == 2 && aliveIn(v) == 2 })
	}
	cancel()
	for _, end := range done {
		select {
		case err := <-end:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Run does not end")
		}
	}
}
