package merkle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrCorrupt says that bytes are not an encoded tree.
var ErrCorrupt = errors.New("merkle: corrupt tree")

const (
	version      = 1
	headerBytes  = 2
	trailerBytes = 4
	minDepth     = 4
	maxDepth     = 10
)

// Append appends the encoded tree to dst.
func (t *Tree) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, version, byte(t.depth))
	for _, leaf := range t.nodes[t.Leaves():] {
		dst = binary.BigEndian.AppendUint64(dst, leaf)
	}
	return binary.BigEndian.AppendUint32(dst, checksum(dst[start:]))
}

// Decode reads what Append wrote; b is that and no more.
func Decode(b []byte) (*Tree, error) {
	if len(b) < headerBytes || b[0] != version {
		return nil, fmt.Errorf("%w: not version %d", ErrCorrupt, version)
	}
	depth := int(b[1])
	if depth < minDepth || depth > maxDepth || len(b) != headerBytes+8<<depth+trailerBytes {
		return nil, fmt.Errorf("%w: depth %d in %d bytes", ErrCorrupt, depth, len(b))
	}
	body := b[:len(b)-trailerBytes]
	if binary.BigEndian.Uint32(b[len(body):]) != checksum(body) {
		return nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	t := New(1 << depth)
	for i := range t.Leaves() {
		t.nodes[t.Leaves()+i] = binary.BigEndian.Uint64(body[headerBytes+8*i:])
	}
	t.foldAll()
	return t, nil
}

func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}
