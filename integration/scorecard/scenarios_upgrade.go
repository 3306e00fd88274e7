//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of the row that upgrades.
const (
	knownWithin   = 30 * time.Second // gossip has told what program a node runs
	refusedWithin = 15 * time.Second // a program that is too old ends
)

// unreadable are what a node logs that meets something which it cannot read, and other
// things that have no place in an upgrade.
var unreadable = []string{"bad frame", "a node was refused", "corrupt", "malformed", "speaks versions", "level=ERROR"}

// rollingUpgrade runs programs of two releases beside each other, puts some back, and
// makes the upgrade final (row 31).
func rollingUpgrade(b *bed) {
	b.onLoopback(bedNodes)
	old := b.previousRelease()
	for _, p := range b.c.nodes {
		p.binary = old
	}
	b.boot()
	b.begin((*client).both)
	b.faulty()
	first := b.times(2, 3)
	early, late := b.c.nodes[:first], b.c.nodes[first:]
	b.program("", early...)
	b.refusesFinal(early[0], late[0])
	b.pause(b.span(500*time.Millisecond, 2*time.Minute))
	b.program(old, early[1:]...)
	b.refusesFinal(early[0], early[1])
	b.pause(b.span(500*time.Millisecond, 2*time.Minute))
	b.program("", slices.Concat(early[1:], late)...)
	b.pause(b.span(0, 30*time.Second))
	b.final(early[1])
	b.nothingUnreadable()
	b.pause(b.span(500*time.Millisecond, 30*time.Second))
	b.olderEnds(late[1], old)
	b.healed()
	b.noneFailedTwice()
	b.settle()
}

// previousRelease is the program that was given as it, or else one that is built to
// serve a level less.
func (b *bed) previousRelease() string {
	if b.previous != "" {
		return b.previous
	}
	path := filepath.Join(b.dir, "previous")
	build := exec.CommandContext(b.ctx, "go", "build", "-tags", "previous", "-o", path, "github.com/redynamo/redynamo/cmd/redynamo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.must(fmt.Errorf("build the previous release: %w\n%s", err, out))
	}
	return path
}

// program stops nodes in turn and starts each with another program.
func (b *bed) program(binary string, nodes ...*node) {
	for _, p := range nodes {
		b.stop(p)
		p.binary = binary
		b.returns(p)
		b.pause(b.span(0, 10*time.Second))
	}
}

// refusesFinal asks a node to make the upgrade final, which it must refuse because of
// another one.
func (b *bed) refusesFinal(p, because *node) {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	if err := b.await(knownWithin, func() error {
		err := cl.Do(b.ctx, "RING", "FINALISE").Err()
		if err == nil || !strings.HasPrefix(err.Error(), "MIXED") || !strings.Contains(err.Error(), because.plain) {
			return fmt.Errorf("FINALISE answers %v, and node %d is of the previous release", err, because.index)
		}
		return nil
	}); err != nil {
		b.fail("%v", err)
	}
}

// final makes the upgrade final, and waits until every node says so.
func (b *bed) final(p *node) {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	if err := b.await(knownWithin, func() error { return cl.Do(b.ctx, "RING", "FINALISE").Err() }); err != nil {
		b.fail("the upgrade cannot be made final: %v", err)
	}
	began := time.Now()
	if err := b.await(knownWithin, func() error {
		for _, q := range b.c.nodes {
			if st := b.ringStatus(q); st["level"] == nil || st["level"] != st["max-level"] {
				return fmt.Errorf("node %d is at level %v of %v", q.index, st["level"], st["max-level"])
			}
		}
		return nil
	}); err != nil {
		b.fail("not all know that the upgrade is final: %v", err)
	}
	b.note("all were at the new level %v after it was final at one", time.Since(began).Round(10*time.Millisecond))
}

// nothingUnreadable judges what nodes have logged and counted so far.
func (b *bed) nothingUnreadable() {
	for _, p := range b.c.nodes {
		for line := range strings.Lines(p.logText()) {
			if slices.ContainsFunc(unreadable, func(text string) bool { return strings.Contains(line, text) }) {
				b.fail("node %d logged: %s", p.index, strings.TrimSpace(line))
			}
		}
		for _, name := range []string{"rpc_bad_frames_total", "membership_foreign_total", "membership_unreadable_total"} {
			n, err := b.c.metric(b.ctx, p, name)
			b.must(err)
			b.check(n == 0, "node %d: %s is %.0f", p.index, name, n)
		}
	}
}

// olderEnds starts a node with the previous release once it is too old, and then with
// its own again.
func (b *bed) olderEnds(p *node, old string) {
	b.stop(p)
	p.binary = old
	b.start(p)
	select {
	case <-p.ended:
		b.note("the previous release on a directory of the new level: %s", p.lastLog(1))
		b.check(b.previous != "" || strings.Contains(p.logText(), "written by a newer release: level 2; this program serves up to 1"),
			"node %d ended without saying why: %s", p.index, p.lastLog(1))
	case <-time.After(refusedWithin):
		b.fail("node %d runs the previous release on a directory of the new level", p.index)
		p.kill()
	}
	p.binary = ""
	b.returns(p)
}
