package rpc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Kind says what a frame carries. Values are part of the protocol.
type Kind uint8

// The requests. A reply has the kind of its request with replyBit set.
const (
	KindPing    Kind = 1
	KindRead    Kind = 2
	KindMerge   Kind = 3
	KindWrite   Kind = 4
	KindScan    Kind = 5
	KindCount   Kind = 6
	KindStatus  Kind = 7
	KindInspect Kind = 8
	KindDeliver Kind = 9
	KindNodes   Kind = 10
	KindList    Kind = 11
	KindFetch   Kind = 12
	KindSession Kind = 13
	KindSync    Kind = 14
	KindHinted  Kind = 15
	KindStamp   Kind = 16 // has no reply
	KindLacks   Kind = 17
	KindState   Kind = 18 // since version 5
	KindPublish Kind = 19 // since version 5
	KindSettle  Kind = 20 // since version 5

	lastKind  = KindSettle
	replyBit  = Kind(0x80)
	kindError = Kind(0xff)
)

// String names the request a kind belongs to, for metrics and tests.
func (k Kind) String() string {
	switch k &^ replyBit {
	case KindPing:
		return "ping"
	case KindRead:
		return "read"
	case KindMerge:
		return "merge"
	case KindWrite:
		return "write"
	case KindScan:
		return "scan"
	case KindCount:
		return "count"
	case KindStatus:
		return "status"
	case KindInspect:
		return "inspect"
	case KindDeliver:
		return "deliver"
	case KindNodes:
		return "nodes"
	case KindList:
		return "list"
	case KindFetch:
		return "fetch"
	case KindSession:
		return "session"
	case KindSync:
		return "sync"
	case KindHinted:
		return "hinted"
	case KindStamp:
		return "stamp"
	case KindLacks:
		return "lacks"
	case KindState:
		return "state"
	case KindPublish:
		return "publish"
	case KindSettle:
		return "settle"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// request reports whether k is a request this version knows.
func (k Kind) request() bool { return k >= KindPing && k <= lastKind }

// spoken reports whether a version of the protocol has the request k.
func (k Kind) spoken(version uint16) bool { return k < KindState || version >= 5 }

// reply reports whether k answers a request.
func (k Kind) reply() bool { return k == kindError || k&replyBit != 0 && (k&^replyBit).request() }

// Class says on whose behalf a request is made; the server refuses the later
// classes first. Values are part of the protocol.
type Class uint8

// The classes, most urgent first.
const (
	Foreground Class = 0 // a client waits
	Repair     Class = 1 // read repair and what else follows from a request
	Background Class = 2 // handoff, exchange, counting

	classes = 3
)

// String names a class, for metrics.
func (c Class) String() string {
	switch c {
	case Foreground:
		return "foreground"
	case Repair:
		return "repair"
	case Background:
		return "background"
	default:
		return fmt.Sprintf("class(%d)", uint8(c))
	}
}

// Epochs are what the sender of a request for rows goes by, as package epoch
// encodes its Stamp: this package does not look inside.
type Epochs [32]byte

// stamped reports whether a frame of this kind carries Epochs in a version of the
// protocol: a request for rows, since version 5 one of anti-entropy for what rows there
// are. What another node coordinates goes by that node's own.
//
// The other kinds of anti-entropy and reaping need none:
//
//   - A session's frames name its rings, which is stricter: it counts only where these
//     are in force at its end, and the questions in between are stamped.
//   - Hinted is answered by a settled node only, and asked by one, of every member of
//     its ring. No two that are waited for are settled in different rings: who is further
//     has had the word of the other. A ring that the asker has not heard of can be at
//     work meanwhile. But whoever works by it is one of those asked, and unsettled; or
//     its answer was given before, and what it takes from a disk later is as new as the
//     sessions that were proven before the question.
//   - Lacks follows sessions that count, with the same owners, and what a node lacks is
//     its own whatever the rings. Of a node that was forgotten none of these matters:
//     they decide what the asker drops or believes itself, and nobody reads its disk.
func (k Kind) stamped(version uint16) bool {
	switch k {
	case KindRead, KindMerge, KindScan, KindCount, KindInspect, KindDeliver:
		return true
	case KindNodes, KindList, KindFetch, KindSettle:
		return version >= 5
	}
	return false
}

// reads reports whether a stamped request reads rows; the others bring some.
func (k Kind) reads() bool { return k != KindMerge && k != KindDeliver && k != KindSettle }

// Sizes of a frame; the layout is drawn in the package comment.
const (
	prefixBytes = 8  // length and crc
	bodyBytes   = 14 // kind, class, id, deadline
	headerBytes = prefixBytes + bodyBytes

	idOffset       = 10
	deadlineOffset = 18

	// Hello frames and error replies fit the one; lengths fit an int32 in the
	// other.
	minFrameLimit = 1 << 10
	maxFrameLimit = 1 << 30
)

// header is the fixed part of a frame without length and crc.
type header struct {
	kind       Kind
	class      Class
	id         uint64
	deadlineMS uint32 // what is left for the request when it is sent; 0 = no limit
	epochs     Epochs // of a stamped kind
}

// checksum is CRC32C. MakeTable returns the one table the standard library has
// for it.
func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// beginFrame appends a frame head; sealFrame completes it once the payload
// stands behind it.
func beginFrame(dst []byte, h header, version uint16) []byte {
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, byte(h.kind), byte(h.class))
	dst = binary.BigEndian.AppendUint64(dst, h.id)
	dst = binary.BigEndian.AppendUint32(dst, h.deadlineMS)
	if h.kind.stamped(version) {
		dst = append(dst, h.epochs[:]...)
	}
	return dst
}

// sealFrame writes length and crc of the one frame that fills b.
func sealFrame(b []byte) {
	binary.BigEndian.PutUint32(b[0:], uint32(len(b)-prefixBytes))
	binary.BigEndian.PutUint32(b[4:], checksum(b[prefixBytes:]))
}

// frameLen returns how many bytes the frame that starts at b takes, or 0 when
// b is too short to tell. A length no frame may have is an error, found before
// anything is allocated for it.
func frameLen(b []byte, maxFrame int) (int, error) {
	if len(b) < 4 {
		return 0, nil
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if n < bodyBytes || n+prefixBytes > uint64(maxFrame) {
		return 0, fmt.Errorf("%w: frame length %d", ErrMalformed, n)
	}
	return int(n) + prefixBytes, nil
}

// inVersion rewrites frames of the newest version, which have no replies among them, to
// another. It uses their space.
func inVersion(frames []byte, version uint16) []byte {
	kept := frames[:0]
	for rest := frames; len(rest) > 0; {
		n := prefixBytes + int(binary.BigEndian.Uint32(rest))
		frame := rest[:n]
		rest = rest[n:]
		if k := Kind(frame[8]); k.stamped(protocolMax) && !k.stamped(version) {
			frame = append(frame[:headerBytes], frame[headerBytes+len(Epochs{}):]...)
			sealFrame(frame)
		}
		kept = append(kept, frame...)
	}
	return kept
}

// openFrame checks one whole frame and splits it. The payload aliases b.
func openFrame(b []byte, version uint16) (header, []byte, error) {
	if got, want := checksum(b[prefixBytes:]), binary.BigEndian.Uint32(b[4:]); got != want {
		return header{}, nil, fmt.Errorf("%w: frame checksum %08x, computed %08x", ErrMalformed, want, got)
	}
	h := header{
		kind:       Kind(b[8]),
		class:      Class(b[9]),
		id:         binary.BigEndian.Uint64(b[idOffset:]),
		deadlineMS: binary.BigEndian.Uint32(b[deadlineOffset:]),
	}
	if h.class >= classes {
		return header{}, nil, fmt.Errorf("%w: class %d", ErrMalformed, h.class)
	}
	payload := b[headerBytes:]
	if h.kind.stamped(version) {
		if len(payload) < len(h.epochs) {
			return header{}, nil, fmt.Errorf("%w: %v without epochs", ErrMalformed, h.kind)
		}
		payload = payload[copy(h.epochs[:], payload):]
	}
	return h, payload, nil
}
