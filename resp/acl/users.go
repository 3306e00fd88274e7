package acl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxUsers is how many users there may be.
const MaxUsers = 10000

// Faults of whole users and files.
const (
	ErrName     fault = "Usernames can't contain spaces or null characters"
	ErrDefault  fault = "The 'default' user cannot be removed"
	ErrTooMany  fault = "Too many users for the limit of this server"
	errLoadNone       = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
)

// Users is the set of all users, the default user among them. It is never changed;
// With, Without and Load make other sets.
type Users struct {
	catalog *Catalog
	byName  map[string]*User
	serial  uint64 // the highest given
}

// NewUsers has the default user alone, who may do everything; rules are applied to it.
func NewUsers(c *Catalog, rules ...string) (*Users, error) {
	us := &Users{catalog: c, byName: map[string]*User{}}
	first, err := newUser(c, Default, 0).With(c, append([]string{"+@all", "~*", "&*", "on", "nopass"}, rules...))
	if err != nil {
		return nil, err
	}
	us.byName[Default] = first
	return us, nil
}

// Catalog is what the rules of these users speak of.
func (us *Users) Catalog() *Catalog { return us.catalog }

// Find returns a user, or nil.
func (us *Users) Find(name string) *User { return us.byName[name] }

// Default is the user of a connection that has not logged in.
func (us *Users) Default() *User { return us.byName[Default] }

// Names lists all users in order.
func (us *Users) Names() []string { return slices.Sorted(maps.Keys(us.byName)) }

// With is the set after rules for one user, who may be new.
func (us *Users) With(name string, rules []string) (*Users, error) {
	if !validName(name) {
		return nil, ErrName
	}
	next := us.clone()
	u := next.byName[name]
	if u == nil {
		if len(next.byName) >= MaxUsers {
			return nil, ErrTooMany
		}
		next.serial++
		u = newUser(us.catalog, name, next.serial)
	}
	changed, err := u.With(us.catalog, rules)
	if err != nil {
		return nil, err
	}
	next.byName[name] = changed
	return next, nil
}

func (us *Users) clone() *Users {
	return &Users{catalog: us.catalog, byName: maps.Clone(us.byName), serial: us.serial}
}

// validName reports whether a name would come back whole from a file.
func validName(name string) bool { return name != "" && !strings.ContainsFunc(name, blank) }

// Without is the set without some users, and how many of them there were.
func (us *Users) Without(names []string) (next *Users, gone int, err error) {
	if slices.Contains(names, Default) {
		return nil, 0, ErrDefault
	}
	next = us.clone()
	for _, name := range names {
		if next.byName[name] != nil {
			delete(next.byName, name)
			gone++
		}
	}
	return next, gone, nil
}

// Text is a file that Load makes the same users of.
func (us *Users) Text() string {
	var b strings.Builder
	for _, line := range us.Lines() {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// Lines describe all users in order, as a file does.
func (us *Users) Lines() []string {
	var lines []string
	for _, name := range us.Names() {
		lines = append(lines, "user "+name+" "+us.byName[name].Rules(us.catalog))
	}
	return lines
}

// Load is the set that a file describes, or all faults of the file. The users of
// the file are new ones, but for the default user; where it has none, that is first.
// file names the file in faults.
func (us *Users) Load(text, file string, first *User) (*Users, error) {
	next := &Users{catalog: us.catalog, byName: map[string]*User{}, serial: us.serial}
	var faults []string
	for i, line := range strings.Split(text, "\n") {
		words := strings.FieldsFunc(line, blank)
		if len(words) == 0 {
			continue
		}
		if fault := next.loadLine(words); fault != "" {
			faults = append(faults, fmt.Sprintf("%s:%d%s.", file, i+1, fault))
		}
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(append(faults, errLoadNone), " "))
	}
	if next.byName[Default] == nil {
		next.byName[Default] = first
	}
	return next, nil
}

// loadLine adds the user of a line, or says what is wrong with it.
func (us *Users) loadLine(words []string) (fault string) {
	if words[0] != "user" || len(words) < 2 {
		return " should start with user keyword followed by the username"
	}
	name := words[1]
	switch {
	case us.byName[name] != nil:
		return ": Duplicate user '" + name + "'"
	case len(us.byName) >= MaxUsers:
		return ": " + ErrTooMany.Error()
	}
	serial := uint64(0)
	if name != Default {
		us.serial++
		serial = us.serial
	}
	u, err := newUser(us.catalog, name, serial).With(us.catalog, words[2:])
	var rule *RuleError
	switch {
	case errors.As(err, &rule) && rule.Unmatched:
		return ": Unmatched parenthesis in selector definition"
	case errors.As(err, &rule) && rule.Unknown():
		return ": Error in applying operation '" + rule.Rule + "': " + rule.Err.Error()
	case errors.As(err, &rule):
		return ": " + rule.Err.Error()
	}
	us.byName[name] = u
	return ""
}
