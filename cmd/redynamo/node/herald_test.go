package node

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/resp"
)

// silent answers no message until it is told to.
type silent struct {
	handler
	mu      sync.Mutex
	replies []func(error)
	more    chan struct{}
}

func (s *silent) ServePublish(_ rpc.PublishRequest, _ rpc.Meta, reply func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies = append(s.replies, reply)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func TestMessagesThatANodeDoesNotAnswerAreBoundedAndThoseOverTheBoundAreCounted(t *testing.T) {
	s := &silent{more: make(chan struct{}, 1)}
	pool := runPool(t, rpc.PoolConfig{})
	h := heraldOf(metrics.NewSet())
	h.peer, h.others = pool.Get, func() []nodeID { return []nodeID{2, 3} } // of 3 nothing is known
	pool.Peer(2, serveAs(t, rpc.ServerConfig{Node: 2, Handler: s}))
	for range heraldMessages + 10 {
		h.Broadcast(resp.Message{Channel: []byte("a"), Payload: []byte("x")})
	}
	if n := h.count.crowded.Get(); n != 10 {
		t.Errorf("%d were dropped, want 10", n)
	}
	within(t, "an answer to all", func() {
		for n := 0; n < heraldMessages; {
			<-s.more
			s.mu.Lock()
			replies := s.replies
			s.replies = nil
			s.mu.Unlock()
			for _, reply := range replies {
				reply(nil)
			}
			n += len(replies)
		}
		for h.count.sent.Get() < heraldMessages {
			time.Sleep(time.Millisecond)
		}
	})
	u, _ := h.under.Load(nodeID(2))
	if m, b := u.(*underWay).messages.Load(), u.(*underWay).bytes.Load(); m != 0 || b != 0 {
		t.Errorf("%d messages and %d bytes are still under way", m, b)
	}
	large := resp.Message{Channel: []byte("a"), Payload: make([]byte, heraldBytes/3)}
	for range 4 {
		h.Broadcast(large)
	}
	if n := h.count.crowded.Get(); n != 12 {
		t.Errorf("%d were dropped, want 2 large ones more", n-10)
	}
}

func TestWhatBecameOfAMessageIsCounted(t *testing.T) {
	h := heraldOf(metrics.NewSet())
	for err, want := range map[error]*metrics.Counter{
		nil: h.count.sent, rpc.ErrUnreachable: h.count.unreachable, rpc.ErrTimeout: h.count.lost, rpc.ErrClosed: h.count.lost,
		rpc.ErrOverloaded: h.count.refused, rpc.ErrUnsupported: h.count.refused, rpc.ErrTooLarge: h.count.refused,
	} {
		if got := h.outcome(err); got != want {
			t.Errorf("%v is counted as something else", err)
		}
	}
}

func TestMessagesOfOtherNodesAreDeliveredInOrderAndRefusedWhenTooManyWait(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	deliver := func(left time.Duration) error {
		ended := make(chan error, 1)
		m := rpc.PublishRequest{Channel: []byte("a"), Payload: []byte("x")}
		handler{n}.ServePublish(m, rpc.Meta{Deadline: time.Now().Add(left)}, func(err error) { ended <- err })
		return <-ended
	}
	if got := []error{deliver(patience), deliver(-1)}; !slices.Equal(got, []error{nil, rpc.ErrTimeout}) {
		t.Errorf("in time and too late: %v", got)
	}
	if n.herald.count.heard.Get() != 1 {
		t.Error("what came too late was delivered")
	}
	block := make(chan struct{})
	n.herald.heard.later(time.Time{}, func(error) { <-block })
	for n.herald.heard.try(func() {}) {
	}
	if err := deliver(patience); err != rpc.ErrOverloaded {
		t.Errorf("with as many that wait as may: %v", err)
	}
	close(block)
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
