package rpc

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bottle counts how often it was let go.
type bottle struct{ pulled atomic.Int32 }

func (b *bottle) uncork() { b.pulled.Add(1) }

func TestACorkHoldsUntilAnyBurstEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Cork
		var a, b bottle
		if c.hold(&a) {
			t.Fatal("held without a burst")
		}
		c.In()
		c.In()
		if !c.hold(&a) || !c.hold(&b) || a.pulled.Load()+b.pulled.Load() != 0 {
			t.Fatal("not held in a burst")
		}
		c.Out()
		if a.pulled.Load() != 1 || b.pulled.Load() != 1 {
			t.Errorf("let go %d and %d times at the end of the first burst", a.pulled.Load(), b.pulled.Load())
		}
		if !c.hold(&a) {
			t.Error("not held in the burst that goes on")
		}
		c.Out()
		if a.pulled.Load() != 2 || b.pulled.Load() != 1 {
			t.Errorf("let go %d and %d times", a.pulled.Load(), b.pulled.Load())
		}
		if c.hold(&a) {
			t.Error("held after the last burst")
		}
	})
}

func TestACorkHoldsNothingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Cork
		var a bottle
		c.In() // and waits for a disk, say
		for n := range int32(3) {
			if !c.hold(&a) {
				t.Fatal("not held")
			}
			time.Sleep(corkTime - 1)
			if synctest.Wait(); a.pulled.Load() != n {
				t.Fatalf("let go %d times, too early", a.pulled.Load())
			}
			time.Sleep(time.Nanosecond)
			if synctest.Wait(); a.pulled.Load() != n+1 {
				t.Fatalf("let go %d times after %v", a.pulled.Load(), corkTime)
			}
		}
		c.Out()
	})
}

func TestTheNilCorkHoldsNothing(t *testing.T) {
	var c *Cork
	c.In()
	if c.hold(&bottle{}) {
		t.Error("held")
	}
	c.Out()
}

// Whatever was held is let go, as often as it was held.
func TestACorkForgetsNobody(t *testing.T) {
	var c Cork
	var bottles [8]bottle
	var held [8]atomic.Int32
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 1))
			for range 2000 {
				c.In()
				for range rng.IntN(4) {
					if i := rng.IntN(len(bottles)); c.hold(&bottles[i]) {
						held[i].Add(1)
					} else {
						t.Error("not held in the own burst")
					}
				}
				c.Out()
			}
		})
	}
	wg.Wait()
	for i := range bottles {
		if got, want := bottles[i].pulled.Load(), held[i].Load(); got != want {
			t.Errorf("%d was let go %d times of %d", i, got, want)
		}
	}
}

// sent is how often something was put on the connection of small calls, each way.
func (r *rig) sent() (requests, replies int) {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	c := r.net.conns[0]
	return c.out.writes(), c.in.writes()
}

func TestABurstOfCallsLeavesInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cork := &Cork{}
		r := newRig(t, echoHandler(), PoolConfig{Cork: cork, KeepAlive: time.Hour}, ServerConfig{})
		pass(time.Second)
		before, _ := r.sent()
		done := 0
		ask := func() {
			for range 50 {
				r.peer.Merge(MergeRequest{Key: []byte("k")}, Options{}, func(err error) {
					if err != nil {
						t.Error(err)
					}
					done++
				})
			}
		}
		cork.In()
		ask()
		synctest.Wait()
		if n, _ := r.sent(); n != before {
			t.Errorf("%d writes during the burst", n-before)
		}
		cork.Out()
		synctest.Wait()
		if n, _ := r.sent(); n != before+1 || done != 50 {
			t.Errorf("%d writes, %d of 50 calls answered", n-before, done)
		}

		cork.In()
		ask()
		pass(corkTime)
		if n, _ := r.sent(); n != before+2 || done != 100 {
			t.Errorf("%d writes, %d of 100 calls answered, in a burst that does not end", n-before, done)
		}
		big := make([]byte, corkBytes)
		r.peer.Merge(MergeRequest{Key: []byte("k"), Record: big}, Options{}, func(error) { done++ })
		if synctest.Wait(); done != 101 {
			t.Error("much was held back")
		}
		cork.Out()
	})
}

func TestABurstOfRepliesLeavesInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cork := &Cork{}
		var owed []func(error)
		h := &fakeHandler{merge: func(_ MergeRequest, _ Meta, reply func(error)) { owed = append(owed, reply) }}
		r := newRig(t, h, PoolConfig{KeepAlive: time.Hour}, ServerConfig{Cork: cork})
		pass(time.Second)
		done := 0
		for range 50 {
			r.peer.Merge(MergeRequest{Key: []byte("k")}, Options{}, func(error) { done++ })
		}
		synctest.Wait()
		_, before := r.sent()
		cork.In()
		for _, reply := range owed {
			reply(nil)
		}
		synctest.Wait()
		if _, n := r.sent(); n != before {
			t.Errorf("%d writes during the burst", n-before)
		}
		cork.Out()
		synctest.Wait()
		if _, n := r.sent(); n != before+1 || done != 50 {
			t.Errorf("%d writes, %d of 50 calls answered", n-before, done)
		}
	})
}

// A ping that has not left yet will be answered later than whoever asks now.
func TestOnePingProvesLifeToAllWhoAskInABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cork := &Cork{}
		r := newRig(t, echoHandler(), PoolConfig{Cork: cork, KeepAlive: time.Hour}, ServerConfig{})
		pass(time.Second)
		pings := r.counter(`rpc_calls_total{kind="ping"}`)
		var got proofs
		cork.In()
		for range 100 {
			r.peer.Prove(got.take)
			synctest.Wait()
		}
		cork.Out()
		synctest.Wait()
		if n := r.counter(`rpc_calls_total{kind="ping"}`) - pings; n != 1 || len(got.got()) != 100 {
			t.Errorf("%d pings, %d of 100 proofs", n, len(got.got()))
		}
		for _, err := range got.got() {
			if err != nil {
				t.Error(err)
			}
		}
	})
}
