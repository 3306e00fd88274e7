package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// keeps is a handler that notes the keys of the merges it carries out.
func keeps(keys *[]string) *fakeHandler {
	h := echoHandler()
	h.merge = func(m MergeRequest, _ Meta, reply func(error)) {
		*keys = append(*keys, string(m.Key))
		reply(nil)
	}
	return h
}

func mergeFrame(id uint64, key string) []byte {
	return frame(header{kind: KindMerge, id: id}, AppendMergeRequest(nil, MergeRequest{Key: []byte(key)}))
}

// A process that was stopped finds in its sockets what came meanwhile, and a link
// that heals brings what was sent before it was cut.
func TestWhatLayLongOnItsWayIsNotCarriedOut(t *testing.T) {
	for _, c := range []struct {
		lay  time.Duration
		kept bool
	}{{14 * time.Second, true}, {16 * time.Second, false}, {time.Hour, false}} {
		bubble.Test(t, func(t *testing.T) {
			var keys []string
			r := newRig(t, keeps(&keys), PoolConfig{}, ServerConfig{IdleTimeout: 3 * time.Hour})
			pass(time.Second)
			conn := r.greeted(1 << 20)
			r.net.holdRequests(true)
			r.send(conn, mergeFrame(1, "k"))
			pass(c.lay)
			r.net.holdRequests(false)
			pass(time.Second)
			if kept := len(keys) == 1; kept != c.kept {
				t.Errorf("after %v: carried out %v, want %v", c.lay, kept, c.kept)
			}
			if n := r.counter(`rpc_connections_closed_total{reason="old"}`); (n == 0) != c.kept {
				t.Errorf("after %v: %d connections closed as old", c.lay, n)
			}
		})
	}
}

// Between the read of a batch and its last request a process may be stopped, too.
func TestABatchThatIsInterruptedIsNotCarriedOutToItsEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var keys []string
		h := keeps(&keys)
		h.read = func(_ ReadRequest, _ Meta, reply func(ReadReply, error)) {
			time.Sleep(time.Minute)
			reply(ReadReply{}, nil)
		}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		pass(time.Second)
		conn := r.greeted(1 << 20)
		batch := readFrame(1)
		for id := range uint64(40) {
			batch = append(batch, mergeFrame(id+2, "k")...)
		}
		r.send(conn, batch)
		pass(2 * time.Minute)
		if len(keys) > 15 {
			t.Errorf("%d requests were carried out a minute later, want fewer than a look at the clock apart", len(keys))
		}
	})
}

// stampFrom pings on a raw connection and returns the stamp of the answer.
func (r *rig) stampFrom(conn io.ReadWriter, id uint64) []byte {
	r.t.Helper()
	if _, err := conn.Write(frame(header{kind: KindPing, id: id}, nil)); err != nil {
		r.t.Fatal(err)
	}
	reply := make([]byte, headerBytes+stampBytes)
	if _, err := io.ReadFull(conn, reply); err != nil {
		r.t.Fatal(err)
	}
	return reply[headerBytes:]
}

// A stamp is the proof that what follows it is younger.
func TestOnlyTheNewestStampKeepsAConnection(t *testing.T) {
	for _, repeats := range []bool{true, false} {
		bubble.Test(t, func(t *testing.T) {
			var keys []string
			r := newRig(t, keeps(&keys), PoolConfig{}, ServerConfig{})
			pass(time.Second)
			conn := r.greeted(1 << 20)
			first := r.stampFrom(conn, 1)
			for id := uint64(2); id < 8; id++ {
				pass(4 * time.Second)
				if !repeats && id > 4 {
					break
				}
				b := first
				if repeats {
					b = r.stampFrom(conn, 2*id)
				}
				r.send(conn, frame(header{kind: KindStamp}, b))
			}
			r.send(conn, mergeFrame(100, "k"))
			pass(time.Second)
			if kept := len(keys) == 1; kept != repeats {
				t.Errorf("stamps are repeated %v: carried out %v", repeats, kept)
			}
		})
	}
}

func TestAStampIsOldByEitherClockAndNeverOfTheFuture(t *testing.T) {
	at := stamp{up: time.Minute, wall: 1_000_000}
	for _, c := range []struct {
		now stamp
		err error
	}{
		{at, nil},
		{stamp{at.up + 15*time.Second, at.wall + 15_000}, nil},
		{stamp{at.up + 16*time.Second, at.wall + 16_000}, errOld},
		{stamp{at.up + 16*time.Second, at.wall - 3_600_000}, errOld}, // the wall clock was set back
		{stamp{at.up + time.Second, at.wall + 3_600_000}, errOld},    // the machine slept
		{stamp{at.up - 1, at.wall}, ErrMalformed},
	} {
		f := fresh{at}
		if err := f.check(c.now, 15*time.Second); !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%+v: %v, want %v", c.now, err, c.err)
		}
		f = fresh{}
		if err := f.renew(appendStamp(nil, at), c.now, 15*time.Second); !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("renewed at %+v: %v, want %v", c.now, err, c.err)
		}
	}
}

// Both connections stay fresh: an idle one, and one that is always full.
func TestConnectionsInUseNeverGrowOld(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := echoHandler()
		h.merge = mute().merge
		r := newRig(t, h, PoolConfig{MaxCalls: 1}, ServerConfig{})
		pass(time.Second)
		if _, err := r.read("k", Options{Class: Background}); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(10 * time.Minute)
		for time.Now().Before(end) {
			r.peer.Merge(MergeRequest{}, within(time.Minute), func(error) {}) // has the only place for 30 s
			pass(time.Second)
		}
		if _, err := r.read("k", Options{Class: Background}); err != nil {
			t.Error(err)
		}
		if n := r.net.dialed(); n != 2 {
			t.Errorf("%d dials, want one for each lane", n)
		}
		if n := r.counter(`rpc_connections_closed_total{reason="old"}`); n != 0 {
			t.Errorf("%d connections closed as old", n)
		}
	})
}

// What was written before a link was cut does not arrive when it heals.
func TestACutLinkEndsEveryLaneAndWhatLiesInThem(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var keys []string
		r := newRig(t, keeps(&keys), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		if _, err := r.read("k", Options{Class: Background}); err != nil {
			t.Fatal(err)
		}
		r.net.hold(true)
		r.net.setSilent("two", true)
		ended := 0
		for _, class := range []Class{Foreground, Background} {
			o := within(20 * time.Second)
			o.Class = class
			r.peer.Merge(MergeRequest{Key: []byte(class.String())}, o, func(err error) {
				ended++
				wantErr(t, err, ErrClosed)
			})
		}
		pass(3 * time.Second)
		if ended != 2 {
			t.Errorf("%d of 2 calls have ended", ended)
		}
		r.net.hold(false)
		pass(time.Second)
		if len(keys) > 0 {
			t.Errorf("carried out after the link healed: %v", keys)
		}
	})
}

// The other lane may live on.
func TestASilentLaneIsGivenUpThoughThePeerIsUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var keys []string
		r := newRig(t, keeps(&keys), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		if _, err := r.read("k", Options{Class: Background}); err != nil {
			t.Fatal(err)
		}
		bulk := r.net.conns[1]
		bulk.out.setHeld(true)
		o := within(20 * time.Second)
		o.Class = Background
		r.peer.Merge(MergeRequest{Key: []byte("k")}, o, func(error) {})
		pass(16 * time.Second)
		if !bulk.closed() {
			t.Error("a connection that has been silent for 16 s is kept")
		}
		bulk.out.setHeld(false)
		pass(time.Second)
		if len(keys) > 0 {
			t.Errorf("carried out later: %v", keys)
		}
		if r.counter(`rpc_connections_given_up_total`) != 1 {
			t.Error("not counted")
		}
	})
}

// A reply that came in time and was read late must not be taken as an answer of now.
func TestAReplyThatIsReadTooLateIsLate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		l := newLane(r.peer, false)
		s := newSession(l, nil, terms{protocolMax, 1 << 20})
		l.attach(s)
		answered := 0
		send := func() uint64 {
			err := l.send(KindMerge, within(time.Second), 0, appendNothing, ackDone(func(error) { answered++ }))
			if err != nil {
				t.Fatal(err)
			}
			out, _ := l.takeOut(s, nil)
			return binary.BigEndian.Uint64(out[idOffset:])
		}
		reply := func(id uint64) []arrival {
			return []arrival{{header: header{kind: KindMerge | replyBit, id: id}}}
		}
		id := send()
		at := r.pool.since(time.Now())
		calls, late, err := l.settle(nil, reply(id), at+2*time.Second)
		if len(calls) != 0 || late != 1 || err != nil {
			t.Errorf("a late reply: %d calls, %d late, %v", len(calls), late, err)
		}
		if calls, _ = l.expire(nil, at+2*time.Second); len(calls) != 1 || calls[0].err != ErrTimeout {
			t.Errorf("expired: %+v", calls)
		}
		if calls, late, err = l.settle(nil, reply(send()), at); len(calls) != 1 || late != 0 || err != nil {
			t.Errorf("a reply in time: %d calls, %d late, %v", len(calls), late, err)
		}
	})
}

// A goroutine may be held up between its look at the clock and its place among the
// frames, and a stamp be heard meanwhile.
func TestWhatWasLookedAtBeforeAStampIsLookedAtAgainBehindIt(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		l := newLane(r.peer, false)
		s := newSession(l, nil, terms{protocolMax, 1 << 20})
		l.attach(s)
		send := func(d time.Duration) {
			if err := l.send(KindMerge, within(d), 0, appendNothing, ackDone(func(error) {})); err != nil {
				t.Fatal(err)
			}
		}
		take := func() (frames int, mark []byte) {
			out, mark := l.takeOut(s, nil)
			for rest := out; len(rest) > 0; frames++ {
				n, _ := frameLen(rest, 1<<20)
				rest = rest[n:]
			}
			return frames, mark
		}
		send(time.Second)
		take() // looks at everything once, for the connection is new
		send(time.Millisecond)
		send(time.Second)
		time.Sleep(2 * time.Millisecond) // not long enough for a second look by itself
		l.heardStamp(s, stamp{up: 7}, r.pool.since(time.Now()))
		frames, mark := take()
		if want := stampFrame(stamp{up: 7}); frames != 1 || !bytes.Equal(mark, want) {
			t.Errorf("behind a new stamp %d frames, want the one whose call is not over; mark %x", frames, mark)
		}
		l.mu.stampAt = r.pool.since(time.Now()) + 1
		send(time.Millisecond)
		send(time.Second)
		time.Sleep(2 * time.Millisecond)
		if frames, mark = take(); frames != 1 || mark != nil {
			t.Errorf("looked at before the stamp: %d frames, want 1; mark %x", frames, mark)
		}
	})
}

// What a writer has is not looked at again, so it has little, and not for long.
func TestAWriterIsHandedALimitedBatch(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Second)
		l := newLane(r.peer, true)
		s := newSession(l, nil, terms{protocolMax, 4 << 20})
		l.attach(s)
		var sent, got []int
		for i := range 20 {
			size := 100<<10 + i
			if i == 10 {
				size = 3 << 20
			}
			sent = append(sent, size)
			enc := func(b []byte) []byte { return append(b, make([]byte, size)...) }
			if err := l.send(KindMerge, within(time.Minute), size, enc, ackDone(func(error) {})); err != nil {
				t.Fatal(err)
			}
		}
		for batches := 0; len(got) < len(sent); batches++ {
			out, _ := l.takeOut(s, nil)
			frames := 0
			for rest := out; len(rest) > 0; frames++ {
				n, err := frameLen(rest, 4<<20)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, n-headerBytes-len(Epochs{}))
				rest = rest[n:]
			}
			if len(out) > maxBatchBytes && frames > 1 {
				t.Errorf("batch %d has %d bytes in %d frames", batches, len(out), frames)
			}
			if handed := l.mu.handed; handed != uint64(len(got)) {
				t.Errorf("batch %d: %d calls are handed over, want %d", batches, handed, len(got))
			}
		}
		if !slices.Equal(got, sent) {
			t.Errorf("handed over %v, want %v", got, sent)
		}
	})
}

// slowConn takes a piece in so long.
type slowConn struct {
	memConn
	piece time.Duration
}

func (c *slowConn) Write(b []byte) (int, error) {
	time.Sleep(c.piece)
	return len(b), nil
}

func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }

func TestWritingABatchTakesBoundedTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := frameWriter{conn: &slowConn{piece: 4 * time.Second}, timeout: 5 * time.Second, total: 15 * time.Second}
		wantErr(t, w.write(make([]byte, 8<<20)), errSlow)
		w.conn = &slowConn{piece: time.Second}
		if err := w.write(make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
	})
}

func TestACallIsNeverGivenMoreThanACallMayTake(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var left []time.Duration
		h := echoHandler()
		h.merge = func(_ MergeRequest, x Meta, reply func(error)) { left = append(left, time.Until(x.Deadline)) }
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		pass(time.Second)
		conn := r.greeted(1 << 20)
		r.send(conn, mergeFrame(1, "without a limit"))
		long := header{kind: KindMerge, id: 2, deadlineMS: 3_600_000}
		r.send(conn, frame(long, AppendMergeRequest(nil, MergeRequest{})))
		synctest.Wait()
		for i, d := range left {
			if d != 30*time.Second {
				t.Errorf("request %d has %v left, want 30 s", i, d)
			}
		}
		begin := time.Now()
		wantErr(t, r.merge(nil, within(time.Hour)), ErrTimeout)
		if took := time.Since(begin); took != 30*time.Second || len(left) != 3 {
			t.Errorf("a call of an hour ended after %v", took)
		}
	})
}

// Whoever asks whether a peer was there all the time must not be told so of one that
// stood still.
func TestUnbrokenIsWhatHasNeverBeenSilent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Hour)
		if is := r.peer.Unbroken(); is != time.Hour {
			t.Errorf("after an hour: %v", is)
		}
		r.net.hold(true)
		pass(20 * time.Second)
		r.net.hold(false)
		pass(10 * time.Second)
		if is := r.peer.Unbroken(); !r.peer.Up() || is > 30*time.Second || is < time.Second {
			t.Errorf("after 20 s of silence and 10 s: up %v, %v", r.peer.Up(), is)
		}
		if _, err := r.read("k", Options{Class: Background}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		was := r.peer.Unbroken()
		_ = r.net.conns[len(r.net.conns)-1].Close() // the bulk lane alone
		pass(time.Second)
		if is := r.peer.Unbroken(); is > time.Second || was < time.Minute {
			t.Errorf("%v before the end of one connection, %v after", was, is)
		}
		r.kill()
		pass(10 * time.Second)
		if is := r.peer.Unbroken(); is != 0 {
			t.Errorf("without a connection: %v", is)
		}
	})
}

// The paused side is the one that asks. Its clock may have stood still.
func TestAConnectionDoesNotOutliveAPauseOfItsCaller(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, echoHandler(), PoolConfig{}, ServerConfig{})
		pass(time.Minute)
		conn := r.greeted(1 << 20)
		first := r.stampFrom(conn, 1)
		pass(16 * time.Second) // and the caller knows nothing of it
		// In one piece: the connection may be closed behind the stamp.
		r.send(conn, append(frame(header{kind: KindStamp}, first), frame(header{kind: KindHinted, id: 2}, AppendHintedRequest(nil, HintedRequest{}))...))
		var b [1]byte
		if n, err := conn.Read(b[:]); n > 0 || err == nil {
			t.Error("a caller that was paused is answered on its old connection")
		}
	})
}
