//go:build linux

package main

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"
)

// history is what clients did and saw, in the order in which it ended. It is judged
// when all is over, as a file is.
type history struct {
	began time.Time
	mu    struct {
		sync.Mutex
		ops     []judge.Op
		keys    map[string]bool
		acks    int
		clients int // numbers given to clients
	}
}

func newHistory() *history {
	h := &history{began: time.Now()}
	h.mu.keys = map[string]bool{}
	return h
}

// shown is one value as a node shows it.
type shown = judge.Shown

// copied is the state of a key at one of its owners.
type copied = judge.Copy

// padding fills values up.
const padding = "."

// name is a value without its padding: what the history calls it.
func name(value string) string { return strings.TrimRight(value, padding) }

// instant is a time as the history has it.
func (h *history) instant(at time.Time) int64 { return at.Sub(h.began).Microseconds() }

// begin returns an operation of a client that begins now.
func (h *history) begin(cl *client, kind, key string) judge.Op {
	return judge.Op{Kind: kind, Session: strconv.Itoa(cl.id), Key: key, BeginUS: h.instant(time.Now())}
}

// end notes an operation that is over; err is what its client was told.
func (h *history) end(cl *client, o judge.Op, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.EndUS, o.Result, o.Node = h.instant(time.Now()), fateOf(err), strconv.Itoa(cl.nodes[cl.at].index)
	if err != nil {
		o.Error = err.Error()
	}
	h.mu.ops = append(h.mu.ops, o)
	if o.Kind == judge.VGet {
		return
	}
	h.mu.keys[o.Key] = true
	if o.Result == judge.OK {
		h.mu.acks++
	}
}

// holds notes what was written and acknowledged before the load.
func (h *history) holds(key, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.instant(time.Now())
	h.mu.keys[key] = true
	h.mu.ops = append(h.mu.ops, judge.Op{Kind: judge.VSet, Session: "before", Key: key, Value: name(value), Token: judge.With(""), Result: judge.OK, BeginUS: now, EndUS: now})
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

// judge checks the last state of all keys: what a read of all owners shows, and
// what the owners hold of the keys that differ among so many owners. Only what b
// holds must be kept.
func (h *history) judge(final map[string][]shown, unequal map[string][]copied, owners int, b judge.Binding) (judge.Report, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := judge.New(judge.Options{Binding: b, MaxFindings: len(h.mu.ops) + 1})
	ops := slices.Clone(h.mu.ops)
	now := h.instant(time.Now())
	for key := range h.mu.keys {
		end := judge.Op{Key: key, Result: judge.OK, BeginUS: now, EndUS: now}
		if copies, differ := unequal[key]; differ {
			inspect := end
			inspect.Kind, inspect.Copies, inspect.Owners = judge.Inspect, copies, owners
			ops = append(ops, inspect)
		}
		end.Kind = judge.Final
		values, read := final[key]
		if end.Values = values; !read {
			end.Result = judge.Unknown
		}
		ops = append(ops, end)
	}
	for i := range ops {
		if err := c.Add(i+1, &ops[i]); err != nil {
			return judge.Report{}, err
		}
	}
	return c.Finish(), nil
}
