package rpc

import (
	"encoding/binary"

	"github.com/redynamo/redynamo/membership/ring"
)

// This file has the messages of anti-entropy: the hashes of trees, the states of
// the keys in a cell, rows, and the frame of a session.

// TreeNode names a node of the tree of a partition.
type TreeNode struct {
	Partition uint16
	Index     uint32
}

// NodesRequest asks for hashes of one level of some trees: of all nodes of that
// level that are below those named, which are Step levels higher.
type NodesRequest struct {
	Units uint16 // partitions of the caller's ring - 1; another number is refused
	Level uint8
	Step  uint8
	Nodes []TreeNode
}

// NodesReply has the hashes in the order of the request, 1 << Step for each node.
type NodesReply struct {
	Hashes []uint64
}

// ListRequest asks for the states of the keys in some cells, ascending, from key
// hash From on in the first of them. Limit is less than 1<<31. Whole asks for the hashes of
// whole records. It travels as the top bit of the limit: who does not know it takes that
// for a great limit, of which it has its own, and answers hashes that equal none of a
// whole record.
type ListRequest struct {
	Limit uint32
	From  uint32
	Whole bool
	Cells []uint32
}

// ListEntry is the position and state of one key.
type ListEntry struct {
	Slot    uint16
	KeyHash uint32
	State   uint64
}

// ListReply has the keys of the first Cells cells whole, and of the next one those
// below NextHash.
type ListReply struct {
	Cells    uint32
	NextHash uint32
	Entries  []ListEntry
}

// Position is where a key stands in the order of rows.
type Position struct {
	Slot    uint16
	KeyHash uint32
}

// FetchRequest asks for the rows at some positions, ascending.
type FetchRequest struct {
	MaxBytes  uint32
	Positions []Position
}

// FetchRow is one row of a FetchReply.
type FetchRow struct {
	Key    []byte
	Record []byte // version.EncodeWire
}

// FetchReply has the rows of the first Positions positions that were asked for.
type FetchReply struct {
	Positions uint32
	Rows      []FetchRow
}

// HintedRequest asks for which of some partitions the peer keeps hints, whomever
// they are for.
type HintedRequest struct {
	Units      uint16 // partitions of the caller's ring - 1; another number is refused
	Partitions []uint16
}

// HintedReply has those of the partitions for which it does.
type HintedReply struct {
	Partitions []uint16
}

// LacksRequest asks whether own rows of the peer between two positions, both
// included, were lost to damage and are not back.
type LacksRequest struct {
	First, Last Position
}

// LacksReply answers it.
type LacksReply struct {
	Lost bool
}

// SessionRequest frames a comparison of the partitions that both nodes own. Its
// reply carries nothing; at the end it means that all that the peer has taken is
// committed, and synced if its fsync mode syncs.
type SessionRequest struct {
	End         bool
	Epoch       uint64 // of the caller's ring
	First, Last uint16 // the slots that are compared
}

const (
	flagEnd  = 1
	flagLost = 1

	wholeLimit = 1 << 31 // set in a limit

	treeNodeBytes  = 2 + 4
	listEntryBytes = 2 + 4 + 8
	positionBytes  = 2 + 4
	fetchRowBytes  = 4 + 4
)

// AppendNodesRequest appends the encoding of m.
func AppendNodesRequest(dst []byte, m NodesRequest) []byte {
	dst = binary.BigEndian.AppendUint16(dst, m.Units)
	dst = append(dst, m.Level, m.Step)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Nodes)))
	for _, n := range m.Nodes {
		dst = binary.BigEndian.AppendUint16(dst, n.Partition)
		dst = binary.BigEndian.AppendUint32(dst, n.Index)
	}
	return dst
}

// DecodeNodesRequest is the inverse of AppendNodesRequest.
func DecodeNodesRequest(b []byte) (NodesRequest, error) {
	c := cursor{b: b}
	m := NodesRequest{Units: c.u16(), Level: c.u8(), Step: c.u8()}
	n := c.count(treeNodeBytes)
	if n > 0 {
		m.Nodes = make([]TreeNode, 0, n)
	}
	for range n {
		m.Nodes = append(m.Nodes, TreeNode{Partition: c.u16(), Index: c.u32()})
	}
	return m, c.end()
}

// AppendNodesReply appends the encoding of m.
func AppendNodesReply(dst []byte, m NodesReply) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Hashes)))
	for _, h := range m.Hashes {
		dst = binary.BigEndian.AppendUint64(dst, h)
	}
	return dst
}

// DecodeNodesReply is the inverse of AppendNodesReply.
func DecodeNodesReply(b []byte) (NodesReply, error) {
	c := cursor{b: b}
	var m NodesReply
	n := c.count(8)
	if n > 0 {
		m.Hashes = make([]uint64, 0, n)
	}
	for range n {
		m.Hashes = append(m.Hashes, c.u64())
	}
	return m, c.end()
}

// AppendListRequest appends the encoding of m.
func AppendListRequest(dst []byte, m ListRequest) []byte {
	limit := m.Limit
	if m.Whole {
		limit |= wholeLimit
	}
	dst = binary.BigEndian.AppendUint32(dst, limit)
	dst = binary.BigEndian.AppendUint32(dst, m.From)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Cells)))
	for _, cell := range m.Cells {
		dst = binary.BigEndian.AppendUint32(dst, cell)
	}
	return dst
}

// DecodeListRequest is the inverse of AppendListRequest.
func DecodeListRequest(b []byte) (ListRequest, error) {
	c := cursor{b: b}
	limit := c.u32()
	m := ListRequest{Limit: limit &^ wholeLimit, From: c.u32(), Whole: limit&wholeLimit != 0}
	n := c.count(4)
	if n > 0 {
		m.Cells = make([]uint32, 0, n)
	}
	for range n {
		m.Cells = append(m.Cells, c.u32())
	}
	return m, c.end()
}

// AppendListReply appends the encoding of m.
func AppendListReply(dst []byte, m ListReply) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Cells)
	dst = binary.BigEndian.AppendUint32(dst, m.NextHash)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Entries)))
	for _, e := range m.Entries {
		dst = binary.BigEndian.AppendUint16(dst, e.Slot)
		dst = binary.BigEndian.AppendUint32(dst, e.KeyHash)
		dst = binary.BigEndian.AppendUint64(dst, e.State)
	}
	return dst
}

// DecodeListReply is the inverse of AppendListReply.
func DecodeListReply(b []byte) (ListReply, error) {
	c := cursor{b: b}
	m := ListReply{Cells: c.u32(), NextHash: c.u32()}
	n := c.count(listEntryBytes)
	if n > 0 {
		m.Entries = make([]ListEntry, 0, n)
	}
	for range n {
		m.Entries = append(m.Entries, ListEntry{Slot: c.u16(), KeyHash: c.u32(), State: c.u64()})
	}
	return m, c.end()
}

// AppendFetchRequest appends the encoding of m.
func AppendFetchRequest(dst []byte, m FetchRequest) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.MaxBytes)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Positions)))
	for _, p := range m.Positions {
		dst = binary.BigEndian.AppendUint16(dst, p.Slot)
		dst = binary.BigEndian.AppendUint32(dst, p.KeyHash)
	}
	return dst
}

// DecodeFetchRequest is the inverse of AppendFetchRequest.
func DecodeFetchRequest(b []byte) (FetchRequest, error) {
	c := cursor{b: b}
	m := FetchRequest{MaxBytes: c.u32()}
	n := c.count(positionBytes)
	if n > 0 {
		m.Positions = make([]Position, 0, n)
	}
	for range n {
		m.Positions = append(m.Positions, Position{Slot: c.u16(), KeyHash: c.u32()})
	}
	return m, c.end()
}

func appendPartitions(dst []byte, parts []uint16) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(parts)))
	for _, p := range parts {
		dst = binary.BigEndian.AppendUint16(dst, p)
	}
	return dst
}

func (c *cursor) partitions() []uint16 {
	n := c.count(2)
	if n == 0 {
		return nil
	}
	parts := make([]uint16, 0, n)
	for range n {
		parts = append(parts, c.u16())
	}
	return parts
}

// AppendHintedRequest appends the encoding of m.
func AppendHintedRequest(dst []byte, m HintedRequest) []byte {
	return appendPartitions(binary.BigEndian.AppendUint16(dst, m.Units), m.Partitions)
}

// DecodeHintedRequest is the inverse of AppendHintedRequest.
func DecodeHintedRequest(b []byte) (HintedRequest, error) {
	c := cursor{b: b}
	m := HintedRequest{Units: c.u16()}
	m.Partitions = c.partitions()
	return m, c.end()
}

// AppendHintedReply appends the encoding of m.
func AppendHintedReply(dst []byte, m HintedReply) []byte { return appendPartitions(dst, m.Partitions) }

// DecodeHintedReply is the inverse of AppendHintedReply.
func DecodeHintedReply(b []byte) (HintedReply, error) {
	c := cursor{b: b}
	m := HintedReply{Partitions: c.partitions()}
	return m, c.end()
}

// AppendLacksRequest appends the encoding of m.
func AppendLacksRequest(dst []byte, m LacksRequest) []byte {
	for _, p := range []Position{m.First, m.Last} {
		dst = binary.BigEndian.AppendUint16(dst, p.Slot)
		dst = binary.BigEndian.AppendUint32(dst, p.KeyHash)
	}
	return dst
}

// DecodeLacksRequest is the inverse of AppendLacksRequest.
func DecodeLacksRequest(b []byte) (LacksRequest, error) {
	c := cursor{b: b}
	m := LacksRequest{First: Position{Slot: c.u16(), KeyHash: c.u32()}}
	m.Last = Position{Slot: c.u16(), KeyHash: c.u32()}
	c.bad = c.bad || m.First.Slot > m.Last.Slot || m.Last.Slot >= ring.Slots
	return m, c.end()
}

// AppendLacksReply appends the encoding of m.
func AppendLacksReply(dst []byte, m LacksReply) []byte { return append(dst, flag(m.Lost, flagLost)) }

// DecodeLacksReply is the inverse of AppendLacksReply.
func DecodeLacksReply(b []byte) (LacksReply, error) {
	c := cursor{b: b}
	m := LacksReply{Lost: c.flags(flagLost) != 0}
	return m, c.end()
}

// AppendSessionRequest appends the encoding of m.
func AppendSessionRequest(dst []byte, m SessionRequest) []byte {
	dst = append(dst, flag(m.End, flagEnd))
	dst = binary.BigEndian.AppendUint64(dst, m.Epoch)
	dst = binary.BigEndian.AppendUint16(dst, m.First)
	return binary.BigEndian.AppendUint16(dst, m.Last)
}

// DecodeSessionRequest is the inverse of AppendSessionRequest.
func DecodeSessionRequest(b []byte) (SessionRequest, error) {
	c := cursor{b: b}
	m := SessionRequest{End: c.flags(flagEnd) != 0, Epoch: c.u64(), First: c.u16(), Last: c.u16()}
	c.bad = c.bad || m.First > m.Last || m.Last >= ring.Slots
	return m, c.end()
}

// AppendFetchReply appends the encoding of m.
func AppendFetchReply(dst []byte, m FetchReply) []byte {
	dst = binary.BigEndian.AppendUint32(dst, m.Positions)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.Rows)))
	for _, r := range m.Rows {
		dst = appendBytes(dst, r.Key)
		dst = appendBytes(dst, r.Record)
	}
	return dst
}

// DecodeFetchReply is the inverse of AppendFetchReply.
func DecodeFetchReply(b []byte) (FetchReply, error) {
	c := cursor{b: b}
	m := FetchReply{Positions: c.u32()}
	n := c.count(fetchRowBytes)
	if n > 0 {
		m.Rows = make([]FetchRow, 0, n)
	}
	for range n {
		row := FetchRow{Key: c.bytes()}
		row.Record = c.bytes()
		m.Rows = append(m.Rows, row)
	}
	return m, c.end()
}

// Nodes asks for hashes of trees.
func (p *Peer) Nodes(m NodesRequest, o Options, done func(NodesReply, error)) {
	p.call(KindNodes, o, treeNodeBytes*len(m.Nodes), func(b []byte) []byte { return AppendNodesRequest(b, m) }, nodesDone(done))
}

// List asks for the states of the keys in some cells.
func (p *Peer) List(m ListRequest, o Options, done func(ListReply, error)) {
	p.call(KindList, o, 4*len(m.Cells), func(b []byte) []byte { return AppendListRequest(b, m) }, listDone(done))
}

// Fetch asks for the rows at some positions.
func (p *Peer) Fetch(m FetchRequest, o Options, done func(FetchReply, error)) {
	p.call(KindFetch, o, positionBytes*len(m.Positions), func(b []byte) []byte { return AppendFetchRequest(b, m) }, fetchDone(done))
}

// Session tells the peer that a session begins or ends.
func (p *Peer) Session(m SessionRequest, o Options, done func(error)) {
	p.call(KindSession, o, 0, func(b []byte) []byte { return AppendSessionRequest(b, m) }, ackDone(done))
}

// Hinted asks for which of some partitions the peer keeps hints.
func (p *Peer) Hinted(m HintedRequest, o Options, done func(HintedReply, error)) {
	p.call(KindHinted, o, 2*len(m.Partitions), func(b []byte) []byte { return AppendHintedRequest(b, m) }, hintedDone(done))
}

// Lacks asks whether own rows of the peer are lost.
func (p *Peer) Lacks(m LacksRequest, o Options, done func(LacksReply, error)) {
	p.call(KindLacks, o, 0, func(b []byte) []byte { return AppendLacksRequest(b, m) }, lacksDone(done))
}

type (
	lacksDone  func(LacksReply, error)
	hintedDone func(HintedReply, error)
	nodesDone  func(NodesReply, error)
	listDone   func(ListReply, error)
	fetchDone  func(FetchReply, error)
)

func (d lacksDone) complete(b []byte, err error) error {
	return finish(d, DecodeLacksReply, b, err)
}

func (d hintedDone) complete(b []byte, err error) error {
	return finish(d, DecodeHintedReply, b, err)
}

func (d nodesDone) complete(b []byte, err error) error {
	return finish(d, DecodeNodesReply, b, err)
}

func (d listDone) complete(b []byte, err error) error {
	return finish(d, DecodeListReply, b, err)
}

func (d fetchDone) complete(b []byte, err error) error {
	return finish(d, DecodeFetchReply, b, err)
}

func (r *request) lacksReply(m LacksReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendLacksReply(b, m) })
}

func (r *request) hintedReply(m HintedReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendHintedReply(b, m) })
}

func (r *request) nodesReply(m NodesReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendNodesReply(b, m) })
}

func (r *request) listReply(m ListReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendListReply(b, m) })
}

func (r *request) fetchReply(m FetchReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendFetchReply(b, m) })
}
