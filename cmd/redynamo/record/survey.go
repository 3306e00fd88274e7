package record

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redynamo/redynamo/cmd/redynamo/history"
)

const (
	surveyBatch = 200                    // keys in one pipeline
	surveyPause = 500 * time.Millisecond // between two looks at the keys that differ
	everyOwner  = 64                     // the most that R may be; it is capped by the number of owners
)

// survey looks at what is left when a load is over.
type survey struct {
	cfg  Config
	log  *log
	at   int
	conn *redis.Client
}

func newSurvey(cfg Config, l *log) *survey { return &survey{cfg: cfg, log: l} }

func (s *survey) close() {
	if s.conn != nil {
		_ = s.conn.Close() // nothing is under way
		s.conn = nil
	}
}

// next goes on at another node.
func (s *survey) next() {
	s.close()
	s.at = (s.at + 1) % len(s.cfg.Addrs)
}

// ask sends one command for each key and hands out the replies. If some fail it
// goes on at another node the next time.
func (s *survey) ask(ctx context.Context, keys []string, words func(key string) []any, take func(key, node string, beginUS int64, reply any, err error)) {
	failed := false
	for from := 0; from < len(keys); from += surveyBatch {
		if s.conn == nil {
			s.conn = dial(s.cfg, s.cfg.Addrs[s.at])
		}
		batch := keys[from:min(from+surveyBatch, len(keys))]
		begin := s.log.now()
		pipe := s.conn.Pipeline()
		cmds := make([]*redis.Cmd, len(batch))
		for i, key := range batch {
			cmds[i] = pipe.Do(ctx, words(key)...)
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
		for i, key := range batch {
			reply, err := cmds[i].Result()
			failed = failed || err != nil
			take(key, s.cfg.Addrs[s.at], begin, reply, err)
		}
	}
	if failed {
		s.next()
	}
}

// inspect waits until the owners of all keys are equal, notes what they hold, and
// returns how many are not equal in time.
func (s *survey) inspect(ctx context.Context) (unequal int) {
	left := s.log.keys()
	for began := time.Now(); len(left) > 0; {
		late := time.Since(began) >= s.cfg.Settle
		var again []string
		s.ask(ctx, left, func(key string) []any { return []any{"VCTX.INSPECT", key} }, func(key, node string, beginUS int64, reply any, err error) {
			o := history.Op{Kind: history.Inspect, Key: key, Node: node, BeginUS: beginUS, Result: history.OK}
			if err == nil {
				o.Copies, err = readCopies(reply)
			}
			if err != nil {
				o.Result, o.Error = history.Unknown, err.Error()
			}
			differ := err != nil || history.Unequal(o.Copies, 0) != ""
			if differ && !late {
				again = append(again, key)
				return
			}
			if differ {
				unequal++
			}
			s.log.add(&o)
		})
		if left = again; len(left) > 0 {
			s.cfg.think(ctx, surveyPause)
		}
	}
	return unequal
}

// readCopies reads a reply to VCTX.INSPECT.
func readCopies(reply any) (copies []history.Copy, err error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, errReply
	}
	for _, entry := range list {
		fields, ok := entry.([]any)
		if !ok || len(fields) < 4 {
			return nil, errReply
		}
		c := history.Copy{Node: fmt.Sprint(fields[0]), Role: fmt.Sprint(fields[1])}
		if state, answered := fields[2].(string); answered {
			c.State = state
		}
		dots, _ := fields[3].([]any)
		for _, dot := range dots {
			c.Dots = append(c.Dots, fmt.Sprint(dot))
		}
		copies = append(copies, c)
	}
	return copies, nil
}

// readTries is how often a key is read at the end, each time at another node.
const readTries = 5

// read notes what all owners of every key show together.
func (s *survey) read(ctx context.Context) {
	left := s.log.keys()
	for try := 1; len(left) > 0; try++ {
		var again []string
		s.ask(ctx, left, func(key string) []any { return []any{"VCTX.GET", key, "META", "R", everyOwner} }, func(key, node string, beginUS int64, reply any, err error) {
			o := history.Op{Kind: history.Final, Key: key, Node: node, BeginUS: beginUS, Result: history.OK}
			if err == nil {
				_, o.Values, err = readMeta(reply)
			}
			if err != nil && try < readTries {
				again = append(again, key)
				return
			}
			if err != nil {
				o.Result, o.Error, o.Values = history.Unknown, strings.TrimSpace(err.Error()), nil
			}
			s.log.add(&o)
		})
		if left = again; len(left) > 0 {
			s.cfg.think(ctx, surveyPause)
		}
	}
}
