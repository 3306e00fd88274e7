package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redynamo/redynamo/resp/glob"
	"github.com/redynamo/redynamo/resp/rdb"
)

// fileSource is an RDB file.
type fileSource struct {
	cfg  *Config
	file *os.File
	size int64
	id   Identity
	in   *rdb.File
	done bool
	fits func(key []byte) (bool, error)
}

func openFile(cfg *Config, at *mark) (*fileSource, error) {
	f, err := os.Open(cfg.File)
	if err != nil {
		return nil, err
	}
	s := &fileSource{cfg: cfg, file: f, fits: func([]byte) (bool, error) { return true, nil }}
	if cfg.Match != "" {
		s.fits = glob.Compile([]byte(cfg.Match)).Match
	}
	if err := s.begin(at); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *fileSource) begin(at *mark) error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	path, err := filepath.Abs(s.cfg.File)
	if err != nil {
		return err
	}
	s.size = info.Size()
	s.id = Identity{Source: path, Version: fmt.Sprintf("%d bytes of %s", s.size, info.ModTime().UTC().Format(time.RFC3339Nano))}
	limits := rdb.Limits{Key: s.cfg.MaxKey, Value: s.cfg.MaxValue}
	if s.done = at != nil && at.End; s.done {
		return nil
	}
	if at == nil || at.File == nil {
		s.in, err = rdb.Open(s.file, limits)
		return err
	}
	if _, err := s.file.Seek(at.File.Offset, io.SeekStart); err != nil {
		return err
	}
	s.in = rdb.Resume(s.file, limits, *at.File)
	return nil
}

func (s *fileSource) identity() Identity      { return s.id }
func (s *fileSource) restarted(Identity) bool { return false }
func (s *fileSource) close() error            { return s.file.Close() }

// next reads one page. The last one may be empty: the sum of the file was right then.
func (s *fileSource) next(context.Context) (*page, error) {
	if s.done {
		return nil, io.EOF
	}
	p, now := newPage(), time.Now()
	for n := 0; n < pageSeen && !p.full(); n++ {
		e, err := s.in.Next()
		if err == io.EOF {
			s.done = true
			p.share, p.mark.End = 1, true
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		if err := s.take(p, e, now); err != nil {
			return nil, err
		}
	}
	at := s.in.Position()
	p.mark.File, p.share = &at, float64(at.Offset)/float64(max(s.size, 1))
	return p, nil
}

// take decides what becomes of a key.
func (s *fileSource) take(p *page, e rdb.Entry, now time.Time) error {
	c := &p.mu.counts
	if e.Database != uint64(s.cfg.DB) {
		c.elsewhere(strconv.FormatUint(e.Database, 10), 1)
		return nil
	}
	fits, err := s.fits(e.Key)
	switch {
	case err != nil:
		return err
	case !fits:
		c.Unmatched++
		return nil
	case p.over(e.ExpireAtMS, now):
		return nil
	}
	c.note(e.Type, e.Bytes)
	switch {
	case e.Type != "string":
		c.Unsupported++
		p.name(e.Key, e.Type, "of a type that is not stored")
	case e.LongKey:
		c.TooLong++
		p.name(e.Key, e.Type, "the key is too long, this is its beginning")
	case e.LongValue:
		c.TooLong++
		p.name(e.Key, e.Type, fmt.Sprintf("%d bytes are too long", e.Bytes))
	default:
		p.take(item{kind: e.Type, key: e.Key, value: e.Value, bytes: e.Bytes, expireAtMS: e.ExpireAtMS})
	}
	return nil
}
