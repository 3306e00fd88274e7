package coordinator

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// scout looks among the nodes that could coordinate a write for one that is
// alive now. The first is asked first, because a key that keeps its coordinator
// makes no siblings; when that one takes long or fails, the next is asked too.
// Whoever answers first is taken.
type scout struct {
	c     *Coordinator
	nodes []ring.NodeID
	until time.Time // when it gives up
	done  func(found)
	timer *time.Timer

	mu struct {
		sync.Mutex
		asked   int // nodes[:asked] were asked
		failed  int // that many of them in vain
		found   found
		decided bool
	}
}

// found is what a scout came back with: a node, or else nobody, and why.
type found struct {
	node   ring.NodeID   // 0: none
	silent []ring.NodeID // gave no sign of life
	busy   []ring.NodeID // could not be asked: too much is under way to them
}

// scout starts a search and calls done exactly once, at the latest when until
// has come; with nobody, at least one node is then silent or busy. Requires:
// nodes is not empty, and not modified afterwards.
func (c *Coordinator) scout(nodes []ring.NodeID, until time.Time, done func(found)) {
	s := &scout{c: c, nodes: nodes, until: until, done: done}
	s.ask()
}

// ask puts the question to the next node, if there is one.
func (s *scout) ask() {
	s.mu.Lock()
	if s.mu.decided || s.mu.asked == len(s.nodes) {
		s.mu.Unlock()
		return
	}
	node := s.nodes[s.mu.asked]
	peer := s.c.cluster.Peer(node)
	if s.mu.asked++; s.mu.asked > 1 {
		s.c.count.forwardsDoubted.Inc()
	}
	s.armLocked(peer)
	s.mu.Unlock()
	if peer == nil {
		s.answer(node, ErrUnreachable)
		return
	}
	peer.Prove(func(err error) { s.answer(node, err) })
}

// armLocked sets the timer: for the next question, or for the end if there is
// none.
func (s *scout) armLocked(peer Peer) {
	wait := time.Until(s.until)
	if s.mu.asked < len(s.nodes) && peer != nil {
		wait = min(wait, max(s.c.cfg.MinDoubt, 2*peer.Latency()))
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.fire)
		return
	}
	s.timer.Reset(wait)
}

// fire is the timer: the moment to ask one more, or to give up on those who
// were asked.
func (s *scout) fire() {
	if time.Now().Before(s.until) {
		s.ask()
		return
	}
	s.mu.Lock()
	if s.mu.decided {
		s.mu.Unlock()
		return
	}
	f := &s.mu.found
	for _, n := range s.nodes[:s.mu.asked] {
		if !slices.Contains(f.silent, n) && !slices.Contains(f.busy, n) {
			f.silent = append(f.silent, n)
		}
	}
	s.decideLocked()
}

// answer takes the outcome of one question.
func (s *scout) answer(node ring.NodeID, err error) {
	s.mu.Lock()
	if s.mu.decided {
		s.mu.Unlock()
		return
	}
	f := &s.mu.found
	switch {
	case err == nil:
		f.node = node
		s.decideLocked()
		return
	case errors.Is(err, ErrOverloaded):
		f.busy = append(f.busy, node)
	default:
		f.silent = append(f.silent, node)
	}
	if s.mu.failed++; s.mu.failed == len(s.nodes) {
		s.decideLocked()
		return
	}
	s.mu.Unlock()
	s.ask()
}

// decideLocked ends the search and releases mu.
func (s *scout) decideLocked() {
	s.mu.decided = true
	s.timer.Stop() // a firing that is under way finds it decided
	f := s.mu.found
	s.mu.Unlock()
	s.done(f)
}
