package bubble

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestDueTimersOfManyGoroutines ends one process in six or ten under the race
// detector of Go 1.26 where bubbles have two processors.
func TestDueTimersOfManyGoroutines(t *testing.T) {
	const bubbles, goroutines, timers = 2000, 8, 20
	for range bubbles {
		Test(t, func(*testing.T) {
			var all sync.WaitGroup
			for range goroutines {
				all.Go(func() {
					for range timers {
						due := time.NewTimer(0)
						select {
						case <-due.C:
						default:
						}
						<-time.After(time.Millisecond)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestProcessorsComeBackAfterTheLastBubble(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	want := func(n int, when string) {
		t.Helper()
		if is := runtime.GOMAXPROCS(0); is != n {
			t.Errorf("%d processors %s, want %d", is, when, n)
		}
	}
	narrow()
	want(1, "with one bubble")
	narrow()
	widen()
	want(1, "after the second of two")
	widen()
	want(before, "after the last")
	Test(t, func(*testing.T) {
		if race {
			want(1, "in a bubble under the race detector")
		} else {
			want(before, "in a bubble")
		}
	})
}
