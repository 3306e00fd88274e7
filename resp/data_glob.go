package resp

import "errors"

// errGlobCost refuses a pattern whose match would take longer than any key is
// worth (see globSteps).
var errGlobCost = errors.New("resp: pattern is too expensive")

// globSteps bounds the work of matching one key. Redis matched recursively and
// could be stopped for hours by a row of stars (CVE-2022-36021); the matcher
// here is at worst pattern times key, and past this bound the command is
// refused instead of the key being silently left out.
const globSteps = 1 << 24

// Kinds of globToken; globStar is the one that matches any run of bytes.
const (
	globByte = iota
	globAny
	globClass
	globStar
)

// globToken is one step of a compiled pattern: a byte, any byte, a class of
// bytes, or a star.
type globToken struct {
	kind  uint8
	b     byte
	class *[4]uint64
}

// glob is a compiled pattern of Redis: `*`, `?`, `[a-z]`, `[^x]` and backslash.
type glob struct {
	tokens []globToken
	all    bool // the pattern is exactly "*"
}

// compileGlob reads a pattern the way Redis 7.0 does, which accepts every byte
// string: an unclosed class ends with the pattern, a lone "[" matches nothing,
// a trailing backslash is itself, and in "[a-]" the bracket is the end of the
// range. Runs of stars become one.
func compileGlob(pattern []byte) *glob {
	g := &glob{all: len(pattern) == 1 && pattern[0] == '*'}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			if n := len(g.tokens); n == 0 || g.tokens[n-1].kind != globStar {
				g.tokens = append(g.tokens, globToken{kind: globStar})
			}
		case '?':
			g.tokens = append(g.tokens, globToken{kind: globAny})
		case '[':
			class, next := compileClass(pattern, i+1)
			g.tokens = append(g.tokens, globToken{kind: globClass, class: class})
			i = next
		default:
			if c == '\\' && i+1 < len(pattern) {
				i++
				c = pattern[i]
			}
			g.tokens = append(g.tokens, globToken{kind: globByte, b: c})
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

// match says whether the whole of s fits the pattern. Only the last star ever
// needs another try: what an earlier star matched longer, the later one can
// match too, so there is no recursion and the cost is bounded by the product of
// the lengths.
func (g *glob) match(s []byte) (bool, error) {
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
		if steps > globSteps {
			return false, errGlobCost
		}
		switch {
		case t < len(g.tokens) && g.tokens[t].kind == globStar:
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
	for t < len(g.tokens) && g.tokens[t].kind == globStar {
		t++
	}
	return t == len(g.tokens), nil
}

// accepts says whether a token that stands for one byte accepts c.
func (t globToken) accepts(c byte) bool {
	switch t.kind {
	case globByte:
		return t.b == c
	case globAny:
		return true
	default:
		return t.class[c>>6]&(1<<(c&63)) != 0
	}
}
