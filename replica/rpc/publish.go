package rpc

// This file brings the peer what clients publish. Nobody waits for it: it is sent once,
// and what the peer does not take is lost.

// PublishRequest brings a message for the peer's subscribers. Its reply carries nothing;
// it means that the message was handed to them.
type PublishRequest struct {
	Shard   bool // to a shard channel
	Channel []byte
	Payload []byte
}

const publishShard = 1

// AppendPublishRequest appends the encoding of m.
func AppendPublishRequest(dst []byte, m PublishRequest) []byte {
	dst = append(dst, flag(m.Shard, publishShard))
	dst = appendBytes(dst, m.Channel)
	return append(dst, m.Payload...)
}

// DecodePublishRequest is the inverse of AppendPublishRequest. What it returns aliases b.
func DecodePublishRequest(b []byte) (PublishRequest, error) {
	c := cursor{b: b}
	m := PublishRequest{Shard: c.flags(publishShard) != 0, Channel: c.bytes()}
	if rest := c.take(len(c.b)); len(rest) > 0 {
		m.Payload = rest
	}
	return m, c.end()
}

// Publish brings the peer a message for its subscribers. Messages keep their order: all
// use one connection, the bulk one, so that large ones do not stand in the way of reads.
func (p *Peer) Publish(m PublishRequest, o Options, done func(error)) {
	p.callOver(p.bulk, KindPublish, o, len(m.Channel)+len(m.Payload),
		func(b []byte) []byte { return AppendPublishRequest(b, m) }, ackDone(done))
}
