//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// answerWithin is the request timeout of a node and a busy machine's share.
const answerWithin = 1500 * time.Millisecond

// detection is how long a dead or cut node may still be asked by the others.
const detection = 2 * time.Second

// noOwner is in the refusal of a read on a side without an owner of the key.
const noOwner = "no owner of the key could be asked"

// split writes on both sides of a cut through the middle (row 5). All three owners of a
// tenth of the keys are on the side of 3 nodes: of what was not written on the other
// side, that side must say that it cannot tell.
func split(b *bed) {
	b.onNamespaces(bedNodes)
	b.boot()
	fewer, more := b.c.nodes[:2], b.c.nodes[2:]
	left, right := b.clients(bedClients/2, fewer...), b.clients(bedClients/2, more...)
	b.beginWith((*client).both, append(left, right...))
	b.faulty()
	b.must(b.ns.cut([]int{0, 1}, []int{2, 3, 4}))
	b.pause(b.span(6*time.Second, time.Minute))
	b.must(b.ns.heal())
	b.healed()
	for name, side := range map[string][]*client{"2 nodes": left, "3 nodes": right} {
		part := load{clients: side}
		samples := part.between(b.faultAt.Add(detection), b.healedAt)
		failed, blind := 0, 0
		for _, s := range samples {
			switch {
			case s.ok:
			case name == "2 nodes" && strings.Count(s.err, noOwner) == 2:
				blind++
			default:
				failed++
			}
		}
		b.check(blind <= len(samples)/10, "the side of %s: %d of %d operations lacked an owner", name, blind, len(samples))
		b.check(len(samples) > 100 && failed <= 3+len(samples)/1000, "the side of %s: %d of %d operations failed on two nodes after detection", name, failed, len(samples))
	}
	b.settle()
}

// isolate asks a node that nobody reaches (row 6).
func isolate(b *bed) {
	b.onNamespaces(bedNodes)
	b.boot()
	alone := b.c.nodes[4]
	b.beginWith((*client).add, b.clients(bedClients, b.c.nodes[:4]...))
	b.faulty()
	b.must(b.ns.cut([]int{4}, []int{0, 1, 2, 3}))
	two := b.clients(1, alone)[0]
	defer two.close()
	for range b.times(8, 60) {
		began, acks := time.Now(), b.h.acknowledged()
		err := two.once(b.ctx, "alone")
		took := time.Since(began)
		var said redis.Error
		switch {
		case err == nil:
			b.fail("an isolated node acknowledged a write to two nodes (%d acknowledged before)", acks)
		case !errors.As(err, &said):
			b.fail("an isolated node gave no answer: %v", err)
		case took > answerWithin:
			b.fail("an isolated node took %v to refuse: %v", took, err)
		}
	}
	one := b.clients(1, alone)[0]
	defer one.close()
	one.words = []string{"W", "1"}
	refused := 0
	for range b.times(50, 500) {
		if err := one.once(b.ctx, "single"); err != nil {
			refused++
			b.note("W 1 at the isolated node: %v", err)
		}
	}
	b.check(refused == 0, "an isolated node refused %d writes to one node", refused)
	hints, err := b.c.metric(b.ctx, alone, "replica_hint_rows")
	b.check(err == nil && hints > 0, "an isolated node keeps %v hints: %v", hints, err)
	b.must(b.ns.heal())
	b.healed()
	b.settle()
}

// once makes a single blind add under a key of its own, without a second try.
func (cl *client) once(ctx context.Context, kind string) error {
	value := cl.value()
	key := fmt.Sprintf("%s:%d", kind, cl.sent)
	o := cl.h.begin(cl, judge.VSet, key)
	o.Value, o.Token = name(value), judge.With("")
	words := []any{"VCTX.SET", key, value, ""}
	for _, w := range cl.words {
		words = append(words, w)
	}
	err := cl.do(ctx, words...).Err()
	cl.h.end(cl, o, err)
	return err
}

// tangle cuts links so that nodes disagree about who is there: one way, in a
// ring of majorities, and flapping (row 7).
func tangle(b *bed) {
	b.onNamespaces(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.faulty()
	calm := b.stateChanges()
	ends := 0 // ends of links that were cut and mended

	b.must(b.ns.cutOneWay([]int{0}, 1))
	ends += 2
	b.pause(b.span(3*time.Second, 30*time.Second))
	b.must(b.ns.heal())
	b.pause(b.span(2*time.Second, 10*time.Second))

	for i := range bedNodes {
		b.must(b.ns.cut([]int{i}, []int{(i + 2) % bedNodes}))
		ends += 2
	}
	b.pause(b.span(3*time.Second, 30*time.Second))
	b.must(b.ns.heal())
	b.pause(b.span(2*time.Second, 10*time.Second))

	for range b.times(3, 12) {
		b.must(b.ns.cut([]int{4}, []int{0, 1, 2, 3}))
		ends += 8
		b.pause(b.span(time.Second, 5*time.Second))
		b.must(b.ns.heal())
		b.pause(b.span(time.Second, 5*time.Second))
	}
	b.healed()
	for kind, n := range b.stateChanges() {
		n -= calm[kind]
		b.note("%d changes of %s for %d cut ends of links", n, kind, ends)
		b.check(kind != "membership" || n <= 2*ends, "%d changes of %s for %d cut ends of links", n, kind, ends)
	}
	b.settle()
}

// stateChanges counts what nodes logged of each other's coming and going.
func (b *bed) stateChanges() map[string]int {
	n := map[string]int{}
	for _, p := range b.c.nodes {
		text := p.logText()
		n["membership"] += strings.Count(text, `msg="a node is down"`) + strings.Count(text, `msg="a node is up"`)
		n["reachability"] += strings.Count(text, `msg="peer is suspected"`) + strings.Count(text, `msg="peer is back"`)
	}
	return n
}

// deadHost takes a node away without a word (row 8).
func deadHost(b *bed) {
	b.onNamespaces(bedNodes)
	b.boot()
	victim := b.c.nodes[4]
	b.beginWith((*client).change, b.clients(bedClients, b.c.nodes[:4]...))
	b.faulty()
	b.must(b.ns.iptables(4, "-A", "INPUT", "-j", "DROP")) // no reset tells that it is dead
	victim.kill()
	b.pause(b.span(8*time.Second, 2*time.Minute))
	b.must(b.ns.heal())
	b.healed()
	samples := b.l.between(b.faultAt.Add(detection), b.healedAt)
	first := 0
	for _, s := range samples {
		if s.first {
			first++
		}
	}
	missed := len(samples) - first
	b.check(missed <= 1+len(samples)/10_000, "%d of %d operations failed at first, after detection", missed, len(samples))
	b.returns(victim)
	b.healedAt = time.Now()
	b.settle()
	b.check(b.res.gap <= 2*time.Second, "some client got nothing done for %v", b.res.gap)
}

// grayNode stops a process that goes on being there (row 9).
func grayNode(b *bed) {
	b.onNamespaces(bedNodes)
	b.boot()
	b.beginWith((*client).change, b.clients(bedClients, b.c.nodes[:4]...))
	b.pause(b.span(2*time.Second, 20*time.Second)) // a longer base for the ratios
	b.faulty()
	b.c.nodes[4].signal(syscall.SIGSTOP)
	b.finally(func() { b.c.nodes[4].signal(syscall.SIGCONT) })
	b.pause(b.span(8*time.Second, time.Minute))
	b.c.nodes[4].signal(syscall.SIGCONT)
	b.healed()
	b.settle()
	b.judgeLatency(2, 5)
}

// judgeLatency compares the fault with what was before, and tells of what came after,
// which a change of the ring makes slower or faster for good. A short phase is mostly
// detection and the machine's own noise: it may be twice as bad, and its p99.9
// is only told.
func (b *bed) judgeLatency(p99, p999 float64) {
	healthy, faulty := b.l.between(b.l.began, b.faultAt), b.l.between(b.faultAt, b.healedAt)
	after := b.l.between(b.healedAt, b.l.ended)
	if b.short {
		p99, p999 = 2*p99, math.Inf(1)
	}
	for _, q := range []struct{ at, most float64 }{{0.99, p99}, {0.999, p999}} {
		got := ratio(healthy, faulty, q.at)
		b.note("p%v %v healthy, %v faulty, %v after, of %d, %d and %d operations", 100*q.at, quantile(healthy, q.at).Round(100*time.Microsecond),
			quantile(faulty, q.at).Round(100*time.Microsecond), quantile(after, q.at).Round(100*time.Microsecond), len(healthy), len(faulty), len(after))
		b.check(got <= q.most, "p%v grew %.1f times, more than %v", 100*q.at, got, q.most)
	}
}
