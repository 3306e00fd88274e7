//go:build !unix

package resp

// cpuSeconds is not known here.
func cpuSeconds() (user, sys float64) { return 0, 0 }
