package rpc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// mute never replies.
func mute() *fakeHandler {
	return &fakeHandler{
		read:  func(ReadRequest, Meta, func(ReadReply, error)) {},
		merge: func(MergeRequest, Meta, func(error)) {},
	}
}

func TestARefusedConnectionSuspectsAtOnceAndAProbeBringsThePeerBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil, PoolConfig{}, ServerConfig{})
		begin := time.Now()
		_, err := r.read("k", Options{})
		wantErr(t, err, ErrUnreachable)
		_, err = r.read("k", Options{})
		wantErr(t, err, ErrUnreachable)
		if took := time.Since(begin); took != 0 || r.peer.Up() || r.pool.Up(2) {
			t.Fatalf("after %v the peer is up: %v", took, r.peer.Up())
		}
		pass(time.Minute)
		if n := r.net.dialed(); n < 30 || n > 80 {
			t.Errorf("%d dials in a minute, want one every one or two seconds", n)
		}
		r.serve(echoHandler(), ServerConfig{})
		pass(2 * time.Second)
		if !r.peer.Up() {
			t.Fatal("the peer is still suspected after the longest wait")
		}
		if _, err := r.read("k", Options{}); err != nil {
			t.Error(err)
		}
		r.wantChanges(false, true)
	})
}

func TestACallToASilentAddressEndsAtItsDeadlineUnsent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRigWith(t, PoolConfig{}, func(r *rig) {
			r.serve(echoHandler(), ServerConfig{})
			r.net.setSilent("two", true)
		})
		begin := time.Now()
		_, err := r.read("k", within(200*time.Millisecond))
		wantErr(t, err, ErrUnreachable)
		if took := time.Since(begin); took != 200*time.Millisecond || !r.peer.Up() {
			t.Fatalf("ended after %v, up: %v", took, r.peer.Up())
		}
		_, err = r.read("k", within(10*time.Second))
		wantErr(t, err, ErrUnreachable)
		if took := time.Since(begin); took != time.Second || r.peer.Up() {
			t.Fatalf("the dial ended after %v, up: %v", took, r.peer.Up())
		}
		r.net.setSilent("two", false)
		pass(2 * time.Second)
		r.wantChanges(false, true)
	})
}

func TestABrokenConnectionWithCallsInFlightSuspects(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, mute(), PoolConfig{}, ServerConfig{})
		var ended error
		r.peer.Read(ReadRequest{}, Options{}, func(_ ReadReply, err error) { ended = err })
		synctest.Wait()
		r.net.breakAll()
		synctest.Wait()
		if ended != ErrClosed {
			t.Errorf("call ended with %v", ended)
		}
		r.wantChanges(false)
		pass(200 * time.Millisecond)
		r.wantChanges(false, true)
	})
}

func TestABrokenIdleConnectionIsDialedAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		for range 3 {
			pass(time.Second)
			r.net.breakAll()
			synctest.Wait()
			if _, err := r.read("k", Options{}); err != nil {
				t.Fatal(err)
			}
		}
		r.wantChanges()
	})
}

func TestAPeerThatDiesIsNoticedWithoutTrafficAndFoundAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		for range 3 {
			r.kill()
			pass(100 * time.Millisecond) // it may have been dialed just before
			if r.peer.Up() {
				t.Fatal("a dead peer is up")
			}
			pass(30 * time.Second)
			r.serve(echoHandler(), ServerConfig{})
			pass(2 * time.Second)
			if m, err := r.read("k", Options{}); err != nil || string(m.Record) != "k" {
				t.Fatalf("after the restart: %+v, %v", m, err)
			}
		}
		r.wantChanges(false, true, false, true, false, true)
	})
}

func TestTimeoutsInARowSuspect(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, mute(), PoolConfig{SuspectSlow: 150 * time.Millisecond}, ServerConfig{})
		pass(time.Second)
		begin := time.Now()
		_, err := r.read("k", within(100*time.Millisecond))
		wantErr(t, err, ErrTimeout)
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("ended after %v", took)
		}
		if !r.peer.Up() {
			t.Error("one short timeout is enough")
		}
		_, err = r.read("k", within(100*time.Millisecond))
		wantErr(t, err, ErrTimeout)
		if r.peer.Up() {
			t.Error("two timeouts in a row are not enough")
		}
		pass(100 * time.Millisecond)
		r.wantChanges(false, true) // it answers pings
		_, err = r.read("k", within(100*time.Millisecond))
		wantErr(t, err, ErrTimeout)
		r.wantChanges(false, true) // and starts anew
	})
}

func TestAnAnswerBetweenTimeoutsClearsThePeer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := 0
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			if n++; n%2 == 0 {
				reply(ReadReply{}, nil)
			}
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		for i := range 10 {
			_, err := r.read("k", within(100*time.Millisecond))
			if timedOut := i%2 == 0; timedOut != (err == ErrTimeout) {
				t.Fatalf("call %d: %v", i, err)
			}
		}
		r.wantChanges()
	})
}

func TestOneLongSilenceSuspects(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, mute(), PoolConfig{}, ServerConfig{})
		pass(1100 * time.Millisecond) // past the last ping
		r.net.hold(true)
		_, err := r.read("k", within(500*time.Millisecond))
		wantErr(t, err, ErrTimeout)
		if r.peer.Up() {
			t.Error("a silence of 500 ms is not enough")
		}
	})
}

func TestAnsweredReadsDoNotHideUnansweredMerges(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := echoHandler()
		h.merge = mute().merge
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		for i := range 2 {
			if !r.peer.Up() {
				t.Fatalf("suspected after %d timeouts", i)
			}
			done := make(chan error, 1)
			r.peer.Merge(MergeRequest{}, within(time.Second), func(err error) { done <- err })
			for range 9 {
				pass(100 * time.Millisecond)
				if _, err := r.read("k", Options{}); err != nil {
					t.Fatal(err)
				}
			}
			wantErr(t, <-done, ErrTimeout)
		}
		if r.peer.Up() {
			t.Error("a peer that answers no merge is up")
		}
	})
}

func TestAPeerThatOnlyAnswersPingsIsLeftAloneLongerAndLonger(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, mute(), PoolConfig{SuspectSlow: 10 * time.Millisecond}, ServerConfig{})
		var last time.Duration
		for i := range 5 {
			for range 2 {
				_, err := r.read("k", within(10*time.Millisecond))
				wantErr(t, err, ErrTimeout)
			}
			begin := time.Now()
			for !r.peer.Up() {
				pass(10 * time.Millisecond)
			}
			took := time.Since(begin)
			if low := 50 * time.Millisecond << i; took < low || took > 2*low+20*time.Millisecond {
				t.Errorf("suspicion %d lasted %v after one of %v", i, took, last)
			}
			last = took
		}
		pass(11 * time.Second)
		for range 2 {
			_, err := r.read("k", within(10*time.Millisecond))
			wantErr(t, err, ErrTimeout)
		}
		if pass(100 * time.Millisecond); !r.peer.Up() {
			t.Error("after steady times a suspicion lasts longer than the first")
		}
	})
}

func TestAHalfOpenConnectionIsGivenUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(1100 * time.Millisecond) // past the last ping
		r.net.hold(true)              // what is connected carries nothing; new connections do
		_, err := r.read("k", within(time.Second))
		wantErr(t, err, ErrTimeout)
		if r.peer.Up() {
			t.Error("a silent peer is up")
		}
		pass(3 * time.Second)
		if _, err := r.read("k", Options{}); err != nil {
			t.Errorf("after the probes: %v", err)
		}
		r.wantChanges(false, true)
	})
}

func TestAnIdlePeerThatFallsSilentIsNoticed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Hour) // neither side tires of an idle connection
		if n := r.net.dialed(); n != 1 || !r.peer.Up() {
			t.Fatalf("%d dials in an idle hour", n)
		}
		r.net.hold(true)
		r.net.setSilent("two", true)
		pass(1500 * time.Millisecond)
		if r.peer.Up() {
			t.Error("a peer that has been silent for 1.5 s is up")
		}
	})
}

func TestWhatWasNeverWrittenEndsUnreachableAndIsNeverSent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var seen []string
		h := &fakeHandler{merge: func(m MergeRequest, _ Meta, reply func(error)) {
			seen = append(seen, string(m.Key))
			reply(nil)
		}}
		r := newRig(t, h, PoolConfig{BulkBytes: 1 << 20}, ServerConfig{})
		pass(time.Second)
		r.net.hold(true)
		ended := map[string]error{}
		merge := func(key string, size int, d time.Duration) {
			r.peer.Merge(MergeRequest{Key: []byte(key), Record: make([]byte, size)}, within(d), func(err error) { ended[key] = err })
			synctest.Wait()
		}
		merge("written", 100, 300*time.Millisecond)
		merge("half written", 100<<10, 300*time.Millisecond) // fills the connection: the writer waits
		merge("unwritten", 100, 300*time.Millisecond)
		merge("patient", 100, 3*time.Second)
		pass(400 * time.Millisecond)
		r.net.hold(false)
		synctest.Wait()
		if got, want := fmt.Sprint(seen), "[written half written patient]"; got != want {
			t.Errorf("the peer saw %s, want %s", got, want)
		}
		want := map[string]error{"written": ErrTimeout, "half written": ErrTimeout, "unwritten": ErrUnreachable, "patient": nil}
		for key, err := range want {
			if got, ok := ended[key]; !ok || got != err {
				t.Errorf("%q ended with %v, want %v", key, got, err)
			}
		}
		if n := r.counter("rpc_late_replies_total"); n != 2 {
			t.Errorf("%d late replies, want 2", n)
		}
	})
}

func TestACallThatExpiresUnsentIsNotSentEvenWhenTheWriterIsSoonFree(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		seen := 0
		h := &fakeHandler{merge: func(_ MergeRequest, _ Meta, reply func(error)) { seen++; reply(nil) }}
		r := newRig(t, h, PoolConfig{BulkBytes: 1 << 20}, ServerConfig{})
		pass(time.Second)
		r.net.hold(true)
		r.peer.Merge(MergeRequest{Record: make([]byte, 100<<10)}, Options{}, func(error) {})
		synctest.Wait()
		wantErr(t, r.merge(nil, within(staleAfter/2)), ErrUnreachable)
		r.net.hold(false)
		pass(time.Second)
		if seen != 1 {
			t.Errorf("the peer saw %d requests, want only the first", seen)
		}
	})
}

func TestALateReplyIsCountedAndHarmless(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := echoHandler()
		h.merge = func(_ MergeRequest, _ Meta, reply func(error)) {
			time.AfterFunc(200*time.Millisecond, func() { reply(nil) })
		}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		wantErr(t, r.merge(nil, within(100*time.Millisecond)), ErrTimeout)
		for range 10 { // one of them has the slot of the call that ended
			pass(20 * time.Millisecond)
			if _, err := r.read("k", Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.counter("rpc_late_replies_total"); n != 1 {
			t.Errorf("%d late replies, want 1", n)
		}
		r.wantChanges()
	})
}

func TestCallsPastTheBoundsAreOverloadedAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, mute(), PoolConfig{MaxCalls: 4, MaxFrameBytes: 4 << 10, MaxCallBytes: 5 << 10, SuspectAfter: 100}, ServerConfig{})
		pass(time.Second)
		counts := map[error]int{}
		var mu sync.Mutex
		note := func(err error) {
			mu.Lock()
			counts[err]++
			mu.Unlock()
		}
		ended := func(err error) int {
			mu.Lock()
			defer mu.Unlock()
			return counts[err]
		}
		send := func(n, size int) {
			for range n {
				r.peer.Merge(MergeRequest{Record: make([]byte, size)}, within(50*time.Millisecond), note)
			}
		}
		send(7, 10)
		if ended(ErrOverloaded) != 3 {
			t.Errorf("3 calls past the number: %v", counts)
		}
		pass(60 * time.Millisecond)
		send(3, 3<<10)
		if ended(ErrOverloaded) != 5 || ended(ErrTimeout) != 4 {
			t.Errorf("2 more past the bytes: %v", counts)
		}
		if !r.peer.Up() {
			t.Error("overload made the peer a suspect")
		}
		if n := r.counter(`rpc_call_errors_total{error="overloaded"}`); n != 5 {
			t.Errorf("%d counted", n)
		}
		pass(60 * time.Millisecond)
		for range 10 { // what has ended no longer counts
			wantErr(t, r.merge(make([]byte, 3<<10), within(50*time.Millisecond)), ErrTimeout)
		}
	})
}

func TestAPeerThatReadsNothingCostsBoundedMemory(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		r := newRig(t, mute(), PoolConfig{MaxFrameBytes: 64 << 10, MaxCallBytes: limit, SuspectTimeout: time.Hour}, ServerConfig{})
		pass(time.Second)
		r.net.hold(true)
		calls, ended := int64(0), atomic.Int64{}
		for range 100 {
			for range 40 {
				calls++
				r.peer.Merge(MergeRequest{Record: make([]byte, 32<<10)}, within(30*time.Millisecond), func(error) { ended.Add(1) })
			}
			pass(20 * time.Millisecond)
			r.peer.small.mu.Lock()
			if n := len(r.peer.small.mu.out); n > limit {
				t.Fatalf("%d bytes wait to be written", n)
			}
			r.peer.small.mu.Unlock()
		}
		pass(time.Second)
		if ended.Load() != calls {
			t.Errorf("%d of %d calls ended", ended.Load(), calls)
		}
	})
}

func TestANewAddressIsDialedAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil, PoolConfig{ProbeMin: time.Minute}, ServerConfig{})
		synctest.Wait()
		r.serveOn(r.net.listen("elsewhere"), echoHandler(), ServerConfig{})
		r.pool.Peer(2, "elsewhere")
		synctest.Wait()
		if !r.peer.Up() || r.peer.Addr() != "elsewhere" {
			t.Errorf("peer at %s is up: %v", r.peer.Addr(), r.peer.Up())
		}
	})
}

func TestAFullBulkLaneDoesNotSuspectThePeer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{MaxConns: 1})
		pass(time.Second)
		_, err := r.read("k", Options{Class: Background})
		wantErr(t, err, ErrUnreachable)
		if _, err := r.read("k", Options{}); err != nil || !r.peer.Up() {
			t.Errorf("small lane: %v", err)
		}
	})
}

func TestP95FollowsReads(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := 0
		h := &fakeHandler{read: func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			d := time.Millisecond
			if n++; n%10 == 0 { // a tenth is slow
				d = 20 * time.Millisecond
			}
			time.AfterFunc(d, func() { reply(ReadReply{}, nil) })
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		for range 2000 {
			if _, err := r.read("k", Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if p := r.peer.P95(); p < 10*time.Millisecond || p > 30*time.Millisecond {
			t.Errorf("95th percentile of 20 ms estimated as %v", p)
		}
	})
}

// What is asked in one pipeline is answered together: were each of its reads a sample,
// a few quick pipelines would have forgotten how long a slow one takes.
func TestP95IsThatOfBatchesAndNotOfCalls(t *testing.T) {
	var h health
	batch := make([]ended, 200)
	for n := range 2000 {
		now, took := time.Duration(n)*time.Second, time.Millisecond
		if n%10 == 9 { // a tenth is slow
			took = 20 * time.Millisecond
			if p := time.Duration(h.p95.Load()); n > 1000 && (p < 10*time.Millisecond || p > 30*time.Millisecond) {
				t.Fatalf("before batch %d, which takes 20 ms like each tenth, P95 is %v", n, p)
			}
		}
		for i := range batch {
			batch[i].kind, batch[i].class = KindRead, Foreground
			batch[i].sent = now - took + took*time.Duration(i)/1000 // one after the other
		}
		h.handled(now, batch)
	}
}

// A batch is measured by what clients wait for, and by pings while there is nothing else.
func TestTheSampleOfABatchIsItsFirstRead(t *testing.T) {
	call := func(kind Kind, class Class, sent time.Duration, err error) ended {
		e := ended{err: err}
		e.kind, e.class, e.sent = kind, class, sent
		return e
	}
	const now = time.Second
	var h health
	for _, step := range []struct {
		name  string
		batch []ended
		want  time.Duration // twice the first sample, and what follows
	}{
		{"nothing", nil, 0},
		{"no call of a client", []ended{call(KindRead, Background, 1, nil), call(KindMerge, Foreground, 2, nil), call(KindRead, Foreground, 3, errRemote)}, 0},
		{"a ping", []ended{call(KindPing, Foreground, now-5000, nil)}, 10_000},
		{"the first read", []ended{call(KindPing, Foreground, 1, nil), call(KindRead, Foreground, now-200, nil), call(KindRead, Foreground, now-1000, nil)}, 2000},
		{"a ping again", []ended{call(KindPing, Foreground, 1, nil)}, 2000},
		{"a quick read", []ended{call(KindRead, Foreground, now-1, nil)}, 1990},
		{"a slow read", []ended{call(KindRead, Foreground, now-5000, nil)}, 2180},
	} {
		h.handled(now, step.batch)
		if got := time.Duration(h.p95.Load()); got != step.want {
			t.Errorf("after %s: %v, want %v", step.name, got, step.want)
		}
	}
}

// A peer that answers pings and no read is slow.
func TestPingsAreNoSampleOnceAReadTimedOut(t *testing.T) {
	var h health
	call := func(kind Kind, err error) []ended {
		e := ended{err: err}
		e.kind, e.class, e.sent = kind, Foreground, time.Second
		return []ended{e}
	}
	h.handled(time.Second+time.Millisecond, call(KindPing, nil))
	h.missed(3*time.Second, call(KindRead, ErrTimeout), &PoolConfig{})
	for range 1000 {
		h.handled(time.Second+time.Millisecond, call(KindPing, nil))
	}
	if got := time.Duration(h.p95.Load()); got != 4*time.Second {
		t.Errorf("P95 is %v after a read that took 2 s without an answer, want twice that", got)
	}
}

// A peer whose disk hangs answers reads from memory, and pings.
func TestAPeerThatAnswersNoMergeIsBackWhenItsDiskIs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		hung := atomic.Bool{}
		hung.Store(true)
		h := echoHandler()
		h.merge = mute().merge
		h.sync = func(_ SyncRequest, _ Meta, reply func(error)) {
			if !hung.Load() {
				reply(nil)
			}
		}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		begin := time.Now()
		for r.peer.Up() && time.Since(begin) < time.Minute {
			wantErr(t, r.merge(nil, within(100*time.Millisecond)), ErrTimeout)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("suspected after %v", took)
		}
		for range 60 {
			pass(time.Second)
			if _, err := r.read("k", Options{}); err != nil {
				t.Fatalf("a suspect that is connected: %v", err)
			}
		}
		r.wantChanges(false)
		if n := r.net.dialed(); n != 1 {
			t.Errorf("%d dials: the connection was not at fault", n)
		}
		hung.Store(false)
		pass(3 * time.Second)
		r.wantChanges(false, true)
	})
}

func TestAnOverloadedPeerIsNoSuspectAndStaysOneIfItWas(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		busy := &fakeHandler{
			merge: func(_ MergeRequest, _ Meta, reply func(error)) { reply(ErrOverloaded) },
			read:  mute().read,
			sync:  func(_ SyncRequest, _ Meta, reply func(error)) { reply(ErrOverloaded) },
		}
		r := newRig(t, busy, PoolConfig{SuspectSlow: 150 * time.Millisecond}, ServerConfig{})
		for range 100 {
			wantErr(t, r.merge(nil, Options{}), ErrOverloaded)
		}
		r.wantChanges()
		for range 2 {
			_, err := r.read("k", within(100*time.Millisecond))
			wantErr(t, err, ErrTimeout)
		}
		pass(10 * time.Second)
		r.wantChanges(false)
	})
}

// Gossip is one voice more: it is heard sooner, and never believed.
func TestADoubtedPeerIsAskedAtOnceAndItsAnswerCounts(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{KeepAlive: time.Hour, ProbeMin: time.Hour, MessageAge: 24 * time.Hour}, ServerConfig{})
		pass(time.Second)
		r.peer.Check()
		pass(time.Second)
		r.wantChanges()
		r.net.hold(true)
		r.net.setSilent("two", true)
		pass(time.Minute)
		r.wantChanges()
		r.peer.Check()
		pass(500 * time.Millisecond)
		r.wantChanges(false)
		for range 10 { // "alive", says gossip
			r.peer.Check()
			pass(time.Second)
		}
		r.wantChanges(false)
		r.net.setSilent("two", false)
		pass(2 * time.Second)
		r.peer.Check()
		pass(time.Second)
		r.wantChanges(false, true)
	})
}

// When a stopped process goes on it finds everything expired, and the answers
// unread.
func TestANodeThatWasStoppedItselfSuspectsNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(1100 * time.Millisecond)
		r.net.hold(true)
		stopped := make(chan struct{})
		r.peer.Read(ReadRequest{}, within(50*time.Millisecond), func(ReadReply, error) {
			time.Sleep(5 * time.Second) // holds up the keeper, as nothing else may
			close(stopped)
		})
		pass(60 * time.Millisecond)
		for range 3 {
			r.peer.Read(ReadRequest{}, within(600*time.Millisecond), func(ReadReply, error) {})
		}
		<-stopped
		pass(10 * time.Millisecond)
		r.net.hold(false)
		pass(3 * time.Second)
		r.wantChanges()
		if _, err := r.read("k", Options{}); err != nil {
			t.Error(err)
		}
	})
}

// A disk that many nodes share stalls now and then.
func TestAStallOfHalfASecondSuspectsNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h, stall := echoHandler(), atomic.Int64{}
		h.merge = func(_ MergeRequest, _ Meta, reply func(error)) {
			time.AfterFunc(time.Duration(stall.Load()), func() { reply(nil) })
		}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		for range 5 {
			stall.Store(int64(700 * time.Millisecond))
			for range 6 {
				wantErr(t, r.merge(nil, within(100*time.Millisecond)), ErrTimeout)
			}
			stall.Store(0)
			if err := r.merge(nil, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		r.wantChanges()
	})
}
