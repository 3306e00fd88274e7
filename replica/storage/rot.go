package storage

import (
	"path"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// tableSuffix is how the engine names the files of its tables.
const tableSuffix = ".sst"

const (
	// salvagePause is the pause after damage could not be taken out of a table.
	salvagePause = 10 * time.Second
	// maxSuspects bounds the tables that wait. One that finds no place is reported
	// again by the next read of its damage.
	maxSuspects = 1 << 14
)

// rot is the damage that is known and not yet out of the tables.
type rot struct {
	ask  chan struct{} // holds a token when there is something new
	fill chan fillOrder
	born uint64 // holes made; of whoever applies
	mu   struct {
		sync.Mutex
		suspects map[string]time.Time // by file: no try before
	}
}

func (r *rot) init() {
	r.ask, r.fill = make(chan struct{}, 1), make(chan fillOrder)
	r.mu.suspects = map[string]time.Time{}
}

// suspect notes a table that is damaged, and reports whether that is news.
func (r *rot) suspect(file string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.mu.suspects[file]; known || len(r.mu.suspects) >= maxSuspects {
		return false
	}
	r.mu.suspects[file] = time.Time{}
	signal(r.ask)
	return true
}

// suspected reports whether a table is damaged.
func (r *rot) suspected(file string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.mu.suspects[file]
	return known
}

// due returns a table whose time has come.
func (r *rot) due(now time.Time) (file string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for file, at := range r.mu.suspects {
		if !now.Before(at) {
			return file, true
		}
	}
	return "", false
}

// settle drops a table, or puts off the next try.
func (r *rot) settle(file string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.mu.suspects[file] = time.Now().Add(salvagePause)
		return
	}
	delete(r.mu.suspects, file)
}

// corruptFile is told by the engine of damage that it met in a file.
// Note: locks of the engine may be held.
func (s *Store) corruptFile(info pebble.DataCorruptionInfo) {
	s.meters.corruptions.Inc()
	file := path.Base(strings.ReplaceAll(info.Path, "\\", "/"))
	if !strings.HasSuffix(file, tableSuffix) || s.rot.suspect(file) {
		s.cfg.Logger.Error("storage: corrupt file", "path", info.Path, "err", info.Details)
	}
}
