//go:build linux

package integration

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestScorecardFailsNothingNew runs the short form of every row of the
// scorecard. Its exit status says whether exactly the rows fail that are known
// to.
func TestScorecardFailsNothingNew(t *testing.T) {
	need(t, "ip", "iptables", "strace", "mkfs.ext4")
	if os.Geteuid() != 0 {
		refuse(t, "namespaces and mounts need root")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	scorecard := filepath.Join(t.TempDir(), "scorecard")
	run(t, nil, "go", "build", "-o", scorecard, "./scorecard")

	const within = 20 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, scorecard, "-short", "-binary", path)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it removes what it made
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var progress bytes.Buffer
	cmd.Stderr = &progress
	table, err := cmd.Output()
	t.Logf("\n%s", table)
	if err != nil {
		t.Errorf("scorecard: %v\n%s", err, &progress)
	}
}
