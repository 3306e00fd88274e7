package coordinator

import (
	"context"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// answer is what one node said to a question put to several.
type answer[T any] struct {
	value T
	err   error
}

// gather puts n questions at once and waits for all answers. Peers give up at
// the deadline of their question, so the context only makes it end sooner; what
// comes later is dropped.
func gather[T any](ctx context.Context, n int, ask func(i int, done func(T, error))) ([]answer[T], error) {
	type indexed struct {
		i int
		answer[T]
	}
	replies := make(chan indexed, n)
	for i := range n {
		ask(i, func(v T, err error) { replies <- indexed{i, answer[T]{v, err}} })
	}
	answers := make([]answer[T], n)
	for range n {
		select {
		case r := <-replies:
			answers[r.i] = r.answer
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return answers, nil
}

// deadlineOf is when questions asked on behalf of ctx are given up.
func (c *Coordinator) deadlineOf(ctx context.Context) time.Time {
	d := time.Now().Add(c.cfg.ReadTimeout)
	if end, ok := ctx.Deadline(); ok && end.Before(d) {
		return end
	}
	return d
}

// firstLive is the first owner of a partition that is up: the node that
// "owned" surveys count it for, and that the cluster door shows as its master.
func (c *Coordinator) firstLive(r *ring.Ring, partition int) ring.NodeID {
	for _, n := range r.Owners(partition) {
		if c.up(n) {
			return n
		}
	}
	return 0
}
