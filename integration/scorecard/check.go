//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// This file judges a history by invariants that hold for any store which keeps
// concurrent versions:
//
//	lost         an acknowledged write is not live, and nothing that is live or
//	             deleted had seen it
//	resurrected  a value is live that an acknowledged write or delete had seen
//	phantom      a value is live that nobody sent, or that was refused
//	sibling      one read shows a value beside another that had seen it
//	dot          one dot stands for two values, or one value has two
//	diverged     the owners of a key hold different states

// finding is one broken invariant.
type finding struct{ key, what string }

// findings are broken invariants by kind.
type findings struct {
	lost, resurrected, phantom, sibling, dot, diverged []finding
	undelivered                                        []finding // lost, but for a hint that is kept somewhere
}

func found(key, format string, args ...any) finding {
	return finding{key, fmt.Sprintf(format, args...)}
}

// faults describes all that is wrong, one line for each kind.
func (f *findings) faults() (lines []string) {
	for _, kind := range []struct {
		name string
		all  []finding
	}{
		{"lost", f.lost}, {"in undelivered hints alone", f.undelivered}, {"resurrected", f.resurrected}, {"phantom", f.phantom},
		{"false sibling", f.sibling}, {"dot reused", f.dot}, {"diverged", f.diverged},
	} {
		if len(kind.all) == 0 {
			continue
		}
		var few []string
		for _, one := range kind.all[:min(3, len(kind.all))] {
			few = append(few, one.key+" "+one.what)
		}
		lines = append(lines, fmt.Sprintf("%d %s: %s", len(kind.all), kind.name, strings.Join(few, "; ")))
	}
	return lines
}

// sawLocked judges one reply and returns the past of its token.
func (h *history) sawLocked(key string, versions []shown, f *findings) set {
	k := h.keyLocked(key)
	var past set
	var numbers []int
	for _, v := range versions {
		i, known := k.number[v.value]
		if !known {
			f.phantom = append(f.phantom, found(key, "shows %s, which nobody wrote", name(v.value)))
			continue
		}
		w := k.writes[i]
		if j, taken := k.dots[v.dot]; taken && j != i {
			f.dot = append(f.dot, found(key, "%s is %s and was %s", v.dot, name(v.value), name(k.writes[j].value)))
		}
		if w.dot != "" && w.dot != v.dot {
			f.dot = append(f.dot, found(key, "%s has dot %s and had %s", name(v.value), v.dot, w.dot))
		}
		k.dots[v.dot], w.dot = i, v.dot
		past = past.union(w.past).with(i)
		numbers = append(numbers, i)
	}
	for _, i := range numbers {
		for _, j := range numbers {
			if k.writes[j].past.has(i) {
				f.sibling = append(f.sibling, found(key, "shows %s beside %s, which had seen it", name(k.writes[i].value), name(k.writes[j].value)))
			}
		}
	}
	return past
}

func (k *keyHistory) deleted(i int) bool {
	return slices.ContainsFunc(k.deletes, func(d *attempt) bool { return d.fate != denied && d.past.has(i) })
}

// copied is the state of a key at one of its owners.
type copied struct {
	node  string
	state string // "" if the node could not be asked
	dots  []string
}

// judge checks the last state of all keys: what a read of all owners shows and
// what each owner holds.
func (h *history) judge(final map[string][]shown, copies map[string][]copied) findings {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.mu.seen
	for key, k := range h.mu.keys {
		versions, read := final[key]
		if !read {
			f.lost = append(f.lost, found(key, "cannot be read"))
			continue
		}
		past := h.sawLocked(key, versions, &f)
		k.judgeWrites(key, past, versions, &f)
		k.judgeLive(key, versions, &f)
	}
	for key, c := range copies {
		if !equalCopies(c, len(c)) {
			f.diverged = append(f.diverged, found(key, "%v", c))
		}
	}
	for _, list := range []*[]finding{&f.lost, &f.resurrected, &f.phantom, &f.sibling, &f.dot, &f.diverged} {
		slices.SortFunc(*list, func(a, b finding) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.what, b.what)) })
		*list = slices.Compact(*list)
	}
	return f
}

// judgeWrites finds what is lost, and what was refused and seen all the same.
func (k *keyHistory) judgeWrites(key string, past set, versions []shown, f *findings) {
	for i, w := range k.writes {
		switch {
		case w.fate == denied && w.dot != "":
			f.phantom = append(f.phantom, found(key, "%s was refused and seen as %s", name(w.value), w.dot))
		case w.fate == acked && !w.loose && !past.has(i) && !k.deleted(i):
			f.lost = append(f.lost, found(key, "%s, live are %v", name(w.value), versions))
		}
	}
}

// judgeLive finds what is live although something acknowledged had seen it.
func (k *keyHistory) judgeLive(key string, versions []shown, f *findings) {
	for _, v := range versions {
		i, known := k.number[v.value]
		if !known {
			continue // told as a phantom
		}
		for _, a := range slices.Concat(k.writes, k.deletes) {
			if a.fate == acked && !a.loose && a.past.has(i) {
				f.resurrected = append(f.resurrected, found(key, "%s, dot %s", name(v.value), v.dot))
				break
			}
		}
	}
}

// equalCopies reports whether at least want owners answered and all of them
// hold the same.
func equalCopies(copies []copied, want int) bool {
	for _, c := range copies {
		if c.state == "" || c.state != copies[0].state {
			return false
		}
	}
	return len(copies) >= want
}
