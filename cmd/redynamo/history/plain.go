package history

import "fmt"

// order notes that a plain write or delete was acknowledged, and what that tells
// of the one before it.
func (k *key) order(s *session, id int32, del bool, line int32, oneClock bool) {
	last, any := k.last[s.name]
	if any && last.id >= 0 {
		w := &k.writes[last.id]
		if !del && (last.conn == s.conn || oneClock) {
			w.superseded = id + 1
		}
		// A connection forgets keys, the oldest first; it cannot have met more keys
		// than it did operations.
		if last.conn == s.conn && s.ops-last.ops <= rememberedKeys {
			w.replaced = line
		}
	}
	if del {
		id = -1
	}
	if k.last == nil {
		k.last = map[string]plainOp{}
	}
	k.last[s.name] = plainOp{id, s.conn, s.ops}
}

// judgePlain judges the end of a key with plain writes.
func (c *Checker) judgePlain(k *key, r *reading, o *Op, b Binding) {
	for i, id := range r.ids {
		w := &k.writes[id]
		switch {
		case !w.plain || !b.holds(&w.attempt):
		case w.replaced != 0 && k.bindsLine(b, w.replaced):
			c.found(k, Resurrected, w.value, fmt.Sprintf("%s is live%s, and line %d took it away on the connection that had written it", w.dotted(), at(o), w.replaced),
				w.line, w.replaced, r.line)
		case i == 0 && w.superseded != 0:
			// When the later value has been deleted, what it hid may show.
			if by := &k.writes[w.superseded-1]; b.holds(&by.attempt) && !k.mayBeRemoved(by, r.end) {
				c.found(k, Lost, by.value, fmt.Sprintf("the newest value%s is %s, and line %d is later", at(o), w.dotted(), by.line), w.line, by.line, r.line)
			}
		}
	}
	shown := map[int32]bool{}
	for _, id := range r.ids {
		shown[id] = true
	}
	for i := range k.writes {
		w := &k.writes[i]
		if !w.plain || !b.holds(&w.attempt) {
			continue
		}
		if len(r.ids) == 0 && w.superseded == 0 && !k.mayBeRemoved(w, r.end) {
			c.found(k, Lost, w.value, fmt.Sprintf("%s was acknowledged, nothing is left%s, and nobody deleted it", w.value, at(o)), w.line, r.line)
		}
		c.report.Figures.PlainAcked++
		if !shown[int32(i)] && w.superseded == 0 && k.lastBegin < w.end {
			c.report.Figures.PlainReplaced++
		}
	}
}

// bindsLine reports whether what a line acknowledged binds.
func (k *key) bindsLine(b Binding, line int32) bool {
	for i := range k.writes {
		if k.writes[i].line == line {
			return b.holds(&k.writes[i].attempt)
		}
	}
	for i := range k.deletes {
		if k.deletes[i].line == line {
			return b.holds(&k.deletes[i])
		}
	}
	return false
}

// mayBeRemoved reports whether a key that shows nothing may have lost w rightly:
// by a delete that was not over when w began, or because w, or what has replaced
// it, has expired.
func (k *key) mayBeRemoved(w *write, atUS int64) bool {
	for i := range k.deletes {
		if d := &k.deletes[i]; d.outcome != failed && d.end > w.begin {
			return true
		}
	}
	for i := range k.writes {
		if e := &k.writes[i]; e.ttl > 0 && e.outcome != failed && e.end > w.begin && e.begin+e.ttl-clockSkewUS <= atUS {
			return true
		}
	}
	return false
}
