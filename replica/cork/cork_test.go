package cork

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

// bottle counts how often it was let go.
type bottle struct{ pulled atomic.Int32 }

func (b *bottle) Uncork() { b.pulled.Add(1) }

func TestACorkHoldsUntilAnyBurstEnds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var c Cork
		var a, b bottle
		if c.Hold(&a) {
			t.Fatal("held without a burst")
		}
		c.In()
		c.In()
		if !c.Hold(&a) || !c.Hold(&b) || a.pulled.Load()+b.pulled.Load() != 0 {
			t.Fatal("not held in a burst")
		}
		c.Out()
		if a.pulled.Load() != 1 || b.pulled.Load() != 1 {
			t.Errorf("let go %d and %d times at the end of the first burst", a.pulled.Load(), b.pulled.Load())
		}
		if !c.Hold(&a) {
			t.Error("not held in the burst that goes on")
		}
		c.Out()
		if a.pulled.Load() != 2 || b.pulled.Load() != 1 {
			t.Errorf("let go %d and %d times", a.pulled.Load(), b.pulled.Load())
		}
		if c.Hold(&a) {
			t.Error("held after the last burst")
		}
	})
}

func TestACorkHoldsNothingForLong(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var c Cork
		var a bottle
		c.In() // and waits for a disk, say
		for n := range int32(3) {
			if !c.Hold(&a) {
				t.Fatal("not held")
			}
			time.Sleep(Most - 1)
			if synctest.Wait(); a.pulled.Load() != n {
				t.Fatalf("let go %d times, too early", a.pulled.Load())
			}
			time.Sleep(time.Nanosecond)
			if synctest.Wait(); a.pulled.Load() != n+1 {
				t.Fatalf("let go %d times after %v", a.pulled.Load(), Most)
			}
		}
		c.Out()
	})
}

func TestTheNilCorkHoldsNothing(t *testing.T) {
	var c *Cork
	c.In()
	if c.Hold(&bottle{}) {
		t.Error("held")
	}
	c.Out()
}

// Whatever was held is let go, as often as it was held.
func TestACorkForgetsNobody(t *testing.T) {
	var c Cork
	var bottles [8]bottle
	var held [8]atomic.Int32
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 1))
			for range 2000 {
				c.In()
				for range rng.IntN(4) {
					if i := rng.IntN(len(bottles)); c.Hold(&bottles[i]) {
						held[i].Add(1)
					} else {
						t.Error("not held in the own burst")
					}
				}
				c.Out()
			}
		})
	}
	wg.Wait()
	for i := range bottles {
		if got, want := bottles[i].pulled.Load(), held[i].Load(); got != want {
			t.Errorf("%d was let go %d times of %d", i, got, want)
		}
	}
}
