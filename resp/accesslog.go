package resp

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// defaultACLLog is how many refusals ACL LOG keeps.
	defaultACLLog = 128
	// maxACLLog is how many it may be told to keep.
	maxACLLog = 1 << 16
	// logShown is how many ACL LOG shows when it is not told.
	logShown = 10
	// logGroup is for how long the same refusal counts up one entry, logLooked among
	// how many of the newest it is looked for.
	logGroup  = time.Minute
	logLooked = 10
	// logBytes is what an entry has of a name.
	logBytes = kib
)

// An accessEntry is a refusal, or several that are the same.
type accessEntry struct {
	reason, context, object, user string
	client                        string
	at                            time.Time
	count                         int64
}

func (e *accessEntry) same(f *accessEntry) bool {
	return e.reason == f.reason && e.context == f.context && e.object == f.object && e.user == f.user &&
		f.at.Sub(e.at) <= logGroup
}

// accessLog keeps what was refused, newest first.
type accessLog struct {
	most atomic.Int64
	mu   struct {
		sync.Mutex
		entries []accessEntry
	}
}

func (l *accessLog) add(e accessEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.count, e.client = 1, strings.TrimSuffix(e.client, "\n")
	all := l.mu.entries
	newest := all[:min(len(all), logLooked)]
	if i := slices.IndexFunc(newest, func(f accessEntry) bool { return f.same(&e) }); i >= 0 {
		e.count += all[i].count
		all = slices.Delete(all, i, i+1)
	}
	all = slices.Insert(all, 0, e)
	l.mu.entries = all[:min(int64(len(all)), l.most.Load())]
	clear(all[len(l.mu.entries):])
}

// list is the newest n entries, copied.
func (l *accessLog) list(n int64) []accessEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.entries[:min(max(n, 0), int64(len(l.mu.entries)))])
}

func (l *accessLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.entries = nil
}
