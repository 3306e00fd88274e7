package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestAZeroIsNoOtherWordForTheDefault(t *testing.T) {
	for _, flag := range []string{
		"n", "r", "w", "fsync-interval", "request-timeout", "max-clients", "max-value", "record-cache", "block-cache", "hint-budget", "weight", "disk-stall-limit",
	} {
		zero := "0"
		if flag == "fsync-interval" || flag == "request-timeout" || flag == "disk-stall-limit" {
			zero = "0s"
		}
		args := []string{"server", "--data-dir", t.TempDir(), "--" + flag, zero}
		err := run(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer))
		if want := flag + " must not be 0"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q said", args[3:], err, want)
		}
	}
}
