package version

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// units is the slow obvious form of an Amount.
func units(a Amount) *big.Int {
	n := new(big.Int).SetUint64(a.hi)
	n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(a.lo))
	if a.negative() {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	return n
}

func TestAmountsAddLikeUnboundedNumbers(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	wrap := new(big.Int).Lsh(big.NewInt(1), 128)
	equal := func(a Amount, want *big.Int) bool {
		return new(big.Int).Mod(new(big.Int).Sub(units(a), want), wrap).Sign() == 0
	}
	draw := func() Amount {
		switch rnd.IntN(4) {
		case 0:
			return wholeAmount(int64(rnd.Uint64()) >> rnd.IntN(64))
		case 1:
			return wholeAmount([]int64{math.MinInt64, math.MaxInt64, 0, 1, -1}[rnd.IntN(5)])
		}
		return Amount{rnd.Uint64() >> rnd.IntN(64), rnd.Uint64()}
	}
	for range 20_000 {
		a, b := draw(), draw()
		if sum := new(big.Int).Add(units(a), units(b)); !equal(a.plus(b), sum) {
			t.Fatalf("seed %d: %v + %v = %v", seed, units(a), units(b), units(a.plus(b)))
		}
		if a.plus(b).minus(b) != a {
			t.Fatalf("seed %d: %v and %v", seed, a, b)
		}
		d := decoder{b: appendAmount(nil, a)}
		if got := d.amount(); got != a || !d.done() {
			t.Fatalf("seed %d: %v came back as %v", seed, a, got)
		}
		checkText(t, seed, a)
	}
}

// checkText demands that an amount reads as the fraction that it is.
func checkText(t *testing.T, seed uint64, a Amount) {
	t.Helper()
	text := string(a.append(nil))
	got, ok := new(big.Rat).SetString(text)
	want := new(big.Rat).SetFrac(units(a), big.NewInt(amountOne))
	if !ok || got.Cmp(want) != 0 || text == "-0" {
		t.Fatalf("seed %d: %v reads %q", seed, want, text)
	}
	if n, whole := a.whole(); whole != (want.IsInt() && want.Num().IsInt64()) || whole && want.Num().Int64() != n {
		t.Fatalf("seed %d: %v is whole: %v, %d", seed, want, whole, n)
	}
}

func TestNumbersAreReadAsRedisReadsThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0": "0", "-0": "0", "10": "10", "-7": "-7", "9223372036854775807": "9223372036854775807",
		"-9223372036854775808": "-9223372036854775808", "+5": "5", "007": "7", "3.0": "3", ".5": "0.5", "5.": "5",
		"1e2": "100", "1E2": "100", "-1.5e-3": "-0.0015", "0.1": "0.1", "1e-17": "0.00000000000000001", "1e-18": "0",
		"3.3333333333333333333": "3.33333333333333333", "0x10": "16", "0x1p3": "8", "0xap0": "10", "1e-4000": "0",
		"99999999999999999999": "100000000000000000000", "-1e20": "-100000000000000000000",
	} {
		if a, ok := amountOf([]byte(text)); !ok || string(a.append(nil)) != want {
			t.Errorf("%q: %s, %v, want %s", text, a.append(nil), ok, want)
		}
	}
	long := "1"
	for len(long) < amountText {
		long += "0"
	}
	for _, text := range []string{"", " 1", "1 ", "a", "1a", "--1", "+-1", "+", "-", ".", "e5", "1e", "1e+", "1_000", "0b1", "0o7", "0x", "nan", "NaN",
		"inf", "-Infinity", "1e5000", "1e-5000", "1e-3000000000", "1e99999999999999999999", "1e300", "1e21", "1\x00", long, "١"} {
		if a, ok := amountOf([]byte(text)); ok {
			t.Errorf("%q is the number %s", text, a.append(nil))
		}
	}
	for text, want := range map[string]bool{"0": true, "-1": true, "10": true, "01": false, "-0": false, "+1": false, "": false, "-": false,
		"9223372036854775808": false, "-9223372036854775809": false, "1.0": false, "-9223372036854775808": true, " 1": false, "-01": false} {
		if _, ok := ParseWhole([]byte(text)); ok != want {
			t.Errorf("%q is an integer: %v", text, ok)
		}
	}
}
