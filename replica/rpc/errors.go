package rpc

import (
	"errors"
	"fmt"
)

// What a caller may learn about a call that brought no reply. The first two
// are certain: the request had no effect on the peer.
var (
	// ErrUnreachable: the request was certainly never sent.
	ErrUnreachable = errors.New("rpc: peer unreachable")
	// ErrOverloaded: a bound of this side or of the peer refused the request
	// before anything was done. The peer lives; it is busy.
	ErrOverloaded = errors.New("rpc: overloaded")
	// ErrTimeout: no reply came in time; the peer may have carried it out.
	ErrTimeout = errors.New("rpc: timed out")
	// ErrClosed: the connection broke; the peer may have carried it out.
	ErrClosed = errors.New("rpc: connection closed")
)

// What the peer answered instead of a result. The rest of the errors a Handler
// returns cross the wire as ErrInternal.
var (
	ErrNoReplicas      = errors.New("rpc: not enough replicas")
	ErrUncertain       = errors.New("rpc: outcome uncertain")
	ErrTooManySiblings = errors.New("rpc: too many siblings")
	ErrTooLarge        = errors.New("rpc: too large")
	ErrCorrupt         = errors.New("rpc: record corrupt")
	ErrStrict          = errors.New("rpc: refused on a fallback")
	ErrNotOwner        = errors.New("rpc: not an owner")
	ErrLoading         = errors.New("rpc: not ready yet")
	ErrStale           = errors.New("rpc: state older than asked for")
	ErrDiskFull        = errors.New("rpc: disk of the peer is almost full")
	ErrUnsupported     = errors.New("rpc: request not supported")
	ErrHintBudget      = errors.New("rpc: too much is kept for that owner")
	ErrNotInteger      = errors.New("rpc: not an integer")
	ErrNotFloat        = errors.New("rpc: not a number")
	ErrOverflow        = errors.New("rpc: count beyond 64 bits")
	ErrNotFinite       = errors.New("rpc: count out of range")
	// ErrStaleEpoch: nothing was done, because the request goes by epochs that are
	// over, or its sender is no member any more. PoolConfig.OnStale has been told what
	// it is to merge before it tries again.
	ErrStaleEpoch = errors.New("rpc: the request goes by epochs that are over")
	// ErrBehind: nothing was done, because the request goes by epochs that the peer has
	// not heard of. It is being handed this node's state. The error matches what the peer
	// refuses the request with by the epochs that it knows, too; see Peer.HandOver.
	ErrBehind   = errors.New("rpc: the peer has not heard of the epochs that the request goes by")
	ErrInternal = errors.New("rpc: internal error of the peer")
)

// ErrMalformed is what every decoder of this package returns for bytes that
// are not a message.
var ErrMalformed = errors.New("rpc: malformed message")

// UncertainError says how many nodes acknowledged a write that missed its
// quorum. It matches ErrUncertain.
type UncertainError struct {
	Acked, Want int
}

// Error implements error.
func (e *UncertainError) Error() string {
	return fmt.Sprintf("rpc: outcome uncertain: %d of %d replicas acknowledged", e.Acked, e.Want)
}

// Is makes errors.Is(e, ErrUncertain) hold.
func (e *UncertainError) Is(target error) bool { return target == ErrUncertain }

// code is an error as it crosses the wire. Values are part of the protocol.
type code uint8

const (
	codeInternal        code = 1
	codeOverloaded      code = 2
	codeNoReplicas      code = 3
	codeUncertain       code = 4
	codeTooManySiblings code = 5
	codeTooLarge        code = 6
	codeCorrupt         code = 7
	codeStrict          code = 8
	codeNotOwner        code = 9
	codeLoading         code = 10
	codeStale           code = 11
	codeUnsupported     code = 12
	codeTimeout         code = 13
	codeHintBudget      code = 14
	codeDiskFull        code = 15
	codeStaleEpoch      code = 16
	codeBehind          code = 17 // since version 5, as those below

	codeNotInteger code = 18
	codeNotFloat   code = 19
	codeOverflow   code = 20
	codeNotFinite  code = 21
	codeEnd        code = 22
)

// sentinel maps a code to the error a caller branches on. A code of a newer
// peer is an internal error here.
func (c code) sentinel() error {
	switch c {
	case codeOverloaded:
		return ErrOverloaded
	case codeNoReplicas:
		return ErrNoReplicas
	case codeUncertain:
		return ErrUncertain
	case codeTooManySiblings:
		return ErrTooManySiblings
	case codeTooLarge:
		return ErrTooLarge
	case codeCorrupt:
		return ErrCorrupt
	case codeStrict:
		return ErrStrict
	case codeNotOwner:
		return ErrNotOwner
	case codeLoading:
		return ErrLoading
	case codeStale:
		return ErrStale
	case codeUnsupported:
		return ErrUnsupported
	case codeTimeout:
		return ErrTimeout
	case codeHintBudget:
		return ErrHintBudget
	case codeDiskFull:
		return ErrDiskFull
	case codeStaleEpoch:
		return ErrStaleEpoch
	case codeNotInteger:
		return ErrNotInteger
	case codeNotFloat:
		return ErrNotFloat
	case codeOverflow:
		return ErrOverflow
	case codeNotFinite:
		return ErrNotFinite
	default:
		return ErrInternal
	}
}

// plain reports whether a code is an error of one byte that this version knows.
func (c code) plain() bool {
	return c >= codeInternal && c < codeEnd && c != codeUncertain && c != codeStaleEpoch && c != codeBehind
}

// codeOf is the inverse of sentinel; what it does not know is internal.
func codeOf(err error) code {
	for c := codeOverloaded; c < codeEnd; c++ {
		if c != codeBehind && errors.Is(err, c.sentinel()) {
			return c
		}
	}
	return codeInternal
}

// appendError encodes err as the payload of an error reply.
func appendError(dst []byte, err error) []byte {
	var u *UncertainError
	if errors.As(err, &u) {
		return append(dst, byte(codeUncertain), clampByte(u.Acked), clampByte(u.Want))
	}
	var s *staleError
	if errors.As(err, &s) {
		return append(append(dst, byte(codeStaleEpoch)), s.state...)
	}
	var b *behindError
	if errors.As(err, &b) {
		return append(dst, byte(codeBehind), byte(codeOf(b.refusal)))
	}
	return append(dst, byte(codeOf(err)))
}

// decodeError is the inverse of appendError. The first result is the error the
// peer sent; the second is ErrMalformed.
func decodeError(b []byte) (remote, err error) {
	switch {
	case len(b) > 0 && code(b[0]) == codeStaleEpoch:
		return &staleError{state: b[1:]}, nil
	case len(b) == 2 && code(b[0]) == codeBehind && code(b[1]).plain():
		return &behindError{code(b[1]).sentinel()}, nil
	case len(b) == 1:
		return code(b[0]).sentinel(), nil
	case len(b) == 3 && code(b[0]) == codeUncertain:
		return &UncertainError{Acked: int(b[1]), Want: int(b[2])}, nil
	default:
		return nil, ErrMalformed
	}
}

func clampByte(n int) byte {
	return byte(max(0, min(n, 255)))
}
