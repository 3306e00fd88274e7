//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// clientPatience is how long a client waits for a reply. Nodes answer within
// their request timeout of a second; what takes longer hangs.
const clientPatience = 3 * time.Second

// retryPause is what clients commonly wait before they repeat a command.
const retryPause = 8 * time.Millisecond

// sample is one operation of a client, its retry included.
type sample struct {
	at    time.Time // when it was begun
	took  time.Duration
	ok    bool
	first bool   // ok, and at the first try
	key   string // that it was about
	err   string // of both tries
}

// view is what a client holds of a key: a token, and what the history calls it.
type view struct{ token, name string }

// client is one user with connections to some nodes. It uses one of them and
// moves on to the next after a failure.
type client struct {
	id    int
	c     *cluster
	h     *history
	nodes []*node
	at    int
	conns map[*node]*redis.Client
	rng   *rand.Rand
	words []string // added to each write, such as W 1
	views map[string]view
	sent  int // values
	given int // tokens
	mu    struct {
		sync.Mutex
		samples []sample
	}
	pad int // bytes added to each value
}

func newClient(c *cluster, h *history, id int, nodes []*node) *client {
	return &client{id: id, c: c, h: h, nodes: nodes, at: id % len(nodes), conns: map[*node]*redis.Client{},
		rng: rand.New(rand.NewPCG(uint64(id), 1)), views: map[string]view{}, pad: 400}
}

// dialRedis returns a client of one door that never repeats a command itself.
func dialRedis(c *cluster, addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, PoolSize: 1, Protocol: 2, DisableIdentity: true, DialerRetries: 1,
		DialTimeout: time.Second, ReadTimeout: clientPatience, WriteTimeout: clientPatience,
		Dialer: func(ctx context.Context, _, addr string) (net.Conn, error) { return c.net.dial(ctx, addr) },
	})
}

// do sends one command. A node that takes no connection was not asked at all:
// the client goes on to the next.
func (cl *client) do(ctx context.Context, words ...any) (cmd *redis.Cmd) {
	for range cl.nodes {
		p := cl.nodes[cl.at]
		if cl.conns[p] == nil {
			cl.conns[p] = dialRedis(cl.c, p.plain)
		}
		if cmd = cl.conns[p].Do(ctx, words...); !refusedDial(cmd.Err()) {
			return cmd
		}
		cl.at = (cl.at + 1) % len(cl.nodes)
	}
	return cmd
}

// refusedDial reports whether err says that there was no connection.
func refusedDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// move goes to another node.
func (cl *client) move() {
	if len(cl.nodes) > 1 {
		cl.at = (cl.at + 1 + cl.rng.IntN(len(cl.nodes)-1)) % len(cl.nodes)
	}
}

func (cl *client) close() {
	for _, conn := range cl.conns {
		_ = conn.Close() // nothing is under way
	}
}

// fateOf says what an error leaves open.
func fateOf(err error) judge.Result {
	var said redis.Error
	switch {
	case err == nil:
		return judge.OK
	case errors.As(err, &said) && judge.Refused(said.Error()), refusedDial(err):
		return judge.Fail
	}
	return judge.Unknown
}

// tries runs one operation, once more on another node if it fails, and notes
// how that went.
func (cl *client) tries(ctx context.Context, key string, once func() error) bool {
	s := sample{at: time.Now(), key: key}
	err := once()
	s.first = err == nil
	before := err
	if err != nil && ctx.Err() == nil {
		cl.move()
		pause(ctx, retryPause)
		err = once()
		if err != nil {
			cl.move()
		}
	}
	if ctx.Err() != nil {
		return err == nil
	}
	s.took, s.ok = time.Since(s.at), err == nil
	if err != nil {
		s.err = before.Error() + ", then " + err.Error()
	}
	cl.mu.Lock()
	cl.mu.samples = append(cl.mu.samples, s)
	cl.mu.Unlock()
	return s.ok
}

func (cl *client) value() string {
	cl.sent++
	return fmt.Sprintf("%d-%d%s", cl.id, cl.sent, strings.Repeat(padding, cl.pad))
}

// write sets or deletes key with what v has seen, and returns how many versions
// are left, or -1.
func (cl *client) write(ctx context.Context, key string, v view, del bool) (live int64) {
	live = -1
	cl.tries(ctx, key, func() error {
		o := cl.h.begin(cl, judge.VDel, key)
		words := []any{"VCTX.DEL", key, v.token}
		if !del {
			value := cl.value()
			o.Kind, o.Value = judge.VSet, name(value)
			words = []any{"VCTX.SET", key, value, v.token}
		}
		o.Token = judge.With(v.name)
		for _, w := range cl.words {
			words = append(words, w)
		}
		reply, err := cl.do(ctx, words...).Slice()
		if err == nil {
			o.Next, live = cl.hold(key, reply[0].(string)), reply[1].(int64)
		}
		cl.h.end(cl, o, err)
		return err
	})
	return live
}

// read takes the context of key.
func (cl *client) read(ctx context.Context, key string) bool {
	return cl.tries(ctx, key, func() error {
		o := cl.h.begin(cl, judge.VGet, key)
		reply, err := cl.do(ctx, "VCTX.GET", key, "META").Slice()
		if err == nil {
			o.Values, o.Next = showMeta(reply[1]), cl.hold(key, reply[0].(string))
		}
		cl.h.end(cl, o, err)
		return err
	})
}

// hold keeps a token as the client's view of a key, and names it.
func (cl *client) hold(key, token string) (name string) {
	cl.given++
	name = fmt.Sprintf("%d.%d", cl.id, cl.given)
	cl.views[key] = view{token: token, name: name}
	return name
}

// showMeta reads the versions of a reply to VCTX.GET META.
func showMeta(list any) (versions []shown) {
	for _, entry := range list.([]any) {
		fields := entry.([]any)
		versions = append(versions, shown{Value: name(fields[0].(string)), Dot: fields[1].(string)})
	}
	return versions
}

// manySiblings is how many versions a client lets a key have before it settles
// them.
const manySiblings = 8

// sharedOfKind is how many keys of each kind all clients share.
const sharedOfKind = 60

func hotKey(i int) string  { return fmt.Sprintf("hot:%d", i) }
func cartKey(i int) string { return fmt.Sprintf("cart:%d", i) }

// sharedKeys are those that both uses.
func sharedKeys() (keys []string) {
	for i := range sharedOfKind {
		keys = append(keys, hotKey(i), cartKey(i))
	}
	return keys
}

// add makes one blind add: mostly under a key of its own, sometimes beside what
// others add to a shared key.
func (cl *client) add(ctx context.Context) {
	if cl.rng.IntN(8) > 0 {
		key := fmt.Sprintf("add:%d:%d", cl.id, cl.sent)
		cl.write(ctx, key, view{}, false)
		delete(cl.views, key) // nobody comes back to it
		return
	}
	key := hotKey(cl.rng.IntN(sharedOfKind))
	if cl.write(ctx, key, view{}, false) > manySiblings && cl.read(ctx, key) {
		cl.write(ctx, key, cl.views[key], false)
	}
}

// change reads a shared key and writes it with what was seen.
func (cl *client) change(ctx context.Context) {
	key := cartKey(cl.rng.IntN(sharedOfKind))
	if cl.rng.IntN(2) == 0 || cl.views[key].token == "" {
		if !cl.read(ctx, key) {
			return
		}
	}
	cl.write(ctx, key, cl.views[key], false)
}

// addOrDelete is change with every third write a delete.
func (cl *client) addOrDelete(ctx context.Context) {
	key := fmt.Sprintf("item:%d", cl.rng.IntN(sharedOfKind))
	if cl.read(ctx, key) {
		cl.write(ctx, key, cl.views[key], cl.rng.IntN(3) == 0)
	}
}

// both is add or change.
func (cl *client) both(ctx context.Context) {
	if cl.rng.IntN(2) == 0 {
		cl.add(ctx)
		return
	}
	cl.change(ctx)
}

// addOrReread is add, or a look at something added earlier.
func (cl *client) addOrReread(ctx context.Context) {
	if cl.sent == 0 || cl.rng.IntN(2) == 0 {
		cl.add(ctx)
		return
	}
	key := fmt.Sprintf("add:%d:%d", cl.id, cl.rng.IntN(cl.sent))
	cl.read(ctx, key)
	delete(cl.views, key) // nobody writes it again
}

// workload is what a client does over and over.
type workload func(*client, context.Context)

// load is clients at work.
type load struct {
	clients []*client
	began   time.Time
	ended   time.Time
	stopped chan struct{}
	wg      sync.WaitGroup
}

// startLoad sets clients going; each waits up to twice think between operations.
func startLoad(clients []*client, w workload, think time.Duration) *load {
	l := &load{clients: clients, began: time.Now(), stopped: make(chan struct{})}
	for _, cl := range clients {
		l.wg.Go(func() {
			defer cl.close()
			for {
				select {
				case <-l.stopped:
					return
				case <-time.After(time.Duration(cl.rng.Int64N(2*int64(think) + 1))):
				}
				w(cl, context.Background())
			}
		})
	}
	return l
}

// stop lets every client finish what it is at.
func (l *load) stop() {
	close(l.stopped)
	l.wg.Wait()
	l.ended = time.Now()
}

// samples are a client's operations so far.
func (cl *client) samples() []sample {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return slices.Clone(cl.mu.samples)
}

// between returns the samples begun in a span of time.
func (l *load) between(from, to time.Time) (all []sample) {
	for _, cl := range l.clients {
		for _, s := range cl.samples() {
			if !s.at.Before(from) && s.at.Before(to) {
				all = append(all, s)
			}
		}
	}
	return all
}

// longestGap is the longest time in a span for which some client got nothing
// done although it tried. The load must have ended.
func (l *load) longestGap(from, to time.Time) (longest time.Duration) {
	for _, cl := range l.clients {
		var since time.Time // of the first try since the last success
		for _, s := range cl.mu.samples {
			if s.at.Add(s.took).Before(from) || s.at.After(to) {
				continue
			}
			if since.IsZero() {
				since = s.at
			}
			if s.ok {
				longest = max(longest, s.at.Add(s.took).Sub(since))
				since = time.Time{}
			}
		}
		if !since.IsZero() {
			longest = max(longest, to.Sub(since))
		}
	}
	return longest
}

// quantile is the latency below which a share of the samples lies.
func quantile(samples []sample, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	took := make([]time.Duration, len(samples))
	for i, s := range samples {
		took[i] = s.took
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(q*float64(len(took))))]
}

// pause waits, or returns early when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
