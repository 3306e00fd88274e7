package coordinator

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestEveryRequestOfAClientIsTimed has a write that is handed over, so that two
// nodes time it, a read, and a read that fails when its time is over. What the
// coordinator reads for itself is no request.
func TestEveryRequestOfAClientIsTimed(t *testing.T) {
	var took []time.Duration // the bubble has one request under way at a time
	inBubble(t, 5, Config{Ended: func(d time.Duration) { took = append(took, d) }}, func(t *testing.T, r *rig) {
		owners, other := r.owners(key), r.others(key)[0]
		for _, o := range owners {
			o.mu.delay = time.Millisecond
		}
		expect := func(what string, n int, least, most time.Duration) {
			t.Helper()
			synctest.Wait()
			if len(took) != n || slices.Min(took) < least || slices.Max(took) > most {
				t.Errorf("%s: timed as %v, want %d times from %v to %v", what, took, n, least, most)
			}
			took = nil
		}
		if _, err := other.write(key, set("v"), WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("a write that is handed over", 2, time.Millisecond, 20*time.Millisecond)
		if _, err := other.read(key, ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("a read", 1, time.Millisecond, 20*time.Millisecond)
		for _, n := range r.nodes {
			n.set(deaf)
		}
		if _, err := other.read(key, ReadOptions{Timeout: 300 * time.Millisecond}); err == nil {
			t.Fatal("a read that nobody answers succeeds")
		}
		expect("a read that fails", 1, 300*time.Millisecond, 301*time.Millisecond)
	})
}
