package rpc

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
)

// clientCounters are the metrics of a pool.
type clientCounters struct {
	calls       [lastKind + 1]*metrics.Counter
	timeouts    *metrics.Counter
	unreachable *metrics.Counter
	closed      *metrics.Counter
	overloaded  *metrics.Counter
	late        *metrics.Counter
	badFrames   *metrics.Counter
	dials       *metrics.Counter
	dialErrors  *metrics.Counter
	suspicions  *metrics.Counter
	silent      *metrics.Counter
	sent        *metrics.Counter
	handOvers   *metrics.Counter
}

func newClientCounters(set *metrics.Set) clientCounters {
	c := clientCounters{
		timeouts:    set.GetOrCreateCounter(`rpc_call_errors_total{error="timeout"}`),
		unreachable: set.GetOrCreateCounter(`rpc_call_errors_total{error="unreachable"}`),
		closed:      set.GetOrCreateCounter(`rpc_call_errors_total{error="closed"}`),
		overloaded:  set.GetOrCreateCounter(`rpc_call_errors_total{error="overloaded"}`),
		late:        set.GetOrCreateCounter(`rpc_late_replies_total`),
		badFrames:   set.GetOrCreateCounter(`rpc_bad_frames_total{side="client"}`),
		dials:       set.GetOrCreateCounter(`rpc_dials_total`),
		dialErrors:  set.GetOrCreateCounter(`rpc_dial_errors_total`),
		suspicions:  set.GetOrCreateCounter(`rpc_suspicions_total`),
		silent:      set.GetOrCreateCounter(`rpc_connections_given_up_total`),
		sent:        set.GetOrCreateCounter(`rpc_sent_bytes_total{side="client"}`),
		handOvers:   set.GetOrCreateCounter(`rpc_states_handed_over_total`),
	}
	for k := KindPing; k <= lastKind; k++ {
		c.calls[k] = set.GetOrCreateCounter(fmt.Sprintf(`rpc_calls_total{kind=%q}`, k))
	}
	return c
}

// failed counts a call that brought no reply, or one of this side's refusals.
func (c *clientCounters) failed(err error) {
	switch err {
	case ErrTimeout:
		c.timeouts.Inc()
	case ErrUnreachable:
		c.unreachable.Inc()
	case ErrClosed:
		c.closed.Inc()
	case ErrOverloaded:
		c.overloaded.Inc()
	}
}

// serverCounters are the metrics of a server.
type serverCounters struct {
	requests    [lastKind + 1]*metrics.Counter
	overloaded  [classes]*metrics.Counter
	expired     *metrics.Counter
	stale       *metrics.Counter
	behind      *metrics.Counter
	badFrames   *metrics.Counter
	connections *metrics.Counter
	overLimit   *metrics.Counter
	handshakes  *metrics.Counter
	slow        *metrics.Counter
	old         *metrics.Counter
	sent        *metrics.Counter
}

func newServerCounters(set *metrics.Set) serverCounters {
	c := serverCounters{
		expired:     set.GetOrCreateCounter(`rpc_requests_expired_total`),
		stale:       set.GetOrCreateCounter(`rpc_requests_stale_total`),
		behind:      set.GetOrCreateCounter(`rpc_requests_behind_total`),
		badFrames:   set.GetOrCreateCounter(`rpc_bad_frames_total{side="server"}`),
		connections: set.GetOrCreateCounter(`rpc_connections_total`),
		overLimit:   set.GetOrCreateCounter(`rpc_connections_refused_total{reason="limit"}`),
		handshakes:  set.GetOrCreateCounter(`rpc_connections_refused_total{reason="handshake"}`),
		slow:        set.GetOrCreateCounter(`rpc_connections_closed_total{reason="backlog"}`),
		old:         set.GetOrCreateCounter(`rpc_connections_closed_total{reason="old"}`),
		sent:        set.GetOrCreateCounter(`rpc_sent_bytes_total{side="server"}`),
	}
	for k := KindPing; k <= lastKind; k++ {
		c.requests[k] = set.GetOrCreateCounter(fmt.Sprintf(`rpc_requests_total{kind=%q}`, k))
	}
	for k := range Class(classes) {
		c.overloaded[k] = set.GetOrCreateCounter(fmt.Sprintf(`rpc_requests_refused_total{class=%q}`, k))
	}
	return c
}
