package node

import (
	"context"
	"sync"
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

func newWorkers() *workers { return &workers{queue: make(chan func(), diskQueue), count: diskWorkers} }

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
