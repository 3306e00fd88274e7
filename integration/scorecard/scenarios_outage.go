//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// longOutage lets a node miss much and return (row 11).
func longOutage(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.faulty()
	victim := b.c.nodes[3]
	victim.kill()
	b.pause(b.span(5*time.Second, 10*time.Minute))
	b.returns(victim)
	b.healed()
	b.settle()
}

// deleteInOutage deletes keys behind the back of one of their owners (row 14).
func deleteInOutage(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).addOrDelete)
	b.faulty()
	victim := b.c.nodes[3]
	victim.kill()
	b.pause(b.span(2*time.Second, 3*time.Minute))
	b.l.stop()
	cl := b.clients(1, b.c.nodes[:3]...)[0]
	defer cl.close()
	for _, key := range b.h.keys() {
		if cl.read(b.ctx, key) {
			cl.write(b.ctx, key, cl.views[key], true)
		}
	}
	b.pause(b.span(2*time.Second, 3*time.Minute))
	b.keepsTombstones(b.h.keys())
	b.returns(victim)
	b.healed()
	b.settle()
}

// noState is how an inspection shows the state of an owner that knows nothing.
const noState = "0000000000000000"

// keepsTombstones checks that of every deleted key that has an owner which could
// not be told, some owner that is up remembers the delete.
func (b *bed) keepsTombstones(keys []string) {
	untold := map[string][]copied{}
	for _, key := range keys {
		untold[key] = nil
	}
	b.inspectAll(untold) // takes out those whose owners are all up and equal
	forgotten := 0
	for _, copies := range untold {
		if !slices.ContainsFunc(copies, func(c copied) bool { return c.State != "" && c.State != noState }) {
			forgotten++
		}
	}
	b.note("%d of %d deleted keys have an owner that is down", len(untold), len(keys))
	b.check(len(untold) > 0, "no deleted key has an owner that is down: the fault was none")
	b.check(forgotten == 0, "the delete of %d keys is forgotten while an owner is down", forgotten)
}

// wiped empties the data directory of a node (row 16).
func wiped(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).change)
	b.faulty()
	victim := b.c.nodes[3]
	before, id := b.incarnation(victim), nodeID(b, victim)
	victim.kill()
	b.loseData(victim, id)
	b.pause(b.span(time.Second, 10*time.Second))
	b.returns(victim)
	b.check(b.incarnation(victim) != before, "the actor is the one of before")
	b.pause(b.span(2*time.Second, 30*time.Second))
	b.healed()
	b.settle()
}

// loseData empties the data directory of p, which is down. What stands in for a
// disk that is lost must be told whose place it takes, if the program can be
// told.
func (b *bed) loseData(p *node, id string) {
	b.must(os.RemoveAll(p.dir))
	if b.knows("replace-lost") {
		p.once = []string{"--replace-lost", id}
	}
}

var incarnationLine = regexp.MustCompile(`incarnation:(\w+)`)

// incarnation is the actor of the dots that p mints.
func (b *bed) incarnation(p *node) string {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	found := incarnationLine.FindStringSubmatch(cl.Info(b.ctx, "redynamo").Val())
	if found == nil {
		return ""
	}
	return found[1]
}

// warned says that a node has noticed that its disk is not what it should be.
var warned = regexp.MustCompile(`(?i)level=(WARN|ERROR).*(unclean|amnesia|stale|restored|older|behind|corrupt|damaged|lost|missing|lacks)`)

// restored puts an old copy of its data under a node (row 17).
func restored(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).change)
	victim := b.c.nodes[3]
	backup := filepath.Join(b.dir, "backup")
	victim.kill()
	b.must(copyDir(victim.dir, backup))
	b.returns(victim)
	b.pause(b.span(3*time.Second, 5*time.Minute))
	b.faulty()
	victim.kill()
	b.must(os.RemoveAll(victim.dir))
	b.must(copyDir(backup, victim.dir))
	logged := len(victim.logText())
	b.returns(victim)
	const detectedWithin = time.Second
	b.pause(detectedWithin)
	b.check(warned.MatchString(victim.logText()[logged:]), "the old copy was not noticed within %v", detectedWithin)
	b.pause(b.span(2*time.Second, 30*time.Second))
	b.healed()
	b.settle()
}

// holderDies loses a hint holder with its hints (row 13).
func holderDies(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.faulty()
	victim := b.c.nodes[3]
	victim.kill()
	b.pause(b.span(3*time.Second, time.Minute))
	b.l.stop()
	holder, most := b.c.nodes[0], 0.0
	for _, p := range b.c.nodes[:3] {
		if hints, err := b.c.metric(b.ctx, p, "replica_hint_rows"); err == nil && hints > most {
			holder, most = p, hints
		}
	}
	b.note("node %d died with %v hints", holder.index, most)
	id := nodeID(b, holder)
	holder.kill()
	b.loseData(holder, id)
	b.returns(victim, holder)
	b.healed()
	b.settle()
}

// coldStart brings the cluster back with one disk less (row 39).
func coldStart(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.l.stop()
	b.faulty()
	victim := b.c.nodes[3]
	id := nodeID(b, victim)
	for _, p := range b.c.nodes {
		p.kill()
	}
	b.loseData(victim, id)
	b.returns(b.c.nodes...)
	b.healed()
	b.settle()
}

// hintBudget is how much may be kept for one absent node in row 12.
const hintBudget = 4 << 20

// fullHints lets more be hinted than may be kept (row 12).
func fullHints(b *bed) {
	var flags []string
	limited := b.knows("hint-budget")
	if limited {
		flags = []string{"--hint-budget", strconv.Itoa(hintBudget)}
	}
	b.onLoopback(bedNodes, flags...)
	b.boot()
	holders := []*node{b.c.nodes[0], b.c.nodes[1], b.c.nodes[2], b.c.nodes[4]}
	before := b.memory(holders)
	b.begin((*client).addLarge)
	b.faulty()
	victim := b.c.nodes[3]
	victim.kill()
	b.pause(b.span(5*time.Second, 10*time.Minute))
	most := 0.0
	for _, p := range holders {
		n, err := b.c.metric(b.ctx, p, "replica_hint_bytes")
		b.must(err)
		most = max(most, n)
	}
	b.note("a node keeps %.0f bytes of hints at most; memory of four nodes grew from %d to %d MiB", most, before>>20, b.memory(holders)>>20)
	b.check(limited, "hints have no limit")
	// What an acknowledgement rests on is kept beyond the budget.
	b.check(!limited || most <= 1.1*hintBudget, "a node keeps %.0f bytes of hints, over its budget of %d", most, hintBudget)
	b.returns(victim)
	b.healed()
	b.settle()
}

// addLarge is a blind add of a value of 16 KiB.
func (cl *client) addLarge(ctx context.Context) {
	cl.pad = 16 << 10
	cl.add(ctx)
}

// memory is what the processes of nodes hold in memory, in bytes.
func (b *bed) memory(nodes []*node) (sum int64) {
	for _, p := range nodes {
		n, err := b.c.metric(b.ctx, p, "process_resident_memory_bytes")
		b.must(err)
		sum += int64(n)
	}
	return sum
}
