package history

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// This file has a slow and obvious store, which spells out in sets what every
// copy has seen, and a slow and obvious judge, which spells out every past.

// names is a set of values.
type names map[string]bool

func (s names) and(o names) names {
	u := maps.Clone(s)
	if u == nil {
		u = names{}
	}
	maps.Copy(u, o)
	return u
}

// copied is one replica's copy of a key: the values that live there, and all that
// it has seen.
type copied struct{ live, seen names }

// join is what two copies make together: a value is gone if one has seen it and
// does not have it.
func join(a, b copied) copied {
	live := names{}
	for v := range a.live {
		if b.live[v] || !b.seen[v] {
			live[v] = true
		}
	}
	for v := range b.live {
		if a.live[v] || !a.seen[v] {
			live[v] = true
		}
	}
	return copied{live, a.seen.and(b.seen)}
}

const (
	modelOwners = 3
	modelQuorum = 2
)

// model is a store of one key and the clients at it, of which one thing happens
// after the other.
type model struct {
	rng    *rand.Rand
	copies [modelOwners]copied
	tokens map[string]names // what each has really seen
	held   map[string]string
	dots   map[string]string
	ops    []Op
	later  []func() // what is under way to some copies
	clock  int64
	values int
}

// owners draws so many owners.
func (m *model) owners(n int) []int { return m.rng.Perm(modelOwners)[:n] }

// keep has an owner take a copy.
func (m *model) keep(i int, c copied) { m.copies[i] = join(m.copies[i], c) }

// deliver lets something that is under way arrive.
func (m *model) deliver() {
	if len(m.later) == 0 {
		return
	}
	i := m.rng.IntN(len(m.later))
	m.later[i]()
	m.later = slices.Delete(m.later, i, i+1)
}

// send makes a change at one owner and stores what comes of it with so many in
// all; the others get it later, or never.
func (m *model) send(change func(copied) copied, owners int) {
	order := m.owners(modelOwners)
	made := change(m.copies[order[0]])
	for n, i := range order {
		if n < owners {
			m.keep(i, made)
		} else if m.rng.IntN(2) == 0 {
			m.later = append(m.later, func() { m.keep(i, made) })
		}
	}
}

// begin returns an operation of a session that begins now.
func (m *model) begin(kind, session string) Op {
	m.clock += 10
	return Op{Kind: kind, Session: session, Key: "k", Result: OK, BeginUS: m.clock, Node: "n"}
}

// end notes an operation.
func (m *model) end(o Op) {
	m.clock += 10
	o.EndUS = m.clock
	m.ops = append(m.ops, o)
}

// give returns the name of a new token.
func (m *model) give(session string, seen names) string {
	name := fmt.Sprint("t", len(m.tokens))
	m.tokens[name] = seen
	m.held[session] = name
	return name
}

func (m *model) read(session string) {
	o := m.begin(VGet, session)
	asked := modelQuorum
	if tok := m.held[session]; tok != "" && m.rng.IntN(3) == 0 {
		o.Min = tok
		asked = modelOwners
	}
	var c copied
	for _, i := range m.owners(asked) {
		c = join(c, m.copies[i])
	}
	for v := range m.tokens[o.Min] {
		if !c.seen[v] {
			return // a store answers STALE
		}
	}
	o.Values = m.shown(c)
	o.Next = m.give(session, c.seen)
	m.end(o)
}

func (m *model) shown(c copied) (list []Shown) {
	for _, v := range slices.Sorted(maps.Keys(c.live)) {
		list = append(list, Shown{v, m.dots[v]})
	}
	return list
}

func (m *model) write(session string, blind bool) {
	o := m.begin(VSet, session)
	m.values++
	o.Value = fmt.Sprint("v", m.values)
	m.dots[o.Value] = fmt.Sprint("A:", m.values)
	tok := m.held[session]
	if blind {
		tok = ""
	}
	o.Token = With(tok)
	past := m.tokens[tok]
	m.carry(&o, session, past.and(names{o.Value: true}), func(c copied) copied {
		c = join(c, copied{live: names{o.Value: true}, seen: past.and(names{o.Value: true})})
		return c
	})
}

func (m *model) remove(session string) {
	o := m.begin(VDel, session)
	tok := m.held[session]
	o.Token = With(tok)
	past := m.tokens[tok]
	m.carry(&o, session, past, func(c copied) copied { return join(c, copied{seen: past}) })
}

// carry makes a change with one of the outcomes.
func (m *model) carry(o *Op, session string, seen names, change func(copied) copied) {
	switch m.rng.IntN(8) {
	case 0:
		o.Result = Fail
	case 1, 2:
		o.Result = Unknown
		if n := m.rng.IntN(3); n < 2 {
			m.later = append(m.later, func() { m.send(change, 1+n) })
		}
	default:
		m.send(change, modelQuorum)
		o.Next = m.give(session, seen)
	}
	m.end(*o)
}

// randomHistory is what some clients did to a correct store.
func randomHistory(rng *rand.Rand) *model {
	m := &model{rng: rng, tokens: map[string]names{}, held: map[string]string{}, dots: map[string]string{}}
	for range 10 + rng.IntN(60) {
		session := fmt.Sprint("s", rng.IntN(4))
		switch rng.IntN(8) {
		case 0, 1, 2:
			m.read(session)
		case 3, 4:
			m.write(session, false)
		case 5:
			m.write(session, true)
		case 6:
			m.remove(session)
		case 7:
			m.deliver()
		}
	}
	for len(m.later) > 0 {
		m.deliver()
	}
	var all copied
	for _, c := range m.copies {
		all = join(all, c)
	}
	in := m.begin(Inspect, "")
	in.Owners = modelOwners
	for i := range modelOwners {
		in.Copies = append(in.Copies, Copy{Node: fmt.Sprint("n", i), Role: Owner, State: "same"})
	}
	m.end(in)
	f := m.begin(Final, "")
	f.Values = m.shown(all)
	m.end(f)
	// Some writes are told of only after somebody was shown their values: they
	// ended later.
	for i := len(m.ops) - 4; i >= 0; i-- {
		if o := m.ops[i]; o.Kind == VSet && o.Result == Unknown && m.ops[i+1].Kind == VGet && m.ops[i+1].Session != o.Session {
			if slices.ContainsFunc(m.ops[i+2:], func(p Op) bool { return p.Session == o.Session && p.BeginUS < m.ops[i+1].EndUS }) {
				continue // the session has gone on by then
			}
			o.EndUS = m.ops[i+1].EndUS
			m.ops[i], m.ops[i+1] = m.ops[i+1], o
		}
	}
	return m
}

// run judges ops; the first of them is line 2.
func run(ops []Op) (Report, error) {
	c := New(Options{})
	for i := range ops {
		if err := c.Add(i+2, &ops[i]); err != nil {
			return Report{}, fmt.Errorf("line %d: %w", i+2, err)
		}
	}
	return c.Finish(), nil
}

const modelSeeds = 500

func TestCorrectStoresAreClean(t *testing.T) {
	reads, siblings := 0, 0
	for seed := range uint64(modelSeeds) {
		m := randomHistory(rand.New(rand.NewPCG(seed, 1)))
		report, err := run(m.ops)
		if err != nil || report.Total() > 0 {
			t.Fatalf("seed %d: %v, %v\n%s", seed, err, report.Findings, text(m.ops))
		}
		reads += report.Figures.Reads
		siblings = max(siblings, report.Figures.MostSiblings)
	}
	if reads < 5*modelSeeds || siblings < 5 {
		t.Errorf("%d reads with at most %d siblings in %d histories: they are no test", reads, siblings, modelSeeds)
	}
}

func text(ops []Op) string {
	var out []byte
	for i := range ops {
		out = AppendLine(fmt.Appendf(out, "%d ", i+2), &ops[i])
	}
	return string(out)
}

// pasts spells out what every value, and every token, is known to have seen.
type pasts struct {
	values, tokens map[string]names
	written        map[string]Op
}

func pastsOf(ops []Op) *pasts {
	p := &pasts{values: map[string]names{}, tokens: map[string]names{}, written: map[string]Op{}}
	for _, o := range ops {
		if o.Kind == VSet {
			p.written[o.Value] = o
		}
	}
	// Again and again, until nothing is learnt: a value may be shown before its line.
	for range 3 {
		p.tokens = map[string]names{}
		for _, o := range ops {
			var past names
			if o.Token != nil {
				past = p.tokens[*o.Token]
			}
			switch {
			case o.Kind == VSet:
				p.values[o.Value] = past
				past = past.and(names{o.Value: true})
			case o.Kind == VGet:
				past = p.shown(o.Values)
			}
			if o.Next != "" && o.Result == OK {
				p.tokens[o.Next] = past.and(p.tokens[o.Next])
			}
		}
	}
	return p
}

// shown is all that values stand for.
func (p *pasts) shown(values []Shown) names {
	past := names{}
	for _, v := range values {
		past = past.and(p.values[v.Value])
		past[v.Value] = true
	}
	return past
}

// slowJudge names what is wrong with a history of one key, each kind by its rule.
func slowJudge(ops []Op) (wrong []string) {
	p := pastsOf(ops)
	final := ops[len(ops)-1]
	end := p.shown(final.Values)
	deleted := func(v string, by int64) bool {
		return slices.ContainsFunc(ops, func(d Op) bool {
			return d.Kind == VDel && d.Result != Fail && d.BeginUS <= by && p.tokens[*d.Token][v]
		})
	}
	for _, o := range ops {
		if o.Kind == VSet && o.Result == OK && !end[o.Value] && !deleted(o.Value, final.EndUS) {
			wrong = append(wrong, "lost "+o.Value)
		}
		for _, v := range o.Values {
			if w, written := p.written[v.Value]; !written || w.Result == Fail {
				wrong = append(wrong, "phantom "+v.Value)
			}
			for _, u := range o.Values {
				if p.values[u.Value][v.Value] {
					wrong = append(wrong, "sibling "+v.Value+" "+u.Value)
				}
			}
		}
		covered := p.shown(o.Values)
		for v := range p.tokens[o.Min] {
			if o.Min != "" && o.Result == OK && !covered[v] && !deleted(v, o.EndUS) {
				wrong = append(wrong, fmt.Sprintf("session %d %s", o.BeginUS, v))
			}
		}
		for _, f := range final.Values {
			if o.Token != nil && o.Result == OK && p.tokens[*o.Token][f.Value] {
				wrong = append(wrong, "resurrected "+f.Value)
			}
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong)
}

// TestTheCheckerAgreesWithASlowOne gives both what a store answers that has gone
// mad: reads show whatever was ever written, or was not.
func TestTheCheckerAgreesWithASlowOne(t *testing.T) {
	found := map[string]int{}
	for seed := range uint64(modelSeeds) {
		rng := rand.New(rand.NewPCG(seed, 2))
		ops := randomHistory(rng).ops
		goMad(rng, ops)
		report, err := run(ops)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text(ops))
		}
		// The slow one names every write that a read should have covered, the fast
		// one those at the top; so of sessions only the lines are compared.
		want := map[string]bool{}
		for _, w := range slowJudge(ops) {
			var kind, subject string
			fmt.Sscan(w, &kind, &subject)
			if found[kind]++; kind == "session" {
				w = kind + " " + subject
			}
			want[w] = true
		}
		got := map[string]bool{}
		for _, f := range report.Findings {
			got[subjectOf(f, ops)] = true
		}
		if !maps.Equal(got, want) {
			t.Fatalf("seed %d: found %v, want %v\n%s", seed, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)), text(ops))
		}
		for _, f := range report.Findings {
			checkExcerpt(t, seed, f, ops)
		}
	}
	for _, kind := range []Kind{Lost, Resurrected, Phantom, Sibling, Session} {
		if found[string(kind)] < modelSeeds/20 {
			t.Errorf("only %d of kind %s in %d histories: they are no test", found[string(kind)], kind, modelSeeds)
		}
	}
}

// goMad lets some reads of a history show other values. What a token was given for
// stays what it was, so that a value never is its own past.
func goMad(rng *rand.Rand, ops []Op) {
	var written []Shown
	for i := range ops {
		o := &ops[i]
		if o.Kind == VSet {
			written = append(written, Shown{Value: o.Value})
		}
		if o.Kind != VGet && o.Kind != Final || rng.IntN(4) > 0 {
			for v := range o.Values {
				o.Values[v].Dot = "" // that is judged elsewhere
			}
			continue
		}
		o.Values = nil
		for _, w := range written {
			if rng.IntN(len(written)+1) < 2 {
				o.Values = append(o.Values, w)
			}
		}
		if rng.IntN(20) == 0 {
			o.Values = append(o.Values, Shown{Value: fmt.Sprint("ghost", i)})
		}
	}
}

// subjectOf is how slowJudge names a finding.
func subjectOf(f Finding, ops []Op) string {
	var first, second string
	switch f.Kind {
	case Session:
		read := ops[f.Lines[len(f.Lines)-1]-2]
		return fmt.Sprintf("session %d", read.BeginUS)
	case Sibling:
		fmt.Sscanf(f.What, "%s is shown beside %s", &first, &second)
		return "sibling " + first + " " + second[:len(second)-1]
	case Phantom:
		if n, _ := fmt.Sscanf(f.What, "the write of %s", &first); n == 1 {
			return "phantom " + first
		}
	}
	fmt.Sscan(f.What, &first)
	for first[len(first)-1] == ',' {
		first = first[:len(first)-1]
	}
	return string(f.Kind) + " " + first
}

// checkExcerpt checks that a finding's operations prove it without any other, and
// that none of them can be spared.
func checkExcerpt(t *testing.T, seed uint64, f Finding, ops []Op) {
	t.Helper()
	proves := func(lines []int) (proven bool, phantoms names) {
		c := New(Options{})
		given := map[string]bool{}
		for _, l := range lines {
			o := ops[l-2]
			// What the excerpt does not tell of, nobody had seen.
			if o.Token != nil && !given[*o.Token] {
				o.Token = With("")
			}
			if !given[o.Min] {
				o.Min = ""
			}
			if o.Result == OK {
				given[o.Next] = true
			}
			if err := c.Add(l, &o); err != nil {
				return false, nil
			}
		}
		report := c.Finish()
		same := func(g Finding) bool { return g.Kind == f.Kind && g.What == f.What && slices.Equal(g.Lines, lines) }
		phantoms = names{}
		for _, g := range report.Findings {
			if g.Kind == Phantom {
				phantoms[g.What] = true
			}
		}
		return slices.ContainsFunc(report.Findings, same), phantoms
	}
	proven, phantoms := proves(f.Lines)
	if !proven {
		t.Fatalf("seed %d: lines %v do not prove that %v\n%s", seed, f.Lines, f, text(ops))
	}
	for i := range f.Lines {
		less := slices.Delete(slices.Clone(f.Lines), i, i+1)
		// Without the line of its write, a value would be out of nowhere besides.
		if proven, left := proves(less); proven && maps.Equal(phantoms.and(left), phantoms) {
			t.Fatalf("seed %d: lines %v prove as well that %v\n%s", seed, less, f, text(ops))
		}
	}
}

// TestAPlantedViolationIsFound breaks each promise once in histories of a correct
// store. A plant returns what must be found then, or false if the history has no
// place for it.
func TestAPlantedViolationIsFound(t *testing.T) {
	for kind, plant := range map[Kind]func(rng *rand.Rand, ops []Op) ([]Op, bool){
		Lost: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			i := rng.IntN(len(ops) - 1)
			at := ops[i].EndUS
			return slices.Insert(ops, i, Op{Kind: VSet, Session: "new", Key: "k", Value: "dropped", Token: With(""), Result: OK, BeginUS: at, EndUS: at}), true
		},
		Resurrected: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			final := &ops[len(ops)-1]
			p := pastsOf(ops)
			for _, i := range rng.Perm(len(ops)) {
				if o := ops[i]; o.Token != nil && o.Result == OK {
					for v := range p.tokens[*o.Token] {
						final.Values = append(final.Values, Shown{Value: v})
						return ops, true
					}
				}
			}
			return ops, false
		},
		Phantom: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			for _, i := range rng.Perm(len(ops)) {
				if ops[i].Kind == VGet {
					ops[i].Values = append(ops[i].Values, Shown{Value: "ghost"})
					return ops, true
				}
			}
			return ops, false
		},
		Sibling: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			p := pastsOf(ops)
			for _, i := range rng.Perm(len(ops)) {
				for _, v := range ops[i].Values {
					for old := range p.values[v.Value] {
						ops[i].Values = append(ops[i].Values, Shown{Value: old})
						return ops, true
					}
				}
			}
			return ops, false
		},
		Session: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			p := pastsOf(ops)
			for _, i := range rng.Perm(len(ops)) {
				o := &ops[i]
				if o.Min == "" {
					continue
				}
				for v := range p.tokens[o.Min] {
					gone := slices.ContainsFunc(ops, func(d Op) bool { return d.Kind == VDel && p.tokens[*d.Token][v] })
					if !gone {
						o.Values = nil
						return ops, true
					}
				}
			}
			return ops, false
		},
		Dot: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			seen := ""
			for i := range ops {
				for j := range ops[i].Values {
					v := &ops[i].Values[j]
					if seen != "" && v.Dot != seen {
						v.Dot = seen
						return ops, true
					}
					seen = v.Dot
				}
			}
			return ops, false
		},
		Diverged: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			ops[len(ops)-2].Copies[rng.IntN(modelOwners)].State = "other"
			return ops, true
		},
		Unreadable: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			ops[len(ops)-1].Result, ops[len(ops)-1].Values = Unknown, nil
			return ops, true
		},
		Expired: func(rng *rand.Rand, ops []Op) ([]Op, bool) {
			final := &ops[len(ops)-1]
			for i := range ops {
				for _, v := range final.Values {
					if ops[i].Value == v.Value && ops[i].Result == OK {
						ops[i].TTLMS = 1
						final.BeginUS, final.EndUS = final.BeginUS+10*clockSkewUS, final.EndUS+10*clockSkewUS
						return ops, true
					}
				}
			}
			return ops, false
		},
	} {
		t.Run(string(kind), func(t *testing.T) {
			planted := 0
			for seed := range uint64(modelSeeds) {
				rng := rand.New(rand.NewPCG(seed, 3))
				ops, fits := plant(rng, randomHistory(rng).ops)
				if !fits {
					continue
				}
				planted++
				report, err := run(ops)
				if err != nil || report.Counts[kind] == 0 {
					t.Fatalf("seed %d: %v, found %v\n%s", seed, err, report.Findings, text(ops))
				}
			}
			if planted < modelSeeds/10 {
				t.Errorf("planted in %d of %d histories alone", planted, modelSeeds)
			}
		})
	}
}

// TestSiblingsOfACalmHistoryOverlap lets writers read everything that was
// acknowledged, as they do where no fault happens, and then lets one of them miss
// one write.
func TestSiblingsOfACalmHistoryOverlap(t *testing.T) {
	missed := 0
	for seed := range uint64(modelSeeds) {
		rng := rand.New(rand.NewPCG(seed, 4))
		for _, miss := range []bool{false, true} {
			ops, fits := calmHistory(rng, miss)
			if !fits {
				continue
			}
			c := New(Options{Calm: true})
			for i := range ops {
				if err := c.Add(i+2, &ops[i]); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			report := c.Finish()
			if miss {
				missed++
			}
			if miss != (report.Counts[Bound] > 0) || !miss && report.Total() > 0 {
				t.Fatalf("seed %d, a write is missed: %v; found %v\n%s", seed, miss, report.Findings, text(ops))
			}
		}
	}
	if missed < modelSeeds/2 {
		t.Errorf("a write was missed in %d histories alone", missed)
	}
}

// calmHistory has writers that read and then write, at random moments. All of it
// happens at one copy.
func calmHistory(rng *rand.Rand, miss bool) (ops []Op, fits bool) {
	type act struct {
		at  int64
		run func()
	}
	var acts []act
	var c copied
	values := func() (list []Shown) {
		for _, v := range slices.Sorted(maps.Keys(c.live)) {
			list = append(list, Shown{Value: v})
		}
		return list
	}
	hidden, misser := "", ""
	for i := range 2 + rng.IntN(8) {
		begin := int64(rng.IntN(1000))
		mid := begin + 10 + int64(rng.IntN(300))
		end := mid + 10 + int64(rng.IntN(300))
		session, value := fmt.Sprint("s", i), fmt.Sprint("v", i)
		var past names
		acts = append(acts, act{begin + 5, func() {
			past = c.seen
			shown := values()
			if miss && hidden == "" && len(shown) > 0 {
				// The read misses a value that was acknowledged before it began.
				for _, o := range ops {
					if o.Kind == VSet && c.live[o.Value] && o.EndUS < begin {
						hidden, misser = o.Value, session
						past = maps.Clone(past)
						delete(past, hidden)
						shown = slices.DeleteFunc(shown, func(s Shown) bool { return s.Value == hidden })
						break
					}
				}
			}
			ops = append(ops, Op{Kind: VGet, Session: session, Key: "k", Next: session, Values: shown, Result: OK, BeginUS: begin, EndUS: begin + 5})
		}}, act{mid, func() {
			c = join(c, copied{live: names{value: true}, seen: past.and(names{value: true})})
			shown := values()
			at := mid
			ops = append(ops, Op{Kind: VGet, Session: session + "look", Key: "k", Values: shown, Result: OK, BeginUS: at, EndUS: at})
			if session == misser && c.live[hidden] {
				fits = true
			}
		}}, act{end, func() {
			ops = append(ops, Op{Kind: VSet, Session: session, Key: "k", Value: value, Token: With(session), Next: session + "'", Result: OK, BeginUS: begin + 5, EndUS: end})
		}})
	}
	slices.SortStableFunc(acts, func(a, b act) int { return cmp.Compare(a.at, b.at) })
	for _, a := range acts {
		a.run()
	}
	ops = append(ops, Op{Kind: Final, Key: "k", Values: values(), Result: OK, BeginUS: 5000, EndUS: 5001})
	return ops, !miss || hidden != "" && fits
}
