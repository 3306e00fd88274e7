package rpc

import (
	"encoding/binary"

	"github.com/redynamo/redynamo/membership/ring"
)

// ReadRequest asks for the record of one key.
type ReadRequest struct {
	Key        []byte
	For        ring.NodeID // 0: the row of the peer itself; else all that it holds of the key, as it stands in for that owner
	Have       uint64      // state hash of what the caller holds, if HaveAny
	HaveAny    bool        // answer "same" when the peer's state hash is Have
	DigestOnly bool        // never send the record, only its hash
}

// ReadReply answers a ReadRequest. With Same set it is one byte on the wire and
// Hash is zero: the state is the one the caller named.
type ReadReply struct {
	Same       bool
	Recovering bool // the peer may lack what it had acknowledged; never with Same
	Hash       uint64
	Record     []byte // version.EncodeRecord; empty when absent, or when only a digest was asked for
}

// MergeRequest asks the peer to join a record into its own, or, with For set,
// into the hint it keeps for that owner. Its reply carries nothing: it means
// committed, and synced if Durable.
type MergeRequest struct {
	Key     []byte
	For     ring.NodeID
	Durable bool
	// Optional says that the write can do without this hint, so that the peer may
	// refuse it with ErrHintBudget.
	Optional bool
	Record   []byte // version.EncodeRecord
}

// WriteRequest forwards a client's write to a node that can mint its dot.
type WriteRequest struct {
	Key  []byte
	Op   []byte // version.AppendOp
	R, W uint8  // 0: the peer's default
}

// WriteReply answers a WriteRequest.
type WriteReply struct {
	Outcome []byte // version.AppendOutcome
}

// ScanRequest asks for a page of keys in the order slot, key hash, key.
type ScanRequest struct {
	FromSlot uint16
	FromHash uint32
	ToSlot   uint16 // inclusive
	Limit    uint32
}

// ScanEntry is one key of a page.
type ScanEntry struct {
	Slot      uint16
	KeyHash   uint32
	StateHash uint64
	Live      bool
	Key       []byte
}

// ScanReply is one page; the next one starts at NextSlot, NextHash unless Done.
type ScanReply struct {
	Entries  []ScanEntry
	NextSlot uint16
	NextHash uint32
	Done     bool
}

// SlotRange is a run of slots, both ends included.
type SlotRange struct {
	First, Last uint16
}

// CountRequest asks how many live keys the peer holds in the ranges.
type CountRequest struct {
	Ranges []SlotRange
}

// CountReply answers a CountRequest.
type CountReply struct {
	Keys int64
}

// StatusRequest asks a node about itself.
type StatusRequest struct{}

// SyncRequest asks whether a node can still do what a merge takes. Its reply
// carries nothing.
type SyncRequest struct{}

// StatusReply answers a StatusRequest.
type StatusReply struct {
	Ready   bool   // it serves clients
	Epoch   uint64 // digest of the ring it uses
	Members uint32
	Boot    uint64 // actor of this incarnation
}

// InspectRequest asks for every row the peer has of one key.
type InspectRequest struct {
	Key []byte
}

// InspectEntry is one row: the peer's own (For 0) or a hint.
type InspectEntry struct {
	For    ring.NodeID
	Record []byte
	Note   []byte // why a row without a value is still there
}

// InspectReply answers an InspectRequest.
type InspectReply struct {
	Entries []InspectEntry
}

// DeliverRequest brings the peer rows that others kept for it. Without rows it
// only asks for credit.
type DeliverRequest struct {
	For     ring.NodeID // 0: the peer's own rows; else the hints it keeps for that owner
	Durable bool
	Rows    []DeliverRow
}

// DeliverRow is one row of a DeliverRequest.
type DeliverRow struct {
	Key    []byte
	Record []byte // version.EncodeWire
}

// DeliverReply answers a DeliverRequest once all its rows are committed.
type DeliverReply struct {
	Credit uint32 // bytes of keys and records that the next request may hold
}

const (
	flagDigestOnly = 1
	flagHave       = 2

	flagSame       = 1
	flagRecord     = 2
	flagRecovering = 4

	flagDurable  = 1
	flagOptional = 2

	flagLive = 1
	flagDone = 1

	flagReady = 1

	scanEntryBytes    = 2 + 4 + 8 + 1 + 4
	inspectEntryBytes = 8 + 4 + 4
	slotRangeBytes    = 4
	deliverRowBytes   = 4 + 4
)

// AppendReadRequest appends the encoding of m. The layouts of all messages are
// drawn in the package comment.
func AppendReadRequest(dst []byte, m ReadRequest) []byte {
	dst = append(dst, flag(m.DigestOnly, flagDigestOnly)|flag(m.HaveAny, flagHave))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.For))
	if m.HaveAny {
		dst = binary.BigEndian.AppendUint64(dst, m.Have)
	}
	return appendBytes(dst, m.Key)
}

// DecodeReadRequest is the inverse of AppendReadRequest. Like all decoders here
// it aliases b and returns ErrMalformed for what no encoder wrote.
func DecodeReadRequest(b []byte) (ReadRequest, error) {
	c := cursor{b: b}
	f := c.flags(flagDigestOnly | flagHave)
	m := ReadRequest{DigestOnly: f&flagDigestOnly != 0, HaveAny: f&flagHave != 0}
	m.For = ring.NodeID(c.u64())
	if m.HaveAny {
		m.Have = c.u64()
	}
	m.Key = c.bytes()
	return m, c.end()
}

// AppendReadReply appends the encoding of m. Hash and Record of a Same reply
// are not sent.
func AppendReadReply(dst []byte, m ReadReply) []byte {
	if m.Same {
		return append(dst, flagSame)
	}
	dst = append(dst, flag(len(m.Record) > 0, flagRecord)|flag(m.Recovering, flagRecovering))
	dst = binary.BigEndian.AppendUint64(dst, m.Hash)
	return append(dst, m.Record...)
}

// DecodeReadReply is the inverse of AppendReadReply.
func DecodeReadReply(b []byte) (ReadReply, error) {
	c := cursor{b: b}
	f := c.flags(flagSame | flagRecord | flagRecovering)
	if f == flagSame {
		return ReadReply{Same: true}, c.end()
	}
	m := ReadReply{Recovering: f&flagRecovering != 0, Hash: c.u64()}
	switch f &^ flagRecovering {
	case 0:
	case flagRecord:
		c.bad = c.bad || len(c.b) == 0
		m.Record = c.take(len(c.b))
	default:
		c.bad = true
	}
	return m, c.end()
}

// AppendMergeRequest appends the encoding of m.
func AppendMergeRequest(dst []byte, m MergeRequest) []byte {
	dst = append(dst, flag(m.Durable, flagDurable)|flag(m.Optional, flagOptional))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.For))
	dst = appendBytes(dst, m.Key)
	return appendBytes(dst, m.Record)
}

// DecodeMergeRequest is the inverse of AppendMergeRequest.
func DecodeMergeRequest(b []byte) (MergeRequest, error) {
	c := cursor{b: b}
	f := c.flags(flagDurable | flagOptional)
	m := MergeRequest{Durable: f&flagDurable != 0, Optional: f&flagOptional != 0}
	m.For = ring.NodeID(c.u64())
	m.Key = c.bytes()
	m.Record = c.bytes()
	return m, c.end()
}

// AppendWriteRequest appends the encoding of m.
func AppendWriteRequest(dst []byte, m WriteRequest) []byte {
	dst = append(dst, m.R, m.W)
	dst = appendBytes(dst, m.Key)
	return appendBytes(dst, m.Op)
}

// DecodeWriteRequest is the inverse of AppendWriteRequest.
func DecodeWriteRequest(b []byte) (WriteRequest, error) {
	c := cursor{b: b}
	m := WriteRequest{R: c.u8(), W: c.u8()}
	m.Key = c.bytes()
	m.Op = c.bytes()
	return m, c.end()
}

// AppendWriteReply appends the encoding of m.
func AppendWriteReply(dst []byte, m WriteReply) []byte {
	return appendBytes(dst, m.Outcome)
}

// DecodeWriteReply is the inverse of AppendWriteReply.
func DecodeWriteReply(b []byte) (WriteReply, error) {
	c := cursor{b: b}
	m := WriteReply{Outcome: c.bytes()}
	return m, c.end()
}

// AppendScanRequest appends the encoding of m.
func AppendScanRequest(dst []byte, m ScanRequest) []byte {
	dst = binary.BigEndian.AppendUint16(dst, m.FromSlot)
	dst = binary.BigEndian.AppendUint32(dst, m.FromHash)
	dst = binary.BigEndian.AppendUint16(dst, m.ToSlot)
	return binary.BigEndian.AppendUint32(dst, m.Limit)
}

// DecodeScanRequest is the inverse of AppendScanRequest.
func DecodeScanRequest(b []byte) (ScanRequest, error) {
	c := cursor{b: b}
	m := ScanRequest{FromSlot: c.u16(), FromHash: c.u32(), ToSlot: c.u16(), Limit: c.u32()}
	return m, c.end()
}

// AppendScanReply appends the encoding of m.
func AppendScanReply(dst []byte, m ScanReply) []byte {
	dst = append(dst, flag(m.Done, flagDone))
	dst = binary.BigEndian.AppendUint16(dst, m.NextSlot)
	dst = binary.BigEndian.AppendUint32(dst, m.NextHash)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Entries)))
	for _, e := range m.Entries {
		dst = binary.BigEndian.AppendUint16(dst, e.Slot)
		dst = binary.BigEndian.AppendUint32(dst, e.KeyHash)
		dst = binary.BigEndian.AppendUint64(dst, e.StateHash)
		dst = append(dst, flag(e.Live, flagLive))
		dst = appendBytes(dst, e.Key)
	}
	return dst
}

// DecodeScanReply is the inverse of AppendScanReply.
func DecodeScanReply(b []byte) (ScanReply, error) {
	c := cursor{b: b}
	m := ScanReply{Done: c.flags(flagDone) != 0, NextSlot: c.u16(), NextHash: c.u32()}
	n := c.count(scanEntryBytes)
	if n > 0 {
		m.Entries = make([]ScanEntry, 0, n)
	}
	for range n {
		e := ScanEntry{Slot: c.u16(), KeyHash: c.u32(), StateHash: c.u64()}
		e.Live = c.flags(flagLive) != 0
		e.Key = c.bytes()
		m.Entries = append(m.Entries, e)
	}
	return m, c.end()
}

func appendRanges(dst []byte, rs []SlotRange) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(rs)))
	for _, r := range rs {
		dst = binary.BigEndian.AppendUint16(dst, r.First)
		dst = binary.BigEndian.AppendUint16(dst, r.Last)
	}
	return dst
}

func (c *cursor) ranges() []SlotRange {
	n := c.count(slotRangeBytes)
	if n == 0 {
		return nil
	}
	rs := make([]SlotRange, 0, n)
	for range n {
		rs = append(rs, SlotRange{First: c.u16(), Last: c.u16()})
	}
	return rs
}

// AppendCountRequest appends the encoding of m.
func AppendCountRequest(dst []byte, m CountRequest) []byte {
	return appendRanges(dst, m.Ranges)
}

// DecodeCountRequest is the inverse of AppendCountRequest.
func DecodeCountRequest(b []byte) (CountRequest, error) {
	c := cursor{b: b}
	m := CountRequest{Ranges: c.ranges()}
	return m, c.end()
}

// AppendCountReply appends the encoding of m.
func AppendCountReply(dst []byte, m CountReply) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(m.Keys))
}

// DecodeCountReply is the inverse of AppendCountReply.
func DecodeCountReply(b []byte) (CountReply, error) {
	c := cursor{b: b}
	m := CountReply{Keys: int64(c.u64())}
	return m, c.end()
}

// AppendStatusRequest appends the encoding of m, which is empty.
func AppendStatusRequest(dst []byte, _ StatusRequest) []byte { return dst }

// DecodeStatusRequest is the inverse of AppendStatusRequest.
func DecodeStatusRequest(b []byte) (StatusRequest, error) {
	c := cursor{b: b}
	return StatusRequest{}, c.end()
}

// AppendSyncRequest appends the encoding of m, which is empty.
func AppendSyncRequest(dst []byte, _ SyncRequest) []byte { return dst }

// DecodeSyncRequest is the inverse of AppendSyncRequest.
func DecodeSyncRequest(b []byte) (SyncRequest, error) {
	c := cursor{b: b}
	return SyncRequest{}, c.end()
}

// AppendStatusReply appends the encoding of m.
func AppendStatusReply(dst []byte, m StatusReply) []byte {
	dst = append(dst, flag(m.Ready, flagReady))
	dst = binary.BigEndian.AppendUint64(dst, m.Epoch)
	dst = binary.BigEndian.AppendUint32(dst, m.Members)
	return binary.BigEndian.AppendUint64(dst, m.Boot)
}

// DecodeStatusReply is the inverse of AppendStatusReply.
func DecodeStatusReply(b []byte) (StatusReply, error) {
	c := cursor{b: b}
	m := StatusReply{Ready: c.flags(flagReady)&flagReady != 0}
	m.Epoch = c.u64()
	m.Members = c.u32()
	m.Boot = c.u64()
	return m, c.end()
}

// AppendInspectRequest appends the encoding of m.
func AppendInspectRequest(dst []byte, m InspectRequest) []byte {
	return appendBytes(dst, m.Key)
}

// DecodeInspectRequest is the inverse of AppendInspectRequest.
func DecodeInspectRequest(b []byte) (InspectRequest, error) {
	c := cursor{b: b}
	m := InspectRequest{Key: c.bytes()}
	return m, c.end()
}

// AppendInspectReply appends the encoding of m.
func AppendInspectReply(dst []byte, m InspectReply) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Entries)))
	for _, e := range m.Entries {
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.For))
		dst = appendBytes(dst, e.Record)
		dst = appendBytes(dst, e.Note)
	}
	return dst
}

// DecodeInspectReply is the inverse of AppendInspectReply.
func DecodeInspectReply(b []byte) (InspectReply, error) {
	c := cursor{b: b}
	var m InspectReply
	n := c.count(inspectEntryBytes)
	if n > 0 {
		m.Entries = make([]InspectEntry, 0, n)
	}
	for range n {
		e := InspectEntry{For: ring.NodeID(c.u64())}
		e.Record = c.bytes()
		e.Note = c.bytes()
		m.Entries = append(m.Entries, e)
	}
	return m, c.end()
}

// AppendDeliverRequest appends the encoding of m.
func AppendDeliverRequest(dst []byte, m DeliverRequest) []byte {
	dst = append(dst, flag(m.Durable, flagDurable))
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.For))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Rows)))
	for _, row := range m.Rows {
		dst = appendBytes(dst, row.Key)
		dst = appendBytes(dst, row.Record)
	}
	return dst
}

// DecodeDeliverRequest is the inverse of AppendDeliverRequest.
func DecodeDeliverRequest(b []byte) (DeliverRequest, error) {
	c := cursor{b: b}
	m := DeliverRequest{Durable: c.flags(flagDurable) != 0}
	m.For = ring.NodeID(c.u64())
	n := c.count(deliverRowBytes)
	if n > 0 {
		m.Rows = make([]DeliverRow, 0, n)
	}
	for range n {
		m.Rows = append(m.Rows, DeliverRow{Key: c.bytes(), Record: c.bytes()})
	}
	return m, c.end()
}

// AppendDeliverReply appends the encoding of m.
func AppendDeliverReply(dst []byte, m DeliverReply) []byte {
	return binary.BigEndian.AppendUint32(dst, m.Credit)
}

// DecodeDeliverReply is the inverse of AppendDeliverReply.
func DecodeDeliverReply(b []byte) (DeliverReply, error) {
	c := cursor{b: b}
	m := DeliverReply{Credit: c.u32()}
	return m, c.end()
}
