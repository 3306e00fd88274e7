package coordinator

import (
	"errors"
	"fmt"
)

// What a client request can end with.
var (
	// ErrNoReplicas ends a write of which certainly nothing was stored
	// anywhere: too few nodes are live, or a command that insists on the owners
	// met none. It is safe to repeat.
	ErrNoReplicas = errors.New("coordinator: not enough live replicas to write")

	// ErrNoReadQuorum ends a read (of a key, a page or a count) for which R
	// nodes cannot be found. It never means that the key is absent.
	ErrNoReadQuorum = errors.New("coordinator: not enough live replicas to read")

	// ErrNoOwner is an ErrNoReadQuorum: nodes that stand in for the owners of a key
	// answered, and have nothing of it. That does not make it absent.
	ErrNoOwner = fmt.Errorf("%w: no owner of the key could be asked", ErrNoReadQuorum)

	// ErrTimeout ends a read that got fewer than R answers in time.
	ErrTimeout = errors.New("coordinator: read timed out")

	// ErrStale ends a read whose minimum token no reachable owner covers.
	ErrStale = errors.New("coordinator: no reachable replica covers the token")

	// ErrOverloaded refuses a request because this node, or the node asked, has
	// as much under way as it may. Nothing was done. As the answer of a peer it
	// is a failed reply that earns no hint: a busy owner is not a dead one.
	ErrOverloaded = errors.New("coordinator: too many requests under way")
)

// ErrDiskFull ends a write of which nothing was stored because disks are almost
// full. As the answer of a peer it means that the node takes no writes for now:
// unlike a busy one it is stood in for, and gets a hint.
var ErrDiskFull = errors.New("coordinator: disk almost full")

// What the answer of a peer can mean besides; the adapters between Peer and the
// node-to-node protocol map that protocol's errors to these. Any other error is
// a failure of a node that is alive, with an unknown outcome.
var (
	// ErrUnreachable: the request was certainly not received.
	ErrUnreachable = errors.New("coordinator: peer is unreachable")

	// ErrLost: the request may have been received, and no answer will come.
	ErrLost = errors.New("coordinator: peer did not answer")

	// ErrHintBudget: the node keeps as much for that owner as it may, and the
	// hint was optional. Nothing was stored; no other node is asked to.
	ErrHintBudget = errors.New("coordinator: too much is kept for that owner")

	// ErrNotOwner: the node asked cannot coordinate this write (it is stopping,
	// or cannot read its copy), or as far as it knows it is no owner of the key and
	// holds nothing of it. Nothing was written; another owner may be asked.
	ErrNotOwner = errors.New("coordinator: the node asked cannot coordinate the key")

	// ErrStaleEpoch: the node asked goes by later rings than this one, or this one
	// was given up as dead. Nothing was stored. No other node keeps the copy instead:
	// what this node takes for the owners may be none.
	ErrStaleEpoch = errors.New("coordinator: the node asked goes by later rings")
)

// UncertainError ends a write that was stored somewhere, or may have been, on
// fewer nodes than asked for. The write may surface later; it must be read
// back, or repeated only if repeating does no harm.
type UncertainError struct {
	Acked int // nodes that said they stored it
	Want  int // nodes asked for
}

// Error says how far the write got.
func (e *UncertainError) Error() string {
	return fmt.Sprintf("coordinator: outcome unknown, acked %d/%d", e.Acked, e.Want)
}
