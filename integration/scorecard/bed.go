//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scenario is one row of the scorecard.
type scenario struct {
	number   int
	letter   string // tells rows of one number apart
	workload string
	fault    string
	needs    []string // programs besides ip and iptables
	alone    bool     // it judges times: no other row runs beside it
	waits    bool     // for a minute or so, mostly: it begins before the others
	run      func(*bed)
}

// name is how the row is published.
func (s scenario) name() string { return strconv.Itoa(s.number) + s.letter }

// compare orders rows.
func (s scenario) compare(t scenario) int {
	return cmp.Or(cmp.Compare(s.number, t.number), cmp.Compare(s.letter, t.letter))
}

// bed is what a row works on: a cluster, clients and their history. Whatever a
// row makes is undone when it ends.
type bed struct {
	ctx      context.Context
	short    bool
	binary   string
	previous string   // the release that is upgraded from; "" to build one
	more     []string // flags of every node
	help     string   // what the program says of its flags
	dir      string   // everything of this row lies below it
	home     string   // and what rows share below this
	skewed   *skewed
	prefix   string // of what is made elsewhere
	slot     int    // tells rows that run at the same time apart

	c        *cluster
	ns       *namespaces // nil on loopback
	h        *history
	old      *oldKeys // nil if the row has none
	cuts     cuts
	l        *load
	res      *result
	faultAt  time.Time
	healedAt time.Time
	undo     []func()
}

// Times and sizes of a bed.
const (
	bedNodes     = 5
	bedClients   = 12
	thinkShort   = 8 * time.Millisecond // of a client between two operations
	thinkLong    = 40 * time.Millisecond
	readyWithin  = 30 * time.Second
	equalWithin  = 60 * time.Second
	stalledShort = 20 * time.Second // the short form gives a standstill up sooner
)

// span is a duration of the short form, or of the long one.
func (b *bed) span(short, long time.Duration) time.Duration {
	if b.short {
		return short
	}
	return long
}

// times is how often something is repeated.
func (b *bed) times(short, long int) int {
	if b.short {
		return short
	}
	return long
}

// must ends the row if the harness cannot do its work. Like testing.T.FailNow
// it may only be called by the goroutine of the row.
func (b *bed) must(err error) {
	if err != nil {
		b.res.broken = err
		runtime.Goexit()
	}
}

// fail notes that the product broke a promise of the row.
func (b *bed) fail(format string, args ...any) {
	b.res.faults = append(b.res.faults, fmt.Sprintf(format, args...))
}

// check is fail unless ok.
func (b *bed) check(ok bool, format string, args ...any) {
	if !ok {
		b.fail(format, args...)
	}
}

func (b *bed) note(format string, args ...any) {
	b.res.notes = append(b.res.notes, fmt.Sprintf(format, args...))
}

func (b *bed) finally(f func()) { b.undo = append(b.undo, f) }

// pause lets time pass, or ends the row when the run is interrupted.
func (b *bed) pause(d time.Duration) {
	pause(b.ctx, d)
	b.must(b.ctx.Err())
}

// await polls until cond holds and reports whether it did in time.
func (b *bed) await(within time.Duration, cond func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := cond()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		b.pause(20 * time.Millisecond)
	}
}

// runOn carries the row out and returns its result.
func (s scenario) runOn(b *bed) *result {
	b.res = &result{row: s}
	b.h = newHistory()
	begin := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, f := range slices.Backward(b.undo) {
				f()
			}
		}()
		s.run(b)
	}()
	<-done
	b.res.took = time.Since(begin)
	return b.res
}

// onLoopback prepares a cluster whose nodes share the machine's own network.
func (b *bed) onLoopback(nodes int, flags ...string) {
	ports, err := freePorts(5*nodes, 21000+2500*b.slot+37*os.Getpid()%2000) // two runs at once mostly miss each other
	b.must(err)
	b.prepare(loopback{ports}, nodes, flags)
}

// onNamespaces prepares a cluster whose nodes have a host each.
func (b *bed) onNamespaces(nodes int, flags ...string) {
	ns, err := newNamespaces(b.prefix, nodes)
	b.finally(ns.close)
	b.must(err)
	b.ns = ns
	b.prepare(ns, nodes, flags)
}

func (b *bed) prepare(nw network, nodes int, flags []string) {
	if b.short && b.knows("exchange-interval") {
		flags = append(flags, "--exchange-interval", "2s")
	}
	b.c = newCluster(b.binary, b.dir, nw, nodes, slices.Concat(flags, b.more)...)
	b.finally(b.c.close)
}

// knows reports whether the program has a flag.
func (b *bed) knows(flag string) bool { return strings.Contains(b.help, "--"+flag+"=") }

// boot starts all nodes and waits until they serve.
func (b *bed) boot() {
	b.start(b.c.nodes...)
	b.must(b.awaitReady(b.c.nodes...))
	b.must(b.await(readyWithin, func() error { return b.atRest(b.c.nodes) }))
}

// start sets nodes going.
func (b *bed) start(nodes ...*node) {
	for _, p := range nodes {
		b.must(b.c.start(p))
	}
}

// awaitReady waits until nodes serve. One that has ended will not.
func (b *bed) awaitReady(nodes ...*node) (ended error) {
	err := b.await(readyWithin, func() error {
		var errs []error
		for _, p := range nodes {
			if !p.running() {
				ended = fmt.Errorf("node %d has ended: %s", p.index, p.lastLog(1))
				return nil
			}
			if err := b.c.ready(b.ctx, p); err != nil {
				errs = append(errs, fmt.Errorf("node %d: %w", p.index, err))
			}
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, ended)
}

// returns starts nodes that were down; it is the product's fault if they do not
// serve again.
func (b *bed) returns(nodes ...*node) {
	b.start(nodes...)
	b.mustServe(nodes...)
}

func (b *bed) mustServe(nodes ...*node) {
	if err := b.awaitReady(nodes...); err != nil {
		b.fail("not ready after the fault: %v", err)
	}
}

// clients makes clients that use the given nodes, or all.
func (b *bed) clients(n int, nodes ...*node) (all []*client) {
	if len(nodes) == 0 {
		nodes = b.c.nodes
	}
	for range n {
		all = append(all, newClient(b.c, b.h, b.nextClient(), nodes))
	}
	return all
}

func (b *bed) nextClient() int {
	b.h.mu.Lock()
	defer b.h.mu.Unlock()
	b.h.mu.clients++
	return b.h.mu.clients
}

// begin sets the usual clients going and lets them run undisturbed for a while.
func (b *bed) begin(w workload) {
	b.beginWith(w, b.clients(bedClients))
}

func (b *bed) beginWith(w workload, clients []*client) {
	b.l = startLoad(clients, w, b.span(thinkShort, thinkLong))
	b.finally(func() {
		if b.l.ended.IsZero() {
			b.l.stop()
		}
	})
	b.pause(b.span(2*time.Second, 20*time.Second))
}

// faulty marks the moment from which the fault lasts.
func (b *bed) faulty() { b.faultAt = time.Now() }

// healed marks the moment from which all is well again. The load goes on a
// little and ends.
func (b *bed) healed() {
	b.healedAt = time.Now()
	if b.l != nil && b.l.ended.IsZero() {
		b.pause(b.span(500*time.Millisecond, 20*time.Second))
		b.l.stop()
	}
}

// measure takes the figures that clients saw while the fault lasted.
func (b *bed) measure() {
	healthy, faulty := b.l.between(b.l.began, b.faultAt), b.l.between(b.faultAt, b.healedAt)
	b.res.gap = b.l.longestGap(b.faultAt, b.healedAt)
	if len(healthy) >= 100 && len(faulty) >= 100 {
		b.res.p99Ratio = ratio(healthy, faulty, 0.99)
	}
	failed, second := 0, 0
	errs := map[string]int{}
	for _, s := range b.l.between(b.l.began, b.l.ended) {
		if !s.ok {
			failed++
			errs[s.err]++
		} else if !s.first {
			second++
		}
	}
	b.note("%d operations, p99 %v healthy and %v faulty, %d succeeded at the second try, %d failed twice %v",
		len(b.l.between(b.l.began, b.l.ended)), quantile(healthy, 0.99).Round(time.Millisecond), quantile(faulty, 0.99).Round(time.Millisecond),
		second, failed, firstFew(errs))
}

func firstFew(errs map[string]int) (list []string) {
	for text, n := range errs {
		list = append(list, fmt.Sprintf("%dx %q", n, text))
	}
	slices.Sort(list)
	return list[:min(3, len(list))]
}

// failedTwice counts the operations in a span that failed on two nodes.
func (b *bed) failedTwice(from, to time.Time) (n int) {
	for _, s := range b.l.between(from, to) {
		if !s.ok {
			n++
		}
	}
	return n
}

// noneFailedTwice judges that no operation failed on two nodes, but for what cuts excuse.
func (b *bed) noneFailedTwice() {
	var failed []string
	excused := 0
	for _, cl := range b.l.clients {
		for _, s := range cl.samples() {
			switch {
			case s.ok:
			case b.cuts.excuses(cl.nodes[0], s):
				excused++
			default:
				failed = append(failed, fmt.Sprintf("%s, %v after the fault began: %s", s.key, s.at.Sub(b.faultAt).Round(time.Millisecond), s.err))
			}
		}
	}
	b.check(len(failed) == 0, "%d operations failed on two nodes in a row: %s", len(failed), strings.Join(failed[:min(3, len(failed))], "; "))
	if len(b.cuts.made) > 0 {
		b.note("%d operations failed on two nodes right after a cut, or for want of nodes on the client's side", excused)
	}
}

// ratio compares a quantile of two phases of one run.
func ratio(healthy, faulty []sample, q float64) float64 {
	base := quantile(healthy, q)
	if base == 0 {
		return 0
	}
	return float64(quantile(faulty, q)) / float64(base)
}
