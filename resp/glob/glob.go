// Package glob is the kernel that matches names with the patterns of Redis: `*`,
// `?`, `[a-z]`, `[^x]` and backslash. A match costs at most a bounded number of
// steps, whatever the pattern.
package glob

import "errors"

// ErrCost refuses a pattern whose match would take longer than any key is
// worth (see Steps).
var ErrCost = errors.New("glob: pattern is too expensive")

// Steps bounds the work of matching one key. Redis matched recursively and
// could be stopped for hours by a row of stars (CVE-2022-36021); the matcher
// here is at worst pattern times key, and past this bound the command is
// refused instead of the key being silently left out.
const Steps = 1 << 24

// Kinds of token; anyRun is the one that matches any run of bytes.
const (
	oneByte = iota
	anyByte
	classByte
	anyRun
)

// token is one step of a compiled pattern: a byte, any byte, a class of
// bytes, or a star.
type token struct {
	kind  uint8
	b     byte
	class *[4]uint64
}

// A Pattern is compiled, and not changed any more.
type Pattern struct {
	tokens []token
	all    bool // the pattern is exactly "*"
}

// Compile reads a pattern the way Redis 7.0 does, which accepts every byte
// string: an unclosed class ends with the pattern, a lone "[" matches nothing,
// a trailing backslash is itself, and in "[a-]" the bracket is the end of the
// range. Runs of stars become one.
func Compile(pattern []byte) *Pattern {
	g := &Pattern{all: len(pattern) == 1 && pattern[0] == '*'}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			if n := len(g.tokens); n == 0 || g.tokens[n-1].kind != anyRun {
				g.tokens = append(g.tokens, token{kind: anyRun})
			}
		case '?':
			g.tokens = append(g.tokens, token{kind: anyByte})
		case '[':
			class, next := compileClass(pattern, i+1)
			g.tokens = append(g.tokens, token{kind: classByte, class: class})
			i = next
		default:
			if c == '\\' && i+1 < len(pattern) {
				i++
				c = pattern[i]
			}
			g.tokens = append(g.tokens, token{kind: oneByte, b: c})
		}
	}
	return g
}

// compileClass reads a class whose bracket is just before i and returns it with
// the index of its last byte: the closing bracket, or the end of the pattern.
// Bytes compare as unsigned.
func compileClass(p []byte, i int) (class *[4]uint64, last int) {
	class = new([4]uint64)
	negated := i < len(p) && p[i] == '^'
	if negated {
		i++
	}
	for ; i < len(p) && p[i] != ']'; i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			i++
			addRange(class, p[i], p[i])
		case i+2 < len(p) && p[i+1] == '-':
			addRange(class, min(p[i], p[i+2]), max(p[i], p[i+2]))
			i += 2
		default:
			addRange(class, p[i], p[i])
		}
	}
	if negated {
		for w := range class {
			class[w] = ^class[w]
		}
	}
	return class, min(i, len(p)-1)
}

// addRange puts the bytes lo..hi into a class.
func addRange(class *[4]uint64, lo, hi byte) {
	for c := int(lo); c <= int(hi); c++ {
		class[c>>6] |= 1 << (c & 63)
	}
}

// Match says whether the whole of s fits the pattern. Only the last star ever
// needs another try: what an earlier star matched longer, the later one can
// match too, so there is no recursion and the cost is bounded by the product of
// the lengths.
func (g *Pattern) Match(s []byte) (bool, error) {
	if g.all {
		return true, nil
	}
	if len(s) == 0 {
		// Redis compares nothing with an empty string: "**" does not match it.
		return len(g.tokens) == 0, nil
	}
	t, i := 0, 0               // next token, next byte
	starToken, starAt := -1, 0 // last star, where it stops matching
	for steps := 0; i < len(s); steps++ {
		if steps > Steps {
			return false, ErrCost
		}
		switch {
		case t < len(g.tokens) && g.tokens[t].kind == anyRun:
			if t == len(g.tokens)-1 {
				return true, nil
			}
			starToken, starAt = t, i
			t++
		case t < len(g.tokens) && g.tokens[t].accepts(s[i]):
			t++
			i++
		case starToken >= 0:
			starAt++
			t, i = starToken+1, starAt
		default:
			return false, nil
		}
	}
	for t < len(g.tokens) && g.tokens[t].kind == anyRun {
		t++
	}
	return t == len(g.tokens), nil
}

// accepts says whether a token that stands for one byte accepts c.
func (t token) accepts(c byte) bool {
	switch t.kind {
	case oneByte:
		return t.b == c
	case anyByte:
		return true
	default:
		return t.class[c>>6]&(1<<(c&63)) != 0
	}
}

// All reports whether the pattern is a star alone, so that nothing need be compared.
func (g *Pattern) All() bool { return g.all }

// MatchName is Match, except that a star does not stand for the name without
// bytes: so Redis has it for channels and in rules of access; for keys it does.
func (g *Pattern) MatchName(name []byte) (bool, error) {
	if g.all && len(name) == 0 {
		return false, nil
	}
	return g.Match(name)
}
