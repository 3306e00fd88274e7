package acl

import "strings"

// A Key is one that a request touches.
type Key struct {
	Name   []byte
	Access Access // 0: it is only looked whether the key is there
	At     int    // its place among the arguments
}

// A Channel is one that a request publishes or subscribes to.
type Channel struct {
	Name    []byte
	Pattern bool // it is a pattern itself
	At      int
}

// A Request is what is judged. The keys and channels are asked for only if the
// answer hangs on them.
type Request struct {
	ID       ID
	Args     [][]byte
	Keys     func() []Key
	Channels func() []Channel
}

// A Verdict says whether a request is allowed, or what is missing. A later one of
// them is the nearer miss.
type Verdict uint8

// Verdicts.
const (
	Allowed Verdict = iota
	NoCommand
	NoKey
	NoChannel
)

// Check judges a request by all selectors: one must allow all of it. Of the refusals
// it returns the nearest miss, with the argument that was missed.
func (u *User) Check(c *Catalog, r *Request) (v Verdict, at int) {
	v = NoCommand
	for _, s := range u.selectors {
		one, where := s.check(c, r)
		if one == Allowed {
			return Allowed, 0
		}
		if one > v || one == v && where > at {
			v, at = one, where
		}
	}
	return v, at
}

func (s *Selector) check(c *Catalog, r *Request) (v Verdict, at int) {
	if !s.every && !c.entries[r.ID].open && !s.has(r.ID) && !s.firstArg(c, r) {
		return NoCommand, 0
	}
	if !s.allKeys && r.Keys != nil {
		for _, k := range r.Keys() {
			if !s.allowsKey(k.Name, k.Access) {
				return NoKey, k.At
			}
		}
	}
	if !s.allChannels && r.Channels != nil {
		for _, ch := range r.Channels() {
			if !s.allowsChannel(ch.Name, ch.Pattern) {
				return NoChannel, ch.At
			}
		}
	}
	return Allowed, 0
}

// firstArg reports whether the command is allowed with the argument it has.
func (s *Selector) firstArg(c *Catalog, r *Request) bool {
	if len(r.Args) < 2 {
		return false
	}
	for _, arg := range s.firstArgs[r.ID] {
		if strings.EqualFold(arg, string(r.Args[1])) {
			return true
		}
	}
	return false
}

// allowsKey reports whether one pattern allows all that is done with the key. A match
// that costs too much is none.
func (s *Selector) allowsKey(name []byte, access Access) bool {
	for i := range s.keys {
		if p := &s.keys[i]; p.access&access == access && p.matches(name) {
			return true
		}
	}
	return false
}

// allowsChannel judges a channel; a pattern must be literally among those allowed.
func (s *Selector) allowsChannel(name []byte, isPattern bool) bool {
	for i := range s.channels {
		p := &s.channels[i]
		if isPattern && p.text == string(name) || !isPattern && p.matches(name) {
			return true
		}
	}
	return false
}

func (p *pattern) matches(name []byte) bool {
	hit, err := p.like.MatchName(name)
	return hit && err == nil
}

// MayHear reports whether some selector allows to be subscribed to a channel, or to a
// pattern.
func (u *User) MayHear(name []byte, isPattern bool) bool {
	for _, s := range u.selectors {
		if s.allChannels || s.allowsChannel(name, isPattern) {
			return true
		}
	}
	return false
}

// Unbound reports whether one selector allows everything, so that nothing need be
// judged.
func (u *User) Unbound() bool {
	for _, s := range u.selectors {
		if s.every && s.allKeys && s.allChannels {
			return true
		}
	}
	return false
}
