package resp

import (
	"strconv"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
)

// counts are the server's own figures, for INFO and the metrics.
type counts struct {
	accepted, rejected, acceptErrors   atomic.Int64
	protocolErrors, panics, authFailed atomic.Int64
	errorReplies                       atomic.Uint64
	netInput, netOutput                atomic.Int64
	nudges, slowSubscribers            atomic.Int64
}

func (d Door) String() string {
	if d == Sentinel {
		return "sentinel"
	}
	if d == Cluster {
		return "cluster"
	}
	return "plain"
}

// registerMetrics publishes the counts in the node's set, one label per door.
func (s *Server) registerMetrics() {
	set, door := s.cfg.Metrics, `{door="`+s.cfg.Door.String()+`"}`
	gauge := func(name string, value func() float64) { set.NewGauge(name+door, value) }
	counter := func(name string, v *atomic.Int64) {
		gauge(name, func() float64 { return float64(v.Load()) })
	}
	counter("resp_connections_total", &s.counts.accepted)
	counter("resp_rejected_connections_total", &s.counts.rejected)
	counter("resp_accept_errors_total", &s.counts.acceptErrors)
	counter("resp_protocol_errors_total", &s.counts.protocolErrors)
	counter("resp_panics_total", &s.counts.panics)
	counter("resp_failed_logins_total", &s.counts.authFailed)
	counter("resp_received_bytes_total", &s.counts.netInput)
	counter("resp_sent_bytes_total", &s.counts.netOutput)
	counter("resp_moved_total", &s.counts.nudges)
	counter("resp_slow_subscribers_closed_total", &s.counts.slowSubscribers)
	gauge("resp_error_replies_total", func() float64 { return float64(s.counts.errorReplies.Load()) })
	gauge("resp_connections", func() float64 { return float64(s.connected()) })
	gauge("resp_query_buffer_bytes", func() float64 { return float64(s.query.used.Load()) })
	gauge("resp_unsent_reply_bytes", func() float64 { return float64(s.replies.used.Load()) })
	gauge("resp_unsent_message_bytes", func() float64 { return float64(s.pushes.used.Load()) })
	s.table.each(func(row *command) { row.registerMetrics(set, s.cfg.Door) })
}

func (c *command) registerMetrics(set *metrics.Set, door Door) {
	labels := `{door="` + door.String() + `",command="` + c.full + `"}`
	set.NewGauge("resp_commands_total"+labels, func() float64 { return float64(c.stats.calls.Load()) })
	set.NewGauge("resp_command_failures_total"+labels, func() float64 { return float64(c.stats.failed.Load()) })
	set.NewGauge("resp_command_seconds_total"+labels, func() float64 { return float64(c.stats.nanos.Load()) / 1e9 })
}

// each visits every row that can be run, subcommands included.
func (t *table) each(visit func(row *command)) {
	for _, row := range t.rows {
		visit(row)
		for i := range row.subcommands {
			visit(&row.subcommands[i])
		}
	}
}

func (s *Server) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.clients)
}

// blocked counts the connections that are held: by WAIT, for instance.
func (s *Server) blocked() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.mu.clients {
		if c.block.Load() != nil {
			n++
		}
	}
	return n
}

// resetCounts is CONFIG RESETSTAT. The gauges of the metrics fall back as well,
// which their readers take for a restart.
func (s *Server) resetCounts() {
	c := &s.counts
	for _, v := range []*atomic.Int64{&c.accepted, &c.rejected, &c.acceptErrors, &c.protocolErrors, &c.panics,
		&c.authFailed, &c.netInput, &c.netOutput, &c.nudges, &c.slowSubscribers} {
		v.Store(0)
	}
	c.errorReplies.Store(0)
	s.table.each(func(row *command) {
		row.stats.calls.Store(0)
		row.stats.nanos.Store(0)
		row.stats.failed.Store(0)
		row.stats.rejected.Store(0)
		row.stats.took.reset()
	})
}

// commandsProcessed is the number of commands run.
func (s *Server) commandsProcessed() (n int64) {
	s.table.each(func(row *command) { n += row.stats.calls.Load() })
	return n
}

func itoa[T ~int | ~int64 | ~uint64 | ~uint16 | ~int32](n T) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}
