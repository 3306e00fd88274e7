package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// task is one run of a cluster, or some histories.
type task struct {
	seed      int
	histories int // 0: a run of a cluster
}

// result is what came of a task.
type result struct {
	virtual     time.Duration
	faults, ops int
	histories   int
	cpu         time.Duration
	broken      []violation
	dropped     bool // it was stopped in the middle, and does not count
}

// violation is a broken promise, or a program that did not end well.
type violation struct {
	name   string // of its file
	first  string // the first line that tells of it
	again  string // the command that runs it again
	output string
}

// worker carries out a task.
type worker interface {
	do(ctx context.Context, c config, t task) result
}

// lane hands out tasks and sums up what came of them.
type lane struct {
	c     config
	out   io.Writer
	began time.Time
	mu    struct {
		sync.Mutex
		seeds, histories  series
		booked            time.Duration // virtual time of all runs that were handed out
		length            time.Duration // of the last run, for the next one
		virtual           time.Duration
		faults, ops, done int
		clusterCPU        time.Duration
		bad               int
		clusterNext       bool
	}
}

// series are seeds that are handed out in order, and come back in any.
type series struct {
	next  int
	under map[int]bool // handed out and not back
}

func (s *series) take(n int) int {
	first := s.next
	s.next += n
	s.under[first] = true
	return first
}

// resume is the seed from which nothing is done.
func (s *series) resume() int {
	least := s.next
	for seed := range s.under {
		least = min(least, seed)
	}
	return least
}

func newLane(c config, out io.Writer) *lane {
	l := &lane{c: c, out: out, began: time.Now()}
	l.mu.seeds = series{c.from, map[int]bool{}}
	l.mu.histories = series{c.historiesFrom, map[int]bool{}}
	l.mu.length = time.Duration(c.minutes) * time.Minute
	return l
}

// run lets w work until all is done or ctx ends, and counts what broke a promise.
func (l *lane) run(ctx context.Context, w worker) int {
	var workers sync.WaitGroup
	for range max(1, l.c.parallel) {
		workers.Go(func() {
			for {
				t, more := l.next(ctx)
				if !more {
					return
				}
				l.note(t, w.do(ctx, l.c, t))
			}
		})
	}
	workers.Wait()
	fmt.Fprintf(l.out, "%s\n", l.line())
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.bad
}

// next hands out a task: runs and histories in turn, while there are both.
func (l *lane) next(ctx context.Context) (task, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return task{}, false
	}
	cluster := l.mu.booked.Hours() < l.c.hours
	left := l.c.historiesFrom + l.c.histories - l.mu.histories.next
	if l.mu.clusterNext = !l.mu.clusterNext; left > 0 && (!cluster || !l.mu.clusterNext) {
		n := min(left, chunk)
		return task{l.mu.histories.take(n), n}, true
	}
	if !cluster {
		return task{}, false
	}
	l.mu.booked += l.mu.length
	return task{seed: l.mu.seeds.take(1)}, true
}

// note books what came of a task.
func (l *lane) note(t task, r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.dropped {
		return // its seed stays open
	}
	if t.histories > 0 {
		delete(l.mu.histories.under, t.seed)
	} else {
		delete(l.mu.seeds.under, t.seed)
		if r.virtual > 0 {
			l.mu.booked += r.virtual - l.mu.length
		}
	}
	l.mu.virtual += r.virtual
	l.mu.faults += r.faults
	l.mu.ops += r.ops
	l.mu.done += r.histories
	if t.histories == 0 {
		l.mu.clusterCPU += r.cpu
	}
	for _, v := range r.broken {
		l.mu.bad++
		l.tellLocked(v)
	}
	fmt.Fprintf(l.out, "%s\n", l.lineLocked())
}

// tellLocked writes a violation down and says where.
func (l *lane) tellLocked(v violation) {
	file := filepath.Join(l.c.dir, v.name+".txt")
	err := os.MkdirAll(l.c.dir, 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte("again: "+v.again+"\n\n"+v.output), 0o644)
	}
	if err != nil {
		file = fmt.Sprintf("nowhere (%v)", err)
	}
	fmt.Fprintf(l.out, "BROKEN: %s\n  %s\n  written down, with the schedule: %s\n  again: %s\n", v.name, strings.TrimSpace(v.first), file, v.again)
}

func (l *lane) line() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lineLocked()
}

// lineLocked is how far everything is.
func (l *lane) lineLocked() string {
	hours := max(l.mu.virtual.Hours(), 1e-9)
	return fmt.Sprintf("%v: %.2f virtual hours (%.0f faults, %.0f operations and %.1f CPU seconds in each), %d histories, %d broken; go on with -from %d -histories-from %d",
		time.Since(l.began).Round(time.Second), l.mu.virtual.Hours(), float64(l.mu.faults)/hours, float64(l.mu.ops)/hours, l.mu.clusterCPU.Seconds()/hours,
		l.mu.done, l.mu.bad, l.mu.seeds.resume(), l.mu.histories.resume())
}
