//go:build linux

package main

import (
	"math/rand/v2"
	"syscall"
	"time"
)

// killOneByOne ends random nodes, never two at once (row 2).
func killOneByOne(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.faulty()
	for until := time.Now().Add(b.span(5*time.Second, 10*time.Minute)); time.Now().Before(until); {
		victim := b.c.nodes[rand.IntN(bedNodes)]
		victim.kill()
		b.pause(b.span(time.Second, 3*time.Second))
		b.returns(victim)
		b.pause(b.span(500*time.Millisecond, 2*time.Second))
	}
	b.healed()
	failed := b.failedTwice(b.l.began, b.l.ended)
	b.check(failed == 0, "%d operations failed on two nodes in a row", failed)
	b.settle()
}

// killAll ends all nodes at once (row 3).
func killAll(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.faulty()
	for range b.times(2, 20) {
		for _, p := range b.c.nodes {
			p.signal(syscall.SIGKILL)
		}
		for _, p := range b.c.nodes {
			p.kill()
		}
		b.returns(b.c.nodes...)
		b.pause(b.span(time.Second, 3*time.Second))
	}
	b.healed()
	b.settle()
}
