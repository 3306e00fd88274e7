package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
)

// identity says which node a data directory belongs to. It is drawn on the
// first boot and kept as long as the directory; an address is none, for it
// changes.
//
//	byte  0      version, 1
//	bytes 1..8   node id, big endian, not zero
//	bytes 9..16  boots, big endian: how often the directory was opened
//	bytes 17..20 CRC32C of the bytes before
type identity struct {
	node  ring.NodeID
	boots uint64
}

const (
	identityVersion = 1
	identityBytes   = 21
	identityRow     = "identity"
)

var errIdentity = errors.New("identity is unreadable: the data directory is damaged or of a newer release")

func (id identity) encode() []byte {
	b := make([]byte, 0, identityBytes)
	b = append(b, identityVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(id.node))
	b = binary.BigEndian.AppendUint64(b, id.boots)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeIdentity(b []byte) (identity, error) {
	if len(b) != identityBytes || b[0] != identityVersion {
		return identity{}, errIdentity
	}
	body, sum := b[:identityBytes-4], binary.BigEndian.Uint32(b[identityBytes-4:])
	id := identity{node: ring.NodeID(binary.BigEndian.Uint64(b[1:])), boots: binary.BigEndian.Uint64(b[9:])}
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum || id.node == 0 {
		return identity{}, errIdentity
	}
	return id, nil
}

// boot reads the identity of the store, draws one if there is none, and counts
// this boot durably before it returns.
func boot(s *storage.Store, random func() uint64) (identity, error) {
	b, err := s.Meta(identityRow)
	var id identity
	switch {
	case errors.Is(err, storage.ErrNotFound):
		for id.node == 0 {
			id.node = ring.NodeID(random())
		}
	case err != nil:
		return identity{}, fmt.Errorf("identity: %w", err)
	default:
		if id, err = decodeIdentity(b); err != nil {
			return identity{}, err
		}
	}
	id.boots++
	if err := s.SetMeta(identityRow, id.encode()); err != nil {
		return identity{}, fmt.Errorf("identity: %w", err)
	}
	return id, nil
}

// metaStore is one row of the store as a blob, for membership.
type metaStore struct {
	store *storage.Store
	row   string
}

// Load returns nil if the row was never saved.
func (m metaStore) Load() ([]byte, error) {
	b, err := m.store.Meta(m.row)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// Save returns once the row is durable.
func (m metaStore) Save(b []byte) error { return m.store.SetMeta(m.row, b) }
