package rpc

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
	"github.com/redynamo/redynamo/replica/cork"
)

// sent is how often something was put on the connection of small calls, each way.
func (r *rig) sent() (requests, replies int) {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	conn := r.net.conns[0]
	return conn.out.writes(), conn.in.writes()
}

func TestABurstOfCallsLeavesInOneWrite(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &cork.Cork{}
		r := newRig(t, echoHandler(), PoolConfig{Cork: c, KeepAlive: time.Hour}, ServerConfig{})
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
		c.In()
		ask()
		synctest.Wait()
		if n, _ := r.sent(); n != before {
			t.Errorf("%d writes during the burst", n-before)
		}
		c.Out()
		synctest.Wait()
		if n, _ := r.sent(); n != before+1 || done != 50 {
			t.Errorf("%d writes, %d of 50 calls answered", n-before, done)
		}

		c.In()
		ask()
		pass(cork.Most)
		if n, _ := r.sent(); n != before+2 || done != 100 {
			t.Errorf("%d writes, %d of 100 calls answered, in a burst that does not end", n-before, done)
		}
		big := make([]byte, burstBytes)
		r.peer.Merge(MergeRequest{Key: []byte("k"), Record: big}, Options{}, func(error) { done++ })
		if synctest.Wait(); done != 101 {
			t.Error("much was held back")
		}
		c.Out()
	})
}

func TestABurstOfRepliesLeavesInOneWrite(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &cork.Cork{}
		var owed []func(error)
		h := &fakeHandler{merge: func(_ MergeRequest, _ Meta, reply func(error)) { owed = append(owed, reply) }}
		r := newRig(t, h, PoolConfig{KeepAlive: time.Hour}, ServerConfig{Cork: c})
		pass(time.Second)
		done := 0
		for range 50 {
			r.peer.Merge(MergeRequest{Key: []byte("k")}, Options{}, func(error) { done++ })
		}
		synctest.Wait()
		_, before := r.sent()
		c.In()
		for _, reply := range owed {
			reply(nil)
		}
		synctest.Wait()
		if _, n := r.sent(); n != before {
			t.Errorf("%d writes during the burst", n-before)
		}
		c.Out()
		synctest.Wait()
		if _, n := r.sent(); n != before+1 || done != 50 {
			t.Errorf("%d writes, %d of 50 calls answered", n-before, done)
		}
	})
}

// A ping that has not left yet will be answered later than whoever asks now.
func TestOnePingProvesLifeToAllWhoAskInABurst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &cork.Cork{}
		r := newRig(t, echoHandler(), PoolConfig{Cork: c, KeepAlive: time.Hour}, ServerConfig{})
		pass(time.Second)
		pings := r.counter(`rpc_calls_total{kind="ping"}`)
		var got proofs
		c.In()
		for range 100 {
			r.peer.Prove(got.take)
			synctest.Wait()
		}
		c.Out()
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
