//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// oldKeys are keys that were written once, and were at all of their owners before
// anything was broken. Nobody writes them again, so whoever reads one must be shown its
// value at any time, whatever becomes of the ring.
type oldKeys struct {
	all    int      // that were written
	keys   []string // some of them: those that are read, and looked at in the end
	values map[string]string
	mu     struct {
		sync.Mutex
		reads int
		wrong []wrongRead
	}
}

// wrongRead is an answer that is not the value of an old key.
type wrongRead struct {
	key, shown string
	by         *node // that the client uses, or one of them
	from, to   time.Time
}

// oldRead is about how many old keys are read: they are looked at one by one in the end.
const oldRead = 2000

// preload writes old keys through a node, and waits until all owners have them.
func (b *bed) preload(p *node, count int) {
	o := &oldKeys{all: count, values: map[string]string{}}
	cl := dialRedis(b.c, p.plain)
	defer cl.Close()
	step := max(1, count/oldRead)
	for from := 0; from < count; from += surveyBatch {
		pipe := cl.Pipeline()
		for k := from; k < min(from+surveyBatch, count); k++ {
			key := fmt.Sprint("old:", k)
			value := fmt.Sprint("old-", k, strings.Repeat(padding, ringBytes))
			if k%step == 0 {
				o.keys = append(o.keys, key)
				o.values[key] = value
				b.h.holds(key, value)
			}
			pipe.Set(b.ctx, key, value, 0)
		}
		if _, err := pipe.Exec(b.ctx); err != nil {
			b.must(fmt.Errorf("write old keys: %w", err))
		}
	}
	left := map[string][]copied{}
	for _, key := range o.keys {
		left[key] = nil
	}
	b.must(b.await(equalWithin, func() error {
		if b.inspectAll(left); len(left) > 0 {
			return fmt.Errorf("%d old keys are not at all owners yet", len(left))
		}
		return nil
	}))
	b.old = o
}

// load is the workload of rows that change the ring: now and then an old key is read.
func (o *oldKeys) load(cl *client, ctx context.Context) {
	if cl.rng.IntN(4) == 0 {
		o.read(cl, ctx)
		return
	}
	cl.both(ctx)
}

func (o *oldKeys) read(cl *client, ctx context.Context) {
	key := o.keys[cl.rng.IntN(len(o.keys))]
	cl.tries(ctx, key, func() error {
		from := time.Now()
		got, err := cl.do(ctx, "GET", key).Text()
		absent := errors.Is(err, redis.Nil)
		if err != nil && !absent {
			return err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.mu.reads++
		switch {
		case absent:
			o.mu.wrong = append(o.mu.wrong, wrongRead{key, "nothing", cl.nodes[0], from, time.Now()})
		case got != o.values[key]:
			o.mu.wrong = append(o.mu.wrong, wrongRead{key, name(got), cl.nodes[0], from, time.Now()})
		}
		return nil
	})
}

// judgeOld ends a row that has old keys: all reads of them are judged.
func (b *bed) judgeOld() {
	b.old.mu.Lock()
	defer b.old.mu.Unlock()
	excused := 0
	var wrong []string
	for _, w := range b.old.mu.wrong {
		if b.cuts.ownerless(w.key, w.by, w.from, w.to) {
			excused++
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%s shows %s %v after the fault began", w.key, w.shown, w.from.Sub(b.faultAt).Round(time.Millisecond)))
	}
	b.note("%d reads of old keys; %d of them showed nothing for want of an owner on the client's side of a cut", b.old.mu.reads, excused)
	b.check(len(wrong) == 0, "%d reads of old keys are wrong: %s", len(wrong), strings.Join(wrong[:min(3, len(wrong))], "; "))
	b.check(b.old.mu.reads > 100, "only %d reads of old keys", b.old.mu.reads)
}
