package storage

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// failedPause is the pause of compactions after one that failed. The engine
	// itself tries again at once, for ever, and one that meets damage fails early:
	// it would burn a core and fill the log.
	failedPause = time.Second
	// grantInterval is how often the engine is asked whether a compaction waits.
	grantInterval = 100 * time.Millisecond
)

// brake decides when the engine may compact: as many at once as it likes, but none
// for a while after one has failed. Flushes are not held up. It is the
// pebble.CompactionScheduler of one store.
type brake struct {
	db     pebble.DBForCompaction
	until  atomic.Int64 // unix ns; no compaction begins before
	failed atomic.Int64 // how often it was pulled
	stop   chan struct{}
	ended  chan struct{}
	poke   chan struct{} // holds a token when there may be something to grant
	mu     struct {
		sync.Mutex
		running int
		closed  bool
	}
}

// pull stops compactions for a while. It takes no locks.
func (b *brake) pull(now time.Time) {
	b.until.Store(now.Add(failedPause).UnixNano())
	b.failed.Add(1)
}

// pulled reports whether compactions must wait.
func (b *brake) pulled() bool {
	until := b.until.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// Register begins to grant.
func (b *brake) Register(_ int, db pebble.DBForCompaction) {
	b.db = db
	b.stop, b.ended, b.poke = make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	go b.grantLoop()
}

// Unregister ends granting and waits for that.
func (b *brake) Unregister() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	close(b.stop)
	<-b.ended
}

// take counts one more compaction if there may be one.
func (b *brake) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.pulled() || b.mu.running >= b.db.GetAllowedWithoutPermission() {
		return false
	}
	b.mu.running++
	return true
}

// giveBack undoes take.
func (b *brake) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.running--
}

// TrySchedule is asked by the engine, with its locks held.
func (b *brake) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if b.take() {
		return true, b
	}
	return false, nil
}

// grantLoop begins what waits, when there is room for it again.
func (b *brake) grantLoop() {
	defer close(b.ended)
	tick := time.NewTicker(grantInterval)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		case <-b.poke:
		}
		for b.take() {
			if waiting, _ := b.db.GetWaitingCompaction(); !waiting || !b.db.Schedule(b) {
				b.giveBack()
				break
			}
		}
	}
}

// UpdateGetAllowedWithoutPermission is told that more may be allowed.
func (b *brake) UpdateGetAllowedWithoutPermission() { signal(b.poke) }

// Done ends a compaction.
func (b *brake) Done() {
	b.giveBack()
	signal(b.poke)
}

// Started, MeasureCPU and CumulativeStats are of no interest.
func (b *brake) Started()                                          {}
func (b *brake) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (b *brake) CumulativeStats(pebble.CompactionGrantHandleStats) {}
