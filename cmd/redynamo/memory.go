package main

import (
	"os"
	"runtime/debug"
)

// gcPercent lets the heap grow to three times what is live before memory is
// collected, where Go's default is twice. What lives is mostly caches of fixed
// size, while every request leaves some garbage; at full load the collector is
// worth a noticeable part of the CPU time.
const gcPercent = 200

// tuneMemory sets gcPercent unless the user has set GOGC.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
