package coordinator

import (
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// instant is a cluster of three whose nodes answer within the call.
type instant struct {
	rings *Rings
	peers [3]instantPeer
	self  ring.NodeID
	later bool     // answer in flush, not within the call
	queue []func() // the answers
	rec   version.Record
	hash  uint64
	enc   []byte
}

type instantPeer struct {
	Peer // the methods that requests do not use
	c    *instant
}

func (p *instantPeer) Read(req ReadRequest, done func(ReadReply, error)) {
	out := ReadReply{Hash: p.c.hash}
	switch {
	case req.HaveAny && req.Have == p.c.hash:
		out.Same = true
	case !req.DigestOnly:
		out.Record = p.c.rec
	}
	if p.c.later {
		p.c.queue = append(p.c.queue, func() { done(out, nil) })
		return
	}
	done(out, nil)
}

func (p *instantPeer) Merge(_ MergeRequest, done func(error)) {
	if p.c.later {
		p.c.queue = append(p.c.queue, func() { done(nil) })
		return
	}
	done(nil)
}

func (c *instant) flush() {
	for i := 0; i < len(c.queue); i++ {
		c.queue[i]()
	}
	c.queue = c.queue[:0]
}

func (p *instantPeer) Latency() time.Duration { return time.Millisecond }

func (c *instant) Rings() *Rings           { return c.rings }
func (c *instant) Up(ring.NodeID) bool     { return true }
func (c *instant) Peer(n ring.NodeID) Peer { return &c.peers[n-1] }
func (c *instant) Self() ring.NodeID       { return c.self }

func (c *instant) Mutate(_ []byte, _ ring.NodeID, _ version.Record, _ version.Op, _ time.Time, _ bool, done func(error)) ([]byte, version.Outcome, error) {
	done(nil)
	return c.enc, version.Outcome{Applied: true}, nil
}

func newInstant(b *testing.B) (*Coordinator, *instant) {
	c := &instant{self: 1, rec: made(1, 1, "value", version.Record{})}
	c.hash, c.enc = c.rec.StateHash(), version.EncodeWire(nil, c.rec)
	for i := range c.peers {
		c.peers[i].c = c
	}
	base, err := ring.New(ring.Params{}, []ring.Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}, {ID: 3, Weight: 1}})
	if c.rings = NewRings(ring.NewLive(base), Stamp{}, 0); err != nil {
		b.Fatal(err)
	}
	coord, err := New(Config{}, c, c)
	if err != nil {
		b.Fatal(err)
	}
	return coord, c
}

func BenchmarkRead(b *testing.B)       { benchmarkRead(b, false) }
func BenchmarkReadLater(b *testing.B)  { benchmarkRead(b, true) } // with its timer
func BenchmarkWrite(b *testing.B)      { benchmarkWrite(b, false) }
func BenchmarkWriteLater(b *testing.B) { benchmarkWrite(b, true) }

func benchmarkRead(b *testing.B, later bool) {
	c, in := newInstant(b)
	in.later = later
	k := []byte("key:000001")
	done := func(_ ReadResult, err error) {
		if err != nil {
			b.Error(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Read(k, ReadOptions{R: 2}, done)
		in.flush()
	}
}

func benchmarkWrite(b *testing.B, later bool) {
	c, in := newInstant(b)
	in.later = later
	k := []byte("key:000001")
	op := set("value")
	done := func(_ WriteResult, err error) {
		if err != nil {
			b.Error(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Write(k, op, WriteOptions{W: 2}, done)
		in.flush()
	}
}

// BenchmarkWriteWithRead is an operation that depends on the old value.
func BenchmarkWriteWithRead(b *testing.B) {
	c, _ := newInstant(b)
	k := []byte("key:000001")
	op := version.Op{Kind: version.OpAppend, Value: []byte("value")}
	done := func(WriteResult, error) {}
	b.ReportAllocs()
	for b.Loop() {
		c.Write(k, op, WriteOptions{R: 2, W: 2}, done)
	}
}
