//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// plainLog is what became of plain SETs, which carry no token. Two things can
// be told without one: whether the last value of a key that only one client
// writes is shown, and which of the words that clients add to shared lists, by
// GET and SET, are gone.
type plainLog struct {
	mu struct {
		sync.Mutex
		last    map[string]string   // of keys with one writer: acknowledged last
		unknown map[string][]string // and sent after that
		added   map[string][]string // shared list -> words that were acknowledged
		brief   []string            // keys that were given briefLife
	}
}

func newPlainLog() *plainLog {
	p := &plainLog{}
	p.mu.last, p.mu.unknown, p.mu.added = map[string]string{}, map[string][]string{}, map[string][]string{}
	return p
}

const soleKeys = 10

// alone sets a key that no other client writes, through any node.
func (p *plainLog) alone(cl *client, ctx context.Context) {
	key := fmt.Sprintf("sole:%d:%d", cl.id, cl.rng.IntN(soleKeys))
	cl.at = cl.rng.IntN(len(cl.nodes))
	cl.tries(ctx, key, func() error {
		value := cl.value()
		err := cl.do(ctx, "SET", key, value).Err()
		p.mu.Lock()
		defer p.mu.Unlock()
		if err == nil {
			p.mu.last[key], p.mu.unknown[key] = value, nil
		} else {
			p.mu.unknown[key] = append(p.mu.unknown[key], value)
		}
		return err
	})
}

// briefLife is the life of keys that must be gone when a row ends.
const briefLife = time.Second

// expiring sets a key that does not live long.
func (p *plainLog) expiring(cl *client, ctx context.Context) {
	key := fmt.Sprintf("brief:%d", cl.id*1_000_000+cl.sent)
	cl.tries(ctx, key, func() error {
		err := cl.do(ctx, "SET", key, cl.value(), "PX", briefLife.Milliseconds()).Err()
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.mu.brief = append(p.mu.brief, key)
		}
		return err
	})
}

// stillThere counts the keys that should have expired and are shown by some of
// the nodes.
func (p *plainLog) stillThere(b *bed, nodes []*node) (shown, of int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		cl := b.clients(1, n)[0]
		for _, key := range p.mu.brief {
			if err := cl.do(b.ctx, "GET", key).Err(); !errors.Is(err, redis.Nil) {
				shown++
				if shown == 1 {
					b.note("the first key shown after its time is %s: %v, %v", key, err, cl.do(b.ctx, "VCTX.INSPECT", key).Val())
				}
			}
		}
		cl.close()
	}
	return shown, len(p.mu.brief)
}

// append adds a word to a list that all clients change.
func (p *plainLog) append(cl *client, ctx context.Context) {
	key := fmt.Sprintf("list:%d", cl.rng.IntN(sharedOfKind))
	cl.tries(ctx, key, func() error {
		old, err := cl.do(ctx, "GET", key).Text()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		cl.sent++
		word := fmt.Sprintf("%d-%d", cl.id, cl.sent)
		err = cl.do(ctx, "SET", key, old+word+" ").Err()
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.mu.added[key] = append(p.mu.added[key], word)
		}
		return err
	})
}

// lostAlone counts the keys with one writer that show something older than what
// was acknowledged last.
func (p *plainLog) lostAlone(b *bed) (lost, of int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cl := b.clients(1)[0]
	defer cl.close()
	for key, want := range p.mu.last {
		got, err := cl.do(b.ctx, "GET", key).Text()
		if err != nil || got != want && !slices.Contains(p.mu.unknown[key], got) {
			lost++
		}
	}
	return lost, len(p.mu.last)
}

// lostWords counts the words that are in no list.
func (p *plainLog) lostWords(b *bed) (lost, of int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cl := b.clients(1)[0]
	defer cl.close()
	for key, words := range p.mu.added {
		of += len(words)
		text, err := cl.do(b.ctx, "GET", key).Text()
		if err != nil {
			lost += len(words)
			continue
		}
		kept := strings.Fields(text)
		for _, w := range words {
			if !slices.Contains(kept, w) {
				lost++
			}
		}
	}
	return lost, of
}
