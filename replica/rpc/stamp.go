package rpc

import (
	"encoding/binary"
	"errors"
	"time"
)

// This file keeps requests from being carried out long after they were sent. The
// package comment has the argument.

// errOld is a connection whose caller has not shown for long that it heard this
// server. What lies in its buffers may be of any age.
var errOld = errors.New("rpc: what a connection brings may be old")

const stampBytes = 8 + 8

// stamp is a moment by the two clocks of a server: one that nobody sets, and one
// that goes on while the machine sleeps. Only that server can read it.
type stamp struct {
	up   time.Duration // since the server was made
	wall int64         // Unix time in milliseconds
}

func (s *Server) stampOf(now time.Time) stamp {
	return stamp{up: now.Sub(s.epoch), wall: now.UnixMilli()}
}

// since is how long ago the moment was, by whichever clock says longer. A stamp
// of the future is none of this server's.
func (m stamp) since(now stamp) (time.Duration, error) {
	if m.up < 0 || m.up > now.up {
		return 0, ErrMalformed
	}
	return max(now.up-m.up, time.Duration(now.wall-m.wall)*time.Millisecond), nil
}

func appendStamp(dst []byte, m stamp) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.up))
	return binary.BigEndian.AppendUint64(dst, uint64(m.wall))
}

func decodeStamp(b []byte) (stamp, error) {
	c := cursor{b: b}
	m := stamp{up: time.Duration(c.u64()), wall: int64(c.u64())}
	return m, c.end()
}

// ages are the times that follow from how old a message may become.
type ages struct {
	silence time.Duration // a connection is closed that long after the last sign of the other side
	call    time.Duration // longest time a call may take
	pulse   time.Duration // between two pings on a connection
}

// agesOf divides the age: so long may a request be under way, twice as long may
// be left for it when it arrives, and a quarter remains for those who look at
// their clock and then act.
func agesOf(message time.Duration) ages {
	return ages{silence: message / 4, call: message / 2, pulse: min(time.Second, message/32)}
}

// fresh is what a server knows of the age of what a connection brings.
type fresh struct {
	at stamp // the newest that the caller has repeated; at first the handshake's
}

// check refuses what the connection has brought by now if it may be older than
// limit.
func (f *fresh) check(now stamp, limit time.Duration) error {
	age, err := f.at.since(now)
	if err == nil && age > limit {
		err = errOld
	}
	return err
}

// renew takes the stamp that stands before the next requests.
func (f *fresh) renew(payload []byte, now stamp, limit time.Duration) error {
	m, err := decodeStamp(payload)
	if err != nil {
		return err
	}
	f.at = m
	return f.check(now, limit)
}

// heardStamp takes what a ping has brought back: requests that are looked at from
// now on are younger.
func (l *lane) heardStamp(s *session, m stamp, at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.session == s {
		s.stamp, s.stampNews = m, true
		l.mu.stampAt = at
	}
}

// stampFrame is the frame that repeats the newest stamp to the server.
func stampFrame(m stamp) []byte {
	b := appendStamp(beginFrame(nil, header{kind: KindStamp}, protocolMin), m)
	sealFrame(b)
	return b
}

// pingDone ends a ping; its stamp was taken before.
type pingDone func(error)

func (d pingDone) complete(b []byte, err error) error {
	if err == nil && len(b) != stampBytes {
		d(ErrClosed)
		return ErrMalformed
	}
	d(err)
	return nil
}
