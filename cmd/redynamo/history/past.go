package history

import "slices"

// A token is what a client holds of a key: the writes that it is known to have
// seen, and with each of them its past.
//
// Pasts are never spelt out. A hot key has as many pasts as writes, so a set for
// each would take quadratic space; the writes and the tokens between them make a
// graph, and what is asked of it is answered by walking.
//
// Invariant: what a token of a write has seen has smaller numbers than the write.
type token struct {
	ids     []int32
	line    int32    // that gave it out
	start   int64    // when the oldest read behind it began, for the bound
	through *token   // what a delete, which line is, had brought along
	parts   []*token // of a token that was given out by several lines
}

// linesOf are the lines by which the token has seen a write, or nothing for -1.
func (t *token) linesOf(id int32) (lines []int32) {
	for t != nil {
		if len(t.parts) > 0 {
			part := slices.IndexFunc(t.parts, func(p *token) bool { return slices.Contains(p.ids, id) })
			t = t.parts[max(part, 0)]
			continue
		}
		lines = append(lines, t.line)
		t = t.through
	}
	return lines
}

// seen returns the writes of t, which may be nil.
func (t *token) seen() []int32 {
	if t == nil {
		return nil
	}
	return t.ids
}

// union is what has seen what t or o has.
func (t *token) union(o *token) *token {
	if t == nil {
		return o
	}
	u := &token{ids: slices.Clone(t.ids), start: min(t.start, o.start), parts: []*token{t, o}}
	for _, id := range o.ids {
		if !slices.Contains(u.ids, id) {
			u.ids = append(u.ids, id)
		}
	}
	if len(u.ids) == len(t.ids) && u.start == t.start {
		return t
	}
	return u
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) has(i int32) bool { return int(i/64) < len(b) && b[i/64]&(1<<(i%64)) != 0 }

// add adds i and reports whether it is new.
func (b *bits) add(i int32) bool {
	if b.has(i) {
		return false
	}
	for len(*b) <= int(i/64) {
		*b = append(*b, 0)
	}
	(*b)[i/64] |= 1 << (i % 64)
	return true
}

// maxMemoWords bounds what a key remembers of walks that led nowhere.
const maxMemoWords = 1 << 20

// concurrent reports whether b, of a larger number than a, has not seen a. It
// remembers which writes have not, so that the whole of a history in which a is
// a sibling for long costs one walk.
func (k *key) concurrent(a, b int32) bool {
	barren := k.barren[a]
	before := len(barren)
	k.stack = append(k.stack[:0], b)
	for len(k.stack) > 0 {
		at := k.stack[len(k.stack)-1]
		k.stack = k.stack[:len(k.stack)-1]
		for _, id := range k.writes[at].from.seen() {
			if id == a {
				delete(k.barren, a) // not all that was marked was walked
				return false
			}
			if id > a && barren.add(id-a) {
				k.stack = append(k.stack, id)
			}
		}
	}
	if k.memoWords += len(barren) - before; k.memoWords > maxMemoWords {
		clear(k.barren)
		k.memoWords = 0
		return true
	}
	if k.barren == nil {
		k.barren = map[int32]bits{}
	}
	k.barren[a] = barren
	return true
}

// covers reports whether a is among ids or their pasts.
func (k *key) covers(ids []int32, a int32) bool {
	if slices.Contains(ids, a) {
		return true
	}
	var walked bits
	next := slices.Clone(ids)
	for i := 0; i < len(next); i++ { // breadth first: what is asked for is mostly near
		for _, id := range k.writes[next[i]].from.seen() {
			if id == a {
				return true
			}
			if id > a && walked.add(id-a) {
				next = append(next, id)
			}
		}
	}
	return false
}

// mark marks ids and their pasts.
func (k *key) mark(marked *bits, ids []int32) {
	k.stack = k.stack[:0]
	for _, id := range ids {
		if marked.add(id) {
			k.stack = append(k.stack, id)
		}
	}
	for len(k.stack) > 0 {
		at := k.stack[len(k.stack)-1]
		k.stack = k.stack[:len(k.stack)-1]
		for _, id := range k.writes[at].from.seen() {
			if marked.add(id) {
				k.stack = append(k.stack, id)
			}
		}
	}
}

// proof returns the lines that prove that a token has seen a: the shortest way,
// from the line that gave the token out, by the writes between and the lines that
// gave those their tokens, to the write itself.
func (k *key) proof(from *token, a int32) (lines []int32) {
	type step struct {
		id   int32
		seen *token // by which it was seen
		by   int    // index of the step before, -1 for the first
	}
	var steps []step
	var walked bits
	grow := func(t *token, by int) (done bool) {
		for _, id := range t.seen() {
			if id >= a && walked.add(id-a) {
				steps = append(steps, step{id, t, by})
				if id == a {
					return true
				}
			}
		}
		return false
	}
	done := grow(from, -1)
	for i := 0; i < len(steps) && !done; i++ {
		done = grow(k.writes[steps[i].id].from, i)
	}
	if !done {
		return nil
	}
	for i := len(steps) - 1; i >= 0; i = steps[i].by {
		lines = append(append(lines, steps[i].seen.linesOf(steps[i].id)...), k.writes[steps[i].id].line)
	}
	return lines
}
