//go:build unix

package migrate

import (
	"context"
	"errors"
	"os"
	"testing"
)

// TestTwoImportsWithOneStateAreRefused starts one in the middle of another.
func TestTwoImportsWithOneStateAreRefused(t *testing.T) {
	from, to := bench(t)
	for way, cfg := range ways(t, from, to) {
		to.do(t, "FLUSHALL")
		ctx, stop := context.WithCancel(t.Context())
		second := cfg
		cfg.Progress = func(float64, *Counts) {
			if _, err := Run(ctx, second); !errors.Is(err, errInUse) {
				t.Errorf("%s: the second says %v", way, err)
			}
			second.DryRun = true
			if _, err := Run(t.Context(), second); err != nil {
				t.Errorf("%s: a dry run needs no state: %v", way, err)
			}
			second.DryRun = false
			stop()
		}
		if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", way, err)
		}
		if _, err := Run(t.Context(), second); err != nil {
			t.Errorf("%s: after it: %v", way, err)
		}
		if _, err := os.Stat(cfg.State + ".lock"); !os.IsNotExist(err) {
			t.Errorf("%s: the lock is left behind: %v", way, err)
		}
	}
}
