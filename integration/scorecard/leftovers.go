//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// removeLeftovers takes away what runs that did not end in order have left:
// namespaces, mounts and directories that carry the id of a process that is no
// longer there. The nodes of such a run died with it.
func removeLeftovers() {
	entries, _ := os.ReadDir(netnsDir) // there is none before the first namespace
	for _, e := range entries {
		if abandoned(e.Name()) {
			removeNetns(e.Name())
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), runPrefix+"*")) // the pattern is good
	for _, dir := range dirs {
		if abandoned(filepath.Base(dir)) {
			unmountBelow(dir)
			_ = os.RemoveAll(dir) // the next run tries again
		}
	}
}

// abandoned reports whether name is of a run whose process is gone.
func abandoned(name string) bool {
	rest, ours := strings.CutPrefix(name, runPrefix)
	if !ours {
		return false
	}
	pid, _, _ := strings.Cut(rest, "-")
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%s/comm", pid))
	own, _ := os.ReadFile("/proc/self/comm") // the program may have been given another name
	return err != nil || !strings.HasPrefix(string(text), "scorecard") && string(text) != string(own)
}

// unmountBelow unmounts everything below dir, what was mounted last first.
// A file system that is frozen is thawed.
func unmountBelow(dir string) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return // without /proc nothing was mounted either
	}
	var at []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			at = append(at, fields[1])
		}
	}
	for _, path := range slices.Backward(at) {
		_ = freeze(path, false) // it is not frozen as a rule
		if err := unix.Unmount(path, 0); err != nil {
			_ = unix.Unmount(path, unix.MNT_DETACH) // it goes when its last user does
		}
	}
}
