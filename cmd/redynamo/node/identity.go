package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
)

// identity says which node a data directory belongs to, and what is known of its
// past. It is drawn on the first boot and kept as long as the directory; an
// address is none, for it changes.
//
//	byte  0      version, 2
//	bytes 1..8   node id, big endian, not zero
//	bytes 9..16  boots, big endian: how often the directory was opened
//	bytes 17..24 ahead, big endian: added to the store's batch numbers, so that
//	             what the node says of its log grows though the directory was put
//	             back
//	byte  25     flags: 1 recovering
//	bytes 26..29 CRC32C of the bytes before
//
// Version 1 ended behind the boots, with the CRC32C, and is still read.
type identity struct {
	node       ring.NodeID
	boots      uint64
	ahead      uint64
	recovering bool
}

const (
	identityVersion    = 2
	identityBytes      = 30
	identityPlain      = 1
	identityPlainBytes = 21
	identityRow        = "identity"

	identityRecovering = 1
)

var errIdentity = errors.New("identity is unreadable: the data directory is damaged or of a newer release")

func (id identity) encode() []byte {
	b := make([]byte, 0, identityBytes)
	b = append(b, identityVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(id.node))
	b = binary.BigEndian.AppendUint64(b, id.boots)
	b = binary.BigEndian.AppendUint64(b, id.ahead)
	if id.recovering {
		b = append(b, identityRecovering)
	} else {
		b = append(b, 0)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeIdentity(b []byte) (identity, error) {
	plain := len(b) == identityPlainBytes && b[0] == identityPlain
	if !plain && (len(b) != identityBytes || b[0] != identityVersion) {
		return identity{}, errIdentity
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	id := identity{node: ring.NodeID(binary.BigEndian.Uint64(b[1:])), boots: binary.BigEndian.Uint64(b[9:])}
	if !plain {
		id.ahead, id.recovering = binary.BigEndian.Uint64(b[17:]), b[25] == identityRecovering
	}
	unknown := !plain && b[25]&^identityRecovering != 0
	if unknown || crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum || id.node == 0 {
		return identity{}, errIdentity
	}
	return id, nil
}

// boot reads the identity of the store and counts this boot durably before it
// returns. A store without one gets that of lost, a node whose data directory is
// gone, and is recovering; or, if lost is 0, a new one. With accept, what is
// missing is given up and no reason to be recovering.
func boot(s *storage.Store, lost ring.NodeID, accept bool, random func() uint64) (identity, error) {
	b, err := s.Meta(identityRow)
	var id identity
	switch {
	case errors.Is(err, storage.ErrNotFound):
		if id.node = lost; lost == 0 && s.Lost() != nil {
			return identity{}, fmt.Errorf("the data directory has lost even the identity of its node: empty it, and take over the node with --replace-lost: %w", s.Lost())
		}
		id.recovering = lost != 0
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
	if lost != 0 && lost != id.node {
		return identity{}, fmt.Errorf("--replace-lost %v needs an empty data directory, and this one is that of node %v", lost, id.node)
	}
	id.boots++
	id.recovering = (id.recovering || s.Lost() != nil) && !accept
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

func (m metaStore) Company() bool { return m.store.Company() }

func (m metaStore) NoteCompany(company bool) error { return m.store.NoteCompany(company) }
