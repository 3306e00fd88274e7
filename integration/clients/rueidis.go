package main

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// rueidisClient connects only with its cache off, which rests on CLIENT TRACKING.
type rueidisClient struct {
	rueidis.Client
}

func connectRueidis(d door) (session, error) {
	o := rueidis.ClientOption{InitAddress: d.addrs, DisableCache: true, AlwaysRESP2: d.protocol == 2}
	if !d.cluster {
		o.InitAddress, o.ForceSingleClient = d.addrs[:1], true
	}
	c, err := rueidis.NewClient(o)
	if err != nil {
		return nil, err
	}
	return rueidisClient{c}, nil
}

func (r rueidisClient) version() string { return rueidis.LibVer }

func (r rueidisClient) do(words ...string) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.Do(ctx, r.command(words...))
}

// command has the key in the second word, as almost all have.
func (r rueidisClient) command(words ...string) rueidis.Completed {
	return r.B().Arbitrary(words[0]).Keys(words[1]).Args(words[2:]...).Build()
}

func (r rueidisClient) set(key, value string, life time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if life > 0 {
		return r.Do(ctx, r.B().Set().Key(key).Value(value).Px(life).Build()).Error()
	}
	return r.Do(ctx, r.B().Set().Key(key).Value(value).Build()).Error()
}

func (r rueidisClient) get(key string) (string, bool, error) {
	v, err := r.do("GET", key).ToString()
	if rueidis.IsRedisNil(err) {
		return "", false, nil
	}
	return v, err == nil, err
}

func (r rueidisClient) life(key string) (time.Duration, error) {
	ms, err := r.do("PTTL", key).AsInt64()
	return time.Duration(ms) * time.Millisecond, err
}

func (r rueidisClient) pipeline(keys, values []string) error {
	var all []rueidis.Completed
	for i := range keys {
		all = append(all, r.command("SET", keys[i], values[i]))
	}
	for _, reply := range r.DoMulti(context.Background(), all...) {
		if err := reply.Error(); err != nil {
			return err
		}
	}
	return nil
}

// scan walks every node that the client knows; one that is first for no slot has
// nothing to say.
func (r rueidisClient) scan(pattern string) (all []string, err error) {
	for _, node := range r.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(context.Background(), node.B().Scan().Cursor(cursor).Match(pattern).Count(50).Build()).AsScanEntry()
			if err != nil {
				return nil, err
			}
			all = append(all, page.Elements...)
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return all, nil
}

func (r rueidisClient) transact(key, value string) (read string, err error) {
	err = r.Dedicated(func(c rueidis.DedicatedClient) error {
		replies := c.DoMulti(context.Background(), c.B().Multi().Build(), c.B().Set().Key(key).Value(value).Build(), c.B().Get().Key(key).Build(), c.B().Exec().Build())
		all, err := replies[3].ToArray()
		if err != nil {
			return err
		}
		read, err = all[1].ToString()
		return err
	})
	return read, err
}

func (r rueidisClient) subscribe(channel string) (<-chan string, func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	heard := make(chan string, 1)
	go func() {
		_ = r.Receive(ctx, r.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) { // ends with ctx
			select {
			case heard <- m.Message:
			default:
			}
		})
	}()
	return heard, cancel, nil
}

func (r rueidisClient) publish(channel, text string) error {
	return r.Do(context.Background(), r.B().Publish().Channel(channel).Message(text).Build()).Error()
}

func (r rueidisClient) vctxGet(key string) (string, []string, error) {
	return versions(slice(r.do("VCTX.GET", key)))
}

func (r rueidisClient) vctxSet(key, value, token string) (string, int64, error) {
	return written(slice(r.do("VCTX.SET", key, value, token)))
}

func (r rueidisClient) close() { r.Close() }

// slice is an array as other libraries give it.
func slice(reply rueidis.RedisResult) ([]any, error) {
	v, err := reply.ToAny()
	if err != nil {
		return nil, err
	}
	list, _ := v.([]any) // versions and written complain of nil
	return list, nil
}
