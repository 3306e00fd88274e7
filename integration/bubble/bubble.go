// Package bubble runs tests in virtual time, also under the race detector.
package bubble

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Test is [synctest.Test]. Under the race detector all bubbles of the process
// share one processor: up to Go 1.26 at least, goroutines of a bubble that
// receive from timers which are due do so in the detector's name of one
// goroutine, and two at once break the detector's state: now and then the
// process dies of a CHECK or a segmentation violation (golang/go#78156).
// The detector judges by what orders events, so it finds most races on one
// processor too; what runs in no bubble still has them all.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if race {
		narrow()
		defer widen()
	}
	synctest.Test(t, f)
}

// narrowed counts the bubbles that run under the race detector, and keeps how
// many processors there were before the first.
var narrowed struct {
	mu      sync.Mutex
	bubbles int
	before  int
}

func narrow() {
	narrowed.mu.Lock()
	defer narrowed.mu.Unlock()
	if narrowed.bubbles++; narrowed.bubbles == 1 {
		narrowed.before = runtime.GOMAXPROCS(1)
	}
}

func widen() {
	narrowed.mu.Lock()
	defer narrowed.mu.Unlock()
	if narrowed.bubbles--; narrowed.bubbles == 0 {
		runtime.GOMAXPROCS(narrowed.before)
	}
}
