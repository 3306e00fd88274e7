//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// Sizes of disks. Nodes refuse writes when less than their reserve is free.
const (
	roomyMiB = 512
	tightMiB = 64 // less than the reserve
)

// fullDisk takes the space from one node and then from all (row 22).
func fullDisk(b *bed) {
	b.onLoopback(bedNodes)
	for _, p := range b.c.nodes {
		b.must(mountTmpfs(p.dir, roomyMiB))
	}
	b.boot()
	b.begin((*client).add)
	b.faulty()
	victim := b.c.nodes[4]
	b.must(leaveFree(victim.dir, tightMiB))
	b.pause(b.span(4*time.Second, 30*time.Second))
	failed := b.stopAndCount(b.faultAt)
	b.check(failed == 0, "one full disk: %d operations failed on two nodes", failed)

	for _, p := range b.c.nodes {
		b.must(leaveFree(p.dir, tightMiB))
	}
	b.pause(b.span(3*time.Second, 10*time.Second)) // free space is looked at every second
	b.refusesAndReads("below the reserve")
	for _, p := range b.c.nodes {
		b.must(fill(filepath.Join(p.dir, "ballast")))
	}
	b.pause(b.span(2*time.Second, 30*time.Second))
	b.refusesAndReads("with no byte left")

	for _, p := range b.c.nodes {
		b.must(os.Remove(filepath.Join(p.dir, "ballast")))
		b.must(leaveFree(p.dir, roomyMiB))
	}
	b.healed()
	const recoversWithin = 10 * time.Second
	cl := b.clients(1)[0]
	defer cl.close()
	for i := range b.c.nodes {
		err := b.await(recoversWithin, func() error {
			cl.at = i
			return cl.once(b.ctx, "space")
		})
		b.check(err == nil, "node %d does not write %v after the space is back: %v", i, recoversWithin, err)
	}
	b.settle()
}

// stopAndCount ends the load and counts the operations since then that failed
// twice.
func (b *bed) stopAndCount(since time.Time) int {
	b.l.stop()
	return b.failedTwice(since, b.l.ended)
}

// refusesAndReads checks that every node refuses writes in words and in time,
// and goes on reading.
func (b *bed) refusesAndReads(when string) {
	keys := b.h.keys()
	cl := b.clients(1)[0]
	defer cl.close()
	for i := range b.c.nodes {
		cl.at = i
		began := time.Now()
		err := cl.once(b.ctx, "full")
		took := time.Since(began)
		var said redis.Error
		b.check(errors.As(err, &said) && fateOf(err) == judge.Fail, "%s: node %d answers a write with %v", when, i, err)
		b.check(took <= answerWithin, "%s: node %d takes %v to answer a write", when, i, took)
		cl.at = i
		err = cl.do(b.ctx, "VCTX.GET", keys[rand.IntN(len(keys))]).Err()
		b.check(err == nil, "%s: node %d cannot read: %v", when, i, err)
	}
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// failedSync has the disk of one node refuse a sync (row 23).
func failedSync(b *bed) {
	b.onLoopback(bedNodes)
	victim := b.c.nodes[3]
	trace := filepath.Join(b.dir, "trace")
	victim.wrap = []string{"strace", "-f", "-D", "--seccomp-bpf", "-qq", "-ttt", "-o", trace,
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=" + strconv.Itoa(b.times(150, 1500))}
	b.boot()
	b.begin((*client).add)
	b.faulty()
	const endsWithin = 5 * time.Second
	select {
	case <-victim.ended:
	case <-time.After(b.span(20*time.Second, 5*time.Minute)):
		b.fail("the node runs on %v", time.Since(b.faultAt))
	}
	failedAt, err := injectedAt(trace)
	b.must(err)
	if !victim.running() {
		after := victim.endedAt.Sub(failedAt)
		b.note("the node ended %v after the sync that failed", after.Round(time.Millisecond))
		b.check(after <= endsWithin, "the node ended %v after the sync that failed", after)
	}
	b.pause(time.Second)
	victim.kill()
	victim.wrap = nil
	b.returns(victim)
	b.healed()
	failed := b.failedTwice(b.l.began, b.l.ended)
	b.check(failed == 0, "%d operations failed on two nodes in a row", failed)
	b.settle()
}

// injectedAt is when strace first made a call fail.
func injectedAt(trace string) (time.Time, error) {
	f, err := os.Open(trace)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // process, time, call
		if strings.Contains(lines.Text(), "(INJECTED)") && len(fields) > 1 {
			seconds, err := strconv.ParseFloat(fields[1], 64)
			return time.UnixMicro(int64(seconds * 1e6)), err
		}
	}
	return time.Time{}, fmt.Errorf("no call failed in %s: %w", trace, lines.Err())
}

// frozenDisk stops all writing of one node's disk for a while (row 24).
func frozenDisk(b *bed) {
	b.onLoopback(bedNodes)
	victim := b.c.nodes[3]
	b.must(mountExt4(victim.dir, roomyMiB))
	b.finally(func() { _ = freeze(victim.dir, false) }) // it is not frozen as a rule
	b.boot()
	b.begin((*client).both)
	b.faulty()
	type stall struct{ lasts, p999, gap time.Duration }
	stalls := []stall{{lasts: 2 * time.Second, p999: 3 * time.Second}, {lasts: b.span(6*time.Second, 15*time.Second), gap: 3 * time.Second}}
	if !b.short {
		stalls = append(stalls, stall{lasts: time.Minute, gap: 3 * time.Second})
	}
	for _, s := range stalls {
		from := time.Now()
		b.must(freeze(victim.dir, true))
		b.pause(s.lasts)
		fenced := b.c.ready(b.ctx, victim)
		b.must(freeze(victim.dir, false))
		thawed := time.Now()
		b.backWithin(10*time.Second, victim)
		samples := b.l.between(from, thawed)
		if s.p999 > 0 {
			got := quantile(samples, 0.999)
			b.check(got <= s.p999, "frozen for %v: p99.9 is %v", s.lasts, got)
		}
		if s.gap > 0 {
			slowest := quantile(samples, 1)
			b.check(slowest <= s.gap, "frozen for %v: the slowest operation took %v", s.lasts, slowest)
		}
		if s.lasts >= time.Minute {
			b.check(fenced != nil, "frozen for %v: the node still says that it is ready", s.lasts)
		}
	}
	b.healed()
	b.settle()
}

// backWithin waits until p stores again. A node that fenced itself ends once its
// disk answers, and is started as a supervisor does.
func (b *bed) backWithin(within time.Duration, p *node) {
	cl := b.clients(1, p)[0]
	defer cl.close()
	cl.words = []string{"W", "3"}
	err := b.await(within, func() error {
		if !p.running() {
			b.note("the node ended: %.200s", p.lastLog(1))
			b.start(p)
			b.mustServe(p)
		}
		for range 10 { // of which some are its own keys
			if err := cl.once(b.ctx, "thawed"); err != nil {
				return err
			}
		}
		return nil
	})
	b.check(err == nil, "node %d does not take part in writes %v after its disk is back: %v", p.index, within, err)
}

// losePower cuts the power of some nodes at once (row 4).
func losePower(b *bed) {
	b.onLoopback(bedNodes)
	for _, p := range b.c.nodes {
		b.must(mountExt4(p.dir, roomyMiB))
	}
	b.boot()
	b.begin((*client).add)
	b.faulty()
	for round := range b.times(2, 20) {
		b.pause(b.span(time.Second, 5*time.Second))
		victims := b.c.nodes[:1+rand.IntN(bedNodes)]
		if round == 0 {
			victims = b.c.nodes
		}
		for _, p := range victims {
			b.must(cutPower(p.dir))
		}
		for _, p := range victims {
			p.kill()
			b.must(command("umount", p.dir))
			b.must(mountExt4(p.dir, roomyMiB))
		}
		b.returns(victims...)
	}
	b.healed()
	b.settle()
	b.losePowerRelaxed()
}

// losePowerRelaxed cuts the power of all nodes of a cluster that acknowledges
// before it syncs. What that may lose is what it says: the last interval.
func (b *bed) losePowerRelaxed() {
	b.c.close()
	b.h = newHistory()
	b.dir = filepath.Join(b.dir, "relaxed")
	b.must(os.Mkdir(b.dir, 0o700))
	const interval, slack = time.Second, time.Second // an interval that begins late and a sync that takes long
	b.onLoopback(bedNodes, "--fsync", "interval", "--fsync-interval", interval.String())
	for _, p := range b.c.nodes {
		b.must(mountExt4(p.dir, roomyMiB))
	}
	b.boot()
	b.begin((*client).add)
	b.pause(2 * time.Second)
	cut := time.Now()
	for _, p := range b.c.nodes {
		b.must(cutPower(p.dir))
	}
	b.l.stop()
	for _, p := range b.c.nodes {
		p.kill()
		b.must(command("umount", p.dir))
		b.must(mountExt4(p.dir, roomyMiB))
	}
	b.returns(b.c.nodes...)
	final := b.readAll(b.h.keys())
	gone := b.judge(final, nil, judge.Binding{})
	b.note("with --fsync interval: %d of %d acknowledged writes lost, %d replaced ones back", len(gone[judge.Lost]), b.h.acknowledged(), len(gone[judge.Resurrected]))
	early := b.judge(final, nil, judge.Binding{UpTo: b.h.instant(cut.Add(-interval - slack))})
	lost, back := len(early[judge.Lost]), len(early[judge.Resurrected])
	b.check(lost+back == 0, "with --fsync interval: %d writes are lost and %d replaced ones back from before the last interval", lost, back)
}

// rottenLog damages the log of a node that is down (row 19).
func rottenLog(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.l.stop()
	b.faulty()
	victim := b.c.nodes[3]
	b.pause(time.Second) // for what is still under way
	victim.kill()
	good := filepath.Join(b.dir, "good")
	b.must(copyDir(victim.dir, good))
	for _, damage := range []struct {
		name string
		do   func(path string, size int64) error
	}{
		{"a bit flipped", func(path string, size int64) error { return flipBit(path, size/2) }},
		{"a page zeroed", func(path string, size int64) error { return zeroPage(path, size/2&^4095) }},
		{"cut in half", func(path string, size int64) error { return os.Truncate(path, size/2) }},
	} {
		b.must(copyDir(good, victim.dir))
		path, size, err := newestFile(victim.dir, ".log")
		b.must(err)
		b.must(damage.do(path, size))
		logged := len(victim.logText())
		b.start(victim)
		if err := b.awaitReady(victim); err != nil {
			b.note("log with %s: %.200v", damage.name, err)
		} else {
			missing := b.missingAt(victim)
			flagged := warned.MatchString(victim.logText()[logged:])
			b.note("log with %s: opened, %d keys missing, flagged: %v", damage.name, missing, flagged)
			b.check(missing == 0 || flagged, "log with %s: %d keys are missing without a word", damage.name, missing)
		}
		victim.kill()
	}
	b.must(copyDir(good, victim.dir))
	b.returns(victim)
	b.healed()
	b.settle()
}

// missingAt counts the keys that some owner knows and p, an owner too, does not.
func (b *bed) missingAt(p *node) int {
	id := nodeID(b, p)
	unequal := map[string][]copied{}
	for _, key := range b.h.keys() {
		unequal[key] = nil
	}
	b.inspectAll(unequal)
	missing := 0
	for _, copies := range unequal {
		for _, c := range copies {
			if c.Node == id && c.State == noState {
				missing++
			}
		}
	}
	return missing
}

func nodeID(b *bed, p *node) string {
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	for line := range strings.Lines(cl.Info(b.ctx, "redynamo").Val()) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "node_id:"); ok {
			return id
		}
	}
	return ""
}

// rottenTables flips bits in the tables of a node (row 20).
func rottenTables(b *bed) {
	b.onLoopback(bedNodes)
	b.boot()
	b.begin((*client).add)
	b.l.stop()
	b.faulty()
	victim := b.c.nodes[3]
	// The first start writes the log out to tables and applies its rows, the
	// second one writes those out.
	for range 2 {
		victim.kill()
		b.returns(victim)
	}
	victim.kill()
	// Rows of keys come first in a table. What stands behind them is needed to
	// open it at all: a node that lacks that refuses to start, as in row 19.
	const rows = 0.5
	for range b.times(10, 100) {
		path, size, err := newestFile(victim.dir, ".sst")
		b.must(err)
		b.must(flipBit(path, rand.Int64N(int64(rows*float64(size)))))
	}
	b.returns(victim)
	b.readsAll(victim)
	found, err := b.c.metric(b.ctx, victim, "storage_corruptions_total")
	b.check(err == nil && found > 0, "no metric tells of the damage: %v, %v", found, err)
	b.healed()
	b.settle()
}

// readsAll reads every key through p: what is on other nodes must be shown.
func (b *bed) readsAll(p *node) {
	if !p.running() {
		return // told already
	}
	cl := b.clients(1, p)[0]
	defer cl.close()
	errs, absent := 0, 0
	for _, key := range b.h.keys() {
		o := b.h.begin(cl, judge.VGet, key)
		reply, err := cl.do(b.ctx, "VCTX.GET", key, "META").Slice()
		if err == nil {
			o.Values = showMeta(reply[1])
		}
		b.h.end(cl, o, err)
		if err != nil {
			errs++
			continue
		}
		if len(o.Values) == 0 {
			absent++
		}
	}
	b.check(errs == 0, "%d keys could not be read through the node", errs)
	b.check(absent == 0, "%d keys were not found through the node", absent)
}

// readErrors has the disk of a node fail reads (row 18).
func readErrors(b *bed) {
	b.onLoopback(bedNodes, "--record-cache", "1MiB", "--block-cache", "1MiB")
	b.boot()
	b.begin((*client).addOrReread)
	victim := b.c.nodes[3]
	victim.kill()
	b.returns(victim) // with nothing in memory
	b.faulty()
	trace := filepath.Join(b.dir, "trace")
	ctx, cancel := context.WithCancel(b.ctx)
	tracer := exec.CommandContext(ctx, "strace", "-f", "-qq", "-p", strconv.Itoa(victim.cmd.Process.Pid), "-o", trace,
		"-e", "trace=pread64", "-e", "inject=pread64:error=EIO")
	tracer.Cancel = func() error { return tracer.Process.Signal(syscall.SIGINT) } // it lets go of the node
	tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	b.must(tracer.Start())
	b.pause(b.span(4*time.Second, time.Minute))
	cancel()
	_ = tracer.Wait() // it was interrupted
	text, err := os.ReadFile(trace)
	b.must(err)
	failed := strings.Count(string(text), "(INJECTED)")
	b.note("%d reads of the disk failed", failed)
	b.check(failed > 0, "no read of the disk failed: the fault was none")
	if !victim.running() {
		b.note("the node ended: %s", victim.lastLog(1))
		b.returns(victim)
	}
	b.healed()
	b.settle()
}
