package ring

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// NodeID names a node for as long as its data directory lives. Zero is no
// node: [Stand] uses it for "nobody else".
type NodeID uint64

// String gives the 16 hexadecimal digits used in configuration, logs and gossip.
func (id NodeID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText gives String, so that JSON (of log lines, too) has the same
// digits and not a number that most readers would round.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// Hex40 gives the 40 hexadecimal digits that Redis Cluster clients expect of a
// node name. It is String followed by 24 digits derived from it, so names are
// unique exactly when ids are, and an operator recognises one in the other.
func (id NodeID) Hex40() string {
	head := id.String()
	sum := sha256.Sum256([]byte(head))
	return head + hex.EncodeToString(sum[:12])
}

// ParseNodeID reads what String or Hex40 wrote. Zero is refused.
func ParseNodeID(s string) (NodeID, error) {
	if len(s) != 16 && len(s) != 40 {
		return 0, fmt.Errorf("node id %q: want 16 or 40 hexadecimal digits", s)
	}
	v, err := strconv.ParseUint(s[:16], 16, 64)
	id := NodeID(v)
	if err != nil || id == 0 || (s != id.String() && s != id.Hex40()) {
		return 0, fmt.Errorf("node id %q: not a node id", s)
	}
	return id, nil
}
