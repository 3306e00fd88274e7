package admission

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/coordinator/admission/share"
	"github.com/redynamo/redynamo/integration/bubble"
)

// clients makes requests at a steady pace until ctx ends, which take what took
// says.
func clients(ctx context.Context, c *Controller, took func() time.Duration) {
	for ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		c.Ended(Client, took())
	}
}

// TestHarmfulWorkGetsLittleAndHarmlessWorkAll has work of 20 ms each, always, that
// makes the requests of clients slower by as much as harm says.
func TestHarmfulWorkGetsLittleAndHarmlessWorkAll(t *testing.T) {
	for _, test := range []struct {
		name        string
		multiple    float64
		harm        time.Duration
		least, most time.Duration // busy, in the last 20 s
	}{
		{"harmless", 1.5, time.Millisecond, 4 * time.Second, 5 * time.Second},
		{"harmful", 1.5, time.Second, 1500 * time.Millisecond, 2500 * time.Millisecond},
		{"harmful, and nobody minds", -1, time.Second, 19 * time.Second, 21 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				c, err := New(Config{Multiple: test.multiple})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				var working atomic.Bool
				var busy atomic.Int64
				var wg sync.WaitGroup
				wg.Go(func() { _ = c.Run(ctx) })
				wg.Go(func() {
					clients(ctx, c, func() time.Duration {
						if working.Load() {
							return 10*time.Millisecond + test.harm
						}
						return 10 * time.Millisecond
					})
				})
				time.Sleep(10 * time.Second)
				wg.Go(func() {
					for {
						end, err := c.Slice(ctx, Send)
						if err != nil {
							return
						}
						working.Store(true)
						time.Sleep(20 * time.Millisecond)
						working.Store(false)
						busy.Add(int64(20 * time.Millisecond))
						end(0)
					}
				})
				time.Sleep(20 * time.Second)
				before := busy.Load()
				time.Sleep(20 * time.Second)
				got := time.Duration(busy.Load() - before)
				if got < test.least || got > test.most {
					t.Errorf("busy for %v of 20 s, want %v to %v; %+v", got, test.least, test.most, c.Status())
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

func TestWithoutClientsAllIsGranted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = c.Run(ctx) }()
		for range 500 {
			if got := c.Grant(Receive, 1<<20); got != 1<<20 {
				t.Fatalf("%d granted", got)
			}
			end := c.Begin(Receive)
			time.Sleep(7 * time.Millisecond)
			end(0)
		}
		cancel()
		synctest.Wait()
	})
}

// TestWorkComesInSmallPiecesWithRestsBetweenThem has work that wants to go on and on,
// also after it had nothing to do for long.
func TestWorkComesInSmallPiecesWithRestsBetweenThem(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, _ := New(Config{})
		c.verdict.Store(&share.Verdict{Share: share.Most})
		const piece = 4 * time.Millisecond
		rest := time.Duration(float64(piece) * (1/share.Most - 1))
		for range 3 {
			time.Sleep(time.Minute)
			var ended time.Time
			for i := range 5 {
				end, err := c.Slice(t.Context(), Exchange)
				if err != nil {
					t.Fatal(err)
				}
				if rested := time.Since(ended); i > 0 && (rested < rest || rested > rest+2*time.Millisecond) {
					t.Errorf("a rest of %v after %v of work, want %v", rested, piece, rest)
				}
				time.Sleep(piece)
				end(0)
				ended = time.Now()
			}
		}
	})
}

func TestGrantsAreSmallerAndFewerWhenTheShareIs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		set := metrics.NewSet()
		c, err := New(Config{Metrics: set})
		if err != nil {
			t.Fatal(err)
		}
		c.verdict.Store(&share.Verdict{Share: 0.5})
		if got := c.Grant(Receive, 1<<20); got != 1<<19 {
			t.Errorf("%d granted of 1 MiB, want half", got)
		}
		c.verdict.Store(&share.Verdict{Share: share.Floor})
		if got := c.Grant(Receive, 256<<10); got != leastGrant {
			t.Errorf("%d granted of 256 KiB, want the least", got)
		}
		if got := c.Grant(Receive, 100); got != 100 {
			t.Errorf("%d granted of 100", got)
		}
		end := c.Begin(Receive)
		time.Sleep(50 * time.Millisecond)
		end(0)
		if got := c.Grant(Receive, 100); got != 0 {
			t.Errorf("%d granted right after 50 ms of work", got)
		}
		if got := c.Grant(Reap, 100); got != 100 {
			t.Errorf("one kind pays for another: %d granted", got)
		}
		time.Sleep(time.Second)
		if got := c.Grant(Receive, 100); got != 100 {
			t.Errorf("%d granted after a rest", got)
		}
		var text bytes.Buffer
		set.WritePrometheus(&text)
		for _, line := range []string{
			`admission_slices_total{kind="receive",outcome="refused"} 1`, `admission_slices_total{kind="receive",outcome="granted"} 1`,
			`admission_busy_seconds_total{kind="receive"} 0.05`, `admission_share 0.1`,
		} {
			if !strings.Contains(text.String(), line+"\n") {
				t.Errorf("no %s in\n%s", line, &text)
			}
		}
	})
}

func TestWaitingForOthersIsFree(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, _ := New(Config{})
		c.verdict.Store(&share.Verdict{Share: share.Floor})
		for _, waited := range []time.Duration{time.Second, time.Hour} { // clocks may disagree
			end := c.Begin(Exchange)
			time.Sleep(time.Second)
			end(waited)
			if wait := c.ask(Exchange); wait != 0 {
				t.Errorf("%v after a second in which it waited %v", wait, waited)
			}
		}
	})
}

func TestOneLongWaitIsPaidForInBoundedTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c, _ := New(Config{})
		c.verdict.Store(&share.Verdict{Share: share.Floor})
		end := c.Begin(Exchange)
		time.Sleep(time.Hour)
		end(0)
		began := time.Now()
		if _, err := c.Slice(t.Context(), Exchange); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > time.Duration(float64(mostOwed)/share.Floor)+time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestNothingBeginsWhileTheDiskStallsAndAWaitEndsWithItsContext(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var stalled atomic.Bool
		stalled.Store(true)
		c, _ := New(Config{Stalled: stalled.Load})
		if got := c.Grant(Receive, 100); got != 0 {
			t.Errorf("%d granted while the disk stalls", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Slice(ctx, Scrub); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a slice while the disk stalls: %v", err)
		}
		stalled.Store(false)
		if _, err := c.Slice(t.Context(), Scrub); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingBeginsInAPause(t *testing.T) {
	c, _ := New(Config{})
	c.verdict.Store(&share.Verdict{Share: 0.5, Pause: true})
	if got := c.Grant(Receive, 100); got != 0 {
		t.Errorf("%d granted in a pause", got)
	}
	c.verdict.Store(&share.Verdict{Share: 0.5})
	if got := c.Grant(Receive, 100); got != 100 {
		t.Errorf("%d granted after a pause", got)
	}
}

func TestConfigReportsEveryFaultAtOnce(t *testing.T) {
	_, err := New(Config{Multiple: 0.5, LeastGoal: -1})
	if err == nil || !strings.Contains(err.Error(), "multiple") || !strings.Contains(err.Error(), "least goal") {
		t.Errorf("%v", err)
	}
}

func BenchmarkEnded(b *testing.B) {
	c, _ := New(Config{})
	for b.Loop() {
		c.Ended(Client, 3*time.Millisecond)
	}
}
