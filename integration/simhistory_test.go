package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	judge "github.com/redynamo/redynamo/cmd/redynamo/history"

	"github.com/redynamo/redynamo/replica/version"
)

// fate is what became of a write or delete, as far as its client knows.
type fate = judge.Result

const (
	unknown = judge.Unknown // no answer, or one that says so: it may yet surface
	acked   = judge.OK      // acknowledged: it must hold
	denied  = judge.Fail    // certainly not made: it must never be seen
)

// fateNames are the words for counts.
var fateNames = map[fate]string{unknown: "unknown", acked: "acked", denied: "refused"}

// shown is one value as a node shows it.
type shown = judge.Shown

// history is what clients did and saw, judged as it happens. Values are unique, so
// a value names its write. Mostly the clocks of the nodes agree, and then plain writes
// of a session are in order on all its connections.
type history struct {
	t    *testing.T
	seed uint64
	mu   struct {
		sync.Mutex
		c      *judge.Checker
		ops    []judge.Op // line n is ops[n-1]
		keys   map[string]bool
		blamed map[string]bool // keys of which was shown what happened
		counts map[string]int
	}
}

func newHistory(t *testing.T, seed uint64) *history {
	return newHistoryOf(t, seed, judge.Options{OneClock: true})
}

func newHistoryOf(t *testing.T, seed uint64, opts judge.Options) *history {
	h := &history{t: t, seed: seed}
	h.mu.c = judge.New(opts)
	h.mu.keys, h.mu.blamed, h.mu.counts = map[string]bool{}, map[string]bool{}, map[string]int{}
	t.Cleanup(h.finish)
	return h
}

// finish judges what could not be judged before everything had happened.
func (h *history) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blameLocked(h.mu.c.Finish().Findings)
}

func (h *history) errorf(format string, args ...any) {
	h.t.Errorf("seed %d: "+format, append([]any{h.seed}, args...)...)
}

// lastOps is how much of a key's history is shown with its first broken promise.
const lastOps = 60

// blameLocked reports broken promises with what proves them, and for each key once
// what happened to it at last.
func (h *history) blameLocked(found []judge.Finding) {
	for _, f := range found {
		var lines []string
		for _, l := range f.Lines {
			lines = append(lines, h.lineLocked(l))
		}
		h.errorf("%v\n%s", f, strings.Join(lines, "\n"))
		if h.mu.blamed[f.Key] {
			continue
		}
		h.mu.blamed[f.Key] = true
		lines = nil
		for i := range h.mu.ops {
			if h.mu.ops[i].Key == f.Key {
				lines = append(lines, h.lineLocked(i+1))
			}
		}
		h.t.Logf("seed %d: what happened to that key at last:\n%s", h.seed, strings.Join(lines[max(0, len(lines)-lastOps):], "\n"))
	}
}

func (h *history) lineLocked(l int) string {
	return fmt.Sprintf("%6d %s", l, strings.TrimSpace(string(judge.AppendLine(nil, &h.mu.ops[l-1]))))
}

func (h *history) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.counts[what]++
}

// keys are the keys that clients wrote.
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

// issued is a write or delete that is under way.
type issued struct {
	line int
	at   judge.Attempt
}

// issue notes a write or delete that is about to be sent.
func (h *history) issue(o judge.Op) issued {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.BeginUS = time.Now().UnixMicro()
	o.Result = unknown
	h.mu.ops = append(h.mu.ops, o)
	h.mu.keys[o.Key] = true
	at, err := h.mu.c.Begin(len(h.mu.ops), &o)
	if err != nil {
		h.errorf("the history is none: %v", err)
	}
	return issued{len(h.mu.ops), at}
}

// settle notes what the client was told, and the token that it was given.
func (h *history) settle(i issued, f fate, next string, told error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := &h.mu.ops[i.line-1]
	o.Result, o.Next, o.EndUS = f, next, time.Now().UnixMicro()
	if told != nil {
		o.Error = told.Error()
	}
	if err := h.mu.c.End(i.at, o); err != nil {
		h.errorf("the history is none: %v", err)
	}
	what := "write "
	if o.Value == "" {
		what = "delete "
	}
	if o.Token == nil {
		what = "plain " + what
	}
	h.mu.counts[what+fateNames[f]]++
}

// saw notes a read.
func (h *history) saw(o judge.Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.EndUS, o.Result = time.Now().UnixMicro(), acked
	h.mu.ops = append(h.mu.ops, o)
	if err := h.mu.c.Add(len(h.mu.ops), &o); err != nil {
		h.errorf("the history is none: %v", err)
	}
	h.blameLocked(h.mu.c.Take())
}

// binding says which acknowledgements bind a state.
type binding = judge.Binding

// all of them.
var all = binding{}

// soFar binds what is acknowledged by now.
func (h *history) soFar() binding {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.c.SoFar()
}

// judge checks a state of a key.
func (h *history) judge(key, where string, final []shown, b binding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now().UnixMicro()
	h.mu.c.Judge(0, &judge.Op{Kind: judge.Final, Key: key, Values: final, Node: where, BeginUS: now, EndUS: now}, b)
	h.blameLocked(h.mu.c.Take())
}

// dotText is the form of a dot in replies.
func dotText(d version.Dot) string { return fmt.Sprintf("%016x:%d", uint64(d.Actor), d.Counter) }

// tokenName is a token as a history names it: by the MAC of all of it, which stands
// at its end.
func tokenName(token string) string { return fmt.Sprintf("%x", token[max(0, len(token)-8):]) }
