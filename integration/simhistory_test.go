package integration

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redynamo/redynamo/replica/version"
)

// fate is what became of a write or delete, as far as its client knows.
type fate uint8

const (
	unknown fate = iota // no answer, or one that says so: it may yet surface
	acked               // acknowledged: it must hold
	denied              // certainly not made: it must never be seen
)

func (f fate) String() string { return []string{"unknown", "acked", "refused"}[f] }

// set is a set of values of one key, by their number in its history.
type set []uint64

func (s set) has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

// with returns s and i; s stays as it is.
func (s set) with(i int) set {
	out := append(set(nil), s...)
	for len(out) <= i/64 {
		out = append(out, 0)
	}
	out[i/64] |= 1 << (i % 64)
	return out
}

// union returns what is in s or o; both stay as they are.
func (s set) union(o set) set {
	if len(s) < len(o) {
		s, o = o, s
	}
	out := append(set(nil), s...)
	for i := range o {
		out[i] |= o[i]
	}
	return out
}

// attempt is one write or delete of a shared key.
type attempt struct {
	value string // "" is a delete
	past  set    // what its token is known to have seen; the real past may be larger
	fate  fate
	nodes int    // W, how many nodes have it once it is acknowledged
	acks  int    // number among all acknowledgements
	dot   string // of the version, once somebody was shown it
	when  string
}

// keyHistory is all that clients did to one key.
type keyHistory struct {
	writes  []*attempt
	deletes []*attempt
	number  map[string]int // value -> index of writes
	dots    map[string]int // dot -> index of writes
	told    []string       // what happened, for people
	blamed  bool           // told was shown
}

// history is what clients did and saw, and the judge of it (notes: causality
// §6). Values are unique, so a value names its write. The invariants have the
// numbers given there; I9 is ours: no write was coordinated twice.
type history struct {
	t    *testing.T
	seed uint64
	mu   struct {
		sync.Mutex
		keys   map[string]*keyHistory
		counts map[string]int
		acks   int
	}
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{t: t, seed: seed}
	h.mu.keys = map[string]*keyHistory{}
	h.mu.counts = map[string]int{}
	return h
}

func (h *history) errorf(format string, args ...any) {
	h.t.Errorf("seed %d: "+format, append([]any{h.seed}, args...)...)
}

// blameLocked reports a broken promise about a key, and once what led to it.
func (h *history) blameLocked(k *keyHistory, format string, args ...any) {
	h.errorf(format, args...)
	if !k.blamed {
		k.blamed = true
		h.t.Logf("seed %d: what happened to that key at last:\n%s", h.seed, strings.Join(k.told[max(0, len(k.told)-60):], "\n"))
	}
}

// tell notes an event of a key.
func (h *history) tell(key, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keyLocked(key)
	k.told = append(k.told, fmt.Sprintf(format, args...))
}

func (h *history) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.counts[what]++
}

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

// settle notes what the client was told of an attempt.
func (h *history) settle(a *attempt, f fate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.fate = f
	if f == acked {
		h.mu.acks++
		a.acks = h.mu.acks
	}
	what := "write "
	if a.value == "" {
		what = "delete "
	}
	h.mu.counts[what+f.String()]++
}

// shown is one value as a node shows it.
type shown struct{ value, dot string }

// saw judges one reply to a read of key and returns the past of its token.
func (h *history) saw(key string, versions []shown, where string) set {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keyLocked(key)
	var past set
	var numbers []int
	for _, v := range versions {
		i, known := k.number[v.value]
		if !known {
			h.blameLocked(k, "I3 phantom: %s: %s shows %q, which nobody wrote", where, key, v.value)
			continue
		}
		w := k.writes[i]
		if j, taken := k.dots[v.dot]; taken && j != i {
			h.blameLocked(k, "I7 dot used twice: %s: %s of %s is %q and was %q", where, v.dot, key, v.value, k.writes[j].value)
		}
		if w.dot != "" && w.dot != v.dot {
			h.blameLocked(k, "I9 coordinated twice: %s: %q of %s has dot %s and had %s", where, v.value, key, v.dot, w.dot)
		}
		k.dots[v.dot], w.dot = i, v.dot
		past = past.union(w.past).with(i)
		numbers = append(numbers, i)
	}
	for _, i := range numbers {
		for _, j := range numbers {
			if k.writes[j].past.has(i) {
				h.blameLocked(k, "I4 false sibling: %s: %s shows %q beside %q, which had seen it", where, key, k.writes[i].value, k.writes[j].value)
			}
		}
	}
	return past
}

// covered judges a read whose minimum was the token of an acknowledged write:
// the write must be shown, or something that had seen it.
func (h *history) covered(key, value string, past set, where string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keyLocked(key)
	if i := k.number[value]; !past.has(i) && !k.deletedLocked(i) {
		h.blameLocked(k, "I5 session: %s: a read of %s that had to cover %q does not", where, key, value)
	}
}

func (k *keyHistory) deletedLocked(i int) bool {
	return slices.ContainsFunc(k.deletes, func(d *attempt) bool { return d.fate != denied && d.past.has(i) })
}

// acknowledged is how many acknowledgements there were.
func (h *history) acknowledged() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.acks
}

// binding says which acknowledgements bind a state: the first so many, of those
// that speak of enough nodes.
type binding struct{ acks, nodes int }

// all of them.
var all = binding{acks: math.MaxInt}

func (b binding) holds(a *attempt) bool {
	return a.fate == acked && a.acks <= b.acks && a.nodes >= b.nodes
}

// judge checks a state of a key: I1, nothing acknowledged is gone; I2, nothing
// that an acknowledged write or delete had seen is left; I3, nothing is there
// that was refused.
func (h *history) judge(key, where string, final []shown, b binding) {
	past := h.saw(key, final, where)
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.keyLocked(key)
	for i, w := range k.writes {
		switch {
		case w.fate == denied && w.dot != "":
			h.blameLocked(k, "I3 phantom: %s: %q of %s was refused and seen as %s", where, w.value, key, w.dot)
		case !b.holds(w) || past.has(i) || k.deletedLocked(i):
		default:
			h.blameLocked(k, "I1 lost: %s: %q of %s (%s, dot %q) was acknowledged, is not live and nothing had seen it: live are %v",
				where, w.value, key, w.when, w.dot, final)
		}
	}
	for _, v := range final {
		i, known := k.number[v.value]
		if !known {
			continue // told by saw
		}
		for _, a := range slices.Concat(k.writes, k.deletes) {
			if !b.holds(a) || !a.past.has(i) {
				continue
			}
			h.blameLocked(k, "I2 resurrected: %s: %q of %s (dot %s) is live, but %s had seen it and was acknowledged (%s)", where, v.value, key, v.dot, a, a.when)
			break
		}
	}
}

func (a *attempt) String() string {
	if a.value == "" {
		return "a delete"
	}
	return fmt.Sprintf("the write of %q", a.value)
}

// dotText is the form of a dot in replies.
func dotText(d version.Dot) string { return fmt.Sprintf("%016x:%d", uint64(d.Actor), d.Counter) }
