package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// The protocol versions this code speaks. A change of any frame or message
// is a new version. Version 3 had no epochs: a node that speaks no other is refused,
// since nobody could tell whether what it asks for is still to be done. With version 5
// what anti-entropy asks for goes by epochs too.
const (
	protocolMin = 4
	protocolMax = 5
)

// Levels are what a node serves of the levels of a cluster (package membership): the
// one in force, and the highest. The zero value is all that this package knows.
type Levels struct{ InForce, Highest uint16 }

// versions are those of the protocol that a node speaks. Level 1 has the first, and
// each level the next. What is not in force yet may be spoken: a connection is
// forgotten when its nodes end, and whoever is put back has what both sides speak
// found out anew. What is below the level in force is not spoken any more.
func (l Levels) versions() (oldest, newest uint16) {
	oldest, newest = protocolMin, protocolMax
	if l.InForce > 0 {
		oldest = protocolMin + l.InForce - 1
	}
	if l.Highest > 0 {
		newest = min(protocolMin+l.Highest-1, protocolMax)
	}
	return oldest, newest
}

const (
	helloMagic  = "redynrpc"
	helloLayout = 1
	helloBytes  = 54
)

// The lanes a caller may open, and what the server says to a hello.
const (
	laneSmall uint8 = 0
	laneBulk  uint8 = 1

	accepted       uint8 = 0
	refusedVersion uint8 = 1
	refusedCluster uint8 = 2
	refusedNode    uint8 = 3
	refusedHello   uint8 = 4
)

// errRefused is a handshake that ended with the two sides not belonging
// together.
var errRefused = errors.New("rpc: handshake refused")

// hello is what each side says first. The layout of both is the same and drawn
// in the package comment; mark is the lane one way and the verdict the other.
type hello struct {
	mark     uint8
	min, max uint16 // versions spoken; in an acceptance both are the one chosen
	cluster  [16]byte
	from, to ring.NodeID
	maxFrame uint32
}

func appendHello(dst []byte, h hello) []byte {
	start := len(dst)
	dst = append(dst, helloMagic...)
	dst = append(dst, helloLayout, h.mark)
	dst = binary.BigEndian.AppendUint16(dst, h.min)
	dst = binary.BigEndian.AppendUint16(dst, h.max)
	dst = append(dst, h.cluster[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.from))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.to))
	dst = binary.BigEndian.AppendUint32(dst, h.maxFrame)
	return binary.BigEndian.AppendUint32(dst, checksum(dst[start:]))
}

func decodeHello(b []byte) (hello, error) {
	if len(b) != helloBytes || string(b[:8]) != helloMagic || b[8] != helloLayout {
		return hello{}, fmt.Errorf("%w: not a hello", ErrMalformed)
	}
	if checksum(b[:helloBytes-4]) != binary.BigEndian.Uint32(b[helloBytes-4:]) {
		return hello{}, fmt.Errorf("%w: hello checksum", ErrMalformed)
	}
	c := cursor{b: b[9 : helloBytes-4]}
	h := hello{mark: c.u8(), min: c.u16(), max: c.u16()}
	copy(h.cluster[:], c.take(16))
	h.from = ring.NodeID(c.u64())
	h.to = ring.NodeID(c.u64())
	h.maxFrame = c.u32()
	return h, c.end()
}

func readHello(r io.Reader) (hello, error) {
	var b [helloBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return hello{}, err
	}
	return decodeHello(b[:])
}

// terms are what a handshake has settled.
type terms struct {
	version  uint16 // of the protocol, the newest that both sides speak
	maxFrame int    // the largest that both sides take
}

// greet is the caller's side: it says h and returns the terms. The connection keeps
// no deadline from it.
func greet(conn net.Conn, h hello, until time.Time) (terms, error) {
	if err := conn.SetDeadline(until); err != nil {
		return terms{}, err
	}
	if _, err := conn.Write(appendHello(nil, h)); err != nil {
		return terms{}, err
	}
	answer, err := readHello(conn)
	if err != nil {
		return terms{}, err
	}
	if err := answer.verdict(h); err != nil {
		return terms{}, err
	}
	return terms{answer.min, int(min(h.maxFrame, answer.maxFrame))}, conn.SetDeadline(time.Time{})
}

// verdict is what the caller makes of the server's answer to h.
func (a hello) verdict(h hello) error {
	switch {
	case a.mark == refusedVersion:
		return versionsApart(h, "peer", a.min, a.max)
	case a.mark == refusedCluster || a.cluster != h.cluster:
		return fmt.Errorf("%w: peer belongs to cluster %x, we to %x", errRefused, a.cluster, h.cluster)
	case a.mark == refusedNode || a.from != h.to:
		return fmt.Errorf("%w: node %v answers in place of %v", errRefused, a.from, h.to)
	case a.mark != accepted || a.min != a.max || a.min < h.min || a.max > h.max || a.maxFrame < minFrameLimit:
		return fmt.Errorf("%w: answer %d, version %d", errRefused, a.mark, a.min)
	default:
		return nil
	}
}

// admit is the server's side of a hello: its answer, and nil if the two belong
// together. us holds what the server would say of itself.
func admit(h, us hello) (hello, error) {
	us.to = h.from
	version, ok := negotiate(h.min, h.max, us.min, us.max)
	switch {
	case !ok:
		us.mark = refusedVersion
		return us, versionsApart(us, "caller", h.min, h.max)
	case h.cluster != us.cluster:
		us.mark = refusedCluster
		return us, fmt.Errorf("%w: caller belongs to cluster %x", errRefused, h.cluster)
	case h.to != us.from:
		us.mark = refusedNode
		return us, fmt.Errorf("%w: caller looks for node %v", errRefused, h.to)
	case h.from == 0 || h.mark > laneBulk || h.maxFrame < minFrameLimit:
		us.mark = refusedHello
		return us, fmt.Errorf("%w: caller %v, lane %d, frames up to %d", errRefused, h.from, h.mark, h.maxFrame)
	}
	us.mark = accepted
	us.min, us.max = version, version
	return us, nil
}

// versionsApart is the refusal of a node that speaks no version that we speak.
func versionsApart(us hello, who string, oldest, newest uint16) error {
	why := "its program is too old for the level of the cluster"
	if oldest > us.max {
		why = "this program is too old for the level of the cluster"
	}
	return fmt.Errorf("%w: %s speaks versions %d to %d, we %d to %d: %s", errRefused, who, oldest, newest, us.min, us.max, why)
}

// negotiate picks the newest version both sides speak.
func negotiate(aMin, aMax, bMin, bMax uint16) (uint16, bool) {
	newest := min(aMax, bMax)
	return newest, aMin <= aMax && bMin <= bMax && newest >= max(aMin, bMin)
}
