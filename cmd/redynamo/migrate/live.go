package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// liveSource is a server that goes on serving.
type liveSource struct {
	cfg       *Config
	cl        *redis.Client
	dials     atomic.Int64 // connections made
	id        Identity
	absolute  bool // it knows PEXPIRETIME
	keys      int64
	walked    int64
	cursor    uint64           // of the page that is being taken apart
	following uint64           // of the one behind it
	rest      []string         // keys of it that are still to come
	last      bool             // none is behind it
	others    map[string]int64 // keys of the other databases
}

func openLive(ctx context.Context, cfg *Config) (*liveSource, error) {
	s := &liveSource{cfg: cfg}
	s.cl = cfg.From.client(cfg.From.Addrs[0], 1, cfg.DB, func(context.Context, *redis.Conn) error {
		s.dials.Add(1)
		return nil
	})
	if err := s.greet(ctx); err != nil {
		_ = s.cl.Close() // the first error counts
		return nil, fmt.Errorf("%s: %w", cfg.From.Addrs[0], err)
	}
	return s, nil
}

// greet asks the server who it is and how much it has, in a pipeline as everything that
// follows: the client has a connection for those, and another one for single commands.
func (s *liveSource) greet(ctx context.Context) error {
	pipe := s.cl.Pipeline()
	server, ends, size, space := pipe.Info(ctx, "server"), pipe.Do(ctx, "PEXPIRETIME", "x"), pipe.DBSize(ctx), pipe.Info(ctx, "keyspace")
	if _, err := pipe.Exec(ctx); err != nil && !isReply(err) {
		return err
	}
	s.id = Identity{Source: s.cfg.From.Addrs[0], Run: infoField(server.Val(), "run_id")}
	s.absolute = ends.Err() == nil
	s.keys = size.Val()
	s.others = otherDatabases(space.Val(), s.cfg.DB)
	for _, err := range []error{server.Err(), size.Err(), space.Err()} {
		if err != nil {
			return err
		}
	}
	return nil
}

// infoField is a field of INFO.
func infoField(info, name string) string {
	_, rest, _ := strings.Cut("\n"+info, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r")
	return value
}

// otherDatabases are the keys of all databases but one, as INFO keyspace tells them.
func otherDatabases(info string, but int) map[string]int64 {
	others := map[string]int64{}
	for line := range strings.Lines(info) {
		name, fields, found := strings.Cut(strings.TrimSpace(line), ":keys=")
		number, isDB := strings.CutPrefix(name, "db")
		if !found || !isDB || number == strconv.Itoa(but) {
			continue
		}
		keys, _, _ := strings.Cut(fields, ",")
		others[number], _ = strconv.ParseInt(keys, 10, 64) // a foreign one counts none
	}
	return others
}

// saysWho reports whether a run_id tells processes apart. Services that hide their
// servers answer zeros, other programs nothing.
func saysWho(run string) bool { return strings.Trim(run, "0") != "" }

// ErrAnew ends an import whose marks mean nothing to the process that answers now.
var ErrAnew = errors.New("the server was started anew, or another one answers now, so that the cursor of the walk means nothing any more: nothing of this walk counts, the same command begins again")

// errUnsure is ErrAnew of a server that does not say which process it is.
var errUnsure = fmt.Errorf("a new connection to a server without a run_id: %w", ErrAnew)

// check looks at what the process says that answered: whether it is still the one that
// the cursor is of.
func (s *liveSource) check(info *redis.Cmd) error {
	text, err := info.Text()
	switch {
	case err != nil:
		return fmt.Errorf("INFO server: %w", err)
	case infoField(text, "run_id") != s.id.Run:
		return ErrAnew
	case !saysWho(s.id.Run) && s.dials.Load() > 1:
		return errUnsure
	}
	return nil
}

func (s *liveSource) identity() Identity { return s.id }
func (s *liveSource) close() error       { return s.cl.Close() }

func (s *liveSource) restarted(before Identity) bool {
	return before.Run != s.id.Run || !saysWho(s.id.Run)
}

// resume goes on at a cursor.
func (s *liveSource) resume(m mark, seen int64) {
	s.following, s.last, s.walked = m.Cursor, m.End, seen
	s.others = nil // counted before
}

// next takes a part of what a SCAN answered: as much as may be in one page.
func (s *liveSource) next(ctx context.Context) (*page, error) {
	if len(s.rest) == 0 {
		if s.last {
			return nil, io.EOF
		}
		if err := s.scan(ctx); err != nil {
			return nil, err
		}
	}
	p := newPage()
	for db, keys := range s.others {
		p.mu.counts.elsewhere(db, keys)
	}
	s.others = nil
	if err := s.fill(ctx, p); err != nil {
		return nil, err
	}
	// The mark moves when all that the cursor stands for has been taken.
	p.mark.Cursor = s.cursor
	if len(s.rest) == 0 {
		p.mark.Cursor, p.mark.End = s.following, s.last
	}
	p.share = min(1, float64(s.walked)/float64(max(s.keys, 1)))
	return p, nil
}

func (s *liveSource) scan(ctx context.Context) error {
	args := []any{"SCAN", s.following, "COUNT", pageKeys}
	if s.cfg.Match != "" {
		args = append(args, "MATCH", s.cfg.Match)
	}
	cmds, err := s.ask(ctx, []string{""}, func(pipe redis.Pipeliner, _ int) { pipe.Do(ctx, args...) })
	if err != nil {
		return err
	}
	answer, err := cmds[0].Slice()
	if err != nil {
		return err
	}
	if len(answer) != 2 {
		return fmt.Errorf("SCAN answers %d parts", len(answer))
	}
	list, _ := answer[1].([]any)
	s.cursor = s.following
	if s.following, err = strconv.ParseUint(fmt.Sprint(answer[0]), 10, 64); err != nil {
		return fmt.Errorf("SCAN answers the cursor %v", answer[0])
	}
	seen := make(map[string]bool, len(list))
	for _, k := range list {
		if key := fmt.Sprint(k); !seen[key] {
			seen[key] = true
			s.rest = append(s.rest, key)
		}
	}
	s.last = s.following == 0
	s.walked += int64(len(list))
	return nil
}

// fill takes as many keys as a page may hold.
func (s *liveSource) fill(ctx context.Context, p *page) error {
	types, sizes, err := s.look(ctx, s.rest)
	if err != nil {
		return err
	}
	var wanted []string
	var bytes int64 // that wanted will be in the page
	n := 0
	for ; n < len(s.rest) && bytes+int64(len(p.mu.lines)) < pageBytes; n++ {
		key := s.rest[n]
		switch {
		case types[n] == "none": // gone since
		case types[n] != "string":
			p.mu.counts.note(types[n], sizes[n])
			p.mu.counts.Unsupported++
			p.name([]byte(key), types[n], "of a type that is not stored")
		case len(key) > s.cfg.MaxKey:
			s.tooLong(p, key, sizes[n], "the key is too long")
		case sizes[n] > int64(s.cfg.MaxValue):
			s.tooLong(p, key, sizes[n], fmt.Sprintf("%d bytes are too long", sizes[n]))
		case s.cfg.DryRun:
			p.mu.counts.note("string", sizes[n])
		default:
			wanted = append(wanted, key)
			bytes += int64(len(key)) + sizes[n]
		}
	}
	s.rest = s.rest[n:]
	return s.get(ctx, p, wanted)
}

func (s *liveSource) tooLong(p *page, key string, size int64, why string) {
	p.mu.counts.note("string", size)
	p.mu.counts.TooLong++
	p.name([]byte(key), "string", why)
}

// look asks for the types of keys and for how large their values are: of strings how
// long, of others what memory they take, if the server says so.
func (s *liveSource) look(ctx context.Context, keys []string) (types []string, sizes []int64, err error) {
	kinds, err := s.ask(ctx, keys, func(pipe redis.Pipeliner, i int) { pipe.Do(ctx, "TYPE", keys[i]) })
	if err != nil {
		return nil, nil, err
	}
	for _, k := range kinds {
		kind, err := k.Text()
		if err != nil { // it is loading, say
			return nil, nil, fmt.Errorf("TYPE: %w", err)
		}
		types = append(types, kind)
	}
	large, err := s.ask(ctx, keys, func(pipe redis.Pipeliner, i int) {
		if types[i] == "string" {
			pipe.Do(ctx, "STRLEN", keys[i])
			return
		}
		pipe.Do(ctx, "MEMORY", "USAGE", keys[i])
	})
	if err != nil {
		return nil, nil, err
	}
	for _, l := range large {
		n, _ := l.Int64() // gone, or not said
		sizes = append(sizes, n)
	}
	return types, sizes, nil
}

// ask sends one command for each key; each may be called twice. What the server answers
// to each is for the caller. Before them goes the question which process answers: a
// connection that broke is made anew unseen, and to another process a cursor is a number
// like any other.
func (s *liveSource) ask(ctx context.Context, keys []string, each func(pipe redis.Pipeliner, i int)) ([]*redis.Cmd, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	cmds, err := s.exec(ctx, keys, each)
	if err != nil && ctx.Err() == nil {
		cmds, err = s.exec(ctx, keys, each) // over another connection
	}
	if err != nil {
		// Not io.EOF itself, which says that there are no more pages.
		return nil, fmt.Errorf("%s: %w", s.cfg.From.Addrs[0], err)
	}
	if err := s.check(cmds[0].(*redis.Cmd)); err != nil {
		return nil, err
	}
	cmds = cmds[1:]
	out := make([]*redis.Cmd, len(cmds))
	for i, c := range cmds {
		out[i] = c.(*redis.Cmd)
	}
	return out, nil
}

// exec sends the question who answers, and one command for each key.
func (s *liveSource) exec(ctx context.Context, keys []string, each func(pipe redis.Pipeliner, i int)) ([]redis.Cmder, error) {
	pipe := s.cl.Pipeline()
	pipe.Do(ctx, "INFO", "server")
	for i := range keys {
		each(pipe, i)
	}
	cmds, err := pipe.Exec(ctx)
	if err != nil && !isReply(err) {
		return nil, err
	}
	return cmds, nil
}

// expiry asks when a key ends: at which time, or after which.
func (s *liveSource) expiry() string {
	if s.absolute {
		return "PEXPIRETIME"
	}
	return "PTTL"
}

// get asks for values with their ends, both of one moment.
func (s *liveSource) get(ctx context.Context, p *page, keys []string) error {
	now := time.Now()
	cmds, err := s.ask(ctx, keys, func(pipe redis.Pipeliner, i int) {
		pipe.Do(ctx, "MULTI")
		pipe.Do(ctx, "GETRANGE", keys[i], 0, s.cfg.MaxValue) // one byte more than it may have
		pipe.Do(ctx, s.expiry(), keys[i])
		pipe.Do(ctx, "EXEC")
	})
	if err != nil {
		return err
	}
	const each = 4
	for i, key := range keys {
		got, err := cmds[i*each+each-1].Slice()
		if err != nil || len(got) != 2 {
			return fmt.Errorf("read %.50q: %v, %w", key, cmds[i*each+1], err)
		}
		end, known := got[1].(int64)
		value, isText := got[0].(string)
		if !isText || !known { // another type since
			p.mu.counts.note("unknown", 0)
			p.mu.counts.Unsupported++
			p.name([]byte(key), "unknown", fmt.Sprintf("was a string and is none any more: %v", got[0]))
			continue
		}
		at, gone := s.endOf(end, now)
		switch {
		case gone || p.over(at, now):
		case len(value) > s.cfg.MaxValue:
			s.tooLong(p, key, int64(len(value)), "grown too long")
		default:
			p.mu.counts.note("string", int64(len(value)))
			p.take(item{kind: "string", key: []byte(key), value: []byte(value), bytes: int64(len(value)), expireAtMS: at})
		}
	}
	return nil
}

// endOf is the time at which a key ends, 0 for never; gone means that it has.
func (s *liveSource) endOf(answer int64, now time.Time) (atMS int64, gone bool) {
	switch {
	case answer == -2:
		return 0, true
	case answer < 0:
		return 0, false
	case s.absolute:
		return answer, false
	case answer > math.MaxInt64-now.UnixMilli():
		return 0, false
	}
	return now.UnixMilli() + answer, false
}
