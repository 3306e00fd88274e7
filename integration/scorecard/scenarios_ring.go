//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Sizes and bounds of the rows that change the ring.
const (
	ringNodes    = 8
	ringFewer    = 5
	ringBytes    = 300              // of a value that is there before
	ringKeys     = 6000             // that are there before, in the short form of rows that judge no times
	ringClients  = 6                // of those rows: they wait for long, and every key that is written is looked at
	ringWithin   = 5 * time.Minute  // a change is over, data and all
	movedAtMost  = 1.1              // rows moved, to those that had to
	stopsWithin  = 15 * time.Second // a node ends when it is asked to
	emptyWithin  = time.Minute      // what moved away is dropped
	changeStarts = 30 * time.Second
)

// rollingRestart stops all nodes in turn, in order, and starts them again (row 30).
func rollingRestart(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).both)
	b.faulty()
	for range b.times(2, 10) {
		for _, p := range b.c.nodes {
			b.stop(p)
			b.returns(p)
		}
	}
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// stop asks a node to end, and waits until it has.
func (b *bed) stop(p *node) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopsWithin):
		b.fail("node %d did not end within %v of SIGTERM", p.index, stopsWithin)
		p.kill()
	}
}

// grow has three nodes join five (row 27).
func grow(b *bed) {
	b.onLoopback(ringNodes)
	b.ringOf(ringFewer)
	few, joiners := b.c.nodes[:ringFewer], b.c.nodes[ringFewer:]
	b.preload(few[0], b.times(20_000, 400_000))
	b.beginWith(b.old.load, b.clients(bedClients, few...))
	b.faulty()
	began := time.Now()
	b.start(joiners...)
	b.changed(began, b.c.nodes)
	b.healed()
	b.noneFailedTwice()
	b.moved(b.shareOf(ringNodes - ringFewer))
	b.settle()
	b.judgeLatency(2, 5)
}

// shrink has three of eight nodes leave (row 28).
func shrink(b *bed) {
	b.onLoopback(ringNodes)
	b.ringOf(ringNodes)
	stay, leavers := b.c.nodes[:ringFewer], b.c.nodes[ringFewer:]
	b.preload(stay[0], b.times(20_000, 400_000))
	b.beginWith(b.old.load, b.clients(bedClients, stay...))
	b.faulty()
	began := time.Now()
	words := []any{"REMOVE"}
	for _, p := range leavers {
		words = append(words, p.plain)
	}
	b.change(stay[1], words...)
	b.changed(began, stay)
	b.moved(b.shareOf(ringNodes - ringFewer))
	b.leave(leavers...)
	b.healed()
	b.noneFailedTwice()
	b.settle()
	b.judgeLatency(2, 5)
}

// killMidway ends who comes, who gives and who goes in the middle of a change, and
// starts them again (row 29a). In the short form it is one change: each waits for the
// messages that were lost to who was killed.
func killMidway(b *bed) {
	b.onLoopback(ringFewer + 1)
	b.ringOf(ringFewer, "--no-auto-join")
	few, joiner := b.c.nodes[:ringFewer], b.c.nodes[ringFewer]
	donor, admin, leaver := few[0], few[1], few[4]
	b.preload(few[0], b.times(ringKeys, 400_000))
	b.beginWith(b.old.load, b.clients(ringClients, few[1:4]...))
	b.startStaged(admin, joiner)
	b.faulty()
	began := time.Now()
	if b.short {
		b.change(admin, "ADD", joiner.plain, "REMOVE", leaver.plain)
		b.killMoving(admin, joiner, donor, leaver)
	} else {
		b.change(admin, "ADD", joiner.plain)
		b.killMoving(admin, joiner, donor)
		b.changed(began, b.c.nodes)
		began = time.Now()
		b.change(admin, "REMOVE", leaver.plain)
		b.killMoving(admin, leaver)
	}
	b.changed(began, slices.Concat(few[:4], []*node{joiner}))
	b.leave(leaver)
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// killMoving kills nodes in turn while partitions move, as another node sees it, and
// starts each again.
func (b *bed) killMoving(seen *node, victims ...*node) {
	for _, p := range victims {
		b.awaitMoving(seen)
		p.kill()
		b.pause(b.span(time.Second, 10*time.Second))
		b.start(p)
	}
}

// awaitMoving waits until partitions move, as a node sees it.
func (b *bed) awaitMoving(seen *node) {
	if err := b.await(changeStarts, func() error {
		if state := b.ringStatus(seen)["state"]; state != "moving" {
			return fmt.Errorf("the ring is %v", state)
		}
		return nil
	}); err != nil {
		b.fail("the fault was none: %v at node %d when partitions should have moved", err, seen.index)
	}
}

// ringOf starts a cluster of so many of the nodes of a bed. The others wait for nobody,
// and have flags of their own.
func (b *bed) ringOf(members int, flags ...string) {
	for i, p := range b.c.nodes {
		at := slices.Index(p.flags, "--expect")
		p.flags[at+1] = fmt.Sprint(members)
		if i >= members {
			p.flags = append(slices.Delete(p.flags, at, at+2), flags...)
		}
	}
	b.cuts.members = b.c.nodes[:members]
	b.start(b.c.nodes[:members]...)
	b.must(b.awaitReady(b.c.nodes[:members]...))
	b.must(b.await(ringWithin, func() error { return b.atRest(b.c.nodes[:members]) }))
}

// startStaged starts a node that does not add itself, and waits until another knows it.
func (b *bed) startStaged(seen, p *node) {
	b.start(p)
	b.must(b.await(readyWithin, func() error {
		if staged := fmt.Sprint(b.ringStatus(seen)["staged"]); !strings.Contains(staged, p.plain+" ") {
			return fmt.Errorf("node %d does not know node %d: %s", seen.index, p.index, staged)
		}
		return nil
	}))
}

// leave waits until nodes that were removed say so and hold nothing, and stops them.
func (b *bed) leave(leavers ...*node) {
	for _, p := range leavers {
		if err := b.awaitText(emptyWithin, p, "warning_left:"); err != nil {
			b.fail("node %d was removed: %v", p.index, err)
		}
		if err := b.await(emptyWithin, func() error { return b.holdsNothing(p) }); err != nil {
			b.fail("node %d was removed: %v", p.index, err)
		}
	}
	for _, p := range leavers {
		b.stop(p)
	}
}

// change plans a change and applies it.
func (b *bed) change(p *node, words ...any) {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	plan, err := cl.Do(b.ctx, append([]any{"RING", "PLAN"}, words...)...).Result()
	b.must(err)
	b.must(cl.Do(b.ctx, "RING", "APPLY", fieldsOf(plan)["plan"]).Err())
}

// changed waits until the ring is at rest at all nodes, and notes how long that took.
func (b *bed) changed(began time.Time, nodes []*node) {
	if err := b.await(ringWithin, func() error { return b.atRest(nodes) }); err != nil {
		b.fail("the change is not over after %v: %v", time.Since(began).Round(time.Second), err)
		return
	}
	b.note("the ring of %d was at rest after %v", len(nodes), time.Since(began).Round(100*time.Millisecond))
}

// atRest reports whether all nodes have one ring, of themselves, and none beside it.
func (b *bed) atRest(nodes []*node) error {
	epochs := map[any]bool{}
	for _, p := range nodes {
		st := b.ringStatus(p)
		members, _ := st["members"].([]any)
		if st["state"] != "stable" || len(members) != len(nodes) {
			return fmt.Errorf("node %d: %d members, %v", p.index, len(members), st["state"])
		}
		epochs[st["epoch"]] = true
	}
	if len(epochs) != 1 {
		return fmt.Errorf("%d rings", len(epochs))
	}
	return nil
}

// ringStatus is what a node says of the ring; empty if it says nothing.
func (b *bed) ringStatus(p *node) map[string]any {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	return fieldsOf(cl.Do(b.ctx, "RING", "STATUS").Val())
}

// fieldsOf reads a reply of names and values.
func fieldsOf(reply any) map[string]any {
	fields := map[string]any{}
	list, _ := reply.([]any)
	for i := 0; i+1 < len(list); i += 2 {
		fields[fmt.Sprint(list[i])] = list[i+1]
	}
	return fields
}

// awaitText waits until INFO of a node has some text.
func (b *bed) awaitText(within time.Duration, p *node, text string) error {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	return b.await(within, func() error {
		info, err := cl.Info(b.ctx, "redynamo").Result()
		if err == nil && !strings.Contains(info, text) {
			err = fmt.Errorf("INFO of node %d does not say %s", p.index, text)
		}
		return err
	})
}

// holdsNothing reports whether a node has dropped all that moved away.
func (b *bed) holdsNothing(p *node) error {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	keys, err := b.c.metric(ctx, p, "replica_keys")
	if err != nil {
		return err
	}
	dropped, err := b.c.metric(ctx, p, "replica_dropped_rows_total")
	if err == nil && (keys > 0 || dropped == 0) {
		err = fmt.Errorf("it holds %.0f keys, and has dropped %.0f", keys, dropped)
	}
	return err
}

// shareOf is how many rows of old keys so many of eight nodes hold.
func (b *bed) shareOf(nodes int) float64 { return float64(b.owners()*b.old.all*nodes) / ringNodes }

// moved judges how many rows were moved, where so many had to.
func (b *bed) moved(least float64) {
	rows := 0.0
	for _, p := range b.c.nodes {
		n, err := b.c.metric(b.ctx, p, "handoff_transfer_rows_total")
		b.must(err)
		rows += n
	}
	b.note("%.0f rows moved, %.0f at least: %.2f times", rows, least, rows/least)
	b.check(rows <= movedAtMost*least, "%.2f times the rows were moved that had to", rows/least)
}

// noStrays judges that each key lies at its owners alone, once what moved away is
// dropped. final is what reads show.
func (b *bed) noStrays(final map[string][]shown) {
	live := b.old.all - len(b.old.keys)
	for _, versions := range final {
		live += min(1, len(versions))
	}
	want := float64(b.owners() * live)
	if err := b.await(emptyWithin, func() error {
		sum := 0.0
		for _, p := range b.c.nodes {
			if !p.running() {
				continue
			}
			n, err := b.c.metric(b.ctx, p, "replica_keys")
			if err != nil {
				return err
			}
			sum += n
		}
		if sum != want {
			return fmt.Errorf("the nodes hold %.0f copies of %d keys, not %.0f", sum, live, want)
		}
		return nil
	}); err != nil {
		b.fail("%v", err)
	}
}
