package membership

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// mixed starts a cluster whose nodes serve up to the given levels.
func (w *world) mixed(levels ...uint16) {
	w.t.Helper()
	for _, level := range levels {
		w.add(len(levels), 0, 1, 2).cfg.MaxLevel = level
	}
	for _, n := range w.nodes {
		n.start()
	}
	w.within(30*time.Second, "one cluster", func() bool { return united(w.nodes...) && settled(len(levels), w.nodes...) })
}

// replaced restarts a node with a program that serves up to another level.
func (n *testNode) replaced(level uint16) {
	n.w.t.Helper()
	n.stop()
	n.cfg.MaxLevel = level
	n.start()
	n.w.within(time.Minute, "all back", func() bool { return united(n.w.nodes...) })
}

// at reports whether all nodes know of a level.
func (w *world) at(level uint16) bool {
	for _, n := range w.nodes {
		if n.m.View().Level != level {
			return false
		}
	}
	return true
}

// knownAt reports whether a node has heard what level another serves.
func (n *testNode) knownAt(other *testNode) uint16 {
	info, _ := n.m.View().Node(other.cfg.ID)
	return info.MaxLevel
}

// ends waits until a node has ended by itself.
func (n *testNode) ends(within time.Duration) error {
	n.w.t.Helper()
	select {
	case err := <-n.done:
		n.cancel()
		n.cancel = nil
		return err
	case <-time.After(within):
		n.w.t.Fatalf("seed %d: node %s runs on", n.w.seed, n.host)
		return nil
	}
}

func TestAClusterBeginsAtTheLowestLevelOfItsFounders(t *testing.T) {
	for _, c := range []struct {
		levels []uint16
		want   uint16
	}{{[]uint16{2, 2, 2}, 2}, {[]uint16{2, 1, 2}, 1}, {[]uint16{1, 1, 1}, 1}} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.mixed(c.levels...)
			if w.within(30*time.Second, "one level", func() bool { return w.at(c.want) }); w.nodes[0].store.blob[0] != firstVersion+byte(c.want-1) {
				t.Errorf("%v: a state of version %d is on the disk", c.levels, w.nodes[0].store.blob[0])
			}
		})
	}
}

func TestALoneNodeBeginsAtItsOwnLevel(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.add(0)
		a.start()
		w.within(10*time.Second, "a cluster", func() bool { return united(a) })
		if !w.at(MaxLevel) {
			t.Errorf("level %d", a.m.View().Level)
		}
	})
}

func TestRollingUpgradeGoesBothWaysUntilItIsFinal(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mixed(1, 1, 1, 1, 1)
		for i, n := range w.nodes {
			n.replaced(2)
			w.within(time.Minute, "word of the new program", func() bool { return w.nodes[0].knownAt(n) == 2 })
			if i == 2 {
				w.nodes[1].replaced(1)
				w.within(time.Minute, "word of the old program", func() bool { return w.nodes[0].knownAt(w.nodes[1]) == 1 })
				_, err := w.nodes[0].m.Finalise(t.Context())
				if !errors.Is(err, ErrMixed) || !strings.Contains(err.Error(), w.nodes[1].cfg.ID.String()+" ("+hostOf(1)) ||
					!strings.Contains(err.Error(), w.nodes[4].cfg.ID.String()) || strings.Contains(err.Error(), w.nodes[2].cfg.ID.String()) {
					t.Errorf("mixed: %v", err)
				}
			}
			if !w.at(1) || n.store.blob[0] != firstVersion {
				t.Fatalf("before it is final, level %d and a state of version %d", n.m.View().Level, n.store.blob[0])
			}
		}
		w.nodes[1].replaced(2)
		w.within(time.Minute, "word of the last", func() bool { return w.nodes[4].knownAt(w.nodes[1]) == 2 && w.nodes[0].knownAt(w.nodes[1]) == 2 })
		for _, n := range []*testNode{w.nodes[0], w.nodes[4]} { // at once: neither has heard of the other
			if already, err := n.m.Finalise(t.Context()); err != nil || already {
				t.Errorf("finalise: already %v, %v", already, err)
			}
		}
		took := w.within(time.Minute, "the level at all", func() bool { return w.at(2) })
		t.Logf("everybody is at the level after %v", took)
		if already, err := w.nodes[2].m.Finalise(t.Context()); err != nil || !already {
			t.Errorf("finalise again: already %v, %v", already, err)
		}
		for _, n := range w.nodes {
			n.crash()
			n.start()
		}
		w.within(time.Minute, "all back", func() bool { return united(w.nodes...) })
		if !w.at(2) || w.nodes[0].m.metrics.unreadable.Get() != 0 || w.log.count("a node was refused") != 0 {
			t.Errorf("after restarts the levels are wrong, or something was refused")
		}
	})
}

func TestFinaliseIsRefusedWhileAMemberIsDown(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mixed(1, 2, 2)
		w.nodes[0].replaced(2)
		w.nodes[2].crash()
		w.within(time.Minute, "it is seen down", func() bool { return aliveIn(w.nodes[0].m.View()) == 2 })
		_, err := w.nodes[0].m.Finalise(t.Context())
		if !errors.Is(err, ErrMixed) || !strings.Contains(err.Error(), w.nodes[2].cfg.ID.String()) || !strings.Contains(err.Error(), "is down") {
			t.Errorf("with a member down: %v", err)
		}
		w.nodes[2].start()
		w.within(time.Minute, "all back", func() bool { return united(w.nodes...) })
		if _, err := w.nodes[0].m.Finalise(t.Context()); err != nil {
			t.Error(err)
		}
		w.within(time.Minute, "the level at all", func() bool { return w.at(2) })
	})
}

func TestOlderProgramIsRefusedOnceTheLevelHasRisen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mixed(1, 2, 2)
		w.nodes[0].replaced(2)
		old := append([]byte(nil), w.nodes[0].store.blob...) // as it was before
		if _, err := w.nodes[1].m.Finalise(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.within(time.Minute, "the level at all", func() bool { return w.at(2) })
		back := w.nodes[0]
		back.stop()
		cfg := back.cfg
		cfg.MaxLevel = 1
		if _, err := New(cfg); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "level 2; this program serves up to 1") {
			t.Errorf("on a directory of the new level: %v", err)
		}
		back.store.blob, back.cfg.MaxLevel = old, 1 // its directory is older than that
		back.start()
		if err := back.ends(time.Minute); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "level 2") {
			t.Errorf("on an older directory: %v", err)
		}
		joiner := w.add(0, 1, 2)
		joiner.cfg.MaxLevel = 1
		joiner.start()
		if err := joiner.ends(time.Minute); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "level 2") {
			t.Errorf("a joiner: %v", err)
		}
		for _, n := range w.nodes[1:3] {
			if _, found := n.m.View().Node(joiner.cfg.ID); found || n.m.View().Level != 2 {
				t.Error("a program that is too old was let in")
			}
		}
		if w.log.count("a node was refused") == 0 {
			t.Error("nobody has logged that a node was refused")
		}
		back.cfg.MaxLevel = 2
		back.start()
		w.within(time.Minute, "the new program on the older directory", func() bool { return united(w.nodes[:3]...) && back.m.View().Level == 2 })
	})
}

func TestNewerLevelOfAnotherClusterEndsNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.add(0), w.add(0)
		a.cfg.MaxLevel = 1
		a.start()
		b.start()
		w.within(10*time.Second, "two clusters of one", func() bool { return united(a) && united(b) })
		a.stop()
		a.cfg.Join = []string{hostOf(1) + ":7946"}
		a.start()
		w.within(20*time.Second, "word of it", func() bool { return w.log.count("a node was refused") > 0 })
		time.Sleep(time.Minute)
		if !united(a) || a.m.View().Level != 1 {
			t.Error("another cluster's level counted")
		}
	})
}

func TestANodeSaysItsWeightOnceAllCanReadIt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mixed(2, 1, 2)
		n := w.add(0, 0)
		n.cfg.StageJoin, n.cfg.Weight = true, 250
		n.start()
		heard := func(at *testNode) NodeInfo { info, _ := at.m.View().Node(n.cfg.ID); return info }
		w.within(30*time.Second, "word of the newcomer", func() bool { return heard(w.nodes[0]).Alive && heard(w.nodes[1]).Alive })
		if got := heard(w.nodes[0]).Weight; got != 0 || w.nodes[1].m.current.Load().meta[0] != metaFirst {
			t.Errorf("at the first level a weight of %d is said, in metas of version %d", got, w.nodes[1].m.current.Load().meta[0])
		}
		w.nodes[1].stop()
		w.nodes[1].cfg.MaxLevel = 2
		w.nodes[1].start()
		w.within(time.Minute, "word of the new program", func() bool {
			info, _ := w.nodes[0].m.View().Node(w.nodes[1].cfg.ID)
			return info.Alive && info.MaxLevel == 2
		})
		if _, err := w.nodes[0].m.Finalise(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.within(time.Minute, "the weight at all", func() bool {
			return w.at(2) && heard(w.nodes[0]).Weight == 250 && heard(w.nodes[1]).Weight == 250 && heard(w.nodes[2]).Weight == 250
		})
		n.stop()
		w.within(time.Minute, "word that it is down", func() bool { return !heard(w.nodes[0]).Alive })
	})
}
