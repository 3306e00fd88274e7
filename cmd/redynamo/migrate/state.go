package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// An Identity says what a mark belongs to.
type Identity struct {
	Source  string // path or address
	Version string // of a file: what it is besides its path
	Run     string // of a server: its run_id
}

// state is what an import leaves behind until it has ended, as JSON.
type state struct {
	Format      int // 1
	Identity    Identity
	Cluster     string // that is written to: its cluster_id; empty: it tells none
	DB          int
	Match       string
	Replace     bool
	Mark        mark
	Counts      Counts
	ReportBytes int64 // length of the report that belongs to the mark
}

const stateFormat = 1

// load reads the state there is, nil for none.
func load(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s: %w; --restart begins anew", path, err)
	}
	if s.Format != stateFormat {
		return nil, fmt.Errorf("%s: format %d, not %d; --restart begins anew", path, s.Format, stateFormat)
	}
	return &s, nil
}

// belongs tells whether the state is of the import that cfg asks for.
func (s *state) belongs(cfg *Config, id Identity, cluster string) error {
	if s.Cluster != cluster {
		return fmt.Errorf("%s: %w (into cluster %q, and this is %q)", cfg.State, errOther, s.Cluster, cluster)
	}
	id.Run = s.Identity.Run // a server that was started anew is the same source
	if s.Identity != id || s.DB != cfg.DB || s.Match != cfg.Match || s.Replace != cfg.Replace {
		return fmt.Errorf("%s: %w (source %s, db %d, match %q, replace %t)", cfg.State, errOther, s.Identity.Source, s.DB, s.Match, s.Replace)
	}
	return nil
}

// save replaces the state on the disk, whole or not at all.
func (s *state) save(path string) (err error) {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error that is answered says enough
	}
	return err
}

// report is the file that names what was not imported. There is none before the first
// line.
type report struct {
	path  string
	file  *os.File
	bytes int64
}

// openReport goes on behind what belongs to the mark.
func openReport(path string, bytes int64) (*report, error) {
	r := &report{path: path, bytes: bytes}
	if bytes == 0 {
		err := os.Remove(path) // of an import before
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return r, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(bytes); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(bytes, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.file = f
	return r, nil
}

func (r *report) add(lines []byte) (err error) {
	if len(lines) == 0 {
		return nil
	}
	if r.file == nil {
		if r.file, err = os.OpenFile(r.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	n, err := r.file.Write(lines)
	r.bytes += int64(n)
	return err
}

// sync has what was written on the disk before a state that counts on it.
func (r *report) sync() error {
	if r.file == nil {
		return nil
	}
	return r.file.Sync()
}

func (r *report) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
