package membership

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math/bits"
	"net"
	"strconv"

	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
)

// Bounds of what a node says of itself: all of it must fit the 512 bytes that
// memberlist allows.
const (
	maxZoneBytes = 64
	maxHostBytes = 253 // the longest DNS name
)

// stateVersion and metaVersion begin every encoded state and meta.
const (
	stateVersion = 4
	metaVersion  = 3
)

// Versions that are still read.
const (
	plainVersion = 1 // of states and metas whose announcements say nothing of boots
	fixedVersion = 2 // of states of clusters whose ring could not be changed
	firstVersion = 3 // of states at the first level, and of forming clusters: still written
	metaFirst    = 2 // of metas at the first level, and of forming clusters: still written
)

// weightLevel is the level of a cluster from which on metas say the weight: programs of
// the release before refuse a meta of which they do not know every byte.
const weightLevel = 2

const (
	flagEstablished = 1 << iota
	flagOpened
)

const flagRemoved = 1 // of a record

const flagRecovering = 1 // of an announcement

// appendState encodes a state: for the disk with everything, for others with
// opened cleared by the caller.
func appendState(dst []byte, s state) []byte {
	start := len(dst)
	var flags byte
	if s.Established {
		flags |= flagEstablished
	}
	if s.Opened {
		flags |= flagOpened
	}
	if s.Level > firstLevel {
		dst = binary.BigEndian.AppendUint16(append(dst, stateVersion, flags), s.Level)
	} else {
		dst = append(dst, firstVersion, flags)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.From))
	dst = append(dst, s.ClusterID[:]...)
	dst = append(dst, s.TokenKey[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.Units))
	dst = append(dst, byte(s.N))
	if s.Established {
		epochs := s.Epochs.Append(nil)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(epochs)))
		dst = append(dst, epochs...)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(s.Records)))
		for _, r := range s.Records {
			dst = appendRecord(dst, r)
		}
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s.Known)))
	for _, a := range s.Known {
		dst = appendAnnouncement(dst, a)
	}
	return append(dst, checksum(dst[start:])...)
}

// checksum is the CRC-32C that ends a state.
func checksum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// decodeState reads what appendState wrote, and refuses what no node could have.
func decodeState(b []byte) (state, error) {
	if len(b) < 5 {
		return state{}, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	body, tail := b[:len(b)-4], b[len(b)-4:]
	if !bytes.Equal(checksum(body), tail) {
		return state{}, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	if b[0] < plainVersion {
		return state{}, fmt.Errorf("%w: state version %d, this program knows %d", ErrCorrupt, b[0], stateVersion)
	}
	d := decoder{b: body[1:], plain: b[0] == plainVersion}
	var s state
	flags := d.byte()
	d.check(flags&^(flagEstablished|flagOpened) == 0 || b[0] > stateVersion, "flags")
	s.Established, s.Opened = flags&flagEstablished != 0, flags&flagOpened != 0
	s.Level = firstLevel
	if b[0] >= stateVersion {
		s.Level = d.uint16()
		d.check(s.Level > firstLevel && s.Established, "level")
	}
	s.From = d.id()
	copy(s.ClusterID[:], d.take(16))
	if b[0] > stateVersion { // of a release to come; what stands before this is where it was
		d.check(s.Level > MaxLevel, "state version")
		if d.err == nil {
			d.err = newer(s.Level, MaxLevel)
		}
		return s, d.err
	}
	copy(s.TokenKey[:], d.take(16))
	s.Units, s.N = int(d.uint32()), int(d.byte())
	d.check(s.Units >= 1 && s.Units <= ring.Slots && bits.OnesCount(uint(s.Units)) == 1, "units")
	d.check(s.N >= 1 && s.N <= ring.MaxN, "n")
	if s.Established && b[0] >= firstVersion {
		s = d.epochs(s)
	} else {
		s.Records = d.records()
	}
	s.Known = d.announcements()
	if err := d.end(); err != nil {
		return state{}, err
	}
	if s.Established && b[0] < firstVersion {
		s = s.at(epoch.Settled(s.From, s.Records))
	}
	return s, nil
}

// epochs reads the epochs of a state.
func (d *decoder) epochs(s state) state {
	size := d.uint32()
	d.check(uint64(size) <= uint64(len(d.b)), "truncated")
	if d.err != nil {
		return s
	}
	e, err := epoch.Decode(d.take(int(size)))
	if err != nil {
		d.err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		return s
	}
	d.check(e.Self() == s.From, "epochs of another node")
	return s.at(e)
}

func appendRecord(dst []byte, r ring.Record) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.ID))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.PlaceID))
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Weight))
	dst = appendText(dst, r.Zone)
	dst = binary.BigEndian.AppendUint64(dst, r.Counter)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.TimeMS))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Admin))
	if r.Removed {
		return append(dst, flagRemoved)
	}
	return append(dst, 0)
}

// digest summarises what all nodes of a cluster come to agree on: the records, and how
// far each node has come; and, where states say it, the level.
func digest(s state) uint64 {
	h := fnv.New64a()
	var b []byte
	for _, r := range s.Records {
		b = appendRecord(b[:0], r)
		_, _ = h.Write(b) // a hash never fails
	}
	if !s.Established {
		return h.Sum64()
	}
	id := func(id epoch.ID) {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, id.Sum), id.Digest)
	}
	b = b[:0]
	if s.Level > firstLevel {
		b = binary.BigEndian.AppendUint16(b, s.Level)
	}
	id(s.Epochs.Target().ID())
	_, _ = h.Write(b)
	for _, t := range s.Epochs.Trackers() {
		b = binary.BigEndian.AppendUint64(b[:0], uint64(t.ID))
		b = binary.BigEndian.AppendUint64(b, t.Version)
		id(t.Ack)
		id(t.Sync)
		id(t.Base)
		id(t.Read)
		_, _ = h.Write(b)
	}
	return h.Sum64()
}

func appendAnnouncement(dst []byte, a announcement) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.ID))
	dst = binary.BigEndian.AppendUint64(dst, a.Stamp)
	for _, n := range []uint64{a.Boot.Number, a.Boot.Incarnation, a.Boot.Reached} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	if a.Recovering {
		dst = append(dst, flagRecovering)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.BigEndian.AppendUint16(dst, a.MaxLevel)
	e := a.Endpoints
	for _, port := range []uint16{e.Plain, e.Cluster, e.Peer, e.Admin, e.Gossip} {
		dst = binary.BigEndian.AppendUint16(dst, port)
	}
	dst = appendText(dst, a.Zone)
	return appendText(dst, e.Host)
}

func appendText(dst []byte, s string) []byte {
	return append(append(dst, byte(len(s))), s...)
}

// meta is what memberlist carries for each node: its announcement, which
// cluster it belongs to, and what records it holds. The weight is no part of the
// announcement, which others keep on their disks: it is asked of a live node only,
// when it is added.
type meta struct {
	announcement
	ClusterID   [16]byte
	Established bool
	Digest      uint64 // of the records; who holds others should exchange states
	Weight      uint16 // that the node was started with; 0: it does not say
}

func appendMeta(dst []byte, m meta) []byte {
	var flags byte
	if m.Established {
		flags |= flagEstablished
	}
	version := byte(metaVersion)
	if m.Weight == 0 {
		version = metaFirst
	}
	dst = append(dst, version, flags)
	dst = append(dst, m.ClusterID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.Digest)
	dst = appendAnnouncement(dst, m.announcement)
	if m.Weight == 0 {
		return dst
	}
	return binary.BigEndian.AppendUint16(dst, m.Weight)
}

// readsMeta reports whether this program reads metas of a version.
func readsMeta(version byte) bool {
	return version == plainVersion || version == metaFirst || version == metaVersion && MaxLevel >= weightLevel
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) == 0 || !readsMeta(b[0]) {
		return meta{}, fmt.Errorf("%w: node meta is not of version %d", ErrCorrupt, metaVersion)
	}
	d := decoder{b: b[1:], plain: b[0] == plainVersion}
	var m meta
	flags := d.byte()
	d.check(flags&^flagEstablished == 0, "flags")
	m.Established = flags&flagEstablished != 0
	copy(m.ClusterID[:], d.take(16))
	m.Digest = d.uint64()
	m.announcement = d.announcement()
	if b[0] == metaVersion {
		m.Weight = d.uint16()
		d.check(m.Weight >= 1 && m.Weight <= ring.MaxWeight, "weight")
	}
	return m, d.end()
}

// decoder reads fields off b until one is missing or wrong; from then on it
// yields zeroes, and end tells what was the matter.
type decoder struct {
	b     []byte
	plain bool // announcements say nothing of boots
	err   error
}

func (d *decoder) check(ok bool, what string) {
	if !ok && d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrCorrupt, what)
	}
}

func (d *decoder) take(n int) []byte {
	d.check(len(d.b) >= n, "truncated")
	if d.err != nil {
		return make([]byte, n)
	}
	head := d.b[:n]
	d.b = d.b[n:]
	return head
}

func (d *decoder) byte() byte      { return d.take(1)[0] }
func (d *decoder) uint16() uint16  { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) uint32() uint32  { return binary.BigEndian.Uint32(d.take(4)) }
func (d *decoder) uint64() uint64  { return binary.BigEndian.Uint64(d.take(8)) }
func (d *decoder) id() ring.NodeID { return ring.NodeID(d.uint64()) }

func (d *decoder) text(limit int) string {
	n := int(d.byte())
	d.check(n <= limit, "text too long")
	if d.err != nil {
		return ""
	}
	return string(d.take(n))
}

// end reports the first fault; bytes left over are one.
func (d *decoder) end() error {
	d.check(len(d.b) == 0, "bytes left over")
	return d.err
}

// records reads a history; it must come as it is kept, one record for each
// node and in order, so that equal states are equal bytes.
func (d *decoder) records() []ring.Record {
	n := int(d.uint16())
	d.check(n <= epoch.MaxRecords, "too many records")
	var all []ring.Record
	for last := ring.NodeID(0); len(all) < n && d.err == nil; {
		r := ring.Record{Member: ring.Member{ID: d.id(), PlaceID: d.id(), Weight: int(d.uint16()), Zone: d.text(maxZoneBytes)}}
		r.Counter, r.TimeMS, r.Admin = d.uint64(), int64(d.uint64()), d.id()
		flags := d.byte()
		r.Removed = flags == flagRemoved
		d.check(r.ID > last, "records out of order")
		d.check(r.Weight <= ring.MaxWeight, "weight")
		d.check(r.Counter > 0 && r.Counter <= epoch.MaxCounter, "counter")
		d.check(flags&^flagRemoved == 0, "record flags")
		last = r.ID
		all = append(all, r)
	}
	return all
}

func (d *decoder) announcements() []announcement {
	n := int(d.uint16())
	d.check(n <= epoch.MaxRecords+1, "too many announcements")
	var all []announcement
	for last := ring.NodeID(0); len(all) < n && d.err == nil; {
		a := d.announcement()
		d.check(a.ID > last, "announcements out of order")
		last = a.ID
		all = append(all, a)
	}
	return all
}

func (d *decoder) announcement() announcement {
	a := announcement{ID: d.id(), Stamp: d.uint64()}
	d.check(a.ID != 0, "node id zero")
	if !d.plain {
		a.Boot = Boot{Number: d.uint64(), Incarnation: d.uint64(), Reached: d.uint64()}
		flags := d.byte()
		a.Recovering = flags == flagRecovering
		d.check(flags&^flagRecovering == 0, "announcement flags")
	}
	a.MaxLevel = d.uint16()
	for _, port := range []*uint16{
		&a.Endpoints.Plain, &a.Endpoints.Cluster, &a.Endpoints.Peer, &a.Endpoints.Admin, &a.Endpoints.Gossip,
	} {
		*port = d.uint16()
	}
	a.Zone = d.text(maxZoneBytes)
	a.Endpoints.Host = d.text(maxHostBytes)
	return a
}

// splitHostPort is net.SplitHostPort with the port as a number.
func splitHostPort(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: %w", text, err)
	}
	return host, uint16(n), nil
}
