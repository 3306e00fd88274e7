package record

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redynamo/redynamo/cmd/redynamo/history"
)

// patience is how long a client waits for a reply. Nodes answer within their
// request timeout of a second; what takes longer hangs.
const patience = 3 * time.Second

// padding fills stored values up; the history names them without it.
const padding = "."

// dial returns a client of one connection that never repeats a command.
func dial(cfg Config, addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Password: cfg.Password, TLSConfig: cfg.TLS, MaxRetries: -1, PoolSize: 1, Protocol: 2, DisableIdentity: true, DialerRetries: 1,
		DialTimeout: time.Second, ReadTimeout: patience, WriteTimeout: patience,
	})
}

// view is what a client holds of a key.
type view struct {
	token string // as the cluster gave it
	name  string // as the history calls it
}

// client is one session.
type client struct {
	cfg   Config
	log   *log
	id    string
	rng   *rand.Rand
	at    int
	conn  *redis.Client
	views map[string]view
	sent  int // values and tokens named
}

func newClient(cfg Config, l *log, i int) *client {
	return &client{cfg: cfg, log: l, id: strconv.Itoa(i), rng: rand.New(rand.NewPCG(cfg.Seed, uint64(i))), at: i % len(cfg.Addrs), views: map[string]view{}}
}

// run works until ctx ends.
func (c *client) run(ctx context.Context) {
	work := workloads[c.cfg.Workload]
	for {
		c.cfg.think(ctx, time.Duration(c.rng.Int64N(2*int64(c.cfg.Think)+1)))
		if ctx.Err() != nil || c.log.failed() {
			break
		}
		work(c)
	}
	c.leave()
}

// leave gives the connection up.
func (c *client) leave() {
	if c.conn != nil {
		_ = c.conn.Close() // in doubt, or of no more use
		c.conn = nil
	}
}

// do carries out one operation and notes it. The load's context does not cut it
// off: its outcome would be unknown for no reason.
func (c *client) do(o *history.Op, take func(reply any) error, words ...any) bool {
	if c.conn == nil {
		c.conn = dial(c.cfg, c.cfg.Addrs[c.at])
	}
	o.Session, o.Node, o.BeginUS = c.id, c.cfg.Addrs[c.at], c.log.now()
	reply, err := c.conn.Do(context.Background(), words...).Result()
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	if err == nil {
		err = take(reply)
	}
	o.Result = resultOf(err)
	if err != nil {
		o.Error, o.Values, o.Next = err.Error(), nil, ""
		c.leave()
		if n := len(c.cfg.Addrs); n > 1 {
			c.at = (c.at + 1 + c.rng.IntN(n-1)) % n
		}
	}
	c.log.end(o)
	return err == nil
}

// resultOf is what an error leaves open.
func resultOf(err error) history.Result {
	var said redis.Error
	var op *net.OpError
	switch {
	case err == nil:
		return history.OK
	case errors.As(err, &said) && history.Refused(said.Error()):
		return history.Fail
	case errors.As(err, &op) && op.Op == "dial":
		return history.Fail
	}
	return history.Unknown
}

func (c *client) value() (name, stored string) {
	c.sent++
	name = c.id + "-" + strconv.Itoa(c.sent)
	return name, name + strings.Repeat(padding, max(0, c.cfg.ValueBytes-len(name)))
}

// give names a token and keeps it as the client's view of a key.
func (c *client) give(key, token string) string {
	c.sent++
	v := view{token: token, name: c.id + "." + strconv.Itoa(c.sent)}
	c.views[key] = v
	return v.name
}

func (c *client) key(kind string) string {
	return fmt.Sprintf("%s:%s:%d", c.cfg.Run, kind, c.rng.IntN(c.cfg.Keys))
}

// errReply is a reply of another shape than its command has.
var errReply = errors.New("the reply has another shape than this command's")

// read takes the context of a key; now and then it must cover what the client holds.
func (c *client) read(key string) bool {
	o := history.Op{Kind: history.VGet, Key: key}
	words := []any{"VCTX.GET", key, "META"}
	if v := c.views[key]; v.token != "" && c.rng.IntN(4) == 0 {
		o.Min = v.name
		words = append(words, "MIN", v.token)
	}
	return c.do(&o, func(reply any) error {
		token, values, err := readMeta(reply)
		if err == nil {
			o.Values, o.Next = values, c.give(key, token)
		}
		return err
	}, words...)
}

// readMeta reads a reply to VCTX.GET META.
func readMeta(reply any) (token string, values []history.Shown, err error) {
	pair, ok := reply.([]any)
	if !ok || len(pair) != 2 {
		return "", nil, errReply
	}
	token, ok1 := pair[0].(string)
	list, ok2 := pair[1].([]any)
	if !ok1 || !ok2 {
		return "", nil, errReply
	}
	for _, entry := range list {
		fields, ok := entry.([]any)
		if !ok || len(fields) < 2 {
			return "", nil, errReply
		}
		values = append(values, history.Shown{Value: strings.TrimRight(fmt.Sprint(fields[0]), padding), Dot: fmt.Sprint(fields[1])})
	}
	return token, values, nil
}

// write sets a key with what v has seen and returns how many versions are live
// then, or -1. A ttl of 0 is none.
func (c *client) write(key string, v view, ttl time.Duration) (live int64) {
	name, stored := c.value()
	o := history.Op{Kind: history.VSet, Key: key, Value: name, Token: history.With(v.name), TTLMS: ttl.Milliseconds()}
	words := []any{"VCTX.SET", key, stored, v.token}
	if ttl > 0 {
		words = append(words, "PX", ttl.Milliseconds())
	}
	return c.versioned(&o, words...)
}

// remove deletes a key with what v has seen.
func (c *client) remove(key string, v view) {
	o := history.Op{Kind: history.VDel, Key: key, Token: history.With(v.name)}
	c.versioned(&o, "VCTX.DEL", key, v.token)
}

func (c *client) versioned(o *history.Op, words ...any) (live int64) {
	done := c.do(o, func(reply any) error {
		pair, ok := reply.([]any)
		if !ok || len(pair) != 2 {
			return errReply
		}
		token, ok1 := pair[0].(string)
		n, ok2 := pair[1].(int64)
		if !ok1 || !ok2 {
			return errReply
		}
		o.Next, live = c.give(o.Key, token), n
		return nil
	}, words...)
	if !done {
		return -1
	}
	return live
}

func (c *client) plainSet(key string) {
	name, stored := c.value()
	c.do(&history.Op{Kind: history.Set, Key: key, Value: name}, func(any) error { return nil }, "SET", key, stored)
}

func (c *client) plainGet(key string) {
	o := history.Op{Kind: history.Get, Key: key}
	c.do(&o, func(reply any) error {
		if text, any := reply.(string); any {
			o.Values = []history.Shown{{Value: strings.TrimRight(text, padding)}}
		}
		return nil
	}, "GET", key)
}
