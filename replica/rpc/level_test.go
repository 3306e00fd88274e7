package rpc

import (
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// rising are Levels that can be changed.
type rising struct{ atomic.Pointer[Levels] }

func newRising(inForce, highest uint16) *rising {
	var r rising
	r.Store(&Levels{inForce, highest})
	return &r
}

func (r *rising) levels() Levels { return *r.Load() }

func TestLevelsSayWhichVersionsAreSpoken(t *testing.T) {
	for l, want := range map[Levels][2]uint16{
		{}: {4, 5}, {1, 1}: {4, 4}, {1, 2}: {4, 5}, {2, 2}: {5, 5}, {2, 7}: {5, 5},
	} {
		if oldest, newest := l.versions(); oldest != want[0] || newest != want[1] {
			t.Errorf("%+v: %d to %d, want %v", l, oldest, newest, want)
		}
	}
}

// An older program's node is asked in its version, whether the request was there
// before the connection or comes after.
func TestProgramsOfTwoReleasesSpeakTheOlderVersion(t *testing.T) {
	for name, c := range map[string]struct{ caller, server Levels }{
		"a newer caller": {Levels{1, 2}, Levels{1, 1}}, "an older caller": {Levels{1, 1}, Levels{1, 2}},
	} {
		bubble.Test(t, func(t *testing.T) {
			j := &judge{stale: true}
			var ln net.Listener // a dial waits for whoever accepts
			r := newRigWith(t, PoolConfig{Levels: newRising(c.caller.InForce, c.caller.Highest).levels}, func(r *rig) { ln = r.net.listen("two") })
			var asked []string
			handler := &fakeHandler{
				list: func(m ListRequest, x Meta, reply func(ListReply, error)) {
					if x.Epochs != (Epochs{}) {
						t.Errorf("%s: a list with epochs", name)
					}
					asked = append(asked, "list")
					reply(ListReply{NextHash: m.From}, nil)
				},
				nodes: func(_ NodesRequest, _ Meta, reply func(NodesReply, error)) { reply(NodesReply{}, nil) },
				fetch: func(m FetchRequest, _ Meta, reply func(FetchReply, error)) {
					reply(FetchReply{Positions: m.MaxBytes}, nil)
				},
			}
			for round := range 2 { // before there is a connection, and over it
				var ended []error
				r.everyExchangeRequest(Options{Epochs: testEpochs, Class: Background}, func(_ Kind, err error) { ended = append(ended, err) })
				r.peer.Merge(MergeRequest{Key: []byte("k")}, Options{Epochs: testEpochs, Class: Background}, func(err error) { ended = append(ended, err) })
				if round == 0 {
					r.serveOn(ln, handler, ServerConfig{Stale: j.judge, Levels: newRising(c.server.InForce, c.server.Highest).levels})
				}
				pass(time.Second)
				if !slices.Equal(ended, []error{nil, nil, nil, ErrStaleEpoch}) && !slices.Equal(ended, []error{ErrStaleEpoch, nil, nil, nil}) {
					t.Errorf("%s, round %d: ended with %v", name, round, ended)
				}
			}
			if len(asked) != 2 || len(j.asked) != 2 || r.counter(`rpc_bad_frames_total{side="server"}`) != 0 {
				t.Errorf("%s: %v asked, %v judged", name, asked, j.asked)
			}
		})
	}
}

func TestWhoServesLessThanTheLevelInForceIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		caller, server Levels
		why            string
	}{
		"an old caller": {Levels{1, 1}, Levels{2, 2}, "this program is too old"},
		"an old server": {Levels{2, 2}, Levels{1, 1}, "its program is too old"},
	} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t, echoHandler(), PoolConfig{Levels: newRising(c.caller.InForce, c.caller.Highest).levels},
				ServerConfig{Levels: newRising(c.server.InForce, c.server.Highest).levels})
			if _, err := r.read("k", within(time.Second)); err != ErrUnreachable || r.peer.Up() {
				t.Errorf("%s: %v", name, err)
			}
			if reason := *r.peer.reason.Load(); !strings.Contains(reason, c.why) {
				t.Errorf("%s: %s", name, reason)
			}
		})
	}
}

func TestConnectionsOfAnOlderVersionEndWhenTheLevelRises(t *testing.T) {
	for _, side := range []string{"caller", "server"} {
		bubble.Test(t, func(t *testing.T) {
			caller, server := newRising(1, 2), newRising(1, 1)
			if side == "server" {
				caller, server = newRising(1, 1), newRising(1, 2)
			}
			r := newRig(t, echoHandler(), PoolConfig{Levels: caller.levels}, ServerConfig{Levels: server.levels})
			if _, err := r.read("k", within(time.Second)); err != nil {
				t.Fatal(err)
			}
			up := caller
			if side == "server" {
				up = server
			}
			up.Store(&Levels{2, 2})
			pass(5 * time.Second)
			if _, err := r.read("k", within(time.Second)); err != ErrUnreachable || r.peer.Up() {
				t.Errorf("the %s has risen and goes on: %v", side, err)
			}
		})
	}
}
