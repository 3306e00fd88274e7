//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
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

// keepsTombstones checks that the owners that are up have not forgotten what
// was deleted while another owner could not be told.
func (b *bed) keepsTombstones(keys []string) {
	kept := map[string][]copied{}
	for _, key := range keys {
		kept[key] = nil
	}
	b.inspectAll(kept) // equal ones are removed: they have three answers, so all their owners are up
	forgotten := 0
	for _, copies := range kept {
		for _, c := range copies {
			if c.state == noState {
				forgotten++
			}
		}
	}
	b.note("%d keys have an owner that is down", len(kept))
	// One that a fallback stood in for may rightly know nothing of a key.
	b.check(forgotten <= len(kept)/2, "%d copies of %d deleted keys are forgotten while an owner is down", forgotten, len(kept))
}

// wiped empties the data directory of a node (row 16).
func wiped(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).change)
	b.faulty()
	victim := b.c.nodes[3]
	before := b.incarnation(victim)
	victim.kill()
	b.must(os.RemoveAll(victim.dir))
	b.pause(b.span(time.Second, 10*time.Second))
	b.returns(victim)
	b.check(b.incarnation(victim) != before, "the actor is the one of before")
	b.pause(b.span(2*time.Second, 30*time.Second))
	b.healed()
	b.settle()
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
var warned = regexp.MustCompile(`(?i)level=(WARN|ERROR).*(unclean|amnesia|stale|restored|older|behind|corrupt|damaged|lost)`)

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
	holder.kill()
	b.must(os.RemoveAll(holder.dir))
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
	for _, p := range b.c.nodes {
		p.kill()
	}
	b.must(os.RemoveAll(b.c.nodes[3].dir))
	b.returns(b.c.nodes...)
	b.healed()
	b.settle()
}

// fullHints lets more be hinted than may be kept (row 12).
func fullHints(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	before := b.memory(b.c.nodes[:3])
	b.begin((*client).addLarge)
	b.faulty()
	victim := b.c.nodes[3]
	victim.kill()
	b.pause(b.span(5*time.Second, 10*time.Minute))
	hints := 0.0
	for _, p := range b.c.nodes[:3] {
		n, err := b.c.metric(b.ctx, p, "replica_hint_bytes")
		b.must(err)
		hints += n
	}
	limited := false
	for _, p := range b.c.nodes[:3] {
		text, err := b.c.get(b.ctx, p, "/metrics")
		b.must(err)
		limited = limited || strings.Contains(text, "hint_limit_bytes") || strings.Contains(text, "hints_dropped")
	}
	b.note("%.0f bytes of hints; memory of three nodes grew from %d to %d MiB", hints, before>>20, b.memory(b.c.nodes[:3])>>20)
	b.check(limited, "hints have no limit that a metric tells of")
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
