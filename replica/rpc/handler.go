package rpc

import (
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Meta is what a handler knows about a request besides its message.
type Meta struct {
	From     ring.NodeID
	Class    Class
	Deadline time.Time // when the caller stops waiting at the latest, by this node's clock; never zero
	Epochs   Epochs    // what a request for rows goes by; looked at when it arrived
}

// Handler serves the requests of other nodes.
//
// Every method runs on the goroutine that reads the connection and must not
// block: what needs a disk or another node goes elsewhere and replies later.
// reply must be called exactly once, from any goroutine, perhaps before the
// method returns; it does not block, and does nothing when the caller is gone.
// A handler with a queue of its own should drop what has passed its Deadline
// when it gets there (reply ErrTimeout, which nobody will read), and must look again
// whether the Epochs are still to be served (reply ErrStaleEpoch: the state that the
// caller is to merge is put to it here). What it refuses by what it knows of the ring is
// marked with Behind if the Epochs are ones that it has not heard of.
//
// What a request points to is the handler's to keep: it shares one allocation,
// of that request alone. What a reply points to is encoded before reply
// returns.
//
// The errors of this package cross the wire as themselves, UncertainError with
// its counts; all others arrive as ErrInternal.
type Handler interface {
	ServeRead(m ReadRequest, meta Meta, reply func(ReadReply, error))
	ServeMerge(m MergeRequest, meta Meta, reply func(error))
	ServeWrite(m WriteRequest, meta Meta, reply func(WriteReply, error))
	ServeScan(m ScanRequest, meta Meta, reply func(ScanReply, error))
	ServeCount(m CountRequest, meta Meta, reply func(CountReply, error))
	ServeStatus(m StatusRequest, meta Meta, reply func(StatusReply, error))
	ServeInspect(m InspectRequest, meta Meta, reply func(InspectReply, error))
	ServeDeliver(m DeliverRequest, meta Meta, reply func(DeliverReply, error))
	ServeNodes(m NodesRequest, meta Meta, reply func(NodesReply, error))
	ServeList(m ListRequest, meta Meta, reply func(ListReply, error))
	ServeFetch(m FetchRequest, meta Meta, reply func(FetchReply, error))
	ServeHinted(m HintedRequest, meta Meta, reply func(HintedReply, error))
	ServeLacks(m LacksRequest, meta Meta, reply func(LacksReply, error))
	ServeSession(m SessionRequest, meta Meta, reply func(error))
	ServeSync(m SyncRequest, meta Meta, reply func(error))
	ServeState(m StateRequest, meta Meta, reply func(error))
	ServePublish(m PublishRequest, meta Meta, reply func(error))
	ServeSettle(m MergeRequest, meta Meta, reply func(error))
}
