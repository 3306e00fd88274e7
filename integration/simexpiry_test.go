package integration

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
	"github.com/redynamo/redynamo/integration/bubble"
)

// This file lets keys expire on nodes whose clocks differ, while clients lengthen
// and shorten their time, take it away and write them anew. A key whose time is not
// over by any clock must be shown by every node; one whose time is over by all
// clocks, by none, for ever, and in the end no row may be left of it.

const (
	clockSpread  = 8 * time.Second // of the clocks, to either side
	expiryLength = 6 * time.Minute
	expiryKeys   = 12 // of each client
	sweepTime    = 3 * time.Second
)

func TestExpiryDropsNoLiveKeyAndRevivesNoneInVirtualTime(t *testing.T) {
	t.Parallel()
	first, seeds := simSeeds(t, 1)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { expiries(t, uint64(seed)) })
		})
	}
}

// expiries runs one seed.
func expiries(t *testing.T, seed uint64) {
	booted := 0
	c := newTunedSimCluster(t, seed, 5, func(cfg *node.Config) {
		reaping(cfg)
		off := clockSpread * time.Duration(booted%5-2) / 2
		booted++
		cfg.Now = func() time.Time { return time.Now().Add(off) }
	})
	defer c.close()
	until := time.Now().Add(expiryLength)
	clients := make([]*expiryClient, 4)
	var wg sync.WaitGroup
	for i := range clients {
		clients[i] = &expiryClient{c: c, id: i, rng: rand.New(rand.NewPCG(seed, uint64(7000+i)))}
		wg.Go(func() { clients[i].work(until) })
	}
	wg.Wait()
	counts := map[string]int{}
	var keys []string
	for _, cl := range clients {
		for what, n := range cl.counts {
			counts[what] += n
		}
		for i := range cl.keys {
			keys = append(keys, cl.key(i))
			c.must(i%5, "PEXPIREAT", cl.key(i), strconv.FormatInt(time.Now().UnixMilli(), 10)) // also of those without a time
		}
	}
	time.Sleep(2*clockSpread + sweepTime)
	c.awaitReaped(keys)
	c.showEmpty()
	for i := range c.nodes {
		expired, err := c.metric(i, "replica_expired_total")
		reaped, rerr := c.metric(i, "replica_reaped_total")
		if err != nil || rerr != nil || expired == 0 || reaped == 0 {
			t.Errorf("seed %d: node %d dropped %d payloads and %d rows, %v, %v", seed, i, expired, reaped, err, rerr)
		}
	}
	counts["rows reaped"] = c.reapedRows()
	t.Logf("seed %d: %v", seed, counts)
	for _, what := range []string{"certainly live", "certainly gone", "extended late"} {
		if counts[what] == 0 {
			t.Errorf("seed %d: no key was %s: %v", seed, what, counts)
		}
	}
}

// expiryClient is the only one that works on some keys.
type expiryClient struct {
	c      *simCluster
	id     int
	rng    *rand.Rand
	keys   [expiryKeys]lifetime
	sent   int
	counts map[string]int
}

// lifetime is what is known of a key.
type lifetime struct {
	value string    // "" was never written, or deleted
	ends  time.Time // zero: never
}

func (x *expiryClient) key(i int) string { return fmt.Sprintf("e%d:%d", x.id, i) }

// by all clocks, or by none: how a key stands at a moment.
const (
	gone = iota
	open // the clocks differ about it
	live
)

func (l lifetime) stands(from, to time.Time) int {
	switch {
	case l.value == "" || !l.ends.IsZero() && from.Add(-clockSpread).After(l.ends):
		return gone
	case l.ends.IsZero() || to.Add(clockSpread).Before(l.ends):
		return live
	}
	return open
}

func (x *expiryClient) work(until time.Time) {
	x.counts = map[string]int{}
	for time.Now().Before(until) {
		time.Sleep(time.Duration(x.rng.IntN(400)) * time.Millisecond)
		cl, err := x.c.dial(x.rng.IntN(5))
		if err != nil {
			x.c.t.Errorf("seed %d: %v", x.c.seed, err)
			continue
		}
		x.step(cl, x.rng.IntN(expiryKeys))
		_ = cl.conn.Close() // the next one goes to another node
	}
}

// step does something to a key and checks the answer.
func (x *expiryClient) step(cl *simClient, i int) {
	l, key, began := &x.keys[i], x.key(i), time.Now()
	end := began.Add(time.Duration(5000+x.rng.IntN(60_000)) * time.Millisecond)
	at := strconv.FormatInt(end.UnixMilli(), 10)
	p := x.rng.IntN(100)
	if l.stands(began, began) == gone && x.rng.IntN(3) > 0 {
		p = 60 + p%40 // mostly it stays so for a while
	}
	switch {
	case p < 20:
		value := x.value()
		if x.do(cl, "SET", key, value, "PXAT", at) != nil {
			*l = lifetime{value, end}
		}
	case p < 25:
		value := x.value()
		was := l.stands(began, began.Add(time.Second))
		if x.do(cl, "SET", key, value, "KEEPTTL") != nil {
			x.kept(cl, i, was, value)
		}
	case p < 50:
		x.extend(i, x.do(cl, "PEXPIREAT", key, at), began, end)
	case p < 55:
		x.extend(i, x.do(cl, "PERSIST", key), began, time.Time{})
	case p < 58:
		if x.do(cl, "DEL", key) != nil {
			*l = lifetime{}
		}
	default:
		x.check(i, x.do(cl, "GET", key), began)
	}
}

func (x *expiryClient) value() string {
	x.sent++
	return fmt.Sprintf("%d-%d", x.id, x.sent)
}

// do sends a command, which must succeed: nothing is broken here.
func (x *expiryClient) do(cl *simClient, words ...string) any {
	reply, err := cl.do(words...)
	if err != nil {
		x.c.t.Errorf("seed %d: %q at %s: %v", x.c.seed, words, clockText(), err)
		return nil
	}
	if reply == nil {
		return "" // no value
	}
	return reply
}

// kept notes a value that was to keep the time of the one before. If the clocks
// differ about that one, nobody knows what came of it, and the key is deleted.
func (x *expiryClient) kept(cl *simClient, i, was int, value string) {
	l := &x.keys[i]
	switch was {
	case gone:
		*l = lifetime{value, time.Time{}}
	case live:
		l.value = value
	default:
		x.do(cl, "DEL", x.key(i))
		*l = lifetime{}
	}
}

// extend judges the reply to a command that changes the time of a key.
func (x *expiryClient) extend(i int, reply any, began, end time.Time) {
	l := &x.keys[i]
	if reply == nil {
		return
	}
	stood, done := l.stands(began, time.Now()), reply == int64(1)
	switch {
	case stood == gone && done:
		x.c.t.Errorf("seed %d: the time of %s, over since %v, was changed", x.c.seed, x.key(i), l.ends)
	case stood == live && !done && !(end.IsZero() && l.ends.IsZero()):
		x.c.t.Errorf("seed %d: the time of %s, live until %v, was not changed at %s", x.c.seed, x.key(i), l.ends, clockText())
	case stood == open && done:
		x.counts["extended late"]++
	}
	if done {
		l.ends = end
	}
}

// check judges what a read shows.
func (x *expiryClient) check(i int, reply any, began time.Time) {
	l := x.keys[i]
	if reply == nil {
		return
	}
	switch l.stands(began, time.Now()) {
	case gone:
		x.counts["certainly gone"]++
		if reply != "" {
			x.c.t.Errorf("seed %d: %s = %v, and its time was over at %v (%+v) at %s", x.c.seed, x.key(i), reply, l.ends, l, clockText())
		}
	case live:
		x.counts["certainly live"]++
		if reply != l.value {
			x.c.t.Errorf("seed %d: %s = %v, and it is %q until %v, at %s", x.c.seed, x.key(i), reply, l.value, l.ends, clockText())
		}
	default:
		x.counts["open"]++
		if reply != "" && reply != l.value {
			x.c.t.Errorf("seed %d: %s = %v, want %q or none", x.c.seed, x.key(i), reply, l.value)
		}
	}
}
