package node

import (
	"context"
	"fmt"
	"sync"
)

// task is long work of one part of a node. Run returns nil when its context
// ends; any other return means the part cannot go on, and the node stops with
// that cause: failing whole beats missing repair in silence.
type task struct {
	name string
	run  func(context.Context) error
}

// supervisor runs tasks until it is stopped or one of them fails.
type supervisor struct {
	ctx    context.Context // of the tasks; the one place that owns their lifetime
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newSupervisor() *supervisor {
	s := &supervisor{}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// start runs t beside the others.
func (s *supervisor) start(t task) {
	s.wg.Go(func() {
		if err := t.run(s.ctx); err != nil {
			s.fail(fmt.Errorf("task %s: %w", t.name, err))
		}
	})
}

// fail ends all tasks with a cause; the first cause is kept.
func (s *supervisor) fail(err error) { s.cancel(err) }

// stop ends all tasks and waits for them.
func (s *supervisor) stop() {
	s.cancel(context.Canceled)
	s.wg.Wait()
}

// failed is the cause that a task gave, or nil.
func (s *supervisor) failed() error {
	if err := context.Cause(s.ctx); err != nil && err != context.Canceled {
		return err
	}
	return nil
}
