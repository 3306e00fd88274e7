package rpc

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// proofs collects what Prove answered.
type proofs struct {
	mu  sync.Mutex
	all []error
}

func (p *proofs) take(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, err)
}

func (p *proofs) got() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

func TestAProofOfLifeIsOlderThanNoQuestion(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{KeepAlive: time.Hour}, ServerConfig{})
		pass(time.Second)
		var early, late proofs
		r.net.hold(true)
		r.peer.Prove(early.take)
		synctest.Wait() // the ping is on its way
		pings := r.counter(`rpc_calls_total{kind="ping"}`)
		for range 100 {
			r.peer.Prove(late.take)
		}
		synctest.Wait()
		if n := r.counter(`rpc_calls_total{kind="ping"}`) - pings; n != 0 {
			t.Fatalf("%d pings while one was under way", n)
		}
		r.net.hold(false)
		synctest.Wait()
		if len(early.got()) != 1 || len(late.got()) != 100 || early.all[0] != nil || late.all[99] != nil {
			t.Errorf("proofs %v and %v", early.all, late.all)
		}
		if n := r.counter(`rpc_calls_total{kind="ping"}`) - pings; n != 1 {
			t.Errorf("%d pings for those who came during the first, want one of their own", n)
		}
	})
}

// The first ping was read before the process stopped, and its answer lies in
// the network. It proves nothing to whoever asks afterwards.
func TestAnAnswerFromBeforeTheQuestionProvesNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{KeepAlive: time.Hour}, ServerConfig{})
		pass(time.Second)
		r.net.holdReplies(true)
		var before, after proofs
		r.peer.Prove(before.take)
		synctest.Wait() // answered, and the answer is under way
		r.peer.Prove(after.take)
		r.net.holdRequests(true)
		r.net.holdReplies(false)
		synctest.Wait()
		if len(before.got()) != 1 || before.all[0] != nil || len(after.got()) != 0 {
			t.Fatalf("before %v, after %v: want a proof and none", before.all, after.all)
		}
		pass(time.Second)
		if len(after.got()) != 1 || after.all[0] == nil {
			t.Errorf("after: %v, want an error", after.all)
		}
	})
}

func TestAProofThatFailsEndsInTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(1100 * time.Millisecond)
		r.net.hold(true)
		var got proofs
		for range 3 {
			r.peer.Prove(got.take)
			pass(100 * time.Millisecond)
		}
		pass(300 * time.Millisecond)
		if len(got.got()) != 3 || got.all[0] != ErrTimeout || r.peer.Up() {
			t.Errorf("%v, up: %v", got.all, r.peer.Up())
		}
		r.kill()
		pass(3 * time.Second)
		var dead proofs
		r.peer.Prove(dead.take)
		if len(dead.got()) != 1 || dead.all[0] != ErrUnreachable {
			t.Errorf("a dead peer: %v", dead.all)
		}
	})
}
