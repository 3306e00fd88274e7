package resp

import (
	"math"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strconv"
	"testing"
)

func TestParseIntTakesOnlyTheCanonicalForm(t *testing.T) {
	canonical := regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)
	check := func(s string) {
		t.Helper()
		want, err := strconv.ParseInt(s, 10, 64)
		wantOK := err == nil && canonical.MatchString(s)
		if got, ok := parseInt([]byte(s)); ok != wantOK || ok && got != want {
			t.Errorf("parseInt(%q) = %d, %v; want %d, %v", s, got, ok, want, wantOK)
		}
	}
	for _, s := range []string{
		"", "-", "0", "-0", "00", "01", "-01", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "a", "1a", "1\x00",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
		"18446744073709551615", "18446744073709551616", "99999999999999999999", "9999999999999999999",
		"-9999999999999999999", "10000000000000000000", "-", "--1", "1-1",
	} {
		check(s)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20000 {
		b := make([]byte, rng.IntN(22))
		for i := range b {
			b[i] = "-+0123456789 "[rng.IntN(13)]
		}
		check(string(b))
		check(strconv.FormatInt(int64(rng.Uint64())>>rng.IntN(64), 10))
	}
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

func TestParseCursorTakesSixtyFourBits(t *testing.T) {
	for _, c := range []struct {
		in   string
		want uint64
		ok   bool
	}{
		{"0", 0, true}, {"", 0, true}, {"007", 7, true},
		{"18446744073709551615", math.MaxUint64, true},
		{"18446744073709551616", 0, false}, {"99999999999999999999", 0, false},
		{"a", 0, false}, {"1a", 0, false}, {" 1", 0, false}, {"1 ", 0, false}, {"0x0", 0, false},
	} {
		if got, ok := parseCursor([]byte(c.in)); got != c.want && c.ok || ok != c.ok {
			t.Errorf("parseCursor(%q) = %d, %v; want %d, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

// The model says in big integers what an index means.
func TestClampRangeIsTheRangeOfRedis(t *testing.T) {
	model := func(start, end int64, n int) (int, int) {
		if start < 0 && end < 0 && start > end {
			return 0, 0
		}
		place := func(i int64) *big.Int {
			at := big.NewInt(i)
			if i < 0 {
				at.Add(at, big.NewInt(int64(n)))
			}
			if at.Sign() < 0 {
				at.SetInt64(0)
			}
			return at
		}
		from, to := place(start), place(end)
		if last := big.NewInt(int64(n - 1)); to.Cmp(last) > 0 {
			to = last
		}
		if n == 0 || from.Cmp(to) > 0 {
			return 0, 0
		}
		return int(from.Int64()), int(to.Int64()) + 1
	}
	edges := []int64{math.MinInt64, math.MinInt64 + 1, -12, -11, -10, -2, -1, 0, 1, 2, 9, 10, 11, math.MaxInt64 - 1, math.MaxInt64}
	for _, n := range []int{0, 1, 2, 10, 11} {
		for _, start := range edges {
			for _, end := range edges {
				from, to := clampRange(start, end, n)
				wantFrom, wantTo := model(start, end, n)
				if to-from != wantTo-wantFrom || to > from && from != wantFrom {
					t.Errorf("clampRange(%d, %d, %d) = %d, %d; want %d, %d", start, end, n, from, to, wantFrom, wantTo)
				}
			}
		}
	}
}

func FuzzClampRangeStaysInside(f *testing.F) {
	f.Add(int64(-1), int64(5), uint16(3))
	f.Fuzz(func(t *testing.T, start, end int64, n uint16) {
		if from, to := clampRange(start, end, int(n)); from < 0 || from > to || to > int(n) {
			t.Errorf("clampRange(%d, %d, %d) = %d, %d", start, end, n, from, to)
		}
	})
}
