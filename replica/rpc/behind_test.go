package rpc

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// laggard is a server that refuses merges, since it is behind, until it was handed a state
// that it wants; and the caller's node.
type laggard struct {
	mu     sync.Mutex
	state  []byte // the caller's
	wants  string
	taken  []string
	slow   time.Duration // a state takes so long to merge
	answer error
}

func (l *laggard) now() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *laggard) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *laggard) handler() *fakeHandler {
	return &fakeHandler{
		merge: func(_ MergeRequest, _ Meta, reply func(error)) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.taken) > 0 && l.taken[len(l.taken)-1] == l.wants {
				reply(nil)
				return
			}
			reply(Behind(ErrNotOwner))
		},
		state: func(m StateRequest, x Meta, reply func(error)) {
			if x.Class != Foreground {
				panic("a hand-over that clients wait for has no urgency")
			}
			time.AfterFunc(l.slow, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.answer == nil {
					l.taken = append(l.taken, string(m.State))
				}
				reply(l.answer)
			})
		},
	}
}

func (l *laggard) rig(t *testing.T) *rig {
	return newRig(t, l.handler(), PoolConfig{State: l.now}, ServerConfig{})
}

// mergeTwice merges, and once more when a peer that is behind is said to be so no longer.
func (r *rig) mergeTwice(o Options) error {
	err := r.merge([]byte("record"), o)
	if !errors.Is(err, ErrBehind) {
		return err
	}
	if failed := r.handOver(o.Deadline); failed != nil {
		return errors.Join(failed, err)
	}
	return r.merge([]byte("record"), o)
}

func (r *rig) handOver(deadline time.Time) error {
	ended := make(chan error, 2)
	r.peer.HandOver(deadline, func(err error) { ended <- err })
	return <-ended
}

func TestWhoeverIsBehindIsHandedTheStateOnceAndThenCarriesOutWhatItRefused(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := &laggard{state: []byte("state"), wants: "state", slow: 50 * time.Millisecond}
		r := l.rig(t)
		errs := make(chan error, 1000)
		for range cap(errs) {
			go func() { errs <- r.mergeTwice(within(time.Second)) }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if len(l.taken) != 1 || r.counter("rpc_states_handed_over_total") != 1 || r.counter("rpc_requests_behind_total") != 1000 || !r.peer.Up() {
			t.Errorf("%d states taken, %d handed over, %d requests counted", len(l.taken), r.counter("rpc_states_handed_over_total"), r.counter("rpc_requests_behind_total"))
		}
		// Nobody asks for it, and the peer has it before the next request.
		l.set(func() { l.state, l.wants = []byte("another"), "another" })
		if err := r.merge(nil, within(time.Second)); !errors.Is(err, ErrBehind) || !errors.Is(err, ErrNotOwner) {
			t.Fatal(err)
		}
		pass(l.slow + 10*time.Millisecond)
		if err := r.merge(nil, within(time.Second)); err != nil || len(l.taken) != 2 {
			t.Errorf("%v, %d states taken", err, len(l.taken))
		}
	})
}

// A peer that goes on refusing gets one state a second, and one that cannot take any is
// left alone for a moment.
func TestHandOversAreBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := &laggard{state: []byte("state"), wants: "none there is"}
		r := l.rig(t)
		ask := func() {
			t.Helper()
			for range 100 {
				if err := r.mergeTwice(within(time.Second)); !errors.Is(err, ErrNotOwner) {
					t.Fatal(err)
				}
			}
		}
		ask()
		if len(l.taken) != 1 {
			t.Fatalf("%d states taken", len(l.taken))
		}
		pass(handOverAgain)
		ask()
		if len(l.taken) != 2 {
			t.Fatalf("%d states taken after a second", len(l.taken))
		}
		l.set(func() { l.state, l.answer = []byte("another"), ErrOverloaded })
		ask()
		if n := r.counter("rpc_states_handed_over_total"); n != 3 {
			t.Fatalf("%d states handed over, the last one refused", n)
		}
		pass(handOverPause)
		l.set(func() { l.answer = nil })
		ask()
		if n := r.counter("rpc_states_handed_over_total"); n != 4 || len(l.taken) != 3 {
			t.Errorf("%d states handed over, %d taken, after a pause", n, len(l.taken))
		}
	})
}

func TestAWaitForAHandOverEndsInHalfOfTheTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := &laggard{state: []byte("state"), slow: time.Hour}
		r := l.rig(t)
		began := time.Now()
		for _, c := range []struct{ left, takes time.Duration }{{400 * time.Millisecond, 200 * time.Millisecond}, {100 * time.Millisecond, 50 * time.Millisecond}, {-1, 0}} {
			if err := r.handOver(began.Add(c.left)); err != ErrTimeout || time.Since(began) != c.takes {
				t.Errorf("with %v left: %v after %v", c.left, err, time.Since(began))
			}
			began = time.Now()
		}
		pass(handOverTimeout) // the hand-over has ended, and nobody is told twice
		if err := r.handOver(time.Now().Add(time.Hour)); err != ErrTimeout {
			t.Errorf("it has failed a moment ago: %v", err)
		}
		pass(handOverPause)
		for range maxHandOverWaits {
			r.peer.HandOver(time.Time{}, func(error) {})
		}
		if err := r.handOver(time.Time{}); err != ErrOverloaded {
			t.Errorf("one that waits too many: %v", err)
		}
		time.Sleep(time.Hour)
	})
}

func TestAStateThatCannotBeHandedOverIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		size int
		want error
	}{"none": {0, ErrUnsupported}, "too large": {2 << 10, ErrTooLarge}, "just right": {2<<10 - headerBytes - fixedBytes, nil}} {
		bubble.Test(t, func(t *testing.T) {
			state := []byte(big(c.size))
			l := &laggard{state: state, wants: string(state)}
			r := newRig(t, l.handler(), PoolConfig{State: l.now, MaxFrameBytes: 2 << 10}, ServerConfig{})
			err := r.mergeTwice(within(time.Second))
			if c.want == nil && err != nil || c.want != nil && (!errors.Is(err, c.want) || !errors.Is(err, ErrNotOwner)) {
				t.Errorf("%s: %v", name, err)
			}
			if r.net.dialed() != 1 || r.counter(`rpc_bad_frames_total{side="server"}`) != 0 {
				t.Errorf("%s: %d dials", name, r.net.dialed())
			}
		})
	}
}

// A program of before knows neither the message nor the error.
func TestAPeerOfVersion4IsHandedNothing(t *testing.T) {
	for name, c := range map[string]struct{ caller, server Levels }{
		"a newer caller": {Levels{1, 2}, Levels{1, 1}}, "an older caller": {Levels{1, 1}, Levels{1, 2}},
	} {
		bubble.Test(t, func(t *testing.T) {
			l := &laggard{state: []byte("state"), wants: "state"}
			var ln net.Listener // a dial waits for whoever accepts
			r := newRigWith(t, PoolConfig{State: l.now, Levels: newRising(c.caller.InForce, c.caller.Highest).levels}, func(r *rig) { ln = r.net.listen("two") })
			early := make(chan error, 1)
			r.peer.HandOver(time.Time{}, func(err error) { early <- err })
			synctest.Wait()
			r.serveOn(ln, l.handler(), ServerConfig{Levels: newRising(c.server.InForce, c.server.Highest).levels})
			if err := <-early; err != ErrUnsupported {
				t.Errorf("%s: one that waited for the connection: %v", name, err)
			}
			if err := r.merge(nil, within(time.Second)); err != ErrNotOwner {
				t.Errorf("%s: %v", name, err)
			}
			pass(handOverAgain)
			if err := r.handOver(time.Time{}); err != ErrUnsupported {
				t.Errorf("%s: %v", name, err)
			}
			if len(l.taken) != 0 || r.counter(`rpc_bad_frames_total{side="server"}`) != 0 || r.net.dialed() != 1 {
				t.Errorf("%s: %d taken, %d dials", name, len(l.taken), r.net.dialed())
			}
		})
	}
}

func TestAStateOnAConnectionOfVersion4IsABadFrame(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, (&laggard{}).handler(), PoolConfig{}, ServerConfig{Levels: newRising(1, 1).levels})
		synctest.Wait()
		conn := r.greeted(1 << 20)
		r.send(conn, frame(header{kind: KindState, id: 1}, []byte("state")))
		synctest.Wait()
		if _, err := io.Copy(io.Discard, conn); err != nil || r.counter(`rpc_bad_frames_total{side="server"}`) != 1 {
			t.Errorf("%v", err)
		}
	})
}
