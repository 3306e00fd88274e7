package acl

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// Default is the name of the user that a connection has before it logs in.
const Default = "default"

// A Digest is all that is kept of a password.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// parseDigest reads 64 digits, without capitals as in Redis.
func parseDigest(text string) (d Digest, err error) {
	if len(text) != 2*len(d) || text != strings.ToLower(text) {
		return d, errDigest
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return d, errDigest
	}
	return d, nil
}

// sanitize is a flag that users of Redis have. RESTORE looks at what it is given
// whatever it says.
type sanitize uint8

const (
	sanitizeUnsaid sanitize = iota
	sanitizeSkip
	sanitizeAlways
)

// User is a name with its passwords and selectors. It is never changed; With makes
// another.
type User struct {
	name      string
	serial    uint64 // of two users of one name, the later has the higher
	enabled   bool
	noPass    bool
	sanitize  sanitize
	digests   []Digest
	selectors []*Selector // the first is the root
}

// newUser may do nothing, and may not log in.
func newUser(c *Catalog, name string, serial uint64) *User {
	return &User{name: name, serial: serial, selectors: []*Selector{newSelector(c)}}
}

// Name is the user's name.
func (u *User) Name() string { return u.name }

// Same reports whether v is this user, before or after changes of its rules, and not
// one that was given the name anew.
func (u *User) Same(v *User) bool { return v != nil && u.name == v.name && u.serial == v.serial }

// Enabled reports whether the user may log in.
func (u *User) Enabled() bool { return u.enabled }

// Open reports whether everybody is let in as this user.
func (u *User) Open() bool { return u.enabled && u.noPass }

// NoPass reports whether any password is right.
func (u *User) NoPass() bool { return u.noPass }

// Digests are those of the passwords.
func (u *User) Digests() []Digest { return u.digests }

// Root is the selector that plain rules fill.
func (u *User) Root() *Selector { return u.selectors[0] }

// Extra are the selectors in parentheses.
func (u *User) Extra() []*Selector { return u.selectors[1:] }

// Flags are the words for what is no selector and no password.
func (u *User) Flags() []string {
	flags := []string{"off"}
	if u.enabled {
		flags[0] = "on"
	}
	if u.noPass {
		flags = append(flags, "nopass")
	}
	switch u.sanitize {
	case sanitizeSkip:
		flags = append(flags, "skip-sanitize-payload")
	case sanitizeAlways:
		flags = append(flags, "sanitize-payload")
	}
	return flags
}

// Admits reports whether the secret lets the user in. It takes as long for a wrong
// one as for the right one, whichever of the passwords it is; a nil user takes its
// time too.
func (u *User) Admits(secret []byte) bool {
	given := Digest(sha256.Sum256(secret))
	if u == nil {
		return subtle.ConstantTimeCompare(given[:], make([]byte, len(given))) == 2
	}
	right := 0
	for i := range u.digests {
		right |= subtle.ConstantTimeCompare(given[:], u.digests[i][:])
	}
	return u.enabled && (u.noPass || right == 1)
}

// A RuleError says which rule is at fault.
type RuleError struct {
	Rule string
	// Unmatched is set for a parenthesis without its other half: Rule begins there.
	Unmatched bool
	Err       error
}

func (e *RuleError) Error() string {
	if e.Unmatched {
		return "Unmatched parenthesis in acl selector starting at '" + clip(e.Rule) + "'."
	}
	return "Error in ACL SETUSER modifier '" + clip(e.Rule) + "': " + e.Err.Error()
}

// shownBytes is how much of a rule an error repeats.
const shownBytes = 128

func clip(rule string) string {
	if len(rule) > shownBytes {
		return rule[:shownBytes] + "..."
	}
	return rule
}

func (e *RuleError) Unwrap() error { return e.Err }

// Unknown reports whether the rule names a command or category that is not there.
func (e *RuleError) Unknown() bool { return errors.Is(e.Err, errUnknown) }

// With is the user after rules, or the fault of the first that cannot be applied.
func (u *User) With(c *Catalog, rules []string) (*User, error) {
	size := 0
	for _, rule := range rules {
		if size += len(rule) + 1; size > 2*MaxRules { // some may take others back
			return nil, &RuleError{Rule: rule, Err: errTooLong}
		}
	}
	rules, err := joined(rules)
	if err != nil {
		return nil, err
	}
	next := *u
	next.digests = slices.Clone(u.digests)
	next.selectors = slices.Clone(u.selectors)
	next.selectors[0] = u.Root().clone()
	for _, rule := range rules {
		if err := next.apply(c, rule); err != nil {
			return nil, &RuleError{Rule: rule, Err: err}
		}
	}
	if next.bytes() > MaxRules {
		return nil, &RuleError{Rule: rules[len(rules)-1], Err: errTooLong}
	}
	return &next, nil
}

// joined puts selectors that came in several words together.
func joined(words []string) ([]string, error) {
	var out []string
	for i := 0; i < len(words); i++ {
		rule := words[i]
		if strings.HasPrefix(rule, "(") {
			from := i
			for !strings.HasSuffix(words[i], ")") {
				if i++; i == len(words) {
					return nil, &RuleError{Rule: rule, Unmatched: true}
				}
			}
			rule = strings.Join(words[from:i+1], " ")
		}
		out = append(out, rule)
	}
	return out, nil
}

// MaxRules bounds what the rules of one user take, in bytes.
const MaxRules = 1 << 20

// MaxPatterns is how many patterns of keys a selector may have, and of channels.
const MaxPatterns = 10_000

// bytes is about what the rules take.
func (u *User) bytes() (n int) {
	n = len(u.digests) * (2*sha256.Size + 2)
	for _, s := range u.selectors {
		n += 8 * len(s.bits)
		for _, p := range slices.Concat(s.keys, s.channels) {
			n += len(p.text) + len("%RW~ ")
		}
		for _, args := range s.firstArgs {
			for _, arg := range args {
				n += nameBytes + len(arg)
			}
		}
	}
	return n
}

// nameBytes is about what the name of a command takes in a rule.
const nameBytes = 16

// apply changes the user by one rule. Requires: nobody else has it, nor its root.
func (u *User) apply(c *Catalog, rule string) error {
	switch strings.ToLower(rule) {
	case "on", "off":
		u.enabled = strings.EqualFold(rule, "on")
	case "nopass":
		u.noPass, u.digests = true, nil
	case "resetpass":
		u.noPass, u.digests = false, nil
	case "skip-sanitize-payload":
		u.sanitize = sanitizeSkip
	case "sanitize-payload":
		u.sanitize = sanitizeAlways
	case "clearselectors":
		u.selectors = u.selectors[:1:1]
	case "reset":
		*u = *newUser(c, u.name, u.serial)
		u.sanitize = sanitizeAlways
	default:
		return u.applyMarked(c, rule)
	}
	return nil
}

// applyMarked is apply for rules that are told by their first byte.
func (u *User) applyMarked(c *Catalog, rule string) error {
	if rule == "" {
		return nil
	}
	switch rule[0] {
	case '>':
		u.addDigest(sha256.Sum256([]byte(rule[1:])))
	case '<':
		return u.removeDigest(sha256.Sum256([]byte(rule[1:])))
	case '#', '!':
		d, err := parseDigest(rule[1:])
		if err != nil {
			return err
		}
		if rule[0] == '!' {
			return u.removeDigest(d)
		}
		u.addDigest(d)
	case '(':
		return u.addSelector(c, rule[1:len(rule)-1])
	default:
		return u.Root().apply(c, rule)
	}
	return nil
}

func (u *User) addDigest(d Digest) {
	u.noPass = false
	if !slices.Contains(u.digests, d) {
		u.digests = append(u.digests, d)
	}
}

func (u *User) removeDigest(d Digest) error {
	at := slices.Index(u.digests, d)
	if at < 0 {
		return errNoPassword
	}
	u.digests = slices.Delete(u.digests, at, at+1)
	return nil
}

func (u *User) addSelector(c *Catalog, rules string) error {
	s := newSelector(c)
	for rule := range strings.SplitSeq(rules, " ") {
		if strings.HasSuffix(rule, ")") { // read from a file it would end the selector
			return errSyntax
		}
		if err := s.apply(c, rule); err != nil {
			return err
		}
	}
	u.selectors = append(u.selectors, s)
	return nil
}
