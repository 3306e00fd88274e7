package integration

import (
	"fmt"
	"strconv"
	"sync"
	"time"
)

// counters are keys that clients count on while faults rain. Each increment that was
// acknowledged is in the sum in the end, and each that was refused is not; of one whose
// outcome is unknown either will do. Nobody sets them back, so the sum says it all.
type counters struct {
	mu struct {
		sync.Mutex
		acked, unknown map[string]int64
	}
}

const counterKeys = 6

func newCounters() *counters {
	n := &counters{}
	n.mu.acked, n.mu.unknown = map[string]int64{}, map[string]int64{}
	return n
}

// countOn adds to some counters, until then, through one node and another.
func (s *session) countOn(n *counters, until time.Time) {
	for time.Now().Before(until) {
		s.pause()
		if !s.connected() {
			continue
		}
		key, add := fmt.Sprintf("counter:%d", s.rng.IntN(counterKeys)), 1+s.rng.Int64N(3)
		reply, err := s.cl.do("INCRBY", key, strconv.FormatInt(add, 10))
		f := s.fateOf(err)
		s.h.count("count " + fateNames[f])
		if sum, ok := reply.(int64); f == acked && (!ok || sum < add) {
			s.h.errorf("session %d: INCRBY %s %d answers %v", s.id, key, add, reply)
		}
		n.mu.Lock()
		switch f {
		case acked:
			n.mu.acked[key] += add
		case unknown:
			n.mu.unknown[key] += add
		}
		n.mu.Unlock()
	}
	s.leave()
}

// keys are those that something was added to, perhaps.
func (n *counters) keys() []string {
	keys := make([]string, counterKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("counter:%d", i)
	}
	return keys
}

// judge checks what a counter shows in the end.
func (n *counters) judge(h *history, key, where string, final []shown) {
	n.mu.Lock()
	defer n.mu.Unlock()
	least, most := n.mu.acked[key], n.mu.acked[key]+n.mu.unknown[key]
	switch {
	case len(final) == 0 && least == 0:
	case len(final) != 1:
		h.errorf("%s %s shows %d versions", key, where, len(final))
	default:
		if sum, err := strconv.ParseInt(final[0].Value, 10, 64); err != nil || sum < least || sum > most {
			h.errorf("%s %s shows %q, but %d was acknowledged, and %d more at most was added", key, where, final[0].Value, least, most-least)
		}
	}
}
