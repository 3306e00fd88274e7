package main

import (
	"errors"
	"runtime/debug"
	"time"

	"github.com/gomodule/redigo/redis"
)

// redigo is one connection; it knows neither RESP3 nor clusters.
type redigo struct {
	redis.Conn
	addr string
}

func connectRedigo(d door) (session, error) {
	c, err := redis.Dial("tcp", d.addrs[0], redis.DialConnectTimeout(patience), redis.DialReadTimeout(patience), redis.DialWriteTimeout(patience))
	return redigo{c, d.addrs[0]}, err
}

func (r redigo) version() string { return moduleVersion("github.com/gomodule/redigo") }

// moduleVersion is that of a module within this program.
func moduleVersion(path string) string {
	build, _ := debug.ReadBuildInfo() // there is one in whatever was built from modules
	for _, m := range build.Deps {
		if m.Path == path {
			return m.Version[1:]
		}
	}
	return "unknown"
}

func (r redigo) set(key, value string, life time.Duration) error {
	args := redis.Args{key, value}
	if life > 0 {
		args = args.Add("PX", life.Milliseconds())
	}
	_, err := r.Do("SET", args...)
	return err
}

func (r redigo) get(key string) (string, bool, error) {
	v, err := redis.String(r.Do("GET", key))
	if errors.Is(err, redis.ErrNil) {
		return "", false, nil
	}
	return v, err == nil, err
}

func (r redigo) life(key string) (time.Duration, error) {
	ms, err := redis.Int64(r.Do("PTTL", key))
	return time.Duration(ms) * time.Millisecond, err
}

func (r redigo) pipeline(keys, values []string) error {
	for i := range keys {
		if err := r.Send("SET", keys[i], values[i]); err != nil {
			return err
		}
	}
	if err := r.Flush(); err != nil {
		return err
	}
	for range keys {
		if _, err := r.Receive(); err != nil {
			return err
		}
	}
	return nil
}

func (r redigo) scan(pattern string) (all []string, err error) {
	for cursor := "0"; ; {
		page, err := redis.Values(r.Do("SCAN", cursor, "MATCH", pattern, "COUNT", 50))
		if err != nil {
			return nil, err
		}
		var keys []string
		if _, err := redis.Scan(page, &cursor, &keys); err != nil {
			return nil, err
		}
		if all = append(all, keys...); cursor == "0" {
			return all, nil
		}
	}
}

func (r redigo) transact(key, value string) (string, error) {
	for _, words := range [][]any{{"MULTI"}, {"SET", key, value}, {"GET", key}} {
		if err := r.Send(words[0].(string), words[1:]...); err != nil {
			return "", err
		}
	}
	all, err := redis.Values(r.Do("EXEC"))
	if err != nil {
		return "", err
	}
	return redis.String(all[1], nil)
}

func (r redigo) subscribe(channel string) (<-chan string, func(), error) {
	own, err := redis.Dial("tcp", r.addr)
	if err != nil {
		return nil, nil, err
	}
	s := redis.PubSubConn{Conn: own}
	if err := s.Subscribe(channel); err != nil {
		return nil, nil, err
	}
	heard := make(chan string, 1)
	go func() {
		for {
			switch m := s.Receive().(type) {
			case redis.Message:
				heard <- string(m.Data)
				return
			case error:
				return
			}
		}
	}()
	return heard, func() { _ = s.Close() }, nil // nothing more is wanted of it
}

func (r redigo) publish(channel, text string) error {
	_, err := r.Do("PUBLISH", channel, text)
	return err
}

func (r redigo) vctxGet(key string) (string, []string, error) {
	return versions(redis.Values(r.Do("VCTX.GET", key)))
}

func (r redigo) vctxSet(key, value, token string) (string, int64, error) {
	return written(redis.Values(r.Do("VCTX.SET", key, value, token)))
}

func (r redigo) close() { _ = r.Close() } // nothing more is wanted of it
