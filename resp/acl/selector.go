package acl

import (
	"maps"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/resp/glob"
)

// A fault is an error in the words of Redis.
type fault string

func (f fault) Error() string { return string(f) }

// The faults of a rule.
const (
	errSyntax   fault = "Syntax error"
	errUnknown  fault = "Unknown command or category name in ACL"
	errFirstArg fault = "Allowing first-arg of a subcommand is not supported"
	errAllKeys  fault = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does " +
		"not have any effect. Try 'resetkeys' to start with an empty list of patterns"
	errAllChannels fault = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does " +
		"not have any effect. Try 'resetchannels' to start with an empty list of channels"
	errNoPassword fault = "The password you are trying to remove from the user does not exist"
	errDigest     fault = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
	errTooMany    fault = "A selector has as many patterns as this server allows"
	errTooLong    fault = "The rules of the user are longer than the limit of this server"
)

// An Access says what is done with a key.
type Access uint8

// Kinds of Access.
const (
	Read Access = 1 << iota
	Write
)

// A pattern of keys or channels.
type pattern struct {
	text   string
	like   *glob.Pattern
	access Access // of keys
}

// Selector is a set of commands, keys and channels that go together.
type Selector struct {
	bits []uint64 // commands by ID
	// future says that commands which come to the catalog later are allowed: +@all
	// came, and no -@all behind it.
	future      bool
	every       bool // all commands: no bit need be looked at
	firstArgs   map[ID][]string
	allKeys     bool
	allChannels bool
	keys        []pattern
	channels    []pattern
}

func (s *Selector) clone() *Selector {
	c := *s
	c.bits = slices.Clone(s.bits)
	c.firstArgs = maps.Clone(s.firstArgs)
	for id, args := range c.firstArgs {
		c.firstArgs[id] = slices.Clone(args)
	}
	c.keys, c.channels = slices.Clone(s.keys), slices.Clone(s.channels)
	return &c
}

func newSelector(c *Catalog) *Selector {
	return &Selector{bits: make([]uint64, (len(c.entries)+63)/64)}
}

func (s *Selector) has(id ID) bool { return s.bits[id/64]&(1<<(id%64)) != 0 }

// set allows or forbids one command, with its subcommands, in each of their spellings.
func (s *Selector) set(c *Catalog, id ID, allow bool) {
	for _, one := range append([]ID{id}, c.entries[id].subs...) {
		s.setOne(one, allow)
		if twin := c.entries[one].twin; twin >= 0 {
			s.setOne(twin, allow)
			delete(s.firstArgs, twin)
		}
	}
	delete(s.firstArgs, id)
}

func (s *Selector) setOne(id ID, allow bool) {
	if allow {
		s.bits[id/64] |= 1 << (id % 64)
	} else {
		s.bits[id/64] &^= 1 << (id % 64)
		s.every = false
	}
}

func (s *Selector) setAll(allow bool) {
	for i := range s.bits {
		s.bits[i] = 0
		if allow {
			s.bits[i] = ^uint64(0)
		}
	}
	s.future, s.every, s.firstArgs = allow, allow, nil
}

// setCategory allows or forbids the commands of a category, in the order of the
// catalog: a container brings its subcommands along.
func (s *Selector) setCategory(c *Catalog, name string, allow bool) error {
	if strings.EqualFold(name, "all") {
		s.setAll(allow)
		return nil
	}
	bit, ok := c.category(name)
	if !ok {
		return errUnknown
	}
	for id := range c.entries {
		if c.entries[id].categories&bit != 0 {
			s.set(c, ID(id), allow)
		}
	}
	return nil
}

// apply changes the selector by one rule. Requires: nobody else has it.
func (s *Selector) apply(c *Catalog, rule string) error {
	switch strings.ToLower(rule) {
	case "allkeys", "~*":
		s.allKeys, s.keys = true, nil
		return nil
	case "resetkeys":
		s.allKeys, s.keys = false, nil
		return nil
	case "allchannels", "&*":
		s.allChannels, s.channels = true, nil
		return nil
	case "resetchannels":
		s.allChannels, s.channels = false, nil
		return nil
	case "allcommands":
		s.setAll(true)
		return nil
	case "nocommands":
		s.setAll(false)
		return nil
	case "":
		return nil
	}
	switch rule[0] {
	case '~', '%':
		return s.addKeys(rule)
	case '&':
		return s.addChannels(rule[1:])
	case '+', '-':
		return s.applyCommand(c, rule[1:], rule[0] == '+')
	}
	return errSyntax
}

// addKeys adds a pattern of keys: ~p, %R~p, %W~p, %RW~p. As in Redis the mark may
// be missing where the pattern is empty.
func (s *Selector) addKeys(rule string) error {
	access, text := Read|Write, rule[1:]
	if rule[0] == '%' {
		access = 0
	marks:
		for text != "" {
			mark := Access(0)
			switch text[0] {
			case 'R', 'r':
				mark = Read
			case 'W', 'w':
				mark = Write
			case '~':
				text = text[1:]
				break marks
			}
			if mark == 0 || access&mark != 0 {
				return errSyntax
			}
			access, text = access|mark, text[1:]
		}
		if access == 0 {
			return errSyntax
		}
	}
	switch {
	case s.allKeys:
		return errAllKeys
	case strings.ContainsFunc(text, blank):
		return errSyntax
	}
	at := slices.IndexFunc(s.keys, func(p pattern) bool { return p.text == text })
	if at >= 0 {
		s.keys[at].access |= access
		return nil
	}
	if len(s.keys) >= MaxPatterns {
		return errTooMany
	}
	s.keys = append(s.keys, pattern{text, glob.Compile([]byte(text)), access})
	return nil
}

func (s *Selector) addChannels(text string) error {
	switch {
	case s.allChannels:
		return errAllChannels
	case strings.ContainsFunc(text, blank):
		return errSyntax
	}
	if !slices.ContainsFunc(s.channels, func(p pattern) bool { return p.text == text }) {
		if len(s.channels) >= MaxPatterns {
			return errTooMany
		}
		s.channels = append(s.channels, pattern{text: text, like: glob.Compile([]byte(text))})
	}
	return nil
}

// blank is what a pattern or a name cannot contain: it would not come back whole
// from a file.
func blank(r rune) bool {
	return r == ' ' || r >= '\t' && r <= '\r' || r == 0
}

// applyCommand is +x, -x, +x|y, -x|y, +@c, -@c and +x|first-argument.
func (s *Selector) applyCommand(c *Catalog, name string, allow bool) error {
	if category, ok := strings.CutPrefix(name, "@"); ok {
		return s.setCategory(c, category, allow)
	}
	if id, ok := c.Find(name); ok {
		s.set(c, id, allow)
		return nil
	}
	last := strings.LastIndexByte(name, '|')
	if !allow || last < 0 {
		return errUnknown
	}
	arg := name[last+1:]
	id, ok := c.Find(name[:last])
	switch {
	case !ok:
		return errUnknown
	case c.entries[id].parent >= 0:
		return errFirstArg
	case arg == "" || strings.ContainsFunc(arg, blank):
		return errSyntax
	case len(c.entries[id].subs) > 0:
		return errUnknown
	}
	if s.has(id) { // allowed with any
		return nil
	}
	if s.firstArgs == nil {
		s.firstArgs = make(map[ID][]string)
	}
	same := func(other string) bool { return strings.EqualFold(other, arg) }
	if !slices.ContainsFunc(s.firstArgs[id], same) {
		s.firstArgs[id] = append(s.firstArgs[id], arg)
	}
	return nil
}
