package version

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// events is a set of writes, each spelled out.
type events map[Dot]bool

// exact is the slow obvious model of a record: the live writes with their
// cells, and every write in their past by name. It has no intervals, so it
// cannot claim what it has not seen. Increments are known, and overwritten, one by
// one; it has no totals.
type exact struct {
	live map[Dot]Cell
	past events
	incs events // increments known
	over events // those of them that were overwritten
}

func (e exact) clone() exact {
	return exact{maps.Clone(e.live), maps.Clone(e.past), maps.Clone(e.incs), maps.Clone(e.over)}
}

func newExact() exact { return exact{map[Dot]Cell{}, events{}, events{}, events{}} }

func (e exact) merge(o exact) exact {
	out := newExact()
	for d, c := range e.live {
		if oc, both := o.live[d]; both {
			out.live[d] = c.Join(oc)
		} else if !o.past[d] {
			out.live[d] = c
		}
	}
	for d, c := range o.live {
		if !e.past[d] {
			out.live[d] = c
		}
	}
	for _, one := range []exact{e, o} {
		maps.Copy(out.past, one.past)
		maps.Copy(out.incs, one.incs)
		maps.Copy(out.over, one.over)
	}
	return out
}

// overwrite takes what seen names out of the count.
func (e exact) overwrite(seen events) exact {
	out := e.clone()
	maps.Copy(out.incs, seen)
	maps.Copy(out.over, seen)
	maps.Copy(out.past, seen)
	return out
}

// cover drops what seen names and remembers it.
func (e exact) cover(seen events) exact {
	out := e.clone()
	for d := range seen {
		delete(out.live, d)
		out.past[d] = true
	}
	return out
}

func (e exact) put(d Dot, c Cell, seen events) exact {
	out := e.cover(seen)
	out.live[d], out.past[d] = c, true
	return out
}

// held is one replica's record in both forms.
type held struct {
	rec   Record
	model exact
}

func nothing() held { return held{model: newExact()} }

// seen is what a client holds of a token, in both forms.
type seen struct {
	tok  Token
	past events
	incs events
}

type node struct {
	actor   Actor
	counter uint64
	skewMS  int64
	rows    []held   // one, or two in the two-row scheme
	last    []uint64 // by row: the counter last minted in it by this actor
	durable []held
}

// scheme selects rules to break and faults to inject.
type scheme struct {
	crash, wipe, drop bool // faults

	noAmnesia  bool // the bit is cleared wherever it is set
	vector     bool // contexts claim everything below their highest counter
	fixedActor bool // a node keeps its actor over a crash and skips counters ahead
	twoRows    bool // a node mints in two rows of the key
	noFloor    bool // with twoRows: a row does not hear of the other's counters
	wholeToken bool // put tokens cover unseen siblings
	counts     bool // clients count
	anyAddend  bool // with counts: a row goes on with whatever addend of its actor it finds
}

// history is one random run of one key on a few nodes.
type history struct {
	scheme
	rng     *rand.Rand
	nodes   []*node
	flight  []held
	tokens  []seen
	minted  map[Dot]HLC
	added   map[Dot]int64 // what increments added
	actors  Actor
	clockMS int64
	states  []Record // every state reached, for the laws
	wrong   string   // the first fault found
	dropped int      // steps at which a live write was missing
}

func newHistory(seed uint64, s scheme) *history {
	h := &history{scheme: s, rng: rand.New(rand.NewPCG(seed, 17)), minted: map[Dot]HLC{}, added: map[Dot]int64{}, clockMS: 1_000_000}
	rows := 1
	if s.twoRows {
		rows = 2
	}
	for range 4 {
		n := &node{actor: h.newActor(), skewMS: h.rng.Int64N(200) - 100, last: make([]uint64, rows)}
		for range rows {
			n.rows, n.durable = append(n.rows, nothing()), append(n.durable, nothing())
		}
		h.nodes = append(h.nodes, n)
	}
	return h
}

// newActor mixes the order of actors, as random ids would.
func (h *history) newActor() Actor {
	h.actors++
	return h.actors*0x9e3779b97f4a7c15 | 1
}

func (h *history) run(steps int) {
	for range steps {
		h.clockMS += h.rng.Int64N(20)
		n := h.nodes[h.rng.IntN(len(h.nodes))]
		row := h.rng.IntN(len(n.rows))
		switch k := h.rng.IntN(100); {
		case k < 16 && h.counts:
			h.count(n, row)
		case k < 28:
			h.mutate(n, row, OpSet)
		case k < 34:
			h.mutate(n, row, OpDelete)
		case k < 50:
			h.flight = append(h.flight, n.rows[row])
		case k < 72:
			h.deliver(n, row)
		case k < 78:
			h.tokens = append(h.tokens, seen{n.rows[row].rec.ReadToken(), n.rows[row].model.past, n.rows[row].model.incs})
		case k < 82:
			h.touch(n, row)
		case k < 86:
			n.durable[row] = n.rows[row]
		case k < 89 && h.crash:
			copy(n.rows, n.durable)
			h.restart(n)
		case k < 91 && h.wipe:
			for i := range n.rows {
				n.rows[i], n.durable[i] = nothing(), nothing()
			}
			h.restart(n)
		case k >= 91 && h.drop:
			h.handOff(n, row)
		}
	}
}

func (h *history) restart(n *node) {
	if h.fixedActor {
		n.counter += 1000
		return
	}
	n.actor, n.counter = h.newActor(), 0
	clear(n.last)
}

// handOff gives the row to another node and drops it here; the process and its
// actor go on.
func (h *history) handOff(n *node, row int) {
	to := h.nodes[h.rng.IntN(len(h.nodes))]
	if to == n {
		return
	}
	at := h.rng.IntN(len(to.rows)) // a row held for a node ends up in that node's own
	h.receive(to, at, n.rows[row])
	to.durable[at] = to.rows[at]
	n.rows[row], n.durable[row] = nothing(), nothing()
}

// deliver takes a message from the network, which reorders, repeats and loses.
func (h *history) deliver(n *node, row int) {
	if len(h.flight) == 0 {
		return
	}
	i := h.rng.IntN(len(h.flight))
	h.receive(n, row, h.flight[i])
	if h.rng.IntN(4) > 0 {
		h.flight = append(h.flight[:i:i], h.flight[i+1:]...)
	}
}

func (h *history) receive(n *node, row int, in held) {
	was := n.rows[row]
	h.settle(n, row, held{Merge(was.rec, h.recode(in.rec)), was.model.merge(in.model)})
}

// recode sends a record through the codec, as every message is.
func (h *history) recode(r Record) Record {
	out, err := DecodeRecord(EncodeWire(nil, r))
	if err != nil || !out.Equal(r) {
		h.fault("record does not survive the codec: %v, %v", r, err)
	}
	return out
}

// mutate runs a random OpSet or OpDelete through Apply and the model.
func (h *history) mutate(n *node, row int, kind OpKind) {
	was := n.rows[row]
	op := Op{Kind: kind, Explicit: h.rng.IntN(2) == 0, MinHLC: HLC(h.rng.Uint64N(2)) * HLCFromMS(h.clockMS)}
	past, incs := events{}, events{}
	if len(h.tokens) > 0 && h.rng.IntN(4) > 0 {
		s := h.tokens[h.rng.IntN(len(h.tokens))]
		op.Context, op.Addends, past, incs = s.tok.Context, s.tok.Addends, maps.Clone(s.past), maps.Clone(s.incs)
	}
	if !op.Explicit {
		maps.Copy(past, was.model.past)
		maps.Copy(incs, was.model.incs)
	}
	maps.Copy(past, incs)
	n.counter += 1 + h.rng.Uint64N(3) // other keys of the partition mint too
	dot := Dot{n.actor, n.counter}
	op.Value = fmt.Appendf(nil, "%x:%d", dot.Actor, dot.Counter)
	if h.counts {
		op.Value = fmt.Appendf(nil, "%d", uint64(dot.Actor)%1000*1000+dot.Counter)
	}
	mint := Mint{NowMS: h.clockMS, HLC: HLCFromMS(h.clockMS + n.skewMS), Dot: dot, Floor: h.floor(n, row)}
	next, out, err := Apply(was.rec, op, mint)
	if err != nil {
		h.fault("apply: %v", err)
		return
	}
	if out.Applied == next.Equal(was.rec) {
		h.fault("applied %v, but %v became %v", out.Applied, was.rec, next)
	}
	if out.Dot == dot {
		n.last[row] = dot.Counter
	}
	now := held{rec: next}
	switch {
	case kind == OpSet:
		now.model = was.model.put(dot, Cell{}, past).overwrite(incs)
		h.minted[dot] = out.HLC
		h.checkHLC(was, past, out.HLC)
	case !op.Explicit && !out.Applied && len(next.Live(h.clockMS)) == 0:
		now.model = was.model // a plain delete leaves what has expired to expiry
	default:
		now.model = was.model.cover(past).overwrite(incs)
	}
	h.settle(n, row, now)
	h.keepToken(now, out, dot, past, incs, op.Explicit)
}

// count runs a random OpCount through Apply and the model.
func (h *history) count(n *node, row int) {
	was := n.rows[row]
	d := h.rng.Int64N(2000) - 1000
	op := Op{Kind: OpCount, Value: strconv.AppendInt(nil, d, 10)}
	if len(h.tokens) > 0 && h.rng.IntN(4) > 0 {
		s := h.tokens[h.rng.IntN(len(h.tokens))]
		op.Context, op.Addends = s.tok.Context, s.tok.Addends
	}
	n.counter += 1 + h.rng.Uint64N(3)
	dot := Dot{n.actor, n.counter}
	if h.anyAddend {
		for _, a := range was.rec.Counter.Addends {
			if a.Actor == n.actor {
				was.rec.Counter.Own = a.Start
			}
		}
	}
	mint := Mint{NowMS: h.clockMS, HLC: HLCFromMS(h.clockMS + n.skewMS), Dot: dot, Floor: h.floor(n, row)}
	next, out, err := Apply(was.rec, op, mint)
	if err != nil {
		h.fault("apply: %v", err)
		return
	}
	n.last[row] = dot.Counter
	h.minted[dot], h.added[dot] = out.HLC, d
	now := held{next, was.model.clone()}
	if !out.HadOld {
		now.model = now.model.cover(was.model.past).overwrite(was.model.incs)
	}
	now.model.past[dot], now.model.incs[dot] = true, true
	h.settle(n, row, now)
	h.tokens = append(h.tokens, seen{out.Token, now.model.past, now.model.incs})
	if want := h.total(now.model); !out.HadOld && string(out.Now) != strconv.FormatInt(want, 10) {
		h.fault("counted to %s, want %d", out.Now, want)
	}
}

// total is what is counted, one by one.
func (h *history) total(e exact) int64 {
	n := int64(0)
	for d := range e.incs {
		if !e.over[d] {
			n += h.added[d]
		}
	}
	return n
}

// floor returns how far the node has minted in its other rows.
func (h *history) floor(n *node, row int) uint64 {
	top := uint64(0)
	for i, last := range n.last {
		if i != row && !h.noFloor {
			top = max(top, last)
		}
	}
	return top
}

// checkHLC demands that a write is above every version that it replaces.
func (h *history) checkHLC(was held, past events, hlc HLC) {
	for d := range was.model.live {
		if past[d] && h.minted[d] >= hlc {
			h.fault("a write at %d covers %v at %d", hlc, d, h.minted[d])
		}
	}
}

// keepToken stores the reply token with what the client then really knows: all
// that the record does or, beside versions unseen, its own past and write.
func (h *history) keepToken(now held, out Outcome, dot Dot, past, incs events, explicit bool) {
	knows := maps.Clone(now.model.past)
	for d := range now.model.live {
		if d != dot && !past[d] {
			knows = maps.Clone(past)
			if now.model.past[dot] {
				knows[dot] = true
			}
			break
		}
	}
	tok := out.Token
	if h.wholeToken {
		tok.Context = now.rec.Context
	}
	if !explicit {
		incs = now.model.incs
	}
	h.tokens = append(h.tokens, seen{tok, knows, incs})
}

// touch sets the expiry of some version, or turns it into a stub.
func (h *history) touch(n *node, row int) {
	was := n.rows[row]
	if len(was.rec.Versions) == 0 {
		return
	}
	v := was.rec.Versions[h.rng.IntN(len(was.rec.Versions))]
	if h.rng.IntN(4) == 0 {
		h.settle(n, row, held{was.rec.DropPayload(v.Dot), was.model})
		return
	}
	c := Cell{HLC: HLC(h.rng.Uint64N(5) + 1), AtMS: h.clockMS + 1_000_000*h.rng.Int64N(3)}
	now := held{was.rec.SetExpiry(v.Dot, c), was.model.clone()}
	now.model.live[v.Dot] = now.model.live[v.Dot].Join(c)
	h.settle(n, row, now)
}

// settle installs a new state, under the broken rules of the scheme, and
// compares the two forms.
func (h *history) settle(n *node, row int, now held) {
	if h.noAmnesia {
		now.rec.Amnesia = false
	}
	if h.vector {
		now.rec.Context = asVector(now.rec.Context)
	}
	n.rows[row] = now
	h.states = append(h.states, now.rec)
	for d, c := range now.model.live {
		i := now.rec.find(d)
		if i < 0 {
			h.dropped++
			h.fault("write %v was dropped by %v", d, now.rec)
			return
		}
		if now.rec.Versions[i].Expiry != c {
			h.fault("cell of %v is %v, want %v", d, now.rec.Versions[i].Expiry, c)
		}
	}
	if len(now.rec.Versions) != len(now.model.live) {
		h.fault("%v holds writes beyond %v", now.rec, now.model.live)
	}
	if got, want := now.rec.Counter.sum(), wholeAmount(h.total(now.model)); got != want {
		h.dropped++
		h.fault("%v counts to %v, want %v of %v without %v", now.rec, got, want, now.model.incs, now.model.over)
	}
	if v, ok := now.rec.Winner(h.clockMS); ok && h.counts {
		raw, standing := now.rec.winner(h.clockMS)
		n := wholeAmount(h.total(now.model))
		if base, number := amountOf(raw.Value); standing && number {
			n = n.plus(base)
		}
		if got := string(v.Value); got != string(n.append(nil)) {
			h.fault("%v shows %s, want %s", now.rec, got, n.append(nil))
		}
	}
	for d := range h.minted {
		if now.rec.Context.Contains(d) != now.model.past[d] {
			h.fault("context %v and the past disagree on %v", now.rec.Context, d)
		}
	}
}

func asVector(c Context) Context {
	var out Context
	for _, s := range c {
		out = out.Union(Context{{s.Actor, 1, s.Hi}})
	}
	return out
}

func (h *history) fault(format string, args ...any) {
	if h.wrong == "" {
		h.wrong = fmt.Sprintf(format, args...)
	}
}

const (
	histories   = 1500
	historySeed = 20_000
	stepsPerRun = 90
)

var faultSchemes = []struct {
	name string
	scheme
}{
	{"no fault", scheme{}},
	{"crash", scheme{crash: true}},
	{"wipe", scheme{wipe: true}},
	{"handoff then drop", scheme{drop: true}},
	{"all", scheme{crash: true, wipe: true, drop: true}},
	{"two rows", scheme{twoRows: true}},
	{"all, two rows", scheme{crash: true, wipe: true, drop: true, twoRows: true}},
	{"counting", scheme{counts: true}},
	{"counting, all", scheme{counts: true, crash: true, wipe: true, drop: true}},
	{"counting, all, two rows", scheme{counts: true, crash: true, wipe: true, drop: true, twoRows: true}},
}

// The record must do what full causal histories would do, dot by dot, under
// every fault; in particular it never drops a write that nobody replaced.
func TestRecordAgreesWithFullHistories(t *testing.T) {
	t.Parallel()
	for _, f := range faultSchemes {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			siblings := 0
			for seed := uint64(historySeed); seed < historySeed+histories; seed++ {
				h := newHistory(seed, f.scheme)
				h.run(stepsPerRun)
				if h.wrong != "" {
					t.Fatalf("seed %d: %s", seed, h.wrong)
				}
				for _, r := range h.states {
					siblings = max(siblings, len(r.Versions))
				}
			}
			if siblings < 3 {
				t.Errorf("at most %d siblings in %d histories: the runs test nothing", siblings, histories)
			}
		})
	}
}

// Each rule is there because its absence loses writes; if one of these runs
// clean, the histories above have stopped testing that rule.
func TestEveryRuleIsNeeded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		scheme
	}{
		{"no amnesia bit, handoff then drop", scheme{drop: true, noAmnesia: true}},
		{"no amnesia bit, all faults", scheme{crash: true, wipe: true, drop: true, noAmnesia: true}},
		{"version vector, handoff then drop", scheme{drop: true, vector: true}},
		{"version vector with a fixed id and a lease, crash", scheme{crash: true, vector: true, fixedActor: true}},
		{"fixed id and a lease, crash", scheme{crash: true, fixedActor: true}},
		{"two rows without a floor", scheme{twoRows: true, noFloor: true}},
		{"put token covers unseen siblings", scheme{wholeToken: true}},
		{"any addend goes on, handoff then drop", scheme{counts: true, drop: true, anyAddend: true}},
		{"any addend goes on, two rows", scheme{counts: true, twoRows: true, anyAddend: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bad := 0
			for seed := uint64(historySeed); seed < historySeed+histories; seed++ {
				h := newHistory(seed, c.scheme)
				h.run(stepsPerRun)
				if h.dropped > 0 {
					bad++
				}
			}
			t.Logf("%d of %d histories dropped a write", bad, histories)
			if bad == 0 {
				t.Errorf("no write was dropped in %d histories from seed %d", histories, historySeed)
			}
		})
	}
}

// The laws hold on states that histories with every fault reach.
func TestMergeIsAJoin(t *testing.T) {
	t.Parallel()
	triples := 0
	for seed := uint64(1); seed <= 500; seed++ {
		h := newHistory(seed, scheme{crash: true, wipe: true, drop: true, counts: seed%2 == 0})
		h.run(stepsPerRun)
		pick := func() Record { return h.states[h.rng.IntN(len(h.states))] }
		for range 40 {
			x, y, z := pick(), pick(), pick()
			triples++
			if got, want := Merge(x, y), Merge(y, x); !got.Equal(want) {
				t.Fatalf("seed %d: not commutative:\n%v\n%v", seed, got, want)
			}
			if got, want := Merge(Merge(x, y), z), Merge(x, Merge(y, z)); !got.Equal(want) {
				t.Fatalf("seed %d: not associative:\n%v\n%v", seed, got, want)
			}
			xy := Merge(x, y)
			if again := Merge(xy, y); !again.Equal(xy) || !Merge(x, x).Equal(x) {
				t.Fatalf("seed %d: not idempotent:\n%v\n%v", seed, again, xy)
			}
			checkHashes(t, seed, xy, Merge(y, x), z)
			checkOrder(t, seed, x, xy)
		}
	}
	t.Logf("%d triples", triples)
}

// checkHashes demands that equal states hash equally and that live dots, cells
// and tombstones tell states apart.
func checkHashes(t *testing.T, seed uint64, a, b, other Record) {
	t.Helper()
	if a.StateHash() != b.StateHash() {
		t.Fatalf("seed %d: equal states, hashes %x and %x", seed, a.StateHash(), b.StateHash())
	}
	if got, want := a.StateHash() == other.StateHash(), leafEqual(a, other); got != want {
		t.Fatalf("seed %d: hashes equal: %v, leaves equal: %v\n%v\n%v", seed, got, want, a, other)
	}
}

// leafEqual says by hand what StateHash is to tell apart.
func leafEqual(a, b Record) bool {
	same := func(x, y Addend) bool {
		return x.Actor == y.Actor && x.Start == y.Start && x.Top == y.Top && x.Seen == y.Seen
	}
	if len(a.Versions) != len(b.Versions) || !slices.EqualFunc(a.Counter.Addends, b.Counter.Addends, same) {
		return false
	}
	if len(a.Versions) == 0 && !a.Counter.Counts() {
		return a.Context.Equal(b.Context)
	}
	for i := range a.Versions {
		if a.Versions[i].Dot != b.Versions[i].Dot || a.Versions[i].Expiry != b.Versions[i].Expiry {
			return false
		}
	}
	return true
}

// checkOrder demands that a join is above what was joined and changes no local
// flag of a present record.
func checkOrder(t *testing.T, seed uint64, part, whole Record) {
	t.Helper()
	if !whole.Context.Covers(part.Context) {
		t.Fatalf("seed %d: %v lost part of %v", seed, whole.Context, part.Context)
	}
	if !part.Absent() && whole.Amnesia != part.Amnesia {
		t.Fatalf("seed %d: merging changed amnesia of a present record", seed)
	}
}
