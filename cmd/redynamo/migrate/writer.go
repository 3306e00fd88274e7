package migrate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// An Endpoint is how servers are reached.
type Endpoint struct {
	Addrs          []string
	User, Password string
	TLS            *tls.Config // spoken if not nil
}

// client is for one address. It repeats nothing by itself; greet is called with each
// connection it makes.
func (e Endpoint) client(addr string, conns, db int, greet func(context.Context, *redis.Conn) error) *redis.Client {
	return redis.NewClient(&redis.Options{
		OnConnect: greet,
		Addr:      addr, Username: e.User, Password: e.Password, TLSConfig: e.TLS, DB: db, PoolSize: conns, PipelinePoolSize: conns, MaxRetries: -1,
		Protocol: 2, DisableIdentity: true, DialTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
	})
}

// isReply reports whether an error is what a server said, or nil for nothing found.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// fault says what an error of one SET means.
type fault uint8

const (
	faultNone fault = iota
	faultAgain
	faultKey  // this key is not taken
	faultStop // nothing will be
)

// againWords begin errors that pass.
var againWords = []string{"LOADING", "NOREPLICAS", "UNCERTAIN", "OVERLOADED", "TIMEOUT", "MOVED", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY"}

// stopWords begin errors that every key would get at this address. They end the import
// though another address may be better: what an operator has to put right is not booked
// as refused keys.
var stopWords = []string{"NOAUTH", "WRONGPASS", "NOPERM", "READONLY", "DENIED", unknownCommand}

// unknownCommand begins what a server says to a command that it does not have.
const unknownCommand = "ERR unknown command"

// doubtWords begin errors of what may have been written.
var doubtWords = []string{"UNCERTAIN", "TIMEOUT"}

// doubtful reports whether somebody may have what ended with this error.
func doubtful(err error) bool {
	var dial *net.OpError
	if !isReply(err) {
		return !errors.As(err, &dial) || dial.Op != "dial"
	}
	return slices.ContainsFunc(doubtWords, func(word string) bool { return strings.HasPrefix(err.Error(), word) })
}

// judge sorts an error of one SET.
func judge(err error) fault {
	if err == nil {
		return faultNone
	}
	if errors.Is(err, errForeign) {
		return faultStop
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return faultAgain
	}
	text := reply.Error()
	for _, w := range againWords {
		if strings.HasPrefix(text, w) {
			return faultAgain
		}
	}
	for _, w := range stopWords {
		if strings.HasPrefix(text, w) {
			return faultStop
		}
	}
	switch text {
	case "ERR max number of clients reached", "ERR the server is shutting down":
		return faultAgain
	}
	return faultKey
}

// job is what one worker writes of a page.
type job struct {
	page  *page
	items []*item
}

// A worker writes its part of the keys over one connection at a time.
type worker struct {
	cfg     *Config
	clients []*redis.Client // one for each address
	at      int             // the one in use
	doubt   bool            // an import before may have written any key
	jobs    chan job
}

// spread hands the items of a page to the workers.
func spread(ctx context.Context, p *page, workers []*worker, seed maphash.Seed) error {
	parts := make([][]*item, len(workers))
	n := int32(0)
	for i := range p.items {
		it := &p.items[i]
		w := maphash.Bytes(seed, it.key) % uint64(len(workers))
		if parts[w] == nil {
			n++
		}
		parts[w] = append(parts[w], it)
	}
	if n == 0 {
		close(p.ended)
		return nil
	}
	p.left.Store(n)
	for w, items := range parts {
		if items == nil {
			continue
		}
		select {
		case workers[w].jobs <- job{p, items}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// run writes jobs until there are no more or one cannot be written.
func (w *worker) run(ctx context.Context) error {
	for j := range w.jobs {
		outcomes := make([]outcome, len(j.items))
		if err := w.write(ctx, j.items, outcomes); err != nil {
			return err
		}
		j.page.settle(j.items, outcomes)
	}
	return nil
}

// Pauses between two tries of what did not go.
const (
	firstPause = 50 * time.Millisecond
	longPause  = 2 * time.Second
)

// attempt is what is known of the items of one job.
type attempt struct {
	items    []*item
	outcomes []outcome
	doubt    []bool // somebody may have it from us, though nobody acknowledged it
	again    []int  // are to be sent again
	why      error  // one of them is
}

// write writes the items, each try those that are left, at the next address if one was
// no good. It gives up when nothing has gone for the patience there is.
func (w *worker) write(ctx context.Context, items []*item, outcomes []outcome) error {
	a := &attempt{items: items, outcomes: outcomes, doubt: make([]bool, len(items))}
	left := make([]int, len(items))
	for i := range left {
		left[i], a.doubt[i] = i, w.doubt
	}
	pause, moved := firstPause, time.Now()
	for {
		a.again, a.why = nil, nil
		err := w.try(ctx, a, left)
		switch {
		case err != nil:
			return err
		case len(a.again) == 0:
			return nil
		case len(a.again) < len(left):
			pause, moved = firstPause, time.Now()
		case time.Since(moved) > w.cfg.Patience:
			return fmt.Errorf("%s: nothing is taken for %v: %w", w.cfg.To.Addrs[w.at], w.cfg.Patience, a.why)
		}
		left, w.at = a.again, (w.at+1)%len(w.clients)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, longPause)
	}
}

// try sends one pipeline for what is left.
func (w *worker) try(ctx context.Context, a *attempt, left []int) error {
	cmds, err := w.exec(ctx, left, func(i int) []any {
		it := a.items[i]
		args := []any{"SET", it.key, it.value}
		if it.expireAtMS != 0 {
			args = append(args, "PXAT", it.expireAtMS)
		}
		if !w.cfg.Replace {
			args = append(args, "NX")
		}
		return args
	})
	if err != nil {
		return err
	}
	var there []int
	for n, i := range left {
		err := cmds[n].Err()
		if !errors.Is(err, redis.Nil) {
			if err := w.sort(a, i, err); err != nil {
				return err
			}
			continue
		}
		if a.outcomes[i].kept = true; a.doubt[i] {
			there = append(there, i)
		}
	}
	return w.confirm(ctx, a, there)
}

// exec sends a command for each of some items. Each has its own error.
func (w *worker) exec(ctx context.Context, of []int, words func(i int) []any) ([]redis.Cmder, error) {
	if len(of) == 0 {
		return nil, nil
	}
	pipe := w.clients[w.at].Pipeline()
	for _, i := range of {
		pipe.Do(ctx, words(i)...)
	}
	cmds, _ := pipe.Exec(ctx) // the first of their errors
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return cmds, nil
}

// sort books what came of an item. It answers errors that end the import.
func (w *worker) sort(a *attempt, i int, err error) error {
	a.outcomes[i] = outcome{}
	switch judge(err) {
	case faultAgain:
		a.again, a.why = append(a.again, i), err
		a.doubt[i] = a.doubt[i] || doubtful(err)
	case faultKey:
		a.outcomes[i].err = err
	case faultStop:
		return fmt.Errorf("%s: %w", w.cfg.To.Addrs[w.at], err)
	}
	return nil
}
