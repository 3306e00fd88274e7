package resp

import (
	"errors"
	"net"
	"sync"
	"time"
)

// errSlowSubscriber ends a connection that does not take its messages.
var errSlowSubscriber = errors.New("resp: subscriber does not read its messages")

const (
	// pushBatch is how much is gathered for one write.
	pushBatch = 64 * kib
	// pushPiece is how much of a long reply must leave within WriteTimeout.
	pushPiece = 256 * kib
	// chunkBytes is what a queued message takes besides its bytes.
	chunkBytes = 32
)

// An outbox is the way out of a connection that has subscribed to something:
// its session's replies and the messages that other goroutines bring leave
// through one queue. What is put there are whole replies and whole messages, so
// one never stands inside another.
//
// There is no goroutine as long as there is nothing to send. Whoever puts the
// first chunk starts one, which ends with the queue; a session that flushes its
// replies writes them itself if nobody else does.
//
// A queue has bounds in bytes, and so have all queues of a server together. Past
// one the connection is cut: whoever wanted the messages has lost some, and
// should know.
type outbox struct {
	srv  *Server
	conn net.Conn

	moved sync.Cond // on mu: sent or err has changed
	mu    struct {
		sync.Mutex
		proto   int // of messages
		queue   []chunk
		holding bool // messages wait in aside
		aside   []chunk
		pending int64  // charged for both and for what is being written
		put     uint64 // chunks ever queued
		sent    uint64 // chunks ever written
		writing bool   // somebody takes from the queue
		over    time.Time
		err     error
	}
}

// A chunk is one or more whole replies or messages. Its bytes are not changed
// any more: many connections may share them.
type chunk struct {
	bytes   []byte
	charged int64 // 0 for replies that the session waits for
}

func newOutbox(srv *Server, conn net.Conn, proto int) *outbox {
	o := &outbox{srv: srv, conn: conn}
	o.moved.L = &o.mu.Mutex
	o.mu.proto = proto
	return o
}

// deliver queues a message in the connection's protocol version. It never waits,
// and reports whether the connection is still there.
func (o *outbox) deliver(l *letter) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pushLocked(l.in(o.mu.proto), o.mu.holding)
}

// hold has messages wait until release, because the session is in the middle of one
// long reply.
func (o *outbox) hold() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.holding = true
}

// release queues the messages that have waited. The session must have queued its
// reply before.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.holding = false
	for _, c := range o.mu.aside {
		o.putLocked(c)
	}
	if o.mu.aside = nil; len(o.mu.queue) > 0 {
		o.startLocked()
	}
}

// push queues bytes that nobody waits for. From then on messages are in proto.
func (o *outbox) push(b []byte, proto int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.proto = proto
	if len(b) > 0 {
		o.pushLocked(b, false)
	}
}

func (o *outbox) pushLocked(b []byte, aside bool) bool {
	if o.mu.err != nil {
		return false
	}
	limits, charge := &o.srv.cfg.Limits, int64(len(b)+chunkBytes)
	backlog := o.mu.pending > 0
	o.mu.pending += charge
	all := o.srv.pushes.used.Add(charge)
	if aside {
		o.mu.aside = append(o.mu.aside, chunk{b, charge})
	} else {
		o.putLocked(chunk{b, charge})
	}
	switch {
	case o.mu.pending <= limits.PushSoft:
		o.mu.over = time.Time{}
	case o.mu.over.IsZero():
		o.mu.over = time.Now()
	}
	// When all queues together are full, whoever has not read what it was sent
	// before goes.
	if o.mu.pending > limits.PushHard || backlog && all > limits.MaxPushes ||
		!o.mu.over.IsZero() && time.Since(o.mu.over) > limits.PushSoftTime {
		o.srv.counts.slowSubscribers.Add(1)
		o.failLocked(errSlowSubscriber)
		return false
	}
	if len(o.mu.queue) > 0 {
		o.startLocked()
	}
	return true
}

func (o *outbox) putLocked(c chunk) {
	o.mu.queue = append(o.mu.queue, c)
	o.mu.put++
}

// startLocked makes somebody write.
//
// Requires: the session of the connection has not ended, so that the server still
// waits for it. Who brings messages holds the hub's lock, under which an ending
// session leaves.
func (o *outbox) startLocked() {
	if !o.mu.writing {
		o.mu.writing = true
		o.srv.wg.Go(o.run)
	}
}

// failLocked ends the connection without waiting for it.
func (o *outbox) failLocked(err error) {
	o.dropLocked(err)
	_ = o.conn.SetWriteDeadline(time.Unix(1, 0)) // a write under way ends
	o.startLocked()                              // closes the connection
}

// dropLocked gives up what is queued, and takes nothing any more.
func (o *outbox) dropLocked(err error) {
	if o.mu.err != nil {
		return
	}
	o.mu.err = err
	for _, c := range append(o.mu.queue, o.mu.aside...) {
		o.mu.pending -= c.charged
		o.srv.pushes.give(c.charged)
	}
	o.mu.queue, o.mu.aside = nil, nil
	o.moved.Broadcast()
}

// end is for the session's end, when the connection is closed.
func (o *outbox) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropLocked(net.ErrClosed)
}

// backlog is what the connection has still to be sent of messages.
func (o *outbox) backlog() (chunks int, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.mu.queue) + len(o.mu.aside), o.mu.pending
}

// reply sends the session's replies behind all that is queued, and waits until
// they have left.
func (o *outbox) reply(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.err == nil && len(b) > 0 {
		o.putLocked(chunk{bytes: b})
	}
	mine := o.mu.put
	if o.mu.err == nil && !o.mu.writing && o.mu.sent < mine {
		o.mu.writing = true
		o.mu.Unlock()
		o.write(mine)
		o.mu.Lock()
	}
	for o.mu.err == nil && o.mu.sent < mine {
		o.moved.Wait()
	}
	return o.mu.err
}

// run writes until the queue is empty.
func (o *outbox) run() { o.write(^uint64(0)) }

// write writes until that many chunks were sent; what is queued then is left to
// a goroutine. Requires: writing was set for the caller.
func (o *outbox) write(until uint64) {
	for {
		batch := o.take(until)
		if batch == nil {
			return
		}
		err := o.send(batch)
		o.note(batch, err)
	}
}

// take takes the next chunks off the queue, or nil when the caller is to write
// no more.
func (o *outbox) take(until uint64) []chunk {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.mu.err != nil:
		o.mu.writing = false
		_ = o.conn.Close() // wakes the session, which may be reading
		return nil
	case len(o.mu.queue) == 0:
		o.mu.writing = false
		o.mu.queue = nil
		return nil
	case o.mu.sent >= until:
		o.srv.wg.Go(o.run)
		return nil
	}
	n, size := 1, len(o.mu.queue[0].bytes)
	for n < len(o.mu.queue) && size+len(o.mu.queue[n].bytes) <= pushBatch {
		size += len(o.mu.queue[n].bytes)
		n++
	}
	batch := o.mu.queue[:n:n]
	o.mu.queue = o.mu.queue[n:]
	return batch
}

// gathered are buffers in which small chunks become one write.
var gathered = sync.Pool{New: func() any { return new([pushBatch]byte) }}

func (o *outbox) send(batch []chunk) error {
	if len(batch) == 1 {
		return o.pieces(batch[0].bytes)
	}
	room := gathered.Get().(*[pushBatch]byte)
	defer gathered.Put(room)
	all := room[:0]
	for _, c := range batch {
		all = append(all, c.bytes...)
	}
	return o.pieces(all)
}

func (o *outbox) pieces(b []byte) error {
	for len(b) > 0 {
		if err := o.arm(); err != nil {
			return err
		}
		n, err := o.conn.Write(b[:min(len(b), pushPiece)])
		o.srv.counts.netOutput.Add(int64(n))
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// arm gives the next write its time, unless the connection was given up: then its
// deadline must stay in the past.
func (o *outbox) arm() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.err != nil {
		return o.mu.err
	}
	return o.conn.SetWriteDeadline(time.Now().Add(o.srv.cfg.Limits.WriteTimeout))
}

// note books what was written, or why not.
func (o *outbox) note(batch []chunk, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range batch {
		o.mu.pending -= c.charged
		o.srv.pushes.give(c.charged)
	}
	clear(batch) // the queue's array may live on
	o.mu.sent += uint64(len(batch))
	if o.mu.pending <= o.srv.cfg.Limits.PushSoft {
		o.mu.over = time.Time{}
	}
	if err != nil {
		o.dropLocked(err)
	}
	o.moved.Broadcast()
}
