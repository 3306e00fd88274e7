//go:build linux

package main

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// fate is what became of a write or delete, as far as its client knows.
type fate uint8

const (
	unknown fate = iota // no answer, or one that says so: it may yet surface
	acked               // acknowledged: it must hold
	denied              // certainly not made: it must never be seen
)

// set is a set of values of one key, by their number in its history.
type set []uint64

func (s set) has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

// with returns s and i; s stays as it is.
func (s set) with(i int) set {
	out := make(set, max(len(s), i/64+1))
	copy(out, s)
	out[i/64] |= 1 << (i % 64)
	return out
}

// union returns what is in s or o; both stay as they are.
func (s set) union(o set) set {
	if len(s) < len(o) {
		s, o = o, s
	}
	out := slices.Clone(s)
	for i := range o {
		out[i] |= o[i]
	}
	return out
}

// attempt is one write or delete.
type attempt struct {
	value string // "" is a delete
	past  set    // what its token is known to have seen
	fate  fate
	loose bool // acknowledged with less than the fault may take away: binds nobody
	told  time.Time
	dot   string // of the version, once somebody was shown it
}

// keyHistory is all that clients did to one key.
type keyHistory struct {
	writes  []*attempt
	deletes []*attempt
	number  map[string]int // value -> index of writes
	dots    map[string]int // dot -> index of writes
}

// history is what clients did and saw. Values are unique, so a value names its
// write, and tokens carry causality: a token of a read has seen what was shown
// and the past of that; a token of a write has seen that write besides what its
// own token had seen. No clock is needed to judge it.
type history struct {
	mu struct {
		sync.Mutex
		keys    map[string]*keyHistory
		seen    findings // what reads showed that must never be
		acks    int
		clients int // numbers given to clients
	}
}

func newHistory() *history {
	h := &history{}
	h.mu.keys = map[string]*keyHistory{}
	return h
}

// shown is one value as a node shows it.
type shown struct{ value, dot string }

// String names the value without its padding.
func (v shown) String() string { return name(v.value) + "@" + v.dot }

// padding fills values up.
const padding = "."

// name is a value without its padding, for people.
func name(value string) string { return strings.TrimRight(value, padding) }

func (h *history) keyLocked(key string) *keyHistory {
	k := h.mu.keys[key]
	if k == nil {
		k = &keyHistory{number: map[string]int{}, dots: map[string]int{}}
		h.mu.keys[key] = k
	}
	return k
}

// issue notes an attempt that is about to be sent, and returns the past of
// whoever is given its token back.
func (h *history) issue(key string, a *attempt) set {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keyLocked(key)
	if a.value == "" {
		k.deletes = append(k.deletes, a)
		return a.past
	}
	k.number[a.value] = len(k.writes)
	k.writes = append(k.writes, a)
	return a.past.with(len(k.writes) - 1)
}

// holds notes what was written and acknowledged before the load.
func (h *history) holds(key, value string) {
	h.issue(key, &attempt{value: value, fate: acked})
}

// settle notes what the client was told of an attempt.
func (h *history) settle(a *attempt, f fate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.fate, a.told = f, time.Now()
	if f == acked {
		h.mu.acks++
	}
}

// loosen lets what was acknowledged after an instant bind nobody.
func (h *history) loosen(after time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.mu.keys {
		for _, a := range slices.Concat(k.writes, k.deletes) {
			a.loose = a.loose || a.told.After(after)
		}
	}
}

// acknowledged is how many acknowledgements there were.
func (h *history) acknowledged() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.acks
}

// keys returns every key that was written to, in order.
func (h *history) keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := make([]string, 0, len(h.mu.keys))
	for key := range h.mu.keys {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// saw judges what a read of key showed and returns the past of its token.
func (h *history) saw(key string, versions []shown) set {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sawLocked(key, versions, &h.mu.seen)
}
