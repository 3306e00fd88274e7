//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Sizes and bounds of the rows that change the ring.
const (
	ringNodes    = 8
	ringFewer    = 5
	ringBytes    = 300              // of a value that is there before
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

func (b *bed) noneFailedTwice() {
	failed := b.failedTwice(b.l.began, b.l.ended)
	b.check(failed == 0, "%d operations failed on two nodes in a row", failed)
}

// grow has three nodes join five (row 27).
func grow(b *bed) {
	b.ringOf(ringFewer)
	few, joiners := b.c.nodes[:ringFewer], b.c.nodes[ringFewer:]
	keys := b.preload(few[0])
	b.beginWith((*client).both, b.clients(bedClients, few...))
	b.faulty()
	began := time.Now()
	b.start(joiners...)
	b.changed(began, b.c.nodes)
	b.healed()
	b.noneFailedTwice()
	b.moved(keys, ringNodes-ringFewer)
	b.settle()
	b.judgeLatency(2, 5)
}

// shrink has three of eight nodes leave (row 28).
func shrink(b *bed) {
	b.ringOf(ringNodes)
	stay, leavers := b.c.nodes[:ringFewer], b.c.nodes[ringFewer:]
	keys := b.preload(stay[0])
	b.beginWith((*client).both, b.clients(bedClients, stay...))
	b.faulty()
	began := time.Now()
	words := []any{"RING", "PLAN", "REMOVE"}
	for _, p := range leavers {
		words = append(words, p.plain)
	}
	b.change(stay[1], words...)
	b.changed(began, stay)
	for _, p := range leavers {
		b.must(b.awaitText(emptyWithin, p, "warning_left:"))
		if err := b.await(emptyWithin, func() error { return b.holdsNothing(p) }); err != nil {
			b.fail("node %d: %v", p.index, err)
		}
	}
	b.moved(keys, ringNodes-ringFewer)
	for _, p := range leavers {
		b.stop(p)
	}
	b.healed()
	b.noneFailedTwice()
	b.settle()
	b.judgeLatency(2, 5)
}

// killMidway ends who comes, who gives and who goes in the middle of a change, and
// starts them again (row 29).
func killMidway(b *bed) {
	b.ringOf(ringFewer)
	few, joiner := b.c.nodes[:ringFewer], b.c.nodes[ringFewer]
	b.c.nodes = b.c.nodes[:ringFewer+1]
	b.preload(few[0])
	b.beginWith((*client).both, b.clients(bedClients, few[1:4]...))
	b.faulty()
	began := time.Now()
	b.start(joiner)
	b.killMoving(joiner, few[1])
	b.killMoving(few[0], few[1])
	b.changed(began, b.c.nodes)
	began = time.Now()
	b.change(few[1], "RING", "PLAN", "REMOVE", few[4].plain)
	b.killMoving(few[4], few[1])
	left := slices.Concat(few[:4], []*node{joiner})
	b.changed(began, left)
	b.must(b.awaitText(emptyWithin, few[4], "warning_left:"))
	b.stop(few[4])
	b.healed()
	b.settle()
}

// killMoving kills a node while partitions move, as another sees it, and starts it again.
func (b *bed) killMoving(victim, seen *node) {
	if err := b.await(changeStarts, func() error {
		if state := b.ringStatus(seen)["state"]; state != "moving" {
			return fmt.Errorf("the ring is %v", state)
		}
		return nil
	}); err != nil {
		b.note("node %d is killed although %v", victim.index, err)
	}
	victim.kill()
	b.pause(b.span(time.Second, 10*time.Second))
	b.start(victim)
}

// ringOf starts a cluster of so many of the nodes of a bed. The others wait for nobody.
func (b *bed) ringOf(members int) {
	b.onLoopback(ringNodes)
	for i, p := range b.c.nodes {
		at := slices.Index(p.flags, "--expect")
		p.flags[at+1] = fmt.Sprint(members)
		if i >= members {
			p.flags = slices.Delete(p.flags, at, at+2)
		}
	}
	b.start(b.c.nodes[:members]...)
	b.must(b.awaitReady(b.c.nodes[:members]...))
	b.must(b.await(ringWithin, func() error { return b.atRest(b.c.nodes[:members]) }))
}

// preload writes what is to move, and answers how many keys that is.
func (b *bed) preload(p *node) (keys int) {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	keys = b.times(20_000, 400_000)
	value := strings.Repeat("v", ringBytes)
	for from := 0; from < keys; from += surveyBatch {
		pipe := cl.Pipeline()
		for k := from; k < from+surveyBatch; k++ {
			pipe.Set(b.ctx, fmt.Sprint("old:", k), value, 0)
		}
		if _, err := pipe.Exec(b.ctx); err != nil {
			b.must(fmt.Errorf("write old keys: %w", err))
		}
	}
	return keys
}

// change plans a change and applies it.
func (b *bed) change(p *node, words ...any) {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	plan, err := fieldsOf(cl.Do(b.ctx, words...))
	b.must(err)
	b.must(cl.Do(b.ctx, "RING", "APPLY", plan["plan"]).Err())
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
	st, err := fieldsOf(cl.Do(b.ctx, "RING", "STATUS"))
	if err != nil {
		return nil
	}
	return st
}

// fieldsOf reads a reply of names and values.
func fieldsOf(cmd *redis.Cmd) (map[string]any, error) {
	list, err := cmd.Slice()
	fields := map[string]any{}
	for i := 0; i+1 < len(list); i += 2 {
		fields[fmt.Sprint(list[i])] = list[i+1]
	}
	return fields, err
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

// moved judges how many rows were moved, where so many of eight nodes have them in the
// one ring and not in the other.
func (b *bed) moved(keys, nodes int) {
	rows := 0.0
	for _, p := range b.c.nodes {
		n, err := b.c.metric(b.ctx, p, "handoff_transfer_rows_total")
		b.must(err)
		rows += n
	}
	least := float64(3*keys*nodes) / ringNodes
	b.note("%.0f rows moved, %.0f at least: %.2f times", rows, least, rows/least)
	b.check(rows <= movedAtMost*least, "%.2f times the rows were moved that had to", rows/least)
}
