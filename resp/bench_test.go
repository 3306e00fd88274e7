package resp

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

// feed is a client in memory that sends one batch again and again and counts
// the bytes that come back.
type feed struct {
	batch []byte
	left  int // batches to send
	got   int64
}

func (f *feed) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	f.left--
	return copy(b, f.batch), nil
}

func (f *feed) Write(b []byte) (int, error) {
	f.got += int64(len(b))
	return len(b), nil
}

func (*feed) Close() error                     { return nil }
func (*feed) LocalAddr() net.Addr              { return nil }
func (*feed) RemoteAddr() net.Addr             { return nil }
func (*feed) SetDeadline(time.Time) error      { return nil }
func (*feed) SetReadDeadline(time.Time) error  { return nil }
func (*feed) SetWriteDeadline(time.Time) error { return nil }

// benchStore answers every read with one record, at once.
type benchStore struct {
	Store
	record version.Record
}

func (s *benchStore) Read(_ []byte, _ coordinator.ReadOptions, done func(coordinator.ReadResult, error)) {
	done(coordinator.ReadResult{Record: s.record}, nil)
}

func (s *benchStore) Write(_ []byte, _ version.Op, _ coordinator.WriteOptions, done func(coordinator.WriteResult, error)) {
	done(coordinator.WriteResult{Outcome: version.Outcome{Applied: true}}, nil)
}

// benchmarkBatch runs depth commands per read through guard, table, pipeline and
// reply writer; one operation is one command.
func benchmarkBatch(b *testing.B, depth int, args ...string) {
	store := &benchStore{record: version.Record{
		Context:  version.Context{{Actor: 1, Lo: 1, Hi: 1}},
		Versions: []version.Version{{Dot: version.Dot{Actor: 1, Counter: 1}, HLC: 1, Value: make([]byte, 64)}},
	}}
	srv, err := New(Config{Store: store, Admin: &fakeAdmin{}, Ring: &fakeRing{}})
	if err != nil {
		b.Fatal(err)
	}
	f := &feed{batch: bytes.Repeat(encodeCommand(args), depth), left: max(1, b.N/depth)}
	ss := newSession(srv, newClient(1, f, srv.access.users.Load().Default(), time.Now()))
	b.ReportAllocs()
	b.ResetTimer()
	ss.loop()
	if f.got == 0 {
		b.Fatal("no replies")
	}
}

func BenchmarkPing1(b *testing.B)  { benchmarkBatch(b, 1, "PING") }
func BenchmarkPing16(b *testing.B) { benchmarkBatch(b, 16, "PING") }
func BenchmarkGet1(b *testing.B)   { benchmarkBatch(b, 1, "GET", "key:000000000001") }
func BenchmarkGet16(b *testing.B)  { benchmarkBatch(b, 16, "GET", "key:000000000001") }
func BenchmarkSet1(b *testing.B)   { benchmarkBatch(b, 1, "SET", "key:000000000001", "0123456789abcdef") }
func BenchmarkSet16(b *testing.B) {
	benchmarkBatch(b, 16, "SET", "key:000000000001", "0123456789abcdef")
}

func BenchmarkGuard16(b *testing.B) {
	g := newTestGuard(nil, nil)
	g.conn = &feed{batch: bytes.Repeat(encodeCommand([]string{"GET", "key:000000000001"}), 16), left: b.N/16 + 1}
	b.ReportAllocs()
	for i := 0; i < b.N; {
		cmds, err := g.next(nil)
		if err != nil {
			b.Fatal(err)
		}
		i += len(cmds)
	}
}
