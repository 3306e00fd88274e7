package resp

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A histogram counts durations by size, in the steps in which Redis shows them:
// up to 2^k + 2^(k-7) - 1 ns, for k from 10 on. Whatever takes a second or more is
// in the last.
type histogram [histogramSteps]atomic.Int64

const (
	histogramSteps = 21
	histogramFirst = 10
)

func stepTop(i int) int64 { return 1<<(i+histogramFirst) + 1<<(i+histogramFirst-7) - 1 }

func (h *histogram) add(d time.Duration) {
	i := 0
	for i < histogramSteps-1 && int64(d) > stepTop(i) {
		i++
	}
	h[i].Add(1)
}

func (h *histogram) reset() {
	for i := range h {
		h[i].Store(0)
	}
}

// write answers the calls, and how many took at most so many microseconds.
func (h *histogram) write(w *Reply) {
	var tops, counts []int64
	calls := int64(0)
	for i := range h {
		if n := h[i].Load(); n > 0 {
			calls += n
			tops, counts = append(tops, stepTop(i)/1000), append(counts, calls)
		}
	}
	w.Map(2)
	w.BulkString("calls")
	w.Int(calls)
	w.BulkString("histogram_usec")
	w.Map(len(tops))
	for i := range tops {
		w.Int(tops[i])
		w.Int(counts[i])
	}
}

// latencyHistogram answers for the commands named, and of a container for its
// subcommands, or for all; those that were never called are left out.
func latencyHistogram(s *session, args [][]byte, w *Reply) {
	var rows []*command
	take := func(row *command) {
		if row.stats.calls.Load() > 0 {
			rows = append(rows, row)
		}
	}
	if len(args) == 2 {
		s.srv.table.each(take)
	}
	for _, name := range args[2:] {
		row := s.srv.table.path(name)
		if row == nil || slices.Contains(rows, row) {
			continue
		}
		take(row)
		for i := range row.subcommands {
			take(&row.subcommands[i])
		}
	}
	w.Map(len(rows))
	for _, row := range rows {
		w.BulkString(row.full)
		row.stats.took.write(w)
	}
}

// latencySamples is how many samples of an event are kept, as in Redis.
const latencySamples = 160

// A latencySample is the longest that happened within one second.
type latencySample struct{ at, ms int64 }

// A latencyEvent is a kind of what may take long.
type latencyEvent struct {
	name    string
	samples []latencySample // oldest first
	most    int64
}

// A latencyMonitor keeps what took as long as latency-monitor-threshold. Its
// events are "command" and "fast-command": nothing else holds up clients here.
type latencyMonitor struct {
	mu struct {
		sync.Mutex
		events []latencyEvent // by name; at most two
	}
}

func (m *latencyMonitor) add(name string, at, ms int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.mu.events, func(e latencyEvent) bool { return e.name == name })
	if i < 0 {
		i = 0
		for i < len(m.mu.events) && m.mu.events[i].name < name {
			i++
		}
		m.mu.events = slices.Insert(m.mu.events, i, latencyEvent{name: name})
	}
	e := &m.mu.events[i]
	e.most = max(e.most, ms)
	if n := len(e.samples); n > 0 && e.samples[n-1].at == at {
		e.samples[n-1].ms = max(e.samples[n-1].ms, ms)
		return
	}
	if len(e.samples) == latencySamples {
		e.samples = slices.Delete(e.samples, 0, 1)
	}
	e.samples = append(e.samples, latencySample{at, ms})
}

// list copies the events named, or all.
func (m *latencyMonitor) list(names ...string) (out []latencyEvent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.mu.events {
		if len(names) == 0 || slices.Contains(names, e.name) {
			e.samples = slices.Clone(e.samples)
			out = append(out, e)
		}
	}
	return out
}

// reset forgets the events named, or all, and counts them.
func (m *latencyMonitor) reset(names ...string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := len(m.mu.events)
	m.mu.events = slices.DeleteFunc(m.mu.events, func(e latencyEvent) bool {
		return len(names) == 0 || slices.Contains(names, e.name)
	})
	return was - len(m.mu.events)
}

// noteLatency keeps the time of a command if it is long enough.
func (s *session) noteLatency(row *command, took time.Duration) {
	least := s.srv.params.latencyMS.Load()
	if least <= 0 || took.Milliseconds() < least {
		return
	}
	name := "command"
	if row.has("fast") {
		name = "fast-command"
	}
	s.srv.latency.add(name, s.srv.cfg.Now().Unix(), took.Milliseconds())
}

func eventNames(args [][]byte) (names []string) {
	for _, arg := range args {
		names = append(names, clip(arg, nameBytes))
	}
	return names
}

func latencyLatest(s *session, _ [][]byte, w *Reply) {
	events := s.srv.latency.list()
	w.Array(len(events))
	for _, e := range events {
		last := e.samples[len(e.samples)-1]
		w.Array(4)
		w.BulkString(e.name)
		w.Int(last.at)
		w.Int(last.ms)
		w.Int(e.most)
	}
}

func latencyHistory(s *session, args [][]byte, w *Reply) {
	events := s.srv.latency.list(eventNames(args[2:])...)
	if len(events) == 0 {
		w.Array(0)
		return
	}
	w.Array(len(events[0].samples))
	for _, sample := range events[0].samples {
		w.Array(2)
		w.Int(sample.at)
		w.Int(sample.ms)
	}
}

func latencyReset(s *session, args [][]byte, w *Reply) {
	w.Int(int64(s.srv.latency.reset(eventNames(args[2:])...)))
}

// latencyDoctor says what is known; what to do about it is in the metrics.
func latencyDoctor(s *session, _ [][]byte, w *Reply) {
	var b strings.Builder
	least := s.srv.params.latencyMS.Load()
	events := s.srv.latency.list()
	switch {
	case least <= 0:
		b.WriteString("The latency monitor is off. CONFIG SET latency-monitor-threshold MILLISECONDS turns it on.\n")
	case len(events) == 0:
		fmt.Fprintf(&b, "No command on this door took %d ms or more since the latency monitor was turned on or reset.\n", least)
	}
	for _, e := range events {
		sum := int64(0)
		for _, sample := range e.samples {
			sum += sample.ms
		}
		n := int64(len(e.samples))
		fmt.Fprintf(&b, "%s: in %d seconds of those that are kept some took %d ms or more; the longest of each second %d ms on average, of all %d ms.\n",
			e.name, n, least, sum/n, e.most)
	}
	b.WriteString("A command takes as long as the nodes that it waits for: see LATENCY HISTOGRAM, SLOWLOG GET, and /metrics on the admin port of each node.\n")
	w.Verbatim("txt", b.String())
}
