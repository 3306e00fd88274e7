//go:build linux

package main

import (
	"syscall"
	"time"
)

// stopsWithin is the time that a node has to end when it is asked to.
const stopsWithin = 15 * time.Second

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
	failed := b.failedTwice(b.l.began, b.l.ended)
	b.check(failed == 0, "%d operations failed on two nodes in a row", failed)
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
