//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// This file looks at what is left when a fault is over: first, by inspection,
// whether the owners of every key become equal by themselves, and only then
// through reads, which would repair them.

const (
	surveyBatch   = 200 // keys in one pipeline
	surveyWorkers = 4
)

// settle ends a row: it waits until all owners are equal, reads every key from
// all of them, and has the history judge that.
func (b *bed) settle() {
	if b.l != nil {
		b.measure()
	}
	keys := b.h.keys()
	copies := b.converge(keys)
	final := b.readAll(keys)
	b.res.found = b.judge(final, copies, judge.Binding{})
	b.res.acked = b.h.acknowledged()
	b.explainLost()
	b.res.faults = append(b.res.faults, b.res.found.faults()...)
	if b.old != nil {
		b.judgeOld()
		b.noStrays(final)
	}
	if b.res.acked < 100 {
		b.fail("only %d writes were acknowledged: the load was no load", b.res.acked)
	}
}

// judge has the history judge a last state.
func (b *bed) judge(final map[string][]shown, unequal map[string][]copied, bound judge.Binding) findings {
	report, err := b.h.judge(final, unequal, b.owners(), bound)
	b.must(err)
	return findingsOf(report)
}

// explainLost tells what is nowhere from what lies on some disk as a hint.
func (b *bed) explainLost() {
	var keys []string
	for _, l := range b.res.found[judge.Lost] {
		keys = append(keys, l.Key)
	}
	slices.Sort(keys)
	hinted := map[string]bool{}
	var mu sync.Mutex
	b.pipelines(slices.Compact(keys), "VCTX.INSPECT", nil, func(key string, reply any, err error) {
		if err != nil {
			return // it stays lost
		}
		_, hints := readCopies(reply)
		mu.Lock()
		defer mu.Unlock()
		hinted[key] = hints > 0
	})
	b.res.found.split(hinted)
}

// converge waits until all owners of every key hold the same and no node has still
// to get back what it lost, and returns what the owners of the others hold.
func (b *bed) converge(keys []string) map[string][]copied {
	b.res.convergedLooked = true
	left := map[string][]copied{}
	for _, key := range keys {
		left[key] = nil
	}
	progress, deadline := time.Now(), b.healedAt.Add(equalWithin)
	for {
		before := len(left)
		hinted := b.inspectAll(left)
		now := time.Now()
		if len(left) == 0 && !b.recovering() {
			b.res.converged = now.Sub(b.healedAt)
			return left
		}
		if len(left) < before || len(left) == 0 {
			progress = now
		}
		if now.After(deadline) || b.short && now.Sub(progress) > stalledShort {
			b.res.converged = -1
			b.note("%d of %d keys differ among their owners; %d of them have copies kept as hints", len(left), len(keys), hinted)
			return left
		}
		b.pause(200 * time.Millisecond)
	}
}

// recovering reports whether some node says that it has lost writes and does not have
// them back: it is no owner to a read then.
func (b *bed) recovering() bool {
	for _, p := range b.c.nodes {
		members, _ := b.ringStatus(p)["members"].([]any)
		for _, m := range members {
			if state, _ := fieldsOf(m)["state"].(string); strings.Contains(state, "recovering") {
				return true
			}
		}
	}
	return false
}

// owners is how many copies a key has.
func (b *bed) owners() int { return min(3, len(b.c.nodes)) }

// inspectAll looks at the keys of left, removes those whose owners are equal,
// and returns how many of the rest have hints.
func (b *bed) inspectAll(left map[string][]copied) (hinted int) {
	var mu sync.Mutex
	keys := slices.Collect(maps.Keys(left))
	b.pipelines(keys, "VCTX.INSPECT", nil, func(key string, reply any, err error) {
		var copies []copied
		hints := 0
		if err == nil {
			copies, hints = readCopies(reply)
		}
		mu.Lock()
		defer mu.Unlock()
		if judge.Unequal(copies, b.owners()) == "" {
			delete(left, key)
			return
		}
		left[key] = copies
		hinted += min(1, hints)
	})
	return hinted
}

// readCopies reads a reply to VCTX.INSPECT.
func readCopies(reply any) (copies []copied, hints int) {
	for _, entry := range reply.([]any) {
		fields := entry.([]any)
		c := copied{Node: fmt.Sprint(fields[0]), Role: fmt.Sprint(fields[1])}
		if state, ok := fields[2].(string); ok {
			c.State = state
		}
		for _, dot := range fields[3].([]any) {
			c.Dots = append(c.Dots, fmt.Sprint(dot))
		}
		switch {
		case c.Role == judge.Owner:
			copies = append(copies, c)
		case strings.HasPrefix(c.Role, "hint"):
			hints++
		}
	}
	return copies, hints
}

// readAll reads every key from all its owners, and those that cannot be read so
// in the usual way.
func (b *bed) readAll(keys []string) map[string][]shown {
	final := map[string][]shown{}
	keys, err := b.readOnce(keys, final, "META", "R", b.owners())
	for try := 0; try < 3 && len(keys) > 0; try++ {
		b.pause(time.Second)
		keys, err = b.readOnce(keys, final, "META", "R", b.owners())
	}
	if len(keys) > 0 {
		b.fail("%d keys cannot be read from all owners: %v", len(keys), err)
		keys, err = b.readOnce(keys, final, "META")
	}
	if len(keys) > 0 {
		b.note("%d keys cannot be read: %v", len(keys), err)
	}
	return final
}

// readOnce reads keys into final and returns those that could not be read.
func (b *bed) readOnce(keys []string, final map[string][]shown, words ...any) (left []string, last error) {
	var mu sync.Mutex
	b.pipelines(keys, "VCTX.GET", words, func(key string, reply any, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			left, last = append(left, key), err
			return
		}
		final[key] = showMeta(reply.([]any)[1])
	})
	return left, last
}

// pipelines sends one command for each key through nodes that run, in
// pipelines, and hands out the replies from several goroutines.
func (b *bed) pipelines(keys []string, name string, more []any, take func(key string, reply any, err error)) {
	var doors []*node
	for _, p := range b.c.nodes {
		if p.running() {
			doors = append(doors, p)
		}
	}
	if len(doors) == 0 {
		b.must(errors.New("no node runs"))
	}
	var wg sync.WaitGroup
	for worker := range surveyWorkers {
		wg.Go(func() {
			cl := dialRedis(b.c, doors[worker%len(doors)].plain)
			defer cl.Close()
			for from := worker * surveyBatch; from < len(keys); from += surveyBatch * surveyWorkers {
				surveyOne(b.ctx, cl, keys[from:min(from+surveyBatch, len(keys))], name, more, take)
			}
		})
	}
	wg.Wait()
}

func surveyOne(ctx context.Context, cl *redis.Client, keys []string, name string, more []any, take func(string, any, error)) {
	pipe := cl.Pipeline()
	cmds := make([]*redis.Cmd, len(keys))
	for i, key := range keys {
		cmds[i] = pipe.Do(ctx, append([]any{name, key}, more...)...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, key := range keys {
		reply, err := cmds[i].Result()
		take(key, reply, err)
	}
}
