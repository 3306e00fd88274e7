package rpc

import "time"

// Options of one call.
type Options struct {
	// Deadline is when the caller stops waiting; zero means CallTimeout from
	// now. What is left of it travels with the request.
	Deadline time.Time
	Class    Class
	Epochs   Epochs // what a request for rows goes by; it travels with no other
}

// Every method below sends one request and returns at once. done is called
// exactly once, from any goroutine and perhaps before the method returns; it
// must not block. What the arguments point to may be reused when the method
// returns. What a reply points to is done's to keep: it shares one allocation,
// of that reply alone.

// Ping asks for a sign of life from the peer's connection; no handler runs.
func (p *Peer) Ping(o Options, done func(error)) {
	p.call(KindPing, o, 0, appendNothing, pingDone(done))
}

// Sync asks for a sign of health: the peer answers once something written for
// it alone is as durable as a merge would be.
func (p *Peer) Sync(m SyncRequest, o Options, done func(error)) {
	p.call(KindSync, o, 0, func(b []byte) []byte { return AppendSyncRequest(b, m) }, ackDone(done))
}

// Read asks for the record of one key.
func (p *Peer) Read(m ReadRequest, o Options, done func(ReadReply, error)) {
	p.call(KindRead, o, len(m.Key), func(b []byte) []byte { return AppendReadRequest(b, m) }, readDone(done))
}

// Merge sends a record to be joined into the peer's.
func (p *Peer) Merge(m MergeRequest, o Options, done func(error)) {
	p.call(KindMerge, o, len(m.Key)+len(m.Record),
		func(b []byte) []byte { return AppendMergeRequest(b, m) }, ackDone(done))
}

// Write hands a client's write to the peer to coordinate.
func (p *Peer) Write(m WriteRequest, o Options, done func(WriteReply, error)) {
	p.call(KindWrite, o, len(m.Key)+len(m.Op),
		func(b []byte) []byte { return AppendWriteRequest(b, m) }, writeDone(done))
}

// Scan asks for one page of keys.
func (p *Peer) Scan(m ScanRequest, o Options, done func(ScanReply, error)) {
	p.call(KindScan, o, 0, func(b []byte) []byte { return AppendScanRequest(b, m) }, scanDone(done))
}

// Count asks for a number of live keys.
func (p *Peer) Count(m CountRequest, o Options, done func(CountReply, error)) {
	p.call(KindCount, o, slotRangeBytes*len(m.Ranges),
		func(b []byte) []byte { return AppendCountRequest(b, m) }, countDone(done))
}

// Status asks the peer about itself.
func (p *Peer) Status(m StatusRequest, o Options, done func(StatusReply, error)) {
	p.call(KindStatus, o, 0, func(b []byte) []byte { return AppendStatusRequest(b, m) }, statusDone(done))
}

// Settle is Merge that is answered when all of it is synced, however rarely the peer syncs
// by itself. In version 4 it is ErrUnsupported.
func (p *Peer) Settle(m MergeRequest, o Options, done func(error)) {
	p.call(KindSettle, o, len(m.Key)+len(m.Record), func(b []byte) []byte { return AppendMergeRequest(b, m) }, ackDone(done))
}

// Inspect asks for every row the peer has of one key.
func (p *Peer) Inspect(m InspectRequest, o Options, done func(InspectReply, error)) {
	p.call(KindInspect, o, len(m.Key), func(b []byte) []byte { return AppendInspectRequest(b, m) }, inspectDone(done))
}

// Deliver brings the peer rows that were kept for it.
func (p *Peer) Deliver(m DeliverRequest, o Options, done func(DeliverReply, error)) {
	payload := 0
	for _, row := range m.Rows {
		payload += deliverRowBytes + len(row.Key) + len(row.Record)
	}
	p.call(KindDeliver, o, payload, func(b []byte) []byte { return AppendDeliverRequest(b, m) }, deliverDone(done))
}

// fixedBytes is more than the epochs and the fixed fields of any request take, so that
// header, fixed fields and the lengths given above bound a frame from above.
const fixedBytes = 64

func appendNothing(b []byte) []byte { return b }

// completion is how a call ends: with the payload of its reply or with an
// error. The function types below implement it, so that a caller's done is
// kept without a closure around it. complete returns ErrMalformed when the
// payload was no reply of its kind; the call has then ended with ErrClosed.
type completion interface {
	complete(payload []byte, err error) error
}

type (
	ackDone     func(error)
	readDone    func(ReadReply, error)
	writeDone   func(WriteReply, error)
	scanDone    func(ScanReply, error)
	countDone   func(CountReply, error)
	statusDone  func(StatusReply, error)
	inspectDone func(InspectReply, error)
	deliverDone func(DeliverReply, error)
)

func (d ackDone) complete(b []byte, err error) error {
	if err == nil && len(b) != 0 {
		d(ErrClosed)
		return ErrMalformed
	}
	d(err)
	return nil
}

func (d readDone) complete(b []byte, err error) error {
	return finish(d, DecodeReadReply, b, err)
}

func (d writeDone) complete(b []byte, err error) error {
	return finish(d, DecodeWriteReply, b, err)
}

func (d scanDone) complete(b []byte, err error) error {
	return finish(d, DecodeScanReply, b, err)
}

func (d countDone) complete(b []byte, err error) error {
	return finish(d, DecodeCountReply, b, err)
}

func (d statusDone) complete(b []byte, err error) error {
	return finish(d, DecodeStatusReply, b, err)
}

func (d inspectDone) complete(b []byte, err error) error {
	return finish(d, DecodeInspectReply, b, err)
}

func (d deliverDone) complete(b []byte, err error) error {
	return finish(d, DecodeDeliverReply, b, err)
}

func finish[R any](done func(R, error), decode func([]byte) (R, error), b []byte, err error) error {
	var none R
	if err != nil {
		done(none, err)
		return nil
	}
	r, err := decode(b)
	if err != nil {
		done(none, ErrClosed)
		return err
	}
	done(r, nil)
	return nil
}
