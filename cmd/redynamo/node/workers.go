package node

import (
	"context"
	"sync"
	"time"

	"github.com/redynamo/redynamo/coordinator"
)

// workers run what must wait for the disk on behalf of goroutines that must
// not: those that read connections. The queue is bounded; what does not fit is
// refused, and its caller tells the client so.
type workers struct {
	queue chan func()
	count int
}

// Reads that miss every cache take about as long as the disk needs for a
// block; more of them at once than this do not make it faster.
const (
	diskWorkers = 16
	diskQueue   = 4096
)

// Work that no client waits for gets few workers: it must not stand in the way
// of what does.
const (
	backWorkers = 2
	backQueue   = 256
)

func newWorkers(count, queue int) *workers {
	return &workers{queue: make(chan func(), queue), count: count}
}

// later has a worker run f: with nil, or with the reason why f must not do its
// work, which is too late or would be too much.
func (w *workers) later(deadline time.Time, f func(error)) {
	ok := w.try(func() {
		if !deadline.IsZero() && time.Now().After(deadline) {
			f(coordinator.ErrLost)
			return
		}
		f(nil)
	})
	if !ok {
		f(coordinator.ErrOverloaded)
	}
}

// try hands f over, or reports false if the queue is full.
func (w *workers) try(f func()) bool {
	select {
	case w.queue <- f:
		return true
	default:
		return false
	}
}

// Run works until ctx ends, then does what is queued and returns.
func (w *workers) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range w.count {
		wg.Go(func() {
			for {
				select {
				case f := <-w.queue:
					f()
				case <-ctx.Done():
					w.drain()
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func (w *workers) drain() {
	for {
		select {
		case f := <-w.queue:
			f()
		default:
			return
		}
	}
}
