package migrate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// errInUse says that an import with this state is under way.
var errInUse = errors.New("another import has this state, and runs")

// A lock keeps a state for one import at a time. It is a file of its own, since the
// state is replaced with each save. Nil locks nothing.
type lock struct{ file *os.File }

// takeLock locks the state at path.
func takeLock(path string) (*lock, error) {
	name := path + ".lock"
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		locked, err := tryLock(f)
		if err == nil && !locked {
			err = fmt.Errorf("%s: %w", path, errInUse)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// Whoever had it before may have removed it between the opening and the locking.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if now, err := os.Stat(name); err == nil && os.SameFile(mine, now) {
			return &lock{f}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// release gives the state to the next import.
func (l *lock) release() error {
	if l == nil {
		return nil
	}
	err := os.Remove(l.file.Name()) // while it is locked
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.file.Close())
}
