//go:build !race

package ring

import (
	"testing"

	"github.com/spaolacci/murmur3"
)

// Left out under the race detector, which stops the program in the library.
func TestKeyHashAgreesWithTheLibrary(t *testing.T) {
	rnd := seedFor(t, 15)
	for n := range 200 {
		key := make([]byte, n)
		for i := range key {
			key[i] = byte(rnd.Uint32())
		}
		if got, want := KeyHash(key), murmur3.Sum32(key); got != want {
			t.Fatalf("hash of %x is %#x, want %#x", key, got, want)
		}
	}
}
