package version

import (
	"math"
	"slices"
	"sort"
)

// Span is the closed interval [Lo, Hi] of one actor's counters. It claims that
// every dot of the actor for this key with Lo <= counter <= Hi is known.
//
// Requires: 1 <= Lo <= Hi.
type Span struct {
	Actor  Actor
	Lo, Hi uint64
}

// Context is a set of dots, the causal past of a record, a token or a write.
// It is canonical: sorted by actor and Lo, spans disjoint, touching spans
// joined; so equal sets are equal slices. nil is the empty set. A Context is an
// immutable value: no method changes its receiver or argument, and results may
// share memory with either.
type Context []Span

// linearSpans is the length up to which a scan beats a binary search.
const linearSpans = 8

// Contains reports whether d is in the set.
func (c Context) Contains(d Dot) bool {
	if len(c) <= linearSpans {
		for i := range c {
			if c[i].Actor == d.Actor && c[i].Lo <= d.Counter && d.Counter <= c[i].Hi {
				return true
			}
		}
		return false
	}
	i := c.search(d)
	return i < len(c) && c[i].Actor == d.Actor && c[i].Lo <= d.Counter
}

// search returns the index of the first span that ends at or after d.
func (c Context) search(d Dot) int {
	return sort.Search(len(c), func(i int) bool {
		return Dot{c[i].Actor, c[i].Hi}.Compare(d) >= 0
	})
}

// Covers reports whether every dot of o is in c. Spans are disjoint and joined,
// so each span of o must lie inside a single span of c.
func (c Context) Covers(o Context) bool {
	i := 0
	for j := range o {
		s := &o[j]
		for i < len(c) && (c[i].Actor < s.Actor || c[i].Actor == s.Actor && c[i].Hi < s.Hi) {
			i++
		}
		if i == len(c) || c[i].Actor != s.Actor || c[i].Lo > s.Lo {
			return false
		}
	}
	return true
}

// Union returns the dots that are in c or in o. When one side covers the other
// that side itself is returned, without an allocation.
func (c Context) Union(o Context) Context {
	switch {
	case c.Covers(o):
		return c
	case o.Covers(c):
		return o
	}
	out := make(Context, 0, len(c)+len(o))
	for len(c) > 0 || len(o) > 0 {
		if len(o) == 0 || len(c) > 0 && c[0].before(o[0]) {
			out, c = out.push(c[0]), c[1:]
		} else {
			out, o = out.push(o[0]), o[1:]
		}
	}
	return slices.Clip(out)
}

func (s Span) before(o Span) bool {
	return s.Actor < o.Actor || s.Actor == o.Actor && s.Lo < o.Lo
}

// push appends s to a context under construction and joins it with the last
// span when they overlap or touch.
//
// Requires: s does not sort before the last span.
func (c Context) push(s Span) Context {
	if n := len(c); n > 0 {
		last := &c[n-1]
		if last.Actor == s.Actor && s.Lo-1 <= last.Hi {
			last.Hi = max(last.Hi, s.Hi)
			return c
		}
	}
	return append(c, s)
}

// Add returns c with d in it.
func (c Context) Add(d Dot) Context {
	if c.Contains(d) {
		return c
	}
	return c.with(Span{d.Actor, d.Counter, d.Counter})
}

// with returns the union of c and one span that c does not cover. It is Union
// with a single allocation, for the path of every write.
func (c Context) with(s Span) Context {
	out, placed := make(Context, 0, len(c)+1), false
	for _, other := range c {
		if !placed && s.before(other) {
			out, placed = out.push(s), true
		}
		out = out.push(other)
	}
	if !placed {
		out = out.push(s)
	}
	return slices.Clip(out)
}

// Without returns c with d taken out; the span around d is split.
func (c Context) Without(d Dot) Context {
	i := c.search(d)
	if i == len(c) || c[i].Actor != d.Actor || c[i].Lo > d.Counter {
		return c
	}
	out := append(make(Context, 0, len(c)+1), c[:i]...)
	if s := c[i]; s.Lo < d.Counter {
		out = append(out, Span{s.Actor, s.Lo, d.Counter - 1})
	}
	if s := c[i]; d.Counter < s.Hi {
		out = append(out, Span{s.Actor, d.Counter + 1, s.Hi})
	}
	return slices.Clip(append(out, c[i+1:]...))
}

// Equal reports whether c and o are the same set.
func (c Context) Equal(o Context) bool { return slices.Equal(c, o) }

// Top returns the highest span of an actor.
func (c Context) Top(a Actor) (Span, bool) {
	for i := len(c) - 1; i >= 0 && c[i].Actor >= a; i-- {
		if c[i].Actor == a {
			return c[i], true
		}
	}
	return Span{}, false
}

// Dots returns the number of dots in the set, claimed ones included, at most
// the largest uint64.
func (c Context) Dots() uint64 {
	n := uint64(0)
	for _, s := range c {
		size := s.Hi - s.Lo + 1
		if n+size < n {
			return math.MaxUint64
		}
		n += size
	}
	return n
}

// Actors returns the number of distinct actors.
func (c Context) Actors() int {
	n := 0
	for i := range c {
		if i == 0 || c[i].Actor != c[i-1].Actor {
			n++
		}
	}
	return n
}
