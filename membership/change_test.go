package membership

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// settled reports whether nodes read by one ring of so many members, and nothing of
// another is left.
func settled(members int, nodes ...*testNode) bool {
	first := nodes[0].m.View()
	for _, n := range nodes {
		v := n.m.View()
		if v.Epoch == nil || !v.Epoch.Settled || v.Ring.Epoch() != first.Ring.Epoch() || len(v.Ring.Members()) != members {
			return false
		}
	}
	return true
}

// edit amends the records at a node.
func (n *testNode) edit(edits ...ring.Edit) {
	n.w.t.Helper()
	if err := n.tryEdit(edits...); err != nil {
		n.w.t.Fatal(err)
	}
}

func (n *testNode) tryEdit(edits ...ring.Edit) error {
	records, err := ring.Amend(n.m.View().Records, edits, 3, ring.Stamp{TimeMS: time.Now().UnixMilli(), Admin: n.cfg.ID}, true)
	if err != nil {
		return err
	}
	return n.m.Apply(n.w.t.Context(), records)
}

// cluster starts so many nodes that expect each other and waits for them.
func (w *world) cluster(nodes int) {
	w.t.Helper()
	for range nodes {
		w.add(nodes, 0, 1, 2)
	}
	for _, n := range w.nodes {
		n.start()
	}
	took := w.within(30*time.Second, "one cluster", func() bool { return united(w.nodes...) && settled(nodes, w.nodes...) })
	w.t.Logf("%d nodes are a cluster after %v", nodes, took)
}

func TestNodesComeAndGo(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(5)
		for range 3 { // all at once
			w.add(0, 0, 1).start()
		}
		took := w.within(time.Minute, "8 members", func() bool { return united(w.nodes...) && settled(8, w.nodes...) })
		t.Logf("5 -> 8 in %v", took)
		leaver := w.nodes[1]
		w.nodes[4].edit(ring.Edit{Kind: ring.Remove, Node: leaver.cfg.ID})
		stay := slices.Delete(slices.Clone(w.nodes), 1, 2)
		took = w.within(time.Minute, "7 members", func() bool { return settled(7, stay...) && leaver.m.View().Epoch.Out })
		t.Logf("8 -> 7 in %v", took)
		if leaver.m.View().Ready {
			t.Error("a node that has left serves")
		}
		time.Sleep(15 * time.Second) // what was said of the change
		said := w.log.total()
		time.Sleep(2 * time.Minute)
		if now := w.log.total(); now["WARN"] > said["WARN"] {
			t.Errorf("nodes at rest, one of which has left, go on with %d warnings", now["WARN"]-said["WARN"])
		}
		leaver.stop()
		n := w.add(0, 0)
		n.cfg.StageJoin = true
		n.start()
		w.within(time.Minute, "staged", func() bool { return n.m.View().Established })
		w.nodes[0].edit(ring.Edit{Kind: ring.Replace, Node: stay[2].cfg.ID, By: n.cfg.ID})
		stay[2], leaver = n, stay[2]
		took = w.within(time.Minute, "replaced", func() bool { return settled(7, stay...) && leaver.m.View().Epoch.Out && n.m.View().Ready })
		t.Logf("replaced in %v", took)
	})
}

func TestChangesOnBothSidesOfASplitMeet(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(5)
		left, right := []string{hostOf(0), hostOf(1)}, []string{hostOf(2), hostOf(3), hostOf(4)}
		w.net.Partition(left, right)
		time.Sleep(10 * time.Second)
		w.nodes[0].edit(ring.Edit{Kind: ring.Reweigh, Node: w.nodes[0].cfg.ID, Weight: 300})
		w.nodes[4].edit(ring.Edit{Kind: ring.Remove, Node: w.nodes[3].cfg.ID})
		time.Sleep(30 * time.Second)
		if settled(5, w.nodes[0]) || settled(4, w.nodes[4]) {
			t.Error("one side changed the ring alone")
		}
		for _, n := range w.nodes {
			if !n.m.View().Ready {
				t.Errorf("node %s serves no more", n.host)
			}
		}
		w.net.Heal()
		stay := slices.Delete(slices.Clone(w.nodes), 3, 4)
		w.within(2*time.Minute, "the join of both", func() bool { return settled(4, stay...) })
		for _, m := range stay[0].m.View().Ring.Members() {
			if m.ID == stay[0].cfg.ID && m.Weight != 300 {
				t.Errorf("weight %d", m.Weight)
			}
		}
	})
}

// A node that gossip does not reach hears of a change from somebody who brings what he
// holds, and takes nothing that gossip would not.
func TestANodeHearsWhatIsBroughtToItAsItHearsGossip(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(3)
		other := w.add(1)
		other.start()
		a, b := w.nodes[0].m, w.nodes[1]
		w.net.Mute(b.host, true)
		w.nodes[0].edit(ring.Edit{Kind: ring.Reweigh, Node: w.nodes[0].cfg.ID, Weight: 300})
		time.Sleep(10 * time.Second)
		target := a.View().Epoch.Stamp.Target
		if heard := b.m.View().Epoch; heard.Stamp.Target == target || !heard.Behind(a.View().Epoch.Stamp) {
			t.Fatal("it was heard of without gossip")
		}
		saves := b.store.saved()
		for what, state := range map[string][]byte{"nothing": nil, "a cut state": a.State()[1:], "nonsense": []byte("nonsense")} {
			if err := b.m.Hear(t.Context(), state); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := b.m.Hear(t.Context(), other.m.State()); err != nil || b.m.View().Epoch.Stamp.Target == target {
			t.Errorf("of another cluster: %v", err)
		}
		if b.store.saved() != saves || b.m.metrics.unreadable.Get() != 3 || w.log.count("a node was refused") == 0 {
			t.Errorf("%d saves, %d unreadable, %d refused", b.store.saved()-saves, b.m.metrics.unreadable.Get(), w.log.count("a node was refused"))
		}
		if err := b.m.Hear(t.Context(), a.State()); err != nil || b.m.View().Epoch.Stamp.Target != target || b.store.saved() == saves {
			t.Errorf("%v: it goes by %v, wanted %v", err, b.m.View().Epoch.Stamp.Target, target)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.m.Hear(gone, a.State()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		w.net.Mute(b.host, false)
		w.within(time.Minute, "the change is over", func() bool { return settled(3, w.nodes[:3]...) })
	})
}

func TestADeadNodeStallsAChangeUntilItIsForgotten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(5)
		dead := w.nodes[2]
		dead.crash()
		w.nodes[0].edit(ring.Edit{Kind: ring.Reweigh, Node: w.nodes[0].cfg.ID, Weight: 300})
		time.Sleep(time.Minute)
		if w.nodes[0].m.View().Epoch.Settled {
			t.Error("the change was completed without a member")
		}
		record := func() ring.Record {
			for _, r := range w.nodes[0].m.View().Records {
				if r.ID == dead.cfg.ID {
					return r
				}
			}
			return ring.Record{}
		}()
		record.Counter++
		record.Removed, record.Forgotten = true, true
		if err := w.nodes[0].m.Apply(t.Context(), []ring.Record{record}); err != nil {
			t.Fatal(err)
		}
		stay := slices.Delete(slices.Clone(w.nodes), 2, 3)
		w.within(time.Minute, "forgotten", func() bool { return settled(4, stay...) })
		dead.start() // it comes back with its old directory
		select {
		case err := <-dead.done:
			if !errors.Is(err, ErrRefused) {
				t.Errorf("the forgotten node ended with %v", err)
			}
			dead.cancel()
			dead.cancel = nil
		case <-time.After(time.Minute):
			t.Error("the forgotten node runs on")
		}
		if !settled(4, stay...) {
			t.Error("its return changed the ring")
		}
	})
}

// A founder waits for all others before anything is read anywhere.
func TestAFounderThatDiesBeforeTheFirstRingIsAtRestIsForgotten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 5 {
			w.add(5, 0, 1, 2)
		}
		dead := w.nodes[4]
		for _, n := range w.nodes {
			n.start()
		}
		w.within(30*time.Second, "a cluster with a ring to come", func() bool {
			v := w.nodes[0].m.View()
			return v.Established && !v.Epoch.Settled && len(v.Records) == 5
		})
		dead.crash()
		stay := w.nodes[:4]
		time.Sleep(time.Minute)
		for _, n := range stay {
			if n.m.View().Epoch.Settled {
				t.Fatal("the first ring is at rest without a founder: the test came too late")
			}
		}
		w.nodes[0].edit(ring.Edit{Kind: ring.Forget, Node: dead.cfg.ID})
		w.within(time.Minute, "four members that serve", func() bool {
			return settled(4, stay...) && !slices.ContainsFunc(stay, func(n *testNode) bool { return !n.m.View().Ready })
		})
		n := w.add(0, 0)
		n.start()
		w.within(time.Minute, "the next change", func() bool { return settled(5, append(stay, n)...) && n.m.View().Ready })
	})
}

func TestATransitionOutlivesRestartsOfAll(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(3)
		n := w.add(0, 0)
		n.start()
		for round := 0; !settled(4, w.nodes...); round++ {
			if round > 60 {
				t.Fatalf("seed %d: not settled", w.seed)
			}
			for _, n := range w.nodes {
				n.crash()
				n.start()
				time.Sleep(time.Duration(w.rnd.IntN(1500)) * time.Millisecond)
			}
		}
		w.within(time.Minute, "four", func() bool { return united(w.nodes...) })
	})
}

func TestApplyRefusesWhatOthersOvertook(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(3)
		old := w.nodes[0].m.View().Records
		w.nodes[0].edit(ring.Edit{Kind: ring.Reweigh, Node: w.nodes[1].cfg.ID, Weight: 300})
		w.nodes[0].edit(ring.Edit{Kind: ring.Reweigh, Node: w.nodes[1].cfg.ID, Weight: 400})
		late, err := ring.Amend(old, []ring.Edit{{Kind: ring.Reweigh, Node: w.nodes[1].cfg.ID, Weight: 500}}, 3, ring.Stamp{Admin: w.nodes[2].cfg.ID}, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.nodes[0].m.Apply(t.Context(), late); !errors.Is(err, ErrNotTaken) {
			t.Errorf("a late change: %v", err)
		}
	})
}
