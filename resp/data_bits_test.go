package resp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// slowRange lists the places of the bits of a range, one by one.
func slowRange(n int, r bitRange) (at []int64) {
	unit := int64(8)
	if r.inBits {
		unit = 1
	}
	total := int64(n) * 8 / unit
	from, to := r.from, r.to
	if from < 0 {
		from += total
	}
	if to < 0 {
		to += total
	}
	for i := range int64(n) * 8 {
		if i/unit >= from && i/unit <= max(to, 0) {
			at = append(at, i)
		}
	}
	return at
}

func TestBitsAreCountedAndFoundAsOneByOne(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		value := make([]byte, rnd.IntN(5))
		for i := range value {
			value[i] = [...]byte{0, 0xff, 0x10, 0xfe, 1}[rnd.IntN(5)]
		}
		r := bitRange{from: int64(rnd.IntN(80) - 40), to: int64(rnd.IntN(80) - 40), given: true, inBits: rnd.IntN(2) == 0}
		wanted := byte(rnd.IntN(2))
		count, first := int64(0), int64(-1)
		for _, at := range slowRange(len(value), r) {
			count += int64(bitAt(value, at))
			if first < 0 && bitAt(value, at) == wanted {
				first = at
			}
		}
		if got := countBits(value, r); got != count {
			t.Fatalf("seed %d: %x has %d bits in %+v, not %d", seed, value, count, r, got)
		}
		if got := findBit(value, wanted, r); got != first {
			t.Fatalf("seed %d: the first %d of %x in %+v is at %d, not %d", seed, wanted, value, r, first, got)
		}
	}
}

// slowLCS is the length of a longest common subsequence by definition.
func slowLCS(a, b []byte) int {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	if a[0] == b[0] {
		return 1 + slowLCS(a[1:], b[1:])
	}
	return max(slowLCS(a[1:], b), slowLCS(a, b[1:]))
}

func isSubsequence(part, of []byte) bool {
	for _, c := range of {
		if len(part) > 0 && part[0] == c {
			part = part[1:]
		}
	}
	return len(part) == 0
}

func TestLCSIsCommonAndLongest(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		a, b := make([]byte, rnd.IntN(9)), make([]byte, rnd.IntN(9))
		for _, s := range [][]byte{a, b} {
			for i := range s {
				s[i] = "abc"[rnd.IntN(3)]
			}
		}
		l := newLCS(a, b)
		if text := l.text(); len(text) != l.length || l.length != slowLCS(a, b) || !isSubsequence(text, a) || !isSubsequence(text, b) {
			t.Fatalf("seed %d: of %s and %s: %s, %d", seed, a, b, text, l.length)
		}
	}
}

func TestWorkOfOneCommandIsBounded(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.line("SET a " + strings.Repeat("x", 4095))
	c.line("SET b " + strings.Repeat("x", 4095))
	if got := c.line("LCS a b LEN"); got != ":4095\r\n" {
		t.Errorf("got %q", got)
	}
	c.line("APPEND b x")
	for _, option := range []string{"", " LEN", " IDX"} {
		if got := c.line("LCS a b" + option); got != "-"+errLCSSize+"\r\n" {
			t.Errorf("%q: got %q", option, got)
		}
	}
	most := strings.Repeat(" GET u8 0", defaultMaxFields)
	if got := c.line("BITFIELD_RO a" + most); !strings.HasPrefix(got, fmt.Sprintf("*%d\r\n", defaultMaxFields)) {
		t.Errorf("got %.80q", got)
	}
	if got := c.line("BITFIELD_RO a" + most + " GET u8 0"); !strings.HasPrefix(got, "-ERR more than 16384 operations in one BITFIELD") {
		t.Errorf("got %.80q", got)
	}
}
