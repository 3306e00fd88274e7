package rpc

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestPublishedMessagesArriveOnceAndInOrderWhateverTheirSize(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var sizes []int
		var metas []Meta
		h := &fakeHandler{news: func(m PublishRequest, x Meta, reply func(error)) {
			if string(m.Channel) != "news" || m.Shard != (len(m.Payload) == 2) {
				t.Errorf("got %q, shard %v", m.Channel, m.Shard)
			}
			sizes, metas = append(sizes, len(m.Payload)), append(metas, x)
			reply(nil)
		}}
		r := newRig(t, h, PoolConfig{}, ServerConfig{})
		sent := []int{100 << 10, 1, 2, 64 << 10, 0, 1 << 20, 3}
		var ended []error
		for _, n := range sent {
			m := PublishRequest{Shard: n == 2, Channel: []byte("news"), Payload: bytes.Repeat([]byte("x"), n)}
			r.peer.Publish(m, Options{Epochs: testEpochs}, func(err error) { ended = append(ended, err) })
		}
		synctest.Wait()
		if !slices.Equal(sizes, sent) || !slices.Equal(ended, make([]error, len(sent))) {
			t.Errorf("sent %v, arrived %v, %v", sent, sizes, ended)
		}
		for _, x := range metas {
			if x.From != 1 || x.Class != Foreground || x.Deadline.IsZero() || x.Epochs != (Epochs{}) {
				t.Errorf("meta %+v", x)
			}
		}
	})
}

func TestAPeerOfVersion4IsSentNoMessages(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &fakeHandler{news: func(PublishRequest, Meta, func(error)) { t.Error("a message arrived") }}
		r := newRig(t, h, PoolConfig{}, ServerConfig{Levels: newRising(1, 1).levels})
		for range 2 { // before there is a connection, and over it
			ended := make(chan error, 1)
			r.peer.Publish(PublishRequest{Channel: []byte("news")}, Options{}, func(err error) { ended <- err })
			if err := <-ended; err != ErrUnsupported {
				t.Errorf("got %v", err)
			}
		}
		conn := r.greeted(1 << 20)
		r.send(conn, frame(header{kind: KindPublish, id: 1}, AppendPublishRequest(nil, PublishRequest{})))
		synctest.Wait()
		if _, err := io.Copy(io.Discard, conn); err != nil || r.counter(`rpc_bad_frames_total{side="server"}`) != 1 {
			t.Errorf("a message on a connection of version 4: %v", err)
		}
	})
}
