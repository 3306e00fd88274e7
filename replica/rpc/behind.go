package rpc

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// This file brings peers up to date that refuse requests, since they have not heard of
// the epochs which these go by.

const (
	// handOverTimeout is how long a peer may take to merge a state, at most: it saves it.
	handOverTimeout = time.Second
	// handOverAgain is how long a state that a peer has merged is not handed to it again.
	handOverAgain = time.Second
	// handOverPause is how long none is after one that failed.
	handOverPause = 100 * time.Millisecond
	// maxHandOverWaits bounds the calls that wait for one hand-over.
	maxHandOverWaits = 4096
)

// behindError is ErrBehind with what the request is refused with by whoever knows of no
// such error, or cannot be brought up to date.
type behindError struct{ refusal error }

// Error implements error.
func (e *behindError) Error() string { return ErrBehind.Error() + ": " + e.refusal.Error() }

// Is makes errors.Is(e, ErrBehind) hold.
func (e *behindError) Is(target error) bool { return target == ErrBehind }

// Unwrap makes e match the refusal.
func (e *behindError) Unwrap() error { return e.refusal }

// Behind marks the refusal of a request that goes by epochs which this node has not heard
// of: what it knows may be why it refuses.
func Behind(refusal error) error { return &behindError{refusal} }

// errorIn is the error that a version of the protocol has for err.
func errorIn(version uint16, err error) error {
	var b *behindError
	if version < 5 && errors.As(err, &b) {
		return b.refusal
	}
	return err
}

// StateRequest brings the peer what this node holds of the cluster, as package membership
// encodes it: this package does not look inside. Its reply carries nothing; it means that
// the state is merged, and that requests are judged by it.
type StateRequest struct {
	State []byte
}

// AppendStateRequest appends the encoding of m.
func AppendStateRequest(dst []byte, m StateRequest) []byte { return append(dst, m.State...) }

// DecodeStateRequest is the inverse of AppendStateRequest. The state aliases b.
func DecodeStateRequest(b []byte) (StateRequest, error) { return StateRequest{State: b}, nil }

// errand is what a peer is handed of this node's state. One hand-over runs at a time, and
// whoever else needs it waits for that one.
type errand struct {
	mu struct {
		sync.Mutex
		running bool
		waiting []*waiter
		state   *byte // the first of the state that was brought last
		ended   time.Time
		err     error
	}
}

// waiter is somebody who waits for a hand-over, for a while.
type waiter struct {
	done  func(error)
	timer *time.Timer
	over  atomic.Bool
}

// waitFor begins a wait.
func waitFor(done func(error), patience time.Duration) *waiter {
	w := &waiter{done: done}
	w.timer = time.AfterFunc(patience, func() { w.end(ErrTimeout) })
	return w
}

// tell says how the hand-over ended, if somebody waits.
func (w *waiter) tell(err error) {
	if w != nil {
		w.timer.Stop()
		w.end(err)
	}
}

// end ends the wait, unless it has ended. The timer may come before waitFor has it.
func (w *waiter) end(err error) {
	if !w.over.Swap(true) {
		w.done(err)
	}
}

// HandOver brings the peer this node's state, for it has answered ErrBehind. done is told
// nil when it may be asked again, which is at once if it has had that state a moment ago;
// and why not, if it is not up to date in half of the time that is left. Like the done of
// any call it must not block.
func (p *Peer) HandOver(deadline time.Time, done func(error)) {
	patience := handOverTimeout
	if !deadline.IsZero() {
		patience = time.Until(deadline) / 2
	}
	p.handOver(waitFor(done, patience))
}

// handOver lets w wait for a hand-over, and begins it if none runs. w may be nil.
func (p *Peer) handOver(w *waiter) {
	state := p.pool.cfg.State()
	if len(state) == 0 {
		w.tell(ErrUnsupported)
		return
	}
	next, err := p.errand.join(&state[0], w, time.Now())
	switch next {
	case errandOver:
		w.tell(err)
	case errandBegins:
		p.pool.count.handOvers.Inc()
		o := Options{Deadline: time.Now().Add(handOverTimeout)} // foreground: clients wait for it
		p.call(KindState, o, len(state), func(b []byte) []byte {
			return AppendStateRequest(b, StateRequest{State: state})
		}, ackDone(func(err error) { p.errand.end(&state[0], err) }))
	}
}

// heardBehind begins a hand-over if an error reply asks for one, whoever made the call
// and whatever becomes of it then.
func (p *Peer) heardBehind(payload []byte) {
	if len(payload) > 0 && code(payload[0]) == codeBehind {
		p.handOver(nil)
	}
}

// errandStep is what becomes of somebody who needs a hand-over.
type errandStep uint8

const (
	errandOver   errandStep = iota // it has been tried a moment ago
	errandWaits                    // it runs
	errandBegins                   // the caller has to begin it
)

// join lets w wait for the hand-over of a state, unless it is over: then the error is how
// it ended, or that there are too many who wait.
func (e *errand) join(state *byte, w *waiter, now time.Time) (errandStep, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	since := now.Sub(e.mu.ended)
	switch {
	case len(e.mu.waiting) >= maxHandOverWaits:
		return errandOver, ErrOverloaded
	case e.mu.running:
		e.waitLocked(w)
		return errandWaits, nil
	case e.mu.err == nil && e.mu.state == state && since < handOverAgain:
		return errandOver, nil
	case e.mu.err != nil && since < handOverPause:
		return errandOver, e.mu.err
	}
	e.mu.running = true
	e.waitLocked(w)
	return errandBegins, nil
}

func (e *errand) waitLocked(w *waiter) {
	if w != nil {
		e.mu.waiting = append(e.mu.waiting, w)
	}
}

// end tells all that wait how the hand-over of a state has ended.
func (e *errand) end(state *byte, err error) {
	e.mu.Lock()
	waiting := e.mu.waiting
	e.mu.waiting, e.mu.running = nil, false
	e.mu.state, e.mu.ended, e.mu.err = state, time.Now(), err
	e.mu.Unlock()
	for _, w := range waiting {
		w.tell(err)
	}
}
