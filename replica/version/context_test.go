package version

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Contexts over a few actors and small counters, against sets spelled out.
func TestContextIsASetOfDots(t *testing.T) {
	t.Parallel()
	const actors, counters = 3, 12
	universe := []Dot{}
	for a := range Actor(actors) {
		for n := range uint64(counters) {
			universe = append(universe, Dot{a, n + 1})
		}
	}
	for seed := uint64(1); seed <= 3000; seed++ {
		rng := rand.New(rand.NewPCG(seed, 3))
		random := func() (Context, events) {
			c, e := Context(nil), events{}
			for range rng.IntN(30) {
				d := universe[rng.IntN(len(universe))]
				if rng.IntN(4) == 0 {
					c, e[d] = c.Without(d), false
				} else {
					c, e[d] = c.Add(d), true
				}
			}
			return c, e
		}
		a, as := random()
		b, bs := random()
		union := a.Union(b)
		checkCanonical(t, seed, a)
		checkCanonical(t, seed, union)
		covers, dots := true, uint64(0)
		for _, d := range universe {
			if a.Contains(d) != as[d] || union.Contains(d) != (as[d] || bs[d]) {
				t.Fatalf("seed %d: %v in %v: want %v; in union %v: want %v", seed, d, a, as[d], union, as[d] || bs[d])
			}
			covers = covers && (as[d] || !bs[d])
			if as[d] {
				dots++
			}
		}
		if a.Covers(b) != covers || a.Dots() != dots {
			t.Fatalf("seed %d: %v covers %v: %v, want %v; %d dots, want %d", seed, a, b, a.Covers(b), covers, a.Dots(), dots)
		}
		if !union.Equal(b.Union(a)) || !union.Covers(a) {
			t.Fatalf("seed %d: union of %v and %v is %v", seed, a, b, union)
		}
	}
}

func checkCanonical(t *testing.T, seed uint64, c Context) {
	t.Helper()
	for i, s := range c {
		if s.Lo < 1 || s.Hi < s.Lo {
			t.Fatalf("seed %d: bad span %v", seed, s)
		}
		if i == 0 {
			continue
		}
		if p := c[i-1]; p.Actor > s.Actor || p.Actor == s.Actor && p.Hi+1 >= s.Lo {
			t.Fatalf("seed %d: spans out of order or not joined: %v", seed, c)
		}
	}
}

func TestContextReachesTheLastCounter(t *testing.T) {
	t.Parallel()
	full := Context{{1, 1, math.MaxUint64}}
	c := Context{{1, 1, math.MaxUint64 - 1}}.Add(Dot{1, math.MaxUint64})
	if !c.Equal(full) || c.Dots() != math.MaxUint64 {
		t.Errorf("got %v with %d dots", c, c.Dots())
	}
	two := full.Union(Context{{2, 5, 5}})
	if two.Dots() != math.MaxUint64 || two.Actors() != 2 {
		t.Errorf("got %d dots of %d actors", two.Dots(), two.Actors())
	}
	if got := full.Without(Dot{1, math.MaxUint64}); !got.Equal(Context{{1, 1, math.MaxUint64 - 1}}) {
		t.Errorf("got %v", got)
	}
}

func TestContextSearchesLongLists(t *testing.T) {
	t.Parallel()
	var c Context
	for a := range Actor(50) {
		c = c.Union(Context{{a, 10, 20}, {a, 30, 40}})
	}
	for a := range Actor(51) {
		for _, n := range []uint64{9, 10, 20, 21, 29, 30, 40, 41} {
			want := a < 50 && (n >= 10 && n <= 20 || n >= 30 && n <= 40)
			if got := c.Contains(Dot{a, n}); got != want {
				t.Errorf("contains %d:%d: %v", a, n, got)
			}
		}
		if top, ok := c.Top(a); ok != (a < 50) || ok && top != (Span{a, 30, 40}) {
			t.Errorf("top of %d: %v %v", a, top, ok)
		}
	}
}

func TestCellsJoinByLaterCommandThenLongerLife(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b, want Cell }{
		{Cell{}, Cell{5, 100}, Cell{5, 100}},
		{Cell{6, 50}, Cell{5, 100}, Cell{6, 50}},
		{Cell{6, 0}, Cell{5, 100}, Cell{6, 0}},
		{Cell{6, 0}, Cell{7, 100}, Cell{7, 100}},
		{Cell{5, 50}, Cell{5, 100}, Cell{5, 100}},
		{Cell{5, 0}, Cell{5, 100}, Cell{5, 0}},
	} {
		if got, back := c.a.Join(c.b), c.b.Join(c.a); got != c.want || back != c.want {
			t.Errorf("%v, %v: got %v and %v, want %v", c.a, c.b, got, back, c.want)
		}
	}
}

func TestHLCKeepsMillisecondsAndSaturates(t *testing.T) {
	t.Parallel()
	if got := HLCFromMS(1_700_000_000_123); got.UnixMS() != 1_700_000_000_123 || got.Next() <= got {
		t.Errorf("got %d", got)
	}
	if HLCFromMS(-5) != 0 || HLCFromMS(math.MaxInt64).UnixMS() != 1<<48-1 {
		t.Error("times out of range are not clamped")
	}
	if top := ^HLC(0); top.Next() != top {
		t.Error("the clock wrapped")
	}
}
