package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// stopAtGreeting ends the demo once it has said everything.
type stopAtGreeting struct {
	bytes.Buffer
	stop context.CancelFunc
}

func (s *stopAtGreeting) Write(text []byte) (int, error) {
	if bytes.Contains(text, []byte("Ctrl-C stops")) {
		s.stop()
	}
	return s.Buffer.Write(text)
}

func TestStoppingTheDemoIsNoWarning(t *testing.T) {
	for try := range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		out, errs := &stopAtGreeting{stop: cancel}, new(bytes.Buffer)
		port := 20000 + rand.IntN(10000) // below those that the machine gives to connections
		err := run(ctx, []string{"demo", "--nodes", "3", "--port", strconv.Itoa(port), "--data-dir", t.TempDir()}, out, errs)
		cancel()
		if errors.Is(err, syscall.EADDRINUSE) && try < 9 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if text := errs.String(); strings.Contains(text, "suspected") || strings.Contains(text, "closed network connection") {
			t.Errorf("the demo logs\n%s", text)
		}
		return
	}
}

func TestDemoThatCannotStartLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	if port+demoGossip+10 > 65535 {
		t.Skip("the free port is too high for the demo's others")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	err = run(t.Context(), []string{"demo", "--nodes", "2", "--port", strconv.Itoa(port)}, new(bytes.Buffer), new(bytes.Buffer))
	if err == nil || !strings.HasPrefix(err.Error(), "node 0: ") {
		t.Errorf("demo on a taken port: %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
