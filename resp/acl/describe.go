package acl

import "strings"

// Commands are the rules that make the set of allowed commands, as Redis writes them:
// first all or none, then the categories that come nearest to the set, best first,
// then single commands.
func (s *Selector) Commands(c *Catalog) string {
	d := description{c: c, want: s, add: !s.future, have: newSelector(c), left: s.clone()}
	base := "-@all"
	if s.future {
		base = "+@all"
		d.have.setAll(true)
	}
	d.words = []string{base}
	tried := make([]bool, len(c.categories))
	for {
		best := d.best(tried)
		if best < 0 {
			break
		}
		tried[best] = true
		name := c.categories[best]
		// The categories are the catalog's own: no error.
		_ = d.have.setCategory(c, name, d.add)
		_ = d.left.setCategory(c, name, !d.add)
		d.words = append(d.words, d.sign(d.add)+"@"+name)
	}
	for id := range c.entries {
		if c.entries[id].parent < 0 {
			d.single(ID(id))
		}
	}
	return strings.Join(d.words, " ")
}

// A description is a list of rules under way to a wanted set of commands.
type description struct {
	c     *Catalog
	want  *Selector
	add   bool      // from none upward, not from all downward
	have  *Selector // what the words so far come to
	left  *Selector // what is wanted beside the categories so far
	words []string
}

func (d *description) sign(add bool) string {
	if add {
		return "+"
	}
	return "-"
}

// best is the category that fits what is left best: more commands in it are wanted
// than not, and of such the one with the fewest that are not; -1 for none.
func (d *description) best(tried []bool) int {
	best, fewest, most := -1, 0, 0
	for i := range tried {
		if tried[i] {
			continue
		}
		fit, misfit := 0, 0
		for id := range d.c.entries {
			switch {
			case d.c.entries[id].categories&(1<<i) == 0:
			case d.left.has(ID(id)) == d.add:
				fit++
			default:
				misfit++
			}
		}
		if fit > misfit && (best < 0 || misfit < fewest || misfit == fewest && fit > most) {
			best, fewest, most = i, misfit, fit
		}
	}
	return best
}

// single adds what one command still needs, its subcommands included.
func (d *description) single(id ID) {
	e := &d.c.entries[id]
	allowed := d.want.has(id)
	if allowed != d.have.has(id) {
		d.have.set(d.c, id, allowed)
		d.words = append(d.words, d.sign(allowed)+e.full)
	}
	for _, sub := range e.subs {
		d.single(sub)
	}
	if !allowed {
		for _, arg := range d.want.firstArgs[id] {
			d.words = append(d.words, "+"+e.full+"|"+arg)
		}
	}
}

// Keys are the patterns of keys, as rules.
func (s *Selector) Keys() string {
	if s.allKeys {
		return "~*"
	}
	words := make([]string, len(s.keys))
	for i, p := range s.keys {
		words[i] = map[Access]string{Read: "%R~", Write: "%W~", Read | Write: "~"}[p.access] + p.text
	}
	return strings.Join(words, " ")
}

// Channels are the patterns of channels, as rules.
func (s *Selector) Channels() string {
	if s.allChannels {
		return "&*"
	}
	words := make([]string, len(s.channels))
	for i, p := range s.channels {
		words[i] = "&" + p.text
	}
	return strings.Join(words, " ")
}

// Rules are all rules that make the selector out of an empty one.
func (s *Selector) Rules(c *Catalog) string {
	var words []string
	if keys := s.Keys(); keys != "" {
		words = append(words, keys)
	}
	if !s.allChannels {
		words = append(words, "resetchannels")
	}
	if channels := s.Channels(); channels != "" {
		words = append(words, channels)
	}
	return strings.Join(append(words, s.Commands(c)), " ")
}

// Rules are all rules that make the user out of a new one.
func (u *User) Rules(c *Catalog) string {
	words := u.Flags()
	for _, d := range u.digests {
		words = append(words, "#"+d.String())
	}
	words = append(words, u.Root().Rules(c))
	for _, s := range u.Extra() {
		words = append(words, "("+s.Rules(c)+")")
	}
	return strings.Join(words, " ")
}
