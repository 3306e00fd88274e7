package node

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/version"
)

// unheard are the epochs of a member of n's cluster who knows of one more member.
func unheard(t *testing.T, n *Node) rpc.Epochs {
	t.Helper()
	s, err := epoch.Decode(n.members.EpochState())
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Amend([]ring.Record{v1(n.id.node+1, 1)}).View(func(ms []ring.Member) (*ring.Ring, error) {
		return ring.New(n.params(), ms)
	})
	if err != nil {
		t.Fatal(err)
	}
	return v.Stamp.Bytes()
}

// versionOf is a record as it travels.
func versionOf(value string) []byte {
	return version.EncodeWire(nil, version.Record{}.Put(version.Write{Dot: version.Dot{Actor: 9, Counter: 1}, HLC: 1, Value: []byte(value)}))
}

func TestWhatIsRefusedByAnOlderRingIsNotRefusedForGood(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	h, key := handler{n}, []byte("k")
	n.replica.Fence(n.members.View().Ring.Partition(ring.SlotOf(key)), true)
	ask := func(e rpc.Epochs) (errs []error) {
		meta := rpc.Meta{From: n.id.node, Epochs: e, Deadline: time.Now().Add(patience)}
		ended := make(chan error, 3)
		h.ServeMerge(rpc.MergeRequest{Key: key, Record: versionOf("w")}, meta, func(err error) { ended <- err })
		errs = append(errs, <-ended)
		h.ServeRead(rpc.ReadRequest{Key: key}, meta, func(_ rpc.ReadReply, err error) { ended <- err })
		errs = append(errs, <-ended)
		rows := []rpc.DeliverRow{{Key: key, Record: versionOf("w")}}
		h.ServeDeliver(rpc.DeliverRequest{For: n.id.node + 7, Rows: rows}, meta, func(_ rpc.DeliverReply, err error) { ended <- err })
		return append(errs, <-ended)
	}
	for i, err := range ask(n.epochs()) {
		if !errors.Is(err, rpc.ErrNotOwner) || errors.Is(err, rpc.ErrBehind) {
			t.Errorf("request %d of somebody who knows no more: %v", i, err)
		}
	}
	for i, err := range ask(unheard(t, n)) {
		if !errors.Is(err, rpc.ErrNotOwner) || !errors.Is(err, rpc.ErrBehind) {
			t.Errorf("request %d of somebody who knows more: %v", i, err)
		}
	}
}

// What a view holds is opened by whoever comes first: a request that finds it closed, or
// one of this node's own.
func TestARequestIsNotRefusedSinceAPartitionHasYetToBeOpened(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	key := []byte("k")
	p := n.members.View().Ring.Partition(ring.SlotOf(key))
	closeIt := func() {
		n.drops.mu.Lock()
		n.drops.mu.empty[p] = true
		n.replica.Fence(p, true)
		n.drops.mu.Unlock()
		n.rings.mu.Lock()
		n.rings.newest.Store(nil) // as if the view had just come
		n.rings.mu.Unlock()
	}
	closeIt()
	ended := make(chan error, 1)
	meta := rpc.Meta{From: n.id.node, Epochs: n.epochs(), Deadline: time.Now().Add(patience)}
	handler{n}.ServeMerge(rpc.MergeRequest{Key: key, Record: versionOf("w")}, meta, func(err error) { ended <- err })
	if err := <-ended; err != nil {
		t.Errorf("merge: %v", err)
	}
	closeIt()
	if got := say(t, n, "SET k v"); got != "+OK" {
		t.Error(got)
	}
}

func TestAStateThatIsBroughtIsMergedOrRefused(t *testing.T) {
	n := start(t, lone(vfs.NewMem()))
	bring := func(state []byte, left time.Duration) error {
		ended := make(chan error, 1)
		handler{n}.ServeState(rpc.StateRequest{State: state}, rpc.Meta{Deadline: time.Now().Add(left)}, func(err error) { ended <- err })
		return <-ended
	}
	if err := bring(n.members.State(), patience); err != nil {
		t.Errorf("its own: %v", err)
	}
	if err := bring([]byte("nonsense"), patience); err == nil {
		t.Error("nonsense is taken")
	}
	if err := bring(n.members.State(), -1); !errors.Is(err, rpc.ErrTimeout) {
		t.Errorf("too late: %v", err)
	}
	block := make(chan struct{})
	n.hearing.brought.later(time.Time{}, func(error) { <-block })
	for n.hearing.brought.try(func() {}) {
	}
	if err := bring(n.members.State(), patience); !errors.Is(err, rpc.ErrOverloaded) {
		t.Errorf("with as many that wait as may: %v", err)
	}
	close(block)
	if got := say(t, n, "SET k v"); got != "+OK" {
		t.Error(got)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
	n.hearing.brought.later(time.Time{}, func(error) { t.Error("somebody works on") })
}

// slowLearner refuses merges until it was brought a state that it takes.
type slowLearner struct {
	handler
	takes  bool
	heard  atomic.Bool
	merges atomic.Int64
}

func (s *slowLearner) ServeMerge(_ rpc.MergeRequest, _ rpc.Meta, reply func(error)) {
	s.merges.Add(1)
	if !s.heard.Load() {
		reply(rpc.Behind(rpc.ErrNotOwner))
		return
	}
	reply(nil)
}

func (s *slowLearner) ServeState(m rpc.StateRequest, _ rpc.Meta, reply func(error)) {
	if !s.takes || string(m.State) != "state" {
		reply(rpc.ErrInternal)
		return
	}
	s.heard.Store(true)
	reply(nil)
}

func TestANodeThatIsBehindIsAskedAgainOnceItHasBeenToldWhy(t *testing.T) {
	for _, takes := range []bool{true, false} {
		learner := &slowLearner{takes: takes}
		pool := runPool(t, rpc.PoolConfig{State: func() []byte { return []byte("state") }})
		peer := remotePeer{pool.Peer(2, serveAs(t, rpc.ServerConfig{Node: 2, Handler: learner}))}
		merged := make(chan error, 1)
		peer.Merge(coordinator.MergeRequest{Key: []byte("k"), Deadline: time.Now().Add(patience)}, func(err error) { merged <- err })
		err, asked := <-merged, learner.merges.Load()
		if takes && (err != nil || asked != 2) || !takes && (!errors.Is(err, coordinator.ErrNotOwner) || asked != 1) {
			t.Errorf("takes %v: %v, asked %d times", takes, err, asked)
		}
	}
}
