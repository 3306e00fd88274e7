package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// readLine takes a read of a client.
func (c *Checker) readLine(line int, o *Op) error {
	k := c.key(o.Key)
	r := reading{line: int32(line), begin: o.BeginUS, end: o.EndUS}
	if o.Min != "" {
		var given bool
		if r.min, given = k.tokens[o.Min]; !given {
			return fmt.Errorf("token %q of key %q was given out by no earlier line", o.Min, o.Key)
		}
	}
	if o.Result != OK {
		return nil
	}
	c.report.Figures.Reads++
	c.show(k, &r, o)
	if o.Next != "" {
		given := &token{ids: r.ids, line: r.line}
		if o.R == 0 {
			given.start = o.BeginUS
		}
		k.give(o.Next, given)
	}
	// Whatever holds now holds for ever: later lines make pasts and what is deleted
	// larger. What does not, or what a later line has yet to tell of, is judged at
	// the end.
	if c.judgeSiblings(k, &r) || len(k.uncovered(&r, nil)) > 0 {
		k.doubtful = append(k.doubtful, r)
	}
	return nil
}

// show notes what a read shows, and judges what that alone can tell.
func (c *Checker) show(k *key, r *reading, o *Op) {
	c.report.Figures.MostSiblings = max(c.report.Figures.MostSiblings, len(o.Values))
	for _, v := range o.Values {
		id := k.mention(v.Value)
		r.ids = append(r.ids, id)
		w := &k.writes[id]
		if w.shown == 0 {
			w.shown = r.line
		}
		if v.Dot != "" {
			c.judgeDot(k, id, v.Dot, r.line, o)
		}
		if w.ttl > 0 && w.outcome == acked && r.begin > w.end+w.ttl+clockSkewUS {
			c.found(k, Expired, v.Value, fmt.Sprintf("%s is shown%s %d ms after it was written to live for %d ms",
				v.Value, at(o), (r.begin-w.end)/1000, w.ttl/1000), w.line, r.line)
		}
	}
}

// at says where a read was, if that is known.
func at(o *Op) string {
	if o.Node == "" {
		return ""
	}
	return " (" + o.Node + ")"
}

func (c *Checker) judgeDot(k *key, id int32, dot string, line int32, o *Op) {
	w := &k.writes[id]
	other, taken := k.dotted(dot)
	if taken && other != id {
		was := &k.writes[other]
		c.found(k, Dot, dot, fmt.Sprintf("dot %s is of %s%s and was of %s", dot, w.value, at(o), was.value), was.dotShown, line)
		return
	}
	switch w.dot {
	case "":
		w.dot, w.dotShown = dot, line
		if k.byDot != nil {
			k.byDot[dot] = id
		}
	case dot:
	default:
		c.found(k, Dot, w.value, fmt.Sprintf("%s has dot %s%s and had %s: it was made twice", w.value, dot, at(o), w.dot), w.dotShown, line)
	}
}

// judgeSiblings looks for values in one read that are not concurrent, and reports
// whether a value's write has yet to be told of.
func (c *Checker) judgeSiblings(k *key, r *reading) (doubtful bool) {
	for _, b := range r.ids {
		doubtful = doubtful || k.writes[b].line == 0
		for _, a := range r.ids {
			if a < b && !k.concurrent(a, b) {
				w := &k.writes[b]
				c.found(k, Sibling, k.writes[a].value+" "+w.value, fmt.Sprintf("%s is shown beside %s, which had seen it", k.writes[a].value, w.value),
					append(k.proof(w.from, a), w.line, r.line)...)
			}
		}
	}
	if c.opts.Calm && !doubtful {
		c.judgeBound(k, r)
	}
	return doubtful
}

// windowStart is when what a write had seen began to be read: whatever was
// acknowledged before that, it has replaced. Nothing can be told of plain writes
// and of those that asked for other quorums.
func (c *Checker) windowStart(a *attempt) int64 {
	if a.plain || a.from == nil {
		return 0
	}
	return a.from.start
}

// judgeBound finds two siblings of which one was acknowledged before the other's
// reading began. In a calm history there are at most as many siblings as writers
// at work at one moment, and by Helly's theorem it is enough to look at pairs.
func (c *Checker) judgeBound(k *key, r *reading) {
	for _, a := range r.ids {
		for _, b := range r.ids {
			early, late := &k.writes[a], &k.writes[b]
			if early.outcome != acked || early.w != 0 || early.ttl > 0 || early.end >= c.windowStart(&late.attempt) {
				continue
			}
			c.found(k, Bound, early.value+" "+late.value, fmt.Sprintf("%s is shown beside %s, whose writer began to read after it was acknowledged", early.value, late.value),
				append(late.from.linesOf(-1), early.line, late.line, r.line)...)
		}
	}
}

// uncovered are the writes that min has seen and r does not cover, if there was
// nothing that took them away. gone may be nil.
func (k *key) uncovered(r *reading, gone []int64) (missing []int) {
	if k.plain {
		return nil // a plain write may have replaced anything
	}
	for i, id := range r.min.seen() {
		if (gone == nil || gone[id] > r.end) && !k.covers(r.ids, id) {
			missing = append(missing, i)
		}
	}
	return missing
}

// gone returns for each write when it may have begun to be taken away by a delete
// or an expiry, with all that was in the past of that.
func (k *key) gone() []int64 {
	type removal struct {
		at  int64
		ids []int32
	}
	var removals []removal
	for i := range k.deletes {
		if d := &k.deletes[i]; d.outcome != failed {
			removals = append(removals, removal{d.begin, d.from.seen()})
		}
	}
	for i := range k.writes {
		if w := &k.writes[i]; w.ttl > 0 && w.outcome != failed {
			removals = append(removals, removal{w.begin + w.ttl - clockSkewUS, []int32{int32(i)}})
		}
	}
	slices.SortFunc(removals, func(a, b removal) int { return cmp.Compare(a.at, b.at) })
	gone := make([]int64, len(k.writes))
	for i := range gone {
		gone[i] = forever
	}
	for _, r := range removals {
		stack := slices.Clone(r.ids)
		for len(stack) > 0 {
			id := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if gone[id] == forever {
				gone[id] = r.at
				stack = append(stack, k.writes[id].from.seen()...)
			}
		}
	}
	return gone
}

// Judge judges a state of a key, at any time: o is a final line, and may have the
// number 0 if it stands nowhere. More may follow.
func (c *Checker) Judge(line int, o *Op, b Binding) {
	k := c.key(o.Key)
	r := reading{line: int32(line), begin: o.BeginUS, end: o.EndUS}
	c.show(k, &r, o)
	c.judgeSiblings(k, &r)
	for _, id := range r.ids {
		c.judgeReal(k, id, r.line)
	}
	if k.plain {
		c.judgePlain(k, &r, o, b)
	} else {
		c.judgeLost(k, &r, o, b)
	}
	c.judgeLive(k, &r, o, b)
}

// judgeLost finds what was acknowledged and is nowhere.
func (c *Checker) judgeLost(k *key, r *reading, o *Op, b Binding) {
	gone := k.gone()
	var live bits
	k.mark(&live, r.ids)
	for i := range k.writes {
		w := &k.writes[i]
		if !b.holds(&w.attempt) || live.has(int32(i)) || gone[i] <= r.end {
			continue
		}
		c.found(k, Lost, w.value, fmt.Sprintf("%s was acknowledged, and nothing that is live or deleted had seen it; live%s: %s", w.dotted(), at(o), list(o.Values)),
			w.line, r.line)
	}
}

func (w *write) dotted() string { return Shown{w.value, w.dot}.String() }

// list shows values to people, a few of them.
func list(values []Shown) string {
	const most = 8
	var words []string
	for _, v := range values[:min(most, len(values))] {
		words = append(words, v.String())
	}
	switch {
	case len(values) == 0:
		return "nothing"
	case len(values) > most:
		words = append(words, fmt.Sprintf("and %d more", len(values)-most))
	}
	return strings.Join(words, ", ")
}

// judgeLive finds what is live although something acknowledged had seen it.
func (c *Checker) judgeLive(k *key, r *reading, o *Op, b Binding) {
	if len(r.ids) == 0 {
		return
	}
	var covered bits
	k.eachBinding(b, func(a *attempt) bool {
		k.mark(&covered, a.from.seen())
		return true
	})
	for _, id := range r.ids {
		if covered.has(id) {
			w := &k.writes[id]
			by, lines := k.whoCovers(b, id)
			c.found(k, Resurrected, w.value, fmt.Sprintf("%s is live%s, and line %d had seen it and was acknowledged", w.dotted(), at(o), by.line),
				append(lines, by.line, r.line)...)
		}
	}
}

// eachBinding calls f for writes and deletes that bind and have a past, until it
// returns false.
func (k *key) eachBinding(b Binding, f func(*attempt) bool) {
	for i := range k.writes {
		if a := &k.writes[i].attempt; a.from != nil && b.holds(a) && !f(a) {
			return
		}
	}
	for i := range k.deletes {
		if a := &k.deletes[i]; a.from != nil && b.holds(a) && !f(a) {
			return
		}
	}
}

// whoCovers returns what binds and has seen id on the shortest way.
func (k *key) whoCovers(b Binding, id int32) (by *attempt, lines []int32) {
	var walked bits
	for level := []int32{id}; len(level) > 0; {
		direct := func(a *attempt) bool {
			return slices.ContainsFunc(a.from.seen(), func(seen int32) bool { return slices.Contains(level, seen) })
		}
		k.eachBinding(b, func(a *attempt) bool {
			if direct(a) {
				by = a
			}
			return by == nil
		})
		if by != nil {
			return by, k.proof(by.from, id)
		}
		var next []int32
		for i := range k.writes {
			if direct(&k.writes[i].attempt) && walked.add(int32(i)) {
				next = append(next, int32(i))
			}
		}
		level = next
	}
	panic(fmt.Sprintf("history: nothing covers write %d of key %q, and it was found covered", id, k.name))
}

// judgeReal judges whether a value that a line shows was ever written.
func (c *Checker) judgeReal(k *key, id, line int32) {
	switch w := &k.writes[id]; {
	case w.line == 0:
		c.found(k, Phantom, w.value, fmt.Sprintf("%s is shown, and nobody wrote it", w.dotted()), line)
	case w.outcome == failed:
		c.found(k, Phantom, w.value, fmt.Sprintf("the write of %s failed, and it is shown", w.dotted()), w.line, line)
	}
}

// settle judges what could not be judged before all was told.
func (c *Checker) settle(k *key) {
	for i := range k.writes {
		if w := &k.writes[i]; w.shown != 0 || w.dot != "" {
			c.judgeReal(k, int32(i), w.shown)
		}
	}
	var gone []int64
	for i := range k.doubtful {
		r := &k.doubtful[i]
		c.judgeSiblings(k, r)
		if r.min == nil {
			continue
		}
		if gone == nil {
			gone = k.gone()
		}
		for _, m := range k.uncovered(r, gone) {
			w := &k.writes[r.min.ids[m]]
			c.found(k, Session, fmt.Sprintf("%d %s", r.line, w.value), fmt.Sprintf("a read that was to cover a token that had seen %s shows nothing that had", w.value),
				append(r.min.linesOf(r.min.ids[m]), w.line, r.line)...)
		}
	}
	k.doubtful = nil
}

// final takes the final line of a key and forgets the key.
func (c *Checker) final(line int, o *Op) error {
	if c.judged[o.Key] {
		return fmt.Errorf("a second final line of key %q", o.Key)
	}
	k := c.key(o.Key)
	if o.Result != OK {
		c.found(k, Unreadable, "", "the final read failed: "+o.Error, int32(line))
	} else {
		c.Judge(line, o, c.opts.Binding)
	}
	k.read = true
	c.forget(k)
	return nil
}

// forget settles a key and leaves nothing of it but its name.
func (c *Checker) forget(k *key) {
	c.settle(k)
	f := &c.report.Figures
	f.Keys++
	if !k.read {
		f.Unjudged++
	}
	if !k.inspected {
		f.Uninspected++
	}
	delete(c.keys, k.name)
	c.judged[k.name] = true
}

// inspect takes the copies of a key.
func (c *Checker) inspect(line int, o *Op) error {
	if c.judged[o.Key] {
		return fmt.Errorf("the inspect line of key %q follows its final line", o.Key)
	}
	k := c.key(o.Key)
	k.inspected = true
	if o.Result != OK {
		c.found(k, Diverged, "", "its copies could not be looked at: "+o.Error, int32(line))
		return nil
	}
	if why := Unequal(o.Copies, o.Owners); why != "" {
		c.found(k, Diverged, "", why, int32(line))
	}
	return nil
}

// Unequal says why the copies of a key are not equal, or nothing if at least so
// many owners hold the same. Copies of others than owners do not count.
func Unequal(copies []Copy, owners int) string {
	var states []string
	first, n, same := "", 0, true
	for _, c := range copies {
		if c.Role != Owner {
			continue
		}
		if n == 0 {
			first = c.State
		}
		n++
		same = same && c.State != "" && c.State == first
		if states = append(states, c.Node+" holds "+c.State); c.State == "" {
			states[len(states)-1] = c.Node + " did not answer"
		}
	}
	switch {
	case !same:
		return "the owners differ: " + strings.Join(states, ", ")
	case n < owners:
		return fmt.Sprintf("%d owners answered, and %d must hold it", n, owners)
	}
	return ""
}

// Finish settles all keys that have no final line, and returns what the history
// came to. Nothing may be told after it.
func (c *Checker) Finish() Report {
	for _, k := range c.keys {
		c.forget(k)
	}
	c.report.sort()
	return c.report
}

// Take returns the findings since it was last called, for histories that are
// judged as they happen.
func (c *Checker) Take() []Finding {
	f := c.report.Findings
	c.report.Findings = nil
	return f
}
