package membership

import (
	"errors"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/membership/ring"
)

// alone reports whether a saved state is that of a node which takes itself for the
// only owner, or for one of none.
func alone(t *testing.T, blob []byte) bool {
	t.Helper()
	s, err := decodeState(blob)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Established {
		return true
	}
	v, err := s.Epochs.View(func(members []ring.Member) (*ring.Ring, error) { return ring.New(s.Params(), members) })
	if err != nil {
		t.Fatal(err)
	}
	return len(v.Rings()[0].Members()) <= 1
}

func TestWhoLostTheWordOfOthersWaitsForThemWithoutEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		founder := w.add(1)
		dirs := []*directory{{counts: counts{reached: 100}}}
		founder.boot(dirs[0])
		w.within(time.Minute, "the founder serves", func() bool { return founder.m.View().Ready && founder.m.View().Met })
		for range 2 {
			dirs = append(dirs, &directory{counts: counts{reached: 100}})
			n := w.add(1, 0)
			n.boot(dirs[len(dirs)-1])
		}
		w.within(time.Minute, "three nodes are one cluster", func() bool { return united(w.nodes...) })
		if founder.store.untrue || !founder.store.Company() {
			t.Error("the founder's state names others, its note does not")
		}
		tried := 0
		for _, blob := range founder.store.blobs {
			if !alone(t, blob) {
				continue
			}
			tried++
			for _, n := range w.nodes {
				n.crash()
			}
			founder.store.blob, dirs[0].recovering = blob, true
			founder.boot(dirs[0])
			time.Sleep(time.Minute)
			if founder.m.View().Met {
				t.Errorf("state %d: it goes on alone", tried)
			}
			for i, n := range w.nodes[1:] {
				n.boot(dirs[1+i])
			}
			w.within(time.Minute, "it has met the others", func() bool { return founder.m.View().Met && united(w.nodes...) })
		}
		if tried < 2 {
			t.Errorf("only %d states of a founder that is alone", tried)
		}
	})
}

func TestWhoNeverHadCompanyGoesOnAloneWhateverItLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n, d := w.add(1), &directory{counts: counts{reached: 100}}
		n.boot(d)
		w.within(time.Minute, "it serves", func() bool { return n.m.View().Ready && n.m.View().Met })
		if n.store.Company() {
			t.Error("it is alone, and its note says otherwise")
		}
		n.crash()
		d.recovering = true
		n.boot(d)
		w.within(10*time.Second, "it goes on", func() bool { return n.m.View().Ready && n.m.View().Met })
	})
}

// What --accept-loss means here: the directory is not recovering, whatever it lost.
func TestWhoGivesUpWhatItLostGoesOnAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		n, d := w.add(1), &directory{counts: counts{reached: 100}}
		n.boot(d)
		w.within(time.Minute, "it serves", func() bool { return n.m.View().Ready && n.m.View().Met })
		n.crash()
		n.store.company, d.recovering = true, true
		n.boot(d)
		time.Sleep(time.Minute)
		if n.m.View().Met {
			t.Error("it had company, and goes on without being told to")
		}
		n.crash()
		d.recovering = false
		n.boot(d)
		w.within(10*time.Second, "it goes on", func() bool { return n.m.View().Ready && n.m.View().Met })
		if n.store.Company() {
			t.Error("it is alone, and its note says otherwise")
		}
	})
}

func TestTheLastMemberHasNoCompanyAnyMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster(2)
		last, leaver := w.nodes[0], w.nodes[1]
		if !last.store.Company() || last.store.untrue || leaver.store.untrue {
			t.Error("two members, and no company")
		}
		last.edit(ring.Edit{Kind: ring.Remove, Node: leaver.cfg.ID})
		w.within(time.Minute, "one has left", func() bool { return settled(1, last) })
		if last.store.Company() {
			t.Error("one member, and company")
		}
	})
}

func TestWhoLostItsClusterCreatesNoOther(t *testing.T) {
	cfg := Config{ID: 1, Recovering: true, Store: &memStore{company: true}}
	if _, err := New(cfg); !errors.Is(err, errOrphan) {
		t.Errorf("without seeds: %v", err)
	}
	cfg.Join = []string{"10.0.0.2:7946"}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if v := m.View(); v.Met || v.Established {
		t.Errorf("with seeds: met %v, established %v", v.Met, v.Established)
	}
}

func TestWhoLostThatItIsAMemberDoesNotBecomeOneAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i, seeds := range [][]int{nil, {0}, {0}} {
			w.add(1, seeds...).boot(&directory{counts: counts{reached: 100}})
			w.within(time.Minute, "it is a member", func() bool { return settled(i+1, w.nodes...) })
		}
		loser, d := w.nodes[2], &directory{counts: counts{number: 1, reached: 100}}
		epoch := loser.m.View().Ring.Epoch()
		tried := 0
		for _, blob := range loser.store.blobs {
			s, err := decodeState(blob)
			if err != nil {
				t.Fatal(err)
			}
			if !s.Established || s.member(loser.cfg.ID) {
				continue
			}
			tried++
			loser.crash()
			loser.store.blob, d.recovering = blob, true
			w.net.Mute(loser.host, true)
			time.Sleep(10 * time.Second) // for what was on its way
			loser.boot(d)
			time.Sleep(10 * time.Second)
			if self, _ := loser.m.View().Node(loser.cfg.ID); self.Member {
				t.Errorf("state %d: it took itself for a member before it had heard of others", tried)
			}
			w.net.Mute(loser.host, false)
			w.within(time.Minute, "all are one cluster", func() bool { return united(w.nodes...) })
			if now := loser.m.View().Ring.Epoch(); now != epoch {
				t.Errorf("state %d: the ring is %v now, and was %v", tried, now, epoch)
			}
		}
		if tried == 0 {
			t.Error("no state of a node that knows a cluster and is no member of it")
		}
	})
}
