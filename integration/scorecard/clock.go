//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// clockEnv is the variable by which a program built by skewedBinary is told how
// wrong its clock is: OFFSET or OFFSET/PERIOD, in seconds. With a period the
// sign changes each time it has passed.
const clockEnv = "SCORECARD_CLOCK"

// clockSource is added to package time. Only the wall clock is wrong; the
// monotonic one, by which deadlines go, is not.
const clockSource = `package time

import "syscall"

var scorecardClock = func() (c struct{ offset, period int64 }) {
	text, _ := syscall.Getenv("` + clockEnv + `")
	sign, at := int64(1), &c.offset
	for _, b := range []byte(text) {
		switch {
		case b == '-':
			sign = -1
		case b == '/':
			at = &c.period
		case b >= '0' && b <= '9':
			*at = *at*10 + int64(b-'0')
		}
	}
	c.offset *= sign
	return c
}()

func scorecardOffset(mono int64) int64 {
	c := &scorecardClock
	if c.period > 0 && mono/1e9/c.period%2 == 1 {
		return -c.offset
	}
	return c.offset
}
`

// skewed builds the program once per run with a package time whose clock can be
// set wrong: Linux has no wall clock of one process.
type skewed struct {
	once sync.Once
	path string
	err  error
}

func (s *skewed) build(dir string) (string, error) {
	s.once.Do(func() { s.path, s.err = skewedBinary(dir) })
	return s.path, s.err
}

func skewedBinary(dir string) (string, error) {
	const reading = "sec, nsec, mono := runtimeNow()\n"
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", err
	}
	before, after, found := strings.Cut(string(text), "func Now() Time {\n")
	if !found || !strings.Contains(after, reading) {
		return "", fmt.Errorf("package time of %s is not as expected", runtime.Version())
	}
	after = strings.Replace(after, reading, reading+"\tsec += scorecardOffset(mono)\n", 1)
	replace := map[string]string{}
	for name, content := range map[string]string{"time.go": before + "func Now() Time {\n" + after, "scorecard_clock.go": clockSource} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(source, name)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "redynamo-skewed")
	build := exec.Command("go", "build", "-overlay", list, "-o", path, "github.com/redynamo/redynamo/cmd/redynamo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with another clock: %w\n%s", err, out)
	}
	return path, nil
}
