package history

import (
	"fmt"
	"slices"
)

// Options say how to judge. The zero value judges every key, and lets every
// acknowledgement bind.
type Options struct {
	Calm     bool    // no fault happened; see the bound in the package comment
	OneClock bool    // the nodes' clocks agree: a session's plain writes are in order on all its connections
	Binding  Binding // of final lines

	Shards, Shard int // keep to the keys of one of so many shards; 0 shards: all keys
	MaxFindings   int // kept of a kind; 0: the constant of that name
}

// Binding says which acknowledgements bind. One that speaks of fewer nodes than
// a fault may take away binds nobody, nor one of a time that may be lost.
type Binding struct {
	Acks  int   // the first so many; 0: all; negative: none
	W     int   // those of at least so many nodes, where the operation says of how many
	UpTo  int64 // those that ended by then, in microseconds; 0: all
	Nodes int   // what W is of operations that do not say it
}

// clockSkewUS is how far the clocks of the nodes and of the recorder may be apart,
// where an expiry is judged.
const clockSkewUS = 1_000_000

// rememberedKeys is how many keys a connection remembers what it saw of (design
// §3.4).
const rememberedKeys = 128

// forever is the end of what may be made at any time.
const forever = int64(1) << 62

// Checker judges a history as it is told. It is no more than arithmetic; one
// goroutine at a time may use it.
type Checker struct {
	opts     Options
	keys     map[string]*key
	judged   map[string]bool // keys that are forgotten
	sessions map[string]*session
	acks     int
	report   Report
}

// New returns a checker that has been told nothing.
func New(opts Options) *Checker {
	if opts.MaxFindings == 0 {
		opts.MaxFindings = MaxFindings
	}
	return &Checker{opts: opts, keys: map[string]*key{}, judged: map[string]bool{}, sessions: map[string]*session{},
		report: Report{Counts: map[Kind]int{}}}
}

// outcome is a result in little space.
type outcome uint8

const (
	open outcome = iota // unknown, or not told yet
	acked
	failed
)

func outcomeOf(r Result) outcome {
	switch r {
	case OK:
		return acked
	case Fail:
		return failed
	}
	return open
}

// attempt is what writes and deletes have in common.
type attempt struct {
	from    *token // what it had seen
	begin   int64
	end     int64 // forever if it may yet be made
	line    int32 // 0: the value was shown, but nobody is known to have written it
	acks    int32 // number among all acknowledgements
	w       int32
	outcome outcome
	plain   bool
}

func (b Binding) holds(a *attempt) bool {
	w := int(a.w)
	if w == 0 {
		w = b.Nodes
	}
	return a.outcome == acked && (b.Acks == 0 || int(a.acks) <= b.Acks) && (w == 0 || w >= b.W) && (b.UpTo == 0 || a.end <= b.UpTo)
}

// write is one write.
type write struct {
	attempt
	value      string
	dot        string
	ttl        int64 // microseconds, 0: none
	shown      int32 // the first line that shows it, 0: none
	dotShown   int32 // the first line that shows its dot
	superseded int32 // plain: 1 + the number of a later write that wins over it
	replaced   int32 // plain: the line of a later write or delete that took it away
}

// reading is a read of which not all can be told yet.
type reading struct {
	ids        []int32
	min        *token
	begin, end int64
	line       int32
}

// key is what is known of one key.
type key struct {
	name      string
	writes    []write
	deletes   []attempt
	byValue   map[string]int32 // nil while there are few
	byDot     map[string]int32 // the same
	tokens    map[string]*token
	last      map[string]plainOp // by session
	doubtful  []reading
	told      map[string]bool // findings
	plain     bool            // has plain writes
	read      bool            // has a final line
	inspected bool
	lastBegin int64 // of all writes and deletes that may have been made

	barren    map[int32]bits // see concurrent
	memoWords int
	stack     []int32
}

func (c *Checker) key(name string) *key {
	k := c.keys[name]
	if k == nil {
		k = &key{name: name}
		c.keys[name] = k
	}
	return k
}

// mine reports whether a key is of this checker's shard.
func (c *Checker) mine(name string) bool {
	if c.opts.Shards < 2 {
		return true
	}
	return int(shardOf(name)%uint32(c.opts.Shards)) == c.opts.Shard
}

// shardOf is FNV-1a: every pass must spread keys alike.
func shardOf(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}

// found notes a broken promise, once for each subject.
func (c *Checker) found(k *key, kind Kind, subject, what string, lines ...int32) {
	id := string(kind) + " " + subject
	if k.told[id] {
		return
	}
	if k.told == nil {
		k.told = map[string]bool{}
	}
	k.told[id] = true
	c.report.Counts[kind]++
	if c.report.Counts[kind] > c.opts.MaxFindings {
		return
	}
	f := Finding{Kind: kind, Key: k.name, What: what}
	for _, l := range lines {
		if l != 0 { // a write that nobody is known to have made has no line
			f.Lines = append(f.Lines, int(l))
		}
	}
	slices.Sort(f.Lines)
	f.Lines = slices.Compact(f.Lines)
	c.report.Findings = append(c.report.Findings, f)
}

// Add tells the checker of the operation in a line. An error says that the line
// does not fit to those before.
func (c *Checker) Add(line int, o *Op) error {
	switch o.Kind {
	case Fault:
		if c.opts.Calm {
			return fmt.Errorf("a fault in a history whose first line says that it is calm")
		}
		return nil
	case Final, Inspect:
		if !c.mine(o.Key) {
			return nil
		}
		if o.Kind == Inspect {
			return c.inspect(line, o)
		}
		return c.final(line, o)
	case VSet, Set, VDel, Del:
		a, err := c.Begin(line, o)
		if err != nil {
			return err
		}
		return c.End(a, o)
	}
	s, err := c.session(o)
	if err != nil {
		return err
	}
	defer s.done(o)
	if !c.mine(o.Key) {
		return nil
	}
	if c.judged[o.Key] {
		return fmt.Errorf("an operation on key %q, whose final line has been", o.Key)
	}
	return c.readLine(line, o)
}

// Attempt is a write or delete that is under way.
type Attempt struct {
	k    *key
	id   int32 // of writes, or of deletes
	line int32
}

// Begin tells of a write or delete that is about to be sent, for histories that
// are judged as they happen: whatever is shown from now on may be its value.
// Nothing of its outcome counts yet.
func (c *Checker) Begin(line int, o *Op) (Attempt, error) {
	if !c.mine(o.Key) {
		return Attempt{}, nil
	}
	if c.judged[o.Key] {
		return Attempt{}, fmt.Errorf("an operation on key %q, whose final line has been", o.Key)
	}
	k := c.key(o.Key)
	a := attempt{begin: o.BeginUS, end: forever, line: int32(line), w: int32(o.W), plain: o.plain()}
	if o.Token != nil && *o.Token != "" && *o.Token != Plain {
		t, given := k.tokens[*o.Token]
		if !given {
			return Attempt{}, fmt.Errorf("token %q of key %q was given out by no earlier line", *o.Token, o.Key)
		}
		a.from = t
	}
	if o.Kind == VDel || o.Kind == Del {
		k.deletes = append(k.deletes, a)
		return Attempt{k, int32(len(k.deletes) - 1), a.line}, nil
	}
	id := k.mention(o.Value)
	w := &k.writes[id]
	if w.line != 0 {
		return Attempt{}, fmt.Errorf("value %q of key %q was written by line %d: values must be unique", o.Value, o.Key, w.line)
	}
	for _, seen := range a.from.seen() {
		if seen >= id {
			return Attempt{}, fmt.Errorf("value %q of key %q was shown by line %d, before the token that it was written with was given out: lines must be in the order in which operations ended",
				o.Value, o.Key, w.shown)
		}
	}
	w.attempt, w.ttl = a, o.TTLMS*1000
	return Attempt{k, id, a.line}, nil
}

// End tells of the outcome of what was begun.
func (c *Checker) End(at Attempt, o *Op) error {
	s, err := c.session(o)
	if err != nil {
		return err
	}
	defer s.done(o)
	k := at.k
	if k == nil {
		return nil // of another shard
	}
	del := o.Kind == VDel || o.Kind == Del
	a := &attempt{}
	if del {
		a = &k.deletes[at.id]
	} else {
		a = &k.writes[at.id].attempt
	}
	a.outcome = outcomeOf(o.Result)
	switch a.outcome {
	case acked:
		c.acks++
		a.acks, a.end = int32(c.acks), o.EndUS
		c.report.Figures.Acked++
	case failed:
		a.end = o.EndUS
		c.report.Figures.Failed++
	default:
		c.report.Figures.Unknown++
	}
	if a.outcome != failed {
		k.lastBegin = max(k.lastBegin, a.begin)
		k.plain = k.plain || a.plain
	}
	if a.plain && a.outcome == acked {
		k.order(s, at.id, del, at.line, c.opts.OneClock)
	}
	if o.Next == "" || a.outcome != acked {
		return nil
	}
	given := &token{line: at.line}
	switch {
	case !del:
		given.ids, given.start = []int32{at.id}, c.windowStart(a)
	case a.from != nil:
		given.ids, given.start, given.through = a.from.ids, a.from.start, a.from
	}
	k.give(o.Next, given)
	return nil
}

// Acknowledged is how many acknowledgements there were.
func (c *Checker) Acknowledged() int { return c.acks }

// SoFar binds what has been acknowledged by now, for a state that is about to be
// looked at.
func (c *Checker) SoFar() Binding {
	if c.acks == 0 {
		return Binding{Acks: -1}
	}
	return Binding{Acks: c.acks}
}

// fewWrites is how many writes of a key are looked through one by one. Many keys
// have no more, and maps of one entry would be most of what they take.
const fewWrites = 8

// mention returns the number of a value's write, which may yet be told of.
func (k *key) mention(value string) int32 {
	if k.byValue == nil {
		for i := range k.writes {
			if k.writes[i].value == value {
				return int32(i)
			}
		}
	} else if id, known := k.byValue[value]; known {
		return id
	}
	id := int32(len(k.writes))
	k.writes = append(k.writes, write{value: value, attempt: attempt{end: forever}})
	if k.byValue != nil {
		k.byValue[value] = id
	} else if len(k.writes) > fewWrites {
		k.byValue, k.byDot = map[string]int32{}, map[string]int32{}
		for i := range k.writes {
			k.byValue[k.writes[i].value] = int32(i)
			if dot := k.writes[i].dot; dot != "" {
				k.byDot[dot] = int32(i)
			}
		}
	}
	return id
}

// dotted returns the write that a dot was first seen to stand for.
func (k *key) dotted(dot string) (id int32, known bool) {
	if k.byDot == nil {
		for i := range k.writes {
			if k.writes[i].dot == dot {
				return int32(i), true
			}
		}
		return 0, false
	}
	id, known = k.byDot[dot]
	return id, known
}

// give notes that a token was given out.
func (k *key) give(name string, t *token) {
	if k.tokens == nil {
		k.tokens = map[string]*token{}
	}
	k.tokens[name] = k.tokens[name].union(t)
}

// session is a client.
type session struct {
	name    string
	node    string
	conn    int // number of its connection
	ops     int
	lastEnd int64
}

// plainOp is the last plain write or delete of a session that was acknowledged.
type plainOp struct {
	id        int32 // of the write, -1: a delete
	conn, ops int
}

// session returns who did o, which has just ended.
func (c *Checker) session(o *Op) (*session, error) {
	s := c.sessions[o.Session]
	if s == nil {
		s = &session{name: o.Session, node: o.Node}
		c.sessions[o.Session] = s
	}
	if o.BeginUS < s.lastEnd {
		return nil, fmt.Errorf("session %q begins an operation at %d, before its last one ended at %d", o.Session, o.BeginUS, s.lastEnd)
	}
	if s.node != o.Node {
		s.node = o.Node
		s.conn++
	}
	s.lastEnd = o.EndUS
	s.ops++
	return s, nil
}

// done ends an operation: a session that is not told ok goes on with a new
// connection, as far as anybody can rely on.
func (s *session) done(o *Op) {
	if o.Result != OK {
		s.conn++
	}
}
