package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
)

// request is one request in the hands of a handler. The methods below are the
// reply functions handlers get.
type request struct {
	c       *serverConn
	h       header
	bytes   int
	replied atomic.Bool
}

// dispatch decodes a request and calls its handler. The payload is copied out
// of the read buffer, because handlers keep records. An error is the message's:
// the connection then ends, and nobody waits for a reply.
func (c *serverConn) dispatch(r *request, payload []byte, meta Meta) error {
	own := bytes.Clone(payload)
	var err error
	switch h := c.s.cfg.Handler; r.h.kind {
	case KindRead:
		err = serve(own, DecodeReadRequest, meta, h.ServeRead, r.readReply)
	case KindMerge:
		err = serve(own, DecodeMergeRequest, meta, h.ServeMerge, r.ackReply)
	case KindWrite:
		err = serve(own, DecodeWriteRequest, meta, h.ServeWrite, r.writeReply)
	case KindScan:
		err = serve(own, DecodeScanRequest, meta, h.ServeScan, r.scanReply)
	case KindCount:
		err = serve(own, DecodeCountRequest, meta, h.ServeCount, r.countReply)
	case KindStatus:
		err = serve(own, DecodeStatusRequest, meta, h.ServeStatus, r.statusReply)
	case KindInspect:
		err = serve(own, DecodeInspectRequest, meta, h.ServeInspect, r.inspectReply)
	case KindDeliver:
		err = serve(own, DecodeDeliverRequest, meta, h.ServeDeliver, r.deliverReply)
	case KindNodes:
		err = serve(own, DecodeNodesRequest, meta, h.ServeNodes, r.nodesReply)
	case KindList:
		err = serve(own, DecodeListRequest, meta, h.ServeList, r.listReply)
	case KindFetch:
		err = serve(own, DecodeFetchRequest, meta, h.ServeFetch, r.fetchReply)
	case KindHinted:
		err = serve(own, DecodeHintedRequest, meta, h.ServeHinted, r.hintedReply)
	case KindLacks:
		err = serve(own, DecodeLacksRequest, meta, h.ServeLacks, r.lacksReply)
	case KindSession:
		err = serve(own, DecodeSessionRequest, meta, h.ServeSession, r.ackReply)
	case KindState:
		err = serve(own, DecodeStateRequest, meta, h.ServeState, r.ackReply)
	case KindPublish:
		err = serve(own, DecodePublishRequest, meta, h.ServePublish, r.ackReply)
	case KindSettle:
		err = serve(own, DecodeMergeRequest, meta, h.ServeSettle, r.ackReply)
	case KindSync:
		err = serve(own, DecodeSyncRequest, meta, h.ServeSync, r.ackReply)
	default:
		panic(fmt.Sprintf("rpc: request kind %d has no handler", r.h.kind))
	}
	if err != nil {
		c.s.release(r.bytes)
	}
	return err
}

// serve decodes one message and hands it to its handler.
func serve[M, F any](b []byte, decode func([]byte) (M, error), meta Meta, handler func(M, Meta, F), reply F) error {
	m, err := decode(b)
	if err != nil {
		return err
	}
	handler(m, meta, reply)
	return nil
}

// answer sends the one reply of a request.
func (r *request) answer(err error, enc func([]byte) []byte) {
	if r.replied.Swap(true) {
		panic(fmt.Sprintf("rpc: second reply to %v request %d", r.h.kind, r.h.id))
	}
	if errors.Is(err, ErrStaleEpoch) {
		r.c.sendStale(r.h)
	} else if err != nil {
		if errors.Is(err, ErrBehind) {
			r.c.s.count.behind.Inc()
		}
		r.c.sendError(r.h, err)
	} else {
		r.c.send(r.h, enc)
	}
	r.c.s.release(r.bytes)
}

func (r *request) ackReply(err error) {
	r.answer(err, appendNothing)
}

func (r *request) readReply(m ReadReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendReadReply(b, m) })
}

func (r *request) writeReply(m WriteReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendWriteReply(b, m) })
}

func (r *request) scanReply(m ScanReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendScanReply(b, m) })
}

func (r *request) countReply(m CountReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendCountReply(b, m) })
}

func (r *request) statusReply(m StatusReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendStatusReply(b, m) })
}

func (r *request) inspectReply(m InspectReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendInspectReply(b, m) })
}

func (r *request) deliverReply(m DeliverReply, err error) {
	r.answer(err, func(b []byte) []byte { return AppendDeliverReply(b, m) })
}
