package glob

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// slowMatch is Redis 7.0's definition, recursive as there: the right answer
// without any bound on the time it takes.
func slowMatch(p, s string) bool {
	for len(p) > 0 && len(s) > 0 {
		switch p[0] {
		case '*':
			for len(p) > 1 && p[1] == '*' {
				p = p[1:]
			}
			if len(p) == 1 {
				return true
			}
			for ; len(s) > 0; s = s[1:] {
				if slowMatch(p[1:], s) {
					return true
				}
			}
			return false
		case '?':
			p, s = p[1:], s[1:]
		case '[':
			hit, rest := slowClass(p[1:], s[0])
			if !hit {
				return false
			}
			p, s = rest, s[1:]
		default:
			if p[0] == '\\' && len(p) > 1 {
				p = p[1:]
			}
			if p[0] != s[0] {
				return false
			}
			p, s = p[1:], s[1:]
		}
		if len(s) == 0 {
			p = strings.TrimLeft(p, "*")
			break
		}
	}
	return p == "" && s == ""
}

// slowClass judges c by the class at the front of p and returns what follows it.
func slowClass(p string, c byte) (hit bool, rest string) {
	negated := strings.HasPrefix(p, "^")
	p = strings.TrimPrefix(p, "^")
	for p != "" && p[0] != ']' {
		switch {
		case p[0] == '\\' && len(p) >= 2:
			hit = hit || p[1] == c
			p = p[2:]
		case len(p) >= 3 && p[1] == '-':
			hit = hit || min(p[0], p[2]) <= c && c <= max(p[0], p[2])
			p = p[3:]
		default:
			hit = hit || p[0] == c
			p = p[1:]
		}
	}
	if p != "" {
		p = p[1:]
	}
	return hit != negated, p
}

func TestGlobMatchesAsTheRecursiveDefinition(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	random := func(alphabet string, n int) string {
		b := make([]byte, rng.IntN(n))
		for i := range b {
			b[i] = alphabet[rng.IntN(len(alphabet))]
		}
		return string(b)
	}
	matched := 0
	for range 200000 {
		p, s := random(`**?[]^-\abc`, 9), random(`ab]c-^\[`, 7)
		want := slowMatch(p, s) || p == "*"
		got, err := Compile([]byte(p)).Match([]byte(s))
		if got != want || err != nil {
			t.Fatalf("seed %d: %q against %q: got %v, %v; want %v", seed, p, s, got, err, want)
		}
		if got {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("seed %d: only %d of the random pairs match; the test proves little", seed, matched)
	}
}

// A matcher that tries every split would still be here at the end of the universe.
func TestGlobWithManyStarsEnds(t *testing.T) {
	key := []byte(strings.Repeat("a", 64<<10))
	for _, p := range []string{
		strings.Repeat("*a", 30) + "*b",
		strings.Repeat("a*", 1000) + "b",
		strings.Repeat("*", 1000) + "b",
		strings.Repeat("*?", 1000) + "b",
	} {
		ok, err := Compile([]byte(p)).Match(key)
		if ok || err != nil {
			t.Errorf("%.20q...: %v, %v", p, ok, err)
		}
	}
}

func TestGlobRefusesWhatCostsTooMuch(t *testing.T) {
	key := []byte(strings.Repeat("a", 64<<10))
	pattern := "*" + strings.Repeat("a", 32<<10) + "b"
	if _, err := Compile([]byte(pattern)).Match(key); err != ErrCost {
		t.Errorf("got %v, want %v", err, ErrCost)
	}
}
