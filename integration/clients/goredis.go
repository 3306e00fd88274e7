package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience is how long a single call may take.
const patience = 5 * time.Second

// goRedis is the client that most programs in Go have.
type goRedis struct {
	redis.UniversalClient
	sharded bool // messages by shard channels: in RESP3, so that both kinds are tried
}

func connectGoRedis(d door) (session, error) {
	if d.cluster {
		return goRedis{redis.NewClusterClient(&redis.ClusterOptions{Addrs: d.addrs, Protocol: d.protocol}), d.protocol == 3}, nil
	}
	return goRedis{redis.NewClient(&redis.Options{Addr: d.addrs[0], Protocol: d.protocol}), d.protocol == 3}, nil
}

func (g goRedis) version() string { return redis.Version() }

func (g goRedis) set(key, value string, life time.Duration) error {
	return g.Set(context.Background(), key, value, life).Err()
}

func (g goRedis) get(key string) (string, bool, error) {
	v, err := g.Get(context.Background(), key).Result()
	if errors.Is(err, redis.Nil) {
		return "", false, nil
	}
	return v, err == nil, err
}

func (g goRedis) life(key string) (time.Duration, error) {
	return g.TTL(context.Background(), key).Result()
}

func (g goRedis) pipeline(keys, values []string) error {
	_, err := g.Pipelined(context.Background(), func(p redis.Pipeliner) error {
		for i := range keys {
			p.Set(context.Background(), keys[i], values[i], 0)
		}
		return nil
	})
	return err
}

func (g goRedis) scan(pattern string) (all []string, err error) {
	walk := func(ctx context.Context, c *redis.Client) error {
		var mine []string
		pages := c.Scan(ctx, 0, pattern, 50).Iterator()
		for pages.Next(ctx) {
			mine = append(mine, pages.Val())
		}
		all = append(all, mine...)
		return pages.Err()
	}
	switch c := g.UniversalClient.(type) {
	case *redis.ClusterClient:
		var mu sync.Mutex // the nodes are walked side by side
		err = c.ForEachMaster(context.Background(), func(ctx context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return walk(ctx, c)
		})
	case *redis.Client:
		err = walk(context.Background(), c)
	}
	return all, err
}

func (g goRedis) transact(key, value string) (string, error) {
	var read *redis.StringCmd
	_, err := g.TxPipelined(context.Background(), func(p redis.Pipeliner) error {
		p.Set(context.Background(), key, value, 0)
		read = p.Get(context.Background(), key)
		return nil
	})
	if err != nil {
		return "", err
	}
	return read.Result()
}

func (g goRedis) subscribe(channel string) (<-chan string, func(), error) {
	subscribe := g.Subscribe
	if g.sharded {
		subscribe = g.SSubscribe
	}
	s := subscribe(context.Background(), channel)
	if _, err := s.ReceiveTimeout(context.Background(), patience); err != nil {
		return nil, nil, err
	}
	heard := make(chan string, 1)
	go func() {
		if m, ok := <-s.Channel(); ok {
			heard <- m.Payload
		}
	}()
	return heard, func() { _ = s.Close() }, nil // nothing more is wanted of it
}

func (g goRedis) publish(channel, text string) error {
	if g.sharded {
		return g.SPublish(context.Background(), channel, text).Err()
	}
	return g.Publish(context.Background(), channel, text).Err()
}

func (g goRedis) vctxGet(key string) (string, []string, error) {
	return versions(g.Do(context.Background(), "VCTX.GET", key).Slice())
}

func (g goRedis) vctxSet(key, value, token string) (string, int64, error) {
	return written(g.Do(context.Background(), "VCTX.SET", key, value, token).Slice())
}

func (g goRedis) close() { _ = g.Close() } // nothing more is wanted of it

// versions takes the answer of VCTX.GET apart: a token and an array of values.
func versions(reply []any, err error) (token string, values []string, _ error) {
	if err != nil {
		return "", nil, err
	}
	if len(reply) != 2 {
		return "", nil, fmt.Errorf("VCTX.GET answered %v", reply)
	}
	list, ok := reply[1].([]any)
	if !ok {
		return "", nil, fmt.Errorf("VCTX.GET answered %v", reply)
	}
	for _, v := range list {
		values = append(values, text(v))
	}
	return text(reply[0]), values, nil
}

// written takes the answer of VCTX.SET apart: a token and a number.
func written(reply []any, err error) (token string, live int64, _ error) {
	if err != nil {
		return "", 0, err
	}
	if len(reply) != 2 {
		return "", 0, fmt.Errorf("VCTX.SET answered %v", reply)
	}
	live, ok := reply[1].(int64)
	if !ok {
		return "", 0, fmt.Errorf("VCTX.SET answered %v", reply)
	}
	return text(reply[0]), live, nil
}

// text is a bulk string as libraries give it: a string or bytes.
func text(v any) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(v)
}
