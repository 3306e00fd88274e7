package main

import (
	"fmt"
	"strconv"
	"strings"
)

// byteSize is a number of bytes that people may write as 64MiB, 64mb, 64M or
// 67108864. Units are powers of 1024, as in redis.conf's mb.
type byteSize int64

// UnmarshalText reads the forms above.
func (b *byteSize) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	digits := strings.TrimRight(s, "bikmgt")
	shift, known := map[string]uint{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30, "gib": 30}[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	*b = byteSize(n << shift)
	return nil
}
