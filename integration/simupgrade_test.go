package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
)

// This file upgrades a loaded cluster in virtual time, one node after the other, puts
// some back, and makes the upgrade final. What is judged at every moment, and in the
// end, is what changes of the ring are judged by.

// upgradeSim is a cluster of programs of two releases.
type upgradeSim struct {
	*ringSim
	serves map[string]uint16 // the highest level that the program of a host serves
}

func newUpgradeSim(t *testing.T, seed uint64, nodes int) *upgradeSim {
	u := &upgradeSim{serves: map[string]uint16{}}
	for i := range nodes {
		u.serves[fmt.Sprintf("10.0.0.%d", i+1)] = 1
	}
	c := newTunedSimCluster(t, seed, nodes, func(cfg *node.Config) { cfg.MaxLevel = u.serves[cfg.Advertise] })
	u.ringSim = &ringSim{simCluster: c, h: newHistory(t, seed)}
	for i := range nodes {
		u.doors.set(i, true)
	}
	return u
}

// program stops node i in order, and starts it again with a program that serves up to
// a level.
func (u *upgradeSim) program(i int, level uint16) {
	u.t.Helper()
	u.bend(true)
	u.leaves(i)
	u.serves[u.nodes[i].host] = level
	u.start(i)
	u.awaitReady(i)
	u.doors.set(i, true)
	u.home()
	u.bend(false)
}

// levels is what every node says: of the cluster, and of the program.
func (u *upgradeSim) levels() (list []string) {
	for i := range u.nodes {
		st := u.ring(i, "STATUS")
		list = append(list, fmt.Sprintf("%v/%v", st["level"], st["max-level"]))
	}
	return list
}

// mustSay fails the test unless the nodes say these levels, within some seconds.
func (u *upgradeSim) mustSay(want string) {
	u.t.Helper()
	u.within(10*time.Second, "the levels are "+want, func() string {
		if got := strings.Join(u.levels(), " "); got != want {
			return got
		}
		return ""
	})
}

// mixed has node i asked to make the upgrade final, which it must refuse because of
// another node.
func (u *upgradeSim) mixed(i, because int) {
	u.t.Helper()
	u.within(10*time.Second, "the refusal names the node", func() string {
		_, err := u.try(i, "RING", "FINALISE")
		if err == nil {
			u.t.Fatalf("seed %d: a mixed cluster is final", u.seed)
		}
		if !strings.HasPrefix(err.Error(), "MIXED") || !strings.Contains(err.Error(), u.addr(because)) {
			return err.Error()
		}
		return ""
	})
}

func TestARollingUpgradeGoesBothWaysUntilItIsFinalInVirtualTime(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	const seed = 31
	bubble.Test(t, func(t *testing.T) {
		u := newUpgradeSim(t, seed, 5)
		defer u.close()
		defer u.endLoad()
		u.load()
		time.Sleep(ringCalm)
		for i := range u.nodes {
			u.program(i, 2)
			if i < 4 {
				u.mixed(i, 4)
			}
			time.Sleep(ringCalm)
		}
		for _, i := range []int{1, 3} {
			u.program(i, 1)
		}
		u.mixed(0, 3)
		u.mustSay("1/2 1/1 1/2 1/1 1/2")
		time.Sleep(ringCalm)
		for _, i := range []int{1, 3} {
			u.program(i, 2)
		}
		u.mustSay("1/2 1/2 1/2 1/2 1/2")
		u.counts(false)
		before := u.nodes[4].disk.CrashClone(vfs.CrashCloneCfg{})
		u.within(30*time.Second, "gossip knows that all are back, and that it is final", func() string {
			if _, err := u.try(2, "RING", "FINALISE"); err != nil {
				return err.Error()
			}
			return ""
		})
		if got := u.must(2, "RING", "FINALISE"); got != "OK it is so already" {
			t.Errorf("seed %d: FINALISE answers %v again", u.seed, got)
		}
		u.mustSay("2/2 2/2 2/2 2/2 2/2")
		u.counts(true)
		time.Sleep(ringCalm)
		u.refusesOlder(4, before)
		time.Sleep(ringCalm)
		u.endLoad()
		u.judgeEnd()
		fmt.Fprintf(os.Stderr, "%s: took %v: %v\n", t.Name(), time.Since(begin).Round(time.Millisecond), u.h.mu.counts)
	})
}

// counts has every node count on one key, which they do from level 2 on: an older
// program could not read what that leaves.
func (u *upgradeSim) counts(do bool) {
	u.t.Helper()
	for i := range u.nodes {
		got, err := u.try(i, "INCR", "counted")
		switch {
		case do && (err != nil || got != int64(i+1)):
			u.t.Errorf("seed %d: node %d counts %v, %v", u.seed, i, got, err)
		case !do && (err == nil || !strings.Contains(err.Error(), "'incr' is not served before every node runs a release that has it")):
			u.t.Errorf("seed %d: node %d counts too early: %v, %v", u.seed, i, got, err)
		}
	}
}

// refusesOlder starts an older program at node i, with its directory as it is and as it
// was before, and then puts all back.
func (u *upgradeSim) refusesOlder(i int, before *vfs.MemFS) {
	u.t.Helper()
	u.bend(true)
	u.leaves(i)
	host, now := u.nodes[i].host, u.nodes[i].disk
	u.serves[host] = 1
	if err := u.boot(i); err == nil || !strings.Contains(err.Error(), "written by a newer release: level 2; this program serves up to 1") {
		u.t.Fatalf("seed %d: an older program on the directory of a newer: %v", u.seed, err)
	}
	u.net.Crash(host)
	u.swap(i, before)
	u.start(i)
	select {
	case <-u.nodes[i].node.Done():
	case <-time.After(time.Minute):
		u.t.Fatalf("seed %d: an older program goes on", u.seed)
	}
	if err := u.nodes[i].node.Err(); err == nil || !strings.Contains(err.Error(), "is at level 2") {
		u.t.Errorf("seed %d: it ended with: %v", u.seed, err)
	}
	u.kill(i)
	u.swap(i, now)
	u.serves[host] = 2
	u.start(i)
	u.awaitReady(i)
	u.doors.set(i, true)
	u.home()
	u.bend(false)
}
