package rpc

import (
	"sync/atomic"
	"time"
)

// health is what the traffic to one peer says about it. All of it may be read
// and written without a lock: each field stands for itself, and a lost update
// costs one sample.
type health struct {
	up       atomic.Bool
	lastSeen atomic.Int64 // instant of the newest reply
	// timeouts since the last reply, of the kinds a peer answers by itself. A
	// peer whose reads come from its cache while its disk hangs is found out
	// because its merges are counted apart.
	timeouts [lastKind + 1]atomic.Int32
	since    [lastKind + 1]atomic.Int64 // instant the first of these was sent
	p95      atomic.Int64               // of samples of foreground reads; of pings until there are any
	reads    atomic.Bool                // p95 comes from reads
}

// heard notes a batch of replies that arrived at an instant.
func (h *health) heard(at time.Duration, calls []ended) {
	h.lastSeen.Store(int64(at))
	for i := range calls {
		if k := calls[i].kind; h.timeouts[k].Load() != 0 {
			h.timeouts[k].Store(0)
		}
	}
}

// handled notes how long a batch of replies took that was dealt with at an instant.
//
// The batch is one sample, that of its first read, or else ping. Calls that are answered
// together waited together: taken one by one, a hundred fast ones would halve the
// quantile, and the first batch that is slow again be hedged as a whole. And whoever
// asked has an answer only when the batch has come to it.
func (h *health) handled(at time.Duration, calls []ended) {
	read, ping := never, never // when the first was sent
	for i := range calls {
		switch c := &calls[i]; {
		case c.class != Foreground || c.err != nil:
		case c.kind == KindRead:
			read = min(read, c.sent)
		case c.kind == KindPing:
			ping = min(ping, c.sent)
		}
	}
	switch {
	case read != never:
		h.sampleRead(at - read)
	case ping != never && !h.reads.Load():
		h.sample(at - ping)
	}
}

// sampleRead notes how long reads took, and that pings say nothing from now on.
func (h *health) sampleRead(took time.Duration) {
	if h.reads.CompareAndSwap(false, true) {
		h.p95.Store(0)
	}
	h.sample(took)
}

// sample notes how long one batch took. The quantile moves up by 9.5 % of itself
// when a sample lies above it and down by 0.5 % when one lies below, so that it
// rests where one in twenty lies above.
func (h *health) sample(took time.Duration) {
	took = max(took, 1)
	p95 := h.p95.Load()
	switch {
	case p95 == 0:
		p95 = 2 * int64(took)
	case int64(took) > p95:
		p95 += p95*95/1000 + 1
	default:
		p95 -= p95 * 5 / 1000
	}
	h.p95.Store(max(p95, 1))
}

// missed notes calls that timed out in one sweep and reports whether they are
// reason enough to suspect the peer: it was silent for SuspectTimeout while one
// of them waited, or for SuspectSlow and SuspectAfter sweeps in a row a kind went
// without an answer.
func (h *health) missed(at time.Duration, calls []ended, cfg *PoolConfig) bool {
	silent := false
	var first [lastKind + 1]time.Duration // when the first of each kind was sent
	for k := range first {
		first[k] = never
	}
	for i := range calls {
		c := &calls[i]
		if c.err != ErrTimeout {
			continue
		}
		if c.kind == KindRead && c.class == Foreground {
			h.sampleRead(at - c.sent)
		}
		silent = silent || at-c.sent >= cfg.SuspectTimeout && h.lastSeen.Load() < int64(c.sent)
		if c.class == Foreground && (c.kind == KindRead || c.kind == KindMerge || c.kind == KindPing) {
			first[c.kind] = min(first[c.kind], c.sent)
		}
	}
	for k, sent := range first {
		if sent == never {
			continue
		}
		n := h.timeouts[k].Add(1)
		if n == 1 {
			h.since[k].Store(int64(sent))
		}
		if n >= int32(cfg.SuspectAfter) && at-time.Duration(h.since[k].Load()) >= cfg.SuspectSlow {
			silent = true
		}
	}
	return silent
}

// recovered forgets the timeouts that made the peer a suspect.
func (h *health) recovered() {
	for k := range h.timeouts {
		h.timeouts[k].Store(0)
	}
}
