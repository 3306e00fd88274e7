//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// cutMidway cuts the network in two while a node joins: at first with one member on the
// joiner's side, which is too few, then through the middle (row 29b).
func cutMidway(b *bed) {
	b.onNamespaces(ringFewer + 1)
	b.ringOf(ringFewer, "--no-auto-join")
	few, joiner := b.c.nodes[:ringFewer], b.c.nodes[ringFewer]
	b.preload(few[0], b.times(ringKeys, 100_000))
	b.learnOwners(few[0])
	b.beginWith(b.old.load, slices.Concat(b.clients(2, few[0]), b.clients(2, few[1]), b.clients(ringClients-4, few[2:]...)))
	b.startStaged(few[2], joiner)
	b.faulty()
	began := time.Now()
	b.change(few[2], "ADD", joiner.plain)
	b.awaitMoving(few[2])
	for _, side := range [][]*node{{few[0], joiner}, {few[0], few[1], joiner}} {
		was := b.ringStatus(few[2])["state"]
		b.cut(side...)
		b.pause(b.span(4*time.Second, time.Minute))
		b.undecided(few[0], few[4])
		b.mend()
		b.note("cut with %d nodes on the joiner's side: the ring was %v", len(side), was)
		b.pause(b.span(mended, 10*time.Second)) // the second one finds the change going on
	}
	b.changed(began, b.c.nodes)
	b.learnOwners(few[0])
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// undecided checks that nodes on both sides of a cut have not ended a change without
// each other.
func (b *bed) undecided(nodes ...*node) {
	for _, p := range nodes {
		st := b.ringStatus(p)
		b.check(st["state"] != nil && st["state"] != "stable", "the ring is %v at node %d, while others are cut off that are part of the change", st["state"], p.index)
	}
}

// twoAdmins changes the ring on both sides of a cut, each in another way (row 29c).
func twoAdmins(b *bed) {
	b.onNamespaces(ringFewer + 1)
	b.ringOf(ringFewer, "--no-auto-join")
	few, joiner := b.c.nodes[:ringFewer], b.c.nodes[ringFewer]
	leaver, heavier := few[2], few[3]
	b.preload(few[0], b.times(ringKeys, 100_000))
	b.learnOwners(few[0])
	b.beginWith(b.old.load, slices.Concat(b.clients(ringClients/2, few[0], few[1]), b.clients(ringClients/2, few[3], few[4])))
	b.startStaged(few[4], joiner)
	b.faulty()
	b.cut(few[0], few[1], leaver)
	b.pause(detection)
	began := time.Now()
	b.change(few[0], "REMOVE", leaver.plain)
	b.change(few[4], "ADD", joiner.plain, "WEIGHT", heavier.plain, "150")
	b.pause(b.span(4*time.Second, time.Minute))
	b.undecided(few[0], few[4])
	b.mend()
	stay := []*node{few[0], few[1], few[3], few[4], joiner}
	b.changed(began, stay)
	b.learnOwners(few[0])
	for _, p := range stay {
		m := b.members(p)
		b.check(m[leaver.plain] == nil && m[joiner.plain] != nil && m[heavier.plain]["weight"] == "150",
			"node %d does not have both changes: %v", p.index, m)
	}
	b.leave(leaver)
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// members are the members of the ring by the word of a node, by their plain doors.
func (b *bed) members(p *node) map[string]map[string]any {
	all := map[string]map[string]any{}
	list, _ := b.ringStatus(p)["members"].([]any)
	for _, m := range list {
		fields := fieldsOf(m)
		all[fmt.Sprint(fields["address"])] = fields
	}
	return all
}

// replaceNode puts a new machine in the place of one that is well (row 29d).
func replaceNode(b *bed) {
	b.onLoopback(ringFewer + 1)
	b.ringOf(ringFewer, "--no-auto-join")
	few, newcomer := b.c.nodes[:ringFewer], b.c.nodes[ringFewer]
	stay, old := few[:4], few[4]
	b.preload(few[0], b.times(ringKeys, 400_000))
	before := b.members(few[0])
	b.beginWith(b.old.load, b.clients(ringClients, stay...))
	b.startStaged(few[1], newcomer)
	b.faulty()
	began := time.Now()
	held, err := b.c.metric(b.ctx, old, "replica_keys")
	b.must(err)
	b.change(few[1], "REPLACE", old.plain, newcomer.plain)
	b.changed(began, slices.Concat(stay, []*node{newcomer}))
	after := b.members(few[0])
	for _, p := range stay {
		b.check(after[p.plain]["partitions"] == before[p.plain]["partitions"], "node %d stays, and has %v partitions instead of %v", p.index,
			after[p.plain]["partitions"], before[p.plain]["partitions"])
	}
	for _, what := range []string{"partitions", "zone", "weight"} {
		b.check(after[newcomer.plain][what] == before[old.plain][what], "the newcomer has %s %v, who had its place %v", what,
			after[newcomer.plain][what], before[old.plain][what])
	}
	b.moved(held)
	b.leave(old)
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// forgetNode kills a node for good and has it forgotten. Then its old directory is
// started again, and at last the same machine with an empty one (row 29e).
func forgetNode(b *bed) {
	b.onLoopback(ringFewer)
	b.ringOf(ringFewer)
	stay, victim := b.c.nodes[:4], b.c.nodes[4]
	b.preload(stay[0], b.times(ringKeys, 400_000))
	b.beginWith(b.old.load, b.clients(ringClients, stay...))
	b.faulty()
	began := time.Now()
	b.forget(stay[1], victim)
	b.changed(began, stay)
	b.pause(b.span(time.Second, time.Minute))
	b.refusesToServe(victim)
	b.must(os.RemoveAll(victim.dir))
	began = time.Now()
	b.start(victim)
	b.changed(began, b.c.nodes)
	b.mustServe(victim)
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// forget kills a node and has another forget it, which is refused while it answers.
func (b *bed) forget(admin, victim *node) {
	cl := dialRedis(b.c, admin.plain)
	defer cl.Close()
	ask := func() error { return cl.Do(b.ctx, "RING", "FORGET", victim.plain).Err() }
	if err := ask(); err == nil || !redis.HasErrorPrefix(err, "UNSAFE") {
		b.fail("FORGET of a node that answers: %v", err)
	}
	victim.kill()
	if err := b.await(readyWithin, ask); err != nil {
		b.fail("FORGET of a dead node: %v", err)
	}
}

// refusesToServe starts a forgotten node on its old directory. It must end by itself
// and say why, and take no write before that.
func (b *bed) refusesToServe(p *node) {
	b.start(p)
	cl := b.clients(1, p)[0]
	defer cl.close()
	cl.words = []string{"W", "1"}
	tries, taken := 0, 0
	for until := time.Now().Add(stopsWithin); p.running() && time.Now().Before(until); {
		if tries++; cl.once(b.ctx, "late") == nil {
			taken++
		}
		b.pause(time.Millisecond)
	}
	b.note("%d writes were tried at the forgotten node", tries)
	b.check(taken == 0, "a forgotten node took %d of %d writes", taken, tries)
	if p.running() {
		b.fail("a forgotten node goes on")
		p.kill()
	}
	b.check(strings.Contains(p.lastLog(shownLines), "forgotten as dead"), "a forgotten node does not say why it ended: %s", p.lastLog(1))
}
