package membership

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// directory is what a node keeps beside its membership: the count of its boots
// and the length of its log. It outlives the node, and can be put back.
type directory struct {
	mu sync.Mutex
	counts
}

type counts struct {
	number, reached uint64
	recovering      bool
	restored        int
}

func (d *directory) copy() counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

func (d *directory) length() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reached
}

func (d *directory) grow(n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reached += n
}

func (d *directory) note(number, reached uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.number, d.reached, d.recovering = number, reached, true
	d.restored++
	return nil
}

func (d *directory) doubted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.restored > 0
}

// boot starts a node on a directory.
func (n *testNode) boot(d *directory) {
	n.w.t.Helper()
	d.number++
	n.cfg.Boot = Boot{Number: d.number, Incarnation: n.w.rnd.Uint64(), Reached: d.reached}
	n.cfg.Recovering, n.cfg.Reached, n.cfg.Restored = d.recovering, d.length, d.note
	n.start()
}

// three boots three nodes on directories of their own.
func (w *world) three() []*directory {
	var dirs []*directory
	for i := range 3 {
		n := w.add(3, 0)
		dirs = append(dirs, &directory{counts: counts{reached: 100}})
		n.boot(dirs[i])
	}
	w.within(time.Minute, "three nodes are one cluster", func() bool { return united(w.nodes...) })
	return dirs
}

// recoveringIn reports whether every node says that n is recovering.
func recoveringIn(w *world, n *testNode, want bool) bool {
	for _, o := range w.nodes {
		info, _ := o.m.View().Node(n.cfg.ID)
		if info.Recovering != want {
			return false
		}
	}
	return true
}

func TestARestartIsNoRestore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dirs := w.three()
		for range 3 {
			dirs[2].grow(50)
			time.Sleep(20 * time.Second)
			w.nodes[2].crash()
			w.nodes[2].boot(dirs[2])
			time.Sleep(20 * time.Second)
			if dirs[2].doubted() || !recoveringIn(w, w.nodes[2], false) {
				t.Fatal("a plain restart was taken for a restored backup")
			}
		}
	})
}

func TestARestoredBackupIsNoticedWithinASecond(t *testing.T) {
	for name, c := range map[string]struct {
		put  counts // what the backup says
		want counts
	}{
		"of an earlier boot":                {counts{number: 1, reached: 100}, counts{number: 6, reached: 350}},
		"of the same boot":                  {counts{number: 4, reached: 340}, counts{number: 6, reached: 350}},
		"of a snapshot of the running node": {counts{number: 5, reached: 120}, counts{number: 7, reached: 350}},
		"which is empty":                    {counts{}, counts{number: 6, reached: 350}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t)
				dirs := w.three()
				blob, _ := w.nodes[2].store.Load()
				for range 4 {
					w.nodes[2].stop()
					dirs[2].grow(50)
					w.nodes[2].boot(dirs[2])
				}
				dirs[2].grow(50)
				time.Sleep(45 * time.Second) // the others hear how far the log has come
				w.nodes[2].crash()

				backup := &directory{counts: c.put}
				w.nodes[2].store.blob = blob
				if backup.number == 0 {
					w.nodes[2].store.blob = nil
					w.nodes[2].cfg.Expect = 0
				}
				w.nodes[2].boot(backup)
				w.within(time.Second, "the backup is noticed", backup.doubted)
				w.within(5*time.Second, "all nodes know", func() bool { return recoveringIn(w, w.nodes[2], true) })
				c.want.recovering, c.want.restored = true, 1
				if got := backup.copy(); got != c.want {
					t.Errorf("goes on as %+v, want %+v", got, c.want)
				}

				w.nodes[2].m.Recovered()
				w.within(5*time.Second, "all nodes know that it is over", func() bool { return recoveringIn(w, w.nodes[2], false) })
				backup.recovering = false
				w.nodes[2].stop()
				w.nodes[2].boot(backup)
				time.Sleep(45 * time.Second)
				if backup.restored != 1 {
					t.Error("the restart after it was taken for another restore")
				}
			})
		})
	}
}

// Two nodes are put back as they were, and meet each other. The others hear of the
// second one from the first, as of a node that is up, and must be asked.
func TestAnOldDiskIsNoticedThoughWhoIsMetFirstHasForgottenToo(t *testing.T) {
	for range 8 { // who meets whom first is chance
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t)
			var dirs []*directory
			for i := range 5 {
				n := w.add(5, 0)
				dirs = append(dirs, &directory{counts: counts{reached: 100}})
				n.boot(dirs[i])
			}
			w.within(time.Minute, "five nodes are one cluster", func() bool { return united(w.nodes...) })
			put := w.nodes[1:3]
			var blobs [][]byte
			for _, n := range put {
				blob, _ := n.store.Load()
				blobs = append(blobs, blob)
			}
			time.Sleep(45 * time.Second)
			dirs[1].grow(500)
			dirs[2].grow(500)
			time.Sleep(45 * time.Second) // the others hear how far the logs have come
			w.net.Partition([]string{hostOf(1), hostOf(2)}, []string{hostOf(0), hostOf(3), hostOf(4)})
			var backups []*directory
			for i, n := range put {
				n.crash()
				n.store.blob = blobs[i]
				backups = append(backups, &directory{counts: counts{number: 1, reached: 100}})
			}
			for i, n := range put {
				n.boot(backups[i])
			}
			time.Sleep(20 * time.Second)
			if backups[0].doubted() || backups[1].doubted() {
				t.Fatal("noticed by a node that has forgotten")
			}
			w.net.Heal()
			w.within(20*time.Second, "all see each other", func() bool {
				for _, n := range w.nodes {
					if aliveIn(n.m.View()) != 5 {
						return false
					}
				}
				return true
			})
			w.within(3*time.Second, "both old disks are noticed", func() bool { return backups[0].doubted() && backups[1].doubted() })
		})
	}
}

// A member that was cut off can know of a later life than those who told first.
func TestALaterWordOfTheOwnPastIsNoRival(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dirs := w.three()
		n := w.nodes[2]
		for range 3 {
			n.stop()
			n.boot(dirs[2])
		}
		n.crash()
		n.store.blob, n.cfg.Expect = nil, 0
		wiped := &directory{}
		n.boot(wiped)
		w.within(time.Second, "the loss is noticed", wiped.doubted)
		for _, number := range []uint64{40, 60, 90} {
			late, err := decodeState(w.nodes[0].m.current.Load().wire)
			if err != nil {
				t.Fatal(err)
			}
			own, err := decodeState(n.m.current.Load().wire)
			if err != nil {
				t.Fatal(err)
			}
			past, _ := own.announced(n.cfg.ID)
			past.Boot = Boot{Number: number, Incarnation: number, Reached: 5000 + number}
			late.Known = []announcement{past}
			n.m.inbox.put(func(m *mail) { m.states = append(m.states, late) })
			w.within(time.Second, "its number is above that life", func() bool { return wiped.copy().number > number })
		}
		w.within(5*time.Second, "all nodes know", func() bool { return recoveringIn(w, n, true) })
		if got := wiped.copy(); got.number != 91 || got.reached != 5090 {
			t.Errorf("goes on as %+v", got)
		}
	})
}

// beside adds a node with a copy of another's directory, at an address of its
// own. alive is what it finds when it asks whether the other one lives.
func (w *world) beside(of *testNode, d *directory, alive bool) (*testNode, *directory) {
	twin := w.add(0, 0)
	twin.cfg.ID, twin.cfg.Zone = of.cfg.ID, of.cfg.Zone
	twin.store.blob, _ = of.store.Load()
	twin.cfg.Twin = func(context.Context, Endpoints) bool { return alive }
	return twin, &directory{counts: d.copy()}
}

func TestOfTwoProcessesWithOneDirectoryOneStops(t *testing.T) {
	for name, c := range map[string]struct {
		behind uint64 // boots that the copy has missed
		alive  bool   // the copy can reach the original, and so must be the one that stops
	}{
		"a new copy that cannot see the original":           {0, false},
		"an old copy that cannot see the original":          {2, false},
		"an old copy that sees the original":                {2, true},
		"a copy of the last boot that sees the original":    {1, true},
		"a copy of the present boot that sees it by chance": {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t)
				dirs := w.three()
				original := w.nodes[2]
				original.stop()
				dirs[2].number += 5
				original.boot(dirs[2])
				time.Sleep(2 * time.Minute)
				twin, d := w.beside(original, dirs[2], c.alive)
				d.number -= c.behind
				twin.boot(d)
				stopped, other := twin, original
				var err error
				select {
				case err = <-twin.done:
				case err = <-original.done:
					stopped, other = original, twin
				case <-time.After(2 * time.Minute):
					t.Fatal("both go on")
				}
				stopped.cancel = nil
				if !errors.Is(err, ErrSuperseded) {
					t.Errorf("%s ended with %v", stopped.host, err)
				}
				if c.alive && c.behind > 0 && stopped != twin {
					t.Error("the original stopped for a copy that could see it")
				}
				time.Sleep(2 * time.Minute)
				select {
				case err := <-other.done:
					other.cancel = nil
					t.Errorf("the other one ended too: %v", err)
				default:
				}
			})
		})
	}
}

func TestAProcessDoesNotStartWhereItsTwinIsAlive(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dirs := w.three()
		for _, alive := range []bool{true, false} {
			twin, _ := w.beside(w.nodes[2], dirs[2], alive)
			twin.cfg.Endpoints.Host = "10.0.9.9"
			m, err := New(twin.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.CheckTwin(t.Context()); errors.Is(err, ErrSuperseded) != alive {
				t.Errorf("twin alive: %v; start: %v", alive, err)
			}
			w.nodes = w.nodes[:3]
		}
	})
}

func TestTheLaterBootWinsWhateverTheClockSaysAndTheFurthestReachStays(t *testing.T) {
	s := state{From: 1}
	s = s.learn([]announcement{{ID: 1, Boot: Boot{Number: 2, Reached: 5}, Stamp: 9}})
	s = s.learn([]announcement{{ID: 1, Boot: Boot{Number: 3, Reached: 4}, Stamp: 1}})
	s = s.learn([]announcement{{ID: 1, Boot: Boot{Number: 1, Reached: 7}, Stamp: 10}})
	if got, _ := s.announced(1); got.Boot != (Boot{Number: 3, Reached: 7}) {
		t.Errorf("kept %+v", got)
	}
}

func TestHowFarALogHasComeIsNotWorthASave(t *testing.T) {
	s := state{From: 1}.learn([]announcement{{ID: 1, Boot: Boot{Number: 2, Reached: 5}}})
	further := s.learn([]announcement{{ID: 1, Boot: Boot{Number: 2, Reached: 6}}})
	if further.equal(s) || further.worthSaving(s) {
		t.Errorf("equal %v, worth saving %v", further.equal(s), further.worthSaving(s))
	}
	if booted := s.learn([]announcement{{ID: 1, Boot: Boot{Number: 3}}}); !booted.worthSaving(s) {
		t.Error("a boot is not saved")
	}
}

func TestAStartingNodeWaitsForAWordOfItsPastButNotForEver(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dirs := w.three()
		for _, n := range w.nodes {
			if !n.m.View().Met {
				t.Errorf("%s is in a cluster and has met nobody", n.host)
			}
		}
		w.nodes[2].crash()
		w.nodes[2].boot(dirs[2])
		if w.nodes[2].m.View().Met {
			t.Error("it has met others before it could hear of them")
		}
		w.within(time.Second, "it has heard of itself", func() bool { return w.nodes[2].m.View().Met })
		for _, n := range w.nodes {
			n.crash()
		}
		w.nodes[2].boot(dirs[2])
		took := w.within(10*time.Second, "it goes on alone", func() bool { return w.nodes[2].m.View().Met })
		if took < 4*time.Second {
			t.Errorf("it waited only %v", took)
		}
	})
}
