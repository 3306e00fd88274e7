// Package acl is the kernel of access control: who may log in, run which commands
// and touch which keys and channels. It reads the rules of Redis, judges requests by
// them and writes them down again; it does no I/O and draws no randomness.
//
// # Users, selectors, rules
//
// A User has passwords, kept as digests only, and one or more Selectors: the root,
// which its plain rules fill, and those in parentheses. A request is allowed if one
// selector alone allows all of it: the command, every key and every channel. The
// commands of a selector are a set of bits, one for each command and subcommand of a
// Catalog, so that rules apply in the order in which they come and the result is
// written down in few words (describe.go).
//
// # Values
//
// A User, a Selector and Users, the set of them all, are immutable once they are
// published: every change makes new ones. Who holds an old set goes on judging by
// it, so whoever serves requests looks for a new one before each.
//
// Only package resp calls this.
package acl

import (
	"fmt"
	"slices"
	"strings"
)

// A Command is one that rules can name.
type Command struct {
	Name        string   // lower case; of a subcommand the bare word
	Categories  []string // without '@'
	Subcommands []Command
	// Open marks what anybody may ask, or nobody could log in.
	Open bool
	// Twin is the full name of another spelling of the command, or "": a rule about
	// one is about both.
	Twin string
}

// An ID is the place of a command in its catalog.
type ID int

// entry is a command as the catalog has it.
type entry struct {
	full       string
	categories uint64
	open       bool
	parent     ID   // -1 for none
	twin       ID   // -1 for none
	subs       []ID // in the order of their names
}

// A Catalog is what rules can speak of: all commands and categories. It is not
// changed once it is made.
type Catalog struct {
	categories []string
	entries    []entry
	byName     map[string]ID // full names: "get", "config|get"
}

// maxCategories is how many fit into the bits of an entry.
const maxCategories = 64

// NewCatalog makes a catalog. The order of the categories is that in which they are
// tried and shown.
func NewCatalog(categories []string, commands []Command) (*Catalog, error) {
	if len(categories) > maxCategories {
		return nil, fmt.Errorf("acl: %d categories, at most %d", len(categories), maxCategories)
	}
	c := &Catalog{categories: categories, byName: make(map[string]ID)}
	sorted := slices.SortedFunc(slices.Values(commands), func(a, b Command) int { return strings.Compare(a.Name, b.Name) })
	for i := range sorted {
		if err := c.add(&sorted[i], -1); err != nil {
			return nil, err
		}
	}
	for _, cmd := range commands {
		for _, sub := range append(cmd.Subcommands, cmd) {
			if err := c.pair(cmd.Name, &sub); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// pair makes a command, or a subcommand of one, and its twin each the other's.
func (c *Catalog) pair(of string, cmd *Command) error {
	if cmd.Twin == "" {
		return nil
	}
	full := cmd.Name
	if full != of {
		full = of + "|" + cmd.Name
	}
	id := c.byName[full]
	twin, ok := c.byName[cmd.Twin]
	if !ok || twin == id {
		return fmt.Errorf("acl: the twin %q of command %q is not there", cmd.Twin, full)
	}
	c.entries[id].twin, c.entries[twin].twin = twin, id
	return nil
}

func (c *Catalog) add(cmd *Command, parent ID) error {
	e := entry{full: cmd.Name, open: cmd.Open, parent: parent, twin: -1}
	if parent >= 0 {
		e.full = c.entries[parent].full + "|" + cmd.Name
	}
	for _, name := range cmd.Categories {
		bit, ok := c.category(name)
		if !ok {
			return fmt.Errorf("acl: command %q has the unknown category %q", e.full, name)
		}
		e.categories |= bit
	}
	if _, there := c.byName[e.full]; there {
		return fmt.Errorf("acl: command %q is there twice", e.full)
	}
	id := ID(len(c.entries))
	c.entries = append(c.entries, e)
	c.byName[e.full] = id
	if parent >= 0 {
		c.entries[parent].subs = append(c.entries[parent].subs, id)
	}
	sorted := slices.SortedFunc(slices.Values(cmd.Subcommands), func(a, b Command) int { return strings.Compare(a.Name, b.Name) })
	for i := range sorted {
		if err := c.add(&sorted[i], id); err != nil {
			return err
		}
	}
	return nil
}

// category is the bit of a category, by its name in any case.
func (c *Catalog) category(name string) (bit uint64, ok bool) {
	i := slices.Index(c.categories, strings.ToLower(name))
	return 1 << max(i, 0), i >= 0
}

// Find returns a command by its full name in any case: "get", "config|get".
func (c *Catalog) Find(full string) (id ID, ok bool) {
	id, ok = c.byName[strings.ToLower(full)]
	return id, ok
}

// Categories lists all categories.
func (c *Catalog) Categories() []string { return c.categories }

// In lists the commands of a category, by name.
func (c *Catalog) In(category string) (names []string, ok bool) {
	bit, ok := c.category(category)
	if !ok {
		return nil, false
	}
	for i := range c.entries {
		if c.entries[i].categories&bit != 0 {
			names = append(names, c.entries[i].full)
		}
	}
	return names, true
}
